"""Jobs of `benchmarks.house`, each in a process of its own, under the tree on its PYTHONPATH.

They use what this tree and earlier ones have in common; each prints JSON on its last line.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import nibabel as nib
import numpy as np

_TINY = (16, 16, 4)
VOLUME = (64, 48, 10)
BOX = [20, 14, 3, 40, 32, 7]


def write_inputs(folder: Path, small: int, cases: int) -> None:
    """Write two data sets of tiny labelled cases, and a volume with one box."""
    generator = np.random.default_rng(0)
    label = np.zeros(_TINY, np.uint8)
    label[4:10, 5:12, 1] = 1
    for count in (small, cases):
        for number in range(count):
            image = generator.normal(100, 20, _TINY) + 80 * label
            for name, values in (("images", image.astype(np.int16)), ("labels", label)):
                path = folder / f"cases{count}" / name / f"case{number:04d}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    volume = generator.normal(100, 20, VOLUME).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / "volume.nii.gz")
    (folder / "box.json").write_text(json.dumps({"boxes": [BOX]}))


class _FirstStep(BaseException):
    """Raised in place of the first call of the decoder."""


def first_step(folder: Path, small: int, cases: int) -> dict[str, Any]:
    """Measure the time of a training up to its first step, over a store that is warm.

    Embeddings are random: the encoder takes no part. Imports are done before the clock starts.
    """
    import torch

    import samonai
    from samonai.sam.network import SamNetwork

    def encode(self: Any, images: Any, precision: str = "auto") -> Any:
        return torch.randn(len(images), *self.embedding_shape)

    def stop(*_: Any, **__: Any) -> Any:
        raise _FirstStep

    SamNetwork.encode = encode  # type: ignore[method-assign]
    SamNetwork.decode = stop  # type: ignore[method-assign]
    store = folder / "store"

    def train(count: int) -> None:
        data = folder / f"cases{count}"
        out = folder / "run"
        try:
            samonai.finetune(
                "micro", data / "images", data / "labels", out=out, store=store, epochs=1
            )
        except _FirstStep:
            shutil.rmtree(out, ignore_errors=True)

    for count in (small, cases):
        train(count)
    own = "store.json"  # of the store and of its section
    files = sum(path.is_file() and path.name != own for path in store.rglob("*"))
    seconds = {count: [_cpu(partial(train, count)) for _ in range(3)] for count in (small, cases)}
    return {
        "seconds": median(seconds[cases]),
        "per_case": (median(seconds[cases]) - median(seconds[small])) / (cases - small),
        "files_per_case": files / (small + cases),
    }


def session(folder: Path) -> dict[str, Any]:
    """Measure a prediction by a session whose store has the embeddings."""
    from samonai import Session

    opened = Session("micro", store=folder / "session_store", device="cpu")
    source, prompts = folder / "volume.nii.gz", {"boxes": [BOX]}
    for _ in range(2):
        opened.predict(source, prompts)
    walls, seconds = [], []
    for _ in range(5):
        start = time.perf_counter()
        seconds.append(_cpu(lambda: opened.predict(source, prompts)))
        walls.append(time.perf_counter() - start)
    return {"wall": median(walls), "seconds": median(seconds)}


def encode_and_decode(folder: Path) -> dict[str, Any]:
    """Measure the encoding and decoding of a prediction without a store, by themselves."""
    from samonai import Session
    from samonai.sam.network import SamNetwork

    opened = Session("micro", memory=0, device="cpu")
    inside = [0.0]

    def timed(method: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return method(*arguments, **options)
            finally:
                inside[0] += time.process_time() - start

        return run

    SamNetwork.encode = timed(SamNetwork.encode)  # type: ignore[method-assign]
    SamNetwork.decode = timed(SamNetwork.decode)  # type: ignore[method-assign]
    opened.predict(folder / "volume.nii.gz", {"boxes": [BOX]})
    return {"seconds": inside[0]}


def _cpu(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main(job: str, folder: str, *numbers: str) -> None:
    """Run one job, and print what it measured."""
    jobs: dict[str, Callable[..., dict[str, Any]]] = {
        "first_step": first_step, "session": session, "encode_and_decode": encode_and_decode,
    }  # fmt: skip
    found = jobs[job](Path(folder), *map(int, numbers))
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
