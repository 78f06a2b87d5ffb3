"""What a training needs, all decided before it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from n2v_scale.architecture import Design
from n2v_scale.budget import Budget
from n2v_scale.checkpoint import Checkpoint, CheckpointFolder
from n2v_scale.config import TrainSettings
from n2v_scale.methods.base import Method
from n2v_scale.metrics_file import MetricsFile
from n2v_scale.parallel import Ranks
from n2v_scale.patches import PatchSampler
from n2v_scale.progress import NoProgress, Progress


@dataclass
class Run:
    """One training, in one process."""

    settings: TrainSettings
    design: Design
    method: Method
    sampler: PatchSampler
    budget: Budget
    device: torch.device
    metrics: MetricsFile | None = None
    checkpoints: CheckpointFolder | None = None
    """None: nothing is kept when it is interrupted."""
    begun: Checkpoint | None = None
    """Where an earlier run stopped."""
    initial: dict[str, Tensor] | None = None
    """Weights to begin with."""
    ranks: Ranks = field(default_factory=Ranks)
    progress: Progress = field(default_factory=NoProgress)
    request: dict[str, Any] = field(default_factory=dict)
    """What was asked for, as the checkpoints keep it."""
    check: Callable[[], None] = lambda: None
    """Raises when another training has taken this one's place."""
