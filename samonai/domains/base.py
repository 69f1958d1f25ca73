"""Domain protocol: read a source, cut it into frames, merge their scores, write the label map.

Optional abilities are in `samonai.domains.capabilities`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from samonai.core.frame import Frame
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.values import PromptFile


@dataclass(frozen=True)
class Case:
    """One labelled or unlabelled source on disk.

    Attributes:
        case_id: The file's name without its ending: the unit of splits and of metrics.
        image: The image's file, or folder for a DICOM series.
        label: The label map's file or folder, or None.
        series: DICOM SeriesInstanceUID where the folder holds several.
        classes: Name and label value of each structure, if the label has names.
        part: Name of the part of the image, if the domain cuts images into several cases (blocks of
            a raster, pages of a file).
        group: Group of the case (a book, a patient), which a random split never divides.
            None: the case is a group by itself.
        ignored: Label values of unannotated pixels, such as nnU-Net's "ignore": they are neither
            trained, predicted nor measured.
        held_out: Whether the case is in the validation section of the data list.
        fold: Number of the case's fold in the data list.
    """

    case_id: str
    image: Path
    label: Path | None = None
    series: str | None = None
    classes: tuple[tuple[str, int], ...] = ()
    part: str | None = None
    group: str | None = None
    ignored: tuple[int, ...] = ()
    held_out: bool = False
    fold: int | None = None


@dataclass(frozen=True)
class LabelFacts:
    """Metadata of predicted label maps.

    Attributes:
        classes: Label value to name; other values get a name by number.
        algorithm: The algorithm as JSON values: model, hashes of the weights.
    """

    classes: Mapping[int, str] = field(default_factory=dict)
    algorithm: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CoveredObject:
    """An object that other objects cover partly or wholly in the label map.

    Attributes:
        number: Of the object, in `LabelMaps.instances`.
        value: Label value of its class.
        rle: Its whole mask as COCO's run lengths.
    """

    number: int
    value: int
    rle: Mapping[str, Any]


@dataclass(frozen=True)
class LabelMaps:
    """A whole label map in memory, for evaluation.

    Attributes:
        label: integer (H, W), class per pixel, 0 is background.
        instances: integer (H, W), number of the object at each pixel; None: classes only.
        known: bool (H, W), False on unlabelled pixels, which are not compared; None: all labelled.
        scores: float (N,), score of object n + 1, 0..1; None: no object has a score.
        covered: Objects that are not wholly visible in the maps.
    """

    label: npt.NDArray[np.integer]
    instances: npt.NDArray[np.integer] | None = None
    known: npt.NDArray[np.bool_] | None = None
    scores: npt.NDArray[np.floating] | None = None
    covered: tuple[CoveredObject, ...] = ()


class Source(Protocol):
    """A source in memory: one volume, raster, document or picture."""

    @property
    def source_id(self) -> str:
        """Return the identifier used in outputs and in the store."""
        ...

    @property
    def spacing(self) -> tuple[float, ...]:
        """Return the size of a cell of the source's grid along each array axis, in its unit."""
        ...

    def content_hash(self) -> str:
        """Return the sha256 of the source's values and geometry, as hexadecimal digits."""
        ...

    @property
    def label(self) -> npt.NDArray[np.integer] | None:
        """Return the label map, class per cell of the source's grid; None: unlabelled."""
        ...

    def label_hash(self) -> str | None:
        """Return the sha256 of the label map, or None when the source is unlabelled."""
        ...


SourceT = TypeVar("SourceT", bound=Source)
ReadSourceT = TypeVar("ReadSourceT", bound=Source, contravariant=True)


def metric_spacing(source: Source) -> tuple[float, ...] | None:
    """Return a source's spacing; None where distances cannot be measured.

    Such a source has the reason in `unmeasurable`: pictures without calibration.
    """
    return None if getattr(source, "unmeasurable", "") else source.spacing


class Merger(Protocol):
    """Merges the scores of a source's frames, in order, into the source's label map.

    It may write finished parts while later frames are still to come.
    """

    def add(
        self,
        frame: Frame,
        scores: npt.NDArray[np.float32],
        prompts: FramePrompts,
        confidence: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Add scores of one frame; frames come in ascending order of their index.

        Objects of one frame may come in several calls, classes come at once.

        Args:
            frame: The frame, as the domain cut it.
            scores: float32 (N, H, W), logits or other scores, above 0 is inside; frame space.
            prompts: The prompt of each of the N scores.
            confidence: float (N,), score of each object, 0..1; None: derived from the scores.
        """
        ...

    def finish(self) -> Any:
        """Return the label map, or the domain's own handle of one that may exceed memory."""
        ...


class Reads(Protocol[SourceT]):
    """Data sets, sources, labels and prompt files of one kind of data."""

    prompt_endings: tuple[str, ...]
    """Endings of prompt files; any other file is a coarse label map."""

    def find_cases(self, images: Path | str, labels: Path | str | None = None) -> list[Case]:
        """List the cases of a data set, sorted by id."""
        ...

    def class_names(
        self,
        images: Path | str,
        labels: Path | str | None = None,
        cases: Sequence[Case] | None = None,
    ) -> dict[int, str] | None:
        """Return the class names of the data set by label value, or None.

        Args:
            images: See `find_cases`, like the labels.
            labels: As there.
            cases: What `find_cases` returned for them; None: it is called.
        """
        ...

    def fit(self, cases: Sequence[Case]) -> None:
        """Measure properties shared by all sources of a training set, and keep them as settings."""
        ...

    def read(self, case: Case) -> SourceT:
        """Read a case, with its label if it has one, into a `Source`."""
        ...

    def with_label(self, source: SourceT, label: npt.NDArray[np.integer] | Path) -> SourceT:
        """Return a source with another label map, an array or a file, on the source's grid."""
        ...

    def read_boxes(
        self,
        source: SourceT,
        path: PromptFile,
        *,
        class_names: Mapping[int, str] | None = None,
        only_case: bool = True,
    ) -> Mapping[int, tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]] | FramePrompts]:
        """Read a source's boxes, or other prompts, from a file.

        Args:
            source: The source.
            path: A file with one of `prompt_endings`, in the domain's own coordinates, or
                the values that a JSON file of them holds.
            class_names: Label value to name, for files that name classes.
            only_case: Whether a file without case names is for this one.

        Returns:
            By frame index: float32 (N, 4) xyxy in frame space and int64 (N,) label values; or
            all kinds of prompts.
        """
        ...


class Cuts(Protocol[ReadSourceT]):
    """Frames of a source: slices, tiles, pages."""

    def frame_count(self, source: ReadSourceT) -> int:
        """Return the number of frames that the source is cut into."""
        ...

    def frame(self, source: ReadSourceT, index: int) -> Frame:
        """Cut one frame."""
        ...


class Merges(Protocol[ReadSourceT]):
    """Label maps of a source from the scores or labels of its frames."""

    def merger(self, source: ReadSourceT) -> Merger:
        """Return the merger of the scores of a source's frames; see `FrameMerger`."""
        ...

    def merge(
        self, source: ReadSourceT, frame_labels: Mapping[int, npt.NDArray[np.integer]]
    ) -> npt.NDArray[np.integer]:
        """Put frame labels (H, W) back on the source's grid; missing frames are background."""
        ...


class Writes(Protocol[ReadSourceT]):
    """Label maps on a source's own grid, written and read back."""

    def read_back(self, path: Path) -> npt.NDArray[np.integer]:
        """Read a label map that `write` wrote, in the source's index order."""
        ...

    def write(self, source: ReadSourceT, label: Any, path: Path) -> Path:
        """Write a label map on the source's grid and return the file that was written.

        Args:
            source: The source.
            label: The label map, or the result of the domain's merger.
            path: The file; an ending is added to a path without one.
        """
        ...


class Domain(Reads[SourceT], Cuts[SourceT], Merges[SourceT], Writes[SourceT], Protocol[SourceT]):
    """One kind of data: read, cut, merge, write. A domain never stores, trains or measures.

    Type parameter: what `read` returns, a `Source`.
    """

    name: str
    non_pixel_settings: frozenset[str]
    """Settings that do not change the encoder's input, so that predictions may change them."""

    def settings(self) -> dict[str, Any]:
        """Return the settings that affect pixels, as JSON values, for signatures and metadata."""
        ...
