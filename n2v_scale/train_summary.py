"""What a training ended with, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from n2v_scale.io.stores import normalise
from n2v_scale.model_card import CARD_NAME, LEARNED_NOISE, ModelCard


@dataclass(frozen=True)
class TrainSummary:
    """A finished training, all of its runs together."""

    model: str
    """The folder."""
    method: str
    """The one that was trained, where ``auto`` was asked for."""
    network: str
    parameters: int
    steps: int
    """0 where the network is fitted in closed form."""
    seconds: float
    """Of training, all runs together, as the model's card has them."""
    first_loss: float | None
    """On the held-out regions, before the first step; None where nothing is held out."""
    loss: float | None
    """The lowest there, of which the weights are kept."""
    stopped_early: bool
    already_finished: bool
    """Nothing was left to do."""
    learned_noise: dict[str, float] | None = None
    """Gain, offset and read noise in the volume's units, where they were learned."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def text(self) -> str:
        """For the terminal."""
        lost = self.loss is not None and self.first_loss is not None
        loss = f"; held-out loss {self.first_loss:.4f} -> {self.loss:.4f}" if lost else ""
        return (
            f"{self.model}: {self.method}, {self.network} of {self.parameters:,} parameters, "
            f"{self.steps} steps{loss}{self._learned()}"
        )

    def _learned(self) -> str:
        if self.learned_noise is None:
            return ""
        said = (f"{n.replace('_', ' ')} {v:.4g}" for n, v in self.learned_noise.items())
        return f"\nlearned noise: {', '.join(said)}"


def summary_of(folder: str, card: ModelCard, *, already_finished: bool) -> TrainSummary:
    """What the card of a finished model says."""
    losses = [row["held_out"] for row in card.history if "held_out" in row]
    return TrainSummary(
        model=folder,
        method=card.method,
        network=card.network,
        parameters=card.parameters,
        steps=int(card.training["steps_done"]),
        seconds=card.history[-1]["seconds"] if card.history else 0.0,
        first_loss=losses[0] if losses else None,
        loss=min(losses) if losses else None,
        stopped_early=bool(card.training["stopped_early"]),
        already_finished=already_finished,
        learned_noise=_camera(card),
    )


def _camera(card: ModelCard) -> dict[str, float] | None:
    learned = card.training.get(LEARNED_NOISE)
    if learned is None:
        return None
    return {name: learned[name] for name in ("gain", "offset", "read_noise")}


def version(folder: str) -> tuple[int, int] | None:
    """Tells a model from the one that a training puts in its place; None where there is none."""
    card = Path(normalise(folder)) / CARD_NAME
    if not card.is_file():
        return None
    found = card.stat()
    return found.st_ino, found.st_mtime_ns
