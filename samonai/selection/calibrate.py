"""Temperature scaling: one temperature per run, fitted on held-out cases, in the decoder's file.

The temperature divides logits before the sigmoid. It changes probabilities, never the threshold at
0, so no mask changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

from samonai.core.errors import InputError
from samonai.metrics.calibration import LogitHistogram
from samonai.sam.decoder_file import rewrite_metadata
from samonai.settings import flat
from samonai.workflows.inputs import data_paths, shows_progress
from samonai.workflows.run import Run

if TYPE_CHECKING:
    from samonai.domains.base import Case
    from samonai.inference import LabelPrompts
    from samonai.workflows.session import Session


@dataclass(frozen=True)
class Calibrated:
    """Result of fitting a temperature to a run; each figure before and after.

    Attributes:
        temperature: Above 1 the decoder was overconfident.
        cases: The cases it was fitted on.
        nll: Mean negative log-likelihood in nats.
        ece: Expected calibration error, 0..1.
        prompts: Settings of the prompts.
        settings: Settings of prediction other than the run's own.
    """

    temperature: float
    cases: tuple[str, ...]
    nll: tuple[float, float]
    ece: tuple[float, float]
    prompts: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record for the decoder's file."""
        return {
            "temperature": self.temperature,
            "cases": list(self.cases),
            "nll_before": self.nll[0],
            "nll": self.nll[1],
            "ece_before": self.ece[0],
            "ece": self.ece[1],
            "prompts": self.prompts,
            "settings": self.settings,
        }


def calibrate(
    run: Run,
    images: Path | str,
    labels: Path | str | None = None,
    *,
    cases: Sequence[str] | None = None,
    prompts: str = "slices",
    box_jitter: float = 0.05,
    seed: int = 0,
    progress: bool | None = None,
    **settings: Any,
) -> Calibrated:
    """Fit a run's temperature, and write it into its decoder's file.

    All classes share it. If several prompts are for one class the highest logit counts, in the
    region that `samonai.evaluation.calibration_metrics` describes.

    Args:
        run: The run.
        images: Folder of images, or a data list file.
        labels: Folder of labels; None with a data list that has them.
        cases: Names of cases; None: the run's held-out cases.
        prompts: "slices" or "volume", as for `evaluate`.
        box_jitter: Each side of a box moves by up to this share of the box.
        seed: Seed of the jitter.
        progress: Show a bar; by default if standard error is a terminal.
        **settings: Settings of prediction, see `Session`: those of the later predictions, since
            they change the logits.

    Raises:
        InputError: The cases cannot be used, or none of their voxels is near a prompt.
    """
    from samonai.inference import LabelPrompts, evaluation_cases
    from samonai.workflows.session import Session

    decoder = run.folder.decoder
    session = Session(run, store=run.folder.store(), **settings)
    chosen = evaluation_cases(session.domain, *data_paths(images, labels), decoder, cases)
    asked = LabelPrompts(prompts, box_jitter, seed=seed)
    total = _histogram(session, chosen, asked, shown=shows_progress(progress))
    nll, ece = total.nll(), total.ece()
    if nll is None or ece is None:
        raise InputError(f"the {len(chosen)} cases have no structure to calibrate {run.path} on")
    scale = total.fit_temperature()
    found = Calibrated(
        scale,
        tuple(case.case_id for case in chosen),
        (nll, total.nll(scale) or 0.0),
        (ece, total.ece(scale) or 0.0),
        asked.settings(),
        {name: session.settings[name] for name in flat(settings)},
    )
    rewrite_metadata(decoder, replace(run.metadata, calibration=found.to_json()))
    return found


def _histogram(
    session: "Session", cases: "Sequence[Case]", prompts: "LabelPrompts", *, shown: bool
) -> LogitHistogram:
    """Predict the cases, and count the logits of all classes together.

    Args:
        session: Reads and predicts the cases.
        cases: The cases to predict.
        prompts: Function to the prompts of each case.
        shown: Show a bar on standard error.
    """
    from samonai.evaluation import CalibrationMetrics
    from samonai.inference.case_dataset import prompted

    counts = CalibrationMetrics(session.decoders, session.classes)
    console, domain = Console(stderr=True), session.domain
    for case in track(cases, "calibrating", console=console, disable=not shown):
        item = prompted(domain, case, domain.read(case), prompts)
        session.decode(item, uncertainty=False, observers=[counts])
    return reduce(add, counts.of(counts.names[0]).values(), LogitHistogram())
