"""COCO files in the states that real ones are in, on pages and on rasters, against pycocotools."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from samonai.core.errors import InputError
from samonai.domains.documents.domain import DocumentsDomain
from samonai.domains.satellite.domain import SatelliteDomain
from samonai.metrics.average_precision import average_precision, detected_objects

HEIGHT, WIDTH = 60, 80
SQUARE = [[20, 10, 40, 10, 40, 25, 20, 25]]
DOMAINS = pytest.mark.parametrize("kind", [DocumentsDomain, SatelliteDomain])


def image(name: str = "p.png", number: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH} | more


def annotation(number: int = 1, **more: Any) -> dict[str, Any]:
    box = {"bbox": [20, 10, 20, 15], "iscrowd": 0, "segmentation": SQUARE}
    return {"id": number, "image_id": 1, "category_id": 1} | box | more


def write(
    folder: Path,
    annotations: list[dict[str, Any]],
    images: list[dict[str, Any]] | None = None,
    categories: list[dict[str, Any]] | None = None,
) -> Path:
    content = {
        "images": images or [image()],
        "annotations": annotations,
        "categories": categories or [{"id": 1, "name": "car"}, {"id": 2, "name": "wheel"}],
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(content))
    return path


def maps_of(kind: Any, folder: Path, labels: Path, name: str = "p.png") -> Any:
    path = folder / name
    if not path.exists():
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 200, np.uint8)).save(path)
    domain = kind()
    cases = domain.find_cases(path, labels)
    domain.fit(cases)
    return domain.maps(domain.read(cases[0]))


def by_pycocotools(path: Path) -> list[np.ndarray]:
    truth = COCO(str(path))
    return [truth.annToMask(one).astype(bool) for one in truth.anns.values()]


@pytest.mark.conformance(
    domain="documents",
    condition="COCO, pages and rasters: outlines traced around masks, through pixel centres",
    source="pycocotools maskApi.c, rleFrPoly",
    right="the pixels that pycocotools gives",
    reader="pycocotools 2.0.11",
    severity=1,
)
@DOMAINS
def test_outlines_are_drawn_as_pycocotools_draws_them(kind: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    turn = np.linspace(0, 2 * np.pi, 200)
    traced = np.rint(np.stack([30 + 18 * np.cos(turn), 25 + 11 * np.sin(turn)], 1))
    star = rng.uniform([-6, -6], [WIDTH + 6, HEIGHT + 6], (9, 2))
    for outline in (traced, traced + 0.5, star):
        labels = write(tmp_path, [annotation(segmentation=[outline.ravel().tolist()])])
        (expected,) = by_pycocotools(labels)
        found = maps_of(kind, tmp_path, labels).label > 0
        np.testing.assert_array_equal(found, expected)


@pytest.mark.conformance(
    domain="documents",
    condition="A COCO ring that crosses itself beside another one",
    source="github.com/yatengLG/ISAT_with_segment_anything/issues/287 (side location conflict)",
    right="each ring even and odd, the object their union",
    reader="pycocotools 2.0.11",
    severity=1,
)
@DOMAINS
def test_rings_that_cross_themselves_are_drawn(kind: Any, tmp_path: Path) -> None:
    bow = [20, 10, 40, 25, 40, 10, 20, 25]
    for outline in ([bow], [bow, SQUARE[0]], [bow, [50, 10, 60, 10, 60, 20, 50, 20]]):
        labels = write(tmp_path, [annotation(segmentation=outline)])
        (expected,) = by_pycocotools(labels)
        np.testing.assert_array_equal(maps_of(kind, tmp_path, labels).label > 0, expected)


@pytest.mark.conformance(
    domain="documents",
    condition='Ids of COCO images and categories as text and as numbers ("1", 1)',
    source="reports gathered in issue 17, B.6",
    right="one id",
    reader="pycocotools 2.0.11 on the same file with numbers",
    severity=1,
)
@DOMAINS
def test_ids_as_text_and_as_numbers_are_the_same(kind: Any, tmp_path: Path) -> None:
    (expected,) = by_pycocotools(write(tmp_path, [annotation()]))
    labels = write(
        tmp_path,
        [annotation(category_id="1", image_id=1.0)],
        [image(number="1")],
        [{"id": 1, "name": "car"}],
    )
    np.testing.assert_array_equal(maps_of(kind, tmp_path, labels).label > 0, expected)


@pytest.mark.conformance(
    domain="documents",
    condition="A COCO entry that states another size than its picture has, or none",
    source="pycocotools, COCO.annToRLE uses the stated size",
    right="refused in one line",
    reader="none (refusal)",
    severity=1,
)
@DOMAINS
def test_entries_of_another_size_are_refused(kind: Any, tmp_path: Path) -> None:
    for entry, message in (
        (image(height=HEIGHT * 2, width=WIDTH * 2), "160 x 120"),
        ({"id": 1, "file_name": "p.png"}, "height None; expected whole pixels"),
        (image(height=-1), "height -1"),
    ):
        labels = write(tmp_path, [annotation()], [entry])
        with pytest.raises(InputError, match=message) as caught:
            maps_of(kind, tmp_path, labels)
        assert "\n" not in str(caught.value)


@pytest.mark.conformance(
    domain="documents",
    condition="Two COCO entries whose file names are the same, in folders or entirely",
    source="reports gathered in issue 17, B.6",
    right="the entry of the picture's own folder; refused where none or several are",
    reader="none (refusal)",
    severity=1,
)
@DOMAINS
def test_equal_names_take_the_right_folder_or_are_refused(kind: Any, tmp_path: Path) -> None:
    other = [[50, 30, 60, 30, 60, 40, 50, 40]]
    rows = [annotation(segmentation=other), annotation(2, image_id=2)]
    (tmp_path / "val").mkdir()
    labels = write(tmp_path, rows, [image("train/p.png"), image("val/p.png", 2)])
    if kind is SatelliteDomain:  # pages are looked for where the entries say
        found = maps_of(kind, tmp_path / "val", labels).label
        assert found[10:25, 20:40].all()
        assert np.count_nonzero(found) == 300
    for images in (
        [image("train/p.png"), image("test/p.png", 2)],
        [image(), image(number=2)],
    ):
        with pytest.raises(InputError, match=r"names 2 images p\.png"):
            maps_of(kind, tmp_path, write(tmp_path, rows, images))
    with pytest.raises(InputError, match="two images have the id 1"):
        maps_of(kind, tmp_path, write(tmp_path, rows[:1], [image(), image("q.png")]))


@pytest.mark.conformance(
    domain="documents",
    condition="A COCO outline of two points beside a good bbox",
    source="reports gathered in issue 17, C.6",
    right="the box, with a line that counts them",
    reader="pycocotools 2.0.11 on the box as an outline",
    severity=1,
)
@DOMAINS
def test_outlines_of_two_points_take_their_box(
    kind: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (expected,) = by_pycocotools(write(tmp_path, [annotation()]))
    labels = write(tmp_path, [annotation(segmentation=[[20, 10, 40, 25]])])
    np.testing.assert_array_equal(maps_of(kind, tmp_path, labels).label > 0, expected)
    assert "1 annotations have outlines of fewer than three points" in caplog.text


@pytest.mark.conformance(
    domain="documents",
    condition="COCO annotations that cannot be true: damaged or negative run lengths, points far "
    "outside or not finite, no box, nested too deep",
    source="reports gathered in issue 17, D.7",
    right="refused in one line that names the annotation",
    reader="none (refusal)",
    severity=2,
)
@DOMAINS
def test_annotations_that_cannot_be_true_are_refused(kind: Any, tmp_path: Path) -> None:
    size = [HEIGHT, WIDTH]
    far = [[0, 0, 1e9, 0, 1e9, 5]]
    for more, message in (
        ({"segmentation": {"size": size, "counts": [-1, HEIGHT * WIDTH + 1]}}, "from 0"),
        ({"segmentation": {"size": size, "counts": [0, 2**32 + HEIGHT * WIDTH]}}, "run lengths"),
        ({"segmentation": {"size": size, "counts": [HEIGHT * WIDTH - 1]}}, "do not add up"),
        ({"segmentation": {"size": size, "counts": "o" * 40}}, "damaged run lengths"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": [4800]}}, "run lengths for"),
        ({"segmentation": far}, "far outside"),
        ({"segmentation": [[0, 0, float("nan"), 0, 5, 5]]}, "no pairs of numbers"),
        ({"segmentation": [[0, 0, 5, 0, 5, 5, 1]]}, "no pairs of numbers"),
        ({"segmentation": [[0, 0], [5, 0], [5, 5]]}, "a list of points"),
        ({"segmentation": [[1, 2]], "bbox": None}, "neither an outline nor a box"),
        ({"segmentation": [[1, 2]], "bbox": [1, 2, -3, 4]}, "expected x, y, width and height"),
    ):
        labels = write(tmp_path, [annotation(7, **more)])
        with pytest.raises(InputError, match=message) as caught:
            maps_of(kind, tmp_path, labels)
        assert "annotation 7 of p.png" in str(caught.value)
    deep = tmp_path / "labels.json"
    deep.write_text('{"images": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        maps_of(kind, tmp_path, deep)


@pytest.mark.conformance(
    domain="documents",
    condition="COCO objects that lie on each other: two on one outline, a whole under its halves",
    source="github.com/cocodataset/panopticapi, CONVERTERS.md: detections may overlap",
    right="all of them in the truth of average precision, as pycocotools has them; a line says "
    "which are not learned from",
    reader="pycocotools 2.0.11",
    severity=1,
)
def test_objects_under_others_stay_in_the_truth(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left, right = ([[20, 10, 30, 10, 30, 25, 20, 25]], [[30, 10, 40, 10, 40, 25, 30, 25]])
    rows = [
        annotation(1),
        annotation(2, segmentation=left),
        annotation(3, segmentation=right),
        annotation(4, segmentation=[[50, 30, 70, 30, 70, 40, 50, 40]]),
        annotation(5, segmentation=[[50, 30, 70, 30, 70, 40, 50, 40]], category_id=2),
        annotation(6, segmentation=[[2, 30, 20, 30, 20, 50, 2, 50]]),
        annotation(7, segmentation=[[5, 33, 9, 33, 9, 37, 5, 37]], category_id=2),
    ]
    labels = write(tmp_path, rows)
    maps = maps_of(DocumentsDomain, tmp_path, labels)
    assert "2 objects lie wholly under others" in caplog.text

    classes = {1: "car", 2: "wheel"}
    truth = detected_objects(maps, classes, "p")
    own = [(one.label, _area(one.rle)) for one in truth]
    file = COCO(str(labels))
    theirs = [(one["category_id"], _area(file.annToRLE(one))) for one in file.anns.values()]
    assert sorted(own) == sorted(theirs)
    assert average_precision(truth, truth, classes)["map"] == pytest.approx(1.0)


def _area(rle: Any) -> tuple[int, bytes]:
    """The area, and the mask itself in one order."""
    mask = np.ascontiguousarray(coco_mask.decode(rle))
    return int(mask.sum()), mask.tobytes()
