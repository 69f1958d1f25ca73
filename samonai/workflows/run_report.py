"""Report of a run: its page, and methods paragraphs with its facts."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from samonai.core.errors import InputError
from samonai.core.files import output_folder, write_atomically
from samonai.core.json_files import read_json
from samonai.workflows.inputs import existing
from samonai.workflows.run_folder import CURVE_FILE
from samonai.workflows.run_record import ENVIRONMENT_FILE
from samonai.workflows.trained_run import TrainedRun

METHODS_FILE = "methods.md"
_METRICS = "metrics.json"


def report(
    run: Path | str, out: Path | str | None = None, *, evaluation: Path | str | None = None
) -> Path:
    """Write `index.html` and `methods.md` of a run; return the page.

    Args:
        run: The run's folder.
        out: The folder; None: `report` in the run's folder.
        evaluation: Folder of an evaluation; None: the only one in the run's folder, if any.

    Raises:
        InputError: The run or the evaluation cannot be read, or the run holds several evaluations.
    """
    opened = TrainedRun(run)
    metrics = _metrics(opened.path, evaluation)
    environment = _environment(opened.path)
    decoder = asdict(opened.metadata)
    from samonai.report.html import write_report
    from samonai.report.methods import methods_sections

    sections = methods_sections(opened.settings, decoder, environment, metrics)
    folder = output_folder(opened.path / "report" if out is None else out)
    with write_atomically(folder / METHODS_FILE) as temporary:
        text = "\n\n".join(f"## {heading}\n\n{words}" for heading, words in sections)
        temporary.write_text(text + "\n", encoding="utf-8")
    curve = opened.path / CURVE_FILE
    facts = {
        "model": decoder["model"],
        "validation Dice": decoder["metrics"].get("val_dice"),
        "classes": ", ".join(decoder["classes"].values()),
    }
    return write_report(
        folder,
        title="Run",
        metrics=metrics,
        pictures=[("Learning curve", curve)] if curve.is_file() else [],
        facts=facts,
        texts=sections,
    )


def _metrics(run: Path, evaluation: Path | str | None) -> dict[str, Any] | None:
    if evaluation is not None:
        path = existing(evaluation, "the evaluation")
        file = path / _METRICS if path.is_dir() else path
        return _read(file)
    found = sorted(path for path in run.glob(f"*/{_METRICS}"))
    if len(found) > 1:
        raise InputError(
            f"{run} holds {len(found)} evaluations ({found[0].parent.name}, "
            f"{found[1].parent.name}, …); choose one with --evaluation"
        )
    return _read(found[0]) if found else None


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"{file}: no such file; give the folder that samonai evaluate wrote")
    content = read_json(file)
    if not isinstance(content, dict) or not {"cases", "summary", "per_class"} <= set(content):
        raise InputError(f"{file}: no evaluation of samonai")
    return content


def _environment(run: Path) -> dict[str, Any]:
    path = run / ENVIRONMENT_FILE
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
