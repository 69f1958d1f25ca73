"""A measurement in a process of its own: its peak memory and its allocator are nobody else's."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

_REPOSITORY = Path(__file__).parents[1]

BEFORE = "SAMONAI_BEFORE"
"""Environment variable: the checkout of an earlier version, to measure beside this one."""


class ProcessCost(NamedTuple):
    """Costs of a process.

    Attributes:
        cpu: CPU seconds, the system's included.
        wall: Seconds on the clock.
        peak: Peak resident memory in MiB.
        said: The last line of its output, if it is JSON.
    """

    cpu: float
    wall: float
    peak: float
    said: dict[str, Any]


def earlier_checkout() -> Path | None:
    """Return the checkout to measure beside this one; None where none is named."""
    named = os.environ.get(BEFORE)
    return Path(named).resolve() if named else None


def run_apart(module: str, *arguments: str) -> dict[str, Any]:
    """Return what `python -m benchmarks.MODULE` says: JSON, on the last line that it prints.

    Raises:
        CalledProcessError: It failed.
    """
    return _last_line([sys.executable, "-m", f"benchmarks.{module}", *arguments])


def run_in_tree(script: str, *arguments: object, tree: Path | None = None) -> dict[str, Any]:
    """Return what a script beside this file prints last: JSON, from the `samonai` of a checkout.

    The script names no module that another checkout does not have, so the façade only.

    Args:
        script: Its name, with ".py".
        *arguments: Given to it as text.
        tree: The checkout; None: this one.

    Raises:
        CalledProcessError: It failed.
    """
    # Without -P, the script's own folder and the current one would go before the checkout.
    command = [sys.executable, "-P", str(Path(__file__).parent / script), *map(str, arguments)]
    return _last_line(command, PYTHONPATH=str(tree or _REPOSITORY))


def process_cost(tree: Path, folder: Path, *arguments: str, check: bool = True) -> ProcessCost:
    """Run Python with a checkout's package and one thread; return its costs.

    Args:
        tree: The checkout.
        folder: The current folder of the process.
        *arguments: Given to Python.
        check: Whether an exit code other than 0 is an error.

    Raises:
        RuntimeError: The process failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments], env=environment, stdout=out, stderr=errors, cwd=folder
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        for stream in (out, errors):
            stream.seek(0)
        if check and process.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {errors.read()[-2000:]}")
        last = (out.read().splitlines() or [""])[-1]
    said = json.loads(last) if last.startswith("{") else {}
    return ProcessCost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, said)


def _last_line(command: list[str], **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        command,
        cwd=_REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
