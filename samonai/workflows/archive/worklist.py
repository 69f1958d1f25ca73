"""Work list of an archive: a failed case does not stop the others, and no case is done twice.

Cases are read in several threads and worked on in one. A case during which the program died is
tried again by itself, to find the one at fault.
"""

import errno
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import remove_abandoned, walk_below
from samonai.core.locks import locked_folder
from samonai.domains.base import Case
from samonai.workflows.archive.manifest import DONE, FAILED, Manifest
from samonai.workflows.archive.parts import WHOLE, Part, check_counts

_DEADLY_ATTEMPTS = 3
_NO_SPACE = {"EDQUOT", "EFBIG", "ENOSPC", "EROFS"}

Read = Callable[[Case], Any]
Work = Callable[[Case, Any], Sequence[Path]]


@contextmanager
def locked_results(folder: Path, part: Part = WHOLE) -> Iterator[None]:
    """Lock a folder, or a part of it, for one process; remove half-written files of killed ones.

    Raises:
        InputError: Another process works there, the folder holds another number of parts, or it
            cannot be written to.
    """
    with locked_folder(folder, part.doing, part.lock):
        check_counts(folder, part)
        if part.count == 1:
            remove_abandoned(folder, older_than=0)
        else:
            remove_abandoned(folder)  # younger ones may be those of another part
        yield


def still_open(cases: Sequence[Case], manifest: Manifest) -> list[Case]:
    """Return the cases without a result; those during which the program died come last."""
    found = [case for case in cases if case.case_id not in manifest.states]
    return sorted(found, key=lambda case: manifest.attempts(case.case_id) > 0)


def work_through(
    cases: Sequence[Case],
    manifest: Manifest,
    read: Read,
    work: Work,
    *,
    readers: int = 2,
    limit: int | None = None,
    on_case: Callable[[str, str], None] | None = None,
    frames: Callable[[Any], int] | None = None,
) -> int:
    """Read cases in parallel and work on them one after the other.

    Args:
        cases: The whole archive; those with a result are skipped.
        manifest: The record of finished cases, which is updated.
        read: Function that reads a case, in one of several threads.
        work: Function that works on a read case, in this thread, and returns the files it wrote.
        readers: Number of cases that are read at once or wait.
        limit: Largest number of cases.
        on_case: Called with each case's id and its result.
        frames: Returns the number of frames of a read case, for the record.

    Returns:
        The number of cases worked on.

    Raises:
        InputError: The disk is full or cannot be written.
    """
    todo = still_open(cases, manifest)[:limit]
    fresh = [case for case in todo if not manifest.attempts(case.case_id)]
    suspects = todo[len(fresh) :]
    _Team(manifest, read, work, on_case, frames).run(fresh, max(1, readers))
    # One at a time, to find the one that brings the program down.
    alone = _Team(manifest, read, work, on_case, frames, alone=True)
    for case in suspects:
        if manifest.alone(case.case_id) >= _DEADLY_ATTEMPTS:
            reason = f"the program died {_DEADLY_ATTEMPTS} times while working on it alone"
            manifest.finished(case.case_id, FAILED, reason)
            continue
        alone.run([case], 1)
    return len(todo)


class _Team:
    """Reader threads, and one worker on their results."""

    def __init__(
        self,
        manifest: Manifest,
        read: Read,
        work: Work,
        on_case: Callable[[str, str], None] | None,
        frames: Callable[[Any], int] | None,
        *,
        alone: bool = False,
    ) -> None:
        self.manifest, self.read, self.work = manifest, read, work
        self.on_case, self.frames, self.alone = on_case, frames, alone

    def run(self, cases: Sequence[Case], readers: int) -> None:
        """Work on all cases."""
        ahead: dict[Future[Any], tuple[Case, float]] = {}
        coming = iter(cases)
        pool = ThreadPoolExecutor(readers, thread_name_prefix="samonai-reader")

        def fill() -> None:
            while len(ahead) < readers and (case := next(coming, None)) is not None:
                self.manifest.started(case.case_id, alone=self.alone)
                ahead[pool.submit(self.read, case)] = case, time.monotonic()

        try:
            fill()
            while ahead:
                ready, _ = wait(ahead, return_when=FIRST_COMPLETED)
                future = next(iter(ready))
                case, began = ahead.pop(future)
                fill()
                self._finish(case, future, began)
        finally:
            # An interrupt does not wait for reads that are no longer needed.
            pool.shutdown(wait=False, cancel_futures=True)

    def _finish(self, case: Case, future: Future[Any], began: float) -> None:
        state, reason = DONE, ""
        files: tuple[Path, ...] = ()
        frames = 0
        try:
            item = future.result()
            files = tuple(self.work(case, item))
            frames = 0 if self.frames is None else self.frames(item)
        except InputError as error:
            stop_when_full(error)
            state, reason = FAILED, without_paths(str(error), case)
        except Exception as error:  # an error of one study must not stop the others
            stop_when_full(error)
            state, reason = FAILED, place_of(error)
        seconds = time.monotonic() - began
        self.manifest.finished(case.case_id, state, reason, files, seconds, frames)
        if self.on_case is not None:
            self.on_case(case.case_id, state)


def without_paths(message: str, case: Case) -> str:
    """Return a message with the case's id instead of its folder, and its files by number.

    Folders and files are often named after patients, and manifests are shared.
    """
    where = str(case.image)
    if where not in message:
        return message
    if case.image.is_dir():
        found = walk_below(case.image)
        for number in range(len(found.files), 0, -1):  # IM10 before IM1
            named = f"file {number} of {len(found.files)}"
            message = message.replace(str(found.files[number - 1]), f"{case.case_id}, {named}")
        folders = {*found.unreadable, *(path.parent for path in found.files)} - {case.image}
        for folder in sorted(folders, reverse=True):
            message = message.replace(str(folder), f"{case.case_id}, a folder in it")
    return message.replace(where, case.case_id)


def place_of(error: BaseException) -> str:
    """Return the type of an error and its location; its text may quote a patient's data."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[2])
    ours = [
        frame
        for frame in frames
        if frame.filename.startswith(package) and frame.filename != __file__
    ] or frames
    place = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return f"unexpected {type(error).__name__}{place}; please report it"


def stop_when_full(error: BaseException) -> None:
    """Refuse to go on if an error is of a disk that is full or cannot be written.

    Raises:
        InputError: The disk is full or cannot be written.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and errno.errorcode.get(cause.errno or 0) in _NO_SPACE:
            raise InputError(
                f"cannot write results: {cause.strerror}; make room and run the same command again"
            ) from error
        cause = cause.__cause__ or cause.__context__
