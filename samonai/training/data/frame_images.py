"""Frame images for training the encoder, whose changing embeddings cannot be stored.

Frames are read from their sources once and kept in memory at their own size, up to a limit; the
others are read again on every use.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic

import numpy as np
import numpy.typing as npt

from samonai.domains.base import Case, Domain, SourceT
from samonai.sam.network import SamNetwork

logger = logging.getLogger(__name__)

_CACHE_BYTES = 4 << 30


class ImageCache:
    """Least-recently-used cache of frame images in memory.

    Args:
        limit: Size in bytes.
    """

    def __init__(self, limit: int = _CACHE_BYTES) -> None:
        """Start empty."""
        self.limit, self.held = limit, 0
        self._images: OrderedDict[tuple[str, int], npt.NDArray[np.uint8]] = OrderedDict()
        self._warned = False

    def get(self, key: tuple[str, int]) -> npt.NDArray[np.uint8] | None:
        """Return a frame's image if it is cached."""
        image = self._images.get(key)
        if image is not None:
            self._images.move_to_end(key)
        return image

    def put(self, key: tuple[str, int], image: npt.NDArray[np.uint8]) -> None:
        """Add a frame's image."""
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


class FrameImages(Generic[SourceT]):
    """Model images of one case's frames; replaces its embeddings in a stored case.

    Args:
        domain: Reads and cuts the case.
        case: The case.
        network: Resizes, normalises and pads.
        indices: The frames that will be read; they are read together.
        cache: Image cache shared by all cases.
    """

    def __init__(
        self,
        domain: Domain[SourceT],
        case: Case,
        network: SamNetwork,
        indices: Sequence[int],
        cache: ImageCache,
    ) -> None:
        """Keep the reader of the case, and the cache."""
        self.domain, self.case, self.network = domain, case, network
        self.indices, self.cache = frozenset(indices), cache

    def has(self, index: int) -> bool:
        """Return whether a frame can be read, which is always so."""
        return True

    def read(self, index: int) -> npt.NDArray[np.float32]:
        """Return one frame: float32 (3, S, S), normalised and padded, model space."""
        image = self.cache.get((self.case.case_id, index))
        if image is None:
            image = self._read_case(index)
        return self.network.preprocess(image).numpy()

    def _read_case(self, wanted: int) -> npt.NDArray[np.uint8]:
        source = self.domain.read(self.case)
        image = self.domain.frame(source, wanted).image
        for index in sorted(self.indices - {wanted}):
            self.cache.put((self.case.case_id, index), self.domain.frame(source, index).image)
        self.cache.put((self.case.case_id, wanted), image)
        return image
