"""From an S3 service to an S3 service: killed, gone on with, and no secret written anywhere."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import s3fs

from n2v_scale.api import predict, verify
from n2v_scale.ledger import LEDGER_FOLDER

BLOCKS = 40
A_PART = 5


@dataclass
class Bucket:
    """The scene's volume behind a URL, and what lies there."""

    fs: s3fs.S3FileSystem
    root: str
    options: list[str]

    def stored(self, name: str) -> dict[str, bytes]:
        """Every object of an image, by its key."""
        self.fs.invalidate_cache()
        prefix = f"{self.root.removeprefix('s3://')}/{name}/"
        return {key.removeprefix(prefix): self.fs.cat_file(key) for key in self.fs.find(prefix)}

    def marked(self, name: str) -> int:
        """Blocks of the full resolution that workers marked and nobody folded yet."""
        return sum(f"0/{LEDGER_FOLDER}/blocks" in key for key in self.stored(name))


@pytest.fixture
def bucket(scene: Any, s3: Any, tmp_path: Path) -> Iterator[Bucket]:
    options = s3.options
    fs = s3fs.S3FileSystem(
        key=options["key"],
        secret=options["secret"],
        endpoint_url=s3.endpoint,
        client_kwargs={"region_name": "us-east-1"},
        skip_instance_cache=True,
    )
    root = f"s3://{s3.bucket}/{tmp_path.name}"
    fs.put(scene.volume.address, f"{root}/v.zarr", recursive=True)
    yield Bucket(fs, root, [f"--storage-option={k}={v}" for k, v in options.items()])
    fs.rm(root, recursive=True)


def test_a_run_over_s3_is_killed_and_goes_on(
    scene: Any, bucket: Bucket, s3: Any, start: Callable[..., Any], tmp_path: Path
) -> None:
    source, target = f"{bucket.root}/v.zarr", f"{bucket.root}/o.zarr"
    arguments = ["predict", source, str(scene.model), target]
    arguments += [*scene.arguments(tmp_path)[4:], *bucket.options]
    killed = start(*arguments)
    killed.reach(A_PART)
    killed.stop(signal.SIGKILL)
    done = bucket.marked("o.zarr")
    assert A_PART <= done < BLOCKS
    again = start(*arguments)
    ended = again.end()
    assert ended.returncode == 0, ended.stderr
    assert len(again.computed()) <= BLOCKS - done  # the ledger is asked under the lock
    assert killed.computed().isdisjoint(again.computed())
    found = bucket.stored("o.zarr")
    undisturbed = tmp_path / "undisturbed.zarr"
    options = {"client": scene.client, "storage_options": s3.options, **scene.options}
    options.pop("workers")  # the client has those that it has
    predict(source, scene.model, undisturbed, **options)
    expected = scene.output(undisturbed).stored()
    assert len(expected) > BLOCKS
    assert [key for key in expected if found.get(key) != expected[key]] == []
    # every object, the log of events, what was said: the secret is in none of them
    written = [*found.values(), killed.events.read_bytes(), again.events.read_bytes()]
    written += [ended.stdout.encode(), ended.stderr.encode(), killed.end().stderr.encode()]
    for text in (s3.options["secret"], s3.options["key"]):
        assert [part for part in written if text.encode() in part] == []
    assert verify(target, storage_options=s3.options, client=scene.client).whole
