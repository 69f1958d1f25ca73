"""Segment Anything: named checkpoints, a lean encoder, a batched decoder, a predictor."""

from typing import TYPE_CHECKING

from samonai.core.lazy_names import lazy_names
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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
