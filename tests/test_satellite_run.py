"""Rasters through the same doors as scans: train, evaluate, predict; prompts of vector files."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from bundle_factory import write_scenes
from tiny_rasters import PLACE, UTM, picture, write_features, write_raster

import samonai as api
from samonai.core.errors import InputError
from samonai.domains.base import Case
from samonai.domains.satellite import SatelliteDomain
from samonai.domains.satellite.polygons import PolygonOptions
from samonai.domains.satellite.regularise import right_angled
from samonai.domains.satellite.writer import write_formats
from samonai.prompts.frame_prompts import FramePrompts

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork


def test_train_evaluate_and_predict(tiny_network: "SamNetwork", tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data")
    images, labels = data / "images", data / "labels"
    run = api.finetune(
        tiny_network, images, labels, domain="satellite", out=tmp_path / "run", epochs=1,
        tile="32", overlap="8", progress=False,
    )  # fmt: skip
    metrics = run.evaluate(images, labels, tmp_path / "test", report=False)
    written = api.predict(
        run, images / "scene_0.tif", labels / "scene_0.geojson", tmp_path / "out",
        formats=["tif", "instances", "gpkg", "geojson"],
    )  # fmt: skip

    assert run.metadata.domain == "satellite"
    assert run.metadata.domain_settings["tile"] == "32px"
    assert run.metadata.domain_settings["resolution"] == 0.0156  # 32 pixels of 0.5 m are 1024
    assert len(run.metadata.training["val_cases"]) == 1
    assert {"iou", "boundary_f1", "instance_f1"} <= set(metrics["summary"])
    assert metrics["cases"][0]["reference_objects"] == 2
    # Two boxes side by side are filled: no model is needed to find both objects.
    assert metrics["pooled_instances"]["class_1"]["box"]["instance_f1"] == 1
    names = ["scene_0.geojson", "scene_0.gpkg", "scene_0.tif", "scene_0_instances.tif"]
    assert [path.name for path in written] == names
    with rasterio.open(images / "scene_0.tif") as image, rasterio.open(written[2]) as out:
        assert (out.crs, out.transform, out.shape) == (image.crs, image.transform, image.shape)
    far = write_features(tmp_path / "far.gpkg", [shapely.Point(PLACE @ (4000, 9))])
    with pytest.raises(InputError, match=r"has nothing on .*scene_0\.tif"):
        api.predict(run, images / "scene_0.tif", far, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_several_runs_say_how_sure_they_are(tiny_network: "SamNetwork", tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data")
    images, labels = data / "images", data / "labels"
    runs = [
        api.finetune(
            tiny_network, images, labels, domain="satellite", out=tmp_path / f"run{seed}",
            epochs=1, tile="32", overlap="8", progress=False, seed=seed, learning_rate=0.01,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    boxes = labels / "scene_0.geojson"
    written = api.predict(runs, images / "scene_0.tif", boxes, tmp_path / "out", progress=False)
    names = [path.name for path in written]
    assert names == [
        "scene_0.gpkg", "scene_0.tif", "scene_0_confidence.json", "scene_0_instances.tif",
        "scene_0_uncertainty.tif",
    ]  # fmt: skip
    with rasterio.open(written[-1]) as found, rasterio.open(images / "scene_0.tif") as image:
        assert (found.crs, found.transform, found.shape) == (
            image.crs, image.transform, image.shape
        )  # fmt: skip
        values = found.read(1)
    assert values.min() >= 0
    assert 0 < values.max() <= 1
    document = json.loads(written[2].read_text())
    assert document["members"] == ["run0", "run1"]
    assert 0 <= document["structures"]["class_1"]["predicted_iou"] <= 1


def test_a_prediction_that_was_stopped_encodes_only_what_is_missing(
    tiny_network: "SamNetwork", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_raster(tmp_path / "scene.tif", picture(60, 150))
    encoded: list[int] = []
    encode = type(tiny_network).encode

    def stops(self: "SamNetwork", batch: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
        if len(encoded) == 3:
            raise KeyboardInterrupt
        encoded.append(len(batch))
        return encode(self, batch, precision)

    asked = {
        "domain": "satellite", "tile": "48", "overlap": "16", "store": tmp_path / "store",
        "automatic": "grid", "points_per_side": 1, "progress": False,
    }  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(type(tiny_network), "encode", stops)
        with pytest.raises(KeyboardInterrupt):
            api.predict(tiny_network, path, None, tmp_path / "out", **asked)
    assert not list((tmp_path / "out").glob("*.tif"))

    def counted(self: "SamNetwork", batch: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
        encoded.append(len(batch))
        return encode(self, batch, precision)

    monkeypatch.setattr(type(tiny_network), "encode", counted)
    api.predict(tiny_network, path, None, tmp_path / "out", **asked)
    tiles = len(SatelliteDomain(tile=48, overlap=16).grid(SatelliteDomain().read(Case("s", path))))
    assert sum(encoded) == tiles > 6


def test_a_scene_elsewhere_is_predicted_when_the_user_says_so(
    tiny_network: "SamNetwork", tmp_path: Path
) -> None:
    path = write_raster(tmp_path / "packed" / "scene.tif", picture(48, 48))
    shutil.make_archive(str(tmp_path / "packed"), "zip", path.parent)
    boxes = write_features(
        tmp_path / "b.gpkg", [shapely.box(*(PLACE @ (5, 30)), *(PLACE @ (30, 5)))]
    )
    asked = {"domain": "satellite", "formats": ["instances"], "progress": False}
    for name in (f"/vsizip/{tmp_path}/packed.zip/scene.tif", "https://127.0.0.1:1/scene.tif"):
        with pytest.raises(InputError, match=r"only files on this machine .*any_driver=true"):
            api.predict(tiny_network, Path(name), boxes, tmp_path / "none", **asked)
    packed = Path(f"/vsizip/{tmp_path}/packed.zip/scene.tif")
    (written,) = api.predict(
        tiny_network, packed, boxes, tmp_path / "out", any_driver=True, **asked
    )
    (plain,) = api.predict(tiny_network, path, boxes, tmp_path / "plain", **asked)
    with rasterio.open(written) as one, rasterio.open(plain) as other:
        np.testing.assert_array_equal(one.read(1), other.read(1))
    # A URL reaches GDAL as it was given.
    with pytest.raises(InputError, match=r"^https://127\.0\.0\.1:1/scene\.tif: "):
        api.predict(
            tiny_network, Path("https://127.0.0.1:1/scene.tif"), boxes, tmp_path / "none",
            any_driver=True, **asked,
        )  # fmt: skip


def test_tiles_at_two_offsets_give_one_answer(tmp_path: Path) -> None:
    """Of micro as it is, on roofs that a grid's tiles cut in different places."""
    rng = np.random.default_rng(0)
    image = rng.integers(40, 80, (3, 180, 260), np.uint8)
    roofs = [(20, 30, 80, 90), (95, 20, 170, 70), (180, 15, 240, 100), (30, 110, 150, 160)]
    for x0, y0, x1, y1 in roofs:
        image[:, y0:y1, x0:x1] += 130
    path = write_raster(tmp_path / "scene.tif", image)
    outlines = [shapely.box(*(PLACE @ (x0, y1)), *(PLACE @ (x1, y0))) for x0, y0, x1, y1 in roofs]
    boxes = write_features(tmp_path / "roofs.geojson", outlines)
    labels = []
    for offset in (0, 29):
        api.predict(
            "micro", path, boxes, tmp_path / f"out{offset}", domain="satellite", tile="160",
            overlap="104", offset=offset, placing="grid", formats=["instances"], progress=False,
        )  # fmt: skip
        with rasterio.open(tmp_path / f"out{offset}" / "scene_instances.tif") as found:
            labels.append(found.read(1))
    first, second = labels
    assert set(np.unique(first)) == set(np.unique(second)) == {0, 1, 2, 3, 4}
    agreed = np.zeros(first.shape, bool)
    for number in range(1, 5):
        one = first == number
        other = second == np.bincount(second[one]).argmax()
        assert (one & other).sum() / (one | other).sum() >= 0.98
        agreed |= one & other
    assert agreed.sum() / ((first > 0) | (second > 0)).sum() >= 0.98


def test_prompts_reach_every_tile_that_shows_the_object(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "s.tif", picture(100, 160))
    domain = SatelliteDomain(tile=64, overlap=32)
    source = domain.read(Case("s", path))
    outlines = gpd.GeoSeries(
        [
            shapely.box(*(PLACE @ (70, 30)), *(PLACE @ (80, 20))),  # whole in two tiles of a row
            shapely.box(*(PLACE @ (2, 60)), *(PLACE @ (150, 50))),  # longer than any tile
            shapely.Point(PLACE @ (10.5, 90.5)),
        ],
        crs=UTM,
    ).to_crs("EPSG:4326")
    table = gpd.GeoDataFrame({"class": ["road", "roof", "road"]}, geometry=outlines)
    table.to_file(tmp_path / "p.geojson", engine="pyogrio")
    prompts = domain.read_boxes(source, tmp_path / "p.geojson", class_names={1: "roof", 2: "road"})

    grid = domain.grid(source)
    seen: dict[int, list[tuple[int, int]]] = {1: [], 2: [], 3: []}
    for tile, found in prompts.items():
        part = grid.window(tile)
        for row, number in enumerate(found.object_ids.tolist()):
            seen[number].append((part.row, part.column))
            assert found.classes[row] == {1: 2, 2: 1, 3: 2}[number]
            if number == 3:
                np.testing.assert_allclose(
                    found.point_coords[row, 0] + [part.column, part.row], [10.5, 90.5], atol=0.01
                )
                continue
            x0, y0, x1, y1 = found.boxes[row]
            assert 0 <= x0 < x1 <= part.width
            if number == 1:
                np.testing.assert_allclose(
                    np.array([x0, y0, x1, y1]) + [part.column, part.row] * 2, [70, 20, 80, 30],
                    atol=0.05,
                )  # fmt: skip
    assert seen[1] == [(0, 32), (0, 64)]
    assert sorted({column for _, column in seen[2]}) == [0, 32, 64, 96]
    assert seen[3] == [(32, 0), (36, 0)]


def test_polygons_tell_class_score_and_area(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "s.tif", picture(60, 80), crs="EPSG:3857",
        transform=rasterio.Affine(0.6, 0, 957_000, 0, -0.6, 6_000_000),
    )  # fmt: skip
    domain = SatelliteDomain(tile=64, overlap=16)
    source = domain.read(Case("s", path))
    merger = domain.merger(source)
    for index in range(domain.frame_count(source)):
        part = domain.grid(source).window(index)
        scores = np.full((2, 60, 80), -3.0, np.float32)
        scores[0, 10:30, 20:40] = scores[1, 10:30, 40:60] = 3.0
        nowhere = np.full((2, 4), np.nan, np.float32)
        prompts = FramePrompts(nowhere, np.array([1, 1]), np.array([1, 2]))
        merger.add(domain.frame(source, index), scores[:, *part.slices], prompts)
    files = write_formats(
        merger.finish(), tmp_path / "out", ("gpkg", "geojson"), PolygonOptions(), {1: "roof"}
    )
    table, degrees = (gpd.read_file(file) for file in files)

    assert table.crs == "EPSG:3857"
    assert degrees.crs == "EPSG:4326"
    assert table["name"].tolist() == ["roof", "roof"]
    # At 47.35 degrees north a metre of EPSG:3857 is 0.68 m on the ground.
    true = 20 * 20 * source.spacing[0] * source.spacing[1]
    np.testing.assert_allclose(table["area_m2"], true, rtol=2e-3)
    np.testing.assert_allclose(table.area, 20 * 20 * 0.36, rtol=1e-6)
    assert table["score"].between(0.95, 0.953).all()
    # Neighbours share their border exactly.
    assert table.geometry[0].intersection(table.geometry[1]).length == pytest.approx(20 * 0.6)
    assert table.geometry[0].intersection(table.geometry[1]).area == 0


def test_right_angles_are_made_where_they_nearly_are() -> None:
    house = shapely.Polygon([(0, 0), (20, 0), (20, 8), (12, 8), (12, 14), (0, 14)])
    rng = np.random.default_rng(0)
    dense = shapely.segmentize(house, 0.5)
    corners = shapely.get_coordinates(dense)[:-1]
    noisy = shapely.Polygon(corners + rng.normal(0, 0.15, corners.shape))
    turned = shapely.affinity.rotate(noisy, 27, origin=(0, 0))
    result = right_angled(shapely.make_valid(turned), 0.8)

    corners = shapely.get_coordinates(result.exterior)
    assert len(corners) == 7
    edges = np.diff(corners, axis=0)
    angles = np.degrees(np.arctan2(edges[:, 1], edges[:, 0])) % 90
    np.testing.assert_allclose(angles, angles[0], atol=1e-6)
    assert abs(angles[0] - 27) < 1
    truth = shapely.affinity.rotate(house, 27, origin=(0, 0))
    assert result.intersection(truth).area / result.union(truth).area > 0.96
