"""Data sets of nnU-Net and MONAI: what is annotated, and what is held out."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from monai.auto3dseg.utils import datafold_read
from monai.data import load_decathlon_datalist

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.domains.base import Case
from samonai.domains.medical import MedicalDomain, Volume
from samonai.embeddings.targets import build_targets
from samonai.evaluation.measures import VolumeMeasure
from samonai.selection.job import Job
from samonai.training.data.split import split_cases

NAMES = [f"case_{number:03d}" for number in range(5)]
BALL, IGNORE = 1, 2


def write_data_set(root: Path, labels: dict[str, Any] | None = None) -> None:
    """Write five scans of a ball, annotated on slices 6 to 13 only, as nnU-Net lays them out."""
    i, j, k = np.indices((24, 24, 20))
    affine = np.diag([1.0, 1, 2, 1])
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        ball = (i - 11 - number % 2) ** 2 + (j - 12) ** 2 + (2 * (k - 10)) ** 2 < 81
        noise = np.random.default_rng(number).normal(0, 15, ball.shape)
        label = ball.astype(np.uint8)
        label[:, :, :6] = label[:, :, 14:] = IGNORE
        scan = (100 + 300 * ball + noise).astype(np.float32)
        nib.save(nib.Nifti1Image(scan, affine), root / "imagesTr" / f"{name}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), root / "labelsTr" / f"{name}.nii.gz")
    named = {"background": 0, "ball": BALL, "ignore": IGNORE} if labels is None else labels
    document = {"channel_names": {"0": "MR"}, "labels": named, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(document))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_data_set(tmp_path)
    return tmp_path


def stored(root: Path, name: str) -> npt.NDArray[np.integer]:
    return np.asarray(nib.load(root / "labelsTr" / f"{name}.nii.gz").dataobj)


def write_list(root: Path, **sections: list[dict[str, Any]]) -> Path:
    """Write a MONAI data list; entries are given by case and what else they say."""
    path = root / "list.json"
    entries = {
        key: [
            {
                "image": f"imagesTr/{entry['case']}_0000.nii.gz",
                "label": f"labelsTr/{entry['case']}.nii.gz",
                **{k: v for k, v in entry.items() if k != "case"},
            }
            for entry in section
        ]
        for key, section in sections.items()
    }
    path.write_text(json.dumps(entries))
    return path


def held_out(cases: list[Case], **options: Any) -> tuple[list[str], list[str]]:
    split = split_cases(cases, **options)
    return [case.case_id for case in split.train], [case.case_id for case in split.val]


# nnU-Net's ignore label


@pytest.mark.parametrize("place", ["dataset.json", "imagesTr"])
@pytest.mark.conformance(
    domain="medical",
    condition="nnU-Net data set with an ignore label",
    source="nnU-Net documentation/ignore_label.md",
    right="no class; its voxels are neither background nor foreground in training",
    reader="nibabel 5.4.2",
    severity=1,
)
def test_the_ignore_label_is_no_class(root: Path, place: str) -> None:
    domain = MedicalDomain()
    labels = None if place == "dataset.json" else root / "labelsTr"
    cases = domain.find_cases(root / place, labels)
    assert [case.case_id for case in cases] == NAMES
    assert domain.class_names(root / place, labels) == {BALL: "ball"}
    volume = domain.read(cases[0])
    values = stored(root, NAMES[0])
    assert volume.label is not None
    np.testing.assert_array_equal(volume.label, values == BALL)
    np.testing.assert_array_equal(volume.known, values != IGNORE)
    known = build_targets(domain.frame(volume, 9)).class_map()
    assert set(np.unique(known)) == {0, BALL}
    unknown = build_targets(domain.frame(volume, 2))
    assert len(unknown) == 0
    assert set(np.unique(unknown.class_map())) == {-1}


@pytest.mark.conformance(
    domain="medical",
    condition="nnU-Net ignore label across slices: part of each frame is annotated",
    source="nnU-Net documentation/ignore_label.md",
    right="pixels of the ignored part count for nothing, on every axis",
    reader="nibabel 5.4.2",
    severity=1,
)
def test_part_of_a_frame_is_ignored(root: Path) -> None:
    domain = MedicalDomain(axis=0)
    volume = domain.read(domain.find_cases(root / "dataset.json")[1])
    frame = domain.frame(volume, 12)
    values = stored(root, NAMES[1])[12].T
    np.testing.assert_array_equal(frame.valid, values != IGNORE)
    targets = build_targets(frame)
    assert targets.areas.tolist() == [np.count_nonzero(values == BALL)]


@pytest.mark.conformance(
    domain="medical",
    condition="Measuring against an nnU-Net label with an ignore label",
    source="nnU-Net documentation/ignore_label.md",
    right="ignored voxels count for neither side: Dice, IoU, volumes of the rest",
    reader="numpy 2",
    severity=1,
)
def test_ignored_voxels_are_not_measured(root: Path) -> None:
    domain = MedicalDomain()
    volume = domain.read(domain.find_cases(root / "dataset.json")[0])
    values = stored(root, NAMES[0])
    prediction = np.ones(volume.shape, np.uint8)  # the ball everywhere, ignored voxels too
    prediction[:, :12, :] = 0
    kept = values != IGNORE
    truth, found = (values == BALL) & kept, (prediction == 1) & kept
    (row,) = VolumeMeasure().rows(
        domain, volume, prediction, classes={BALL: "ball"}, case_id="a", method="finetuned"
    )
    common = np.count_nonzero(truth & found)
    assert row["dice"] == pytest.approx(
        2 * common / (np.count_nonzero(truth) + np.count_nonzero(found))
    )
    assert row["voxels"] == np.count_nonzero(found)
    assert row["reference_volume_ml"] == pytest.approx(np.count_nonzero(truth) * 2 / 1000)


@pytest.mark.conformance(
    domain="medical",
    condition="An ignore value that the user makes a class of, or that the data set does not name",
    source="nnU-Net documentation/ignore_label.md",
    right="a class as any other",
    reader="nibabel 5.4.2",
    severity=3,
)
def test_only_what_is_called_ignore_is_ignored(root: Path) -> None:
    mapped = MedicalDomain(label_map={IGNORE: 1})
    volume = mapped.read(mapped.find_cases(root / "dataset.json")[0])
    assert volume.known is None or volume.known.all()
    np.testing.assert_array_equal(volume.label, stored(root, NAMES[0]) > 0)
    write_data_set(root, {"background": 0, "ball": BALL, "rim": IGNORE})
    domain = MedicalDomain()
    volume = domain.read(domain.find_cases(root / "dataset.json")[0])
    np.testing.assert_array_equal(volume.label, stored(root, NAMES[0]))
    assert volume.known is None


def test_a_changed_ignore_label_is_another_label(root: Path) -> None:
    domain = MedicalDomain()
    before: Volume = domain.read(domain.find_cases(root / "dataset.json")[0])
    write_data_set(root, {"background": 0, "ball": BALL})
    after = domain.read(domain.find_cases(root / "dataset.json")[0])
    assert before.label_hash() != after.label_hash()
    assert before.content_hash() == after.content_hash()


# Who is held out


@pytest.mark.conformance(
    domain="medical",
    condition="MONAI data list with a validation section",
    source="monai.data.load_decathlon_datalist, data_list_key",
    right="its cases are held out, none of them is trained on",
    reader="MONAI load_decathlon_datalist",
    severity=1,
)
def test_the_validation_section_is_held_out(root: Path) -> None:
    path = write_list(
        root,
        training=[{"case": name} for name in NAMES[:3]],
        validation=[{"case": name} for name in NAMES[3:]],
    )
    train, val = held_out(MedicalDomain().find_cases(path), seed=3)
    for key, found in (("training", train), ("validation", val)):
        theirs = load_decathlon_datalist(str(path), data_list_key=key)
        assert found == [Path(entry["label"]).name.removesuffix(".nii.gz") for entry in theirs]


@pytest.mark.conformance(
    domain="medical",
    condition="MONAI data list whose entries have a fold",
    source="monai.auto3dseg.utils.datafold_read",
    right="fold 0 is held out, or fold N of FILE#N; --folds takes the list's folds",
    reader="MONAI datafold_read",
    severity=1,
)
def test_the_folds_of_a_list_are_used(root: Path, tmp_path: Path) -> None:
    numbers = dict(zip(NAMES, (2, 0, 1, 0, None), strict=True))  # without a fold: always trained
    path = write_list(
        root,
        training=[
            {"case": name, **({} if fold is None else {"fold": fold})}
            for name, fold in numbers.items()
        ],
    )
    cases = MedicalDomain().find_cases(path)
    job = Job("micro", path, None, tmp_path / "runs")
    splits = job.folds(None, 3, None, 0)
    for fold in range(3):
        theirs = [
            sorted(Path(entry["label"]).name.removesuffix(".nii.gz") for entry in part)
            for part in datafold_read(str(path), "", fold=fold)
        ]
        assert [sorted(splits[fold]["train"]), sorted(splits[fold]["val"])] == theirs
        chosen = held_out(cases, split_file=f"{path}#{fold}")
        assert [sorted(part) for part in chosen] == theirs
        if fold == 0:
            assert [sorted(part) for part in held_out(cases, seed=7)] == theirs
    with pytest.raises(InputError, match="has 3 folds, not 5; give --folds 3"):
        job.folds(None, 5, None, 0)


@pytest.mark.conformance(
    domain="medical",
    condition="nnU-Net's splits_final.json as the split",
    source="nnU-Net documentation/manual_data_splits.md",
    right="fold 0, or fold N of FILE#N; --folds takes its folds; another fold is refused",
    reader="json",
    severity=1,
)
def test_the_splits_of_nnunet_are_used(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    folds = [
        {"train": [name for name in NAMES if name != val], "val": [val]} for val in NAMES[::-1]
    ]
    path.write_text(json.dumps(folds))
    cases = MedicalDomain().find_cases(root / "dataset.json")
    for number, fold in enumerate(folds):
        assert held_out(cases, split_file=f"{path}#{number}") == (fold["train"], fold["val"])
    assert held_out(cases, split_file=path) == (folds[0]["train"], folds[0]["val"])
    job = Job("micro", root / "dataset.json", None, tmp_path / "runs")
    assert job.folds(path, 5, None, 0) == folds
    assert job.split(f"{path}#3", 0.2, None, 0) == folds[3]
    with pytest.raises(InputError, match="has no fold 5; it has 0, 1, 2, 3, 4"):
        split_cases(cases, split_file=f"{path}#5")
    with pytest.raises(InputError, match="has 5 folds, not 3"):
        job.folds(path, 3, None, 0)
    folds[1]["val"] = ["case_900"]
    path.write_text(json.dumps(folds))
    with pytest.raises(InputError, match=r"fold 1 of the split file .* 'case_900'"):
        split_cases(cases, split_file=path)


@pytest.mark.conformance(
    domain="medical",
    condition="A case in the training and in the validation section; all cases in one fold",
    source="monai.data.load_decathlon_datalist",
    right="refused",
    reader="none (refusal)",
    severity=1,
)
def test_lists_that_hold_out_nothing_are_refused(root: Path) -> None:
    both = [{"case": name} for name in NAMES]
    path = write_list(root, training=both, validation=both[:1])
    with pytest.raises(
        InputError, match=r"case_000_0000\.nii\.gz is in training and in validation"
    ):
        MedicalDomain().find_cases(path)
    path = write_list(root, training=[{"case": name, "fold": 1} for name in NAMES])
    with pytest.raises(InputError, match="all 5 cases into fold 1"):
        split_cases(MedicalDomain().find_cases(path))
    path = write_list(root, training=[{"case": name, "fold": "a"} for name in NAMES])
    with pytest.raises(InputError, match="fold 'a' of an entry"):
        MedicalDomain().find_cases(path)


@pytest.mark.conformance(
    domain="medical",
    condition="Training, automatic head included, on an nnU-Net data set with ignore label and "
    "splits_final.json, and evaluating the run",
    source="nnU-Net documentation/ignore_label.md",
    right="one class is trained, predicted and measured; one line says what was held out",
    reader="nibabel 5.4.2",
    severity=1,
)
def test_a_run_knows_no_class_called_ignore(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits, run = tmp_path / "splits_final.json", tmp_path / "run"
    splits.write_text(json.dumps([{"train": NAMES[:1], "val": NAMES[2:3]}] * 2))
    data = ["--images", str(root / "dataset.json")]
    command = ["train", "medical", *data, "--out", str(run), "--heads", "both", "--epochs", "1"]
    assert main([*command, "--split", f"{splits}#1"]) == 0
    line = "held out: 1 of 2 cases, fold 1 of 2 in splits_final.json: case_002"
    assert line in capsys.readouterr().out
    test = ["evaluate", "medical", *data, "--run", str(run), "--out", str(tmp_path / "test")]
    assert (
        main([*test, "--prompts", "none", "--set", "evaluation.zero_shot=false", "--no-report"])
        == 0
    )
    document = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert {row["case"] for row in document["cases"]} == {"case_002"}
    assert {row["class"] for row in document["cases"]} == {"ball"}
    for row in document["cases"]:
        assert row["reference_voxels"] == np.count_nonzero(stored(root, row["case"]) == BALL)
