"""Finding cases: folders paired by name, dataset.json of both kinds, datalists, clear refusals."""

import json
from pathlib import Path

import pytest
from dicom_factory import write_series

from samonai.core.errors import InputError
from samonai.domains.medical import MedicalDomain
from samonai.domains.medical.dataset import find_cases
from samonai.domains.medical.dataset_file import read_class_names


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def ids(*arguments, **options) -> list[str]:
    return [case.case_id for case in find_cases(*arguments, **options)]


def test_folders_are_paired_by_name_whatever_the_ending(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "b.nii.gz", "a.mha", "c d.NRRD", "._a.mha", "notes.txt")
    labels = touch(tmp_path / "l", "a.nii.gz", "b.nii", "c d.nrrd", ".hidden.nii.gz", "list.csv")
    cases = find_cases(images, labels)
    assert [case.case_id for case in cases] == ["a", "b", "c d"]
    assert cases[1].image == images / "b.nii.gz"
    assert cases[1].label == labels / "b.nii"


def test_images_alone(tmp_path: Path) -> None:
    cases = find_cases(touch(tmp_path, "b.nii.gz", "a.nii"))
    assert [(case.case_id, case.label) for case in cases] == [("a", None), ("b", None)]


def test_nnunet_suffix(tmp_path: Path) -> None:
    images = touch(tmp_path / "imagesTr", "x_001_0000.nii.gz", "x_002_0000.nii.gz")
    labels = touch(tmp_path / "labelsTr", "x_001.nii.gz", "x_002.nii.gz")
    assert ids(images, labels) == ["x_001", "x_002"]
    assert ids(images) == ["x_001", "x_002"]
    assert ids(images / "x_001_0000.nii.gz", labels) == ["x_001"]


def test_four_digits_may_be_a_case_number(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "x_0000.nii.gz", "x_0001.nii.gz")
    labels = touch(tmp_path / "l", "x_0000.nii.gz", "x_0001.nii.gz")
    assert ids(images, labels) == ["x_0000", "x_0001"]
    assert ids(images) == ["x_0000", "x_0001"]


def test_several_channels_need_a_choice(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", *[f"{c}_000{n}.nii.gz" for c in "ab" for n in (0, 1)])
    labels = touch(tmp_path / "l", "a.nii.gz", "b.nii.gz")
    with pytest.raises(InputError, match="channels 0, 1; choose one: --set channel=0"):
        find_cases(images, labels)
    chosen = MedicalDomain(channel=1).find_cases(images, labels)
    assert [case.image.name for case in chosen] == ["a_0001.nii.gz", "b_0001.nii.gz"]
    assert ids(images, channel=1) == ["a", "b"]
    with pytest.raises(InputError, match="no channel 2"):
        find_cases(images, labels, channel=2)
    with pytest.raises(InputError, match=r"no image is channel 2 \(_0002\); has a_0000, a_0001"):
        find_cases(images, channel=2)


def test_a_channel_says_nothing_where_names_tell_of_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, labels = (touch(tmp_path / part, "a.nii.gz", "b.nii.gz") for part in "il")
    said = "channel=7 says nothing here"
    for given in ((images, labels), (images,), (images / "a.nii.gz", labels)):
        caplog.clear()
        assert ids(*given, channel=7) == (["a"] if given[0] != images else ["a", "b"])
        assert [said in record.message for record in caplog.records] == [True]
    caplog.clear()
    assert ids(images) == ["a", "b"]
    assert not caplog.records


def test_dicom_folders_are_cases(tmp_path: Path) -> None:
    write_series(tmp_path / "i" / "p1" / "deep")
    write_series(tmp_path / "i" / "p2")
    touch(tmp_path / "i" / "empty", "readme.txt")
    labels = touch(tmp_path / "l", "p1.nii.gz", "p2.nii.gz")
    assert ids(tmp_path / "i", labels) == ["p1", "p2"]
    (case,) = find_cases(tmp_path / "i" / "p2", labels)
    assert (case.case_id, case.image, case.label) == (
        "p2",
        tmp_path / "i" / "p2",
        labels / "p2.nii.gz",
    )


def test_single_files(tmp_path: Path) -> None:
    image = touch(tmp_path, "a.nii.gz") / "a.nii.gz"
    label = touch(tmp_path, "seg.nii.gz") / "seg.nii.gz"
    (case,) = find_cases(image, label)
    assert (case.case_id, case.image, case.label) == ("a", image, label)


def test_unmatched_names_list_both_sides(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "a.nii.gz", *[f"img{n}.nii.gz" for n in range(5)])
    labels = touch(tmp_path / "l", "a.nii.gz", "seg.nii.gz")
    with pytest.raises(InputError) as caught:
        find_cases(images, labels)
    message = str(caught.value)
    assert "5 images without a label (img0, img1, img2, and 2 more)" in message
    assert "1 labels without an image (seg)" in message
    assert "\n" not in message


def test_refusals(tmp_path: Path) -> None:
    empty = touch(tmp_path / "empty", "notes.txt")
    images = touch(tmp_path / "i", "a.nii.gz")
    for wrong, words in (
        ((tmp_path / "none",), "no such file"),
        ((empty,), "no volumes in it"),
        ((images, empty), "no label maps in it"),
        ((images, tmp_path / "none"), "no such file"),
        ((images, images / "a.nii.gz"), "one label file for a folder"),
        ((touch(tmp_path / "two", "a.nii", "a.mha"),), "both case 'a'"),
        ((images / "a.nii.gz", touch(tmp_path / "l", "b.nii.gz")), "no label named like a.nii.gz"),
    ):
        with pytest.raises(InputError, match=words):
            find_cases(*wrong)
    write_series(tmp_path / "mixed")
    touch(tmp_path / "mixed", "a.nii.gz")
    with pytest.raises(InputError, match="loose DICOM files"):
        find_cases(tmp_path / "mixed")


def decathlon(tmp_path: Path) -> Path:
    touch(tmp_path, *[f"{kind}Tr/s_{n}.nii.gz" for kind in ("images", "labels") for n in (1, 2)])
    touch(tmp_path, "imagesTs/s_3.nii.gz")
    pairs = [
        {"image": f"./imagesTr/s_{n}.nii.gz", "label": f"./labelsTr/s_{n}.nii.gz"} for n in (1, 2)
    ]
    content = {
        "labels": {"0": "background", "1": "spleen", "2": "liver"},
        "training": pairs,
        "test": ["./imagesTs/s_3.nii.gz"],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def test_decathlon_dataset_json(tmp_path: Path) -> None:
    root = decathlon(tmp_path)
    for images in (root, root / "dataset.json"):
        cases = find_cases(images)
        assert [case.case_id for case in cases] == ["s_1", "s_2"]
        assert cases[0].label == root / "labelsTr" / "s_1.nii.gz"
    for place in (root, root / "dataset.json", root / "imagesTr"):
        assert read_class_names(place) == {1: "spleen", 2: "liver"}


def test_nnunet_dataset_json(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    labels = {"background": 0, "whole": [1, 2], "core": 2, "edema": 1, "ignore": 3}
    content = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    (case,) = find_cases(tmp_path)
    assert (case.case_id, case.label) == ("a", tmp_path / "labelsTr" / "a.nii.gz")
    assert MedicalDomain().class_names(tmp_path / "imagesTr", tmp_path / "labelsTr") == {
        1: "edema",
        2: "core",
    }


def test_monai_datalists(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "b.nii.gz", "la.nii.gz", "lb.nii.gz")
    entries = [{"image": "b.nii.gz", "label": "lb.nii.gz", "fold": 0}, {"image": ["a.nii.gz"]}]
    for content in (entries, {"training": entries[:1], "validation": entries[1:]}):
        (tmp_path / "list.json").write_text(json.dumps(content))
        cases = find_cases(tmp_path / "list.json")
        assert [(case.case_id, case.label) for case in cases] == [
            ("a", None),
            ("b", tmp_path / "lb.nii.gz"),
        ]
    assert read_class_names(tmp_path / "list.json") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("{}", "lists no cases"),
        ('[{"image": "gone.nii.gz"}]', "does not exist"),
        ('[{"img": "a.nii.gz"}]', "expected image and label"),
        ("[5]", "expected image and label"),
        ('[{"image": ["a.nii.gz", "b.nii.gz"]}]', "--set channel=0"),
        ('["a.nii.gz", "x/a.nii.gz"]', "both case 'a'"),
    ],
)
def test_datalists_that_cannot_be_used(tmp_path: Path, content: str, words: str) -> None:
    touch(tmp_path, "a.nii.gz", "b.nii.gz", "x/a.nii.gz")
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(InputError, match=words):
        find_cases(tmp_path / "list.json")
