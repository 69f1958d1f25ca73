"""Pictures of frames as PNG, and label maps of annotations as files that the viewer loads."""

import gzip

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.domains.capabilities import capabilities
from samonai.serve.annotation import png_of
from samonai.serve.open_cases import NotThereError
from samonai.serve.workspace import Workspace

Range = tuple[float, float]


def frame_png(workspace: Workspace, case_id: str, index: int, window: Range | None) -> bytes:
    """Return a frame's picture: as the model sees it, or in a window.

    Raises:
        InputError: There is no such frame, or the source has no values to window.
    """
    frame = workspace.frame(case_id, index)
    if window is not None:
        viewer = capabilities(workspace.session.domain).viewer
        if viewer is None:
            raise InputError("only volumes have windows")
        return png_of(viewer.windowed(workspace.opened(case_id).source, frame, window))
    image = frame.image
    grey = (image[..., :1] == image).all()
    return png_of(image[..., 0] if grey else image)


def heat_png(values: npt.NDArray[np.float32]) -> bytes:
    """Return values 0..1 (H, W) as a grey PNG."""
    return png_of((values.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def volume_file(workspace: Workspace, case_id: str) -> bytes:
    """Return a volume as the NIfTI file that the viewer loads.

    Raises:
        NotThereError: There is no such case, or it is no volume.
    """
    viewer = capabilities(workspace.session.domain).viewer
    source = workspace.opened(case_id).source
    if viewer is None:
        raise NotThereError("only volumes are shown in three planes")
    return viewer.volume_file(source)


def label_file(workspace: Workspace, case_id: str) -> bytes:
    """Return the masks of a case as a compressed NIfTI label map on the volume's grid.

    Raises:
        NotThereError: There is no such case, or it is no volume.
    """
    session, one = workspace.session, workspace.opened(case_id)
    viewer = capabilities(session.domain).viewer
    if viewer is None:
        raise NotThereError("only volumes are shown in three planes")
    merged = np.asarray(session.domain.merge(one.source, workspace.frame_labels(one)))
    return gzip.compress(viewer.volume_file(one.source, merged), compresslevel=1)
