"""Augmented views of frames, encoded and stored beside the frames themselves.

A stored embedding cannot be flipped or rotated, so image augmentation precedes
the encoder: each frame is encoded in `views` versions, once, and training draws one of them per
frame and epoch. View 0 is the unchanged frame. The others are drawn by MONAI's transforms from the
content of the source, the frame's number and the view's number alone, so that every run, fold and
seed over a store shares them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai import transforms

from samonai.core.errors import InputError
from samonai.core.frame import Frame
from samonai.core.settings import describe, renamed_parameters, validate_fields
from samonai.domains.base import Case, Domain, Source
from samonai.embeddings.changed_frames import changed_frames
from samonai.embeddings.encode import EncodeReport, encode_cases
from samonai.embeddings.store import EmbeddingStore
from samonai.sam.network import SamNetwork
from samonai.settings.encoding import ViewSettings

_FORMAT_VERSION = 1
_IMAGE, _MAPS = "image", "maps"


@renamed_parameters(**{f"view_{name}": name for name in describe(ViewSettings)})
@dataclass(frozen=True)
class Augmentation(ViewSettings):
    """Strength of the augmentation; every quantity is drawn anew for each view.

    Every quantity is a setting, see `ViewSettings`; the grey values' ones are shares of the range.

    Raises:
        InputError: A value is out of range.
    """

    def __post_init__(self) -> None:
        """Check the ranges."""
        validate_fields(self)

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine a view, as JSON values."""
        return {"format_version": _FORMAT_VERSION, **asdict(self)}

    def apply(self, frame: Frame, seed: int) -> Frame:
        """Return a view of a frame, on the same grid.

        Labels move with the image, by the nearest pixel at the frame's own resolution. Pixels from
        outside the frame are black, background and invalid.

        Args:
            frame: The frame.
            seed: Seed of all random choices, 0 to 2**32 - 1.
        """
        maps = {
            name: value
            for name in ("label", "instances")
            if (value := getattr(frame, name)) is not None
        }
        # As ranks, since transforms compute in float32, which cannot hold every label value.
        ranked = {name: np.unique(value, return_inverse=True) for name, value in maps.items()}
        planes: list[npt.NDArray[Any]] = [ranks.reshape(frame.size) for _, ranks in ranked.values()]
        planes.append(np.ones(frame.size, bool) if frame.valid is None else frame.valid)
        moved = self._transforms.set_random_state(seed)(
            {
                _IMAGE: torch.from_numpy(frame.image.transpose(2, 0, 1) / np.float32(255)),
                _MAPS: torch.from_numpy(np.stack(planes).astype(np.float32)),
            }
        )
        image = (moved[_IMAGE].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
        *planes, valid = _array(moved[_MAPS])
        inside = valid > 0
        changed: dict[str, Any] = {
            name: np.where(inside, values[ranks.astype(np.intp)], 0).astype(values.dtype)
            for (name, (values, _)), ranks in zip(ranked.items(), planes, strict=True)
        }
        changed["image"] = np.ascontiguousarray(_array(image))
        return replace(frame, valid=inside, **changed)

    @cached_property
    def _transforms(self) -> transforms.Compose:
        share = self.intensity
        angle = float(np.deg2rad(self.rotation))
        keys = (_IMAGE, _MAPS)
        return transforms.Compose(
            [
                transforms.RandFlipd(keys, self.flip, 0),
                transforms.RandFlipd(keys, self.flip, 1),
                transforms.RandAffined(
                    keys,
                    prob=float(self.rotation > 0 or self.scale > 0),
                    rotate_range=angle,
                    scale_range=(self.scale, self.scale),
                    mode=("bilinear", "nearest"),
                    padding_mode="zeros",
                ),
                transforms.RandAdjustContrastd(
                    _IMAGE, prob=float(share > 0), gamma=(1 - share / 2, 1 + share)
                ),
                transforms.RandScaleIntensityd(_IMAGE, share, prob=float(share > 0)),
                transforms.RandShiftIntensityd(_IMAGE, share / 2, prob=float(share > 0)),
                transforms.RandGaussianNoised(
                    _IMAGE, prob=float(self.noise > 0), std=self.noise, sample_std=True
                ),
            ]
        )


class _Draw:
    """Draws one view of each frame, from the content of its source."""

    def __init__(self, augmentation: Augmentation, number: int) -> None:
        self._augmentation, self._number = augmentation, number
        self._hashed: tuple[Source, str] | None = None

    def __call__(self, source: Source, frame: Frame) -> Frame:
        text = f"{self._content(source)} {frame.location.index} {self._number}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
        return self._augmentation.apply(frame, seed)

    def _content(self, source: Source) -> str:
        # Hashing a volume takes longer than cutting a frame.
        if self._hashed is None or self._hashed[0] is not source:
            self._hashed = source, source.content_hash()
        return self._hashed[1]


def view_of(domain: Domain[Any], augmentation: Augmentation, number: int) -> Domain[Any]:
    """Return a domain that cuts view `number` of each frame; number 0 is the domain itself."""
    if number == 0:
        return domain
    note = {"view": {"number": number, **augmentation.settings()}}
    return changed_frames(domain, note, _Draw(augmentation, number))


def encode_views(
    network: SamNetwork,
    domain: Domain[Any],
    cases: Sequence[Case],
    store: EmbeddingStore,
    augmentation: Augmentation,
    *,
    views: int,
    augmented: Sequence[Case] | None = None,
    **options: Any,
) -> list[EncodeReport]:
    """Encode all views of all cases into the store, as `encode_cases` does with the first.

    Each has a signature and targets of its own: an object may lose pixels, or leave.

    Args:
        network: The encoder, on its device.
        domain: Reads and cuts the cases.
        cases: The cases to encode.
        store: The embedding store.
        augmentation: Strength of the augmentation.
        views: Versions of each frame, the frame itself included.
        augmented: The cases with more than the first view, for training alone; None: all.
        **options: As for `encode_cases`.

    Returns:
        A report per view; the first is of all cases.

    Raises:
        InputError: `views` is below 1, or `encode_cases` refuses its arguments.
    """
    if views < 1:
        raise InputError(f"views is at least 1, the frame itself, got {views}")
    chosen = cases if augmented is None else augmented
    return [
        encode_cases(
            network,
            view_of(domain, augmentation, number),
            chosen if number else cases,
            store,
            **options,
        )
        for number in range(views)
    ]


def summed(reports: Sequence[EncodeReport]) -> EncodeReport:
    """Return the first view's report with the frames of all views counted."""
    return replace(
        reports[0],
        encoded=sum(report.encoded for report in reports),
        reused=sum(report.reused for report in reports),
    )


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    plain = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    return plain.numpy()
