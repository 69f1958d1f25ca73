"""The training regimes that are compared: what each of them sets, and how it is measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from samonai.settings import options

Settings = Mapping[str, Any]

_ONE_POINT: Settings = {
    "sampler.box_probability": 0.0,
    "sampler.points_probability": 1.0,
    "sampler.positive_points": 1,
    "sampler.negative_points": 0,
}
_BOX_OR_POINT: Settings = {
    **_ONE_POINT,
    "sampler.box_probability": 0.5,
    "sampler.points_probability": 0.5,
}
_ITERATIVE: Settings = {
    **_BOX_OR_POINT,
    "interactive.click_rounds": 8,
    "interactive.mask_only_rounds": 2,
}


@dataclass(frozen=True)
class Regime:
    """One way to train.

    Attributes:
        name: What it is called, also as a folder.
        group: The question that it belongs to.
        settings: What differs from the bundle's defaults.
        clicks: Whether the table of clicks has it.
        automatic: Whether it is measured without prompts.
    """

    name: str
    group: str
    settings: Settings = field(default_factory=dict)
    clicks: bool = False
    automatic: bool = False


REGIMES = (
    Regime("box", "prompts", clicks=True),
    Regime(
        "box-errors",
        "prompts",
        {"sampler.shifted_probability": 0.34, "sampler.loose_probability": 0.33},
    ),
    Regime(
        "points",
        "prompts",
        {"sampler.box_probability": 0.0, "sampler.points_probability": 1.0},
        clicks=True,
    ),
    Regime("one-point", "prompts", _ONE_POINT),
    Regime("one-point-multimask", "prompts", {**_ONE_POINT, "interactive.multimask": True}),
    Regime(
        "masks", "prompts", {"sampler.mask_probability": 0.25, "sampler.with_mask_probability": 0.5}
    ),
    Regime(
        "iterative-3",
        "prompts",
        {**_BOX_OR_POINT, "interactive.click_rounds": 2, "interactive.mask_only_rounds": 1},
    ),
    Regime("iterative", "prompts", _ITERATIVE, clicks=True),
    Regime(
        "iterative-multimask", "prompts", {**_ITERATIVE, "interactive.multimask": True}, clicks=True
    ),
    Regime("dice-focal", "losses", {"loss_recipe": "dice_focal"}),
    Regime("dice-ce", "losses", {"loss_recipe": "dice_ce"}),
    Regime("bce", "losses", {"loss_recipe": "bce"}),
    Regime("dice-boundary", "losses", {"loss_recipe": "dice_boundary"}),
    Regime("dice-hausdorff", "losses", {"loss_recipe": "dice_hausdorff"}),
    Regime("without-iou-head", "losses", {"iou_weight": 0.0}),
    Regime("decoder+prompts", "parts", {"train_parts": "decoder+prompts"}),
    Regime("iou-head", "parts", {"train_parts": "iou_head"}),
    Regime("decoder-lora", "parts", {"train_parts": "decoder-lora"}),
    Regime("encoder-norms", "parts", {"train_parts": "encoder-norms+decoder"}),
    Regime("encoder-last-2", "parts", {"train_parts": "encoder-last-2+decoder"}),
    Regime("encoder-lora", "parts", {"train_parts": "encoder-lora+decoder"}),
    Regime("encoder-adapters", "parts", {"train_parts": "encoder-adapters+decoder"}),
    Regime("views-4", "augmentation", {"views": 4}),
    Regime("embedding-mix", "augmentation", {"mixup.probability": 0.5}),
    Regime("views-and-mix", "augmentation", {"views": 4, "mixup.probability": 0.5}),
    Regime("semantic", "heads", {"heads": "semantic"}, automatic=True),
    Regime("both-heads", "heads", {"heads": "both"}, automatic=True),
)
"""Every regime, in the order of the table; the first is the default, which others differ from."""


def command(regime: Regime) -> str:
    """Return the command-line options of a regime, without data and folders."""
    parts = ["samonai train medical …"]
    for key, value in regime.settings.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        option = options().get(key)
        parts.append(f"--set {key}={text}" if option is None else f"{option} {text}")
    return " ".join(parts)
