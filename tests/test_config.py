"""Settings from TOML and keywords, and what a wrong one is told."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from n2v_scale.config import PredictSettings, TrainSettings, read_settings
from n2v_scale.errors import ConfigError


@pytest.fixture
def toml(tmp_path):
    def write(text: str):
        path = tmp_path / "settings.toml"
        path.write_text(text)
        return path

    return write


def test_without_anything_the_defaults_hold():
    assert read_settings(TrainSettings, None) == TrainSettings()


def test_a_file_is_read(toml):
    path = toml('net = "unet"\npatch = [16, 32, 48]\nlearning_rate = 1e-4\nminutes = 2\n')
    read = read_settings(TrainSettings, path)
    assert read == TrainSettings(net="unet", patch=(16, 32, 48), learning_rate=1e-4, minutes=2.0)


def test_dashes_and_underscores_are_the_same(toml):
    path = toml("voxels-per-site = 8\nvalidate_every = 7\n")
    read = read_settings(TrainSettings, path)
    assert (read.voxels_per_site, read.validate_every) == (8, 7)


def test_keywords_win_over_the_file_and_none_does_not(toml):
    path = toml("steps = 5\nseed = 3\nbatch = 2\n")
    read = read_settings(TrainSettings, path, steps=9, seed=None, batch=0 or None)
    assert (read.steps, read.seed, read.batch) == (9, 3, 2)


def test_zero_wins_over_the_file(toml):
    assert read_settings(TrainSettings, toml("depth = 3\nseed = 4\n"), depth=0, seed=0) == (
        TrainSettings(depth=0, seed=0)
    )


def test_each_command_reads_its_own_table(toml):
    text = "seed = 7\n[train]\nlearning-rate = 0.5\n[predict]\ncodec = 'gzip'\n"
    assert read_settings(TrainSettings, toml(text)) == TrainSettings(seed=7, learning_rate=0.5)
    assert read_settings(PredictSettings, toml(text)) == PredictSettings(seed=7, codec="gzip")


def test_what_is_given_overrides_the_other_way_to_say_it(toml):
    assert read_settings(TrainSettings, toml("minutes = 20"), steps=5) == TrainSettings(steps=5)
    with pytest.raises(ConfigError, match=r"^steps and minutes are both given: choose one$"):
        read_settings(TrainSettings, toml("minutes = 20\nsteps = 5"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepps = 5", r"stepps: there is no such setting \(did you mean steps\?\)"),
        ("learning-rat = 5", r"learning-rat: there is no .* \(did you mean learning-rate\?\)"),
        ("[train]\nqqq = 5", "qqq: there is no such setting"),
        ("[training]\nsteps = 5", "training: there is no such setting"),
    ],
)
def test_an_unknown_key_is_named_as_it_is_written(toml, text, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        read_settings(TrainSettings, toml(text))


def test_a_table_that_is_a_value(toml):
    with pytest.raises(ConfigError, match=r"train is a table: write \[train\]"):
        read_settings(TrainSettings, toml("train = 5"))


@pytest.mark.parametrize(
    ("given", "name", "got"),
    [
        ({"learning_rate": float("inf")}, "learning-rate", "inf"),
        ({"pool_memory": "1e400GB"}, "pool-memory", "'1e400GB'"),
        ({"depth": 7}, "depth", "7"),
        ({"depth": -1}, "depth", "-1"),
        ({"filters": 0}, "filters", "0"),
        ({"steps": 0}, "steps", "0"),
        ({"steps": 1.5}, "steps", "1.5"),
        ({"minutes": 0}, "minutes", "0"),
        ({"minutes": float("nan")}, "minutes", "nan"),
        ({"learning_rate": -1e-3}, "learning-rate", "-0.001"),
        ({"voxels_per_site": 1}, "voxels-per-site", "1"),
        ({"patch": (0, 8, 8)}, "patch", "0"),
        ({"patch": (8, 8)}, "patch", r"\(8, 8\)"),
        ({"kernel": "3"}, "kernel", "'3'"),
        ({"net": "resnet"}, "net", "'resnet'"),
        ({"method": "n3n"}, "method", "'n3n'"),
        ({"device": "tpu"}, "device", "'tpu'"),
        ({"on_nan": "ignore"}, "on-nan", "'ignore'"),
    ],
)
def test_out_of_range_names_the_setting_and_the_value(given, name, got):
    with pytest.raises(ConfigError, match=rf"^{name}: .* \(got {got}\)"):
        read_settings(TrainSettings, None, **given)


def test_every_mistake_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        read_settings(TrainSettings, None, depth=9, nett="unet", steps=-1)
    said = str(caught.value).split("; ")
    assert [s.split(":")[0] for s in said] == ["depth", "steps", "nett"]


def test_a_mistake_in_the_file_is_mended_by_a_keyword(toml):
    assert read_settings(TrainSettings, toml("steps = 0"), steps=4).steps == 4


def test_prediction_settings_take_codec_levels_in_range():
    assert read_settings(PredictSettings, None, codec_level=22).codec_level == 22
    with pytest.raises(ConfigError, match="codec-level"):
        read_settings(PredictSettings, None, codec_level=23)


def test_prediction_does_not_know_training_settings():
    with pytest.raises(ConfigError, match="steps: there is no such setting"):
        read_settings(PredictSettings, None, steps=3)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: there is no such file"):
        read_settings(TrainSettings, tmp_path / "none.toml")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match="is not a readable TOML file"):
        read_settings(TrainSettings, tmp_path)


@pytest.mark.parametrize("raw", [b"steps 5", b"steps = ", b"\xff\xfe\x00"])
def test_a_file_that_is_no_toml_is_named(tmp_path, raw):
    path = tmp_path / "broken.toml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=r"broken\.toml is not a readable TOML file"):
        read_settings(TrainSettings, path)


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        TrainSettings().steps = 4


@pytest.mark.parametrize("name", ["gain", "offset", "read_noise"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_camera_is_finite(name, value):
    camera = {"gain": 1.0, "offset": 0.0, "read_noise": 1.0} | {name: value}
    with pytest.raises(ConfigError, match=name.replace("_", "-")):
        read_settings(PredictSettings, None, **camera)


def test_a_camera_is_told_as_a_whole():
    with pytest.raises(ConfigError, match="belong together"):
        read_settings(PredictSettings, None, gain=1.0)
    with pytest.raises(ConfigError, match="makes no noise"):
        read_settings(TrainSettings, None, gain=0.0, offset=5.0, read_noise=0.0)
