"""Corrective clicks fall where the prediction is wrong; coarse masks look like coarse masks."""

import numpy as np
import pytest
import torch

from samonai.core.errors import InputError
from samonai.prompts.clicks import corrective_clicks, interior_pixel
from samonai.prompts.coarse_masks import CERTAIN_LOGIT, coarse_logits


def rectangle(top: int, left: int, bottom: int, right: int, side: int = 64) -> torch.Tensor:
    mask = torch.zeros(1, side, side, dtype=torch.bool)
    mask[0, top:bottom, left:right] = True
    return mask


EVERYWHERE = torch.ones(1, 64, 64, dtype=torch.bool)


class TestUniform:
    def test_every_pixel_of_the_error_comes_equally_often(self):
        truth, predicted = rectangle(10, 10, 14, 18), rectangle(10, 10, 14, 14)
        chances = torch.arange(1600, dtype=torch.float64) / 1600
        many = [mask.expand(1600, -1, -1) for mask in (predicted, truth, EVERYWHERE)]
        clicks = corrective_clicks(*many, rule="uniform", chances=chances)
        assert (clicks.labels == 1).all()
        pixels, counts = torch.unique(clicks.points - 0.5, dim=0, return_counts=True)
        assert counts.tolist() == [100] * 16
        assert pixels.min(0).values.tolist() == [14, 10]
        assert pixels.max(0).values.tolist() == [17, 13]

    def test_a_click_on_what_is_too_much_is_negative(self):
        truth, predicted = rectangle(0, 0, 4, 4), rectangle(0, 0, 4, 8)
        clicks = corrective_clicks(
            predicted, truth, EVERYWHERE, rule="uniform", chances=torch.tensor([0.999999])
        )
        assert clicks.labels.tolist() == [0]
        assert clicks.points.tolist() == [[7.5, 3.5]]

    def test_nobody_clicks_on_what_is_not_valid_or_not_wrong(self):
        truth, predicted = rectangle(0, 0, 4, 4), rectangle(0, 0, 4, 8)
        valid = rectangle(0, 0, 64, 5)
        chances = torch.tensor([0.999999])
        clicks = corrective_clicks(predicted, truth, valid, rule="uniform", chances=chances)
        assert clicks.points.tolist() == [[4.5, 3.5]]
        right = corrective_clicks(truth, truth, valid, rule="uniform", chances=chances)
        assert right.labels.tolist() == [-1]


class TestLargest:
    def test_the_deepest_pixel_of_the_largest_part_is_clicked(self):
        missed = rectangle(20, 30, 29, 41) | rectangle(0, 0, 3, 30)
        nothing = torch.zeros_like(missed)
        clicks = corrective_clicks(nothing, missed, EVERYWHERE, rule="largest")
        assert clicks.labels.tolist() == [1]
        x, y = clicks.points[0].tolist()
        assert y == 24.5
        assert 34 < x < 37

    def test_rows_without_an_error_get_no_click(self):
        truth = torch.cat([rectangle(0, 0, 5, 5), rectangle(1, 1, 2, 2)])
        predicted = torch.cat([rectangle(0, 0, 5, 5), rectangle(1, 1, 2, 2) ^ EVERYWHERE])
        clicks = corrective_clicks(predicted, truth, EVERYWHERE.expand(2, -1, -1), rule="largest")
        assert clicks.labels[0] == -1
        assert clicks.labels[1] == 0 or predicted[1, 1, 1]

    def test_the_frames_edge_is_a_border(self):
        region = np.zeros((9, 9), bool)
        region[0:5, 2:7] = True
        assert interior_pixel(region) == (2, 4)


def test_an_unknown_rule_is_named():
    with pytest.raises(InputError, match="'nearest' is not known; use uniform or largest"):
        corrective_clicks(EVERYWHERE, EVERYWHERE, EVERYWHERE, rule="nearest")


class TestCoarseMasks:
    @pytest.fixture
    def disc(self):
        rows, columns = np.indices((256, 256))
        return (rows - 80) ** 2 + (columns - 120) ** 2 < 30**2

    def test_without_noise_it_is_the_mask(self, disc):
        logits = coarse_logits(disc, 0.0, np.random.default_rng(0))
        assert ((logits > 0) == disc).all()
        assert logits.min() == -CERTAIN_LOGIT
        assert logits.max() == CERTAIN_LOGIT
        assert logits.dtype == np.float32

    def test_more_noise_is_further_from_the_mask(self, disc):
        def dice(noise):
            masks = [coarse_logits(disc, noise, np.random.default_rng(n)) > 0 for n in range(40)]
            return np.mean([2 * (m & disc).sum() / (m.sum() + disc.sum()) for m in masks])

        assert 1 > dice(0.1) > dice(0.3) > dice(0.6) > 0.4

    def test_it_grows_and_shrinks(self, disc):
        areas = [(coarse_logits(disc, 0.3, np.random.default_rng(n)) > 0).sum() for n in range(20)]
        assert min(areas) < disc.sum() < max(areas)

    def test_an_object_of_one_pixel_survives(self):
        one = np.zeros((256, 256), bool)
        one[255, 0] = True
        for seed in range(30):
            assert (coarse_logits(one, 1.0, np.random.default_rng(seed)) > 0).any()
