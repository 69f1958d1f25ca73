"""Two-dimensional medical pictures: PNG, JPEG, TIFF and single DICOM frames, without mm."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import save as save_dicom
from dicom_factory import write_series
from PIL import Image
from pydicom.uid import generate_uid

from samonai.core.errors import InputError
from samonai.domains.base import Case, LabelFacts
from samonai.domains.medical import MedicalDomain
from samonai.domains.medical.outputs import write_outputs

GREY = np.arange(12 * 9, dtype=np.uint8).reshape(9, 12)  # 9 rows, 12 columns
COLOURS = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1)


def put(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def read(path: Path, label: Path | None = None, **settings: object):
    domain = MedicalDomain(**settings)
    return domain, domain.read(Case("one", path, label))


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_grey_picture_is_one_slice_of_its_values(tmp_path, ending) -> None:
    domain, source = read(put(tmp_path / f"one{ending}", GREY, dpi=(72, 72)))
    assert source.shape == (12, 9, 1)
    np.testing.assert_array_equal(source.data[:, :, 0].T, GREY)
    assert domain.frame(source, 0).image.shape == (9, 12, 3)
    assert source.unmeasurable == "a picture, which states no size of its pixels"


def test_sixteen_bits_are_kept(tmp_path) -> None:
    values = GREY.astype(np.uint16) * 300
    _, source = read(put(tmp_path / "one.png", values))
    np.testing.assert_array_equal(source.data[:, :, 0].T, values)


def test_a_colour_picture_shows_its_colours_unchanged(tmp_path) -> None:
    domain, source = read(put(tmp_path / "one.png", COLOURS))
    np.testing.assert_array_equal(domain.frame(source, 0).image, COLOURS)
    grey = np.asarray(Image.fromarray(COLOURS).convert("L"), float)
    assert np.abs(source.data[:, :, 0].T - grey).max() < 1
    other = read(put(tmp_path / "two.png", COLOURS[..., ::-1]))[1]
    assert source.content_hash() != other.content_hash()


def test_several_pages_are_refused(tmp_path) -> None:
    pages = [Image.fromarray(GREY)] * 2
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="2 pages; give a picture per file"):
        read(tmp_path / "stack.tif")


def test_masks_lie_beside_their_pictures(tmp_path) -> None:
    label = (GREY % 3).astype(np.uint8)
    for case in ("a", "b"):
        put(tmp_path / "images" / f"{case}.jpg", COLOURS)
        put(
            tmp_path / "labels" / f"{case}.png", np.stack([label] * 3, -1) if case == "a" else label
        )
    domain = MedicalDomain()
    cases = domain.find_cases(tmp_path / "images", tmp_path / "labels")
    assert [case.case_id for case in cases] == ["a", "b"]
    for case in cases:
        np.testing.assert_array_equal(domain.read(case).label[:, :, 0].T, label)


@pytest.mark.parametrize(
    ("name", "mask", "message"),
    [
        ("m.jpg", GREY, "a JPEG, whose compression changes label values"),
        ("m.png", COLOURS, "a mask in colours"),
        ("m.png", GREY[:, :-1], "the label lies on another grid"),
        ("m.png", np.where(GREY > 40, 255, 0).astype(np.uint8), "--set label_map=255:1"),
    ],
)
def test_masks_that_are_no_labels_are_refused(tmp_path, name, mask, message) -> None:
    picture = put(tmp_path / "one.png", GREY)
    with pytest.raises(InputError, match=message):
        read(picture, put(tmp_path / name, mask))


def test_single_frames_of_dicom_have_masks_named_like_them(tmp_path) -> None:
    frame = np.arange(20, dtype=np.int16).reshape(1, 4, 5)
    label = (frame[0] % 2).astype(np.uint8)
    for name in ("a", "b"):
        series = write_series(tmp_path / name, frame, uid=generate_uid())
        dataset = pydicom.dcmread(next(series.folder.iterdir()))
        save_dicom(dataset, tmp_path / "images" / f"{name}.dcm")
        put(tmp_path / "labels" / f"{name}.png", label)
    domain = MedicalDomain()
    cases = domain.find_cases(tmp_path / "images", tmp_path / "labels")
    assert len(cases) == 2
    for case in cases:
        np.testing.assert_array_equal(domain.read(case).label[:, :, 0].T, label)


def test_outputs_are_png_overlay_and_measurements_without_mm(tmp_path) -> None:
    domain, source = read(put(tmp_path / "one.png", COLOURS))
    label = np.zeros(source.shape, np.uint8)
    label[2:5, 3:6, 0] = 2
    (tmp_path / "out").mkdir()
    stem, facts = tmp_path / "out" / "one", LabelFacts({2: "nevus"})
    written = domain.export(source, label, stem, measure=True, facts=facts)
    png = next(path for path in written if path.suffix == ".png")
    np.testing.assert_array_equal(np.asarray(Image.open(png)), label[:, :, 0].T)
    np.testing.assert_array_equal(domain.read_back(png), label)
    found = json.loads(next(path for path in written if path.suffix == ".json").read_text())
    assert found["without_mm"] == "a picture, which states no size of its pixels"
    assert found["structures"][0]["voxels"] == 9
    assert found["structures"][0]["volume_ml"] is None
    (overlay,) = domain.export(source, label, stem, ["overlay"], facts=facts)
    shown = np.asarray(Image.open(overlay))
    outside = label[:, :, 0].T == 0
    np.testing.assert_array_equal(shown[outside], COLOURS[outside])
    assert (shown[~outside] != COLOURS[~outside]).any(-1).all()
    volume = read(put(tmp_path / "two.png", GREY))[1]
    with pytest.raises(InputError, match="a PNG holds one slice"):
        write_outputs(
            type(volume)(np.zeros((4, 4, 3), np.float32), np.eye(4), "v"),
            np.zeros((4, 4, 3), np.uint8), stem, ["png"],
        )  # fmt: skip


def test_pictures_train_evaluate_and_predict(tmp_path, capsys) -> None:
    import samonai

    rng = np.random.default_rng(0)
    for case in ("a", "b", "c"):
        label = np.zeros((20, 24), np.uint8)
        y, x = rng.integers(2, 8, 2)
        label[y : y + 9, x : x + 9] = 1
        noise = rng.integers(0, 40, (20, 24, 3))
        put(tmp_path / "images" / f"{case}.png", (noise + 150 * label[..., None]).astype(np.uint8))
        put(tmp_path / "labels" / f"{case}.png", label)
    images, labels = tmp_path / "images", tmp_path / "labels"
    run = samonai.finetune("micro", images, labels, out=tmp_path / "run", epochs=1, progress=False)
    metrics = run.evaluate(
        tmp_path / "images", tmp_path / "labels", tmp_path / "test", cases="all", report=False,
        progress=False,
    )  # fmt: skip
    assert metrics["summary"]["dice"]["finetuned"] > 0
    assert metrics["summary"]["hd95_mm"]["finetuned"] is None  # no mm
    boxes = {"boxes": [[2, 2, 0, 14, 14, 1]]}
    predicted = run.predict(tmp_path / "images" / "a.png", boxes, out=tmp_path / "out")
    assert predicted.shape == (24, 20, 1)
    assert (tmp_path / "out" / "a.png").is_file()
