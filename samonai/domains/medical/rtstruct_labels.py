"""Contours of an RTSTRUCT as masks on the grid of the series that they were drawn on."""

import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from samonai.domains.medical.dicom_files import element, quiet
from samonai.domains.medical.itk import LPS_TO_RAS
from samonai.domains.medical.volume import Volume
from samonai.domains.rasterise import fill_polygons
from samonai.errors import InputError

logger = logging.getLogger(__name__)

# Contours lie on slices; planning systems round their positions, but by less than this.
_OFF_SLICE = 0.1
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")

Mask = npt.NDArray[np.bool_]


def roi_names(header: Dataset, path: Path) -> dict[int, str]:
    """Return the names of the regions that have closed contours, by number."""
    drawn = {
        int(element(item, "ReferencedROINumber", path) or 0)
        for item in element(header, "ROIContourSequence", path) or []
        if any(_is_closed(contour, path) for contour in _contours(item, path))
    }
    names = {}
    for item in element(header, "StructureSetROISequence", path) or []:
        number = int(element(item, "ROINumber", path) or 0)
        if number in drawn:
            names[number] = str(element(item, "ROIName", path) or f"roi_{number}").strip()
    return names


def read_regions(path: Path, reference: Volume) -> Iterator[tuple[str, Mask]]:
    """Yield each region's name and mask; regions of one name are one structure.

    All closed contours of a region on a slice are filled together by the even-odd rule: a contour
    within another is a hole, an island within it is filled again, and a keyhole's two sides cancel
    out. Pixel centres count (see `fill_polygons`), so that contours along the edges of pixels give
    back exactly those pixels.

    Args:
        path: The structure set.
        reference: The volume of the series that it was drawn on.

    Yields:
        Name, and bool (I, J, K) on the reference's grid.

    Raises:
        InputError: The object is damaged, or a contour lies between or outside the slices.
    """
    with quiet():
        try:
            dataset = pydicom.dcmread(path, force=True)
        except Exception:
            raise InputError(f"{path}: not a readable RTSTRUCT; export it again") from None
        names = roi_names(dataset, path)
        by_name: dict[str, list[Any]] = defaultdict(list)
        for item in element(dataset, "ROIContourSequence", path) or []:
            name = names.get(int(element(item, "ReferencedROINumber", path) or 0))
            if name is not None:
                by_name[name] += _contours(item, path)
        for name, contours in by_name.items():
            yield name, _mask(name, contours, reference, path)


def _mask(name: str, contours: list[Any], reference: Volume, path: Path) -> Mask:
    to_voxels = np.linalg.inv(LPS_TO_RAS @ reference.affine)
    on_slice: dict[int, list[npt.NDArray[np.float64]]] = defaultdict(list)
    skipped = 0
    for contour in contours:
        if not _is_closed(contour, path):
            skipped += 1
            continue
        points = _points(contour, path)
        voxels = points @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        k = float(np.median(voxels[:, 2]))
        if np.abs(voxels[:, 2] - round(k)).max() > _OFF_SLICE:
            raise InputError(
                f"{path}: a contour of {name!r:.60} does not lie on a slice of the image (at slice "
                f"{k:.2f}); give the series that it was drawn on"
            )
        if not 0 <= round(k) < reference.shape[2]:
            raise InputError(
                f"{path}: a contour of {name!r:.60} lies beyond the image's slices; give the whole "
                "series that it was drawn on"
            )
        on_slice[round(k)].append(voxels[:, :2])
    if skipped:
        logger.warning("structure set: left out %d points and open lines of one region", skipped)
    columns, rows, slices = reference.shape
    mask = np.zeros((slices, rows, columns), bool)
    for k, polygons in on_slice.items():
        mask[k] = fill_polygons(polygons, (rows, columns))
    return mask.transpose(2, 1, 0)


def _points(contour: Dataset, path: Path) -> npt.NDArray[np.float64]:
    values = element(contour, "ContourData", path)
    try:
        points = np.array([float(value) for value in values]).reshape(-1, 3)
    except (TypeError, ValueError):
        points = np.empty((0, 3))
    if len(points) < 3 or not np.isfinite(points).all():
        raise InputError(f"{path}: a contour without three points in numbers; export it again")
    return points


def _contours(item: Dataset, path: Path) -> list[Any]:
    return list(element(item, "ContourSequence", path) or [])


def _is_closed(contour: Dataset, path: Path) -> bool:
    return str(element(contour, "ContourGeometricType", path) or "") in _CLOSED


def referenced_series(header: Dataset, path: Path) -> set[str]:
    """Return the SeriesInstanceUIDs that a structure set refers to; none when it does not say."""
    return {
        str(series.get("SeriesInstanceUID", ""))
        for frame in element(header, "ReferencedFrameOfReferenceSequence", path) or []
        for study in element(frame, "RTReferencedStudySequence", path) or []
        for series in element(study, "RTReferencedSeriesSequence", path) or []
    } - {""}
