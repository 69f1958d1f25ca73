"""Output files of predictions: label maps and other formats, with their ownership."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic

from samonai.core.errors import InputError
from samonai.core.files import all_or_none
from samonai.domains.base import Domain, LabelFacts, SourceT
from samonai.domains.capabilities import capabilities
from samonai.inference.output_ownership import OutputOwnership

logger = logging.getLogger(__name__)


class PredictionWriter(Generic[SourceT]):
    """Writer of predicted label maps on their sources' own grids.

    Args:
        output_dir: Folder of the files, named after their cases.
        domain: Writes them.
        ending: File ending such as ".nii.gz" or ".mha"; empty: the input's own.
        formats: Formats by name instead, several if need be, of those that the domain writes.
        measure: Write measurements beside each prediction.
        facts: Names of the classes and the algorithm, for formats that hold them.

    Attributes:
        ownership: Which source each case of the folder was predicted from; claim a case before its
            prediction is computed.

    Raises:
        InputError: The domain does not write the formats or the ending, or both are given.
    """

    def __init__(
        self,
        output_dir: Path | str,
        domain: Domain[SourceT],
        ending: str = "",
        formats: Sequence[str] = (),
        measure: bool = False,
        facts: LabelFacts | None = None,
    ) -> None:
        """Keep the folder and the formats."""
        self.folder, self.domain, self.ending = Path(output_dir), domain, ending
        self.formats, self.measure, self.facts = tuple(formats), measure, facts
        self.ownership = OutputOwnership(self.folder)
        _check_ending(domain, ending)
        _check_formats(domain, ending, self.formats, measure)

    def write(
        self,
        case_id: str,
        source: SourceT,
        label: Any,
        domain: Domain[SourceT] | None = None,
        facts: LabelFacts | None = None,
    ) -> list[Path]:
        """Write one prediction in every chosen format, and return the files.

        Args:
            case_id: The name of the files.
            source: The source.
            label: The label map, or the result of the domain's merger.
            domain: Writes this prediction, such as a domain with a query; None: the writer's.
            facts: Names of its classes, such as those that prompts brought; None: the writer's.
        """
        domain = domain or self.domain
        stem, facts = self.folder / case_id, facts or self.facts
        with all_or_none(self.folder, case_id):
            exporter = capabilities(domain).exporter
            if exporter is not None and not self.ending:
                written = exporter.export(
                    source,
                    label,
                    stem,
                    self.formats,
                    measure=self.measure,
                    facts=facts or self.facts,
                )
            else:
                written = [domain.write(source, label, stem.with_name(case_id + self.ending))]
        for path in written:
            logger.info("wrote %s", path)
        return written


def _check_ending(domain: Domain[Any], ending: str) -> None:
    if not ending:
        return
    endings = capabilities(domain).endings
    if not endings:
        raise InputError(f"ending {ending}: the {domain.name} domain has one only; leave it out")
    if ending not in endings:
        raise InputError(f"ending {ending!r} is not known; use {', '.join(endings)}")


def _check_formats(domain: Domain[Any], ending: str, formats: Sequence[str], measure: bool) -> None:
    if not formats and not measure:
        return
    exporter = capabilities(domain).exporter
    if exporter is None:
        raise InputError(f"the {domain.name} domain writes label maps only: no formats, no measure")
    if measure and exporter.unmeasured:
        raise InputError(exporter.unmeasured)
    if ending:
        raise InputError(f"ending {ending} beside formats or measure; give formats alone")
    for name in formats:
        if name not in exporter.formats:
            raise InputError(f"format {name!r} is not known; use {', '.join(exporter.formats)}")
