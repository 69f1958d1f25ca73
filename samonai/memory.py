"""How the process treats memory that tensors give back."""

import ctypes
import os
import platform

# malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST = 2**31 - 1
_CHOSEN_BY_USER = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Let this process keep what large tensors free, for the next ones, instead of returning it.

    By default glibc maps every allocation of 32 MiB or more anew, and the system clears its pages
    one by one as they are touched: in a decoder step of vit_b on 8 frames that is more than half of
    the time (`python -m benchmarks --only freed`). Kept memory costs a fifth more at the peak, and
    stays with the process until it ends. For long work that allocates the same sizes again and
    again; a user who chose otherwise, by the variables that glibc reads, is left alone.

    Returns:
        Whether it took effect: on Linux with glibc, unless the user chose otherwise.
    """
    if platform.system() != "Linux" or any(os.environ.get(name) for name in _CHOSEN_BY_USER):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))
