"""Interactive prediction: segment-anything's `SamPredictor` interface on a `SamNetwork`."""

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.errors import InputError
from samonai.core.geometry import FrameGeometry
from samonai.prompts.types import BLANK_POINT, Prompts
from samonai.sam.encoder import resolve_precision
from samonai.sam.network import SamNetwork

MASK_THRESHOLD = 0.0
"""Threshold of the logits, as in segment-anything."""


class ImageNotSetError(InputError, RuntimeError):
    """No image is set; segment-anything raises a RuntimeError here, and callers may catch it."""


class Predictor:
    """Encode an image once, then predict masks for prompts: `SamPredictor`'s methods and results.

    Images and prompts are in frame space for `set_image` and `predict`; those of the `_torch`
    methods are in model space already, see `transform`. A point with label -1 is a blank
    token, as in upstream.

    Attributes:
        model: The network.
        transform: Upstream's resizer, for the `_torch` methods.
        is_image_set: Whether there is an image to predict on.
        features: float32 (1, C, h, w), the image's embedding, or None.
        original_size: (H, W) of the image in frame space.
        input_size: (H, W) of the image in model space, without padding.
    """

    def __init__(self, sam: SamNetwork, *, precision: str = "fp32") -> None:
        """Keep a network.

        Args:
            sam: The network from `load_sam`.
            precision: Precision of the encoder; "fp32" equals segment-anything.

        Raises:
            InputError: The precision is not one of `settings.choices.PRECISIONS`.
        """
        from segment_anything.utils.transforms import ResizeLongestSide  # brings torchvision

        if not isinstance(sam, SamNetwork):
            raise InputError(f"a Predictor takes what load_sam returns, got {type(sam).__name__}")
        resolve_precision(precision, sam.device)
        self.model = sam
        self.precision = precision
        self.transform = ResizeLongestSide(sam.long_side)
        self.reset_image()

    @property
    def device(self) -> torch.device:
        """Return the device of the model."""
        return self.model.device

    def reset_image(self) -> None:
        """Forget the image."""
        self.is_image_set = False
        self.features: torch.Tensor | None = None
        self.original_size: tuple[int, int] | None = None
        self.input_size: tuple[int, int] | None = None
        self.orig_h: int | None = None
        self.orig_w: int | None = None
        self.input_h: int | None = None
        self.input_w: int | None = None

    def set_image(self, image: npt.NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encode an image for the following predictions.

        Args:
            image: uint8 (H, W, 3), 0..255, frame space.
            image_format: Order of the channels, "RGB" or "BGR".

        Raises:
            InputError: The image has another dtype or shape, or is too thin to resize.
        """
        if image_format not in ("RGB", "BGR"):
            raise InputError(f"image_format is 'RGB' or 'BGR', got {image_format!r}")
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                f"an image is uint8 (H, W, 3) with values 0..255, got {image.dtype} {image.shape}; "
                f"window or rescale other values first"
            )
        size = (image.shape[0], image.shape[1])
        if 0 in size:
            raise InputError(f"an image of {size[0]} x {size[1]} has no pixels")
        if 0 in self.transform.get_preprocess_shape(*size, self.model.long_side):
            raise InputError(f"an image of {size[0]} x {size[1]} pixels is too thin to resize")
        if image_format == "BGR":
            image = image[..., ::-1]
        resized = torch.from_numpy(self.transform.apply_image(image).copy())
        self.set_torch_image(resized.permute(2, 0, 1)[None].contiguous(), size)

    @torch.no_grad()
    def set_torch_image(
        self, transformed_image: torch.Tensor, original_image_size: tuple[int, ...]
    ) -> None:
        """Encode an image that was already resized with `transform`.

        Args:
            transformed_image: uint8 or float (1, 3, h, w), RGB, 0..255, model space, not padded:
                its long side is the model's.
            original_image_size: (H, W) of the image before it was resized.

        Raises:
            InputError: An argument has another shape.
        """
        shape = tuple(transformed_image.shape)
        if len(shape) != 4 or shape[:2] != (1, 3) or max(shape[2:]) != self.model.long_side:
            raise InputError(
                f"a transformed image has shape (1, 3, h, w) with a long side of "
                f"{self.model.long_side}, got {shape}"
            )
        if len(original_image_size) != 2 or min(original_image_size) < 1:
            raise InputError(f"original_image_size is (H, W), got {tuple(original_image_size)}")
        self.reset_image()
        height, width = int(original_image_size[0]), int(original_image_size[1])
        image = transformed_image.to(self.device).float()
        normalised = self.model.pad(self.model.normalisation.apply(image))
        self.features = self.model.encode(normalised, self.precision)
        self.original_size = (height, width)
        self.input_size = (shape[2], shape[3])
        self.orig_h, self.orig_w = self.original_size
        self.input_h, self.input_w = self.input_size
        self.is_image_set = True

    def predict(
        self,
        point_coords: npt.NDArray[np.number] | None = None,
        point_labels: npt.NDArray[np.number] | None = None,
        box: npt.NDArray[np.number] | None = None,
        mask_input: npt.NDArray[np.number] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Predict the one object of all prompts.

        Args:
            point_coords: (N, 2), (x, y) in frame space.
            point_labels: (N,), 1 inside and 0 outside the object.
            box: (4,), xyxy in frame space.
            mask_input: (1, 256, 256), logits in the low-res frame, from an earlier call.
            multimask_output: Return three masks, for an ambiguous prompt, instead of one.
            return_logits: Return logits instead of bool masks.

        Returns:
            Masks bool or float32 (M, H, W) in frame space, their scores float32 (M,), and their
            logits float32 (M, 256, 256) in the low-res frame.

        Raises:
            ImageNotSetError: No image is set.
            InputError: A prompt has another shape.
        """
        size = self._require_image()
        coords = labels = box_tensor = mask = None
        if point_coords is not None:
            points = self._numbers(point_coords, "point_coords", (None, 2))
            if point_labels is None:
                raise InputError("point_coords need point_labels: 1 inside, 0 outside the object")
            marks = self._numbers(point_labels, "point_labels", (len(points),))
            coords = torch.as_tensor(self.transform.apply_coords(points, size)).float()[None]
            labels = torch.as_tensor(marks).long()[None]
        elif point_labels is not None:
            raise InputError("point_labels need point_coords")
        if box is not None:
            flat = np.asarray(box)
            flat = flat[0] if flat.shape == (1, 4) else flat
            corners = self._numbers(flat, "box", (4,), "; several boxes go to predict_torch")
            box_tensor = torch.as_tensor(self.transform.apply_boxes(corners, size)).float()
        if mask_input is not None:
            mask = torch.as_tensor(self._numbers(mask_input, "mask_input", (1, None, None)))
            mask = mask.float()[None]
        masks, scores, logits = self.predict_torch(
            coords, labels, box_tensor, mask, multimask_output, return_logits
        )
        return masks[0].cpu().numpy(), scores[0].cpu().numpy(), logits[0].cpu().numpy()

    @torch.no_grad()
    def predict_torch(
        self,
        point_coords: torch.Tensor | None,
        point_labels: torch.Tensor | None,
        boxes: torch.Tensor | None = None,
        mask_input: torch.Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Predict B objects at once, each from its own prompts.

        Args:
            point_coords: (B, N, 2), (x, y) in model space.
            point_labels: (B, N), 1 inside, 0 outside the object, -1 a blank token.
            boxes: (B, 4), xyxy in model space.
            mask_input: (B, 1, 256, 256), logits in the low-res frame; one serves all B.
            multimask_output: Return three masks each instead of one.
            return_logits: Return logits instead of bool masks.

        Returns:
            Masks bool or float32 (B, M, H, W) in frame space, scores float32 (B, M), logits
            float32 (B, M, 256, 256) in the low-res frame, on the model's device.

        Raises:
            ImageNotSetError: No image is set.
            InputError: The prompts' shapes do not match.
        """
        size = self._require_image()
        prompts = self._prompts(point_coords, point_labels, boxes, mask_input)
        assert self.features is not None
        logits, scores = self.model.decode(self.features, prompts, multimask_output)
        masks = FrameGeometry(size, self.model.long_side).logits_to_frame(logits)
        return (masks if return_logits else masks > MASK_THRESHOLD), scores, logits

    def get_image_embedding(self) -> torch.Tensor:
        """Return the image's embedding, float32 (1, C, h, w).

        Raises:
            ImageNotSetError: No image is set.
        """
        self._require_image()
        assert self.features is not None
        return self.features

    def _require_image(self) -> tuple[int, int]:
        if self.original_size is None:
            raise ImageNotSetError("no image is set: call set_image first")
        return self.original_size

    def _prompts(
        self,
        coords: torch.Tensor | None,
        labels: torch.Tensor | None,
        boxes: torch.Tensor | None,
        mask: torch.Tensor | None,
    ) -> Prompts:
        """Convert model-space tensors in upstream's shapes to prompts on image 0."""
        if (coords is None) != (labels is None):
            raise InputError("point_coords and point_labels go together; only one was given")
        if boxes is not None:
            if boxes.shape[-1] != 4:
                raise InputError(f"boxes have shape (B, 4), got {tuple(boxes.shape)}")
            boxes = boxes.reshape(-1, 4).float()
        counts = {"point_coords": coords, "boxes": boxes, "mask_input": mask}
        sizes = {name: len(part) for name, part in counts.items() if part is not None}
        rows = max(sizes.values(), default=1)
        if mask is not None and len(mask) == 1:
            mask, sizes["mask_input"] = mask.expand(rows, -1, -1, -1), rows
        if any(count != rows for count in sizes.values()):
            told = ", ".join(f"{count} in {name}" for name, count in sizes.items())
            raise InputError(f"prompts for different numbers of objects: {told}")
        self._check_values(labels, mask)
        try:
            return Prompts(
                torch.zeros(rows, dtype=torch.int64, device=self.device),
                boxes=None if boxes is None else boxes.to(self.device),
                point_coords=None if coords is None else coords.to(self.device).float(),
                point_labels=None if labels is None else _labels(labels).to(self.device),
                mask_inputs=None if mask is None else mask.to(self.device).float(),
            )
        except ValueError as error:
            raise InputError(str(error)) from error

    def _check_values(self, labels: torch.Tensor | None, mask: torch.Tensor | None) -> None:
        if labels is not None and not torch.isin(labels, labels.new_tensor([-1, 0, 1])).all():
            raise InputError("point_labels are 1 (inside), 0 (outside) or -1 (no point)")
        side = FrameGeometry((1, 1), self.model.long_side).low_res_side
        if mask is not None and tuple(mask.shape[1:]) != (1, side, side):
            raise InputError(
                f"a mask input has shape (B, 1, {side}, {side}), the low-res logits of an earlier "
                f"call; got {tuple(mask.shape)}"
            )

    @staticmethod
    def _numbers(
        value: npt.ArrayLike, name: str, shape: tuple[int | None, ...], remedy: str = ""
    ) -> npt.NDArray[np.float64]:
        """Return an array of finite numbers of the given shape."""
        array = np.asarray(value)
        fits = array.ndim == len(shape) and all(
            want is None or size == want for size, want in zip(array.shape, shape, strict=True)
        )
        if not fits or array.dtype.kind not in "iufb":
            raise InputError(
                f"{name}: expected numbers of shape {shape}, got {array.dtype} {array.shape}"
                f"{remedy}"
            )
        if not np.isfinite(array).all():
            raise InputError(f"{name} holds NaN or infinite values")
        return array.astype(np.float64)


def _labels(labels: torch.Tensor) -> torch.Tensor:
    """Convert upstream's point labels to those of `Prompts`, where -1 is padding."""
    return labels.long().masked_fill(labels == -1, BLANK_POINT)
