"""Memory: check of free memory before large allocations, and glibc's handling of freed memory."""

import ctypes
import os
import platform
from pathlib import Path

from samonai.core.errors import InputError

# malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST = 2**31 - 1
_GIB = 1 << 30
SWITCH = "SAMONAI_KEEP_FREED_MEMORY"
"""Environment variable; 0 leaves the allocator unchanged."""
_CHOSEN_BY_USER = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Keep the memory of freed tensors in this process for the next ones.

    By default glibc maps every allocation of 32 MiB or more anew, and the system clears its pages
    one by one when they are touched: over a third of a decoder step of vit_b on 8 frames. Kept
    memory costs a quarter more at the peak (`python -m benchmarks --only freed` measures both), and
    stays with the process until it ends. For long work that allocates the same sizes again and
    again. `SAMONAI_KEEP_FREED_MEMORY=0` or any of the variables that glibc reads switches it off.

    Returns:
        Whether it took effect: on Linux with glibc, unless the user switched it off.
    """
    chosen = os.environ.get(SWITCH) == "0" or any(os.environ.get(n) for n in _CHOSEN_BY_USER)
    if platform.system() != "Linux" or chosen:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))


def check_memory(wanted: int, what: str) -> None:
    """Refuse an allocation larger than the free memory, before it is made.

    Args:
        wanted: Bytes.
        what: The file or its content, for the message.

    Raises:
        InputError: Less than `wanted` is free.
    """
    available = available_memory()
    if available is not None and wanted > available:
        raise InputError(
            f"{what} needs {wanted / _GIB:.1f} GiB of memory, and {available / _GIB:.1f} GiB are "
            "free; if it is no damaged file, use a machine with more, or give a smaller part of it"
        )


def available_memory() -> int | None:
    """Return the bytes that this process can still allocate; None where the system reports none.

    The minimum of the system's free memory, the remainder of the control group's limit and that
    of the process's own limit on address space.
    """
    free = [_system_memory(), _group_memory(), _address_space()]
    return min((each for each in free if each is not None), default=None)


def _system_memory() -> int | None:
    """Return MemAvailable and free swap of Linux, in bytes."""
    lines = _text("/proc/meminfo").splitlines()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    try:
        return sum(int(found[key].split()[0]) << 10 for key in ("MemAvailable", "SwapFree"))
    except (KeyError, ValueError, IndexError):
        return None


def _group_memory() -> int | None:
    """Return the remainder of a container's memory limit (control groups, version 2)."""
    limit, used = (_text(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    cached = dict(
        line.split() for line in _text("/sys/fs/cgroup/memory.stat").splitlines() if " " in line
    ).get("inactive_file", "0")
    if not limit.isdecimal() or not used.isdecimal():
        return None
    return max(int(limit) - int(used) + int(cached), 0)


def _address_space() -> int | None:
    if platform.system() != "Linux":
        return None
    import resource  # Unix only

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _text("/proc/self/statm").split()
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return max(limit - int(pages[0]) * resource.getpagesize(), 0)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
