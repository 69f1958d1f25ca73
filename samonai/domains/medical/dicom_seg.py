"""Write a label map as a DICOM Segmentation that refers to the series it was drawn on."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from samonai import __version__
from samonai.domains.base import LabelFacts
from samonai.domains.medical.dicom_files import quiet
from samonai.domains.medical.dicom_source import SourceSeries
from samonai.domains.medical.itk import LPS_TO_RAS
from samonai.domains.medical.segments import Segment
from samonai.domains.medical.volume import Volume, is_sheared
from samonai.errors import InputError
from samonai.files import write_atomically

logger = logging.getLogger(__name__)

MANUFACTURER = "samonai"
_SERIES_OFFSET = 1
_LONGEST_TEXT = 64  # of DICOM's LO
_FEWEST_PIXELS = 8  # highdicom 0.28 packs the bits of smaller frames wrongly
# array axes (i, j, k) lie as (columns, rows, slices); highdicom's are (slices, rows, columns)
_TO_SLICES_FIRST = [2, 1, 0, 3]


def write_dicom_seg(
    volume: Volume,
    label: npt.NDArray[np.integer],
    segments: Sequence[Segment],
    source: SourceSeries,
    facts: LabelFacts,
    path: Path,
) -> hd.seg.Segmentation:
    """Write a BINARY segmentation with one segment per class.

    Args:
        volume: The volume whose grid the label lies on.
        label: integer (I, J, K), class per voxel, 0 is background.
        segments: The classes present in it, at least one; segment n is `segments[n - 1]`.
        source: The headers of the volume's series.
        facts: Which algorithm made it.
        path: Where to write.

    Returns:
        What was written, for reports that refer to it.

    Raises:
        InputError: The grid is sheared and not the slices' own, its slices are tiny, or the
            series' headers cannot be carried over.
    """
    if label.shape[0] * label.shape[1] < _FEWEST_PIXELS:
        raise InputError(
            f"{path.name}: slices of fewer than {_FEWEST_PIXELS} pixels cannot be written as "
            f"DICOM-SEG; write nifti, nrrd or mha"
        )
    with quiet():
        segmentation = _segmentation(volume, label, segments, source, facts, path)
        with write_atomically(path) as temporary:
            segmentation.save_as(temporary)
    return segmentation


def algorithm_identification(facts: LabelFacts) -> hd.AlgorithmIdentificationSequence:
    """Return what says which algorithm, version and weights made a label map."""
    return hd.AlgorithmIdentificationSequence(
        name=MANUFACTURER,
        family=_code("DCM", "123109", "Artificial Intelligence"),
        version=__version__,
        source=MANUFACTURER,
        parameters={key: str(value) for key, value in facts.algorithm.items()} or None,
    )


def coded(pair: tuple[str, str]) -> Code:
    """Return a SNOMED CT code and its meaning as DICOM has them."""
    return _code("SCT", *pair)


def tracking_id(segment: Segment, uid: str) -> str:
    """Return a text that tells this segment from all others of its name."""
    return f"{segment.name[: _LONGEST_TEXT - 9]} {uid[-8:]}"


def equipment(facts: LabelFacts) -> dict[str, Any]:
    """Return highdicom's arguments that say what made an object."""
    weights = facts.algorithm.get("decoder_sha256") or facts.algorithm.get("encoder_sha256")
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": str(facts.algorithm.get("model", MANUFACTURER))[:_LONGEST_TEXT],
        "software_versions": __version__,
        "device_serial_number": str(weights or __version__)[:_LONGEST_TEXT],
    }


def _segmentation(
    volume: Volume,
    label: npt.NDArray[np.integer],
    segments: Sequence[Segment],
    source: SourceSeries,
    facts: LabelFacts,
    path: Path,
) -> hd.seg.Segmentation:
    array, first = _numbered(label, segments)
    pixels, images = _placed(volume, array, first, source, path)
    try:
        return hd.seg.Segmentation(
            source_images=images,
            pixel_array=pixels,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(segments, facts),
            series_instance_uid=hd.UID(),
            series_number=source.series_number(_SERIES_OFFSET),
            sop_instance_uid=hd.UID(),
            instance_number=1,
            series_description="samonai segmentation",
            content_label="SAMONAI",
            content_description="Predicted label map",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **equipment(facts),
        )
    except (ValueError, TypeError, AttributeError) as error:
        # Its text may quote the patient's elements.
        logger.debug("highdicom: %s", type(error).__name__)
        raise InputError(
            f"{path.name}: the series' headers cannot be carried over into a DICOM-SEG "
            f"({type(error).__name__}); write nifti, nrrd or mha"
        ) from None


def _numbered(
    label: npt.NDArray[np.integer], segments: Sequence[Segment]
) -> tuple[npt.NDArray[np.unsignedinteger[Any]], int]:
    """Return the slices that hold something, slices first, classes numbered from 1 as segments.

    Only those are copied: a whole series would be held several times over.
    """
    filled = np.flatnonzero(label.any(axis=(0, 1)))
    first, last = int(filled[0]), int(filled[-1])
    kind = np.uint8 if len(segments) <= np.iinfo(np.uint8).max else np.uint16
    number = np.zeros(max(segment.value for segment in segments) + 1, kind)
    for position, segment in enumerate(segments, start=1):
        number[segment.value] = position
    return number[label[:, :, first : last + 1].transpose(2, 1, 0)], first


def _placed(
    volume: Volume,
    array: npt.NDArray[np.unsignedinteger[Any]],
    first: int,
    source: SourceSeries,
    path: Path,
) -> tuple[Any, list[Any]]:
    """Return the pixels with their place, and the images that they refer to."""
    if not is_sheared(volume.affine):
        affine = (LPS_TO_RAS @ volume.affine)[:, _TO_SLICES_FIRST]
        affine[:3, 3] += affine[:3, 0] * first
        placed = hd.Volume(
            array,
            affine,
            coordinate_system="PATIENT",
            frame_of_reference_uid=source.first.FrameOfReferenceUID,
        )
        return placed, list(source.datasets)
    if len(source.datasets) != volume.shape[2]:
        raise InputError(f"{path.name}: the grid is sheared, which this DICOM-SEG cannot say")
    # Leaning slices: each frame lies where its own image does.
    return array, list(source.datasets[first : first + len(array)])


def _descriptions(
    segments: Sequence[Segment], facts: LabelFacts
) -> list[hd.seg.SegmentDescription]:
    identification = algorithm_identification(facts)
    descriptions = []
    for number, segment in enumerate(segments, start=1):
        uid = hd.UID()
        description = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=segment.name[:_LONGEST_TEXT],
            segmented_property_category=coded(segment.code.category),
            segmented_property_type=coded(segment.code.type),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=identification,
            tracking_uid=uid,
            tracking_id=tracking_id(segment, uid),
            display_color=hd.color.CIELabColor.from_rgb(*segment.colour),
        )
        if segment.code.side is not None:
            kind = description.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = [
                hd.sr.CodedConcept.from_code(coded(segment.code.side))
            ]
        descriptions.append(description)
    return descriptions


def _code(scheme: str, value: str, meaning: str) -> Code:
    return Code(value, scheme, meaning)
