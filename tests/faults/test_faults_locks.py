"""Locks: one holder at a time, also while holders come, go and are killed."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from samonai.core.errors import InputError
from samonai.core.locks import LOCK_FILE, locked_folder

CONTEXT = multiprocessing.get_context("fork")


def test_a_lock_file_that_was_removed_while_it_was_opened_is_no_lock(tmp_path, monkeypatch):
    """The order of events that gave two holders: released, taken by a second, then removed."""
    fcntl = pytest.importorskip("fcntl")
    flock, moments = fcntl.flock, []

    def removed_meanwhile(handle: int, how: int) -> None:
        flock(handle, how)
        if not moments:
            moments.append(handle)
            (tmp_path / LOCK_FILE).unlink()  # the holder before goes only now

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with (
        locked_folder(tmp_path, "working into"),
        pytest.raises(InputError, match="another process is working into"),
        locked_folder(tmp_path, "working into"),
    ):
        pass
    assert moments
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("of somebody else")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK_FILE).symlink_to(other)
    with (
        pytest.raises(InputError, match="cannot write into"),
        locked_folder(tmp_path / "out", "working into"),
    ):
        pass
    assert other.read_text() == "of somebody else"


def _hold_often(folder: Path, until: float) -> None:
    inside = folder / "inside"
    while time.monotonic() < until:
        try:
            with locked_folder(folder, "working into"):
                handle = os.open(inside, os.O_CREAT | os.O_EXCL)  # fails where another is inside
                os.close(handle)
                inside.unlink()
        except InputError:
            continue
    os._exit(0)


def test_many_processes_are_never_inside_together(tmp_path: Path) -> None:
    until = time.monotonic() + 1.5
    processes = [CONTEXT.Process(target=_hold_often, args=(tmp_path, until)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]


def _hold(folder: Path) -> None:
    with locked_folder(folder, "working into"):
        (folder / "held").touch()
        time.sleep(60)


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    process = CONTEXT.Process(target=_hold, args=(tmp_path,))
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(InputError, match="another process"), locked_folder(tmp_path, "training in"):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    with locked_folder(tmp_path, "training into"):
        pass
