"""Prompt compatibility: a warning for prompts of a kind that a decoder was not trained with.

A decoder trained with boxes only is no better with clicks than before fine-tuning, often worse, and
the other way round. Its masks may still be useful, so this is a warning and no error.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.sampling import KINDS
from samonai.sam.decoder_metadata import read_decoder_metadata

logger = logging.getLogger(__name__)

BOXES, CLICKS = "boxes", "clicks"

_TRAIN_WITH = {BOXES: "sampler.box_probability", CLICKS: "sampler.points_probability"}


class PromptCompatibility:
    """Warns, once for each kind, of prompts of a kind that decoders were not trained with.

    Args:
        decoders: The decoders' files; those without a record of their training prompts are
            compatible with all kinds.
    """

    def __init__(self, decoders: Sequence[Path | str]) -> None:
        """Read the training prompts of the decoders."""
        known = {path: trained_kinds(read_decoder_metadata(path).training) for path in decoders}
        self._known = {path: kinds for path, kinds in known.items() if kinds}
        self._warned: set[str] = set()

    def check_kind(self, kind: str) -> None:
        """Check one kind of prompts against all decoders."""
        strange = [path for path, kinds in self._known.items() if kind not in kinds]
        if not strange or kind in self._warned:
            return
        self._warned.add(kind)
        logger.warning(
            "%s was trained with %s only: its masks for %s may be worse than before fine-tuning; "
            "train with --set %s=0.5 to use both",
            strange[0],
            " and ".join(sorted(self._known[strange[0]])),
            kind,
            _TRAIN_WITH[kind],
        )

    def check(self, prompts: Mapping[int, FramePrompts]) -> None:
        """Check the kinds among a source's prompts."""
        for found in prompts.values():
            if np.isfinite(found.boxes).any():
                self.check_kind(BOXES)
            if found.point_labels is not None and (found.point_labels >= 0).any():
                self.check_kind(CLICKS)


def trained_kinds(training: Mapping[str, Any]) -> frozenset[str]:
    """Return the kinds of prompts in a decoder's training: boxes, clicks, coarse masks.

    Args:
        training: The training record of the decoder's file; without prompts it gives no kinds.
    """
    prompts = training.get("prompts", {})
    drawn = {name for name in KINDS if prompts.get(f"{name}_probability", 0) > 0}
    kinds = set()
    # Carried prompts are the box around a mask on the slice beside, with the mask.
    if drawn & {"box", "box_and_points"} or prompts.get("carried_probability", 0) > 0:
        kinds.add(BOXES)
    if (
        drawn & {"points", "box_and_points"}
        or training.get("interactive", {}).get("click_rounds", 0) > 0
    ):
        kinds.add(CLICKS)
    if "mask" in drawn:
        kinds.add("coarse masks")
    return frozenset(kinds)
