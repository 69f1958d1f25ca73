"""Property-based fuzz of the raster and vector readers: right, or one line; never a traceback."""

import json
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from fuzzing import damaged, flips, kept, one_line, seeded
from hypothesis import given
from hypothesis import strategies as st
from tiny_rasters import PLACE, UTM, write_features, write_raster

from samonai.domains.base import Case
from samonai.domains.satellite import SatelliteDomain
from samonai.domains.tiling.tiles import Window

pytestmark = [
    pytest.mark.filterwarnings("ignore:Dataset has no geotransform"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # GDAL's and pyogrio's own
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


SIDE = 24
CRSS = [None, UTM, "EPSG:4326", "EPSG:3857", "EPSG:3413", 'LOCAL_CS["plane",UNIT["metre",1]]']
KINDS = ["uint8", "uint16", "int16", "int32", "float32", "float64"]


def read(image: Path, label: Path | None = None, **options: Any) -> Any:
    """Return a raster's frame, or None where it was refused in one line."""

    def found() -> Any:
        domain = SatelliteDomain(tile=SIDE, overlap=2, **options)
        source = domain.read(Case("s", image, label))
        return source, domain.frame(source, 0)

    return one_line(found)


@seeded(30)
@given(
    kind=st.sampled_from(KINDS),
    count=st.integers(1, 5),
    crs=st.sampled_from(CRSS),
    place=st.tuples(*[st.floats(-1e7, 1e7)] * 6) | st.none(),
    nodata=st.sampled_from([None, 0, 7, 255]),
    layout=st.sampled_from([{}, {"tiled": True, "blockxsize": 16, "blockysize": 16},
                            {"interleave": "band"}, {"compress": "deflate"}]),
    scaling=st.sampled_from(["auto", "raster"]),
)  # fmt: skip
def test_any_header_is_read_as_it_says_or_refused(
    tmp_path: Path,
    kind: str,
    count: int,
    crs: Any,
    place: tuple[float, ...] | None,
    nodata: float | None,
    layout: dict[str, Any],
    scaling: str,
) -> None:
    values = np.random.default_rng(0).integers(0, 120, (count, SIDE, SIDE)).astype(kind)
    transform = None if place is None else Affine(*place)
    path = tmp_path / "s.tif"
    write_raster(path, values, crs=crs, transform=transform, nodata=nodata, **layout)
    found = read(path, scaling=scaling)
    if found is None:
        return
    source, _ = found
    read_values, valid = source.read(Window(0, 0, SIDE, SIDE))
    with rasterio.open(path) as dataset:
        bands = list(source.bands)
        np.testing.assert_array_equal(read_values, dataset.read(bands))
        alpha = [n for n, c in enumerate(dataset.colorinterp, 1) if c.name == "alpha"]
    expected = np.ones((SIDE, SIDE), bool) if nodata is None else (read_values != nodata).any(0)
    for band in alpha:
        expected &= values[band - 1] != 0
    np.testing.assert_array_equal(valid, expected)


@seeded(30)
@given(part=kept, bits=flips, kind=st.sampled_from(["tif", "png", "jpg"]))
def test_damaged_rasters_are_read_or_refused(
    tmp_path: Path, part: float, bits: list[tuple[float, int]], kind: str
) -> None:
    values = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE), np.uint8)
    driver = {"tif": "GTiff", "png": "PNG", "jpg": "JPEG"}[kind]
    whole = tmp_path / f"whole.{kind}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        profile = {"compress": "deflate", "crs": UTM, "transform": PLACE} if kind == "tif" else {}
        with rasterio.open(
            whole, "w", driver=driver, count=3, height=SIDE, width=SIDE, dtype="uint8", **profile
        ) as dataset:
            dataset.write(values)
    path = tmp_path / f"s.{kind}"
    path.write_bytes(damaged(whole.read_bytes(), bits, part))
    read(path)
    read(whole if kind == "tif" else path, path, label_map="1:1")


@seeded(30)
@given(
    part=kept,
    bits=flips,
    ending=st.sampled_from(["geojson", "gpkg", "shp", "fgb"]),
)
def test_damaged_vector_files_are_read_or_refused(
    tmp_path: Path, part: float, bits: list[tuple[float, int]], ending: str
) -> None:
    image = tmp_path / "s.tif"
    if not image.exists():
        write_raster(image, np.ones((1, SIDE, SIDE), np.uint8))
    outline = shapely.Polygon([PLACE @ p for p in ((2, 2), (12, 2), (12, 9), (2, 9))])
    whole = tmp_path / f"whole.{ending}"
    if not whole.exists():
        write_features(whole, [outline, outline], kind=["a", "b"])
    for own in tmp_path.glob("whole.*"):
        content = own.read_bytes()
        is_it = own == whole
        own.with_stem("l").write_bytes(damaged(content, bits, part) if is_it else content)
    read(image, tmp_path / f"l.{ending}")


numbers = st.floats(-400, 400) | st.just(float("nan")) | st.integers(-(10**12), 10**12) | st.none()
points = st.lists(numbers, min_size=0, max_size=3)
shapes = st.builds(
    lambda kind, coordinates: {"type": kind, "coordinates": coordinates},
    st.sampled_from(["Point", "MultiPoint", "LineString", "Polygon", "MultiPolygon", "Curve"]),
    points | st.lists(points, max_size=5) | st.lists(st.lists(points, max_size=5), max_size=2),
)


@seeded(30)
@given(
    features=st.lists(
        st.tuples(shapes, st.none() | st.integers() | st.text(max_size=3)), max_size=4
    ),
    crs=st.sampled_from(CRSS[1:]),
    field=st.sampled_from([None, "kind"]),
)
def test_any_geojson_is_drawn_or_refused(
    tmp_path: Path, features: list[tuple[Any, Any]], crs: str, field: str | None
) -> None:
    image = write_raster(tmp_path / "s.tif", np.ones((1, SIDE, SIDE), np.uint8), crs=crs)
    label = tmp_path / "l.geojson"
    content = [
        {"type": "Feature", "properties": {"kind": kind}, "geometry": shape}
        for shape, kind in features
    ]
    label.write_text(json.dumps({"type": "FeatureCollection", "features": content}))
    read(image, label, class_field=field, line_width=2, point_radius=1, label_crs="image")
    read(image, label, class_field=field, line_width=2, point_radius=1)


@seeded(20)
@given(
    box=st.tuples(*[st.integers(0, SIDE)] * 4),
    crs=st.sampled_from(CRSS[1:5]),
    written=st.sampled_from(["EPSG:4326", "EPSG:3857", None]),
)
def test_boxes_of_any_crs_fill_their_pixels(
    tmp_path: Path, box: tuple[int, ...], crs: str, written: str | None
) -> None:
    middle = gpd.GeoSeries([shapely.Point(179.9999, 60.0)], crs=4326).to_crs(crs).iloc[0]
    unit = 1e-5 if crs == "EPSG:4326" else 0.5
    place = Affine(unit, 0, middle.x - 12 * unit, 0, -unit, middle.y + 12 * unit)
    image = write_raster(tmp_path / "s.tif", np.ones((1, SIDE, SIDE), np.uint8), crs=crs,
                         transform=place)  # fmt: skip
    x0, x1 = sorted(box[::2])
    y0, y1 = sorted(box[1::2])
    if x0 == x1 or y0 == y1:
        return
    outline = shapely.Polygon([place @ p for p in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))])
    outlines = gpd.GeoSeries([outline], crs=crs).to_crs(written or crs)
    label = write_features(tmp_path / "l.gpkg", list(outlines), written or crs)
    found = read(image, label)
    assert found is not None
    expected = np.zeros((SIDE, SIDE), int)
    expected[y0:y1, x0:x1] = 1
    np.testing.assert_array_equal(found[1].label, expected)
