"""Our batched decode against upstream's one image per call."""

import torch

from benchmarks.rows import Row, speed_up
from benchmarks.setting import (
    Setting,
    network_of,
    one_box_each,
    random_boxes,
    random_embeddings,
    random_sam,
)
from benchmarks.steps import (
    decoder_optimizer,
    decoder_step,
    upstream_decode,
    upstream_decoder_step,
)
from benchmarks.timing import Contestant, Progress, interleave
from samonai.core.memory import keep_freed_memory
from samonai.prompts.types import Prompts


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Measure many boxes on one frame, and a training step on a batch."""
    many = _many_boxes_rows(setting, progress)
    keep_freed_memory()  # as a training does; upstream's steps gain by it too
    return [*many, _training_row(setting, progress)]


def _training_row(setting: Setting, progress: Progress) -> Row:
    sam = random_sam(setting.model)
    network = network_of(sam, setting.model)
    embeddings = random_embeddings(network, setting.batch)
    prompts, targets = one_box_each(setting.batch)
    optimizer = decoder_optimizer(network)
    times = interleave(
        {
            "batched decoder step": Contestant(
                lambda: decoder_step(network, optimizer, lambda: embeddings, prompts, targets),
                images=setting.batch,
            ),
            "decoder step image by image": Contestant(
                lambda: upstream_decoder_step(sam, optimizer, embeddings, prompts, targets),
                images=setting.batch,
            ),
        },
        rounds=setting.short_rounds,
        warm_up=True,
        progress=progress,
    )
    return speed_up(
        "decoder",
        f"training step, batch {setting.batch}: faster than image by image",
        ours=times["batched decoder step"],
        theirs=times["decoder step image by image"],
        at_least=1.8 if setting.batch >= 8 else None,
    )


@torch.no_grad()
def _many_boxes_rows(setting: Setting, progress: Progress) -> list[Row]:
    sam = random_sam(setting.model)
    network = network_of(sam, setting.model)
    embedding = random_embeddings(network, 1)
    boxes = random_boxes(setting.objects)
    prompts = Prompts.from_boxes(boxes.numpy())
    names = ("ours", "stock, all boxes in one call", "stock, box by box")
    times = interleave(
        {
            names[0]: Contestant(lambda: network.decode(embedding, prompts)),
            names[1]: Contestant(lambda: upstream_decode(sam, embedding, boxes)),
            names[2]: Contestant(
                lambda: [upstream_decode(sam, embedding, box[None]) for box in boxes]
            ),
        },
        rounds=setting.short_rounds,
        warm_up=True,
        progress=progress,
    )
    return [
        speed_up(
            "decoder",
            f"{setting.objects} boxes on one frame: faster than {name}",
            ours=times[names[0]],
            theirs=times[name],
            at_least=1.5 if setting.objects >= 50 else None,
        )
        for name in names[1:]
    ]
