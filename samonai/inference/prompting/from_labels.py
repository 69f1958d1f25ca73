"""Prompts from a label map: a reference for evaluation, or a coarse one to refine."""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.frame import Frame
from samonai.core.geometry import FrameGeometry
from samonai.core.settings import check_given
from samonai.domains.base import Case, Domain, SourceT
from samonai.embeddings.targets import FrameTargets, build_targets, object_map
from samonai.prompts.clicks import interior_pixel
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.sampling import jitter_boxes
from samonai.settings.choices import SIMULATED_PROMPTS
from samonai.settings.inference import EvaluationSettings

logger = logging.getLogger(__name__)

CLICKED = ("clicks", "middle_click")
"""The regimes with clicks; the others use boxes."""

_FrameBox = tuple[int, npt.NDArray[np.float32], int]
"""Number of a frame, a box on it: float32 (4,) xyxy in frame space, and the box's label value."""


def prompts_from_label(
    domain: Domain[SourceT],
    source: SourceT,
    *,
    regime: str = "slices",
    box_jitter: float = 0.0,
    min_area: int = 1,
    seed: int = 0,
    margin: float = 0.0,
    components: str = "each",
    specks: int = 1,
) -> dict[int, FramePrompts]:
    """Derive prompts from the label of a source.

    Args:
        domain: Cuts the frames.
        source: A source with a label.
        regime: "slices" puts a box around each object on each frame; "volume" puts one box per
            class around the whole structure, on all its frames; "clicks" puts a click into each
            object on each frame; "middle" puts one box per class on the middle one of its frames,
            "middle_click" one click into its largest component there, and "keyframes" boxes on
            the first, the middle and the last one.
        box_jitter: Each side moves by up to this share of the box's width or height, drawn from
            the seed, the source and the frame; a structure's box is drawn once for all frames.
        min_area: Objects of fewer pixels get no prompt.
        seed: Seed of the jitter.
        margin: Boxes grow by so many pixels on each side, as far as the frame goes.
        components: Division of a scattered label into objects, see `embeddings.targets`.
        specks: Objects of fewer pixels get no prompt, unless they are the largest of their class on
            their frame; the log counts them.

    Raises:
        InputError: The regime is unknown.
    """
    if regime not in SIMULATED_PROMPTS:
        known = ", ".join(SIMULATED_PROMPTS)
        raise InputError(f"prompts {regime!r} are not known; use one of {known}")
    if regime == "clicks":
        return _clicks(domain, source, min_area, components)
    if regime == "middle_click":
        return _of_middle_frames(_clicks(domain, source, min_area, "largest"))
    prompts, sizes = _boxes(domain, source, min_area, components, margin, specks)
    key = seed, zlib.crc32(source.source_id.encode())
    if regime == "volume":
        return _around_structures(prompts, sizes, box_jitter, key)
    if regime in ("middle", "keyframes"):
        prompts = _on_few_frames(prompts, ends=regime == "keyframes")
    if not box_jitter:
        return prompts
    return {
        index: replace(found, boxes=_jittered(found.boxes, box_jitter, sizes[index], (*key, index)))
        for index, found in prompts.items()
    }


@dataclass(frozen=True)
class LabelPrompts:
    """Prompts of a labelled case, derived by `prompts_from_label`.

    Attributes:
        regime: As there, like the rest.
        box_jitter: As there.
        min_area: As there.
        seed: As there.
        components: As there.

    Raises:
        InputError: The jitter or the area is out of range, see `EvaluationSettings`.
    """

    regime: str = "slices"
    box_jitter: float = 0.0
    min_area: int = 1
    seed: int = 0
    components: str = "each"

    def __post_init__(self) -> None:
        """Check the jitter and the area as the settings of evaluation are."""
        check_given(EvaluationSettings, {"box_jitter": self.box_jitter, "min_area": self.min_area})

    def __call__(
        self, domain: Domain[SourceT], case: Case, source: SourceT
    ) -> dict[int, FramePrompts]:
        """Return a case's prompts by frame index."""
        return prompts_from_label(domain, source, **self.settings())

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)


def _boxes(
    domain: Domain[SourceT],
    source: SourceT,
    min_area: int,
    components: str,
    margin: float,
    specks: int,
) -> tuple[dict[int, FramePrompts], dict[int, tuple[int, int]]]:
    """Put a box around each object of each frame; return boxes and the size of frames by index."""
    prompts: dict[int, FramePrompts] = {}
    sizes: dict[int, tuple[int, int]] = {}
    left_out = 0
    for index in range(domain.frame_count(source)):
        frame = domain.frame(source, index)
        if frame.label is None or not frame.label.any():
            continue
        targets = build_targets(frame, min_area, components)
        if not len(targets.classes):
            continue
        boxes = _grown(FrameGeometry(frame.size).boxes_to_frame(targets.boxes), margin, frame.size)
        found = FramePrompts(boxes, targets.classes.astype(np.int64), targets.instances)
        kept = _without_specks(targets, specks)
        left_out += len(found) - len(kept)
        prompts[index], sizes[index] = found[kept], frame.size
    if left_out:
        logger.warning(
            "%s: %d specks of fewer than %d pixels in the label map get no prompt",
            *(source.source_id, left_out, specks),
        )
    return prompts, sizes


def _clicks(
    domain: Domain[SourceT], source: SourceT, min_area: int, components: str
) -> dict[int, FramePrompts]:
    """Put a click into each object of each frame."""
    prompts: dict[int, FramePrompts] = {}
    for index in range(domain.frame_count(source)):
        frame = domain.frame(source, index)
        if frame.label is None or not frame.label.any():
            continue
        if found := _interior_clicks(frame, min_area, components):
            prompts[index] = found
    return prompts


def _interior_clicks(frame: Frame, min_area: int, components: str) -> FramePrompts | None:
    """Put a click into the interior centre of each object of a frame; None without objects."""
    numbers, classes, instances = object_map(frame, min_area, components)
    if not len(classes):
        return None
    pixels = [interior_pixel(numbers == number) for number in range(1, len(classes) + 1)]
    points = np.array(pixels, np.float32)[:, None, ::-1] + np.float32(0.5)
    nowhere = np.full((len(classes), 4), np.nan, np.float32)
    labels = np.ones((len(classes), 1), np.int64)
    return FramePrompts(nowhere, classes, instances, np.ascontiguousarray(points), labels)


def _without_specks(targets: FrameTargets, specks: int) -> npt.NDArray[np.int64]:
    """Return the rows of objects of enough pixels, and of the largest of each class."""
    kept = targets.areas >= specks
    for value in np.unique(targets.classes[~kept]):
        rows = np.flatnonzero(targets.classes == value)
        kept[rows[targets.areas[rows].argmax()]] = True
    return np.flatnonzero(kept)


def _grown(
    boxes: npt.NDArray[np.float32], margin: float, size: tuple[int, int]
) -> npt.NDArray[np.float32]:
    grown = boxes + np.array([-margin, -margin, margin, margin], np.float32)
    limits = np.array([size[1], size[0], size[1], size[0]], np.float32)
    return np.clip(grown, 0, limits).astype(np.float32) if margin else boxes


def _of_middle_frames(prompts: dict[int, FramePrompts]) -> dict[int, FramePrompts]:
    """Keep each class's prompts on the middle one of its frames."""
    frames: dict[int, list[int]] = {}
    for index, found in sorted(prompts.items()):
        for value in np.unique(found.classes).tolist():
            frames.setdefault(value, []).append(index)
    middle = {value: indices[len(indices) // 2] for value, indices in frames.items()}
    kept = {
        index: found[np.flatnonzero([middle[value] == index for value in found.classes.tolist()])]
        for index, found in prompts.items()
    }
    return {index: found for index, found in kept.items() if len(found)}


def _on_few_frames(prompts: dict[int, FramePrompts], *, ends: bool) -> dict[int, FramePrompts]:
    """Keep one box per class on the middle one of its frames, and with `ends` on the outer two."""
    frames: dict[int, list[int]] = {}
    for index, found in sorted(prompts.items()):
        for value in np.unique(found.classes).tolist():
            frames.setdefault(value, []).append(index)
    kept: list[_FrameBox] = []
    for value, indices in sorted(frames.items()):
        middle = indices[len(indices) // 2]
        for index in sorted({middle, indices[0], indices[-1]} if ends else {middle}):
            of_class = prompts[index].boxes[prompts[index].classes == value]
            box = np.concatenate([of_class[:, :2].min(0), of_class[:, 2:].max(0)])
            kept.append((index, box, value))
    return _by_frame(kept)


def _around_structures(
    prompts: dict[int, FramePrompts],
    sizes: dict[int, tuple[int, int]],
    jitter: float,
    key: tuple[int, int],
) -> dict[int, FramePrompts]:
    """Replace all boxes of a class by one around them, drawn once, on every frame they span."""
    structures: dict[int, tuple[npt.NDArray[np.float32], int, int]] = {}
    for index, found in sorted(prompts.items()):
        for box, value in zip(found.boxes, found.classes.tolist(), strict=True):
            old, first, _ = structures.setdefault(value, (box, index, index))
            joined = np.concatenate([np.minimum(old[:2], box[:2]), np.maximum(old[2:], box[2:])])
            structures[value] = joined, first, index
    spread: list[_FrameBox] = []
    for value, (box, first, last) in sorted(structures.items()):
        if jitter:
            box = _jittered(box[None], jitter, sizes[first], (*key, value, 0))[0]
        # Frames between without the structure get the box too, as from a user who cannot know.
        spread += [(index, box, value) for index in range(first, last + 1)]
    return _by_frame(spread)


def _by_frame(found: Sequence[_FrameBox]) -> dict[int, FramePrompts]:
    """Return boxes as prompts by the number of their frame, ascending; on a frame as they come."""
    frames: dict[int, tuple[list[npt.NDArray[np.float32]], list[int]]] = {}
    for index, box, value in found:
        boxes, values = frames.setdefault(index, ([], []))
        boxes.append(box)
        values.append(value)
    return {
        index: FramePrompts(np.array(boxes, np.float32), np.array(values, np.int64))
        for index, (boxes, values) in sorted(frames.items())
    }


def _jittered(
    boxes: npt.NDArray[np.float32], jitter: float, size: tuple[int, int], key: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    return jitter_boxes(boxes, jitter, (size[1], size[0]), np.random.default_rng(key))
