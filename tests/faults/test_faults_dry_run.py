"""A dry run writes nothing: no folder, store or map of cases, nothing into a stranger's file."""

import os
from pathlib import Path
from typing import Any

import pytest
from archive_factory import write_boxes, write_study

from samonai.core.errors import InputError
from samonai.workflows.archive.archive import embed_archive, predict_archive


def states_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return what tells whether anything below a folder was touched."""
    found = {}
    for path in sorted((folder, *folder.rglob("*"))):
        stat = os.stat(path, follow_symlinks=False)
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (stat.st_mtime_ns, stat.st_ino, content)
    return found


def planned(verb: str, folder: Path, out: Path, **more: Any) -> Any:
    if verb == "embed":
        return embed_archive(
            "micro", folder / "in", out, store=folder / "new" / "store", dry_run=True, **more
        )
    boxes = folder / "boxes.csv"
    return predict_archive(
        "micro", folder / "in", boxes, out, store=folder / "new" / "store", dry_run=True, **more
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_study(tmp_path / "in" / "one", 0)
    write_boxes(tmp_path / "boxes.csv", ["one__CT"])
    return tmp_path


@pytest.mark.parametrize("verb", ["embed", "predict"])
def test_a_dry_run_makes_nothing(archive: Path, verb: str) -> None:
    before = states_of(archive)
    report = planned(verb, archive, archive / "deep" / "out", case_map=archive / "map.csv")
    assert len(report.waiting) == 1
    assert states_of(archive) == before


@pytest.mark.parametrize("verb", ["embed", "predict"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_dry_run_leaves_a_strangers_manifest_alone(archive, verb, linked) -> None:
    theirs = archive / "theirs.jsonl"
    theirs.write_text('{"of": "another program"}\n{"and": "a line without its end"')
    out = archive / "out"
    out.mkdir()
    if linked:
        (out / "manifest.jsonl").symlink_to(theirs)
    else:
        theirs.rename(out / "manifest.jsonl")
    before = states_of(archive)
    with pytest.raises(InputError, match="manifest"):
        planned(verb, archive, out)
    assert states_of(archive) == before
