"""Files for other programs say what the model says, at every size; packages are valid."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner
from PIL import Image

import n2v_scale
from n2v_scale import export_package, exported
from n2v_scale.cli import cli
from n2v_scale.denoiser import Normalisation, OpenOptions, Region
from n2v_scale.errors import ConfigError, ModelError, OutputError
from n2v_scale.export_files import answers_of_onnx, answers_of_torchscript
from n2v_scale.geometry import Box
from n2v_scale.methods.linear import Linear
from n2v_scale.methods.n2s import Noise2Self
from n2v_scale.methods.n2v import Noise2Void
from n2v_scale.methods.paired import Paired
from n2v_scale.methods.ssdn import BlindSpot
from n2v_scale.model import Model, load_model, save_model
from n2v_scale.network_config import (
    BlindUNetConfig,
    BranchUNetConfig,
    FilterConfig,
    FilterUNetConfig,
    UNetConfig,
)
from n2v_scale.noise import NoiseModel

EXTRA = ("onnx", "onnxscript", "onnxruntime", "bioimageio.spec")


def missing():
    return [name for name in EXTRA if not importlib.util.find_spec(name.split(".")[0])]


needs_extra = pytest.mark.skipif(
    bool(missing()), reason=f"{missing()} not installed: pip install 'n2v-scale[export]'"
)
unclosed = pytest.mark.filterwarnings("ignore::ResourceWarning")
"""bioimageio.spec leaves the files that it has read to the garbage collector."""
opened_again = pytest.mark.filterwarnings("ignore:.*torch.jit.load.*:DeprecationWarning")
NOISE = NoiseModel(0.1, -1.0, 0.3)
CAMERA = {"gain": 1.0, "offset": 90.0, "read_noise": 3.0}
SHAPE, FLAT = (1, 1, 12, 32, 40), (1, 1, 1, 64, 56)


def unet(**more):
    return UNetConfig(**{"depth": 1, "filters": 2, "pooled": (0, 1, 1), **more})


def filtered(**more):
    return FilterUNetConfig((3, 3, 3), unet(in_channels=2), **more)


FLAT_UNET = {"kernel": (1, 3, 3), "pooled": (0, 1, 1)}
CASES = {
    "n2v": (Noise2Void(), filtered(), SHAPE),
    "n2v2": (
        Noise2Void(replacement="median", name="n2v2"),
        unet(blur=True, top_skip=False, pooled=(1, 1, 1)),
        SHAPE,
    ),
    "structn2v": (
        Noise2Void(blind_mask=((0, 0, 1),), name="structn2v"),
        filtered(hidden=((0, 0, 1), (0, 0, -1))),
        SHAPE,
    ),
    "n2s": (Noise2Self((2, 2, 2), NOISE), filtered(), SHAPE),
    "n2n": (Paired(swaps=True), unet(batch_norm=True, depth=2, pooled=(1, 2, 2)), SHAPE),
    "supervised": (Paired("l1", name="supervised"), filtered(), (2, 2, *SHAPE[2:])),
    "ssdn": (
        BlindSpot(NOISE),
        BlindUNetConfig((3, 3, 3), features=4, unet=unet(in_channels=4, out_channels=2)),
        SHAPE,
    ),
    "ssdn branch-unet": (
        BlindSpot(NOISE),
        BranchUNetConfig((3, 3, 3), unet(out_channels=2, depth=2, pooled=(1, 2, 2))),
        SHAPE,
    ),
    "ssdn of two channels": (
        BlindSpot(NOISE),
        BlindUNetConfig((3, 3, 3), features=4, unet=unet(in_channels=4, out_channels=2)),
        (1, 2, *SHAPE[2:]),
    ),
    "linear": (Linear(), FilterConfig((3, 5, 5)), SHAPE),
    "n2v of planes": (
        Noise2Void(),
        FilterUNetConfig((1, 5, 5), unet(in_channels=2, **FLAT_UNET)),
        FLAT,
    ),
    "n2s of planes": (Noise2Self((1, 2, 2)), unet(**FLAT_UNET), FLAT),
    "branch-unet of planes": (
        BlindSpot(NOISE),
        BranchUNetConfig((1, 5, 5), unet(out_channels=2, **FLAT_UNET)),
        FLAT,
    ),
    "linear of planes": (Linear(), FilterConfig((1, 5, 5)), FLAT),
}
BLIND = [name for name in CASES if name.split()[0] in ("n2s", "ssdn", "linear", "branch-unet")]
SIZES = {SHAPE[2:]: (8, 24, 36), FLAT[2:]: (1, 48, 36)}


def noisy(shape, seed=0):
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(0, 5, n) for n in shape), indexing="ij", sparse=True)
    return rng.normal(100 + 10 * np.sin(sum(grid)), 4).astype(np.float32)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory, write_volume, write_model):
    """A function that gives the folder of one of the models, with its volume beside it."""
    made = {}

    def folder(name):
        if name not in made:
            method, config, shape = CASES[name]
            place = tmp_path_factory.mktemp("exported")
            values = noisy(shape) if shape[2] > 1 else noisy(shape)[:, :, 0]
            axes = "tczyx" if shape[2] > 1 else "tcyx"
            volume = write_volume(place / "volume.zarr", values.round().astype(np.uint16), axes)
            channels = range(shape[1])
            constants = {
                "offset": [100.0 + c for c in channels],
                "scale": [8.0 + c for c in channels],
            }
            made[name] = tamed(
                write_model(place / "model.n2v", config, volume=volume, method=method, **constants)
            )
        return made[name]

    return folder


def tamed(folder):
    """The model, whose filter is now a mean and whose U-Net adds a little: as if trained."""
    model = Model(folder)
    weights = dict(model.network.state_dict())
    for name, values in weights.items():
        if name == "filter.weight":
            weights[name] = torch.full_like(values, 1 / (values.numel() - 1))
        elif name.endswith("head.weight") and "filter.weight" in weights:
            weights[name] = 0.02 * values
        elif name.endswith("head.bias"):
            weights[name] = 0.0 * values
    save_model(folder, model.card, weights, overwrite=True)
    return folder


def own(folder, image, noise, *, std=False):
    """The model's whole-image inference of (c, z, y, x), in its units."""
    trained = load_model(folder).card.trained_on
    options = OpenOptions(Normalisation(trained.offset, trained.scale), noise=noise, std=std)
    model, shape = Model(folder, options), image.shape[1:]
    found = [
        model.denoise(one, Region(0, c, Box.whole(shape), shape)) for c, one in enumerate(image)
    ]
    parts = ["mean", "std"] if std else ["mean"]
    return [np.stack([getattr(one, part) for one in found]) for part in parts]


def agrees(answers, path, folder, noise, *, std):
    """The file at ``path`` says what the model says of two images of a size of their own."""
    trained = load_model(folder).card.trained_on
    size = SIZES[trained.shape[2:] if trained.shape[2] > 1 else FLAT[2:]]
    images = [noisy((len(trained.offset), *size), seed=s) for s in (1, 2)]
    offset, scale = (
        np.asarray(n, np.float32)[:, None, None, None] for n in (trained.offset, trained.scale)
    )
    batch = np.stack([(image - offset) / scale for image in images])
    found = answers(path, batch[:, :, 0] if size[0] == 1 else batch)
    for k, image in enumerate(images):
        wanted = own(folder, image, noise, std=std)
        for part, one in enumerate(wanted):
            back = found[part][k].reshape(image.shape) * scale + (0 if part else offset)
            np.testing.assert_allclose(back, one, atol=1e-4 * wanted[0].std(), rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_torchscript_says_what_the_model_says(tmp_path, folder_of, name):
    folder, path, blind = folder_of(name), tmp_path / "model.pt", name in BLIND
    more = {"write": "mean,std", **CAMERA} if blind else {}
    summary = n2v_scale.export_model(folder, torchscript=path, **more)
    assert summary.own_value == blind
    assert summary.checks[0].difference < 1e-4
    noise = (NoiseModel(**CAMERA),) * CASES[name][2][1] if blind else None
    agrees(answers_of_torchscript, path, folder, noise, std=blind)


ONNX = {
    "n2s": {"write": "mean,std", **CAMERA},
    "ssdn": {"write": "mean,std", "posterior": False},
}
"""A loop of passes with what follows it, and two outputs of lattices. The package below has the
default network's. (Recording one takes seconds; the command itself compares every file.)"""


@needs_extra
@pytest.mark.parametrize("name", ONNX)
def test_onnx_says_what_the_model_says(tmp_path, folder_of, name):
    folder, path, asked = folder_of(name), tmp_path / "model.onnx", ONNX[name]
    n2v_scale.export_model(folder, onnx=path, **asked)
    noise = (NoiseModel(**CAMERA),) if "gain" in asked else None
    agrees(answers_of_onnx, path, folder, noise, std="write" in asked)


@pytest.mark.parametrize("name", ["linear", "ssdn", "n2s of planes"])
def test_without_the_own_value_it_is_the_blind_prediction(tmp_path, folder_of, name):
    folder, path = folder_of(name), tmp_path / "model.pt"
    summary = n2v_scale.export_model(folder, torchscript=path, posterior=False)
    assert "--no-posterior" in summary.no_own_value
    agrees(answers_of_torchscript, path, folder, None, std=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory, folder_of):
    """A package that was made without a network, and the text that the command printed."""
    if missing():
        pytest.skip(f"{missing()} not installed: pip install 'n2v-scale[export]'")
    made = tmp_path_factory.mktemp("package")
    options = ["--bioimageio", made / "model.zip", "--onnx", made / "model.onnx"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", forbidden)
        patch.setattr(socket, "getaddrinfo", forbidden)
        done = run(folder_of("n2v"), *options, "--author", "Ada Lovelace", "--license", "MIT")
    assert done.exit_code == 0, done.output
    return made, done.output


def forbidden(*_args, **_more):
    raise AssertionError("the network was asked")


def run(*arguments):
    return CliRunner().invoke(cli, ["export", *map(str, arguments)], catch_exceptions=True)


def test_the_command_says_what_it_wrote(package, folder_of):
    made, said = package
    assert str(made / "model.zip") in said
    assert str(made / "model.onnx") in said
    for kind in ("onnx", "torchscript"):
        assert re.search(rf"{kind}: [\d.]+ MB, differs from the model by at most \d\.\de-0\d", said)
    assert "cut from the training volume" in said
    assert sorted(path.name for path in made.iterdir()) == ["model.onnx", "model.zip"]


@unclosed
def test_a_package_is_valid_and_its_test_output_follows(package, tmp_path):
    """By the description alone, as a program would that knows nothing of this one."""
    import onnxruntime
    from bioimageio.spec import load_description
    from bioimageio.spec.model.v0_5 import ModelDescr

    with zipfile.ZipFile(package[0] / "model.zip") as archive:
        described = load_description(archive, perform_io_checks=True)
        archive.extractall(tmp_path)
    assert isinstance(described, ModelDescr)
    assert [a.name for a in described.authors] == ["Ada Lovelace"]
    assert described.license == "MIT"
    assert described.weights.onnx.parent == "torchscript"
    given, wanted = (np.load(tmp_path / f"{name}.npy") for name in ("image", "denoised"))
    constants = described.inputs[0].preprocessing[1].kwargs
    image = (given - constants.mean[0]) / constants.std[0]
    session = onnxruntime.InferenceSession(tmp_path / "weights.onnx")
    (found,) = session.run(None, {described.inputs[0].id: image.astype(np.float32)})
    back = described.outputs[0].postprocessing[0].kwargs
    result = found * back.gain[0] + back.offset[0]
    np.testing.assert_allclose(result, wanted, atol=1e-4 * wanted.std())
    assert np.abs(wanted - given).mean() > 1


@unclosed
def test_axes_and_halo_are_those_of_the_network(package, folder_of):
    from bioimageio.spec import load_description

    with zipfile.ZipFile(package[0] / "model.zip") as archive:
        described = load_description(archive, perform_io_checks=False)
    card = load_model(folder_of("n2v")).card
    inputs, outputs = (t[0].axes[2:] for t in (described.inputs, described.outputs))
    for axis, (a, b) in enumerate(zip(inputs, outputs, strict=True)):
        assert b.halo >= max(card.receptive_field[axis])
        assert b.halo % card.stride[axis] == 0
        assert a.size.step == card.stride[axis]
        assert a.size.min > 2 * b.halo
        assert (a.id, a.unit, a.scale) == ("zyx"[axis], "micrometer", 1.0)


def test_its_documentation_tells_all_but_where_the_data_lie(package, folder_of):
    with zipfile.ZipFile(package[0] / "model.zip") as archive:
        text, described = (archive.read(n).decode() for n in ("README.md", "rdf.yaml"))
    for words in ("Noise2Void", "volume.zarr", "32 × 40", "MIT", "# Validation", "Not in it"):
        assert words in text
    assert str(folder_of("n2v").parent) not in text + described


def test_its_cover_is_half_noisy_and_half_denoised(package, tmp_path):
    with zipfile.ZipFile(package[0] / "model.zip") as archive:
        archive.extract("cover.png", tmp_path)
    with Image.open(tmp_path / "cover.png") as picture:
        assert picture.size == (512, 512)
        grey = np.asarray(picture.convert("L")).astype(float)
    rough = [np.abs(np.diff(half, axis=0)).mean() for half in (grey[:, :250], grey[:, 262:])]
    assert rough[0] > 1.5 * rough[1]


@needs_extra
def test_an_invalid_package_is_not_written(tmp_path, folder_of, monkeypatch):
    whole = export_package._content
    monkeypatch.setattr(export_package, "_content", lambda *a: {**whole(*a), "inputs": []})
    monkeypatch.setattr(exported, "onnx_file", lambda *a: a[-1].write_bytes(b"no graph"))
    monkeypatch.setattr(exported, "answers_of_onnx", lambda _, image: [image])
    monkeypatch.setattr(exported.Export, "difference", lambda *_: 0.0)
    with pytest.raises(ModelError, match="valid"):
        n2v_scale.export_model(folder_of("linear of planes"), bioimageio=tmp_path / "m.zip")
    assert not list(tmp_path.iterdir())


def test_a_file_that_says_something_else_is_not_written(tmp_path, folder_of, monkeypatch):
    whole = exported.torchscript_file

    def spoilt(graph, *more):
        with torch.no_grad():
            graph.seen.network.unet.head.bias.add_(1e-3)
        whole(graph, *more)

    monkeypatch.setattr(exported, "torchscript_file", spoilt)
    with pytest.raises(ModelError, match=r"torchscript .* differs .* by \d\.\de-0\d"):
        n2v_scale.export_model(folder_of("n2v"), torchscript=tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "module", ["onnx", *(pytest.param(name, marks=needs_extra) for name in EXTRA[1:])]
)
def test_a_missing_extra_is_named(tmp_path, folder_of, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    done = run(folder_of("linear"), "--bioimageio", tmp_path / "model.zip")
    assert isinstance(done.exception, ConfigError)
    assert f"needs {module}: pip install 'n2v-scale[export]'" in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_spec_that_is_too_old_is_named(tmp_path, folder_of, monkeypatch):
    for module in EXTRA:
        monkeypatch.setitem(sys.modules, module, type(sys)(module))
    with pytest.raises(ConfigError, match=r"bioimageio\.spec.*too old.*pip install"):
        n2v_scale.export_model(folder_of("linear"), bioimageio=tmp_path / "m.zip")


REFUSED = {
    "nothing to write": ([], ConfigError, "--bioimageio, --onnx or --torchscript"),
    "camera of a seeing model": (["--torchscript", "m.pt", "--posterior"], ConfigError, "sees it"),
    "no standard deviation": (
        ["--torchscript", "m.pt", "--output", "mean,std"],
        ConfigError,
        "no standard deviation",
    ),
    "exists": (["--torchscript", "there.pt"], OutputError, "--overwrite"),
    "one name": (["--torchscript", "m", "--onnx", "m"], OutputError, "one name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(tmp_path, folder_of, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    Path("there.pt").write_text("mine")
    options, kind, words = REFUSED[case]
    done = run(folder_of("n2v"), *options)
    assert isinstance(done.exception, kind)
    assert words in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["there.pt"]


@needs_extra
def test_a_licence_that_nobody_knows_is_refused(tmp_path, folder_of):
    done = run(folder_of("linear"), "--bioimageio", tmp_path / "m.zip", "--license", "Mine")
    assert isinstance(done.exception, ConfigError)
    assert "'Mine' is no SPDX identifier" in str(done.exception)


@opened_again
def test_overwriting(tmp_path, folder_of):
    path = tmp_path / "m.pt"
    path.write_text("mine")
    done = run(folder_of("linear"), "--torchscript", path, "--overwrite", "--json")
    assert json.loads(done.stdout)["files"] == [str(path)]
    assert torch.jit.load(path) is not None


def test_a_volume_that_is_gone(tmp_path, write_model):
    """The noise is the card's, the image is simulated, and both are said."""
    seen = {"gain": 1.0, "offset": 90.0, "read_noise": 3.0, "misfit": 0.1}
    config = FilterConfig((3, 3, 3))
    folder = write_model(tmp_path / "m.n2v", config, method=Linear(), survey=[{"noise": seen}])
    summary = n2v_scale.export_model(folder, torchscript=tmp_path / "m.pt")
    assert summary.own_value
    assert "simulated" in summary.text()
    off = [{"noise": {**seen, "misfit": 0.5}}]
    folder = write_model(tmp_path / "off.n2v", config, method=Linear(), survey=off)
    summary = n2v_scale.export_model(folder, torchscript=tmp_path / "off.pt")
    assert not summary.own_value
    assert "--gain" in summary.no_own_value


@opened_again
def test_constants_travel_in_the_torchscript(tmp_path, folder_of):
    n2v_scale.export_model(folder_of("supervised"), torchscript=tmp_path / "m.pt")
    files = {"n2v_scale.json": ""}
    torch.jit.load(tmp_path / "m.pt", _extra_files=files)
    about = json.loads(files["n2v_scale.json"])
    assert about["offset"] == [100.0, 101.0]
    assert about["scale"] == [8.0, 9.0]
    assert about["axes"] == "bczyx"


PAGE = Path(__file__).parent.parent / "docs" / "models.md"


def test_the_commands_of_the_page_parse():
    lines = re.findall(r"^n2v-scale (.+)$", PAGE.read_text(), re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        name, *arguments = shlex.split(line)
        cli.commands[name].make_context(name, arguments)


def test_the_example_of_the_page(package, folder_of, tmp_path):
    """As it stands there, it gives what the package's own inference gives."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "model.onnx").write_bytes((package[0] / "model.onnx").read_bytes())
    image = noisy((6, 30, 44), seed=4)
    tifffile.imwrite(tmp_path / "stack.tif", image)
    (tmp_path / "example.py").write_text(code)
    command = [sys.executable, "example.py"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    found = tifffile.imread(tmp_path / "denoised.tif")
    np.testing.assert_allclose(found, own(folder_of("n2v"), image[None], None)[0][0], atol=1e-3)
