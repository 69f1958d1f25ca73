"""Readers of COCO, PAGE, ALTO and pictures on drawn and damaged files: right, or one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import one_line, seeded
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from samonai.domains.coco import read_coco
from samonai.domains.coco_masks import decode_rle, encode_rle
from samonai.domains.documents.formats.alto import read_alto
from samonai.domains.documents.formats.coco import page_annotations
from samonai.domains.documents.formats.page_xml import read_page_xml
from samonai.domains.documents.page import Page
from samonai.domains.pictures import count_pages, read_picture, read_values

SIZE = (24, 32)
numbers = st.one_of(
    st.integers(-40, 80),
    st.floats(-40, 80, allow_nan=False),
    st.sampled_from([float("nan"), float("inf"), 1e300, -1e9, 2**70, "7", "x", None, True, []]),
)
counts = st.one_of(st.lists(st.integers(-5, 900), max_size=6), st.text("0123ao`@PZ", max_size=12))
segmentations = st.one_of(
    st.lists(st.lists(numbers, max_size=9), max_size=3),
    st.lists(st.lists(st.integers(-8, 40), min_size=6, max_size=10), min_size=1, max_size=3),
    st.fixed_dictionaries({"size": st.just(list(SIZE)), "counts": counts}),
    st.sampled_from([None, {}, "", "text", 5, [None], [[[1, 2]]], {"size": 3, "counts": [1]}]),
)
identifiers = st.sampled_from([1, "1", 1.0, 2, "x", None, True, -1, 1e400])
rows = st.fixed_dictionaries(
    {
        "id": identifiers,
        "image_id": st.sampled_from([1, "1", 1.0]),
        "category_id": st.sampled_from([1, "1", 2, None]),
        "segmentation": segmentations,
        "bbox": st.one_of(st.lists(numbers, max_size=5), st.just([2, 3, 4, 5])),
        "iscrowd": st.sampled_from([0, 1, None, "0", "x"]),
    }
)


@seeded(60)
@given(annotations=st.lists(rows, max_size=3), identifier=identifiers, name=st.text(max_size=5))
def test_drawn_coco(
    annotations: list[Any], identifier: Any, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("coco") / "labels.json"
    entry = {"id": identifier, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
    content = {
        "images": [entry],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}],
    }
    path.write_text(json.dumps(content))
    coco = one_line(lambda: read_coco(path))
    found = coco and one_line(lambda: page_annotations(coco, coco.images[0]))
    for region in found.regions if found else ():
        assert region.drawn(SIZE).shape == SIZE


@seeded(60)
@given(
    parts=st.lists(
        st.lists(st.floats(-9, 41).map(lambda n: round(n, 2)), min_size=6, max_size=12).filter(
            lambda values: len(values) % 2 == 0
        ),
        min_size=1,
        max_size=3,
    )
)
def test_outlines_are_those_of_pycocotools(
    parts: list[list[float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("coco") / "labels.json"
    one = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": parts, "bbox": [0, 0, 1, 1]}
    entry = {"id": 1, "file_name": "p.png", "height": SIZE[0], "width": SIZE[1]}
    content = {"images": [entry], "annotations": [one], "categories": [{"id": 1, "name": "a"}]}
    path.write_text(json.dumps(content))
    coco = read_coco(path)
    (region,) = page_annotations(coco, coco.images[0]).regions
    expected = COCO(str(path)).annToMask(one).astype(bool)
    np.testing.assert_array_equal(region.drawn(SIZE), expected)


@seeded(60)
@given(data=st.binary(min_size=96, max_size=96))
def test_run_lengths_come_back(data: bytes) -> None:
    mask = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(SIZE).astype(bool)
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), SIZE), mask)


values = st.one_of(
    st.integers(-9, 60).map(str),
    st.floats().map(str),
    st.sampled_from(["", "x", "1e400", "-", "\u0663", "1_0"]),
)
points = st.lists(st.tuples(values, values), max_size=5).map(
    lambda pairs: " ".join(f"{x},{y}" for x, y in pairs)
)


@seeded(60)
@given(places=st.lists(points, min_size=1, max_size=3), width=values, height=values)
def test_drawn_page_xml(
    places: list[str], width: str, height: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("page") / "p.xml"
    regions = "".join(
        f'<TextRegion id="r{n}"><Coords points="{place}"/></TextRegion>'
        for n, place in enumerate(places)
    )
    page = f'<Page imageWidth="{width}" imageHeight="{height}">{regions}</Page>'
    path.write_text(f"<PcGts>{page}</PcGts>", encoding="utf-8")
    found = one_line(lambda: read_page_xml(path))
    for region in found.regions if found else ():
        assert region.drawn(SIZE).shape == SIZE


@seeded(60)
@given(
    places=st.lists(st.tuples(values, values, values, values), min_size=1, max_size=3),
    sides=st.tuples(values, values),
    unit=st.sampled_from(["pixel", "mm10", "inch1200", "", "x"]),
)
def test_drawn_alto(
    places: list[Any], sides: Any, unit: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("alto") / "p.xml"
    blocks = "".join(
        f'<TextBlock HPOS="{x}" VPOS="{y}" WIDTH="{w}" HEIGHT="{h}"/>' for x, y, w, h in places
    )
    page = f'<Page WIDTH="{sides[0]}" HEIGHT="{sides[1]}">{blocks}</Page>'
    text = f"<alto><Description><MeasurementUnit>{unit}</MeasurementUnit></Description>"
    path.write_text(f"{text}<Layout>{page}</Layout></alto>", encoding="utf-8")
    found = one_line(lambda: read_alto(path, size=SIZE, dpi=(72.0, 72.0)))
    for region in found.regions if found else ():
        assert region.drawn(SIZE).shape == SIZE


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small pictures of every kind that is read."""
    folder = tmp_path_factory.mktemp("pictures")
    grey = np.linspace(0, 4095, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE)
    colours = np.dstack([(grey >> shift).astype(np.uint8) for shift in (4, 2, 0)])
    kinds = {"a.png": grey, "b.png": colours, "c.jpg": colours, "d.tif": grey, "e.webp": colours}
    for name, array in kinds.items():
        Image.fromarray(array).save(folder / name)
    return {name: (folder / name).read_bytes() for name in kinds}


@seeded(60)
@given(
    name=st.sampled_from(["a.png", "b.png", "c.jpg", "d.tif", "e.webp"]),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 7)), max_size=4),
    kept=st.floats(0, 1),
    cut=st.booleans(),
)
def test_damaged_pictures(
    name: str,
    flips: list[tuple[float, int]],
    kept: float,
    cut: bool,
    pictures: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data = bytearray(pictures[name])
    for place, bit in flips:
        data[int(place * len(data))] ^= 1 << bit
    path: Path = tmp_path_factory.mktemp("picture") / name
    path.write_bytes(bytes(data[: int(kept * len(data))] if cut else data))
    picture = one_line(lambda: read_picture(path))
    if picture is not None:
        page = Page("p", path, 1, picture.image)
        assert page.image.dtype == np.uint8
        assert page.image.ndim == 3
    one_line(lambda: count_pages(path))
    one_line(lambda: read_values(path))
