"""Progress bar of encoding."""

import os
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from samonai.core.progress_lines import ProgressLines


class EncodeProgress:
    """Frames done of all frames, those reused, and the remaining time; on standard error.

    Cases are opened one by one, so the frames of those not yet opened are estimated from the
    mean of those that were.
    """

    def __init__(self, cases: int, *, shown: bool) -> None:
        """Prepare a bar over so many cases; without a terminal only the last line appears."""
        self._cases = cases
        # Of torchrun's processes the first one says so.
        shown = shown and os.environ.get("RANK", "0") == "0"
        self._shown = shown
        self._console = Console(stderr=True)
        self._opened = self._frames = self._reused = 0
        self._progress = Progress(
            TextColumn("encoding"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("frames, {task.fields[reused]} reused"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (shown and self._console.is_terminal),
            transient=True,
        )
        self._lines = None
        if shown and not self._console.is_terminal:
            self._lines = ProgressLines("encoding", None, self._console.file)
        self._task: TaskID = self._progress.add_task("encoding", total=None, reused=0)

    def __enter__(self) -> Self:
        """Start the bar."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._progress.stop()

    def opened(self, frames: int, reused: int) -> None:
        """Count a case with so many frames, some of them in the store already."""
        self._opened += 1
        self._frames += frames
        self._reused += reused
        total = round(self._frames * max(self._cases, self._opened) / self._opened)
        self._progress.update(self._task, total=total, advance=reused, reused=self._reused)
        if self._lines is not None:
            self._lines.total = total
            self._count(reused)

    def encoded(self, frames: int) -> None:
        """Count frames that were encoded."""
        if frames:
            self._progress.update(self._task, advance=frames)
            self._count(frames)

    def _count(self, frames: int) -> None:
        if self._lines is not None:
            done = self._lines.completed + frames
            self._lines.update(done, f"{done:.0f} of about {self._lines.total:.0f} frames")

    def finish(self, summary: str) -> None:
        """Replace the bar by one line."""
        self._progress.stop()
        if self._shown:
            self._console.print(summary, highlight=False, soft_wrap=True, markup=False)
