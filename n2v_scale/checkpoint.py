"""The state of an unfinished training: atomic, checked when it is read, and no pickle.

A checkpoint is one safetensors file whose name holds its checksum; the state that is no tensor is
JSON in its header. It is written to another name and renamed. The one before it is kept, for the
case that the newest is damaged.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from n2v_scale.errors import OutputError
from n2v_scale.model_card import METRICS_NAME

log = logging.getLogger(__name__)

SUFFIX = ".training"
"""Of the folder beside the model that checkpoints lie in until it is finished."""
KEPT = 2
PARTIAL = ".partial"
STATE = "state"
FORMAT = 1
_NAME = re.compile(r"step-(\d{10})-([0-9a-f]{16})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that goes on: tensors by name, and the rest as JSON."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of one training."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def beside(cls, model: Path) -> CheckpointFolder:
        """Of the training that will write ``model``."""
        return cls(model.with_name(model.name + SUFFIX))

    def write(self, step: int, checkpoint: Checkpoint) -> Path:
        """Add a checkpoint, on the disk when this returns, and delete all but the last two."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        self.path.mkdir(parents=True, exist_ok=True)
        partial = self.path / f".{os.getpid()}{PARTIAL}"
        try:
            save_file(
                {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()},
                partial,
                metadata={STATE: json.dumps({**checkpoint.state, "format": FORMAT})},
            )
            with partial.open("rb+") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            target = self.path / f"step-{step:010}-{digest[:16]}.safetensors"
            partial.replace(target)
            _sync(self.path)
        except (OSError, SafetensorError) as error:
            raise OutputError(f"{self.path}: a checkpoint cannot be written: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
        files = self.files()
        # Later ones are damaged: this training went on from before them.
        for old in (
            *files[: max(0, files.index(target) - KEPT + 1)],
            *files[files.index(target) + 1 :],
        ):
            old.unlink(missing_ok=True)
        return target

    def files(self) -> list[Path]:
        """The checkpoints, oldest first."""
        if not self.path.is_dir():
            return []
        return sorted(p for p in self.path.iterdir() if _NAME.fullmatch(p.name))

    def latest(self) -> Path | None:
        """The newest checkpoint that is whole; None without any."""
        for path in reversed(self.files()):
            if _is_whole(path):
                return path
            log.warning("%s is damaged: the checkpoint before it is used", path)
        return None

    def clear(self) -> None:
        """Delete all that was kept of a training."""
        for path in (*self.files(), *self.path.glob(f".*{PARTIAL}"), self.path / METRICS_NAME):
            path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """What :meth:`CheckpointFolder.write` was given."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        state = json.loads(opened.metadata()[STATE])
        return Checkpoint({name: opened.get_tensor(name) for name in list(opened.keys())}, state)


def step_of(path: Path) -> int:
    """The step that a checkpoint was written after."""
    matched = _NAME.fullmatch(path.name)
    assert matched is not None
    return int(matched[1])


def _sync(folder: Path) -> None:
    """The names in a folder are on the disk, where that can be asked for."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_whole(path: Path) -> bool:
    matched = _NAME.fullmatch(path.name)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return False
    return matched is not None and digest.startswith(matched[2])


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under names of their own. The tensors are copied: they may share memory elsewhere."""
    return {f"{prefix}.{name}": tensor.detach().clone() for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What :func:`prefixed` was given."""
    start = f"{prefix}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
