"""Every job lists its data set once: network folders and DICOM archives are slow to walk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_scans import write_scans

import samonai
from samonai.domains.base import Case
from samonai.domains.medical import MedicalDomain
from samonai.sam.network import SamNetwork
from samonai.workflows.archive.archive import predict_archive

BOX = [4, 3, 0, 20, 17, 2]
CASES = {"train": ["case_a", "case_b"], "val": ["case_c"]}


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows by one name for each time that cases are listed."""
    seen: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        method = getattr(MedicalDomain, name)

        def listing(self: MedicalDomain, *args: Any, **options: Any) -> Any:
            seen.append(name)
            return method(self, *args, **options)

        return listing

    for name in ("find_cases", "find_archive"):
        monkeypatch.setattr(MedicalDomain, name, counted(name))
    return seen


def test_training_and_measuring_list_cases_once(
    tiny_network: SamNetwork, tmp_path: Path, listings: list[str]
) -> None:
    folders = write_scans(tmp_path)
    run = samonai.finetune(
        tiny_network, *folders, out=tmp_path / "run", epochs=1, split=CASES, progress=False
    )
    assert listings == ["find_cases"]
    samonai.evaluate(run, *folders, tmp_path / "eval", report=False, progress=False)
    assert listings == ["find_cases"] * 2
    samonai.embed(tiny_network, *folders, store=tmp_path / "store")
    assert listings == ["find_cases"] * 3


def test_a_cross_validation_lists_cases_once(
    tiny_network: SamNetwork, tmp_path: Path, listings: list[str]
) -> None:
    """Two folds, each trained and measured."""
    folders = write_scans(tmp_path)
    samonai.cross_validate(
        tiny_network, *folders, out=tmp_path / "cv", folds=2, epochs=1, progress=False
    )
    assert listings == ["find_cases"]


def test_prediction_lists_cases_once(two_runs: Path, tmp_path: Path, listings: list[str]) -> None:
    run, images = two_runs / "runs" / "seed0", two_runs / "images"
    boxes = {"cases": {f"case_{name}": {"boxes": [BOX]} for name in "abc"}}
    samonai.predict(run, images, boxes, tmp_path / "all", progress=False)
    samonai.Run(run).predict(images / "case_c.nii.gz", [BOX])
    samonai.Session(run).predict(images / "case_c.nii.gz", [BOX])
    assert listings == ["find_cases"] * 3
    predict_archive(run, images, boxes, tmp_path / "archive", progress=False)
    assert listings == ["find_cases"] * 3 + ["find_archive"]


def test_cases_of_one_reader_get_the_label_values_of_another() -> None:
    """A fold's run may know fewer structures than the data set, or joined ones."""
    listed = [
        Case("a", Path("a"), Path("a"), classes=(("aorta", 1), ("left lung", 2), ("right lung", 3)))
    ]
    trained = MedicalDomain(structures={"left lung // right lung": 5})
    assert trained.renumbered(listed)[0].classes == (("left lung", 5), ("right lung", 5))
    assert MedicalDomain().renumbered(listed) == listed
    plain = [Case("b", Path("b"), Path("b"))]
    assert trained.renumbered(plain) == plain
