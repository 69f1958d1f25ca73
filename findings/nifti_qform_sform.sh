#!/bin/sh
# Of two NIfTI geometries that differ, both with code 1, nibabel takes the sform, SimpleITK the qform.
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

image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4))
image.set_qform(np.diag([1, 1, 1, 1]), code=1)
image.set_sform(np.diag([2, 2, 2, 1]), code=1)
nib.save(image, "two.nii")

by_nibabel = [float(value) for value in nib.load("two.nii").affine.diagonal()[:3]]
by_itk = list(sitk.ReadImage("two.nii").GetSpacing())
print(f"nibabel {nib.__version__}: {by_nibabel}; SimpleITK {sitk.__version__}: {by_itk}")
assert by_nibabel == [2, 2, 2], "nibabel's behaviour has changed"
assert by_itk == [1, 1, 1], "SimpleITK's behaviour has changed"
PYTHON
