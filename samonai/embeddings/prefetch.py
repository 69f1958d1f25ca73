"""Prefetching: a background thread prepares the next items during work on the current one."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Final, TypeVar

Item = TypeVar("Item")

_POLL_SECONDS = 0.1
_END: Final = object()


class _Failure:
    """Carries an exception from the background thread."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def prefetch(items: Iterator[Item], depth: int) -> Generator[Item]:
    """Yield the items of an iterator that runs ahead in a thread by at most `depth` items.

    An exception of the iterator is raised here, in its place. Closing this generator stops the
    thread at its next item; use it within `contextlib.closing`.

    Args:
        items: The iterator; consumed in the background thread only.
        depth: Largest number of waiting items.
    """
    waiting: queue.Queue[object] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: object) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_END)
        except BaseException as error:  # raised again where the items are used
            put(_Failure(error))

    # A daemon: an interrupted process must not wait for a large file to be read to its end.
    thread = threading.Thread(target=run, name="samonai-prefetch", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(timeout=1.0)
