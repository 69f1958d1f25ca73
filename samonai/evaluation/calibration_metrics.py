"""Calibration of probabilities, measured while cases are predicted.

The region: for each class the boxes of its prompts, each side moved outwards by a quarter of the
box, and whole frames where a prompt has no box. Pixels further away are easy background; counting
them would bring any calibration error close to zero.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from samonai.core.frame import Frame
from samonai.inference.ensemble import member_names, temperatures
from samonai.inference.inferer import FrameOutput, FramePrompts
from samonai.inference.uncertainty import scaled_mean
from samonai.metrics.calibration import ECE_BINS, LogitHistogram

REGION = (
    "the prompts' boxes, each side a quarter of the box further out; frames without boxes whole"
)
TOGETHER = "together"
"""Member name of the networks' average."""

_GROWN_BY = 0.25


class CalibrationMetrics:
    """Histograms of labelled frames' logits by class, for each network and for their average.

    Args:
        decoders: The decoders' files, for their names and temperatures.
        classes: Label value to name.
    """

    def __init__(self, decoders: Sequence[Path | str], classes: Mapping[int, str]) -> None:
        """Start without voxels."""
        # Weights of a federated client have no file.
        self.names = member_names(decoders) or ["network"]
        self.scales = temperatures(decoders) or [1.0]
        self.classes = {int(value): name for value, name in classes.items()}
        self.histograms: dict[tuple[str, int], LogitHistogram] = {}

    def observe(self, frame: Frame, prompts: FramePrompts, output: FrameOutput) -> None:
        """Count the voxels of one frame, if it has a label."""
        if frame.label is None:
            return
        together = scaled_mean(output.logits, self.scales)
        said = {TOGETHER: together, **dict(zip(self.names, output.logits, strict=True))}
        for value in np.unique(prompts.classes).tolist():
            rows = np.flatnonzero(prompts.classes == value)
            region = grown_region(prompts.boxes[rows], frame.size)
            if frame.valid is not None:
                region &= frame.valid
            inside = frame.label[region] == value
            for name, logits in said.items():
                strongest = logits[torch.from_numpy(rows)].amax(0).numpy()
                self._histogram(name, value).add(strongest[region], inside)

    def of(self, name: str) -> dict[int, LogitHistogram]:
        """Return one network's histograms by class value, or the average's."""
        found = self._all_processes()
        return {value: counts for (who, value), counts in found.items() if who == name}

    def document(self) -> dict[str, Any]:
        """Return the entry `calibration` of `metrics.json`, as JSON values.

        The average uses its members' temperatures; a member's own `ece` is at its
        temperature too, `ece_uncalibrated` at 1.
        """
        members = {
            name: self._figures(name, scale)
            for name, scale in zip(self.names, self.scales, strict=True)
        }
        together = self._figures(TOGETHER, 1.0, with_curve=True)
        known = [member["ece"] for member in members.values() if member["ece"] is not None]
        return {
            "region": REGION,
            "bins": ECE_BINS,
            **together,
            "members": members,
            "members_mean": {"ece": fmean(known) if known else None},
        }

    def _figures(self, name: str, scale: float, *, with_curve: bool = False) -> dict[str, Any]:
        per_class = {}
        for value, counts in sorted(self.of(name).items()):
            figures: dict[str, Any] = {"ece": counts.ece(scale), "nll": counts.nll(scale)}
            if with_curve:
                figures |= {"voxels": counts.voxels, "reliability": counts.reliability(scale)}
            elif scale != 1:
                figures["ece_uncalibrated"] = counts.ece()
            per_class[self.classes.get(value, f"class_{value}")] = figures
        means: dict[str, Any] = {
            key: fmean(figures[key] for figures in per_class.values()) if per_class else None
            for key in ("ece", "nll")
        }
        return {**means, **({} if with_curve else {"temperature": scale}), "per_class": per_class}

    def _histogram(self, name: str, value: int) -> LogitHistogram:
        return self.histograms.setdefault((name, value), LogitHistogram())

    def _all_processes(self) -> dict[tuple[str, int], LogitHistogram]:
        if not (dist.is_available() and dist.is_initialized()):
            return self.histograms
        parts: list[dict[tuple[str, int], LogitHistogram]] = [{}] * dist.get_world_size()
        dist.all_gather_object(parts, self.histograms)
        joined: dict[tuple[str, int], LogitHistogram] = {}
        for part in parts:
            for key, counts in part.items():
                joined[key] = joined.get(key, LogitHistogram()) + counts
        return joined


def grown_region(boxes: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return bool (H, W): the union of the grown boxes.

    Args:
        boxes: float32 (N, 4), xyxy in frame space; NaN where a prompt has no box.
        size: (H, W) of the frame.
    """
    region = np.zeros(size, bool)
    for box in boxes:
        if np.isnan(box).any():
            region[:] = True
            continue
        margin = _GROWN_BY * (box[2:] - box[:2])
        x0, y0 = np.floor(box[:2] - margin).astype(int).clip(0)
        x1, y1 = np.ceil(box[2:] + margin).astype(int)
        region[y0:y1, x0:x1] = True
    return region
