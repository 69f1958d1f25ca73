"""Property-based tests: drawn and damaged files, the same every time; more by `make faults`."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from samonai.core.errors import InputError

LONG = "SAMONAI_FAULTS"
TIMES = int(os.environ.get(LONG) or 1)
"""How many times as many examples are drawn as in CI; `make faults` sets it."""

flips = st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 7)), max_size=4)
kept = st.one_of(st.just(1.0), st.floats(0, 1))


def seeded(examples: int) -> settings:
    """Return settings of a test that draws the same examples every time."""
    return settings(
        max_examples=examples * TIMES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def damaged(content: bytes, bits: list[tuple[float, int]], part: float = 1.0) -> bytes:
    """Return the first part of a file, with single bits of it flipped."""
    found = bytearray(content[: max(1, int(len(content) * part))])
    for place, bit in bits:
        found[int(place * len(found))] ^= 1 << bit
    return bytes(found)


def one_line(read: Callable[[], Any]) -> Any:
    """Return what a reader gives, or None where it refuses in one line, within a minute."""
    signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(60)
    try:
        return read()
    except InputError as error:
        if len(str(error).splitlines()) != 1:
            raise ValueError("not one line") from error
        return None
    finally:
        signal.alarm(0)


def _too_late(*_: object) -> None:
    raise TimeoutError("a reader that does not end")


def in_folder(folder: Path, name: str, content: bytes) -> Path:
    """Write a file, over one of that name, and return its path."""
    path = folder / name
    path.write_bytes(content)
    return path
