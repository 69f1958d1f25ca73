"""NRRD files in memory, for clients that take volumes over a network."""

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from samonai.domains.medical.formats.itk import LPS_TO_RAS
from samonai.domains.medical.volume import Affine

_TYPES = {"uint8": "uint8", "int16": "int16", "float32": "float"}
_GZIP = 16 + zlib.MAX_WBITS


def nrrd_bytes(array: npt.NDArray[Any], affine: Affine, *, compress: bool = False) -> bytes:
    """Return a volume as a NRRD file.

    Args:
        array: uint8, int16 or float32 (I, J, K), in the index order of the file.
        affine: float64 (4, 4), index to mm in RAS+.
        compress: Compress with gzip, fast; otherwise raw, which OHIF's reader needs.
    """
    lps = LPS_TO_RAS @ np.asarray(affine, float)
    columns = " ".join(_vector(lps[:3, axis]) for axis in range(3))
    header = (
        "NRRD0004",
        f"type: {_TYPES[array.dtype.name]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"space directions: {columns}",
        "kinds: domain domain domain",
        "endian: little",
        f"encoding: {'gzip' if compress else 'raw'}",
        f"space origin: {_vector(lps[:3, 3])}",
    )
    # The first index runs fastest in the file.
    values = np.ascontiguousarray(array.T.astype(array.dtype.newbyteorder("<"), copy=False))
    if compress:
        packer = zlib.compressobj(1, wbits=_GZIP)
        data = packer.compress(values.data) + packer.flush()
    else:
        data = values.tobytes()
    return "\n".join((*header, "", "")).encode() + data


def _vector(numbers: npt.NDArray[np.floating]) -> str:
    return f"({','.join(repr(float(number)) for number in numbers)})"
