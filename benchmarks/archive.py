"""The bar for archives: 200 studies, 10 broken in ten ways, one command, killed twice on the way.

    python -m benchmarks.archive [--studies 190] [--folder DIR]

The studies hold a few different scans and the run has a store, so that most of the time goes into
this measurement, reading, writing and keeping account, and not into the encoder.
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
CONTENTS = 4
FORMATS = ("dicom-seg", "nifti")


def main() -> None:
    """Make the archive, run, kill twice, run to the end, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=190)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="samonai-archive-") as scratch:
        _measure(asked.folder or Path(scratch), asked.studies)


def _measure(folder: Path, good: int) -> None:
    factory = _factory()
    broken: dict[str, str] = factory.write_archive(folder / "in", good, contents=CONTENTS)
    total = good + len(broken)
    cases = [f"site{n % 3}__study{n:04d}__CT" for n in range(total)]
    boxes = factory.write_boxes(folder / "boxes.csv", cases)
    command = [
        *(sys.executable, "-m", "samonai", "predict", "medical", "--model", "micro", "--archive"),
        *("--input", str(folder / "in"), "--boxes", str(boxes), "--out", str(folder / "out")),
        *("--store", str(folder / "store")),
        *(word for name in FORMATS for word in ("--format", name)),
    ]
    began = time.monotonic()
    for share in (0.3, 0.7):
        _killed(command, folder / "out", round(share * total))
    last = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)
    seconds = time.monotonic() - began
    print(json.dumps(_found(folder / "out", broken, seconds), indent=1))  # noqa: T201
    print(last.stdout.splitlines()[-1] if last.stdout else last.stderr)  # noqa: T201


def _factory() -> Any:
    """Return the tests' maker of archives."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    return importlib.import_module("archive_factory")


def _killed(command: list[str], out: Path, enough: int) -> None:
    """Run until so many studies have come to an end, then kill."""
    process = subprocess.Popen(command, cwd=REPOSITORY)
    while process.poll() is None and len(_ends(out)) < enough:
        time.sleep(0.05)
    process.kill()
    process.wait()


def _ends(out: Path) -> list[dict[str, Any]]:
    path = out / "manifest.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().rpartition(b"\n")[0].split(b"\n")[1:]
    found = [json.loads(line) for line in lines if line]
    return [line for line in found if line["state"] in ("done", "failed", "skipped")]


def _found(out: Path, broken: dict[str, str], seconds: float) -> dict[str, Any]:
    ends = _ends(out)
    counts = Counter(line["case"] for line in ends)
    failed = {line["case"]: line["reason"] for line in ends if line["state"] != "done"}
    return {
        "results": sum((out / f"{case}.seg.dcm").is_file() for case in counts),
        "done": sum(line["state"] == "done" for line in ends),
        "reasons": len(failed),
        "reasons_are_of_the_broken": failed.keys() == broken.keys(),
        "done_more_than_once": sum(count > 1 for count in counts.values()),
        "half_written_files": len(list(out.glob(".writing-*"))),
        "seconds": round(seconds, 1),
        "why": {broken.get(case, case): reason for case, reason in sorted(failed.items())},
    }


if __name__ == "__main__":
    main()
