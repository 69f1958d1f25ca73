#!/bin/sh
# SimpleITK takes the frames of an enhanced CT as they are stored: where they are not in spatial order,
# slices are out of order and the spacing is 1, 1, 1, without a warning.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet SimpleITK==2.5.2 pydicom==3.0.2 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

ORDER = [3, 0, 4, 1, 2]  # the slice that each frame of the file holds
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
value.RescaleSlope, value.RescaleIntercept, value.RescaleType = 1, 0, "HU"
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

image = sitk.ReadImage("enhanced.dcm")
values = [int(v) for v in sitk.GetArrayFromImage(image)[:, 0, 0]]
spacing = image.GetSpacing()
print(f"SimpleITK {sitk.__version__}: {values}, spacing {spacing}, pydicom {pydicom.__version__}")
positions = [
    float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
    for frame in pydicom.dcmread("enhanced.dcm").PerFrameFunctionalGroupsSequence
]
by_position = [10 * ORDER[n] for n in np.argsort(positions)]
assert by_position == [0, 10, 20, 30, 40]
assert values == [30, 0, 40, 10, 20], "SimpleITK's order has changed"
assert spacing == (1.0, 1.0, 1.0), "SimpleITK's spacing has changed"
PYTHON
