"""Preparation of training data: find the cases, split them, fill the store."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.settings import renamed_parameters
from samonai.domains.base import Case, Domain
from samonai.embeddings.encode import EncodeReport
from samonai.embeddings.store import EmbeddingStore
from samonai.embeddings.views import Augmentation
from samonai.prompts.sampling import PromptSampler
from samonai.sam.network import SamNetwork
from samonai.sam.tuning import TrainParts
from samonai.settings.choices import PROMPTABLE
from samonai.training.data.frame_dataset import FrameDataset
from samonai.training.data.mixing import EmbeddingMix
from samonai.training.data.propagated import frames_beside
from samonai.training.data.split import Split, split_cases
from samonai.training.data.stored import StoredCase, StoredSplit, store_split
from samonai.training.objectives.heads import check_heads

logger = logging.getLogger(__name__)

VALIDATION_OBJECTS = 64
"""Most objects of a held-out frame that validation measures: a sample drawn by the seed."""


@dataclass(frozen=True)
class TrainingData:
    """Training and validation data of a run.

    Attributes:
        train: Frames with prompts drawn anew in every epoch.
        val: Frames of the held-out cases, with the same prompts in every epoch.
        split: The cases of both.
        classes: Label value to name, for all values that occur.
        encoded: Report of the encoding.
        heads: The heads that are trained.
        borders: Whether the semantic head is trained on object borders.
        frames: Selection of frames where the semantic head is trained, as JSON values.
    """

    train: FrameDataset
    val: FrameDataset
    split: Split
    classes: dict[int, str]
    encoded: EncodeReport
    heads: str = PROMPTABLE
    borders: bool = False
    frames: Mapping[str, float] = field(default_factory=dict)

    def provenance(self) -> dict[str, Any]:
        """Return the record of the data for a checkpoint, as JSON values."""
        return {
            "train_cases": [case.case_id for case in self.split.train],
            "val_cases": [case.case_id for case in self.split.val],
            "held_out_by": self.split.rule,
            "classes": {str(value): name for value, name in self.classes.items()},
            "dropped_objects": self.encoded.dropped_objects,
            "heads": self.heads,
            "borders": self.borders,
            **self.frames,
        }

    def validation_sample(self) -> dict[str, Any]:
        """Return the sample of held-out objects that validation measures; empty for all."""
        drawn, objects = self.val.object_counts()
        if drawn == objects:
            return {}
        sample = {"objects": drawn, "of": objects, "per_frame": self.val.objects_per_frame}
        return {"validation_sample": {**sample, "seed": self.val.seed}}


@renamed_parameters(split_file="split", parts="train_parts", mix="mixup")
def prepare_training(
    network: SamNetwork,
    domain: Domain[Any],
    images: Path | str,
    labels: Path | str | None,
    store: Path | str,
    *,
    sampler: PromptSampler,
    val_sampler: PromptSampler | None = None,
    val_fraction: float = 0.2,
    split: Path | str | None = None,
    seed: int = 0,
    min_area: int = 4,
    components: str = "each",
    objects_per_frame: int | None = 8,
    precision: str = "auto",
    views: int = 1,
    augmentation: Augmentation | None = None,
    mixup: EmbeddingMix | None = None,
    heads: str = PROMPTABLE,
    borders: bool = False,
    empty_frames: float = 1.0,
    empty_rate: float = 0.2,
    class_balance: float = 1.0,
    train_parts: str = "decoder",
    cases: Sequence[Case] | None = None,
) -> TrainingData:
    """Find the cases, split them, encode those missing from the store, and make the datasets.

    Args:
        network: Its encoder fills the store.
        domain: Reads and cuts the cases.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that has them.
        store: The embedding store; made when missing.
        sampler: Draws the training prompts.
        val_sampler: Draws the validation prompts; None: as for training.
        val_fraction: Share of cases held out, without a split file.
        split: JSON with the cases to train on and to hold out, or with folds; see
            `split_files`. None: as in the data list, else drawn.
        seed: Seed of the split and of all prompts.
        min_area: Objects of fewer pixels are dropped, and counted.
        components: Division of a scattered label into objects, see `embeddings.targets`.
        objects_per_frame: At most this many objects of a frame are trained on at a time.
        precision: Precision of the encoder.
        views: Versions of each training frame in the store; all but the first are augmented.
        augmentation: Strength of the augmentation.
        mixup: Mixup of the embeddings.
        heads: "promptable", "semantic" or "both". The semantic head is also trained on frames
            without objects; the next arguments concern it alone.
        borders: Train object borders, see `training.objectives.border_targets`.
        empty_frames: Share of the frames without objects that are encoded, trained on and
            validated on, evenly spaced in each case.
        empty_rate: Share of an epoch's frames without objects, see `BalancedDraw`.
        class_balance: From 0 to 1, see `BalancedDraw`.
        train_parts: Trainable parts, see `samonai.sam.tuning`. With a part of the encoder the store
            holds targets only, and frames are encoded in every step.
        cases: What the domain found in `images` and `labels`; None: they are listed.

    Raises:
        InputError: The data cannot be used as they are.
    """
    check_heads(heads, borders)
    tunes_encoder = TrainParts.parse(train_parts).tunes_encoder
    if tunes_encoder and views > 1:
        raise InputError(
            f"views={views} are stored embeddings, which {train_parts} cannot use; set 1"
        )
    cases = list(domain.find_cases(images, labels) if cases is None else cases)
    chosen = split_cases(cases, val_fraction=val_fraction, split_file=split, seed=seed)
    logger.info("%s", chosen.sentence())
    _refuse_unlabelled([*chosen.train, *chosen.val], images)
    domain.fit([*chosen.train, *chosen.val])
    stored = store_split(
        network,
        domain,
        chosen,
        EmbeddingStore(store),
        augmentation or Augmentation(),
        tunes_encoder=tunes_encoder,
        views=views,
        precision=precision,
        empty_frames=0.0 if heads == PROMPTABLE else empty_frames,
        beside=frames_beside(sampler.carried_probability, heads),
        min_area=min_area,
        components=components,
    )
    if tunes_encoder:
        _warn_of_encoding(train_parts, stored)
    names = domain.class_names(images, labels, cases) or {}
    classes = _class_names(names, [*stored.train, *stored.val])
    train, val = _datasets(
        stored,
        sampler,
        val_sampler or sampler,
        min_area,
        objects_per_frame=objects_per_frame,
        mixup=mixup,
        balance=None if heads == PROMPTABLE else (empty_rate, class_balance),
        seed=seed,
        heads=heads,
        classes=sorted(classes),
        empty_frames=empty_frames,
        borders=borders,
    )
    shares = {
        "empty_frames": empty_frames,
        "empty_rate": empty_rate,
        "class_balance": class_balance,
    }
    frames = {} if heads == PROMPTABLE else shares
    return TrainingData(train, val, chosen, classes, stored.encoded, heads, borders, frames)


def _refuse_unlabelled(cases: Sequence[Case], images: Path | str) -> None:
    """Refuse cases without a label."""
    if unlabelled := [case.case_id for case in cases if case.label is None]:
        raise InputError(
            f"{len(unlabelled)} of {len(cases)} cases in {images} have no label, such as "
            f"{unlabelled[0]!r}; give their labels, or name the other cases in a split file"
        )


def _warn_of_encoding(parts: str, stored: StoredSplit) -> None:
    """Warn that training the encoder cannot use stored embeddings, and is slow."""
    logger.warning(
        "%s trains the encoder, so no embedding is stored: all of %d frames pass through it, "
        "forward and backward, in every epoch; a decoder would need them encoded only once",
        parts,
        sum(len(case.targets.indices) for case in (*stored.train, *stored.val)),
    )


def _datasets(
    stored: StoredSplit,
    sampler: PromptSampler,
    val_sampler: PromptSampler,
    min_area: int,
    *,
    objects_per_frame: int | None,
    mixup: EmbeddingMix | None,
    balance: tuple[float, float] | None,
    **alike: Any,
) -> tuple[FrameDataset, FrameDataset]:
    """Make the training and the validation dataset.

    Args:
        stored: The cases of both.
        sampler: Draws the training prompts.
        val_sampler: Draws the validation prompts.
        min_area: Objects of fewer pixels were dropped.
        objects_per_frame: For training alone, see `FrameDataset`; likewise the next two.
        mixup: Likewise.
        balance: Likewise.
        **alike: Arguments of `FrameDataset` for both.

    Raises:
        InputError: There is no object to train on, or none to choose the best epoch by.
    """
    train = FrameDataset(
        stored.train,
        sampler,
        objects_per_frame=objects_per_frame,
        mixup=mixup,
        balance=balance,
        **alike,
    )
    val = FrameDataset(
        stored.val, val_sampler, objects_per_frame=VALIDATION_OBJECTS, varies=False, **alike
    )
    drawn, objects = val.object_counts()
    if drawn < objects:
        logger.info(
            "validation: %d of %d held-out objects, at most %d of a frame, drawn by the seed",
            drawn,
            objects,
            VALIDATION_OBJECTS,
        )
    for dataset, part in ((train, "training"), (val, "held-out")):
        if not dataset.has_objects:
            raise InputError(
                f"no {part} case has an object of {min_area} pixels or more; check the labels, or "
                f"lower min_area"
            )
    return train, val


def _class_names(names: Mapping[int, str], stored: Sequence[StoredCase]) -> dict[int, str]:
    """Return label value to name, for all values that occur."""
    values = sorted({value for case in stored for value in case.targets.objects[:, 0].astype(int)})
    return {int(value): names.get(int(value), f"class_{value}") for value in values}
