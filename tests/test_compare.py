"""Comparison of evaluations and label maps of other tools, by values that are known."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tiny_scans import affine, save

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.workflows.compare import compare

SHAPE = (8, 8, 2)
CASES = ("a", "b", "c", "d", "e")


def cube(first: int, value: int = 1) -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[first : first + 4, 2:6] = value
    return label


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    for case in CASES:
        save(
            tmp_path / "labels" / f"{case}.nii.gz", cube(2) + cube(6, 2) * (cube(2) == 0), affine(0)
        )
    names = {"labels": {"background": 0, "liver": 1, "cyst": 2}}
    (tmp_path / "labels" / "dataset.json").write_text(json.dumps(names))
    return tmp_path / "labels"


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    """Label maps whose values are in another order, as their dataset.json says."""
    for number, case in enumerate(CASES):
        save(tmp_path / "nnunet" / f"{case}.nii.gz", cube(2 + (number > 2), 2), affine(0))
    names = {"labels": {"background": 0, "cyst": 1, "liver": 2}}
    (tmp_path / "nnunet" / "dataset.json").write_text(json.dumps(names))
    return tmp_path / "nnunet"


@pytest.fixture
def totalsegmentator(tmp_path: Path) -> Path:
    """A folder per case with a file per structure, one of them unknown to the reference."""
    for case in CASES[:4]:
        save(tmp_path / "total" / case / "liver.nii.gz", cube(3), affine(0))
        save(tmp_path / "total" / case / "spleen.nii.gz", cube(0), affine(0))
    return tmp_path / "total"


def test_label_maps_of_other_tools_are_matched_by_name(
    tmp_path, reference, nnunet, totalsegmentator, capsys
) -> None:
    document = compare([nnunet, totalsegmentator], tmp_path / "out", labels=reference)
    assert document["names"] == ["nnunet", "total"]
    rows = {(r["method"], r["case"], r["class"]): r["dice"] for r in document["cases"]}
    # Cubes of 4 moved by one of 4 overlap in 3: Dice 3/4. Case e is left out, and the cyst.
    assert {key for key in rows if key[0] == "total"} == {("total", c, "liver") for c in "abcd"}
    assert [rows["nnunet", c, "liver"] for c in "abcd"] == [1, 1, 1, 0.75]
    assert [rows["total", c, "liver"] for c in "abcd"] == [0.75] * 4
    paired = document["statistics"]["all"]["paired"]["total"]["dice"]
    assert paired["difference"] == pytest.approx(3 / 16)
    assert paired["wilcoxon_p"] == pytest.approx(stats.wilcoxon([0.25] * 3).pvalue)
    assert paired["rank_biserial"] == 1
    assert document["left_out"] == {"nnunet": 6, "total": 0}
    page = (tmp_path / "out" / "index.html").read_text()
    assert "rank-biserial" in page
    assert "label maps" in page
    command = ["compare", str(nnunet), str(totalsegmentator), "--labels", str(reference)]
    assert main([*command, "--out", str(tmp_path / "again")]) == 0
    assert "total" in capsys.readouterr().out


def test_an_evaluation_is_compared_with_label_maps(tmp_path, reference, nnunet) -> None:
    rows = [
        {"case": case, "class": "liver", "label": 1, "dice": 0.5 + n / 100, "volume_ml": 1.0,
         "reference_volume_ml": 1.0, "status": "ok"}
        for n, case in enumerate(CASES)
    ]  # fmt: skip
    (tmp_path / "test").mkdir()
    content = {"cases": rows, "patients": dict.fromkeys(CASES, 1), "prompts": {"regime": "slices"}}
    (tmp_path / "test" / "metrics.json").write_text(json.dumps(content))
    document = compare([tmp_path / "test", nnunet], tmp_path / "out", labels=reference)
    found = document["statistics"]["all"]["described"]["dice"]
    assert found["test"]["mean"] == pytest.approx(0.52)
    assert found["test"]["patients"] == 1
    assert found["nnunet"]["mean"] == pytest.approx(0.9)


def test_what_cannot_be_compared_is_refused(tmp_path, reference, nnunet) -> None:
    with pytest.raises(InputError, match="compare two or more"):
        compare([nnunet], tmp_path / "out", labels=reference)
    with pytest.raises(InputError, match="give --labels"):
        compare([nnunet, nnunet], tmp_path / "out")
    other = tmp_path / "other"
    save(other / "z.nii.gz", cube(0), affine(0))
    with pytest.raises(InputError, match="no case in common"):
        compare([nnunet, other], tmp_path / "out", labels=reference)
