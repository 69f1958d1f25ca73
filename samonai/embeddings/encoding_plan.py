"""Plan of encoding: the missing frames of each case, opening as few cases as possible."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch

from samonai.core.errors import InputError
from samonai.domains.base import Case, Domain, Source
from samonai.embeddings.case_index import CaseFacts, CaseIndex, file_stamp
from samonai.embeddings.store import SourceEmbeddings, StoreSection
from samonai.embeddings.target_store import (
    SourceTargets,
    load_targets,
    save_targets,
    targets_key,
)
from samonai.embeddings.targets import build_targets
from samonai.sam.network import SamNetwork

_log = logging.getLogger(__name__)

FrameChoice = Literal["labelled", "all", "none"]


@dataclass(frozen=True)
class EncodedCase:
    """A stored case, as training needs it.

    Attributes:
        case_id: The case's identifier.
        source_id: The source's identifier.
        source_hash: Name of its embeddings in the section.
        targets_key: Name of its targets in the store, or None if the case is unlabelled.
        frame_count: Number of frames of the source.
        spacing: Size of a cell of the source's grid along each array axis.
        indices: Frames that have targets (at least one object), ascending.
        original_sizes: (H, W) of those frames in pixels.
        dropped_objects: Components smaller than `min_area`, over all frames.
        blank_frames: Blank frames, if all frames were requested.
        targets: Its targets, opened; None if the case is unlabelled.
        embeddings: Its embeddings, opened; None if none was stored yet.
    """

    case_id: str
    source_id: str
    source_hash: str
    targets_key: str | None
    frame_count: int
    spacing: tuple[float, ...]
    indices: tuple[int, ...]
    original_sizes: tuple[tuple[int, int], ...]
    dropped_objects: int
    blank_frames: int = 0
    targets: SourceTargets | None = field(default=None, compare=False, repr=False)
    embeddings: SourceEmbeddings | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class OpenedCase:
    """A case whose missing frames follow, if any."""

    case: EncodedCase
    wanted: int
    missing: int

    @property
    def found(self) -> int:
        """Return the number of wanted frames that are stored already."""
        return self.wanted - self.missing


@dataclass(frozen=True)
class ReadyFrame:
    """A frame to encode: float32 (3, S, S) in model space."""

    case: EncodedCase
    index: int
    image: torch.Tensor


@dataclass(frozen=True)
class FailedCase:
    """A case that could not be read."""

    case_id: str
    message: str


def frames_to_use(targets: SourceTargets, empty_frames: float, beside: int = 0) -> tuple[int, ...]:
    """Return the frames with objects, and some of those without; ascending.

    Args:
        targets: The targets of a source.
        empty_frames: Share of the frames without objects, evenly spaced, from 0 to 1; if it is
            above 0, at least one of a source that has any.
        beside: Also frames without objects up to this distance from one with objects.
    """
    empty = targets.empty_indices
    count = math.ceil(round(len(empty) * empty_frames, 6))
    # The middles of `count` equal parts: neither end is favoured.
    chosen = [empty[int((part + 0.5) * len(empty) / count)] for part in range(count)]
    objects = targets.indices
    near = {index + away for index in objects for away in range(-beside, beside + 1)}
    return tuple(sorted({*objects, *chosen, *near.intersection(empty)}))


class Planner:
    """Walks the cases: known ones stay closed, missing frames are read, cut and resized."""

    def __init__(
        self,
        network: SamNetwork,
        domain: Domain[Any],
        section: StoreSection,
        *,
        frames: FrameChoice,
        empty_frames: float,
        beside: int,
        min_area: int,
        components: str,
        skip_failed: bool,
    ) -> None:
        """Keep the arguments shared by all cases; see `encode_cases`."""
        self._network = network
        self._domain = domain
        self._section = section
        self._frames = frames
        self._empty_frames, self._beside = empty_frames, beside
        self._min_area = min_area
        self._components = components
        self._skip_failed = skip_failed
        self._index = CaseIndex(section)
        self._cut = {"name": domain.name, "settings": domain.settings()}

    def walk(self, cases: Sequence[Case]) -> Iterator[OpenedCase | ReadyFrame | FailedCase]:
        """Yield each case, followed by its missing frames."""
        for case in cases:
            try:
                yield from self._walk_case(case)
            except (InputError, OSError) as error:
                if not self._skip_failed:
                    raise
                # A message contains the file's path, whose folder may be named after a patient.
                reason = str(error).replace(str(case.image), case.case_id)
                _log.warning("Case %s is left out: %s", case.case_id, reason)
                yield FailedCase(case.case_id, reason)

    def _walk_case(self, case: Case) -> Iterator[OpenedCase | ReadyFrame]:
        stamp = file_stamp(case)  # before reading: a change meanwhile must show next time
        facts = self._index.get(case, stamp)
        found = None if facts is None else self._found(facts)
        source: Any = None
        if (
            facts is None
            or found is None
            or (facts.blank is None and self._frames == "all")
            or found.missing
        ):
            source = self._domain.read(case)
            facts = self._facts(source)
            found = self._found(facts) or self._found(facts, self._new_targets(facts, source))
            assert found is not None
            if not self._section.store.read_only:
                self._index.put(case, stamp, facts)
        missing = found.missing
        if missing and self._section.store.read_only:
            raise InputError(
                f"the store {self._section.store.url} is read-only and lacks {len(missing)} frames "
                f"of {case.case_id}"
            )
        encoded = _encoded_case(case, facts, found)
        yield OpenedCase(encoded, found.wanted, len(missing))
        for index in missing:
            image = self._network.preprocess(self._domain.frame(source, index).image)
            yield ReadyFrame(encoded, index, image)

    def _found(self, facts: CaseFacts, built: SourceTargets | None = None) -> "_Found | None":
        """Look a case up in the store; None if its targets are missing, and were not `built`."""
        key = self._key(facts)
        targets = built
        if targets is None and key is not None:
            targets = load_targets(self._section.store, key)
            if targets is None or not targets.whole():
                return None
        wanted = self._wanted(facts, targets)
        embeddings = self._section.find(facts.source_hash)
        missing = list(wanted) if embeddings is None else embeddings.missing(wanted)
        return _Found(key, targets, embeddings, len(wanted), missing)

    def _facts(self, source: Source) -> CaseFacts:
        return CaseFacts(
            source_id=source.source_id,
            source_hash=source.content_hash(),
            label_hash=source.label_hash(),
            frame_count=self._domain.frame_count(source),
            spacing=tuple(float(value) for value in source.spacing),
            blank=self._blank(source) if self._frames == "all" else None,
        )

    def _blank(self, source: Source) -> tuple[int, ...]:
        frames = (self._domain.frame(source, n) for n in range(self._domain.frame_count(source)))
        return tuple(frame.location.index for frame in frames if frame.is_blank)

    def _key(self, facts: CaseFacts) -> str | None:
        if facts.label_hash is None:
            return None
        return targets_key(
            facts.source_hash,
            facts.label_hash,
            self._cut,
            self._min_area,
            self._network.long_side,
            self._components,
        )

    def _new_targets(self, facts: CaseFacts, source: Any) -> SourceTargets | None:
        key = self._key(facts)
        if key is None:
            return None
        frames = (self._domain.frame(source, index) for index in range(facts.frame_count))
        return save_targets(
            self._section.store,
            key,
            (
                (frame.location.index, self._build(frame))
                for frame in frames
                if frame.label is not None
            ),
            source_id=facts.source_id,
            spacing=facts.spacing,
            frame_count=facts.frame_count,
            long_side=self._network.long_side,
        )

    def _build(self, frame: Any) -> Any:
        return build_targets(
            frame, self._min_area, self._components, long_side=self._network.long_side
        )

    def _wanted(self, facts: CaseFacts, targets: SourceTargets | None) -> Sequence[int]:
        if self._frames == "none":
            return ()
        if self._frames == "all":
            blank = frozenset(facts.blank or ())
            return [index for index in range(facts.frame_count) if index not in blank]
        if targets is None:
            return ()
        return frames_to_use(targets, self._empty_frames, self._beside)


class _Found(NamedTuple):
    """The part of a case that is in the store.

    Attributes:
        key: Name of the targets; None if the case is unlabelled.
        targets: The targets.
        embeddings: The embeddings; None if none is stored.
        wanted: Number of the wanted frames.
        missing: Those of them that are absent or damaged.
    """

    key: str | None
    targets: SourceTargets | None
    embeddings: SourceEmbeddings | None
    wanted: int
    missing: list[int]


def _encoded_case(case: Case, facts: CaseFacts, found: _Found) -> EncodedCase:
    targets = found.targets
    return EncodedCase(
        case_id=case.case_id,
        source_id=facts.source_id,
        source_hash=facts.source_hash,
        targets_key=found.key,
        frame_count=facts.frame_count,
        spacing=facts.spacing,
        indices=() if targets is None else targets.indices,
        original_sizes=() if targets is None else targets.original_sizes,
        dropped_objects=0 if targets is None else targets.dropped,
        blank_frames=len(facts.blank or ()),
        targets=targets,
        embeddings=found.embeddings,
    )
