"""Assembly of inference from settings: one inferer and one source of prompts for all callers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samonai.domains.base import Domain
from samonai.inference.automatic.instances import ObjectFinding
from samonai.inference.checkpoint_context import trained_propagation
from samonai.inference.frame_outputs import FrameObserver
from samonai.inference.prompting.from_file import FilePrompts
from samonai.inference.prompting.select import NoPrompts, prediction_prompts, suitable_finding
from samonai.inference.volumes.inferer import SPREADS, VolumeInferer, cleaning
from samonai.prompts.values import PromptValues
from samonai.sam.network import SamNetwork

if TYPE_CHECKING:
    from samonai.embeddings.embedder import AnyStore


def source_inferer(
    domain: Domain[Any],
    decoder: Path | str | None = None,
    *,
    members: Sequence[SamNetwork] | None = None,
    store: "AnyStore | Path | str | None" = None,
    observers: Sequence[FrameObserver | None] = (),
    regime: str | None = None,
    precision: str = "auto",
    tta: int = 1,
    spread: str | None = "none",
    planes: int = 1,
    keep_largest: bool = False,
    min_size: int = 0,
    fill_holes: bool = False,
    propagate_prompt: str = "auto",
    propagate_margin: float | None = None,
    propagate_area: float = 3.0,
    propagate_growth: float = 1.5,
    propagate_iou: float | None = None,
    propagate_similarity: float = 0.8,
    propagate_frames: int | None = None,
) -> VolumeInferer:
    """Build the inferer from settings, by their names in configurations.

    Args:
        domain: Cuts frames and merges them.
        decoder: The decoder's file, which records its training prompts; None: the
            model before fine-tuning.
        members: The further networks of an ensemble.
        store: See `SourceInferer`, like the next three.
        observers: As there.
        regime: Regime of an evaluation's prompts, which determines their spread if `spread` is
            None; see `SPREADS`.
        precision: As there.
        tta: As there.
        spread: See `VolumeInferer`, like `planes`; None: by the regime.
        planes: As there.
        keep_largest: See `cleaning`, like the next two.
        min_size: As there.
        fill_holes: As there.
        propagate_prompt: See `trained_propagation` and `Propagation`, like the rest.
        propagate_margin: As there.
        propagate_area: As there.
        propagate_growth: As there.
        propagate_iou: As there.
        propagate_similarity: As there.
        propagate_frames: As there.

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
        spread=spread or SPREADS.get(regime or "", "none"),
        propagation=trained_propagation(
            decoder,
            propagate_prompt,
            propagate_margin,
            propagate_iou,
            area=propagate_area,
            growth=propagate_growth,
            similarity=propagate_similarity,
            frames=propagate_frames,
        ),
        planes=planes,
        clean=cleaning(keep_largest, min_size, fill_holes),
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
    own = {
        key: settings[name]
        for key, name in (
            ("margin", "label_margin"),
            ("specks", "label_min_area"),
            ("components", "label_components"),
        )
        if name in settings
    }
    finding = ObjectFinding(
        automatic, **{k: settings[k] for k in ("points_per_side", "min_score") if k in settings}
    )
    return prediction_prompts(
        boxes, prompt, decoder, members=members, several=several, finding=finding, **own
    )
