"""Page or picture as a source: upright pixels, words, size on paper, label."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonai.domains.base import CoveredObject
from samonai.domains.documents.text.page_text import PageText, ReadWords, page_text
from samonai.domains.documents.text.words import Word


@dataclass(frozen=True)
class PageLabel:
    """Label of a page's regions.

    Attributes:
        label: int32 (H, W), class per pixel, 0 is background.
        instances: int32 (H, W), number of the region from 1; None if only classes are known.
        known: bool (H, W), False on unlabelled pixels; None: all labelled.
        covered: Regions that others cover partly or wholly, with their whole masks.
    """

    label: npt.NDArray[np.int32]
    instances: npt.NDArray[np.int32] | None = None
    known: npt.NDArray[np.bool_] | None = None
    covered: tuple[CoveredObject, ...] = ()


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        source_id: The case's name.
        path: The file.
        number: Number of the page in the file, from 1.
        image: uint8 (H, W, 3), RGB, upright.
        dpi: Pixels per inch (down, across); None if the picture has no resolution.
        points: (height, width) in points, for pages of PDFs.
        orientation: EXIF orientation of the stored pixels, already applied.
        words: Words of the text layer.
        labelled: Label of the page.
        read_words: OCR function; None: only the text layer is used.
        always_read: Whether OCR is used regardless of the text layer.
    """

    source_id: str
    path: Path
    number: int
    image: npt.NDArray[np.uint8]
    dpi: tuple[float, float] | None = None
    points: tuple[float, float] | None = None
    orientation: int = 1
    words: tuple[Word, ...] = ()
    labelled: PageLabel | None = None
    read_words: ReadWords | None = field(default=None, repr=False, compare=False)
    always_read: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Return (H, W) in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def spacing(self) -> tuple[float, float]:
        """Return the size of a pixel in pixels: measures on pages are in pixels."""
        return 1.0, 1.0

    @property
    def label(self) -> npt.NDArray[np.int32] | None:
        """Return int32 (H, W), class per pixel, or None when the page is unlabelled."""
        return None if self.labelled is None else self.labelled.label

    @cached_property
    def _found(self) -> PageText:
        return page_text(
            self.image,
            self.words,
            self.read_words,
            always=self.always_read,
            name=self.source_id,
        )

    @property
    def text(self) -> tuple[Word, ...]:
        """Return the page's words from its text layer or by OCR; see `text.page_text`."""
        return self._found.words

    @property
    def text_source(self) -> str | None:
        """Return the origin of the words; None while they have not been read."""
        return self._found.source if "_found" in self.__dict__ else None

    def content_hash(self) -> str:
        """Return the sha256 of the pixels."""
        digest = hashlib.sha256(repr(self.image.shape).encode())
        digest.update(self.image.tobytes())
        return digest.hexdigest()

    def label_hash(self) -> str | None:
        """Return the sha256 of the label, or None when the page is unlabelled."""
        if self.labelled is None:
            return None
        digest = hashlib.sha256()
        for array in (self.labelled.label, self.labelled.instances, self.labelled.known):
            digest.update(repr(array is None).encode())
            if array is not None:
                digest.update(array.tobytes())
        for one in self.labelled.covered:
            digest.update(repr((one.number, one.value, one.rle["counts"])).encode())
        return digest.hexdigest()
