"""Contestants take turns on the clock."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from samonai.sam.network import SamNetwork

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Contestant:
    """Something to time.

    Attributes:
        run: One repetition, start to end.
        images: How many images one repetition works on; times are per image.
        repeats: Repetitions per round. Short ones take more, so that each round is a fair sample.
    """

    run: Callable[[], object]
    images: int = 1
    repeats: int = 1


@dataclass(frozen=True)
class Timing:
    """Seconds per image: the median of each round's repetitions, in the order of the rounds."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the median round in seconds per image."""
        return median(self.rounds)


def interleave(
    contestants: Mapping[str, Contestant], *, rounds: int, warm_up: bool, progress: Progress
) -> dict[str, Timing]:
    """Time all contestants in turns: A B C A B C ….

    Args:
        contestants: What to time, by name.
        rounds: Turns that each contestant gets.
        warm_up: Run each once before the clock starts.
        progress: Told what runs now.
    """
    if warm_up:
        for name, contestant in contestants.items():
            progress(f"{name}: warm-up")
            contestant.run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds):
        for name, contestant in contestants.items():
            progress(f"{name}: round {turn + 1} of {rounds}")
            taken = [_clock(contestant.run) for _ in range(contestant.repeats)]
            seconds[name].append(median(taken) / contestant.images)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@contextlib.contextmanager
def timed_encoder() -> Iterator[list[float]]:
    """Give a list whose only number grows by the seconds that any network spends encoding."""
    inside, encode = [0.0], SamNetwork.encode

    def timed(self: SamNetwork, *arguments: Any, **options: Any) -> torch.Tensor:
        start = time.perf_counter()
        try:
            return encode(self, *arguments, **options)
        finally:
            inside[0] += time.perf_counter() - start

    # On the class: prediction works on forks of the network.
    SamNetwork.encode = timed  # type: ignore[method-assign]
    try:
        yield inside
    finally:
        SamNetwork.encode = encode  # type: ignore[method-assign]
