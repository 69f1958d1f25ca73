"""Labels as named structures: one file each, the segments of a SEG, the regions of an RTSTRUCT."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.domains.medical.volume import Volume
from samonai.errors import InputError

logger = logging.getLogger(__name__)

SEG, RTSTRUCT = "DICOM-SEG", "RTSTRUCT"
_KINDS = {
    "1.2.840.10008.5.1.4.1.1.66.4": SEG,
    "1.2.840.10008.5.1.4.1.1.66.7": SEG,  # label map segmentation
    "1.2.840.10008.5.1.4.1.1.481.3": RTSTRUCT,
}
_LARGEST_CLASS = np.iinfo(np.uint16).max

Mask = npt.NDArray[np.bool_]
NamedMask = tuple[str, Mask]


@dataclass(frozen=True)
class LabelObject:
    """A DICOM object that labels a series.

    Attributes:
        path: The file.
        kind: `SEG` or `RTSTRUCT`.
        names: Its structures, in its own order.
        series: SeriesInstanceUIDs that it refers to; empty when it does not say.
    """

    path: Path
    kind: str
    names: tuple[str, ...]
    series: frozenset[str]


def holds_dicom(path: Path) -> bool:
    """Say whether a file carries DICOM's preamble; not so what cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def label_object(path: Path) -> LabelObject | None:
    """Return what a file says of itself if it is a DICOM-SEG or RTSTRUCT, else None."""
    import pydicom  # slow to import, like highdicom

    from samonai.domains.medical import rtstruct_labels, seg_labels
    from samonai.domains.medical.dicom_files import quiet

    if not holds_dicom(path):
        return None
    with quiet():
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            kind = _KINDS.get(str(header.get("SOPClassUID", "")))
        except Exception:  # reading the file as an image says what is wrong with it
            return None
        if kind is None:
            return None
        if kind == SEG:
            names = seg_labels.segment_names(header, path)
            series = seg_labels.referenced_series(header, path)
        else:
            names = rtstruct_labels.roi_names(header, path)
            series = rtstruct_labels.referenced_series(header, path)
        ordered = dict.fromkeys(name for _, name in sorted(names.items()))
        return LabelObject(path, kind, tuple(ordered), frozenset(series))


def object_masks(found: LabelObject, reference: Volume) -> Iterator[NamedMask]:
    """Yield the structures of a DICOM object on the grid of its series.

    Raises:
        InputError: It refers to another series than the volume's, or cannot be placed on it.
    """
    from samonai.domains.medical import rtstruct_labels, seg_labels

    uid = reference.facts.series_uid
    if uid is not None and found.series and uid not in found.series:
        raise InputError(
            f"{found.path}: labels series {sorted(found.series)[0]}, but the image is series {uid}"
        )
    read = seg_labels.read_segments if found.kind == SEG else rtstruct_labels.read_regions
    yield from read(found.path, reference)


def parse_structures(structures: Any) -> dict[str, int]:
    """Return names and their label values, from "liver,spleen", a list, or a mapping.

    Names without a value are numbered from 1 in their order; "liver:3,spleen:7" gives both.

    Raises:
        InputError: A name comes twice, or a value is no class.
    """
    if not structures:
        return {}
    if isinstance(structures, str):
        structures = [part.strip() for part in structures.split(",")]
    if isinstance(structures, Mapping):
        pairs: Sequence[tuple[Any, Any]] = list(structures.items())
    else:
        pairs = [
            part.rsplit(":", 1) if ":" in part else (part, number)
            for number, part in enumerate(structures, start=1)
        ]
    try:
        values = {str(name).strip(): int(value) for name, value in pairs}
    except (TypeError, ValueError):
        values = {}
    distinct = len(set(values.values())) == len(values) == len(pairs)
    if not distinct or "" in values or not all(0 < v <= _LARGEST_CLASS for v in values.values()):
        raise InputError(
            f"structures={structures!r:.100}: expected distinct names such as liver,spleen, or "
            "names with their label values such as liver:3,spleen:7"
        )
    return values


def number_structures(names: Sequence[str], wanted: Mapping[str, int]) -> dict[str, int]:
    """Return the label value of each structure: as wanted, or counted in alphabetical order.

    Raises:
        InputError: None of the wanted names occurs.
    """
    if not wanted:
        return {name: value for value, name in enumerate(sorted(set(names)), start=1)}
    if missing := [name for name in wanted if name not in set(names)]:
        shown = ", ".join(sorted(set(names))[:10]) or "none"
        if len(missing) == len(wanted):
            raise InputError(f"no structure named {missing[0]!r:.60}; the labels have {shown}")
        logger.warning("no structure named %r in these labels", missing[0])
    return dict(wanted)


def combine(
    masks: Iterator[NamedMask], values: Mapping[str, int], shape: tuple[int, int, int], where: str
) -> npt.NDArray[np.int32]:
    """Put structures into one label map; where several overlap, the smallest one is on top.

    A tumour in an organ so stays a tumour. Which is smallest is a matter of this case's voxels;
    among equals the lower label value wins.

    Args:
        masks: Name and bool (I, J, K) of each structure; a name may come only once.
        values: Label value by name; other structures are left out.
        shape: (I, J, K).
        where: What messages name.

    Returns:
        int32 (I, J, K), 0 is background.

    Raises:
        InputError: A structure comes twice.
    """
    label = np.zeros(shape, np.int32)
    sizes: dict[int, int] = {0: int(np.prod(shape)) + 1}
    overlapping = 0
    for name, mask in masks:
        value = values.get(name)
        if value is None:
            continue
        if value in sizes:
            raise InputError(f"{where}: structure {name!r:.60} comes twice; keep one")
        sizes[value] = int(np.count_nonzero(mask))
        under = label[mask]
        covered = [
            old for old in np.unique(under) if (sizes[value], value) > (sizes[int(old)], int(old))
        ]
        overlapping += int(np.count_nonzero(under))
        label[mask] = np.where(np.isin(under, covered), under, value) if covered else value
    if overlapping:
        logger.warning("%d voxels are in several structures; the smallest is on top", overlapping)
    return label
