"""The main claim: a training step from stored embeddings against a step that runs the encoder."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch.optim import SGD, AdamW
from torch.utils.checkpoint import checkpoint

from benchmarks.rows import Row, speed_up
from benchmarks.setting import Setting, network_of, one_box_each, random_images, random_sam
from benchmarks.steps import decoder_optimizer, decoder_step, upstream_step
from benchmarks.store import filled_store
from benchmarks.timing import Contestant, Progress, interleave
from samonai.core.memory import keep_freed_memory
from samonai.embeddings.store import SourceEmbeddings

_STORED = "decoder step from the store"
_REENCODED = "decoder step that encodes again"
_END_TO_END = "end-to-end step"
_CHECKPOINTED = "end-to-end step with checkpointed blocks"
_LEARNING_RATE = 1e-6
_STORED_REPEATS = 5


_HUGE = "vit_h"


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Measure all three steps per image: forward, backward, AdamW; ours includes reading."""
    return _rows(setting, _END_TO_END, progress)


def measure_huge(setting: Setting, progress: Progress) -> list[Row]:
    """Measure the same of vit_h (a quick run: of its own model, to show that it works).

    What a whole step of vit_h keeps is more than 24 GB. So its blocks are checkpointed: each runs
    forward twice, which adds about a third to the time of a whole step; and plain SGD stands in for
    AdamW, whose state alone takes 5 GB.
    """
    model = "micro" if setting.model == "micro" else _HUGE
    return _rows(replace(setting, model=model), _CHECKPOINTED, progress)


def _rows(setting: Setting, whole: str, progress: Progress) -> list[Row]:
    if whole == _END_TO_END:  # as a training does; the activations of vit_h would not fit
        keep_freed_memory()
    batches = 4
    frames = batches * setting.batch
    sam = random_sam(setting.model)  # one for all: three of vit_h would not fit into 24 GB
    shape = network_of(sam, setting.model).embedding_shape
    with filled_store(frames, shape) as source:
        times = interleave(
            {
                _STORED: Contestant(
                    _stored_step(setting, sam, source),
                    images=setting.batch,
                    repeats=_STORED_REPEATS,
                ),
                _REENCODED: Contestant(_upstream_step(sam, train_encoder=False)),
                whole: Contestant(
                    _upstream_step(sam, train_encoder=True, checkpointing=whole == _CHECKPOINTED)
                ),
            },
            rounds=setting.rounds,
            warm_up=whole == _END_TO_END,  # a step of vit_h takes minutes
            progress=progress,
        )
    # The bars are stated for vit_b; a quick run only shows that the measurement works.
    bars = {_REENCODED: 40.0, _END_TO_END: 300.0} if setting.model == "vit_b" else {}
    return [
        speed_up(
            "training",
            f"{setting.model}, {_STORED}: faster than {other}",
            ours=times[_STORED],
            theirs=times[other],
            at_least=bars.get(other),
        )
        for other in (_REENCODED, whole)
    ]


def _stored_step(setting: Setting, sam: Sam, source: SourceEmbeddings) -> Callable[[], float]:
    """Return samonai's step on a batch: read, decode, learn."""
    network = network_of(sam, setting.model).train()
    optimizer = decoder_optimizer(network)
    prompts, targets = one_box_each(setting.batch)
    steps = count()

    def read() -> torch.Tensor:
        first = next(steps) * setting.batch
        frames = [(first + i) % source.frames for i in range(setting.batch)]
        return torch.from_numpy(np.stack([source.read(frame) for frame in frames]))

    return lambda: decoder_step(network, optimizer, read, prompts, targets)


def _upstream_step(
    sam: Sam, *, train_encoder: bool, checkpointing: bool = False
) -> Callable[[], float]:
    """Return a step on one image with the stock modules, the encoder trained or frozen."""
    trained = sam if train_encoder else sam.mask_decoder
    optimizer = (SGD if checkpointing else AdamW)(trained.parameters(), lr=_LEARNING_RATE)
    image = random_images(1)
    prompts, targets = one_box_each(1)
    forwards = [block.forward for block in sam.image_encoder.blocks]

    def step() -> float:
        sam.image_encoder.requires_grad_(train_encoder)
        for block, forward in zip(sam.image_encoder.blocks, forwards, strict=True):
            block.forward = (
                partial(checkpoint, forward, use_reentrant=False) if checkpointing else forward
            )
        return upstream_step(sam, optimizer, image, prompts, targets)

    return step
