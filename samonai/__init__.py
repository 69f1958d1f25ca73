"""Fine-tune Segment Anything with MONAI: encode once, decode forever.

The public names are loaded when they are first used, so that ``import samonai`` costs nothing:

* `load_sam`: a named or a local SAM checkpoint as a `samonai.sam.network.SamNetwork`.
* `Predictor`: the interface of `segment_anything.SamPredictor` over such a network.
* `Prompts`: boxes, points and masks for a batch of images, as `SamNetwork.decode` takes them.
* `finetune`: train the mask decoder on a folder of images and labels; returns a `Run`.
* `cross_validate`: the same k times over one store, each part of the cases held out once.
* `Run`: a fine-tuned decoder on disk, which predicts and evaluates.
* `Session`: a run, an ensemble or a model, open for predictions in memory and for clicks.
* `predict`: label maps of one source or a folder, written on their own grids.
* `embed`: fill the embedding store without training.
* `evaluate`: measure a `Run` beside the model before fine-tuning and the prompt itself.
"""

from typing import TYPE_CHECKING

from samonai.core.lazy_names import lazy_names
from samonai.version import __version__

if TYPE_CHECKING:
    from samonai.prompts.types import Prompts
    from samonai.sam import load_sam
    from samonai.sam.predictor import Predictor
    from samonai.selection import cross_validate
    from samonai.workflows.run import Run, evaluate, predict
    from samonai.workflows.session import Session
    from samonai.workflows.train import embed, finetune

__all__ = [
    "Predictor",
    "Prompts",
    "Run",
    "Session",
    "__version__",
    "cross_validate",
    "embed",
    "evaluate",
    "finetune",
    "load_sam",
    "predict",
]

_HOMES = {
    "Predictor": "sam.predictor",
    "Prompts": "prompts.types",
    "Run": "workflows.run",
    "Session": "workflows.session",
    "cross_validate": "selection",
    "embed": "workflows.train",
    "evaluate": "workflows.run",
    "finetune": "workflows.train",
    "load_sam": "sam",
    "predict": "workflows.run",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
