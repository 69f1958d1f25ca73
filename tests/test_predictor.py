"""`Predictor` against segment-anything's `SamPredictor` on the same weights."""

import inspect

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

from samonai.core.errors import InputError
from samonai.sam import Predictor
from samonai.sam.loading import encoder_sha256
from samonai.sam.micro import build_micro
from samonai.sam.network import SamNetwork
from samonai.sam.normalisation import MEDSAM_NORMALISATION, SAM_NORMALISATION

SIDE = 256
SIZES = [(90, 60), (60, 90), (77, 131), (5, 3), (256, 256), (1, 1), (400, 301)]


def small_sam() -> Sam:
    """Build a SAM of 256 x 256 pixels with random weights."""
    torch.manual_seed(11)
    grid = SIDE // 16
    sam = Sam(
        ImageEncoderViT(
            img_size=SIDE,
            embed_dim=32,
            depth=2,
            num_heads=2,
            out_chans=64,
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=(1,),
        ),
        PromptEncoder(64, (grid, grid), (SIDE, SIDE), 16),
        MaskDecoder(
            transformer_dim=64,
            transformer=TwoWayTransformer(2, 64, 4, 128),
            iou_head_hidden_dim=32,
        ),
        [123.675, 116.28, 103.53],
        [58.395, 57.12, 57.375],
    )
    return sam.eval()


def network_of(sam: Sam, normalisation=SAM_NORMALISATION) -> SamNetwork:
    return SamNetwork(
        sam,
        name="small",
        normalisation=normalisation,
        encoder_sha256=encoder_sha256(sam.image_encoder),
    ).eval()


@pytest.fixture(scope="module")
def pair():
    sam = small_sam()
    return SamPredictor(sam), Predictor(network_of(sam))


def picture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def prompts(size: tuple[int, int]) -> dict[str, dict]:
    """Return arguments for `predict`, by kind of prompt."""
    height, width = size
    box = np.array([0.1 * width, 0.2 * height, 0.9 * width, 0.7 * height])
    points = np.array([[0.5 * width, 0.5 * height], [0.2 * width, 0.9 * height]])
    mask = np.random.default_rng(5).normal(0, 4, (1, SIDE // 4, SIDE // 4)).astype(np.float32)
    point = {"point_coords": points[:1], "point_labels": np.array([1])}
    two = {"point_coords": points, "point_labels": np.array([1, 0])}
    return {
        "box": {"box": box},
        "box (1, 4), integer": {"box": box[None].astype(int)},
        "point": point,
        "points": two,
        "negative": {"point_coords": points[:1], "point_labels": np.array([0])},
        "box and points": {"box": box, **two},
        "mask": {"mask_input": mask},
        "box and mask": {"box": box, "mask_input": mask},
        "points and mask": {"mask_input": mask, **two},
        "all": {"box": box, "mask_input": mask, **point},
        "nothing": {},
    }


def assert_same(found, expected):
    """Compare (masks or logits, scores, low-res logits); masks may differ only at the edge."""
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == theirs.dtype
        if mine.dtype not in (bool, torch.bool):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def check(theirs: SamPredictor, mine: Predictor, arguments: dict, multimask: bool) -> None:
    logits = theirs.predict(**arguments, multimask_output=multimask, return_logits=True)
    assert_same(mine.predict(**arguments, multimask_output=multimask, return_logits=True), logits)
    found = mine.predict(**arguments, multimask_output=multimask)
    expected = theirs.predict(**arguments, multimask_output=multimask)
    assert_same(found, expected)
    assert found[0].dtype == bool
    certain = np.abs(logits[0]) > 1e-4
    np.testing.assert_array_equal(found[0][certain], expected[0][certain])
    assert (~certain).sum() <= max(2, 0.01 * certain.size)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_same_masks_scores_and_logits(pair, size):
    theirs, mine = pair
    theirs.set_image(picture(size))
    mine.set_image(picture(size))
    embedding = theirs.get_image_embedding()
    assert mine.get_image_embedding().shape == embedding.shape
    np.testing.assert_allclose(mine.get_image_embedding(), embedding, rtol=1e-4, atol=1e-5)
    assert mine.input_size == tuple(theirs.input_size)
    assert mine.original_size == tuple(theirs.original_size)
    for arguments in prompts(size).values():
        for multimask in (True, False):
            check(theirs, mine, arguments, multimask)


@pytest.mark.parametrize("multimask", [True, False])
def test_same_batches_in_predict_torch(pair, multimask):
    theirs, mine = pair
    size = (90, 61)
    for predictor in pair:
        predictor.set_image(picture(size))
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 60, (11, 2))
    boxes = torch.tensor(np.hstack([corners, corners + rng.uniform(1, 30, (11, 2))]))
    boxes = mine.transform.apply_boxes_torch(boxes, size)
    coords = torch.tensor(rng.uniform(0, 250, (11, 3, 2)), dtype=torch.float32)
    labels = torch.tensor(rng.integers(0, 2, (11, 3)))
    masks = torch.tensor(rng.normal(0, 4, (11, 1, 64, 64)), dtype=torch.float32)
    for arguments in (
        (None, None, boxes),
        (coords, labels),
        (coords, labels, boxes),
        (None, None, boxes, masks),
        (None, None, boxes, masks[:1]),
        (coords, labels, boxes, masks),
        (None, None, None, masks),
    ):
        for logits in (True, False):
            named = {"multimask_output": multimask, "return_logits": logits}
            found = mine.predict_torch(*arguments, **named)
            assert_same(found, theirs.predict_torch(*arguments, **named))
            assert found[0].shape == (11, 3 if multimask else 1, *size)


def test_bgr_and_transformed_images(pair):
    theirs, mine = pair
    image = picture((64, 100))
    mine.set_image(image)
    expected = mine.get_image_embedding()
    mine.set_image(np.ascontiguousarray(image[..., ::-1]), image_format="BGR")
    assert torch.equal(mine.get_image_embedding(), expected)

    resized = torch.as_tensor(mine.transform.apply_image(image)).permute(2, 0, 1)[None]
    mine.set_torch_image(resized.float(), image.shape[:2])
    assert torch.equal(mine.get_image_embedding(), expected)
    theirs.set_torch_image(resized, image.shape[:2])
    box = np.array([3, 4, 50, 60])
    assert_same(mine.predict(box=box), theirs.predict(box=box))


def test_same_at_1024_pixels_with_the_micro_architecture():
    torch.manual_seed(2)
    sam = build_micro()
    theirs, mine = SamPredictor(sam), Predictor(network_of(sam))
    image = picture((700, 1024))
    theirs.set_image(image)
    mine.set_image(image)
    box = np.array([100.5, 50, 800, 600.25])
    check(theirs, mine, {"box": box}, True)
    point = {"point_coords": np.array([[512.0, 300]]), "point_labels": np.array([1])}
    check(theirs, mine, point, True)
    low_res = mine.predict(**point)[2][:1]
    check(theirs, mine, {"box": box, "mask_input": low_res}, False)


def test_the_checkpoints_own_normalisation_is_used():
    sam = small_sam()
    mine = Predictor(network_of(sam, MEDSAM_NORMALISATION))
    image = picture((SIDE, SIDE))
    mine.set_image(image)
    scaled = torch.as_tensor(image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = sam.image_encoder(scaled)
    np.testing.assert_allclose(mine.get_image_embedding(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("box", [None, np.array([10.0, 12, 60, 50])])
def test_blank_points_count_as_upstream_counts_them(pair, box):
    theirs, mine = pair
    for predictor in pair:
        predictor.set_image(picture((80, 80)))
    coords, labels = np.array([[0.0, 0], [30, 40], [5, 5]]), np.array([-1, 1, -1])
    assert_same(mine.predict(coords, labels, box), theirs.predict(coords, labels, box))


def test_methods_and_arguments_are_upstreams():
    for name, method in inspect.getmembers(SamPredictor, inspect.isfunction):
        if name.startswith("_"):
            continue
        theirs = inspect.signature(method).parameters
        mine = inspect.signature(getattr(Predictor, name)).parameters
        assert [(p.name, p.default, p.kind) for p in mine.values()] == [
            (p.name, p.default, p.kind) for p in theirs.values()
        ]
    sam = small_sam()
    theirs, mine = SamPredictor(sam), Predictor(network_of(sam))
    for predictor in (theirs, mine):
        predictor.set_image(picture((20, 30)))
    assert set(vars(theirs)) <= set(vars(mine))
    assert mine.device == theirs.device
    mine.reset_image()
    assert not mine.is_image_set
    assert mine.features is None


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8), np.uint8), r"uint8 \(H, W, 3\).*got uint8 \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"got uint8 \(8, 8, 4\)"),
        (np.zeros((8, 8, 3), np.float32), "got float32"),
        (np.zeros((1, 4000, 3), np.uint8), "1 x 4000 pixels is too thin"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
    ],
)
def test_wrong_images_are_one_line(pair, image, message):
    with pytest.raises(InputError, match=message):
        pair[1].set_image(image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"point_coords": np.ones((1, 2))}, "point_coords need point_labels"),
        ({"point_labels": np.ones(1)}, "point_labels need point_coords"),
        ({"point_coords": np.ones(2), "point_labels": np.ones(1)}, r"shape \(None, 2\)"),
        ({"point_coords": np.ones((2, 2)), "point_labels": np.ones(1)}, r"shape \(2,\)"),
        ({"point_coords": np.ones((1, 2)), "point_labels": np.array([2])}, "1 .inside., 0"),
        ({"box": np.ones((2, 4))}, "several boxes go to predict_torch"),
        ({"box": np.array([0, 0, np.nan, 4])}, "NaN"),
        ({"mask_input": np.ones((1, 256, 256))}, r"shape \(B, 1, 64, 64\)"),
        ({"mask_input": np.ones((64, 64))}, r"mask_input: expected numbers of shape"),
    ],
)
def test_wrong_prompts_are_one_line(pair, arguments, message):
    mine = pair[1]
    mine.set_image(picture((50, 50)))
    with pytest.raises(InputError, match=message) as caught:
        mine.predict(**arguments)
    assert "\n" not in str(caught.value)


def test_predictions_need_an_image(pair):
    mine = pair[1]
    mine.reset_image()
    for call in (mine.predict, mine.get_image_embedding):
        with pytest.raises(InputError, match="call set_image first"):
            call()
        with pytest.raises(RuntimeError):
            call()
    with pytest.raises(InputError, match="unknown precision 'half'"):
        Predictor(mine.model, precision="half")
    with pytest.raises(InputError, match="'RGB' or 'BGR'"):
        mine.set_image(picture((8, 8)), image_format="RGBA")


def test_batches_of_different_lengths_are_one_line(pair):
    mine = pair[1]
    mine.set_image(picture((50, 50)))
    with pytest.raises(InputError, match="2 in point_coords, 3 in boxes"):
        mine.predict_torch(torch.ones(2, 1, 2), torch.ones(2, 1), torch.ones(3, 4))
    with pytest.raises(InputError, match="long side of 256"):
        mine.set_torch_image(torch.zeros(1, 3, 100, 100), (50, 50))
