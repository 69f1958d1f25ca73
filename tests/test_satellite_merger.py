"""Merging tiles: no seams, one number per object, touching objects apart, nothing on nodata."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from scipy import ndimage
from tiny_rasters import picture, write_raster

from samonai.domains.base import Case
from samonai.domains.satellite import Raster, SatelliteDomain
from samonai.domains.satellite.prediction import RasterPrediction
from samonai.domains.tiling.classes import ClassLayers
from samonai.domains.tiling.tiles import TileGrid, Window
from samonai.prompts.frame_prompts import UNKNOWN_ID, FramePrompts


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", picture(150, 170), nodata=0)


def read(path: Path, **settings: Any) -> tuple[SatelliteDomain, Raster]:
    domain = SatelliteDomain(**{"tile": 48, "overlap": 16, **settings})
    return domain, domain.read(Case("scene", path))


def predict(
    domain: SatelliteDomain, source: Raster, masks: list[np.ndarray], *, ids: str, drift: float = 0
) -> RasterPrediction:
    """Give every tile the true masks, with a score that depends on the tile by up to `drift`."""
    merger = domain.merger(source)
    rng = np.random.default_rng(0)
    for index in range(domain.frame_count(source)):
        frame = domain.frame(source, index)
        part = domain.grid(source).window(index)
        seen = [n for n, mask in enumerate(masks) if mask[part.slices].any()]
        if not seen:
            continue
        signed = [ndimage.distance_transform_edt(m) - ndimage.distance_transform_edt(~m)
                  for m in (masks[n] for n in seen)]  # fmt: skip
        scores = np.stack([one[part.slices] for one in signed]).astype(np.float32)
        scores += rng.uniform(-drift, drift)
        numbers = np.array([UNKNOWN_ID if ids == "unknown" else n + 1 for n in seen])
        nowhere = np.full((len(seen), 4), np.nan, np.float32)
        prompts = FramePrompts(nowhere, np.ones(len(seen), np.int64), numbers)
        merger.add(frame, scores, prompts)
    return merger.finish()


def roofs() -> list[np.ndarray]:
    """Three roofs that touch each other, each larger than a tile, and a U that joins below."""
    masks = [np.zeros((150, 170), bool) for _ in range(4)]
    masks[0][5:70, 5:60] = True
    masks[1][5:70, 60:120] = True
    masks[2][70:100, 5:120] = True
    masks[3][20:140, 130:138] = True
    masks[3][20:140, 155:163] = True
    masks[3][132:140, 130:163] = True
    return masks


@pytest.mark.parametrize("ids", ["given", "unknown"])
@pytest.mark.parametrize("offset", [0, 13])
def test_objects_across_seams_have_one_number_and_touching_ones_stay_apart(
    scene: Path, ids: str, offset: int
) -> None:
    domain, source = read(scene, offset=offset)
    masks = roofs()
    prediction = predict(domain, source, masks, ids=ids)
    numbers = prediction.instances()

    assert len(prediction.classes) == 4
    found = [set(np.unique(numbers[mask])) for mask in masks]
    assert all(len(own) == 1 for own in found)
    assert set.union(*found) == {1, 2, 3, 4}
    assert not numbers[~np.any(masks, axis=0)].any()
    assert prediction.areas.sum() == np.any(masks, axis=0).sum()


def test_what_tiles_disagree_about_is_blended_without_a_seam(scene: Path) -> None:
    masks = roofs()[:1]
    results = []
    for offset in (0, 7, 19):
        domain, source = read(scene, offset=offset)
        results.append(predict(domain, source, masks, ids="given", drift=1.0).label())
    for other in results[1:]:
        common, either = (results[0] & other).sum(), (results[0] | other).sum()
        assert common / either > 0.95
    # Along the straight upper side no column differs from its neighbour by more than a pixel.
    heights = results[0][:70, 8:57].argmax(0)
    assert np.abs(np.diff(heights)).max() <= 1


def test_nothing_is_predicted_on_nodata(tmp_path: Path) -> None:
    image = picture(150, 170)
    image[:, 30:60, 20:90] = 0
    path = write_raster(tmp_path / "scene.tif", image, nodata=0)
    domain, source = read(path)
    prediction = predict(domain, source, [np.ones((150, 170), bool)], ids="given")

    np.testing.assert_array_equal(prediction.instances() > 0, image.any(0))


def test_classes_that_touch_across_strips_are_one_object(tmp_path: Path) -> None:
    # Higher than the rows that are written at once; a snake whose parts join late.
    label = np.zeros((1100, 90), np.int64)
    label[10:1090, 5:15] = 1
    label[10:1090, 40:50] = 1
    label[1080:1090, 5:50] = 1
    label[100:900, 60:70] = 2
    label[900:905, 70:75] = 2  # touches by its corner only
    label[400:600, 50:60] = 2  # touches class 1, and class 2
    path = write_raster(tmp_path / "tall.tif", picture(1100, 90))
    domain, source = read(path, tile=64)
    merger = domain.merger(source)
    for index in range(domain.frame_count(source)):
        frame = domain.frame(source, index)
        part = domain.grid(source).window(index)
        scores = np.where(label[part.slices] == np.array([1, 2])[:, None, None], 3.0, -3.0)
        nowhere = np.full((2, 4), np.nan, np.float32)
        merger.add(frame, scores.astype(np.float32), FramePrompts(nowhere, np.array([1, 2])))
    prediction = merger.finish()

    np.testing.assert_array_equal(prediction.label(), label)
    assert prediction.classes.tolist() == [1, 2]
    assert prediction.areas.tolist() == [(label == 1).sum(), (label == 2).sum()]
    np.testing.assert_allclose(prediction.scores, 1 / (1 + np.exp(-3.0)), rtol=1e-6)


def test_values_of_tiles_become_one_map(tmp_path: Path) -> None:
    image = picture(1100, 170)
    image[:, 30:60, 20:90] = 0
    domain, source = read(write_raster(tmp_path / "scene.tif", image, nodata=0))
    rows, columns = np.indices((1100, 170))
    true = (np.sin(rows / 40) * np.cos(columns / 30) * 0.5 + 0.5).astype(np.float32)
    merger = domain.map_merger(source)
    grid = domain.grid(source)
    asked = [index for index in range(len(grid)) if grid.window(index).column < 60]
    for index in asked:
        merger.add(domain.frame(source, index), true[grid.window(index).slices])
    path = domain.write_map(source, merger.finish(), tmp_path / "map")

    with rasterio.open(path) as written, rasterio.open(source.path) as scene:
        assert (written.crs, written.transform, written.shape) == (
            scene.crs, scene.transform, scene.shape
        )  # fmt: skip
        values = written.read(1)
    seen = np.zeros((1100, 170), bool)
    for index in asked:
        seen[grid.window(index).slices] = True
    valid = image.any(0)
    np.testing.assert_allclose(values[valid & seen], true[valid & seen], atol=6e-4)
    assert not values[valid & ~seen].any()
    assert np.isnan(values[~valid]).all()


def test_classes_that_tiles_share_or_do_not_are_weighed_by_their_own_tiles() -> None:
    grid = TileGrid((200, 90), (48, 48), (16, 16))
    rng = np.random.default_rng(0)
    layers = ClassLayers(grid)
    sums = {value: np.zeros((2, 200, 90)) for value in (2, 5, 7)}
    best, label, done = np.zeros((200, 90), np.float32), np.zeros((200, 90), np.int32), 0
    asked = [(2, 5), (2, 5), (5,), (2, 5, 7), (7, 2), (5, 5, 2)]

    def take(until: int) -> None:
        strip = Window(done, 0, until - done, 90)
        label[done:until], best[done:until] = layers.take(strip)

    for tile in range(len(grid)):
        window = grid.window(tile)
        if window.row > done:
            take(window.row)
            done = window.row
        classes = np.array(asked[tile % len(asked)])
        scores = rng.normal(size=(len(classes), 48, 48)).astype(np.float32)
        layers.add(tile, scores, classes)
        rows, columns = grid.weights(tile)
        weight = rows[:, None] * columns
        for value in set(classes.tolist()):
            of_class = scores[classes == value].max(0)
            sums[value][:, *window.slices] += np.stack([weight * of_class, weight])
    take(200)
    with np.errstate(invalid="ignore"):
        means = {value: np.nan_to_num(total / weight) for value, (total, weight) in sums.items()}
    expected = np.max(list(means.values()), axis=0).clip(0)
    np.testing.assert_allclose(best, expected, atol=1e-5)
    for value, mean in means.items():
        clear = np.all([mean > other + 1e-4 for v, other in means.items() if v != value], axis=0)
        assert (label[clear & (mean > 1e-4)] == value).all()
        assert (clear & (mean > 1e-4)).any()
