"""Ids that give no patient away: keyed, stable, and understood where a user writes names."""

import csv
import re
import stat
from pathlib import Path

import pytest
from dicom_outputs import make_source

from samonai.core import pseudonyms
from samonai.core.errors import InputError
from samonai.core.pseudonyms import known_as, pseudonym, salt_file, stands_for, write_case_map
from samonai.domains.medical import MedicalDomain
from samonai.inference import FilePrompts, input_cases
from samonai.training.data.split import split_cases


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a salt."""
    monkeypatch.delenv("SAMONAI_SALT")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    pseudonyms._kept_salt.cache_clear()
    return tmp_path / "config"


def test_same_name_same_pseudonym_and_nothing_of_the_name() -> None:
    first = pseudonym("DOE^JANE")
    assert re.fullmatch("case-[0-9a-f]{12}", first)
    assert first == pseudonym("DOE^JANE") != pseudonym("DOE^JOHN")


def test_another_salt_gives_another_pseudonym(monkeypatch: pytest.MonkeyPatch) -> None:
    first = pseudonym("DOE^JANE")
    monkeypatch.setenv("SAMONAI_SALT", "another")
    assert pseudonym("DOE^JANE") != first


def test_salt_is_kept_for_its_owner_alone(config: Path) -> None:
    first = pseudonym("a")
    assert salt_file() == config / "samonai" / "salt"
    assert stat.S_IMODE(salt_file().stat().st_mode) == 0o600
    assert [path.name for path in salt_file().parent.iterdir()] == ["salt"]
    pseudonyms._kept_salt.cache_clear()
    assert pseudonym("a") == first
    salt_file().unlink()
    pseudonyms._kept_salt.cache_clear()
    assert pseudonym("a") != first


def test_empty_salt_is_refused(config: Path) -> None:
    salt_file().parent.mkdir(parents=True)
    salt_file().touch()
    with pytest.raises(InputError, match="empty"):
        pseudonym("a")


def test_names_are_understood() -> None:
    known = {pseudonym("jane"): 1, "scan_7": 2}
    assert known_as("jane", known) == pseudonym("jane")
    assert known_as(pseudonym("jane"), known) == pseudonym("jane")
    assert known_as("scan_7", known) == "scan_7"
    assert known_as("nobody", known) == "nobody"
    assert not stands_for("scan_8", "scan_7")


def test_map_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    write_case_map(path, {"case-1": "jane"})
    write_case_map(path, {"case-2": "jo, with a comma"})
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["case", "name"],
            ["case-1", "jane"],
            ["case-2", "jo, with a comma"],
        ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_map_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="not a map of cases"):
        write_case_map(path, {"case-1": "jane"})
    assert path.read_text() == "a,b\n1,2\n"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for name in ("DOE^JANE", "DOE^JOHN", "ROE^RICHARD"):
        make_source(tmp_path / "archive" / name)
    return tmp_path / "archive"


def test_dicom_folders_are_known_by_pseudonyms(archive: Path, tmp_path: Path) -> None:
    domain = MedicalDomain(case_map=tmp_path / "map.csv")
    cases = domain.find_cases(archive)
    assert sorted(case.case_id for case in cases) == sorted(
        pseudonym(path.name) for path in archive.iterdir()
    )
    with (tmp_path / "map.csv").open() as file:
        assert {row["name"] for row in csv.DictReader(file)} == {
            "DOE^JANE",
            "DOE^JOHN",
            "ROE^RICHARD",
        }
    assert domain.read(cases[0]).source_id == cases[0].case_id
    (one,) = input_cases(domain, archive / "DOE^JANE", series="1.2.3")
    assert one.case_id == pseudonym("DOE^JANE")
    assert "case_map" not in domain.settings()


def test_split_file_and_boxes_may_use_the_names(archive: Path, tmp_path: Path) -> None:
    domain = MedicalDomain()
    cases = domain.find_cases(archive)
    split_file = tmp_path / "split.json"
    split_file.write_text('{"train": ["DOE^JANE"], "val": ["ROE^RICHARD"]}')
    split = split_cases(cases, split_file=split_file)
    assert [case.image.name for case in (*split.train, *split.val)] == ["DOE^JANE", "ROE^RICHARD"]

    jane = split.train[0]
    volume = domain.read(jane)
    (tmp_path / "boxes.json").write_text('{"cases": {"DOE^JANE": {"boxes": [[0, 0, 1, 3, 3, 2]]}}}')
    (tmp_path / "boxes.csv").write_text("case,i0,j0,k0,i1,j1,k1\nDOE^JANE,0,0,1,3,3,2\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "DOE^JANE.json").write_text('{"boxes": [[0, 0, 1, 3, 3, 2]]}')
    for place in ("boxes.json", "boxes.csv", "folder"):
        prompts = FilePrompts(tmp_path / place, several=True)(domain, jane, volume)
        assert sorted(prompts) == [1]
