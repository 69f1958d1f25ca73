"""Settings of simulated prompts: what a user would draw, with a user's errors; clicks; mixup."""

from dataclasses import dataclass

from samonai.core.settings import Affects, setting
from samonai.settings.choices import CLICK_RULES

_WEIGHTS = Affects.WEIGHTS
_MOST_POINTS = 1000


@dataclass(frozen=True)
class SamplerSettings:
    """Simulated prompts of training."""

    box_probability: float = setting(
        1.0, "Probability of a box; those of the four kinds are divided by their sum.", _WEIGHTS,
        low=0,
    )  # fmt: skip
    points_probability: float = setting(0.0, "Probability of points.", _WEIGHTS, low=0)
    box_and_points_probability: float = setting(
        0.0, "Probability of a box with points.", _WEIGHTS, low=0
    )
    mask_probability: float = setting(0.0, "Probability of a coarse mask.", _WEIGHTS, low=0)
    box_jitter: float = setting(
        0.05, "Each side of a box moves by up to this share of the box, in or out.", _WEIGHTS,
        unit="of the box", low=0, high=0.5, below=True,
    )  # fmt: skip
    shifted_probability: float = setting(
        0.0, "Probability that a box is shifted as a whole instead.", _WEIGHTS, low=0, high=1
    )
    box_shift: float = setting(
        0.1, "A shifted box moves by up to this share of its sides.", _WEIGHTS,
        unit="of the box", low=0, high=0.5, below=True,
    )  # fmt: skip
    loose_probability: float = setting(
        0.0, "Probability that a box is loose instead.", _WEIGHTS, low=0, high=1
    )
    box_looseness: float = setting(
        0.25, "Each side of a loose box lies outside by up to this share.", _WEIGHTS,
        unit="of the box", low=0, high=1,
    )  # fmt: skip
    positive_points: int = setting(
        3, "Most points inside an object.", _WEIGHTS, unit="points", low=1, high=_MOST_POINTS
    )
    negative_points: int = setting(
        2, "Most points outside an object, in its surroundings.", _WEIGHTS, unit="points", low=0,
        high=_MOST_POINTS,
    )  # fmt: skip
    with_mask_probability: float = setting(
        0.0, "Probability that a box or points come with a coarse mask.", _WEIGHTS, low=0, high=1
    )
    mask_noise: float = setting(0.3, "How coarse masks are.", _WEIGHTS, low=0, high=1)
    carried_probability: float = setting(
        0.0, "Probability that a frame's objects are prompted by the frame beside it, as "
        "propagation does.", _WEIGHTS, low=0, high=1,
    )  # fmt: skip


@dataclass(frozen=True)
class InteractiveSettings:
    """Iterative training with corrective clicks."""

    click_rounds: int = setting(
        0, "Rounds after the first prompt that add a click.", _WEIGHTS, low=0, high=_MOST_POINTS
    )
    mask_only_rounds: int = setting(
        0, "Rounds that refine the mask of the round before without a click.", _WEIGHTS, low=0,
        high=_MOST_POINTS,
    )  # fmt: skip
    click_rule: str = setting(
        "uniform", "Where in the error region a click falls.", _WEIGHTS, choices=CLICK_RULES
    )
    multimask: bool = setting(
        False, "Decode three masks for a single point and train the best one.", _WEIGHTS
    )


@dataclass(frozen=True)
class MixupSettings:
    """Mixup of stored embeddings."""

    probability: float = setting(
        0.0, "Share of the frames whose embedding is mixed with another one.", _WEIGHTS, low=0,
        high=1,
    )  # fmt: skip
    alpha: float = setting(
        0.4, "Both parameters of the beta distribution of mixing weights.", _WEIGHTS, low=0,
        above=True,
    )  # fmt: skip
