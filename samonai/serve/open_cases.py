"""Cases to annotate: their sources in memory, their states, and the frames that are encoded."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.frame import Frame
from samonai.core.journal import append_lines
from samonai.core.sealed import canonical_json
from samonai.domains.base import Case
from samonai.serve.annotation import DONE, PROPOSED, UNLABELLED, Annotation, AnnotationFolder
from samonai.serve.encoding import EncodingQueue
from samonai.serve.pacs_cases import PacsCases
from samonai.workflows.session import Session

logger = logging.getLogger(__name__)

_AUDIT_FILE = "audit.jsonl"


class RevisionError(InputError):
    """A change of an annotation that another tab or client has changed meanwhile."""


class NotThereError(InputError):
    """A case, frame or object that does not exist."""


@dataclass
class OpenCase:
    """One case in memory.

    Attributes:
        case: Name and place.
        source: What the domain read.
        lock: Held while the case's annotation changes.
        annotation: Its prompts and masks.
        logits: Low-res logits by prompts, so that the next click refines the last mask.
    """

    case: Case
    source: Any
    lock: threading.RLock
    annotation: Annotation
    logits: "OrderedDict[tuple[Any, ...], npt.NDArray[np.float32]]"


class OpenCases:
    """Cases of a data set and their annotations, over one session.

    Several threads may use it: changes of one case come one after the other, and the session lets
    one thread at a time to the network.

    Args:
        session: Reads, encodes and decodes.
        cases: The cases to annotate.
        out: Where annotations, labels and their history go.
        labels: Given labels by case id, for cases that have one: where annotation begins, and
            what masks are measured against.
        user: Who annotates, for the audit log; a pseudonym of the user's choosing.
        formats: Formats that are written beside each saved label, of those that the domain writes.
        classes: Label value to name, which annotations begin with; None: the session's.
        sources: Sources that are in memory at a time.
        pacs: Where cases are fetched from and saved labels are sent to; None: neither.

    Raises:
        InputError: There are no cases, or two have one name.
    """

    def __init__(
        self,
        session: Session,
        cases: Sequence[Case],
        out: Path,
        labels: Mapping[str, Case] | None = None,
        user: str = "",
        formats: Sequence[str] = (),
        classes: Mapping[int, str] | None = None,
        sources: int = 2,
        pacs: PacsCases | None = None,
    ) -> None:
        """Keep the cases; nothing is read yet."""
        if not cases:
            raise InputError("there is nothing to annotate; give a folder with images")
        self.session, self.out, self.user, self.formats = session, out, user, tuple(formats)
        self.classes = dict(session.classes if classes is None else classes)
        self.cases = {case.case_id: case for case in cases}
        self.labels = dict(labels or {})
        self._sources, self.pacs = sources, pacs
        self._open: OrderedDict[str, OpenCase] = OrderedDict()
        self._states: dict[str, str] = {}
        self.scores: Mapping[str, float] = {}
        """Score of active learning by case, as far as it is known; the highest comes first."""
        self.closing: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self.queue = EncodingQueue(self._encode)

    def add_case(self, case: Case) -> None:
        """Add a case, such as one that a client uploaded.

        Raises:
            InputError: There is one of that name.
        """
        with self._lock:
            if case.case_id in self.cases:
                raise InputError(f"case {case.case_id[:80]!r}: there is one of that name")
            self.cases = {**self.cases, case.case_id: case}  # others may be going through it

    def close(self) -> None:
        """Stop encoding and what else goes on; annotations are on disk already."""
        for stop in self.closing:
            stop()
        self.queue.stop()

    def use(self, session: Session) -> None:
        """Go on with another session, such as one with a newly trained decoder.

        Masks that were drawn stay; logits of the old decoder are forgotten.
        """
        with self._lock:
            if session.networks[0].encoder_sha256 != self.session.networks[0].encoder_sha256:
                self.queue.forget()
            self.session, self.scores = session, {}
            for one in self._open.values():
                one.logits.clear()

    def add_score(self, session: Session, case_id: str, score: float) -> None:
        """Keep a case's score of active learning, unless another session is in use meanwhile."""
        with self._lock:
            if session is self.session:
                self.scores = {**self.scores, case_id: score}

    def folder(self, case_id: str) -> AnnotationFolder:
        """Return where a case's annotation lies.

        Raises:
            NotThereError: There is no such case.
        """
        if case_id not in self.cases:
            raise NotThereError(f"case {case_id[:80]!r}: there is no such case")
        return AnnotationFolder(self.out / "annotations" / case_id, case_id)

    def opened(self, case_id: str) -> OpenCase:
        """Read a case, unless it is in memory; the latest few are kept.

        Raises:
            InputError: The case is not known, or its files cannot be read.
        """
        folder = self.folder(case_id)
        with self._lock:
            if case_id in self._open:
                self._open.move_to_end(case_id)
                return self._open[case_id]
            annotation = folder.read(self.classes)
            case = self.labels.get(case_id, self.cases[case_id])
            domain = self.session.domain
            source = domain.read(case) if self.pacs is None else self.pacs.read(case, domain)
            found = OpenCase(case, source, threading.RLock(), annotation, OrderedDict())
            self._open[case_id] = found
            while len(self._open) > self._sources:
                self._open.popitem(last=False)
            return found

    def frame(self, case_id: str, index: int) -> Frame:
        """Cut a frame of a case.

        Raises:
            NotThereError: There is no such case or frame.
        """
        one = self.opened(case_id)
        self._check_frame(one, index)
        return self.session.domain.frame(one.source, index)

    def states(self) -> dict[str, str]:
        """Return the state of each case; see `samonai.serve.annotation.STATES`."""
        cases = self.cases
        for case_id in cases:
            if case_id not in self._states:
                found = self._open.get(case_id)
                try:
                    annotation = found.annotation if found else self.folder(case_id).read({})
                    self._states[case_id] = annotation.state
                except InputError as error:
                    logger.warning("%s", error)
                    self._states[case_id] = UNLABELLED
        return {case_id: self._states[case_id] for case_id in cases}

    def done(self) -> list[str]:
        """Return the finished cases."""
        return [case_id for case_id, state in self.states().items() if state == DONE]

    def next_case(self, after: str | None = None) -> str | None:
        """Return the case to annotate next: the first that is not done, after another if given.

        Cases are in the order of active learning: of the ranking that the server was given, or of
        the scores that are known so far.

        None: all are done.
        """
        scores, states = self.scores, self.states()
        names = sorted(self.cases, key=lambda name: -scores.get(name, 0.0))
        start = names.index(after) + 1 if after in self.cases else 0
        return next((n for n in names[start:] + names[:start] if states[n] != DONE), None)

    def look_at(self, case_id: str, index: int) -> None:
        """Encode the visible frame first, and those beside it next."""
        one = self.opened(case_id)
        self._check_frame(one, index)
        self.queue.look_at(case_id, index, self.session.domain.frame_count(one.source))

    def frame_labels(
        self, one: OpenCase, *, proposals: bool = True
    ) -> dict[int, npt.NDArray[np.int32]]:
        """Return the label of each annotated frame, int32 (H, W); later objects lie on top.

        Args:
            one: The case.
            proposals: With proposals that nobody accepted yet.
        """
        labels: dict[int, npt.NDArray[np.int32]] = {}
        masks = self.folder(one.case.case_id).masks
        for drawn in one.annotation.objects:
            if drawn.origin == PROPOSED and not proposals:
                continue
            mask = masks.read(drawn.mask)
            label = labels.setdefault(drawn.frame, np.zeros(mask.shape, np.int32))
            label[mask] = drawn.value
        return labels

    def _encode(self, case_id: str, frame: int) -> None:
        self.session.embed(self.opened(case_id).source, [frame])

    @property
    def proposes(self) -> bool:
        """Return whether the session segments without prompts."""
        return all(network.semantic_head is not None for network in self.session.networks)

    def keep(self, one: OpenCase, annotation: Annotation) -> Annotation:
        """Write a case's changed annotation, and return it."""
        one.annotation = self.folder(one.case.case_id).write(annotation)
        self._states[one.case.case_id] = annotation.state
        return annotation

    def add_mask(self, one: OpenCase, mask: npt.NDArray[np.bool_]) -> str:
        """Write a mask (H, W) of a case, and return its name."""
        return self.folder(one.case.case_id).masks.add(mask)

    def check_revision(self, one: OpenCase, revision: int) -> None:
        """Refuse a change of an annotation that is not the latest one.

        Raises:
            RevisionError: The annotation has changed meanwhile.
        """
        if revision != one.annotation.revision:
            raise RevisionError(
                f"{one.case.case_id} was changed elsewhere meanwhile; it is loaded again"
            )

    def _check_frame(self, one: OpenCase, index: int) -> None:
        count = self.session.domain.frame_count(one.source)
        if not 0 <= index < count:
            raise NotThereError(f"frame {index}: {one.case.case_id} has frames 0 to {count - 1}")

    def audit(self, action: str, case_id: str, **facts: Any) -> None:
        """Add a line to the audit log: who did what to which case, by pseudonym, and when."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "user": self.user,
            "action": action,
            "case": case_id,
            "model": dict(self.session.facts.algorithm),
            **facts,
        }
        self.out.mkdir(parents=True, exist_ok=True)
        append_lines(self.out / _AUDIT_FILE, canonical_json(line) + "\n")
