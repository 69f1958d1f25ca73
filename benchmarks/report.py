"""The result as a table and as JSON, with the machine and the versions that it holds for."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.rows import Row
from benchmarks.setting import Setting
from samonai.core.files import write_atomically

_PACKAGES = ("samonai", "torch", "segment-anything", "monai", "numpy")


def table_of(rows: Sequence[Row]) -> Table:
    """Lay the rows out for the terminal."""
    table = Table("subject", "what", "value", "spread", "bar", "", title="samonai benchmarks")
    for row in rows:
        verdict = {None: "", True: "met", False: "[red]missed[/red]"}[row.met]
        spread = f"{row.spread[0]:.3g} to {row.spread[1]:.3g}" if row.spread else ""
        value = f"{row.value:.3g} {row.unit}"
        table.add_row(row.subject, row.name, value, spread, _bar(row), verdict)
    return table


def write_report(rows: Sequence[Row], setting: Setting, path: Path) -> None:
    """Write the rows, the setting, the machine and the versions as JSON."""
    document = {
        "machine": _machine(),
        "versions": {name: version(name) for name in _PACKAGES},
        "setting": asdict(setting),
        "rows": [{**asdict(row), "met": row.met} for row in rows],
    }
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _bar(row: Row) -> str:
    if row.at_least is not None:
        return f"≥ {row.at_least:g}"
    return f"≤ {row.at_most:g}" if row.at_most is not None else ""


def _machine() -> dict[str, Any]:
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _processor_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
