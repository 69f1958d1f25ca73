"""Domain protocol: read a source, cut it into frames, merge their scores, write the label map.

What only some domains can do besides is in `samonai.domains.capabilities`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from samonai.core.frame import Frame
from samonai.prompts.types import FramePrompts


@dataclass(frozen=True)
class Case:
    """One labelled or unlabelled source on disk.

    Attributes:
        case_id: The file's name without its ending: the unit of splits and of metrics.
        image: The image's file, or folder for a DICOM series.
        label: The label map's file or folder, or None.
        series: DICOM SeriesInstanceUID where the folder holds several.
        classes: Name and label value of each structure, where the label names them.
        part: Name of the part of the image that the case is, where its domain cuts images into
            several cases (blocks of a raster, pages of a file).
        group: What the case belongs to (a book, a patient); a random split never tears it apart.
            None: the case stands alone.
        ignored: Label values that mark what nobody annotated, such as nnU-Net's "ignore": nothing
            there is trained, predicted or measured.
        held_out: Whether the data list puts the case into its validation section.
        fold: Number of the fold that the data list puts the case into.
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
    """What is known about predicted label maps besides their voxels.

    Attributes:
        classes: Label value to name; other values are called by number.
        algorithm: What made them, as JSON values: model, hashes of the weights.
    """

    classes: Mapping[int, str] = field(default_factory=dict)
    algorithm: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CoveredObject:
    """One object of which others cover a part or all, so that a map does not show all of it.

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
    """A whole label map in memory: what evaluations compare.

    Attributes:
        label: integer (H, W), class per pixel, 0 is background.
        instances: integer (H, W), number of the object at each pixel; None: classes only.
        known: bool (H, W), False where nothing is known and nothing is compared; None: all is.
        scores: float (N,), how sure object n + 1 is, 0..1; None: no object has a score.
        covered: Objects that the maps do not show all of.
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
        """Return the identifier that outputs and the store carry."""
        ...

    @property
    def spacing(self) -> tuple[float, ...]:
        """Return the size of a cell of the source's grid along each array axis, in its unit."""
        ...

    def content_hash(self) -> str:
        """Return the sha256 of the source's values and geometry, as hexadecimal digits."""
        ...

    def label_hash(self) -> str | None:
        """Return the sha256 of the label map, or None when the source is unlabelled."""
        ...


SourceT = TypeVar("SourceT", bound=Source)
ReadSourceT = TypeVar("ReadSourceT", bound=Source, contravariant=True)


def metric_spacing(source: Any) -> tuple[float, ...] | None:
    """Return a source's spacing; None where it is no measure of what is shown.

    A source says so by `unmeasurable`, the reason: pictures that nothing calibrates.
    """
    if getattr(source, "unmeasurable", ""):
        return None
    spacing: tuple[float, ...] = source.spacing
    return spacing


class Merger(Protocol):
    """Takes the scores of a source's frames in order, and gives the source's label map.

    It may write what is finished while later frames are still to come.
    """

    def add(
        self,
        frame: Frame,
        scores: npt.NDArray[np.float32],
        prompts: FramePrompts,
        confidence: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Take scores of one frame; frames come in ascending order of their index.

        Objects of one frame may come in several calls, classes come at once.

        Args:
            frame: The frame, as the domain cut it.
            scores: float32 (N, H, W), logits or other scores, above 0 is inside; frame space.
            prompts: What each of the N scores answers to.
            confidence: float (N,), how sure each object is, 0..1; None: the scores tell.
        """
        ...

    def finish(self) -> Any:
        """Return the label map, or the domain's own handle of one that memory need not hold."""
        ...


class Reads(Protocol[SourceT]):
    """Data sets, sources, labels and prompt files of one kind of data."""

    prompt_endings: tuple[str, ...]
    """Files with these endings hold prompts; any other is a coarse label map."""

    def find_cases(self, images: Path | str, labels: Path | str | None = None) -> list[Case]:
        """List the cases of a data set, sorted by id."""
        ...

    def class_names(
        self, images: Path | str, labels: Path | str | None = None
    ) -> dict[int, str] | None:
        """Return the names that the data set gives its label values, or None."""
        ...

    def fit(self, cases: Sequence[Case]) -> None:
        """Measure over a training set what all its sources share, and keep it in the settings."""
        ...

    def read(self, case: Case) -> SourceT:
        """Read a case, its label included when it has one, into a `Source`."""
        ...

    def with_label(self, source: SourceT, label: npt.NDArray[np.integer] | Path) -> SourceT:
        """Return a source with another label map, an array or a file, on the source's grid."""
        ...

    def read_boxes(
        self,
        source: SourceT,
        path: Path,
        *,
        class_names: Mapping[int, str] | None = None,
        only_case: bool = True,
    ) -> Mapping[int, tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]] | FramePrompts]:
        """Read a source's boxes, or other prompts, from a file.

        Args:
            source: The source.
            path: A file with one of `prompt_endings`, in the domain's own coordinates.
            class_names: Label value to name, for files that name classes.
            only_case: Whether a file that names no case means this one.

        Returns:
            By frame index: float32 (N, 4) xyxy in frame space and int64 (N,) label values; or
            all that prompts can say.
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
        """Return what merges the scores of a source's frames; see `FrameMerger`."""
        ...

    def merge(
        self, source: ReadSourceT, frame_labels: Mapping[int, npt.NDArray[np.integer]]
    ) -> npt.NDArray[np.integer]:
        """Put frame labels (H, W) back on the source's grid; frames not given are background."""
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
            label: The label map, or what the domain's merger gave.
            path: Where to; an ending is added to a path without one.
        """
        ...


class Domain(Reads[SourceT], Cuts[SourceT], Merges[SourceT], Writes[SourceT], Protocol[SourceT]):
    """One kind of data: read, cut, merge, write. A domain never stores, trains or measures.

    Type parameter: what `read` returns, a `Source`.
    """

    name: str
    free_settings: frozenset[str]
    """Settings of how data are stored, which change no pixel that a decoder sees."""

    def settings(self) -> dict[str, Any]:
        """Return all that is done to the pixels, as JSON values, for signatures and metadata."""
        ...
