"""Mapping between frame space and model space; no other module knows both.

Conventions of the whole package:

* Sizes are (H, W). Points are (x, y), boxes xyxy.
* Coordinates are continuous *edge* coordinates: the pixel in row r and column c covers
  [c, c + 1) x [r, r + 1) and has its centre at (c + 0.5, r + 0.5). The box of the pixels
  c0..c1-1 is x from c0 to c1: upper ends are exclusive.
* Frame to model space is segment-anything's own rule: the longest side becomes `long_side`, sizes
  round half up (`ResizeLongestSide.get_preprocess_shape`), and coordinates are multiplied by
  new/old along each axis. The model image is then padded at the right and at the bottom.
* The low-res frame is the grid of the mask decoder's logits: the padded model image divided by 4.

torch is imported where logits are resized: domains read files without it.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    import torch

LONG_SIDE = 1024
LOW_RES_STRIDE = 4


@dataclass(frozen=True)
class FrameGeometry:
    """The mapping between one frame and its model image, in both directions.

    Attributes:
        original_size: (H, W) of the frame in pixels.
        long_side: Side of the square model image in pixels.

    Example:
        >>> geometry = FrameGeometry((60, 80))
        >>> geometry.input_size
        (768, 1024)
        >>> geometry.points_to_model([[40, 30]]).tolist()
        [[512.0, 384.0]]
    """

    original_size: tuple[int, int]
    long_side: int = LONG_SIDE

    def __post_init__(self) -> None:
        """Check the size.

        Raises:
            ValueError: A side is shorter than one pixel.
        """
        if min(self.original_size) < 1:
            raise ValueError(f"a frame has at least one pixel per side, got {self.original_size}")

    @property
    def input_size(self) -> tuple[int, int]:
        """Return the (H, W) of the frame inside the model image, before padding."""
        height, width = self.original_size
        scale = self.long_side / max(height, width)
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)

    @property
    def low_res_side(self) -> int:
        """Return the side of the square low-res frame."""
        return self.long_side // LOW_RES_STRIDE

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Return the factors (x, y) from frame to model coordinates."""
        (height, width), (new_height, new_width) = self.original_size, self.input_size
        return new_width / width, new_height / height

    def image_to_model(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resize a frame's image as segment-anything does.

        Args:
            image: uint8 (H, W, 3), 0..255, frame space.

        Returns:
            uint8 (h, w, 3) of size `input_size`, not padded.
        """
        height, width = self.input_size
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return np.array(resized)

    def points_to_model(self, points: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Map points (..., 2), (x, y) in frame space, to model space as float32."""
        return np.asarray(points, np.float32) * np.asarray(self.scale_xy, np.float32)

    def boxes_to_model(self, boxes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Map boxes (..., 4), xyxy in frame space, to model space as float32."""
        return np.asarray(boxes, np.float32) * np.asarray(self.scale_xy * 2, np.float32)

    def boxes_to_frame(self, boxes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Map boxes (..., 4), xyxy in model space, to frame space as float32."""
        return np.divide(boxes, self.scale_xy * 2, dtype=np.float32)

    def label_to_low_res(self, label: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Sample a label map at the centres of the low-res pixels; padding is 0.

        Args:
            label: integer (H, W), frame space.

        Returns:
            Same dtype, (side, side), low-res frame.
        """
        rows, columns = self._low_res_sources()
        out = np.zeros((self.low_res_side, self.low_res_side), label.dtype)
        out[: len(rows), : len(columns)] = label[np.ix_(rows, columns)]
        return out

    def valid_low_res(self) -> npt.NDArray[np.bool_]:
        """Return bool (side, side): True where a low-res pixel's centre lies in the frame."""
        rows, columns = self._low_res_sources()
        valid = np.zeros((self.low_res_side, self.low_res_side), bool)
        valid[: len(rows), : len(columns)] = True
        return valid

    def logits_to_frame(self, low_res_logits: "torch.Tensor") -> "torch.Tensor":
        """Map logits to the frame: bilinear to the model image, crop the padding, bilinear.

        This is `Sam.postprocess_masks`. One row is resized at a time where the intermediate
        model-sized image would otherwise hold too much memory.

        Args:
            low_res_logits: float (N, M, side, side), low-res frame.

        Returns:
            float (N, M, H, W), frame space, same dtype.
        """
        import torch
        from torch.nn.functional import interpolate

        height, width = self.input_size

        def one(logits: "torch.Tensor") -> "torch.Tensor":
            model = interpolate(
                logits, (self.long_side, self.long_side), mode="bilinear", align_corners=False
            )
            return interpolate(
                model[..., :height, :width],
                self.original_size,
                mode="bilinear",
                align_corners=False,
            )

        if len(low_res_logits) <= _ROWS_AT_ONCE:
            return one(low_res_logits)
        return torch.cat([one(rows) for rows in low_res_logits.split(_ROWS_AT_ONCE)])

    def window_to_frame(
        self, low_res_logits: "torch.Tensor", top: int, left: int
    ) -> tuple[slice, slice, "torch.Tensor"]:
        """Bring a window of one mask's logits back to the frame, as `logits_to_frame` does.

        Args:
            low_res_logits: float32 (h, w), low-res frame.
            top: Row of the window's first pixel in the low-res frame.
            left: Its column.

        Returns:
            Rows and columns of the frame whose values depend on the window alone, and their
            values, float32.
        """
        found, mappings = [], []
        for axis, start in enumerate((top, left)):
            mapping, first, last = _resizing(
                self.long_side, self.input_size[axis], self.original_size[axis]
            )
            end = start + low_res_logits.shape[axis]
            inside = np.flatnonzero((first >= start) & (last < end))
            lines = slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0)
            found.append(lines)
            mappings.append(mapping[lines, start:end])
        rows, columns = mappings
        return found[0], found[1], rows @ low_res_logits @ columns.T

    def _low_res_sources(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the frame's row and column under the centre of each low-res pixel."""
        sources = []
        for side, scale in zip(self.original_size, self.scale_xy[::-1], strict=True):
            centres = (np.arange(self.low_res_side) + 0.5) * LOW_RES_STRIDE / scale
            sources.append(np.floor(centres[centres < side]).astype(np.intp))
        return sources[0], sources[1]


@lru_cache(maxsize=16)
def _resizing(
    long_side: int, input_side: int, side: int
) -> tuple["torch.Tensor", npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return one axis of `FrameGeometry.logits_to_frame` as a matrix.

    Args:
        long_side: See `FrameGeometry`.
        input_side: Of the frame inside the model image.
        side: Of the frame.

    Returns:
        float32 (side, low-res side); and the first and last low-res pixel that each of the frame's
        pixels depends on.
    """
    import torch
    from torch.nn.functional import interpolate

    count = long_side // LOW_RES_STRIDE
    model = interpolate(torch.eye(count)[None], long_side, mode="linear", align_corners=False)
    frame = interpolate(model[..., :input_side], side, mode="linear", align_corners=False)
    mapping = frame[0].T.contiguous()
    used = mapping.numpy() != 0
    return mapping, used.argmax(1), count - 1 - used[:, ::-1].argmax(1)


# A float32 model image is 4 MiB per mask: eight rows of three masks stay below 100 MiB.
_ROWS_AT_ONCE = 8
