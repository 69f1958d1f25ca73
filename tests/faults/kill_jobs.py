"""Jobs killed at random moments and run again, in processes forked from one that imported torch.

`python kill_jobs.py FOLDER JOB ROUNDS SEED` runs a job undisturbed, then kills it (SIGKILL) at a
random moment of as many rounds, runs it again until it ends, and compares what came out byte by
byte. It prints a line of JSON for each round, and ends with 1 where anything differs.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archive_factory import write_boxes, write_study
from tiny_scans import write_scans

import samonai
from samonai.core.pseudonyms import pseudonym
from samonai.workflows.archive.archive import predict_archive


def train(given: Path, out: Path) -> None:
    samonai.finetune(
        "micro", given / "images", given / "labels", out=out / "run", store=out / "store",
        epochs=2, learning_rate=1e-3, val_fraction=0.3, progress=False,
    )  # fmt: skip


def embed(given: Path, out: Path) -> None:
    samonai.embed("micro", given / "images", given / "labels", store=out / "store")


def evaluate(given: Path, out: Path) -> None:
    samonai.evaluate(
        given / "run", given / "images", given / "labels", out / "metrics", report=False,
        progress=False,
    )  # fmt: skip


def predict(given: Path, out: Path) -> None:
    predict_archive(
        "micro", given / "studies", given / "boxes.csv", out / "maps", store=out / "store"
    )


JOBS: dict[str, tuple[Callable[[Path, Path], None], tuple[str, ...]]] = {
    "train": (train, ("run/decoder.safetensors", "run/history.json", "run/split.json")),
    "embed": (embed, ("store/*/embeddings/*", "store/targets/*")),
    "evaluate": (evaluate, ("metrics/metrics.json", "metrics/metrics.csv")),
    "predict": (predict, ("maps/**/*.nii.gz",)),
}


def forked(job: Callable[[Path, Path], None], given: Path, out: Path) -> int:
    """Start a job in a child, and return its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log = os.open(out.parent / f"{out.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        job(given, out)
        code = 0
    finally:
        os._exit(code)


def to_its_end(job: Callable[[Path, Path], None], given: Path, out: Path) -> float:
    """Run a job until it ends; return the seconds."""
    start = time.monotonic()
    _, status = os.waitpid(forked(job, given, out), 0)
    if status:
        log = out.parent / f"{out.name}.log"
        raise SystemExit(f"{out.name}: status {status}: {log.read_text()[-3000:]}")
    return time.monotonic() - start


def contents(out: Path, patterns: tuple[str, ...]) -> dict[str, bytes]:
    """Return the bytes of what a job is for, by name."""
    found = sorted(path for pattern in patterns for path in out.glob(pattern) if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


def main(folder: Path, name: str, rounds: int, seed: int) -> int:
    job, patterns = JOBS[name]
    given = folder / "given"
    if not given.exists():
        write_scans(given)
        for number in range(3):
            write_study(given / "studies" / f"study{number}", number)
        cases = [pseudonym(f"study{number}__CT") for number in range(3)]
        write_boxes(given / "boxes.csv", cases)
    if name == "evaluate" and not (given / "run").exists():
        to_its_end(lambda given, out: train(given, given), given, folder / "before")
    undisturbed = folder / f"{name}_undisturbed"
    seconds = to_its_end(job, given, undisturbed)
    expected = contents(undisturbed, patterns)
    assert len(expected) >= len(patterns) - 1, expected.keys()
    draw, differing = random.Random(f"{name} {seed}"), 0
    for number in range(rounds):
        out = folder / f"{name}_{number}"
        moments = [round(draw.uniform(0, seconds), 3) for _ in range(draw.choice((1, 1, 2)))]
        for moment in moments:
            child = forked(job, given, out)
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        to_its_end(job, given, out)
        found = contents(out, patterns)
        left = [str(p.relative_to(out)) for p in out.rglob(".writing-*")]
        said: dict[str, Any] = {"job": name, "killed_at": moments, "of": round(seconds, 2)}
        same = found == expected
        differing += not same
        told = json.dumps({**said, "equal": same, "files": len(found), "left": left})
        sys.stdout.write(told + "\n")
        sys.stdout.flush()
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
