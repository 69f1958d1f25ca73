"""`samonai embed` on a volume: how much of its time the encoder does not work.

By itself, on a scan of yours: `python -m benchmarks.embedding scan.nii.gz vit_b`.
"""

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.apart import run_apart
from benchmarks.rows import Row
from benchmarks.setting import Setting, random_sam
from benchmarks.timing import Progress, timed_encoder
from benchmarks.volume import write_volume
from samonai.cli import main as samonai


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Embed a volume in a process of its own."""
    slices = setting.volume_prompted
    with tempfile.TemporaryDirectory() as folder:
        volume = write_volume(Path(folder), slices)
        progress(f"{setting.model}, {slices} slices: embedding in a process of its own")
        found = run_apart("embedding", str(volume), setting.model)
    return [
        Row(
            "embedding",
            f"{setting.model}, {slices} slices of 512 x 512: time outside the encoder",
            1 - found["encoder_seconds"] / found["seconds"],
            "of all",
            at_most=0.05 if setting.model != "micro" else None,
            details=found,
        )
    ]


def main() -> None:
    """Embed, and print the seconds from the command's start to its end, and the encoder's."""
    volume, model = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, timed_encoder() as inside:
        weights = Path(folder) / f"{model}.pth"
        torch.save(random_sam(model).state_dict(), weights)
        store = Path(folder) / "store"
        command = ["embed", "medical", "--images", volume, "--store", str(store)]
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()) as said:
            failed = samonai([*command, "--model", model, "--checkpoint", str(weights)])
        seconds = time.perf_counter() - start
        assert not failed
    found = {"seconds": seconds, "encoder_seconds": inside[0], "said": said.getvalue()}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
