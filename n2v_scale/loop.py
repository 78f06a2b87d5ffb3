"""The training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from n2v_scale._version import __version__
from n2v_scale.architecture import DEFAULT_STEPS, Design
from n2v_scale.config import TrainSettings
from n2v_scale.denoiser import Normalisation
from n2v_scale.devices import channels_last, choose_device, compute_exactly
from n2v_scale.errors import ConfigError, TrainingError
from n2v_scale.geometry import Shape
from n2v_scale.io.volume import Volume
from n2v_scale.methods import method_to_dict
from n2v_scale.methods.base import Method
from n2v_scale.methods.n2v import Noise2Void
from n2v_scale.model_card import ModelCard, TrainedOn
from n2v_scale.nets import Network, build_network, config_to_dict
from n2v_scale.nets.filter_unet import FilterUNet
from n2v_scale.nets.receptive_field import measure_receptive_field
from n2v_scale.patches import PatchSampler
from n2v_scale.progress import NoProgress, Progress

INITIAL_PATCHES = 64
"""Patches that a network's closed-form start is fitted to."""
WARM_UP_STEPS = 50
AVERAGE_DECAY = 0.995
"""Of the exponential moving average of the weights, which is what is delivered."""


@dataclass(frozen=True)
class Trained:
    """What training delivers, before it is written."""

    card: ModelCard
    weights: dict[str, Tensor]


def train_network(
    volume: Volume,
    normalisation: Normalisation,
    settings: TrainSettings,
    design: Design,
    sampler: PatchSampler,
    *,
    progress: Progress | None = None,
) -> Trained:
    """Train on ``volume`` and return the weights with the lowest held-out loss.

    Computes on torch's current threads. With ``settings.steps``, the same seed, processor type and
    number of threads give the same weights (on a GPU, nearly).

    Raises
    ------
    TrainingError
        When the loss stops being finite.
    """
    progress = progress or NoProgress()
    device = torch.device(choose_device(settings.device))
    compute_exactly()
    method = Noise2Void(settings.voxels_per_site, design.radius)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build_network(design.network, design.network_config)
    if isinstance(network, FilterUNet):
        progress.say("fitting the linear filter")
        network.initialise(_as_tensors(sampler.initial(INITIAL_PATCHES)))
    network.to(device)
    if device.type == "cpu":
        channels_last(network)
    average = copy.deepcopy(network).eval()
    held_out = [torch.from_numpy(v)[None, None].to(device) for v in sampler.validation()]
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    budget = Budget(settings.steps, settings.minutes)
    history = [{"step": 0.0, "seconds": 0.0, **_validate(method, average, held_out)}]
    best, best_weights = history[0].get("held_out"), copy.deepcopy(average.state_dict())

    batches = iter(sampler)
    with progress.step("training", budget.total, budget.unit) as bar:
        recent: list[float] = []
        while (share := budget.share()) < 1:
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * schedule(budget.step, share)
            generator = torch.Generator(device).manual_seed(_stream(settings.seed, budget.step))
            batch = torch.from_numpy(next(batches))[:, None].to(device)  # (b, 1, z, y, x)
            example = method.prepare(_augment(batch, generator, design.turns), generator)
            loss = method.loss(network(example.input), example)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            _average(average, network, budget.step)
            recent.append(loss.item())
            if not math.isfinite(recent[-1]):
                raise TrainingError(
                    f"the loss is not finite at step {budget.step + 1}: "
                    f"try a lower --learning-rate than {settings.learning_rate:g}"
                )
            done = budget.advance()
            if budget.step % settings.validate_every == 0 or budget.share() >= 1:
                history.append(
                    {
                        "step": float(budget.step),
                        "seconds": round(budget.seconds(), 3),
                        "training": float(np.mean(recent)),
                        **_validate(method, average, held_out),
                    }
                )
                recent.clear()
                value = history[-1].get("held_out")
                if value is None or best is None or value < best:  # nothing held out: the last
                    best, best_weights = value, copy.deepcopy(average.state_dict())
            bar.advance(done, _note(history[-1]))
    card = _card(volume, normalisation, settings, design, method, average, history)
    card = card.model_copy(
        update={
            "training": {
                **card.training,
                "device": device.type,
                "threads": torch.get_num_threads(),
            }
        }
    )
    return Trained(card, best_weights)


class Budget:
    """How much training there is: steps, or minutes on the clock."""

    def __init__(self, steps: int | None, minutes: float | None) -> None:
        if steps is not None and minutes is not None:
            raise ConfigError("steps and minutes are both given: choose one")
        self.steps = steps if steps is not None or minutes is not None else DEFAULT_STEPS
        self.limit_s = None if minutes is None else 60 * minutes
        self.step = 0
        self.started = self.told = time.monotonic()

    @property
    def total(self) -> float:
        """In :attr:`unit`."""
        return float(self.steps) if self.steps is not None else float(self.limit_s or 0)

    @property
    def unit(self) -> str:
        """Of the progress bar."""
        return "step" if self.steps is not None else "s"

    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.started

    def share(self) -> float:
        """How much of it is spent, 0 to 1."""
        if self.steps is not None:
            return self.step / self.steps
        return min(1.0, self.seconds() / float(self.limit_s or 1))

    def advance(self) -> float:
        """One step is done; returns what that is in :attr:`unit`."""
        self.step += 1
        if self.steps is not None:
            return 1.0
        before, self.told = self.told, time.monotonic()
        return self.told - before


def schedule(step: int, share: float) -> float:
    """A linear warm-up, then half a cosine down to zero (Loshchilov and Hutter 2017)."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * share))


def _stream(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, 7, step)).generate_state(1, np.uint64)[0] >> 1)


def _as_tensors(
    patches: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]],
) -> Iterator[Tensor]:
    return (torch.from_numpy(p)[None, None] for p in patches)


def _augment(batch: Tensor, generator: torch.Generator, turns: bool) -> Tensor:
    """Flips along each axis and quarter turns in the plane; never Z into Y."""
    draws = torch.rand(4, generator=generator, device=generator.device).tolist()
    batch = batch.flip([axis + 2 for axis in range(3) if draws[axis] < 0.5])
    return torch.rot90(batch, int(draws[3] * 4), (3, 4)) if turns else batch


def _note(row: dict[str, float]) -> str:
    named = {"loss": row.get("training"), "held out": row.get("held_out")}
    return ", ".join(f"{name} {value:.4f}" for name, value in named.items() if value is not None)


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, step: int) -> None:
    decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
    for mean, value in zip(
        average.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


@torch.no_grad()
def _validate(method: Method, network: nn.Module, held_out: list[Tensor]) -> dict[str, float]:
    """The mean loss on the held-out patches, with the same sites every time; {} without any."""
    losses = []
    for k, patch in enumerate(held_out):
        generator = torch.Generator(patch.device).manual_seed(k)
        example = method.prepare(patch, generator)
        losses.append(float(method.loss(network(example.input), example)))
    return {"held_out": float(np.mean(losses))} if losses else {}


def _card(
    volume: Volume,
    normalisation: Normalisation,
    settings: TrainSettings,
    design: Design,
    method: Noise2Void,
    network: Network,
    history: list[dict[str, float]],
) -> ModelCard:
    stride: Shape = design.network_config.stride
    units = {axis.unit for axis in volume.axes if axis.name in "zyx" and axis.unit}
    return ModelCard(
        package_version=__version__,
        method=method.name,
        method_config=method_to_dict(method),
        network=design.network,
        network_config=config_to_dict(design.network_config),
        receptive_field=measure_receptive_field(network, stride),
        stride=stride,
        parameters=sum(p.numel() for p in network.parameters()),
        weights_sha256="",
        trained_on=TrainedOn(
            address=volume.address,
            identity=volume.identity(),
            dtype=volume.dtype,
            shape=volume.shape,
            voxel_size=volume.voxel_size,
            unit=units.pop() if len(units) == 1 else None,
            channels=volume.channels,
            offset=normalisation.offset,
            scale=normalisation.scale,
        ),
        training={
            **settings.model_dump(mode="json"),
            "patch": list(design.patch),
            "batch": design.batch,
            "patch_voxels": prod(design.patch) * design.batch,
            "steps_done": int(history[-1]["step"]),
        },
        history=history,
    )
