"""The demo, on patients small enough for a test."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.core.pseudonyms import pseudonym
from samonai.domains.medical import read_volume
from samonai.workflows.demo import run_demo, structure_boxes


def test_boxes_are_around_each_part_of_each_structure() -> None:
    label = np.zeros((12, 10, 6), int)
    label[1:4, 2:5, 0:3] = 2
    label[8:12, 6:10, 3:6] = 2
    label[5, 5, 5] = 2
    label[0:3, 6:9, 1:5] = 1
    names = {1: "a", 2: "b", 3: "c"}
    assert structure_boxes(label, names, thickness=6, smallest=2) == {
        "boxes": [[0, 6, 1, 3, 9, 5], [1, 2, 0, 4, 5, 3], [8, 6, 3, 12, 10, 6]],
        "classes": [1, 2, 2],
    }
    redrawn = structure_boxes(label, {1: "a"}, thickness=2, smallest=2)
    assert redrawn["boxes"] == [[0, 6, 1, 3, 9, 2], [0, 6, 2, 3, 9, 4], [0, 6, 4, 3, 9, 5]]


def test_too_few_patients(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 5 patients"):
        run_demo(tmp_path / "out", patients=4)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("keep me")
    with pytest.raises(InputError, match=r"other things than a demo \(such as thesis.txt\)"):
        run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_the_demo_leaves_a_folder_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def small(out: Path, **options: object) -> object:
        return run_demo(out, patients=5, shape=(40, 40, 3), epochs=1, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("samonai.workflows.demo.run_demo", small)
    out = tmp_path / "out"
    assert main(["demo", "--out", str(out)]) == 0
    printed, told = capsys.readouterr()
    assert printed.splitlines()[-1] == f"Look at {out / 'index.html'}"
    assert "before fine-tuning" in printed
    assert "4/4" in told
    metrics = json.loads((out / "metrics.json").read_text())
    assert {row["case"] for row in metrics["cases"]} == {"phantom_005"}
    assert set(metrics["per_class"]) == {"liver", "spleen", "kidneys", "aorta"}
    for name in ("metrics.csv", "learning_curve.png", "evaluation/pictures/phantom_005.png"):
        assert (out / name).stat().st_size > 0
    page = (out / "index.html").read_text()
    assert "data:image/png;base64" in page
    assert "http" not in page.replace("http-equiv", "")
    for case, scan in (
        ("phantom_005", out / "data" / "imagesTr" / "phantom_005.nii.gz"),
        (pseudonym("phantom_006"), out / "data" / "dicom" / "phantom_006"),
    ):
        mask, volume = nib.load(out / "masks" / f"{case}.nii.gz"), read_volume(scan)
        assert mask.shape == volume.shape
        assert np.allclose(mask.affine, volume.affine, atol=1e-4)
        assert (out / "overlays" / f"{case}.png").is_file()
