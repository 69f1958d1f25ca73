"""Pictures of frames and volumes for the screen: windows, files that the viewer loads."""

import gzip
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.capabilities import capabilities
from samonai.domains.medical.intensity import (
    CT_WINDOWS,
    looks_like_ct,
    plane,
    to_grey,
    window_range,
)
from samonai.domains.medical.volume import Volume
from samonai.serve.annotation import png_of
from samonai.serve.open_cases import OpenCase
from samonai.serve.workspace import Workspace

_PERCENTILES = ((0.5, 99.5), (5.0, 95.0), (0.0, 100.0))
Range = tuple[float, float]


def windows(source: Any) -> dict[str, Range]:
    """Return named ranges (black, white) to look at a volume with; none for other sources.

    Those of CT in Hounsfield units, else percentiles of the volume. The model sees its own window
    whatever is chosen here.
    """
    if not isinstance(source, Volume):
        return {}
    if looks_like_ct(source):
        return {
            name.replace("_", " "): window_range(*window) for name, window in CT_WINDOWS.items()
        }
    return {f"{low:g} to {high:g} %": source.quantiles(low, high) for low, high in _PERCENTILES}


def frame_png(workspace: Workspace, case_id: str, index: int, window: Range | None) -> bytes:
    """Return a frame's picture: as the model sees it, or in a window.

    Raises:
        InputError: There is no such frame, or the source has no values to window.
    """
    frame = workspace.frame(case_id, index)
    if window is None:
        image = frame.image
        grey = (image[..., :1] == image).all()
        return png_of(image[..., 0] if grey else image)
    source = workspace.opened(case_id).source
    planes = capabilities(workspace.session.domain).planes
    if planes is None or not isinstance(source, Volume):
        raise InputError("only volumes have windows")
    shown = plane(source.data, planes.axis, index)[frame.part]
    return png_of(to_grey(shown, window))


def heat_png(values: npt.NDArray[np.float32]) -> bytes:
    """Return values 0..1 (H, W) as a grey PNG."""
    return png_of((values.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def volume_file(source: Volume) -> bytes:
    """Return a volume as the NIfTI file that the viewer loads, in the file's own index order."""
    info, data = np.iinfo(np.int16), source.data
    whole = info.min <= data.min() and data.max() <= info.max
    if whole and np.array_equal(data, np.rint(data)):
        data = data.astype(np.int16)
    return _nifti(data, source)


def label_file(workspace: Workspace, one: OpenCase) -> bytes:
    """Return the masks of a case as a compressed NIfTI label map on the volume's grid."""
    labels = workspace.frame_labels(one)
    merged = np.asarray(workspace.session.domain.merge(one.source, labels))
    return gzip.compress(_nifti(merged.astype(np.uint8), one.source), compresslevel=1)


def _nifti(array: npt.NDArray[Any], source: Volume) -> bytes:
    image = nib.Nifti1Image(array, source.affine)
    data: bytes = image.to_bytes()
    return data
