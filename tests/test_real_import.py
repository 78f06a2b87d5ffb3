"""Real volumes come back voxel for voxel, whatever microscope and software wrote them."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

import n2v_scale
from n2v_scale.geometry import Box

VOLUMES = (
    "mousebrain_atlas_clean",
    "mousebrain_signal",
    "mousebrain_background",
    "lateralroot_nuclei_lightsheet",
    "organoid_lowsnr",
    "ovule_nuclei_confocal",
    "chromosomes",
    "nuclear_envelope",
    "dendrite_correlated_noise",
    "lightsheet_timelapse_tzyx",
)


@pytest.mark.data
@pytest.mark.parametrize("name", VOLUMES)
def test_every_volume_imports_and_comes_back(data_dir, tmp_path, client, name):
    source = data_dir / "volumes" / f"{name}.tif"
    n2v_scale.import_volume(source, tmp_path / "copy.zarr", client=client)
    copy = n2v_scale.open_volume(tmp_path / "copy.zarr")
    stored = tifffile.imread(source)
    times, channels = copy.shape[:2]
    assert copy.dtype == stored.dtype.name
    values = np.stack(
        [
            [copy.read(t, c, Box.whole(copy.spatial_shape)) for c in range(channels)]
            for t in range(times)
        ]
    )
    np.testing.assert_array_equal(values.reshape(stored.shape), stored)


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "idr6001240_v05_sharded.zarr",
        "tubhiswt_tczyx_v04.zarr",
        "bioformats2raw_mitotic_tczyx_v04.ome.zarr",
        "mobie_mri_zyx_gzip_v04.ome.zarr",
        "omezarrpy_v01_flat.zarr",
        "java_5d_v05_zstd.ome.zarr",
    ],
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_of_other_software_is_copied_with_its_metadata(
    data_dir, tmp_path, client, name, version
):
    source = n2v_scale.open_volume(data_dir / "ome_zarr" / name)
    n2v_scale.import_volume(source, tmp_path / "copy.zarr", client=client, ome_version=version)
    copy = n2v_scale.open_volume(tmp_path / "copy.zarr")
    assert copy.shape == source.shape
    assert copy.voxel_size == pytest.approx(source.voxel_size)
    assert [a.unit for a in copy.axes] == [a.unit for a in source.axes]
    box = Box.whole(source.spatial_shape)
    for t in range(source.shape[0]):
        for c in range(source.shape[1]):
            np.testing.assert_array_equal(copy.read(t, c, box), source.read(t, c, box))
