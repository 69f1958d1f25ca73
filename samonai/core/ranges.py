"""What numbers settings may have, for those that nothing checks before a model is loaded.

A setting that a class of its own takes, such as the prompts' `box_jitter`, is checked there.
"""

import math
from dataclasses import dataclass
from numbers import Integral

from samonai.core.errors import InputError


@dataclass(frozen=True)
class Range:
    """From which number on, and up to which.

    Attributes:
        low: The lowest number.
        high: The highest number.
        above: Whether `low` itself is too low.
        below: Whether `high` itself is too high.
    """

    low: float = 0.0
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        """Say whether a number lies in it; NaN does not."""
        inside = self.low <= value <= self.high
        ends = (self.above and value == self.low) or (self.below and value == self.high)
        return inside and not ends

    def __str__(self) -> str:
        """Return it in words, such as "0 or more" or "above 0 and below 1"."""
        low = f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        if self.high == math.inf:
            return low
        return f"{low} and {'below' if self.below else 'at most'} {self.high:g}"


_POSITIVE, _COUNT, _FROM_1 = Range(above=True), Range(), Range(low=1)
_SHARE = Range(high=1)
_MOST_POINTS = 1000
_MOST_PROCESSES = 256

RANGES = {
    "learning_rate": _POSITIVE,
    "weight_decay": _COUNT,
    "warmup_fraction": _SHARE,
    "gradient_clip": _POSITIVE,
    "epochs": _FROM_1,
    "batch_size": _FROM_1,
    "objects_per_frame": _FROM_1,
    "min_area": _FROM_1,
    "eval_min_area": _FROM_1,
    "patience": _FROM_1,
    "val_interval": _FROM_1,
    "workers": Range(high=_MOST_PROCESSES),
    "views": _FROM_1,
    "lora_rank": _FROM_1,
    "seed": Range(high=2**32, below=True),
    "iou_weight": _COUNT,
    "semantic_weight": _POSITIVE,
    "empty_frames": _SHARE,
    "empty_rate": Range(high=1, below=True),
    "class_balance": _SHARE,
    "min_score": _SHARE,
    "dpi": _POSITIVE,
    "longest": _POSITIVE,
    "positive_points": Range(low=1, high=_MOST_POINTS),
    "negative_points": Range(high=_MOST_POINTS),
    "click_rounds": Range(high=_MOST_POINTS),
    "mask_only_rounds": Range(high=_MOST_POINTS),
    "surface_tolerance_mm": _COUNT,
    "boundary_tolerance": _COUNT,
}
"""Setting to its range: where torch or numpy would fail after minutes, or nothing be learned."""


def check_count(what: str, value: object, least: int = 1) -> None:
    """Refuse a number of things that is no whole number, or too small.

    Raises:
        InputError: It is.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{what}: expected a whole number, got {value!r:.80}")
    if int(value) < least:
        raise InputError(f"{what}: expected {least} or more, got {value}")


def check_kind(name: str, value: object, kinds: tuple[type, ...], wanted: str) -> None:
    """Refuse a value of another type than a setting has; null, which says nothing, is none.

    Args:
        name: The setting.
        value: What it was given; numbers are finite, and true and false are no numbers.
        kinds: Types that it may have.
        wanted: Said in the message, such as "a number".

    Raises:
        InputError: It is of another type.
    """
    right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    if isinstance(value, float) and not math.isfinite(value):
        right = False
    if not (right or value is None):
        raise InputError(f"{name}={value!r:.80}: expected {wanted}")


def check_range(key: str, value: object) -> None:
    """Refuse a number that a setting cannot have, and what is none where one is wanted.

    Raises:
        InputError: It is out of its range, infinite or no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        if key in RANGES and value is not None:
            raise InputError(f"setting {key}: expected a number, got {str(value)[:80]!r}")
        return
    if not math.isfinite(value):
        raise InputError(f"setting {key}: expected a number, got {value}")
    if key in RANGES and value not in RANGES[key]:
        raise InputError(f"setting {key}: expected {RANGES[key]}, got {value:g}")
