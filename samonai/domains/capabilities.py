"""Optional abilities of a domain, detected in one place: `capabilities(domain)`.

A domain has an ability by having the members of its protocol; nothing is registered. The engine
checks for the ability and never for the domain's name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from samonai.core.frame import Frame
from samonai.domains.base import Case, Domain, LabelFacts, LabelMaps, ReadSourceT, SourceT
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.values import PromptFile

CLASSES = "classes"
"""Segmentation without prompts that every domain supports: the map of classes."""


class MapMerger(Protocol):
    """Collects values of a source's frames in order, and puts them on the source's grid."""

    def add(self, frame: Frame, values: npt.NDArray[np.float32]) -> None:
        """Add the values (H, W) of one frame."""
        ...

    def finish(self) -> Any:
        """Return the map, 0 on pixels without a frame, or the domain's own handle of it."""
        ...


@runtime_checkable
class ObjectMaps(Protocol[ReadSourceT]):
    """A domain whose label maps distinguish objects of one class."""

    def maps(self, source: ReadSourceT, prediction: Any = None) -> LabelMaps:
        """Return a prediction as arrays, or the source's own label."""
        ...


@runtime_checkable
class ArchiveListing(Protocol):
    """A domain that lists cases of archives: nested, mixed, and larger than data sets."""

    def find_archive(self, root: Path) -> tuple[list[Case], dict[str, str]]:
        """List the cases below a folder, sorted by id, and the skipped ones: id to reason."""
        ...


@runtime_checkable
class Exporter(Protocol[ReadSourceT]):
    """A domain that writes predictions in formats other than the input's kind of label map."""

    formats: tuple[str, ...]
    unmeasured: str
    """Why measurements are not written beside predictions; empty: they are."""

    def export(
        self,
        source: ReadSourceT,
        label: npt.NDArray[np.integer],
        stem: Path,
        formats: Sequence[str] = (),
        *,
        measure: bool = False,
        facts: LabelFacts | None = None,
    ) -> list[Path]:
        """Write one prediction in several formats.

        Args:
            source: The source of the label map.
            label: The label map.
            stem: Path without an ending.
            formats: Of `formats`; none: the input's own kind.
            measure: Write measurements beside it.
            facts: Classes and algorithm, for the objects' metadata.

        Returns:
            The files written.
        """
        ...


@runtime_checkable
class FileEndings(Protocol):
    """A domain whose `write` chooses the format by the ending of the path."""

    endings: tuple[str, ...]


@runtime_checkable
class ValueMaps(Protocol[ReadSourceT]):
    """A domain that puts values such as an uncertainty on the source's grid."""

    def map_merger(self, source: ReadSourceT) -> MapMerger:
        """Return the merger that puts frames' values on the source's grid; see `FrameMaps`."""
        ...

    def write_map(self, source: ReadSourceT, values: Any, path: Path) -> Path:
        """Write the result of the map merger on the source's grid; return the file written."""
        ...


@runtime_checkable
class Results(Protocol[ReadSourceT]):
    """A domain whose predictions hold more than label maps, such as masks with scores and text."""

    def query_result(
        self, source: ReadSourceT, prediction: Any, facts: LabelFacts | None = None
    ) -> Any:
        """Return the results of a prediction beside its label map.

        Args:
            source: The source.
            prediction: Result of the domain's merger, or a label map.
            facts: Names of the classes.
        """
        ...

    def result_label(
        self, source: ReadSourceT, prediction: Any, facts: LabelFacts | None = None
    ) -> npt.NDArray[np.integer]:
        """Return the label map that is written: where a query is set, of its answer only.

        Args:
            source: See `query_result`, like the others.
            prediction: As there.
            facts: As there.
        """
        ...


@runtime_checkable
class TextQueries(Protocol[SourceT]):
    """A domain whose predictions answer a text, such as words on a page."""

    def with_query(self, query: str | None) -> Domain[SourceT]:
        """Return the domain with another query; None: predictions hold everything."""
        ...


@runtime_checkable
class Planes(Protocol[SourceT]):
    """A domain whose sources are volumes: neighbouring frames are neighbouring slices."""

    @property
    def axis(self) -> int:
        """Return the array axis that frames are cut across."""
        ...

    def along(self, axis: int) -> Domain[SourceT]:
        """Return the domain with frames cut across another array axis."""
        ...


@runtime_checkable
class VolumeViews(Protocol[ReadSourceT]):
    """A domain whose sources a viewer shows in three planes and in windows of their own values."""

    def windows(self, source: ReadSourceT) -> dict[str, tuple[float, float]]:
        """Return named display windows (black, white) in the source's unit."""
        ...

    def windowed(
        self, source: ReadSourceT, frame: Frame, window: tuple[float, float]
    ) -> npt.NDArray[np.uint8]:
        """Return a frame in a window: uint8 (H, W), 0 black, 255 white."""
        ...

    def volume_file(
        self, source: ReadSourceT, label: npt.NDArray[np.integer] | None = None
    ) -> bytes:
        """Return the source, or a label map on its grid (values 0..255), as a NIfTI file."""
        ...


@runtime_checkable
class RegionProposals(Protocol):
    """A domain with region proposals: boxes of objects on a frame, of any class."""

    def proposals(self, frame: Frame) -> npt.NDArray[np.float32]:
        """Return float32 (N, 4): proposed boxes, xyxy in frame space."""
        ...


@runtime_checkable
class PromptNames(Protocol[SourceT]):
    """A domain whose prompt files may name classes and be of other tools, known by content."""

    def holds_prompts(self, path: Path) -> bool:
        """Return whether a file holds prompts; otherwise it is a coarse label map."""
        ...

    def prompt_classes(self, paths: Sequence[PromptFile]) -> dict[int, str]:
        """Return label value to name of the classes that prompts or coarse labels name.

        Args:
            paths: All files of one prediction, so that its cases get the same label values.

        Raises:
            InputError: A file cannot be read, or names some classes only.
        """
        ...

    def with_classes(self, classes: Mapping[int, str]) -> Domain[SourceT]:
        """Return a domain that gives the named classes of coarse labels these label values."""
        ...


@runtime_checkable
class PromptChecks(Protocol):
    """A domain that checks files of prompts before a source is read, without torch."""

    def check_prompts(self, path: Path, class_names: Mapping[int, str]) -> None:
        """Refuse malformed rows and unknown classes of a file of prompts.

        Args:
            path: The file.
            class_names: Label value to name; empty: any name is taken.

        Raises:
            InputError: A row is malformed, or a class is unknown.
        """
        ...


@runtime_checkable
class PromptCrop(Protocol[SourceT]):
    """A domain whose frames may show a part of a source only, chosen by the prompts."""

    def all_frames(self, source: SourceT) -> SourceT:
        """Return a source whose frames show all of it, to which prompts refer."""
        ...

    def frames_around_prompts(
        self, source: SourceT, prompts: Mapping[int, FramePrompts] | None
    ) -> tuple[SourceT, dict[int, FramePrompts]]:
        """Return a source whose frames cover all prompts, and the prompts on these frames.

        Args:
            source: The source as read.
            prompts: By frame index, on the frames of the whole source; None: no prompts.
        """
        ...


@runtime_checkable
class DefaultAutomatic(Protocol):
    """A domain with a default way of segmentation without prompts other than the class map."""

    @property
    def default_automatic(self) -> str:
        """Return a value of the setting `automatic`."""
        ...


@runtime_checkable
class RemoteSources(Protocol):
    """A domain whose inputs need not be local files; reading checks which it supports."""

    reads_elsewhere: bool


@runtime_checkable
class NamedStructures(Protocol):
    """A domain whose labels are named structures, which its settings give label values."""

    def renumbered(self, cases: Sequence[Case]) -> list[Case]:
        """Return cases with the label values that this domain gives their structures.

        Args:
            cases: Listed by a domain with other `structures`.
        """
        ...


@runtime_checkable
class WholeSlices(Protocol):
    """A domain whose frames are whole slices or pictures, as a 2D U-Net needs them."""

    frames_are_whole: bool


@runtime_checkable
class DicomSources(Protocol):
    """A domain that reads DICOM series and writes DICOM objects, as a PACS holds them."""

    reads_dicom: bool


@dataclass(frozen=True)
class Capabilities(Generic[SourceT]):
    """Optional abilities of one domain; None, empty or False if it lacks one.

    Attributes:
        object_maps: Distinguishes objects of one class.
        archive: Lists nested archives.
        exporter: Writes several formats.
        endings: Endings of paths by which `write` chooses the format.
        value_maps: Writes maps of values such as an uncertainty.
        results: Gives what predictions hold beside label maps.
        queries: Runs queries on predictions.
        proposals: Proposes boxes of objects on a frame.
        prompt_names: Reads the names of classes in files of prompts.
        prompt_checks: Checks files of prompts before a source is read.
        planes: Cuts volumes across any of their axes.
        viewer: Shows volumes in three planes and in windows.
        crop: Cuts frames around the prompts.
        structures: Gives structures label values.
        default_automatic: Default way of segmentation without prompts.
        remote_sources: Whether inputs need not be local files.
        frames_are_whole: Whether frames are whole slices or pictures.
        reads_dicom: Whether sources may be DICOM series.
    """

    object_maps: ObjectMaps[SourceT] | None = None
    archive: ArchiveListing | None = None
    exporter: Exporter[SourceT] | None = None
    endings: tuple[str, ...] = ()
    value_maps: ValueMaps[SourceT] | None = None
    results: Results[SourceT] | None = None
    queries: TextQueries[SourceT] | None = None
    proposals: RegionProposals | None = None
    prompt_names: PromptNames[SourceT] | None = None
    prompt_checks: PromptChecks | None = None
    planes: Planes[SourceT] | None = None
    viewer: VolumeViews[SourceT] | None = None
    crop: PromptCrop[SourceT] | None = None
    structures: NamedStructures | None = None
    default_automatic: str = CLASSES
    remote_sources: bool = False
    frames_are_whole: bool = False
    reads_dicom: bool = False


def capabilities(domain: Domain[SourceT]) -> Capabilities[SourceT]:
    """Return the optional abilities of a domain, or of a wrapper around one."""
    return Capabilities(
        object_maps=domain if isinstance(domain, ObjectMaps) else None,
        archive=domain if isinstance(domain, ArchiveListing) else None,
        exporter=domain if isinstance(domain, Exporter) else None,
        endings=domain.endings if isinstance(domain, FileEndings) else (),
        value_maps=domain if isinstance(domain, ValueMaps) else None,
        results=domain if isinstance(domain, Results) else None,
        queries=domain if isinstance(domain, TextQueries) else None,
        proposals=domain if isinstance(domain, RegionProposals) else None,
        prompt_names=domain if isinstance(domain, PromptNames) else None,
        prompt_checks=domain if isinstance(domain, PromptChecks) else None,
        planes=domain if isinstance(domain, Planes) else None,
        viewer=domain if isinstance(domain, VolumeViews) else None,
        crop=domain if isinstance(domain, PromptCrop) else None,
        structures=domain if isinstance(domain, NamedStructures) else None,
        default_automatic=(
            domain.default_automatic if isinstance(domain, DefaultAutomatic) else CLASSES
        ),
        remote_sources=isinstance(domain, RemoteSources) and domain.reads_elsewhere,
        frames_are_whole=isinstance(domain, WholeSlices) and domain.frames_are_whole,
        reads_dicom=isinstance(domain, DicomSources) and domain.reads_dicom,
    )
