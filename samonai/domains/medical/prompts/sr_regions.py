"""DICOM SR measurements (TID 1500) as prompts: regions as spatial coordinates, in pixels or mm.

Each measurement group is one object. Its class is the meaning of its finding, which OHIF makes of
the annotation's label. Coordinates in pixels (SCOORD) refer to an image, whose slice they are on;
coordinates in mm (SCOORD3D) to a frame of reference. A line is the length of something and outlines
nothing, so it is left out.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from samonai.core.errors import InputError
from samonai.domains.medical.labels.structures import holds_dicom
from samonai.domains.medical.prompts.drawn import Array, DrawnObject, outline, to_voxels
from samonai.domains.medical.volume import Volume

logger = logging.getLogger(__name__)

_SR = "1.2.840.10008.5.1.4.1.1.88."
_GROUP, _FINDING = "125007", "121071"
_POINTS = ("POINT", "MULTIPOINT")
_OUTLINES = ("POLYLINE", "POLYGON", "CIRCLE", "ELLIPSE")
_SAME = 1e-3


def is_report(path: Path) -> bool:
    """Return whether a file is a DICOM structured report."""
    if not (path.is_file() and holds_dicom(path)):
        return False
    import pydicom  # slow to import

    from samonai.domains.medical.dicom.headers import quiet

    with quiet():
        try:
            header = pydicom.dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True)
        except Exception:  # reading the file as a label reports the fault
            return False
        return str(header.get("SOPClassUID", "")).startswith(_SR)


def report_names(path: Path) -> list[str | None]:
    """Return the class of each measurement group with a region or points."""
    return [_finding(group) for group in _groups(path) if _usable(group)]


def report_objects(path: Path, volume: Volume, axis: int) -> list[DrawnObject]:
    """Return the regions and points of a report's measurement groups.

    Args:
        path: The file.
        volume: The volume of the series that was measured.
        axis: The array axis perpendicular to the slices.

    Raises:
        InputError: The report refers to other images, or has no region or point in it.
    """
    slices: dict[tuple[str, int], int] = {}
    found, left_out = [], 0
    for group in _groups(path):
        if not _usable(group):
            left_out += 1
            continue
        name, own = _finding(group), _regions(group)
        if any(item.ValueType == "SCOORD" for item in own) and not slices:
            slices = _slice_numbers(volume, path)
        found += [_object(item, name, slices, volume, axis, path) for item in own]
    if not found:
        raise InputError(
            f"{path}: {left_out} measurements, none of which outlines a region or marks a point"
        )
    if left_out:
        logger.warning("%s: %d measurements outline no region and are left out", path, left_out)
    return found


def _groups(path: Path) -> list[Any]:
    """Return the measurement groups of a report, or the report where it has none."""
    import pydicom

    from samonai.domains.medical.dicom.headers import quiet

    with quiet():
        try:
            report = pydicom.dcmread(path)
            groups = [item for item in _below(report) if _concept(item) == _GROUP]
        except Exception as error:
            raise InputError(f"{path}: a damaged structured report; export it again") from error
    return groups or [report]


def _below(item: Any) -> Iterator[Any]:
    for child in item.get("ContentSequence") or []:
        yield child
        yield from _below(child)


def _concept(item: Any) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""


def _finding(group: Any) -> str | None:
    for child in group.get("ContentSequence") or []:
        if _concept(child) == _FINDING and child.get("ConceptCodeSequence"):
            meaning = str(child.ConceptCodeSequence[0].get("CodeMeaning", "")).strip()
            return " ".join(meaning.split()) or None
    return None


def _regions(group: Any) -> list[Any]:
    """Return a group's different regions: several measurements may repeat one."""
    kept: dict[tuple[Any, ...], Any] = {}
    for item in _below(group):
        if item.get("ValueType") in ("SCOORD", "SCOORD3D") and _outlines(item):
            key = (item.ValueType, item.GraphicType, *map(float, item.GraphicData))
            kept.setdefault(key, item)
    return list(kept.values())


def _usable(group: Any) -> bool:
    return bool(_regions(group))


def _outlines(item: Any) -> bool:
    """Return whether coordinates mark points or enclose an area."""
    kind = str(item.get("GraphicType", ""))
    if kind in _POINTS or kind in ("CIRCLE", "ELLIPSE", "POLYGON"):
        return True
    places = _rows(item)
    closed = len(places) > 3 and np.abs(places[0] - places[-1]).max() <= _SAME
    return kind == "POLYLINE" and bool(closed)


def _rows(item: Any) -> Array:
    width = 2 if item.ValueType == "SCOORD" else 3
    values = np.array([float(value) for value in item.get("GraphicData") or []])
    return values[: len(values) // width * width].reshape(-1, width)


def _object(
    item: Any,
    name: str | None,
    slices: dict[tuple[str, int], int],
    volume: Volume,
    axis: int,
    path: Path,
) -> DrawnObject:
    where = f"{path}: {item.GraphicType}"
    rows = _rows(item)
    if not len(rows) or not np.isfinite(rows).all():
        raise InputError(f"{where}: no coordinates")
    kind = str(item.GraphicType)
    if item.ValueType == "SCOORD":
        number = _slice_of(item, slices, path)
        rows = _around(kind, rows, where)
        # The image's corner is 0, 0; voxel indices count from the first voxel's centre.
        places = np.column_stack([rows - 0.5, np.full(len(rows), float(number))])
    else:
        _check_frame(item, volume, path)
        places = to_voxels(_around(kind, rows, where), "LPS", volume)
    if kind in _POINTS:
        return DrawnObject(name, points=places)
    return outline(name, places, volume, axis, where)


def _around(kind: str, rows: Array, where: str) -> Array:
    """Return points whose bounding box is that of a region."""
    if kind not in ("CIRCLE", "ELLIPSE"):
        return rows
    if len(rows) != (2 if kind == "CIRCLE" else 4) or (kind == "CIRCLE" and rows.shape[1] != 2):
        raise InputError(f"{where}: {len(rows)} points; expected those of PS3.3 C.18.6")
    if kind == "CIRCLE":  # its centre and a point on it
        radius = float(np.hypot(*(rows[1] - rows[0])))
        return np.array([rows[0] - radius, rows[0] + radius])
    # The ends of the major axis, then of the minor one.
    centre = rows.mean(0)
    half = (rows[[0, 2]] - rows[[1, 3]]) / 2
    angles = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    around: Array = centre + np.column_stack([np.cos(angles), np.sin(angles)]) @ half
    return around


def _slice_of(item: Any, slices: dict[tuple[str, int], int], path: Path) -> int:
    """Return the number of the slice that a region in pixels is on."""
    for child in item.get("ContentSequence") or []:
        for image in child.get("ReferencedSOPSequence") or []:
            frames = image.get("ReferencedFrameNumber")
            frame = (
                int(frames[0] if isinstance(frames, list) or hasattr(frames, "append") else frames)
                if frames not in (None, "")
                else 1
            )
            found = slices.get((str(image.get("ReferencedSOPInstanceUID", "")), frame))
            if found is not None:
                return found
    raise InputError(
        f"{path}: a region in pixels of an image that is not in this series; give the series that "
        f"was measured"
    )


def _slice_numbers(volume: Volume, path: Path) -> dict[tuple[str, int], int]:
    """Return the slice number of each image and frame, from 1, of a volume's series."""
    from samonai.domains.medical.dicom.headers import quiet, read_header

    if not volume.facts.slices:
        raise InputError(
            f"{path}: regions in pixels of DICOM images, but {volume.source_id} is no DICOM series "
            f"or its grid was filled; give the series that was measured"
        )
    numbers, uids = {}, {}
    with quiet():
        for number, one in enumerate(volume.facts.slices):
            if one.path not in uids:
                header = read_header(one.path)
                uids[one.path] = "" if header is None else header.text("SOPInstanceUID")
            numbers[uids[one.path], 1 if one.frame is None else one.frame + 1] = number
    return numbers


def _check_frame(item: Any, volume: Volume, path: Path) -> None:
    """Refuse coordinates in another frame of reference than the volume's."""
    from samonai.domains.medical.dicom.headers import quiet, read_header

    stated = str(item.get("ReferencedFrameOfReferenceUID", ""))
    if not volume.facts.slices:
        return
    with quiet():
        header = read_header(volume.facts.slices[0].path)
        own = "" if header is None else header.text("FrameOfReferenceUID")
    if stated and own and stated != own:
        raise InputError(
            f"{path}: coordinates in frame of reference {stated}, but the image lies in {own}; "
            f"give the series that was measured"
        )
