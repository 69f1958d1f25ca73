"""Workspace of annotation: cases, their sources in memory, and the prompts decoded for them."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.frame import Frame, mask_box
from samonai.domains.capabilities import capabilities
from samonai.inference.refining import Refined, mask_logits
from samonai.prompts.frame_prompts import FramePrompts
from samonai.serve.annotation import (
    ACCEPTED,
    CARRIED,
    CORRECTED,
    DONE,
    ORIGINS,
    PAINTED,
    PROMPTED,
    Annotation,
    FrameObject,
    checked_box,
    checked_clicks,
    checked_id,
    decoded_png,
    is_mask_name,
    mask_of,
)
from samonai.serve.open_cases import NotThereError, OpenCase
from samonai.serve.proposals import ProposedCases, check_accepted
from samonai.serve.saving import masks_of_versions, save_label, saved_objects

logger = logging.getLogger(__name__)

_MOST_STRUCTURES = 255
_LOGITS_IN_MEMORY = 256  # of 256 kB each


class Workspace(ProposedCases):
    """Cases that are annotated over one session; see `OpenCases`."""

    def prompt(
        self, case_id: str, object_id: str, index: int, given: Mapping[str, Any], revision: int
    ) -> FrameObject:
        """Segment an object from a box and clicks, and keep both.

        Args:
            case_id: The case.
            object_id: The object; a new name begins a new one.
            index: The frame.
            given: "value", "box" and "clicks" as JSON values, see `FrameObject`, and "outline", a
                mask prompt as the base64 of a PNG or as the name of one that was given before.
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
            outline = self._outline(one, given.get("outline"), frame.size)
            if box is None and not clicks and outline is None:
                raise InputError("prompts: draw a box or an outline, or click on the object")
            with self.queue.click():
                found = self.decoded(one, index, box, clicks, outline)
            self.queue.mark_ready(case_id, index)
            drawn = FrameObject(
                checked_id(object_id), index, value, self.add_mask(one, found.mask), box, clicks,
                found.iou, PROMPTED, outline,
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
                checked_id(object_id), index, self._value(one, value), self.add_mask(one, mask),
                before.box if before else None, before.clicks if before else (), None, PAINTED,
                before.outline if before else None,
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
            origin, outline = str(given.get("origin", PROMPTED)), given.get("outline")
            if outline is not None:
                self._outline(one, outline, frame.size)
            iou = given.get("iou")
            drawn = FrameObject(
                checked_id(given.get("object_id", "")), frame.location.index,
                self._value(one, given.get("value")), name,
                checked_box(given.get("box"), frame.size),
                checked_clicks(given.get("clicks", []), frame.size),
                float(iou) if isinstance(iou, int | float) else None,
                origin if origin in ORIGINS else PROMPTED,
                outline,
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
            self.check_revision(one, revision)
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
            with self.queue.click():
                found = self.session.carry(one.source, index, prompts, reach)
            kept = {
                o.frame
                for o in one.annotation.objects
                if o.object_id == object_id and o.origin in (PROMPTED, PAINTED, ACCEPTED)
            }
            drawn = [
                replace(
                    seed,
                    frame=frame,
                    mask=self.add_mask(one, carried.mask),
                    box=None,
                    clicks=(),
                    outline=None,
                    iou=carried.iou,
                    origin=CARRIED,
                )
                for frame, carried in found.items()
                if frame not in kept
            ]
            self.keep(one, one.annotation.with_objects(*drawn))
            return drawn

    def restore_version(self, case_id: str, version: int, revision: int) -> Annotation:
        """Put all objects of a case back as they were saved in an earlier version.

        Raises:
            InputError: There is no such version, or its masks are not there any more.
        """
        one = self.opened(case_id)
        with one.lock:
            self.check_revision(one, revision)
            objects = saved_objects(self.out, case_id, version)
            for drawn in objects:
                self.folder(case_id).masks.png(drawn.mask)
            for drawn in objects:
                self._value(one, drawn.value)
            self.audit("restore", case_id, version=version)
            return self.keep(one, one.annotation.changed(objects=objects, state=CORRECTED))

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
            self.check_revision(one, revision)
            names = {**one.annotation.structures, value: name.strip()}
            return self.keep(one, one.annotation.changed(structures=names))

    def save(self, case_id: str, revision: int, *, done: bool = True) -> dict[str, Any]:
        """Write the label map on the source's own grid, and keep earlier versions.

        Args:
            case_id: The case.
            revision: See `prompt`.
            done: Whether the case is finished, so that training may use it.

        Returns:
            Names of the files, relative to the workspace, and the version's number; where labels
            are sent to a PACS, the number of stored objects, or "send_failure".

        Raises:
            InputError: The label cannot be written, or the annotation has changed meanwhile.
        """
        one = self.opened(case_id)
        with one.lock:
            self.check_revision(one, revision)
            check_accepted(one.annotation)
            version = one.annotation.saved + 1
            written = save_label(self, one, version)
            state = DONE if done else one.annotation.state
            kept = self.keep(one, one.annotation.changed(saved=version, state=state))
            needed = kept.masks | masks_of_versions(self.out, case_id)
            self.folder(case_id).masks.remove_all_but(needed)
            self.audit("save", case_id, version=version)
        sent = {} if self.pacs is None else self.pacs.send(written)
        if sent.get("sent"):
            self.audit("send", case_id, version=version)
        return {
            "version": version,
            "files": [str(path.relative_to(self.out)) for path in written],
            "revision": kept.revision,
            **sent,
        }

    def decoded(
        self,
        one: OpenCase,
        index: int,
        box: tuple[float, ...] | None,
        clicks: tuple[tuple[float, float, int], ...],
        outline: str | None = None,
    ) -> Refined:
        """Decode prompts click by click: each answer's logits prompt the next.

        Answers to earlier clicks are kept, so that one more click is one call of the decoder.

        Args:
            one: The case.
            index: The frame.
            box: xyxy in frame space.
            clicks: (x, y, sign) each.
            outline: The mask that prompts the first answer; without a box, that around it is used.
        """
        previous: npt.NDArray[np.float32] | None = None
        around = box
        if outline is not None:
            drawn = self.folder(one.case.case_id).masks.read(outline)
            previous = mask_logits(drawn, self.session.networks[0].long_side)
            around = box or mask_box(drawn)
        for number in range(0 if around is not None else 1, len(clicks) + 1):
            key = index, box, clicks[:number], outline
            if number < len(clicks) and key in one.logits:
                previous = one.logits[key]
                continue
            result = self.session.refine(
                one.source, clicks[:number], previous, frame=index, box=around
            )
            previous = one.logits[key] = result.low_res_logits
        while len(one.logits) > _LOGITS_IN_MEMORY:
            one.logits.popitem(last=False)
        return result

    def _outline(self, one: OpenCase, given: Any, size: tuple[int, int]) -> str | None:
        """Return the name of a mask that is given as a prompt; None: none is given."""
        if given is None:
            return None
        masks, text = self.folder(one.case.case_id).masks, str(given)
        known = is_mask_name(text)
        mask = masks.read(text) if known else mask_of(decoded_png(text), size)
        if mask.shape != size or not mask.any():
            raise InputError("outline: draw around something on this frame")
        return text if known else masks.add(mask)

    def _changing(self, one: OpenCase, index: int, revision: int) -> Frame:
        self.check_revision(one, revision)
        self._check_frame(one, index)
        return self.session.domain.frame(one.source, index)

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
