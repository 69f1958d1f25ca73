"""Medical scans: NIfTI, NRRD, MetaImage and DICOM series, cut into slices along any axis."""

from samonai.domains.medical.domain import MedicalDomain
from samonai.domains.medical.formats.read_volume import read_volume
from samonai.domains.medical.formats.write_label import write_label
from samonai.domains.medical.labels.read_labels import read_label
from samonai.domains.medical.volume import Volume

__all__ = ["MedicalDomain", "Volume", "read_label", "read_volume", "write_label"]
