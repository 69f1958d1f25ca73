import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer

from benchmarks.__main__ import main
from benchmarks.rows import Row, speed_up
from benchmarks.timing import Contestant, Timing, interleave
from benchmarks.widened import widen
from samonai.sam.loading import load_sam


def test_contestants_take_turns() -> None:
    calls: list[str] = []
    contestants = {
        "a": Contestant(lambda: calls.append("a"), images=4, repeats=2),
        "b": Contestant(lambda: calls.append("b")),
    }
    times = interleave(contestants, rounds=3, warm_up=True, progress=lambda _: None)
    assert "".join(calls) == "ab" + "aab" * 3
    assert len(times["a"].rounds) == len(times["b"].rounds) == 3


def test_a_speed_up_is_the_ratio_of_medians_with_the_spread_of_the_rounds() -> None:
    row = speed_up("s", "n", ours=Timing((1.0, 2.0, 4.0)), theirs=Timing((8.0, 10.0, 4.0)))
    assert (row.value, row.spread) == (4.0, (1.0, 8.0))


@pytest.mark.parametrize(
    ("at_least", "at_most", "met"),
    [
        (None, None, None),
        (2.0, None, True),
        (2.1, None, False),
        (None, 2.0, True),
        (1.0, 1.9, False),
    ],
)
def test_a_bar_is_met_or_missed(
    at_least: float | None, at_most: float | None, met: bool | None
) -> None:
    assert Row("s", "n", 2.0, "x", at_least=at_least, at_most=at_most).met is met


def test_a_quick_run_writes_what_it_measured_and_where(tmp_path: Path) -> None:
    assert main(["--quick", "--only", "store", "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "results.json").read_text())
    assert [row["subject"] for row in document["rows"]] == ["store", "store"]
    assert document["versions"]["torch"]
    assert document["machine"]["cores"] >= 1


def test_a_widened_decoder_computes_the_same_masks() -> None:
    sam = build_vit_b()
    micro = load_sam("micro", device="cpu")
    widen(micro, sam)
    boxes = torch.tensor([[100.0, 120.0, 300.0, 260.0], [500.0, 40.0, 620.0, 90.0]])
    embedding = torch.randn(1, 128, 64, 64, generator=torch.Generator().manual_seed(0))
    found = []
    for model, image in ((micro, embedding), (sam, embedding.repeat_interleave(2, 1))):
        with torch.no_grad():
            sparse, dense = model.prompt_encoder(None, boxes, None)
            position = model.prompt_encoder.get_dense_pe()
            found.append(model.mask_decoder(image, position, sparse, dense, True))
    for own, wide in zip(*found, strict=True):
        torch.testing.assert_close(wide, own, rtol=1e-4, atol=1e-4 * float(own.abs().max()))


def build_vit_b() -> SimpleNamespace:
    """The parts of a ViT-B that decode; its encoder of 90 million parameters takes no part."""
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
    decoder = MaskDecoder(transformer_dim=256, transformer=transformer, iou_head_hidden_dim=256)
    prompts = PromptEncoder(256, (64, 64), (1024, 1024), mask_in_chans=16)
    return SimpleNamespace(mask_decoder=decoder.eval(), prompt_encoder=prompts.eval())
