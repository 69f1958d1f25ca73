"""Reading embeddings from the store, checksums verified, against reading bare files."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.rows import Row, speed_up
from benchmarks.setting import SEED, Setting, network_of, random_sam
from benchmarks.timing import Contestant, Progress, interleave
from samonai.embeddings.store import EmbeddingStore, SourceEmbeddings


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Measure GB/s from the operating system's cache, as every epoch but the first reads."""
    shape = network_of(random_sam(setting.model), setting.model).embedding_shape
    with filled_store(setting.frames, shape) as source, tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{index}.npy") for index in range(setting.frames)]
        for index, file in enumerate(files):
            np.save(file, source.read(index))
        times = interleave(
            {
                "store": Contestant(
                    lambda: [source.read(index) for index in range(setting.frames)],
                    images=setting.frames,
                ),
                "bare files": Contestant(
                    lambda: [np.load(file, allow_pickle=False) for file in files],
                    images=setting.frames,
                ),
            },
            rounds=setting.short_rounds,
            warm_up=True,
            progress=progress,
        )
    gigabytes = np.prod(shape) * 2 / 1e9
    rounds = [gigabytes / seconds for seconds in times["store"].rounds]
    return [
        Row(
            "store",
            "reading with checksums",
            float(gigabytes / times["store"].median),
            "GB/s",
            spread=(float(min(rounds)), float(max(rounds))),
        ),
        speed_up(
            "store", "faster than np.load of bare files", ours=times["store"],
            theirs=times["bare files"],
        ),
    ]  # fmt: skip


@contextmanager
def filled_store(frames: int, shape: tuple[int, int, int]) -> Iterator[SourceEmbeddings]:
    """Yield a source of random embeddings in a temporary store.

    Args:
        frames: Number of frames.
        shape: (C, h, w) of one embedding.
    """
    generator = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder:
        section = EmbeddingStore(Path(folder)).section({"encoder": "random"})
        source = section.source("00" * 32, frames, shape, "benchmark")
        for index in range(frames):
            embedding: npt.NDArray[np.float32] = generator.standard_normal(shape, np.float32)
            source.write(index, embedding)
        yield source
