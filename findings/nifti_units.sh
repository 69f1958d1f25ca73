#!/bin/sh
# SimpleITK applies the unit of NIfTI's xyzt_units to the spacing; nibabel's affine does not.
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

image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([50, 50, 50, 1]))
image.header.set_xyzt_units("micron")
nib.save(image, "microscope.nii")

by_nibabel = [float(value) for value in nib.load("microscope.nii").affine.diagonal()[:3]]
by_itk = [round(value, 6) for value in sitk.ReadImage("microscope.nii").GetSpacing()]
print(f"nibabel {nib.__version__}: {by_nibabel}; SimpleITK {sitk.__version__}: {by_itk}")
assert by_nibabel == [50, 50, 50], "nibabel's behaviour has changed"
assert by_itk == [0.05, 0.05, 0.05], "SimpleITK's behaviour has changed"
PYTHON
