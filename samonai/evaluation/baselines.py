"""Filled-box baseline: the score of a prompt without any network."""

import torch

from samonai.core.frame import Frame
from samonai.prompts.frame_prompts import FramePrompts


def box_scores(frame: Frame, prompts: FramePrompts) -> torch.Tensor:
    """Score the filled box, the baseline for any model; smaller boxes lie on top.

    A pixel belongs to a box when its centre does.

    Args:
        frame: The frame; only its size is used.
        prompts: The boxes.

    Returns:
        float32 (N, H, W): 1/area inside the box, 0 outside.
    """
    height, width = frame.size
    boxes = torch.from_numpy(prompts.boxes)[:, :, None]  # (N, 4, 1)
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    columns = (x >= boxes[:, 0]) & (x < boxes[:, 2])  # (N, W)
    rows = (y >= boxes[:, 1]) & (y < boxes[:, 3])  # (N, H)
    # A prompt without a box (NaN) holds no pixel, and has no area either.
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).nan_to_num()
    return (rows[:, :, None] & columns[:, None, :]) / area[:, :, None].clamp(min=1e-6)
