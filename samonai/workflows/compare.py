"""Comparison of runs, evaluations and label maps of other tools on the same cases."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samonai.core.csv_cells import csv_row
from samonai.core.errors import InputError
from samonai.core.files import output_folder, write_atomically
from samonai.core.json_files import read_json
from samonai.core.sealed import sealed
from samonai.workflows.inputs import existing
from samonai.workflows.run_folder import SETTINGS_FILE

METRICS_FILE = "metrics.json"
RESULT_FILE = "compare.json"
Row = dict[str, Any]


@dataclass(frozen=True)
class _Compared:
    """One side of a comparison.

    Attributes:
        name: Its name in tables.
        rows: One row per case and class.
        patients: Number of each case's patient, if known.
        prompts: Origin of its prompts; None: label maps of another tool.
    """

    name: str
    rows: list[Row]
    patients: Mapping[str, Any]
    prompts: Mapping[str, Any] | None = None


def compare(
    items: Sequence[Path | str],
    out: Path | str,
    *,
    images: Path | str | None = None,
    labels: Path | str | None = None,
    cases: str | Sequence[str] | None = None,
    prompts: str = "slices",
    groups: Path | str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare runs, finished evaluations and folders of label maps, matched by case and class.

    Args:
        items: Two or more. A run's folder is evaluated first; a folder with `metrics.json`, or this
            file, is an evaluation; any other folder holds label maps of any tool: a file per case,
            or a folder per case with a file per structure.
        out: Folder of `compare.json`, `compare.csv` and `index.html`.
        images: Images, needed for runs.
        labels: Reference labels, needed for runs and label maps.
        cases: Cases of runs; see `evaluate`.
        prompts: Prompts of runs; see `evaluate`.
        groups: JSON file with the patient of each case.
        seed: Seed of the jitter and of the bootstrap.

    Returns:
        Content of `compare.json`: `names`, `cases` (rows), `statistics` (the first against each of
        the others), `left_out` (cases that not all have).

    Raises:
        InputError: There are fewer than two, one of them cannot be read, or no case is common.
    """
    from samonai.metrics.statistics import evaluation_statistics
    from samonai.training.data.folds import read_groups

    paths = [existing(item, "to compare") for item in items]
    if len(paths) < 2:
        raise InputError("compare two or more: runs, evaluations, or folders of label maps")
    out = output_folder(out)
    names = _distinct(paths)
    found = [
        _side(path, name, out, images, labels, cases, prompts, seed)
        for path, name in zip(paths, names, strict=True)
    ]
    keys, left_out = _common(found)
    patients = _patients(found, None if groups is None else read_groups(groups))
    rows = [
        {**table[key], "method": side.name, "case": key[0], "class": key[1]}
        for side in found
        for table in [_table(side)]
        for key in keys
    ]
    metrics = [m for m in _columns(found) if all(m in row for row in rows)]
    document = {
        "names": names,
        "prompts": {side.name: side.prompts for side in found},
        "left_out": left_out,
        "per_class": {name: {} for name in dict.fromkeys(key[1] for key in keys)},
        "cases": rows,
        "statistics": evaluation_statistics(rows, metrics, patients, seed),
    }
    _write(out, document, metrics)
    return document


def _side(
    path: Path,
    name: str,
    out: Path,
    images: Path | str | None,
    labels: Path | str | None,
    cases: str | Sequence[str] | None,
    prompts: str,
    seed: int,
) -> _Compared:
    """Return one side: an evaluation, an evaluated run, or measured label maps."""
    if path.is_dir() and (path / SETTINGS_FILE).is_file():
        if images is None or labels is None:
            raise InputError(f"{path} is a run: give --images and --labels to evaluate it on")
        from samonai.workflows.run import evaluate

        folder = out / name
        evaluate(
            path, images, labels, folder, cases=cases, prompts=prompts, seed=seed, zero_shot=False,
            report=False,
        )  # fmt: skip
        return _evaluation(folder / METRICS_FILE, name)
    file = path / METRICS_FILE if path.is_dir() else path
    if file.is_file():
        return _evaluation(file, name)
    if labels is None:
        raise InputError(f"{path} holds label maps: give --labels to measure them against")
    rows = list(_label_map_rows(path, existing(labels, "labels")))
    return _Compared(name, rows, {})


def _evaluation(file: Path, name: str) -> _Compared:
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("cases"), list):
        raise InputError(f"{file}: no evaluation of samonai; expected metrics.json")
    return _Compared(name, content["cases"], content.get("patients", {}), content.get("prompts"))


def _label_map_rows(folder: Path, labels: Path) -> Iterator[Row]:
    """Measure the label maps of a folder against the reference of the same names.

    Raises:
        InputError: No case has both, or a label map lies on another grid.
    """
    from samonai.domains.base import metric_spacing
    from samonai.domains.medical import MedicalDomain
    from samonai.domains.medical.dataset import label_maps
    from samonai.domains.medical.dataset_file import read_class_names
    from samonai.metrics.volumes import case_rows

    predicted, reference = label_maps(folder), label_maps(labels)
    both = sorted(set(predicted) & set(reference))
    if not both:
        raise InputError(
            f"{folder} and {labels} have no case in common; label maps are matched by their names"
        )
    domain = MedicalDomain()
    wanted = domain.prompt_classes([reference[name] for name in both])
    wanted = wanted or read_class_names(labels) or {}
    own = domain.prompt_classes([predicted[name] for name in both])
    own = own or read_class_names(folder) or {}
    named = bool(wanted and own)
    if named and not set(wanted.values()) & set(own.values()):
        raise InputError(
            f"{folder}: its structures ({', '.join(list(own.values())[:3])}) are none of the "
            f"reference's ({', '.join(list(wanted.values())[:3])})"
        )
    values = {name: value for value, name in wanted.items()}
    for case in both:
        grid = _reference(domain, case, reference[case], wanted)
        label = domain.with_classes(own).with_label(grid, predicted[case]).label
        assert label is not None
        assert grid.label is not None
        classes = dict(wanted)
        if named:
            mapped = np.zeros_like(label)
            for value, name in own.items():
                if name in values:
                    mapped[label == value] = values[name]
            label = mapped
            classes = {v: n for v, n in wanted.items() if n in set(own.values())}
        elif not classes:
            found = np.unique(np.concatenate([np.unique(label), np.unique(grid.label)]))
            classes = {int(v): f"class_{v}" for v in found if v}
        yield from case_rows(
            label, grid.label, spacing=metric_spacing(grid), classes=classes, case_id=case
        )


def _reference(domain: Any, case: str, path: Path, classes: Mapping[int, str]) -> Any:
    """Return the reference as a volume on its own grid, with its label."""
    from samonai.domains.medical.formats.read_volume import ENDINGS, read_volume

    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    first = next((one for one in inside if one.name.lower().endswith(ENDINGS)), path)
    volume = read_volume(first)
    return domain.with_classes(classes).with_label(volume, path)


def _common(found: Sequence[_Compared]) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Return the case and class of the rows that all have, and the numbers of the others."""
    keys = [list(_table(side)) for side in found]
    common = [key for key in keys[0] if all(key in set(others) for others in keys[1:])]
    if not common:
        shown = "; ".join(
            f"{side.name}: {_few(own)}" for side, own in zip(found, keys, strict=True)
        )
        raise InputError(f"no case and class is common to all ({shown})")
    left_out = {side.name: len(own) - len(common) for side, own in zip(found, keys, strict=True)}
    return common, left_out


def _table(side: _Compared) -> dict[tuple[str, str], Row]:
    return {(str(row["case"]), str(row["class"])): row for row in side.rows}


def _few(keys: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{case} {name}" for case, name in keys[:2]) or "none"


def _columns(found: Sequence[_Compared]) -> list[str]:
    """Return the metrics that all sides have, in the order of the first."""
    from samonai.metrics import objects, volumes

    known = dict.fromkeys((*volumes.METRICS, *objects.METRICS))
    return [m for m in known if all(side.rows and m in side.rows[0] for side in found)]


def _patients(
    found: Sequence[_Compared], groups: Mapping[str, str] | None
) -> dict[str, str] | None:
    if groups is not None:
        return dict(groups)
    known = next((side.patients for side in found if side.patients), None)
    return None if known is None else {case: f"patient {n}" for case, n in known.items()}


def _distinct(paths: Sequence[Path]) -> list[str]:
    names = [path.resolve().name if path.is_dir() else path.resolve().parent.name for path in paths]
    return [
        name if names.count(name) == 1 else f"{path.resolve().parent.name}_{name}_{number}"
        for number, (name, path) in enumerate(zip(names, paths, strict=True), 1)
    ]


def _write(out: Path, document: Mapping[str, Any], metrics: Sequence[str]) -> None:
    from samonai.report.comparison import write_comparison

    with write_atomically(out / RESULT_FILE) as temporary:
        text = json.dumps(sealed(document), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    with (
        write_atomically(out / "compare.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(
            file, ["case", "class", "method", *metrics], extrasaction="ignore", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(map(csv_row, document["cases"]))
    write_comparison(out, document)
