"""What a run is asked: prompts from a file or a label, or nothing.

Without prompts its semantic head answers, or a grid of points (`ObjectFinding`).

A decoder's file says which heads were trained. Asking for another one is an error here, before
anything is read or encoded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.domains.base import Case, Domain
from samonai.domains.capabilities import capabilities
from samonai.inference.automatic.instances import CLASSES, GRID, ObjectFinding
from samonai.inference.inferer import Automatic
from samonai.inference.prompting.compatibility import BOXES, CLICKS, Familiarity
from samonai.inference.prompting.from_file import FilePrompts
from samonai.inference.prompting.from_labels import CLICKED, REGIMES, LabelPrompts
from samonai.prompts.values import PromptValues
from samonai.sam.decoder_file import read_decoder_metadata

NO_PROMPTS = "none"
"""The regime of an evaluation that measures the semantic head."""

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
    """Asks the semantic head, or a grid of points, about every case.

    Attributes:
        classes: Label values that are kept; None keeps all.
        finding: How objects are found one by one; None: as the map of classes tells them.
    """

    classes: tuple[int, ...] | None = None
    finding: ObjectFinding | None = None

    def __call__(self, domain: Domain[Any], case: Case, source: Any) -> Automatic:
        """Return what every case is asked."""
        finding = self.finding or ObjectFinding()
        if finding.automatic == CLASSES and capabilities(domain).object_maps is None:
            return Automatic(self.classes)
        return Automatic(self.classes, finding)

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values, with what they mean for the baselines."""
        finding = self.finding or ObjectFinding()
        return {"regime": NO_PROMPTS, **finding.settings(), "baselines": _NO_BASELINES}


def asked_prompts(
    boxes: Path | PromptValues | str | None,
    prompt: str | None,
    decoder: Path | str | None,
    *,
    members: Sequence[Path | str] | None = None,
    several: bool = False,
    margin: float = 0.0,
    specks: int = 1,
    components: str = "each",
    finding: ObjectFinding | None = None,
) -> FilePrompts | NoPrompts:
    """Return what gives each case its prompts when predicting.

    Args:
        boxes: File or folder of prompts, see `FilePrompts`; None asks the semantic head, or a
            grid of points.
        prompt: Name of the class that is wanted of the semantic head; None: all classes.
        decoder: The decoder's file; None: the model as it is.
        members: The further decoders of an ensemble.
        several: More than one case is asked about.
        margin: See `FilePrompts`.
        specks: See `FilePrompts`.
        components: See `FilePrompts`.
        finding: How objects are found without prompts; None: the class of each pixel is all.

    Raises:
        InputError: Both boxes and a class are given, the class is not known, or the decoder was
            not trained for what is asked.
    """
    decoders = [] if decoder is None else [decoder, *(members or ())]
    classes = {int(value): name for value, name in _classes(decoders).items()}
    if boxes is not None:
        if prompt is not None:
            raise InputError(
                f"prompt {prompt!r} asks the semantic head for a class, and boxes the promptable "
                f"one for objects; give one of them"
            )
        _check_not_finding(finding)
        _check_prompted(decoders)
        return FilePrompts(
            boxes,
            classes,
            several=several,
            margin=margin,
            specks=specks,
            components=components,
            familiar=Familiarity(decoders),
        )
    found = _found_without_prompts(finding, decoders)
    if prompt is None:
        return NoPrompts(finding=found)
    if found is not None and found.automatic == GRID:
        raise InputError(f"prompt {prompt!r}: a grid of points knows no classes; leave one out")
    return NoPrompts((class_by_name(prompt, classes),), found)


def evaluation_prompts(
    regime: str,
    decoder: Path | str | None = None,
    members: Sequence[Path | str] | None = None,
    finding: ObjectFinding | None = None,
    **settings: Any,
) -> LabelPrompts | NoPrompts:
    """Return what gives each labelled case its prompts when measuring.

    Args:
        regime: One of those of `prompts_from_label`, or "none".
        decoder: The decoder's file; None where it is not there yet.
        members: The further decoders of an ensemble.
        finding: How objects are found without prompts; None: the class of each pixel is all.
        **settings: See `LabelPrompts`.

    Raises:
        InputError: The regime is not known, or the decoder was not trained for it.
    """
    if regime not in (*REGIMES, NO_PROMPTS):
        known = ", ".join((*REGIMES, NO_PROMPTS))
        raise InputError(f"prompts {regime!r} are not known; use one of {known}")
    decoders = [] if decoder is None else [decoder, *(members or ())]
    if regime == NO_PROMPTS:
        return NoPrompts(finding=_found_without_prompts(finding, decoders, known=bool(decoders)))
    _check_not_finding(finding)
    _check_prompted(decoders)
    Familiarity(decoders).ask(CLICKS if regime in CLICKED else BOXES)
    return LabelPrompts(regime, **settings)


def suitable_finding(
    automatic: str | None,
    domain: Domain[Any],
    boxes: Path | PromptValues | str | None,
    decoder: Path | str | None,
    members: Sequence[Path | str] | None = None,
) -> str:
    """Return how objects are found where nobody said how: as suits what the domain is asked.

    Args:
        automatic: What was said, which holds; None: what suits.
        domain: Has a default, see `capabilities`.
        boxes: Prompts, beside which nothing is looked for.
        decoder: The decoder's file; ways that prompt need one whose both heads were trained.
        members: The further decoders of an ensemble.
    """
    if automatic is not None:
        return automatic
    decoders = [] if decoder is None else [decoder, *(members or ())]
    heads = [set(read_decoder_metadata(path).heads) for path in decoders]
    both = bool(heads) and all({"promptable", "semantic"} <= known for known in heads)
    wanted = capabilities(domain).default_automatic
    return wanted if both and boxes is None else CLASSES


def class_by_name(name: str, classes: Mapping[int, str]) -> int:
    """Return the label value of a class.

    Args:
        name: The class's name; capital letters do not matter unless they tell two classes apart.
        classes: Label value to name.

    Raises:
        InputError: There is no such class.
    """
    exact = [value for value, known in classes.items() if known == name]
    same = [value for value, known in classes.items() if known.casefold() == name.casefold()]
    found = exact or same
    if len(found) != 1:
        raise InputError(
            f"there is no class {name!r}; this run has {', '.join(classes.values()) or 'none'}"
        )
    return found[0]


def _found_without_prompts(
    finding: ObjectFinding | None, decoders: Sequence[Path | str], *, known: bool = True
) -> ObjectFinding | None:
    """Check that decoders can find what is asked for; return how."""
    if finding is None or finding.automatic == CLASSES:
        if known:
            _check_automatic(decoders)
        return finding
    _check_prompted(decoders)
    familiar = Familiarity(decoders)
    for kind in _ASKED_BY[finding.automatic]:
        familiar.ask(kind)
    if finding.automatic != GRID:
        if known:
            _check_automatic(decoders)
        return finding
    values = [int(value) for value in _classes(decoders)]
    # What a run on one class answers is that class; else what is found is none of its classes.
    return replace(
        finding, grid_class=values[0] if len(values) == 1 else max(values, default=0) + 1
    )


def _classes(decoders: Sequence[Path | str]) -> dict[str, str]:
    return read_decoder_metadata(decoders[0]).classes if decoders else {}


def _check_not_finding(finding: ObjectFinding | None) -> None:
    if finding is not None and finding.automatic != CLASSES:
        raise InputError(
            f"automatic={finding.automatic} finds objects where no prompts are given; leave out "
            f"one of them"
        )


def _check_automatic(decoders: Sequence[Path | str]) -> None:
    if not decoders:
        raise InputError(
            "no prompts given, and a model as it is answers nothing else; give boxes, a run "
            "trained with --heads semantic or --heads both, or automatic=grid, which asks about "
            "points all over"
        )
    for path in decoders:
        if "semantic" not in read_decoder_metadata(path).heads:
            raise InputError(
                f"{path} has no semantic head, which is what answers without prompts; give boxes, "
                f"train with --heads semantic or --heads both, or ask with automatic=grid"
            )


def _check_prompted(decoders: Sequence[Path | str]) -> None:
    for path in decoders:
        if "promptable" not in read_decoder_metadata(path).heads:
            raise InputError(
                f"{path} was trained with --heads semantic, so prompts are no longer answered; "
                f"ask without prompts, or train with --heads both"
            )
