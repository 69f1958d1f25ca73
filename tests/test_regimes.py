"""The regimes that are compared, and the tables that they end up in."""

import json
from pathlib import Path

import pytest
from bundle_factory import write_scans
from fuzzing import TIMES

from benchmarks.regime_list import REGIMES, command
from benchmarks.regime_times import read_times, rounds_of, take_turns, write_times
from benchmarks.regimes import (
    click_table,
    main,
    read_split,
    regime_table,
    round_table,
    write_tables,
)
from samonai.settings import options
from samonai.workflows.bundle_files import TRAIN, config_files, read_config
from samonai.workflows.settings import check_settings, plain_settings

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
    assert commands["embedding-mix"].endswith("--set mixup.probability=0.5")
    assert commands["one-point-multimask"].endswith("--set interactive.multimask=true")
    assert commands["iou-head"].endswith("--train iou_head")
    # What has an option is refused as a setting.
    assert not [text for text in commands.values() for key in options() if f"--set {key}=" in text]


def test_the_split_is_the_manifests(tmp_path: Path) -> None:
    lines = ["task,use,image", "hippocampus,train,x/imagesTr/a.nii.gz"]
    lines += ["hippocampus,val,x/imagesTr/b.nii.gz", "spleen,train,x/c.nii.gz"]
    lines += ["hippocampus,train,x/imagesTr/d.nii.gz"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    assert read_split(tmp_path) == {"train": ["a", "d"], "val": ["b"]}
    assert read_split(tmp_path, cases=1) == {"train": ["a"], "val": ["b"]}


def test_regimes_take_turns_and_the_first_step_of_a_turn_does_not_count() -> None:
    asked: list[tuple[str, int]] = []

    def stepper(name: str, seconds: float):
        def steps(count: int) -> list[float]:
            asked.append((name, count))
            return [100.0, *(seconds + len(asked) for _ in range(count - 1))]

        return steps

    found = take_turns({"a": stepper("a", 0.0), "b": stepper("b", 10.0)}, 5, 2, lambda _: None)
    assert asked == [("a", 4), ("b", 4), ("a", 3), ("b", 3)]
    # Three steps in the first turn and two in the second.
    assert found == {"a": 1.0, "b": 12.0}


def test_times_add_up_over_calls(tmp_path: Path) -> None:
    assert read_times(tmp_path) == {}
    write_times(tmp_path, {"box": 0.25, "bce": 0.5})
    write_times(tmp_path, {"bce": 0.75})
    assert read_times(tmp_path) == {"box": 0.25, "bce": 0.75}
    assert json.loads((tmp_path / "times.json").read_text())["threads"] >= 1


def test_the_cost_of_a_round() -> None:
    of_name = {regime.name: rounds_of(regime.settings) for regime in REGIMES}
    # SAM's eleven: the first prompt, eight clicks, two without one.
    assert of_name["iterative"] == 11
    assert {n for n, rounds in of_name.items() if rounds > 1} == {
        "iterative-3", "iterative", "iterative-multimask"
    }  # fmt: skip
    lines = round_table({"box": 0.25, "bce": 0.2, "iterative": 3.3}).splitlines()
    assert lines[2:] == ["| box | 1 | 0.25 | 0.25 |", "| iterative | 11 | 3.30 | 0.30 |"]


@pytest.mark.skipif(TIMES == 1, reason="a benchmark of half a minute; runs with make faults")
def test_steps_of_real_trainings_are_timed(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_scans(data / "msd-hippocampus")
    lines = ["task,use,image", *(f"hippocampus,train,scan_{n}.nii.gz" for n in (0, 1))]
    (data / "manifest.csv").write_text("\n".join([*lines, "hippocampus,val,scan_2.nii.gz"]))
    names = ["box", "iterative-3"]
    arguments = ["--data", str(data), "--out", str(out), "--only-times", "--steps", "3"]
    assert main([*arguments, "--only", *names]) == 0
    seconds = read_times(out)
    assert set(seconds) == set(names)
    # Four decoder passes instead of one.
    assert seconds["iterative-3"] > seconds["box"] > 0
    # No run was left: neither a folder of it nor a row.
    assert {path.name for path in out.iterdir()} == {
        "store", "split.json", "times.json", "regimes.md"
    }  # fmt: skip


def row(name: str, **more) -> dict:
    dice = {"anterior": 0.5, "posterior": 0.625}
    return {
        "regime": name,
        "command": f"samonai train medical … --set x={name}",
        "trainable_parameters": 1234567,
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
    lines = regime_table(rows, {"a": 0.251}).splitlines()
    assert lines[0].count("|") == lines[2].count("|") == lines[4].count("|") == 10
    assert "| 1,234,567 | 0.25 | 0.500 | 0.625 | 0.250 | 0.375 |" in lines[3]
    assert lines[2] == "| before fine-tuning |  |  |  | 0.100 |  |  | 0.200 |  |"
    assert lines[4].endswith("| 0.750 |")
    assert "| 1,234,567 |  | 0.500 |" in lines[4], "what was not timed has no time"
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
