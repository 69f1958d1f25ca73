"""Job of `benchmarks.hour`: two predictions of one scan by a run, timed apart.

It uses what this tree and earlier ones have in common, and prints JSON on its last line.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import samonai

_BOX = [20, 14, 3, 40, 32, 7]  # inside `house_jobs.VOLUME`


def main(cases: Path, volume: Path) -> None:
    """Train one epoch on tiny cases, and predict a volume twice."""
    with tempfile.TemporaryDirectory() as folder:
        run = samonai.finetune(
            "micro",
            cases / "images",
            cases / "labels",
            out=Path(folder) / "run",
            epochs=1,
            progress=False,
        )
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            run.predict(volume, [_BOX])
            seconds.append(time.perf_counter() - start)
    print(json.dumps({"first": seconds[0], "second": seconds[1]}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
