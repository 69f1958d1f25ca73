"""What users set is data: checked against the configuration, never evaluated by MONAI."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.workflows.bundle_engine import run_bundle
from samonai.workflows.bundle_files import (
    config_files,
    find_bundle,
    is_evaluated,
    lay_out,
    list_bundles,
    read_config,
)
from samonai.workflows.settings import check_settings, parse_settings, plain_settings


class Sink:
    """Keeps what a run hands it; MONAI would copy a list."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def append(self, item: Any) -> None:
        self.seen.append(item)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose run keeps what its settings came to."""
    config = {
        "_meta_": {},
        "imports": ["$import pathlib", "$import errno", "$import samonai.core.errors as errors"],
        "out": "$@folder + '/out.json'",
        "folder": ".",
        "text": "plain",
        "number": 1.5,
        "count": 3,
        "flag": False,
        "anything": None,
        "nested": {"value": "@text"},
        "fail": "$(_ for _ in ()).throw(errors.InputError('one line'))",
        "full": "$(_ for _ in ()).throw(OSError(errno.ENOSPC, 'No space left', 'disk'))",
        "run": ["$@sink.append((@text, @anything, @nested::value, @count))"],
        "sink": None,
    }
    folder = tmp_path / "bundle" / "configs"
    folder.mkdir(parents=True)
    (folder / "train.json").write_text(json.dumps(config))
    (folder / "broken.json").write_text(json.dumps({"run": ["@fail"]}))
    (folder / "full.json").write_text(json.dumps({"run": ["@full"]}))
    return folder.parent


def config_of(bundle: Path) -> dict[str, Any]:
    return read_config(config_files(bundle, "train.json"))


def test_the_bundles_are_found_and_named() -> None:
    assert "medical" in list_bundles()
    assert (find_bundle("medical") / "configs" / "train.json").is_file()


def test_plain_settings_are_values_and_not_expressions(bundle: Path) -> None:
    assert set(plain_settings(config_of(bundle))) == {
        "folder",
        "text",
        "number",
        "count",
        "flag",
        "anything",
        "sink",
    }


def test_settings_take_their_defaults_type(bundle: Path) -> None:
    texts = ["number=2", "count=4", "flag=true", "text=5", "anything=[1, 2]", "anything=a=b"]
    assert parse_settings(texts, config_of(bundle)) == {
        "number": 2.0,
        "count": 4,
        "flag": True,
        "text": "5",
        "anything": "a=b",
    }


@pytest.mark.parametrize(
    "value",
    ["$1", "@x", "%x", ["$1"], {"a": "@x"}, {"_target_": "os.mkdir"}, {"$x": 1}, [[{"a": "%x"}]]],
)
def test_values_that_monai_would_evaluate_are_refused(bundle: Path, value: Any) -> None:
    assert is_evaluated(value)
    with pytest.raises(InputError, match="evaluate"):
        check_settings({"anything": value}, config_of(bundle))


@pytest.mark.parametrize("value", ["a$b", "x@y", {"255": 1}, [1, "two"], None, 1.0])
def test_other_values_are_not(value: Any) -> None:
    assert not is_evaluated(value)


@pytest.mark.parametrize(
    "text", ["#1 & 'quoted' \\ \"both\"", "$print('no')", "@folder", "%a::b", "ünïcode €"]
)
def test_texts_given_to_a_run_arrive_as_they_are(bundle: Path, text: str) -> None:
    sink = Sink()
    files = config_files(bundle, "train.json")
    run_bundle(files, {"text": text, "anything": {"key": [text]}, "sink": sink, "count": 9})
    assert sink.seen == [(text, {"key": [text]}, text, 9)]


def test_paths_become_absolute(bundle: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    sink = Sink()
    run_bundle(config_files(bundle, "train.json"), {"text": Path("$a#b/../c#d"), "sink": sink})
    assert sink.seen[0][0] == str(tmp_path / "c#d")


def test_a_run_leaves_the_process_as_it_was(bundle: Path) -> None:
    search_path, filters = list(sys.path), list(warnings.filters)
    run_bundle(config_files(bundle, "train.json"), {"sink": Sink()})
    assert sys.path == search_path
    assert warnings.filters == filters


def test_an_override_that_the_configuration_lacks_is_refused(bundle: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'number'"):
        run_bundle(config_files(bundle, "train.json"), {"numbr": 1})


def test_a_users_mistake_comes_out_of_monais_wrapping(bundle: Path) -> None:
    with pytest.raises(InputError, match="one line"):
        run_bundle(config_files(bundle, "train.json", "broken.json"), {})


def test_a_full_disk_is_told_in_one_line(bundle: Path) -> None:
    with pytest.raises(
        InputError, match="disk: No space left; make room and give the same command again"
    ):
        run_bundle(config_files(bundle, "train.json", "full.json"), {})


def test_other_errors_keep_their_traceback(bundle: Path) -> None:
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        run_bundle(config_files(bundle, "train.json"), {"sink": 5})


def test_laying_out_copies_the_whole_bundle(tmp_path: Path) -> None:
    folder = lay_out("medical", tmp_path / "mine")
    source = find_bundle("medical")
    wanted = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    assert {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} == wanted
    assert find_bundle(folder) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(InputError, match="not an empty folder"):
        lay_out("medical", folder)


def test_the_command_runs_a_bundle_of_ones_own(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = {
        "bundle_root": ".",
        "output_dir": "nowhere",
        "run": ["$pathlib.Path(@output_dir, @text).write_text(@bundle_root)"],
    }
    (bundle / "configs" / "mine.json").write_text(json.dumps(overlay))
    argv = ["bundle", "run", str(bundle), "train.json", "mine.json", "--out", str(tmp_path)]
    assert main([*argv, "--set", "text=said"]) == 0
    assert (tmp_path / "said").read_text() == str(bundle)
    assert main([*argv, "--set", "txt=said"]) == 2
    assert "did you mean 'text'" in capsys.readouterr().err
