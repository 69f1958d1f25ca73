#!/bin/sh
# imageio's DICOM plugin reads 128 to 255 as negative in slices without values above 255 or below 0,
# where RescaleSlope is 1 and RescaleIntercept 0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet imageio==2.37.0 pydicom==3.0.2 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import imageio
import imageio.v2
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

STORED = [100, 200, 300]
study, series, frame = generate_uid(), generate_uid(), generate_uid()
for k, value in enumerate(STORED):
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID = CTImageStorage
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID = generate_uid()
    d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = study, series, frame
    d.Modality, d.PatientID, d.PatientName = "CT", "generated", "generated"
    d.InstanceNumber, d.SliceThickness, d.PixelSpacing = k + 1, 2, [1, 1]
    d.ImagePositionPatient, d.ImageOrientationPatient = [0, 0, 2 * k], [1, 0, 0, 0, 1, 0]
    d.Rows = d.Columns = 4
    d.BitsAllocated = d.BitsStored = 16
    d.HighBit, d.PixelRepresentation, d.SamplesPerPixel = 15, 1, 1
    d.PhotometricInterpretation, d.RescaleSlope, d.RescaleIntercept = "MONOCHROME2", 1, 0
    d.PixelData = np.full((4, 4), value, "<i2").tobytes()
    d.save_as(f"{k}.dcm", enforce_file_format=True)

expected = [int(pydicom.dcmread(f"{k}.dcm").pixel_array[0, 0]) for k in range(3)]
read = [int(imageio.v2.imread(f"{k}.dcm", format="DICOM")[0, 0]) for k in range(3)]
print(f"imageio {imageio.__version__}: {read}; pydicom {pydicom.__version__}: {expected}")
assert expected == STORED
assert read == [100, -56, 300], "imageio's behaviour has changed"
PYTHON
