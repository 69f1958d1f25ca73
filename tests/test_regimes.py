"""The regimes that are compared, and the tables that they end up in."""

import json
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from benchmarks.regime_list import REGIMES, command
from benchmarks.regimes import (
    click_table,
    main,
    read_split,
    regime_table,
    seconds_per_step,
    write_tables,
)
from samonai.bundles import TRAIN, check_settings, config_files, plain_settings, read_config
from samonai.cli.options import HAVE_OPTIONS

CONFIG = read_config(config_files("medical", TRAIN))


@pytest.mark.parametrize("regime", REGIMES, ids=lambda regime: regime.name)
def test_every_regime_sets_what_the_bundle_has(regime) -> None:
    known = plain_settings(CONFIG)
    shared = {k: v for k, v in regime.settings.items() if k in known}
    assert check_settings(shared, CONFIG) == shared
    changed = {k for k, v in regime.settings.items() if known.get(k) != v}
    assert changed == set(regime.settings), "a setting that is the default tells nothing"


def test_names_are_folders_and_told_apart() -> None:
    names = [regime.name for regime in REGIMES]
    assert len(set(names)) == len(names)
    assert not [name for name in names if "/" in name or " " in name]
    assert len({command(regime) for regime in REGIMES}) == len(names)


def test_a_command_is_what_a_user_types() -> None:
    commands = {regime.name: command(regime) for regime in REGIMES}
    assert commands["box"] == "samonai train medical …"
    assert commands["embedding-mix"].endswith("--set embedding_mix=0.5")
    assert commands["one-point-multimask"].endswith("--set multimask=true")
    assert commands["iou-head"].endswith("--train iou_head")
    # What has an option is refused as a setting.
    assert not [
        text for text in commands.values() for key in HAVE_OPTIONS if f"--set {key}=" in text
    ]


def test_the_split_is_the_manifests(tmp_path: Path) -> None:
    lines = ["task,use,image", "hippocampus,train,x/imagesTr/a.nii.gz"]
    lines += ["hippocampus,val,x/imagesTr/b.nii.gz", "spleen,train,x/c.nii.gz"]
    lines += ["hippocampus,train,x/imagesTr/d.nii.gz"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    assert read_split(tmp_path) == {"train": ["a", "d"], "val": ["b"]}
    assert read_split(tmp_path, cases=1) == {"train": ["a"], "val": ["b"]}


def test_the_time_of_a_step_is_the_median_gap(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path))
    for step, time in enumerate((0.0, 1.0, 3.0, 4.0, 60.0)):
        writer.add_scalar("train_loss", 0.1, step, walltime=time)
    writer.close()
    assert seconds_per_step(tmp_path) == 1.5
    assert seconds_per_step(tmp_path / "absent") is None


def row(name: str, **more) -> dict:
    dice = {"anterior": 0.5, "posterior": 0.625}
    return {
        "regime": name,
        "command": f"samonai train medical … --set x={name}",
        "trainable_parameters": 1234567,
        "seconds_per_step": 0.251,
        "box": dice,
        "point": {"anterior": 0.25, "posterior": 0.375},
        **more,
    }


CLICKS = {
    "zero_shot": {"1": {"anterior": 0.1, "posterior": 0.2}, "3": {"anterior": 0.2, "posterior": 0}},
    "finetuned": {"1": {"anterior": 0.5, "posterior": 0.6}, "3": {"anterior": 0.7, "posterior": 1}},
}


def test_the_tables_have_what_the_rows_have() -> None:
    before = {"box": {"anterior": 0.1}, "point": {"posterior": 0.2}}
    rows = [row("a", clicks=CLICKS, before=before), row("b", automatic={"anterior": 0.75})]
    lines = regime_table(rows).splitlines()
    assert lines[0].count("|") == lines[2].count("|") == lines[4].count("|") == 10
    assert "| 1,234,567 | 0.25 | 0.500 | 0.625 | 0.250 | 0.375 |" in lines[3]
    assert lines[2] == "| before fine-tuning |  |  |  | 0.100 |  |  | 0.200 |  |"
    assert lines[4].endswith("| 0.750 |")
    assert click_table(rows).splitlines()[2:] == [
        "| before fine-tuning | 0.150 | 0.100 |",
        "| a | 0.550 | 0.850 |",
    ]


def test_what_has_a_row_is_not_trained_again(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("task,use,image\nhippocampus,train,a.nii.gz\n")
    done = tmp_path / "out" / "bce"
    done.mkdir(parents=True)
    (done / "row.json").write_text(json.dumps(row("bce")))
    write_tables(tmp_path / "out")
    (tmp_path / "out" / "regimes.md").unlink()
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--only", "bce"]) == 0
    assert "--set x=bce" in (tmp_path / "out" / "regimes.md").read_text()
