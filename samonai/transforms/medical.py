"""MONAI dictionary transforms for scans: read, window, cut into frames, and stack them again.

Each works in any `Compose`, on the usual `image` and `label` keys:

    Compose([
        LoadVolumed(keys=["image", "label"]),
        WindowIntensityd(keys="image", window="soft_tissue"),
        CutFramesd(keys=["image", "label"], axis=2),
    ])
"""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import SpaceKeys

from samonai.core.errors import InputError
from samonai.domains.label_map import parse_label_map
from samonai.domains.medical.formats.read_volume import read_volume
from samonai.domains.medical.intensity import Intensity, picture
from samonai.domains.medical.labels.read_labels import read_label
from samonai.domains.medical.volume import FormatFacts, Volume

__all__ = ["CutFramesd", "LoadVolumed", "WindowIntensityd"]


class LoadVolumed(MapTransform):
    """Read scans and their label maps with samonai's checked reader.

    Input: file names, or folders of DICOM, under `keys`. Output: MetaTensor (1, I, J, K) in index
    order, never flipped, with MONAI's `affine` (index to mm, RAS+) and `filename_or_obj`; float32
    for the image, int32 classes for labels. A DICOM modality is kept under `meta["modality"]`.

    Args:
        keys: The image's key and any labels' keys.
        image_key: Which of `keys` is the image; all others must be label maps on its grid.
        label_map: Stored label value to class, such as {255: 1}.
        prefer: "sform" or "qform", for NIfTI files whose two geometries contradict each other.
        series_key: Key of a DICOM SeriesInstanceUID in the data, if any.
        valid_key: When given, bool MetaTensor (1, I, J, K) is added under it: False on padding.
        allow_missing_keys: Do not raise for absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        image_key: str = "image",
        label_map: Mapping[Any, Any] | str | None = None,
        prefer: str | None = None,
        series_key: str | None = None,
        valid_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if image_key not in self.keys:
            raise InputError(f"image_key={image_key!r}: expected one of the keys {self.keys}")
        self.image_key = image_key
        self.label_map = parse_label_map(label_map)
        self.prefer = prefer
        self.series_key = series_key
        self.valid_key = valid_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the paths under the keys by the content of the files.

        Raises:
            InputError: A file cannot be used; one line with file and remedy.
        """
        loaded = dict(data)
        series = data.get(self.series_key) if self.series_key is not None else None
        volume = read_volume(data[self.image_key], series, self.prefer)
        for key in self.key_iterator(loaded):
            if key == self.image_key:
                array: np.ndarray[Any, Any] = volume.data
            else:
                array = read_label(data[key], volume, self.label_map, self.prefer)
            loaded[key] = _meta_tensor(array, volume, data[key])
        if self.valid_key is not None:
            valid = np.ones(volume.shape, bool) if volume.valid is None else volume.valid
            loaded[self.valid_key] = _meta_tensor(valid, volume, data[self.image_key])
        return loaded


class WindowIntensityd(MapTransform):
    """Convert scan values into three 8-bit channels, by a CT window or the volume's percentiles.

    Input: real (1, I, J, K). Output: uint8 (3, I, J, K), 0..255, affine and history kept. Values
    cannot be restored, geometry does not change, so it has no inverse.

    Args:
        keys: The images' keys.
        window: As the five that follow, see `samonai.domains.medical.intensity.Intensity`.
        level: Centre of an explicit window.
        width: Width of an explicit window.
        lower: Lower percentile.
        upper: Upper percentile.
        channels: "grey", "neighbours" or "windows".
        axis: Spatial axis across which `channels="neighbours"` looks, 0..2.
        valid_key: Key of a bool mask (1, I, J, K); percentiles are taken where it is True.
        allow_missing_keys: Do not raise for absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        window: str = "auto",
        level: float | None = None,
        width: float | None = None,
        lower: float = 0.5,
        upper: float = 99.5,
        channels: str = "grey",
        axis: int = 2,
        valid_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.intensity = Intensity(window, level, width, lower, upper, channels)
        self.axis = _checked_axis(axis)
        self.valid_key = valid_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the images under the keys by their windowed channels."""
        windowed = dict(data)
        valid = data[self.valid_key] if self.valid_key is not None else None
        for key in self.key_iterator(windowed):
            image = _checked_image(data[key], key, channels=1)
            volume = _as_volume(image, None if valid is None else _numpy(valid)[0].astype(bool))
            ranges = self.intensity.ranges(volume)
            count = volume.shape[self.axis]
            slices = [
                picture(volume, self.axis, index, self.intensity, ranges) for index in range(count)
            ]
            frames = torch.from_numpy(np.stack(slices)).permute(0, 3, 1, 2)
            windowed[key] = _like(frames.permute(_from_frames(self.axis)), image)
        return windowed


class CutFramesd(MapTransform, InvertibleTransform):
    """Cut volumes into the frames that SAM sees; the inverse stacks them into volumes again.

    Input: (C, I, J, K). Output: (N, C, H, W), N frames across the axis: axis 2 gives rows j and
    columns i, axis 1 rows k and columns i, axis 0 rows k and columns j; nothing is flipped. The
    affine stays the volume's, so that the inverse, and `Invertd`, give back the volume's grid.

    Args:
        keys: Keys of images and labels alike.
        axis: Spatial axis to cut across, 0..2.
        allow_missing_keys: Do not raise for absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        axis: int = 2,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.axis = _checked_axis(axis)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace volumes under the keys by their stacks of frames."""
        cut = dict(data)
        for key in self.key_iterator(cut):
            volume = _checked_image(data[key], key)
            size = list(volume.shape[1:])
            frames = _like(_tensor(volume).permute(_to_frames(self.axis)), volume)
            cut[key] = self.push_transform(frames, orig_size=size, extra_info={"axis": self.axis})
        return cut

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace stacks of frames (N, C, H, W) under the keys by volumes (C, I, J, K)."""
        restored = dict(data)
        for key in self.key_iterator(restored):
            frames = restored[key]
            # Metadata is dropped by many operations on the way; the frames' order never is.
            axis = self.axis
            if isinstance(frames, MetaTensor) and frames.applied_operations:
                axis = int(self.pop_transform(frames)["extra_info"]["axis"])
            restored[key] = _like(_tensor(frames).permute(_from_frames(axis)), frames)
        return restored


def _to_frames(axis: int) -> tuple[int, int, int, int]:
    """Return the permutation of (C, I, J, K) into (N, C, rows, columns)."""
    column, row = (other for other in (0, 1, 2) if other != axis)
    return axis + 1, 0, row + 1, column + 1


def _from_frames(axis: int) -> tuple[int, ...]:
    """Return the permutation of (N, C, rows, columns) into (C, I, J, K)."""
    forward = _to_frames(axis)
    return tuple(forward.index(dimension) for dimension in range(4))


def _meta_tensor(array: np.ndarray[Any, Any], volume: Volume, path: Path | str) -> MetaTensor:
    affine = torch.from_numpy(volume.affine.copy())
    meta: dict[str, Any] = {
        "filename_or_obj": str(path),
        "original_affine": affine.clone(),
        "spatial_shape": np.asarray(array.shape),
        "space": SpaceKeys.RAS,
        "original_channel_dim": "no_channel",
    }
    if volume.facts.modality is not None:
        meta["modality"] = volume.facts.modality
    values = torch.from_numpy(np.ascontiguousarray(array[None]))
    return MetaTensor(values, affine=affine, meta=meta)


def _as_volume(image: Any, valid: np.ndarray[Any, Any] | None) -> Volume:
    meta = image.meta if isinstance(image, MetaTensor) else {}
    affine = image.affine if isinstance(image, MetaTensor) else torch.eye(4)
    facts = FormatFacts("tensor", modality=meta.get("modality"))
    name = Path(str(meta.get("filename_or_obj", "image"))).name
    values = _numpy(image)[0].astype(np.float32)
    return Volume(values, _numpy(affine).astype(np.float64), name, facts, valid=valid)


def _checked_image(image: Any, key: Hashable, channels: int | None = None) -> Any:
    shape = tuple(image.shape)
    if len(shape) != 4 or channels not in (None, shape[0]):
        first = "C" if channels is None else channels
        raise InputError(f"key {key!r}: shape {shape}; expected ({first}, I, J, K)")
    return image


def _checked_axis(axis: int) -> int:
    if axis not in (0, 1, 2):
        raise InputError(f"axis={axis!r}: expected 0, 1 or 2")
    return axis


def _tensor(image: Any) -> torch.Tensor:
    if isinstance(image, MetaTensor):
        return image.as_tensor()
    return torch.as_tensor(image)


def _numpy(image: Any) -> np.ndarray[Any, Any]:
    return _tensor(image).cpu().numpy()


def _like(values: torch.Tensor, source: Any) -> MetaTensor:
    """Return values with another tensor's metadata and history of transforms."""
    result = MetaTensor(values.contiguous())
    return result.copy_meta_from(source) if isinstance(source, MetaTensor) else result
