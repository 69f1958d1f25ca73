"""The main claim: a training step from stored embeddings against a step that runs the encoder."""

from collections.abc import Callable
from itertools import count

import numpy as np
import torch
from torch.optim import AdamW

from benchmarks.rows import Row, speed_up
from benchmarks.setting import Setting, network_of, one_box_each, random_images, random_sam
from benchmarks.steps import decoder_optimizer, decoder_step, upstream_step
from benchmarks.store import filled_store
from benchmarks.timing import Contestant, Progress, interleave
from samonai.embeddings.store import SourceEmbeddings
from samonai.memory import keep_freed_memory

_STORED = "decoder step from the store"
_REENCODED = "decoder step that encodes again"
_END_TO_END = "end-to-end step"
_LEARNING_RATE = 1e-6
_STORED_REPEATS = 5


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Measure all three steps per image: forward, backward, AdamW; ours includes reading."""
    keep_freed_memory()  # as a training does; the other steps gain by it too
    batches = 4
    frames = batches * setting.batch
    shape = network_of(random_sam(setting.model), setting.model).embedding_shape
    with filled_store(frames, shape) as source:
        times = interleave(
            {
                _STORED: Contestant(
                    _stored_step(setting, source), images=setting.batch, repeats=_STORED_REPEATS
                ),
                _REENCODED: Contestant(_upstream_step(setting.model, train_encoder=False)),
                _END_TO_END: Contestant(_upstream_step(setting.model, train_encoder=True)),
            },
            rounds=setting.rounds,
            warm_up=True,
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
        for other in (_REENCODED, _END_TO_END)
    ]


def _stored_step(setting: Setting, source: SourceEmbeddings) -> Callable[[], float]:
    """Return samonai's step on a batch: read, decode, learn."""
    network = network_of(random_sam(setting.model), setting.model).train()
    optimizer = decoder_optimizer(network)
    prompts, targets = one_box_each(setting.batch)
    steps = count()

    def read() -> torch.Tensor:
        first = next(steps) * setting.batch
        frames = [(first + i) % source.frames for i in range(setting.batch)]
        return torch.from_numpy(np.stack([source.read(frame) for frame in frames]))

    return lambda: decoder_step(network, optimizer, read, prompts, targets)


def _upstream_step(model: str, *, train_encoder: bool) -> Callable[[], float]:
    """Return a step on one image with the stock modules, the encoder trained or frozen."""
    sam = random_sam(model)
    sam.requires_grad_(False)
    sam.mask_decoder.requires_grad_(True)
    sam.image_encoder.requires_grad_(train_encoder)
    optimizer = AdamW([p for p in sam.parameters() if p.requires_grad], lr=_LEARNING_RATE)
    image = random_images(1)
    prompts, targets = one_box_each(1)
    return lambda: upstream_step(sam, optimizer, image, prompts, targets)
