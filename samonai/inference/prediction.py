"""Predictions in memory: a label map with further results of its domain, until they are written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import numpy as np
import numpy.typing as npt

from samonai.domains.base import Case, Domain, LabelFacts, SourceT
from samonai.domains.capabilities import capabilities
from samonai.inference.frame_outputs import CasePrompts
from samonai.inference.uncertainty import SourceUncertainty
from samonai.inference.writing import PredictionWriter


@dataclass(frozen=True)
class Prediction(Generic[SourceT]):
    """One predicted source in memory.

    Attributes:
        case: Name and path of the source.
        source: The source whose frames were decoded.
        domain: Its kind of data.
        result: Result of the domain's merger: an array, or a handle of one larger than memory.
        prompts: By frame index, on the frames of `source`; or `Automatic`.
        facts: Names of the classes, and the algorithm.
        uncertainty: Uncertainty of the networks; None if not requested or unknown.
    """

    case: Case
    source: SourceT
    domain: Domain[SourceT]
    result: Any
    prompts: CasePrompts
    facts: LabelFacts
    uncertainty: SourceUncertainty | None = None

    @property
    def label(self) -> npt.NDArray[np.int32]:
        """Return the label map as it is written, int32 on the source's grid, 0 is background."""
        known = capabilities(self.domain)
        if known.results is not None:
            label = known.results.result_label(self.source, self.result, self.facts)
        elif known.object_maps is not None:
            label = known.object_maps.maps(self.source, self.result).label
        else:
            label = self.result
        return np.asarray(label).astype(np.int32)

    @property
    def instances(self) -> npt.NDArray[np.int32] | None:
        """Return the number of the object at each pixel, 0 is none; None: classes only."""
        known = capabilities(self.domain)
        maps = known.object_maps
        found = None if maps is None else maps.maps(self.source, self.result).instances
        if found is None:
            return None
        # A query leaves out regions that do not match it.
        shown = np.asarray(found) if known.results is None else np.where(self.label > 0, found, 0)
        return shown.astype(np.int32)

    @property
    def query_result(self) -> Any:
        """Return regions, text and scores if the domain's results have them; else None."""
        results = capabilities(self.domain).results
        return (
            None if results is None else results.query_result(self.source, self.result, self.facts)
        )

    def write(
        self,
        out: Path | str,
        formats: Sequence[str] = (),
        *,
        ending: str = "",
        measure: bool = False,
    ) -> list[Path]:
        """Write the prediction under its case's name and return the files.

        Args:
            out: The folder.
            formats: Of those that the domain writes; none: the input's own kind.
            ending: File ending instead, such as ".nrrd".
            measure: Write measurements too.

        Raises:
            InputError: A format is unknown, or the name is another source's in this folder.
        """
        writer = PredictionWriter(out, self.domain, ending, formats, measure, self.facts)
        writer.ownership.register(self.case)
        return self.write_with(writer)

    def write_with(self, writer: PredictionWriter[SourceT]) -> list[Path]:
        """Write with a writer that owns the case's name; return the files."""
        name = self.case.case_id
        written = writer.write(name, self.source, self.result, self.domain, self.facts)
        if self.uncertainty is not None:
            written += self.uncertainty.write(
                writer.folder, name, self.domain, self.source, writer.ending
            )
        return written
