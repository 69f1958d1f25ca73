"""The scale at which rasters are seen: measured on the training set, kept, the same for all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from tiny_rasters import PLACE, UTM, picture, write_raster

from samonai.core.errors import InputError
from samonai.core.geometry import LONG_SIDE
from samonai.domains import get_domain
from samonai.domains.base import Case
from samonai.domains.satellite import SatelliteDomain

# Files of a place that is nowhere are written without a georeference on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")

CHIP = 60  # pixels of half a metre


def fitted(folder: Path, **settings: Any) -> SatelliteDomain:
    """Return a domain as a run on three chips and a larger raster keeps it."""
    for number, side in enumerate((CHIP, CHIP, CHIP, 3 * CHIP // 2)):
        write_raster(folder / f"chip{number}.tif", picture(side, side))
    domain = SatelliteDomain(**settings)
    domain.fit(domain.find_cases(folder))
    kept = json.loads(json.dumps(domain.settings()))
    again: SatelliteDomain = get_domain("satellite", **kept)
    assert again.settings() == domain.settings()
    return again


@pytest.mark.parametrize("settings", [{}, {"resolution": CHIP * 0.5 / LONG_SIDE}])
def test_a_scene_is_seen_at_the_scale_of_the_training_set(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    domain = fitted(tmp_path / "chips", **settings)
    places: dict[str, tuple[Any, Affine | None, int]] = {
        "same": (UTM, PLACE, CHIP),
        "finer": (UTM, PLACE @ Affine.scale(0.5), 2 * CHIP),
        "nowhere": (None, None, CHIP),  # as many pixels as in training
    }
    for name, (crs, place, side) in places.items():
        path = write_raster(tmp_path / f"{name}.tif", picture(300, 280), crs=crs, transform=place)
        grid = domain.grid(domain.read(Case(name, path)))
        np.testing.assert_allclose(grid.tile, side, rtol=0.02)
        assert grid.overlap == (round(grid.tile[0] / 4), round(grid.tile[1] / 4))


def test_a_raster_smaller_than_a_tile_is_not_enlarged(tmp_path: Path) -> None:
    domain = fitted(tmp_path / "chips")
    image = picture(20, 31)
    label = np.ones((1, 20, 31), np.uint8)
    path = write_raster(tmp_path / "small.tif", image)
    source = domain.read(Case("small", path, write_raster(tmp_path / "l.tif", label)))
    frame = domain.frame(source, 0)

    assert domain.frame_count(source) == 1
    assert frame.size == (20, domain.grid(source).tile[1])
    np.testing.assert_array_equal(frame.image[:, :31], image.transpose(1, 2, 0))
    np.testing.assert_array_equal(frame.label, np.pad(label[0], ((0, 0), (0, frame.size[1] - 31))))
    assert frame.valid is not None
    assert frame.valid[:, :31].all()
    assert not frame.valid[:, 31:].any()
    # Nothing said about the scale: it fills the model's image.
    assert SatelliteDomain().frame(source, 0).size == (20, 31)


def test_runs_from_before_are_still_read() -> None:
    """And their stores are not: small rasters were enlarged then."""
    assert "fitted" not in SatelliteDomain().settings()
    assert "fitted" in SatelliteDomain.non_pixel_settings
    assert SatelliteDomain(resolution=0.1).settings()["fitted"] is False


def test_a_raster_hardly_larger_than_a_tile_is_one(tmp_path: Path) -> None:
    domain = fitted(tmp_path / "chips")
    path = write_raster(tmp_path / "s.tif", picture(CHIP + 2, CHIP - 2))
    source = domain.read(Case("s", path))

    assert domain.frame_count(source) == 1
    assert domain.frame(source, 0).size == (CHIP + 2, CHIP - 2)


def test_metres_need_a_crs_unless_a_training_set_tells_pixels(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "s.tif", picture(90, 90), crs=None, transform=None)
    with pytest.raises(InputError, match=r"resolution=.*no CRS"):
        SatelliteDomain(resolution=0.03).read(Case("s", path))
    chips = tmp_path / "chips"
    domain = SatelliteDomain()
    domain.fit([Case("s", path)])  # a training set without metres
    assert domain.settings()["resolution"] is None
    assert domain.settings()["tile"] == "90px"
    with pytest.raises(InputError, match=r"=30.*m: the raster has no CRS"):
        fitted(chips, tile="30m").grid(domain.read(Case("s", path)))
