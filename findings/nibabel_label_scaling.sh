#!/bin/sh
# nibabel stores a label map of floats as uint8 with a slope of 2/255: label 1 is read as 0.996, and
# is 0 as a whole number.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet SimpleITK==2.5.2 nibabel==5.3.2 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import nibabel as nib
import numpy as np
import SimpleITK as sitk

label = np.zeros((4, 4, 4))
label[1], label[2] = 1, 2
image = nib.Nifti1Image(label, np.eye(4))
image.set_data_dtype(np.uint8)
nib.save(image, "label.nii.gz")

read = nib.load("label.nii.gz")
values = np.unique(read.get_fdata())
whole = np.unique(read.get_fdata().astype(int)).tolist()
theirs = np.unique(sitk.GetArrayFromImage(sitk.ReadImage("label.nii.gz")))
print(f"nibabel {nib.__version__}: {values}, as whole numbers {whole}; SimpleITK {sitk.__version__}: {theirs}")
assert 0.99 < values[1] < 0.999, "nibabel's scaling has changed"
assert whole == [0, 2], "nibabel's scaling has changed"
assert 0.99 < theirs[1] < 0.999, "SimpleITK's reading has changed"
PYTHON
