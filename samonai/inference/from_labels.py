"""Box prompts derived from a label map: a reference to measure with, or a coarse one to refine."""

import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.domains.base import Case, Domain
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
    margin: float = 0.0,
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
        margin: Boxes grow by so many pixels on each side, as far as the frame goes.

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
        if not len(targets.classes):
            continue
        boxes = _grown(FrameGeometry(frame.size).boxes_to_frame(targets.boxes), margin, frame.size)
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


@dataclass(frozen=True)
class LabelPrompts:
    """Gives a labelled case the prompts that `prompts_from_label` derives.

    Attributes:
        regime: As there, like the rest.
        box_jitter: As there.
        min_area: As there.
        seed: As there.
    """

    regime: str = "slices"
    box_jitter: float = 0.0
    min_area: int = 1
    seed: int = 0

    def __call__(self, domain: Domain, case: Case, source: Any) -> dict[int, FramePrompts]:
        """Return a case's prompts by frame index."""
        return prompts_from_label(domain, source, **self.settings())

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)


def _grown(
    boxes: npt.NDArray[np.float32], margin: float, size: tuple[int, int]
) -> npt.NDArray[np.float32]:
    grown = boxes + np.array([-margin, -margin, margin, margin], np.float32)
    limits = np.array([size[1], size[0], size[1], size[0]], np.float32)
    return np.clip(grown, 0, limits).astype(np.float32) if margin else boxes


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
