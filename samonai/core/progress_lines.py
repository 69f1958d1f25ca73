"""Progress as lines, for output that is redirected to a file: one a minute at most."""

import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import IO

told_by_lines: ContextVar[bool] = ContextVar("told_by_lines", default=False)
"""Whether jobs print lines without a terminal, as for the command line."""

EVERY = 60.0
"""Seconds between lines."""


class ProgressLines:
    """Lines with the work done of all work and the time left.

    Args:
        title: Name of the work.
        total: Amount of all work; None: not known yet.
        file: The stream; standard error by default.
        clock: Seconds.
        every: Seconds between lines.
    """

    def __init__(
        self,
        title: str,
        total: float | None,
        file: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY,
    ) -> None:
        """Start the clock."""
        self.title, self.total = title, total
        self._file, self._clock, self._every = file, clock, every
        self._start = self._last = clock()
        self._first: float | None = None
        self.completed = 0.0

    def update(self, completed: float, details: str = "", *, now: bool = False) -> None:
        """Set the work done, and print a line if a minute has passed since the last one.

        Args:
            completed: The work done, in the unit of the total.
            details: Further words of the line.
            now: Print at once, as at the end of an epoch.
        """
        self._first = completed if self._first is None else self._first
        self.completed = completed
        seconds = self._clock()
        if now or seconds - self._last >= self._every:
            self._last = seconds
            print(self._line(details, seconds), file=self._file or sys.stderr, flush=True)

    def _line(self, details: str, seconds: float) -> str:
        parts = [part for part in (details, self._left(seconds)) if part]
        share = "" if not self.total else f" {100 * min(self.completed / self.total, 1):.0f} %"
        return f"{self.title}:{share}{', ' if share and parts else ' ' if parts else ''}" + (
            ", ".join(parts)
        )

    def _left(self, seconds: float) -> str:
        """Return the time left, from the speed since the start; empty while it is not known."""
        done = self.completed - (self._first or 0.0)
        passed = seconds - self._start
        if not self.total or done <= 0 or passed <= 0:
            return ""
        left = max(self.total - self.completed, 0) * passed / done
        minutes, rest = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        shown = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
        return f"{shown} left"
