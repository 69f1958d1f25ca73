"""Source series of a volume: the DICOM headers that written objects refer to.

Headers are read again for writing and not kept, so that a volume in memory holds no text of
a patient.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from samonai.core.errors import InputError
from samonai.domains.medical.dicom.headers import Header, quiet, read_header
from samonai.domains.medical.dicom.slices import Slice, slices_of
from samonai.domains.medical.volume import Volume

# Type 2 elements of the patient and study modules, which must exist and may be empty.
_MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
# Copied if present: the rest of both modules and of the patient study module.
_CARRIED = (
    "IssuerOfPatientID", "OtherPatientIDs", "PatientComments", "EthnicGroup", "PatientBirthTime",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "QualityControlSubject", "StudyDescription", "ProcedureCodeSequence", "PatientAge",
    "PatientSize", "PatientWeight", "AdditionalPatientHistory",
    "LongitudinalTemporalInformationModified",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID",
)  # fmt: skip
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_SEXES = ("", "M", "F", "O")
_DATE, _TIME = re.compile(r"\d{8}"), re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
_LAST_SERIES_NUMBER = 2**31 - 1


@dataclass(frozen=True)
class SourceSeries:
    """A series' headers, for references.

    Attributes:
        slices: The slices of the volume with their own positions, sorted along k.
        datasets: One header without pixels per file, sorted along k, with all required patient and
            study elements.
    """

    slices: tuple[Slice, ...]
    datasets: tuple[Dataset, ...]

    @property
    def first(self) -> Dataset:
        """Return the header for patient, study and frame of reference."""
        return self.datasets[0]

    @property
    def modality(self) -> str:
        """Return the series' modality."""
        return str(self.first.get("Modality") or "OT")

    def series_number(self, offset: int) -> int:
        """Return a number for a series that is derived from this one."""
        number = str(self.first.get("SeriesNumber") or 0)
        derived = abs(int(number)) * 100 + offset if number.lstrip("+-").isdecimal() else offset
        return derived if derived <= _LAST_SERIES_NUMBER else offset

    def numbers(self, k: int) -> tuple[Dataset, int | None]:
        """Return the header of slice k, and its frame number from 1 in a multi-frame file."""
        each = self.slices[k]
        return each.header.dataset, None if each.frame is None else each.frame + 1


def read_source(volume: Volume, what: str) -> SourceSeries:
    """Read the headers of a volume's series.

    Args:
        volume: A volume that was read from DICOM.
        what: Kind of the object to write, for messages.

    Raises:
        InputError: The volume is not from DICOM, the files are gone, or the series lacks an element
            that references need.
    """
    if volume.facts.planar or not volume.facts.slices:
        kind = volume.facts.format
        if kind == "dicom":
            kind = "of pictures" if volume.facts.planar else "filled or interpolated between slices"
        raise InputError(
            f"{volume.source_id}: {what} refers to the slices of a DICOM series, and this volume "
            f"is {kind}; write nifti, nrrd or mha"
        )
    with quiet():
        headers = {path: _header(path) for path in {each.path for each in volume.facts.slices}}
        found = {path: slices_of(header) for path, header in headers.items()}
        slices = tuple(found[each.path][each.frame or 0] for each in volume.facts.slices)
        ordered = list(dict.fromkeys(each.path for each in volume.facts.slices))
        datasets = tuple(headers[path].dataset for path in ordered)
        for path, dataset in zip(ordered, datasets, strict=True):
            _check_identity(dataset, path, what)
            _complete(dataset)
        if datasets[0].get("FrameOfReferenceUID") in (None, ""):
            raise InputError(
                f"{ordered[0].parent.name or ordered[0].name}: the series has no "
                f"FrameOfReferenceUID, which {what} needs; write nifti, nrrd or mha"
            )
        _share_geometry(slices, datasets, volume.spacing[2])
        return SourceSeries(slices, datasets)


def copy_patient_and_study(source: Dataset, target: Dataset) -> None:
    """Copy the elements of patient and study."""
    for keyword in ("SpecificCharacterSet", "StudyInstanceUID", *_MAY_BE_EMPTY, *_CARRIED):
        if keyword in source:
            target[keyword] = source[keyword]


def _header(path: Path) -> Header:
    try:
        header = read_header(path)
    except OSError:
        header = None
    if header is None:
        raise InputError(f"{path}: cannot be read again, though the volume was read from it")
    return header


def _check_identity(dataset: Dataset, path: Path, what: str) -> None:
    for keyword in _IDENTITY:
        value = str(dataset.get(keyword) or "")
        if not value or not UID(value).is_valid:
            raise InputError(
                f"{path}: no valid {keyword}, so {what} cannot refer to it; write nifti, nrrd or "
                f"mha, or export the series with its identifiers"
            )


def _complete(dataset: Dataset) -> None:
    """Complete the patient and study elements that every object must have."""
    for keyword in _MAY_BE_EMPTY:
        if keyword not in dataset or dataset[keyword].value is None:
            setattr(dataset, keyword, "")
    if str(dataset.PatientSex) not in _SEXES:
        dataset.PatientSex = "O"
    for keyword, form in (("PatientBirthDate", _DATE), ("StudyDate", _DATE), ("StudyTime", _TIME)):
        if not form.fullmatch(str(dataset[keyword].value).strip()):
            setattr(dataset, keyword, "")
    if "Modality" not in dataset:
        dataset.Modality = "OT"
    # An empty value is common, means the same as an absent one, and is not an enumerated value.
    if not dataset.get("SpecificCharacterSet", "ISO_IR 6"):
        del dataset.SpecificCharacterSet


def _share_geometry(
    slices: Sequence[Slice], datasets: Iterable[Dataset], spacing_between: float
) -> None:
    """Set one orientation, spacing and thickness in all headers.

    Differences by rounding are common, and so is a missing thickness.
    """
    first = slices[0]
    cosines = [_decimal(value) for value in first.orientation]
    spacing = [_decimal(value) for value in first.spacing]
    for dataset in datasets:
        if "PerFrameFunctionalGroupsSequence" not in dataset:
            dataset.ImageOrientationPatient, dataset.PixelSpacing = cosines, spacing
            dataset.SliceThickness = dataset.get("SliceThickness") or _decimal(spacing_between)
            continue
        if not dataset.get("SharedFunctionalGroupsSequence"):
            dataset.SharedFunctionalGroupsSequence = [Dataset()]
        shared = dataset.SharedFunctionalGroupsSequence[0]
        orientation, measures = Dataset(), Dataset()
        orientation.ImageOrientationPatient, measures.PixelSpacing = cosines, spacing
        shared.PlaneOrientationSequence = [orientation]
        said = (shared.get("PixelMeasuresSequence") or [Dataset()])[0].get("SliceThickness")
        measures.SliceThickness = said or _decimal(spacing_between)
        shared.PixelMeasuresSequence = [measures]


def _decimal(value: Any) -> str:
    return str(pydicom.valuerep.format_number_as_ds(float(value)))
