"""Predictions whose processes are killed at random, for as long as you like, and their checksums.

    python benchmarks/soak.py --minutes 60
    python benchmarks/soak.py --volume mine.zarr --model mine.n2v --minutes 60 --seed 7

An undisturbed run comes first. Then, again and again, the same command writes a new output while
something happens to it every few seconds: a worker, its nanny or the driver is killed, stopped for
a while, or told to stop; between runs a shard is cut short, emptied, or left behind in part. The
command is run until it ends with 0. After each round every stored byte is compared with the
undisturbed output's, ``verify`` is asked, and processes that are left behind are counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import zarr

from n2v_scale.api import train
from n2v_scale.ledger import LEDGER_FOLDER
from n2v_scale.simulate import simulate_light_sheet

SHAPE = (96, 256, 256)
OPTIONS = ["--block=32,64,64", "--tile=32,32,32", "--chunk=16,16,16", "--shard=32,64,64"]
WORKERS = 2
MOST_RUNS = 200
"""Of one round."""
STARTING_S = 4.0
"""A driver needs about so long before anything is written."""


def main() -> None:
    """Disturb, compare, and print a line a round; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--volume", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--every", type=float, default=6.0, help="mean seconds between events")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="n2v-scale-") as name:
        rounds = soak(Path(name), options)
    wrong = sum(row["wrong"] for row in rounds)
    events = Counter(event for row in rounds for event in row["events"])
    print(f"{len(rounds)} rounds, {sum(events.values())} events, {wrong} wrong: {dict(events)}")
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=2) + "\n")
    sys.exit(1 if wrong else 0)


def soak(folder: Path, options: argparse.Namespace) -> list[dict]:
    """Rounds until the time is over."""
    volume, model = options.volume, options.model
    if volume is None:
        volume = folder / "volume.zarr"
        noisy = simulate_light_sheet(shape=SHAPE).noisy
        zarr.create_array(str(volume), data=noisy, chunks=(32, 32, 32))
    if model is None:
        model = folder / "model.n2v"
        train(volume, model, steps=1, patch=(16, 32, 32), batch=1, device="cpu")
    ended = run(command(volume, model, folder / "undisturbed.zarr")).wait()
    assert ended == 0, "the undisturbed run failed"
    expected = checksums(folder / "undisturbed.zarr")
    rng = np.random.default_rng(options.seed)
    rounds, until = [], time.monotonic() + 60 * options.minutes
    while time.monotonic() < until:
        out = folder / f"out-{len(rounds)}.zarr"
        row = one_round(command(volume, model, out), out, expected, rng, options.every)
        rounds.append(row)
        print(
            f"round {len(rounds)}: {row['runs']} runs, {len(row['events'])} events, "
            f"{row['seconds']:.0f} s, wrong: {row['wrong']} {row['what']}",
            flush=True,
        )
        if not row["wrong"]:
            shutil.rmtree(out)
    return rounds


def command(volume: Path, model: Path, out: Path) -> list[str]:
    """The prediction."""
    given = [str(volume), str(model), str(out), *OPTIONS, f"--workers={WORKERS}"]
    return [sys.executable, "-m", "n2v_scale", "predict", *given, "--threads=1", "--device=cpu"]


def run(arguments: list[str], log: Path | None = None) -> subprocess.Popen[bytes]:
    """In a group of its own, its words in ``log``."""
    with (log or Path(os.devnull)).open("ab") as words:
        return subprocess.Popen(arguments, stdout=words, stderr=words, start_new_session=True)


def one_round(
    arguments: list[str],
    out: Path,
    expected: dict[str, str],
    rng: np.random.Generator,
    every: float,
) -> dict:
    """One output, disturbed until it is finished, and what is wrong with it."""
    started, events, runs, log = time.monotonic(), [], 0, out.with_suffix(".log")
    left: set[psutil.Process] = set()
    while runs < MOST_RUNS:
        runs += 1
        driver = run(arguments, log)
        seen: set[psutil.Process] = set()
        pause = float(rng.uniform(0, STARTING_S)) + float(rng.exponential(every))
        while driver.poll() is None:
            until = time.monotonic() + pause
            while driver.poll() is None and time.monotonic() < until:
                with suppress(psutil.Error):
                    seen.update(psutil.Process(driver.pid).children(recursive=True))
                time.sleep(0.1)
            if driver.poll() is None:
                events.append(disturb(driver, rng))
            pause = float(rng.exponential(every))
        left |= seen
        if driver.returncode == 0:
            break
        if rng.random() < 0.5:
            events.append(damage(out, rng))
    time.sleep(2)
    what = differences(expected, checksums(out)) if driver.returncode == 0 else ["never finished"]
    verified = [sys.executable, "-m", "n2v_scale", "verify", str(out)]
    if run(verified, log).wait() != 0:
        what.append("verify found something")
    orphans = [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    what += [f"left behind: {orphan}" for orphan in orphans]
    for orphan in orphans:
        with suppress(psutil.Error):
            orphan.kill()
    seconds = time.monotonic() - started
    return {
        "runs": runs,
        "events": events,
        "seconds": seconds,
        "wrong": len(what),
        "what": what[:5],
    }


def disturb(driver: subprocess.Popen[bytes], rng: np.random.Generator) -> str:
    """Something happens to one of the processes; returns what."""
    kind = str(rng.choice(["child killed", "driver killed", "SIGTERM", "SIGINT", "child stopped"]))
    if kind.startswith("child"):
        with suppress(psutil.Error):
            children = psutil.Process(driver.pid).children(recursive=True)
            if not children:
                return "nobody there"
            child = children[int(rng.integers(len(children)))]
            if kind == "child killed":
                child.kill()
            else:
                child.suspend()
                time.sleep(float(rng.uniform(0, 4)))
                child.resume()
        return kind
    sent = {"driver killed": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
    with suppress(ProcessLookupError):
        driver.send_signal(sent[kind])
    return kind


def damage(out: Path, rng: np.random.Generator) -> str:
    """Something happens to a file between two runs; returns what."""
    files = [f for f in out.glob("0/c/**/*") if f.is_file() and ".partial" not in f.name]
    if not files:
        return "nothing there"
    file = files[int(rng.integers(len(files)))]
    kind = str(rng.choice(["shard cut short", "shard emptied", "partial file"]))
    if kind == "partial file":
        shutil.copy(file, file.with_name(f"{file.name}.{rng.bytes(8).hex()}.partial"))
    else:
        with file.open("r+b") as stored:
            stored.truncate(0 if kind == "shard emptied" else file.stat().st_size // 2)
    return kind


def checksums(out: Path) -> dict[str, str]:
    """Of every file but the ledger's."""
    return {
        str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(out.rglob("*"))
        if file.is_file() and LEDGER_FOLDER not in file.parts
    }


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Keys that are missing, too many, or other."""
    keys = expected.keys() | found.keys()
    return sorted(f"differs: {k}" for k in keys if expected.get(k) != found.get(k))


if __name__ == "__main__":
    main()
