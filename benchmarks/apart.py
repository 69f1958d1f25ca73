"""A measurement in a process of its own: its peak memory and its allocator are nobody else's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).parents[1]

BEFORE = "SAMONAI_BEFORE"
"""Environment variable: the checkout of an earlier version, to measure beside this one."""


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
