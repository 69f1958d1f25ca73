"""Matching of labels with images: DICOM objects by UID, structures by name."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from samonai.core.errors import InputError
from samonai.core.files import files_below
from samonai.domains.base import Case
from samonai.domains.medical.formats.read_volume import ENDINGS, source_name
from samonai.domains.medical.labels.read_labels import find_structures
from samonai.domains.medical.labels.structures import (
    LabelObject,
    holds_dicom,
    label_object,
    number_structures,
)

logger = logging.getLogger(__name__)


def label_objects(labels: Path) -> list[LabelObject]:
    """Return the DICOM-SEG and RTSTRUCT objects of a folder, unless it holds other label files."""
    if labels.is_file():
        found = None if labels.name.lower().endswith(ENDINGS) else label_object(labels)
        return [] if found is None else [found]
    files = files_below(labels)
    if any(path.name.lower().endswith(ENDINGS) for path in files):
        return []
    return [found for path in files if (found := label_object(path)) is not None]


def holds_labels_only(folder: Path) -> bool:
    """Return whether all DICOM files of a folder are DICOM-SEG or RTSTRUCT objects."""
    labels = 0
    for path in files_below(folder):
        if not holds_dicom(path):
            continue
        if label_object(path) is None:
            return False
        labels += 1
    return labels > 0


def match_by_series(
    folders: Sequence[Path], objects: Sequence[LabelObject], images: Path
) -> list[Case]:
    """Return one case per labelled series.

    Args:
        folders: Folders of DICOM files, or one image.
        objects: Label objects of their series.
        images: Name of the images in messages.

    Raises:
        InputError: No object refers to a given series, or several objects that do not lie
            in a folder of their own refer to one.
    """
    places: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        for uid in series_of(folder):
            places[uid].append(folder)
    found: dict[tuple[Path, str], list[LabelObject]] = defaultdict(list)
    lonely = 0
    for each in objects:
        matches = _matches(each, places, folders)
        lonely += not matches
        for match in matches:
            found[match].append(each)
    if not found:
        raise InputError(
            f"{images}: none of the {len(objects)} DICOM-SEG and RTSTRUCT objects refers to a "
            "series in it"
        )
    unlabelled = len(set(folders) - {folder for folder, _ in found})
    if lonely or unlabelled:
        logger.warning(
            "%d label objects without their series and %d folders without a label are left out",
            *(lonely, unlabelled),
        )
    series_in = defaultdict(list)
    for folder, uid in found:
        series_in[folder].append(uid)
    return [
        Case(_case_id(folder, uid, series_in[folder]), folder, _label_of(labelling), uid or None)
        for (folder, uid), labelling in found.items()
    ]


def with_structures(cases: Sequence[Case], wanted: Mapping[str, int]) -> list[Case]:
    """Return cases with the label values of their structures, the same in all of them.

    Args:
        cases: The cases of one data set.
        wanted: Label value by name; empty: all structures of all cases, counted from 1 in
            alphabetical order.
    """
    names: set[str] = set()
    named: list[int] = []
    for number, case in enumerate(cases):
        structures = [] if case.label is None else find_structures(case.label)
        if structures:
            named.append(number)
            names |= {name for name, _ in structures}
    if not named:
        return list(cases)
    values = structure_values(sorted(names), wanted)
    return [
        replace(case, classes=values) if number in set(named) else case
        for number, case in enumerate(cases)
    ]


def structure_values(
    names: Sequence[str], wanted: Mapping[str, int]
) -> tuple[tuple[str, int], ...]:
    """Return name and label value of each structure, by value; see `number_structures`."""
    return tuple(sorted(number_structures(names, wanted).items(), key=lambda item: item[1]))


def series_of(path: Path) -> set[str]:
    """Return the SeriesInstanceUIDs of all images in a file or folder."""
    import pydicom  # slow to import

    from samonai.domains.medical.dicom.headers import quiet

    uids: set[str] = set()
    with quiet():
        for file in [path] if path.is_file() else files_below(path):
            try:
                header = pydicom.dcmread(file, specific_tags=["SeriesInstanceUID", "Rows"])
            except Exception:  # reading the case reports the fault
                continue
            if "Rows" in header and "SeriesInstanceUID" in header:
                uids.add(str(header.SeriesInstanceUID))
    return uids


def _matches(
    each: LabelObject, places: Mapping[str, list[Path]], folders: Sequence[Path]
) -> list[tuple[Path, str]]:
    """Return the folder of an object's series; without series, by its own or its folder's name."""
    if each.series:
        return [(folder, uid) for uid in sorted(each.series) for folder in places.get(uid, [])]
    if len(folders) == 1:
        return [(folders[0], "")]
    names = {source_name(each.path), each.path.stem, each.path.parent.name}
    return [(folder, "") for folder in folders if folder.name in names]


def _case_id(folder: Path, uid: str, beside: Sequence[str]) -> str:
    name = source_name(folder)
    return name if len(beside) == 1 else f"{name}_{sorted(beside).index(uid) + 1}"


def _label_of(objects: Sequence[LabelObject]) -> Path:
    if len(objects) == 1:
        return objects[0].path
    parents = {each.path.parent for each in objects}
    if len(parents) == 1:
        return parents.pop()
    listed = ", ".join(str(each.path) for each in objects[:3])
    raise InputError(
        f"{len(objects)} objects label one series: {listed}; keep one, or put them into a folder "
        "of their own"
    )
