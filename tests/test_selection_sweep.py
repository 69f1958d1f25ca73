"""The search for settings: what is proposed, what a stopped sweep goes on with, what is written."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny_scans import write_scans

from samonai.core.errors import InputError
from samonai.selection import sweep
from samonai.selection.job import Job
from samonai.selection.sweep import RANGES

pytest.importorskip("optuna")

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork


class Landscape:
    """Stands in for training: the Dice is highest at a learning rate of 1e-3."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.stop_at: int | None = None
        self.diverges_above = math.inf

    def train(self, job: Job, name: str, learning_rate: float) -> dict[str, Any]:
        self.calls.append(name)
        (job.out / name).mkdir(exist_ok=True)
        (job.out / name / "run.json").write_text("{}")
        if self.stop_at == len(self.calls):
            raise KeyboardInterrupt
        if learning_rate > self.diverges_above:
            raise InputError("the loss is not a number any more")
        dice = 1 - abs(math.log10(learning_rate) + 3) / 4
        return {"summary": {"dice": {"finetuned": dice}}}


@pytest.fixture
def landscape(monkeypatch: pytest.MonkeyPatch) -> Landscape:
    made = Landscape()

    def train(job: Job, name: str, split: Any, *, seed: int, **changes: Any) -> dict[str, Any]:
        return made.train(job, name, changes["learning_rate"])

    monkeypatch.setattr(Job, "train", train)
    monkeypatch.setattr(Job, "evaluate", lambda job, run, cases: run)
    return made


def settings_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [trial["settings"] for trial in document["trials"]]


def test_a_sweep_stays_in_its_ranges_and_finds_the_hill(
    landscape: Landscape, tmp_path: Path
) -> None:
    images, labels = write_scans(tmp_path)
    found = sweep("micro", images, labels, out=tmp_path / "out", trials=16, batch_size=2)
    document = found.document
    on_disk = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert len(on_disk.pop("sha256")) == 64
    assert on_disk == {"format_version": 1, **document}
    assert len(document["trials"]) == 16
    # What the caller sets is not searched.
    assert set(document["ranges"]) == set(RANGES) - {"batch_size"}
    for settings in settings_of(document):
        assert 1e-5 <= settings["learning_rate"] <= 3e-3
        assert 0 <= settings["sampler.box_jitter"] <= 0.15
        assert settings["loss_recipe"] in RANGES["loss_recipe"]["choices"]
    assert document["best"]["dice"] == max(trial["dice"] for trial in document["trials"])
    # Ten are drawn, then the estimator goes where it was good.
    dice = [trial["dice"] for trial in document["trials"]]
    assert sum(dice[10:]) / 6 > sum(dice[:10]) / 10


def test_a_stopped_sweep_ends_as_an_uninterrupted_one(landscape: Landscape, tmp_path: Path) -> None:
    images, labels = write_scans(tmp_path)
    whole = sweep("micro", images, labels, out=tmp_path / "whole", trials=5, seed=3)
    landscape.calls, landscape.stop_at = [], 3
    with pytest.raises(KeyboardInterrupt):
        sweep("micro", images, labels, out=tmp_path / "stopped", trials=5, seed=3)
    landscape.stop_at = None
    again = sweep("micro", images, labels, out=tmp_path / "stopped", trials=5, seed=3)
    # The third is the one that was running.
    assert landscape.calls == ["trial001", "trial002", "trial003", *again_from(3, 5)]
    assert again.document["trials"] == whole.document["trials"]
    more = sweep("micro", images, labels, out=tmp_path / "stopped", trials=6, seed=3)
    assert more.document["trials"][:5] == whole.document["trials"]
    assert len(more.document["trials"]) == 6
    chosen = {"sampler": {"box_jitter": 0.1}}
    with pytest.raises(InputError, match=r"made with other settings \(job, ranges\)"):
        sweep("micro", images, labels, out=tmp_path / "stopped", seed=3, **chosen)


def again_from(first: int, last: int) -> list[str]:
    return [f"trial{number:03d}" for number in range(first, last + 1)]


def test_a_trial_that_fails_is_told_and_passed_over(
    landscape: Landscape, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, labels = write_scans(tmp_path)
    landscape.diverges_above = 1e-3
    document = sweep("micro", images, labels, out=tmp_path / "out", trials=8, seed=2).document
    failed = [trial for trial in document["trials"] if trial["state"] == "fail"]
    assert failed
    assert all(trial["settings"]["learning_rate"] > 1e-3 for trial in failed)
    assert sum(trial["state"] == "complete" for trial in document["trials"]) == 8
    assert "the loss is not a number" in caplog.text
    landscape.diverges_above = 0
    with pytest.raises(InputError, match="the loss is not a number"):
        sweep("micro", images, labels, out=tmp_path / "hopeless", trials=8)


def test_a_sweep_of_real_runs(tiny_network: "SamNetwork", tmp_path: Path) -> None:
    images, labels = write_scans(tmp_path)
    found = sweep(tiny_network, images, labels, out=tmp_path / "out", trials=2, epochs=1)
    assert found.document["frames"]["encoded"] == 9
    for trial in found.document["trials"]:
        folder = tmp_path / "out" / trial["run"]
        run = json.loads((folder / "run.json").read_text())
        assert run["settings"] == {**run["settings"], **trial["settings"]}
        measured = json.loads((folder / "evaluation" / "metrics.json").read_text())
        assert trial["dice"] == measured["summary"]["dice"]["finetuned"]


def test_without_optuna_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'samonai\[sweep\]'"):
        sweep("micro", tmp_path, tmp_path, out=tmp_path / "out")
