"""Read, tile, merge and write of rasters is the identity for labels, whatever their place."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tiny_rasters import PLACE, UTM, picture, write_raster

from samonai.domains.base import Case
from samonai.domains.satellite import SatelliteDomain
from samonai.prompts.frame_prompts import FramePrompts

# The files of a place that is nowhere are written without a georeference on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")

# UTM, degrees, Web Mercator, no CRS; the geotransforms are upright, rotated and sheared, or none.
PLACES = {
    "utm": (UTM, PLACE),
    "degrees": ("EPSG:4326", Affine(1.3e-6, 0, 85.5, 0, -1.2e-6, 27.6)),
    "mercator": ("EPSG:3857", Affine(4, 0, -12_700_000, 0, -4, 2_563_000)),
    "rotated": (UTM, PLACE @ Affine.rotation(33) @ Affine.shear(4, 0)),
    "south up": (UTM, Affine(2, 0, 740_000, 0, 2, 3_730_000)),
    "nowhere": (None, None),
}


@given(data=st.data())
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_labels_come_back_exactly(data: st.DataObject) -> None:
    height, width = data.draw(st.tuples(st.integers(17, 80), st.integers(17, 80)), "size")
    tile = data.draw(st.integers(24, 48), "tile")
    overlap = data.draw(st.integers(0, tile // 2), "overlap")
    offset = data.draw(st.integers(0, 40), "offset")
    fitted = data.draw(st.booleans(), "scale of a training set")  # fills small rasters up
    crs, transform = PLACES[data.draw(st.sampled_from(sorted(PLACES)), "place")]
    seed = data.draw(st.integers(0, 99), "seed")
    rng = np.random.default_rng(seed)
    image = picture(height, width, seed)
    image[:, rng.random((height, width)) < 0.1] = 0
    blobs = rng.integers(0, 4, (height // 7 + 1, width // 5 + 1))
    label = np.kron(blobs, np.ones((7, 5), int))[:height, :width].astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = write_raster(
            Path(folder) / "scene.tif", image, crs=crs, transform=transform, nodata=0
        )
        mask = write_raster(Path(folder) / "m.tif", label[None], crs=crs, transform=transform)
        domain = SatelliteDomain(tile=tile, overlap=overlap, offset=offset, fitted=fitted)
        source = domain.read(Case("scene", path, mask))
        frames = [domain.frame(source, index) for index in range(domain.frame_count(source))]

        merged = domain.merge(source, {f.location.index: f.label for f in frames})
        np.testing.assert_array_equal(merged, label)

        merger = domain.merger(source)
        for frame in frames:
            scores = np.where(frame.label == np.array([1, 2, 3])[:, None, None], 5.0, -5.0)
            boxes = np.full((3, 4), np.nan, np.float32)
            merger.add(frame, scores.astype(np.float32), FramePrompts(boxes, np.array([1, 2, 3])))
        prediction = merger.finish()
        written = domain.write(source, prediction, Path(folder) / "out" / "scene")

        valid = image.any(0)
        expected = np.where(valid, label, 0)
        np.testing.assert_array_equal(prediction.label(), expected)
        with rasterio.open(written) as out, rasterio.open(path) as original:
            np.testing.assert_array_equal(out.read(1), np.where(valid, label, 255))
            np.testing.assert_array_equal(out.dataset_mask() > 0, valid)
            assert (out.crs, out.shape) == (original.crs, original.shape)
            assert out.transform.almost_equals(original.transform, 1e-12)
            assert out.block_shapes == [(512, 512)]
            assert out.compression.name == "deflate"


@pytest.mark.parametrize("place", PLACES)
def test_blocks_are_windows_of_their_raster(place: str, tmp_path: Path) -> None:
    crs, transform = PLACES[place]
    image = picture(70, 90)
    path = write_raster(tmp_path / "scene.tif", image, crs=crs, transform=transform)
    domain = SatelliteDomain(tile=32, overlap=8, block=32)
    cases = domain.find_cases(path)

    assert [case.case_id for case in cases] == [
        f"scene@{row}-{column}" for row in range(2) for column in range(3)
    ]
    seen = np.zeros_like(image)
    for case in cases:
        source = domain.read(case)
        part = source.window
        assert source.transform.almost_equals(
            (transform or Affine.identity()) @ Affine.translation(part.column, part.row), 1e-12
        )
        for index in range(domain.frame_count(source)):
            frame = domain.frame(source, index)
            row, column = frame.location.origin
            height, width = frame.size
            rows = slice(part.row + row, part.row + row + height)
            columns = slice(part.column + column, part.column + column + width)
            seen[:, rows, columns] = frame.image.transpose(2, 0, 1)
    np.testing.assert_array_equal(seen, image)
