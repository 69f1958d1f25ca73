"""Training of the decoder on stored embeddings: the components that bundles configure."""

from samonai.training.best_decoder import DECODER_FILE, export_best
from samonai.training.data.frame_dataset import FrameDataset, frame_loader, prepare_batch
from samonai.training.data.mixing import EmbeddingMix
from samonai.training.data.prepare import TrainingData, prepare_training
from samonai.training.decoder_inferer import DecoderInferer
from samonai.training.handlers import (
    EarlyStop,
    EpochSeed,
    GradientClip,
    RunCheckpoint,
    StopOnNan,
    TrainingProgress,
)
from samonai.training.initial_decoder import initial_facts, with_initial_decoder
from samonai.training.interactive import interactive_update
from samonai.training.objectives.heads import HeadsLoss, HeadTargets, heads_loss, with_heads
from samonai.training.objectives.losses import MaskLoss, MaskTargets
from samonai.training.objectives.semantic_loss import ClassTargets, SemanticLoss
from samonai.training.parameters import ShowParameters
from samonai.training.validation import CaseDice, HeadsDice, SemanticDice, dice_by_head

__all__ = [
    "DECODER_FILE",
    "CaseDice",
    "ClassTargets",
    "DecoderInferer",
    "EarlyStop",
    "EmbeddingMix",
    "EpochSeed",
    "FrameDataset",
    "GradientClip",
    "HeadTargets",
    "HeadsDice",
    "HeadsLoss",
    "MaskLoss",
    "MaskTargets",
    "RunCheckpoint",
    "SemanticDice",
    "SemanticLoss",
    "ShowParameters",
    "StopOnNan",
    "TrainingData",
    "TrainingProgress",
    "dice_by_head",
    "export_best",
    "frame_loader",
    "heads_loss",
    "initial_facts",
    "interactive_update",
    "prepare_batch",
    "prepare_training",
    "with_heads",
    "with_initial_decoder",
]
