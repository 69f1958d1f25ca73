"""Probe of an export: a frame with box, point and mask prompts, and this network's logits on them.

Every exporter runs the written model by its consumer's own code on the same frame and compares.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.errors import InputError
from samonai.core.geometry import FrameGeometry
from samonai.prompts.types import Prompts
from samonai.sam.network import SamNetwork
from samonai.settings.choices import ALL_TOKENS

SIZE = (180, 260)
"""(H, W) of the frame in pixels: an odd aspect, to detect a frozen crop."""

BOX = (70.0, 40.0, 190.0, 140.0)
POINT = (125.0, 88.0)

EQUAL_MASKS = 0.9999
"""Share of pixels in which masks of both programs agree at least."""


@dataclass(frozen=True)
class Probe:
    """A frame, prompts on it, and the reference logits of a network.

    Attributes:
        image: uint8 (H, W, 3), RGB: a bright ellipse with texture on a darker gradient.
        embedding: float32 (1, C, h, w), image embedding of the reference.
        box_logits: float32 (1, 1, 256, 256), low-res logits of the box `BOX`.
        point_logits: float32 (1, 1, 256, 256), low-res logits of one positive point at `POINT`.
        mask_logits: float32 (1, 1, 256, 256), low-res logits of the box with `box_logits` as mask
            prompt.
    """

    image: npt.NDArray[np.uint8]
    embedding: torch.Tensor
    box_logits: torch.Tensor
    point_logits: torch.Tensor
    mask_logits: torch.Tensor


def make_image(size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint8]:
    """Draw the frame, uint8 (H, W, 3)."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    values = 40 + 50 * x / width + 10 * np.sin(y / 7)
    inside = ((x - 0.5 * width) / (0.22 * width)) ** 2 + ((y - 0.5 * height) / (0.26 * height)) ** 2
    values = np.where(inside < 1, 170 + 15 * np.cos(x / 5), values)
    return np.repeat(values.clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)


@torch.no_grad()
def make_probe(network: SamNetwork) -> Probe:
    """Run a network on the frame; single-mask output, float32, on the network's device.

    All image tokens are decoded, as every consumer does, also by a decoder trained with windows.
    """
    network = network.fork().set_windows(ALL_TOKENS)
    image = make_image()
    geometry = FrameGeometry(SIZE, network.long_side)
    embedding = network.encode(network.preprocess(image)[None])
    index = torch.zeros(1, dtype=torch.int64)
    box = torch.from_numpy(geometry.boxes_to_model([BOX]))
    point = torch.from_numpy(geometry.points_to_model([[POINT]]))
    boxes = Prompts(index, boxes=box)
    points = Prompts(index, point_coords=point, point_labels=torch.ones(1, 1, dtype=torch.int64))
    box_logits = network.decode(embedding, boxes).low_res_logits
    masks = Prompts(index, boxes=box, mask_inputs=box_logits)
    return Probe(
        image,
        embedding.cpu(),
        box_logits.cpu(),
        network.decode(embedding, points).low_res_logits.cpu(),
        network.decode(embedding, masks).low_res_logits.cpu(),
    )


def check_equal(what: str, found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> float:
    """Return the largest difference of two tensors.

    Raises:
        InputError: The shapes differ, or a difference is above the tolerance: the consumer's code
            does not compute what this model computes.
    """
    if found.shape != expected.shape:
        raise InputError(
            f"the export gives {what} of shape {tuple(found.shape)}, expected "
            f"{tuple(expected.shape)}; nothing was written"
        )
    difference = float((found.float() - expected.float()).abs().max())
    if not difference <= tolerance:
        raise InputError(
            f"the export gives {what} that differ by {difference:.3g}, expected at most "
            f"{tolerance:g}; nothing was written"
        )
    return difference


def check_masks(
    what: str, found: torch.Tensor, low_res_logits: torch.Tensor, probe: Probe
) -> float:
    """Return the share of pixels in which a consumer's mask equals the reference mask.

    Args:
        what: Name of the mask in the message.
        found: bool (H, W), the consumer's mask in frame space.
        low_res_logits: float32 (1, 1, 256, 256), the reference.
        probe: The frame.

    Raises:
        InputError: Fewer than 9,999 of 10,000 pixels are equal.
    """
    size = (probe.image.shape[0], probe.image.shape[1])
    geometry = FrameGeometry(size, 4 * low_res_logits.shape[-1])
    expected = geometry.logits_to_frame(low_res_logits)[0, 0] > 0
    if found.shape != expected.shape:
        raise InputError(f"the export gives {what} of size {tuple(found.shape)}, expected {size}")
    share = float((found.bool() == expected).float().mean())
    if share < EQUAL_MASKS:
        raise InputError(
            f"the export gives {what} of which {share:.5f} of the pixels are right, expected "
            f"{EQUAL_MASKS}; nothing was written"
        )
    return share
