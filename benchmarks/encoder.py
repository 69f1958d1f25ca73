"""Our forward through the encoder against the stock one: time, peak memory, error."""

import contextlib
from collections.abc import Callable
from functools import partial

import torch
from segment_anything.modeling import Sam
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.apart import run_apart
from benchmarks.rows import Row, speed_up
from benchmarks.setting import Setting, random_images, random_sam
from benchmarks.timing import Contestant, Progress, interleave
from samonai.sam.encoder import encode_images

# The contract of the encoder: relative error against the stock forward in fp32.
_BARS = {"fp32": 1e-5, "bf16": 1e-2}
_INT8, _INT8_BAR = "int8", 3e-2


def measure(setting: Setting, progress: Progress) -> list[Row]:
    """Measure time, error and peak memory in fp32 and bf16; time and error in int8."""
    sam, image = random_sam(setting.model), random_images(1)
    counter = FlopCounterMode(display=False)
    with counter:
        truth = encode("stock", "fp32", sam, image)
    full = setting.model != "micro"  # the bars are stated for SAM's own encoders
    rows = []
    for precision, bar in (_BARS | {_INT8: _INT8_BAR}).items():
        ours = encode("ours", precision, sam, image)
        error = float((ours - truth).norm() / truth.norm())
        rows.append(
            Row(
                "encoder",
                f"{setting.model} {precision}: error",
                error,
                "relative error",
                at_most=bar,
            )
        )
    contestants = {
        f"{whose} {precision}": Contestant(partial(encode, whose, precision, sam, image))
        for precision in _BARS
        for whose in ("ours", "stock")
    }
    contestants["ours int8"] = Contestant(partial(encode, "ours", _INT8, sam, image))
    products = {precision: matrix_product(precision) for precision in _BARS}
    contestants |= {f"product {p}": Contestant(run, repeats=5) for p, (run, _) in products.items()}
    times = interleave(contestants, rounds=setting.rounds, warm_up=False, progress=progress)
    for precision in _BARS:
        rate = counter.get_total_flops() / times[f"ours {precision}"].median
        ceiling = products[precision][1] / times[f"product {precision}"].median
        rows.append(
            Row(
                "encoder",
                f"{setting.model} {precision}: of the machine's own rate of matrix products",
                rate / ceiling,
                "of it",
                at_least=0.55 if full and precision == "bf16" else None,
                details={"flop_per_second": rate, "ceiling": ceiling},
            )
        )
        rows.append(
            speed_up(
                "encoder",
                f"{setting.model} {precision}: faster than stock",
                ours=times[f"ours {precision}"],
                theirs=times[f"stock {precision}"],
                at_least=1.5 if full and precision == "fp32" else None,
            )
        )
        rows.append(_memory_row(setting.model, precision, progress))
    rows.append(
        speed_up(
            "encoder",
            f"{setting.model} bf16: faster than stock fp32",
            ours=times["ours bf16"],
            theirs=times["stock fp32"],
            at_least=2.8 if full else None,
        )
    )
    rows += [
        speed_up(
            "encoder",
            f"{setting.model} int8: faster than {other}",
            ours=times["ours int8"],
            theirs=times[other],
        )
        for other in ("stock fp32", "ours fp32", "ours bf16")
    ]
    return rows


def matrix_product(precision: str) -> tuple[Callable[[], torch.Tensor], int]:
    """Return a large matrix product, what the machine is best at, and its floating-point work."""
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
        at_least=2.0 if model != "micro" else None,
        details={f"{whose}_added_bytes": size for whose, size in added.items()},
    )
