"""Assembly of inference from settings: one inferer and one source of prompts for all callers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samonai.domains.base import Domain, SourceT
from samonai.inference.automatic.instances import ObjectFinding
from samonai.inference.frame_outputs import FrameObserver
from samonai.inference.prompting.from_file import CoarseLabel, FilePrompts
from samonai.inference.prompting.select import NoPrompts, prediction_prompts, suitable_finding
from samonai.inference.volumes.inferer import SPREAD_OF_PROMPTS, Clean, VolumeInferer
from samonai.inference.volumes.propagate import Propagation
from samonai.prompts.values import PromptValues
from samonai.sam.network import SamNetwork
from samonai.settings import block

if TYPE_CHECKING:
    from samonai.embeddings.embedder import AnyStore


def source_inferer(
    domain: Domain[SourceT],
    *,
    members: Sequence[SamNetwork] | None = None,
    store: "AnyStore | Path | str | None" = None,
    observers: Sequence[FrameObserver | None] = (),
    prompts: str | None = None,
    precision: str = "auto",
    tta: int = 1,
    spread: str | None = "none",
    planes: int = 1,
    propagation: Propagation | None = None,
    cleaning: Clean | None = None,
) -> VolumeInferer[SourceT]:
    """Build the inferer from settings, by their names in configurations.

    Args:
        domain: Cuts frames and merges them.
        members: The further networks of an ensemble.
        store: See `SourceInferer`, like the next three.
        observers: As there.
        prompts: Regime of an evaluation's prompts, which determines their spread if `spread` is
            None; see `SPREAD_OF_PROMPTS`.
        precision: As there.
        tta: As there.
        spread: See `VolumeInferer`, like the rest; None: by the regime.
        planes: As there.
        propagation: As there.
        cleaning: As `clean` there.

    Raises:
        InputError: A setting is invalid.
    """
    return VolumeInferer(
        domain,
        store,
        precision,
        members=members,
        observers=observers,
        tta=tta,
        spread=spread or SPREAD_OF_PROMPTS.get(prompts or "", "none"),
        propagation=propagation,
        planes=planes,
        clean=cleaning,
    )


def prompt_source(
    domain: Domain[Any],
    boxes: Path | PromptValues | str | None,
    prompt: str | None,
    decoders: Sequence[Path],
    settings: Mapping[str, Any],
    *,
    several: bool,
) -> FilePrompts | NoPrompts:
    """Return the source of each case's prompts, by the settings of prediction.

    Args:
        domain: May have a default way of finding objects without prompts.
        boxes: See `prediction_prompts`, like the prompt.
        prompt: As there.
        decoders: The decoders' files; none: the model before fine-tuning.
        settings: Key to value, those of `inference.json`.
        several: Whether there are several cases.

    Raises:
        InputError: See `prediction_prompts`.
    """
    decoder, members = (decoders[0], decoders[1:]) if decoders else (None, [])
    automatic = suitable_finding(settings.get("automatic"), domain, boxes, decoder, members)
    coarse_label = CoarseLabel(**block(settings, "coarse_label"))
    finding = ObjectFinding(
        automatic, **{k: settings[k] for k in ("points_per_side", "min_score") if k in settings}
    )
    return prediction_prompts(
        boxes,
        prompt,
        decoder,
        members=members,
        several=several,
        finding=finding,
        coarse_label=coarse_label,
    )
