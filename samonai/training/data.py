"""Training data from the store: an epoch opens no source file."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from samonai.embeddings.store import SourceEmbeddings
from samonai.embeddings.target_store import SourceTargets
from samonai.geometry import FrameGeometry
from samonai.prompts import Prompts, concatenate_prompts
from samonai.sampling import PromptSampler
from samonai.training.losses import MaskTargets
from samonai.training.mixing import EmbeddingMix, mix_with_next

# Names the streams of random numbers that hang on one seed, so that none repeats another.
_ORDER_STREAM, _SAMPLE_STREAM, _CLICK_STREAM, _VIEW_STREAM = 0, 1, 2, 3


class StoredCase(NamedTuple):
    """One labelled case in the store.

    Attributes:
        case_id: The case's name.
        embeddings: Its frames' embeddings.
        targets: Its frames' objects.
        views: The same of each augmented view that is stored beside it.
    """

    case_id: str
    embeddings: SourceEmbeddings
    targets: SourceTargets
    views: tuple["StoredCase", ...] = ()

    def draw(self, index: int, generator: np.random.Generator) -> "StoredCase":
        """Draw the case itself or a view; itself where a frame's objects left the view."""
        if not self.views:
            return self
        number = int(generator.integers(len(self.views) + 1))
        view = self.views[number - 1] if number else self
        return view if view.targets.has_objects(index) else self


class FrameSample(NamedTuple):
    """One frame as the decoder is trained on it.

    Attributes:
        embedding: float16 (C, h, w).
        prompts: N prompts on image 0, one per object.
        masks: bool (N, 256, 256), the objects in the low-res frame.
        valid: bool (256, 256), False on padding and on invalid pixels.
        objects: (case id, class value) of each object.
        click_seed: Seeds the generator of the frame's corrective clicks: seed, stream, epoch,
            number.
        mix: Share that the next frame of the batch has in the embedding, see `training.mixing`.
    """

    embedding: torch.Tensor
    prompts: Prompts
    masks: torch.Tensor
    valid: torch.Tensor
    objects: tuple[tuple[str, int], ...]
    click_seed: tuple[int, ...] = ()
    mix: float = 0.0


class FrameDataset(Dataset[FrameSample]):
    """Labelled frames with prompts drawn from their objects.

    What is drawn for a frame depends on the seed, the epoch and the frame alone, so a resumed
    run and an uninterrupted one see the same.

    Args:
        cases: Cases in the store; frames without objects are left out.
        sampler: Draws the prompts.
        seed: The run's seed.
        objects_per_frame: At most this many objects of a frame are drawn at a time; None: all.
        varies: Draw anew every epoch (training), or always the same (validation).
        mix: How embeddings of a batch are mixed.
    """

    def __init__(
        self,
        cases: Sequence[StoredCase],
        sampler: PromptSampler,
        *,
        seed: int = 0,
        objects_per_frame: int | None = None,
        varies: bool = True,
        mix: EmbeddingMix | None = None,
    ) -> None:
        """List the frames that have objects."""
        self.mix = mix or EmbeddingMix()
        self.sampler = sampler
        self.seed = seed
        self.objects_per_frame = objects_per_frame
        self.varies = varies
        self.epoch = 0
        self.frames = [(case, index) for case in cases for index in case.targets.indices]

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch that the next samples are for."""
        self.epoch = epoch if self.varies else 0

    def __len__(self) -> int:
        """Return the number of frames with objects."""
        return len(self.frames)

    def __getitem__(self, number: int) -> FrameSample:
        """Return one frame with freshly drawn prompts."""
        case, index = self.frames[number]
        # A stream of its own: with and without views, a frame's prompts are drawn alike.
        chance = np.random.default_rng((self.seed, _VIEW_STREAM, self.epoch, number))
        case = case.draw(index, chance)
        targets = case.targets.read(index)
        generator = np.random.default_rng((self.seed, _SAMPLE_STREAM, self.epoch, number))
        rows = np.arange(len(targets))
        if self.objects_per_frame is not None and len(rows) > self.objects_per_frame:
            rows = np.sort(generator.choice(rows, self.objects_per_frame, replace=False))
        masks = targets.components[None] == (rows + 1)[:, None, None].astype(np.uint16)
        height, width = FrameGeometry(targets.image_size).input_size
        prompts = self.sampler.sample(
            targets.boxes[rows], masks, (float(width), float(height)), generator
        )
        return FrameSample(
            torch.from_numpy(case.embeddings.read(index)),
            prompts,
            torch.from_numpy(masks),
            torch.from_numpy(targets.valid),
            tuple((case.case_id, int(value)) for value in targets.classes[rows]),
            (self.seed, _CLICK_STREAM, self.epoch, number),
            mix=self.mix.weight(chance),
        )


class EpochBatchSampler(Sampler[list[int]]):
    """Shuffled batches whose order is a function of the seed and the epoch.

    With several processes each takes every `world_size`-th batch; the last batches are repeated
    where the number does not divide, so that all take the same number of steps.

    Args:
        size: Number of samples.
        batch_size: Samples per batch.
        seed: The run's seed.
        shuffle: Keep the samples' own order when False.
        rank: This process's number.
        world_size: Number of processes.
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
    ) -> None:
        """Keep the numbers."""
        self.size, self.batch_size, self.seed, self.shuffle = size, batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch whose order is wanted next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches of this process."""
        batches = -(-self.size // self.batch_size)
        return -(-batches // self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the epoch's batches of this process."""
        order = np.arange(self.size)
        if self.shuffle:
            generator = np.random.default_rng((self.seed, _ORDER_STREAM, self.epoch))
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
        "image": float16 (B, C, h, w); "prompts": N `Prompts`; "label": `MaskTargets` of the same;
        "click_seeds": B seeds.
    """
    prompts = concatenate_prompts([sample.prompts for sample in samples])
    valid = torch.stack([sample.valid for sample in samples])
    targets = MaskTargets(
        torch.cat([sample.masks for sample in samples])[:, None],
        valid[prompts.image_index][:, None],
        tuple(key for sample in samples for key in sample.objects),
    )
    return {
        "image": mix_with_next(
            torch.stack([sample.embedding for sample in samples]), [s.mix for s in samples]
        ),
        "prompts": prompts,
        "label": targets,
        "click_seeds": [sample.click_seed for sample in samples],
    }


def prepare_batch(
    batch: dict[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_unused: Any,
) -> tuple[torch.Tensor, MaskTargets, tuple[()], dict[str, Prompts]]:
    """Move a batch to the device, as MONAI's engines ask: inputs, targets, args, kwargs."""
    device = device or "cpu"
    masks, valid, objects = batch["label"]
    targets = MaskTargets(
        masks.to(device, non_blocking=non_blocking),
        valid.to(device, non_blocking=non_blocking),
        objects,
    )
    image = batch["image"].to(device, non_blocking=non_blocking)
    return image, targets, (), {"prompts": batch["prompts"].to(device)}


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
        shuffle: Shuffle anew every epoch.
        workers: Processes that read ahead; 0 reads in this one, which a store from local disk
            hardly slows down. Workers hold the epoch they were started in, so they are started
            anew every epoch.
        rank: This process's number.
        world_size: Number of processes.
    """
    sampler = EpochBatchSampler(
        len(dataset), batch_size, seed=seed, shuffle=shuffle, rank=rank, world_size=world_size
    )
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate_frames,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
