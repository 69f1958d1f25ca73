"""Saving of corrected labels: on the source's own grid, with every earlier version kept."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.json_files import read_json
from samonai.domains.base import LabelFacts
from samonai.inference.writing import PredictionWriter
from samonai.prompts.frame_prompts import FramePrompts
from samonai.serve.annotation import FrameObject, objects_of
from samonai.serve.open_cases import OpenCase, OpenCases

LABELS, EXPORTS, HISTORY = "labels", "exports", "history"
RECORD_FILE = "record.json"
_BESIDE_MAPS = frozenset({".json", ".gpkg", ".geojson", ".csv"})
"""Endings of files beside label maps: polygons, text, tables."""
_INSIDE = 10.0  # a logit that no averaging of neighbouring frames turns


def saved_label(out: Path, case_id: str) -> Path:
    """Return the file of a case's latest label map.

    Args:
        out: The workspace.
        case_id: The case.

    Raises:
        InputError: No label was saved.
    """
    maps = [
        path
        for path in sorted((out / LABELS).glob(f"{case_id}.*"))
        if path.suffix not in _BESIDE_MAPS
    ]
    if not maps:
        raise InputError(f"{out / LABELS} holds no label map of {case_id}; save it again")
    return maps[0]


def versions(out: Path, case_id: str) -> list[dict[str, Any]]:
    """Return who saved which version of a case when, with which model; the latest first.

    Args:
        out: The workspace.
        case_id: The case.
    """
    found = []
    for path in sorted((out / HISTORY / case_id).glob(f"*/{RECORD_FILE}"), reverse=True):
        record = read_json(path)
        told = {key: record[key] for key in ("version", "time", "user", "model")}
        found.append({**told, "objects": len(record["annotation"]["objects"])})
    return found


def saved_objects(out: Path, case_id: str, version: int) -> tuple[FrameObject, ...]:
    """Return the objects of a saved version.

    Raises:
        InputError: There is no such version, or its record is damaged.
    """
    try:
        record = read_json(out / HISTORY / case_id / f"{version:04d}" / RECORD_FILE)
        return objects_of(record["annotation"])
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"version {version}: there is no such version of {case_id}") from error


def masks_of_versions(out: Path, case_id: str) -> set[str]:
    """Return the names of the masks of all saved versions, which stay for going back."""
    numbers = [one["version"] for one in versions(out, case_id)]
    objects = [o for number in numbers for o in saved_objects(out, case_id, number)]
    return {name for one in objects for name in (one.mask, one.outline) if name}


def merged(workspace: OpenCases, one: OpenCase) -> Any:
    """Return what the domain's merger makes of a case's objects, as of a prediction's.

    Where objects of one frame overlap, the one that was drawn later is on top.
    """
    domain, masks = workspace.session.domain, workspace.folder(one.case.case_id).masks
    merger = domain.merger(one.source)
    ids = {
        name: number
        for number, name in enumerate(dict.fromkeys(o.object_id for o in one.annotation.objects), 1)
    }
    for index in sorted({drawn.frame for drawn in one.annotation.objects}):
        objects = one.annotation.on_frame(index)
        inside = np.stack([masks.read(drawn.mask) for drawn in objects])
        order = np.arange(1, len(objects) + 1, dtype=np.float32)[:, None, None]
        merger.add(
            domain.frame(one.source, index),
            np.where(inside, _INSIDE + order / len(objects), -_INSIDE).astype(np.float32),
            FramePrompts(
                np.full((len(objects), 4), np.nan, np.float32),
                np.array([drawn.value for drawn in objects], np.int64),
                np.array([ids[drawn.object_id] for drawn in objects], np.int64),
            ),
        )
    return merger.finish()


def save_label(workspace: OpenCases, one: OpenCase, version: int) -> list[Path]:
    """Write a case's label map, its version in the history first.

    `labels/` holds the latest label of each case, which training reads; `exports/` the formats
    that were asked for besides; `history/CASE/VERSION/` each version with who made it, when, from
    which prompts and with which model.

    Args:
        workspace: Where to.
        one: The case.
        version: Number of the version, from 1.

    Returns:
        The files of `labels/` and `exports/`.

    Raises:
        InputError: The files cannot be written, or belong to another source of the same name.
    """
    session, case = workspace.session, one.case
    domain = session.domain
    label = merged(workspace, one)
    facts = LabelFacts(dict(one.annotation.structures), session.facts.algorithm)
    past = workspace.out / HISTORY / case.case_id / f"{version:04d}"
    PredictionWriter(past, domain, facts=facts).write(case.case_id, one.source, label)
    record = {
        "case": case.case_id,
        "version": version,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "user": workspace.user,
        "model": dict(session.facts.algorithm),
        "annotation": one.annotation.document(),
    }
    with write_atomically(past / RECORD_FILE) as temporary:
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    written: list[Path] = []
    targets = [(LABELS, ())] + ([(EXPORTS, workspace.formats)] if workspace.formats else [])
    for folder, formats in targets:
        writer = PredictionWriter(workspace.out / folder, domain, formats=formats, facts=facts)
        writer.ownership.register(case)
        written += writer.write(case.case_id, one.source, label)
    return written
