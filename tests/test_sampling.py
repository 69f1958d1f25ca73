"""Prompts drawn from labels lie where a user would have put them."""

import numpy as np
import pytest
import torch

from samonai.core.errors import InputError
from samonai.prompts.frame_prompts import NO_POINT
from samonai.prompts.sampling import PromptSampler, jitter_boxes, loosen_boxes, shift_boxes

BOX = np.array([[100.0, 200.0, 300.0, 280.0]], np.float32)


@pytest.fixture
def mask():
    mask = np.zeros((1, 256, 256), bool)
    mask[0, 50:70, 25:75] = True
    return mask


def test_jitter_moves_each_side_by_its_share_at_most():
    many = np.repeat(BOX, 2000, 0)
    moved = jitter_boxes(many, 0.05, (1024, 1024), np.random.default_rng(0))
    shares = (moved - many) / np.array([200, 80, 200, 80])
    assert np.abs(shares).max() <= 0.05 + 1e-6
    assert np.abs(shares).max(0) == pytest.approx(0.05, rel=0.02)
    assert shares.mean(0) == pytest.approx(0, abs=0.003)


def test_no_jitter_gives_the_exact_box():
    assert (jitter_boxes(BOX, 0.0, (1024, 1024), np.random.default_rng(0)) == BOX).all()


def test_boxes_stay_inside_the_frame():
    moved = jitter_boxes(np.repeat(BOX, 500, 0), 0.4, (310, 290), np.random.default_rng(0))
    assert moved[:, 2].max() <= 310
    assert moved[:, 3].max() <= 290


def test_a_shifted_box_keeps_its_size():
    many = np.repeat(BOX, 2000, 0)
    moved = shift_boxes(many, 0.1, (1024, 1024), np.random.default_rng(0))
    assert (moved[:, 2:] - moved[:, :2]) == pytest.approx(many[:, 2:] - many[:, :2], abs=1e-3)
    shares = (moved - many)[:, :2] / np.array([200, 80])
    assert np.abs(shares).max(0) == pytest.approx(0.1, rel=0.02)


def test_a_loose_box_holds_the_exact_one():
    many = np.repeat(BOX, 2000, 0)
    moved = loosen_boxes(many, 0.25, (1024, 1024), np.random.default_rng(0))
    outside = (many - moved) * np.array([1, 1, -1, -1]) / np.array([200, 80, 200, 80])
    assert outside.min() >= 0
    assert outside.max(0) == pytest.approx(0.25, rel=0.02)


def test_errors_of_boxes_come_in_their_proportions(mask):
    sampler = PromptSampler(
        box_jitter=0.0, shifted_probability=0.25, loose_probability=0.5, box_shift=0.4
    )
    many = np.repeat(BOX, 800, 0)
    boxes = sampler.sample(
        many, np.repeat(mask, 800, 0), (1024, 1024), np.random.default_rng(0)
    ).boxes.numpy()
    exact = (boxes == many).all(1)
    same_size = np.isclose(boxes[:, 2:] - boxes[:, :2], many[:, 2:] - many[:, :2], atol=1e-3).all(1)
    assert exact.mean() == pytest.approx(0.25, abs=0.05)
    assert (same_size & ~exact).mean() == pytest.approx(0.25, abs=0.05)


def test_masks_come_alone_and_beside_other_prompts(mask):
    sampler = PromptSampler(mask_probability=1.0, with_mask_probability=0.5)
    prompts = sampler.sample(
        np.repeat(BOX, 100, 0), np.repeat(mask, 100, 0), (1024, 1024), np.random.default_rng(0)
    )
    alone = ~prompts.row_has_box()
    assert prompts.row_has_mask()[alone].all()
    assert 0.3 < prompts.row_has_mask()[~alone].float().mean() < 0.7
    assert prompts.mask_inputs.shape == (100, 1, 256, 256)
    drawn = prompts.mask_inputs[prompts.row_has_mask()][:, 0] > 0
    overlap = (drawn & torch.from_numpy(mask)).sum((1, 2)) / mask.sum()
    assert overlap.mean() > 0.7


def test_new_kinds_of_error_do_not_change_what_the_old_ones_draw(mask):
    """Runs of before go on as they were: without these, no other number is drawn."""
    generator = np.random.default_rng(5)
    prompts = PromptSampler(box_probability=0.5, box_and_points_probability=0.5).sample(
        BOX, mask, (1024, 1024), generator
    )
    again = np.random.default_rng(5)
    again.choice(2, size=1, p=[0.5, 0.5])
    assert (jitter_boxes(BOX, 0.05, (1024, 1024), again) == prompts.boxes.numpy()).all()


def test_points_lie_inside_and_outside_as_their_labels_say(mask):
    sampler = PromptSampler(0.0, points_probability=1.0, positive_points=3, negative_points=2)
    for seed in range(30):
        prompts = sampler.sample(BOX, mask, (1024, 1024), np.random.default_rng(seed))
        assert not prompts.row_has_box().any()
        for (x, y), label in zip(prompts.point_coords[0], prompts.point_labels[0], strict=True):
            if label != NO_POINT:
                assert mask[0, int(y // 4), int(x // 4)] == bool(label)
        assert (prompts.point_labels == 1).sum() >= 1


def test_kinds_come_in_their_proportions(mask):
    sampler = PromptSampler(box_probability=3.0, points_probability=1.0)
    prompts = sampler.sample(
        np.repeat(BOX, 800, 0), np.repeat(mask, 800, 0), (1024, 1024), np.random.default_rng(0)
    )
    assert prompts.row_has_box().float().mean() == pytest.approx(0.75, abs=0.05)


def test_the_same_generator_draws_the_same(mask):
    sampler = PromptSampler(0.0, box_and_points_probability=1.0)
    one, two = (sampler.sample(BOX, mask, (1024, 1024), np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one.boxes, two.boxes)
    assert torch.equal(one.point_coords, two.point_coords)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"box_probability": 0.0}, "positive"),
        ({"box_jitter": 0.7}, "box_jitter"),
        ({"positive_points": 0}, "points"),
        ({"shifted_probability": 0.7, "loose_probability": 0.7}, "shifted"),
        ({"box_shift": 0.5}, "box_shift"),
        ({"mask_noise": -0.1}, "mask_noise"),
        ({"with_mask_probability": 1.5}, "with_mask"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        PromptSampler(**settings)
