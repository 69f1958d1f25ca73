"""Labels as named structures: one file each, the segments of a SEG, the regions of an RTSTRUCT."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.medical.objects.segments import JOINED
from samonai.domains.medical.volume import Volume

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
        series: SeriesInstanceUIDs that it refers to; empty if it has none.
        frame_of_reference: Its FrameOfReferenceUID; empty if it has none.
    """

    path: Path
    kind: str
    names: tuple[str, ...]
    series: frozenset[str]
    frame_of_reference: str = ""


def holds_dicom(path: Path) -> bool:
    """Return whether a file has DICOM's preamble.

    Raises:
        InputError: The file cannot be read, so that its format is unknown.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except PermissionError:
        raise InputError(f"{path}: the file cannot be read; check its permissions") from None
    except OSError:
        return False


def label_object(path: Path) -> LabelObject | None:
    """Return the description of a DICOM-SEG or RTSTRUCT object; None for any other file."""
    import pydicom  # slow to import, like highdicom

    from samonai.domains.medical.dicom.headers import quiet
    from samonai.domains.medical.objects import rtstruct as rtstruct_labels
    from samonai.domains.medical.objects import seg as seg_labels

    if not holds_dicom(path):
        return None
    with quiet(), _whole(path):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            kind = _KINDS.get(str(header.get("SOPClassUID", "")))
        except Exception:  # reading the file as an image reports the fault
            return None
        if kind is None:
            return None
        if kind == SEG:
            names = seg_labels.segment_names(header, path)
            series = seg_labels.referenced_series(header, path)
            frame = seg_labels.referenced_frame(header, path)
        else:
            names = rtstruct_labels.roi_names(header, path)
            series = rtstruct_labels.referenced_series(header, path)
            frame = rtstruct_labels.referenced_frame(header, path)
        ordered = dict.fromkeys(name for _, name in sorted(names.items()))
        return LabelObject(path, kind, tuple(ordered), frozenset(series), frame)


def object_masks(
    found: LabelObject, reference: Volume, wanted: Collection[str] | None = None
) -> Iterator[NamedMask]:
    """Yield the structures of a DICOM object on the grid of its series.

    Args:
        found: The object.
        reference: The volume of the series.
        wanted: Names to read; faults in others are ignored. None: all.

    Raises:
        InputError: The object refers to another series than the volume's, lies in another frame of
            reference, or cannot be placed on the volume.
    """
    from samonai.domains.medical.objects import rtstruct as rtstruct_labels
    from samonai.domains.medical.objects import seg as seg_labels

    uid = reference.facts.series_uid
    if uid is not None and found.series and uid not in found.series:
        raise InputError(
            f"{found.path}: labels series {sorted(found.series)[0]}, but the image is series {uid}"
        )
    _check_frame_of_reference(found, reference)
    read = seg_labels.read_segments if found.kind == SEG else rtstruct_labels.read_regions
    with _whole(found.path):
        yield from read(found.path, reference, wanted)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Refuse a label object with elements that are missing or not of their kind.

    pydicom parses what lies in sequences when it is first used, so that damage shows anywhere.
    """
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise InputError(
            f"{path}: a damaged label object ({type(error).__name__}); export it again"
        ) from error


def _check_frame_of_reference(found: LabelObject, reference: Volume) -> None:
    """Refuse an object of another frame of reference, unless it refers to the image's series."""
    from samonai.domains.medical.dicom.headers import (  # pydicom is slow to import
        quiet,
        read_header,
    )

    if not found.frame_of_reference or not reference.facts.slices:
        return
    image = reference.facts.slices[0].path
    with quiet():
        header = read_header(image) if image.is_file() else None
        uid = "" if header is None else header.text("FrameOfReferenceUID")
    if uid in ("", found.frame_of_reference):
        return
    if not found.series:
        raise InputError(
            f"{found.path}: lies in frame of reference {found.frame_of_reference} and names no "
            f"series, but the image lies in {uid}; positions of the two say nothing of each other: "
            "give the series that it was drawn on"
        )
    logger.warning(
        "%s: the %s names its series, but another frame of reference; it is placed by its series",
        *(reference.source_id, found.kind),
    )


def parse_structures(structures: Any) -> dict[str, int]:
    """Parse names and their label values, from "liver,spleen", a list, or a mapping.

    Names without a value are numbered from 1 in their order; "liver:3,spleen:7" gives both, and
    "left lung:1,right lung:1" makes one class of two structures.

    Raises:
        InputError: A name comes twice, a value is not a class, or a counted value is also
            given to another name.
    """
    if not structures:
        return {}
    if isinstance(structures, str):
        structures = [part.strip() for part in structures.split(",")]
    elif not isinstance(structures, Mapping):
        structures = [str(part) for part in structures]
    counted: list[Any] = []
    if isinstance(structures, Mapping):
        pairs: Sequence[tuple[Any, Any]] = list(structures.items())
    else:
        pairs = [
            part.rsplit(":", 1) if ":" in part else (part, number)
            for number, part in enumerate(structures, start=1)
        ]
        counted = [number for number, part in enumerate(structures, 1) if ":" not in part]
    try:
        values = {str(name).strip(): int(value) for name, value in pairs}
    except (TypeError, ValueError):
        values = {}
    distinct = len(values) == len(pairs)
    distinct &= all(list(values.values()).count(number) == 1 for number in counted)
    if not distinct or "" in values or not all(0 < v <= _LARGEST_CLASS for v in values.values()):
        raise InputError(
            f"structures={structures!r:.100}: expected distinct names such as liver,spleen, or "
            "names with their label values such as liver:3,spleen:7 (the same value joins them)"
        )
    return values


def number_structures(names: Sequence[str], wanted: Mapping[str, int]) -> dict[str, int]:
    """Return the label value of each structure: as wanted, or counted in alphabetical order.

    Raises:
        InputError: None of the wanted names occurs.
    """
    if not wanted:
        return {name: value for value, name in enumerate(sorted(set(names)), start=1)}
    values = with_parts(wanted, names)
    if missing := [name for name in values if name not in set(names)]:
        shown = ", ".join(sorted(set(names))[:10]) or "none"
        if len(missing) == len(values):
            raise InputError(f"no structure named {missing[0]!r:.60}; the labels have {shown}")
        logger.warning("no structure named %r in these labels", missing[0])
    return values


def class_names_of(values: Mapping[str, int]) -> dict[int, str]:
    """Return the name of each class; the joined names for one of several structures."""
    parts: dict[int, list[str]] = {}
    for name, value in values.items():
        parts.setdefault(value, []).append(name)
    return {value: JOINED.join(names) for value, names in parts.items()}


def with_parts(wanted: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    """Return label values extended by the single structures of joined classes.

    A run that was trained on "left lung:1,right lung:1" has the class "left lung // right
    lung" (`class_names_of`); labels without a structure of this name have its parts.
    """
    known = set(names)
    values: dict[str, int] = {}
    for name, value in wanted.items():
        parts = name.split(JOINED)
        if len(parts) == 1 or name in known or not known.intersection(parts):
            values[name] = value
        else:
            values |= dict.fromkeys(parts, value)
    return values


def combine(
    masks: Iterator[NamedMask], values: Mapping[str, int], shape: tuple[int, int, int], where: str
) -> npt.NDArray[np.int32]:
    """Merge structures into one label map; where several overlap, the smallest one is on top.

    So a tumour in an organ stays a tumour. The smallest is decided by this case's voxels,
    structure by structure, also within one class; among equals the lower label value wins.

    Args:
        masks: Name and bool (I, J, K) of each structure; a name may come only once.
        values: Label value by name; structures of one value are one class, and other structures
            are left out.
        shape: (I, J, K).
        where: Name of the label in messages.

    Returns:
        int32 (I, J, K), 0 is background.

    Raises:
        InputError: A structure comes twice.
    """
    # First by number of structure: the structures of a class may cover each other.
    label = np.zeros(shape, np.int32)
    names: list[str] = [""]
    ranks: list[tuple[int, int]] = [(int(np.prod(shape)) + 1, 0)]
    overlapping = 0
    for name, mask in masks:
        value = values.get(name)
        if value is None:
            continue
        if name in names:
            raise InputError(f"{where}: structure {name!r:.60} comes twice; keep one")
        names.append(name)
        ranks.append((int(np.count_nonzero(mask)), value))
        under = label[mask]
        covered = [old for old in np.unique(under).tolist() if ranks[old] > ranks[-1]]
        others = [n for n, (_, known) in enumerate(ranks) if n and known != value]
        overlapping += int(np.count_nonzero(np.isin(under, others)))
        label[mask] = np.where(np.isin(under, covered), len(names) - 1, under)
    if overlapping:
        logger.warning("%d voxels are in several structures; the smallest is on top", overlapping)
    numbered = np.array([value for _, value in ranks], np.int32)
    for part in label:  # in place: a copy would need as much memory again
        part[...] = numbered[part]
    return label
