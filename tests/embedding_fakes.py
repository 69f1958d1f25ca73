"""A domain of .npy files and a network that only averages: what the store's tests encode with."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from samonai.core.errors import InputError
from samonai.core.frame import Frame, FrameLocation
from samonai.domains.base import Case
from samonai.embeddings import EmbeddingStore, encode_cases
from samonai.sam.network import SamNetwork
from samonai.sam.normalisation import SAM_NORMALISATION, Normalisation


@dataclass
class FakeNetwork:
    """Embeds a frame as its mean per channel and a constant; remembers how often it was asked."""

    encoder_sha256: str = "ab" * 32
    normalisation: Normalisation = SAM_NORMALISATION
    seconds: float = 0.0
    fail_at: int | None = None
    encoded: int = 0
    device = torch.device("cpu")
    long_side = 1024
    embedding_shape = (4, 8, 8)

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image.copy()).permute(2, 0, 1).float().mean((1, 2), keepdim=True)

    def encode(self, images: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
        time.sleep(self.seconds)
        if self.fail_at is not None and self.encoded >= self.fail_at:
            raise KeyboardInterrupt
        self.encoded += len(images)
        ones = torch.ones_like(images[:, :1])
        return torch.cat([images, ones], dim=1).expand(-1, 4, 8, 8).clone()


@dataclass(frozen=True)
class Stack:
    """Frames (n, H, W) and their labels."""

    image: np.ndarray
    label: np.ndarray | None
    source_id: str
    spacing = (2.0, 1.0, 0.5)

    def content_hash(self) -> str:
        return hashlib.sha256(self.image.tobytes()).hexdigest()

    def label_hash(self) -> str | None:
        return None if self.label is None else hashlib.sha256(self.label.tobytes()).hexdigest()


class StackDomain:
    """Stacks of 2D frames in .npy files."""

    name = "stack"

    def __init__(self, gain: int = 1) -> None:
        self.gain = gain
        self.read_cases: list[str] = []

    def settings(self) -> dict[str, Any]:
        return {"gain": self.gain}

    def fit(self, cases: Sequence[Case]) -> None:
        """Its stacks share nothing."""

    def find_cases(self, images: Path | str, labels: Path | str | None = None) -> list[Case]:
        return [
            Case(path.stem, path, None if labels is None else Path(labels) / path.name)
            for path in sorted(Path(images).iterdir())
        ]

    def read(self, case: Case) -> Stack:
        self.read_cases.append(case.case_id)
        if case.image.stat().st_size == 0:
            raise InputError(f"{case.case_id} is empty")
        label = None if case.label is None else np.load(case.label)
        return Stack(np.load(case.image), label, case.case_id)

    def frame_count(self, source: Stack) -> int:
        return len(source.image)

    def frame(self, source: Stack, index: int) -> Frame:
        grey = np.minimum(source.image[index].astype(int) * self.gain, 255).astype(np.uint8)
        label = None if source.label is None else source.label[index]
        location = FrameLocation(source.source_id, index)
        return Frame(np.repeat(grey[..., None], 3, axis=2), location, label)

    def merge(self, source: Stack, frame_labels: Mapping[int, np.ndarray]) -> np.ndarray:
        raise AssertionError("encoding merges nothing")


def make_cases(folder: Path, cases: int = 3, frames: int = 5) -> list[Case]:
    """Write stacks whose first frame has no label and whose others have one object each."""
    generator = np.random.default_rng(7)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(cases):
        image = generator.integers(0, 200, (frames, 12, 20), np.uint8)
        label = np.zeros(image.shape, np.uint8)
        label[1:, 3:9, 4:12] = 1 + number % 2
        np.save(folder / "images" / f"case{number}.npy", image)
        np.save(folder / "labels" / f"case{number}.npy", label)
    return StackDomain().find_cases(folder / "images", folder / "labels")


def encode_all(data: Path, url: Path, seconds: float) -> None:
    """Encode every frame of a folder that `make_cases` wrote; what tests run as a process."""
    network, domain = cast(SamNetwork, FakeNetwork(seconds=seconds)), StackDomain()
    cases = domain.find_cases(data / "images", data / "labels")
    encode_cases(network, domain, cases, EmbeddingStore(url), frames="all", progress=False)
