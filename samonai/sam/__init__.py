"""Segment Anything: named checkpoints, a lean encoder, a batched decoder, a predictor."""

import importlib
from typing import TYPE_CHECKING, Any

from samonai.core.lazy_package import import_lazily

if TYPE_CHECKING:
    from samonai.sam.full_state import save_sam
    from samonai.sam.loading import load_sam
    from samonai.sam.network import DecodeOutput, HeadsOutput, SamNetwork
    from samonai.sam.normalisation import Normalisation
    from samonai.sam.predictor import Predictor

__all__ = [
    "DecodeOutput",
    "HeadsOutput",
    "Normalisation",
    "Predictor",
    "SamNetwork",
    "load_sam",
    "save_sam",
]

# The model's modules need neither segment-anything's predictor nor torchvision.
import_lazily("segment_anything")

# torch and segment-anything take seconds to import: only when a name is used.
_HOMES = {
    "DecodeOutput": "network",
    "HeadsOutput": "network",
    "Normalisation": "normalisation",
    "Predictor": "predictor",
    "SamNetwork": "network",
    "load_sam": "loading",
    "save_sam": "full_state",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
