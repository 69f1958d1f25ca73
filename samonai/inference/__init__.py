"""Inference: from embeddings and prompts to label maps on the source's grid."""

from typing import TYPE_CHECKING

from samonai.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from samonai.inference.assembly import (
        prompt_source,
        source_inferer,
    )
    from samonai.inference.automatic.instances import (
        ObjectFinding,
    )
    from samonai.inference.case_dataset import (
        CaseDataset,
        case_loader,
        prepare_case,
    )
    from samonai.inference.checkpoint_context import (
        evaluation_cases,
        evaluation_facts,
        existing_decoder,
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
        CertaintyWriter,
        DecoderCheckpointLoader,
        LabelWriter,
    )
    from samonai.inference.inferer import (
        FramePrompts,
        SourceInferer,
    )
    from samonai.inference.prediction import (
        Prediction,
    )
    from samonai.inference.prompting.decoder_checks import (
        class_by_name,
    )
    from samonai.inference.prompting.from_file import (
        CoarseLabel,
        FilePrompts,
    )
    from samonai.inference.prompting.from_labels import (
        LabelPrompts,
        prompts_from_label,
    )
    from samonai.inference.prompting.interpolate import (
        interpolate_boxes,
    )
    from samonai.inference.prompting.select import (
        NoPrompts,
        evaluation_prompts,
        prediction_prompts,
        suitable_finding,
    )
    from samonai.inference.uncertainty import (
        Certainty,
    )
    from samonai.inference.volumes.inferer import (
        SPREAD_OF_PROMPTS,
        VolumeInferer,
        cleaning,
    )
    from samonai.inference.volumes.propagate import (
        Propagation,
        Propagator,
    )
    from samonai.inference.writing import (
        PredictionWriter,
    )

__all__ = [
    "SPREAD_OF_PROMPTS",
    "CaseDataset",
    "CaseProgress",
    "Certainty",
    "CertaintyWriter",
    "CoarseLabel",
    "DecoderCheckpointLoader",
    "FilePrompts",
    "FramePrompts",
    "LabelPrompts",
    "LabelWriter",
    "NoPrompts",
    "ObjectFinding",
    "Prediction",
    "PredictionWriter",
    "Propagation",
    "Propagator",
    "SourceInferer",
    "VolumeInferer",
    "case_loader",
    "check_members",
    "class_by_name",
    "cleaning",
    "ensemble_decoders",
    "evaluation_cases",
    "evaluation_facts",
    "evaluation_prompts",
    "existing_decoder",
    "input_cases",
    "interpolate_boxes",
    "label_facts",
    "load_members",
    "prediction_prompts",
    "prepare_case",
    "prompt_source",
    "prompts_from_label",
    "source_inferer",
    "suitable_finding",
    "trained_classes",
    "trained_domain",
    "trained_network",
    "trained_propagation",
]

# MONAI and ignite take seconds to import: only when a name is used.
_HOMES = {
    "SPREAD_OF_PROMPTS": "volumes.inferer",
    "CaseDataset": "case_dataset",
    "CaseProgress": "handlers",
    "Certainty": "uncertainty",
    "CertaintyWriter": "handlers",
    "CoarseLabel": "prompting.from_file",
    "DecoderCheckpointLoader": "handlers",
    "FilePrompts": "prompting.from_file",
    "FramePrompts": "inferer",
    "LabelPrompts": "prompting.from_labels",
    "LabelWriter": "handlers",
    "NoPrompts": "prompting.select",
    "ObjectFinding": "automatic.instances",
    "Prediction": "prediction",
    "PredictionWriter": "writing",
    "Propagation": "volumes.propagate",
    "Propagator": "volumes.propagate",
    "SourceInferer": "inferer",
    "VolumeInferer": "volumes.inferer",
    "prediction_prompts": "prompting.select",
    "case_loader": "case_dataset",
    "check_members": "ensemble",
    "class_by_name": "prompting.decoder_checks",
    "cleaning": "volumes.inferer",
    "ensemble_decoders": "ensemble",
    "evaluation_cases": "checkpoint_context",
    "evaluation_facts": "checkpoint_context",
    "existing_decoder": "checkpoint_context",
    "evaluation_prompts": "prompting.select",
    "input_cases": "checkpoint_context",
    "interpolate_boxes": "prompting.interpolate",
    "label_facts": "checkpoint_context",
    "load_members": "ensemble",
    "prepare_case": "case_dataset",
    "prompt_source": "assembly",
    "prompts_from_label": "prompting.from_labels",
    "source_inferer": "assembly",
    "suitable_finding": "prompting.select",
    "trained_classes": "checkpoint_context",
    "trained_domain": "checkpoint_context",
    "trained_network": "checkpoint_context",
    "trained_propagation": "checkpoint_context",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
