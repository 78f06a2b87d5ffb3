"""Validated settings: what a user may ask for, and where it may be written down (TOML)."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from dask.utils import parse_bytes
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from n2v_scale.durations import parse_duration
from n2v_scale.errors import ConfigError

Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Triple = tuple[Positive, Positive, Positive]
Codec = Literal["blosc-zstd", "zstd", "gzip", "none"]
OmeVersion = Literal["0.4", "0.5"]
TABLES = ("train", "predict", "cluster")
OnNan = Literal["error", "fill"]
Write = Literal["mean", "mean,std"]
NETWORKS = {
    "auto": ("filter-unet",),
    "n2v": ("filter-unet", "unet"),
    "n2v2": ("unet",),
    "structn2v": ("filter-unet", "unet"),
    "n2s": ("filter-unet", "unet"),
    "n2n": ("filter-unet", "unet"),
    "supervised": ("filter-unet", "unet"),
    "ssdn": ("blind-unet", "branch-unet"),
    "linear": ("filter",),
}
"""Those that a method can train; the first is its default."""
PRESET_STEPS = {"fast": 500, "balanced": 2000, "best": 10_000}
Device = Literal["auto", "cpu", "cuda", "mps"]


def _bytes(value: Any) -> Any:
    """A number of bytes from a text such as ``16GB`` or ``512MiB``."""
    try:
        return parse_bytes(value) if isinstance(value, str) else value
    except (ValueError, OverflowError):
        raise ValueError("this is no amount of memory, such as 16GB") from None


def _seconds(value: Any) -> Any:
    """Seconds from a text such as ``5min`` or ``90s``; a bare number means seconds."""
    try:
        return parse_duration(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("this is no duration, such as 5min, 90s or 02:30:00") from None


Bytes = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]


class Settings(BaseModel):
    """Base: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    table: ClassVar[str] = ""


class CameraSettings(Settings):
    """The camera's noise, in the volume's units; seen in a sample where it is None."""

    gain: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Units an electron."""
    offset: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """What a voxel without light holds."""
    read_noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Standard deviation without light."""

    @property
    def camera(self) -> tuple[float, float, float] | None:
        """Gain, offset and read noise, if they were told."""
        if self.gain is None or self.offset is None or self.read_noise is None:
            return None
        return self.gain, self.offset, self.read_noise

    @model_validator(mode="after")
    def _whole_camera(self) -> CameraSettings:
        told = [n is not None for n in (self.gain, self.offset, self.read_noise)]
        if any(told) and not all(told):
            raise ValueError("gain, offset and read-noise belong together: give all or none")
        if self.camera is not None and not self.gain and not self.read_noise:
            raise ValueError("a camera with neither gain nor read-noise makes no noise")
        return self


class TrainSettings(CameraSettings):
    """How to train. What is None is chosen from the volume; all of it is recorded in the model."""

    table: ClassVar[str] = "train"

    method: Literal[
        "auto", "n2v", "n2v2", "structn2v", "n2s", "n2n", "supervised", "ssdn", "linear"
    ] = "n2v"
    """auto is what a diagnosis of the volume recommends."""
    net: Literal["filter-unet", "unet", "blind-unet", "branch-unet", "filter"] | None = None
    """The method's own when None."""
    depth: Annotated[int, Field(ge=0, le=6)] | None = None
    """Number of poolings; fewer along an axis that is thin or has coarse voxels."""
    filters: Positive | None = None
    """Channels at full resolution."""
    kernel: Triple | None = None
    """Odd sizes along (z, y, x)."""
    patch: Triple | None = None
    """Voxels along (z, y, x)."""
    batch: Positive | None = None
    """Patches a step."""
    steps: Positive | None = None
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Train for so long instead of a number of steps."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    voxels_per_site: Annotated[int, Field(ge=2)] = 16
    """One voxel in so many is hidden and predicted."""
    blind_mask: str | None = None
    """What is hidden beside each voxel, where noise is correlated: ``x:5``, ``box:0,2,2``, or a
    file of offsets, which is read when training begins (:mod:`n2v_scale.mask_files`)."""
    partition: Triple | None = None
    """Of n2s: voxels of a cell along (z, y, x), each of which is hidden in turn."""
    pair: str | None = None
    """Of n2n: a second capture of the same, voxel for voxel, in the same units."""
    target: str | None = None
    """Of supervised: a clean volume."""
    pair_channels: list[int] | None = None
    """Of the pair or the target; those of the volume are counted in the volume."""
    pair_timepoints: str | None = None
    """``1:46``, or ``0,2``."""
    loss: Literal["l2", "l1"] = "l2"
    """Of n2n and supervised: l2 learns the mean, l1 the median."""
    noise: Literal["known", "learned"] = "known"
    """Of ssdn: known is the camera's, or what a sample shows; learned is trained with the network,
    from what the sample shows."""
    radius: Triple | None = None
    """Reach of the replacement's window along (z, y, x)."""
    validate_every: Positive = 100
    """Steps between looks at the held-out regions."""
    patience: Positive = 20
    """Looks at the held-out regions without a lower loss, after which training stops."""
    preset: Literal["fast", "balanced", "best"] = "balanced"
    """How many steps, where neither steps nor minutes are given."""
    init: str | None = None
    """A model whose network and weights are begun with."""
    sampling: Literal["content", "uniform"] = "content"
    """Whether places that show more than noise are drawn more often."""
    foreground: str | None = None
    """A mask: patches come from where it is not 0."""
    pool_memory: Bytes = 512 * 2**20
    """Of the regions that patches are cut from, those that are being read included."""
    checkpoint_every: Seconds = 300.0
    """Seconds, or a text such as ``5min``."""
    tensorboard: str | None = None
    """A folder for TensorBoard's events."""
    compile: bool = False
    """Whether torch compiles the network first."""
    devices: Positive = 1
    """Processes on this machine, each with a GPU of its own where there are any."""
    seed: Seed = 0
    device: Device = "auto"
    threads: Positive | None = None
    """Torch threads; part of what the weights depend on. All cores when None."""
    on_nan: OnNan = "error"

    def resolved(self) -> TrainSettings:
        """With a network, and with a budget: the preset's, where none is given."""
        chosen: dict[str, Any] = {}
        if self.net is None:
            chosen["net"] = NETWORKS[self.method][0]
        if self.steps is None and self.minutes is None:
            chosen["steps"] = PRESET_STEPS[self.preset]
        # A copy's fields count as set, and nobody asked for these.
        return TrainSettings.model_construct(self.model_fields_set, **{**dict(self), **chosen})

    @model_validator(mode="after")
    def _network_of_method(self) -> TrainSettings:
        possible = NETWORKS[self.method]
        if self.net is not None and self.net not in possible:
            raise ValueError(
                f"method {self.method} has no network {self.net}: choose {' or '.join(possible)}"
            )
        return self

    @model_validator(mode="after")
    def _own_options(self) -> TrainSettings:
        masked = self.method in ("structn2v", "linear")
        if self.blind_mask is not None and not masked:
            raise ValueError("blind-mask is for method structn2v or linear")
        if self.method == "structn2v" and self.blind_mask is None:
            raise ValueError("method structn2v needs a blind-mask, such as x:5")
        for name, method in (("pair", "n2n"), ("target", "supervised")):
            given = getattr(self, name) is not None
            if given != (self.method == method):
                raise ValueError(
                    f"{name} is for method {method}" if given else f"method {method} needs a {name}"
                )
        if self.partition is not None and self.method != "n2s":
            raise ValueError("partition is for method n2s")
        if self.noise == "learned" and self.method != "ssdn":
            raise ValueError("noise learned is for method ssdn")
        if self.noise == "learned" and self.camera is not None:
            raise ValueError(
                "noise learned and gain, offset and read-noise are both given: choose one"
            )
        return self

    @model_validator(mode="after")
    def _one_budget(self) -> TrainSettings:
        if self.steps is not None and self.minutes is not None:
            raise ValueError("steps and minutes are both given: choose one")
        return self


class OutputSettings(Settings):
    """How results are stored. What is None is chosen by the plan."""

    chunk: Triple | None = None
    shard: Triple | None = None
    codec: Codec = "blosc-zstd"
    codec_level: Annotated[int, Field(ge=0, le=22)] = 3
    ome_version: OmeVersion = "0.5"
    dtype: Literal["input", "float32"] = "input"


class PredictSettings(OutputSettings, CameraSettings):
    """How to predict. What is None is chosen by the plan."""

    table: ClassVar[str] = "predict"

    block: Triple | None = None
    tile: Triple | None = None
    device: Device = "auto"
    on_nan: OnNan = "error"
    threads: Positive | None = None
    """Torch threads a forward pass; part of what the bytes depend on."""
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the U-Net's arithmetic; auto is the fastest whose error is below 1e-3 of the standard
    deviation, measured on one tile; on a CPU float32."""
    seed: Seed = 0
    """Of the sample that normalises a volume the model has not seen."""
    plain: bool = False
    """Whether a method of several passes, n2s, is applied in one, which sees every voxel."""
    tta: bool = False
    """Whether the mean over the mirror images of every tile is taken: eight times the work."""
    posterior: bool | None = None
    """Whether a blind prediction gets each voxel's own value back; where the noise is known, when
    None."""
    write: Write = "mean"
    """What of the estimate; ``mean,std`` adds a channel of standard deviations for each."""
    mask: str | None = None
    """Address of a foreground mask, of any coarser resolution; outside, the input is kept."""
    nodata: float | None = None
    """Cells of nothing but this value keep it."""
    memory: Bytes | None = None
    """Bytes that one worker may take, or a text such as ``16GB``."""
    workers: Positive | None = None

    @property
    def parts(self) -> int:
        """Arrays that are written of an estimate: its mean, and its standard deviation."""
        return len(self.write.split(","))

    @model_validator(mode="after")
    def _camera_is_used(self) -> PredictSettings:
        if self.posterior is False and self.camera is not None:
            raise ValueError("without the posterior no camera is needed: leave one of them out")
        return self


SettingsT = TypeVar("SettingsT", bound=Settings)


def read_settings(
    kind: type[SettingsT], file: str | PathLike[str] | None, **given: Any
) -> SettingsT:
    """Settings from a TOML file, overridden by what is given and not None.

    Keys stand alone, or in a table named after the command, ``[train]`` or ``[predict]``.

    Raises
    ------
    ConfigError
        When the file cannot be read, or a setting is unknown or out of range.
    """
    values = read_table(kind, file) if file is not None else {}
    chosen = {key: value for key, value in given.items() if value is not None}
    for one, other in (("steps", "minutes"), ("minutes", "steps")):
        if one in chosen:
            values.pop(other, None)  # given here, it overrides the file's other way to say it
    values.update(chosen)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_sentence(e, kind) for e in error.errors()]
        raise ConfigError("; ".join(lines)) from None


def read_table(kind: type[Settings], file: str | PathLike[str]) -> dict[str, Any]:
    """What a TOML file says of these settings, not yet validated.

    Raises
    ------
    ConfigError
        When the file cannot be read, or the table's name stands for a single value.
    """
    values = _read_toml(Path(file))
    if not isinstance(values.get(kind.table, {}), dict):
        raise ConfigError(
            f"{file}: {kind.table} is a table: write [{kind.table}] in a line of its own"
        )
    return _of_table(values, kind.table)


def _of_table(values: dict[str, Any], table: str) -> dict[str, Any]:
    """The keys outside any table, and those of this command's own; other commands' are theirs."""
    common = {key: value for key, value in values.items() if key not in TABLES}
    own = values.get(table, {})
    return {**common, **{key.replace("-", "_"): value for key, value in own.items()}}


def _sentence(error: Any, kind: type[Settings]) -> str:
    name = "-".join(str(part) for part in error["loc"][:1]).replace("_", "-") or "settings"
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        whole = ".".join(str(part) for part in error["loc"]).replace("_", "-")
        return f"{whole}: there is no such setting{_nearest(whole, kind)}"
    if error["type"] == "tuple_type":
        return f"{name}: this has to be a list, in brackets (got {error['input']!r})"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{name}: {message} (got {error['input']!r})"


def _nearest(name: str, kind: type[Settings]) -> str:
    """A hint where a setting is called almost so."""
    known = [field.replace("_", "-") for field in kind.model_fields]
    near = get_close_matches(name, known, n=1, cutoff=0.75)
    return f" (did you mean {near[0]}?)" if near else ""


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such file") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not a readable TOML file: {error}") from None
    return {key.replace("-", "_"): value for key, value in values.items()}
