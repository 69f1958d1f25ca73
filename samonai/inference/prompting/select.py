"""Choice of a run's prompts: from a file, from a label, or none.

Without prompts its semantic head predicts, or a grid of points (`ObjectFinding`).

A decoder's file records the trained heads. Use of another one is an error here, before
any source is read or encoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.settings import renamed_parameters
from samonai.domains.base import Case, Domain, SourceT
from samonai.domains.capabilities import CLASSES, capabilities
from samonai.inference.automatic.instances import GRID, ObjectFinding
from samonai.inference.inferer import Automatic
from samonai.inference.prompting.compatibility import BOXES, CLICKS, PromptCompatibility
from samonai.inference.prompting.decoder_checks import (
    check_automatic,
    check_prompted,
    class_by_name,
    decoder_classes,
)
from samonai.inference.prompting.from_file import CoarseLabel, FilePrompts
from samonai.inference.prompting.from_labels import CLICKED, LabelPrompts
from samonai.prompts.values import PromptValues
from samonai.sam.decoder_metadata import read_decoder_metadata
from samonai.settings.choices import SIMULATED_PROMPTS

NO_PROMPTS = "none"
"""The regime of an evaluation of the semantic head."""

_ASKED_BY = {
    "box": (BOXES,),
    "points": (CLICKS,),
    "box_and_points": (BOXES, CLICKS),
    "proposed": (BOXES,),
    "box_and_proposed": (BOXES,),
    GRID: (CLICKS,),
}

_NO_BASELINES = (
    "none: without prompts there is no box to fill, and the model before fine-tuning has no "
    "semantic head"
)


@dataclass(frozen=True)
class NoPrompts:
    """Prediction without prompts for every case: by the semantic head, or a grid of points.

    Attributes:
        classes: Label values that are kept; None keeps all.
        finding: Way of finding single objects; None: the class map only.
    """

    classes: tuple[int, ...] | None = None
    finding: ObjectFinding | None = None

    def __call__(self, domain: Domain[SourceT], case: Case, source: SourceT) -> Automatic:
        """Return the request for a case, the same for all."""
        finding = self.finding or ObjectFinding()
        if finding.automatic == CLASSES and capabilities(domain).object_maps is None:
            return Automatic(self.classes)
        return Automatic(self.classes, finding)

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values, with their meaning for the baselines."""
        finding = self.finding or ObjectFinding()
        return {"regime": NO_PROMPTS, **finding.settings(), "baselines": _NO_BASELINES}


@renamed_parameters(
    margin="coarse_label.margin",
    specks="coarse_label.min_area",
    components="coarse_label.components",
)
def prediction_prompts(
    boxes: Path | PromptValues | str | None,
    prompt: str | None,
    decoder: Path | str | None,
    *,
    members: Sequence[Path | str] | None = None,
    several: bool = False,
    coarse_label: CoarseLabel | None = None,
    finding: ObjectFinding | None = None,
) -> FilePrompts | NoPrompts:
    """Return the source of each case's prompts in prediction.

    Args:
        boxes: File or folder of prompts, see `FilePrompts`; None uses the semantic head, or a
            grid of points.
        prompt: Name of the class of the semantic head; None: all classes.
        decoder: The decoder's file; None: the stock model.
        members: The further decoders of an ensemble.
        several: Whether there are several cases.
        coarse_label: See `FilePrompts`.
        finding: Way of finding objects without prompts; None: the class map only.

    Raises:
        InputError: Both boxes and a class are given, the class is unknown, or the decoder was
            not trained for the prompts.
    """
    decoders = [] if decoder is None else [decoder, *(members or ())]
    classes = {int(value): name for value, name in decoder_classes(decoders).items()}
    if boxes is not None:
        if prompt is not None:
            raise InputError(
                f"prompt {prompt!r} is a class of the semantic head, and boxes are for the "
                f"promptable one; give one of them"
            )
        _check_not_finding(finding)
        check_prompted(decoders)
        return FilePrompts(
            boxes,
            classes,
            several=several,
            coarse_label=coarse_label,
            compatibility=PromptCompatibility(decoders),
        )
    found = _found_without_prompts(finding, decoders, prompt=prompt)
    if prompt is None:
        return NoPrompts(finding=found)
    if found is not None and found.automatic == GRID:
        raise InputError(f"prompt {prompt!r}: a grid of points has no classes; leave one out")
    return NoPrompts((class_by_name(prompt, classes),), found)


@renamed_parameters(regime="prompts")
def evaluation_prompts(
    prompts: str,
    decoder: Path | str | None = None,
    members: Sequence[Path | str] | None = None,
    finding: ObjectFinding | None = None,
    **settings: Any,
) -> LabelPrompts | NoPrompts:
    """Return the source of each labelled case's prompts in evaluation.

    Args:
        prompts: A regime of `prompts_from_label`, or "none".
        decoder: The decoder's file; None if it does not exist yet.
        members: The further decoders of an ensemble.
        finding: Way of finding objects without prompts; None: the class map only.
        **settings: See `LabelPrompts`.

    Raises:
        InputError: The regime is unknown, or the decoder was not trained for it.
    """
    if prompts not in (*SIMULATED_PROMPTS, NO_PROMPTS):
        known = ", ".join((*SIMULATED_PROMPTS, NO_PROMPTS))
        raise InputError(f"prompts {prompts!r} are not known; use one of {known}")
    decoders = [] if decoder is None else [decoder, *(members or ())]
    if prompts == NO_PROMPTS:
        return NoPrompts(finding=_found_without_prompts(finding, decoders, known=bool(decoders)))
    _check_not_finding(finding)
    check_prompted(decoders)
    PromptCompatibility(decoders).check_kind(CLICKS if prompts in CLICKED else BOXES)
    return LabelPrompts(prompts, **settings)


def suitable_finding(
    automatic: str | None,
    domain: Domain[Any],
    boxes: Path | PromptValues | str | None,
    decoder: Path | str | None,
    members: Sequence[Path | str] | None = None,
) -> str:
    """Return the way of finding objects: the given one, or the domain's default.

    Args:
        automatic: The given value, which takes precedence.
        domain: Has a default, see `capabilities`.
        boxes: Prompts, with which no objects are searched.
        decoder: The decoder's file; ways that prompt need one with both heads trained.
        members: The further decoders of an ensemble.
    """
    if automatic is not None:
        return automatic
    decoders = [] if decoder is None else [decoder, *(members or ())]
    heads = [set(read_decoder_metadata(path).heads) for path in decoders]
    both = bool(heads) and all({"promptable", "semantic"} <= known for known in heads)
    wanted = capabilities(domain).default_automatic
    return wanted if both and boxes is None else CLASSES


def _found_without_prompts(
    finding: ObjectFinding | None,
    decoders: Sequence[Path | str],
    *,
    known: bool = True,
    prompt: str | None = None,
) -> ObjectFinding | None:
    """Check that decoders support segmentation without prompts; return the way."""
    if finding is None or finding.automatic == CLASSES:
        if known:
            check_automatic(decoders, prompt)
        return finding
    check_prompted(decoders)
    compatibility = PromptCompatibility(decoders)
    for kind in _ASKED_BY[finding.automatic]:
        compatibility.check_kind(kind)
    if finding.automatic != GRID:
        if known:
            check_automatic(decoders)
        return finding
    values = [int(value) for value in decoder_classes(decoders)]
    # With one class all objects are of it; otherwise a grid's objects have no class.
    return replace(
        finding, grid_class=values[0] if len(values) == 1 else max(values, default=0) + 1
    )


def _check_not_finding(finding: ObjectFinding | None) -> None:
    if finding is not None and finding.automatic != CLASSES:
        raise InputError(
            f"automatic={finding.automatic} finds objects without prompts; leave out one of them"
        )
