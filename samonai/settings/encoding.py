"""Settings of the model, its encoder, and the augmented views that are stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samonai.core.settings import Affects, setting
from samonai.settings.choices import PRECISIONS

_NOTHING, _PIXELS = Affects.NOTHING, Affects.PIXELS


@dataclass(frozen=True)
class ModelSettings:
    """Model and encoder."""

    model: str | None = setting(
        "micro", "Name of the pretrained model; null: that of the fine-tuned decoder.", _PIXELS,
        option="--model",
    )  # fmt: skip
    checkpoint: Path | None = setting(
        None, "Your own weights of the model.", _PIXELS, option="--checkpoint"
    )
    sha256: str | None = setting(
        None, "Hash that the weights' file must have.", _NOTHING, option="--sha256"
    )
    precision: str = setting(
        "auto", "Number format of the encoder; auto is bf16 where the device has it.", _PIXELS,
        choices=PRECISIONS,
    )  # fmt: skip
    device: str | None = setting(
        None, "cpu, cuda or cuda:N; null: a GPU when there is one.", _NOTHING, option="--device"
    )


@dataclass(frozen=True)
class ViewSettings:
    """Augmented views of frames."""

    flip: float = setting(
        0.5, "Probability that rows are reversed, and that columns are.", _PIXELS, low=0, high=1
    )
    rotation: float = setting(
        15.0, "Largest angle, either way.", _PIXELS, unit="degrees", low=0, high=180
    )
    scale: float = setting(0.15, "Largest change of size, as a share.", _PIXELS, low=0, high=0.9)
    intensity: float = setting(
        0.2, "Largest change of brightness, contrast and gamma, as a share.", _PIXELS, low=0,
        high=0.9,
    )  # fmt: skip
    noise: float = setting(
        0.03, "Largest standard deviation of noise, as a share of the range.", _PIXELS, low=0,
        high=1,
    )  # fmt: skip


@dataclass(frozen=True)
class ViewCountSettings:
    """Number of views."""

    views: int = setting(
        1, "Versions of each frame in the store; all but the first are augmented.", _PIXELS, low=1
    )


@dataclass(frozen=True)
class FileSettings:
    """Files and folders."""

    bundle_root: Path = setting(Path(), "Folder of the bundle.", _NOTHING, internal=True)
    dataset_dir: Path | None = setting(None, "Folder of the data set.", _NOTHING)
    images: Path | None = setting(
        None, "Folder of images, or a data list.", _NOTHING, option="--images"
    )
    labels: Path | None = setting(None, "Folder of labels.", _NOTHING, option="--labels")
    input: Path | None = setting(
        None, "Source, or folder of sources, to predict.", _NOTHING, option="--input"
    )
    split: Path | None = setting(
        None, "JSON file of the cases to train on and to hold out.", _NOTHING, option="--split"
    )
    output_dir: Path | None = setting(None, "Folder of the results.", _NOTHING, option="--out")
    evaluation_dir: Path | None = setting(
        None, "Folder of the evaluation's results.", _NOTHING, option="--out"
    )
    store: Path | None = setting(
        None, "Folder or URL of stored embeddings.", _NOTHING, option="--store"
    )
    decoder: Path | None = setting(
        None, "File of the fine-tuned decoder.", _NOTHING, option="--run"
    )
    members: Path | Sequence[str] | None = setting(
        None, "Files of further decoders, whose logits are averaged.", _NOTHING, option="--run"
    )
    rank: int = setting(0, "Number of this process.", _NOTHING, internal=True)
    world_size: int = setting(1, "Number of processes.", _NOTHING, internal=True)
