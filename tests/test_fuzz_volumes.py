"""Readers of NIfTI, NRRD and MetaImage on drawn headers and damaged files: right, or one line."""

import gzip
import math
import zlib
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk  # noqa: N813
from fuzzing import damaged, flips, in_folder, kept, one_line, seeded
from hypothesis import given
from hypothesis import strategies as st

from samonai.domains.medical import read_volume
from samonai.domains.medical.formats.itk import LPS_TO_RAS

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's: overflow in float32

SHAPE = (4, 3, 2)
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "i8", "f4", "f8")

any_number = st.one_of(
    st.floats(-50, 50, width=32),
    st.floats(width=32),
    st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30, float("nan"), float("inf")]),
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "pixdim": st.lists(any_number, min_size=8, max_size=8),
    "qform_code": st.integers(-2, 6),
    "sform_code": st.integers(-2, 6),
    "quatern_b": any_number,
    "quatern_c": any_number,
    "quatern_d": any_number,
    "qoffset_x": any_number,
    "srow_x": st.lists(any_number, min_size=4, max_size=4),
    "srow_z": st.lists(any_number, min_size=4, max_size=4),
    "scl_slope": any_number,
    "scl_inter": any_number,
    "xyzt_units": st.integers(0, 255),
    "intent_code": st.integers(-1, 2005),
    "slice_code": st.integers(0, 9),
    "dim_info": st.integers(0, 255),
    "cal_max": any_number,
    "bitpix": st.sampled_from([0, 8, 16, 32, 64]),
}


@seeded(70)
@given(
    changes=st.lists(st.sampled_from(sorted(FIELDS)), max_size=5, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
    ),
    kind=st.sampled_from(TYPES),
    ending=st.sampled_from([".nii", ".nii.gz"]),
    second=st.booleans(),
    big=st.booleans(),
)
def test_drawn_nifti(
    changes: dict[str, Any],
    kind: str,
    ending: str,
    second: bool,
    big: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    stored = np.random.default_rng(0).integers(0, 100, SHAPE).astype(kind)
    of_kind = nib.Nifti2Image if second else nib.Nifti1Image
    header = of_kind.header_class(endianness=">" if big else "<")
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(SHAPE)
    header["pixdim"][1:4] = 1.5, 2.5, 3.5
    header.set_sform(np.diag([1.5, -2.5, 3.5, 1]), code=1)
    header["vox_offset"] = offset = 544 if second else 352
    header["magic"] = b"n+2\0\r\n\x1a\n" if second else b"n+1\0"
    for name, value in changes.items():
        header[name] = value
    content = header.binaryblock
    content += bytes(offset - len(content)) + stored.astype(header.get_data_dtype()).tobytes("F")
    content = gzip.compress(content) if ending.endswith(".gz") else content
    path = in_folder(tmp_path_factory.mktemp("n"), f"a{ending}", content)
    volume = one_line(lambda: read_volume(path, prefer="sform"))
    if volume is None:
        return
    theirs = nib.load(path)
    affine = theirs.affine.copy()
    affine[:3] *= MILLIMETRES.get(int(theirs.header["xyzt_units"]) & 7, 1.0)
    np.testing.assert_array_equal(volume.affine, affine)
    values = np.asanyarray(theirs.dataobj).astype(np.float32)
    valid = np.isfinite(values)
    np.testing.assert_array_equal(volume.data[valid], values[valid])


@seeded(40)
@given(
    dim=st.lists(st.one_of(st.integers(-3, 9), st.integers(-32768, 32767)), min_size=8, max_size=8),
    kind=st.integers(-1, 2400),
    offset=st.one_of(st.integers(0, 500), st.floats(width=32)),
    ending=st.sampled_from([".nii", ".nii.gz"]),
    time=st.sampled_from([None, 1, 2, 9]),
)
def test_promises_of_nifti(
    dim: list[int],
    kind: int,
    offset: float,
    ending: str,
    time: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    header = nib.Nifti1Header()
    header["pixdim"][1:4] = 1
    header["dim"], header["datatype"], header["vox_offset"] = dim, kind, offset
    header["magic"] = b"n+1\0"
    content = header.binaryblock + bytes(1000)
    content = gzip.compress(content) if ending.endswith(".gz") else content
    path = in_folder(tmp_path_factory.mktemp("n"), f"a{ending}", content)
    volume = one_line(lambda: read_volume(path, time=time))
    if volume is not None:
        assert volume.shape == tuple(dim[1:4])


def nrrd(fields: dict[str, str], stored: npt.NDArray[Any], encoding: str) -> bytes:
    lines = [f"{key}: {value}" for key, value in fields.items() if value != "-"]
    data = stored.tobytes("F")
    data = gzip.compress(data) if encoding == "gzip" else data
    return ("\n".join(["NRRD0004", *lines, f"encoding: {encoding}"]) + "\n\n").encode() + data


numbers = st.one_of(
    st.floats(-20, 20).map(lambda n: f"{n:.3f}"),
    st.sampled_from(["0", "nan", "inf", "-1", "1e400", "x", ""]),
)
vectors = st.tuples(numbers, numbers, numbers).map(lambda v: f"({','.join(v)})")
SPACES = {
    "left-posterior-superior": np.eye(4),
    "LPS": np.eye(4),
    "right-anterior-superior": LPS_TO_RAS,
    "RAS": LPS_TO_RAS,
    "LAS": np.diag([1.0, -1, 1, 1]),
    "scanner-xyz": np.eye(4),  # as ITK takes it, with a warning
    "3D-right-handed": np.eye(4),
}
NRRD_FIELDS: dict[str, st.SearchStrategy[str]] = {
    "type": st.sampled_from(["short", "int16", "signed short int", "block", "x", ""]),
    "dimension": st.sampled_from(["3", "2", "4", "-1", "0", "x"]),
    "sizes": st.sampled_from(["4 3 2", "4 3", "4 3 2 1", "4 -3 2", "0 3 2", "9999999 999999 9"]),
    "space": st.sampled_from([*SPACES, "-", "x"]),
    "space directions": st.tuples(vectors, vectors, vectors).map(" ".join),
    "space origin": vectors,
    "space units": st.sampled_from(['"mm" "mm" "mm"', '"um" "um" "um"', '"" "" ""', "mm"]),
    "endian": st.sampled_from(["little", "big", "-", "x"]),
    "kinds": st.sampled_from(["domain domain domain", "list domain domain", "x"]),
    "byte skip": st.sampled_from(["0", "-1", "5", "999999", "x"]),
    "data file": st.sampled_from(["other.raw", "../other.raw", "/dev/zero", "a%d.raw 1 2 1"]),
}  # fmt: skip
PLAIN = {
    "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "4 3 2",
    "space directions": "(1,0,0) (0,2,0) (0,0,3)", "endian": "little", "space origin": "(1,2,3)",
}  # fmt: skip


@seeded(60)
@given(
    changes=st.lists(st.sampled_from(sorted(NRRD_FIELDS)), max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: NRRD_FIELDS[name] for name in names})
    ),
    encoding=st.sampled_from(["raw", "gzip"]),
)
def test_drawn_nrrd(
    changes: dict[str, str], encoding: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stored = np.random.default_rng(0).integers(0, 100, SHAPE).astype("<i2")
    content = nrrd({**PLAIN, **changes}, stored, encoding)
    path = in_folder(tmp_path_factory.mktemp("n"), "a.nrrd", content)
    volume = one_line(lambda: read_volume(path))
    if volume is None:
        return
    says = {**PLAIN, **changes}
    vectors = [
        [float(n) for n in v.strip("()").split(",")]
        for v in (*says["space directions"].split(), says["space origin"])
    ]
    affine = np.eye(4)
    affine[:3] = np.array(vectors).T
    expected = LPS_TO_RAS @ SPACES[says["space"]] @ affine
    np.testing.assert_allclose(volume.affine, expected, rtol=1e-6, atol=1e-6)
    if "byte skip" not in changes:
        order = stored.astype(np.float32) if says["endian"] == "little" else stored.byteswap()
        np.testing.assert_array_equal(volume.data, order.astype(np.float32))


META = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "1 2 3",
    "ElementSpacing": "1 2 3", "DimSize": "4 3 2", "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}  # fmt: skip
META_FIELDS: dict[str, st.SearchStrategy[str]] = {
    "NDims": st.sampled_from(["3", "2", "4", "0", "x", "11"]),
    "DimSize": st.sampled_from(["4 3 2", "4 3", "4 -3 2", "0 3 2", "9999999 9999999 9", "x", ""]),
    "ElementSpacing": st.tuples(numbers, numbers, numbers).map(" ".join),
    "Offset": st.tuples(numbers, numbers, numbers).map(" ".join),
    "TransformMatrix": st.permutations([*"10001000", "-1"]).map(" ".join),
    "ElementType": st.sampled_from(["MET_SHORT", "MET_USHORT", "MET_STRING", "MET_OTHER", "x"]),
    "BinaryDataByteOrderMSB": st.sampled_from(["True", "False", "x"]),
    "CompressedData": st.sampled_from(["True", "False", "x"]),
    "ElementNumberOfChannels": st.sampled_from(["1", "3", "0", "x"]),
    "DistanceUnits": st.sampled_from(["mm", "um", "?", "x"]),
    "HeaderSize": st.sampled_from(["0", "-1", "5", "x"]),
    "ElementDataFile": st.sampled_from(["LOCAL", "other.raw", "../a.raw", "/dev/zero", "LIST"]),
}


@seeded(60)
@given(
    changes=st.lists(st.sampled_from(sorted(META_FIELDS)), max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: META_FIELDS[name] for name in names})
    )
)
def test_drawn_metaimage(changes: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    stored = np.random.default_rng(0).integers(0, 100, SHAPE).astype("<i2")
    says = {**META, **changes}
    says["ElementDataFile"] = says.pop("ElementDataFile")  # the last line of a header
    content = "".join(f"{key} = {value}\n" for key, value in says.items()).encode()
    path = in_folder(tmp_path_factory.mktemp("m"), "a.mha", content + stored.tobytes("F"))
    volume = one_line(lambda: read_volume(path))
    if volume is None:
        return
    matrix = np.array(says["TransformMatrix"].split(), float).reshape(3, 3).T
    affine = np.eye(4)
    affine[:3, :3] = matrix * np.array(says["ElementSpacing"].split(), float)
    affine[:3, 3] = np.array(says["Offset"].split(), float)
    np.testing.assert_allclose(volume.affine, LPS_TO_RAS @ affine, rtol=1e-6, atol=1e-6)
    if says["BinaryDataByteOrderMSB"] == "False" and "HeaderSize" not in changes:
        np.testing.assert_array_equal(volume.data, stored.astype(np.float32))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One small volume in every format that is read."""
    folder = tmp_path_factory.mktemp("whole")
    array = np.random.default_rng(0).integers(0, 100, SHAPE[::-1]).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.5, 2.5, 3.5))
    for name in ("a.nii", "b.nii.gz", "c.nrrd", "d.mha"):
        sitk.WriteImage(image, str(folder / name), useCompression=True)
    sitk.WriteImage(image, str(folder / "e.nrrd"), useCompression=False)
    sitk.WriteImage(image, str(folder / "f.mha"), useCompression=False)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@seeded(80)
@given(name=st.sampled_from(["a.nii", "b.nii.gz", "c.nrrd", "d.mha", "e.nrrd", "f.mha"]),
       bits=flips, part=kept)  # fmt: skip
def test_damaged_volumes(
    name: str,
    bits: list[tuple[float, int]],
    part: float,
    whole: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    content = damaged(whole[name], bits, part)
    path = in_folder(tmp_path_factory.mktemp("d"), name, content)
    volume = one_line(lambda: read_volume(path))
    if volume is not None:
        assert np.isfinite(volume.data).all()
        assert math.prod(volume.shape) <= 24 * 8
    if name == "b.nii.gz" and content[:2] == b"\x1f\x8b":  # gzip has a checksum
        try:
            expected = gzip.decompress(content)
        except (EOFError, OSError, zlib.error):
            expected = None
        if expected != gzip.decompress(whole[name]):
            assert volume is None
