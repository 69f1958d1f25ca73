"""UIDs of written objects, derived from what they hold.

The same label map of the same images, by the same model, has the same SOPInstanceUID each time that
it is written: whoever stores it twice, after an interruption for example, stores it once. Any other
label, model or version of samonai gives other UIDs.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.uid import generate_uid

from samonai.core.sealed import canonical_json
from samonai.domains.base import LabelFacts
from samonai.domains.medical.dicom.source_series import SourceSeries
from samonai.domains.medical.objects.segments import Segment
from samonai.version import __version__


class ObjectUids:
    """UIDs of the objects of one label map.

    Args:
        label: integer (I, J, K), class per voxel, 0 is background.
        segments: The classes present in it.
        source: The headers of the series.
        facts: The algorithm of the label map.
    """

    def __init__(
        self,
        label: npt.NDArray[np.integer],
        segments: Sequence[Segment],
        source: SourceSeries,
        facts: LabelFacts,
    ) -> None:
        """Compute the digest of all that the objects hold."""
        told = {
            "version": __version__,
            "images": [str(one.SOPInstanceUID) for one in source.datasets],
            "shape": list(label.shape),
            "segments": [asdict(segment) for segment in segments],
            "algorithm": {key: str(value) for key, value in facts.algorithm.items()},
        }
        digest = hashlib.sha256(canonical_json(told).encode())
        for k in range(label.shape[2]):  # by slices: no copy of a whole volume
            digest.update(np.ascontiguousarray(label[:, :, k].T, dtype="<i4").data)
        self._digest = digest.hexdigest()

    def __call__(self, *purpose: object) -> hd.UID:
        """Return the UID for a purpose, such as ("SEG", "instance")."""
        return hd.UID(generate_uid(entropy_srcs=[self._digest, *map(str, purpose)]))
