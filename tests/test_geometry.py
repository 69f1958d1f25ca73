"""Frame space to model space and back: exact where it must be, upstream's where it exists."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from samonai.core.geometry import FrameGeometry

SIZES = [(1024, 1024), (600, 800), (800, 541), (34, 52), (1, 7), (1500, 2001), (3, 3)]


@pytest.mark.parametrize("size", SIZES)
def test_sizes_and_coordinates_are_upstreams(size):
    geometry, upstream = FrameGeometry(size), ResizeLongestSide(1024)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    if size != (1, 7):
        assert geometry.input_size == upstream.get_preprocess_shape(*size, 1024)
        assert np.array_equal(geometry.image_to_model(image), upstream.apply_image(image))
    boxes = np.array([[0.0, 0.0, size[1], size[0]]])
    np.testing.assert_allclose(
        geometry.boxes_to_model(boxes), upstream.apply_boxes(boxes, size), rtol=1e-6
    )


@pytest.mark.parametrize("size", SIZES)
def test_logits_come_back_as_upstream_brings_them(size, tiny_network):
    geometry = FrameGeometry(size)
    logits = torch.randn(2, 3, 256, 256)
    expected = Sam.postprocess_masks(tiny_network, logits, geometry.input_size, size)
    torch.testing.assert_close(geometry.logits_to_frame(logits), expected)


@pytest.fixture(autouse=True)
def _upstream_attributes(tiny_network, monkeypatch):
    # `Sam.postprocess_masks` reads the image size from its encoder only.
    monkeypatch.setattr(
        type(tiny_network), "postprocess_masks", Sam.postprocess_masks, raising=False
    )


def test_more_rows_than_fit_at_once_come_back_alike():
    geometry, logits = FrameGeometry((40, 30)), torch.randn(19, 1, 256, 256)
    one_by_one = torch.cat([geometry.logits_to_frame(row[None]) for row in logits])
    torch.testing.assert_close(geometry.logits_to_frame(logits), one_by_one)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 255), st.integers(1, 255), st.integers(0, 2**32 - 1))
def test_labels_survive_the_way_to_low_res_and_back(height, width, seed):
    label = np.random.default_rng(seed).integers(0, 2, (height, width)).astype(np.uint8)
    geometry = FrameGeometry((height, width))
    low_res = torch.from_numpy(geometry.label_to_low_res(label)).float()
    valid = geometry.valid_low_res()
    assert not low_res.numpy()[~valid].any()
    if max(height, width) <= 128:
        # Each pixel covers at least two low-res pixels per side, so its centre keeps its sign.
        logits = (low_res * 2 - 1)[None, None]
        back = geometry.logits_to_frame(logits)[0, 0] > 0
        assert np.array_equal(back.numpy(), label.astype(bool))


def test_boxes_round_trip():
    geometry = FrameGeometry((37, 61))
    boxes = np.array([[3.0, 4.0, 20.0, 30.0]])
    np.testing.assert_allclose(
        geometry.boxes_to_frame(geometry.boxes_to_model(boxes)), boxes, rtol=1e-6
    )


def test_a_frame_without_pixels_is_refused():
    with pytest.raises(ValueError, match="at least one pixel"):
        FrameGeometry((0, 5))
