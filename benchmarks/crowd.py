"""Many boxes on one 256 x 256 slice: shared terms are computed once, masks only where they are.

Against the decoder over all image tokens and mask_tokens for each prompt, as it was before. Times
are CPU seconds. The embedded model has real masks. Random weights have none: their logits are noise
over the whole frame, of which every token is upscaled. The embedded decoder, widened to the
model's channels, finds masks within their boxes on any embedding, as trained weights do.
"""

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from benchmarks.memory import peak_bytes, reset_peak
from benchmarks.rows import Row
from benchmarks.setting import SEED, Setting, network_of, random_embeddings, random_sam
from benchmarks.timing import Progress
from benchmarks.widened import widen
from samonai.core.geometry import FrameGeometry
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.types import Prompts
from samonai.sam.loading import load_sam
from samonai.sam.network import SamNetwork
from samonai.sam.outputs import choose_masks
from samonai.sam.positive import positive_logits
from samonai.sam.prompted import decode_prompts

_SIDE = 256
_AT_ONCE = 16  # as the inferer decodes them
_RATIO_BAR, _DICE_BAR, _MEMORY_BAR = 3.0, 0.999, 1.1
_FEW = 8  # up to so many, a run only shows that the measurement works
NOISE = 0.5
"""Scale of random embeddings, so that the embedded decoder's masks end within their boxes."""

_GEOMETRY = FrameGeometry((_SIDE, _SIDE))

Decode = Callable[[Prompts], torch.Tensor]


@torch.no_grad()
def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Measure CPU time, agreement and memory of the embedded model and of the setting's."""
    image, boxes = drawn_cells(setting.crowd)
    prompts = Prompts.of_frame(FramePrompts(boxes, np.ones(len(boxes), np.int64)), _GEOMETRY)
    micro = load_sam("micro", device="cpu")
    rows = _rows("micro", micro, micro.encode(micro.preprocess(image)[None]), prompts, progress)
    for name in ("noise", "widened"):
        sam = random_sam(setting.model)
        if name == "widened" and setting.model != "micro":
            widen(micro, sam)
        network = network_of(sam, setting.model)
        title = f"{setting.model}, random weights: noise"
        bar = None
        embedding = random_embeddings(network, 1)
        if name == "widened":
            title, bar = f"{setting.model}, the embedded decoder widened", _RATIO_BAR
            embedding *= NOISE
        rows += _rows(title, network, embedding, prompts, progress, bar)
    return rows


def drawn_cells(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw ellipses; return uint8 (256, 256, 3) and their boxes, float32 (count, 4), xyxy."""
    generator = np.random.default_rng(SEED)
    rows, columns = np.mgrid[:_SIDE, :_SIDE] + 0.5
    image, boxes = np.full((_SIDE, _SIDE), 60.0), []
    for _ in range(count):
        radius, (y, x) = generator.uniform(3, 12), generator.uniform(12, _SIDE - 12, 2)
        width = radius * generator.uniform(0.6, 1)
        mask = ((rows - y) / radius) ** 2 + ((columns - x) / width) ** 2 < 1
        image[mask] = generator.uniform(100, 220)
        boxes.append([x - width, y - radius, x + width, y + radius])
    image += generator.normal(0, 8, image.shape)
    grey = image.clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2), np.array(boxes, np.float32)


def _rows(
    title: str,
    network: SamNetwork,
    embedding: torch.Tensor,
    prompts: Prompts,
    progress: Progress,
    bar: float | None = _RATIO_BAR,
) -> list[Row]:
    def shared(asked: Prompts) -> torch.Tensor:
        common = network.share(embedding, len(asked))
        assert common is not None
        given = [(network, embedding, part, _GEOMETRY, common) for part in _parts(asked)]
        return torch.cat([positive_logits(*one) > 0 for one in given])

    def each(asked: Prompts) -> torch.Tensor:
        parts = [_answer_all(network, embedding, part) for part in _parts(asked)]
        return torch.cat([_GEOMETRY.logits_to_frame(part)[:, 0] > 0 for part in parts])

    count, seconds = len(prompts), {shared: list[float](), each: list[float]()}
    full = count > _FEW
    for turn in range(3 if full else 1):
        for decode, taken in seconds.items():
            progress(f"{title}: {decode.__name__}, round {turn + 1}")
            taken.append(_cpu_seconds(decode, prompts) / count)
    ratios = [theirs / ours for theirs, ours in zip(seconds[each], seconds[shared], strict=True)]
    few = prompts[torch.arange(max(count // 4, 6))]
    peaks = [_peak(network, embedding, asked) for asked in (few, prompts)]
    details = {decode.__name__: taken for decode, taken in seconds.items()}
    return [
        Row(
            "crowd",
            f"{title}: {count} boxes on one slice, fewer CPU seconds than token by token",
            median(ratios),
            "x",
            spread=(min(ratios), max(ratios)),
            at_least=bar if full else None,
            details=details,
        ),
        Row(
            "crowd",
            f"{title}: least Dice of a mask with that of all tokens",
            float(_dice(shared(prompts), each(prompts)).min()),
            "Dice",
            at_least=_DICE_BAR,
        ),
        Row(
            "crowd",
            f"{title}: peak memory of {count} boxes over that of {len(few)}",
            peaks[1] / peaks[0],
            "x",
            at_most=_MEMORY_BAR if full else None,
        ),
    ]


def _answer_all(network: SamNetwork, embedding: torch.Tensor, part: Prompts) -> torch.Tensor:
    """Decode every token over all tokens, and choose."""
    modules = network.prompt_encoder, network.mask_decoder
    mask_tokens = range(network.mask_decoder.num_mask_tokens)
    output = decode_prompts(*modules, embedding, part, mask_tokens, None)
    return choose_masks(output, part.row_is_ambiguous()).low_res_logits


def _parts(prompts: Prompts) -> list[Prompts]:
    return [prompts[rows] for rows in torch.arange(len(prompts)).split(_AT_ONCE)]


def _cpu_seconds(decode: Decode, prompts: Prompts) -> float:
    start = time.process_time()
    decode(prompts)
    return time.process_time() - start


def _peak(network: SamNetwork, embedding: torch.Tensor, prompts: Prompts) -> int:
    """Return the process's peak memory while prompts are answered and let go."""
    reset_peak()
    common = network.share(embedding, len(prompts))
    assert common is not None
    for part in _parts(prompts):
        positive_logits(network, embedding, part, _GEOMETRY, common)
    return peak_bytes()


def _dice(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return float (N,), 1 where both masks are empty."""
    total = found.sum((1, 2)) + expected.sum((1, 2))
    both = (found & expected).sum((1, 2))
    return torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0)
