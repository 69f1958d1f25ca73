"""The forms of attention against each other, on the work of one block of the encoder."""

from functools import partial

import torch

from benchmarks.rows import Row, speed_up
from benchmarks.setting import SEED, Setting
from benchmarks.timing import Contestant, Progress, interleave
from samonai.sam.attention import ATTENTION, Grids, attention_form

_CHANNELS, _HEADS = 64, {"vit_b": 12, "micro": 1}
_SIDES = {"whole image": 64, "windows": 14}
_WINDOWS = 25
_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@torch.no_grad()
def measure(setting: Setting, progress: Progress) -> list[Row]:
    """State, for each place and precision, how much faster the chosen form is than the others."""
    rows = []
    for place, side in _SIDES.items():
        count = _HEADS[setting.model] * (_WINDOWS if place == "windows" else 1)
        for precision, dtype in _PRECISIONS.items():
            grids = _random_grids(count, side, dtype)
            contestants = {
                form: Contestant(partial(attend, grids), repeats=3)
                for form, attend in ATTENTION.items()
            }
            times = interleave(contestants, rounds=setting.rounds, warm_up=True, progress=progress)
            chosen = attention_form(torch.device("cpu"), dtype, side * side)
            rows += [
                speed_up(
                    "attention",
                    f"{place}, {precision}: {chosen} (chosen) faster than {form}",
                    ours=times[chosen],
                    theirs=times[form],
                )
                for form in ATTENTION
                if form != chosen
            ]
    return rows


def _random_grids(count: int, side: int, dtype: torch.dtype) -> Grids:
    generator = torch.Generator().manual_seed(SEED)
    q, k, v = (
        torch.randn(count, side, side, _CHANNELS, generator=generator).to(dtype) for _ in range(3)
    )
    above, beside = (
        (torch.randn(side, side, _CHANNELS, generator=generator) * 0.1).to(dtype) for _ in range(2)
    )
    return Grids(q, k, v, above, beside, _CHANNELS**-0.5)
