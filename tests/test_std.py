"""Standard deviations beside the means: computed once, written, resumed, mended, compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import ome_zarr_models
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client

from n2v_scale import verification
from n2v_scale.api import (
    baseline,
    denoise,
    estimate_error,
    evaluate,
    forecast,
    plan_prediction,
    predict,
    repair,
    train,
    verify,
)
from n2v_scale.cli import cli
from n2v_scale.denoiser import Normalisation, OpenOptions, Region
from n2v_scale.empty import constant_response
from n2v_scale.errors import ConfigError, InputError, PlanError
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.model import Model
from n2v_scale.network_config import BlindUNetConfig, FilterConfig, UNetConfig
from n2v_scale.noise import NoiseModel
from n2v_scale.pyramid import local_mean
from n2v_scale.simulate import simulate_light_sheet

SHAPE = (8, 24, 40)
OFFSET, SCALE = (90.0, 110.0), (12.0, 8.0)
CAMERA = {"gain": 1.0, "offset": 80.0, "read_noise": 2.0}
SIZES: dict[str, Any] = {"block": (8, 24, 16), "tile": (8, 8, 16), "chunk": (8, 8, 8)}
BOTH: dict[str, Any] = {"write": "mean,std", "device": "cpu", "threads": 1, **SIZES, **CAMERA}
OMERO = {
    "channels": [
        {"label": name, "color": color, "window": {"min": 0, "max": 9, "start": 0, "end": 9}}
        for name, color in (("DAPI", "0000FF"), ("GFP", "00FF00"))
    ]
}


@dataclass(frozen=True)
class Case:
    """Two channels, a blind model of them, and the undisturbed output of both parts."""

    volume: Volume
    model: Path
    out: Path
    client: Client

    @property
    def expected(self) -> np.ndarray:
        return read(self.out)

    def predict(self, out: Path, **options: Any) -> Any:
        return predict(self.volume, self.model, out, client=self.client, **(BOTH | options))


def read(out: Path | str, level: int = 0) -> np.ndarray:
    values: np.ndarray = np.asarray(zarr.open_array(f"{out}/{level}", mode="r")[...])
    return values


def stored(out: Path) -> dict[str, bytes]:
    files = [f for level in out.glob("[0-9]*") for f in level.rglob("*") if f.is_file()]
    return {str(f.relative_to(out)): f.read_bytes() for f in files if "ledger" not in str(f)}


def image_of(shape: tuple[int, ...] = (2, *SHAPE)) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, shape).astype(np.uint16)


@pytest.fixture(scope="module")
def case(
    client: Client,
    tmp_path_factory: pytest.TempPathFactory,
    write_volume: Callable[..., Volume],
    write_model: Callable[..., Path],
) -> Case:
    folder = tmp_path_factory.mktemp("std")
    volume = write_volume(folder / "v.zarr", image_of(), omero=OMERO, scale=[1, 2.0, 0.5, 0.5])
    model = write_model(
        folder / "m", FilterConfig((3, 3, 3)), volume=volume, offset=OFFSET, scale=SCALE
    )
    made = Case(volume, model, folder / "o.zarr", client)
    made.predict(made.out)
    return made


def whole(case: Case, channel: int) -> tuple[np.ndarray, np.ndarray]:
    """One forward pass over a channel: mean and standard deviation."""
    options = OpenOptions(Normalisation(OFFSET, SCALE), noise=(NoiseModel(**CAMERA),) * 2)
    box = Box.whole(SHAPE)
    values = case.volume.read(0, channel, box).astype(np.float32)
    found = Model(case.model, options).denoise(values, Region(0, channel, box, SHAPE))
    assert found.std is not None
    return found.mean, found.std


def test_all_means_then_all_standard_deviations_and_both_stitch_exactly(case: Case) -> None:
    found = case.expected
    assert found.shape == (4, *SHAPE)
    assert found.dtype == np.float32
    for channel in range(2):
        for position, expected in zip((channel, channel + 2), whole(case, channel), strict=True):
            assert np.abs(found[position] - expected).max() <= 1e-5 * np.std(expected)
            assert np.std(expected) > 0


def test_the_means_are_those_of_a_prediction_without(case: Case, tmp_path: Path) -> None:
    case.predict(tmp_path / "o.zarr", write="mean", dtype="float32")
    assert read(tmp_path / "o.zarr").tobytes() == case.expected[:2].tobytes()


def test_blocks_do_not_matter(case: Case, tmp_path: Path) -> None:
    case.predict(tmp_path / "o.zarr", block=(8, 16, 40), ome_version="0.4")
    assert read(tmp_path / "o.zarr").tobytes() == case.expected.tobytes()


def test_lower_resolutions_are_the_local_mean_of_each_channel(case: Case) -> None:
    factors = case.expected.shape[1] // read(case.out, 1).shape[1], 2, 2
    for above, below in zip(case.expected, read(case.out, 1), strict=True):
        np.testing.assert_allclose(local_mean(above, factors), below, rtol=1e-6)


def test_a_viewer_shows_the_means_and_offers_the_rest_by_name(case: Case) -> None:
    group = zarr.open_group(str(case.out), mode="r")
    ome_zarr_models.open_ome_zarr(group, version="0.5")
    channels = dict(group.attrs)["ome"]["omero"]["channels"]  # type: ignore[index,call-overload]
    assert [c["label"] for c in channels] == ["DAPI", "GFP", "DAPI std", "GFP std"]
    assert [c["color"] for c in channels] == ["0000FF", "00FF00"] * 2
    assert [c.get("active", True) for c in channels] == [True, True, False, False]
    for channel, values in zip(channels[2:], case.expected[2:], strict=True):
        assert channel["window"]["start"] == 0
        assert 0.5 * values.max() < channel["window"]["end"] <= values.max()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_input_without_channels_becomes_an_output_with_two(
    version: str,
    tmp_path: Path,
    client: Client,
    write_volume: Callable[..., Volume],
    write_model: Callable[..., Path],
) -> None:
    """Here with a network that predicts a distribution, and without the posterior."""
    transform = [{"type": "scale", "scale": [1.0, 2.0, 2.0]}]
    volume = write_volume(tmp_path / "v.zarr", image_of(SHAPE), multiscale=transform)
    unet = UNetConfig(in_channels=2, out_channels=2, filters=2, depth=1, pooled=(1, 1, 1))
    config = BlindUNetConfig((3, 3, 3), features=2, unet=unet)
    model = write_model(tmp_path / "m", config, volume=volume)
    options = {"posterior": False, "write": "mean,std", "ome_version": version, "device": "cpu"}
    predict(volume, model, tmp_path / "o.zarr", client=client, chunk=(8, 8, 8), **options)
    found = open_volume(tmp_path / "o.zarr")
    assert (found.axis_names, found.shape) == (("c", "z", "y", "x"), (1, 2, *SHAPE))
    assert found.voxel_size == volume.voxel_size == (1.0, 2.0, 2.0)
    labels = [c["label"] for c in (found.omero or {})["channels"]]
    assert labels == ["channel 0", "channel 0 std"]
    options_then = OpenOptions(Normalisation((100.0,), (10.0,)))
    box = Box.whole(SHAPE)
    values = volume.read(0, 0, box).astype(np.float32)
    expected = Model(model, options_then).denoise(values, Region(0, 0, box, SHAPE))
    for channel, part in enumerate((expected.mean, expected.std)):
        assert part is not None
        error = np.abs(found.read(0, channel, box) - part).max()
        assert error <= 1e-5 * max(1.0, float(np.abs(part).max()))


# Going on, and mending


def test_an_interrupted_run_goes_on(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "o.zarr"
    first = case.predict(out, only=[0, 4], pyramid=False)
    assert (first.blocks, first.computed, first.missing) == (6, 2, 4)
    second = case.predict(out)
    assert (second.computed, second.missing) == (4, 0)
    assert stored(out) == stored(case.out)
    assert case.predict(out).already_finished


@pytest.mark.parametrize(("channel", "harm"), [(1, "length"), (3, "bits")])
def test_a_damaged_shard_is_found_and_mended_with_all_that_is_made_of_it(
    case: Case, tmp_path: Path, channel: int, harm: str
) -> None:
    out = tmp_path / "o.zarr"
    case.predict(out)
    expected = stored(out)
    shard = out / "0" / "c" / str(channel) / "0" / "0" / "1"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content if harm == "bits" else content[:-1])
    assert verify(out, client=case.client).damaged == {"0": [4]}  # channel 1, second along x
    assert repair(out, client=case.client).computed == 1
    assert verify(out, client=case.client).whole
    assert stored(out) == expected


def test_lower_levels_of_both_parts_are_made_again(case: Case, tmp_path: Path) -> None:
    """A pyramid that was made of a damaged block must not stay."""
    out = tmp_path / "o.zarr"
    case.predict(out)
    plan = verification.stored_plan(str(out), verification.StorageOptions())
    full, lower = verification.levels_of(plan)[:2]
    ledger = verification.ledger_of(plan)
    verification.forget(plan, ledger, {"0": [4]})
    block = full.grid.at(4)
    lost = np.flatnonzero(~ledger.done("1", len(lower.grid)))
    assert {lower.grid.at(int(number)).c for number in lost} == {1, 3}
    assert list(full.channels(block)) == [1, 3]


# The plan


def test_only_what_is_not_usual_is_part_of_the_key(case: Case) -> None:
    plans = {
        write: plan_prediction(
            case.volume, case.model, "/nowhere.zarr", **(BOTH | {"write": write})
        )
        for write in ("mean", "mean,std")
    }
    assert "write" not in plans["mean"].to_dict()
    assert plans["mean,std"].to_dict()["write"] == "mean,std"
    both = forecast(plans["mean,std"], speed=1e6)
    one = plan_prediction(
        case.volume, case.model, "/nowhere.zarr", **(BOTH | {"write": "mean", "dtype": "float32"})
    )
    assert both.write_bytes == 2 * forecast(one, speed=1e6).write_bytes
    assert both.blocks == forecast(one, speed=1e6).blocks
    assert both.memory.block > forecast(one, speed=1e6).memory.block
    assert both.memory.tile > forecast(one, speed=1e6).memory.tile


@pytest.mark.parametrize(("first", "then"), [("mean,std", "mean"), ("mean", "mean,std")])
def test_another_output_is_not_gone_on_with(
    case: Case, tmp_path: Path, first: str, then: str
) -> None:
    case.predict(tmp_path / "o.zarr", write=first, only=[0], pyramid=False)
    with pytest.raises(PlanError, match=f"--output was {first}, now {then}"):
        case.predict(tmp_path / "o.zarr", write=then)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "input"}, "uint16 would round away"),
        ({"posterior": False, "gain": None, "offset": None, "read_noise": None}, "or --posterior"),
    ],
)
def test_what_cannot_be_written_is_refused(
    case: Case, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_prediction(case.volume, case.model, "/nowhere.zarr", **(BOTH | options))


def test_float32_may_be_asked_for(case: Case) -> None:
    plan = plan_prediction(case.volume, case.model, "/n.zarr", **(BOTH | {"dtype": "float32"}))
    assert plan.output.dtype == "float32"


def test_a_model_that_knows_no_error_is_refused_with_the_remedy(
    case: Case, tmp_path: Path, tiny_model: Path
) -> None:
    baseline(case.volume, tmp_path / "g.zarr", values=[1.0], client=case.client, pyramid=False)
    for model in (tiny_model, tmp_path / "g.zarr.filter"):
        arguments = ["plan", case.volume.address, str(model), "--output", "mean,std"]
        said = CliRunner().invoke(cli, arguments)
        assert said.exit_code != 0
        with pytest.raises(ConfigError, match="--method linear, n2s or ssdn"):
            plan_prediction(case.volume, model, tmp_path / "o.zarr", write="mean,std")


def test_the_command_writes_both(case: Case, tmp_path: Path) -> None:
    arguments = ["plan", case.volume.address, str(case.model), "--output", "mean,std", "--json"]
    camera = [f"--{name.replace('_', '-')}={value}" for name, value in CAMERA.items()]
    said = CliRunner().invoke(cli, [*arguments, "--speed", "1", *camera])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["write"] == "mean,std"
    (tmp_path / "c.toml").write_text('[predict]\nwrite = "mean,std"\n')
    config = {"config": tmp_path / "c.toml", **CAMERA}
    plan = plan_prediction(case.volume, case.model, tmp_path / "o.zarr", **config)
    assert plan.output.shape == (4, *SHAPE)


# Where nothing is computed


def test_what_is_kept_has_no_error_and_what_is_constant_the_response_s(
    case: Case, tmp_path: Path, write_volume: Callable[..., Volume]
) -> None:
    image = image_of()
    image[:, :, :, 24:] = 70
    image[0, :, :8, :8] = 5
    volume = write_volume(tmp_path / "v.zarr", image)
    out = tmp_path / "o.zarr"
    options = BOTH | {"nodata": 5.0, "chunk": (2, 8, 8), "tile": (4, 8, 8)}
    predict(volume, case.model, out, client=case.client, pyramid=False, **options)
    found = read(out)
    assert (found[0, :, :8, :8] == 5).all()
    assert (found[2, :, :8, :8] == 0).all()
    assert (found[2, :, 8:, :24] > 0).all()
    plan = plan_prediction(volume, case.model, tmp_path / "other.zarr", **options)
    expected = constant_response(Model(case.model, plan.open_options), 70.0, 1)
    assert expected.std is not None
    assert found[3, 4, 12, 36] == expected.std[0, 0, 0] > 0
    assert found[1, 4, 12, 36] == expected.mean[0, 0, 0]


# As somebody else's input


def test_an_evaluation_looks_at_the_means(
    case: Case, tmp_path: Path, write_volume: Callable[..., Volume]
) -> None:
    clean = write_volume(tmp_path / "c.zarr", image_of().astype(np.float32) + 1)
    case.predict(tmp_path / "o.zarr", write="mean", dtype="float32")
    assert evaluate(case.out, clean) == evaluate(tmp_path / "o.zarr", clean)
    noisy = {"noisy": case.volume.address, **CAMERA}
    found = estimate_error(case.out, **noisy)
    assert found == estimate_error(tmp_path / "o.zarr", **noisy)
    assert found.of == "the posterior mean"
    one = [open_volume(v.address, channels=[1]) for v in (open_volume(case.out), case.volume)]
    assert estimate_error(*one, **CAMERA).mse > 0
    with pytest.raises(InputError, match="2, 3 hold standard deviations, and 0 to 1 what was"):
        evaluate(open_volume(case.out, channels=[2, 3]), clean)
    arguments = ["evaluate", str(case.out), "--reference", clean.address, "--json"]
    said = CliRunner().invoke(cli, arguments)
    assert json.loads(said.stdout)["psnr"] == pytest.approx(evaluate(case.out, clean).psnr)


def test_a_lazy_array_has_both_in_front(case: Case) -> None:
    source = da.from_array(image_of(), chunks=(1, 8, 9, 40))
    options: dict[str, Any] = {"normalisation": Normalisation(OFFSET, SCALE), "tile": (8, 8, 16)}
    noise = [NoiseModel(**CAMERA)] * 2
    lazy = denoise(source, case.model, noise=noise, write="mean,std", threads=1, **options)
    assert (lazy.shape, lazy.dtype) == ((2, 2, *SHAPE), np.float32)
    with dask.config.set(scheduler="synchronous"):
        found = lazy.compute()
    np.testing.assert_allclose(found.reshape(case.expected.shape), case.expected, rtol=1e-5)
    with pytest.raises(ConfigError, match="pass the noise"):
        denoise(source, case.model, write="mean,std", **options)


# Whether it is true


def test_the_true_error_is_as_large_as_is_said(
    client: Client, tmp_path: Path, write_volume: Callable[..., Volume]
) -> None:
    """In each tenth of the voxels, by standard deviation. Normal would be 68%."""
    made = simulate_light_sheet((24, 96, 96), seed=1)
    volume = write_volume(tmp_path / "v.zarr", made.noisy)
    train(volume, tmp_path / "m", method="linear", client=client)
    camera = {"gain": 2.2, "offset": 100.0, "read_noise": 2.2 * 1.6}
    options = {"write": "mean,std", "pyramid": False, "client": client, **camera}
    predict(volume, tmp_path / "m", tmp_path / "o.zarr", **options)
    mean, std = read(tmp_path / "o.zarr")
    error = np.abs(mean - made.clean)
    order = np.argsort(std, axis=None)
    shares = [
        float((error.flat[tenth] <= std.flat[tenth]).mean()) for tenth in np.array_split(order, 10)
    ]
    assert min(shares) > 0.5, shares
    assert max(shares) < 0.86, shares
    assert std.flat[order[-1000:]].mean() > 2 * std.flat[order[:1000]].mean()
