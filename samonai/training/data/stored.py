"""Stored cases: embeddings and targets in the store, opened for training."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from samonai.core.errors import InputError
from samonai.domains.base import Case, Domain, SourceT
from samonai.embeddings.encode import EncodeReport
from samonai.embeddings.encoding_plan import EncodedCase
from samonai.embeddings.store import EmbeddingStore, SourceEmbeddings
from samonai.embeddings.target_store import SourceTargets
from samonai.embeddings.views import Augmentation, encode_views, summed
from samonai.engine.processes import is_main_process, main_process_first
from samonai.sam.network import SamNetwork
from samonai.training.data.frame_images import FrameImages, ImageCache
from samonai.training.data.split import Split

logger = logging.getLogger(__name__)


class StoredCase(NamedTuple):
    """One labelled case in the store.

    Attributes:
        case_id: The case's name.
        embeddings: Its frames' embeddings; or their images, where the encoder is trained.
        targets: Its frames' objects.
        views: Its augmented views in the store, likewise.
    """

    case_id: str
    embeddings: SourceEmbeddings | FrameImages[Any]
    targets: SourceTargets
    views: tuple["StoredCase", ...] = ()

    def draw(self, index: int, generator: np.random.Generator) -> "StoredCase":
        """Draw the case itself or a view; itself if a frame's objects left the view.

        A frame without objects may be drawn from a view that has it in the store.
        """
        if not self.views:
            return self
        number = int(generator.integers(len(self.views) + 1))
        view = self.views[number - 1] if number else self
        if self.targets.has_objects(index):
            return view if view.targets.has_objects(index) else self
        return view if view.embeddings.has(index) else self


@dataclass(frozen=True)
class StoredSplit:
    """The stored cases of a split; cases without any object are not stored.

    Attributes:
        train: The cases to train on, with their views.
        val: The cases that are held out.
        encoded: Report of the encoding.
    """

    train: list[StoredCase]
    val: list[StoredCase]
    encoded: EncodeReport


def store_split(
    network: SamNetwork,
    domain: Domain[Any],
    split: Split,
    store: EmbeddingStore,
    augmentation: Augmentation,
    *,
    tunes_encoder: bool,
    **options: Any,
) -> StoredSplit:
    """Encode a split's cases that are missing from the store, and open them.

    Args:
        network: Its encoder fills the store.
        domain: Reads and cuts the cases.
        split: The cases.
        store: The embedding store.
        augmentation: Strength of the augmentation of the training cases' views.
        tunes_encoder: Whether the encoder is trained: the store holds targets only, and images
            replace the embeddings.
        **options: Arguments of `encode_views`.

    Raises:
        InputError: A case cannot be encoded, or left the store meanwhile.
    """
    used = [*split.train, *split.val]

    def encode() -> list[EncodeReport]:
        return encode_views(
            network,
            domain,
            used,
            store,
            augmentation,
            augmented=split.train,
            frames="none" if tunes_encoder else "labelled",
            progress=is_main_process() and not tunes_encoder,
            **options,
        )

    reports = main_process_first(encode)
    encoded = summed(reports)
    logger.info("%s", encoded.summary())
    frames_of = _images_of(domain, network) if tunes_encoder else _embeddings_of(store, encoded)
    cases = _open_cases(store, encoded, used, frames_of)
    held_out = {case.case_id for case in split.val}
    return StoredSplit(
        _with_views(
            [case for case in cases if case.case_id not in held_out],
            [
                _open_cases(store, view, split.train, _embeddings_of(store, view))
                for view in reports[1:]
            ],
        ),
        [case for case in cases if case.case_id in held_out],
        encoded,
    )


FramesOf = Callable[[Case, EncodedCase], SourceEmbeddings | FrameImages[Any] | None]
"""Function that returns the inputs of a case's frames; None if the store has none of them."""


def _embeddings_of(store: EmbeddingStore, report: EncodeReport) -> FramesOf:
    """Return the embeddings of a report's case."""
    section = store.section(report.signature)
    return lambda case, encoded: encoded.embeddings or section.find(encoded.source_hash)


def _images_of(domain: Domain[SourceT], network: SamNetwork) -> FramesOf:
    """Return images instead of embeddings, which change where the encoder is trained."""
    cache = ImageCache()

    def images(case: Case, encoded: EncodedCase) -> FrameImages[SourceT] | None:
        return (
            FrameImages(domain, case, network, encoded.indices, cache) if encoded.indices else None
        )

    return images


def _open_cases(
    store: EmbeddingStore, report: EncodeReport, used: Sequence[Case], frames_of: FramesOf
) -> list[StoredCase]:
    """Return the report's cases that have frames to train on."""
    stored = []
    for case, encoded in zip(used, report.cases, strict=True):
        assert encoded.case_id == case.case_id
        assert encoded.targets is not None, "only labelled cases come here"
        frames = frames_of(case, encoded)
        if frames is None and encoded.indices:
            raise InputError(
                f"case {case.case_id} is no longer in the store {store.url}; run again"
            )
        if frames is not None:
            stored.append(StoredCase(case.case_id, frames, encoded.targets))
    return stored


def _with_views(
    stored: Sequence[StoredCase], views: Sequence[Sequence[StoredCase]]
) -> list[StoredCase]:
    """Attach to each case those of its views that have objects."""
    by_case = [{view.case_id: view for view in of_cases} for of_cases in views]
    return [
        case._replace(views=tuple(of[case.case_id] for of in by_case if case.case_id in of))
        for case in stored
    ]
