"""Model card of an export: classes, prompts, provenance, metrics, licence, intended use."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from samonai.sam.decoder_metadata import WINDOWS_ENTRY
from samonai.version import __version__

if TYPE_CHECKING:
    from samonai.sam.decoder_metadata import DecoderMetadata

_PROVENANCE = ("epochs", "seed", "loss_recipe", "learning_rate", "samonai", "torch", "monai")


def model_card(metadata: "DecoderMetadata", *, usage: str, checks: Mapping[str, float]) -> str:
    """Return a model card as Markdown with the YAML header of the Hugging Face Hub.

    Args:
        metadata: Metadata of the decoder; names of cases are left out.
        usage: Code of the consumer, shown as an example.
        checks: Largest differences from this model, measured by the consumer's code.
    """
    classes = ", ".join(metadata.classes.values()) or "not named"
    provenance = {k: v for k, v in metadata.training.items() if k in _PROVENANCE}
    counts = {
        name: len(metadata.training.get(key) or ())
        for name, key in (("cases trained on", "train_cases"), ("held-out cases", "val_cases"))
    }
    lines = [
        "---",
        "license: apache-2.0",
        "tags: [segment-anything, samonai, mask-generation]",
        "---",
        "",
        f"# Segment Anything ({metadata.model}), decoder fine-tuned with samonai",
        "",
        f"* **Data**: {metadata.domain}; {_listed(counts)}.",
        f"* **Classes**: {classes}. A promptable model: the prompt says which object, the class is",
        "  the user's.",
        f"* **Prompts trained with**: {_regime(metadata.training)}.",
        *_windows(metadata.training),
        f"* **Pixels**: {_plain(metadata.normalisation)}; longest side to 1024, padded right and",
        "  bottom.",
        f"* **Validation**: {_plain(metadata.metrics)}.",
        f"* **Training**: {_plain(provenance)}; written by samonai {__version__}.",
        f"* **Equality**: {_plain({k: f'{v:.2g}' for k, v in checks.items()})} (largest difference",
        "  from the original, measured by the consumer's code after writing).",
        "* **Licence**: Apache-2.0 as Segment Anything's; that of the training data is the user's.",
        "* **Intended use**: research and teaching. Not a medical device.",
        "",
        "```python",
        usage.strip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _regime(training: Mapping[str, Any]) -> str:
    prompts = training.get("prompts") or training.get("sampler") or {}
    return _plain(prompts) if prompts else "boxes"


def _windows(training: Mapping[str, Any]) -> list[str]:
    """Return the line about windows of image tokens, of a decoder that was trained with them."""
    if WINDOWS_ENTRY not in training:
        return []
    sizes = ", ".join(str(size) for size in training[WINDOWS_ENTRY]["sizes"])
    return [
        f"* **Image tokens**: trained on windows of {sizes} image tokens a side around each",
        "  prompt, where samonai decodes it; this format decodes all tokens of an image.",
    ]


def _plain(values: Mapping[str, Any]) -> str:
    plain = {k: v for k, v in values.items() if isinstance(v, int | float | str | list)}
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in plain.items()) or "not recorded"
