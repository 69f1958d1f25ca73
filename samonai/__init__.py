"""Fine-tune Segment Anything with MONAI: encode once, decode forever.

The public names are loaded when they are first used, so that ``import samonai`` costs nothing:

* `load_sam`: a named or a local SAM checkpoint as a `samonai.sam.network.SamNetwork`.
* `Predictor`: the interface of `segment_anything.SamPredictor` over such a network.
* `Prompts`: boxes, points and masks for a batch of images, as `SamNetwork.decode` takes them.
* `finetune`: train the mask decoder on a folder of images and labels; returns a `Run`.
* `cross_validate`: the same k times over one store, each part of the cases held out once.
* `Run`: a fine-tuned decoder on disk, which predicts and evaluates.
* `evaluate`: measure a `Run` beside the model before fine-tuning and the prompt itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samonai.api import Run, evaluate, finetune
    from samonai.prompts import Prompts
    from samonai.sam import load_sam
    from samonai.sam.predictor import Predictor
    from samonai.selection import cross_validate

__version__ = "0.1.0"

__all__ = [
    "Predictor",
    "Prompts",
    "Run",
    "__version__",
    "cross_validate",
    "evaluate",
    "finetune",
    "load_sam",
]

_HOMES = {
    "Predictor": "samonai.sam.predictor",
    "Prompts": "samonai.prompts",
    "Run": "samonai.api",
    "cross_validate": "samonai.selection",
    "evaluate": "samonai.api",
    "finetune": "samonai.api",
    "load_sam": "samonai.sam",
}


def __getattr__(name: str) -> object:
    """Load a public name from the module that holds it, once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'samonai' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
