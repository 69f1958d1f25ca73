"""Read, write, read again: the same voxels for every pair of input and output format."""

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from samonai.domains.base import LabelFacts
from samonai.domains.medical import Volume, read_label, read_volume
from samonai.domains.medical.formats.read_volume import read_raw
from samonai.domains.medical.formats.write_label import write_label
from samonai.domains.medical.outputs import write_outputs
from samonai.domains.medical.phantom.dicom import write_series
from samonai.domains.medical.volume import same_grid

PAIRS = [
    (read, written)
    for read in ("nii.gz", "nrrd", "mha", "dicom")
    for written in ("nifti", "nrrd", "mha", "dicom-seg", "rtstruct")
    if read == "dicom" or written in ("nifti", "nrrd", "mha")
]
NAMES = {1: "one", 2: "two", 3: "three"}

shapes = st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 5))
spacings = st.tuples(*[st.floats(0.3, 6.0).map(lambda value: round(value, 3))] * 3)
# All orientations that slices are cut in, turned by any angle or by none.
turns = st.one_of(
    st.just((0.0, 0.0, 0.0)),
    st.tuples(*[st.sampled_from((-90.0, 0.0, 90.0, 180.0))] * 3),
    st.tuples(*[st.floats(-180, 180)] * 3),
)


@st.composite
def grids(draw: Any) -> tuple[tuple[int, int, int], npt.NDArray[np.float64]]:
    """A shape and a right-handed affine, index to mm in RAS+."""
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", draw(turns), degrees=True).as_matrix()
    affine[:3, :3] = turned * np.array(draw(spacings))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return draw(shapes), affine


@st.composite
def scans(draw: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], Any]:
    """Values, a label that is not empty, and the affine."""
    shape, affine = draw(grids())
    label = draw(arrays(np.uint8, shape, elements=st.integers(0, 3)))
    label.flat[draw(st.integers(0, label.size - 1))] = draw(st.integers(1, 3))
    values = np.arange(label.size, dtype=np.int64).reshape(shape) % 251
    return values.astype(np.uint8), label, affine


def read_as(kind: str, folder: Path, values: npt.NDArray[np.uint8], affine: Any) -> Volume:
    if kind == "dicom":
        write_series(folder / "in", values.astype(np.int16), affine, number=1, seed=0)
        return read_volume(folder / "in")
    path = write_label(
        Volume(values.astype(np.float32), affine, "in"), values, folder / f"in.{kind}"
    )
    return read_volume(path)


@pytest.mark.parametrize(("read", "written"), PAIRS)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(scan=scans())
def test_every_pair_is_exact(read: str, written: str, scan: Any) -> None:
    values, label, affine = scan
    assume(written != "dicom-seg" or label.shape[0] * label.shape[1] >= 8)
    with tempfile.TemporaryDirectory() as scratch:
        volume = read_as(read, Path(scratch), values, affine)
        assert np.array_equal(volume.data, values)
        assert same_grid(volume.affine, affine, values.shape)
        (path,) = write_outputs(
            volume, label, Path(scratch) / "out", [written], facts=LabelFacts(NAMES)
        )
        present = {name: value for value, name in NAMES.items() if (label == value).any()}
        found = read_label(path, volume, structures=present if path.suffix == ".dcm" else None)
        assert np.array_equal(found, label)
        if path.suffix != ".dcm":
            assert same_grid(read_raw(path).affine, volume.affine, volume.shape)
