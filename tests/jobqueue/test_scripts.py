"""The scripts of jobs, for each batch system."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from n2v_scale.cluster_settings import BATCH_SYSTEMS, ClusterSettings
from n2v_scale.errors import ClusterError, ConfigError
from n2v_scale.jobqueue.scripts import Jobs

pytest.importorskip("dask_jobqueue")

KEYS = ["--tls-ca-file", "/s/ca.pem", "--tls-cert", "/s/my cert.pem", "--tls-key", "/s/key.pem"]


@pytest.fixture(autouse=True)
def no_lsf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LSF's units are those of a machine without its configuration: kilobytes."""
    monkeypatch.setenv("LSF_ENVDIR", str(tmp_path))


def jobs(folder: Path, system: Any, **settings: Any) -> Jobs:
    settings = {"partition": "long", "account": "imaging", "walltime": 9000, "cpus": 6} | settings
    chosen = ClusterSettings(system=system, memory=8 * 2**30, **settings)
    return Jobs(chosen, "tls://10.0.0.1:8786", 2, folder / "logs", tls=KEYS)


def script(folder: Path, system: Any, **settings: Any) -> str:
    return jobs(folder, system, **settings).job("n2v-1").job_script()


def worker_line(text: str, system: str) -> list[str]:
    """What starts the worker, as the shell takes it apart."""
    if system == "htcondor":
        arguments = next(line for line in text.splitlines() if line.startswith("Arguments"))
        inner = arguments.partition('"')[2].rpartition('"')[0]
        _, command = shlex.split(inner.replace("''", "'\"'\"'").replace('""', '"'))
        return shlex.split(command.rpartition("; ")[2])
    return shlex.split(text.strip().splitlines()[-1])


def value(arguments: list[str], option: str) -> str:
    """The last one counts."""
    return arguments[len(arguments) - arguments[::-1].index(option)]


ASKED = {
    "slurm": [
        "#SBATCH -J n2v-scale",
        "#SBATCH -p long",
        "#SBATCH -A imaging",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=6",
        "#SBATCH --mem=8G",
        "#SBATCH -t 02:30:00",
    ],
    "pbs": [
        "#PBS -N n2v-scale",
        "#PBS -q long",
        "#PBS -A imaging",
        "#PBS -l select=1:ncpus=6:mem=8192MB",
        "#PBS -l walltime=02:30:00",
    ],
    "moab": [
        "#PBS -N n2v-scale",
        "#PBS -q long",
        "#PBS -A imaging",
        "#PBS -l nodes=1:ppn=6,mem=8192MB",
        "#PBS -l walltime=02:30:00",
    ],
    "lsf": [
        "#BSUB -J n2v-scale",
        "#BSUB -q long",
        '#BSUB -P "imaging"',
        "#BSUB -n 6",
        '#BSUB -R "span[hosts=1]"',
        "#BSUB -M 8589935",
        "#BSUB -W 02:30",
    ],
    "sge": ["#$ -N n2v-scale", "#$ -q long", "#$ -P imaging", "#$ -l h_rt=02:30:00"],
    "oar": [
        "#OAR -n n2v-scale",
        "#OAR -q long",
        "#OAR --project imaging",
        "#OAR -l /nodes=1/core=6,walltime=02:30:00",
    ],
    "htcondor": ["MY.DaskWorkerCores = 6", "MY.DaskWorkerMemory = 8589934592"],
}
GPU = {
    "slurm": "#SBATCH --gres=gpu:1",
    "pbs": "#PBS -l select=1:ncpus=6:mem=8192MB:ngpus=1",
    "moab": "#PBS -l nodes=1:ppn=6:gpus=1,mem=8192MB",
    "lsf": '#BSUB -gpu "num=1"',
    "sge": "#$ -l gpu=1",
    "htcondor": "request_gpus = 1",
}


def test_every_system_is_tested() -> None:
    assert set(ASKED) == set(BATCH_SYSTEMS)
    assert set(GPU) == set(BATCH_SYSTEMS) - {"oar"}


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_what_is_asked_for(tmp_path: Path, system: str) -> None:
    own = "+Group = images" if system == "htcondor" else "--hello=1"
    lines = script(tmp_path, system, directives=(own,)).splitlines()
    assert [line for line in ASKED[system] if line not in lines] == []
    assert sum("hello=1" in line or "+Group = images" in line for line in lines) == 1
    assert "gpu" not in "\n".join(lines).lower()


@pytest.mark.parametrize("system", GPU)
def test_a_gpu(tmp_path: Path, system: str) -> None:
    assert GPU[system] in script(tmp_path, system, gpus=1).splitlines()


def test_a_gpu_on_oar_has_no_name_that_all_know(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gpus on oar: name the resource in directives"):
        script(tmp_path, "oar", gpus=1)
    own = "-p \"gpu='YES'\""
    assert f"#OAR {own}" in script(tmp_path, "oar", gpus=1, directives=(own,))


OWN = [
    ("slurm", "--gres=gpu:a100:1"),
    ("slurm", "--gpus-per-node=1"),
    ("slurm", "--gpus=h100:1"),
    ("slurm", "-G 1"),
    ("slurm", "--tres-per-task=gres:gpu:1"),
    ("pbs", "-l select=1:ncpus=6:mem=8gb:ngpus=1:gpu_model=a100"),
    ("moab", "-l nodes=1:ppn=6:gpus=1:titan"),
    ("lsf", '-gpu "num=1:mode=exclusive_process"'),
    ("lsf", '-R "rusage[ngpus_excl_p=1]"'),
    ("sge", "-l ngpus=1"),
    ("sge", "-l h_vmem=8G,gpu=1"),
    ("htcondor", "Request_GPUs = 1"),
]


@pytest.mark.parametrize(("system", "own"), OWN)
def test_a_gpu_that_the_user_asks_for_counts(tmp_path: Path, system: str, own: str) -> None:
    text = script(tmp_path, system, gpus=1, directives=(own,))
    assert own in text
    assert GPU[system] not in text.splitlines()


ELSEWHERE = [
    ("slurm", "--partition=gpu"),
    ("slurm", "--constraint=gpu80gb"),
    ("lsf", "-q gpu"),
    ("sge", "-q gpu.q"),
    ("htcondor", "accounting_group = gpu"),
]


@pytest.mark.parametrize(("system", "own"), ELSEWHERE)
def test_a_partition_called_gpu_is_no_gpu(tmp_path: Path, system: str, own: str) -> None:
    assert GPU[system] in script(tmp_path, system, gpus=1, directives=(own,)).splitlines()


def test_a_gpu_beside_another_resource(tmp_path: Path) -> None:
    """Of two --gres lines the last would count alone."""
    lines = script(tmp_path, "slurm", gpus=1, directives=("--gres=lscratch:100",)).splitlines()
    assert [line for line in lines if "--gres" in line] == ["#SBATCH --gres=lscratch:100,gpu:1"]


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_the_worker(tmp_path: Path, system: str) -> None:
    text = script(
        tmp_path, system, prologue=("module load cuda",), python="/opt/py", scratch="/fast"
    )
    assert text.index("module load cuda") < text.index("/opt/py")
    line = worker_line(text, system)
    assert line[:4] == ["/opt/py", "-m", "n2v_scale.worker", "tls://10.0.0.1:8786"]
    assert value(line, "--name") == "n2v-1"
    assert value(line, "--nthreads") == "2"  # the tasks, not the CPUs
    assert value(line, "--memory-limit") == "8.00GiB"
    assert value(line, "--death-timeout") == "120"
    assert value(line, "--local-directory") == "/fast"
    assert value(line, "--walltime") == "9000"
    assert value(line, "--protocol") == "tls"
    assert value(line, "--dashboard-address") == "127.0.0.1:0"
    assert {"--nanny", "--no-dashboard"} <= set(line)
    assert "--interface" not in line
    assert line[-6:] == KEYS


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_options_are_those_that_a_worker_has(tmp_path: Path, system: str) -> None:
    import click
    from distributed.cli.dask_worker import main

    line = worker_line(script(tmp_path, system, interface="ib0"), system)[3:]
    place = line.index("--walltime")
    del line[place : place + 2]  # ours
    for option in ("--tls-ca-file", "--tls-cert", "--tls-key"):
        file = tmp_path / "a.pem"
        file.write_text("")
        line[line.index(option) + 1] = str(file)
    parsed = main.make_context("worker", line).params
    assert (parsed["nthreads"], parsed["interface"], parsed["dashboard"]) == (2, "ib0", False)
    assert parsed["nanny"] is True
    assert isinstance(main, click.Command)


def test_the_python_here_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/my env/bin/python")
    assert worker_line(script(tmp_path, "slurm"), "slurm")[0] == "/opt/my env/bin/python"


def test_without_tls(tmp_path: Path) -> None:
    made = replace(jobs(tmp_path, "slurm", insecure=True), tls=(), scheduler="tcp://10.0.0.1:1")
    line = worker_line(made.job("n2v-1").job_script(), "slurm")
    assert value(line, "--protocol") == "tcp"
    assert not [option for option in line if option.startswith("--tls")]


def test_what_is_not_said_is_left_to_the_system(tmp_path: Path) -> None:
    text = script(tmp_path, "slurm", partition=None, account=None)
    assert "#SBATCH -p" not in text
    assert "#SBATCH -A" not in text
    assert "--local-directory" not in text


@pytest.mark.parametrize(
    ("system", "walltime", "said"),
    [
        ("slurm", 119.5, "-t 00:02:00"),
        ("slurm", 100 * 3600, "-t 100:00:00"),
        ("lsf", 119, "-W 00:02"),  # rounded up: the worker counts on it
        ("lsf", 7200, "-W 02:00"),
    ],
)
def test_walltimes(tmp_path: Path, system: str, walltime: float, said: str) -> None:
    assert f" {said}\n" in script(tmp_path, system, walltime=walltime)


def test_directives_of_htcondor_are_assignments(tmp_path: Path) -> None:
    own = 'requirements = (Arch == "X86_64")'
    assert own in script(tmp_path, "htcondor", directives=(own,)).splitlines()


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("slurm", "n2v-scale-{}.err"),
        ("lsf", "n2v-1-{}.err"),
        ("pbs", "n2v-scale.e{}"),
        ("oar", "n2v-scale-{}.err"),
        ("htcondor", "worker-{}.0.err"),
    ],
)
def test_the_log_of_a_job(tmp_path: Path, system: str, name: str) -> None:
    made = jobs(tmp_path, system)
    end = ".0" if system == "htcondor" else ""
    assert made.log(f"12{end}") is None
    assert str(made.logs) in made.job("n2v-1").job_script()
    out = name.replace(".err", ".out").replace(".e{}", ".o{}")
    for number in ("12", "112", "123"):
        (made.logs / out.format(number)).write_text(f"out of {number}")
    assert made.log(f"12{end}") == made.logs / out.format("12")
    (made.logs / name.format("12")).write_text("")
    assert made.log(f"12{end}") == made.logs / out.format("12")
    (made.logs / name.format("12")).write_text("Traceback")
    (made.logs / name.format("123")).write_text("Traceback of another")
    assert made.log(f"12{end}") == made.logs / name.format("12")
    assert made.log(f"2{end}") is None
    assert made.log(f"1{end}") is None


def test_a_folder_of_logs_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"slurm: .*Not a directory"):
        script(tmp_path / "file", "slurm")


def test_dask_jobqueue_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = jobs(tmp_path, "pbs")
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    message = r"jobs of pbs need dask-jobqueue: pip install 'n2v-scale\[slurm\]'"
    with pytest.raises(ClusterError, match=message):
        made.job("n2v-1")


HANDLER = """
import signal, sys, threading
from n2v_scale.jobqueue.scripts import _job_class
ours = lambda *_: None
signal.signal(signal.SIGINT, ours)
def load():
    assert "dask_jobqueue" not in sys.modules
    print(_job_class("slurm").__name__)
if sys.argv[1] == "main":
    load()
else:
    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
assert signal.getsignal(signal.SIGINT) is ours
assert signal.signal.__module__ == "signal"
assert signal.signal(signal.SIGINT, signal.SIG_DFL) is ours
"""


@pytest.mark.parametrize("thread", ["main", "another"])
def test_ctrl_c_stays_as_it_was(thread: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANDLER, thread], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "SLURMJob", "")
