"""Predictions of one source never replace those of another that is called alike."""

import json
from pathlib import Path

import pytest
from dicom_factory import CANARY, stored_values, write_series
from dicom_outputs import completed
from tiny_scans import affine, ball, save

from samonai.core.errors import InputError
from samonai.core.pseudonyms import pseudonym
from samonai.domains.base import Case
from samonai.inference.output_ownership import OWNERSHIP_FILE, OutputOwnership
from samonai.workflows.run import predict


def boxes(folder: Path) -> Path:
    path = folder / "boxes.json"
    path.write_text(json.dumps({"boxes": [[2, 2, 0, 8, 9, 1]], "classes": [1]}))
    return path


@pytest.mark.parametrize("form", ["dicom", "nifti"])
def test_two_patients_scans_of_one_name(tmp_path: Path, form: str) -> None:
    inputs = []
    for number in (1, 2):
        folder = tmp_path / f"{CANARY}{number}"
        if form == "dicom":
            write_series(folder / "CT", stored_values((2, 12, 10), number), edit=completed)
            inputs.append(folder / "CT")
        else:
            save(folder / "scan.nii.gz", ball(number)[0][:, :, :2], affine(number))
            inputs.append(folder / "scan.nii.gz")
    out = tmp_path / "out"
    asked = boxes(tmp_path)
    (written,) = predict("micro", inputs[0], asked, out)
    case = pseudonym("CT") if form == "dicom" else "scan"
    assert written == out / f"{case}.nii.gz"
    before = written.read_bytes()
    for formats in ([], ["nrrd"]):
        with pytest.raises(InputError, match="another input of this name") as caught:
            predict("micro", inputs[1], asked, out, formats=formats)
        assert "\n" not in str(caught.value)
    assert written.read_bytes() == before
    assert {path.name for path in out.iterdir()} == {written.name, OWNERSHIP_FILE}
    # The same source again, with other prompts say, takes its own place.
    assert predict("micro", inputs[0], asked, out) == [written]
    assert CANARY not in (out / OWNERSHIP_FILE).read_text()


def test_a_file_that_no_prediction_wrote_stays(tmp_path: Path) -> None:
    save(tmp_path / "scan.nii.gz", ball(1)[0][:, :, :2], affine(1))
    before = (tmp_path / "scan.nii.gz").read_bytes()
    with pytest.raises(
        InputError, match=r"scan\.nii\.gz is there already, and no prediction wrote it"
    ):
        predict("micro", tmp_path / "scan.nii.gz", boxes(tmp_path), tmp_path)
    assert (tmp_path / "scan.nii.gz").read_bytes() == before


def test_names_that_begin_alike_and_lines_half_written(tmp_path: Path) -> None:
    long, short = Case("a.b", tmp_path / "x"), Case("a", tmp_path / "y")
    OutputOwnership(tmp_path).register(long)
    (tmp_path / "a.b.nii.gz").touch()
    with (tmp_path / OWNERSHIP_FILE).open("a") as file:
        file.write('{"case": "a", "sou')  # killed here
    OutputOwnership(tmp_path).register(short)
    (tmp_path / "a.nii.gz").touch()
    OutputOwnership(tmp_path).register(Case("a", tmp_path / "y"))
    with pytest.raises(InputError, match="choose another folder"):
        OutputOwnership(tmp_path).register(Case("a", tmp_path / "y", series="1.2"))
