"""Listing of a raster data set's cases: images with masks or vector files, blocks, data lists."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import shapely

from samonai.core.errors import InputError
from samonai.domains.base import Case
from samonai.domains.satellite.access import (
    RASTER_ENDINGS,
    VECTOR_ENDINGS,
    check_path,
    is_elsewhere,
)

logger = logging.getLogger(__name__)

_SHOWN = 3


def find_cases(
    images: Path | str, labels: Path | str | None = None, any_driver: bool = False
) -> list[Case]:
    """Pair rasters with their labels.

    Args:
        images: A folder of rasters, one raster, or a JSON list as MONAI has them:
            `{"training": [{"image": ..., "label": ...}]}`, paths relative to the list.
        labels: One vector file (or COCO annotations) for all rasters; one mask for one raster; or
            a folder with a file per raster, named like it, possibly with a suffix (`a.tif`:
            `a.geojson`, `a_mask.tif`). A folder with a single vector file means that file.
        any_driver: One raster may be any path that GDAL opens: a URL, a part of an archive.

    Returns:
        The cases, sorted by id.

    Raises:
        InputError: There are no rasters, names do not match, or two cases share an id.
    """
    images = Path(images)
    labels = None if labels is None else Path(labels)
    elsewhere = is_elsewhere(images)
    if elsewhere:
        check_path(images, any_driver)
    for path in (None if elsewhere else images, labels):
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
    if images.suffix.lower() == ".json":
        cases = _listed(images)
    else:
        rasters = [images] if elsewhere or images.is_file() else _rasters(images)
        find = _label_finder(labels, rasters)
        cases = [Case(path.stem, path, find(path)) for path in rasters]
    seen: dict[str, Path] = {}
    for case in cases:
        if case.case_id in seen:
            raise InputError(
                f"{case.image} and {seen[case.case_id]} give two cases named {case.case_id}"
            )
        seen[case.case_id] = case.image
    return sorted(cases, key=lambda case: case.case_id)


def is_vector(path: Path) -> bool:
    """Return whether a file's ending is that of a vector file, or of COCO annotations."""
    return path.suffix.lower() in VECTOR_ENDINGS


def label_files(cases: Sequence[Case]) -> list[Path]:
    """Return the vector files of a data set without repetition."""
    found = {case.label for case in cases if case.label is not None}
    return sorted(path for path in found if is_vector(path))


def check_overlap(
    cases: list[Case], footprint: Callable[[Case], Any], extent: Callable[[Case], Any]
) -> None:
    """Check that vector labels overlap their rasters.

    A file for several rasters must overlap at least one of them.

    Args:
        cases: The cases.
        footprint: Function that returns the outline of a case's raster.
        extent: Function that returns the outline of all features of a case's label, in the
            raster's CRS.

    Raises:
        InputError: A file overlaps none of its rasters.
    """
    by_label: dict[Path, list[Case]] = {}
    for case in cases:
        if case.label is not None and is_vector(case.label):
            by_label.setdefault(case.label, []).append(case)
    for label, labelled in by_label.items():
        outlines = [(footprint(case), extent(case)) for case in labelled]
        hits = [a is None or b is None or shapely.intersects(a, b) for a, b in outlines]
        if not any(hits):
            image, features = outlines[0]
            raise InputError(
                f"{label} does not overlap {labelled[0].image}: its features lie within "
                f"{_bounds(features)}, the image within {_bounds(image)}; is the CRS right? "
                f"label_crs says which to believe"
            )
        if missed := hits.count(False):
            logger.warning("%s: %d of %d rasters have no feature", label, missed, len(hits))


def _bounds(outline: Any) -> str:
    return ", ".join(f"{value:.6g}" for value in outline.bounds)


def _rasters(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    for endings in (RASTER_ENDINGS[:2], RASTER_ENDINGS[2:], (".vrt", ".jp2", ".img")):
        if found := [p for p in files if p.suffix.lower() in endings and p.is_file()]:
            return found
    raise InputError(f"{folder} holds no rasters ({', '.join(RASTER_ENDINGS)})")


def _label_finder(labels: Path | None, rasters: list[Path]) -> Callable[[Path], Path | None]:
    if labels is None:
        return lambda image: None
    if labels.is_file():
        if not is_vector(labels) and len(rasters) > 1:
            raise InputError(f"{labels}: one mask for {len(rasters)} rasters; give a folder")
        return lambda image: labels
    endings = (*VECTOR_ENDINGS, *RASTER_ENDINGS)
    files = [path for path in sorted(labels.iterdir()) if path.suffix.lower() in endings]
    vectors = [path for path in files if is_vector(path)]
    if len(files) == len(vectors) == 1:
        return lambda image: vectors[0]
    images = {path.resolve() for path in rasters}
    files = [path for path in files if path.resolve() not in images]

    def find(image: Path) -> Path | None:
        named = [path for path in files if path.stem == image.stem] or [
            path for path in files if path.stem.startswith((image.stem + "_", image.stem + "-"))
        ]
        if len(named) > 1:
            raise InputError(
                f"{labels} has {len(named)} labels for {image.name}: "
                f"{', '.join(path.name for path in named[:_SHOWN])}"
            )
        return named[0] if named else None

    if not any(find(image) for image in rasters):
        raise InputError(
            f"{labels} has no label named like a raster, such as {rasters[0].stem}.geojson or "
            f"{rasters[0].stem}.tif"
        )
    return find


def _listed(path: Path) -> list[Case]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    entries = content.get("training") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("image"), str) for entry in entries
    ):
        raise InputError(f'{path}: expected {{"training": [{{"image": PATH, "label": PATH}}, …]}}')
    cases = []
    for entry in entries:
        image = Path(entry["image"])
        if not is_elsewhere(entry["image"]):
            image = path.parent / image
        label = entry.get("label")
        cases.append(Case(image.stem, image, None if label is None else path.parent / str(label)))
    if not cases:
        raise InputError(f"{path} lists no rasters")
    return cases


def with_blocks(case: Case, names: list[str]) -> list[Case]:
    """Return the blocks of a case as cases of their own."""
    return [replace(case, case_id=f"{case.case_id}@{name}", part=name) for name in names]
