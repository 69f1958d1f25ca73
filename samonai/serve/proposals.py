"""Proposals: masks that nobody drew, of the semantic head or of a given label."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.serve.annotation import (
    ACCEPTED,
    CORRECTED,
    GIVEN,
    PREDICTED,
    PROPOSED,
    Annotation,
    FrameObject,
)
from samonai.serve.open_cases import NotThereError, OpenCase, OpenCases


class ProposedCases(OpenCases):
    """Cases with masks that are accepted or dismissed before they are saved; see `OpenCases`."""

    def propose(self, case_id: str, revision: int) -> list[FrameObject]:
        """Segment everything that the semantic head knows; one object per structure and frame.

        Proposals of an earlier call are replaced; drawn and accepted masks stay.

        Raises:
            InputError: The model has no semantic head.
        """
        one = self.opened(case_id)
        with one.lock:
            self.check_revision(one, revision)
            with self.queue.click():
                label = self.session.predict(one.source).label
            kept = [o for o in one.annotation.objects if o.origin != PROPOSED]
            taken = {o.key for o in kept}
            drawn = [o for o in self.objects_of_label(one, label, PROPOSED) if o.key not in taken]
            state = CORRECTED if kept else PREDICTED
            self.keep(one, one.annotation.changed(objects=(*kept, *drawn), state=state))
            return drawn

    def accept(self, case_id: str, object_id: str | None, revision: int) -> list[FrameObject]:
        """Accept the proposals of one object, or all; return them.

        Raises:
            InputError: There are no such proposals, or the annotation has changed meanwhile.
        """
        one = self.opened(case_id)
        with one.lock:
            self.check_revision(one, revision)
            chosen = [replace(o, origin=ACCEPTED) for o in _pending(one.annotation, object_id)]
            self.keep(one, one.annotation.with_objects(*chosen))
            return chosen

    def dismiss(self, case_id: str, object_id: str | None, revision: int) -> list[FrameObject]:
        """Remove the proposals of one object, or all; return them.

        Raises:
            InputError: There are no such proposals, or the annotation has changed meanwhile.
        """
        one = self.opened(case_id)
        with one.lock:
            self.check_revision(one, revision)
            chosen = {o.key for o in _pending(one.annotation, object_id)}
            dismissed = [o for o in one.annotation.objects if o.key in chosen]
            left = tuple(o for o in one.annotation.objects if o.key not in chosen)
            self.keep(one, one.annotation.changed(objects=left, state=CORRECTED))
            return dismissed

    def begin_with_label(self, case_id: str, revision: int) -> list[FrameObject]:
        """Take the given label as the annotation to correct.

        Raises:
            InputError: The case has no label.
        """
        one = self.opened(case_id)
        with one.lock:
            self.check_revision(one, revision)
            if getattr(one.source, "label", None) is None:
                raise InputError(f"{case_id} has no label to begin with; give --labels")
            drawn = self.objects_of_label(one, None, GIVEN)
            self.keep(one, one.annotation.with_objects(*drawn))
            return drawn

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
                name = self.add_mask(one, on_frame == value)
                drawn.append(
                    FrameObject(f"{origin}-{value}", index, int(value), name, origin=origin)
                )
        return drawn


def check_accepted(annotation: Annotation) -> None:
    """Refuse to save masks that nobody has looked at.

    Raises:
        InputError: There are proposals that are neither accepted nor dismissed.
    """
    pending = [o for o in annotation.objects if o.origin == PROPOSED]
    if pending:
        raise InputError(
            f"{len(pending)} proposed masks are neither accepted nor dismissed; look at them first"
        )


def _pending(annotation: Annotation, object_id: str | None) -> Iterable[FrameObject]:
    found = [
        o for o in annotation.objects if o.origin == PROPOSED and object_id in (None, o.object_id)
    ]
    if not found:
        raise NotThereError("there is no such proposal")
    return found
