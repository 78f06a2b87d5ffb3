"""Sentences that are true of the numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from n2v_scale.correlation import AxisCorrelation
from n2v_scale.evaluation_text import self_evaluation_text
from n2v_scale.io.volume import Axis
from n2v_scale.recommendation import Recommendation
from n2v_scale.reporting.words import (
    estimate_rows,
    figures,
    headline,
    noise_words,
    noisy_psnr,
    residual_sentence,
    sentence,
    smaller,
    storage_rows,
    storage_sentence,
    volume_rows,
)


@pytest.fixture
def found(case):
    return case.found


def with_estimate(found, **change):
    return replace(found, evaluations={}, estimate=replace(found.estimate, **change))


def test_the_headline_says_which_way_it_went(found):
    before = noisy_psnr(found.estimate)
    better = with_estimate(found, psnr=before + 9, psnr_low=before + 8, psnr_high=before + 10)
    assert f"rose from {before:.1f} to {before + 9:.1f} dB" in headline(better)
    worse = with_estimate(found, psnr=before - 2, psnr_low=before - 3, psnr_high=before - 1)
    assert f"fell from {before:.1f} to {before - 2:.1f} dB" in headline(worse)
    assert "rose" not in headline(worse)
    same = with_estimate(found, psnr=before, psnr_low=before - 1, psnr_high=before + 1)
    assert f"stayed at {before:.1f} dB" in headline(same)


def test_an_interval_without_an_end_gives_no_number_between(found):
    before = noisy_psnr(found.estimate)
    open_ended = with_estimate(found, psnr=66.6, psnr_low=before + 5, psnr_high=math.inf)
    assert f"to more than {before + 5:.1f} dB" in headline(open_ended)
    shown = str([headline(open_ended), figures(open_ended), estimate_rows(open_ended)])
    assert "66.6" not in shown
    ends = {"psnr": math.inf, "psnr_low": -math.inf, "psnr_high": math.inf}
    unknown = with_estimate(found, **ends, db_per_percent=math.inf)
    assert "too small beside the noise" in headline(unknown)
    assert "inf" not in str([headline(unknown), figures(unknown), estimate_rows(unknown)])
    assert "inf" not in self_evaluation_text(unknown.estimate)


def test_the_headline_with_a_reference(found):
    before, after = found.evaluations["noisy"].psnr, found.evaluations["denoised"].psnr
    assert after > before + 3
    expected = f"Against the reference, the PSNR rose from {before:.1f} to {after:.1f} dB."
    assert headline(found).startswith(expected)
    assert dict(estimate_rows(found))["PSNR against the reference"] == (
        f"{before:.2f} → {after:.2f} dB"
    )


def test_the_headline_doubts_an_estimate_of_correlated_noise(found):
    alone = replace(found, evaluations={})
    assert "here it is correlated" not in headline(alone)
    (channel,) = found.diagnosis.channels
    strong = AxisCorrelation("x", (0.6, 0.3), (0.01, 0.01))
    assert strong.strong
    channel = replace(channel, correlation=(strong,))
    doubted = replace(alone, diagnosis=replace(found.diagnosis, channels=(channel,)))
    assert "here it is correlated, and the error is larger" in headline(doubted)
    assert "correlated" not in headline(replace(doubted, evaluations=found.evaluations))


def test_without_an_estimate_the_reason_is_referred_to(found):
    none = replace(found, evaluations={}, estimate=None)
    assert headline(none) == "The error could not be estimated; the reason stands below."
    assert estimate_rows(none) == []


def test_the_residual_is_judged_as_its_note_is(found):
    white = dict.fromkeys("zyx", (0.01, -0.1, 0.0, 0.04, 0.0))
    assert "looks like noise" in residual_sentence(replace(found.estimate, residual=white))
    for lag in range(5):
        lags = [0.0] * 5
        lags[lag] = 0.06
        alike = replace(found.estimate, residual={**white, "y": tuple(lags)})
        assert "structure is lost" in residual_sentence(alike)
    nothing = replace(found.estimate, residual=dict.fromkeys("zyx", ()))
    assert "too little" in residual_sentence(nothing)


def test_storage_is_compared_where_it_can_be(found):
    stored = found.stored
    noisy = replace(stored["noisy"], ratio=1.5)
    halved = replace(found, stored={"noisy": noisy, "denoised": replace(noisy, ratio=3.0)})
    assert smaller(halved) == pytest.approx(2)
    assert "50% of the space" in storage_sentence(halved)
    unread = replace(found, stored={**stored, "noisy": replace(noisy, ratio=None)})
    assert smaller(unread) is None
    assert "Too little" in storage_sentence(unread)
    assert storage_rows(unread)[0][-1] == "unknown"
    other = replace(found, denoised=replace(found.denoised, dtype="float32"))
    assert "do not compare" in storage_sentence(other)
    assert "space on the disk" not in {figure.name for figure in figures(other)}


def test_a_part_of_a_volume_is_told_from_the_whole(found):
    axes, shape = found.noisy.axes, found.noisy.stored_shape
    whole = replace(found.noisy, stored_shape=(3, *shape), axes=(Axis("c"), *axes))
    assert storage_rows(replace(found, noisy=whole))[0][0] == "noisy, all channels and time points"
    assert storage_rows(found)[0][0] == "noisy"


def test_another_method_is_recommended_kindly(found):
    advice = Recommendation("structn2v", "x:3", "the noise is correlated along x")
    advised = replace(found, diagnosis=replace(found.diagnosis, recommendation=advice))
    first, second = noise_words(advised)
    assert first == (
        "The method that suits this noise is structn2v with the blind mask x:3: the noise is "
        "correlated along x."
    )
    assert "denoised with linear" in second
    same = Recommendation("linear", "", "it is small")
    assert (
        len(noise_words(replace(found, diagnosis=replace(found.diagnosis, recommendation=same))))
        == 1
    )
    taught = replace(advised, card=found.card.model_copy(update={"method": "supervised"}))
    assert len(noise_words(taught)) == 1
    assert noise_words(replace(found, diagnosis=None)) == []


def test_sizes_have_their_unit_or_say_that_none_is_known(found):
    assert dict(volume_rows(found))["voxel size (z × y × x)"] == "2 × 0.4 × 0.4 µm"
    axes = tuple(replace(axis, unit=None) for axis in found.noisy.axes)
    bare = replace(found, noisy=replace(found.noisy, axes=axes))
    assert "no unit is known" in dict(volume_rows(bare))["voxel size (z × y × x)"]


def test_a_sentence_begins_and_ends():
    assert sentence("gain is corrected") == "Gain is corrected."
    assert sentence("Done!") == "Done!"
    assert sentence("") == "."
