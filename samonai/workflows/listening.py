"""Listener: series that arrive by C-STORE are predicted without prompts, and results are sent.

Everything is on disk before it counts: a killed listener goes on where it stopped, and sends
nothing twice. A series that fails again and again is set aside, and the others go on.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samonai.core.errors import InputError
from samonai.core.locks import locked_folder
from samonai.domains.base import Case
from samonai.workflows.archive.worklist import place_of, stop_when_full, without_paths
from samonai.workflows.bundle_engine import one_line_errors, quiet_third_parties
from samonai.workflows.pacs_ends import opened_sink, sent_formats
from samonai.workflows.prediction_job import PredictionJob

if TYPE_CHECKING:
    from samonai.pacs.queue import QueuedSeries, SeriesQueue
    from samonai.pacs.receiver import ReceiverOptions

logger = logging.getLogger(__name__)

ATTEMPTS = 3
_LOOK_AGAIN_SECONDS = 1.0
_FIRST_DELAY, _LONGEST_DELAY = 5.0, 600.0


class Listener:
    """Predicts the series of a queue, one at a time, and sends the results.

    Args:
        run: The run, several of them, or a model's name; as for `predict`.
        queue: The queue.
        folder: Its folder.
        send: Address of the PACS that results are sent to.
        formats: Formats of the results; none: DICOM-SEG.
        attempts: Attempts before a series is set aside.
        tell: Called with a line per event; no line names a patient.
        **options: Further arguments of `predict`.

    Raises:
        InputError: The run needs prompts, which nobody gives here, or an argument cannot be used.
    """

    def __init__(
        self,
        run: Any,
        queue: "SeriesQueue",
        folder: Path,
        send: str,
        formats: Sequence[str] = (),
        attempts: int = ATTEMPTS,
        tell: Callable[[str], None] = logger.info,
        **options: Any,
    ) -> None:
        """Load the networks."""
        from samonai.pacs.queue import RESULTS, SERIES

        sink = opened_sink(send)
        assert sink is not None
        self.queue, self.sink, self.attempts, self.tell = queue, sink, attempts, tell
        with one_line_errors(), quiet_third_parties():
            self._job = PredictionJob(
                run, folder / SERIES, None, folder / RESULTS, formats=sent_formats(formats),
                **options,
            )  # fmt: skip
            self._job.start(several=True)

    def run(self) -> None:
        """Work until the process is ended by a signal."""
        while True:
            if not self.step():
                self.queue.arrived.wait(_LOOK_AGAIN_SECONDS)
                self.queue.arrived.clear()

    def step(self) -> bool:
        """Work on one series; False: none is ready.

        Raises:
            InputError: The disk is full or cannot be written.
        """
        from samonai.pacs.queue import PREDICTED, SET_ASIDE

        one = self.queue.next()
        if one is None:
            return False
        if one.state == PREDICTED:
            self._send(one)
        elif one.attempts >= self.attempts:
            self._set_aside(one, f"the program died {one.attempts} times while working on it")
        else:
            self._predict(one)
        if one.state == SET_ASIDE:
            self.tell(f"{one.name}: set aside: {one.reason}")
        return True

    def _predict(self, one: "QueuedSeries") -> None:
        from samonai.pacs.queue import ATTEMPT, INTERRUPTED

        case, instances = Case(one.name, one.images), len(one.known)
        self.queue.record(one, ATTEMPT)
        try:
            with one_line_errors(), quiet_third_parties():
                self._job.write(self._job.decode(case, self._job.read(case)))
        except InputError as error:
            stop_when_full(error)
            if len(one.known) == instances:  # else more of it has come
                self._set_aside(one, without_paths(str(error), case))
            return
        except Exception as error:  # an error of one series must not stop the others
            stop_when_full(error)
            self._failed(one, place_of(error))
            return
        except BaseException:  # the process is ended, for which the series is not at fault
            self.queue.record(one, INTERRUPTED)
            raise
        if self.queue.predicted(one, instances):
            self.tell(f"{one.name}: predicted from {instances} instances")

    def _failed(self, one: "QueuedSeries", reason: str) -> None:
        if one.attempts >= self.attempts:
            self._set_aside(one, reason)
        else:
            self.tell(f"{one.name}: attempt {one.attempts} failed: {reason}")

    def _send(self, one: "QueuedSeries") -> None:
        from samonai.pacs.client import UnreachableError
        from samonai.pacs.queue import DONE

        try:
            sent = self.sink.send(self.queue.results(one))
        except InputError as error:
            if not isinstance(error, UnreachableError):
                one.refusals += 1
            if one.refusals >= self.attempts:
                self._set_aside(one, str(error))
                return
            delay = min(_FIRST_DELAY * 2 ** min(one.delays, 10), _LONGEST_DELAY)
            one.delays, one.not_before = one.delays + 1, self.queue.clock() + delay
            self.tell(f"{one.name}: not sent: {error}; again in {delay:.0f} s")
            return
        self.queue.record(one, DONE)
        objects = f"{len(sent)} objects stored" if sent else "nothing was found"
        self.tell(f"{one.name}: {objects}")

    def _set_aside(self, one: "QueuedSeries", reason: str) -> None:
        from samonai.pacs.queue import SET_ASIDE

        self.queue.record(one, SET_ASIDE, reason)


@contextmanager
def listening(
    run: Any,
    folder: Path,
    send: str,
    receiver: "ReceiverOptions",
    *,
    quiet: float = 30.0,
    largest: int = 50 << 30,
    retry: bool = False,
    **options: Any,
) -> Iterator[tuple[Listener, int]]:
    """Open the queue and the network's end, and yield the listener and the port.

    Args:
        run: See `Listener`.
        folder: Folder of the queue, for one process at a time.
        send: See `Listener`.
        receiver: Who may send, and where to.
        quiet: Seconds without a new instance after which a series is complete.
        largest: Largest size in bytes of all waiting images; more is refused.
        retry: Try series again that were set aside.
        **options: See `Listener`.

    Raises:
        InputError: An argument cannot be used, or the port cannot be bound.
    """
    if quiet < 0:
        raise InputError(f"quiet={quiet:g}: expected seconds, 0 or more")
    # Options of a receiver come from its module, so what that needs is installed.
    from samonai.pacs.queue import SeriesQueue
    from samonai.pacs.receiver import Receiver

    with locked_folder(folder, "listening into"):
        queue = SeriesQueue(folder, quiet, largest)
        if retry:
            queue.retry()
        listener = Listener(run, queue, folder, send, **options)
        ends = Receiver(queue, receiver)
        try:
            yield listener, ends.port
        finally:
            ends.stop()
