"""Figures of an annotation: volumes, Dice against a given label, uncertainty of a frame."""

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.geometry import FrameGeometry
from samonai.domains.base import metric_spacing
from samonai.domains.capabilities import capabilities
from samonai.inference.ensemble import temperatures
from samonai.inference.frame_outputs import asked_classes, class_values
from samonai.inference.inferer import class_output
from samonai.inference.uncertainty import Certainty, binary_entropy
from samonai.metrics.objects import pixel_metrics
from samonai.serve.annotation import PROMPTED
from samonai.serve.open_cases import OpenCase
from samonai.serve.workspace import Workspace


def figures(
    workspace: Workspace, case_id: str, index: int | None = None
) -> dict[str, dict[str, float]]:
    """Return volumes in ml, and Dice against the given label, by structure.

    Volumes are missing where the source has no physical size. Nothing is locked meanwhile: clicks
    go on.

    Args:
        workspace: Has the case.
        case_id: The case.
        index: A frame; its own Dice is "dice_here".
    """
    one = workspace.opened(case_id)
    labels = workspace.frame_labels(one)
    spacing = metric_spacing(one.source)
    truth = getattr(one.source, "label", None)
    in_space = spacing is not None and len(spacing) == 3
    # Frames of volumes do not overlap; tiles do, and the merger knows how.
    slices = capabilities(workspace.session.domain).planes is not None
    merged = workspace.session.domain.merge(one.source, labels) if labels and not slices else None
    found: dict[str, dict[str, float]] = {}
    for value, name in one.annotation.structures.items():
        own: dict[str, float] = {}
        if spacing is not None and in_space:
            voxels = sum(int(np.count_nonzero(label == value)) for label in labels.values())
            own["ml"] = float(voxels * np.prod(spacing) / 1000)
        if truth is not None and labels:
            dice = (
                _dice_of_slices(workspace, one, labels, value)
                if merged is None
                else _dice(np.asarray(merged) == value, np.asarray(truth) == value)
            )
            if dice is not None:
                own["dice"] = dice
        if truth is not None and index is not None and index in labels:
            here = workspace.frame(case_id, index).label
            dice = None if here is None else _dice(labels[index] == value, here == value)
            if dice is not None:
                own["dice_here"] = dice
        found[name] = own
    return found


def _dice(mask: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float | None:
    return pixel_metrics(mask, truth)["dice"]


def _dice_of_slices(
    workspace: Workspace, one: OpenCase, labels: dict[int, npt.NDArray[np.int32]], value: int
) -> float | None:
    """Return the Dice of one structure over a whole volume; None: nobody drew it."""
    total = int(np.count_nonzero(one.source.label == value))
    drawn = common = 0
    for index, label in labels.items():
        truth = workspace.session.domain.frame(one.source, index).label
        assert truth is not None
        drawn += int(np.count_nonzero(label == value))
        common += int(np.count_nonzero((label == value) & (truth == value)))
    return 2 * common / (drawn + total) if drawn + total else None


def uncertainty(workspace: Workspace, case_id: str, index: int) -> npt.NDArray[np.float32] | None:
    """Return the uncertainty of a frame, float32 (H, W), 0..1 bit of binary entropy.

    Of several objects the least certain one counts at each pixel. Painted masks have none. Where no
    object of the frame was prompted, it is that of the semantic head.

    Returns:
        None where no model said anything of this frame.
    """
    one = workspace.opened(case_id)
    frame = workspace.frame(case_id, index)
    prompted = [o for o in one.annotation.on_frame(index) if o.origin == PROMPTED]
    session = workspace.session
    scales = temperatures(session.decoders) or [1.0]
    if not prompted:
        if not workspace.proposes:
            return None
        kept, asked = asked_classes(class_values(session.networks[0]), None)
        with workspace.queue.click():
            said = session.inferer.class_logits(one.source, session.networks, frame)
        seen = Certainty(scales)
        seen.observe(frame, asked, class_output(said, kept))
        return seen.maps[index]
    geometry = FrameGeometry(frame.size, session.networks[0].long_side)
    found = np.zeros(frame.size, np.float32)
    for drawn in prompted:
        with one.lock, workspace.queue.click():
            answer = workspace.decoded(one, index, drawn.box, drawn.clicks, drawn.outline)
        logits = geometry.logits_to_frame(torch.from_numpy(answer.low_res_logits)[None])[0, 0]
        # Logits of several networks are averaged before; so are their temperatures.
        entropy = binary_entropy((logits / float(np.mean(scales))).sigmoid())
        found = np.maximum(found, entropy.numpy().astype(np.float32))
    return found if frame.valid is None else np.where(frame.valid, found, 0).astype(np.float32)
