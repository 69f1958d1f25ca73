"""The main job through the command line, on scans of three slices."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_scans import SHAPE, affine, ball, write_scans

from samonai.cli import main
from samonai.sam.decoder_metadata import read_decoder_metadata

SETTINGS = ("--epochs", "4", "--seed", "3", "--set", "learning_rate=0.001", "--set", "batch_size=2")


def samonai(*argv: object) -> None:
    assert main([str(part) for part in argv]) == 0


class Job:
    """Scans, a split, and one finished run on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images, self.labels = write_scans(folder)
        self.split = folder / "split.json"
        self.split.write_text('{"train": ["case_a", "case_b"], "val": ["case_c"]}')
        self.store = folder / "store"
        self.run = folder / "run"

    def training(self, out: Path) -> list[str]:
        data = ("--images", self.images, "--labels", self.labels, "--split", self.split)
        argv = ("train", "medical", *data, "--out", out, "--store", self.store, *SETTINGS)
        return [str(part) for part in argv]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job(tmp_path_factory.mktemp("job"))
    samonai(*job.training(job.run))
    return job


def test_training_leaves_a_decoder_and_what_led_to_it(job: Job) -> None:
    metadata = read_decoder_metadata(job.run / "decoder.safetensors")
    assert metadata.training["train_cases"] == ["case_a", "case_b"]
    assert metadata.training["val_cases"] == ["case_c"]
    assert metadata.training["learning_rate"] == 0.001
    assert metadata.training["epochs_done"] == 4
    history = json.loads((job.run / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    settings = json.loads((job.run / "run.json").read_text())["settings"]
    assert settings["epochs"] == 4
    assert settings["batch_size"] == 2
    assert (job.run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert not (job.run / ".lock").exists()


def test_a_run_has_its_split_command_and_environment_in_readable_files(job: Job) -> None:
    split = json.loads((job.run / "split.json").read_text())
    assert split == {"train": ["case_a", "case_b"], "val": ["case_c"]}
    command = (job.run / "command.txt").read_text()
    assert command.startswith("samonai train medical --images IMAGES --labels LABELS --out RUN")
    assert "--set learning_rate=0.001" in command
    assert "--epochs 4" in command
    found = json.loads((job.run / "environment.json").read_text())
    assert {"torch", "monai"} <= set(found["packages"])
    assert found["device"]


def test_a_report_has_methods_with_the_facts_and_nothing_identifying(job: Job, tmp_path) -> None:
    test = tmp_path / "test"
    data = ("--images", job.images, "--labels", job.labels, "--cases", "all", "--out", test)
    samonai("evaluate", "medical", "--run", job.run, *data, "--no-report")
    samonai("report", job.run, "--evaluation", test, "--out", tmp_path / "report")
    text = (tmp_path / "report" / "methods.md").read_text()
    assert "2 cases were trained on and 1 held out" in text
    assert "a box around each object of each slice, drawn from the reference masks" in text
    assert "2 of the cases had been trained on" in text
    assert "95 % by bootstrap over patients" in text
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Reference standard" in page
    for hidden in (str(job.folder), "case_a", "case_b"):
        assert hidden not in text


def test_a_run_names_no_folder_of_the_data(job: Job) -> None:
    written = [path for path in job.run.iterdir() if path.suffix in (".json", ".csv", ".txt")]
    assert written
    for path in (*written, job.run / "decoder.safetensors"):
        assert str(job.images).encode() not in path.read_bytes()


def test_a_complete_run_is_not_trained_again(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    before = (job.run / "decoder.safetensors").stat().st_mtime_ns
    samonai(*job.training(job.run))
    assert (job.run / "decoder.safetensors").stat().st_mtime_ns == before
    assert "after epoch" in capsys.readouterr().out


def test_other_settings_on_a_run_are_refused_by_name(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*job.training(job.run), "--set", "weight_decay=0.5", "--epochs", "5"]
    assert main(argv) == 2
    line = capsys.readouterr().err
    assert "(epochs, weight_decay)" in line
    assert "--overwrite" in line


def test_evaluating_measures_the_held_out_case_beside_its_baselines(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--images", job.images, "--labels", job.labels)
    samonai("evaluate", "medical", "--run", job.run, *data, "--out", tmp_path / "measured")
    metrics = json.loads((tmp_path / "measured" / "metrics.json").read_text())
    assert [row["case"] for row in metrics["cases"]] == ["case_c"]
    assert set(metrics["summary"]["dice"]) == {"finetuned", "zero_shot", "box"}
    assert metrics["prompts"]["regime"] == "slices"
    assert 0.6 < metrics["summary"]["dice"]["box"] < 0.95
    assert (tmp_path / "measured" / "metrics.csv").is_file()
    assert (tmp_path / "measured" / "index.html").is_file()
    out = capsys.readouterr().out
    assert "surface Dice" in out
    assert "before fine-tuning" in out


def test_evaluating_with_other_prompts_and_cases(job: Job, tmp_path: Path) -> None:
    given = ("--images", job.images, "--labels", job.labels, "--no-report", "--cases", "case_c")
    argv = ("evaluate", "medical", "--run", job.run, *given, "--prompts", "volume")
    samonai(*argv, "--box-jitter", "0", "--out", tmp_path / "measured")
    metrics = json.loads((tmp_path / "measured" / "metrics.json").read_text())
    assert metrics["prompts"]["regime"] == "volume"
    assert metrics["prompts"]["box_jitter"] == 0
    assert not (tmp_path / "measured" / "index.html").exists()


def test_predicting_writes_a_mask_on_the_scans_grid(job: Job, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"boxes": [[4, 3, 0, 20, 17, 2]], "classes": [7]}')
    given = ("--input", job.images / "case_c.nii.gz", "--boxes", boxes, "--out", tmp_path / "masks")
    samonai("predict", "medical", "--run", job.run, *given)
    mask = nib.load(tmp_path / "masks" / "case_c.nii.gz")
    labels = np.asanyarray(mask.dataobj)
    assert labels.shape == SHAPE
    assert np.array_equal(mask.affine, affine(2))
    assert set(np.unique(labels)) <= {0, 7}
    assert not labels[:, :, 2].any()


def test_predicting_with_a_model_as_it_is_in_another_format(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"boxes": [[4, 3, 1, 20, 17, 2]]}')
    given = ("--input", job.images / "case_a.nii.gz", "--boxes", boxes, "--ending", ".mha")
    samonai("predict", "medical", "--model", "micro", *given, "--out", tmp_path)
    assert capsys.readouterr().out.strip() == str(tmp_path / "case_a.mha")


def test_embedding_skips_what_training_has_stored(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--images", job.images, "--labels", job.labels, "--store", job.store)
    samonai("embed", "medical", *data)
    assert "0 frames encoded, 9 already stored" in capsys.readouterr().out


def test_exporting_writes_what_upstream_loads(job: Job, tmp_path: Path) -> None:
    samonai("export", "--run", job.run, "--out", tmp_path / "sam.safetensors")
    exported = load_file(tmp_path / "sam.safetensors")
    trained = load_file(job.run / "decoder.safetensors")
    assert any(name.startswith("image_encoder.") for name in exported)
    same = [name for name in trained if name in exported]
    assert any(name.startswith("mask_decoder.") for name in same)
    assert all(np.array_equal(exported[name], trained[name]) for name in same)


def test_killed_and_started_again_it_ends_with_the_same_weights(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    code = "import sys; from samonai.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *job.training(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (out / "last.pt").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "decoder.safetensors").exists()
    samonai(*job.training(out))
    uninterrupted, resumed = (
        load_file(folder / "decoder.safetensors") for folder in (job.run, out)
    )
    assert uninterrupted.keys() == resumed.keys()
    for name, tensor in uninterrupted.items():
        assert np.array_equal(tensor, resumed[name]), name


def test_labels_are_balls() -> None:
    assert all(ball(seed)[1].any(axis=(0, 1)).all() for seed in range(3))


@pytest.mark.parametrize("verb", ["predict", "evaluate", "rank", "calibrate"])
def test_a_run_on_other_data_is_refused(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    images = "--input" if verb == "predict" else "--images"
    argv = [verb, "satellite", "--run", str(job.run), images, str(job.images)]
    out = [] if verb == "calibrate" else ["--out", str(tmp_path / "out")]
    assert main([*argv, *out]) == 2
    assert "is a run on medical data, not on satellite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_half_deleted_is_gone_on_with_or_named(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(job.run, copy)
    (copy / "history.json").unlink()
    samonai(*job.training(copy))
    (copy / "learning_curve.png").unlink()
    assert main(job.training(copy)) == 2
    assert "history.json cannot be read" in capsys.readouterr().err
    (copy / "decoder.safetensors").unlink()
    (copy / "model.pt").write_bytes(b"cut")
    assert main(job.training(copy)) == 2
    assert "model.pt or history.json is missing or damaged" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["evaluate", "calibrate"])
def test_a_jitter_that_turns_boxes_over_is_refused(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    data = ("--images", job.images, "--labels", job.labels, "--box-jitter", "-1")
    out = [] if verb == "calibrate" else ["--out", tmp_path / "measured"]
    argv = (verb, "medical", "--run", job.run, *data, *out)
    assert main([str(part) for part in argv]) == 2
    assert "jitter=-1: expected 0 or more and below 0.5 of the box" in capsys.readouterr().err
    assert not (tmp_path / "measured").exists()


def test_a_hash_beside_a_run_is_refused(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--input", job.images / "case_a.nii.gz", "--boxes", job.labels, "--sha256", "abc")
    argv = ("predict", "medical", "--run", job.run, *given, "--out", tmp_path / "masks")
    assert main([str(part) for part in argv]) == 2
    assert "which a run has itself" in capsys.readouterr().err
