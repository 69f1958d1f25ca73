"""Nothing of a patient in anything that is written: marked in every text element, then searched."""

import gzip
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from dicom_factory import make_slice, save
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

import samonai
import samonai as api
from samonai.core.pseudonyms import pseudonym

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork

NAME, BIRTH = "QVMARKEDPHI", "19010203"
PATIENTS = tuple(f"{NAME}^{letter}" for letter in "ABC")
FREE_TEXT = ("LO", "SH", "PN", "LT", "ST", "UT", "UC")
SHAPE = (24, 20, 2)  # columns, rows, slices


def mark(dataset: Dataset) -> int:
    """Fill every free-text element of the standard, and dates of birth; return how many."""
    marked = 0
    for tag, (kind, _, _, retired, keyword) in DicomDictionary.items():
        if kind in FREE_TEXT and keyword and not retired and tag >> 16 not in (0, 2, 0x28):
            dataset.add_new(tag, kind, NAME)
            marked += 1
    dataset.PatientBirthDate, dataset.PatientAge = BIRTH, "119Y"
    return marked


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three patients, folders and files called after them, and labels by their names."""
    generator = np.random.default_rng(0)
    for number, patient in enumerate(PATIENTS):
        label = np.zeros(SHAPE, np.uint8)
        label[5:16, 4:14] = 1
        pixels = (generator.integers(0, 200, SHAPE) + 800 * label.astype(int)).astype(np.int16)
        uid = generate_uid()
        for k in range(SHAPE[2]):
            image = make_slice(pixels[:, :, k].T.copy(), (0, 0, 2.5 * k), uid=uid)
            assert mark(image) > 500
            save(image, tmp_path / f"{NAME}s" / "images" / patient / f"{NAME}{k}.dcm")
        folder = tmp_path / f"{NAME}s" / "labels"
        folder.mkdir(exist_ok=True)
        affine = np.diag([-0.7, -0.8, 2.5, 1])
        nib.save(nib.Nifti1Image(label, affine), folder / f"{patient}.nii.gz")
        assert number < len(PATIENTS)
    return tmp_path / f"{NAME}s"


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the relative name and the bytes of every file, of compressed ones both."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            yield str(path.relative_to(folder)), content
            if content[:2] == b"\x1f\x8b":
                yield f"{path.name} unpacked", gzip.decompress(content)


def leaks(folder: Path) -> list[str]:
    marks = [
        mark.encode(encoding)
        for mark in (NAME, BIRTH)
        for encoding in ("utf-8", "utf-16-le", "utf-16-be")
    ]
    return [
        name
        for name, content in contents(folder)
        if NAME in name or any(mark.lower() in content.lower() for mark in marks)
    ]


def test_no_byte_written_says_who_it_was(
    archive: Path,
    tmp_path: Path,
    tiny_network: "SamNetwork",
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    out, images, labels = tmp_path / "out", archive / "images", archive / "labels"
    # One slice twice: a warning is due.
    twice = images / PATIENTS[0] / f"{NAME}0.dcm"
    twice.with_name(f"{NAME}again").write_bytes(twice.read_bytes())
    report = api.embed(tiny_network, images, labels, store=out / "store")
    assert report.encoded == 3 * SHAPE[2]
    split = {"train": [*PATIENTS[:2]], "val": [PATIENTS[2]]}
    run = samonai.finetune(
        tiny_network,
        images,
        labels,
        domain="medical",
        out=out / "run",
        epochs=1,
        split=split,
        store=out / "store",
        progress=True,
    )
    assert run.metadata.training["val_cases"] == [pseudonym(PATIENTS[2])]
    metrics = run.evaluate(images, labels, out / "measured", cases=[PATIENTS[2]], progress=True)
    assert {row["case"] for row in metrics["cases"]} == {pseudonym(PATIENTS[2])}
    boxes = archive / "boxes.csv"
    boxes.write_text(
        "case,i0,j0,k0,i1,j1,k1\n" + "".join(f"{name},4,3,0,17,15,2\n" for name in PATIENTS)
    )
    written = api.predict(run, images, boxes, out / "masks", progress=True)
    assert len(written) == 3

    assert len(list(contents(out))) > 20
    assert leaks(out) == []
    said = capfd.readouterr()
    assert "dropped 1 identical copies" in caplog.text
    for text in (said.out, said.err, caplog.text):
        assert NAME not in text
        assert BIRTH not in text


def test_the_search_finds_what_it_must(archive: Path, tmp_path: Path) -> None:
    assert len(leaks(archive)) >= 9
    folder = tmp_path / "other"
    folder.mkdir()
    stream = io.BytesIO()
    with gzip.open(stream, "wb") as file:
        file.write(f"x{NAME}".encode())
    (folder / "a").write_bytes(stream.getvalue())
    (folder / "b").write_bytes(f"..{BIRTH}".encode("utf-16-le"))
    (folder / "c").write_bytes(b"nothing")
    assert leaks(folder) == ["a unpacked", "b"]


def test_the_map_is_written_only_where_it_is_asked_for(
    archive: Path, tmp_path: Path, tiny_network: "SamNetwork"
) -> None:
    map_file = tmp_path / "map.csv"
    api.embed(
        tiny_network, archive / "images", archive / "labels", store=tmp_path / "s",
        case_map=str(map_file),
    )  # fmt: skip
    assert map_file.read_text().count(NAME) == 3
    assert leaks(tmp_path / "s") == []
