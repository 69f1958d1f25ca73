"""From embeddings and prompts to label maps on the source's grid."""

from samonai.inference.asked import (
    NoPrompts,
    asked_prompts,
    class_by_name,
    evaluation_prompts,
    suitable_finding,
)
from samonai.inference.calibration import CalibrationMetrics
from samonai.inference.cases import CaseDataset, case_loader, prepare_case
from samonai.inference.certainty import Certainty, CertaintyWriter
from samonai.inference.clicking import ClickMetrics, ClickSimulation, parse_counts
from samonai.inference.ensemble import (
    check_members,
    ensemble_decoders,
    load_members,
)
from samonai.inference.from_file import FilePrompts
from samonai.inference.from_labels import LabelPrompts, prompts_from_label
from samonai.inference.handlers import (
    CaseMetrics,
    CaseProgress,
    DecoderCheckpointLoader,
    LabelWriter,
)
from samonai.inference.inferer import FramePrompts, SourceInferer
from samonai.inference.instances import ObjectFinding
from samonai.inference.interpolate import interpolate_boxes
from samonai.inference.measures import DetectionMeasure, ObjectMeasure, VolumeMeasure
from samonai.inference.propagate import Propagation, Propagator
from samonai.inference.trained import (
    evaluation_cases,
    evaluation_facts,
    input_cases,
    label_facts,
    trained_classes,
    trained_domain,
    trained_network,
    trained_propagation,
)
from samonai.inference.volume import SPREADS, VolumeInferer, cleaning

__all__ = [
    "SPREADS",
    "CalibrationMetrics",
    "CaseDataset",
    "CaseMetrics",
    "CaseProgress",
    "Certainty",
    "CertaintyWriter",
    "ClickMetrics",
    "ClickSimulation",
    "DecoderCheckpointLoader",
    "DetectionMeasure",
    "FilePrompts",
    "FramePrompts",
    "LabelPrompts",
    "LabelWriter",
    "NoPrompts",
    "ObjectFinding",
    "ObjectMeasure",
    "Propagation",
    "Propagator",
    "SourceInferer",
    "VolumeInferer",
    "VolumeMeasure",
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
    "parse_counts",
    "prepare_case",
    "prompts_from_label",
    "suitable_finding",
    "trained_classes",
    "trained_domain",
    "trained_network",
    "trained_propagation",
]
