"""Output files of one prediction: label maps, DICOM objects, measurements."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.base import LabelFacts
from samonai.domains.medical.formats.picture import write_overlay
from samonai.domains.medical.formats.write_label import default_ending, write_label
from samonai.domains.medical.intensity import Intensity, picture
from samonai.domains.medical.objects.measurements import (
    Measurement,
    all_segments,
    intensity_unit,
    measure,
    write_measurements,
)
from samonai.domains.medical.objects.segments import Segment, segments_of
from samonai.domains.medical.volume import Volume, format_shape

logger = logging.getLogger(__name__)

_LABEL_ENDINGS = {"nifti": ".nii.gz", "nrrd": ".seg.nrrd", "mha": ".mha", "png": ".png"}
_DICOM_ENDINGS = {"dicom-seg": ".seg.dcm", "rtstruct": ".rtstruct.dcm"}
_OVERLAY, _OVERLAY_ENDING = "overlay", ".overlay.png"
_REPORT_ENDING = ".sr.dcm"
FORMATS = (*_LABEL_ENDINGS, *_DICOM_ENDINGS, _OVERLAY)


def write_outputs(
    volume: Volume,
    label: npt.NDArray[np.integer],
    stem: Path,
    formats: Sequence[str] = (),
    with_measurements: bool = False,
    facts: LabelFacts | None = None,
    intensity: Intensity | None = None,
) -> list[Path]:
    """Write one prediction in every requested format.

    Args:
        volume: The volume of the label's grid.
        label: integer (I, J, K), class per voxel, 0 is background.
        stem: Path without an ending.
        formats: Of `FORMATS`; none: the format family of the input.
        with_measurements: Write measurements as JSON and CSV, and as a DICOM SR beside other DICOM.
        facts: Names of the classes, and the algorithm.
        intensity: Mapping to grey of the overlay's picture; None: the default.

    Returns:
        The files written. An empty label map gives no DICOM object, and the JSON reports this
        even without measurements.

    Raises:
        InputError: A format is unknown or cannot hold this label map.
    """
    check_formats(formats)
    facts = facts or LabelFacts()
    if label.shape != volume.shape:
        raise InputError(
            f"{stem.name}: label of {format_shape(label.shape)} voxels for a volume of "
            f"{format_shape(volume.shape)}; merge it on the volume's grid first"
        )
    segments = segments_of(label, facts.classes)
    prediction = _Prediction(volume, label, segments, facts, stem)
    dicom = [name for name in _DICOM_ENDINGS if name in formats]
    # First the formats that may be impossible.
    written = prediction.write_dicom(dicom, with_measurements)
    if with_measurements or (dicom and not segments):
        written += prediction.write_measurements([] if segments else dicom)
    endings = [ending for name, ending in _LABEL_ENDINGS.items() if name in formats]
    if _OVERLAY in formats:
        mapping = intensity or Intensity()
        shown = picture(volume, 2, 0, mapping, mapping.ranges(volume))
        written.append(write_overlay(shown, label, prediction.path(_OVERLAY_ENDING)))
    for ending in endings if formats else [default_ending(volume)]:
        path = stem.with_name(stem.name + ending)
        written.append(write_label(volume, label, path, segments))
    return written


def check_formats(formats: Sequence[str]) -> None:
    """Refuse an unknown format."""
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"format {name!r} is not known; use {', '.join(FORMATS)}")


@dataclass(frozen=True)
class _Prediction:
    """A label map with its metadata."""

    volume: Volume
    label: npt.NDArray[np.integer]
    segments: list[Segment]
    facts: LabelFacts
    stem: Path

    def write_dicom(self, formats: Sequence[str], measured: bool) -> list[Path]:
        """Write the DICOM objects, including the measurements' report, unless the map is empty."""
        # A report contains the patient's name, so it is written only with other DICOM objects.
        if not formats:
            return []
        # pydicom and highdicom are slow to import.
        from samonai.domains.medical.dicom.source_series import read_source
        from samonai.domains.medical.objects.rtstruct import write_rtstruct
        from samonai.domains.medical.objects.seg import write_dicom_seg
        from samonai.domains.medical.objects.sr import write_dicom_sr

        source = read_source(self.volume, formats[0])
        if not self.segments:
            logger.warning("%s: nothing was found, so no DICOM object is written", self.stem.name)
            return []
        label, segments, facts = self.label, self.segments, self.facts
        segmentation, written = None, []
        if "dicom-seg" in formats:
            path = self.path(_DICOM_ENDINGS["dicom-seg"])
            segmentation = write_dicom_seg(self.volume, label, segments, source, facts, path)
            written.append(path)
        if "rtstruct" in formats:
            written.append(self.path(_DICOM_ENDINGS["rtstruct"]))
            write_rtstruct(label, segments, source, facts, written[-1])
        if measured:
            found = list(zip(segments, self.measure(segments), strict=True))
            written.append(self.path(_REPORT_ENDING))
            unit = intensity_unit(self.volume)
            write_dicom_sr(label, found, unit, source, facts, written[-1], segmentation)
        return written

    def write_measurements(self, not_written: Sequence[str]) -> list[Path]:
        """Write the measurements, including those of classes that were not found."""
        wanted = all_segments(self.segments, self.facts.classes)
        measured = self.measure(wanted)
        return write_measurements(self.volume, measured, self.facts, self.stem, not_written)

    def measure(self, segments: Sequence[Segment]) -> list[Measurement]:
        """Measure some of the classes."""
        return measure(self.volume, self.label, segments)

    def path(self, ending: str) -> Path:
        """Return the path of an output."""
        return self.stem.with_name(self.stem.name + ending)
