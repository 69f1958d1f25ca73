"""Tiles around what is asked: every object once, well inside a tile, whatever the grid was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_rasters import PLACE, picture, write_features, write_raster

import samonai as api
from samonai.core.errors import InputError
from samonai.domains.base import Case
from samonai.domains.satellite import SatelliteDomain
from samonai.domains.satellite.placing import place
from samonai.domains.tiling.tiles import TileGrid, Window
from samonai.inference import CaseDataset, FilePrompts, prompts_from_label
from samonai.inference.case_dataset import CaseItem
from samonai.prompts.frame_prompts import FramePrompts

SIZE, TILE = (300, 420), (64, 64)
CLEAR = 8


def on_grid(boxes: np.ndarray, grid: TileGrid) -> dict[int, FramePrompts]:
    """Ask for boxes in the raster's pixels on each tile that shows some of them."""
    asked = {}
    for tile in range(len(grid)):
        window = grid.window(tile)
        shift = np.array([window.column, window.row] * 2)
        parts = np.clip(boxes - shift, 0, [window.width, window.height] * 2)
        seen = np.flatnonzero((parts[:, 2] > parts[:, 0]) & (parts[:, 3] > parts[:, 1]))
        if len(seen):
            asked[tile] = FramePrompts(parts[seen].astype(np.float32), seen * 0 + 1, seen + 1)
    return asked


def in_raster(placed: Any) -> dict[int, list[list[float]]]:
    """Return where each object is asked for, in the raster's pixels."""
    windows, prompts = placed
    found: dict[int, list[list[float]]] = {}
    for tile, asked in prompts.items():
        shift = [windows[tile].column, windows[tile].row] * 2
        for number, box in zip(asked.object_ids.tolist(), asked.boxes, strict=True):
            found.setdefault(number, []).append((box + shift).tolist())
    return found


box = st.tuples(
    *(st.integers(0, side - 2) for side in SIZE[::-1]), *(st.integers(2, side) for side in (90, 90))
)


@settings(max_examples=80, deadline=None)
@given(st.lists(box, min_size=1, max_size=25), st.integers(0, 60), st.booleans())
def test_every_object_is_asked_for_once_and_well_inside(
    corners: list[tuple[int, int, int, int]], offset: int, alone: bool
) -> None:
    boxes = np.array(
        [(x, y, min(x + w, SIZE[1]), min(y + h, SIZE[0])) for x, y, w, h in corners], float
    )
    plain, moved = TileGrid(SIZE, TILE, (16, 16)), TileGrid(SIZE, TILE, (16, 16), (offset, offset))
    placed = place(on_grid(boxes, plain), plain, alone=alone)
    other = place(on_grid(boxes, moved), moved, alone=alone)
    assert placed is not None
    assert other is not None
    found = in_raster(placed)
    for number, one in enumerate(boxes, 1):
        parts = np.array(found[number])
        assert [*parts[:, :2].min(0), *parts[:, 2:].max(0)] == one.tolist()
        fits = max(one[2] - one[0], one[3] - one[1]) <= TILE[0]
        assert (len(parts) == 1) == fits
    # Where the grid's tiles begin has no say.
    assert (other[0], in_raster(other)) == (placed[0], found)
    windows, prompts = placed
    assert [window.row for window in windows] == sorted(window.row for window in windows)
    for tile, asked in prompts.items():
        inside(windows[tile], asked.boxes)


def inside(window: Window, boxes: np.ndarray) -> None:
    """Check that a tile lies in the raster, and that boxes that leave room lie well inside it."""
    assert (window.height, window.width) == TILE
    assert min(window.row, window.column) >= 0
    assert (window.bottom <= SIZE[0], window.right <= SIZE[1]) == (True, True)
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    first = (window.column == 0, window.row == 0)
    last = (window.right == SIZE[1], window.bottom == SIZE[0])
    for axis in range(2):
        if high[axis] - low[axis] <= TILE[axis] - 2 * CLEAR:
            assert first[axis] or low[axis] >= CLEAR
            assert last[axis] or high[axis] <= TILE[axis] - CLEAR


def test_neighbours_share_a_tile_unless_each_has_its_own() -> None:
    boxes = np.array([[100, 100, 110, 110], [120, 104, 130, 118], [300, 200, 310, 210]], float)
    grid = TileGrid(SIZE, TILE, (16, 16))
    together, _ = place(on_grid(boxes, grid), grid)
    assert [(w.row, w.column) for w in together] == [(77, 83), (173, 273)]
    alone, asked = place(on_grid(boxes, grid), grid, alone=True)
    assert len(alone) == 3
    for found in asked.values():
        middle = (found.boxes[0, :2] + found.boxes[0, 2:]) / 2
        assert np.abs(middle - 32).max() <= 1


def test_what_no_tile_holds_is_asked_for_on_several() -> None:
    wide = np.array([[50.0, 100, 250, 140]])
    for offset in (0, 31):
        grid = TileGrid(SIZE, TILE, (16, 16), (offset, offset))
        windows, asked = place(on_grid(wide, grid), grid)
        parts = np.array(in_raster((windows, asked))[1])
        assert len(parts) == 4  # 200 pixels in tiles of 64 that share 16 at least
        assert parts[:, :2].min(0).tolist() == [50, 100]
        assert parts[:, 2:].max(0).tolist() == [250, 140]
        assert {window.row for window in windows} == {88}


def test_a_box_drawn_anew_on_every_tile_is_not_made_larger() -> None:
    grid = TileGrid((64, 128), TILE, (32, 32))
    asked = {
        0: FramePrompts(np.array([[30, 10, 60, 41]], np.float32), np.array([1]), np.array([7])),
        1: FramePrompts(np.array([[0, 11, 29, 40]], np.float32), np.array([1]), np.array([7])),
    }
    assert in_raster(place(asked, grid)) == {7: [[30, 10, 60, 41]]}


def test_points_lie_in_the_middle_of_a_tile() -> None:
    grid = TileGrid(SIZE, TILE, (16, 16))
    nowhere = np.full((1, 4), np.nan, np.float32)

    def click(x: float, y: float) -> FramePrompts:
        point, sign = np.array([[[x, y]]], np.float32), np.array([[1]])
        return FramePrompts(nowhere, np.array([1]), np.array([5]), point, sign)

    # The point at (100, 100) of the raster, which four tiles show.
    asked = {}
    for tile in range(len(grid)):
        window = grid.window(tile)
        x, y = 100 - window.column, 100 - window.row
        if 0 <= x < 64 and 0 <= y < 64:
            asked[tile] = click(x, y)
    assert len(asked) == 4
    windows, placed = place(asked, grid)
    assert [(w.row, w.column) for w in windows] == [(68, 68)]
    assert placed[0].point_coords.tolist() == [[[32, 32]]]
    assert np.isnan(placed[0].boxes).all()


def test_classes_stay_on_the_grid() -> None:
    grid = TileGrid(SIZE, TILE, (16, 16))
    of_class = FramePrompts(np.array([[1, 2, 9, 9]], np.float32), np.array([1]))
    assert place({0: of_class}, grid) is None
    assert place({}, grid) is None


def test_another_placing_is_one_line() -> None:
    with pytest.raises(InputError, match="placing='middle': use one of prompts, objects, grid"):
        SatelliteDomain(placing="middle")


ROOFS = [(20, 30, 60, 60), (95, 20, 130, 60), (180, 15, 220, 50), (30, 110, 70, 150)]


def write_scene(folder: Path) -> tuple[Path, Path]:
    outlines = [shapely.box(*(PLACE @ (x0, y1)), *(PLACE @ (x1, y0))) for x0, y0, x1, y1 in ROOFS]
    roofs = write_features(folder / "roofs.geojson", outlines)
    return write_raster(folder / "scene.tif", picture(180, 260)), roofs


def read(domain: SatelliteDomain, path: Path, boxes: Path) -> CaseItem:
    return CaseDataset(domain, [Case("scene", path)], FilePrompts(boxes))[0]


@pytest.mark.parametrize("placing", ["prompts", "objects"])
def test_a_prediction_does_not_hang_on_the_grid(tmp_path: Path, placing: str) -> None:
    path, roofs = write_scene(tmp_path)
    found = []
    for offset in (0, 29):
        api.predict(
            "micro", path, roofs, tmp_path / f"out{offset}", domain="satellite", tile="96",
            offset=offset, placing=placing, formats=["instances"], progress=False,
        )  # fmt: skip
        with rasterio.open(tmp_path / f"out{offset}" / "scene_instances.tif") as written:
            found.append(written.read(1))
    assert len(np.unique(found[0])) == 5
    assert np.array_equal(*found)


def test_places_enter_the_hash_and_a_raster_of_one_tile_has_none(tmp_path: Path) -> None:
    path, roofs = write_scene(tmp_path)
    placed = read(SatelliteDomain(tile="96"), path, roofs).source
    on_a_grid = read(SatelliteDomain(tile="96", placing="grid"), path, roofs).source
    assert placed.places
    assert on_a_grid.places is None
    assert placed.content_hash() != on_a_grid.content_hash()
    assert read(SatelliteDomain(tile="512"), path, roofs).source.places is None


def test_labels_prompt_on_tiles_of_their_own_too(tmp_path: Path) -> None:
    path, roofs = write_scene(tmp_path)
    domain = SatelliteDomain(tile="96", overlap="48")
    source = domain.read(Case("scene", path, roofs))
    asked = prompts_from_label(domain, source)
    placed, prompts = domain.frames_around_prompts(source, asked)
    boxes = in_raster((placed.places, prompts))
    found = sorted(one for parts in boxes.values() for one in parts)
    np.testing.assert_allclose(found, sorted(ROOFS), atol=1e-4)
    assert sum(np.count_nonzero(domain.frame(placed, n).label) for n in prompts) >= sum(
        (x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in ROOFS
    )
