"""Prompt files, records of runs and decoders' metadata, drawn and damaged: right, or one line."""

import contextlib
import copy
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from document_factory import block_page, save_picture
from fuzzing import damaged, flips, in_folder, kept, one_line, seeded
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_rasters import PLACE, write_raster
from tiny_scans import affine, ball, save

from samonai.core.sealed import sealed
from samonai.domains import get_domain
from samonai.domains.base import Case
from samonai.inference import trained_domain
from samonai.sam.decoder_metadata import read_decoder_metadata
from samonai.workflows.run_folder import RunFolder, member_folders

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # pyogrio's own

numbers = st.one_of(
    st.integers(-3, 30),
    st.floats(-3, 30),
    st.sampled_from([1e300, 2**70, -1, "7", "x", None, True, [], {}, float("nan"), float("inf")]),
)
anything = st.recursive(
    st.one_of(numbers, st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
rows = {n: st.lists(st.one_of(st.lists(numbers, min_size=n, max_size=n), anything), max_size=3)
        for n in (2, 3, 4, 6)}  # fmt: skip
labels = st.one_of(st.lists(st.sampled_from([0, 1, 1, 2, "1", None]), max_size=4), anything)
names = st.one_of(
    st.lists(st.sampled_from([1, "1", "liver", "other", 0, 70000, None]), max_size=3),
    st.dictionaries(st.sampled_from(["a", "1"]), st.sampled_from([1, "liver", -1, None])),
    anything,
)
objects = st.one_of(st.lists(st.sampled_from(["a", "b", 1, 0, None, []]), max_size=4), anything)


def drawn(box: int, point: int) -> st.SearchStrategy[Any]:
    """Return what a file of prompts may hold, with so many numbers a box and a point."""
    parts = st.fixed_dictionaries(
        {},
        optional={
            "boxes": rows[box],
            "points": rows[point],
            "labels": labels,
            "object": objects,
            "classes": names,
            "polygons": rows[6],
        },
    )
    cases = st.dictionaries(st.sampled_from(["one", "two", ""]), parts, max_size=2)
    return st.one_of(parts, cases.map(lambda found: {"cases": found}), anything)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A domain and a small source of it, by the domain's name."""
    folder = tmp_path_factory.mktemp("sources")
    paths = {
        "medical": save(folder / "one.nii.gz", ball(0)[0], affine(0)),
        "documents": save_picture(folder / "one.png", block_page(24, 30)[0]),
        "satellite": write_raster(folder / "one.tif", np.ones((1, 24, 30), np.uint8)),
    }
    found = {}
    for name, path in paths.items():
        domain = get_domain(name)
        found[name] = domain, domain.read(Case("one", path))
    return found


def check(sources: dict[str, Any], name: str, path: Path, several: bool) -> None:
    """Read a file of prompts; what is read lies on frames and names classes from 1."""
    domain, source = sources[name]
    found = one_line(
        lambda: domain.read_boxes(
            source, path, class_names={1: "liver", 2: "spleen"}, only_case=not several
        )
    )
    for index, prompts in (found or {}).items():
        assert 0 <= index < domain.frame_count(source)
        boxes = np.asarray(prompts.boxes)
        assert np.isfinite(boxes).all(axis=1).sum() + np.isnan(boxes).all(axis=1).sum() == len(
            boxes
        )
        assert (np.asarray(prompts.classes) >= 1).all()


@seeded(60)
@given(content=drawn(6, 3), several=st.booleans())
def test_drawn_boxes_of_scans(
    content: Any,
    several: bool,
    sources: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = in_folder(tmp_path_factory.mktemp("p"), "b.json", json.dumps(content).encode())
    check(sources, "medical", path, several)


@seeded(60)
@given(content=drawn(4, 2), several=st.booleans())
def test_drawn_boxes_of_pages(
    content: Any,
    several: bool,
    sources: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = in_folder(tmp_path_factory.mktemp("p"), "b.json", json.dumps(content).encode())
    check(sources, "documents", path, several)


@seeded(60)
@given(
    name=st.sampled_from(["medical", "documents"]),
    header=st.lists(
        st.sampled_from(
            ["i0", "j0", "k0", "i1", "j1", "k1", "x0", "y0", "x1", "y1", "class", "case", "", "x"]
        ),
        max_size=9,
    ),
    whole=st.booleans(),
    table=st.lists(st.lists(numbers.map(str), max_size=8), max_size=3),
    several=st.booleans(),
)
def test_drawn_tables(
    name: str,
    header: list[str],
    whole: bool,
    table: list[list[str]],
    several: bool,
    sources: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    own = "i0,j0,k0,i1,j1,k1" if name == "medical" else "x0,y0,x1,y1"
    text = io.StringIO()
    csv.writer(text).writerows([own.split(",") + header[:2] if whole else header, *table])
    path = in_folder(tmp_path_factory.mktemp("p"), "b.csv", text.getvalue().encode())
    check(sources, name, path, several)


WHOLE = {
    "medical.json": {"boxes": [[2, 3, 0, 9, 9, 2]], "points": [[4, 5, 1]], "object": [0]},
    "medical.csv": "case,i0,j0,k0,i1,j1,k1,class\none,2,3,0,9,9,2,liver\n",
    "documents.json": {"boxes": [[2, 3, 9, 9]], "points": [[4, 5]], "labels": [1]},
    "documents.csv": "case,x0,y0,x1,y1,class\none,2,3,9,9,liver\n",
    "satellite.geojson": {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32616"}},
        "features": [
            {
                "type": "Feature",
                "properties": {"class": "liver"},
                "geometry": {"type": "Point", "coordinates": [PLACE.c + 4, PLACE.f - 5]},
            }
        ],
    },
}


@seeded(80)
@given(name=st.sampled_from(sorted(WHOLE)), bits=flips, part=kept, several=st.booleans())
def test_damaged_prompt_files(
    name: str,
    bits: list[tuple[float, int]],
    part: float,
    several: bool,
    sources: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    content = WHOLE[name]
    text = content if isinstance(content, str) else json.dumps(content)
    path = in_folder(tmp_path_factory.mktemp("p"), name, damaged(text.encode(), bits, part))
    check(sources, name.split(".")[0], path, several)


# What runs write and read again. A stranger can make the digests agree.

RUN = {
    "format_version": 1,
    "encoder_sha256": "ab" * 32,
    "store": "/somewhere",
    "store_mark": "0" * 64,
    "samonai": "0.1.0",
    "settings": {"model": "micro", "epochs": 2, "domain": "medical", "window": "auto"},
}
MEMBERS = {"format_version": 1, "members": ["fold_0", "fold_1"]}
METADATA = {
    "format_version": 1,
    "model": "micro",
    "encoder_sha256": "ab" * 32,
    "normalisation": {"mean": [1.0, 2.0, 3.0], "std": [1.0, 2.0, 3.0]},
    "domain": "medical",
    "domain_settings": {"window": "auto", "axis": 2, "label_map": {"255": 1}, "crop": "none"},
    "classes": {"1": "liver"},
    "training": {"train_cases": ["a"], "val_cases": ["b"], "prompts": {"carried": 0.5}},
    "metrics": {"dice": 0.5},
    "calibration": {},
    "heads": ["promptable"],
}


def places(value: Any) -> list[tuple[Any, ...]]:
    """Return where there is anything in a document: keys and numbers that lead there."""
    items: Any = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    return [(), *((key, *rest) for key, inner in items for rest in places(inner))]


def replaced(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return a document with another value at a place."""
    if not place:
        return value
    changed = copy.deepcopy(document)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def document(whole: Any) -> st.SearchStrategy[Any]:
    """Return documents like a whole one, one place of which holds anything."""
    return st.builds(lambda p, v: replaced(whole, p, v), st.sampled_from(places(whole)), anything)


def as_json(content: Any, seal: bool) -> bytes:
    if seal and isinstance(content, dict):
        with contextlib.suppress(ValueError):  # NaN has no digest
            content = sealed(content)
    return json.dumps(content).encode()


@seeded(80)
@given(
    content=st.one_of(document(RUN), st.just(RUN)),
    listed=document(MEMBERS),
    seal=st.booleans(),
    bits=flips,
    part=kept,
)
def test_drawn_records_of_runs(
    content: Any,
    listed: Any,
    seal: bool,
    bits: list[tuple[float, int]],
    part: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    text = as_json(content, seal)
    in_folder(folder, "run.json", damaged(text, bits, part))
    settings = one_line(RunFolder(folder).settings)
    store = one_line(RunFolder(folder).store)
    assert (settings is None) == (store is None)
    if store is not None:
        assert store == str(folder / "store")  # nobody's mark agrees
    if seal and bits and settings is not None and isinstance(content, dict):
        assert settings == {k: v for k, v in content.items() if k != "store_mark"}
    in_folder(folder, "folds.json", as_json(listed, False))
    for member in one_line(lambda: member_folders(folder)) or ():
        assert member.parent == folder


@seeded(80)
@given(
    content=document(METADATA),
    version=st.sampled_from([1, 1, 1, 2, "1", True]),
    bits=flips,
    part=kept,
)
def test_drawn_metadata_of_decoders(
    content: Any,
    version: Any,
    bits: list[tuple[float, int]],
    part: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("decoder")
    if isinstance(content, dict):
        content = {**content, "format_version": version}
    path = folder / "d.safetensors"
    save_file({"w": torch.zeros(2)}, path, metadata={"samonai": json.dumps(content)})
    path.write_bytes(damaged(path.read_bytes(), bits, part))
    metadata = one_line(lambda: read_decoder_metadata(path))
    domain = one_line(lambda: trained_domain(path))
    if domain is not None:
        assert metadata.domain == domain.name == "medical"
        assert all(int(value) >= 0 for value in metadata.classes)
