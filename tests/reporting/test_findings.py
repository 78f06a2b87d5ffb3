"""Every kind of volume, and everything that may be gone, has a report or a sentence."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile
import zarr

import n2v_scale
from n2v_scale.errors import InputError
from n2v_scale.evaluation import evaluate_volumes
from n2v_scale.io.open import open_volume
from n2v_scale.metrics import ErrorSums
from n2v_scale.reporting import find_out
from n2v_scale.reporting.words import (
    estimate_rows,
    figures,
    headline,
    model_rows,
    storage_rows,
    volume_rows,
)


def noise(*shape, dtype="u2"):
    values = np.random.default_rng(0).normal(100, 9, shape)
    return values.astype(dtype) if dtype != "i2" else (values - 120).astype(dtype)


VOLUMES = {
    "2d": (noise(40, 70), "yx", {}),
    "plane": (noise(1, 40, 70), "zyx", {}),
    "tiny": (noise(8, 8, 8), "zyx", {}),
    "float": (noise(16, 40, 36, dtype="f4"), "zyx", {"scale": (3, 0.5, 0.25)}),
    "negative": (noise(16, 40, 36, dtype="i2"), "zyx", {"unit": "nanometer"}),
    "8 bits": (noise(16, 40, 36, dtype="u1"), "zyx", {}),
    "constant half": (np.pad(noise(16, 20, 36), ((0, 0), (0, 20), (0, 0))), "zyx", {}),
    "channels": (noise(2, 2, 8, 24, 36), "tczyx", {}),
}


@pytest.mark.parametrize("name", VOLUMES)
def test_a_volume_of_every_kind(name, tmp_path, write_volume, make_output, report_on, client):
    values, axes, more = VOLUMES[name]
    noisy = write_volume(tmp_path / "v.zarr", values, axes, **more)
    flat = name in ("2d", "plane")
    if flat:  # a model of volumes takes none
        output = tmp_path / "o.zarr"
        n2v_scale.baseline(noisy, output, filter="gaussian", values=[1.0], client=client)
    else:
        output = make_output(noisy)
    case = report_on(output)
    data = case.slices.data
    whole = values.reshape((1,) * (5 - values.ndim) + values.shape)
    written = zarr.open_array(str(output), path="0", mode="r")[...].reshape(whole.shape)
    for number, place in enumerate(data["places"]):
        z, (_, y0, x0), (_, high, wide) = place["centre"][0], place["start"], place["shape"]
        for volume, held in (("noisy", whole), ("denoised", written)):
            plane = held[place["t"], place["c"], z, y0 : y0 + high, x0 : x0 + wide]
            _, step, _, _, exact = data["scales"][str(place["c"])]
            found = case.slices.plane(number, volume, "xy")
            apart = np.abs(found - plane) > (0 if exact else 0.51 * step)
            assert apart.mean() <= (0 if exact else 4e-3)
    assert (len(data["places"]) == 1) == flat
    assert headline(case.found)
    if name in ("2d", "tiny", "constant half", "channels"):  # whose plots have least to show
        assert len([tag for tag, _ in case.page.tags if tag == "svg"]) >= 3
    assert figures(case.found)[0].value == ("gaussian" if flat else "n2v")


def test_a_part_of_an_output(tmp_path, write_volume, make_output):
    values = noise(3, 3, 8, 24, 36) + np.arange(9, dtype="u2").reshape(3, 3, 1, 1, 1) * 100
    noisy = write_volume(tmp_path / "v.zarr", values, chunk=(1, 1, 8, 24, 36))
    part = open_volume(noisy.address, channels=[2, 0], timepoints=[1, 2])
    output = make_output(part)
    denoised = open_volume(output, channels=[1], timepoints=[1])
    found = find_out(denoised)
    assert (found.noisy.channels, found.noisy.timepoints) == ((0,), (2,))
    for place, planes in zip(found.places, found.planes, strict=True):
        assert np.array_equal(planes["noisy"]["xy"], values[2, 0, place.centre[0]])
        after = zarr.open_array(str(output), path="0", mode="r")[1, 1, place.centre[0]]
        assert np.array_equal(planes["denoised"]["xy"], after)
    given = find_out(denoised, noisy=open_volume(noisy.address, channels=[0], timepoints=[2]))
    assert np.array_equal(given.planes[0]["noisy"]["xy"], found.planes[0]["noisy"]["xy"])
    with pytest.raises(InputError, match="more time points or channels"):
        find_out(open_volume(output), noisy=open_volume(noisy.address, channels=[0]))


def test_nan_that_was_filled_has_no_value(tmp_path, write_volume, make_output, report_on):
    values = noise(16, 40, 36, dtype="f4")
    values[:, 3:6, 5] = np.nan
    noisy = write_volume(tmp_path / "v.zarr", values)
    case = report_on(make_output(noisy, on_nan="fill"))
    plane, after = (case.slices.plane(0, name, "xy") for name in ("noisy", "denoised"))
    assert np.argwhere(np.isnan(plane)).tolist() == [[3, 5], [4, 5], [5, 5]]
    assert np.isfinite(after).all()
    assert np.isfinite(case.found.spectra["noisy"].power[1:]).any()


def test_a_mask_and_standard_deviations(
    noisy, linear, tmp_path, write_volume, make_output, report_on
):
    mask = np.zeros((20, 48, 64), "u1")
    mask[:, :, :32] = 1
    mask = write_volume(tmp_path / "mask.zarr", mask, scale=(2, 0.4, 0.4))
    output = make_output(noisy, linear, mask=mask.address, write="mean,std")
    case = report_on(output)
    assert case.found.denoised.shape == (1, 1, 20, 48, 64)
    assert any("left as they were" in note for note in case.found.estimate.notes)
    assert storage_rows(case.found)[1][0] == "denoised, and its standard deviations"
    assert {place.c for place in case.found.places} == {0}


@pytest.mark.parametrize("kind", ["0.4", "tiff", "planes"])
def test_formats(kind, tmp_path, client, make_output, report_on):
    values = noise(16, 40, 36)
    if kind == "tiff":
        tifffile.imwrite(tmp_path / "v.tif", values)
        source = tmp_path / "v.tif"
    elif kind == "planes":
        source = tmp_path / "planes"
        source.mkdir()
        for z, plane in enumerate(values):
            tifffile.imwrite(source / f"{z:03}.tif", plane)
    else:
        source = tmp_path / "v04.zarr"
        tifffile.imwrite(tmp_path / "v.tif", values)
        n2v_scale.import_volume(tmp_path / "v.tif", source, ome_version="0.4", client=client)
    case = report_on(make_output(source, ome_version="0.4" if kind == "0.4" else "0.5"))
    z = case.slices.data["places"][0]["centre"][0]
    assert np.array_equal(case.slices.plane(0, "noisy", "xy"), values[z])
    assert case.found.stored["noisy"].bytes_stored > 0
    if kind == "0.4":
        with pytest.raises(InputError, match="copy that `n2v-scale import` made"):
            find_out(open_volume(source))


def test_an_incomplete_output_is_estimated_where_it_is_written(noisy, linear, sheet, make_output):
    output = make_output(noisy, linear, posterior=False, only=[0, 1, 4, 5, 6])
    clean = zarr.create_array(output.parent / "clean.zarr", data=sheet.clean)
    del clean
    camera = (2.2, 100.0, 3.52)
    reference = open_volume(output.parent / "clean.zarr")
    found = find_out(open_volume(output), reference=reference, camera=camera)
    written = np.ones(sheet.clean.shape, bool)
    written[:16, 32:, :] = written[16:, 32:, 32:] = False
    values = zarr.open_array(str(output), path="0", mode="r")[...]
    true = ErrorSums.of(values[written], sheet.clean[written])
    assert found.estimate.voxels == written.sum()
    assert found.estimate.mse == pytest.approx(true.mse, rel=0.25)
    assert found.evaluations == {}
    assert "3 of 8 blocks" in found.missing["evaluation"]
    assert found.overview.shape == (48, 64)
    assert dict(estimate_rows(found))


def test_the_estimate_and_the_truth_share_one_peak(noisy, linear, sheet, make_output, tmp_path):
    """Which is the reference's; a reference without any is named, and the estimate has its own."""
    output = make_output(noisy, linear, posterior=False)
    for name, values in (("clean", sheet.clean), ("constant", np.full_like(sheet.clean, 7))):
        zarr.create_array(tmp_path / f"{name}.zarr", data=values)
    camera = (2.2, 100.0, 3.52)
    clean, constant = (open_volume(tmp_path / f"{n}.zarr") for n in ("clean", "constant"))
    found = find_out(open_volume(output), reference=clean, camera=camera)
    ranges = {one.data_range for one in (found.estimate, *found.evaluations.values())}
    assert ranges == {evaluate_volumes(open_volume(output), clean).data_range}
    assert found.estimate.psnr == pytest.approx(found.evaluations["denoised"].psnr, abs=0.5)
    assert [name for name, _ in estimate_rows(found)].count("range (the PSNR's peak)") == 1
    without = find_out(open_volume(output), reference=constant, camera=camera)
    assert "is constant" in without.missing["evaluation"]
    assert without.evaluations == {}
    assert without.estimate.psnr > 20


def test_what_is_gone_is_named(noisy, linear, make_output, tmp_path, report_on):
    model, volume = tmp_path / "m.n2v", tmp_path / "v.zarr"
    shutil.copytree(linear, model)
    shutil.copytree(noisy.address, volume)
    output = make_output(str(volume), model, only=[0])
    shutil.move(model, tmp_path / "moved.n2v")
    case = report_on(output)
    assert "m.n2v" in case.found.missing["model"]
    assert "--model" in case.found.missing["estimate"]
    assert "it cannot be read now" in str(model_rows(case.found))
    assert figures(case.found)[0].value == "unknown"
    told = find_out(open_volume(output), model=str(tmp_path / "moved.n2v"))
    assert told.missing == {}
    assert told.estimate.of == "the posterior mean"
    shutil.move(volume, tmp_path / "away.zarr")
    with pytest.raises(InputError, match="say with --noisy where it is"):
        find_out(open_volume(output))
    moved = find_out(open_volume(output), noisy=str(tmp_path / "away.zarr"))
    assert moved.noisy.address == str(tmp_path / "away.zarr")
    assert dict(volume_rows(moved))["noisy volume"].startswith(moved.noisy.address)


def test_volumes_that_do_not_belong_together(case, tmp_path, write_volume):
    other = write_volume(tmp_path / "other.zarr", noise(20, 48, 60))
    denoised = open_volume(case.output)
    with pytest.raises(InputError, match="select the same part"):
        find_out(denoised, reference=other)
    with pytest.raises(InputError, match="was not made from that"):
        find_out(denoised, noisy=other)
    with pytest.raises(InputError, match="holds no record of a run"):
        find_out(other)
    flat = write_volume(tmp_path / "flat.zarr", np.full((20, 48, 64), 7, "u2"))
    found = find_out(denoised, reference=flat)
    assert "constant" in found.missing["evaluation"]


def test_a_finer_level_is_the_picture_of_the_whole(case, monkeypatch):
    denoised = open_volume(case.output)
    whole = zarr.open_array(str(case.output), path="0", mode="r")[...].max(axis=0)
    assert np.array_equal(case.found.overview, whole)
    monkeypatch.setattr("n2v_scale.reporting.findings.LARGEST_OVERVIEW", whole.size * 20 - 1)
    lower = zarr.open_array(str(case.output), path="1", mode="r")[...].max(axis=0)
    assert np.array_equal(find_out(denoised).overview, lower)
    monkeypatch.setattr("n2v_scale.reporting.findings.LARGEST_OVERVIEW", 1)
    assert find_out(denoised).overview is None
