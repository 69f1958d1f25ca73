"""Peak memory of a 512x512x600 CT series read, predicted (micro) and written as DICOM-SEG.

    python -m benchmarks.clinical [--slices 600] [--folder DIR] [--format dicom-seg] (Linux)

The bar is 3 GB. A few slices are prompted: memory is the same for all of them, and the encoder's
seconds per slice are not measured here.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDE = 512
BAR_BYTES = 3e9
PROMPTED = 3


def main() -> None:
    """Write the series, predict it in a process of its own, and print its time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--format", action="append", dest="formats")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="samonai-clinical-") as scratch:
        _measure(asked.folder or Path(scratch), asked.slices, asked.formats or ["dicom-seg"])


def _measure(folder: Path, slices: int, formats: list[str]) -> None:
    from samonai.domains.medical.phantom.dicom import write_series

    rng = np.random.default_rng(0)
    data = rng.integers(-100, 200, (SIDE, SIDE, slices), np.int16)
    affine = np.diag([-0.8, -0.8, 1.0, 1.0])
    if not (folder / "in").is_dir():
        write_series(folder / "in", data, affine, number=1, seed=0)
    del data
    middle = slices // 2
    box = [100, 120, middle, 380, 400, middle + PROMPTED]
    (folder / "boxes.json").write_text(json.dumps({"boxes": [box]}))
    command = [
        *(sys.executable, "-m", "samonai", "predict", "medical", "--model", "micro", "--measure"),
        *("--input", str(folder / "in"), "--boxes", str(folder / "boxes.json")),
        *("--out", str(folder / "out")),
        *(word for name in formats for word in ("--format", name)),
    ]
    began = time.monotonic()
    _, status, usage = os.wait4(os.spawnv(os.P_NOWAIT, sys.executable, command), 0)
    peak = usage.ru_maxrss * 1024
    found = {
        "exit_code": os.waitstatus_to_exitcode(status),
        "peak_gb": round(peak / 1e9, 3),
        "bar_met": peak <= BAR_BYTES,
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "files": {path.name: path.stat().st_size for path in sorted((folder / "out").iterdir())},
    }
    print(json.dumps(found, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
