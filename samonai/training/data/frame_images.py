"""Frames' images for training the encoder, whose embeddings change and so cannot be stored.

Frames are read from their sources once and kept in memory at their own size, up to a limit; what
does not fit is read again when it is asked for.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.domains.base import Case, Domain
from samonai.sam.network import SamNetwork

logger = logging.getLogger(__name__)

_CACHE_BYTES = 4 << 30


class ImageCache:
    """The images of frames in memory, the ones used longest ago leaving first.

    Args:
        limit: Bytes that are kept.
    """

    def __init__(self, limit: int = _CACHE_BYTES) -> None:
        """Start empty."""
        self.limit, self.held = limit, 0
        self._images: OrderedDict[tuple[str, int], npt.NDArray[np.uint8]] = OrderedDict()
        self._warned = False

    def get(self, key: tuple[str, int]) -> npt.NDArray[np.uint8] | None:
        """Return a frame's image, if it is here."""
        image = self._images.get(key)
        if image is not None:
            self._images.move_to_end(key)
        return image

    def put(self, key: tuple[str, int], image: npt.NDArray[np.uint8]) -> None:
        """Keep a frame's image."""
        if key in self._images:
            return
        self._images[key] = image
        self.held += image.nbytes
        while self.held > self.limit and len(self._images) > 1:
            self.held -= self._images.popitem(last=False)[1].nbytes
            if not self._warned:
                self._warned = True
                logger.warning(
                    "the frames take more than %.1f GiB of memory; the others are read from their "
                    "files again every epoch",
                    self.limit / 2**30,
                )


class FrameImages:
    """The frames of one case as the encoder sees them; stands where its embeddings would.

    Args:
        domain: Reads and cuts the case.
        case: The case.
        network: Resizes, normalises and pads.
        indices: The frames that will be asked for; they are read together.
        cache: Where images are kept, for all cases.
    """

    def __init__(
        self,
        domain: Domain[Any],
        case: Case,
        network: SamNetwork,
        indices: Sequence[int],
        cache: ImageCache,
    ) -> None:
        """Keep what is needed for reading."""
        self.domain, self.case, self.network = domain, case, network
        self.indices, self.cache = frozenset(indices), cache

    def has(self, index: int) -> bool:
        """Return whether a frame can be read: any can."""
        return True

    def read(self, index: int) -> npt.NDArray[np.float32]:
        """Return one frame: float32 (3, S, S), normalised and padded, model space."""
        image = self.cache.get((self.case.case_id, index))
        if image is None:
            image = self._read_case(index)
        return self.network.preprocess(image).numpy()

    def _read_case(self, wanted: int) -> npt.NDArray[np.uint8]:
        source: Any = self.domain.read(self.case)
        image = self.domain.frame(source, wanted).image
        for index in sorted(self.indices - {wanted}):
            self.cache.put((self.case.case_id, index), self.domain.frame(source, index).image)
        self.cache.put((self.case.case_id, wanted), image)
        return image
