"""Growth of time and memory: an epoch with its frames, a decode with its prompts."""

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.memory import peak_bytes, reset_peak
from benchmarks.rows import Row
from benchmarks.setting import (
    SEED,
    Setting,
    narrow_network,
    network_of,
    random_boxes,
    random_embeddings,
    random_sam,
)
from benchmarks.steps import decoder_optimizer
from benchmarks.timing import Contestant, Progress, Timing, interleave
from samonai.embeddings import EmbeddingStore, FrameTargets
from samonai.embeddings.target_store import SourceTargets, save_targets
from samonai.prompts.sampling import PromptSampler
from samonai.prompts.types import Prompts
from samonai.sam.network import SamNetwork
from samonai.training import FrameDataset, MaskLoss, frame_loader, prepare_batch
from samonai.training.data.stored import StoredCase

_CHANNELS = 32
_FRAMES_PER_CASE = 100
_SLOPE_BAR = 0.05
_MEMORY_BAR = 1.1


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Measure an epoch over growing stores, and decoding growing numbers of prompts."""
    return [*_epoch_rows(setting, progress), _prompts_row(setting, progress)]


def _epoch_rows(setting: Setting, progress: Progress) -> list[Row]:
    """Train epochs of a narrow decoder: what grows is the same, and it takes minutes, not hours."""
    sizes = setting.scaling_frames
    network = narrow_network(depth=1).train()
    peaks: dict[int, int] = {}
    with _cases(max(sizes), network) as cases:
        _epoch(network, cases, min(sizes), setting.batch, {})  # the first of all takes longer
        contestants = {
            str(size): Contestant(partial(_epoch, network, cases, size, setting.batch, peaks))
            for size in sizes
        }
        times = interleave(
            contestants, rounds=setting.scaling_rounds, warm_up=False, progress=progress
        )
    full = len(sizes) > 2  # a quick run only shows that the measurement works
    slope = log_slope(sizes, [times[str(size)] for size in sizes])
    return [
        Row(
            "scaling",
            f"epoch, {sizes[0]:,} to {sizes[-1]:,} frames: log-log slope of time",
            slope,
            "slope",
            at_least=1 - _SLOPE_BAR if full else None,
            at_most=1 + _SLOPE_BAR if full else None,
            details={size: list(timing.rounds) for size, timing in times.items()},
        ),
        Row(
            "scaling",
            f"epoch of {sizes[-1]:,} frames: peak memory of one of {sizes[0]:,}",
            peaks[sizes[-1]] / peaks[sizes[0]],
            "x",
            at_most=_MEMORY_BAR if full else None,
            details={str(size): peak for size, peak in peaks.items()},
        ),
    ]


@torch.no_grad()
def _prompts_row(setting: Setting, progress: Progress) -> Row:
    network = network_of(random_sam(setting.model), setting.model)
    embedding = random_embeddings(network, 1)

    def decode(count: int) -> Callable[[], object]:
        prompts = Prompts.from_boxes(random_boxes(count).numpy())
        return lambda: network.decode(embedding, prompts)

    sizes = setting.scaling_prompts
    times = interleave(
        {str(size): Contestant(decode(size)) for size in sizes},
        rounds=setting.rounds,
        warm_up=True,
        progress=progress,
    )
    return Row(
        "scaling",
        f"{setting.model}, {sizes[0]} to {sizes[-1]} boxes on one frame: log-log slope of time",
        log_slope(sizes, [times[str(size)] for size in sizes]),
        "slope",
        details={size: list(timing.rounds) for size, timing in times.items()},
    )


def log_slope(sizes: Sequence[int], times: Sequence[Timing]) -> float:
    """Return the least-squares slope of log time over log size: 1 is proportional."""
    logs = np.log(np.asarray(sizes, float))
    return float(np.polyfit(logs, [math.log(timing.median) for timing in times], 1)[0])


def _epoch(
    network: SamNetwork, cases: Sequence[StoredCase], size: int, batch: int, peaks: dict[int, int]
) -> None:
    """Train one epoch on the first `size` frames, and note the process's peak memory."""
    reset_peak()
    dataset = FrameDataset(cases[: -(-size // _FRAMES_PER_CASE)], PromptSampler(), seed=SEED)
    dataset.frames = dataset.frames[:size]
    optimizer = decoder_optimizer(network)
    loss_of = MaskLoss()
    for loaded in frame_loader(dataset, batch, seed=SEED):
        image, targets, _, asked = prepare_batch(loaded)
        loss = loss_of(network.decode(image, asked["prompts"]), targets)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
    peaks[size] = max(peaks.get(size, 0), peak_bytes())


@contextmanager
def _cases(frames: int, network: SamNetwork) -> Iterator[list[StoredCase]]:
    """Yield cases of random embeddings that hold at least so many frames.

    The files of all cases are that of the first under other names (hard links): ten thousand
    frames are opened, read and verified, without gigabytes on disk.
    """
    generator = np.random.default_rng(SEED)
    shape = network.embedding_shape
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddingStore(Path(folder))
        section = store.section({"encoder": "random"})
        targets = _targets(store)
        cases: list[StoredCase] = []
        first: Path | None = None
        for number in range(-(-frames // _FRAMES_PER_CASE)):
            name = f"{number:064x}"
            source = section.source(name, _FRAMES_PER_CASE, shape, f"case {number}")
            place = Path(folder) / section.name / "embeddings" / name
            if first is None:
                first = place
                for index in range(_FRAMES_PER_CASE):
                    source.write(index, generator.standard_normal(shape, np.float32))
            else:
                os.link(first, place)
            cases.append(StoredCase(f"case {number}", source, targets))
        yield cases


def _targets(store: EmbeddingStore) -> SourceTargets:
    """Store one square object on each frame of a case."""
    components = np.zeros((256, 256), np.uint16)
    components[60:120, 40:140] = 1
    frame = FrameTargets(
        image_size=(1024, 1024),
        components=components,
        valid=np.ones((256, 256), bool),
        ignored=np.zeros((256, 256), bool),
        classes=np.ones(1, np.int32),
        boxes=np.array([[160, 240, 560, 480]], np.float32),
        areas=np.array([96_000], np.int32),
        dropped=0,
    )
    return save_targets(
        store,
        "00" * 32,
        ((index, frame) for index in range(_FRAMES_PER_CASE)),
        source_id="random",
        spacing=(1.0, 1.0),
        frame_count=_FRAMES_PER_CASE,
        long_side=1024,
    )
