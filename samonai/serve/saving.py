"""Saving of corrected labels: on the source's own grid, with every earlier version kept."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from samonai.core.files import write_atomically
from samonai.domains.base import LabelFacts
from samonai.inference.writing import PredictionWriter

if TYPE_CHECKING:
    from samonai.serve.workspace import OpenCase, Workspace

LABELS, EXPORTS, HISTORY = "labels", "exports", "history"
RECORD_FILE = "record.json"


def save_label(workspace: "Workspace", one: "OpenCase", version: int) -> list[Path]:
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
    label = domain.merge(one.source, workspace.frame_labels(one))
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
        writer.claims.claim(case)
        written += writer.write(case.case_id, one.source, label)
    return written
