"""Annotation of one case: prompts and masks by object and frame, on disk after every change.

A folder per case holds `annotation.json`, with a digest of itself, and `masks/`, one PNG per mask
under the sha256 of its pixels. A mask is written before the document that names it, so that a
killed server leaves the document of the last change and every mask that it names.
"""

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.core.json_files import read_json
from samonai.core.sealed import is_whole, sealed
from samonai.domains.label_map import coordinates

UNLABELLED, PREDICTED, CORRECTED, DONE = "unlabelled", "predicted", "corrected", "done"
STATES = (UNLABELLED, PREDICTED, CORRECTED, DONE)

PROMPTED, PROPOSED, CARRIED, PAINTED, GIVEN = "prompt", "proposal", "carried", "paint", "label"
ACCEPTED = "accepted"
ORIGINS = (PROMPTED, PROPOSED, ACCEPTED, CARRIED, PAINTED, GIVEN)
"""Origin of a mask: prompts, the semantic head (proposed, or accepted by a person), a neighbouring
frame, a brush, or a label file."""

_OBJECT_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FORMAT_VERSION = 1
_MOST_CLICKS = 500


@dataclass(frozen=True)
class FrameObject:
    """One object on one frame.

    Attributes:
        object_id: The object's name; the same on each frame that shows it.
        frame: Number of the frame.
        value: Label value of its structure, 1 and up.
        mask: sha256 of its mask, see `MaskFolder`.
        box: xyxy in frame space, upper ends exclusive; None: no box.
        clicks: (x, y, sign) each, frame space, sign 1 inside and 0 outside the object.
        iou: The decoder's estimate of the mask's IoU, 0..1; None: no decoder made the mask.
        origin: See `ORIGINS`.
        outline: sha256 of the mask that was drawn as a prompt, see `MaskFolder`; None: none.
    """

    object_id: str
    frame: int
    value: int
    mask: str
    box: tuple[float, ...] | None = None
    clicks: tuple[tuple[float, float, int], ...] = ()
    iou: float | None = None
    origin: str = PROMPTED
    outline: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the object as JSON values."""
        return dict(vars(self))  # nothing in it can change

    @property
    def key(self) -> tuple[str, int]:
        """Return the object's name and the frame."""
        return self.object_id, self.frame


@dataclass(frozen=True)
class Annotation:
    """Prompts and masks of one case.

    Attributes:
        case_id: The case.
        revision: Number of changes so far; a change that names another one is refused.
        state: See `STATES`.
        objects: In the order in which they were drawn; later ones lie on top.
        structures: Label value to name.
        saved: Number of the version saved last, from 1; 0: none.
    """

    case_id: str
    revision: int = 0
    state: str = UNLABELLED
    objects: tuple[FrameObject, ...] = ()
    structures: Mapping[int, str] = field(default_factory=dict)
    saved: int = 0

    @property
    def masks(self) -> set[str]:
        """Return the names of all masks that the objects have."""
        return {name for one in self.objects for name in (one.mask, one.outline) if name}

    def on_frame(self, frame: int) -> list[FrameObject]:
        """Return the objects of one frame, in drawing order."""
        return [one for one in self.objects if one.frame == frame]

    def changed(self, **fields: Any) -> "Annotation":
        """Return the next revision, with other fields."""
        return replace(self, revision=self.revision + 1, **fields)

    def with_objects(self, *changed: FrameObject, state: str = CORRECTED) -> "Annotation":
        """Return the annotation with objects added, or replaced in their place."""
        new = {one.key: one for one in changed}
        kept = [new.pop(one.key, one) for one in self.objects]
        return self.changed(state=state, objects=(*kept, *new.values()))

    def without(self, object_id: str, frame: int | None = None) -> "Annotation":
        """Return the annotation without an object, on one frame or on all of them."""
        left = tuple(
            one
            for one in self.objects
            if one.object_id != object_id or frame not in (None, one.frame)
        )
        return self.changed(state=CORRECTED, objects=left)

    def document(self) -> dict[str, Any]:
        """Return the annotation as JSON values."""
        return {
            "format_version": _FORMAT_VERSION,
            "case": self.case_id,
            **self.facts(),
            "objects": [one.document() for one in self.objects],
        }

    def facts(self) -> dict[str, Any]:
        """Return everything but the objects, of which a volume has hundreds, as JSON values."""
        return {
            "revision": self.revision,
            "state": self.state,
            "structures": {str(value): name for value, name in sorted(self.structures.items())},
            "saved": self.saved,
        }


class MaskFolder:
    """Masks of one case: PNG files of one bit per pixel under the sha256 of their content."""

    def __init__(self, folder: Path) -> None:
        """Keep the folder; it is made with the first mask."""
        self.folder = folder

    def add(self, mask: npt.NDArray[np.bool_]) -> str:
        """Write a mask (H, W) and return its name."""
        data = mask_png(mask)
        name = hashlib.sha256(data).hexdigest()
        path = self._path(name)
        if not path.exists():
            with write_atomically(path) as temporary:
                temporary.write_bytes(data)
        return name

    def png(self, name: str) -> bytes:
        """Return a mask's PNG file.

        Raises:
            InputError: There is no such mask, or its file is damaged.
        """
        if not _SHA256.fullmatch(name) or not (path := self._path(name)).is_file():
            raise InputError(f"mask {name[:16]!r}: there is no such mask")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != name:
            raise InputError(f"{path} is damaged: its checksum differs; draw the object again")
        return data

    def read(self, name: str) -> npt.NDArray[np.bool_]:
        """Return a mask as bool (H, W); see `png`."""
        return mask_of(self.png(name))

    def remove_all_but(self, names: set[str]) -> None:
        """Delete masks that no object has any more."""
        for path in self.folder.glob("*.png"):
            if path.stem not in names:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.png"


class AnnotationFolder:
    """One case's annotation on disk.

    Args:
        folder: The case's folder; made with the first change.
        case_id: The case.
    """

    def __init__(self, folder: Path, case_id: str) -> None:
        """Keep the place."""
        self.path, self.case_id = folder / "annotation.json", case_id
        self.masks = MaskFolder(folder / "masks")

    def read(self, structures: Mapping[int, str]) -> Annotation:
        """Return the annotation; a new one where nothing was annotated yet.

        Args:
            structures: Names that a new annotation begins with.

        Raises:
            InputError: The file is damaged or of another version or case.
        """
        try:
            found = read_json(self.path)
        except FileNotFoundError:
            return Annotation(self.case_id, structures=dict(structures))
        if not isinstance(found, dict) or not is_whole(found):
            raise InputError(f"{self.path} is damaged: its checksum differs; remove it or copy it")
        if found.get("format_version") != _FORMAT_VERSION or found.get("case") != self.case_id:
            raise InputError(f"{self.path} is of another version or case; remove it")
        named = {int(value): str(name) for value, name in found["structures"].items()}
        return Annotation(
            self.case_id,
            int(found["revision"]),
            str(found["state"]),
            objects_of(found),
            {**structures, **named},
            int(found["saved"]),
        )

    def write(self, annotation: Annotation) -> Annotation:
        """Write an annotation whose masks are there already, and return it."""
        with write_atomically(self.path) as temporary:
            temporary.write_text(json.dumps(sealed(annotation.document())), encoding="utf-8")
        return annotation


def objects_of(document: Mapping[str, Any]) -> tuple[FrameObject, ...]:
    """Return the objects of a document that `Annotation.document` made."""
    return tuple(_object_of(one) for one in document["objects"])


def checked_id(object_id: str) -> str:
    """Return an object's name.

    Raises:
        InputError: The name has other than 1 to 40 letters, digits, `-` and `_`.
    """
    if not isinstance(object_id, str) or not _OBJECT_ID.fullmatch(object_id):
        raise InputError("object: expected a name of 1 to 40 letters, digits, - or _")
    return object_id


def checked_clicks(given: Any, size: tuple[int, int]) -> tuple[tuple[float, float, int], ...]:
    """Return clicks (x, y, sign) on a frame.

    Args:
        given: From JSON.
        size: (H, W) of the frame.

    Raises:
        InputError: A click is not three numbers, or lies outside the frame.
    """
    if not isinstance(given, list) or len(given) > _MOST_CLICKS:
        raise InputError(f"clicks: expected a list of at most {_MOST_CLICKS} [x, y, sign]")
    clicks = []
    for one in given:
        numbers = coordinates(one, 3)
        if numbers is None:
            raise InputError("clicks: expected [x, y, sign] each")
        x, y, sign = numbers.tolist()
        if not (0 <= x <= size[1] and 0 <= y <= size[0]) or sign not in (0, 1):
            raise InputError(
                f"click ({x:g}, {y:g}, {sign:g}): expected a place on {size[1]} x {size[0]} "
                "pixels, and a sign of 1 (inside) or 0 (outside)"
            )
        clicks.append((x, y, int(sign)))
    return tuple(clicks)


def checked_box(given: Any, size: tuple[int, int]) -> tuple[float, ...] | None:
    """Return a box xyxy in frame space, its corners in order and clipped to the frame.

    Args:
        given: From JSON; None: no box.
        size: (H, W) of the frame.

    Raises:
        InputError: The box is not four numbers, or has no area on the frame.
    """
    if given is None:
        return None
    box = coordinates(given, 4)
    if box is None:
        raise InputError("box: expected [x0, y0, x1, y1]")
    xs = sorted(box[::2].clip(0, size[1]).tolist())
    ys = sorted(box[1::2].clip(0, size[0]).tolist())
    if xs[0] == xs[1] or ys[0] == ys[1]:
        raise InputError("box: it has no area on the frame")
    return xs[0], ys[0], xs[1], ys[1]


def is_mask_name(text: str) -> bool:
    """Return whether a text is the name of a mask, as `MaskFolder` gives it."""
    return _SHA256.fullmatch(text) is not None


def decoded_png(given: Any) -> bytes:
    """Return the bytes of a picture that came as base64.

    Raises:
        InputError: The text is no base64.
    """
    try:
        return base64.b64decode(str(given), validate=True)
    except ValueError as error:
        raise InputError("png: expected base64") from error


def png_of(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return a PNG file of uint8 (H, W) or (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def mask_png(mask: npt.NDArray[np.bool_]) -> bytes:
    """Return a mask (H, W) as a PNG file of one bit per pixel."""
    height, width = mask.shape
    buffer = io.BytesIO()
    picture = Image.frombytes("1", (width, height), np.packbits(mask, axis=1).tobytes())
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def mask_of(data: bytes, size: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
    """Return a PNG file as a mask, bool (H, W): values above 127.

    Args:
        data: The file.
        size: (H, W) that the mask must have; None: any.

    Raises:
        InputError: The bytes are no PNG picture, or have another size.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if size is not None and picture.size != (size[1], size[0]):
                raise InputError(
                    f"mask: expected {size[1]} x {size[0]} pixels, got {picture.size[0]} x "
                    f"{picture.size[1]}"
                )
            return np.asarray(picture.convert("L")) > 127
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InputError("mask: expected a PNG picture") from error


def _object_of(found: Mapping[str, Any]) -> FrameObject:
    box = found["box"]
    return FrameObject(
        str(found["object_id"]),
        int(found["frame"]),
        int(found["value"]),
        str(found["mask"]),
        None if box is None else tuple(map(float, box)),
        tuple((float(x), float(y), int(sign)) for x, y, sign in found["clicks"]),
        None if found["iou"] is None else float(found["iou"]),
        str(found["origin"]),
        found.get("outline"),
    )
