"""Folds and seeds: who is held out when, one store for all, and what is left on disk."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_scans import write_scans

import samonai
from samonai.cli import main
from samonai.core.errors import InputError
from samonai.embeddings import EmbeddingStore
from samonai.sam.network import SamNetwork
from samonai.selection import repeat_seeds
from samonai.selection.members import spread
from samonai.training.data.folds import fold_splits, grouped_split, read_groups
from samonai.workflows.run import open_runs

NAMES = [f"case_{letter}" for letter in "abcdefg"]
PATIENTS = {name: f"patient_{min(number, 3)}" for number, name in enumerate(NAMES)}


def test_every_case_is_held_out_once() -> None:
    splits = fold_splits(NAMES, 3, seed=1)
    assert sorted(name for split in splits for name in split["val"]) == NAMES
    for split in splits:
        assert sorted(split["train"] + split["val"]) == NAMES
        assert len(split["val"]) in (2, 3)
    assert splits == fold_splits(NAMES[::-1], 3, seed=1)
    assert splits != fold_splits(NAMES, 3, seed=2)


def test_cases_of_one_patient_stay_in_one_fold() -> None:
    splits = fold_splits(NAMES, 2, PATIENTS, seed=0)
    for split in splits:
        train, val = ({PATIENTS[name] for name in split[part]} for part in ("train", "val"))
        assert not train & val
    # The patient with four cases alone, the other three together.
    assert sorted(len(split["val"]) for split in splits) == [3, 4]


def test_a_share_is_held_out_by_patient() -> None:
    for seed in range(5):
        split = grouped_split(NAMES, 0.3, PATIENTS, seed)
        train, val = ({PATIENTS[name] for name in split[part]} for part in ("train", "val"))
        assert train
        assert val
        assert not train & val


@pytest.mark.parametrize(
    ("folds", "groups", "message"),
    [
        (8, None, "8 folds of 7 cases"),
        (5, PATIENTS, "5 folds of 4 groups"),
        (2, {"case_a": "x"}, "6 of 7 cases are in no group, such as 'case_b'"),
    ],
)
def test_folds_that_cannot_be_made(folds: int, groups: dict[str, str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fold_splits(NAMES, folds, groups)


def test_groups_are_read_either_way_round(tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    path.write_text('{"x": ["case_a", "case_b"], "y": ["case_c"]}')
    by_patient = read_groups(path)
    path.write_text('{"case_a": "x", "case_b": "x", "case_c": "y"}')
    assert read_groups(path) == by_patient == {"case_a": "x", "case_b": "x", "case_c": "y"}
    for text, message in (
        ("[1]", "must read"),
        ("{", "not JSON"),
        ('{"x": ["case_a"], "y": ["case_a"]}', "'case_a' into two groups"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_groups(path)


def test_the_spread_of_a_sample() -> None:
    assert spread([0.5, None, 0.7]) == pytest.approx(
        {"n": 2, "mean": 0.6, "sd": 0.02**0.5, "min": 0.5, "max": 0.7}
    )
    assert spread([None])["mean"] is None
    assert spread([0.5])["sd"] is None


def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of frames of each call of the encoder."""
    calls: list[int] = []
    encode = SamNetwork.encode

    def counted(self: SamNetwork, images: torch.Tensor, **options: Any) -> torch.Tensor:
        calls.append(len(images))
        return encode(self, images, **options)

    monkeypatch.setattr(SamNetwork, "encode", counted)
    return calls


def test_folds_over_a_filled_store_encode_nothing(
    tiny_network: SamNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = write_scans(tmp_path)
    store = tmp_path / "store"
    settings = {"folds": 3, "epochs": 1, "store": store}
    calls = encodings(monkeypatch)
    first = samonai.cross_validate(tiny_network, images, labels, out=tmp_path / "first", **settings)
    # Three scans of three slices, each encoded once for all folds and their evaluations.
    assert sum(calls) == 9
    assert first.document["frames"]["encoded"] == 9
    assert sum(run.frames.encoded for run in first.runs) == 9
    second = samonai.cross_validate(
        tiny_network, images, labels, out=tmp_path / "second", seed=1, **settings
    )
    assert sum(calls) == 9
    assert second.document["frames"]["reused"] >= 3 * 9
    assert second.document["frames"]["encoded"] == 0

    on_disk = json.loads((tmp_path / "first" / "folds.json").read_text())
    assert len(on_disk.pop("sha256")) == 64
    assert on_disk == {"format_version": 1, **first.document}
    assert list(on_disk["members"]) == ["fold0", "fold1", "fold2"]
    held_out = [name for member in on_disk["members"].values() for name in member["val"]]
    assert sorted(held_out) == ["case_a", "case_b", "case_c"]
    for run, member in zip(first.runs, on_disk["members"].values(), strict=True):
        assert run.metadata.training["val_cases"] == member["val"]
        measured = json.loads((run.path / "evaluation" / "metrics.json").read_text())
        assert [row["case"] for row in measured["cases"]] == member["val"]
        assert member["dice"] == measured["summary"]["dice"]["finetuned"]
    assert on_disk["case_dice"]["n"] == 3
    assert [run.path for run in open_runs([tmp_path / "first"])] == [r.path for r in first.runs]


def test_the_same_call_goes_on_and_another_one_is_refused(
    tiny_network: SamNetwork, tmp_path: Path
) -> None:
    images, labels = write_scans(tmp_path)

    def call(**changes: object) -> object:
        settings = {"seeds": 2, "epochs": 1, "seed": 4, **changes}
        return repeat_seeds(tiny_network, images, labels, out=tmp_path / "runs", **settings)

    call()
    document = json.loads((tmp_path / "runs" / "seeds.json").read_text())
    assert [member["seed"] for member in document["members"].values()] == [4, 5]
    first, second = document["members"].values()
    assert (first["train"], first["val"]) == (second["train"], second["val"])
    decoders = sorted((tmp_path / "runs").glob("seed*/decoder.safetensors"))
    assert len(decoders) == 2
    assert decoders[0].read_bytes() != decoders[1].read_bytes()

    decoders[1].unlink()
    (decoders[1].parent / "last.pt").unlink()
    before = decoders[0].stat().st_mtime_ns
    call()
    assert decoders[1].exists()
    assert decoders[0].stat().st_mtime_ns == before
    again = json.loads((tmp_path / "runs" / "seeds.json").read_text())
    assert again["members"] == document["members"]

    for changes in ({"seeds": 3}, {"epochs": 2}, {"seed": 0}):
        with pytest.raises(InputError, match="made with other settings"):
            call(**changes)
    call(epochs=2, overwrite=True)
    assert EmbeddingStore(tmp_path / "runs" / "store", read_only=True).dtype == "float16"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"interactive": {"click_rounds": -1}}, "interactive.click_rounds=-1: expected 0 or more"),
        ({"interactive.click_rule": "luck"}, "luck"),
        ({"loss_recipe": "nice"}, "loss_recipe='nice': use one of dice_bce"),
    ],
)
def test_a_mistake_is_told_before_anything_is_encoded(
    tiny_network: SamNetwork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict,
    message: str,
) -> None:
    images, labels = write_scans(tmp_path)
    calls = encodings(monkeypatch)
    with pytest.raises(InputError, match=message):
        samonai.finetune(tiny_network, images, labels, out=tmp_path / "run", epochs=1, **wrong)
    assert not calls


def test_a_mistake_leaves_nothing(tiny_network: SamNetwork, tmp_path: Path) -> None:
    images, labels = write_scans(tmp_path)
    out = tmp_path / "folds"
    with pytest.raises(InputError, match="loss_recipe='nice': use one of dice_bce"):
        samonai.cross_validate(
            tiny_network, images, labels, out=out, folds=2, loss_recipe="nice", epochs=1
        )
    assert not (out / "folds.json").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other things already \(such as thesis.txt\)"):
        samonai.cross_validate(tiny_network, images, labels, out=tmp_path / "full", folds=2)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_folds_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = write_scans(tmp_path)
    groups = tmp_path / "groups.json"
    groups.write_text('{"x": ["case_a", "case_b"], "y": ["case_c"]}')
    data = ["--images", str(images), "--labels", str(labels), "--out", str(tmp_path / "out")]
    command = ["train", "medical", *data, "--folds", "2", "--groups", str(groups), "--epochs", "1"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "fold1" in out
    assert "standard deviation" in out
    assert "9 frames encoded" in out
    assert main(command) == 0
    assert "0 frames encoded" in capsys.readouterr().out
    held_out = json.loads((tmp_path / "out" / "folds.json").read_text())["members"]
    assert sorted(member["val"] for member in held_out.values()) == [
        ["case_a", "case_b"],
        ["case_c"],
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--folds", "2", "--seeds", "2"], "--folds or --seeds"),
        (["--folds", "2", "--val-fraction", "0.5"], "leave out --val-fraction"),
        (["--groups", "groups.json"], "--groups goes with --folds"),
    ],
)
def test_options_that_exclude_each_other(
    given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--images", str(tmp_path), "--labels", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["train", "medical", *data, *given]) == 2
    assert message in capsys.readouterr().err
