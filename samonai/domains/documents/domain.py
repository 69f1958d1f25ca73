"""Documents domain: pages and pictures read, cut if they are long, merged and written."""

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.core.frame import Frame, FrameLocation
from samonai.core.settings import check_given
from samonai.domains import pictures
from samonai.domains.annotations.cvat import is_cvat
from samonai.domains.base import Case, LabelFacts, LabelMaps, Merger
from samonai.domains.documents import dataset
from samonai.domains.documents.formats import pdf
from samonai.domains.documents.formats.label_png import write_label
from samonai.domains.documents.formats.outputs import (
    DEFAULT_FORMATS,
    FORMATS,
    label_of,
    page_result,
    result_regions,
    write_outputs,
)
from samonai.domains.documents.labels import (
    ClassTable,
    check_classes,
    is_coco,
    label_page,
    names_in,
    parse_names,
    parse_renames,
)
from samonai.domains.documents.layout.merger import PageMerger
from samonai.domains.documents.layout.pieces import page_pieces
from samonai.domains.documents.layout.prediction import PagePrediction, from_label
from samonai.domains.documents.layout.proposals import proposed_boxes
from samonai.domains.documents.page import Page, PageLabel
from samonai.domains.documents.prompts import PROMPT_ENDINGS, prompt_classes, read_prompts
from samonai.domains.documents.text.ocr import read_words
from samonai.domains.documents.text.query import parse_query
from samonai.domains.documents.text.query_result import QueryResult
from samonai.domains.documents.text.retrieval import BM25, retriever
from samonai.domains.tiling.tiles import TileGrid
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.values import PromptFile
from samonai.settings import settings_below_pixels
from samonai.settings.documents import DocumentsSettings
from samonai.settings.inference import PromptFileSettings

logger = logging.getLogger(__name__)


class DocumentsDomain:
    """Pages and pictures. Settings are JSON values, so that checkpoints carry them.

    Args:
        dpi: Pixels per inch that PDFs are drawn at.
        longest: Pages whose sides have a larger ratio than this are cut into
            pieces that overlap.
        overlap: Overlap of neighbouring pieces, as a part of a piece.
        classes: Names of the classes 1, 2, …: "text,title,table"; None: those of the training
            labels. Regions of other names are background.
        rename: Class of the label files to class of this domain:
            "MainZone:text,paragraph:text"; an empty one ("noise:") drops it.
        pages: Pages of files with several: "1-3,7"; None: all.
        missing_images: "refuse" a COCO file with images that do not exist, or "skip" them.
        label_orientation: Pixels that labels of a photograph with an EXIF orientation refer to:
            "upright", "stored", or "auto": by their size, and where that is ambiguous, upright
            ones.
        ocr: When pages are read by OCR (RapidOCR): for a "query" that needs words of pages whose
            text layer is missing, covers little of their letters or is no text; "always"; or
            "never".
        prompt: Query of predictions, see `query`; None: all regions. It does not affect
            pixels and is not part of `settings`.
        retrieval: Ranking of regions for a question in `prompt`: "bm25", or the folder of a
            sentence-transformers model; not part of `settings` either.
    """

    name = "documents"
    prompt_endings: tuple[str, ...] = PROMPT_ENDINGS
    formats = FORMATS
    unmeasured = "the JSON says box, score and text of every region; leave out --measure"
    # At any resolution of a PDF, the model sees the page in its own pixels.
    non_pixel_settings = settings_below_pixels(DocumentsSettings)

    def __init__(
        self,
        dpi: float = 150.0,
        longest: float = 2.0,
        overlap: float = 0.25,
        classes: str | Sequence[str] | None = None,
        rename: str | Mapping[str, str] | None = None,
        pages: str | int | None = None,
        missing_images: str = "refuse",
        label_orientation: str = "auto",
        ocr: str = "query",
        prompt: str | None = None,
        retrieval: str = BM25,
    ) -> None:
        check_given(DocumentsSettings, locals())
        check_given(PromptFileSettings, {"prompt": prompt})
        self.dpi, self.longest, self.overlap = float(dpi), float(longest), float(overlap)
        self.classes = parse_names(classes)
        self.rename = parse_renames(rename)
        self.pages = None if pages in (None, "") else str(pages)
        self.choice = dataset.PageChoice.parse(pages)
        self.missing_images = missing_images
        self.label_orientation = label_orientation
        self.ocr, self.query = ocr, prompt or None
        if self.query is not None:
            parse_query(self.query)
        self._retrieve = retriever(str(retrieval))

    def settings(self) -> dict[str, Any]:
        """Return the arguments that rebuild this domain, as JSON values."""
        return {
            "dpi": self.dpi,
            "longest": self.longest,
            "overlap": self.overlap,
            "classes": None if self.classes is None else list(self.classes),
            "rename": dict(self.rename),
            "pages": self.pages,
            "missing_images": self.missing_images,
            "label_orientation": self.label_orientation,
            "ocr": self.ocr,
        }

    def find_cases(self, images: Path | str, labels: Path | str | None = None) -> list[Case]:
        """List the pages of a data set; see `dataset.find_cases`."""
        skip = self.missing_images == "skip"
        return dataset.find_cases(images, labels, self.choice, skip_missing=skip)

    def class_names(
        self,
        images: Path | str,
        labels: Path | str | None = None,
        cases: Sequence[Case] | None = None,
    ) -> dict[int, str] | None:
        """Return the names of the classes from the settings or the labels."""
        if self.classes:
            return dict(enumerate(self.classes, 1))
        names = self._names(self.find_cases(images, labels) if cases is None else cases)
        return dict(enumerate(names, 1)) or None

    def fit(self, cases: Sequence[Case]) -> None:
        """Keep the class names of the training labels, unless the settings have names."""
        if self.classes is None:
            self.classes = self._names(cases) or None

    def read(self, case: Case) -> Page:
        """Read a page, upright, and its label.

        Raises:
            InputError: The page or its label cannot be read.
        """
        number = int(case.part or 1)
        if case.image.suffix.lower() == ".pdf":
            drawn = pdf.read_pdf_page(case.image, number, self.dpi)
            page = Page(
                case.case_id,
                case.image,
                number,
                drawn.image,
                dpi=(self.dpi, self.dpi),
                points=drawn.points,
                words=drawn.words,
            )
        else:
            picture = pictures.read_picture(case.image, number)
            page = Page(
                case.case_id,
                case.image,
                number,
                picture.image,
                dpi=picture.dpi,
                orientation=picture.orientation,
            )
        if self.ocr != "never":
            page = replace(page, read_words=read_words, always_read=self.ocr == "always")
        return page if case.label is None else self.with_label(page, case.label)

    def with_label(
        self, source: Page, label: npt.NDArray[np.integer] | PagePrediction | Path | str
    ) -> Page:
        """Return a page with another label: an array on its pixels, or a label file."""
        if isinstance(label, Path | str):
            table = ClassTable(self.classes, self.rename)
            return label_page(source, Path(label), table, self.label_orientation)
        if isinstance(label, PagePrediction):
            return replace(source, labelled=PageLabel(label.label, label.instances))
        if label.shape != source.size:
            raise ValueError(f"label {label.shape} for a page of {source.size} pixels")
        return replace(source, labelled=PageLabel(label.astype(np.int32)))

    def read_boxes(
        self,
        source: Page,
        path: PromptFile | str,
        *,
        class_names: Mapping[int, str] | None = None,
        only_case: bool = True,
    ) -> dict[int, FramePrompts]:
        """Read boxes, points or polygons; see `prompts.read_prompts`."""
        return read_prompts(
            source,
            self.grid(source),
            Path(path) if isinstance(path, str) else path,
            class_names,
            only_case,
        )

    def holds_prompts(self, path: Path) -> bool:
        """Return whether a file holds prompts; other files are coarse labels."""
        return path.suffix.lower() in self.prompt_endings or is_cvat(path)

    def prompt_classes(self, paths: Sequence[PromptFile]) -> dict[int, str]:
        """Return label value to name of the classes in files of prompts, or in coarse labels."""
        prompts = [path for path in paths if isinstance(path, Mapping) or self.holds_prompts(path)]
        if prompts:
            return prompt_classes(prompts)
        found = {name for path in paths if isinstance(path, Path) for name in names_in(path)}
        names = {self.rename.get(name, name) for name in found} - {""}
        return dict(enumerate(sorted(names), 1))

    def with_classes(self, classes: Mapping[int, str]) -> "DocumentsDomain":
        """Return a domain that gives named regions of coarse labels these label values."""
        other = copy(self)
        other.classes = tuple(name for _, name in sorted(classes.items()))
        return other

    def grid(self, source: Page) -> TileGrid:
        """Return the pieces of a page."""
        return page_pieces(source.size, self.longest, self.overlap)

    def frame_count(self, source: Page) -> int:
        """Return the number of pieces, 1 for most pages."""
        return len(self.grid(source))

    def frame(self, source: Page, index: int) -> Frame:
        """Cut one piece, with its label."""
        window = self.grid(source).window(index)
        labelled = source.labelled
        known = None if labelled is None else labelled.known
        instances = None if labelled is None else labelled.instances
        return Frame(
            image=np.ascontiguousarray(source.image[window.slices]),
            location=FrameLocation(source.source_id, index, (window.row, window.column)),
            label=None if labelled is None else labelled.label[window.slices],
            valid=None if known is None else known[window.slices],
            instances=None if instances is None else instances[window.slices],
        )

    @property
    def default_automatic(self) -> str:
        """Return the default way of segmentation without prompts: boxes of ink, and points.

        It is unknown whether the source is a page or a photograph, so both are tried.
        """
        return "box_and_proposed" if self.query is None else "proposed"

    def proposals(self, frame: Frame) -> npt.NDArray[np.float32]:
        """Return region proposals from ink, float32 (N, 4), xyxy; see `proposed_boxes`."""
        return proposed_boxes(frame.image)

    def merger(self, source: Page) -> Merger:
        """Return the merger that blends the pieces' scores and makes regions of them."""
        return PageMerger(source, self.grid(source))

    def merge(
        self, source: Page, frame_labels: Mapping[int, npt.NDArray[np.integer]]
    ) -> npt.NDArray[np.integer]:
        """Put the pieces' labels back on the page; in overlaps the one of highest weight counts."""
        return self.grid(source).merge(frame_labels, source.source_id)

    def maps(self, source: Page, prediction: Any = None) -> LabelMaps:
        """Return a prediction, or the page's own label, as whole arrays."""
        if isinstance(prediction, PagePrediction):
            return LabelMaps(prediction.label, prediction.instances, scores=prediction.scores)
        if prediction is not None:
            return LabelMaps(prediction)
        if source.labelled is None:
            raise InputError(f"{source.source_id} has no label")
        labelled = source.labelled
        return LabelMaps(
            labelled.label, labelled.instances, labelled.known, covered=labelled.covered
        )

    def read_back(self, path: Path) -> npt.NDArray[np.integer]:
        """Read a label picture that `write` wrote, int32 (H, W)."""
        return pictures.read_values(path)[0].astype(np.int32)

    def export(
        self,
        source: Page,
        label: npt.NDArray[np.integer] | PagePrediction,
        stem: Path,
        formats: Sequence[str] = (),
        *,
        measure: bool = False,
        facts: LabelFacts | None = None,
    ) -> list[Path]:
        """Write a prediction, or its regions that match the query; see `outputs.write_outputs`."""
        assert not measure, self.unmeasured
        prediction = label if isinstance(label, PagePrediction) else from_label(source, label)
        return write_outputs(
            prediction,
            stem,
            formats or DEFAULT_FORMATS,
            dict(facts.classes) if facts else {},
            self.query,
            with_text=self._with_text(source),
            retrieve=self._retrieve,
        )

    def query_result(
        self,
        source: Page,
        prediction: npt.NDArray[np.integer] | PagePrediction,
        facts: LabelFacts | None = None,
    ) -> QueryResult:
        """Return all regions of a predicted page, or those that match the query."""
        if not isinstance(prediction, PagePrediction):
            prediction = from_label(source, prediction)
        names = dict(facts.classes) if facts else {}
        return page_result(
            prediction,
            names,
            self.query,
            with_text=self._with_text(source),
            retrieve=self._retrieve,
        )

    def result_label(
        self,
        source: Page,
        prediction: npt.NDArray[np.integer] | PagePrediction,
        facts: LabelFacts | None = None,
    ) -> npt.NDArray[np.int32]:
        """Return the label map of a predicted page, of the regions that match the query."""
        if not isinstance(prediction, PagePrediction):
            prediction = from_label(source, prediction)
        if not self.query:
            return prediction.label
        names = dict(facts.classes) if facts else {}
        found = self.query_result(source, prediction, facts)
        regions = prediction.regions(names, with_text=self._with_text(source))
        return label_of(prediction.label, result_regions(found, regions))

    def with_query(self, query: str | None) -> "DocumentsDomain":
        """Return a domain with another query of predictions; see `query`.

        Raises:
            InputError: The query is empty.
        """
        if query is not None:
            parse_query(query)
        other = copy(self)
        other.query = query or None
        return other

    def _with_text(self, source: Page) -> bool:
        return bool(source.words) or self.ocr == "always"

    def write(
        self, source: Page, label: npt.NDArray[np.integer] | PagePrediction, path: Path | str
    ) -> Path:
        """Write a class map as PNG on the upright page; see `write_label`."""
        values = label.label if isinstance(label, PagePrediction) else label
        if values.shape != source.size:
            raise ValueError(f"label {values.shape} for a page of {source.size} pixels")
        check_classes(Path(path), values)
        return write_label(source, values, Path(path))

    def _names(self, cases: Sequence[Case]) -> tuple[str, ...]:
        """Return the class names of label files: COCO's in its own order, else sorted."""
        files = dataset.label_files(cases)
        found = [names_in(path) for path in files]
        if not all(is_coco(path) for path in files):
            found = [sorted({name for names in found for name in names})]
        renamed = [self.rename.get(name, name) for names in found for name in names]
        return tuple(dict.fromkeys(name for name in renamed if name))
