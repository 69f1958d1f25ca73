"""Frames on which there is nothing to see, and what becomes of them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from samonai.core.frame import BLANK_LEVELS, Frame, FrameLocation
from samonai.inference import SourceInferer


def frame(image: np.ndarray, valid: np.ndarray | None = None, index: int = 0) -> Frame:
    return Frame(image.astype(np.uint8), FrameLocation("a", index), valid=valid)


def grey(level: int) -> np.ndarray:
    return np.full((6, 8, 3), level)


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_frame_of_one_level_is_blank_and_a_speck_is_enough_to_see(level):
    image = grey(level)
    assert frame(image).is_blank
    image[2, 3, 1] += BLANK_LEVELS if level < 200 else -BLANK_LEVELS
    assert frame(image).is_blank
    image[2, 3, 1] += 1 if level < 200 else -1
    assert not frame(image).is_blank


def test_channels_may_be_of_different_levels():
    image = grey(0)
    image[..., 1], image[..., 2] = 100, 200
    assert frame(image).is_blank


def test_only_valid_pixels_are_looked_at():
    image, valid = grey(10), np.ones((6, 8), bool)
    image[:, :4] = 99
    assert not frame(image).is_blank
    valid[:, :4] = False
    assert frame(image, valid).is_blank
    assert frame(image, np.zeros((6, 8), bool)).is_blank


def test_the_semantic_head_is_not_asked_about_blank_frames(caplog):
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3))
    frames = [frame(grey(3), index=0), frame(noise, index=1), frame(grey(0), index=2)]
    merged: list[int] = []
    merger = SimpleNamespace(
        add=lambda one, scores, prompts: merged.append(one.location.index),
        finish=lambda: "label",
    )
    domain: Any = SimpleNamespace(
        merger=lambda source: merger,
        frame_count=len,
        frame=lambda source, index: frames[index],
    )
    asked: list[int] = []

    def logits(one: Frame) -> torch.Tensor:
        asked.append(one.location.index)
        return torch.zeros(2, 6, 8)

    source = type("Source", (list,), {"source_id": "scan"})(frames)
    with caplog.at_level("INFO"):
        assert SourceInferer(domain).merge_classes(source, logits, (0, 1)) == "label"
    assert asked == merged == [1]
    assert "scan: 2 of 3 frames are blank" in caplog.text
