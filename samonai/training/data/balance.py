"""Class balance: sampling of an epoch's frames at fixed rates of classes and empty frames."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from samonai.core.settings import check_given
from samonai.settings.training import DataSettings


class BalancedDraw:
    """Sampler of an epoch's frames with exact counts per class and of empty frames.

    An epoch has as many frames with objects as the data, and enough without that they make up
    `empty_rate` of it (none if the data have none). The frames with objects are distributed over
    the classes: class c, present on n_c frames, has a quota proportional to n_c ** (1 -
    `class_balance`), so that at 1 each class is drawn equally often however rare it is, and at 0 as
    often as it occurs. A class is drawn from its own frames, none of which is repeated before all
    were drawn. A frame shows all its classes, so each class is seen at least at its quota.

    Args:
        classes: The classes on each frame; empty for a frame without objects.
        empty_rate: Share of frames without objects, from 0 to below 1.
        class_balance: From 0 (as in the data) to 1 (all classes equally).

    Raises:
        InputError: A share is out of range.
    """

    def __init__(
        self, classes: Sequence[frozenset[int]], empty_rate: float, class_balance: float
    ) -> None:
        """Sort the frames."""
        check_given(DataSettings, {"empty_rate": empty_rate, "class_balance": class_balance})
        self.empty = np.array([n for n, found in enumerate(classes) if not found], np.int64)
        frames: dict[int, list[int]] = {}
        for number, found in enumerate(classes):
            for value in found:
                frames.setdefault(value, []).append(number)
        self.by_class = {value: np.array(frames[value], np.int64) for value in sorted(frames)}
        labelled = len(classes) - len(self.empty)
        weights = {v: len(of) ** (1.0 - class_balance) for v, of in self.by_class.items()}
        self.quotas = share_out(labelled, weights)
        wanted = round(labelled * empty_rate / (1 - empty_rate))
        self.empty_quota = wanted if len(self.empty) else 0

    def __len__(self) -> int:
        """Return the number of frames of an epoch."""
        return sum(self.quotas.values()) + self.empty_quota

    def draw(self, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return an epoch's frame numbers in training order.

        Args:
            generator: The only source of randomness.
        """
        parts = [_drawn(self.empty, self.empty_quota, generator)]
        parts += [
            _drawn(self.by_class[value], quota, generator) for value, quota in self.quotas.items()
        ]
        return generator.permutation(np.concatenate(parts))


def share_out(total: int, weights: Mapping[int, float]) -> dict[int, int]:
    """Divide a whole number in proportion to weights, by the largest-remainder method."""
    whole = sum(weights.values())
    exact = {key: total * weight / whole for key, weight in weights.items()}
    shares = Counter({key: int(share) for key, share in exact.items()})
    left = total - sum(shares.values())
    shares.update(sorted(exact, key=lambda key: (int(exact[key]) - exact[key], key))[:left])
    return dict(shares)


def _drawn(
    frames: npt.NDArray[np.int64], quota: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return `quota` of the frames; none is repeated before all were drawn."""
    rounds = -(-quota // max(len(frames), 1))
    drawn = [generator.permutation(frames) for _ in range(rounds)]
    return np.concatenate(drawn)[:quota] if drawn else np.zeros(0, np.int64)
