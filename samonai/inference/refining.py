"""Interactive refinement of one object on one frame, one decoder call per click."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.errors import InputError
from samonai.core.frame import Frame
from samonai.core.geometry import FrameGeometry
from samonai.domains.base import SourceT
from samonai.inference.frame_decoder import FrameDecoder
from samonai.prompts.coarse_masks import coarse_logits
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.types import Prompts
from samonai.sam.network import SamNetwork


class Refined(NamedTuple):
    """An object on a frame after a click.

    Attributes:
        mask: bool (H, W), frame space, False where the frame is not valid.
        low_res_logits: float32 (1, 256, 256), low-res frame: `previous` of the next click.
        iou: The networks' own estimate of the mask's IoU, 0..1.
        frame: The frame's number.
    """

    mask: npt.NDArray[np.bool_]
    low_res_logits: npt.NDArray[np.float32]
    iou: float
    frame: int


def refine_frame(
    decoder: FrameDecoder[SourceT],
    networks: Sequence[SamNetwork],
    source: SourceT,
    frame: Frame,
    prompts: FramePrompts,
    previous: npt.NDArray[np.floating] | None = None,
) -> Refined:
    """Segment one object on a frame.

    Args:
        decoder: Encodes the frame if its embedding is not stored, and decodes.
        networks: One, or several whose logits are averaged.
        source: The source of the frame.
        frame: The frame.
        prompts: Of one object.
        previous: float32 (1, 256, 256), the logits of the last call.

    Raises:
        InputError: The logits have another shape or are not finite.
    """
    geometry = FrameGeometry(frame.size, networks[0].long_side)
    asked = _fed(prompts, geometry, previous)
    with decoder.lock:
        embedding = decoder.embed(source, frame, networks[0])
        said = decoder.low_res(networks, embedding, asked)
    logits = geometry.logits_to_frame(said.low_res_logits)[0, 0].float().cpu().numpy()
    return Refined(
        on_valid(logits > 0, frame),
        said.low_res_logits[0].float().cpu().numpy(),
        float(said.iou_predictions[0, 0]),
        frame.location.index,
    )


def mask_logits(mask: npt.NDArray[np.bool_], long_side: int) -> npt.NDArray[np.float32]:
    """Return a mask as the logits that prompt the decoder, as coarse masks do in training.

    Args:
        mask: bool (H, W), frame space.
        long_side: Side of the model image in pixels.

    Returns:
        float32 (1, side, side), low-res frame.

    Raises:
        InputError: The mask lies between the pixels of the low-res frame.
    """
    low_res = FrameGeometry((mask.shape[0], mask.shape[1]), long_side).label_to_low_res(
        mask.astype(np.uint8)
    )
    if not low_res.any():
        raise InputError("outline: it is too small for a mask prompt; click instead")
    return coarse_logits(low_res > 0, 0.0, np.random.default_rng(0))[None]


def on_valid(mask: npt.NDArray[np.bool_], frame: Frame) -> npt.NDArray[np.bool_]:
    """Return a mask (H, W) without the pixels that a frame predicts nothing on."""
    return mask if frame.valid is None else mask & frame.valid


def click_prompts(clicks: Any, box: Sequence[float] | None) -> FramePrompts:
    """Return clicks (x, y, sign) on pixels of a frame, and a box, as prompts of one object."""
    try:
        rows = np.asarray(clicks, float).reshape(-1, 3)
        around = np.asarray([np.nan] * 4 if box is None else box, np.float32).reshape(1, 4)
    except (TypeError, ValueError) as error:
        raise InputError("clicks: expected (x, y, sign) each, and four numbers of a box") from error
    if not np.isfinite(rows).all() or not np.isin(rows[:, 2], (0, 1)).all():
        raise InputError("clicks: expected finite x and y, and a sign of 1 (inside) or 0 (outside)")
    if not len(rows) and box is None:
        raise InputError("clicks: there is neither a click nor a box")
    points = rows[None, :, :2].astype(np.float32) if len(rows) else None
    signs = rows[None, :, 2].astype(np.int64) if len(rows) else None
    return FramePrompts(around, np.ones(1, np.int64), None, points, signs)


def _fed(
    asked: FramePrompts, geometry: FrameGeometry, previous: npt.NDArray[np.floating] | None
) -> Prompts:
    """Return prompts in model space, with the last logits as mask prompt."""
    prompts = Prompts.of_frame(asked, geometry)
    if previous is None:
        return prompts
    side = geometry.low_res_side
    given = np.asarray(previous, np.float32)
    if given.shape != (1, side, side) or not np.isfinite(given).all():
        raise InputError(f"previous logits: expected float (1, {side}, {side}), got {given.shape}")
    return prompts.feed_back(torch.from_numpy(given.copy())[None])
