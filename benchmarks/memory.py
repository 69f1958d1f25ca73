"""Peak memory of one encoding, in a process of its own: `python -m benchmarks.memory` (Linux)."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

_RESET_PEAK = "5"


def main() -> None:
    """Print {"added_bytes": …} for the model, forward and precision of the arguments."""
    from benchmarks.encoder import encode
    from benchmarks.setting import random_images, random_sam

    model, whose, precision = sys.argv[1:]
    sam, image = random_sam(model), random_images(1)
    added = added_bytes(lambda: encode(whose, precision, sam, image))
    sys.stdout.write(json.dumps({"added_bytes": added}))


def added_bytes(work: Callable[[], object]) -> int:
    """Return the peak memory of some work above what this process has before it."""
    # What came before may have taken more than the work will.
    reset_peak()
    before = _status_bytes("VmRSS")
    work()
    return peak_bytes() - before


def reset_peak() -> None:
    """Let this process's peak memory count from now on."""
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)


def peak_bytes() -> int:
    """Return this process's peak memory since it began, or since `reset_peak`."""
    return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    # Not getrusage: its peak lives on through exec and would be the parent's.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
