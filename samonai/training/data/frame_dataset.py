"""Dataset, batch sampler and loader of stored frames; no source file is opened in an epoch."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from samonai.core.geometry import FrameGeometry
from samonai.core.sealed import canonical_json, digest
from samonai.embeddings.encoding_plan import frames_to_use
from samonai.embeddings.target_store import SourceTargets
from samonai.embeddings.targets import FrameTargets
from samonai.prompts.sampling import PromptSampler
from samonai.prompts.types import Prompts, concatenate_prompts
from samonai.settings.choices import PROMPTABLE, SEMANTIC
from samonai.training.data.balance import BalancedDraw
from samonai.training.data.mixing import EmbeddingMix, mix_with_next
from samonai.training.data.propagated import (
    carried_objects,
    carried_prompts,
    frames_beside,
    neighbours,
)
from samonai.training.data.stored import StoredCase
from samonai.training.objectives.border_targets import border_map
from samonai.training.objectives.heads import HeadTargets
from samonai.training.objectives.losses import MaskTargets
from samonai.training.objectives.semantic_loss import ClassTargets, channel_map

# Separate random streams of one seed.
_ORDER_STREAM, _SAMPLE_STREAM, _CLICK_STREAM, _VIEW_STREAM = 0, 1, 2, 3


class FrameSample(NamedTuple):
    """One training sample of the decoder: a frame.

    Attributes:
        embedding: float16 (C, h, w); or float32 (3, S, S), the model image.
        prompts: N prompts on image 0, one per object.
        masks: bool (N, 256, 256), the objects in the low-res frame.
        valid: bool (256, 256), False on padding and on invalid pixels.
        objects: (case id, class value) of each object.
        click_seed: Seeds the generator of the frame's corrective clicks: seed, stream, epoch,
            number.
        mix: Share of the next frame of the batch in the embedding, see `training.data.mixing`.
        channels: uint8 (256, 256), see `ClassTargets`; None where the semantic head is not
            trained.
        values: Label value of each channel.
        case_id: The frame's case.
        borders: bool (256, 256), see `ClassTargets`; None where borders are not trained.
    """

    embedding: torch.Tensor
    prompts: Prompts
    masks: torch.Tensor
    valid: torch.Tensor
    objects: tuple[tuple[str, int], ...]
    click_seed: tuple[int, ...] = ()
    mix: float = 0.0
    channels: torch.Tensor | None = None
    values: tuple[int, ...] = ()
    case_id: str = ""
    borders: torch.Tensor | None = None


class FrameDataset(Dataset[FrameSample]):
    """Dataset of frames with prompts drawn from their objects, with their classes, or with both.

    The samples of a frame depend only on the seed, the epoch and the frame, so that resumed
    and uninterrupted runs draw the same.

    Args:
        cases: Cases in the store.
        sampler: Draws the prompts.
        seed: The run's seed.
        objects_per_frame: At most this many objects of a frame are drawn at a time; None: all.
        varies: Draw new samples in every epoch (training), or always the same (validation).
        mixup: How embeddings of a batch are mixed.
        heads: One of `HEADS`. The promptable head alone skips frames without objects.
        classes: Label values of the semantic head's classes.
        empty_frames: Share of the frames without objects that the semantic head is trained on.
        balance: (empty rate, class balance) of `BalancedDraw`; None uses each frame once.
        borders: Whether the semantic head is trained on object borders.

    Attributes:
        balance: Sampler of an epoch's frames; None: each once.
    """

    def __init__(
        self,
        cases: Sequence[StoredCase],
        sampler: PromptSampler,
        *,
        seed: int = 0,
        objects_per_frame: int | None = None,
        varies: bool = True,
        mixup: EmbeddingMix | None = None,
        heads: str = PROMPTABLE,
        classes: Sequence[int] = (),
        empty_frames: float = 0.0,
        balance: tuple[float, float] | None = None,
        borders: bool = False,
    ) -> None:
        """List the frames."""
        self.mixup = mixup or EmbeddingMix()
        self.sampler = sampler
        self.seed = seed
        self.objects_per_frame = objects_per_frame
        self.varies = varies
        self.epoch = 0
        self.heads, self.values, self.borders = heads, (0, *classes), borders
        share = 0.0 if heads == PROMPTABLE else empty_frames
        beside = frames_beside(sampler.carried_probability, heads) if varies else 0
        self.carries = beside > 0
        self.frames = [
            (case, index) for case in cases for index in frames_to_use(case.targets, share, beside)
        ]
        self._contents = {
            case.case_id: digest(
                canonical_json([case.targets.key, *(view.targets.key for view in case.views)])
            )
            for case in cases
        }
        found = {case.targets.key: case.targets.classes_by_frame() for case in cases}
        self.balance = None
        if balance is not None:
            by_frame = [found[case.targets.key].get(n, frozenset()) for case, n in self.frames]
            self.balance = BalancedDraw(by_frame, *balance)

    def contents(self) -> dict[str, str]:
        """Return case id to a digest of its image, its label and the settings of both."""
        return dict(self._contents)

    @property
    def has_objects(self) -> bool:
        """Return whether any frame has an object."""
        return any(len(case.targets.objects) for case, _ in self.frames)

    def object_counts(self) -> tuple[int, int]:
        """Return how many objects an epoch without carried prompts draws, and of how many."""
        if self.heads == SEMANTIC:
            return 0, 0
        frames = [case.targets.frames for case in {c.case_id: c for c, _ in self.frames}.values()]
        counts = np.concatenate([np.zeros(0, np.int64), *(table[:, 4] for table in frames)])
        limit = counts.max(initial=0) if self.objects_per_frame is None else self.objects_per_frame
        return int(counts.clip(max=limit).sum()), int(counts.sum())

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next samples."""
        self.epoch = epoch if self.varies else 0

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    def __getitem__(self, number: int) -> FrameSample:
        """Return one frame with freshly drawn prompts."""
        case, index = self.frames[number]
        # A stream of its own: prompts of a frame are the same with and without views.
        chance = np.random.default_rng((self.seed, _VIEW_STREAM, self.epoch, number))
        drawn = case.draw(index, chance)
        # The objects beside an empty frame may have left the view.
        case = case if self.carries and not neighbours(drawn.targets, index) else drawn
        targets = case.targets.read(index)
        prompts, masks, values = self._prompts(case.targets, targets, index, number)
        return FrameSample(
            torch.from_numpy(case.embeddings.read(index)),
            prompts,
            torch.from_numpy(masks),
            torch.from_numpy(targets.valid),
            tuple((case.case_id, int(value)) for value in values),
            (self.seed, _CLICK_STREAM, self.epoch, number),
            mix=self.mixup.weight(chance),
            channels=None if self.heads == PROMPTABLE else channel_map(targets, self.values),
            values=self.values,
            case_id=case.case_id,
            borders=torch.from_numpy(border_map(targets)) if self.borders else None,
        )

    def _prompts(
        self, source: SourceTargets, targets: FrameTargets, index: int, number: int
    ) -> tuple[Prompts, npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
        """Return prompts, masks (N, 256, 256) and label values of the drawn objects."""
        generator = np.random.default_rng((self.seed, _SAMPLE_STREAM, self.epoch, number))
        # An empty frame is used for carried prompts of objects that have ended.
        if self.carries and (
            not len(targets) or generator.random() < self.sampler.carried_probability
        ):
            beside = neighbours(source, index)
            if beside:
                other = source.read(beside[int(generator.integers(len(beside)))])
                return self._carried(targets, other, generator)
        rows = self._drawn(0 if self.heads == SEMANTIC else len(targets), generator)
        masks = targets.components[None] == (rows + 1)[:, None, None].astype(np.uint16)
        if not len(rows):
            return Prompts.from_boxes(np.zeros((0, 4))), masks, targets.classes[rows]
        height, width = FrameGeometry(targets.image_size).input_size
        prompts = self.sampler.sample(
            targets.boxes[rows], masks, (float(width), float(height)), generator
        )
        return prompts, masks, targets.classes[rows]

    def _carried(
        self, here: FrameTargets, beside: FrameTargets, generator: np.random.Generator
    ) -> tuple[Prompts, npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
        """Return prompts, masks and label values of objects carried from a neighbouring frame."""
        found = carried_objects(here, beside)
        rows = self._drawn(len(found.classes), generator)
        found = found.only(rows)
        prompts = carried_prompts(found, here.image_size, self.sampler, generator)
        return prompts, found.masks, found.classes

    def _drawn(self, count: int, generator: np.random.Generator) -> npt.NDArray[np.intp]:
        """Return the indices of the drawn objects."""
        rows = np.arange(count)
        if self.objects_per_frame is not None and count > self.objects_per_frame:
            rows = np.sort(generator.choice(rows, self.objects_per_frame, replace=False))
        return rows


class EpochBatchSampler(Sampler[list[int]]):
    """Shuffled batches whose order is a function of the seed and the epoch.

    Each of several processes takes every `world_size`-th batch; the last batches are repeated
    where the number does not divide, so that all processes take the same number of steps.

    Args:
        size: Number of samples.
        batch_size: Samples per batch.
        seed: The run's seed.
        shuffle: Keep the samples' own order when False.
        rank: This process's number.
        world_size: Number of processes.
        balance: Sampler of an epoch's frames; None uses each once.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        balance: BalancedDraw | None = None,
    ) -> None:
        """Keep the numbers."""
        self.balance = balance
        size = size if balance is None else len(balance)
        self.size, self.batch_size, self.seed, self.shuffle = size, batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next order."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches of this process."""
        batches = -(-self.size // self.batch_size)
        return -(-batches // self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the epoch's batches of this process."""
        order = np.arange(self.size)
        generator = np.random.default_rng((self.seed, _ORDER_STREAM, self.epoch))
        if self.balance is not None:
            order = self.balance.draw(generator)
        elif self.shuffle:
            order = generator.permutation(order)
        batches = [
            order[start : start + self.batch_size].tolist()
            for start in range(0, self.size, self.batch_size)
        ]
        for step in range(len(self)):
            yield batches[(step * self.world_size + self.rank) % len(batches)]


def collate_frames(samples: Sequence[FrameSample]) -> dict[str, Any]:
    """Join frames into a batch with ragged prompts.

    Returns:
        "image": float16 (B, C, h, w); "prompts": N `Prompts`; "label": `MaskTargets` of the same,
        or `HeadTargets` where the semantic head is trained; "click_seeds": B seeds.
    """
    prompts = concatenate_prompts([sample.prompts for sample in samples])
    valid = torch.stack([sample.valid for sample in samples])
    targets = MaskTargets(
        torch.cat([sample.masks for sample in samples])[:, None],
        valid[prompts.image_index][:, None],
        tuple(key for sample in samples for key in sample.objects),
    )
    channels = [sample.channels for sample in samples if sample.channels is not None]
    label: MaskTargets | HeadTargets = targets
    if channels:
        cases = tuple(sample.case_id for sample in samples)
        borders = [sample.borders for sample in samples if sample.borders is not None]
        classes = ClassTargets(
            torch.stack(channels),
            samples[0].values,
            cases,
            torch.stack(borders) if borders else None,
        )
        label = HeadTargets(targets, classes)
    return {
        "image": mix_with_next(
            torch.stack([sample.embedding for sample in samples]), [s.mix for s in samples]
        ),
        "prompts": prompts,
        "label": label,
        "click_seeds": [sample.click_seed for sample in samples],
    }


def prepare_batch(
    batch: dict[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_unused: Any,
) -> tuple[torch.Tensor, MaskTargets | HeadTargets, tuple[()], dict[str, Any]]:
    """Move a batch to the device; return inputs, targets, args and kwargs for MONAI's engines."""
    device = device or "cpu"
    label: MaskTargets | HeadTargets = batch["label"]
    masks = label if isinstance(label, MaskTargets) else label.masks
    if masks is not None:
        masks = masks._replace(
            masks=masks.masks.to(device, non_blocking=non_blocking),
            valid=masks.valid.to(device, non_blocking=non_blocking),
        )
    image = batch["image"].to(device, non_blocking=non_blocking)
    asked: dict[str, Any] = {"prompts": batch["prompts"].to(device)}
    if isinstance(label, MaskTargets):
        assert masks is not None
        return image, masks, (), asked
    classes = label.classes.to(device, non_blocking)
    return image, HeadTargets(masks, classes), (), {**asked, "classes": True}


def frame_loader(
    dataset: FrameDataset,
    batch_size: int,
    *,
    seed: int = 0,
    shuffle: bool = True,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[FrameSample]:
    """Make a loader over stored frames; its batch sampler takes `set_epoch`.

    Args:
        dataset: The frames.
        batch_size: Frames per batch.
        seed: The run's seed.
        shuffle: Shuffle anew in every epoch, or draw by the dataset's balance; False takes each
            frame once in order.
        workers: Processes that read ahead; 0 reads in this process, which is hardly slower for a
            store on a local disk. Workers keep the epoch of their start, so they are restarted in
            every epoch.
        rank: This process's number.
        world_size: Number of processes.
    """
    sampler = EpochBatchSampler(
        len(dataset),
        batch_size,
        seed=seed,
        shuffle=shuffle,
        rank=rank,
        world_size=world_size,
        balance=dataset.balance if shuffle else None,
    )
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate_frames,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
