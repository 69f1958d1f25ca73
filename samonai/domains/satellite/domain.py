"""Satellite domain: rasters read by windows, cut into overlapping tiles, merged and written."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine

from samonai.core.errors import InputError
from samonai.core.frame import Frame, FrameLocation
from samonai.domains.annotations.cvat import is_cvat
from samonai.domains.annotations.napari import is_napari
from samonai.domains.base import Case, LabelFacts, LabelMaps, Merger
from samonai.domains.satellite import dataset, features, labels
from samonai.domains.satellite.access import VECTOR_ENDINGS, open_raster
from samonai.domains.satellite.coco_features import read_coco
from samonai.domains.satellite.lengths import blocks
from samonai.domains.satellite.merger import TileMaps, TileMerger
from samonai.domains.satellite.placing import GRID, OBJECTS, place
from samonai.domains.satellite.prediction import RasterPrediction
from samonai.domains.satellite.prompts import prompt_classes, read_prompts
from samonai.domains.satellite.raster import Raster, read_raster, sample_raster
from samonai.domains.satellite.scale import filled_up
from samonai.domains.satellite.scratch import ScratchRaster
from samonai.domains.satellite.settings import RasterSettings
from samonai.domains.satellite.writer import (
    DEFAULT_FORMATS,
    FORMATS,
    write_formats,
    write_label,
    write_map,
)
from samonai.domains.tiling.tiles import Window
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.values import PromptFile
from samonai.settings import settings_below_pixels
from samonai.settings.satellite import SatelliteSettings

logger = logging.getLogger(__name__)


class SatelliteDomain(RasterSettings):
    """Rasters as overlapping tiles; the settings are those of `RasterSettings`."""

    name = "satellite"
    prompt_endings: tuple[str, ...] = VECTOR_ENDINGS
    formats = FORMATS
    unmeasured = "polygons carry area and score of every object; leave out --measure"
    reads_elsewhere = True  # with any_driver
    non_pixel_settings = settings_below_pixels(SatelliteSettings)

    def find_cases(self, images: Path | str, labels: Path | str | None = None) -> list[Case]:
        """List the cases of a set of rasters; see `dataset.find_cases`.

        Raises:
            InputError: The rasters or labels cannot be paired, or vector labels lie outside their
                rasters.
        """
        cases = dataset.find_cases(images, labels, self.any_driver)
        rasters = (
            {case.case_id: self._raster(case) for case in cases}
            if (self.block is not None or any(case.label is not None for case in cases))
            else {}
        )
        dataset.check_overlap(
            cases,
            lambda case: _outline(rasters[case.case_id]),
            lambda case: self._extent(case, rasters[case.case_id]),
        )
        if self.block is None:
            return cases
        return [
            part
            for case in cases
            for part in dataset.with_blocks(case, list(self._blocks(rasters[case.case_id])))
        ]

    def class_names(
        self,
        images: Path | str,
        labels: Path | str | None = None,
        cases: Sequence[Case] | None = None,
    ) -> dict[int, str] | None:
        """Return the names of the classes from the settings or the labels."""
        if self.options.classes is not None:
            return dict(enumerate(self.options.classes, 1))
        names: dict[int, str] = {}
        found = dataset.find_cases(images, labels, self.any_driver) if cases is None else cases
        for path in dataset.label_files(found):
            content = read_coco(path)
            if content is not None:
                names |= content.names
        return names or None

    def fit(self, cases: Sequence[Case]) -> None:
        """Measure properties shared by all rasters of the training set, and keep them.

        These are the range of values, if rasters share one, the scale of the tiles,
        and the names of the classes, if the labels hold names. Values of the settings are
        kept.
        """
        if self.scaling.ranges is None and self.scaling.mode in ("auto", "set"):
            files = dict.fromkeys(case.image for case in cases)
            measured = [sample_raster(f, self.bands, self.nodata, self.any_driver) for f in files]
            samples = [s for dtype, s in measured if self.scaling.is_measured_on_set(dtype)]
            if samples:
                if len({len(sample.values) for sample in samples}) > 1:
                    raise InputError(
                        "the rasters differ in their number of bands; choose some with bands, or "
                        "use --set scaling=raster"
                    )
                joined = samples[0].joined(samples[1:])
                ranges = joined.percentiles(self.scaling.lower, self.scaling.upper)
                self.scaling = replace(self.scaling, ranges=ranges)
                logger.info("values %s become black to white", ranges)
        self.fit_scale([self._part(self._raster(case), case) for case in cases])
        field = self.options.class_field
        if field is not None and self.options.classes is None:
            paths = {case.label for case in cases if case.label is not None}
            vectors = sorted(path for path in paths if dataset.is_vector(path))
            names = features.class_table(vectors, field, self.any_driver)
            self.options = replace(self.options, classes=names)

    def read(self, case: Case) -> Raster:
        """Open a raster and its label; pixels are read when frames are cut.

        Raises:
            InputError: The raster or its label cannot be used.
        """
        raster = self._raster(case)
        if raster.crs is None:
            logger.warning("%s %s: everything is in pixels", case.image, raster.unplaced)
        raster = replace(raster, source_id=case.case_id)
        if case.label is not None:
            raster = self.with_label(raster, case.label)
        raster = self._part(raster, case)
        self.grid(raster)
        return raster

    def with_label(
        self, source: Raster, label: npt.NDArray[np.integer] | RasterPrediction | Path | str
    ) -> Raster:
        """Return a raster with another label: an array on its grid, a mask or a vector file."""
        if isinstance(label, RasterPrediction):
            label = label.label()
        if isinstance(label, Path | str):
            path = Path(label)
            if dataset.is_vector(path):
                found = features.read_features(path, source, self.options)
                return replace(source, labels=labels.FeatureLabels(found, self.instances))
            labels.check_mask(path, source, self.any_driver)
            mask = labels.MaskLabels(path, source, self.label_map, self.any_driver)
            return replace(source, labels=mask)
        if label.shape != source.size:
            raise ValueError(f"label {label.shape} for a raster of {source.size} pixels")
        return replace(source, labels=labels.ArrayLabels(source.window, label))

    def maps(self, source: Raster, prediction: Any = None) -> LabelMaps:
        """Return a prediction, or the raster's own label, as whole arrays."""
        whole = Window(0, 0, *source.size)
        if prediction is None:
            read = source.read_label(whole)
            if read is None:
                raise InputError(f"{source.path} has no label")
            valid = source.valid(whole)
            known = valid if read.known is None else valid & read.known
            return LabelMaps(read.label, read.instances, known)
        if isinstance(prediction, RasterPrediction):
            return LabelMaps(prediction.label(), prediction.instances(), scores=prediction.scores)
        return LabelMaps(prediction)

    def all_frames(self, source: Raster) -> Raster:
        """Return a raster whose tiles lie on a grid."""
        return replace(source, places=None)

    def frames_around_prompts(
        self, source: Raster, prompts: Mapping[int, FramePrompts] | None
    ) -> tuple[Raster, dict[int, FramePrompts]]:
        """Return a raster whose tiles surround the prompts, and the prompts on these tiles.

        Args:
            source: The raster as read.
            prompts: By tile of the grid; None: no prompts.
        """
        asked = dict(prompts or {})
        if self.placing != GRID and len(self.grid(source)) > 1:
            placed = place(asked, self.grid(source), alone=self.placing == OBJECTS)
            if placed is not None:
                windows, asked = placed
                source = replace(source, places=windows)
        return source, asked

    def frame_count(self, source: Raster) -> int:
        """Return the number of tiles."""
        return len(self.tiles(source))

    def frame(self, source: Raster, index: int) -> Frame:
        """Cut one tile, with its label and valid mask.

        Returns:
            The tile as (H, W), in the file's own pixels; black on invalid pixels. Below and
            at the right of a raster that is smaller than a tile, none is valid, see `scale`.
        """
        grid = self.tiles(source)
        part = grid.window(index)
        values, valid = source.read(part)
        image = source.picture(values)
        image[~valid] = 0
        read = source.read_label(part)
        if read is not None and read.known is not None:
            valid = valid & read.known
        size = self.frame_size(grid, part)
        valid = filled_up(valid, size)
        label, instances = (None, None) if read is None else (read.label, read.instances)
        return Frame(
            image=filled_up(image, size),
            location=FrameLocation(source.source_id, index, (part.row, part.column)),
            label=None if label is None else filled_up(label, size),
            valid=None if valid.all() else valid,
            instances=None if instances is None else filled_up(instances, size),
        )

    def merge(
        self, source: Raster, frame_labels: Mapping[int, npt.NDArray[np.integer]]
    ) -> npt.NDArray[np.integer]:
        """Put tiles' labels back on the raster's grid; in overlaps the highest weight counts."""
        grid = self.tiles(source)
        parts = {n: label[grid.window(n).shown] for n, label in frame_labels.items()}
        return grid.merge(parts, source.source_id)

    def merger(self, source: Raster) -> Merger:
        """Return the merger that blends tiles' scores and joins objects across their borders."""
        return TileMerger(source, self.tiles(source))

    def map_merger(self, source: Raster) -> TileMaps:
        """Return the merger that blends the tiles' values into a map."""
        return TileMaps(self.tiles(source))

    def write_map(self, source: Raster, values: ScratchRaster, path: Path | str) -> Path:
        """Write a map's float32 values on the raster's grid, NaN on nodata, as GeoTIFF."""
        return write_map(source, values.read, Path(path))

    def read_boxes(
        self,
        source: Raster,
        path: PromptFile | str,
        *,
        class_names: Mapping[int, str] | None = None,
        only_case: bool = True,
    ) -> dict[int, FramePrompts]:
        """Read boxes, points or polygons of a vector file; see `prompts.read_prompts`."""
        return read_prompts(
            Path(path) if isinstance(path, str) else path,
            source,
            self.grid(source),
            self.options,
            class_names=class_names,
            only_case=only_case,
            every=self.placing != GRID,
        )

    def holds_prompts(self, path: Path) -> bool:
        """Return whether a file holds prompts: a vector file, or an annotation tool's."""
        ending = path.suffix.lower()
        return ending in self.prompt_endings or is_cvat(path) or is_napari(path)

    def prompt_classes(self, paths: Sequence[PromptFile]) -> dict[int, str]:
        """Return label value to name of the classes in files of prompts."""
        if self.options.classes is not None:
            return dict(enumerate(self.options.classes, 1))
        return prompt_classes(paths, self.options)

    def with_classes(self, classes: Mapping[int, str]) -> "SatelliteDomain":
        """Return this domain: coarse labels of rasters are numbers."""
        return self

    def read_back(self, path: Path) -> npt.NDArray[np.integer]:
        """Read a class map that `write` wrote, int32 (H, W); nodata is background."""
        with open_raster(path) as written:
            label = written.read(1)
            return np.where(label == written.nodata, 0, label).astype(np.int32)

    def export(
        self,
        source: Raster,
        label: RasterPrediction,
        stem: Path,
        formats: Sequence[str] = (),
        *,
        measure: bool = False,
        facts: LabelFacts | None = None,
    ) -> list[Path]:
        """Write a prediction in several formats; see `write_formats`."""
        assert not measure, self.unmeasured
        names = dict(facts.classes) if facts else {}
        return write_formats(label, stem, formats or DEFAULT_FORMATS, self.polygons, names)

    def write(
        self, source: Raster, label: npt.NDArray[np.integer] | RasterPrediction, path: Path | str
    ) -> Path:
        """Write the class map on the raster's grid, nodata where the raster has none.

        Args:
            source: The raster.
            label: A prediction, or integer (H, W), class per pixel.
            path: The file; ".tif" is added to a path without it.
        """
        if isinstance(label, RasterPrediction):
            highest = int(label.classes.max(initial=0))
            return write_label(source, label.label, Path(path), highest)
        if label.shape != source.size:
            raise ValueError(f"label {label.shape} for a raster of {source.size} pixels")
        highest = int(label.max(initial=0))
        return write_label(source, lambda part: label[part.slices], Path(path), highest)

    def _raster(self, case: Case) -> Raster:
        return read_raster(
            case.image,
            case.case_id,
            bands=self.bands,
            scaling=self.scaling,
            nodata=self.nodata,
            any_driver=self.any_driver,
        )

    def _part(self, raster: Raster, case: Case) -> Raster:
        if case.part is None:
            return raster
        return replace(raster, window=self._blocks(raster)[case.part])

    def _blocks(self, raster: Raster) -> dict[str, Window]:
        assert self.block is not None
        return blocks(raster.file_size, self.block.pixels(raster.ground, "block"))

    def _extent(self, case: Case, raster: Raster) -> Any:
        assert case.label is not None
        if read_coco(case.label) is not None:
            return None
        table = features.read_table(case.label, raster, self.options)
        return shapely.box(*table.total_bounds)


def _outline(raster: Raster) -> Any:
    height, width = raster.file_size
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    return features.transformed(
        np.array([shapely.Polygon(corners)], object), raster.geotransform or Affine.identity()
    )[0]
