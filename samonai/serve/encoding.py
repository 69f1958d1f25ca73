"""Queue of frames to encode while somebody looks: from the visible frame outward.

One thread encodes into the session's store, a frame at a time, and none while a click is decoded,
so that a click waits for one frame at most. A second session on the same store begins where the
first one ended.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from samonai.core.errors import InputError

logger = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 1.0


class EncodingQueue:
    """Encodes frames of the case that is looked at, the visible one first.

    Args:
        encode: Encodes one frame of a case: case id, frame number.
        reach: Frames on each side of the visible one that are encoded; None: all.
    """

    def __init__(self, encode: Callable[[str, int], None], reach: int | None = None) -> None:
        """Start the thread."""
        self._encode, self._reach = encode, reach
        self._wanted: tuple[str, int, int] | None = None
        self._ready: dict[str, set[int]] = {}
        self._failed: dict[str, str] = {}
        self._clicks = 0
        self._working = False
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="samonai-encoding", daemon=True)
        self._thread.start()

    def look_at(self, case_id: str, frame: int, count: int) -> None:
        """Put a frame first, and those beside it behind it.

        Args:
            case_id: The case.
            frame: The visible frame.
            count: Number of frames of the case.
        """
        with self._changed:
            self._wanted = case_id, frame, count
            self._failed.pop(case_id, None)
            self._changed.notify_all()

    @contextmanager
    def click(self) -> Iterator[None]:
        """Begin no frame in the meantime: whoever waits at the screen comes first."""
        with self._changed:
            self._clicks += 1
        try:
            yield
        finally:
            with self._changed:
                self._clicks -= 1
                self._changed.notify_all()

    def wait_until_idle(self, stopped: Callable[[], bool]) -> None:
        """Return when nothing is encoded or clicked, or when `stopped` is true."""
        with self._changed:
            while not stopped() and (self._clicks or self._working or self._next() is not None):
                self._changed.wait(_LOOK_AGAIN_SECONDS)

    def mark_ready(self, case_id: str, frame: int) -> None:
        """Note that a frame was encoded by a click."""
        with self._changed:
            self._ready.setdefault(case_id, set()).add(frame)

    def ready(self, case_id: str) -> list[int]:
        """Return the frames of a case that are encoded, as far as this server knows."""
        with self._changed:
            return sorted(self._ready.get(case_id, ()))

    def failure(self, case_id: str) -> str | None:
        """Return why a case's frames cannot be encoded; None: they can."""
        with self._changed:
            return self._failed.get(case_id)

    def forget(self) -> None:
        """Forget which frames are encoded, as after a change of the encoder."""
        with self._changed:
            self._ready.clear()
            self._changed.notify_all()

    def stop(self) -> None:
        """End the thread after the frame in hand."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._working = False
                self._changed.notify_all()
                while not self._stopped and (self._clicks or self._next() is None):
                    self._changed.wait()
                if self._stopped:
                    return
                following = self._next()
                self._working = True
            assert following is not None
            case_id, frame = following
            try:
                self._encode(case_id, frame)
            except (InputError, OSError, RuntimeError) as error:  # full disk, CUDA out of memory
                logger.warning("%s: frame %d is not encoded: %s", case_id, frame, error)
                with self._changed:
                    self._failed[case_id] = str(error)
                continue
            self.mark_ready(case_id, frame)

    def _next(self) -> tuple[str, int] | None:
        if self._wanted is None or self._wanted[0] in self._failed:
            return None
        case_id, visible, count = self._wanted
        done = self._ready.get(case_id, set())
        for frame in outward(visible, count, self._reach):
            if frame not in done:
                return case_id, frame
        return None


def outward(first: int, count: int, reach: int | None = None) -> Iterator[int]:
    """Yield frame numbers from one outward: first, first + 1, first - 1, and so on.

    Args:
        first: The first one.
        count: Number of frames; those from 0 to count - 1 are yielded.
        reach: Farthest distance from the first; None: all.
    """
    for distance in range(count if reach is None else min(reach + 1, count)):
        for frame in dict.fromkeys((first + distance, first - distance)):
            if 0 <= frame < count:
                yield frame
