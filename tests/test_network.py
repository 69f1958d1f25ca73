"""The network: batched decode against upstream's loop, a frozen encoder, a 16 MB state."""

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from samonai.core.errors import InputError
from samonai.prompts.frame_prompts import NO_POINT
from samonai.prompts.types import Prompts, concatenate_prompts
from samonai.sam import prompted as prompted_module
from samonai.sam.decoder import prompts_at_once
from samonai.sam.network import SamNetwork
from samonai.sam.prompt_embedding import embed_prompts

BOX = [100.0, 120.0, 600.0, 500.0]


def upstream(network: SamNetwork, embedding: torch.Tensor, multimask: bool, **prompt):
    """Decode prompts of one image as `segment_anything.SamPredictor.predict_torch` does."""
    points = prompt.get("points")
    sparse, dense = network.prompt_encoder(points, prompt.get("boxes"), prompt.get("masks"))
    return network.mask_decoder(
        image_embeddings=embedding[None],
        image_pe=network.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
    )


def ragged_batch() -> tuple[Prompts, list[dict]]:
    """Six prompts of six kinds over three images, and the same ones for upstream's loop."""
    coords = torch.tensor([[[200.0, 300.0], [500.0, 90.0]]])
    boxes, mask = torch.tensor([BOX]), torch.randn(1, 1, 256, 256)
    both, one = torch.tensor([[1, 0]]), torch.tensor([[1]])
    loop = [
        {"image": 0, "boxes": boxes},
        {"image": 2, "points": (coords, both)},
        {"image": 0, "points": (coords[:, :1], one)},
        {"image": 1, "points": (coords, both), "boxes": boxes},
        {"image": 1, "masks": mask, "boxes": boxes},
        {"image": 2, "masks": mask, "points": (coords[:, :1], one)},
    ]
    rows = []
    for item in loop:
        points = item.get("points", (torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.int64)))
        rows.append(
            Prompts(
                torch.zeros(1, dtype=torch.int64),
                boxes=item.get("boxes"),
                point_coords=points[0],
                point_labels=points[1],
                mask_inputs=item.get("masks"),
            )
        )
    joined = concatenate_prompts(rows)
    index = torch.tensor([item["image"] for item in loop])
    return Prompts(index, *list(vars(joined).values())[1:]), loop


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_prompts_that_are_decoded_a_few_at_a_time_come_in_order(monkeypatch, tiny_network, at_once):
    embeddings = torch.randn(3, *tiny_network.embedding_shape)
    prompts = concatenate_prompts([ragged_batch()[0]] * 3)
    trained = tiny_network.decode(embeddings, prompts)  # with gradients, all of a kind at once
    monkeypatch.setattr(prompted_module, "prompts_at_once", lambda shape: at_once)
    with torch.no_grad():
        found = tiny_network.decode(embeddings, prompts)
    torch.testing.assert_close(found.low_res_logits, trained.low_res_logits.detach())
    torch.testing.assert_close(found.iou_predictions, trained.iou_predictions.detach())


def test_as_many_prompts_are_decoded_at_once_as_fit_into_32_mib():
    assert prompts_at_once((256, 64, 64)) == 4  # SAM: 32 channels of 256 x 256 float32 are 8 MiB
    assert prompts_at_once((128, 64, 64)) == 8
    assert prompts_at_once((8192, 64, 64)) == 1


@pytest.mark.parametrize("multimask", [False, True])
def test_batched_decode_equals_the_loop_over_images(tiny_network, multimask):
    torch.manual_seed(1)
    embeddings = torch.randn(3, *tiny_network.embedding_shape)
    prompts, loop = ragged_batch()
    with torch.no_grad():
        output = tiny_network.decode(embeddings, prompts, multimask)
        for row, item in enumerate(loop):
            kwargs = {k: v for k, v in item.items() if k != "image"}
            logits, iou = upstream(tiny_network, embeddings[item["image"]], multimask, **kwargs)
            torch.testing.assert_close(output.low_res_logits[row], logits[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(output.iou_predictions[row], iou[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 7])
def test_prompts_on_one_image_equal_upstreams(tiny_network, count):
    # Up to the first block's answer all of them share the image's tokens.
    torch.manual_seed(2)
    embedding = torch.randn(1, *tiny_network.embedding_shape)
    corner = torch.rand(count, 2) * 600
    boxes = torch.cat([corner, corner + 50 + torch.rand(count, 2) * 300], 1)
    with torch.no_grad():
        output = tiny_network.decode(embedding, Prompts.from_boxes(boxes.numpy()), True)
        logits, iou = upstream(tiny_network, embedding[0], True, boxes=boxes)
    torch.testing.assert_close(output.low_res_logits, logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.iou_predictions, iou, rtol=1e-4, atol=1e-5)


def test_padding_points_do_not_change_a_prompt(tiny_network):
    embedding = torch.randn(1, *tiny_network.embedding_shape)
    point, index = torch.tensor([[[300.0, 200.0]]]), torch.zeros(1, dtype=torch.int64)
    bare = Prompts(index, point_coords=point, point_labels=torch.tensor([[1]]))
    padded = Prompts(
        index,
        point_coords=torch.cat([torch.full((1, 1, 2), 9.0), point], 1),
        point_labels=torch.tensor([[NO_POINT, 1]]),
    )
    expected = tiny_network.decode(embedding, bare).low_res_logits
    torch.testing.assert_close(tiny_network.decode(embedding, padded).low_res_logits, expected)


def test_no_prompts_give_no_masks(tiny_network):
    output = tiny_network.decode(
        torch.zeros(1, *tiny_network.embedding_shape), Prompts.from_boxes(np.zeros((0, 4)))
    )
    assert output.low_res_logits.shape == (0, 1, 256, 256)
    assert output.iou_predictions.shape == (0, 1)


def test_state_leaves_the_encoder_out_and_loads_without_it(tiny_network):
    state = tiny_network.state_dict()
    assert not any(key.startswith("image_encoder.") for key in state)
    other = tiny_network.fork()
    with torch.no_grad():
        other.mask_decoder.iou_token.weight.add_(1)
    other.load_state_dict(state)
    assert torch.equal(
        other.mask_decoder.iou_token.weight, tiny_network.mask_decoder.iou_token.weight
    )


def test_state_of_another_encoder_is_refused(tiny_network):
    state = {**tiny_network.state_dict(), "encoder_identity": torch.zeros(32, dtype=torch.uint8)}
    with pytest.raises(InputError, match="trained on another encoder"):
        tiny_network.load_state_dict(state)


def test_state_with_another_encoders_weights_is_refused(tiny_network):
    key = "image_encoder.pos_embed"
    state = {**tiny_network.state_dict(), key: tiny_network.image_encoder.pos_embed + 1}
    with pytest.raises(InputError, match="frozen"):
        tiny_network.load_state_dict(state)


def test_training_mode_leaves_frozen_parts_alone(tiny_network):
    tiny_network.set_trainable(iou_head=False).train()
    assert not tiny_network.image_encoder.training
    assert not tiny_network.prompt_encoder.training
    assert tiny_network.mask_decoder.training
    trained = {name for name, p in tiny_network.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.startswith("mask_decoder.") for name in trained)
    assert not any("iou_prediction_head" in name for name in trained)


def test_a_fork_shares_the_encoder_only(tiny_network):
    fork = tiny_network.fork()
    assert fork.image_encoder is tiny_network.image_encoder
    assert fork.mask_decoder is not tiny_network.mask_decoder
    assert isinstance(fork, SamNetwork)


def test_preprocess_equals_upstream(tiny_network):
    sam = Sam(
        tiny_network.image_encoder,
        tiny_network.prompt_encoder,
        tiny_network.mask_decoder,
        [123.675, 116.28, 103.53],
        [58.395, 57.12, 57.375],
    )
    image = np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8)
    from segment_anything.utils.transforms import ResizeLongestSide

    resized = torch.as_tensor(ResizeLongestSide(1024).apply_image(image)).permute(2, 0, 1)
    torch.testing.assert_close(tiny_network.preprocess(image), sam.preprocess(resized.float()))


@pytest.mark.parametrize("shape", [(1, 3, 512, 512), (3, 1024, 1024)])
def test_images_of_another_shape_are_refused(tiny_network, shape):
    with pytest.raises(ValueError, match="images to encode"):
        tiny_network.encode(torch.zeros(shape))


def test_forward_without_prompts_is_one_mask_per_frame(tiny_network):
    embeddings = torch.randn(2, *tiny_network.embedding_shape)
    assert tiny_network(embeddings).shape == (2, 1, 256, 256)


def test_gradients_equal_upstreams(tiny_network):
    embeddings = torch.randn(1, *tiny_network.embedding_shape)
    boxes = torch.tensor([BOX, [10.0, 20.0, 900.0, 300.0]])
    ours, theirs = tiny_network.fork(), tiny_network.fork()
    weight = torch.randn(2, 1, 256, 256)
    output = ours.decode(embeddings, Prompts(torch.zeros(2, dtype=torch.int64), boxes=boxes))
    ((output.low_res_logits * weight).mean() + output.iou_predictions.sum()).backward()
    logits, iou = upstream(theirs, embeddings[0], False, boxes=boxes)
    ((logits * weight).mean() + iou.sum()).backward()
    for (name, own), reference in zip(
        ours.mask_decoder.named_parameters(), theirs.mask_decoder.parameters(), strict=True
    ):
        # A softmax does not see what is added to all its scores: upstream's gradient of the key
        # projections' biases is rounding noise around the zero that ours leaves out.
        expected = torch.zeros_like(own) if reference.grad is None else reference.grad
        found = torch.zeros_like(own) if own.grad is None else own.grad
        torch.testing.assert_close(
            found, expected, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_autocast_leaves_coordinates_alone(tiny_network):
    embeddings = torch.randn(1, *tiny_network.embedding_shape)
    prompts = Prompts.from_boxes([[700.5, 611.25, 903.75, 800.0]])
    with torch.no_grad():
        expected = embed_prompts(tiny_network.prompt_encoder, prompts)[0]
        seen = []
        tiny_network.mask_decoder.transformer.layers[0].self_attn.register_forward_pre_hook(
            lambda module, arguments, named: seen.append(named["q"][:, 5:].float()),
            with_kwargs=True,
        )
        with torch.autocast("cpu", torch.bfloat16):
            tiny_network.decode(embeddings, prompts)
    assert torch.equal(seen[0], expected)
