"""Active learning: ranking by uncertainty, without the runs' own cases, with reasons."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tiny_scans import SHAPE, affine, save, write_scans

import samonai
from samonai.cli import main
from samonai.core.errors import InputError
from samonai.domains.base import Case
from samonai.domains.medical import MedicalDomain
from samonai.inference.prediction import Prediction
from samonai.selection import rank
from samonai.selection.rank import SCORES, _ranked


@pytest.fixture(scope="module")
def folder(two_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three scans that both runs know, and two that they do not: a ball, and noise alone."""
    folder = tmp_path_factory.mktemp("rank")
    shutil.copytree(two_runs / "images", folder / "images")
    images, boxes = folder / "images", folder / "boxes"
    shutil.copy(images / "case_a.nii.gz", images / "ball.nii.gz")
    noise = np.random.default_rng(0).normal(0, 10, SHAPE).astype(np.int16)
    save(images / "noise.nii.gz", noise, affine(0))
    boxes.mkdir()
    for case in ("ball", "noise"):
        text = json.dumps({"boxes": [[4, 3, 0, 20, 17, 3]], "classes": [1]})
        (boxes / f"{case}.json").write_text(text)
    return folder


def test_cases_are_ranked_by_each_score(
    two_runs: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ranking.csv"
    given = ["--images", str(folder / "images"), "--boxes", str(folder / "boxes")]
    runs = ["--run", str(two_runs / "runs"), "--store", str(folder / "store")]
    figures = []
    for score in SCORES:
        argv = ["rank", "medical", *runs, *given, "--out", str(out), "--score", score]
        assert main(argv) == 0
        rows = list(csv.DictReader(out.read_text().splitlines()))
        # What the runs were trained and validated on is left out.
        assert sorted(row["case"] for row in rows) == ["ball", "noise"]
        assert [row["rank"] for row in rows] == ["1", "2"]
        assert float(rows[0]["score"]) > float(rows[1]["score"]) > 0
        assert all(row["score"] == row[score] for row in rows)
        figures.append({row["case"]: [row[name] for name in SCORES] for row in rows})
    # Whatever they are ranked by, the figures are the same.
    assert figures[0] == figures[1] == figures[2]
    assert "the mean entropy is" in capsys.readouterr().out


def test_slices_are_ranked_each_by_itself(two_runs: Path, folder: Path, tmp_path: Path) -> None:
    ranked = rank(
        samonai.Run(two_runs / "runs" / "seed0"),
        folder / "images",
        tmp_path / "ranking.csv",
        boxes=folder / "boxes",
        by="slice",
        store=folder / "store",
    )
    assert sorted((one.case, one.slice) for one in ranked) == [
        (case, index) for case in ("ball", "noise") for index in range(3)
    ]
    scores = [one.score for one in ranked]
    assert scores == sorted(scores, reverse=True)
    # One run: nothing to disagree with, so its own estimate counts.
    assert all(one.score == one.figures["iou"] for one in ranked)
    assert all(one.figures["disagreement"] is None for one in ranked)
    assert all("predicts IoU" in one.reason for one in ranked)


def test_the_reason_names_the_least_sure_structure() -> None:
    structures = {
        "liver": {"agreement": 0.9, "predicted_iou": 0.8, "uncertainty": 0.1, "voxels": 10},
        "spleen": {"agreement": 0.5, "predicted_iou": None, "uncertainty": 0.3, "voxels": 4},
    }
    found = _ranked("case", 3, structures, "disagreement")
    assert found.score == pytest.approx(0.3)
    assert found.figures == pytest.approx({"disagreement": 0.3, "iou": 0.2, "uncertainty": 0.2})
    assert found.reason == "spleen: the runs agree at Dice 0.50"
    assert found.voxels == 14
    unknown = dict.fromkeys(("agreement", "predicted_iou", "uncertainty"))
    nothing = {"liver": {**unknown, "voxels": 0}}
    assert _ranked("case", None, nothing, "uncertainty").score == 0
    assert _ranked("case", None, nothing, "uncertainty").reason == "nothing is predicted"


def test_what_cannot_be_ranked(two_runs: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "ranking.csv"
    run = samonai.Run(two_runs / "runs" / "seed0")
    images, boxes = folder / "images", folder / "boxes"
    for changes, message in (
        ({"score": "disagreement"}, "give --run twice"),
        ({"score": "chance"}, "score 'chance' is not known"),
        ({"by": "pixel"}, "ranking is by case or slice"),
        ({"boxes": None}, "no semantic head, so it needs prompts"),
        ({"boxes": None, "score": "iou"}, "estimates no IoU"),
    ):
        with pytest.raises(InputError, match=message):
            rank(run, images, out, **{"boxes": boxes, **changes})
    known, _ = write_scans(tmp_path)
    with pytest.raises(InputError, match=r"all 3 cases in .* are part of the runs' own data"):
        rank(run, known, out, boxes=boxes)
    assert not out.exists()


SETTINGS = {"spread": "propagate", "propagation.margin": 0.2, "cleaning.keep_largest": True}


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Prediction]:
    """A list that grows by each prediction that a session makes."""
    seen: list[Prediction] = []
    decode = samonai.Session.decode

    def decoding(self: samonai.Session, *args: Any, **options: Any) -> Prediction:
        seen.append(decode(self, *args, **options))
        return seen[-1]

    monkeypatch.setattr(samonai.Session, "decode", decoding)
    return seen


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[Path | str]:
    """A list that grows by the images' folder for each time that cases are listed."""
    seen: list[Path | str] = []
    find = MedicalDomain.find_cases

    def finding(self: MedicalDomain, images: Path | str, *args: Any) -> list[Case]:
        seen.append(images)
        return find(self, images, *args)

    monkeypatch.setattr(MedicalDomain, "find_cases", finding)
    return seen


def predicted(run: Path, image: Path, boxes: Any, out: Path, **settings: Any) -> np.ndarray:
    """Return the label map that `samonai.predict` writes."""
    (path,) = samonai.predict(run, image, boxes, out, progress=False, **settings)
    return np.asanyarray(nib.load(path).dataobj)


def test_rank_and_calibrate_judge_what_predict_gives(
    two_runs: Path,
    folder: Path,
    tmp_path: Path,
    judged: list[Prediction],
    listings: list[Path | str],
) -> None:
    """The same settings on the command line and in Python; a box on one slice is propagated."""
    run, images = tmp_path / "run", folder / "images"
    shutil.copytree(two_runs / "runs" / "seed0", run)
    set_ = [f"--set={key}={json.dumps(value).strip(chr(34))}" for key, value in SETTINGS.items()]
    of_run = ["--run", str(run)]
    boxes = {"cases": {case: {"boxes": [[4, 3, 1, 20, 17, 2]]} for case in ("ball", "noise")}}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    given = ["--boxes", str(tmp_path / "boxes.json"), "--out", str(tmp_path / "ranking.csv")]
    assert main(["rank", "medical", *of_run, "--images", str(images), *given, *set_]) == 0
    assert listings == [images]
    ranked = {one.case.case_id: one.label for one in judged}
    assert ranked.keys() == {"ball", "noise"}
    box = boxes["cases"]["ball"]["boxes"]
    ball = predicted(run, images / "ball.nii.gz", box, tmp_path / "ball", **SETTINGS)
    assert np.array_equal(ranked["ball"], ball)
    plain = predicted(run, images / "ball.nii.gz", box, tmp_path / "plain")
    assert np.count_nonzero(plain) != np.count_nonzero(ball), "the settings change the prediction"

    judged.clear()
    listings.clear()
    known = ["--images", str(two_runs / "images"), "--labels", str(two_runs / "labels")]
    exact = ["--prompts", "volume", "--box-jitter", "0"]
    assert main(["calibrate", "medical", *of_run, *known, *exact, *set_]) == 0
    (calibrated,) = judged
    assert listings == [two_runs / "images"]
    label = np.asanyarray(nib.load(two_runs / "labels" / "case_c.nii.gz").dataobj)
    inside = np.argwhere(label)
    case_box = [[*inside.min(0).tolist(), *(inside.max(0) + 1).tolist()]]
    case = predicted(run, images / "case_c.nii.gz", case_box, tmp_path / "case", **SETTINGS)
    assert case.any()
    assert np.array_equal(calibrated.label, case)
    assert samonai.Run(run).metadata.calibration["settings"] == SETTINGS
