"""What `info` says: how a volume would be trained, and what a sample of it shows."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from n2v_scale.errors import InputError
from n2v_scale.information import survey_of, survey_text, training_reasons
from n2v_scale.io.open import open_volume


@pytest.fixture
def opened(tmp_path):
    def write(data):
        path = tmp_path / f"{data.dtype}-{data.shape[0]}.zarr"
        zarr.create_array(str(path), data=data, chunks=(16, 32, 32))
        return open_volume(path, any_dtype=True)

    return write


def test_the_reasons_name_what_would_be_chosen(opened):
    reasons = "\n".join(training_reasons(opened(np.zeros((16, 64, 64), "u2"))))
    for word in ("poolings (z, y, x)", "patch (", "batch ", "2000 steps: preset balanced"):
        assert word in reasons


@pytest.mark.parametrize(
    "data", [np.zeros((16, 64, 64), "u4"), np.zeros((16, 8, 8), "u2")], ids=["type", "size"]
)
def test_what_cannot_be_trained_on_is_said_to_be_so(opened, data):
    (reason,) = training_reasons(opened(data))
    assert reason.startswith("not possible: ")


def test_a_sample_in_words(opened):
    rng = np.random.default_rng(0)
    signal = np.broadcast_to(np.arange(64) * 3.0, (32, 64, 64))
    data = (100 + 2 * rng.poisson(signal) + rng.normal(0, 3, signal.shape)).astype("f4")
    text = survey_text(survey_of(opened(data)))
    assert f"{data.mean():.5g} ± 0\n" in text  # all of it was read
    for word in ("channel 0", "percentiles", "saturated", "empty", "units an electron"):
        assert word in text


def test_labels_are_no_sample(opened):
    with pytest.raises(InputError, match="uint32"):
        survey_of(opened(np.ones((16, 64, 64), "u4")))


def test_a_sample_full_of_structure_is_said_to_be_so(opened):
    rng = np.random.default_rng(0)
    level = np.broadcast_to(1.0 + np.arange(64) ** 2.0, (32, 64, 64))
    speckled = (level * (1 + 0.3 * rng.standard_normal(level.shape))).astype("f4")
    assert "more structure than noise" in survey_text(survey_of(opened(speckled)))
