"""Queue of received series on disk: kept through kills, nothing twice, poison set aside.

A folder per series, named by a pseudonym, holds `images/` while it is worked on and `state.jsonl`,
one sealed line per event; `results/` beside them holds predicted files until they are sent. An
instance is confirmed to its sender once it is on the disk. The images of a finished series are
removed; the digests of its instances stay, so that one that is sent again is known and one that
comes late is refused.
"""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import remove_abandoned, write_atomically
from samonai.core.journal import append_lines, whole_lines
from samonai.core.json_files import parse_json
from samonai.core.pseudonyms import pseudonym
from samonai.core.sealed import is_whole, sealed

RECEIVING, PREDICTED, DONE, SET_ASIDE = "receiving", "predicted", "done", "set aside"
ATTEMPT, INTERRUPTED, AGAIN = "attempt", "interrupted", "again"
SERIES, RESULTS = "series", "results"
_IMAGES, _STATE_FILE = "images", "state.jsonl"

_ENDING = ".dcm"
_MOST_INSTANCES = 20_000


class FullError(InputError):
    """The queue takes no more."""


class LateError(InputError):
    """An instance of a series that is finished."""


@dataclass
class QueuedSeries:
    """One series of the queue.

    Attributes:
        name: Its pseudonym.
        folder: Its folder.
        state: `RECEIVING`, `PREDICTED`, `DONE` or `SET_ASIDE`.
        attempts: Attempts to predict it that did not end.
        reason: Why it is set aside.
        last: Time of the last instance, as `time.time` gives it.
        known: Digest of the content of each instance, by its name.
        not_before: Time before which it is left alone, as after a failure.
        refusals: Number of times that its results were refused.
        delays: Number of times that they could not be sent.
    """

    name: str
    folder: Path
    state: str = RECEIVING
    attempts: int = 0
    reason: str = ""
    last: float = 0.0
    known: dict[str, str] = field(default_factory=dict)
    not_before: float = 0.0
    refusals: int = 0
    delays: int = 0

    @property
    def images(self) -> Path:
        """Return the folder of its instances."""
        return self.folder / _IMAGES


class SeriesQueue:
    """Series on disk, by the order in which they were complete.

    Args:
        folder: The queue's folder, which only its owner may read.
        quiet: Seconds without a new instance after which a series is complete.
        largest: Largest size in bytes of all waiting images.
        clock: Gives the time.

    Raises:
        InputError: A state file is damaged.
    """

    def __init__(
        self,
        folder: Path,
        quiet: float,
        largest: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read the states of a queue that was there before."""
        self._series, self._results = folder / SERIES, folder / RESULTS
        for each in (folder, self._series, self._results):
            each.mkdir(parents=True, exist_ok=True)
            each.chmod(0o700)
        self.quiet, self.largest, self.clock = quiet, largest, clock
        self.arrived = threading.Event()
        self._lock = threading.RLock()
        self._bytes = 0
        self.series = {one.name: one for one in map(self._opened, _folders(self._series))}

    def add(self, series: str, sop: str, content: bytes) -> None:
        """Keep an instance; it is on the disk when this returns.

        Args:
            series: SeriesInstanceUID.
            sop: SOPInstanceUID.
            content: The file.

        Raises:
            FullError: The queue is full.
            LateError: The series is finished, and did not have this instance; or the instance was
                received before with other content.
        """
        name, file, digest = pseudonym(series), _digest(sop.encode()), _digest(content)
        with self._lock:
            one = self.series.get(name) or QueuedSeries(name, self._series / name)
            if file in one.known:
                if one.known[file] != digest:
                    raise LateError(f"{name}: an instance came again with other content")
                return
            if one.state in (PREDICTED, DONE):
                raise LateError(
                    f"{name}: an instance came after the series was complete; with a longer "
                    f"--quiet, remove {one.folder} and send the series again"
                )
            if self._bytes + len(content) > self.largest or len(one.known) >= _MOST_INSTANCES:
                raise FullError(f"{name}: the queue holds {self._bytes} bytes already")
            with write_atomically(one.images / f"{file}{_ENDING}", private=True) as temporary:
                temporary.write_bytes(content)
            if one.state == SET_ASIDE:  # more of it has come: it may be whole now
                self._record(one, AGAIN)
            self.series[name] = one
            one.known[file], one.last = digest, self.clock()
            self._bytes += len(content)
        self.arrived.set()

    def next(self) -> QueuedSeries | None:
        """Return a series to work on: one to send, else one that is complete; None: none is."""
        with self._lock:
            now = self.clock()
            ready = [one for one in self.series.values() if one.not_before <= now]
            ready.sort(key=lambda one: (one.state != PREDICTED, one.attempts, one.last))
            for one in ready:
                complete = bool(one.known) and now - one.last >= self.quiet
                if one.state == PREDICTED or (one.state == RECEIVING and complete):
                    return one
            return None

    def record(self, one: QueuedSeries, event: str, reason: str = "") -> None:
        """Write an event of a series to the disk, and change its state."""
        with self._lock:
            self._record(one, event, reason)
            if event == DONE:
                self._bytes -= _size(one.images)
                self._remove(one)

    def predicted(self, one: QueuedSeries, instances: int) -> bool:
        """Record that a series was predicted; False if more of it has come meanwhile.

        Args:
            one: The series.
            instances: Number of the instances that were predicted.
        """
        with self._lock:
            if len(one.known) != instances:
                self._record(one, AGAIN)
                return False
            self._record(one, PREDICTED)
            return True

    def results(self, one: QueuedSeries) -> list[Path]:
        """Return the files that were predicted for a series."""
        return sorted(self._results.glob(f"{one.name}.*"))

    def retry(self) -> None:
        """Try series again that were set aside."""
        with self._lock:
            for one in self.series.values():
                if one.state == SET_ASIDE:
                    self._record(one, AGAIN)

    def counts(self) -> dict[str, int]:
        """Return the number of series by state."""
        with self._lock:
            states = [one.state for one in self.series.values()]
        return {state: states.count(state) for state in (RECEIVING, PREDICTED, DONE, SET_ASIDE)}

    def _remove(self, one: QueuedSeries) -> None:
        shutil.rmtree(one.images, ignore_errors=True)
        for path in self.results(one):
            path.unlink(missing_ok=True)

    def _record(self, one: QueuedSeries, event: str, reason: str = "") -> None:
        line: dict[str, Any] = {"event": event, **({"reason": reason} if reason else {})}
        if event == DONE:
            line["instances"] = one.known
        path = one.folder / _STATE_FILE
        one.folder.mkdir(parents=True, exist_ok=True)
        after = whole_lines(path.read_bytes())[1] if path.exists() else None
        append_lines(path, json.dumps(sealed(line)) + "\n", after=after)
        _apply(one, line)

    def _opened(self, folder: Path) -> QueuedSeries:
        one = QueuedSeries(folder.name, folder)
        for line in _lines(folder / _STATE_FILE):
            _apply(one, line)
        if one.state == DONE:  # the process may have died before it removed them
            self._remove(one)
            return one
        if one.images.is_dir():
            remove_abandoned(one.images, older_than=0)
        for path in sorted(one.images.glob(f"*{_ENDING}")):
            content = path.read_bytes()
            one.known[path.stem] = _digest(content)
            self._bytes += len(content)
            one.last = max(one.last, path.stat().st_mtime)
        return one


def _apply(one: QueuedSeries, line: dict[str, Any]) -> None:
    event = line["event"]
    if event == ATTEMPT:
        one.attempts += 1
    elif event == INTERRUPTED:
        one.attempts -= 1
    elif event == AGAIN:
        one.state, one.attempts, one.reason = RECEIVING, 0, ""
    else:
        one.state, one.reason = event, str(line.get("reason", ""))
    if event == DONE:
        one.known = dict(line["instances"])


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    for number, text in enumerate(whole_lines(content)[0], 1):
        line = parse_json(text, f"{path}: line {number}")
        if not isinstance(line, dict) or not is_whole(line):
            raise InputError(f"{path} is damaged (line {number}); remove its folder")
        yield line


def _size(folder: Path) -> int:
    total = 0
    with suppress(FileNotFoundError):
        total = sum(path.stat().st_size for path in folder.iterdir())
    return total


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
