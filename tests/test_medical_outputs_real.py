"""Standard objects written on real series, and read back by other programs."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_outputs import errors_of, tool

from samonai.domains.base import LabelFacts
from samonai.domains.medical import read_label, read_volume
from samonai.domains.medical.outputs import write_outputs

SERIES = {
    "CT": ("ibsi-sts/dicom/STS_008/CT/image", "ibsi-sts/dicom/STS_008/CT/mask"),
    "PET": ("ibsi-sts/dicom/STS_019/PET/image", "ibsi-sts/dicom/STS_019/PET/mask"),
    "sagittal MR": (
        "tcia-breast-nact/UCSF-BR-06/image_dce_pe1",
        "tcia-breast-nact/UCSF-BR-06/mask",
    ),
}


@pytest.mark.parametrize("name", SERIES)
def test_a_real_label_survives_every_format(tmp_path: Path, shared_data: Path, name: str) -> None:
    images, labels = (shared_data / "medical" / part for part in SERIES[name])
    volume = read_volume(images)
    label = read_label(labels, volume)
    assert label.any()
    facts = LabelFacts({1: "gtv_mass"}, {"model": "micro"})
    formats = ["nifti", "nrrd", "mha", "dicom-seg", "rtstruct"]
    written = write_outputs(
        volume, label, tmp_path / "x", formats, with_measurements=True, facts=facts
    )
    for path in written:
        if path.name.endswith((".seg.dcm", ".rtstruct.dcm", ".nii.gz", ".nrrd", ".mha")):
            assert np.array_equal(read_label(path, volume), label), path.name
    objects = [path for path in written if path.suffix == ".dcm"]
    assert len(objects) == 3
    # What is wrong with the series' own study elements is carried over with them.
    source = next(path for path in sorted(images.rglob("*")) if path.is_file())
    inherited = set(errors_of(tool("dciodvfy"), source))
    for path in objects:
        assert set(errors_of(tool("dciodvfy"), path)) - inherited == set(), path.name


def test_plastimatch_finds_a_real_tumour_again(tmp_path: Path, shared_data: Path) -> None:
    program = tool("plastimatch")
    images, labels = (shared_data / "medical" / part for part in SERIES["CT"])
    volume = read_volume(images)
    label = read_label(labels, volume)
    path, nifti = write_outputs(volume, label, tmp_path / "x", ["rtstruct", "nifti"])
    found = tmp_path / "found.nrrd"
    command = [program, "convert", "--input", path, "--referenced-ct", images]
    subprocess.run([*command, "--output-labelmap", found], check=True, capture_output=True)
    there = sitk.GetArrayFromImage(sitk.ReadImage(found))
    assert np.array_equal(there > 0, sitk.GetArrayFromImage(sitk.ReadImage(nifti)) > 0)
    assert int((there > 0).sum()) == int((label > 0).sum()) > 5000
