"""Training the decoder on stored embeddings: what the bundles' configurations name."""

from samonai.training.data import FrameDataset, frame_loader, prepare_batch
from samonai.training.export import DECODER_FILE, export_best
from samonai.training.handlers import (
    EarlyStop,
    EpochSeed,
    GradientClip,
    RunCheckpoint,
    StopOnNan,
    TrainingProgress,
)
from samonai.training.inferer import DecoderInferer
from samonai.training.interactive import interactive_update
from samonai.training.losses import MaskLoss, MaskTargets
from samonai.training.mixing import EmbeddingMix
from samonai.training.prepare import TrainingData, prepare_training
from samonai.training.validation import CaseDice

__all__ = [
    "DECODER_FILE",
    "CaseDice",
    "DecoderInferer",
    "EarlyStop",
    "EmbeddingMix",
    "EpochSeed",
    "FrameDataset",
    "GradientClip",
    "MaskLoss",
    "MaskTargets",
    "RunCheckpoint",
    "StopOnNan",
    "TrainingData",
    "TrainingProgress",
    "export_best",
    "frame_loader",
    "interactive_update",
    "prepare_batch",
    "prepare_training",
]
