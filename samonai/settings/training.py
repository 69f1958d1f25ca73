"""Settings of a training run: optimiser, heads and loss, parts that are trained, frames."""

from dataclasses import dataclass
from pathlib import Path

from samonai.core.settings import Affects, setting
from samonai.settings.choices import ALL_TOKENS, COMPONENTS, HEADS, LOSS_RECIPES, WINDOWS

_WEIGHTS, _NOTHING = Affects.WEIGHTS, Affects.NOTHING


@dataclass(frozen=True)
class OptimisationSettings:
    """Optimisation."""

    seed: int = setting(
        0, "Seed of all random choices.", _WEIGHTS, low=0, high=2**32, below=True, option="--seed"
    )
    epochs: int = setting(
        20, "Largest number of passes over the labelled frames.", _WEIGHTS, low=1, option="--epochs"
    )
    batch_size: int = setting(4, "Frames in a training step.", _WEIGHTS, unit="frames", low=1)
    learning_rate: float = setting(
        1e-4, "Largest learning rate of AdamW.", _WEIGHTS, low=0, above=True
    )
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", _WEIGHTS, low=0)
    warmup_fraction: float = setting(
        0.05, "Share of the steps in which the learning rate rises.", _WEIGHTS, low=0, high=1
    )
    gradient_clip: float = setting(
        1.0, "Largest norm of the gradient.", _WEIGHTS, low=0, above=True
    )
    patience: int = setting(
        20, "Early stopping: validations without a better Dice.", _WEIGHTS, low=1
    )
    val_interval: int = setting(
        1, "Epochs from one validation to the next.", _WEIGHTS, unit="epochs", low=1
    )
    amp: bool = setting(False, "Automatic mixed precision of the decoder.", _WEIGHTS)
    workers: int = setting(0, "Processes that load frames.", _NOTHING, low=0, high=256)
    progress: bool = setting(True, "Show progress bars.", _NOTHING)
    resume: bool = setting(True, "Continue a run that was stopped.", _NOTHING)


@dataclass(frozen=True)
class HeadSettings:
    """Heads, loss and trained parts."""

    heads: str = setting(
        "promptable",
        "promptable segments what boxes and clicks ask for; semantic labels every pixel without "
        "a prompt; both trains the two together.",
        _WEIGHTS,
        choices=HEADS,
        option="--heads",
        defaults={"documents": "both"},
    )
    semantic_weight: float = setting(
        1.0, "Weight of the semantic head's loss beside the masks' loss.", _WEIGHTS, low=0,
        above=True,
    )  # fmt: skip
    borders: bool = setting(
        False, "Semantic head: learn borders too, so that touching objects are told apart.",
        _WEIGHTS,
    )  # fmt: skip
    loss_recipe: str = setting(
        "dice_bce", "Sum of losses of prompted masks.", _WEIGHTS, choices=LOSS_RECIPES
    )
    iou_weight: float = setting(
        1.0, "Weight of the IoU head's squared error; 0 leaves the head as it is.", _WEIGHTS, low=0
    )
    train_parts: str = setting(
        "decoder",
        "Parts that are trained, joined by +: decoder, prompts, iou_head, decoder-lora, "
        "encoder-lora, encoder-adapters, encoder-last-K, encoder-norms.",
        _WEIGHTS,
        option="--train",
    )
    initial_decoder: Path | None = setting(
        None, "Decoder of an earlier run, which training begins with; null: the model's own.",
        _WEIGHTS, option="--from",
    )  # fmt: skip
    lora_rank: int = setting(8, "Rank of LoRA updates.", _WEIGHTS, low=1)
    checkpointing: bool = setting(
        True, "Compute activations of a trained encoder again instead of keeping them.", _WEIGHTS
    )
    decoder_window: str = setting(
        ALL_TOKENS,
        "Image tokens that the mask decoder sees for a prompt: all, or (auto) the smallest of a "
        "few windows that holds the prompt and a margin. The decoder is used as it was trained.",
        _WEIGHTS,
        choices=WINDOWS,
    )


@dataclass(frozen=True)
class DataSettings:
    """Cases, frames and objects of training."""

    val_fraction: float = setting(
        0.2, "Share of the cases that is held out, without a split.", _WEIGHTS, low=0, high=1,
        above=True, below=True, option="--val-fraction",
    )  # fmt: skip
    objects_per_frame: int = setting(
        8, "Most objects of a frame in one step.", _WEIGHTS, unit="objects", low=1
    )
    min_area: int = setting(
        4, "Training objects of fewer pixels are dropped.", _WEIGHTS, unit="pixels", low=1,
        defaults={"satellite": 16, "documents": 16},
    )  # fmt: skip
    components: str = setting(
        "each",
        "Component policy of a scattered label: each connected component is an object, the largest "
        "alone is, or the whole label is one.",
        _WEIGHTS,
        choices=COMPONENTS,
    )
    empty_frames: float = setting(
        1.0, "Semantic head: share of the frames without objects that is used.", _WEIGHTS, low=0,
        high=1,
    )  # fmt: skip
    empty_rate: float = setting(
        0.2, "Semantic head: share of an epoch's frames that have no object.", _WEIGHTS, low=0,
        high=1, below=True,
    )  # fmt: skip
    class_balance: float = setting(
        1.0, "Semantic head: 0 draws frames as they come, 1 draws classes equally often.", _WEIGHTS,
        low=0, high=1,
    )  # fmt: skip
