"""Workspace of annotation: cases, their sources in memory, and the prompts decoded for them."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.frame import Frame, mask_box
from samonai.domains.base import metric_spacing
from samonai.domains.capabilities import capabilities
from samonai.metrics.objects import pixel_metrics
from samonai.prompts.types import FramePrompts
from samonai.serve.annotation import (
    CARRIED,
    CORRECTED,
    DONE,
    GIVEN,
    ORIGINS,
    PAINTED,
    PREDICTED,
    PROMPTED,
    PROPOSED,
    Annotation,
    FrameObject,
    checked_box,
    checked_clicks,
    checked_id,
    mask_of,
)
from samonai.serve.open_cases import NotThereError, OpenCase, OpenCases, RevisionError
from samonai.serve.saving import save_label

logger = logging.getLogger(__name__)

_MOST_STRUCTURES = 255
_LOGITS_IN_MEMORY = 256  # of 256 kB each


class Workspace(OpenCases):
    """Cases that are annotated over one session; see `OpenCases`."""

    def prompt(
        self, case_id: str, object_id: str, index: int, given: Mapping[str, Any], revision: int
    ) -> FrameObject:
        """Segment an object from a box and clicks, and keep both.

        Args:
            case_id: The case.
            object_id: The object; a new name begins a new one.
            index: The frame.
            given: "value", "box" and "clicks" as JSON values; see `FrameObject`.
            revision: The annotation that the change is made to.

        Raises:
            InputError: The prompts cannot be used, or the annotation has changed meanwhile.
        """
        one = self.opened(case_id)
        with one.lock:
            frame = self._changing(one, index, revision)
            value = self._value(one, given.get("value"))
            box = checked_box(given.get("box"), frame.size)
            clicks = checked_clicks(given.get("clicks", []), frame.size)
            if box is None and not clicks:
                raise InputError("prompts: draw a box, or click on the object")
            mask, iou = self._decode(one, index, box, clicks)
            self.queue.mark_ready(case_id, index)
            drawn = FrameObject(
                checked_id(object_id), index, value, self._add_mask(one, mask), box, clicks, iou,
                PROMPTED,
            )  # fmt: skip
            self.keep(one, one.annotation.with_objects(drawn))
            return drawn

    def paint(
        self, case_id: str, object_id: str, index: int, value: Any, png: bytes, revision: int
    ) -> FrameObject:
        """Replace an object's mask on a frame by one that was painted.

        Args:
            case_id: See `prompt`, like the next three.
            object_id: As there.
            index: As there.
            value: Label value of the structure.
            png: The mask as a PNG of the frame's size.
            revision: See `prompt`.

        Raises:
            InputError: The mask cannot be used, or the annotation has changed meanwhile.
        """
        one = self.opened(case_id)
        with one.lock:
            frame = self._changing(one, index, revision)
            mask = mask_of(png, frame.size)
            before = next((o for o in one.annotation.objects if o.key == (object_id, index)), None)
            drawn = FrameObject(
                checked_id(object_id), index, self._value(one, value), self._add_mask(one, mask),
                before.box if before else None, before.clicks if before else (), None, PAINTED,
            )  # fmt: skip
            self.keep(one, one.annotation.with_objects(drawn))
            return drawn

    def restore(self, case_id: str, given: Mapping[str, Any], revision: int) -> FrameObject:
        """Put an object back as it was, mask included, as undo and redo do.

        Args:
            case_id: The case.
            given: An object as `FrameObject` has it, as JSON values.
            revision: See `prompt`.

        Raises:
            InputError: The object cannot be used, or its mask is not there any more.
        """
        one = self.opened(case_id)
        with one.lock:
            index = given.get("frame")
            frame = self._changing(one, index if isinstance(index, int) else -1, revision)
            name = str(given.get("mask"))
            if self.folder(case_id).masks.read(name).shape != frame.size:
                raise InputError("mask: it is of another frame")
            origin = str(given.get("origin", PROMPTED))
            iou = given.get("iou")
            drawn = FrameObject(
                checked_id(given.get("object_id", "")), frame.location.index,
                self._value(one, given.get("value")), name,
                checked_box(given.get("box"), frame.size),
                checked_clicks(given.get("clicks", []), frame.size),
                float(iou) if isinstance(iou, int | float) else None,
                origin if origin in ORIGINS else PROMPTED,
            )  # fmt: skip
            self.keep(one, one.annotation.with_objects(drawn))
            return drawn

    def remove(self, case_id: str, object_id: str, index: int | None, revision: int) -> None:
        """Remove an object from a frame, or from all frames.

        Raises:
            InputError: There is no such object, or the annotation has changed meanwhile.
        """
        one = self.opened(case_id)
        with one.lock:
            self._check_revision(one, revision)
            left = one.annotation.without(object_id, index)
            if len(left.objects) == len(one.annotation.objects):
                raise NotThereError(f"object {object_id[:40]!r}: there is no such object here")
            self.keep(one, left)

    def carry(
        self, case_id: str, object_id: str, index: int, reach: Any, revision: int
    ) -> list[FrameObject]:
        """Carry an object to the frames beside it, both ways.

        Frames on which the object was prompted or painted stay as they are.

        Args:
            case_id: See `prompt`, like the next two.
            object_id: As there.
            index: The frame that the object was prompted on.
            reach: Frames on each side, 1 and up.
            revision: See `prompt`.

        Raises:
            InputError: There is no such object, or the annotation has changed meanwhile.
        """
        if not isinstance(reach, int) or isinstance(reach, bool) or reach < 1:
            raise InputError("reach: expected a number of frames, 1 or more")
        one = self.opened(case_id)
        with one.lock:
            self._changing(one, index, revision)
            if capabilities(self.session.domain).planes is None:
                raise InputError("objects are carried between slices of volumes only")
            seed = next((o for o in one.annotation.objects if o.key == (object_id, index)), None)
            if seed is None:
                raise NotThereError(f"object {object_id[:40]!r} is not on frame {index}")
            prompts = _prompts_of(seed, self.folder(case_id).masks.read(seed.mask))
            found = self.session.carry(one.source, index, prompts, reach)
            kept = {
                o.frame
                for o in one.annotation.objects
                if o.object_id == object_id and o.origin in (PROMPTED, PAINTED)
            }
            drawn = [
                replace(
                    seed,
                    frame=frame,
                    mask=self._add_mask(one, carried.mask),
                    box=None,
                    clicks=(),
                    iou=carried.iou,
                    origin=CARRIED,
                )
                for frame, carried in found.items()
                if frame not in kept
            ]
            self.keep(one, one.annotation.with_objects(*drawn))
            return drawn

    def propose(self, case_id: str, revision: int) -> list[FrameObject]:
        """Segment everything that the semantic head knows; one object per structure and frame.

        Raises:
            InputError: The model has no semantic head.
        """
        one = self.opened(case_id)
        with one.lock:
            self._check_revision(one, revision)
            label = self.session.predict(one.source).label
            drawn = self.objects_of_label(one, label, PROPOSED)
            first = not one.annotation.objects
            self.keep(
                one,
                one.annotation.with_objects(*drawn, state=PREDICTED if first else CORRECTED),
            )
            return drawn

    def begin_with_label(self, case_id: str, revision: int) -> list[FrameObject]:
        """Take the given label as the annotation to correct.

        Raises:
            InputError: The case has no label.
        """
        one = self.opened(case_id)
        with one.lock:
            self._check_revision(one, revision)
            if getattr(one.source, "label", None) is None:
                raise InputError(f"{case_id} has no label to begin with; give --labels")
            drawn = self.objects_of_label(one, None, GIVEN)
            self.keep(one, one.annotation.with_objects(*drawn))
            return drawn

    def name_structure(self, case_id: str, value: Any, name: Any, revision: int) -> Annotation:
        """Name a label value.

        Raises:
            InputError: The value or the name cannot be used.
        """
        if not isinstance(name, str) or not name.strip() or len(name) > 64:
            raise InputError("structure: expected a name of 1 to 64 characters")
        if not isinstance(value, int) or not 1 <= value <= _MOST_STRUCTURES:
            raise InputError(f"structure: expected a label value of 1 to {_MOST_STRUCTURES}")
        one = self.opened(case_id)
        with one.lock:
            self._check_revision(one, revision)
            names = {**one.annotation.structures, value: name.strip()}
            return self.keep(one, one.annotation.changed(structures=names))

    def save(self, case_id: str, revision: int, *, done: bool = True) -> dict[str, Any]:
        """Write the label map on the source's own grid, and keep earlier versions.

        Args:
            case_id: The case.
            revision: See `prompt`.
            done: Whether the case is finished, so that training may use it.

        Returns:
            Names of the files, relative to the workspace, and the version's number.

        Raises:
            InputError: The label cannot be written, or the annotation has changed meanwhile.
        """
        one = self.opened(case_id)
        with one.lock:
            self._check_revision(one, revision)
            version = one.annotation.saved + 1
            written = save_label(self, one, version)
            state = DONE if done else one.annotation.state
            kept = self.keep(one, one.annotation.changed(saved=version, state=state))
            self.folder(case_id).masks.remove_all_but({o.mask for o in kept.objects})
            self.audit("save", case_id, version=version)
            return {
                "version": version,
                "files": [str(path.relative_to(self.out)) for path in written],
                "revision": kept.revision,
            }

    def figures(self, case_id: str) -> dict[str, Any]:
        """Return volumes in ml, and Dice against the given label, by structure.

        Volumes are missing where the source has no physical size.
        """
        one = self.opened(case_id)
        with one.lock:
            labels = self.frame_labels(one)
            merged = self.session.domain.merge(one.source, labels) if labels else None
        spacing = metric_spacing(one.source)
        truth = getattr(one.source, "label", None)
        found: dict[str, Any] = {}
        for value, name in one.annotation.structures.items():
            mask = np.zeros(1, bool) if merged is None else np.asarray(merged) == value
            figures: dict[str, float] = {}
            if spacing is not None and len(spacing) == 3:
                figures["ml"] = float(mask.sum() * np.prod(spacing) / 1000)
            if truth is not None and merged is not None:
                dice = pixel_metrics(mask, np.asarray(truth) == value)["dice"]
                if dice is not None:
                    figures["dice"] = dice
            found[name] = figures
        return found

    def _decode(
        self,
        one: OpenCase,
        index: int,
        box: tuple[float, ...] | None,
        clicks: tuple[tuple[float, float, int], ...],
    ) -> tuple[npt.NDArray[np.bool_], float]:
        """Decode prompts click by click: each answer's logits prompt the next.

        Answers to earlier clicks are kept, so that one more click is one call of the decoder.
        """
        previous: npt.NDArray[np.float32] | None = None
        for number in range(0 if box is not None else 1, len(clicks) + 1):
            key = index, box, clicks[:number]
            if number < len(clicks) and key in one.logits:
                previous = one.logits[key]
                continue
            result = self.session.refine(
                one.source, clicks[:number], previous, frame=index, box=box
            )
            previous = one.logits[key] = result.low_res_logits
        while len(one.logits) > _LOGITS_IN_MEMORY:
            one.logits.popitem(last=False)
        return result.mask, result.iou

    def objects_of_label(
        self, one: OpenCase, label: npt.NDArray[np.integer] | None, origin: str
    ) -> list[FrameObject]:
        """Return one object per structure and frame of a label map; None: the source's own."""
        domain = self.session.domain
        source = one.source if label is None else domain.with_label(one.source, label)
        drawn = []
        for index in range(domain.frame_count(source)):
            on_frame = domain.frame(source, index).label
            if on_frame is None:
                continue
            for value in np.unique(on_frame[on_frame > 0]).tolist():
                name = self._add_mask(one, on_frame == value)
                drawn.append(
                    FrameObject(f"{origin}-{value}", index, int(value), name, origin=origin)
                )
        return drawn

    def _add_mask(self, one: OpenCase, mask: npt.NDArray[np.bool_]) -> str:
        return self.folder(one.case.case_id).masks.add(mask)

    def _changing(self, one: OpenCase, index: int, revision: int) -> Frame:
        self._check_revision(one, revision)
        self._check_frame(one, index)
        return self.session.domain.frame(one.source, index)

    def _check_revision(self, one: OpenCase, revision: int) -> None:
        if revision != one.annotation.revision:
            raise RevisionError(
                f"{one.case.case_id} was changed elsewhere meanwhile; it is loaded again"
            )

    def _value(self, one: OpenCase, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError("value: expected the label value of a structure")
        if value not in one.annotation.structures:
            raise InputError(f"value {value}: no structure has it; name one first")
        return value


def _prompts_of(seed: FrameObject, mask: npt.NDArray[np.bool_]) -> FramePrompts:
    """Return an object's box, or that around its mask, as the prompt to carry."""
    if seed.box is not None:
        box = np.asarray(seed.box, np.float32)
    else:
        around = mask_box(mask)
        if around is None:
            raise InputError("the object's mask is empty; there is nothing to carry")
        box = np.array(around, np.float32)
    return FramePrompts(box[None], np.array([seed.value], np.int64))
