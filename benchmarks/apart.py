"""A measurement in a process of its own: its peak memory and its allocator are nobody else's."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).parents[1]


def run_apart(module: str, *arguments: str) -> dict[str, Any]:
    """Return what `python -m benchmarks.MODULE` says: JSON, on the last line that it prints.

    Raises:
        CalledProcessError: It failed.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
