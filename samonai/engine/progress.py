"""Progress bar of any engine."""

from typing import Any

from ignite.engine import Engine, Events
from rich.console import Console
from rich.progress import Progress, ProgressColumn, TimeRemainingColumn

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

    def show(self, *columns: ProgressColumn, total: int, **fields: Any) -> None:
        """Start a bar of these columns."""
        self.progress = Progress(*columns, TimeRemainingColumn(), console=self.console)
        self.progress.add_task("", total=total, **fields)
        self.progress.start()

    def update(self, **fields: Any) -> None:
        """Update the values that the bar shows, if there is one."""
        if self.progress is not None:
            self.progress.update(self.progress.task_ids[0], **fields)

    def stop(self, engine: Engine) -> None:
        """Stop the bar in its current state."""
        if self.progress is not None:
            self.progress.stop()

    def failed(self, engine: Engine, error: BaseException) -> None:
        """Stop the bar, and re-raise the error: a handler before this one may have raised it."""
        self.stop(engine)
        raise error
