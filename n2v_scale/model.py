"""The model folder: a JSON card and one safetensors file, opened as a Denoiser.

Nothing here is a pickle: a folder from a stranger cannot run code. torch is imported when weights
are needed, so that planning, scheduling and ``--help`` do without.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2v_scale.allocator import SLABS_BYTES, keep_slabs
from n2v_scale.denoiser import (
    Estimate,
    FloatArray,
    Normalisation,
    OpenOptions,
    Region,
    tile_boxes,
)
from n2v_scale.errors import ModelError, OutputError
from n2v_scale.folders import fresh_folder
from n2v_scale.forward_memory import FLOAT32, forward_bytes
from n2v_scale.forward_work import forward_products
from n2v_scale.geometry import NO_HALO, Box, Halo, Shape, align_halo, padded_shape
from n2v_scale.io.volume import Volume
from n2v_scale.mirrors import MIRRORS
from n2v_scale.model_card import (
    CARD_NAME,
    LEARNED_NOISE,
    METRICS_NAME,
    WEIGHTS_NAME,
    ModelCard,
    read_card,
)
from n2v_scale.network_config import config_from_dict
from n2v_scale.noise import RESIDUAL_HALO, NoiseModel

if TYPE_CHECKING:
    import torch

    from n2v_scale.methods.base import Method, TensorEstimate
    from n2v_scale.nets import Network
    from n2v_scale.nets.inference import Inference


PROCESS_BYTES = 420 * 2**20 + SLABS_BYTES
"""Of a worker with Dask, zarr and torch, which has computed a small tile and keeps its slabs."""
POSTERIOR_COPIES = 12
"""Of what the network gives, while the voxels' own values are put back."""
STD_COPIES = 5
"""Beside these, while its standard deviation is computed."""
HIDING_COPIES = 9
"""Of a tile, where subsets of it are hidden in turn."""
MARGIN = 1.1
"""For what the allocator and the convolutions' own buffers take: 3% were seen."""
PREDICT_STD = ("ssdn",)
"""Methods whose network predicts a standard deviation."""
DEVICE_PROCESS_BYTES = 3 * 2**30
"""The same with a GPU's context; a guess."""


class Model:
    """A trained network with its normalisation: a :class:`n2v_scale.denoiser.Denoiser`."""

    needs_normalisation = True

    def __init__(self, folder: str | Path, options: OpenOptions | None = None) -> None:
        self.folder = Path(folder)
        self.options = options or OpenOptions()
        self.card = read_card(self.folder)

    @property
    def halo(self) -> Halo:
        """The network's measured receptive field, and what the posterior looks at around it."""
        z, y, x = (
            (low + a, high + b)
            for (low, high), (a, b) in zip(self._field, self._margin, strict=True)
        )
        return z, y, x

    @property
    def _field(self) -> Halo:
        """Of the network; of its mirror images too, where they are applied."""
        field = self.card.receptive_field
        if not self.options.tta:
            return field
        z, y, x = ((max(sides), max(sides)) for sides in field)
        return z, y, x

    @property
    def blind(self) -> bool:
        """Whether it predicts a voxel without having seen it."""
        return self.card.blind and not (self.options.plain and self.card.passes > 1)

    @property
    def several_passes(self) -> bool:
        """Whether it is applied in more than one, unless it is applied plainly."""
        return self.card.passes > 1

    @property
    def knows_std(self) -> bool:
        """Whether there is a posterior, or the network predicts a distribution."""
        return self.options.noise is not None or self.card.method in PREDICT_STD

    @property
    def _passes(self) -> int:
        return 1 if self.options.plain else self.card.passes

    @property
    def _margin(self) -> Halo:
        """How much more than the core the network must give, in multiples of the stride."""
        return NO_HALO if self.options.noise is None else align_halo(RESIDUAL_HALO, self.stride)

    @property
    def stride(self) -> Shape:
        """The network's total pooling."""
        return self.card.stride

    @property
    def key(self) -> str:
        """A hash of the weights and of everything on the card that shapes the result."""
        card = self.card
        parts: list[Any] = [card.method, card.method_config, card.network, card.network_config]
        parts += [card.receptive_field, card.stride]
        return hashlib.sha256(repr([*parts, card.weights_sha256]).encode()).hexdigest()

    @property
    def base_bytes(self) -> int:
        """An upper bound of what a worker process holds before its first tile."""
        process = PROCESS_BYTES if self.options.device == "cpu" else DEVICE_PROCESS_BYTES
        return process + 2 * FLOAT32 * self.card.parameters

    def memory_bytes(self, core: Shape) -> int:
        """An upper bound of what a forward pass over a tile with this core allocates."""
        config = config_from_dict(self.card.network, self.card.network_config)
        aligned = Box.whole(padded_shape(core, self.stride)).expand(self._margin).shape
        crop = align_halo(self._field, self.stride)
        tile = prod(Box.whole(aligned).expand(crop).shape)
        forward = forward_bytes(
            config, aligned, crop, device=self.options.device, precision=self.options.precision
        )
        # Beside it the tile as it was read and while it is normalised, and the estimate in units.
        beside = 2 * tile + self._estimate_copies * prod(aligned)
        beside += (HIDING_COPIES if self._passes > 1 else 0) * tile
        beside += (tile + 2 * prod(aligned)) if self.options.tta else 0
        return int(MARGIN * (forward + FLOAT32 * beside))

    @property
    def _estimate_copies(self) -> int:
        """Of what the network gives, until it is an estimate in units."""
        if self.options.noise is None:
            return 2
        return POSTERIOR_COPIES + (STD_COPIES if self.options.std else 0)

    def work(self, core: Shape, halo: Halo) -> float:
        """Multiplications of a forward pass that computes what the core needs, and no more."""
        config = config_from_dict(self.card.network, self.card.network_config)
        given: list[Any] = list(zip(halo, self._margin, strict=True))
        z, y, x = ((min(low, a), min(high, b)) for (low, high), (a, b) in given)
        wide = Box.whole(core).expand((z, y, x)).shape
        z, y, x = ((max(0, low - a), max(0, high - b)) for (low, high), (a, b) in given)
        passes = self._passes * (len(MIRRORS) if self.options.tta else 1)
        return passes * forward_products(config, wide, (z, y, x))

    def normalisation_for(self, volume: Volume) -> Normalisation | None:
        """A training volume's constants when ``volume`` is that volume, else None."""
        identity = volume.identity()
        for trained in (self.card.trained_on, *self.card.also_trained_on):
            if identity == trained.identity and set(volume.channels) <= set(trained.channels):
                break
        else:
            return None
        where = [trained.channels.index(c) for c in volume.channels]
        return Normalisation(
            tuple(trained.offset[i] for i in where), tuple(trained.scale[i] for i in where)
        )

    def noise_for(self, volume: Volume) -> tuple[NoiseModel | None, ...] | None:
        """What training was told of the camera, or learned, when ``volume`` is a training volume,
        else None.
        """
        asked = self.card.training
        told = {n: asked[n] for n in ("gain", "offset", "read_noise") if asked.get(n) is not None}
        camera = NoiseModel(**told) if len(told) == 3 else self.learned_noise
        if camera is None:
            return None
        trained = (self.card.trained_on, *self.card.also_trained_on)
        if all(volume.identity() != one.identity for one in trained):
            return None
        return (camera,) * volume.shape[1]

    @property
    def learned_noise(self) -> NoiseModel | None:
        """That was trained with the network, in the training volumes' units; None without."""
        learned = self.card.training.get(LEARNED_NOISE)
        return None if learned is None else NoiseModel(**learned)

    def check_fits(self, volume: Volume) -> None:
        """Raise a ModelError when a model of volumes is given an image without depth."""
        if self.card.trained_on.shape[2] > 1 and volume.spatial_shape[0] == 1:
            raise ModelError(
                f"{self.folder} was trained on {self.card.trained_on.shape[2]} planes and "
                f"{volume.address} has one: train a model on images without depth"
            )

    @cached_property
    def network(self) -> Network:
        """The network with its weights, as it was trained, on the CPU."""
        from safetensors.torch import load_file

        from n2v_scale.nets import network_from_dict

        network = network_from_dict(self.card.network, self.card.network_config)
        path = self.folder / WEIGHTS_NAME
        try:
            weights = load_file(path)
            network.load_state_dict(weights)
        except Exception as error:
            raise ModelError(
                f"{path} cannot be loaded ({error}): copy the model again or train it anew"
            ) from None
        if sha256(path) != self.card.weights_sha256:
            raise ModelError(f"{path} is not the file that {CARD_NAME} describes: copy it again")
        return network.eval()

    @cached_property
    def inference(self) -> Inference:
        """The network as it is applied to tiles, on its device."""
        from n2v_scale.devices import compute_exactly
        from n2v_scale.nets.inference import for_inference

        compute_exactly()
        keep_slabs()
        options = self.options
        return for_inference(self.network, device=options.device, precision=options.precision)

    @cached_property
    def method(self) -> Method:
        """How the network is applied."""
        from n2v_scale.methods import method_from_dict

        plain = {"plain": True} if self.options.plain and self.card.passes > 1 else {}
        return method_from_dict(self.card.method, self.card.method_config | plain)

    def denoise(self, tile: FloatArray, region: Region) -> Estimate:
        """The estimate of ``region.core``; see :class:`n2v_scale.denoiser.Denoiser`.

        Past the volume's end the tile is padded to the stride with zeros after normalisation.
        """
        import torch

        constants = self.options.normalisation
        if constants is None:
            raise ModelError("the model was opened without the volume's normalisation")
        boxes = tile_boxes(region.core, self.halo, self.stride, region.shape)
        offset, scale = constants.offset[region.c], constants.scale[region.c]
        padded = np.zeros(boxes.padded.shape, tile.dtype)
        data = padded[boxes.data.slices_in(boxes.padded)]
        np.subtract(tile, offset, out=data)
        data /= scale
        from n2v_scale.devices import torch_threads

        with torch.inference_mode(), torch_threads(self.options.threads):
            x = torch.from_numpy(padded)[None, None].to(self.options.device)
            inside = boxes.data.shift(tuple(-a for a in boxes.padded.start))
            wide = boxes.aligned.expand(self._margin).intersect(boxes.padded)
            crop = _crop(boxes.padded, wide)
            out = self._inferred(x, crop, inside, boxes.padded)
            if self.options.noise is not None:
                noise = self.options.noise[region.c].normalised(offset, scale)
                there = boxes.data.intersect(wide).slices_in(wide)
                noisy = x[(..., *wide.slices_in(boxes.padded))]
                out = _posterior(noisy, out, noise, there, std=self.options.std)
        keep = region.core.slices_in(wide)
        return Estimate(
            _restore(out.mean, keep, scale, offset),
            None if out.std is None else _restore(out.std, keep, scale, 0.0),
        )

    def _inferred(self, x: torch.Tensor, crop: Halo, inside: Box, tile: Box) -> TensorEstimate:
        """The method's estimate of a tile's core; the mean over its mirror images, if asked for."""
        if not self.options.tta:
            return self.method.infer(self.inference, x, crop, inside, tile.start)
        from n2v_scale.mirrors import mean_over_mirrors

        return mean_over_mirrors(self.method, self.inference, x, crop, inside, tile)


def _posterior(
    noisy: torch.Tensor,
    blind: TensorEstimate,
    noise: NoiseModel,
    inside: tuple[slice, slice, slice],
    *,
    std: bool,
) -> TensorEstimate:
    """With the voxels' own values put back; ``inside`` is where there are voxels."""
    from n2v_scale.posterior import with_own_value

    there = noisy.new_zeros(noisy.shape)
    there[(..., *inside)] = 1
    return with_own_value(noisy, blind, noise, there, std=std)


def load_model(folder: str | Path, *, device: str = "cpu") -> Model:
    """The model at ``folder``, with the training volume's normalisation.

    Raises
    ------
    ModelError
        When there is none, or it is broken or too new.
    """
    trained = read_card(Path(folder)).trained_on
    normalisation = Normalisation(trained.offset, trained.scale)
    return Model(folder, OpenOptions(normalisation, device))


def save_model(
    folder: Path,
    card: ModelCard,
    weights: Mapping[str, torch.Tensor],
    *,
    overwrite: bool = False,
    extra: Sequence[Path] = (),
) -> None:
    """Write a finished model: to a temporary name beside it, then renamed.

    ``card.weights_sha256`` is filled in here; ``extra`` are files that are copied beside it. The
    weights holds no metadata and no time stamps.

    Raises
    ------
    OutputError
        When ``folder`` exists and is not to be overwritten, or is not a model.
    """
    from safetensors.torch import save

    if folder.exists():
        if not overwrite:
            raise OutputError(f"{folder} exists: choose another name or pass --overwrite")
        check_is_model(folder)
    with fresh_folder(folder) as fresh:
        tensors = {name: w.detach().cpu().contiguous() for name, w in weights.items()}
        # Not save_file(), whose file nobody else could read, whatever the umask.
        (fresh / WEIGHTS_NAME).write_bytes(save(tensors))
        digest = sha256(fresh / WEIGHTS_NAME)
        text = card.model_copy(update={"weights_sha256": digest}).to_json()
        (fresh / CARD_NAME).write_text(text)
        for path in extra:
            shutil.copyfile(path, fresh / path.name)


def check_is_model(folder: Path) -> None:
    """Refuse a folder that holds anything but a model.

    Raises
    ------
    OutputError
        That names what else it holds.
    """
    known = {CARD_NAME, WEIGHTS_NAME, METRICS_NAME}
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else [folder.name]
    others = sorted(name for name in names if name not in known and not name.startswith("."))
    if others:
        raise OutputError(
            f"{folder} is not only a model (it holds {', '.join(others[:3])}): "
            "it is not overwritten; choose another name"
        )


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _crop(padded: Box, aligned: Box) -> Halo:
    pairs: list[Any] = list(
        zip(padded.start, aligned.start, aligned.stop, padded.stop, strict=True)
    )
    z, y, x = ((a - p, q - b) for p, a, b, q in pairs)
    return z, y, x


def _restore(
    output: torch.Tensor, keep: tuple[slice, slice, slice], scale: float, offset: float
) -> FloatArray:
    """``output`` in the input's units, in place: a tile is large."""
    array: FloatArray = output[0, 0].cpu().numpy()[keep]
    array *= scale
    array += offset
    return array
