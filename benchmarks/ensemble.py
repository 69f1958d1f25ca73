"""Cost of an ensemble beside one of its members: the encoder runs once, every decoder runs."""

import numpy as np
import torch

from benchmarks.rows import Row, ratio_row
from benchmarks.setting import Setting, network_of, random_boxes, random_images, random_sam
from benchmarks.timing import Contestant, Progress, interleave
from samonai.core.frame import Frame, FrameLocation
from samonai.domains import get_domain
from samonai.inference import Certainty, SourceInferer
from samonai.inference.frame_outputs import FrameOutput
from samonai.prompts.frame_prompts import FramePrompts

MEMBERS, BOXES = 5, 3
_AT_MOST = 1.3
_SIDE = 512


@torch.no_grad()
def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Time one frame of 512², encoder included: one decoder, and five with the uncertainty map."""
    network = network_of(random_sam(setting.model), setting.model).eval()
    networks = [network, *(network.fork().eval() for _ in range(MEMBERS - 1))]
    inferer = SourceInferer(get_domain("medical"))
    boxes = random_boxes(BOXES).numpy() * (_SIDE / network.long_side)
    prompts = FramePrompts(boxes.astype(np.float32), np.arange(1, BOXES + 1))
    frame = Frame(np.zeros((_SIDE, _SIDE, 3), np.uint8), FrameLocation("frame", 0))
    image = random_images(1)

    def one() -> None:
        inferer.logits(network, network.encode(image, "auto")[0], prompts, frame.size)

    def all_of_them() -> None:
        embedding = network.encode(image, "auto")[0]
        certainty = Certainty([1.0] * MEMBERS)
        logits, iou = inferer.each_logits(networks, embedding, prompts, frame.size)
        certainty.observe(frame, prompts, FrameOutput(logits, logits, iou))

    times = interleave(
        {"one run": Contestant(one), f"{MEMBERS} runs": Contestant(all_of_them)},
        rounds=setting.rounds,
        warm_up=True,
        progress=progress,
    )
    alone, together = times["one run"], times[f"{MEMBERS} runs"]
    return [
        ratio_row(
            "ensemble",
            f"a frame with {BOXES} boxes: {MEMBERS} runs and the uncertainty map, beside one run",
            together.rounds,
            alone.rounds,
            # The embedded model's encoder is so small that its decoder is no trifle beside it.
            at_most=None if setting.model == "micro" else _AT_MOST,
            details={
                "one_run_seconds": list(alone.rounds),
                "ensemble_seconds": list(together.rounds),
            },
        )
    ]
