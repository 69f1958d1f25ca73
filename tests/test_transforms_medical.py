"""The medical steps as MONAI transforms: in anybody's Compose, and back again."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_factory import write_series
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, Invertd, RandFlipd, SaveImaged

from samonai.core.errors import InputError
from samonai.domains.medical import MedicalDomain, read_volume
from samonai.domains.medical.domain import Case
from samonai.transforms.medical import CutFramesd, LoadVolumed, WindowIntensityd

AFFINE = np.array([[-0.7, 0, 0, 9], [0, 0.8, 0, -4], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])
SHAPE = (5, 4, 3)


@pytest.fixture
def item(tmp_path: Path) -> dict[str, str]:
    rng = np.random.default_rng(0)
    image, label = tmp_path / "image.nii.gz", tmp_path / "label.nii.gz"
    nib.Nifti1Image(rng.normal(0, 50, SHAPE).astype(np.float32), AFFINE).to_filename(image)
    nib.Nifti1Image(rng.integers(0, 3, SHAPE).astype(np.uint8), AFFINE).to_filename(label)
    return {"image": str(image), "label": str(label)}


def test_load_equals_the_reader_and_carries_the_affine(item: dict[str, str]) -> None:
    loaded = LoadVolumed(keys=["image", "label"], valid_key="valid")(item)
    volume = read_volume(item["image"])
    np.testing.assert_array_equal(loaded["image"][0], volume.data)
    assert loaded["image"].dtype == torch.float32
    assert loaded["label"].dtype == torch.int32
    assert loaded["valid"].all()
    for key in ("image", "label", "valid"):
        assert isinstance(loaded[key], MetaTensor)
        assert loaded[key].shape == (1, *SHAPE)
        np.testing.assert_array_equal(loaded[key].affine, volume.affine)
    assert loaded["image"].meta["filename_or_obj"] == item["image"]


def test_load_reads_a_chosen_dicom_series(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    series = write_series(tmp_path / "b")
    load = LoadVolumed(keys="image", series_key="series")
    loaded = load({"image": tmp_path, "series": series.uid})
    np.testing.assert_array_equal(loaded["image"][0], series.expected)
    assert loaded["image"].meta["modality"] == "CT"


def test_load_maps_masks_and_names_its_keys(item: dict[str, str], tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1] = 255
    nib.Nifti1Image(mask, AFFINE).to_filename(item["label"])
    with pytest.raises(InputError, match="0 and 255"):
        LoadVolumed()(item)
    assert LoadVolumed(label_map={255: 1})(item)["label"].max() == 1
    with pytest.raises(InputError, match="image_key"):
        LoadVolumed(keys=["label"])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("channels", ["grey", "neighbours"])
def test_pipeline_equals_the_domain_frame_by_frame(
    item: dict[str, str], axis: int, channels: str
) -> None:
    pipeline = Compose(
        [
            LoadVolumed(),
            WindowIntensityd(window="percentile", channels=channels, axis=axis),
            CutFramesd(axis=axis),
        ]
    )
    frames = pipeline(item)
    domain = MedicalDomain(window="percentile", channels=channels, axis=axis)
    source = domain.read(Case("a", Path(item["image"]), Path(item["label"])))
    assert len(frames["image"]) == domain.frame_count(source)
    for index in range(domain.frame_count(source)):
        frame = domain.frame(source, index)
        np.testing.assert_array_equal(frames["image"][index].permute(1, 2, 0), frame.image)
        np.testing.assert_array_equal(frames["label"][index, 0], frame.label)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_inverse_restores_the_volume(item: dict[str, str], axis: int) -> None:
    loaded = LoadVolumed()(item)
    pipeline = Compose([LoadVolumed(), CutFramesd(axis=axis)])
    cut = pipeline(item)
    assert cut["label"].shape[0] == SHAPE[axis]
    restored = pipeline.inverse(cut)
    for key in ("image", "label"):
        assert torch.equal(restored[key].as_tensor(), loaded[key].as_tensor())
        assert torch.equal(restored[key].affine, loaded[key].affine)
        assert not restored[key].applied_operations


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_invertd_puts_predictions_on_the_volume(item: dict[str, str], axis: int) -> None:
    pipeline = Compose(
        [
            LoadVolumed(),
            RandFlipd(["image", "label"], prob=1, spatial_axis=0),
            WindowIntensityd(axis=axis),
            CutFramesd(axis=axis),
        ]
    )
    data = pipeline(item)
    data["pred"] = MetaTensor(data["label"].as_tensor().clone())  # as an inferer gives it
    post = Invertd(keys="pred", transform=pipeline, orig_keys="label", nearest_interp=True)
    expected = LoadVolumed()(item)["label"]
    assert torch.equal(post(data)["pred"].as_tensor().int(), expected.as_tensor())


def test_inverse_of_plain_tensors() -> None:
    cut = CutFramesd(keys="x", axis=1)
    volume = torch.arange(60).reshape(1, 5, 4, 3)
    assert torch.equal(cut.inverse({"x": cut({"x": volume})["x"].as_tensor()})["x"], volume)


def test_result_can_be_saved_by_monai(item: dict[str, str], tmp_path: Path) -> None:
    loaded = LoadVolumed()(item)
    save = SaveImaged(
        "label",
        output_dir=tmp_path / "o",
        separate_folder=False,
        output_postfix="",
        print_log=False,
    )
    save(loaded)
    saved = nib.load(tmp_path / "o" / "label.nii.gz")
    np.testing.assert_array_equal(saved.get_fdata(), loaded["label"][0])
    np.testing.assert_allclose(saved.affine, AFFINE, atol=1e-6)


def test_loader_collates(item: dict[str, str]) -> None:
    pipeline = Compose([LoadVolumed(), WindowIntensityd(), CutFramesd()])
    (batch,) = DataLoader(Dataset([item, item], pipeline), batch_size=2)
    assert batch["image"].shape == (2, 3, 3, 4, 5)


def test_percentiles_leave_the_invalid_out() -> None:
    data = torch.zeros(1, 4, 4, 4)
    data[..., 2:] = torch.rand(4, 4, 2) + 5
    data[..., :2] = -400
    valid = data > 0
    image = {"image": data, "valid": valid}
    window = WindowIntensityd(window="percentile", lower=0, upper=100, valid_key="valid")
    windowed = window(image)["image"]
    assert windowed.dtype == torch.uint8
    assert windowed.shape == (3, 4, 4, 4)
    assert windowed[..., :2].max() == 0
    assert windowed[..., 2:].float().std() > 30


@pytest.mark.parametrize("shape", [(5, 4, 3), (2, 5, 4, 3)])
def test_shapes_are_checked(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"key 'image': shape .* expected \(1, I, J, K\)"):
        WindowIntensityd()({"image": torch.zeros(shape)})
    with pytest.raises(InputError, match="expected 0, 1 or 2"):
        CutFramesd(axis=3)
