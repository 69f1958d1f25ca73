"""Hospitals' data through the command line: archives, formats, gaps, and names kept apart."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from archive_factory import WAYS, write_boxes, write_study
from dicom_factory import stored_values, write_series
from dicom_outputs import completed
from tiny_scans import affine, ball, save

from samonai.cli import main
from samonai.core.pseudonyms import pseudonym
from samonai.workflows.archive.archive import MANIFEST_FILE


def told(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """Run a command; return its exit code, what it printed, and what it complained of."""
    capsys.readouterr()
    code = main([str(part) for part in argv])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    code, out, err = told(capsys, *argv)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err


def finished(out: Path) -> dict[str, str]:
    """Return how each case ended; none may end twice."""
    lines = [json.loads(line) for line in (out / MANIFEST_FILE).read_text("utf-8").splitlines()]
    ends = [line for line in lines if "case" in line and line["state"] != "started"]
    assert len({line["case"] for line in ends}) == len(ends)
    return {line["case"]: line["state"] for line in ends}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three studies: whole, one slice missing, pixels cut short."""
    folder = tmp_path / "archive"
    for number, name in enumerate(("whole", "gap", "torn")):
        write_study(folder / name, number)
    WAYS["slice_missing"](folder / "gap")
    WAYS["pixels_cut"](folder / "torn")
    return folder


def predicting(archive: Path, out: Path, *more: object) -> list[object]:
    boxes = write_boxes(archive.parent / "boxes.csv", ["whole__CT", "gap__CT", "torn__CT"])
    given = ("--model", "micro", "--input", archive, "--archive", "--boxes", boxes, "--out", out)
    return ["predict", "medical", *given, *more]


def test_an_archive_is_predicted_in_several_formats(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, known = tmp_path / "out", tmp_path / "known.csv"
    whole, gap, torn = map(pseudonym, ("whole__CT", "gap__CT", "torn__CT"))
    argv = predicting(
        archive, out, "--format", "dicom-seg", "--format", "nifti", "--measure", "--readers", 1
    )
    code, text, _ = told(capsys, *argv, "--dry-run")
    assert code == 0
    assert {line.split()[-1] for line in text.splitlines() if "to do" in line} >= {whole, gap, torn}
    assert not out.exists()
    code, text, _ = told(capsys, *argv, "--case-map", known)
    assert code == 1
    assert "3 cases: 1 done, 2 failed, 0 skipped" in text
    assert f"failed   {gap}: " in text
    assert "1 of 5 slices missing" in text
    assert "--allow-gaps" in text
    assert finished(out) == {whole: "done", gap: "failed", torn: "failed"}
    seg = hd.seg.segread(out / f"{whole}.seg.dcm")
    assert np.asanyarray(nib.load(out / f"{whole}.nii.gz").dataobj).shape == (10, 12, 3)
    assert seg.number_of_segments == 1
    assert (out / f"{whole}.sr.dcm").is_file()
    assert not list(out.glob(f"{gap}*"))
    rows = known.read_text("utf-8").splitlines()
    assert rows[0] == "case,name"
    assert sorted(rows[1:]) == sorted(
        f"{pseudonym(name)},{name}" for name in ("whole__CT", "gap__CT", "torn__CT")
    )
    assert told(capsys, *argv)[1] == text  # nothing is left, and the same is said
    assert "other settings (formats" in refused(capsys, *argv, "--format", "rtstruct")


def test_gaps_are_masked_when_allowed(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code, text, _ = told(capsys, *predicting(archive, out, "--allow-gaps", "--limit", 2))
    left = json.loads((out / MANIFEST_FILE).read_text("utf-8").splitlines()[0])
    assert "1 to do" in text
    assert left
    code, text, _ = told(capsys, *predicting(archive, out, "--allow-gaps"))
    assert code == 1
    assert "2 done, 1 failed" in text
    gap = pseudonym("gap__CT")
    assert finished(out)[gap] == "done"
    label = np.asanyarray(nib.load(out / f"{gap}.nii.gz").dataobj)
    assert label.shape == (10, 12, 5)
    assert not label[:, :, 2].any()
    # What was read with gaps cannot be an object of the series.
    other = tmp_path / "objects"
    told(capsys, *predicting(archive, other, "--allow-gaps", "--format", "dicom-seg"))
    assert finished(other)[gap] == "failed"


def test_formats_of_one_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "scan", stored_values((3, 12, 10)), edit=completed)
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"boxes": [[2, 2, 0, 8, 9, 3]], "classes": [2]}')
    given = ("predict", "medical", "--model", "micro", "--input", tmp_path / "scan")
    formats = ("nifti", "nrrd", "mha", "dicom-seg", "rtstruct")
    asked = [part for name in formats for part in ("--format", name)]
    code, text, err = told(capsys, *given, "--boxes", boxes, "--out", tmp_path / "out", *asked)
    assert code == 0, err
    case = pseudonym("scan")
    endings = (".mha", ".nii.gz", ".rtstruct.dcm", ".seg.dcm", ".seg.nrrd")
    written = sorted(tmp_path / "out" / f"{case}{ending}" for ending in endings)
    assert text.split() == [str(path) for path in written]
    assert all(path.is_file() for path in written)
    nowhere = ("--boxes", boxes, "--out", tmp_path / "nowhere")
    assert "dicom-seg" in refused(capsys, *given, *nowhere, "--format", "dicomseg")
    both = (*nowhere, "--format", "nifti", "--ending", ".mha")
    assert "give formats alone" in refused(capsys, *given, *both)
    save(tmp_path / "scan.nii.gz", ball(0)[0], affine(0))
    plain = (*given[:-1], tmp_path / "scan.nii.gz", *nowhere, "--format", "dicom-seg")
    assert "DICOM" in refused(capsys, *plain)
    assert not (tmp_path / "nowhere").exists()


def test_archive_options_used_wrongly(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embedding = ("embed", "medical", "--images", archive, "--store", tmp_path / "store")
    assert "--out for the manifest" in refused(capsys, *embedding, "--archive")
    assert "go with --archive" in refused(capsys, *embedding, "--limit", 2)
    argv = predicting(archive, tmp_path / "out")
    argv.remove("--archive")
    assert "go with --archive" in refused(capsys, *argv, "--retry-failed")
    assert "go with --archive" in refused(capsys, *argv, "--readers", 3)
    assert "readers=0" in refused(capsys, *predicting(archive, tmp_path / "out", "--readers", 0))
    nowhere = predicting(archive, tmp_path / "out")
    nowhere[nowhere.index("--input") + 1] = tmp_path / "nowhere"
    assert "nowhere" in refused(capsys, *nowhere)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "store").exists()


def test_dicom_options_used_wrongly(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = predicting(archive, tmp_path / "out")
    assert "give it as --allow-gaps" in refused(capsys, *argv, "--set", "allow_gaps=true")
    assert "give it as --case-map" in refused(capsys, *argv, "--set", "case_map=map.csv")
    of_pages = ["predict", "documents", *argv[2:]]
    assert "--allow-gaps is for DICOM" in refused(capsys, *of_pages, "--allow-gaps")
    assert "--planes is for volumes" in refused(capsys, *of_pages, "--planes", 3)
    assert "planes=2: use one of 1, 3" in refused(capsys, *argv, "--planes", 2)
    # No study is at fault.
    assert "propagation.iou=2: expected 0 or more and at most 1" in refused(
        capsys, *argv, "--propagate", "--set", "propagation.iou=2"
    )
    assert "give it as --planes" in refused(capsys, *argv, "--set", "planes=3")
    (tmp_path / "thesis.csv").write_text("no, map\n1, 2\n")
    assert "not a map of cases" in refused(capsys, *argv, "--case-map", tmp_path / "thesis.csv")
    assert (tmp_path / "thesis.csv").read_text() == "no, map\n1, 2\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["train", "evaluate", "embed", "predict", "sweep", "curve"])
def test_every_verb_that_reads_scans_has_the_options(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "--help-all"]) == 0
    text = capsys.readouterr().out
    assert "--allow-gaps" in text
    assert "--case-map" in text


def test_training_and_evaluating_with_gaps_and_a_map(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("one", "two")):
        folder = tmp_path / "images" / name
        write_series(folder, stored_values((5, 12, 10), number), edit=completed, skip=(2,))
        label = np.zeros((10, 12, 5), np.uint8)
        label[2:8, 3:9, 1:4] = 1
        lps = np.diag([0.7, 0.8, 2.5, 1.0])
        lps[:3, 3] = -10, 20, -30
        save(tmp_path / "labels" / f"{name}.nii.gz", label, np.diag([-1.0, -1, 1, 1]) @ lps)
    data = ("--images", tmp_path / "images", "--labels", tmp_path / "labels")
    split = tmp_path / "split.json"
    split.write_text('{"train": ["one"], "val": ["two"]}')
    run = ("--out", tmp_path / "run", "--split", split, "--model", "micro")
    training = ("train", "medical", *data, *run)
    assert "1 of 5 slices missing" in refused(capsys, *training, "--epochs", 1)
    known = tmp_path / "known.csv"
    asked = ("--epochs", 1, "--allow-gaps", "--case-map", known)
    code, _, err = told(capsys, *training, *asked)
    assert code == 0, err
    assert f"{pseudonym('two')},two" in known.read_text("utf-8")
    # The run knows that gaps are allowed.
    measuring = ("evaluate", "medical", "--run", tmp_path / "run", *data, "--no-report")
    code, _, err = told(capsys, *measuring, "--out", tmp_path / "measured", "--allow-gaps")
    assert code == 0, err
    metrics = json.loads((tmp_path / "measured" / "metrics.json").read_text())
    assert [row["case"] for row in metrics["cases"]] == [pseudonym("two")]


@pytest.mark.long
def test_embedding_an_archive_survives_kill_9(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [f"p{number}" for number in range(6)]
    for number, case in enumerate(cases):
        image, _ = ball(number)
        save(tmp_path / "in" / f"{case}.nii.gz", image[:, :, :2], affine(number))
    out, store = tmp_path / "out", tmp_path / "store"
    given = ("embed", "medical", "--images", tmp_path / "in", "--store", store)
    argv = [str(part) for part in (*given, "--archive", "--out", out)]
    code = "import sys; from samonai.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    began = time.monotonic()
    while not (out / MANIFEST_FILE).exists() or not finished_so_far(out):
        assert process.poll() is None
        assert time.monotonic() - began < 900
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = finished_so_far(out)
    assert 0 < len(before) < len(cases)
    state, text, _ = told(capsys, *argv)
    assert state == 0
    assert "6 cases: 6 done, 0 failed, 0 skipped" in text
    assert finished(out) == dict.fromkeys(cases, "done")
    # Every frame is in the store, whole: nothing is left to encode.
    assert told(capsys, *given)[1] == f"{store}: 0 frames encoded, 12 already stored\n"


def finished_so_far(out: Path) -> list[str]:
    """Return the cases done, of a manifest whose last line may be half written."""
    found: list[Any] = []
    for line in (out / MANIFEST_FILE).read_bytes().splitlines(keepends=True)[1:]:
        if line.endswith(b"\n"):
            found.append(json.loads(line))
    return [line["case"] for line in found if line["state"] == "done"]
