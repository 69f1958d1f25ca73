"""From embeddings and prompts to label maps on the source's grid."""

from samonai.inference.automatic.instances import ObjectFinding
from samonai.inference.cases import CaseDataset, case_loader, prepare_case
from samonai.inference.checkpoint_context import (
    evaluation_cases,
    evaluation_facts,
    input_cases,
    label_facts,
    trained_classes,
    trained_domain,
    trained_network,
    trained_propagation,
)
from samonai.inference.ensemble import (
    check_members,
    ensemble_decoders,
    load_members,
)
from samonai.inference.handlers import (
    CaseProgress,
    DecoderCheckpointLoader,
    LabelWriter,
)
from samonai.inference.inferer import FramePrompts, SourceInferer
from samonai.inference.prompting.from_file import FilePrompts
from samonai.inference.prompting.from_labels import LabelPrompts, prompts_from_label
from samonai.inference.prompting.interpolate import interpolate_boxes
from samonai.inference.prompting.select import (
    NoPrompts,
    asked_prompts,
    class_by_name,
    evaluation_prompts,
    suitable_finding,
)
from samonai.inference.uncertainty import Certainty, CertaintyWriter
from samonai.inference.volumes.inferer import SPREADS, VolumeInferer, cleaning
from samonai.inference.volumes.propagate import Propagation, Propagator

__all__ = [
    "SPREADS",
    "CaseDataset",
    "CaseProgress",
    "Certainty",
    "CertaintyWriter",
    "DecoderCheckpointLoader",
    "FilePrompts",
    "FramePrompts",
    "LabelPrompts",
    "LabelWriter",
    "NoPrompts",
    "ObjectFinding",
    "Propagation",
    "Propagator",
    "SourceInferer",
    "VolumeInferer",
    "asked_prompts",
    "case_loader",
    "check_members",
    "class_by_name",
    "cleaning",
    "ensemble_decoders",
    "evaluation_cases",
    "evaluation_facts",
    "evaluation_prompts",
    "input_cases",
    "interpolate_boxes",
    "label_facts",
    "load_members",
    "prepare_case",
    "prompts_from_label",
    "suitable_finding",
    "trained_classes",
    "trained_domain",
    "trained_network",
    "trained_propagation",
]
