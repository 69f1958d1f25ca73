"""Settings of pages: PDFs, pieces, classes, words, questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from samonai.core.settings import Affects, setting

_RESULTS, _WEIGHTS, _PIXELS = Affects.RESULTS, Affects.WEIGHTS, Affects.PIXELS


@dataclass(frozen=True)
class DocumentsSettings:
    """Pages of documents."""

    dpi: float = setting(
        150.0, "Resolution that PDFs are drawn at.", _WEIGHTS, unit="pixels per inch", low=20,
        high=1200,
    )  # fmt: skip
    longest: float = setting(
        2.0, "Pages of a larger ratio of sides are cut into pieces.", _PIXELS, low=1.5
    )
    overlap: float = setting(
        0.25, "What neighbouring pieces share, of a piece.", _WEIGHTS, low=0, high=0.5
    )
    classes: str | Sequence[str] | None = setting(
        None, "Names of the classes 1, 2, …: text,title,table; null: as the labels name them.",
        _WEIGHTS,
    )  # fmt: skip
    rename: str | Mapping[str, str] | None = setting(
        None, "Class of label files to class here: MainZone:text,noise: drops noise.", _WEIGHTS
    )
    pages: str | int | None = setting(None, "Pages of files: 1-3,7; null: all.", _WEIGHTS)
    missing_images: str = setting(
        "refuse", "COCO files that list images that are not there.", _WEIGHTS,
        choices=("refuse", "skip"),
    )  # fmt: skip
    label_orientation: str = setting(
        "auto", "Pixels that labels of a photograph with an EXIF orientation are of; auto: their "
        "size tells.", _WEIGHTS, choices=("auto", "upright", "stored"),
    )  # fmt: skip
    ocr: str = setting(
        "query", "When words are read off pages without a text layer.", _WEIGHTS,
        choices=("query", "always", "never"),
    )  # fmt: skip
    retrieval: str = setting(
        "bm25", "What ranks regions for a question: bm25, or a sentence-transformers folder.",
        _RESULTS,
    )  # fmt: skip
