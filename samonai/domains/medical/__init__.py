"""Medical scans: NIfTI, NRRD, MetaImage and DICOM series, cut into slices along any axis."""

from samonai.domains.medical.domain import MedicalDomain
from samonai.domains.medical.labels import read_label
from samonai.domains.medical.reader import read_volume
from samonai.domains.medical.volume import Volume
from samonai.domains.medical.writer import write_label

__all__ = ["MedicalDomain", "Volume", "read_label", "read_volume", "write_label"]
