"""Files on disks that are full, writers that are killed, lines that are written in part."""

import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from samonai.core.csv_cells import cell_text, csv_cell
from samonai.core.errors import InputError
from samonai.core.files import output_folder, remove_abandoned, write_atomically
from samonai.core.journal import append_lines, whole_lines
from samonai.core.pseudonyms import write_case_map
from samonai.domains.base import Case
from samonai.inference.output_ownership import OWNERSHIP_FILE, OutputOwnership
from samonai.workflows.archive.manifest import DONE, Manifest


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file grows beyond a size, as on a full disk: errno EFBIG, without root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_short_write_of_a_line_glues_nothing(tmp_path: Path, monkeypatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, bytes(data)[:7]))
    manifest = Manifest(tmp_path / "manifest.jsonl", {"a": 1})
    for case in ("one", "two", "three"):
        manifest.finished(case, DONE)
    OutputOwnership(tmp_path).register(Case("one", tmp_path / "one.nii.gz"))
    monkeypatch.undo()
    assert Manifest(manifest.path, {"a": 1}).states == dict.fromkeys(("one", "two", "three"), DONE)
    assert (tmp_path / OWNERSHIP_FILE).read_text().count("\n") == 1


def test_a_disk_that_fills_up_in_a_line_leaves_the_lines_before(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "manifest.jsonl", {"a": 1})
    manifest.finished("one", DONE)
    before = manifest.path.read_bytes()
    with full_disk(len(before) + 10), pytest.raises(OSError, match="large"):
        manifest.finished("two", DONE)
    assert manifest.path.read_bytes() == before
    manifest.finished("three", DONE)
    assert set(Manifest(manifest.path, {"a": 1}).states) == {"one", "three"}


@pytest.mark.parametrize("writer", ["torch", "safetensors"])
def test_a_library_that_meets_a_full_disk_gives_the_systems_error(tmp_path, writer) -> None:
    import torch
    from safetensors.torch import save_file

    state = {"weight": torch.zeros(50, 1000)}
    (tmp_path / "state.pt").write_bytes(b"before")
    with (
        full_disk(1 << 14),
        pytest.raises(OSError, match="File too large"),
        write_atomically(tmp_path / "state.pt") as path,
    ):
        torch.save(state, path) if writer == "torch" else save_file(state, path)
    assert (tmp_path / "state.pt").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_an_error_of_the_block_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), write_atomically(tmp_path / "x") as path:
        path.write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from samonai.core.files import write_atomically\n"
        "with write_atomically(sys.argv[1]) as path:\n"
        "    path.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.nii.gz")], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".writing-")
    output_folder(tmp_path)
    assert left.exists()  # another process may be at it
    os.utime(left, (time.time() - 7200,) * 2)
    output_folder(tmp_path)
    assert not left.exists()
    left.touch()
    remove_abandoned(tmp_path, older_than=0)
    assert not left.exists()


@pytest.mark.parametrize("content", [b"half a line", b'{"manifest": 7}\nhalf', b"", b"[]\n"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_strangers_file_is_looked_at_and_not_touched(tmp_path, content, linked) -> None:
    stranger = tmp_path / "theirs" / "notes.jsonl"
    stranger.parent.mkdir()
    stranger.write_bytes(content)
    path = tmp_path / "manifest.jsonl"
    if linked:
        path.symlink_to(stranger)
    else:
        path.write_bytes(content)
    if content or linked:
        with pytest.raises(InputError, match=r"no manifest|which no manifest is"):
            Manifest(path, {"a": 1})
    assert stranger.read_bytes() == path.read_bytes() == content


def test_lines_go_behind_what_counts(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\nhal")
    lines, size = whole_lines(path.read_bytes())
    assert (lines, size) == ([b"one"], 4)
    append_lines(path, "two\n", after=size)
    assert path.read_bytes() == b"one\ntwo\n"
    assert whole_lines(b"") == ([], 0)


def test_a_map_of_cases_is_its_owners_from_the_first_byte_on(tmp_path, monkeypatch) -> None:
    seen = []
    replace = os.replace

    def looked_at(source: str, target: str) -> None:
        seen.append(stat.S_IMODE(os.stat(source).st_mode))
        replace(source, target)

    monkeypatch.setattr(os, "replace", looked_at)
    names = {"case-1": "=HYPERLINK(1)", "case-2": "'=1", "case-3": "'s-Gravenhage", "case-4": "-"}
    write_case_map(tmp_path / "map.csv", names)
    write_case_map(tmp_path / "map.csv", {"case-5": "DOE"})
    assert seen == [0o600, 0o600]
    text = (tmp_path / "map.csv").read_text()
    assert "case-1,'=HYPERLINK(1)" in text
    assert "case-2,''=1" in text
    before = text
    write_case_map(tmp_path / "map.csv", names)  # each name is read as it was written
    assert (tmp_path / "map.csv").read_text() == before


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert csv_cell(text) == f"'{text}"
    assert cell_text(csv_cell(text)) == text


@pytest.mark.parametrize("value", [-1.5, 3, None, "", "liver", "'s", "a=b"])
def test_other_cells_stay(value) -> None:
    assert csv_cell(value) == value
