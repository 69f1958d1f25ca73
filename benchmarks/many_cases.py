"""Encoding, training and evaluating growing numbers of tiny cases: CPU time and peak memory.

The network is narrow, and its encoder has no blocks: what grows is all else.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

import samonai
from benchmarks.memory import peak_bytes, reset_peak
from benchmarks.rows import Row
from benchmarks.setting import SEED, Setting, narrow_network
from benchmarks.timing import Progress
from samonai.sam.network import SamNetwork

_CHANNELS = 32
_SIDE = 24
_SLOPE_BAR, _MEMORY_BAR = 1.1, 1.2


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Embed, train for one epoch and evaluate each number of cases, in folders of their own."""
    sizes = setting.many_cases
    network = narrow_network(depth=0)
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as name:
        # The first of all takes longer.
        for number, size in enumerate((2, *sizes)):
            folder = Path(name) / str(number)
            _write_cases(folder, size)
            for verb, job in _jobs(folder, network).items():
                progress(f"{verb}: {size} cases")
                reset_peak()
                start = time.process_time()
                with contextlib.redirect_stdout(io.StringIO()):
                    job()
                if number:
                    seconds.setdefault(verb, []).append(time.process_time() - start)
                    peaks.setdefault(verb, []).append(peak_bytes())
    full = len(sizes) > 2
    rows = []
    for verb, taken in seconds.items():
        slope = float(np.polyfit(np.log(sizes), np.log(taken), 1)[0])
        rows += [
            Row(
                "many_cases",
                f"{verb}, {sizes[0]:,} to {sizes[-1]:,} tiny cases: log-log slope of CPU time",
                slope,
                "slope",
                at_most=_SLOPE_BAR if full else None,
                details=dict(zip(map(str, sizes), taken, strict=True)),
            ),
            Row(
                "many_cases",
                f"{verb} of {sizes[-1]:,} tiny cases: peak memory of {sizes[0]:,}",
                peaks[verb][-1] / peaks[verb][0],
                "x",
                at_most=_MEMORY_BAR if full else None,
                details=dict(zip(map(str, sizes), peaks[verb], strict=True)),
            ),
        ]
    return rows


def _write_cases(folder: Path, count: int) -> None:
    """Write scans of one slice with a square on it."""
    rng = np.random.default_rng(SEED)
    label = np.zeros((_SIDE, _SIDE, 1), np.uint8)
    label[6:14, 8:18] = 1
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        image = (100 * label + rng.normal(0, 10, label.shape)).astype(np.int16)
        for kind, values in (("images", image), ("labels", label)):
            nib.save(nib.Nifti1Image(values, np.eye(4)), folder / kind / f"case_{number:05d}.nii")


def _jobs(folder: Path, network: SamNetwork) -> dict[str, Callable[[], object]]:
    data, store = (folder / "images", folder / "labels"), folder / "store"
    runs: list[samonai.Run] = []

    def train() -> None:
        runs.append(
            samonai.finetune(
                network, *data, out=folder / "run", store=store, epochs=1, val_fraction=0.5,
                progress=False,
            )
        )  # fmt: skip

    def evaluate() -> None:
        samonai.evaluate(
            runs[0], *data, folder / "metrics", cases="all", report=False, progress=False
        )

    return {
        "embed": lambda: samonai.embed(network, *data, store=store),
        "train": train,
        "evaluate": evaluate,
    }
