"""Encoding of cases into stored embeddings and targets: each frame once, resumable by frame."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch

from samonai.core.errors import InputError
from samonai.core.memory import keep_freed_memory
from samonai.domains.base import Case, Domain
from samonai.embeddings.embedder import as_stored, embedding_signature
from samonai.embeddings.encoding_plan import (
    EncodedCase,
    FailedCase,
    FrameChoice,
    OpenedCase,
    Planner,
    ReadyFrame,
)
from samonai.embeddings.encoding_progress import EncodeProgress
from samonai.embeddings.prefetch import prefetch
from samonai.embeddings.store import EmbeddingStore, SourceEmbeddings, StoreSection
from samonai.embeddings.targets import DEFAULT_MIN_AREA, check_components
from samonai.sam.network import SamNetwork

_PREPARED_AHEAD = 4


@dataclass(frozen=True)
class EncodeReport:
    """Report of a run of `encode_cases`.

    Attributes:
        encoded: Frames encoded in this run.
        reused: Frames that were in the store already.
        skipped_empty: Frames without objects, which training does not need.
        skipped_blank: Blank frames, if all frames were requested.
        dropped_objects: Components smaller than `min_area`.
        cases: The cases in the order given, without the failed ones.
        failed: Cases that could not be read, with `on_error="skip"`.
        signature: Signature of the store section with the embeddings.
    """

    encoded: int
    reused: int
    skipped_empty: int
    skipped_blank: int
    dropped_objects: int
    cases: tuple[EncodedCase, ...]
    failed: tuple[FailedCase, ...]
    signature: dict[str, Any]

    def summary(self) -> str:
        """Return one line for users."""
        line = (
            f"{len(self.cases)} cases: {self.encoded} frames encoded, {self.reused} reused, "
            f"{self.skipped_empty} without objects skipped, {self.dropped_objects} small objects "
            f"dropped"
        )
        if self.skipped_blank:
            line += f", {self.skipped_blank} blank frames skipped"
        return f"{line}, {len(self.failed)} cases failed" if self.failed else line


def encode_cases(
    network: SamNetwork,
    domain: Domain[Any],
    cases: Sequence[Case],
    store: EmbeddingStore,
    *,
    precision: str = "auto",
    frames: FrameChoice = "labelled",
    empty_frames: float = 0.0,
    beside: int = 0,
    min_area: int = DEFAULT_MIN_AREA,
    components: str = "each",
    batch_size: int = 1,
    progress: bool = True,
    on_error: Literal["raise", "skip"] = "raise",
) -> EncodeReport:
    """Encode all cases into the store, with their targets; stored frames are kept.

    A case whose files have not changed since the last run, and whose frames are all stored, is
    not opened. Stored frames are verified by their checksums; damaged ones are computed again.
    A kill loses at most the current batch. From here on the process keeps the memory that it
    frees, see `keep_freed_memory`: encoding, and the training that follows it, gain by that.

    Args:
        network: The encoder, on its device.
        domain: Reads and cuts the cases.
        cases: The cases to encode.
        store: The embedding store.
        precision: As for `SamNetwork.encode`; it is part of the signature.
        frames: "labelled" for the frames with objects, "all" but the blank ones (see
            `Frame.is_blank`), or "none" for targets alone.
        empty_frames: Share of the frames without objects to encode beside the labelled
            ones, evenly spaced.
        beside: Frames without objects up to this distance from a labelled one are encoded too.
        min_area: Objects of fewer pixels are dropped from the targets.
        components: Division of a scattered label into objects, see `embeddings.targets`.
        batch_size: Frames per call of the encoder.
        progress: Show a bar on a terminal, and a summary line on standard error.
        on_error: "skip" logs and reports unreadable cases, and continues.

    Raises:
        InputError: A case cannot be read, or the store is read-only and lacks frames.
    """
    _check_options(frames, empty_frames, batch_size, on_error)
    check_components(components)
    keep_freed_memory()
    signature = embedding_signature(network, domain, precision)
    section = store.section(signature)
    planner = Planner(
        network,
        domain,
        section,
        frames=frames,
        empty_frames=empty_frames,
        beside=beside,
        min_area=min_area,
        components=components,
        skip_failed=on_error == "skip",
    )
    writer = _Writer(network, section, signature["precision"], batch_size)
    tally = _Tally()
    depth = max(_PREPARED_AHEAD, batch_size)
    with (
        EncodeProgress(len(cases), shown=progress) as bar,
        closing(_ahead(planner.walk(cases), depth)) as events,
    ):
        for event in events:
            if isinstance(event, ReadyFrame):
                bar.encoded(writer.add(event))
            elif isinstance(event, FailedCase):
                tally.failed.append(event)
            elif isinstance(event, OpenedCase):
                tally.opened.append(event)
                store.reused += event.found
                bar.opened(event.wanted, event.found)
        bar.encoded(writer.flush())
        report = tally.report(writer.written, signature, blank=frames == "all")
        bar.finish(report.summary())
    return report


Event: TypeAlias = OpenedCase | ReadyFrame | FailedCase


def _ahead(events: Iterator[Event], depth: int) -> Generator[Event]:
    """Yield the planner's events, in a thread of their own from the first missing frame on.

    A thread that only looks up known cases costs more than the looking up.
    """
    for event in events:
        yield event
        if isinstance(event, OpenedCase) and event.missing:
            yield from prefetch(events, depth)


class _Tally:
    """Collects the records of the cases."""

    def __init__(self) -> None:
        self.opened: list[OpenedCase] = []
        self.failed: list[FailedCase] = []

    def report(self, encoded: int, signature: dict[str, Any], *, blank: bool) -> EncodeReport:
        """Sum up the records.

        Args:
            encoded: Frames that were encoded.
            signature: The signature of their section.
            blank: Whether blank frames were left out, which happens only if all are requested.
        """
        cases = tuple(event.case for event in self.opened)
        skipped = sum(event.case.frame_count - event.wanted for event in self.opened)
        skipped_blank = sum(case.blank_frames for case in cases) if blank else 0
        return EncodeReport(
            encoded=encoded,
            reused=sum(event.found for event in self.opened),
            skipped_empty=skipped - skipped_blank,
            skipped_blank=skipped_blank,
            dropped_objects=sum(case.dropped_objects for case in cases),
            cases=cases,
            failed=tuple(self.failed),
            signature=signature,
        )


class _Writer:
    """Collects frames into batches, encodes them and writes each embedding."""

    def __init__(
        self, network: SamNetwork, section: StoreSection, precision: str, batch_size: int
    ) -> None:
        self._network = network
        self._section = section
        self._precision = precision
        self._batch_size = batch_size
        self._waiting: list[ReadyFrame] = []
        self._open: tuple[str, SourceEmbeddings] | None = None
        self.written = 0

    def add(self, frame: ReadyFrame) -> int:
        """Add a frame, and encode when a batch is full; return the frames written."""
        self._waiting.append(frame)
        return self.flush() if len(self._waiting) >= self._batch_size else 0

    def flush(self) -> int:
        """Encode and write the waiting frames; return the frames written."""
        if not self._waiting:
            return 0
        images = torch.stack([frame.image for frame in self._waiting])
        embeddings = as_stored(self._network.encode(images, precision=self._precision))
        for frame, embedding in zip(self._waiting, embeddings, strict=True):
            self._target(frame.case).write(frame.index, embedding)
        count = len(self._waiting)
        self._waiting.clear()
        self.written += count
        return count

    def _target(self, case: EncodedCase) -> SourceEmbeddings:
        if self._open is None or self._open[0] != case.source_hash:
            opened = self._section.source(
                case.source_hash, case.frame_count, self._network.embedding_shape, case.source_id
            )
            self._open = case.source_hash, opened
        return self._open[1]


def _check_options(frames: str, empty_frames: float, batch_size: int, on_error: str) -> None:
    if not 0 <= empty_frames <= 1:
        raise InputError(f"empty_frames is a share from 0 to 1, got {empty_frames}")
    if frames not in ("labelled", "all", "none"):
        raise InputError(f"frames is 'labelled', 'all' or 'none', got {frames!r}")
    if batch_size < 1:
        raise InputError(f"batch_size is at least 1, got {batch_size}")
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error is 'raise' or 'skip', got {on_error!r}")
