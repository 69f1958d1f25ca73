"""The metric that chooses the best checkpoint: Dice by held-out case and class."""

from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from monai.utils import CommonKeys

from samonai.sam.network import DecodeOutput
from samonai.training.losses import MaskTargets


class CaseDice(Metric):
    """Mean Dice over held-out cases and classes, in 3D, on the low-res frames.

    The intersections and sizes of all prompted objects of a case and class are summed over its
    frames before the ratio is taken, so memory stays flat in the length of a volume. It ranks
    epochs of one run; what a report says is measured by `samonai.training.metrics` at the
    source's own resolution.
    """

    def __init__(self) -> None:
        """Start with no case seen."""
        self._sums: dict[tuple[str, int], list[int]] = {}
        # Named tuples look like lists of batches to ignite, which would be taken apart.
        super().__init__(output_transform=_pred_and_label, skip_unrolling=True)

    def reset(self) -> None:
        """Forget all cases."""
        self._sums = {}

    def update(self, output: tuple[DecodeOutput, MaskTargets]) -> None:
        """Add the prompts of one batch.

        Args:
            output: What the network said to N prompts, and what it should have said.
        """
        pred, targets = output
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
        """Return the sums of every process."""
        if not (dist.is_available() and dist.is_initialized()):
            return [self._sums]
        parts: list[dict[tuple[str, int], list[int]]] = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(parts, self._sums)
        return parts


def _pred_and_label(output: dict[str, Any]) -> tuple[DecodeOutput, MaskTargets]:
    return output[CommonKeys.PRED], output[CommonKeys.LABEL]
