"""The lean encoder against segment-anything's own forward, on random weights."""

from functools import partial
from pathlib import Path

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from samonai.core.errors import InputError
from samonai.domains.medical import MedicalDomain
from samonai.embeddings import build_targets
from samonai.prompts.types import Prompts
from samonai.sam import attention as lean
from samonai.sam import encoder as encoding
from samonai.sam import load_sam
from samonai.sam.encoder import encode_images, resolve_precision
from samonai.sam.micro import build_micro

int8 = pytest.mark.skipif(
    torch.backends.quantized.engine not in ("x86", "onednn", "fbgemm"),
    reason="torch has no kernels for int8 on this CPU",
)


def vit(grid: int, *, width: int = 32, heads: int = 4, rel_pos: bool = True) -> ImageEncoderViT:
    """Build vit_b's structure, narrow: windows of 14, then a global block; no weight is zero."""
    torch.manual_seed(grid)
    encoder = ImageEncoderViT(
        img_size=grid * 16,
        embed_dim=width,
        depth=3,
        num_heads=heads,
        out_chans=24,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=rel_pos,
        window_size=14,
        global_attn_indexes=(1,),
    ).eval()
    encoder.requires_grad_(False)  # as a network freezes it
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "pos" in name or name.endswith("bias"):
                parameter.normal_(0, 0.5)
    return encoder


def images(encoder: ImageEncoderViT, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(batch, 3, encoder.img_size, encoder.img_size, generator=generator)


def stock(encoder: ImageEncoderViT, batch: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return encoder(batch)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.detach() - expected).norm() / expected.norm())


@pytest.mark.parametrize("rel_pos", [True, False])
@pytest.mark.parametrize(("grid", "batch"), [(14, 2), (17, 2), (9, 1), (28, 3)])
def test_equals_upstream_with_and_without_padding_in_windows(grid, batch, rel_pos):
    encoder = vit(grid, rel_pos=rel_pos)
    batch_images = images(encoder, batch)
    expected = stock(encoder, batch_images)
    found = encode_images(encoder, batch_images, "fp32")
    assert found.dtype == torch.float32
    assert found.shape == (batch, 24, grid, grid)
    assert error(found, expected) < 1e-5
    assert error(encode_images(encoder, batch_images, "bf16"), expected) < 1e-2


def test_equals_upstream_in_vit_b_geometry():
    # 64 x 64 tokens, 64 channels per head, windows of 14 padded to 70: one window block, one
    # global block, two heads of vit_b's twelve.
    encoder = vit(64, width=128, heads=2)
    encoder.blocks = encoder.blocks[:2]
    batch = images(encoder)
    expected = stock(encoder, batch)
    assert error(encode_images(encoder, batch, "fp32"), expected) < 1e-5
    assert error(encode_images(encoder, batch, "bf16"), expected) < 1e-2


def test_equals_upstream_on_the_micro_model():
    torch.manual_seed(3)
    encoder = build_micro().image_encoder
    batch = images(encoder)
    expected = stock(encoder, batch)
    assert error(encode_images(encoder, batch, "fp32"), expected) < 1e-5
    # One block does for bf16, which some CPUs emulate slowly.
    encoder.blocks = encoder.blocks[2:3]
    expected = stock(encoder, batch)
    assert error(encode_images(encoder, batch, "bf16"), expected) < 1e-2


def test_relative_positions_matter_in_these_tests():
    encoder = vit(17)
    batch = images(encoder)
    with_positions = encode_images(encoder, batch, "fp32")
    with torch.no_grad():
        for block in encoder.blocks:
            block.attn.rel_pos_h.zero_()
    assert error(encode_images(encoder, batch, "fp32"), with_positions) > 1e-3


def test_changed_weights_are_seen_at_once():
    encoder = vit(17)
    batch = images(encoder)
    encode_images(encoder, batch, "fp32")
    with torch.no_grad():
        encoder.blocks[1].attn.rel_pos_w.mul_(-2)
        encoder.blocks[0].attn.qkv.bias.add_(1)
    assert error(encode_images(encoder, batch, "fp32"), stock(encoder, batch)) < 1e-5


def test_the_bias_is_built_for_few_heads_at_a_time(monkeypatch):
    encoder = vit(17)
    batch = images(encoder, 3)
    sizes = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(q, k, v, attn_mask, scale):
        sizes.append(attn_mask.numel() * attn_mask.element_size())
        return attend(q, k, v, attn_mask=attn_mask, scale=scale)

    budget = 5 * 289 * 289 * 4  # five of the global block's twelve images·heads
    monkeypatch.setattr(lean, "_BIAS_BYTES", budget)
    monkeypatch.setattr(lean, "attention_form", lambda *of: lean.BIAS)
    monkeypatch.setattr(lean, "scaled_dot_product_attention", watched)
    assert error(encode_images(encoder, batch, "fp32"), stock(encoder, batch)) < 1e-5
    assert max(sizes) <= budget
    assert 2 * 289 * 289 * 4 in sizes  # the rest of the last chunk


@pytest.mark.parametrize(("grid", "batch"), [(17, 2), (9, 1)])
def test_the_folded_form_equals_upstream_too(monkeypatch, grid, batch):
    encoder = vit(grid)
    batch_images = images(encoder, batch)
    asked = []
    monkeypatch.setattr(lean, "attention_form", lambda *of: asked.append(of) or lean.FOLDED)
    expected = stock(encoder, batch_images)
    assert error(encode_images(encoder, batch_images, "fp32"), expected) < 1e-5
    assert error(encode_images(encoder, batch_images, "bf16"), expected) < 1e-2
    assert {length for *_, length in asked} == {196, grid * grid}


@pytest.mark.parametrize("budget", [1, 3 * 289 * 17 * 4, 5 * 196 * 196 * 4, 1 << 21])
def test_the_form_of_blocks_equals_upstream_whatever_a_block_holds(monkeypatch, budget):
    encoder = vit(17)
    batch = images(encoder, 3)
    monkeypatch.setattr(lean, "_BLOCK_BYTES", budget)
    monkeypatch.setattr(lean, "attention_form", lambda *of: lean.BLOCKS)
    monkeypatch.setattr(lean, "scaled_dot_product_attention", None)
    expected = stock(encoder, batch)
    assert error(encode_images(encoder, batch, "fp32"), expected) < 1e-5
    assert error(encode_images(encoder, batch, "bf16"), expected) < 1e-2


def test_blocks_of_scores_stay_within_their_memory(monkeypatch):
    encoder, sizes = vit(17), []
    batch = images(encoder, 3)
    softmax = torch.Tensor.softmax

    def watched(scores, dim):
        sizes.append(scores.numel() * scores.element_size())
        return softmax(scores, dim)

    budget = 3 * 289 * 17 * 4  # three rows of queries of the global block
    monkeypatch.setattr(lean, "_BLOCK_BYTES", budget)
    monkeypatch.setattr(lean, "attention_form", lambda *of: lean.BLOCKS)
    monkeypatch.setattr(torch.Tensor, "softmax", watched)
    encode_images(encoder, batch, "fp32")
    assert max(sizes) == budget
    assert 2 * 289 * 17 * 4 in sizes  # 17 rows are five times three, and two more


def test_another_activation_is_called_as_it_is():
    encoder = vit(9)
    batch = images(encoder)
    for block in encoder.blocks:
        block.mlp.act = torch.nn.GELU(approximate="tanh")
    encoder.blocks[0].mlp.act = torch.nn.ReLU()
    assert error(encode_images(encoder, batch, "fp32"), stock(encoder, batch)) < 1e-5


def test_the_form_is_chosen_by_device_dtype_and_length():
    cpu, cuda, half = torch.device("cpu"), torch.device("cuda"), torch.bfloat16
    assert lean.attention_form(cpu, half, lean.GLOBAL_TOKENS) == lean.BLOCKS
    assert lean.attention_form(cpu, torch.float32, lean.GLOBAL_TOKENS) == lean.BIAS
    assert lean.attention_form(cpu, torch.float32, lean.WINDOW_TOKENS) == lean.BLOCKS
    assert lean.attention_form(cuda, torch.float32, lean.GLOBAL_TOKENS) == lean.BIAS
    assert lean.attention_form(cuda, half, lean.WINDOW_TOKENS) == lean.BIAS
    assert lean.attention_form(cuda, half, lean.GLOBAL_TOKENS) == lean.FOLDED


def test_embeddings_carry_no_graph_and_take_part_in_one():
    encoder = vit(9)
    embeddings = encode_images(encoder, images(encoder), "fp32")
    assert not embeddings.requires_grad
    weight = torch.ones(24, requires_grad=True)
    (embeddings * weight[:, None, None]).sum().backward()
    assert torch.allclose(weight.grad, embeddings.sum((0, 2, 3)), rtol=1e-3, atol=1e-3)


def test_the_callers_autocast_does_not_leak_in():
    encoder = vit(9)
    batch = images(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        found = encode_images(encoder, batch, "fp32")
    assert error(found, stock(encoder, batch)) < 1e-5


def test_images_of_other_dtypes_are_taken():
    encoder = vit(9)
    batch = images(encoder).double()
    assert error(encode_images(encoder, batch, "fp32"), stock(encoder, batch.float())) < 1e-5


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")],
)
def test_auto_takes_bf16_where_the_cpu_computes_in_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_precision("auto", torch.device("cpu")) == expected
    assert resolve_precision("fp32", torch.device("cpu")) == "fp32"


def test_a_torch_that_lists_no_instruction_sets_computes_in_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # 2.10 has none
    assert resolve_precision("auto", torch.device("cpu")) == "fp32"
    encoder = vit(9)
    batch = images(encoder)
    assert error(encode_images(encoder, batch, "auto"), stock(encoder, batch)) < 1e-5


@int8
@pytest.mark.parametrize("grid", [9, 17])
def test_int8_is_near_upstream_and_each_image_stands_for_itself(grid):
    encoder = vit(grid, width=64)
    batch = images(encoder, 2)
    batch[1] *= 5  # another scale of activations
    found = encode_images(encoder, batch, "int8")
    assert 1e-4 < error(found, stock(encoder, batch)) < 5e-2
    alone = torch.cat([encode_images(encoder, one, "int8") for one in batch.split(1)])
    assert torch.equal(found, alone)


@int8
def test_int8_packs_weights_again_when_they_have_changed():
    encoder = vit(9)
    batch = images(encoder)
    before = encode_images(encoder, batch, "int8")
    with torch.no_grad():
        encoder.blocks[0].mlp.lin1.weight.mul_(-1)
        encoder.blocks[1].attn.qkv.bias.add_(1)
    after = encode_images(encoder, batch, "int8")
    assert error(after, before) > 0.1
    assert error(after, stock(encoder, batch)) < 5e-2


@int8
@pytest.mark.parametrize(("capabilities", "rest"), [({"avx512_bf16": True}, "bf16"), ({}, "fp32")])
def test_int8_says_what_else_is_computed_in(monkeypatch, capabilities, rest):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    resolved = resolve_precision("int8", torch.device("cpu"))
    assert resolved == f"int8_{rest}"
    assert resolve_precision(resolved, torch.device("cpu")) == resolved
    encoder = vit(9, width=64)  # without wide sums too
    assert error(
        encode_images(encoder, images(encoder), "int8"), stock(encoder, images(encoder))
    ) < (0.1)


def test_int8_is_refused_where_it_cannot_be(monkeypatch):
    with pytest.raises(InputError, match="int8 is for CPUs; use auto, bf16 or fp16 on cuda"):
        resolve_precision("int8", torch.device("cuda"))
    monkeypatch.setattr(type(torch.backends.quantized), "engine", "qnnpack")
    with pytest.raises(InputError, match="has no kernels for it on this CPU"):
        resolve_precision("int8", torch.device("cpu"))


@int8
def test_int8_is_refused_for_trained_and_for_other_encoders():
    encoder = vit(9)
    encoder.blocks[-1].requires_grad_(True)
    with pytest.raises(InputError, match="computes no gradient"):
        encode_images(encoder, images(encoder), "int8")
    with pytest.raises(InputError, match="for SAM's own encoders"):
        encode_images(nn.Conv2d(3, 4, 16, 16), torch.randn(1, 3, 32, 32), "int8")


def test_compiled_blocks_are_asked_for_and_equal(monkeypatch):
    """Traced whole, without breaks; the code generator itself takes minutes and is not called."""
    traced = []

    def traces(graph, inputs):
        traced.append(graph)
        return graph.forward

    compiled = torch.compile(encoding._run_block, fullgraph=True, dynamic=False, backend=traces)
    monkeypatch.setattr(encoding, "_compiled", lambda: compiled)
    encoder = vit(17)
    batch = images(encoder)
    encode_images(encoder, batch, "fp32")
    assert not traced
    monkeypatch.setenv(encoding.COMPILE_SWITCH, "1")
    assert error(encode_images(encoder, batch, "fp32"), stock(encoder, batch)) < 1e-5
    assert len(traced) == 2  # one for windows, one for the whole image


def test_a_compiler_that_fails_is_one_line(monkeypatch):
    def fails(graph, inputs):
        raise OSError("no C++ compiler\nand a page of advice")

    compiled = torch.compile(encoding._run_block, backend=fails)
    monkeypatch.setattr(encoding, "_compiled", lambda: compiled)
    monkeypatch.setenv(encoding.COMPILE_SWITCH, "1")
    encoder = vit(9)
    with pytest.raises(InputError, match=r"cannot compile the encoder here.*unset SAMONAI_COMPILE"):
        encode_images(encoder, images(encoder), "fp32")


def test_unknown_precisions_and_wrong_shapes_are_one_line():
    encoder = vit(9)
    with pytest.raises(InputError, match=r"unknown precision 'int4': use one of fp32, bf16"):
        encode_images(encoder, images(encoder), "int4")
    with pytest.raises(InputError, match=r"shape \(B, 3, 144, 144\), got \(1, 3, 144, 100\)"):
        encode_images(encoder, images(encoder)[..., :100])


def test_overflow_in_fp16_is_an_error():
    encoder = vit(9)
    with torch.no_grad():
        encoder.patch_embed.proj.bias.fill_(1e6)
    with pytest.raises(InputError, match="overflow in fp16"):
        encode_images(encoder, images(encoder), "fp16")


def test_encoders_of_other_classes_are_called_as_they_are():
    other = nn.Conv2d(3, 4, 16, 16).eval().requires_grad_(False)
    batch = torch.randn(2, 3, 32, 32)
    found = encode_images(other, batch, "fp32")
    assert torch.equal(found, other(batch))
    assert not found.requires_grad


def test_masks_on_bf16_embeddings_are_those_on_fp32_ones_on_real_scans(shared_data):
    """The official decoder's masks, from boxes around the labels, on slices of real MR scans."""
    assert min(mask_dice(shared_data, "bf16")) >= 0.99


def test_masks_on_int8_embeddings_are_nearly_those_on_fp32_ones_on_real_scans(shared_data):
    assert min(mask_dice(shared_data, "int8")) >= 0.98


def mask_dice(shared_data: Path, precision: str) -> list[torch.Tensor]:
    """Return how masks agree with those from fp32 embeddings, object by object."""
    network = load_sam("micro", device="cpu")
    folder = shared_data / "medical" / "msd-hippocampus"
    domain = MedicalDomain()
    dice = []
    for case in domain.find_cases(folder / "imagesTr", folder / "labelsTr")[:2]:
        source = domain.read(case)
        index = domain.frame_count(source) // 2
        frame = domain.frame(source, index)
        boxes = build_targets(frame).boxes
        image = network.preprocess(frame.image)[None]
        masks = [
            network.decode(
                network.encode(image, precision), Prompts.from_boxes(boxes)
            ).low_res_logits.gt(0)
            for precision in ("fp32", precision)
        ]
        assert masks[0].any()
        dice += [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(*masks, strict=True)]
    assert len(dice) >= 3
    return dice
