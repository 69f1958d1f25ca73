"""Label maps of clients: saved into the workspace, and sent with values 1..N.

3D Slicer gives the i-th name to label value i, so label maps that are sent have the structures'
places as values. Label maps that are saved get the workspace's own values, by name.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.core.errors import InputError
from samonai.serve.annotation import CORRECTED, GIVEN, PREDICTED, PROPOSED
from samonai.serve.monailabel.sent_labels import SentLabel
from samonai.serve.open_cases import NotThereError, OpenCase
from samonai.serve.workspace import Workspace

FINAL, ORIGINAL = "final", "original"
"""Tags: the label saved last, and the one that annotation begins with or stands at."""


def ranks_of(classes: Mapping[int, str]) -> dict[str, int]:
    """Return the places of structures from 1, in order of label values, by name."""
    return {name: n for n, (_, name) in enumerate(sorted(classes.items()), 1)}


def ranked(label: npt.NDArray[np.integer], classes: Mapping[int, str]) -> npt.NDArray[np.uint8]:
    """Return a label map with the structures' places as values.

    Raises:
        InputError: The map has a value without a name.
    """
    highest = int(label.max())
    table = np.zeros(highest + 1, np.uint8)
    for place, value in enumerate(sorted(classes), 1):
        if value <= highest:
            table[value] = place
    for value in np.flatnonzero(np.bincount(label.ravel(order="K"))).tolist():
        if value and value not in classes:
            raise InputError(f"the label has value {value}, which has no name; give it one")
    return table[label]


def label_of(workspace: Workspace, case_id: str, tag: str) -> npt.NDArray[np.integer]:
    """Return a case's label map, the workspace's values on the image's grid.

    Args:
        workspace: Has the case.
        case_id: The case.
        tag: `FINAL` or `ORIGINAL`.

    Raises:
        InputError: There is no such label.
    """
    one = workspace.opened(case_id)
    if tag == FINAL and one.annotation.saved == 0:
        raise _no_label(case_id, tag)
    with one.lock:
        drawn = workspace.frame_labels(one)
        if drawn or tag == FINAL:
            return np.asarray(workspace.session.domain.merge(one.source, drawn))
    if tag != ORIGINAL or one.source.label is None:
        raise _no_label(case_id, tag)
    return np.asarray(one.source.label)


def save_sent_label(
    workspace: Workspace,
    case_id: str,
    sent: SentLabel,
    *,
    done: bool,
) -> dict[str, Any]:
    """Replace a case's annotation by a label map that a client sent, and save it.

    Objects drawn in the page and not saved yet become a version of their own first.

    Args:
        workspace: Has the case.
        case_id: The case.
        sent: The label map; structures that the workspace has not get values of their own.
        done: Whether the case is finished.

    Returns:
        As `Workspace.save`.

    Raises:
        InputError: The label cannot be kept or written.
    """
    one, (label, names) = workspace.opened(case_id), sent.structures()
    with one.lock:
        part = label[one.source.part]
        if np.count_nonzero(part) < np.count_nonzero(label):
            raise InputError(
                "the label goes beyond the part of the image that the model sees; raise crop_margin"
            )
        kept = tuple(o for o in one.annotation.objects if o.origin != PROPOSED)
        if kept and one.annotation.state in (PREDICTED, CORRECTED):
            workspace.keep(one, one.annotation.changed(objects=kept))
            workspace.save(case_id, one.annotation.revision, done=False)
        table = np.zeros(int(label.max()) + 1, np.int32)
        for value in np.flatnonzero(np.bincount(label.ravel(order="K"))).tolist():
            if value:
                table[value] = _value_of(workspace, one, names[value])
        drawn = workspace.objects_of_label(one, table[label], GIVEN)
        workspace.keep(one, replace(one.annotation, objects=()).with_objects(*drawn))
        return workspace.save(case_id, one.annotation.revision, done=done)


def _value_of(workspace: Workspace, one: OpenCase, name: str) -> int:
    """Return the value of a structure; a new name gets the first that is free."""
    structures = one.annotation.structures
    for value, known in structures.items():
        if known == name:
            return value
    value = next(n for n in range(1, len(structures) + 2) if n not in structures)
    workspace.name_structure(one.case.case_id, value, name, one.annotation.revision)
    return value


def _no_label(case_id: str, tag: str) -> InputError:
    return NotThereError(f"{case_id[:80]} has no label {tag[:40]!r}")
