"""Box prompts derived from a label map: a reference to measure with, or a coarse one to refine."""

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.domains.base import Domain
from samonai.embeddings.targets import build_targets
from samonai.errors import InputError
from samonai.geometry import FrameGeometry
from samonai.inference.inferer import FramePrompts
from samonai.sampling import jitter_boxes

REGIMES = ("slices", "volume")
"""A box per frame and component, or one box per class around the whole structure."""


def prompts_from_label(
    domain: Domain,
    source: Any,
    *,
    regime: str = "slices",
    box_jitter: float = 0.0,
    min_area: int = 1,
    seed: int = 0,
) -> dict[int, FramePrompts]:
    """Derive box prompts from the label of a source.

    Args:
        domain: Cuts the frames.
        source: A source with a label.
        regime: "slices" puts a box around each connected component of each class on each frame;
            "volume" puts one box per class around the whole structure, on all its frames.
        box_jitter: Each side moves by up to this share of the box's width or height, drawn from
            the seed, the source and the frame.
        min_area: Components of fewer pixels get no box.
        seed: Seed of the jitter.

    Raises:
        InputError: The regime is not known.
    """
    if regime not in REGIMES:
        raise InputError(f"prompts {regime!r} are not known; use one of {', '.join(REGIMES)}")
    prompts: dict[int, FramePrompts] = {}
    sizes: dict[int, tuple[int, int]] = {}
    for index in range(domain.frame_count(source)):
        frame = domain.frame(source, index)
        if frame.label is None or not frame.label.any():
            continue
        targets = build_targets(frame, min_area)
        boxes = FrameGeometry(frame.size).boxes_to_frame(targets.boxes)
        prompts[index] = FramePrompts(boxes, targets.classes.astype(np.int64))
        sizes[index] = frame.size
    if regime == "volume":
        prompts = _around_structures(prompts)
    if not box_jitter:
        return prompts
    return {
        index: FramePrompts(
            _jittered(frame_prompts.boxes, box_jitter, sizes[index], (seed, source, index)),
            frame_prompts.classes,
        )
        for index, frame_prompts in prompts.items()
    }


def _around_structures(prompts: dict[int, FramePrompts]) -> dict[int, FramePrompts]:
    """Replace all boxes of a class by the one around them, on every frame they span."""
    structures: dict[int, tuple[npt.NDArray[np.float32], list[int]]] = {}
    for index, frame_prompts in prompts.items():
        for box, value in zip(frame_prompts.boxes, frame_prompts.classes.tolist(), strict=True):
            old, indices = structures.setdefault(value, (box, []))
            joined = np.concatenate([np.minimum(old[:2], box[:2]), np.maximum(old[2:], box[2:])])
            structures[value] = joined, [*indices, index]
    spread: dict[int, FramePrompts] = {}
    for index in sorted(prompts):
        inside = [
            (box, value)
            for value, (box, indices) in structures.items()
            if min(indices) <= index <= max(indices)
        ]
        spread[index] = FramePrompts(
            np.array([box for box, _ in inside], np.float32).reshape(-1, 4),
            np.array([value for _, value in inside], np.int64),
        )
    return spread


def _jittered(
    boxes: npt.NDArray[np.float32],
    jitter: float,
    size: tuple[int, int],
    key: tuple[int, Any, int],
) -> npt.NDArray[np.float32]:
    seed, source, index = key
    generator = np.random.default_rng((seed, zlib.crc32(source.source_id.encode()), index))
    return jitter_boxes(boxes, jitter, (size[1], size[0]), generator)
