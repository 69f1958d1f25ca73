"""Normalisation of pixels for an image encoder, as in its training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from samonai.core.errors import InputError

if TYPE_CHECKING:
    import torch

_FIELDS = ("name", "scale", "pixel_mean", "pixel_std")


@dataclass(frozen=True)
class Normalisation:
    """Pixel normalisation of a checkpoint, stored with it.

    A pixel of 0..255 is multiplied by `scale` / 255, `pixel_mean` is subtracted and the result
    divided by `pixel_std`. Padding comes afterwards, so padded pixels are 0 in encoder units.

    Attributes:
        name: Name in reports.
        scale: The value that a pixel of 255 takes before mean and deviation: 255 or 1.
        pixel_mean: Mean per channel (R, G, B), in units of `scale`.
        pixel_std: Standard deviation per channel (R, G, B), in units of `scale`.
    """

    name: str
    scale: float
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Refuse values that are not finite or not positive."""
        numbers = (self.scale, *self.pixel_mean, *self.pixel_std)
        if len(self.pixel_mean) != 3 or len(self.pixel_std) != 3:
            raise InputError(
                f"normalisation {self.name!r} needs three means and three deviations (R, G, B), "
                f"got {len(self.pixel_mean)} and {len(self.pixel_std)}"
            )
        if not all(math.isfinite(number) for number in numbers):
            raise InputError(f"normalisation {self.name!r} holds a number that is not finite")
        if self.scale <= 0 or min(self.pixel_std) <= 0:
            raise InputError(
                f"normalisation {self.name!r} needs a positive scale and positive deviations"
            )

    def apply(self, image: "torch.Tensor") -> "torch.Tensor":
        """Return the image in the encoder's units.

        Args:
            image: float or uint8 (..., 3, H, W), RGB, 0..255, frame or model space, not padded.

        Returns:
            float (..., 3, H, W) of the same device, float32 where `image` holds integers.
        """
        if image.ndim < 3 or image.shape[-3] != 3:
            raise InputError(
                f"normalisation needs an image of shape (..., 3, H, W), got {tuple(image.shape)}"
            )
        if not image.is_floating_point():
            image = image.float()
        if self.scale != 255:
            image = image * (self.scale / 255)
        mean = image.new_tensor(self.pixel_mean).view(3, 1, 1)
        deviation = image.new_tensor(self.pixel_std).view(3, 1, 1)
        return (image - mean) / deviation

    def to_metadata(self) -> dict[str, Any]:
        """Return the values for JSON."""
        return {
            "name": self.name,
            "scale": self.scale,
            "pixel_mean": list(self.pixel_mean),
            "pixel_std": list(self.pixel_std),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Normalisation":
        """Rebuild the normalisation from `to_metadata`.

        Raises:
            InputError: A field is missing or is not of its type.
        """
        missing = [field for field in _FIELDS if field not in metadata]
        if missing:
            raise InputError(f"the normalisation metadata lacks {', '.join(missing)}")
        try:
            mean = tuple(float(value) for value in metadata["pixel_mean"])
            deviation = tuple(float(value) for value in metadata["pixel_std"])
            scale = float(metadata["scale"])
        except (TypeError, ValueError) as error:
            raise InputError(f"the normalisation metadata is not numbers: {error}") from error
        if len(mean) != 3 or len(deviation) != 3:
            raise InputError("the normalisation metadata needs three means and three deviations")
        return cls(
            str(metadata["name"]),
            scale,
            (mean[0], mean[1], mean[2]),
            (deviation[0], deviation[1], deviation[2]),
        )


SAM_NORMALISATION = Normalisation(
    name="sam",
    scale=255.0,
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(58.395, 57.12, 57.375),
)
"""Segment Anything's own rule."""

MEDSAM_NORMALISATION = Normalisation(
    name="medsam",
    scale=1.0,
    pixel_mean=(0.0, 0.0, 0.0),
    pixel_std=(1.0, 1.0, 1.0),
)
"""MedSAM's rule: pixels in [0, 1], no mean, no deviation."""
