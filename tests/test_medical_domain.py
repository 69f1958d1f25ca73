"""The medical domain: merge undoes cut on any grid, settings rebuild it, frames are right."""

import gzip
import itertools
import json
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pytest
from dicom_factory import CANARY, write_series
from hypothesis import given, settings
from hypothesis import strategies as st

from samonai.core.errors import InputError
from samonai.domains import DOMAINS, get_domain
from samonai.domains.base import Case
from samonai.domains.medical import MedicalDomain, Volume, read_volume, write_label
from samonai.domains.medical.volume import FormatFacts

ORIENTATIONS = [
    np.eye(3)[list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
assert len(ORIENTATIONS) == 48


def make_volume(shape=(5, 4, 3), label: bool = True, **changes) -> Volume:
    rng = np.random.default_rng(0)
    data = rng.normal(100, 30, shape).astype(np.float32)
    classes = rng.integers(0, 3, shape).astype(np.int32) if label else None
    return Volume(
        **{"data": data, "affine": np.eye(4), "source_id": "v", "label": classes} | changes
    )


@settings(max_examples=30, deadline=None)
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    axis=st.integers(0, 2),
    endings=st.tuples(*[st.sampled_from([".nii.gz", ".nii", ".nrrd", ".mha"])] * 2),
    seed=st.integers(0, 1000),
)
def test_read_cut_merge_write_read_is_the_identity(orientation, shape, axis, endings, seed) -> None:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = orientation * rng.uniform(0.4, 5, 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    affine = affine.astype(np.float32).astype(np.float64)
    label = rng.integers(0, 300, shape)
    grid = Volume(np.zeros(shape, np.float32), affine, "grid", FormatFacts("made"))
    domain = MedicalDomain(axis=axis)
    with TemporaryDirectory() as folder:
        image = write_label(grid, rng.integers(0, 255, shape), Path(folder) / f"a{endings[0]}")
        first = write_label(grid, label, Path(folder) / f"b{endings[0]}")
        source = domain.read(Case("a", image, first))
        np.testing.assert_array_equal(source.label, label)
        frames = {
            index: domain.frame(source, index).label for index in range(domain.frame_count(source))
        }
        merged = domain.merge(source, frames)
        second = domain.write(source, merged, Path(folder) / f"c{endings[1]}")
        again = domain.read(Case("a", image, second))
        np.testing.assert_array_equal(again.label, label)
        np.testing.assert_allclose(read_volume(second).affine, affine, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rows_and_columns_of_frames(axis: int) -> None:
    volume = make_volume((5, 4, 3))
    domain = MedicalDomain(axis=axis, window="percentile", lower=0, upper=100)
    frame = domain.frame(volume, 1)
    expected = [volume.data[1].T, volume.data[:, 1].T, volume.data[:, :, 1].T][axis]
    low, high = volume.data.min(), volume.data.max()
    grey = np.floor((expected - low) / (high - low) * 255 + 0.5)
    assert frame.image.dtype == np.uint8
    assert frame.size == expected.shape
    assert np.abs(frame.image - grey[..., None]).max() <= 1
    np.testing.assert_array_equal(frame.label, np.take(volume.label, 1, axis).T)
    assert (frame.location.source_id, frame.location.index) == ("v", 1)
    assert domain.frame_count(volume) == (5, 4, 3)[axis]


def test_valid_mask_is_cut_too() -> None:
    valid = np.ones((5, 4, 3), bool)
    valid[0] = False
    frame = MedicalDomain().frame(make_volume(valid=valid), 2)
    np.testing.assert_array_equal(frame.valid, valid[:, :, 2].T)


def test_missing_frames_are_background() -> None:
    volume = make_volume((5, 4, 3))
    merged = MedicalDomain().merge(volume, {1: np.full((4, 5), 7, np.uint8)})
    assert (merged[:, :, 1] == 7).all()
    assert merged.sum() == 7 * 20


def test_frames_that_do_not_fit_are_refused() -> None:
    volume, domain = make_volume((5, 4, 3)), MedicalDomain()
    with pytest.raises(ValueError, match="label 5x4, expected 4x5"):
        domain.merge(volume, {0: np.zeros((5, 4), int)})
    for index in (-1, 3):
        with pytest.raises(IndexError, match="slices 0 to 2"):
            domain.frame(volume, index)


def test_settings_survive_json_and_rebuild_the_domain() -> None:
    domain = get_domain("medical", window="lung", axis=1, label_map={255: 1}, channels="neighbours")
    again = get_domain("medical", **json.loads(json.dumps(domain.settings())))
    assert again.settings() == domain.settings()
    assert again.label_map == {255: 1}
    assert list(DOMAINS) == ["medical", "documents", "satellite"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"axis": 3}, "use one of 0, 1, 2"),
        ({"windw": "lung"}, "did you mean 'window'"),
        ({"window": "spleen"}, "soft_tissue"),
        ({"level": 40}, "both or neither"),
        ({"level": "40", "width": 400}, "expected a number"),
        ({"level": 40, "width": 0}, "width=0: expected above 0"),
        ({"lower": 60, "upper": 40}, "lower < upper"),
        ({"channels": "rgb"}, "neighbours"),
        ({"prefer": "x"}, "use one of sform, qform"),
        ({"label_map": "255"}, "255:1"),
        ({"label_map": {"a": 1}}, "255:1"),
        ({"label_map": {255: -1}}, "255:1"),
    ],
)
def test_wrong_settings_say_what_is_expected(wrong: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        get_domain("medical", **wrong)


def test_unknown_domain() -> None:
    with pytest.raises(InputError, match="expected one of medical"):
        get_domain("medcal")


def test_read_names_the_source_and_logs_the_window(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data = np.full((3, 3, 3), -1000, np.int16)
    nib.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / "a_0000.nii.gz")
    volume = get_domain("medical").read(Case("a", tmp_path / "a_0000.nii.gz"))
    assert volume.source_id == "a"
    assert volume.label is None
    assert "window=auto chose soft_tissue" in caplog.text


def test_dicom_case_writes_nifti_on_its_grid(tmp_path: Path) -> None:
    series = write_series(tmp_path / "case")
    domain = MedicalDomain()
    volume = domain.read(Case("case", tmp_path / "case"))
    label = (series.expected > 500).astype(np.int32)
    written = domain.write(volume, label, tmp_path / "out" / "case")
    assert written.name == "case.nii.gz"
    assert CANARY.encode() not in gzip.decompress(written.read_bytes())
    np.testing.assert_array_equal(
        domain.read(Case("case", tmp_path / "case", written)).label, label
    )
    np.testing.assert_allclose(nib.load(written).affine, series.affine, atol=1e-5)


def test_hashes_tell_voxels_geometry_and_labels_apart() -> None:
    volume = make_volume()
    moved = make_volume(affine=np.diag([1, 1, 2, 1.0]))
    masked = make_volume(valid=np.zeros((5, 4, 3), bool))
    other = make_volume(data=volume.data + 1)
    hashes = {each.content_hash() for each in (volume, moved, masked, other)}
    assert len(hashes) == 4
    assert make_volume(source_id="w", label=False).content_hash() == volume.content_hash()
    assert make_volume(label=False).label_hash() is None
    assert volume.label_hash() == make_volume().label_hash() != other.content_hash()
