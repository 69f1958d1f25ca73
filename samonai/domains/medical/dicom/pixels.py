"""Pixel decoding of DICOM into physical values, per slice and in full precision."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels import pixel_array
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.uid import UID

from samonai.core.errors import InputError
from samonai.domains.medical.dicom.headers import Header
from samonai.domains.medical.dicom.slices import Slice
from samonai.domains.medical.dicom.stated_size import check_decoding_memory

# Numbers of these are measurements (a CT's are Hounsfield units) in any photometric interpretation;
# a colour picture of theirs is a screenshot. All others are pictures, inverted if MONOCHROME1.
_MEASURING_MODALITIES = ("CT", "MR", "PT", "NM")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # of red, green and blue, as ITU-R BT.601
_LARGEST_DECODED_BYTES = 1 << 33

Values = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]


def check_pixels(header: Header) -> None:
    """Refuse an object that is not a scan or is too large to decode, before decoding.

    Raises:
        InputError: The object is a scanner's colour picture, a mosaic, or of impossible size.
    """
    kind = header.text("PhotometricInterpretation")
    if kind not in _GREY:
        colour = kind == "RGB" or kind == _PALETTE or kind.startswith("YBR_")
        if not colour or header.text("Modality") in _MEASURING_MODALITIES:
            raise InputError(f"{header.path}: a colour image; expected a grey-value scan")
    elif header.number("SamplesPerPixel", 1) != 1:
        raise InputError(f"{header.path}: several samples in a grey pixel; export it again")
    if "MOSAIC" in header.text("ImageType"):
        raise InputError(
            f"{header.path}: a Siemens mosaic (all slices tiled in one image); "
            "convert it first, for example with dcm2niix"
        )
    voxels = header.number("Rows") * header.number("Columns") * header.number("NumberOfFrames", 1)
    voxels *= header.number("SamplesPerPixel", 1)
    if voxels * max(header.number("BitsAllocated", 16) // 8, 1) > _LARGEST_DECODED_BYTES:
        raise InputError(f"{header.path}: promises {voxels} pixels in one file; refused")
    check_decoding_memory(header)


def decode(header: Header) -> npt.NDArray[Any]:
    """Return a file's stored values: (rows, columns), or (frames, rows, columns).

    Colours become their luminance, in the range of the stored values.

    Raises:
        InputError: The pixels are cut short, damaged, or in a compression without a decoder.
    """
    try:
        dataset = pydicom.dcmread(header.path, force=True)
        stored = pixel_array(dataset)  # YBR comes back as RGB
        if header.text("PhotometricInterpretation") == _PALETTE:
            stored = apply_color_lut(stored, dataset)
    except MemoryError:
        raise
    except Exception:  # decoders raise errors of any type, and quote the file's values
        raise InputError(_why_not(header)) from None
    if header.text("PhotometricInterpretation") in _GREY:
        return stored
    return (stored[..., :3] @ _LUMINANCE).astype(np.float32)


def slice_values(stored: npt.NDArray[Any], each: Slice) -> Values:
    """Convert one slice's stored values into physical ones.

    Args:
        stored: (rows, columns), as `decode` returned them.
        each: The slice, for its rescaling.

    Returns:
        float32 (rows, columns) of physical values, and bool (rows, columns), False on padding
        (None: no padding value in the header).

    Raises:
        InputError: Rescaled values are not finite.
    """
    dataset = each.header.dataset
    valid = _valid_mask(stored, each.header)
    if "ModalityLUTSequence" in dataset:
        values = np.asarray(apply_modality_lut(stored, dataset), np.float64)
    else:
        values = stored.astype(np.float64) * each.slope + each.intercept
    if _is_inverted(each.header):
        values = _inverted(values, stored, each)
    result = values.astype(np.float32)
    if not np.isfinite(result).all():
        raise InputError(f"{each.header.path}: rescaled values are not finite; export it again")
    return result, valid


def _is_inverted(header: Header) -> bool:
    monochrome1 = header.text("PhotometricInterpretation") == "MONOCHROME1"
    return monochrome1 and header.text("Modality") not in _MEASURING_MODALITIES


def _inverted(
    values: npt.NDArray[np.float64], stored: npt.NDArray[Any], each: Slice
) -> npt.NDArray[np.float64]:
    """Mirror values within the range that the stored bits can hold."""
    bits = each.header.number("BitsStored", 8 * stored.dtype.itemsize)
    low, high = (
        (0, 2**bits - 1) if stored.dtype.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )
    return (low + high) * each.slope + 2 * each.intercept - values


def _valid_mask(stored: npt.NDArray[Any], header: Header) -> npt.NDArray[np.bool_] | None:
    padding = header.value("PixelPaddingValue")
    if padding is None or stored.dtype.kind not in "iu":
        return None
    limit = header.value("PixelPaddingRangeLimit")
    first = _as_stored(padding, stored.dtype)
    second = first if limit is None else _as_stored(limit, stored.dtype)
    low, high = min(first, second), max(first, second)
    return (stored < low) | (stored > high)


def _as_stored(value: Any, dtype: np.dtype[Any]) -> int:
    # -2000 and 63536 are the same 16 bits: the element's type need not be that of the pixels.
    bits = 8 * dtype.itemsize
    number = int(value) % (1 << bits)
    return number - (1 << bits) if dtype.kind == "i" and number >= 1 << (bits - 1) else number


def _why_not(header: Header) -> str:
    path: Path = header.path
    syntax = UID(str(header.dataset.file_meta.get("TransferSyntaxUID", "")))
    if not syntax.is_transfer_syntax:
        return f"{path}: unknown TransferSyntaxUID; export it again"
    if not syntax.is_compressed:
        return f"{path}: pixel data cut short or damaged; copy it again"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return f"{path}: compressed as {syntax.name}, for which there is no decoder; recompress it"
    missing = " or ".join(decoder.missing_dependencies)
    if not decoder.is_available:
        return f"{path}: compressed as {syntax.name}; to decode it install {missing}"
    hint = f" (or install {missing})" if missing else ""
    return f"{path}: pixel data ({syntax.name}) cut short or damaged; copy it again{hint}"
