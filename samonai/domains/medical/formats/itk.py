"""NRRD and MetaImage (.mha, .mhd) reading and writing by SimpleITK, after `itk_headers`' checks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813  (the usual alias)

from samonai.core.errors import InputError
from samonai.core.files import write_atomically
from samonai.domains.medical.formats.itk_headers import check_payload, meta_payload, nrrd_payload
from samonai.domains.medical.formats.nifti import check_volume_shape, take_volume
from samonai.domains.medical.volume import (
    Affine,
    FormatFacts,
    RawVolume,
    ReadOptions,
    axis_spacing,
    check_affine,
)

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_IMAGE_IO = {"nrrd": "NrrdImageIO", "metaimage": "MetaImageIO"}


def sniff(head: bytes) -> str | None:
    """Return "nrrd" or "metaimage" when a file's first bytes are of that format, else None."""
    if head.startswith(b"NRRD000"):
        return "nrrd"
    keys = {line.split(b"=")[0].strip() for line in head.split(b"\n")[:12] if b"=" in line}
    return "metaimage" if {b"NDims", b"DimSize"} & keys else None


def read_itk(path: Path, kind: str, options: ReadOptions | None = None) -> RawVolume:
    """Read a NRRD or MetaImage volume.

    Args:
        path: The file, or the header of a file in two parts.
        kind: "nrrd" or "metaimage", as `sniff` found it.
        options: The volume of a 4D file.

    Returns:
        The voxels in index order and their affine in RAS+.

    Raises:
        InputError: The file is cut short, not 3D, not real-valued or without geometry.
    """
    options = options or ReadOptions()
    payload = (nrrd_payload if kind == "nrrd" else meta_payload)(path)
    if payload is not None:
        check_payload(payload)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(_IMAGE_IO[kind])
    try:
        reader.ReadImageInformation()
        if reader.GetNumberOfComponents() != 1:
            raise InputError(f"{path}: {_components(reader)}")
        shape = check_volume_shape(tuple(reader.GetSize()), path, options)
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path}: SimpleITK cannot read it ({reason})") from error
    array = take_volume(sitk.GetArrayFromImage(image).T, shape, options.time)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{path}: {array.dtype} voxels; expected one real number per voxel")
    affine = _affine(image)
    check_affine(affine, str(path))
    return RawVolume(array, affine, FormatFacts(kind))


def write_itk(
    label: npt.NDArray[Any],
    affine: Affine,
    path: Path,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a volume as .nrrd or .mha, compressed.

    Args:
        label: uint8, uint16 or float32 (I, J, K).
        affine: float64 (4, 4), index to mm in RAS+; it may be sheared.
        path: File ending in .nrrd or .mha.
        metadata: Entries of a NRRD's header besides the geometry, key to value.
    """
    lps = LPS_TO_RAS @ affine
    spacing = axis_spacing(affine)
    image = sitk.GetImageFromArray(np.ascontiguousarray(label.T))
    image.SetSpacing(spacing)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / np.asarray(spacing)).ravel().tolist())
    for key, value in (metadata or {}).items():
        image.SetMetaData(key, value)
    with write_atomically(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)


def _components(reader: sitk.ImageFileReader) -> str:
    """Describe several numbers per voxel: layers of a segmentation of 3D Slicer, or colours."""
    if any(key.startswith("Segment0_") for key in reader.GetMetaDataKeys()):
        return (
            f"a segmentation in {reader.GetNumberOfComponents()} layers, because its segments "
            "overlap; export each segment as a file of its own, in one folder per case"
        )
    return "colour or vector voxels; expected one number per voxel"


def _affine(image: sitk.Image) -> Affine:
    size = image.GetDimension()
    direction = np.asarray(image.GetDirection()).reshape(size, size)[:3, :3]
    lps = np.eye(4)
    lps[:3, :3] = direction * np.asarray(image.GetSpacing()[:3])
    lps[:3, 3] = image.GetOrigin()[:3]
    return LPS_TO_RAS @ lps
