"""Uncertainty of a prediction: a map beside the label map, and figures per structure.

The probability of a voxel is the sigmoid of the mean over the networks of logit / temperature, so
that above one half it is inside, as in the label map. The uncertainty is the binary entropy of
that probability in bits, for the prompt with the least certain value: 0 is certain, 1 is maximal.
Without prompts it is 0; where frames overlap, it is blended like their scores.
With propagated prompts it is that of each slice's output; with three planes a
network's logit is its average over the planes, each clipped at 10. It precedes 3D clean-up.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, Generic

import numpy as np
import numpy.typing as npt
import torch

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.frame import Frame
from samonai.domains.base import Domain, SourceT
from samonai.domains.capabilities import MapMerger, ValueMaps, capabilities
from samonai.domains.tiling.frames import label_from_scores
from samonai.inference.ensemble import member_names, temperatures
from samonai.inference.frame_outputs import FrameOutput
from samonai.prompts.frame_prompts import FramePrompts

logger = logging.getLogger(__name__)

UNCERTAINTY, CONFIDENCE = "uncertainty", "confidence"
"""Suffixes of the two files after a case's name."""


def scaled_mean(logits: torch.Tensor, scales: Sequence[float]) -> torch.Tensor:
    """Return float32 (N, H, W): the mean over K networks of logit / temperature.

    Args:
        logits: float32 (K, N, H, W).
        scales: The temperature of each network; or none, for 1 each.
    """
    if all(scale == 1 for scale in scales):
        return logits.mean(0)
    divisors = torch.tensor(scales, dtype=logits.dtype)
    return (logits / divisors[:, None, None, None]).mean(0)


def binary_entropy(probability: torch.Tensor) -> torch.Tensor:
    """Return the entropy in bits, 0..1, of float probabilities of any shape."""
    inside = torch.special.entr(probability) + torch.special.entr(1 - probability)
    return (inside / np.log(2)).clamp(0, 1)


@dataclass
class _Structure:
    """Sums over the frames of one class."""

    voxels: int = 0
    probability: float = 0.0
    uncertainty: float = 0.0
    iou: list[float] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    common: dict[tuple[int, int], int] = field(default_factory=dict)

    def agreement(self) -> float | None:
        """Return the mean Dice between pairs of networks; None for one network."""
        scores = [
            2 * common / (self.sizes[a] + self.sizes[b])
            for (a, b), common in self.common.items()
            if self.sizes[a] + self.sizes[b]
        ]
        return fmean(scores) if scores else None


class Certainty:
    """Collects, frame by frame, the uncertainty of the networks on one source."""

    def __init__(self, scales: Sequence[float] = ()) -> None:
        """Start without frames; `scales` are the networks' temperatures."""
        self.scales = list(scales)
        self.maps: dict[int, npt.NDArray[np.float32]] = {}
        self._structures: dict[int, _Structure] = {}

    def reset(self) -> None:
        """Forget the source."""
        self.maps, self._structures = {}, {}

    def observe(self, frame: Frame, prompts: FramePrompts, output: FrameOutput) -> None:
        """Collect one frame."""
        probability = scaled_mean(output.logits, self.scales).sigmoid()
        entropy = binary_entropy(probability)
        uncertainty = entropy.amax(0).numpy().astype(np.float32)
        label = label_from_scores(output.scores.mean(0), prompts.classes)
        if frame.valid is not None:
            uncertainty, label = (np.where(frame.valid, v, 0) for v in (uncertainty, label))
        self._keep(frame, uncertainty.astype(np.float32))
        own = [label_from_scores(scores, prompts.classes) for scores in output.scores]
        for value in np.unique(prompts.classes).tolist():
            rows = np.flatnonzero(prompts.classes == value)
            structure = self._structures.setdefault(value, _Structure())
            inside = label == value
            structure.voxels += int(inside.sum())
            structure.probability += float(probability[rows].amax(0).numpy()[inside].sum())
            structure.uncertainty += float(uncertainty[inside].sum())
            if output.iou is not None:
                structure.iou += output.iou[:, rows].mean(0).tolist()
            _add_members(structure, [mask == value for mask in own])

    def _keep(self, frame: Frame, uncertainty: npt.NDArray[np.float32]) -> None:
        self.maps[frame.location.index] = uncertainty

    def document(self, classes: Mapping[int, str]) -> dict[str, Any]:
        """Return the figures of each structure, as JSON values.

        Args:
            classes: Label value to name.

        Returns:
            By class name: `label`, `voxels`, and over the predicted voxels the means
            `probability` and `uncertainty`; `predicted_iou`, the networks' own estimate, mean over
            prompts and networks; `agreement`, the mean Dice between pairs of networks. None if
            nothing was predicted, or for one network; IoU is not predicted for three planes
            together, nor by the semantic head.
        """
        return {
            classes.get(value, f"class_{value}"): {
                "label": value,
                "voxels": found.voxels,
                "probability": found.probability / found.voxels if found.voxels else None,
                "uncertainty": found.uncertainty / found.voxels if found.voxels else None,
                "predicted_iou": fmean(found.iou) if found.iou else None,
                "agreement": found.agreement(),
            }
            for value, found in sorted(self._structures.items())
        }


@dataclass(frozen=True)
class SourceUncertainty:
    """Uncertainty of a prediction.

    Attributes:
        values: float32, bits of entropy on the source's grid, or the domain's own handle of it.
        document: Members, temperatures, and per structure the figures of `Certainty.document`.
    """

    values: Any
    document: dict[str, Any]

    def write(
        self, folder: Path, name: str, domain: Domain[SourceT], source: SourceT, ending: str = ""
    ) -> list[Path]:
        """Write the map and the figures beside a case's label map; return the two files.

        Args:
            folder: Folder of the files.
            name: The case's name.
            domain: Writes the map.
            source: The source of the map's grid.
            ending: File ending of the map; empty: the input's own.
        """
        path = folder / f"{name}_{UNCERTAINTY}{ending}"
        written = value_maps(domain).write_map(source, self.values, path)
        figures = folder / f"{name}_{CONFIDENCE}.json"
        with write_atomically(figures) as temporary:
            temporary.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
        return [figures, written]


class SourceCertainty(Certainty, Generic[SourceT]):
    """Collects the uncertainty of networks on one source, as a map on its grid and figures.

    Args:
        domain: Puts the frames' values on the source's grid.
        source: The source.
        decoders: The decoders' files, for their names and temperatures.

    Raises:
        InputError: The domain cannot make maps.
    """

    def __init__(
        self, domain: Domain[SourceT], source: SourceT, decoders: Sequence[Path | str]
    ) -> None:
        """Start without frames."""
        super().__init__(temperatures(decoders))
        self.members = member_names(decoders)
        self._merger: MapMerger = value_maps(domain).map_merger(source)
        self._frames = 0

    def _keep(self, frame: Frame, uncertainty: npt.NDArray[np.float32]) -> None:
        # Not kept: a raster has more frames than memory holds.
        self._merger.add(frame, uncertainty)
        self._frames += 1

    def finish(self, classes: Mapping[int, str]) -> SourceUncertainty | None:
        """Return the uncertainty; None without observed frames, whose zeros would mean certainty.

        Args:
            classes: Label value to name.
        """
        if not self._frames:
            return None
        document = {
            "members": self.members,
            "temperatures": self.scales,
            "structures": self.document(classes),
        }
        return SourceUncertainty(self._merger.finish(), document)


def value_maps(domain: Domain[SourceT]) -> ValueMaps[SourceT]:
    """Return the merger of values on the grids of a domain's sources.

    Raises:
        InputError: The domain has no maps of values.
    """
    found = capabilities(domain).value_maps
    if found is None:
        raise InputError(f"there are no uncertainty maps of {domain.name} data; leave them out")
    return found


def warn_of_no_uncertainty(name: str) -> None:
    """Log that the uncertainty of a case is unknown."""
    logger.warning(
        "%s: no uncertainty is known without prompts, or for objects found one by one",
        name,
    )


def _add_members(structure: _Structure, masks: Sequence[npt.NDArray[np.bool_]]) -> None:
    for number, mask in enumerate(masks):
        structure.sizes[number] = structure.sizes.get(number, 0) + int(mask.sum())
    for a, b in combinations(range(len(masks)), 2):
        common = int((masks[a] & masks[b]).sum())
        structure.common[a, b] = structure.common.get((a, b), 0) + common
