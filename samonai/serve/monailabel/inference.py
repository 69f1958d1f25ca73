"""Models that clients see, and their answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.responses import JSONResponse, Response

from samonai.core.errors import InputError
from samonai.domains.medical.formats.nrrd import nrrd_bytes
from samonai.domains.medical.volume import Volume
from samonai.serve.monailabel import labels, masks, wire
from samonai.serve.monailabel.images import CaseIndex
from samonai.serve.monailabel.sent_labels import SentLabel
from samonai.serve.monailabel.uploads import Uploads
from samonai.serve.open_cases import NotThereError
from samonai.serve.workspace import Workspace

AUTO, CLICKS, SCRIBBLES = "auto", "clicks", "scribbles"

_DEFAULT_REACH = 10
_MOST_REACH = 1000


@dataclass(frozen=True)
class Result:
    """Masks of one image.

    Attributes:
        source: The image.
        label: uint8 (I, J, K), the places of the names from 1; 0 is background.
        names: Place by name, without gaps.
    """

    source: Volume
    label: npt.NDArray[np.uint8]
    names: Mapping[str, int]


class Inference:
    """Models over a workspace's session.

    Args:
        workspace: Cases and the session.
        uploads: Images of sessions.
        index: Cases by the ids of clients.
    """

    def __init__(self, workspace: Workspace, uploads: Uploads, index: CaseIndex) -> None:
        """Keep what requests need."""
        self.workspace, self.uploads, self.index = workspace, uploads, index

    def models(self) -> dict[str, Any]:
        """Return the models by name; 3D Slicer takes the first that knows a label on opening."""
        spread = {"propagate": False, "propagate_slices": _DEFAULT_REACH}
        known = labels.ranks_of(self.workspace.classes)
        found = {
            CLICKS: _model("deepgrow", known, "One object from points and a box", spread),
            SCRIBBLES: _model("scribbles", known, "Corrects a segment by scribbles", spread),
        }
        if not self.workspace.proposes:
            return found
        trained = labels.ranks_of(self.workspace.session.classes)
        return {AUTO: _model("segmentation", trained, "All that the run knows", {}), **found}

    def source(self, image: str, session_id: str) -> Volume:
        """Return the image that a request is about: a session's, or a case's.

        Raises:
            NotThereError: There is no such image or session.
        """
        if session_id:
            return self.uploads.session_source(session_id)
        source: Volume = self.workspace.opened(self.index.case_of(image)).source
        return source

    def segment(
        self,
        model: str,
        image: str,
        source: Volume,
        params: Mapping[str, Any],
        label: SentLabel | None,
    ) -> Result:
        """Segment an image.

        Args:
            model: Name of the model; empty: the label that annotation begins with.
            image: The client's id of the image.
            source: The image.
            params: What the client asks for.
            label: The segments and scribbles that came with the request.

        Raises:
            InputError: The prompts cannot be used.
        """
        session = self.workspace.session
        if not model:
            return self._begin(image, source)
        if model == AUTO:
            found = np.asarray(session.predict(source).label)
            names = labels.ranks_of(session.classes)
            return Result(source, labels.ranked(found, session.classes), names)
        reach = _reach(params)
        if model == CLICKS:
            name = str(params.get("label") or "object")
            return Result(source, masks.prompted_mask(session, source, params, reach), {name: 1})
        assert label is not None
        named = {name: value for value, name in label.names.items()}
        mask = masks.scribbled_mask(session, source, label.label, named, params, reach)
        return Result(source, mask, {str(params.get("selected_label_name")): 1})

    def _begin(self, image: str, source: Volume) -> Result:
        """Return the label that annotation begins with; an empty one where there is none.

        3D Slicer's module segments each new sample with a model that knows one of the labels, and
        sends an empty name where none of type "segmentation" does.
        """
        try:
            case_id = self.index.case_of(image)
            classes = self.workspace.opened(case_id).annotation.structures
            found = labels.label_of(self.workspace, case_id, labels.ORIGINAL)
        except NotThereError:
            classes = self.workspace.classes
            found = np.zeros(source.shape, np.uint8)
        return Result(source, labels.ranked(found, classes), labels.ranks_of(classes))


def answer(wanted: str | None, params: Mapping[str, Any], result: Result) -> Response:
    """Return masks as the request wants them.

    Args:
        wanted: "image", a bare NRRD file, raw as OHIF's reader needs it; "json", the names alone;
            "all" or None, both in one multipart body.
        params: "result_compress": false asks for a raw file.
        result: The masks.

    Raises:
        InputError: Another kind is wanted.
    """
    told = {"label_names": dict(result.names)}
    if wanted == "json":
        return JSONResponse(told)
    if wanted == "image":
        return wire.attachment(nrrd_bytes(result.label, result.source.affine), "mask.nrrd")
    if wanted not in (None, "", "all"):
        raise InputError("output: expected image, json or all")
    compress = params.get("result_compress") is not False
    nrrd = nrrd_bytes(result.label, result.source.affine, compress=compress)
    return wire.multipart(told, nrrd)


def _model(
    kind: str, known: Mapping[str, int], description: str, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a model as clients read it; a dictionary of labels, since OHIF counts lists from 1."""
    return {
        "type": kind,
        "labels": dict(known),
        "dimension": 3,
        "description": description,
        "config": dict(config),
    }


def _reach(params: Mapping[str, Any]) -> int:
    """Return how many slices on each side a mask is carried to, from a client's settings."""
    if str(params.get("propagate", "")).lower() not in ("1", "true", "yes"):
        return 0
    given = params.get("propagate_slices", _DEFAULT_REACH)
    try:
        reach = int(given)
    except (TypeError, ValueError):
        reach = -1
    if not 0 <= reach <= _MOST_REACH:
        raise InputError(f"propagate_slices: expected a number of 0 to {_MOST_REACH}")
    return reach
