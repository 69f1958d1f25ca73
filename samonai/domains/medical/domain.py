"""Medical domain: volumes read, cut into slices along one axis, merged and written."""

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.frame import Frame, FrameLocation
from samonai.core.pseudonyms import pseudonym, write_case_map
from samonai.core.settings import check_given
from samonai.domains.base import Case, LabelFacts, Merger
from samonai.domains.label_map import parse_label_map
from samonai.domains.medical.crop import (
    Crop,
    in_frames,
    rows_and_columns,
    warn_of_labels_outside,
)
from samonai.domains.medical.dataset import find_cases, is_dicom
from samonai.domains.medical.dataset_file import read_class_names
from samonai.domains.medical.formats.read_volume import read_raw, read_volume
from samonai.domains.medical.formats.write_label import (
    WRITTEN_ENDINGS,
    with_ending,
    write_label,
    write_values,
)
from samonai.domains.medical.intensity import Intensity, picture, plane
from samonai.domains.medical.labels.label_matching import structure_values, with_structures
from samonai.domains.medical.labels.named_maps import by_name, label_names
from samonai.domains.medical.labels.read_labels import (
    check_structures,
    read_known_label,
    read_label,
)
from samonai.domains.medical.labels.structures import class_names_of, parse_structures
from samonai.domains.medical.outputs import FORMATS, write_outputs
from samonai.domains.medical.prompts.read import PromptReading, read_prompts
from samonai.domains.medical.viewing import VolumeViewing
from samonai.domains.medical.volume import (
    LabelReadOptions,
    ReadOptions,
    Volume,
    check_slice_number,
    format_shape,
)
from samonai.domains.tiling.frames import FrameMaps, FrameMerger
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.values import PromptFile
from samonai.settings import settings_below_pixels
from samonai.settings.medical import MedicalSettings

logger = logging.getLogger(__name__)


class MedicalDomain(PromptReading, VolumeViewing):
    """Scans as stacks of slices. Settings are JSON values, so that checkpoints can carry them.

    Args:
        window: See `Intensity`, as for the five that follow.
        level: See `Intensity`.
        width: See `Intensity`.
        lower: See `Intensity`.
        upper: See `Intensity`.
        channels: See `Intensity`.
        axis: Array axis perpendicular to the slices: 2 (the default) usually gives the
            acquired slices; 0 and 1 give the other two planes.
        label_map: Stored label value to class (`{255: 1}`); keys may be text, as JSON has them.
            As text for the command line: "255:1,7:0".
        prefer: "sform" or "qform" for NIfTI files whose two geometries contradict each other.
        channel: nnU-Net channel number to read where cases have several (`_0000`, `_0001`).
        time: Number, from 1, of the volume to read where a series or file holds several.
        allow_gaps: Mask missing DICOM slices and interpolate uneven ones instead of refusing.
        suv: PET in SUV by body weight: True demands it, False leaves the stored unit, None
            converts where the headers allow it.
        structures: For labels that are named structures: the ones to use, and their label values
            ("liver,spleen" counts from 1, "liver:3,spleen:7" gives them, and one value for several
            joins them; a list or a mapping is possible too). By default all that occur in the data
            set, counted in alphabetical order.
        case_map: A CSV file for the name of each pseudonym; None writes none.
        crop: Content of the slices: "none" (uncropped), the "body", or the surroundings of each
            "prompt"; see `crop`.
        crop_margin: Millimetres that are kept around it.
    """

    name = "medical"
    frames_are_whole = reads_dicom = True
    prompt_endings: tuple[str, ...] = (".json", ".csv", ".xml")
    formats = FORMATS
    unmeasured = ""
    endings = WRITTEN_ENDINGS
    non_pixel_settings = settings_below_pixels(MedicalSettings)

    def __init__(
        self,
        window: str = "auto",
        level: float | None = None,
        width: float | None = None,
        lower: float = 0.5,
        upper: float = 99.5,
        channels: str = "grey",
        axis: int = 2,
        label_map: Mapping[Any, Any] | str | None = None,
        prefer: str | None = None,
        channel: int | None = None,
        time: int | None = None,
        allow_gaps: bool | None = None,
        suv: bool | None = None,
        structures: Mapping[str, int] | Sequence[str] | str | None = None,
        case_map: Path | str | None = None,
        crop: str = "none",
        crop_margin: float = 10.0,
    ) -> None:
        check_given(MedicalSettings, locals())
        self.reading = ReadOptions(None, prefer, time, bool(allow_gaps), suv)
        self.intensity = Intensity(window, level, width, lower, upper, channels)
        self.axis = axis
        self.label_map = parse_label_map(label_map)
        self.prefer = prefer
        self.channel = channel
        # Storage of labels, not of pixels: not a setting of a checkpoint, which
        # has its classes' names and values anyway.
        self.structures = parse_structures(structures)
        self.case_map = case_map
        self.crop = Crop(crop, crop_margin)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that rebuild this domain, as JSON values."""
        return {
            **self.intensity.settings(),
            "axis": self.axis,
            "label_map": {str(stored): wanted for stored, wanted in self.label_map.items()},
            "prefer": self.prefer,
            "channel": self.channel,
            "time": self.reading.time,
            "allow_gaps": self.reading.allow_gaps,
            "suv": self.reading.suv,
            **self.crop.settings(),
        }

    def find_cases(self, images: Path | str, labels: Path | str | None = None) -> list[Case]:
        """List the cases of a data set, sorted by id; see `dataset.find_cases`."""
        cases = find_cases(images, labels, channel=self.channel)
        return self.pseudonymous(with_structures(cases, self.structures))

    def renumbered(self, cases: Sequence[Case]) -> list[Case]:
        """Return cases with the label values that this domain gives their structures."""
        named = [case for case in cases if case.classes]
        known = set(self.structures.items())
        if not known or all(known.issuperset(case.classes) for case in named):
            return list(cases)
        names = sorted({name for case in named for name, _ in case.classes})
        values = structure_values(names, self.structures)
        return [replace(case, classes=values) if case.classes else case for case in cases]

    def pseudonymous(self, cases: Sequence[Case]) -> list[Case]:
        """Return cases with pseudonyms instead of DICOM folder names; see `pseudonyms`.

        With `case_map`, the map of both is written.
        """
        given = [case for case in cases if is_dicom(case.image)]
        names = {pseudonym(case.case_id): case.case_id for case in given}
        if self.case_map is not None and names:
            write_case_map(self.case_map, names)
        hidden = {case.case_id for case in given}
        return sorted(
            (
                replace(case, case_id=pseudonym(case.case_id)) if case.case_id in hidden else case
                for case in cases
            ),
            key=lambda case: case.case_id,
        )

    def find_archive(self, root: Path) -> tuple[list[Case], dict[str, str]]:
        """List the scans of an archive of studies; see `find_studies`.

        DICOM cases, readable or not, have a pseudonym as their id, as in `find_cases`.
        """
        from samonai.domains.medical.dicom.studies import find_studies  # pydicom is slow to import

        cases, left_out = find_studies(root)
        given = [*left_out, *(case.case_id for case in cases if case.image.is_dir())]
        hidden = {name: pseudonym(name) for name in given}
        if self.case_map is not None and hidden:
            write_case_map(self.case_map, {code: name for name, code in hidden.items()})
        called = [replace(case, case_id=hidden.get(case.case_id, case.case_id)) for case in cases]
        return (
            sorted(called, key=lambda case: case.case_id),
            {hidden[name]: reason for name, reason in left_out.items()},
        )

    def class_names(
        self,
        images: Path | str,
        labels: Path | str | None = None,
        cases: Sequence[Case] | None = None,
    ) -> dict[int, str] | None:
        """Return the class names from structures or a dataset.json, or None."""
        found = self.find_cases(images, labels) if cases is None else cases
        classes = next((case.classes for case in found), ())
        return class_names_of(dict(classes)) or read_class_names(images, labels)

    def fit(self, cases: Sequence[Case]) -> None:
        """Fit nothing: every volume has its own range.

        Raises:
            InputError: Slices follow prompts, which a data set does not have.
        """
        self.crop.check_without_prompts()

    def read(self, case: Case) -> Volume:
        """Read a case's volume, with its label if it has one.

        Raises:
            InputError: The volume or the label cannot be used; see `read_volume` and `read_label`.
        """
        options = replace(self.reading, series=case.series)
        volume = replace(read_volume(case.image, **asdict(options)), source_id=case.case_id)
        if self.intensity.window == "auto" and self.intensity.level is None:
            # The log records which scans were treated as CT.
            chosen = self.intensity.chosen_window(volume)
            logger.info("%s: window=auto chose %s", case.case_id, chosen)
        if case.label is not None:
            values = dict(case.classes) or self.structures
            label, known = read_known_label(
                case.label, volume, self.label_map, self.prefer, values, case.ignored
            )
            volume = replace(volume, label=label, known=known)
        cropped = self.crop.of_volume(volume, self.axis)
        warn_of_labels_outside(cropped)
        return cropped

    def with_label(self, source: Volume, label: npt.NDArray[np.integer] | Path | str) -> Volume:
        """Return a volume with another label map: an array (I, J, K), or a file's.

        Raises:
            InputError: The file cannot be used; see `read_label`; or it has none of the wanted
                structures.
        """
        if isinstance(label, Path | str):
            path, known = Path(label), self.structures
            check_structures(path, known)
            label = read_label(path, source, self.label_map, self.prefer, known)
            if known and (names := label_names(path)):
                label = by_name(label, names, known, path)
        return replace(source, label=label.astype(np.int32), known=None)

    def read_boxes(
        self,
        source: Volume,
        path: PromptFile | str,
        *,
        class_names: Mapping[int, str] | None = None,
        only_case: bool = True,
    ) -> Mapping[int, FramePrompts]:
        """Read a volume's prompts, by slice; see `prompts.read.read_prompts`."""
        found = read_prompts(path, source, self.axis, class_names, only_case)
        return in_frames(found, source, self.axis)

    def all_frames(self, source: Volume) -> Volume:
        """Return a volume whose slices show all of it."""
        return source.with_crop(None)

    def frames_around_prompts(
        self, source: Volume, prompts: Mapping[int, FramePrompts] | None
    ) -> tuple[Volume, dict[int, FramePrompts]]:
        """Return a volume whose slices show the surroundings of prompts, and the prompts on these.

        Args:
            source: The volume as read.
            prompts: By slice, in whole slices; None: no prompts.

        Raises:
            InputError: Slices follow prompts, and there are none.
        """
        if prompts is None:
            self.crop.check_without_prompts()
            return source, {}
        return self.crop.of_prompts(source, self.axis, prompts)

    def along(self, axis: int) -> "MedicalDomain":
        """Return this domain with slices across another array axis."""
        other = copy(self)
        other.axis = axis
        return other

    def frame_count(self, source: Volume) -> int:
        """Return the number of slices across the domain's axis."""
        return source.shape[self.axis]

    def frame(self, source: Volume, index: int) -> Frame:
        """Cut one slice, with its label and valid mask.

        Args:
            source: The volume.
            index: Slice number, 0 to `frame_count(source) - 1`.

        Returns:
            The slice, or the part of it that the crop shows, as (H, W): axis 2 gives rows j and
            columns i, never flipped.
        """
        check_slice_number(source, self.axis, index)
        ranges = self.intensity.ranges(source)
        label = source.label
        masks = [plane(m, self.axis, index) for m in (source.valid, source.known) if m is not None]
        part = rows_and_columns(source, self.axis)
        return Frame(
            image=picture(source, self.axis, index, self.intensity, ranges, part),
            location=FrameLocation(source.source_id, index, (part[0].start, part[1].start)),
            label=None if label is None else plane(label, self.axis, index)[part],
            valid=np.logical_and.reduce(masks)[part] if masks else None,
        )

    def merger(self, source: Volume) -> Merger:
        """Return the merger of slices, which do not overlap."""
        return FrameMerger(self, source)

    def merge(
        self, source: Volume, frame_labels: Mapping[int, npt.NDArray[np.integer]]
    ) -> npt.NDArray[np.integer]:
        """Put slices' labels back on the volume's grid.

        Args:
            source: The volume that the slices were cut from.
            frame_labels: Slice number to integer (H, W); missing slices are background.

        Returns:
            integer (I, J, K), class per voxel, in the dtype of the slices' labels.
        """
        dtype = np.result_type(np.uint8, *(label.dtype for label in frame_labels.values()))
        return self._merged(source, frame_labels, dtype)

    def map_merger(self, source: Volume) -> FrameMaps:
        """Return the merger of slices' values on the volume's grid, float32 (I, J, K)."""
        return FrameMaps(lambda values: self._merged(source, values, np.float32))

    def read_back(self, path: Path) -> npt.NDArray[np.integer]:
        """Read a label map that `write` wrote, int32 (I, J, K)."""
        return read_raw(path, LabelReadOptions()).array.astype(np.int32)

    def write(self, source: Volume, label: npt.NDArray[np.integer], path: Path | str) -> Path:
        """Write a label map on the volume's grid; see `write_label`.

        A path without a volume's ending gets the input's (.nii.gz for NIfTI and DICOM).
        """
        return write_label(source, label, with_ending(source, Path(path)))

    def write_map(self, source: Volume, values: npt.NDArray[np.float32], path: Path | str) -> Path:
        """Write float32 values on the volume's grid, in the format that a label map would have."""
        return write_values(source, values, with_ending(source, Path(path)))

    def _merged(
        self, source: Volume, frames: Mapping[int, npt.NDArray[Any]], dtype: npt.DTypeLike
    ) -> npt.NDArray[Any]:
        # Slices are contiguous, as in files: untouched ones take no memory, and later slice-wise
        # access is sequential.
        merged = np.zeros(source.shape, dtype, order="F")
        part = rows_and_columns(source, self.axis)
        for index, values in frames.items():
            check_slice_number(source, self.axis, index)
            target = plane(merged, self.axis, index)[part]
            if values.shape != target.shape:
                raise ValueError(
                    f"slice {index} of {source.source_id}: label {format_shape(values.shape)}, "
                    f"expected {format_shape(target.shape)} (rows x columns)"
                )
            target[...] = values
        return merged

    def export(
        self,
        source: Volume,
        label: npt.NDArray[np.integer],
        stem: Path,
        formats: Sequence[str] = (),
        *,
        measure: bool = False,
        facts: LabelFacts | None = None,
    ) -> list[Path]:
        """Write one prediction in several formats; see `write_outputs`."""
        return write_outputs(source, label, stem, formats, measure, facts, self.intensity)
