"""Where to compute, from words, presets and TOML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from n2v_scale.cluster import shared_folder
from n2v_scale.cluster_settings import (
    BATCH_SYSTEMS,
    ClusterSettings,
    preset_names,
    presets_folder,
    read_cluster,
)
from n2v_scale.errors import ConfigError


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of configuration, which is empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def preset(config: Path) -> Any:
    """Writes presets."""

    def write(name: str, text: str) -> Path:
        file = config / "n2v-scale" / "clusters" / f"{name}.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write


def test_nothing_means_this_machine() -> None:
    assert read_cluster(None) == read_cluster("local") == ClusterSettings()
    assert ClusterSettings().system == "local"
    assert not ClusterSettings().batch


@pytest.mark.parametrize("word", BATCH_SYSTEMS)
def test_a_batch_system(word: str) -> None:
    chosen = read_cluster(word, jobs=3)
    assert (chosen.system, chosen.jobs, chosen.batch) == (word, 3, True)


@pytest.mark.parametrize("word", ["tls://head:8786", "tcp://10.0.0.1:8786", "run/scheduler.json"])
def test_a_scheduler(word: str) -> None:
    chosen = read_cluster(word)
    assert (chosen.system, chosen.address, chosen.batch) == ("scheduler", word, False)


@pytest.mark.parametrize("header", ["", "[cluster]\n"])
def test_toml_alone_or_in_a_table(tmp_path: Path, header: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        f'{header}system = "slurm"\npartition = "gpu"\nwalltime = "1-00:00:00"\nmemory = "64GB"\n'
        'gpus = 1\nprologue = ["module load cuda"]\nwait = "90min"\n'
    )
    assert read_cluster(None, file) == ClusterSettings(
        system="slurm",
        partition="gpu",
        walltime=86_400,
        memory=64 * 10**9,
        gpus=1,
        prologue=("module load cuda",),
        wait=5400,
    )


def test_what_is_given_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        '[cluster]\nsystem = "slurm"\njobs = 8\ngpu-memory = "40GB"\n[train]\nsteps = 5\n'
    )
    chosen = read_cluster("slurm", file, jobs=2, partition=None)
    assert (chosen.system, chosen.jobs, chosen.gpu_memory) == ("slurm", 2, 40 * 10**9)


@pytest.mark.parametrize("word", ["slurm", "local", "tls://head:8786"])
def test_a_file_for_another_system_is_refused(tmp_path: Path, word: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[cluster]\nsystem = "pbs"\n')
    with pytest.raises(ConfigError, match=rf'^--cluster {word}: .*c\.toml says system = "pbs"'):
        read_cluster(word, file)


def test_a_process_without_a_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(Path, "expanduser", lambda _: homeless())
    assert read_cluster("slurm").batch
    assert preset_names() == []
    with pytest.raises(ConfigError, match=r"^no home directory is known here: .*; set HOME$"):
        read_cluster("mylab")
    with pytest.raises(ConfigError, match=r"^shared = '~/\.n2v-scale': no home directory"):
        shared_folder(read_cluster("slurm"))


def test_a_preset(preset: Any) -> None:
    file = preset("mylab", 'system = "lsf"\naccount = "imaging"\njobs = 8\n')
    assert file.parent == presets_folder()
    chosen = read_cluster("mylab", jobs=16)
    assert (chosen.system, chosen.account, chosen.jobs) == ("lsf", "imaging", 16)


def test_presets_lie_in_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert presets_folder() == tmp_path / ".config" / "n2v-scale" / "clusters"


def test_a_preset_and_a_file_are_one_too_many(preset: Any, tmp_path: Path) -> None:
    preset("mylab", 'system = "lsf"\n')
    with pytest.raises(ConfigError, match=r"mylab is the preset .*: leave out --cluster-config"):
        read_cluster("mylab", tmp_path / "c.toml")


def test_an_unknown_word_lists_what_there_is(preset: Any) -> None:
    with pytest.raises(ConfigError) as before:
        read_cluster("slrum")
    assert str(before.value).startswith("--cluster slrum: choose local, slurm, pbs, lsf,")
    assert str(before.value).endswith(f"or a preset NAME.toml in {presets_folder()}")
    preset("mylab", "")
    preset("atlas", "")
    with pytest.raises(ConfigError) as after:
        read_cluster("slrum")
    assert str(after.value).endswith(f"or a preset of {presets_folder()}: atlas, mylab")


@pytest.mark.parametrize(
    ("word", "given", "message"),
    [
        ("slurm", {"nodes": 2}, r"^nodes: there is no such setting$"),
        ("slurm", {"driver": {"memry": 1}}, r"^driver\.memry: there is no such setting$"),
        ("slurm", {"directives": "--exclusive"}, r"^directives: this has to be a list, in brack"),
        ("slurm", {"gpus": 2}, r"^gpus: Input should be less than or equal to 1 \(got 2\)"),
        ("slurm", {"jobs": 0}, r"^jobs: Input should be greater than 0 \(got 0\)"),
        ("slurm", {"memory": "much"}, r"^memory: this is no amount of memory, such as 16GB"),
        ("slurm", {"walltime": "soon"}, r"^walltime: this is no duration"),
        ("slurm", {"walltime": "30s"}, r"^walltime: Input should be greater than or equal to 60"),
        ("slurm", {"walltime": float("inf")}, r"^walltime: Input should be a finite number"),
        ("slurm", {"port": 65536}, r"^port: Input should be less than 65536"),
        ("slurm", {"address": "tls://a:1"}, r"^address belongs to system scheduler$"),
        (None, {"system": "scheduler"}, r"^address belongs to system scheduler$"),
        ("slurm", {"interface": "ib0", "host": "10.0.0.1"}, r"^interface and host say the same"),
        ("tls://a:1", {"tls_ca": "ca.pem"}, r"^tls-ca, tls-cert and tls-key belong together"),
        (
            "slurm",
            {"tls_ca": "a", "tls_cert": "b", "tls_key": "c"},
            r"^tls-ca, tls-cert and tls-key are for a scheduler that runs already",
        ),
        (None, {"system": "condor"}, r"^system: Input should be 'slurm', 'pbs'"),
        (None, {"jobs": 8}, r"^--jobs is for a cluster: say which with --cluster, or system = …"),
        (None, {"insecure": True}, r"^--insecure is for a cluster"),
    ],
)
def test_what_is_refused(word: str | None, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_cluster(word, **given)


def test_a_file_that_names_no_system_is_not_taken_for_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('partition = "gpu"\n')
    with pytest.raises(ConfigError, match=r"c\.toml is for a cluster: say which with --cluster"):
        read_cluster(None, file)
    assert read_cluster("slurm", file).partition == "gpu"
    file.write_text('system = "local"\n')
    assert read_cluster(None, file) == ClusterSettings()


def test_a_scheduler_with_its_certificates() -> None:
    files = {"tls_ca": "ca.pem", "tls_cert": "cert.pem", "tls_key": "key.pem"}
    chosen = read_cluster("tls://a:1", **files)
    assert (chosen.tls_ca, chosen.tls_cert, chosen.tls_key) == ("ca.pem", "cert.pem", "key.pem")
