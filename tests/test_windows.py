"""Local decoding: windows of tokens around prompts, against upstream's decoder on each slice."""

from dataclasses import replace

import pytest
import torch

from samonai.core.errors import InputError
from samonai.core.geometry import FrameGeometry
from samonai.export.card import model_card
from samonai.export.probe import make_probe
from samonai.prompts.frame_prompts import NO_POINT
from samonai.prompts.types import Prompts
from samonai.sam.decoder_metadata import DecoderMetadata
from samonai.sam.network import SamNetwork
from samonai.sam.positive import positive_logits
from samonai.sam.windows import BACKGROUND, Window, WindowRule

SIDE = 64  # tokens of an embedding; 16 pixels of the model image each, 4 of the low-res frame

# Boxes at each corner and border, and of every size from one token to the whole frame.
BOXES = {
    "top left": ([0, 0, 60, 40], 16),
    "top right": ([970, 0, 1024, 30], 16),
    "bottom left": ([0, 970, 30, 1024], 16),
    "bottom right": ([990, 1000, 1024, 1024], 16),
    "left border": ([0, 500, 64, 564], 16),
    "outside the frame": ([-40, 1000, 10, 1100], 16),
    "one token": ([512, 512, 528, 528], 16),
    "one pixel": ([519, 519, 520, 520], 16),
    "twelve tokens": ([512, 512, 704, 704], 16),
    "thirteen": ([512, 512, 705, 640], 24),
    "twenty-one": ([208, 208, 544, 480], 32),
    "thirty-six": ([160, 200, 736, 736], 40),
    "forty-four": ([160, 200, 864, 800], 48),
    "forty-five": ([160, 200, 865, 800], SIDE),
    "at the border": ([0, 0, 736, 700], 48),
    "whole": ([0, 0, 1024, 1024], SIDE),
}


def of_boxes(*boxes: list[float]) -> Prompts:
    return Prompts.from_boxes(list(boxes))


def embeddings(network: SamNetwork, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *network.embedding_shape, generator=generator)


@pytest.fixture
def network(tiny_network: SamNetwork) -> SamNetwork:
    return tiny_network.set_windows("auto")


@pytest.mark.parametrize("name", BOXES)
def test_a_window_holds_the_box_and_its_margin_inside_the_frame(name):
    (left, top, right, bottom), size = BOXES[name]
    (window,) = WindowRule().windows(of_boxes([left, top, right, bottom]), SIDE)
    assert window.size == size
    for start, low, high in ((window.left, left, right), (window.top, top, bottom)):
        assert 0 <= start <= SIDE - size
        assert start <= max(low // 16 - 2, 0)
        assert start + size >= min(-(-high // 16) + 2, SIDE)


def test_points_and_masks_widen_a_window():
    mask = torch.full((4, 1, 256, 256), -5.0)
    mask[1:, 0, 40:48, 200:208] = 5  # tokens 10 and 11, 50 and 51
    boxes = torch.full((4, 4), torch.nan)
    boxes[0] = boxes[3] = torch.tensor([480.0, 480, 512, 512])  # tokens 30 and 31
    points = torch.tensor([[[500.0, 330]], [[820.0, 180]], [[990.0, 180]], [[0.0, 0]]])
    labels = torch.tensor([[0], [1], [1], [NO_POINT]])
    prompts = Prompts(
        torch.zeros(4, dtype=torch.int64), boxes, points, labels, mask,
        torch.tensor([False, True, True, True]),
    )  # fmt: skip
    found = WindowRule().windows(prompts, SIDE)
    assert found[0] == Window(18, 23, 16)  # rows 20 to 32 and two on each side
    assert found[1] == Window(3, 43, 16)  # the point is inside the mask
    assert found[2] == Window(3, 48, 16)  # columns 50 to 62, and what is left of the frame
    assert found[3] == Window(5, 25, 32)  # rows 10 to 32, columns 30 to 52, and two on each side


def test_a_prompt_without_extent_sees_all_tokens():
    point = Prompts(
        torch.zeros(2, dtype=torch.int64),
        torch.full((2, 4), torch.nan),
        torch.full((2, 1, 2), 500.0),
        torch.ones(2, 1, dtype=torch.int64),
        torch.full((2, 1, 256, 256), -1.0),  # a mask of nothing
        torch.tensor([True, False]),
    )
    assert WindowRule().windows(point, SIDE) == [Window(0, 0, SIDE)] * 2
    assert WindowRule().windows(of_boxes(), SIDE) == []


def every_kind(network: SamNetwork) -> tuple[torch.Tensor, Prompts]:
    """Two images; boxes of every size; points, masks and both with some of them."""
    boxes = torch.tensor([box for box, _ in BOXES.values()] * 2, dtype=torch.float32)
    rows = len(boxes)
    generator = torch.Generator().manual_seed(2)
    coords = torch.rand(rows, 2, 2, generator=generator) * 1024
    labels = torch.full((rows, 2), NO_POINT)
    labels[::3, 0] = 1
    labels[::6, 1] = 0
    masks = torch.randn(rows, 1, 256, 256, generator=generator) - 6
    masks[:, :, 100:120, 60:90] = 4
    has_mask = torch.arange(rows) % 4 == 1
    boxes[-2:] = torch.nan  # a mask alone, and a point alone
    labels[-1, 0], labels[-2] = 1, NO_POINT
    has_mask[-2:] = torch.tensor([True, False])
    index = torch.arange(rows) % 2
    return embeddings(network, 2), Prompts(index, boxes, coords, labels, masks, has_mask)


def by_upstream(
    network: SamNetwork, images: torch.Tensor, prompts: Prompts, tokens: range
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode one prompt after the other by upstream's decoder on slices of all its inputs."""
    encoder, decoder = network.prompt_encoder, network.mask_decoder
    logits, scores = [], []
    for row, window in enumerate(WindowRule().windows(prompts, SIDE)):
        one = prompts[torch.tensor([row])]
        count = int((one.point_labels != NO_POINT).sum())
        points = (one.point_coords[:, :count], one.point_labels[:, :count]) if count else None
        sparse, dense = encoder(
            points,
            one.boxes if bool(one.row_has_box()) else None,
            one.mask_inputs if bool(one.row_has_mask()) else None,
        )
        top, left, size = window
        part = (..., slice(top, top + size), slice(left, left + size))
        image = images[one.image_index]
        # `predict_masks` takes h and w from what it is given.
        low_res, iou = decoder.predict_masks(
            image[part], encoder.get_dense_pe()[part], sparse, dense[part]
        )
        placed = torch.full((1, 4, 256, 256), BACKGROUND)
        placed[..., 4 * top : 4 * (top + size), 4 * left : 4 * (left + size)] = low_res
        logits.append(placed[:, tokens.start : tokens.stop])
        scores.append(iou[:, tokens.start : tokens.stop])
    return torch.cat(logits), torch.cat(scores)


@pytest.mark.parametrize("grad", [True, False])
def test_every_kind_of_prompt_equals_upstream_on_each_slice(network, grad):
    images, prompts = every_kind(network)
    with torch.no_grad():
        expected, scores = by_upstream(network, images, prompts, range(4))
    with torch.set_grad_enabled(grad):
        found = network.decode(images, prompts, all_masks=True)
    torch.testing.assert_close(found.low_res_logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.iou_predictions, scores, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_prompts_that_share_an_image_equal_upstream_on_each_slice(network):
    images, prompts = every_kind(network)
    prompts = replace(
        prompts, image_index=torch.zeros_like(prompts.image_index), mask_inputs=None, has_mask=None
    )[torch.arange(len(prompts) - 2)]
    expected, scores = by_upstream(network, images[:1], prompts, range(1))
    assert network.share(images[:1], len(prompts)) is not None
    found = network.decode(images[:1], prompts)
    torch.testing.assert_close(found.low_res_logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.iou_predictions, scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(256, 256), (60, 80), (97, 33)])
@torch.no_grad()
def test_positive_logits_are_those_of_the_whole_frame(network, size):
    images, prompts = every_kind(network)
    boxes = Prompts.from_boxes(prompts.boxes[: len(BOXES)].numpy())
    geometry = FrameGeometry(size)
    found = positive_logits(network, images[:1], boxes, geometry)
    decoded = network.decode_single(images[:1], boxes)
    expected = geometry.logits_to_frame(decoded.low_res_logits)[:, 0]
    inside = expected > 1e-6
    assert inside.any(2).any(1).sum() > len(boxes) // 2
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-4)
    assert not (found[expected < -1e-6] > 0).any()


def test_a_gradient_reaches_the_decoder_from_the_window_alone(network):
    image, box = embeddings(network), of_boxes([512, 512, 528, 528])
    logits = network.decode(image, box).low_res_logits
    (window,) = WindowRule().windows(box, SIDE)
    inside = torch.zeros_like(logits, dtype=torch.bool)
    window.of_low_res(inside).fill_(True)
    assert (logits[~inside] == BACKGROUND).all()
    (weight,) = [network.mask_decoder.mask_tokens.weight]
    (gradient,) = torch.autograd.grad(logits[~inside].sum(), weight, retain_graph=True)
    assert not gradient.any()
    (gradient,) = torch.autograd.grad(logits[inside].sum(), weight)
    assert gradient.any()


def test_windows_are_off_unless_chosen_and_pass_to_forks(tiny_network):
    assert tiny_network.windows is None
    assert tiny_network.set_windows("auto").fork().windows == WindowRule()
    assert tiny_network.set_windows("all").windows is None
    with pytest.raises(InputError, match="decoder_window='some': expected one of all, auto"):
        tiny_network.set_windows("some")


def test_a_rule_is_read_from_metadata_or_refused():
    rule = WindowRule((8, 20), margin=3)
    content = rule.to_metadata()
    assert WindowRule.of_training({"windows": content}, "x") == rule
    assert WindowRule.of_training({}, "x") is None
    for wrong in (
        "all",
        [16],
        {"sizes": [16]},
        content | {"sizes": [20, 8]},
        content | {"sizes": 16},
        content | {"sizes": []},
        content | {"sizes": [0, 8]},
        content | {"margin": -1},
        content | {"margin": 1.5},
    ):
        with pytest.raises(InputError, match=r"x: windows in the metadata is .*, not a rule"):
            WindowRule.of_training({"windows": wrong}, "x")


@torch.no_grad()
def test_exports_are_compared_on_all_tokens_and_their_card_states_windows(tiny_network):
    expected = make_probe(tiny_network).box_logits
    found = make_probe(tiny_network.fork().set_windows("auto")).box_logits
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    training = {"windows": WindowRule((16, 48)).to_metadata()}
    metadata = DecoderMetadata("micro", "00", {}, "medical", {}, {}, training, {})
    assert "windows of 16, 48 image tokens" in model_card(metadata, usage="", checks={})
    metadata.training.clear()
    assert "image tokens" not in model_card(metadata, usage="", checks={})
