#!/bin/sh
# pydicom's apply_rescale gives stored values of an enhanced CT, whose slope and intercept are in its
# functional groups, without a warning.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet pydicom==3.0.2 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_rescale
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

ORDER = [0, 1, 2]  # the slice that each frame of the file holds
d = Dataset()
d.file_meta = FileMetaDataset()
d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID = EnhancedCTImageStorage
d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID = generate_uid()
d.StudyInstanceUID, d.SeriesInstanceUID = generate_uid(), generate_uid()
d.FrameOfReferenceUID = generate_uid()
d.Modality, d.PatientID, d.PatientName = "CT", "generated", "generated"
d.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
d.NumberOfFrames, d.Rows, d.Columns = len(ORDER), 3, 4
d.BitsAllocated = d.BitsStored = 16
d.HighBit, d.PixelRepresentation, d.SamplesPerPixel = 15, 1, 1
d.PhotometricInterpretation = "MONOCHROME2"
shared, measures, plane, value = Dataset(), Dataset(), Dataset(), Dataset()
measures.PixelSpacing, measures.SliceThickness = [0.8, 0.7], 2.5
plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
value.RescaleSlope, value.RescaleIntercept, value.RescaleType = 2, -1024, "HU"
shared.PixelMeasuresSequence = [measures]
shared.PlaneOrientationSequence = [plane]
shared.PixelValueTransformationSequence = [value]
d.SharedFunctionalGroupsSequence = [shared]
d.PerFrameFunctionalGroupsSequence = []
for k in ORDER:
    frame, position, content = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = [0, 0, 2.5 * k]
    content.StackID, content.InStackPositionNumber = "1", k + 1
    frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
    d.PerFrameFunctionalGroupsSequence.append(frame)
stored = np.stack([np.full((3, 4), 10 * k, "<i2") for k in ORDER])
d.PixelData = stored.tobytes()
d.save_as("enhanced.dcm", enforce_file_format=True)

read = pydicom.dcmread("enhanced.dcm")
found = apply_rescale(read.pixel_array, read)[:, 0, 0].tolist()
group = read.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
right = (stored * float(group.RescaleSlope) + float(group.RescaleIntercept))[:, 0, 0].tolist()
print(f"pydicom {pydicom.__version__}: {found}; by the file's slope and intercept {right}")
assert right == [-1024, -1004, -984]
assert found == [0, 10, 20], "pydicom's behaviour has changed"
PYTHON
