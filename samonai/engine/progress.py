"""Progress bar of any engine."""

from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events
from rich.console import Console
from rich.progress import Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from samonai.core.progress_lines import ProgressLines
from samonai.engine.processes import is_main_process


class EngineProgress:
    """Progress bar over the iterations of an engine, on the main process only.

    Args:
        console: The console; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        """Keep the console."""
        self.console = console or Console(stderr=True)
        self.progress: Progress | None = None
        self.lines: ProgressLines | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to the engine."""
        if is_main_process():
            engine.add_event_handler(Events.STARTED, self.started)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
            engine.add_event_handler(Events.COMPLETED, self.stop)
            engine.add_event_handler(Events.TERMINATE, self.stop)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self.failed)

    def started(self, engine: Engine) -> None:
        """Show the bar."""

    def iteration_completed(self, engine: Engine) -> None:
        """Move the bar."""

    def epoch_completed(self, engine: Engine) -> None:
        """Update the bar after an epoch."""

    def show(self, title: str, *columns: ProgressColumn, total: int, **fields: Any) -> None:
        """Start a bar of these columns after a title; lines where the output is no terminal."""
        if not self.console.is_terminal:
            self.lines = ProgressLines(title, total, self.console.file)
            return
        columns = (TextColumn(title), *columns)
        self.progress = Progress(*columns, TimeRemainingColumn(), console=self.console)
        self.progress.add_task("", total=total, **fields)
        self.progress.start()

    def update(self, **fields: Any) -> None:
        """Update the values that the bar shows, if there is one; or the lines."""
        if self.lines is not None and "completed" in fields:
            self.lines.update(fields["completed"], self.details(fields))
        if self.progress is not None:
            self.progress.update(self.progress.task_ids[0], **fields)

    def details(self, fields: Mapping[str, Any]) -> str:
        """Return the words of a line besides share and time left."""
        return ""

    def stop(self, engine: Engine) -> None:
        """Stop the bar in its current state."""
        if self.progress is not None:
            self.progress.stop()

    def failed(self, engine: Engine, error: BaseException) -> None:
        """Stop the bar, and re-raise the error: a handler before this one may have raised it."""
        self.stop(engine)
        raise error
