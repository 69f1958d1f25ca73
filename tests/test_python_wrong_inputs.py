"""What is wrong in a Python call is said in one line too, in the caller's own words."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_scans import write_scans

import samonai
import samonai as api
from samonai.core.errors import InputError
from samonai.domains import get_domain
from samonai.inference import LabelWriter
from samonai.selection import repeat_seeds, sweep
from samonai.workflows.bundle_files import TRAIN, config_files, read_config
from samonai.workflows.settings import check_settings

BOX = [4, 3, 0, 20, 17, 2]


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    images, labels = write_scans(tmp_path)
    return {"sam": "micro", "images": images, "labels": labels, "out": tmp_path / "out"}


@pytest.fixture
def run(two_runs: Path) -> samonai.Run:
    return samonai.Run(two_runs / "runs" / "seed0")


@pytest.mark.parametrize("given", [None, 3, ["run"]])
def test_what_is_no_run(given: Any) -> None:
    with pytest.raises(InputError, match="the run's folder: expected a path, got"):
        samonai.Run(given)
    with pytest.raises(InputError, match=r"a run's folder: expected a path, got|is not a run"):
        api.evaluate(given, ".", None, "out")


@pytest.mark.parametrize("train", [samonai.finetune, samonai.cross_validate, sweep])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sam": None}, "the model: expected a name such as 'vit_b' .* got NoneType"),
        ({"images": None}, "images: expected a path, got NoneType"),
        ({"images": ""}, "images: the path is empty"),
        ({"labels": 3}, "labels: expected a path, got int"),
        ({"out": None}, "folder: expected a path, got NoneType"),
        ({"out": ""}, "folder: the path is empty"),
        ({"domain": None}, "the kind of data, or bundle: expected a path, got NoneType"),
        ({"seed": "1"}, "seed='1': expected a whole number such as 0"),
        ({"split": 3}, "split.*: expected a path, got int"),
        ({"split": {"train": "case_a", "val": ["case_b"]}}, "the split must read"),
        ({"split": {"train": ["case_a"]}}, "the split must read .* 'val' is missing"),
        ({"split": {"train": ["case_a"], "val": ["x"]}}, "the split names 1 cases that are not"),
    ],
)
def test_what_no_training_can_take(
    data: dict[str, Any], train: Callable[..., Any], wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        train(**{**data, **wrong})
    assert not data["out"].exists()


@pytest.mark.parametrize("checkpoint", [3, "nowhere.pth"])
def test_a_checkpoint_that_is_none(data: dict[str, Any], checkpoint: Any) -> None:
    for sam in ("micro", samonai.load_sam("micro")):
        with pytest.raises(InputError, match="checkpoint"):
            samonai.finetune(**{**data, "sam": sam}, checkpoint=checkpoint)
        assert not data["out"].exists()


def test_numbers_of_runs(data: dict[str, Any]) -> None:
    for folds, said in (("2", "whole number, got '2'"), (2.0, "got 2.0"), (1, "2 or more, got 1")):
        with pytest.raises(InputError, match=f"folds: expected .*{said}"):
            samonai.cross_validate(**data, folds=folds)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="seeds: expected 2 or more, got 1"):
        repeat_seeds(**data, seeds=1)
    with pytest.raises(InputError, match="trials: expected a whole number, got None"):
        sweep(**data, trials=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="groups: expected a path, got dict"):
        samonai.cross_validate(**data, folds=2, groups={})  # type: ignore[arg-type]
    assert not data["out"].exists()


def test_cases_that_are_no_names(run: samonai.Run, two_runs: Path, tmp_path: Path) -> None:
    for cases in (3, []):
        with pytest.raises(InputError, match="cases: expected names of cases, or 'all', got"):
            run.evaluate(two_runs / "images", two_runs / "labels", tmp_path / "out", cases=cases)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        (3, "boxes: expected"),
        ([], "boxes: no boxes for case case_c"),
        ([[1]], "boxes: box 1 is"),
        ([[str(value) for value in BOX]], r"boxes: box 1 is \['4', .*; expected six numbers"),
        ([[*BOX[:5], 10**400]], "boxes: box 1 is"),
        ([[*BOX[:5], 99]], "boxes: box 1 .* leaves the volume"),
        ({"points": [["5", "5", "1"]]}, "boxes: point 1 is .*; expected three numbers"),
        ({1, 2}, "boxes of type set: expected numbers"),
    ],
)
def test_boxes_as_values(run: samonai.Run, two_runs: Path, boxes: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        run.predict(two_runs / "images" / "case_c.nii.gz", boxes)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"run": None}, "the model: expected a name"),
        ({"source": np.zeros((2, 2, 2))}, "the input: expected a path, got ndarray"),
        ({"out": 3}, "the output folder: expected a path, got int"),
        ({"measure": "yes"}, "measure='yes': expected true or false"),
        ({"ending": None}, "ending: expected a value"),
        ({"formats": 3}, "formats: expected a list of names, got '3'"),
        ({"formats": "niftii"}, "format 'niftii' is not known"),
        ({"store": 3}, "the store: expected a path, got int"),
        ({"sha256": 3}, "64 hexadecimal digits, got '3'"),
        ({"device": 3.5}, "unknown device 3.5"),
    ],
)
def test_what_predict_cannot_take(
    data: dict[str, Any], wrong: dict[str, Any], said: str, tmp_path: Path
) -> None:
    given = {"run": "micro", "source": data["images"] / "case_a.nii.gz", "out": tmp_path / "masks"}
    with pytest.raises(InputError, match=said):
        api.predict(**{**given, "boxes": [BOX], **wrong})
    assert not (tmp_path / "masks").exists()


def test_a_run_is_given_by_its_folder(run: samonai.Run, two_runs: Path, tmp_path: Path) -> None:
    image = two_runs / "images" / "case_c.nii.gz"
    (written,) = api.predict(run.path, image, [BOX], tmp_path / "masks", formats="nrrd")
    assert written.name == "case_c.seg.nrrd"


def test_numbers_as_numpy_has_them() -> None:
    config = read_config(config_files("medical", TRAIN))
    given = {
        "epochs": np.int64(3),
        "learning_rate": np.float32(0.5),
        "val_fraction": np.float16(0.5),
    }
    found = check_settings(given, config)
    assert found == {"epochs": 3, "learning_rate": 0.5, "val_fraction": 0.5}
    assert [type(value) for value in found.values()] == [int, float, float]


def test_models_that_are_none() -> None:
    with pytest.raises(InputError, match="unknown model 'None'"):
        samonai.load_sam(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a Predictor takes what load_sam returns, got str"):
        samonai.Predictor("micro")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("domain", "settings"),
    [
        ("medical", ("label_map", "structures", "channel", "axis", "time", "crop_margin")),
        ("satellite", ("label_map", "classes", "nodata", "resolution", "point_radius")),
        ("satellite", ("line_width", "simplify", "polygon_min_area", "overlap", "tile", "offset")),
        ("documents", ("dpi", "longest", "overlap", "classes", "rename", "query", "retrieval")),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, True, {1}])
def test_values_that_no_setting_can_have(
    domain: str, settings: tuple[str, ...], value: Any
) -> None:
    for name in settings:
        if (name, value) == ("nodata", -1.0):
            continue
        with pytest.raises(InputError, match="expected"):
            get_domain(domain, **{name: value})


def test_measurements_that_a_domain_does_not_write_are_refused_at_once(tmp_path: Path) -> None:
    for name in ("satellite", "documents"):
        with pytest.raises(InputError, match="leave out --measure"):
            LabelWriter(tmp_path / "out", get_domain(name), measure=True)
    assert not (tmp_path / "out").exists()
