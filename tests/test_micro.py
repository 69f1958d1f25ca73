"""The embedded model: what it is made of, and that it finds drawn objects it never saw."""

import importlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from samonai.sam.checkpoints import MICRO_WEIGHTS
from samonai.sam.micro import build_micro

BOX_DICE = 0.75  # on the ten scenes below; see weights/MODEL_CARD.md for more of them
TOOLS = Path(__file__).parents[1] / "tools" / "micro"


@pytest.fixture(scope="module")
def micro():
    sam = build_micro()
    sam.load_state_dict({name: t.float() for name, t in load_file(MICRO_WEIGHTS).items()})
    return sam


@pytest.fixture
def tool(monkeypatch):
    """The modules that drew its training scenes and that score it."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


def test_weights_fit_in_the_package():
    assert MICRO_WEIGHTS.stat().st_size <= 8_000_000


def test_weights_are_the_whole_state_of_the_stock_classes():
    with safe_open(MICRO_WEIGHTS, framework="pt") as file:
        stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert stored == {name: tuple(t.shape) for name, t in build_micro().state_dict().items()}


def test_loads_as_finite_fp32_in_eval_mode(micro):
    assert not micro.training
    assert {p.dtype for p in micro.parameters()} == {torch.float32}
    assert all(p.isfinite().all() for p in micro.parameters())


def test_stock_forward_has_the_shapes_of_sam(micro):
    image = torch.zeros(3, 512, 1024)
    with torch.no_grad():
        (output,) = micro(
            [
                {
                    "image": image,
                    "original_size": (50, 100),
                    "boxes": torch.tensor([[100.0, 100.0, 400.0, 300.0]]),
                }
            ],
            multimask_output=True,
        )
    assert output["masks"].shape == (1, 3, 50, 100)
    assert output["low_res_logits"].shape == (1, 3, 256, 256)


def test_the_training_forward_is_the_stock_forward(micro, tool):
    crops = tool("crops")
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, 1024, 1024, generator=generator)
    box = torch.tensor([[100.0, 50.0, 700.0, 900.0], [10.0, 20.0, 200.0, 90.0]])
    with torch.no_grad():
        embedding = micro.image_encoder(image)
        ours = crops.encode(micro, image)
        sparse, dense = micro.prompt_encoder(None, box, None)
        logits, quality = micro.mask_decoder.predict_masks(
            embedding, micro.prompt_encoder.get_dense_pe(), sparse, dense
        )
        batch = crops.PromptBatch(torch.zeros(2, dtype=torch.int64), boxes=box)
        our_logits, our_quality = crops.decode(micro, embedding, batch)
    torch.testing.assert_close(ours, embedding, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(our_logits, logits, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(our_quality, quality, rtol=1e-4, atol=1e-4)


def test_scenes_follow_their_seed(tool):
    scenes = tool("scenes")
    one, same, other = (scenes.draw_scene(seed, "organs") for seed in (3, 3, 4))
    assert (one.image == same.image).all()
    assert one.objects == same.objects
    assert (one.image != other.image).any()


def test_finds_drawn_objects_it_never_saw_better_than_their_boxes(micro, tool):
    score = tool("evaluate").score_scenes(micro, 10)["all"]
    assert score["box"] > BOX_DICE
    assert score["box"] > score["filled box"]
