"""How the process treats memory that tensors give back."""

import ctypes
import os
import platform

# malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST = 2**31 - 1
SWITCH = "SAMONAI_KEEP_FREED_MEMORY"
"""Set to 0 in the environment, it leaves memory as it is."""
_CHOSEN_BY_USER = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Let this process keep what large tensors free, for the next ones, instead of returning it.

    By default glibc maps every allocation of 32 MiB or more anew, and the system clears its pages
    one by one as they are touched: over a third of a decoder step of vit_b on 8 frames. Kept memory
    costs a quarter more at the peak (`python -m benchmarks --only freed` measures both), and stays
    with the process until it ends. For long work that allocates the same sizes again and again; a
    user who chose otherwise, by `SAMONAI_KEEP_FREED_MEMORY=0` or by the variables that glibc reads,
    is left alone.

    Returns:
        Whether it took effect: on Linux with glibc, unless the user chose otherwise.
    """
    chosen = os.environ.get(SWITCH) == "0" or any(os.environ.get(n) for n in _CHOSEN_BY_USER)
    if platform.system() != "Linux" or chosen:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))
