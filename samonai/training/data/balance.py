"""Which frames an epoch shows, so that rare classes and empty frames come at stated rates."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError


class BalancedDraw:
    """Draws the frames of an epoch: exact numbers, the frames by chance.

    An epoch shows as many frames with objects as there are, and so many without that they make up
    `empty_rate` of it (none where there are none). The frames with objects are shared out among
    the classes: class c, found on n_c frames, gets a share that goes with
    n_c ** (1 - `class_balance`), so that at 1 each class gets the same number of draws however
    rare it is, and at 0 as many as it has. A class draws among its own frames, all of which come
    before one comes again. A frame shows all its classes whoever drew it, so each class is seen
    at least at its stated rate.

    Args:
        classes: The classes on each frame; none on a frame without objects.
        empty_rate: Share of frames without objects, from 0 to below 1.
        class_balance: From 0 (as the data have it) to 1 (all classes alike).

    Raises:
        InputError: A share is out of range.
    """

    def __init__(
        self, classes: Sequence[frozenset[int]], empty_rate: float, class_balance: float
    ) -> None:
        """Sort the frames."""
        if not 0 <= empty_rate < 1:
            raise InputError(f"empty_rate is a share from 0 to below 1, got {empty_rate}")
        if not 0 <= class_balance <= 1:
            raise InputError(f"class_balance is from 0 to 1, got {class_balance}")
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
        """Return an epoch's frame numbers in the order in which they are shown.

        Args:
            generator: The only source of chance.
        """
        parts = [_drawn(self.empty, self.empty_quota, generator)]
        parts += [
            _drawn(self.by_class[value], quota, generator) for value, quota in self.quotas.items()
        ]
        return generator.permutation(np.concatenate(parts))


def share_out(total: int, weights: Mapping[int, float]) -> dict[int, int]:
    """Share a whole number out by weights: the largest remainders get what rounding leaves."""
    whole = sum(weights.values())
    exact = {key: total * weight / whole for key, weight in weights.items()}
    shares = Counter({key: int(share) for key, share in exact.items()})
    left = total - sum(shares.values())
    shares.update(sorted(exact, key=lambda key: (int(exact[key]) - exact[key], key))[:left])
    return dict(shares)


def _drawn(
    frames: npt.NDArray[np.int64], quota: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return `quota` of the frames; none comes again before all have come."""
    rounds = -(-quota // max(len(frames), 1))
    drawn = [generator.permutation(frames) for _ in range(rounds)]
    return np.concatenate(drawn)[:quota] if drawn else np.zeros(0, np.int64)
