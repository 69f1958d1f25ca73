"""Validation metric that chooses the best checkpoint: Dice by held-out case and class."""

from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from monai.utils import CommonKeys

from samonai.sam.network import DecodeOutput, HeadsOutput
from samonai.settings.choices import BOTH, PROMPTABLE, SEMANTIC
from samonai.training.objectives.heads import HeadTargets, check_heads
from samonai.training.objectives.losses import MaskTargets
from samonai.training.objectives.semantic_loss import ClassCounts


class CaseDice(Metric):
    """Mean Dice over held-out cases and classes, in 3D, on the low-res frames.

    The intersections and sizes of all prompted objects of a case and class are summed over its
    frames before the ratio is taken, so memory does not grow with the length of a volume. It ranks
    epochs of one run; reports use `samonai.metrics.volumes`, which measures at the source's own
    resolution.
    """

    def __init__(self) -> None:
        """Start without cases."""
        self._sums: dict[tuple[str, int], list[int]] = {}
        # ignite would unpack named tuples as lists of batches.
        super().__init__(output_transform=_pred_and_label, skip_unrolling=True)

    def reset(self) -> None:
        """Forget all cases."""
        self._sums = {}

    def update(self, output: tuple[DecodeOutput, MaskTargets]) -> None:
        """Add the prompts of one batch.

        Args:
            output: The network's output for N prompts, and their targets.
        """
        pred, targets = output
        if not len(targets.masks):
            return
        predicted = (pred.low_res_logits > 0) & targets.valid
        truth = targets.masks & targets.valid
        counts = torch.stack(
            [(predicted & truth).sum((1, 2, 3)), predicted.sum((1, 2, 3)) + truth.sum((1, 2, 3))]
        )
        for key, (common, total) in zip(targets.objects, counts.T.tolist(), strict=True):
            seen = self._sums.setdefault(key, [0, 0])
            seen[0] += common
            seen[1] += total

    def compute(self) -> float:
        """Return the mean Dice, 0..1.

        Raises:
            NotComputableError: No case was seen.
        """
        sums: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
        for part in self._all_ranks():
            for key, (common, total) in part.items():
                sums[key][0] += common
                sums[key][1] += total
        if not sums:
            raise NotComputableError("no validation case was seen")
        return sum(2 * common / total for common, total in sums.values() if total) / len(sums)

    def _all_ranks(self) -> list[dict[tuple[str, int], list[int]]]:
        """Return the sums of all processes."""
        return _of_all_ranks(self._sums)


class SemanticDice(Metric):
    """Mean Dice of the semantic head over held-out cases and classes, in 3D; see `ClassCounts`."""

    def __init__(self) -> None:
        """Start without cases."""
        self._counts = ClassCounts()
        super().__init__(output_transform=_pred_and_label, skip_unrolling=True)

    def reset(self) -> None:
        """Forget all cases."""
        self._counts = ClassCounts()

    def update(self, output: tuple[HeadsOutput, HeadTargets]) -> None:
        """Add the frames of one batch."""
        pred, targets = output
        self._counts.add(pred.class_logits, targets.classes)

    def compute(self) -> float:
        """Return the mean Dice, 0..1.

        Raises:
            NotComputableError: No class was seen.
        """
        joined = ClassCounts()
        for part in _of_all_ranks(self._counts):
            joined.join(part)
        dice = joined.dice()
        if not dice:
            raise NotComputableError("no validation case has an object")
        return sum(dice) / len(dice)


class HeadsDice(Metric):
    """Validation metric for any heads.

    It is the Dice of the one head, or the mean of both heads' Dice.

    Args:
        heads: One of `HEADS`.
        of: The head whose Dice alone is computed, "promptable" or "semantic"; None: of all.

    Raises:
        InputError: The heads are unknown.
    """

    def __init__(self, heads: str = PROMPTABLE, of: str | None = None) -> None:
        """Start without cases."""
        check_heads(heads)
        self.heads = heads
        wanted = of or heads
        self._prompted = None if wanted == SEMANTIC else CaseDice()
        self._semantic = None if wanted == PROMPTABLE else SemanticDice()
        super().__init__(output_transform=_pred_and_label, skip_unrolling=True)

    def reset(self) -> None:
        """Forget all cases."""
        for part in self._parts():
            part.reset()

    def update(self, output: tuple[Any, Any]) -> None:
        """Add one batch.

        Args:
            output: `DecodeOutput` and `MaskTargets` of the promptable head alone, else
                `HeadsOutput` and `HeadTargets`.
        """
        pred, targets = output
        if self._semantic is not None:
            self._semantic.update((pred, targets))
        if self._prompted is None:
            return
        if self.heads == PROMPTABLE:
            self._prompted.update((pred, targets))
        elif pred.prompted is not None:
            self._prompted.update((pred.prompted, targets.masks))

    def compute(self) -> float:
        """Return the mean Dice, 0..1.

        Raises:
            NotComputableError: No case was seen.
        """
        found = [part.compute() for part in self._parts()]
        return sum(found) / len(found)

    def _parts(self) -> list[CaseDice | SemanticDice]:
        return [part for part in (self._prompted, self._semantic) if part is not None]


def dice_by_head(heads: str) -> dict[str, Metric]:
    """Return one more metric for each head where several are trained."""
    if heads != BOTH:
        return {}
    return {f"val_dice_{head}": HeadsDice(heads, of=head) for head in (PROMPTABLE, SEMANTIC)}


def _of_all_ranks(value: Any) -> list[Any]:
    """Return the values of all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    parts: list[Any] = [None for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, value)
    return parts


def _pred_and_label(output: dict[str, Any]) -> tuple[Any, Any]:
    return output[CommonKeys.PRED], output[CommonKeys.LABEL]
