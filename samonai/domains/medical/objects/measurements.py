"""Measurements of predicted structures: volume, extent, position, intensity."""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.csv_cells import csv_row
from samonai.core.files import write_atomically
from samonai.domains.base import LabelFacts
from samonai.domains.medical.objects.segments import Segment, segment_of
from samonai.domains.medical.volume import Volume
from samonai.version import __version__

_FORMAT_VERSION = 1
_MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class Measurement:
    """Measurements of one structure. Values that an empty one does not have are None.

    Uncalibrated pictures have no mm and no ml; separate pictures, such as
    those of a loop, have no ml, no centre and no extent across pictures.

    Attributes:
        value: Its value in the label map.
        name: Its name.
        empty: Whether it has no voxel.
        voxels: Its number of voxels.
        volume_ml: Their volume.
        extents_mm: Its size along i, j and k: voxels times spacing.
        box_voxels: i0, j0, k0, i1, j1, k1; upper ends exclusive.
        centroid_mm: Mean of its voxels' centres, RAS+.
        mean: Mean intensity of its voxels, without padding.
        sd: Standard deviation of the same, of the population.
        touches_border: Whether it reaches the edge of the scan, so that part of it may be missing.
    """

    value: int
    name: str
    empty: bool
    voxels: int = 0
    volume_ml: float | None = 0.0
    extents_mm: tuple[float | None, ...] | None = None
    box_voxels: tuple[int, ...] | None = None
    centroid_mm: tuple[float, ...] | None = None
    mean: float | None = None
    sd: float | None = None
    touches_border: bool = False


def measure(
    volume: Volume, label: npt.NDArray[np.integer], segments: Iterable[Segment]
) -> list[Measurement]:
    """Measure structures of a label map.

    Args:
        volume: The volume of the label's grid.
        label: integer (I, J, K), class per voxel, 0 is background.
        segments: The structures to measure; those that are not in the map are empty.

    Returns:
        One measurement each, in their order.
    """
    wanted = list(segments)
    highest = max((segment.value for segment in wanted), default=0)
    from scipy import ndimage  # slow to import

    boxes = ndimage.find_objects(label, max_label=highest) if highest else []
    return [_measured(volume, label, each, boxes[each.value - 1]) for each in wanted]


def all_segments(present: Sequence[Segment], names: Mapping[int, str]) -> list[Segment]:
    """Return the expected and the present classes, by value."""
    found = {segment.value: segment for segment in present}
    missing = {value: segment_of(value, name) for value, name in names.items() if value > 0}
    return [segment for _, segment in sorted({**missing, **found}.items())]


def write_measurements(
    volume: Volume,
    measured: Sequence[Measurement],
    facts: LabelFacts,
    stem: Path,
    not_written: Sequence[str] = (),
) -> list[Path]:
    """Write measurements as `.measurements.json` and `.measurements.csv`.

    Neither file holds a patient's name, an identifier of the study or a path.

    Args:
        volume: The measured volume.
        measured: The measurements.
        facts: The algorithm of the label map.
        stem: Path without an ending; its name is the case.
        not_written: Requested formats that were not written because the label map is empty.

    Returns:
        Both files.
    """
    document = {
        "format_version": _FORMAT_VERSION,
        "samonai": __version__,
        "case": stem.name,
        "algorithm": dict(facts.algorithm),
        "source": {
            "format": volume.facts.format,
            "modality": volume.facts.modality,
            "series_sha256": _hidden(volume.facts.series_uid),
            "shape": volume.shape,
            "spacing_mm": _spacing_mm(volume),
        },
        "without_mm": volume.unmeasurable,
        "intensity_unit": intensity_unit(volume),
        "empty": all(each.empty for each in measured),
        "not_written": list(not_written),
        "structures": [asdict(each) for each in measured],
    }
    paths = [stem.with_name(f"{stem.name}.measurements.{kind}") for kind in ("json", "csv")]
    with write_atomically(paths[0]) as temporary:
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    with write_atomically(paths[1]) as temporary:
        _write_table(stem.name, measured, intensity_unit(volume), temporary)
    return paths


def intensity_unit(volume: Volume) -> str | None:
    """Return the unit of a volume's values, None if it is unknown."""
    return volume.facts.unit or ("HU" if volume.facts.modality == "CT" else None)


def _measured(
    volume: Volume,
    label: npt.NDArray[np.integer],
    segment: Segment,
    box: tuple[slice, ...] | None,
) -> Measurement:
    if box is None:
        nothing = None if volume.unmeasurable else 0.0
        return Measurement(segment.value, segment.name, empty=True, volume_ml=nothing)
    mask: npt.NDArray[np.bool_] = np.equal(label[box], segment.value)
    lower = np.array([part.start for part in box])
    upper = np.array([part.stop for part in box])
    indices = _centre(mask) + lower
    values = volume.data[box][mask if volume.valid is None else mask & volume.valid[box]]
    # An axis of one slice has no inside; all structures would touch its ends.
    inside = np.array(volume.shape) > 1
    at_edge = ((lower == 0) | (upper == np.array(volume.shape))) & inside
    voxels = int(mask.sum())
    millilitres = abs(float(np.linalg.det(volume.affine[:3, :3]))) / _MM3_PER_ML
    centroid = volume.affine[:3, :3] @ indices + volume.affine[:3, 3]
    return Measurement(
        segment.value,
        segment.name,
        empty=False,
        voxels=voxels,
        volume_ml=None if volume.unmeasurable else voxels * millilitres,
        extents_mm=_extents(volume, upper - lower),
        box_voxels=tuple(np.concatenate([lower, upper]).tolist()),
        centroid_mm=None if volume.unmeasurable else tuple(centroid.tolist()),
        mean=float(values.mean(dtype=np.float64)) if len(values) else None,
        sd=float(values.std(dtype=np.float64)) if len(values) else None,
        touches_border=bool(at_edge.any()),
    )


def _spacing_mm(volume: Volume) -> tuple[float | None, ...] | None:
    """Return the size of a voxel in mm; None for uncalibrated pictures."""
    if volume.facts.uncalibrated:
        return None
    i, j, k = volume.spacing
    return i, j, None if volume.facts.planar else k


def _extents(volume: Volume, voxels: npt.NDArray[np.integer]) -> tuple[float | None, ...] | None:
    """Return numbers of voxels along i, j and k in mm."""
    spacing = _spacing_mm(volume)
    if spacing is None:
        return None
    counts = voxels.tolist()
    return tuple(
        None if step is None else float(count * step)
        for count, step in zip(counts, spacing, strict=True)
    )


def _centre(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the mean index of a mask's voxels along each axis, without an index list."""
    counts = (mask.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3))
    return np.array([float(np.average(np.arange(len(n)), weights=n)) for n in counts])


def _write_table(case: str, measured: Sequence[Measurement], unit: str | None, path: Path) -> None:
    columns = {
        **{f"extent_{axis}_mm": ("extents_mm", n) for n, axis in enumerate("ijk")},
        **{name: ("box_voxels", n) for n, name in enumerate(("i0", "j0", "k0", "i1", "j1", "k1"))},
        **{f"centroid_{axis}_mm": ("centroid_mm", n) for n, axis in enumerate("xyz")},
    }
    plain = ("value", "name", "empty", "voxels", "volume_ml", "mean", "sd", "touches_border")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["case", *plain, "intensity_unit", *columns])
        writer.writeheader()
        for each in measured:
            row: dict[str, Any] = {"case": case, "intensity_unit": unit}
            row |= {key: getattr(each, key) for key in plain}
            for name, (key, number) in columns.items():
                values = getattr(each, key)
                row[name] = None if values is None else values[number]
            writer.writerow(csv_row(row))


def _hidden(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]
