"""Rasters and labels as they come, and one clear line for those that cannot be used."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from tiny_rasters import PLACE, UTM, picture, write_features, write_raster

from samonai.core.errors import InputError
from samonai.domains import get_domain
from samonai.domains.base import Case
from samonai.domains.satellite import SatelliteDomain
from samonai.domains.satellite.access import check_path
from samonai.domains.satellite.lengths import blocks
from samonai.domains.satellite.writer import write_raster as write_raster_of
from samonai.domains.tiling.tiles import Window

pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")


def on_ground(x0: float, y0: float, x1: float, y1: float) -> Any:
    """Return the outline of pixels x0..x1, y0..y1 in the CRS."""
    return shapely.Polygon([PLACE @ at for at in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))])


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "images" / "scene.tif", picture(60, 80))


def read(image: Path, label: Path, **settings: Any) -> Any:
    domain = SatelliteDomain(**{"tile": 64, "overlap": 16, **settings})
    case = domain.find_cases(image, label)[0]
    domain.fit([case])
    return domain.read(case)


def label_of(source: Any) -> Any:
    return source.read_label(Window(0, 0, *source.size))


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize("ending", ["geojson", "gpkg", "shp", "fgb"])
def test_polygons_in_any_crs_and_format_are_drawn_as_objects(
    scene: Path, tmp_path: Path, crs: str, ending: str
) -> None:
    import geopandas as gpd

    hole = on_ground(10, 10, 40, 30).difference(on_ground(20, 15, 30, 25))
    outlines = gpd.GeoSeries([hole, on_ground(40, 10, 60, 30)], crs=UTM).to_crs(crs)
    path = write_features(tmp_path / f"l.{ending}", list(outlines), crs, kind=["b", "a"])
    found = label_of(read(scene, path, class_field="kind"))

    expected = np.zeros((60, 80), int)
    expected[10:30, 10:40] = 1
    expected[15:25, 20:30] = 0
    expected[10:30, 40:60] = 2
    # Names are numbered in their order; features keep the file's.
    np.testing.assert_array_equal(found.label, np.array([0, 2, 1])[expected])
    if ending != "fgb":  # which sorts its features by place
        np.testing.assert_array_equal(found.instances, expected)
    assert len(np.unique(found.instances)) == 3


def test_lines_and_points_have_a_size_in_metres(scene: Path, tmp_path: Path) -> None:
    road = shapely.LineString([PLACE @ (0, 20), PLACE @ (80, 20)])
    tree = shapely.Point(PLACE @ (40.5, 45.5))
    for crs in (UTM, "EPSG:4326"):
        import geopandas as gpd

        placed = list(gpd.GeoSeries([road, tree], crs=UTM).to_crs(crs))
        path = write_features(tmp_path / "l.gpkg", placed, crs, width=[3.0, 9.0])
        for width in (3, "width"):
            found = label_of(read(scene, path, line_width=width, point_radius=2.0))
            # 3 m are 6 pixels; a disc of 2 m has about pi * 4² pixels.
            assert (found.instances == 1).sum() == 6 * 80
            assert abs((found.instances == 2).sum() - np.pi * 16) < 5
            assert found.instances[45, 40] == 2


def test_masks_on_another_grid_are_laid_onto_the_image(scene: Path, tmp_path: Path) -> None:
    coarse = np.kron(np.arange(6).reshape(2, 3) % 3, np.ones((10, 10), int)).astype(np.uint8)
    mask = write_raster(
        tmp_path / "mask.tif", coarse[None] * 100, transform=PLACE @ Affine.scale(2)
    )
    found = label_of(read(scene, mask, label_map="100:1,200:2"))
    expected = np.zeros((60, 80), int)
    expected[:40, :60] = np.kron(coarse, np.ones((2, 2), int))

    np.testing.assert_array_equal(found.label, expected)
    assert found.instances is None


def test_coco_polygons_and_run_lengths(scene: Path, tmp_path: Path) -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[30:40, 5:25] = 1
    changes = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [0]])))
    counts = np.diff([0, *changes, mask.size]).tolist()
    path = tmp_path / "coco.json"
    content = {
        "images": [{"id": 7, "file_name": "tiles/scene.tif", "height": 60, "width": 80}],
        "categories": [{"id": 3, "name": "roof"}, {"id": 5, "name": "pool"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "segmentation": [[2, 2, 12, 2, 12, 9, 2, 9]]},
            {
                "image_id": 7,
                "category_id": 5,
                "segmentation": {"size": [60, 80], "counts": counts},
            },
        ],
    }
    path.write_text(json.dumps(content))
    found = label_of(read(scene, path))

    expected = np.where(mask, 5, 0)
    expected[2:9, 2:12] = 3
    np.testing.assert_array_equal(found.label, expected)
    assert SatelliteDomain().class_names(scene, path) == {3: "roof", 5: "pool"}

    # Detections have boxes only: they prompt, and are no labels.
    content["annotations"] = [{"image_id": 7, "category_id": 5, "bbox": [4, 6, 20, 10]}]
    path.write_text(json.dumps(content))
    domain = SatelliteDomain()
    (prompts,) = domain.read_boxes(domain.read(Case("scene", scene)), path).values()
    assert (prompts.boxes.tolist(), prompts.classes.tolist()) == ([[4, 6, 24, 16]], [5])
    refused(scene, path, r"^\S+coco\.json has an annotation of scene\.tif without an outline")


def test_values_are_scaled_over_the_set_and_kept(tmp_path: Path) -> None:
    for number, top in enumerate((1000, 3000)):
        values = np.linspace(100, top, 40 * 50).reshape(1, 40, 50).astype(np.uint16)
        values[0, :5] = 0
        write_raster(tmp_path / "images" / f"s{number}.tif", values, nodata=0)
    outline = write_features(tmp_path / "l.geojson", [on_ground(5, 8, 30, 30)])
    domain = SatelliteDomain(tile=32, overlap=8, lower=0, upper=100)
    cases = domain.find_cases(tmp_path / "images", outline)
    domain.fit(cases)

    (low, high), *_ = domain.settings()["ranges"]
    assert (round(low), high) == (212, 3000.0)  # the first five rows are nodata, and left out
    again = get_domain("satellite", **json.loads(json.dumps(domain.settings())))
    assert again.settings() == domain.settings()
    frame = again.frame(again.read(cases[0]), 0)
    darker = again.frame(again.read(Case("s1", tmp_path / "images" / "s1.tif")), 0)
    assert frame.image.max() < darker.image.max()
    assert frame.valid is not None
    assert not frame.valid[:5].any()
    assert not frame.image[:5].any()


def test_bands_are_chosen_by_number_and_by_colour(tmp_path: Path) -> None:
    values = np.stack([np.full((20, 20), n, np.uint8) for n in (10, 20, 30, 40)])
    path = write_raster(tmp_path / "s.tif", values, photometric="RGB", alpha="unspecified")
    for bands, expected in ((None, [10, 20, 30]), ("4,3,2", [40, 30, 20]), ("4", [40, 40, 40])):
        domain = SatelliteDomain(tile=32, overlap=0, bands=bands)
        image = domain.frame(domain.read(Case("s", path)), 0).image
        assert image[0, 0].tolist() == expected


def test_tiles_in_metres_see_the_same_ground(tmp_path: Path) -> None:
    sizes = []
    for name, crs, place in (
        ("utm", UTM, PLACE),
        ("degrees", "EPSG:4326", Affine(4.5e-6, 0, -84.4, 0, -4.5e-6, 33.7)),
        ("mercator", "EPSG:3857", Affine(0.5, 0, -9_395_000, 0, -0.5, 3_990_000)),
    ):
        path = write_raster(tmp_path / f"{name}.tif", picture(200, 300), crs=crs, transform=place)
        domain = SatelliteDomain(tile="40m", overlap="8m")
        source = domain.read(Case(name, path))
        grid = domain.grid(source)
        sizes.append(np.array(grid.tile) * source.spacing)
        assert grid.overlap[0] == round(8 / source.spacing[0])
    np.testing.assert_allclose(sizes, 40, rtol=0.02)


def refused(scene: Path, label: Path, match: str, **settings: Any) -> None:
    with pytest.raises(InputError, match=match) as told:
        label_of(read(scene, label, **settings))
    assert "\n" not in str(told.value)


def test_labels_elsewhere_are_refused(scene: Path, tmp_path: Path) -> None:
    far = shapely.transform(on_ground(5, 5, 20, 20), lambda at: at + 50_000)
    refused(scene, write_features(tmp_path / "far.gpkg", [far]), "does not overlap .*CRS right")
    # Projected coordinates that claim to be degrees, as GeoJSON without a CRS does.
    content = {"type": "FeatureCollection", "features": [
        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(
            on_ground(5, 5, 20, 20))}]}  # fmt: skip
    claims = tmp_path / "claims.geojson"
    claims.write_text(json.dumps(content))
    refused(scene, claims, "says EPSG:4326, but .* no degrees.*label_crs=image")
    assert (label_of(read(scene, claims, label_crs="image")).label > 0).sum() == 15 * 15
    assert (label_of(read(scene, claims, label_crs=UTM)).label > 0).sum() == 15 * 15
    mask = write_raster(
        tmp_path / "m.tif", picture(10, 10)[:1], transform=PLACE @ Affine.translation(900, 0)
    )
    refused(scene, mask, "does not overlap")


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_a_crs_on_one_side_only_is_refused(scene: Path, tmp_path: Path) -> None:
    bare = write_features(tmp_path / "bare.gpkg", [on_ground(5, 5, 20, 20)], None)
    refused(scene, bare, "bare.gpkg has no CRS, but .*scene.tif has one .EPSG:32616")
    nowhere = write_raster(tmp_path / "n.tif", picture(60, 80), crs=None, transform=None)
    placed = write_features(tmp_path / "placed.gpkg", [on_ground(5, 5, 20, 20)])
    refused(nowhere, placed, "n.tif has no CRS, but .*placed.gpkg has one")
    refused(scene, write_raster(tmp_path / "m.tif", picture(9, 9)[:1], crs=None, transform=None),
            "cannot be laid onto .* no georeference")  # fmt: skip


def test_what_is_not_there_is_named(scene: Path, tmp_path: Path) -> None:
    label = write_features(tmp_path / "l.gpkg", [on_ground(5, 5, 20, 20)], kind=["roof"])
    refused(scene, label, "has no column 'class'; it has kind", class_field="class")
    refused(scene, label, "has no band 7; it has bands 1 to 3", bands="7")
    refused(scene, label, "expected one band or three", bands="1,2")
    refused(scene, tmp_path / "none.gpkg", "no such file")
    (tmp_path / "folder.gpkg").mkdir()
    with pytest.raises(InputError, match="a folder, and no file named like the raster in it"):
        check_path(tmp_path / "folder.gpkg")
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"boxes": [[1, 2, 3, 4]]}')
    refused(scene, boxes, "neither GeoJSON nor COCO; boxes are features such as")
    empty = tmp_path / "empty.geojson"
    empty.write_text('{"type": "FeatureCollection", "features": []}')
    refused(scene, empty, "holds no features")
    lines = write_features(
        tmp_path / "r.gpkg", [shapely.LineString([PLACE @ (0, 9), PLACE @ (9, 9)])]
    )
    refused(scene, lines, "holds lines; say how wide")
    points = write_features(tmp_path / "p.gpkg", [shapely.Point(PLACE @ (9, 9))])
    refused(scene, points, "holds points; say how large")


def test_broken_rasters_give_one_line(scene: Path, tmp_path: Path) -> None:
    label = write_features(tmp_path / "l.gpkg", [on_ground(5, 5, 20, 20)])
    cut = tmp_path / "cut.tif"
    cut.write_bytes(scene.read_bytes()[: scene.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cut\.tif: "):
        SatelliteDomain(tile=64, overlap=16).frame(read(cut, label), 0)
    bomb = write_raster(tmp_path / "bomb.tif", picture(60, 80))
    content = bytearray(bomb.read_bytes())
    for tag in (256, 257):  # width and height in the header
        at = content.find(struct.pack("<HH", tag, 3))
        content[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 2_000_000_000)
    bomb.write_bytes(content)
    refused(bomb, label, "bomb.tif: ")
    text = tmp_path / "text.tif"
    text.write_text("no raster at all")
    refused(text, label, "is no GeoTIFF, PNG or JPEG")


def test_a_raster_reads_nothing_but_itself(scene: Path, tmp_path: Path) -> None:
    vrt = f"""<VRTDataset rasterXSize="80" rasterYSize="60"><VRTRasterBand dataType="Byte" band="1">
      <SimpleSource><SourceFilename>{scene}</SourceFilename><SourceBand>1</SourceBand>
      </SimpleSource></VRTRasterBand></VRTDataset>"""
    disguised = tmp_path / "disguised.tif"
    disguised.write_text(vrt)
    with pytest.raises(InputError, match=r"is no GeoTIFF.*any_driver=true"):
        SatelliteDomain().read(Case("d", disguised))
    trusting = SatelliteDomain(tile=64, overlap=16, any_driver=True)
    assert trusting.frame(trusting.read(Case("d", disguised)), 0).image.any()
    for path in ("https://example.com/x.tif", "/vsicurl/http://127.0.0.1/x.tif", "/vsizip/a.zip"):
        with pytest.raises(InputError, match="only files on this machine"):
            SatelliteDomain().read(Case("d", Path(path) if "://" not in path else path))  # type: ignore[arg-type]
    beside = tmp_path / "scene.tif"
    shutil.copy(scene, beside)
    (tmp_path / "scene.tif.ovr").write_text(vrt)
    with pytest.raises(InputError, match=r"scene.tif.ovr: expected a TIFF"):
        SatelliteDomain().read(Case("d", beside))
    features = tmp_path / "l.geojson"
    features.write_text("<OGRVRTDataSource></OGRVRTDataSource>")
    with pytest.raises(InputError, match="this is no geojson file"):
        read(scene, features)


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": "abc"}, {"offset": 1.5}, {"resolution": "fine"}, {"nodata": "none"},
        {"lower": True}, {"point_radius": "2m"}, {"simplify": "a bit"}, {"any_driver": "no"},
        {"instances": "False"}, {"right_angles": 1},
    ],
)  # fmt: skip
def test_settings_of_another_type_are_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=rf"^{name}=.*: expected (a|true) "):
        SatelliteDomain(**wrong)


def test_what_lies_elsewhere_is_opened_when_the_user_says_so(scene: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "packed"), "zip", scene.parent)
    inside = f"/vsizip/{tmp_path}/packed.zip/{scene.name}"
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps([{"image": inside}]))
    trusting = SatelliteDomain(tile=64, overlap=16, any_driver=True)
    whole = SatelliteDomain(tile=64, overlap=16)
    expected = whole.frame(whole.read(Case("s", scene)), 0).image
    for images in (inside, listed):
        (case,) = trusting.find_cases(images)
        np.testing.assert_array_equal(trusting.frame(trusting.read(case), 0).image, expected)
    with pytest.raises(InputError, match=r"only files on this machine.*any_driver=true"):
        whole.find_cases(inside)
    with pytest.raises(InputError, match=r"only files on this machine.*any_driver=true"):
        whole.read(*whole.find_cases(listed))
    # As `Path` writes it.
    with pytest.raises(InputError, match=r"only files on this machine.*any_driver=true"):
        whole.find_cases(Path("https://example.com/x.tif"))
    assert check_path(Path("/vsicurl/https://example.com/x.tif"), True) == (
        "/vsicurl/https://example.com/x.tif"
    )


@pytest.mark.parametrize("trusting", [True, False])
def test_the_network_is_as_open_while_writing_as_the_user_says(
    scene: Path, tmp_path: Path, trusting: bool
) -> None:
    source = SatelliteDomain(any_driver=trusting).read(Case("s", scene))
    seen = []

    def part(window: Window) -> np.ndarray:
        seen.append(rasterio.env.getenv().get("CPL_VSIL_CURL_ALLOWED_FILENAME"))
        return np.zeros((window.height, window.width), np.uint8)

    write_raster_of(source, part, tmp_path / "out.tif", "uint8", None, cog=False)
    assert seen == [None if trusting else "none"]


def test_blocks_of_no_pixels_are_refused() -> None:
    with pytest.raises(InputError, match="blocks of 0 x 0 pixels: expected at least 1 x 1"):
        blocks((10, 10), (0, 0))


def test_a_vector_file_without_a_layer_of_geometries_is_refused(
    scene: Path, tmp_path: Path
) -> None:
    path = tmp_path / "table.gpkg"
    pyogrio.write_dataframe(pandas.DataFrame({"name": ["roof"]}), path)
    with pytest.raises(InputError, match="holds no layer with geometries"):
        read(scene, path)
