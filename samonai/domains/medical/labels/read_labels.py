"""Reading of label maps and structures onto the grid of their scan."""

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.files import files_below
from samonai.domains.medical.formats.picture import PICTURE, PICTURE_ENDINGS
from samonai.domains.medical.formats.read_volume import ENDINGS, read_raw, strip_ending
from samonai.domains.medical.formats.slicer_segmentation import (
    SEGMENTATION_ENDING,
    on_grid,
    segment_names,
)
from samonai.domains.medical.labels.structures import (
    LabelObject,
    NamedMask,
    combine,
    label_object,
    number_structures,
    object_masks,
    with_parts,
)
from samonai.domains.medical.volume import (
    LabelReadOptions,
    RawVolume,
    Volume,
    format_affine,
    format_shape,
    same_grid,
)

logger = logging.getLogger(__name__)

_WHOLE = 1e-3  # a scale factor in single precision makes 1.00000006 of 1


def read_label(
    path: Path | str,
    reference: Volume,
    label_map: dict[int, int] | None = None,
    prefer: str | None = None,
    structures: Mapping[str, int] | None = None,
) -> npt.NDArray[np.int32]:
    """Read a label map, or structures that become one, onto a volume's grid.

    Args:
        path: A label map; a DICOM-SEG or RTSTRUCT object; or a folder that holds one file per
            structure, named after it, or several such objects.
        reference: The image that the label belongs to.
        label_map: Stored value to class; other values keep their own. Needed for
            masks stored as 0 and 255.
        prefer: As in `read_volume`.
        structures: Label value by name; other structures are left out. None: all of them,
            counted from 1 in alphabetical order.

    Returns:
        int32 (I, J, K), class per voxel, 0 is background.

    Raises:
        InputError: The label lies on another grid, or holds fractions, NaN, negative values or 255
        without a `label_map`.
    """
    return read_known_label(path, reference, label_map, prefer, structures)[0]


def read_known_label(
    path: Path | str,
    reference: Volume,
    label_map: dict[int, int] | None = None,
    prefer: str | None = None,
    structures: Mapping[str, int] | None = None,
    ignored: Collection[int] = (),
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_] | None]:
    """Read a label as `read_label` does, with the mask of its labelled voxels.

    Args:
        path: As in `read_label`, like the next four.
        reference: Likewise.
        label_map: Likewise.
        prefer: Likewise.
        structures: Likewise.
        ignored: Stored values of unannotated voxels, unless `label_map` maps
            them to classes.

    Returns:
        int32 (I, J, K), class per voxel, 0 on unlabelled voxels; bool (I, J, K), False there,
        or None: all voxels are labelled.
    """
    path = Path(path)
    found = find_structures(path)
    if found:
        names = [name for name, _ in found]
        values = with_parts(structures, names) if structures else number_structures(names, {})
        label = combine(
            _masks(found, reference, prefer, values), values, reference.shape, str(path)
        )
        if not label.any():
            logger.warning("%s: none of the structures is there", reference.source_id)
        return label, None
    raw = _placed(read_raw(path, LabelReadOptions(prefer=prefer)), reference)
    if _is_cropped(raw, reference, path):
        raw = replace(raw, array=on_grid(raw, reference, str(path)), affine=reference.affine)
    _check_grid(raw, reference, path)
    label = _as_classes(raw.array, path)
    marks = sorted(set(ignored) - set(label_map or {}))
    known = np.isin(label, marks, invert=True) if marks else None
    if label_map:
        label = _apply_map(label, label_map)
    if known is not None:
        label[~known] = 0
        count = label.size - int(np.count_nonzero(known))
        where = reference.source_id
        logger.info("%s: %d of %d voxels are labelled to be ignored", where, count, label.size)
    _check_values(label, path)
    return label, known


def check_structures(path: Path, wanted: Mapping[str, int]) -> None:
    """Refuse a label without any of the wanted structures.

    Raises:
        InputError: No structure has a wanted name.
    """
    names = [name for name, _ in find_structures(path)]
    if names and wanted and not set(with_parts(wanted, names)).intersection(names):
        shown = ", ".join(repr(name)[:60] for name in names[:5])
        known = ", ".join(repr(name)[:60] for name in list(wanted)[:5])
        raise InputError(
            f"{path}: its structures ({shown}) are none of the classes known here ({known}); say "
            f"which is which: --set structures='{names[0]:.60}:{next(iter(wanted.values()))}'"
        )


def find_structures(path: Path) -> list[tuple[str, Path | LabelObject]]:
    """Return the structures of a label by name, with their files; none for a plain label map."""
    if path.is_file():
        found = None if path.name.lower().endswith(ENDINGS) else label_object(path)
        return [] if found is None else [(name, found) for name in found.names]
    if not path.is_dir():
        return []
    files = sorted(each for each in path.iterdir() if not each.name.startswith("."))
    volumes = [each for each in files if each.name.lower().endswith(ENDINGS)]
    volumes = volumes or [each for each in files if each.name.lower().endswith(PICTURE_ENDINGS)]
    if volumes:
        return [(strip_ending(each.name), each) for each in volumes]
    objects = (label_object(each) for each in files_below(path))
    return [(name, found) for found in objects if found is not None for name in found.names]


def _masks(
    found: list[tuple[str, Path | LabelObject]],
    reference: Volume,
    prefer: str | None,
    wanted: Collection[str],
) -> Iterator[NamedMask]:
    seen: set[Path] = set()
    uid = reference.facts.series_uid
    beside = {each.path for _, each in found if isinstance(each, LabelObject)}
    for name, each in found:
        if isinstance(each, Path):
            if name in wanted:
                yield name, _structure_mask(each, reference, prefer)
            continue
        # Objects of a patient's other series may lie in the same folder.
        other = len(beside) > 1 and uid is not None and each.series and uid not in each.series
        if each.path not in seen and not other:
            seen.add(each.path)
            yield from object_masks(each, reference, wanted)


def _structure_mask(path: Path, reference: Volume, prefer: str | None) -> npt.NDArray[np.bool_]:
    raw = _placed(read_raw(path, LabelReadOptions(prefer=prefer)), reference)
    _check_grid(raw, reference, path)
    classes = _as_classes(raw.array, path)
    values = np.unique(classes)
    if len(values[values > 0]) > 1:
        raise InputError(
            f"{path}: {len(values[values > 0])} label values in the file of one structure; in a "
            "folder per case each file holds one structure, 0 and 1"
        )
    return np.asarray(classes > 0)


def _placed(raw: RawVolume, reference: Volume) -> RawVolume:
    """Return a mask picture on the grid of its picture, also where that is one slice of DICOM."""
    if raw.facts.format != PICTURE or reference.facts.format not in (PICTURE, "dicom"):
        return raw
    return raw if reference.shape[2] != 1 else replace(raw, affine=reference.affine)


def _is_cropped(raw: RawVolume, reference: Volume, path: Path) -> bool:
    """Return whether a label is a segmentation of 3D Slicer on a part of the image's grid."""
    if not path.name.lower().endswith(SEGMENTATION_ENDING) or raw.array.dtype.kind not in "iu":
        return False
    same = raw.array.shape == reference.shape
    if same and same_grid(reference.affine, raw.affine, reference.shape):
        return False
    return bool(segment_names(path, str(path)))


def _check_grid(raw: RawVolume, reference: Volume, path: Path) -> None:
    shape, wanted = raw.array.shape, reference.shape
    if shape == wanted and same_grid(reference.affine, raw.affine, wanted):
        return
    if shape != wanted:
        here, there = format_shape(shape), format_shape(wanted)
    else:
        here, there = format_affine(raw.affine), format_affine(reference.affine)
    what = "shape" if shape != wanted else "affine"
    raise InputError(
        f"{path}: the label lies on another grid than image {reference.source_id}: {what} {here} "
        f"against {there}; resample the label onto the image (nearest neighbour)"
    )


def _as_classes(array: npt.NDArray[Any], path: Path) -> npt.NDArray[np.int32]:
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError(f"{path}: the label holds NaN or infinity; expected whole numbers")
        whole = np.rint(array)
        off = np.abs(array - whole) > _WHOLE
        if off.any():
            raise InputError(
                f"{path}: the label holds {float(array[off].flat[0]):g}; expected whole numbers "
                "(was it resampled linearly, or saved with a scale factor? use nearest "
                "neighbour, and save whole numbers)"
            )
        array = whole
    lowest, highest = array.min(), array.max()
    if lowest < 0:
        raise InputError(f"{path}: the label holds {lowest:g}; expected 0 and positive classes")
    if highest > np.iinfo(np.uint16).max:
        raise InputError(f"{path}: the label holds {highest:g}; classes go up to 65535")
    return array.astype(np.int32)


def _apply_map(label: npt.NDArray[np.int32], mapping: dict[int, int]) -> npt.NDArray[np.int32]:
    mapped = label.copy()
    for stored, wanted in mapping.items():
        mapped[label == stored] = wanted
    return mapped


def _check_values(label: npt.NDArray[np.int32], path: Path) -> None:
    values = np.flatnonzero(np.bincount(label.ravel(order="K")))
    if values.tolist() in ([255], [0, 255]):
        raise InputError(
            f"{path}: a mask stored as 0 and 255; say that 255 is class 1: --set label_map=255:1"
        )
    if values.tolist() == [0]:
        logger.warning("%s: the label is empty", path.name)
