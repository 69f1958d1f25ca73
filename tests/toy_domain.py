"""A domain in 100 lines: stacks of grey pictures as .npy files, each picture a frame.

It fulfils `samonai.domains.base.Domain` and has no optional ability.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from samonai.core.errors import InputError
from samonai.core.frame import Frame, FrameLocation
from samonai.domains.base import Case, Merger
from samonai.domains.tiling.frames import FrameMerger
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.values import PromptFile, prompt_content


@dataclass(frozen=True)
class Stack:
    """uint8 (K, H, W) and its label map, integer (K, H, W)."""

    source_id: str
    pictures: np.ndarray
    label: np.ndarray | None = None
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)

    def content_hash(self) -> str:
        return hashlib.sha256(self.pictures.tobytes()).hexdigest()

    def label_hash(self) -> str | None:
        return None if self.label is None else hashlib.sha256(self.label.tobytes()).hexdigest()


class StackDomain:
    """Stacks of pictures; `gain` multiplies the grey values."""

    name = "toy"
    prompt_endings = (".json",)
    non_pixel_settings = frozenset[str]()

    def __init__(self, gain: int = 1) -> None:
        self.gain = gain

    def settings(self) -> dict[str, Any]:
        return {"gain": self.gain}

    def find_cases(self, images: Path | str, labels: Path | str | None = None) -> list[Case]:
        found = Path(images)
        paths = [found] if found.is_file() else sorted(found.glob("*.npy"))
        if not paths:
            raise InputError(f"{images}: no .npy files")
        return [
            Case(path.stem, path, None if labels is None else Path(labels) / path.name)
            for path in paths
        ]

    def class_names(
        self,
        images: Path | str,
        labels: Path | str | None = None,
        cases: Sequence[Case] | None = None,
    ) -> None:
        return None

    def fit(self, cases: Sequence[Case]) -> None:
        return None

    def read(self, case: Case) -> Stack:
        stack = Stack(case.case_id, np.load(case.image, allow_pickle=False) * self.gain)
        return stack if case.label is None else self.with_label(stack, case.label)

    def with_label(self, source: Stack, label: np.ndarray | Path) -> Stack:
        read = np.load(label, allow_pickle=False) if isinstance(label, Path) else label
        return replace(source, label=np.asarray(read))

    def read_boxes(
        self, source: Stack, path: PromptFile, *, class_names: Any = None, only_case: bool = True
    ) -> Mapping[int, FramePrompts]:
        rows = prompt_content(path)["boxes"]
        classes = np.ones(len(rows), np.int64)
        boxes = FramePrompts(np.array(rows, np.float32), classes)
        return dict.fromkeys(range(self.frame_count(source)), boxes)

    def frame_count(self, source: Stack) -> int:
        return len(source.pictures)

    def frame(self, source: Stack, index: int) -> Frame:
        label = None if source.label is None else source.label[index]
        image = np.repeat(source.pictures[index][..., None], 3, axis=-1)
        return Frame(image, FrameLocation(source.source_id, index), label)

    def merger(self, source: Stack) -> Merger:
        return FrameMerger(self, source)

    def merge(self, source: Stack, frame_labels: Mapping[int, np.ndarray]) -> np.ndarray:
        label = np.zeros(source.pictures.shape, np.int32)
        for index, values in frame_labels.items():
            label[index] = values
        return label

    def read_back(self, path: Path) -> np.ndarray:
        return np.load(path, allow_pickle=False)

    def write(self, source: Stack, label: np.ndarray, path: Path) -> Path:
        path = path.with_name(path.name.removesuffix(".npy") + ".npy")
        np.save(path, label)
        return path
