"""Prediction of a whole volume: peak memory, time outside the encoder, and upstream's way."""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from segment_anything import SamPredictor

from benchmarks.apart import run_apart
from benchmarks.memory import peak_bytes
from benchmarks.rows import Row, speed_up
from benchmarks.setting import SEED, Setting, network_of, random_sam
from benchmarks.timing import Contestant, Progress, interleave, timed_encoder
from samonai.core.geometry import FrameGeometry
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.types import Prompts
from samonai.workflows.run import predict

_SIDE = 512
_GIGABYTE = 1e9
_FULL_SLICES = 600


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Predict a volume in processes of their own, and single slices against `SamPredictor`."""
    slices, prompted = setting.volume_slices, setting.volume_prompted
    full = slices >= _FULL_SLICES  # a quick run only shows that the measurement works
    light = _predict_apart("micro", slices, setting.volume_memory_prompted, progress)
    # All of a volume's slices: the work outside the encoder grows with them as the encoding does.
    whole = _predict_apart(setting.model, prompted, prompted, progress)
    part = _predict_apart(setting.model, slices, prompted, progress)
    return [
        Row(
            "volume",
            f"micro, {_size(slices)}, {setting.volume_memory_prompted} slices prompted: peak "
            f"memory",
            light["peak_bytes"] / _GIGABYTE,
            "GB",
            at_most=2.5 if full else None,
            details=light,
        ),
        _outside_row(
            f"{setting.model}, {_size(prompted)}, all slices prompted",
            whole,
            0.1 if full and setting.model != "micro" else None,
        ),
        _outside_row(f"{setting.model}, {_size(slices)}, {prompted} slices prompted", part, None),
        _slice_row(setting, progress),
    ]


def _size(slices: int) -> str:
    return f"{_SIDE} x {_SIDE} x {slices}"


def _outside_row(what: str, found: dict[str, float], at_most: float | None) -> Row:
    return Row(
        "volume",
        f"{what}: time outside the encoder, reading and writing included",
        1 - found["encoder_seconds"] / found["seconds"],
        "of all",
        at_most=at_most,
        details=found,
    )


@torch.no_grad()
def _slice_row(setting: Setting, progress: Progress) -> Row:
    """Compare one slice from pixels to mask, encoder included, in each one's usual precision."""
    sam = random_sam(setting.model)
    network, upstream = network_of(sam, setting.model), SamPredictor(sam)
    image = _slices(1)[0, :, :, None].repeat(3, 2)
    box = np.array([100.0, 120.0, 380.0, 400.0], np.float32)
    geometry = FrameGeometry((_SIDE, _SIDE))
    prompts = Prompts.of_frame(FramePrompts(box[None], np.ones(1, np.int64)), geometry)

    def ours() -> object:
        embedding = network.encode(network.preprocess(image)[None], "auto")
        return geometry.logits_to_frame(network.decode(embedding, prompts).low_res_logits) > 0

    def theirs() -> object:
        upstream.set_image(image)
        return upstream.predict(box=box, multimask_output=False)

    times = interleave(
        {"ours": Contestant(ours), "SamPredictor": Contestant(theirs)},
        rounds=setting.rounds,
        warm_up=False,
        progress=progress,
    )
    return speed_up(
        "volume",
        f"{setting.model}, slice by slice: faster than SamPredictor",
        ours=times["ours"],
        theirs=times["SamPredictor"],
    )


def _slices(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    generator = np.random.default_rng(SEED)
    return generator.integers(0, 255, (count, _SIDE, _SIDE), np.uint8)


def write_volume(folder: Path, slices: int) -> Path:
    """Write a volume of random values, 512 x 512 in the plane, and return its file."""
    path = folder / "volume.nii"
    data = _slices(slices).transpose(1, 2, 0).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.diag([0.8, 0.8, 1.0, 1.0])), path)
    return path


def _predict_apart(model: str, slices: int, prompted: int, progress: Progress) -> dict[str, float]:
    progress(f"{model}, {slices} slices: prediction in a process of its own")
    with tempfile.TemporaryDirectory() as folder:
        volume = write_volume(Path(folder), slices)
        return run_apart("volume", str(volume), model, str(slices), str(prompted))


def main() -> None:
    """Predict, and print the seconds, those within the encoder, and the process's peak memory."""
    volume, model, slices, prompted = sys.argv[1:]
    network = network_of(random_sam(model), model)
    first = (int(slices) - int(prompted)) // 2
    box = [100, 120, first, 380, 400, first + int(prompted)]
    with tempfile.TemporaryDirectory() as out, timed_encoder() as inside:
        start = time.perf_counter()
        predict(network, Path(volume), [box], Path(out), progress=False)
        seconds = time.perf_counter() - start
    found = {"seconds": seconds, "encoder_seconds": inside[0], "peak_bytes": peak_bytes()}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
