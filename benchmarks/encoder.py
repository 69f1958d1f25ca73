"""Our forward through the encoder against the stock one: time, peak memory, error."""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial

import torch
from segment_anything.modeling import Sam
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.apart import run_apart
from benchmarks.rows import Row, speed_up
from benchmarks.setting import Setting, random_images, random_sam
from benchmarks.timing import Contestant, Progress, Timing, interleave
from samonai.sam.encoder import encode_images

# The contract of the encoder: relative error against the stock forward in fp32.
_BARS = {"fp32": 1e-5, "bf16": 1e-2}
_INT8, _INT8_BAR = "int8", 3e-2
# What it promises besides, for SAM's own encoders.
_OF_MACHINE = {"bf16": 0.55}
_FASTER_THAN = {("fp32", "stock fp32"): 1.5, ("bf16", "stock fp32"): 2.8}
_LESS_MEMORY = 2.0


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Measure time, error and peak memory in fp32 and bf16; time and error in int8."""
    model = setting.model
    sam, image = random_sam(model), random_images(1)
    counter = FlopCounterMode(display=False)
    with counter:
        truth = encode("stock", "fp32", sam, image)
    rows = [
        _error_row(model, precision, encode("ours", precision, sam, image), truth, at_most)
        for precision, at_most in (_BARS | {_INT8: _INT8_BAR}).items()
    ]
    products = {precision: matrix_product(precision) for precision in _BARS}
    contestants = _contestants(sam, image)
    contestants |= {f"product {p}": Contestant(run, repeats=5) for p, (run, _) in products.items()}
    times = interleave(contestants, rounds=setting.rounds, warm_up=False, progress=progress)
    for precision, (_, product_flops) in products.items():
        rate = counter.get_total_flops() / times[f"ours {precision}"].median
        ceiling = product_flops / times[f"product {precision}"].median
        rows += [
            _rate_row(model, precision, rate, ceiling),
            _speed_row(model, precision, f"stock {precision}", times),
            _memory_row(model, precision, progress),
        ]
    rows.append(_speed_row(model, "bf16", "stock fp32", times))
    others = ("stock fp32", "ours fp32", "ours bf16")
    return rows + [_speed_row(model, _INT8, other, times) for other in others]


def _contestants(sam: Sam, image: torch.Tensor) -> dict[str, Contestant]:
    """Return our forward and stock's in each precision that both have, and ours in int8."""
    runs = [(whose, precision) for precision in _BARS for whose in ("ours", "stock")]
    return {
        f"{whose} {precision}": Contestant(partial(encode, whose, precision, sam, image))
        for whose, precision in (*runs, ("ours", _INT8))
    }


def _error_row(
    model: str, precision: str, ours: torch.Tensor, truth: torch.Tensor, at_most: float
) -> Row:
    error = float((ours - truth).norm() / truth.norm())
    name = f"{model} {precision}: error"
    return Row("encoder", name, error, "relative error", at_most=at_most)


def _rate_row(model: str, precision: str, rate: float, ceiling: float) -> Row:
    """Compare the floating-point operations per second with the peak of the machine."""
    return Row(
        "encoder",
        f"{model} {precision}: of the machine's own rate of matrix products",
        rate / ceiling,
        "of it",
        at_least=_promised(model, _OF_MACHINE.get(precision)),
        details={"flop_per_second": rate, "ceiling": ceiling},
    )


def _speed_row(model: str, precision: str, other: str, times: Mapping[str, Timing]) -> Row:
    """Compare our time with that of another contestant, such as "stock fp32"."""
    return speed_up(
        "encoder",
        f"{model} {precision}: faster than {other.removesuffix(f' {precision}')}",
        ours=times[f"ours {precision}"],
        theirs=times[other],
        at_least=_promised(model, _FASTER_THAN.get((precision, other))),
    )


def _promised(model: str, bar: float | None) -> float | None:
    """Return a bar where it holds: bars are stated for SAM's own encoders."""
    return None if model == "micro" else bar


def matrix_product(precision: str) -> tuple[Callable[[], torch.Tensor], int]:
    """Return a large matrix product, the machine's fastest operation, and its FLOPs."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = torch.randn(4096, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    return (lambda: left @ right), 2 * 4096 * 2048 * 2048


@torch.no_grad()
def encode(whose: str, precision: str, sam: Sam, images: torch.Tensor) -> torch.Tensor:
    """Encode with "ours" or "stock"; stock in bf16 is autocast, as scripts do it."""
    if whose == "ours":
        return encode_images(sam.image_encoder, images, precision)
    lower = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else None
    with lower or contextlib.nullcontext():
        embeddings: torch.Tensor = sam.image_encoder(images)
    return embeddings.float()


def _memory_row(model: str, precision: str, progress: Progress) -> Row:
    """Compare what one encoding adds to the memory of a process that holds model and image."""
    added = {}
    for whose in ("ours", "stock"):
        progress(f"{whose} {precision}: peak memory in a process of its own")
        added[whose] = run_apart("memory", model, whose, precision)["added_bytes"]
    return Row(
        "encoder",
        f"{model} {precision}: less memory than stock",
        added["stock"] / added["ours"],
        "x",
        at_least=_promised(model, _LESS_MEMORY),
        details={f"{whose}_added_bytes": size for whose, size in added.items()},
    )
