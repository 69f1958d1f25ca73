"""Rasters and vector files in states that are easily misread: the right value, or one line."""

import json
import logging
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from samonai.core.errors import InputError
from samonai.domains.satellite import SatelliteDomain
from samonai.domains.tiling.tiles import Window

pytestmark = [
    pytest.mark.filterwarnings("ignore:Dataset has no geotransform"),
    pytest.mark.filterwarnings("ignore:Use `@`:PendingDeprecationWarning"),  # rasterio's own
]

UTM = "EPSG:32645"
PLACE = Affine(0.5, 0, 333_000, 0, -0.5, 3_060_000)
MARS = (
    'PROJCS["Mars eqc",GEOGCS["GCS_Mars_2000",DATUM["D_Mars_2000",SPHEROID["Mars_2000_IAU_IAG",'
    '3396190.0,169.89444722361179]],PRIMEM["Reference_Meridian",0.0],UNIT["Degree",'
    '0.0174532925199433]],PROJECTION["Equirectangular"],PARAMETER["standard_parallel_1",0],'
    'PARAMETER["central_meridian",0],UNIT["metre",1]]'
)
LOCAL = 'LOCAL_CS["RGF93 / Lambert-93",UNIT["metre",1,AUTHORITY["EPSG","9001"]]]'


def raster(
    path: Path,
    values: Any = None,
    crs: Any = UTM,
    transform: Affine | None = PLACE,
    size: int = 128,
    **options: Any,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = np.random.default_rng(0).integers(1, 255, (3, size, size), np.uint8)
    placed = {} if transform is None else {"transform": transform}
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver=options.pop("driver", "GTiff"), count=count, height=height,
        width=width, dtype=values.dtype, crs=crs, **placed, **options,
    ) as dataset:  # fmt: skip
        dataset.write(values)
    return path


def ground(x0: float, y0: float, x1: float, y1: float, place: Affine = PLACE) -> Any:
    corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    return shapely.Polygon([place @ corner for corner in corners])


def geojson(path: Path, geometries: list[Any], values: list[Any] | None = None) -> Path:
    """Write GeoJSON as a text editor would, so that no library mends it."""
    features = [
        {"type": "Feature", "properties": {"kind": value}, "geometry": shapely.geometry.mapping(g)}
        for g, value in zip(geometries, values or [1] * len(geometries), strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def vector(path: Path, geometries: list[Any], crs: Any = UTM) -> Path:
    gpd.GeoDataFrame(geometry=geometries, crs=crs).to_file(path, engine="pyogrio")
    return path


def read(image: Path, label: Path, **settings: Any) -> Any:
    domain = SatelliteDomain(**{"tile": 128, "overlap": 16, **settings})
    cases = domain.find_cases(image, label)
    domain.fit(cases)
    return domain.read(cases[0])


def label_of(source: Any) -> Any:
    return source.read_label(Window(0, 0, *source.size))


def frame_of(image: Path, **settings: Any) -> Any:
    domain = SatelliteDomain(**{"tile": 128, "overlap": 16, **settings})
    case = domain.find_cases(image)[0]
    return domain.frame(domain.read(case), 0)


def prompts_of(image: Path, boxes: Path, **settings: Any) -> Any:
    domain = SatelliteDomain(**{"tile": 128, "overlap": 16, **settings})
    return domain.read_boxes(domain.read(domain.find_cases(image)[0]), boxes)


DEGREES = Affine(1e-5, 0, 180 - 64e-5, 0, -1e-5, -17)
MERCATOR = Affine(1.0, 0, 20037508.342789244 - 64, 0, -1.0, -1_920_780)
_AT_180 = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32760", always_xy=True).transform(180, -17)
UTM60 = Affine(1.0, 0, round(_AT_180[0]) - 64, 0, -1.0, round(_AT_180[1]) + 35)


def halves(place: Affine, crs: str) -> tuple[list[Any], np.ndarray]:
    """Return squares west and east of 180° in RFC 7946's degrees, and their pixels by GDAL."""
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    squares, expected = [], np.zeros((128, 128), int)
    for number, (x0, x1) in enumerate(((10, 40), (90, 120)), 1):
        square = ground(x0, 20, x1, 50, place)
        points = np.column_stack(to_degrees.transform(*shapely.get_coordinates(square).T))
        points[:, 0] = (points[:, 0] + 180) % 360 - 180
        squares.append(shapely.Polygon(points))
        expected[20:50, x0:x1] = number
    assert squares[0].bounds[0] > 179
    assert squares[1].bounds[0] < -179
    return squares, expected


@pytest.mark.conformance(
    domain="satellite",
    condition="A scene in degrees or Web Mercator spans 180°; its labels follow RFC 7946",
    source="RFC 7946, 3.1.9",
    right="objects on both sides are drawn, each on its own pixels",
    reader="pyproj 3.7.2 (the corners' degrees)",
    severity=1,
)
@pytest.mark.parametrize(("crs", "place"), [("EPSG:4326", DEGREES), ("EPSG:3857", MERCATOR)])
def test_labels_and_prompts_across_180(tmp_path: Path, crs: str, place: Affine) -> None:
    image = raster(tmp_path / "s.tif", crs=crs, transform=place)
    squares, expected = halves(place, crs)
    found = label_of(read(image, geojson(tmp_path / "l.geojson", squares)))
    np.testing.assert_array_equal(found.instances, expected)
    (prompts,) = prompts_of(image, tmp_path / "l.geojson").values()
    np.testing.assert_allclose(prompts.boxes, [[10, 20, 40, 50], [90, 20, 120, 50]], atol=1e-3)


@pytest.mark.conformance(
    domain="satellite",
    condition="One object across 180°: cut there, or with longitudes beyond 180 or of both signs",
    source="RFC 7946, 3.1.9; github.com/OSGeo/gdal/issues/11500",
    right="the same pixels in all three spellings",
    reader="none (the pixels are known)",
    severity=1,
)
def test_one_object_across_180_in_three_spellings(tmp_path: Path) -> None:
    west, south, east, north = ground(50, 20, 90, 50, DEGREES).bounds
    cut = shapely.MultiPolygon(
        [shapely.box(west, south, 180, north), shapely.box(-180, south, east - 360, north)]
    )
    beyond = shapely.box(west, south, east, north)
    signs = shapely.Polygon(
        [(west, south), (east - 360, south), (east - 360, north), (west, north)]
    )
    expected = np.zeros((128, 128), int)
    expected[20:50, 50:90] = 1
    image = raster(tmp_path / "s.tif", crs="EPSG:4326", transform=DEGREES)
    for spelling in (cut, beyond, signs):
        found = label_of(read(image, geojson(tmp_path / "l.geojson", [spelling])))
        np.testing.assert_array_equal(found.instances, expected)


@pytest.mark.conformance(
    domain="satellite",
    condition="Alpha beside a nodata tag, or as fifth band",
    source="github.com/rasterio/rasterio/issues/508; github.com/cogeotiff/rio-cogeo/pull/56",
    right="transparent pixels are missing, as nodata is",
    reader="rasterio 1.4.4 (the alpha band itself)",
    severity=1,
)
@pytest.mark.parametrize("count", [4, 5])
def test_alpha_counts_beside_nodata_and_as_fifth_band(tmp_path: Path, count: int) -> None:
    values = np.full((count, 64, 64), 100, np.uint16)
    values[-1] = 65535
    values[-1, :10] = 0
    values[:-1, 60:] = 0
    path = tmp_path / "s.tif"
    raster(path, values, nodata=0 if count == 4 else None)
    with rasterio.open(path, "r+") as dataset:
        colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)
        dataset.colorinterp = (*colours[: count - 1], ColorInterp.alpha)
    frame = frame_of(path, tile=64)
    with rasterio.open(path) as dataset:
        expected = dataset.read(count) != 0
    expected[60:] &= count == 5
    np.testing.assert_array_equal(frame.valid[:64, :64], expected)


@pytest.mark.conformance(
    domain="satellite",
    condition="nodata stands in one band only",
    source="github.com/rasterio/rasterio/issues/705",
    right="each band's range is that of its own valid values",
    reader="numpy (percentiles of the values that were written)",
    severity=1,
)
def test_nodata_in_one_band_leaves_its_range_alone(tmp_path: Path) -> None:
    values = np.stack([np.linspace(10, 20 * n, 64 * 64).reshape(64, 64) for n in (1, 2, 3)])
    hole = values.astype(np.float32)
    hole[1, :16] = -9999
    image = raster(tmp_path / "s.tif", hole, nodata=-9999)
    domain = SatelliteDomain(tile=64, overlap=16, scaling="raster", lower=2, upper=98)
    limits = domain.read(domain.find_cases(image)[0]).limits
    expected = [np.percentile(values[0], (2, 98)), np.percentile(values[1, 16:], (2, 98)),
                np.percentile(values[2], (2, 98))]  # fmt: skip
    np.testing.assert_allclose(limits, expected, rtol=1e-5)


@pytest.mark.conformance(
    domain="satellite",
    condition="A paletted GeoTIFF",
    source="gdal.org/pct2rgb.html",
    right="the colours of its palette; the numbers where `bands=1` asks for them",
    reader="rasterio 1.4.4 colormap()",
    severity=1,
)
def test_palettes_are_colours(tmp_path: Path) -> None:
    numbers = np.random.default_rng(1).integers(0, 4, (1, 64, 64), np.uint8)
    path = raster(tmp_path / "s.tif", numbers, photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (9, 8, 7), 1: (200, 0, 0), 2: (0, 90, 0), 3: (1, 2, 250)})
    with rasterio.open(path) as dataset:
        table = dataset.colormap(1)
    expected = np.array([table[n][:3] for n in range(4)], np.uint8)[numbers[0]]
    np.testing.assert_array_equal(frame_of(path, tile=64).image[:64, :64], expected)
    grey = frame_of(path, tile=64, bands="1").image
    np.testing.assert_array_equal(grey[:64, :64, 0], numbers[0])  # the numbers, where asked for


VEGAS, SHANGHAI = (-115.15, 36.15), (121.45, 31.25)


@pytest.mark.conformance(
    domain="satellite",
    condition="Lines and points of one file lie in cities on two continents",
    source="GeoDataFrame.estimate_utm_crs: one zone by the bounds of the whole data set",
    right="8 m are 8 m of ground in each",
    reader="pyproj 3.7.2 Geod (metres per pixel)",
    severity=1,
)
def test_widths_are_those_of_the_place(tmp_path: Path) -> None:
    roads = [shapely.LineString([at, (at[0] + 0.002, at[1])]) for at in (VEGAS, SHANGHAI)]
    trees = [shapely.Point(at[0] + 0.0002, at[1] + 0.0002) for at in (VEGAS, SHANGHAI)]
    label = geojson(tmp_path / "l.geojson", [*roads, *trees])
    for lon, lat in (VEGAS, SHANGHAI):
        place = Affine(3e-6, 0, lon, 0, -3e-6, lat + 0.0004)
        image = raster(tmp_path / "s.tif", size=256, crs="EPSG:4326", transform=place)
        found = label_of(read(image, label, tile=256, line_width=8, point_radius=5))
        geod = pyproj.Geod(ellps="WGS84")
        down = geod.inv(lon, lat, lon, lat + 3e-6)[2]
        across = geod.inv(lon, lat, lon + 3e-6, lat)[2]
        assert np.abs((found.instances == 1)[:, 20:240].sum(0) - 8 / down).max() < 1
        assert (found.instances == 2).sum() == pytest.approx(np.pi * 25 / down / across, rel=0.03)


@pytest.mark.conformance(
    domain="satellite",
    condition="Class numbers begin at 0, and one of the files has a null (1 becomes 1.0 there)",
    source="github.com/geopandas/geopandas/issues/2339; xBD (arXiv 1911.09296): damage 0 to 3",
    right="three classes, the same in each file; features without a class are left out",
    reader="none (the classes are known)",
    severity=1,
)
def test_class_numbers_with_a_zero_and_a_null(tmp_path: Path) -> None:
    squares = [ground(10 + 30 * n, 40, 30 + 30 * n, 60) for n in range(3)]
    degrees = list(gpd.GeoSeries(squares, crs=UTM).to_crs(4326))
    (tmp_path / "l").mkdir()
    for name, kinds in (("a", [0, 1, 2]), ("b", [0, 1, None])):
        raster(tmp_path / "i" / f"{name}.tif")
        geojson(tmp_path / "l" / f"{name}.geojson", degrees, kinds)
    domain = SatelliteDomain(tile=128, overlap=16, class_field="kind")
    cases = domain.find_cases(tmp_path / "i", tmp_path / "l")
    domain.fit(cases)
    assert domain.settings()["classes"] == ["0", "1", "2"]
    for case, own in zip(cases, ([1, 2, 3], [1, 2, 0]), strict=True):
        label = label_of(domain.read(case)).label
        assert [label[50, 20 + 30 * n] for n in range(3)] == own


@pytest.mark.conformance(
    domain="satellite",
    condition="A raster has a CRS and no geotransform; labels are in degrees",
    source="rasterio, NotGeoreferencedWarning: the identity matrix will be returned",
    right="refused: degrees are no pixels",
    reader="none (refusal)",
    severity=1,
)
def test_a_crs_without_a_geotransform_is_no_place(tmp_path: Path) -> None:
    image = raster(tmp_path / "s.tif", crs="EPSG:4326", transform=None)
    label = geojson(tmp_path / "l.geojson", [shapely.box(85, 27, 95, 37)])
    with pytest.raises(InputError, match=r"has a CRS \(EPSG:4326\) but no geotransform.*label_crs"):
        read(image, label)
    assert (label_of(read(image, label, label_crs="image")).label > 0).sum() == 100


@pytest.mark.conformance(
    domain="satellite",
    condition="Ground control points instead of a geotransform",
    source="gdal.org/user/raster_data_model.html",
    right="said; labels with a CRS are refused; what is written keeps the points",
    reader="rasterio 1.4.4 gcps",
    severity=1,
)
def test_control_points_are_told_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = raster(tmp_path / "s.tif", crs=None, transform=None)
    points = [
        GroundControlPoint(row, column, *(PLACE @ (column, row)))
        for row, column in ((0, 0), (0, 128), (128, 0), (128, 128))
    ]
    with rasterio.open(image, "r+") as dataset:
        dataset.gcps = (points, rasterio.crs.CRS.from_user_input(UTM))
    label = vector(tmp_path / "l.gpkg", [ground(5, 5, 20, 20)])
    with pytest.raises(InputError, match=r"has 4 ground control points and no geotransform"):
        read(image, label)
    domain = SatelliteDomain(tile=128, overlap=16)
    with caplog.at_level(logging.WARNING):
        source = domain.read(domain.find_cases(image)[0])
    assert "4 ground control points" in caplog.text
    written = domain.write(source, np.ones((128, 128), int), tmp_path / "out.tif")
    with rasterio.open(written) as dataset:
        kept, crs = dataset.gcps
    assert crs == rasterio.crs.CRS.from_user_input(UTM)
    assert [(p.row, p.col, p.x, p.y) for p in kept] == [(p.row, p.col, p.x, p.y) for p in points]


@pytest.mark.conformance(
    domain="satellite",
    condition="Point prompts are MultiPoint features",
    source="QGIS, native:promotetomulti (Promote to multipart)",
    right="one object for each feature, with all its points",
    reader="none (the points are known)",
    severity=1,
)
def test_multipoint_prompts(tmp_path: Path) -> None:
    image = raster(tmp_path / "s.tif")
    one = shapely.MultiPoint([PLACE @ (30, 40)])
    two = shapely.MultiPoint([PLACE @ (60, 70), PLACE @ (66, 70), PLACE @ (500, 70)])
    boxes = vector(tmp_path / "p.gpkg", [one, two])
    (prompts,) = prompts_of(image, boxes).values()
    np.testing.assert_allclose(prompts.point_coords[0, 0], [30, 40], atol=1e-3)
    np.testing.assert_allclose(prompts.point_coords[1], [[60, 70], [66, 70]], atol=1e-3)
    assert prompts.point_labels.tolist() == [[1, -1], [1, 1]]
    assert prompts.object_ids.tolist() == [1, 2]
    assert np.isnan(prompts.boxes).all()


@pytest.mark.conformance(
    domain="satellite",
    condition="A mask in lossy compression: JPEG, or TIFF with JPEG blocks",
    source="GDAL, COMPRESS=JPEG; the test reads other values than it wrote",
    right="refused: 255 beside 0 becomes dozens of values",
    reader="none (refusal)",
    severity=1,
)
@pytest.mark.parametrize("name", ["m.jpg", "m.tif"])
def test_lossy_masks_are_refused(tmp_path: Path, name: str) -> None:
    image = raster(tmp_path / "s.tif")
    mask = np.zeros((1, 128, 128), np.uint8)
    mask[0, 30:61, 30:67] = 255
    kind = {"driver": "JPEG"} if name.endswith("jpg") else {"compress": "jpeg"}
    path = raster(tmp_path / "m" / name, mask, transform=PLACE, **kind)
    with rasterio.open(path) as dataset:
        assert len(np.unique(dataset.read(1))) > 2
    with pytest.raises(InputError, match=r"m\.(jpg|tif): a mask in lossy compression \(JPEG\)"):
        read(image, path)


@pytest.mark.conformance(
    domain="satellite",
    condition="A mask raster does not reach all of the image",
    source="github.com/torchgeo/torchgeo/issues/1330 (samples of ground without data)",
    right="ground outside the mask is not labelled, and no background; said",
    reader="rasterio 1.4.4 (bounds of the mask)",
    severity=1,
)
@pytest.mark.parametrize("nodata", [None, 0, 255])
@pytest.mark.parametrize("crs", [UTM, "EPSG:32644"])
def test_ground_outside_a_mask_is_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, crs: str, nodata: int | None
) -> None:
    image = raster(tmp_path / "s.tif")
    mask = np.zeros((1, 64, 64), np.uint8)
    mask[0, 10:30, 10:30] = 1
    mask[0, 40:50] = 255 if nodata == 255 else 0
    place = PLACE @ Affine.translation(20, 30)
    path = raster(tmp_path / "m" / "m.tif", mask, transform=place, nodata=nodata)
    known = np.zeros((128, 128), bool)
    known[30:94, 20:84] = True
    known[70:80, 20:84] &= nodata != 255
    label = np.zeros((128, 128), int)
    label[40:60, 30:50] = 1
    with caplog.at_level(logging.WARNING):
        if crs == UTM:
            found = label_of(read(image, path))
            np.testing.assert_array_equal(found.known, known)
            np.testing.assert_array_equal(found.label, label)
        else:
            with rasterio.open(path) as dataset:
                transform, width, height = rasterio.warp.calculate_default_transform(
                    UTM, crs, 64, 64, *dataset.bounds, resolution=0.1
                )
                values = np.full((1, height, width), 255, np.uint8)
                rasterio.warp.reproject(
                    mask[0], values[0], src_transform=place, src_crs=UTM, dst_transform=transform,
                    dst_crs=crs, init_dest_nodata=False,
                )  # fmt: skip
            other = raster(tmp_path / "m2" / "m.tif", values, crs, transform, nodata=255)
            found = label_of(read(image, other))
            assert (found.known != known).mean() < 0.02
            assert (found.label != label).mean() < 0.01
    assert "counts as not labelled" in caplog.text


@pytest.mark.conformance(
    domain="satellite",
    condition="A mask raster across 180° in another CRS than the image",
    source="github.com/OSGeo/gdal/issues/15266",
    right="in UTM it is laid on both sides; in degrees refused, since GDAL finds one side only",
    reader="rasterio 1.4.4 WarpedVRT",
    severity=1,
)
def test_masks_across_180(tmp_path: Path) -> None:
    ones = np.ones((1, 128, 128), np.uint8)
    image = raster(tmp_path / "s.tif", crs="EPSG:3857", transform=MERCATOR)
    utm = raster(tmp_path / "m" / "utm.tif", ones, crs="EPSG:32760", transform=UTM60)
    found = label_of(read(image, utm, label_map="1:1")).label
    assert found[:, :60].any()
    assert found[:, 68:].any()
    for place in (DEGREES, DEGREES @ Affine.translation(-36_000_000, 0)):
        mask = raster(tmp_path / "m" / "deg.tif", ones, crs="EPSG:4326", transform=place)
        with pytest.raises(InputError, match="spans 180° in EPSG:4326"):
            read(image, mask)
    image = raster(tmp_path / "s.tif", crs="EPSG:4326", transform=DEGREES)
    with pytest.raises(InputError, match="does not overlap"):
        read(image, mask)


@pytest.mark.conformance(
    domain="satellite",
    condition="Bands are named in their descriptions only, blue first",
    source="bands of huggingface.co/datasets/ibm-nasa-geospatial/hls_burn_scars, blue first",
    right="red, green and blue by their names; a red edge is not red",
    reader="rasterio 1.4.4 descriptions",
    severity=1,
)
def test_bands_by_their_descriptions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.stack([np.full((64, 64), n * 10, np.uint8) for n in range(1, 6)])
    image = raster(tmp_path / "s.tif", values, photometric="minisblack")
    with rasterio.open(image, "r+") as dataset:
        dataset.descriptions = ("Blue", "B3 - Green", "red (665 nm)", "Red edge", "near infrared")
    assert frame_of(image, tile=64).image[0, 0].tolist() == [30, 20, 10]
    with rasterio.open(image, "r+") as dataset:
        dataset.descriptions = ("B2", "B3", "B4", "B5", "B8")
    with caplog.at_level(logging.WARNING):
        assert frame_of(image, tile=64).image[0, 0].tolist() == [10, 20, 30]
    assert "does not say which of its 5 bands are red, green and blue" in caplog.text


def predicted(image: Path, label: np.ndarray, **settings: Any) -> tuple[Any, Any]:
    """Return a domain and what it merges from a label map with one object per number."""
    from samonai.domains.satellite.prediction import IdWriter

    domain = SatelliteDomain(tile=128, overlap=16, **settings)
    source = domain.read(domain.find_cases(image)[0])
    writer = IdWriter(source)
    for _ in range(int(label.max())):
        writer.table.new_object(1)
    for row in range(0, 128, 64):
        numbers = label[row : row + 64].astype(np.int32)
        scores = np.where(numbers > 0, 3, -3).astype(np.float32)
        writer.write(Window(row, 0, 64, 128), numbers, scores)
    return domain, writer.finish()


@pytest.mark.conformance(
    domain="satellite",
    condition="`--format geojson` of an object across 180°",
    source="RFC 7946, 3.1.9 and 3.1.6",
    right="cut into a multi-polygon within -180 to 180, of the same area, counter-clockwise",
    reader="geopandas 1.2.0, pyproj 3.7.2 Geod (area)",
    severity=1,
)
@pytest.mark.parametrize(
    ("crs", "place"), [("EPSG:4326", DEGREES), ("EPSG:3857", MERCATOR), ("EPSG:32760", UTM60)]
)
def test_geojson_is_cut_at_180(tmp_path: Path, crs: str, place: Affine) -> None:
    label = np.zeros((128, 128), int)
    label[20:50, 2:125] = 1
    label[30:40, 55:75] = 0
    label[60:70, 5:15] = 2
    image = raster(tmp_path / "s.tif", crs=crs, transform=place)
    domain, prediction = predicted(image, label)
    (path,) = domain.export(prediction.raster, prediction, tmp_path / "out", ["geojson"])
    table = gpd.read_file(path).sort_values("id")
    west, _, east, _ = table.total_bounds
    assert (west, east) == pytest.approx((-180, 180), abs=1e-9)
    across, alone = table.geometry
    assert (across.geom_type, alone.geom_type) == ("MultiPolygon", "Polygon")
    assert all(part.exterior.is_ccw for part in across.geoms)
    assert max(part.bounds[2] - part.bounds[0] for part in across.geoms) < 0.01
    geod = pyproj.Geod(ellps="WGS84")
    areas = [sum(abs(geod.geometry_area_perimeter(part)[0]) for part in shapely.get_parts(shape))
             for shape in (across, alone)]  # fmt: skip
    np.testing.assert_allclose(areas, table["area_m2"], rtol=1e-4)
    per_pixel = np.prod(prediction.raster.spacing)
    np.testing.assert_allclose(areas, [(30 * 123 - 200) * per_pixel, 100 * per_pixel], rtol=1e-3)


@pytest.mark.conformance(
    domain="satellite",
    condition="`simplify` and a thin wall: 7 m long, one pixel of 7 cm wide",
    source="shapely.coverage_simplify: its tolerance is roughly the root of an area",
    right="no outline moves farther than `simplify`, nothing vanishes, borders stay common",
    reader="shapely 2.2.0 (distances of points along both outlines)",
    severity=1,
)
@pytest.mark.parametrize("simplify", [0.1, 0.5])
def test_simplify_bounds_the_movement(tmp_path: Path, simplify: float) -> None:
    label = np.zeros((128, 128), int)
    rows, columns = np.mgrid[:128, :128]
    label[(rows - 60) ** 2 + (columns - 20) ** 2 < 300] = 1
    label[60, 30:128] = 1
    label[(rows - 90) ** 2 + (columns - 20) ** 2 < 200] = 2
    label[10, 10:110] = 3
    place = Affine(0.07, 0, 333_000, 0, -0.07, 3_060_000)
    image = raster(tmp_path / "s.tif", transform=place)
    tables = []
    for setting in (0.0, simplify):
        domain, prediction = predicted(image, label, simplify=setting)
        (path,) = domain.export(prediction.raster, prediction, tmp_path / "out", ["gpkg"])
        tables.append(gpd.read_file(path).sort_values("id"))
        path.unlink()
    before, after = tables
    assert after["id"].tolist() == [1, 2, 3]
    assert after.geometry.count_coordinates().sum() < before.geometry.count_coordinates().sum()
    for old, new in zip(before.geometry.boundary, after.geometry.boundary, strict=True):
        for one, other in ((old, new), (new, old)):
            along = shapely.points(shapely.get_coordinates(shapely.segmentize(one, 0.01)))
            assert shapely.distance(along, other).max() <= simplify * 1.001
    assert shapely.area(shapely.intersection(*after.geometry[:2])) < 1e-6


@pytest.mark.conformance(
    domain="satellite",
    condition="An engineering CRS (LOCAL_CS), a compound one, and one of Mars",
    source="github.com/OSGeo/gdal/issues/10820; github.com/OSGeo/PROJ/issues/3227",
    right="labels in the same CRS are drawn, areas are those of its plane or body",
    reader="pyproj 3.7.2 Geod with the ellipsoid of Mars",
    severity=2,
)
@pytest.mark.parametrize("crs", [LOCAL, MARS, "EPSG:32645+5773"], ids=["local", "mars", "compound"])
def test_coordinates_on_planes_and_planets(tmp_path: Path, crs: str) -> None:
    wkt = pyproj.CRS.from_user_input(crs).to_wkt("WKT1_GDAL")
    place = Affine(0.5, 0, 5000, 0, -0.5, 6000) if crs == MARS else PLACE
    image = raster(tmp_path / "s.tif", crs=wkt, transform=place)
    label = vector(tmp_path / "l.gpkg", [ground(10, 20, 40, 60, place)], wkt)
    expected = np.zeros((128, 128), int)
    expected[20:60, 10:40] = 1
    np.testing.assert_array_equal(label_of(read(image, label)).label, expected)
    domain, prediction = predicted(image, expected)
    (path,) = domain.export(prediction.raster, prediction, tmp_path / "out", ["gpkg"])
    area = gpd.read_file(path)["area_m2"][0]
    if crs == MARS:  # degrees are x and y by the equator's radius
        corners = shapely.get_coordinates(ground(10, 20, 40, 60, place)) / np.radians(3396190.0)
        mars = pyproj.Geod(a=3396190.0, rf=169.89444722361179)
        right = abs(mars.geometry_area_perimeter(shapely.Polygon(corners))[0])
    else:
        right = 1200 * 0.25
    assert area == pytest.approx(right, rel=1e-3)
    road = vector(
        tmp_path / "r.gpkg", [shapely.LineString([place @ (0, 64), place @ (128, 64)])], wkt
    )
    assert (label_of(read(image, road, line_width=4)).label > 0).sum() == 8 * 128


@pytest.mark.conformance(
    domain="satellite",
    condition="Image in Lambert-93, mask with the same geotransform in an engineering CRS",
    source="github.com/OSGeo/gdal/issues/10820 (FLAIR)",
    right="the mask has the image's pixels; other grids in such a CRS are refused in one line",
    reader="none (the pixels are known)",
    severity=2,
)
def test_masks_in_an_engineering_crs(tmp_path: Path) -> None:
    place = Affine(0.2, 0, 860_000, 0, -0.2, 6_500_000)
    image = raster(tmp_path / "s.tif", crs="EPSG:2154", transform=place)
    mask = np.random.default_rng(3).integers(0, 19, (1, 128, 128), np.uint8)
    same = raster(tmp_path / "m" / "m.tif", mask, crs=LOCAL, transform=place)
    np.testing.assert_array_equal(label_of(read(image, same)).label, mask[0])
    moved = place @ Affine.translation(5, 0)
    with pytest.raises(InputError, match=r"m\.tif on .*RGF93.* cannot be converted to EPSG:2154"):
        read(image, raster(tmp_path / "m" / "m.tif", mask, crs=LOCAL, transform=moved))
    features = vector(tmp_path / "l.gpkg", [ground(1, 1, 9, 9, place)], LOCAL)
    with pytest.raises(InputError, match=r"cannot be converted to EPSG:2154.*label_crs=image"):
        read(image, features)
    assert (label_of(read(image, features, label_crs="image")).label > 0).sum() == 64


@pytest.mark.conformance(
    domain="satellite",
    condition="`--format geojson` of a raster of Mars, or on a plane of its own",
    source="RFC 7946, 4",
    right="refused before anything is written: GeoJSON holds degrees on the Earth",
    reader="none (refusal)",
    severity=2,
)
@pytest.mark.parametrize("crs", [LOCAL, MARS], ids=["local", "mars"])
def test_geojson_of_no_place_on_earth(tmp_path: Path, crs: str) -> None:
    image = raster(tmp_path / "s.tif", crs=crs, transform=Affine(0.5, 0, 5000, 0, -0.5, 6000))
    domain, prediction = predicted(image, np.ones((128, 128), int))
    with pytest.raises(InputError, match=r"GeoJSON holds degrees on the Earth.*--format gpkg"):
        domain.export(prediction.raster, prediction, tmp_path / "out", ["tif", "geojson"])
    assert not list(tmp_path.glob("out*"))
