"""Communication between the processes of one run; a single process is the main process."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def is_main_process() -> bool:
    """Return whether this process writes files: the only one, or rank 0 of several."""
    return not _are_several() or dist.get_rank() == 0


def gather(values: list[T]) -> list[T]:
    """Return the values of all processes, in the order of their ranks; all must call it."""
    if not _are_several():
        return values
    parts: list[list[T]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, values)
    return [value for part in parts for value in part]


def gather_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of all processes; of several processes by case."""
    found = gather(rows)
    return found if found is rows else sorted(found, key=lambda row: str(row["case"]))


def main_process_first(work: Callable[[], T]) -> T:
    """Let rank 0 run the block first, so that the others find its result on disk."""
    if not _are_several():
        return work()
    done = [work()] if is_main_process() else []
    dist.barrier()
    return done[0] if done else work()


def _are_several() -> bool:
    return dist.is_available() and dist.is_initialized()
