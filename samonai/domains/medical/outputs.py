"""All that is written for one prediction: label maps, DICOM objects, measurements."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonai.domains.base import LabelFacts
from samonai.domains.medical.segments import Segment, segments_of
from samonai.domains.medical.volume import Volume, format_shape
from samonai.domains.medical.writer import default_ending, write_label
from samonai.errors import InputError

logger = logging.getLogger(__name__)

_LABEL_ENDINGS = {"nifti": ".nii.gz", "nrrd": ".seg.nrrd", "mha": ".mha"}
_DICOM_ENDINGS = {"dicom-seg": ".seg.dcm", "rtstruct": ".rtstruct.dcm"}
FORMATS = (*_LABEL_ENDINGS, *_DICOM_ENDINGS)


def write_outputs(
    volume: Volume,
    label: npt.NDArray[np.integer],
    stem: Path,
    formats: Sequence[str] = (),
    *,
    measure: bool = False,
    facts: LabelFacts | None = None,
) -> list[Path]:
    """Write one prediction in every format asked for.

    Args:
        volume: The volume whose grid the label lies on.
        label: integer (I, J, K), class per voxel, 0 is background.
        stem: Path without an ending.
        formats: Of `FORMATS`; none: the format family of the input.
        measure: Write measurements as JSON and CSV, and as a DICOM SR for DICOM input.
        facts: Names of the classes, and what made them.

    Returns:
        The files written; an empty label map gives no DICOM object.

    Raises:
        InputError: A format is not known or cannot hold this label map.
    """
    check_formats(formats)
    facts = facts or LabelFacts()
    if label.shape != volume.shape:
        raise InputError(
            f"{stem.name}: label of {format_shape(label.shape)} voxels for a volume of "
            f"{format_shape(volume.shape)}; merge it on the volume's grid first"
        )
    segments = segments_of(label, facts.classes)
    asked = [name for name in FORMATS if name in formats]
    # First what may turn out to be impossible.
    written = _write_dicom(volume, label, segments, stem, asked, facts)
    endings = [_LABEL_ENDINGS[name] for name in asked if name in _LABEL_ENDINGS]
    for ending in endings if formats else [default_ending(volume)]:
        path = stem.with_name(stem.name + ending)
        written.append(write_label(volume, label, path, segments))
    return written


def check_formats(formats: Sequence[str]) -> None:
    """Refuse a format that is not known."""
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"format {name!r} is not known; use {', '.join(FORMATS)}")


def _write_dicom(
    volume: Volume,
    label: npt.NDArray[np.integer],
    segments: list[Segment],
    stem: Path,
    asked: Sequence[str],
    facts: LabelFacts,
) -> list[Path]:
    wanted = [name for name in asked if name in _DICOM_ENDINGS]
    if not wanted:
        return []
    # pydicom and highdicom are slow to import.
    from samonai.domains.medical.dicom_seg import write_dicom_seg
    from samonai.domains.medical.dicom_source import read_source
    from samonai.domains.medical.rtstruct import write_rtstruct

    source = read_source(volume, wanted[0])
    if not segments:
        logger.warning("%s: nothing was found, so no %s is written", stem.name, wanted[0])
        return []
    paths = [stem.with_name(stem.name + _DICOM_ENDINGS[name]) for name in wanted]
    for name, path in zip(wanted, paths, strict=True):
        if name == "dicom-seg":
            write_dicom_seg(volume, label, segments, source, facts, path)
        else:
            write_rtstruct(label, segments, source, facts, path)
    return paths
