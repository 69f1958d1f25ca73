"""DICOM SR: measurements as a structured report by template TID 1500."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.domains.base import LabelFacts
from samonai.domains.medical.dicom.headers import quiet
from samonai.domains.medical.dicom.source_series import SourceSeries
from samonai.domains.medical.objects.measurements import Measurement
from samonai.domains.medical.objects.object_uids import ObjectUids
from samonai.domains.medical.objects.seg import MANUFACTURER, coded, equipment, tracking_id
from samonai.domains.medical.objects.segments import Segment
from samonai.version import __version__

_SERIES_OFFSET = 3
_MILLILITRE = Code("ml", "UCUM", "milliliter")
# Quantity and unit codes of intensities, by unit.
_INTENSITIES = {
    "HU": (codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit),
    "SUVbw": (
        codes.DCM.StandardizedUptakeValue,
        codes.UCUM.StandardizedUptakeValueBodyWeight,
    ),
    "BQML": (
        codes.DCM.NuclearMedicineTomographicActivity,
        codes.UCUM.BecquerelsPerMilliliter,
    ),
}
Intensity = tuple[Code, Code]
"""Quantity and unit of an intensity."""

_MR_INTENSITY = codes.DCM.MRSignalIntensity, codes.UCUM.NoUnits


def write_dicom_sr(
    label: npt.NDArray[np.integer],
    measured: Sequence[tuple[Segment, Measurement]],
    unit: str | None,
    source: SourceSeries,
    facts: LabelFacts,
    path: Path,
    segmentation: hd.seg.Segmentation | None = None,
) -> None:
    """Write a measurement report with a group per structure.

    Args:
        label: integer (I, J, K), class per voxel, 0 is background.
        measured: The measured structures, at least one, in the order of the segments.
        unit: Unit of the intensities; without one, only MR's are reported.
        source: The headers of the series measured on.
        facts: The algorithm of the label map.
        path: The file.
        segmentation: The DICOM-SEG of the same label map, whose segments the groups refer to;
            without it they refer to the slices.

    Raises:
        InputError: The series' headers cannot be copied into the report.
    """
    with quiet():
        intensity = _intensity(unit, source)
        uids = ObjectUids(label, [segment for segment, _ in measured], source, facts)
        groups = []
        for number, (segment, found) in enumerate(measured, start=1):
            given = segment, found, intensity, label, source, facts
            groups.append(
                _slices_group(*given, uids("segment", number))
                if segmentation is None
                else _segment_group(number, *given, segmentation)
            )
        evidence = [*source.datasets, *([] if segmentation is None else [segmentation])]
        try:
            report = hd.sr.Comprehensive3DSR(
                evidence=evidence,
                content=_report(groups, facts, uids("SR", "device")),
                series_instance_uid=uids("SR", "series"),
                series_number=source.series_number(_SERIES_OFFSET),
                sop_instance_uid=uids("SR", "instance"),
                instance_number=1,
                series_description="samonai measurements",
                is_complete=True,
                transfer_syntax_uid=ExplicitVRLittleEndian,
                **equipment(facts),
            )
        except (ValueError, TypeError, AttributeError) as error:
            # The error's text may quote the patient's elements.
            raise InputError(
                f"{path.name}: the series' headers cannot be carried over into a DICOM SR "
                f"({type(error).__name__}); measure a NIfTI of the scan"
            ) from None
        with write_atomically(path) as temporary:
            report.save_as(temporary)


def _report(groups: list[Any], facts: LabelFacts, device_uid: hd.UID) -> hd.sr.MeasurementReport:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid,
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=str(facts.algorithm.get("model", MANUFACTURER)),
    )
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=device
    )
    return hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=groups,
    )


def _segment_group(
    number: int,
    segment: Segment,
    measured: Measurement,
    intensity: Intensity | None,
    label: npt.NDArray[np.integer],
    source: SourceSeries,
    facts: LabelFacts,
    segmentation: hd.seg.Segmentation,
) -> Any:
    described = segmentation.SegmentSequence[number - 1]
    # Not `from_segmentation`, which does not support objects of a single segment.
    referenced = hd.sr.ReferencedSegment(
        segmentation.SOPClassUID,
        segmentation.SOPInstanceUID,
        number,
        source_images=[
            hd.sr.SourceImageForSegmentation(*_referenced(header, frame))
            for header, frame in _slices(segment, measured, label, source)
        ],
    )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(described.TrackingUID, described.TrackingID),
        referenced_segment=referenced,
        **_said(segment, measured, intensity, facts),
    )


def _slices_group(
    segment: Segment,
    measured: Measurement,
    intensity: Intensity | None,
    label: npt.NDArray[np.integer],
    source: SourceSeries,
    facts: LabelFacts,
    uid: hd.UID,
) -> Any:
    images = [
        hd.sr.SourceImageForMeasurementGroup(*_referenced(header, frame))
        for header, frame in _slices(segment, measured, label, source)
    ]
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid, tracking_id(segment, uid)),
        source_images=images,
        **_said(segment, measured, intensity, facts),
    )


def _referenced(header: Any, frame: int | None) -> tuple[str, str, list[int] | None]:
    return header.SOPClassUID, header.SOPInstanceUID, None if frame is None else [frame]


def _slices(
    segment: Segment,
    measured: Measurement,
    label: npt.NDArray[np.integer],
    source: SourceSeries,
) -> Iterator[tuple[Any, int | None]]:
    box = measured.box_voxels
    assert box is not None
    for k in range(box[2], box[5]):
        if np.equal(label[box[0] : box[3], box[1] : box[4], k], segment.value).any():
            yield source.numbers(k)


def _said(
    segment: Segment, measured: Measurement, intensity: Intensity | None, facts: LabelFacts
) -> dict[str, Any]:
    """Return the common arguments of both kinds of groups."""
    values: list[Any] = []
    if measured.volume_ml is not None:
        values.append((codes.SCT.Volume, measured.volume_ml, _MILLILITRE, None))
    if intensity is not None and measured.mean is not None and measured.sd is not None:
        name, unit = intensity
        values.append((name, measured.mean, unit, codes.SCT.Mean))
        values.append((name, measured.sd, unit, codes.SCT.StandardDeviation))
    side, kind = segment.code.side, coded(segment.code.type, segment.code.scheme)
    return {
        "finding_category": coded(segment.code.category),
        "finding_type": kind,
        "finding_sites": None
        if side is None
        else [
            hd.sr.FindingSite(coded(segment.code.type, segment.code.scheme), laterality=coded(side))
        ],
        "algorithm_id": hd.sr.AlgorithmIdentification(
            name=MANUFACTURER,
            version=__version__,
            parameters=[f"{key}={value}" for key, value in facts.algorithm.items()] or None,
        ),
        "measurements": [
            hd.sr.Measurement(name=what, value=value, unit=counted, derivation=derivation)
            for what, value, counted, derivation in values
        ],
    }


def _intensity(unit: str | None, source: SourceSeries) -> Intensity | None:
    if unit is not None and unit in _INTENSITIES:
        return _INTENSITIES[unit]
    return _MR_INTENSITY if source.modality == "MR" else None
