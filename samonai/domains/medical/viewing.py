"""Volumes for a viewer: display windows, slices in a window, NIfTI bytes of an image or label."""

import nibabel as nib
import numpy as np
import numpy.typing as npt

from samonai.core.frame import Frame
from samonai.domains.medical.intensity import (
    CT_WINDOWS,
    Range,
    looks_like_ct,
    plane,
    to_grey,
    window_range,
)
from samonai.domains.medical.volume import Volume

_PERCENTILES = ((0.5, 99.5), (5.0, 95.0), (0.0, 100.0))


class VolumeViewing:
    """Display windows and NIfTI bytes of volumes; see `capabilities.VolumeViews`."""

    axis: int

    def windows(self, source: Volume) -> dict[str, Range]:
        """Return named display windows (black, white) in the volume's unit.

        Those of CT in Hounsfield units, else percentiles of the volume. The model's own window
        does not depend on them.
        """
        if looks_like_ct(source):
            return {
                name.replace("_", " "): window_range(*window) for name, window in CT_WINDOWS.items()
            }
        return {f"{low:g} to {high:g} %": source.quantiles(low, high) for low, high in _PERCENTILES}

    def windowed(self, source: Volume, frame: Frame, window: Range) -> npt.NDArray[np.uint8]:
        """Return a frame's slice in a window: uint8 (H, W), 0 black, 255 white."""
        return to_grey(plane(source.data, self.axis, frame.location.index)[frame.part], window)

    def volume_file(self, source: Volume, label: npt.NDArray[np.integer] | None = None) -> bytes:
        """Return a volume, or a label map on its grid, as NIfTI in the file's own index order.

        Args:
            source: The volume.
            label: integer (I, J, K), values 0..255; None: the image.
        """
        data: npt.NDArray[np.generic] = source.data if label is None else label.astype(np.uint8)
        if label is None and _fits_int16(source.data):
            data = source.data.astype(np.int16)
        found: bytes = nib.Nifti1Image(data, source.affine).to_bytes()
        return found


def _fits_int16(data: npt.NDArray[np.floating]) -> bool:
    """Return whether all values are whole and in int16's range."""
    info = np.iinfo(np.int16)
    return bool(
        info.min <= data.min() and data.max() <= info.max and np.array_equal(data, np.rint(data))
    )
