"""Settings of prediction and evaluation: prompts, finding objects, volumes, outputs, measures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samonai.core.settings import Affects, setting
from samonai.settings.choices import (
    AUTOMATIC,
    COMPONENTS,
    PROPAGATE_PROMPTS,
    SIMULATED_PROMPTS,
    SPREADS,
)

_RESULTS, _NOTHING = Affects.RESULTS, Affects.NOTHING


@dataclass(frozen=True)
class PromptFileSettings:
    """Prompts of prediction."""

    boxes: Path | None = setting(
        None, "File or folder of prompts; null: none are given.", _RESULTS, option="--boxes"
    )
    prompt: str | None = setting(
        None, "Class of the semantic head; of pages also words or a question.", _RESULTS,
        option="--prompt",
    )  # fmt: skip
    series: str | None = setting(
        None, "SeriesInstanceUID, where the input holds several series.", _RESULTS,
        option="--series",
    )  # fmt: skip


@dataclass(frozen=True)
class CoarseLabelSettings:
    """Prompts from a coarse label."""

    margin: float = setting(
        0.0, "Boxes around a coarse label grow by so much on each side.", _RESULTS, unit="pixels",
        low=0,
    )  # fmt: skip
    min_area: int = setting(
        1, "Components of a coarse label of fewer pixels are dropped.", _RESULTS, unit="pixels",
        low=1, defaults={"medical": 10},
    )  # fmt: skip
    components: str = setting(
        "each", "Component policy of a coarse label, see components.", _RESULTS, choices=COMPONENTS
    )


@dataclass(frozen=True)
class FindingSettings:
    """Objects without prompts."""

    automatic: str | None = setting(
        "classes", "classes: the semantic head's borders; box, points, box_and_points: it prompts "
        "the promptable head; proposed, box_and_proposed: the domain does; grid: points all over "
        "a frame.", _RESULTS, choices=AUTOMATIC, defaults={"documents": None},
    )  # fmt: skip
    points_per_side: int = setting(
        32, "Points along a frame's longer side.", _RESULTS, unit="points", low=1
    )
    min_score: float | None = setting(
        None, "Objects with a lower score are dropped; null: 0, and 0.88 for a grid.", _RESULTS,
        low=0, high=1,
    )  # fmt: skip


@dataclass(frozen=True)
class DecodingSettings:
    """Decoding of frames and volumes."""

    tta: int = setting(
        1, "Test-time augmentation: mirrored and transposed versions that are averaged.", _RESULTS,
        choices=(1, 2, 4, 8),
    )  # fmt: skip
    spread: str | None = setting(
        "none", "How prompts on some slices reach the others.", _RESULTS, choices=SPREADS
    )
    planes: int = setting(
        1, "3: decode in all three planes and average.", _RESULTS, choices=(1, 3),
        option="--planes",
    )  # fmt: skip


@dataclass(frozen=True)
class CleaningSettings:
    """Cleaning of predicted structures in 3D."""

    keep_largest: bool = setting(
        False, "Keep the largest connected component of each structure.", _RESULTS
    )
    min_size: int = setting(0, "Remove components of fewer voxels.", _RESULTS, unit="voxels", low=0)
    fill_holes: bool = setting(False, "Fill what a structure encloses.", _RESULTS)


@dataclass(frozen=True)
class PropagationSettings:
    """Propagation of masks to neighbouring frames."""

    prompt: str = setting(
        "auto", "What the mask of a frame gives the next; auto: as the decoder was trained.",
        _RESULTS, choices=("auto", *PROPAGATE_PROMPTS),
    )  # fmt: skip
    margin: float | None = setting(
        None, "The box grows by this share on each side; null: as the decoder was trained.",
        _RESULTS, unit="of the box", low=-0.5, above=True,
    )  # fmt: skip
    area: float = setting(
        3.0, "Largest change of area from one frame to the next.", _RESULTS, unit="times", low=1
    )
    growth: float = setting(
        1.5, "Largest area, of that on the prompted frame.", _RESULTS, unit="times", low=1
    )
    iou: float | None = setting(
        None, "Least estimate of the mask's IoU; null: as the decoder was trained.", _RESULTS,
        low=0, high=1,
    )  # fmt: skip
    similarity: float = setting(
        0.8, "Least cosine between an object's embeddings on two frames.", _RESULTS, low=-1, high=1
    )
    frames: int | None = setting(
        None, "Most frames on each side; null: all.", _RESULTS, unit="frames", low=0
    )


@dataclass(frozen=True)
class OutputSettings:
    """Written files."""

    uncertainty: bool = setting(
        False, "Write a map of uncertainty beside each label map.", _RESULTS, option="--uncertainty"
    )
    ending: str = setting(
        "", "File ending of label maps; empty: the input's format.", _RESULTS, option="--ending"
    )
    formats: Sequence[str] = setting(
        (), "Formats by name, instead of an ending.", _RESULTS, option="--format"
    )
    measure: bool = setting(
        False, "Write measurements of each prediction.", _RESULTS, option="--measure"
    )


@dataclass(frozen=True)
class EvaluationSettings:
    """Evaluation."""

    cases: str | Sequence[str] | None = setting(
        None, "Names of cases, or all; null: those that the run held out.", _RESULTS,
        option="--cases",
    )  # fmt: skip
    prompts: str = setting(
        "slices", "Simulated prompts of the evaluation.", _RESULTS,
        choices=(*SIMULATED_PROMPTS, "none"), option="--prompts",
    )  # fmt: skip
    box_jitter: float = setting(
        0.05, "Each side of a box moves by up to this share of the box.", _RESULTS,
        unit="of the box", low=0, high=0.5, below=True, option="--box-jitter",
    )  # fmt: skip
    min_area: int = setting(
        1, "Objects of fewer pixels get no prompt.", _RESULTS, unit="pixels", low=1
    )
    clicks: str = setting("1,3,5,9", "Numbers of clicks after which masks are measured.", _RESULTS)
    surface_tolerance_mm: float = setting(
        1.0, "Tolerance of the surface Dice.", _RESULTS, unit="mm", low=0
    )
    boundary_tolerance: float = setting(
        1.0, "Tolerance of the boundary F-score: metres, and pixels of pages and of rasters "
        "without a CRS.", _RESULTS, low=0,
        defaults={"documents": 3.0},
    )  # fmt: skip
    zero_shot: bool = setting(True, "Measure the model before fine-tuning too.", _RESULTS)
    report: bool = setting(
        True, "Write a report with overlays.", _NOTHING, option="--report or --no-report"
    )
