"""The noisy volume is found by the record of how the denoised one was made."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile

import n2v_scale
from n2v_scale.errors import InputError
from n2v_scale.viewing.choice import chosen_volumes
from n2v_scale.viewing.shown import Region
from tests.viewing.conftest import values


def roles(choice):
    return [(shown.role, shown.volume.address) for shown in choice.volumes]


def test_the_noisy_volume_comes_first(pair):
    choice = chosen_volumes([str(pair.denoised)])
    assert roles(choice) == [("noisy", str(pair.noisy)), ("denoised", str(pair.denoised))]
    assert choice.remarks == []
    assert [shown.name for shown in choice.volumes] == ["noisy.zarr", "denoised.zarr"]


def test_it_is_shown_once_where_it_is_named_too(pair):
    for addresses in ([pair.denoised, pair.noisy], [pair.noisy, pair.denoised]):
        assert [role for role, _ in roles(chosen_volumes([str(a) for a in addresses]))] == [
            "noisy",
            "denoised",
        ]


def test_it_may_be_named(pair, moved):
    alone = moved(noisy=False)
    choice = chosen_volumes([str(alone), str(pair.denoised)], noisy=str(pair.noisy))
    assert [role for role, _ in roles(choice)] == ["noisy", "denoised", "denoised"]
    assert [shown.name for shown in choice.volumes][1:] == ["denoised.zarr", "denoised.zarr-2"]


def test_both_may_have_been_moved(pair, moved, tmp_path, monkeypatch):
    denoised = moved(noisy=True)
    hidden = pair.noisy.rename(pair.noisy.with_name("elsewhere"))
    try:
        choice = chosen_volumes([str(denoised)])
    finally:
        hidden.rename(pair.noisy)
    assert roles(choice)[0] == ("noisy", str(tmp_path / "noisy.zarr"))


def test_where_it_is_gone_the_denoised_one_is_shown_alone(pair, moved):
    denoised = moved(noisy=False)
    hidden = pair.noisy.rename(pair.noisy.with_name("elsewhere"))
    try:
        choice = chosen_volumes([str(denoised)])
    finally:
        hidden.rename(pair.noisy)
    assert roles(choice) == [("denoised", str(denoised))]
    (remark,) = choice.remarks
    assert "is shown alone" in remark
    assert f"{pair.noisy}" in remark


def test_another_volume_in_its_place_is_not_taken_for_it(pair, moved, tmp_path, write_volume):
    denoised = moved(noisy=False)
    write_volume(tmp_path / "noisy.zarr", values(shape=(4, 96, 80)))
    hidden = pair.noisy.rename(pair.noisy.with_name("elsewhere"))
    try:
        assert len(chosen_volumes([str(denoised)]).volumes) == 1
    finally:
        hidden.rename(pair.noisy)


def test_what_was_only_imported_has_no_noisy_volume(tmp_path, write_volume, client):
    source = write_volume(tmp_path / "source.zarr", values(shape=(4, 16, 16)))
    n2v_scale.import_volume(source, tmp_path / "copy.zarr", client=client)
    assert roles(chosen_volumes([str(tmp_path / "copy.zarr")])) == [
        ("volume", str(tmp_path / "copy.zarr"))
    ]


def test_a_tiff_is_shown_with_the_channel_that_was_denoised(tmp_path, tiny_model, client):
    data = np.stack([values(seed, (6, 32, 40)) for seed in range(2)], axis=1)
    tifffile.imwrite(tmp_path / "noisy.tif", data, imagej=True, metadata={"axes": "ZCYX"})
    volume = n2v_scale.open_volume(tmp_path / "noisy.tif", channels=[1])
    n2v_scale.predict(volume, tiny_model, tmp_path / "out.zarr", client=client)
    noisy, denoised = chosen_volumes([str(tmp_path / "out.zarr")]).volumes
    assert noisy.tree is None
    assert denoised.tree is not None
    tile = noisy.tile(Region(0, 0, 0, 0, 3, (0, 0), (32, 40)))
    np.testing.assert_array_equal(tile, data[3, 1])


def test_a_zip_file_is_shown(pair, tmp_path):
    shutil.make_archive(str(tmp_path / "denoised.zarr"), "zip", pair.denoised)
    (_, zipped) = chosen_volumes(
        [str(tmp_path / "denoised.zarr.zip")], noisy=str(pair.noisy)
    ).volumes
    (_, plain) = chosen_volumes([str(pair.denoised)]).volumes
    region = Region(1, 0, 0, 0, 5, (0, 0), (20, 20))
    np.testing.assert_array_equal(zipped.tile(region), plain.tile(region))
    assert zipped.tree.size("1/zarr.json") == plain.tree.size("1/zarr.json")


def test_what_is_no_volume_is_said(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        chosen_volumes([str(tmp_path / "nothing.zarr")])
