"""What the engine asks of a domain: read, cut into frames, merge, write. Nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

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
    """

    case_id: str
    image: Path
    label: Path | None = None
    series: str | None = None
    classes: tuple[tuple[str, int], ...] = ()
    part: str | None = None
    group: str | None = None


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
class LabelMaps:
    """A whole label map in memory: what evaluations compare.

    Attributes:
        label: integer (H, W), class per pixel, 0 is background.
        instances: integer (H, W), number of the object at each pixel; None: classes only.
        known: bool (H, W), False where nothing is known and nothing is compared; None: all is.
        scores: float (N,), how sure object n + 1 is, 0..1; None: no object has a score.
    """

    label: npt.NDArray[np.integer]
    instances: npt.NDArray[np.integer] | None = None
    known: npt.NDArray[np.bool_] | None = None
    scores: npt.NDArray[np.floating] | None = None


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


class Domain(Protocol):
    """Read, cut, merge, write. A domain never prompts, stores, trains or measures."""

    name: str
    prompt_endings: tuple[str, ...]
    """Files with these endings hold prompts; any other is a coarse label map."""
    free_settings: frozenset[str]
    """Settings that say how data are stored, not what their pixels look like to a decoder."""

    def settings(self) -> dict[str, Any]:
        """Return all that is done to the pixels, as JSON values, for signatures and metadata."""
        ...

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

    def read(self, case: Case) -> Any:
        """Read a case, its label included when it has one, into a `Source`."""
        ...

    def with_label(self, source: Any, label: npt.NDArray[np.integer] | Path) -> Any:
        """Return a source with another label map, an array or a file, on the source's grid."""
        ...

    def read_boxes(
        self,
        source: Any,
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

    def frame_count(self, source: Any) -> int:
        """Return the number of frames that the source is cut into."""
        ...

    def frame(self, source: Any, index: int) -> Frame:
        """Cut one frame."""
        ...

    def merger(self, source: Any) -> Merger:
        """Return what merges the scores of a source's frames; see `FrameMerger`."""
        ...

    def merge(
        self, source: Any, frame_labels: Mapping[int, npt.NDArray[np.integer]]
    ) -> npt.NDArray[np.integer]:
        """Put frame labels (H, W) back on the source's grid; frames not given are background."""
        ...

    def read_back(self, path: Path) -> npt.NDArray[np.integer]:
        """Read a label map that `write` wrote, in the source's index order."""
        ...

    def write(self, source: Any, label: Any, path: Path) -> Path:
        """Write a label map on the source's grid and return the file that was written.

        Args:
            source: The source.
            label: The label map, or what the domain's merger gave.
            path: Where to; an ending is added to a path without one.
        """
        ...


@runtime_checkable
class ObjectMaps(Protocol):
    """A domain whose label maps tell objects of one class apart."""

    def maps(self, source: Any, prediction: Any = None) -> LabelMaps:
        """Return a prediction as arrays, or the source's own label."""
        ...


@runtime_checkable
class ArchiveDomain(Protocol):
    """A domain that finds its cases in archives: nested, mixed, and larger than data sets."""

    def find_archive(self, root: Path) -> tuple[list[Case], dict[str, str]]:
        """List the cases below a folder, sorted by id, and what is left out: id to reason."""
        ...


@runtime_checkable
class Exporter(Protocol):
    """A domain that writes predictions in more ways than as the input's kind of label map."""

    formats: tuple[str, ...]
    unmeasured: str
    """Why measurements are not written beside predictions; empty: they are."""

    def export(
        self,
        source: Any,
        label: npt.NDArray[np.integer],
        stem: Path,
        formats: Sequence[str] = (),
        *,
        measure: bool = False,
        facts: LabelFacts | None = None,
    ) -> list[Path]:
        """Write one prediction in several formats.

        Args:
            source: The source that the label map lies on.
            label: The label map.
            stem: Path without an ending.
            formats: Of `formats`; none: the input's own kind.
            measure: Write measurements beside it.
            facts: What the objects say about classes and algorithm.

        Returns:
            The files written.
        """
        ...


@runtime_checkable
class ChoosesEnding(Protocol):
    """A domain whose `write` takes the ending of a path for the format that is wanted."""

    endings: tuple[str, ...]


class MapMerger(Protocol):
    """Takes values of a source's frames in order, and puts them on the source's grid."""

    def add(self, frame: Frame, values: npt.NDArray[np.float32]) -> None:
        """Take the values (H, W) of one frame."""
        ...

    def finish(self) -> Any:
        """Return the map, 0 where no frame said anything, or the domain's own handle of it."""
        ...


@runtime_checkable
class WritesMaps(Protocol):
    """What a domain can do besides: put values such as an uncertainty on the source's grid."""

    def map_merger(self, source: Any) -> MapMerger:
        """Return what puts frames' values on the source's grid; see `FrameMaps`."""
        ...

    def write_map(self, source: Any, values: Any, path: Path) -> Path:
        """Write what the map merger gave on the source's grid; return the file written."""
        ...


@runtime_checkable
class Answers(Protocol):
    """A domain whose predictions are more than label maps, such as masks with scores and text."""

    def read_answers(self, paths: Sequence[Path]) -> list[Any]:
        """Read what predictions answered, from the files that were written."""
        ...


@runtime_checkable
class Proposes(Protocol):
    """A domain that can say where objects may lie on a frame, without knowing what they are."""

    def proposals(self, frame: Frame) -> npt.NDArray[np.float32]:
        """Return float32 (N, 4): boxes worth asking about, xyxy in frame space."""
        ...


@runtime_checkable
class Focuses(Protocol):
    """A domain whose frames may show a part of a source, which what is asked has a say in."""

    def whole(self, source: Any) -> Any:
        """Return a source whose frames show all of it: what prompts are given for."""
        ...

    def focus(
        self, source: Any, prompts: Mapping[int, FramePrompts] | None
    ) -> tuple[Any, dict[int, FramePrompts]]:
        """Return a source whose frames show all that is asked, and the prompts on these frames.

        Args:
            source: As it was read.
            prompts: By frame index, on the frames of the whole source; None: nothing in particular.
        """
        ...


@runtime_checkable
class Suits(Protocol):
    """A domain that knows how objects are best found for what it is asked."""

    @property
    def suits(self) -> str:
        """Return a way of finding, as `automatic` takes it."""
        ...


@runtime_checkable
class ReadsElsewhere(Protocol):
    """A domain whose inputs need not be files on this machine; reading says which it takes."""

    reads_elsewhere: bool
