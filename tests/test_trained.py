"""What a decoder brings along, prompts from files, and which cases are measured."""

import json
from pathlib import Path

import numpy as np
import pytest
from bundle_factory import write_scans
from dicom_factory import write_series
from dicom_outputs import completed, make_label

from samonai.core.errors import InputError
from samonai.core.pseudonyms import pseudonym
from samonai.domains.base import Case
from samonai.domains.medical import MedicalDomain, Volume, read_volume, write_label
from samonai.domains.medical.outputs import write_outputs
from samonai.inference import (
    CoarseLabel,
    FilePrompts,
    evaluation_cases,
    evaluation_facts,
    input_cases,
    prompts_from_label,
    trained_classes,
    trained_domain,
    trained_network,
)
from samonai.sam.decoder_file import save_decoder
from samonai.sam.decoder_metadata import DecoderMetadata
from samonai.sam.network import SamNetwork

DOMAIN = MedicalDomain(window="percentile", upper=98.0)


@pytest.fixture
def decoder(tmp_path: Path, tiny_network: SamNetwork) -> Path:
    normalisation = {**tiny_network.normalisation.to_metadata(), "name": "own", "scale": 1.0}
    metadata = DecoderMetadata(
        model="micro",
        encoder_sha256="5a" * 32,
        normalisation=normalisation,
        domain="medical",
        domain_settings=DOMAIN.settings(),
        classes={"1": "near", "2": "far"},
        training={"train_cases": ["scan_0"], "val_cases": ["scan_2", "gone"]},
        metrics={"val_dice": 0.5, "epoch": 3},
    )
    return save_decoder(tiny_network, tmp_path / "decoder.safetensors", metadata)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return write_scans(tmp_path / "data")


def test_the_domain_is_the_decoders(decoder: Path) -> None:
    assert trained_domain(decoder, window=None).settings() == DOMAIN.settings()
    assert trained_domain(decoder, upper=98.0, window="percentile").settings() == DOMAIN.settings()
    assert trained_domain(None, axis=1).settings() == MedicalDomain(axis=1).settings()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"window": "lung"}, "window=percentile, but window=lung is given"),
        ({"axis": 0}, "axis=2, but axis=0"),
        ({"level": 40.0, "width": 400.0}, "level=None, but level=40"),
    ],
)
def test_a_contradicting_setting_is_refused(decoder, setting, said) -> None:
    with pytest.raises(InputError, match=said):
        trained_domain(decoder, **setting)


def test_a_crop_to_the_prompt_is_allowed_and_said_and_one_to_the_body_is_not(decoder, caplog):
    assert trained_domain(decoder, crop="prompt").settings()["crop"] == "prompt"
    assert caplog.text.count("was trained with crop=none; crop=prompt enlarges") == 1
    with pytest.raises(InputError, match="crop=none, but crop=body is given"):
        trained_domain(decoder, crop="body")
    with pytest.raises(InputError, match="window=percentile, but window=lung is given"):
        trained_domain(decoder, crop="prompt", window="lung")


def test_how_labels_are_stored_may_differ(decoder: Path) -> None:
    assert trained_domain(decoder, label_map="255:1").settings()["label_map"] == {"255": 1}


def test_another_domain_is_refused(decoder: Path) -> None:
    with pytest.raises(InputError, match="trained on medical data, not on satellite"):
        trained_domain(decoder, "satellite")


def test_the_network_is_the_decoders(decoder, tiny_network, monkeypatch) -> None:
    asked = []

    def load(name: str, *_: object) -> SamNetwork:
        asked.append(name)
        return tiny_network

    monkeypatch.setattr("samonai.inference.checkpoint_context.load_sam", load)
    network = trained_network(decoder)
    assert asked == ["micro"]
    assert network.normalisation.name == "own"
    with pytest.raises(InputError, match="trained on micro, but vit_b is given"):
        trained_network(decoder, "vit_b")
    tiny_network.stock_sha256 = "00" * 32
    with pytest.raises(InputError, match="trained on another encoder"):
        trained_network(decoder)


def test_classes_are_the_decoders(decoder: Path) -> None:
    assert trained_classes(decoder) == {1: "near", 2: "far"}
    assert trained_classes(None) == {}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, ["scan_2"]),
        ("all", ["scan_0", "scan_1", "scan_2"]),
        ("scan_1", ["scan_1"]),
        (["scan_1", "scan_0"], ["scan_1", "scan_0"]),
    ],
)
def test_held_out_cases_are_measured_unless_others_are_named(decoder, scans, names, expected):
    cases = evaluation_cases(DOMAIN, scans / "imagesTr", scans / "labelsTr", decoder, names)
    assert [case.case_id for case in cases] == expected


def test_all_are_measured_where_none_was_held_out(decoder, tmp_path) -> None:
    new = write_scans(tmp_path / "new", cases=1)
    cases = evaluation_cases(DOMAIN, new / "imagesTr", new / "labelsTr", decoder)
    assert [case.case_id for case in cases] == ["scan_0"]
    assert evaluation_facts(decoder, cases, {})["cases_trained_on"] == ["scan_0"]


def test_cases_that_cannot_be_measured_are_named(decoder, scans) -> None:
    with pytest.raises(InputError, match="case 'scan_9' is not in"):
        evaluation_cases(DOMAIN, scans / "imagesTr", scans / "labelsTr", decoder, ["scan_9"])
    with pytest.raises(InputError, match=r"scan_2 in .* has no label"):
        evaluation_cases(DOMAIN, scans / "imagesTr", None, decoder)


def test_a_series_makes_a_folder_one_case(tmp_path: Path, scans: Path) -> None:
    assert input_cases(DOMAIN, tmp_path, "1.2.3") == [
        Case(pseudonym(tmp_path.name), tmp_path, None, "1.2.3")
    ]
    assert len(input_cases(DOMAIN, scans / "imagesTr")) == 3


def prompts_of(scans: Path, path: Path, **settings: object) -> dict:
    case = Case("scan_0", scans / "imagesTr" / "scan_0.nii.gz")
    prompts = FilePrompts(path, {1: "near", 2: "far"}, **settings)
    return prompts(DOMAIN, case, DOMAIN.read(case))


@pytest.mark.parametrize("place", ["file", "folder"])
def test_boxes_become_prompts_on_frames(scans: Path, tmp_path: Path, place: str) -> None:
    folder = tmp_path / "boxes"
    folder.mkdir()
    path = folder / "scan_0.json"
    path.write_text(json.dumps({"boxes": [[3, 4, 0, 10, 12, 2]], "classes": ["far"]}))
    settings = {} if place == "file" else {"several": True}
    prompts = prompts_of(scans, path if place == "file" else folder, **settings)
    assert list(prompts) == [0, 1]
    assert prompts[1].boxes.tolist() == [[3, 4, 10, 12]]
    assert prompts[1].classes.tolist() == [2]


def test_a_coarse_label_becomes_boxes_with_a_margin(scans: Path) -> None:
    prompts = prompts_of(scans, scans / "labelsTr" / "scan_0.nii.gz", coarse_label=CoarseLabel(2.0))
    assert list(prompts) == [0, 1]
    assert prompts[0].classes.tolist() == [1, 2]
    assert np.allclose(prompts[0].boxes, [[1, 2, 12, 14], [12, 6, 22, 17]], atol=1e-3)


def test_specks_of_a_coarse_label_are_not_asked_about(
    scans: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = Case("scan_0", scans / "imagesTr" / "scan_0.nii.gz")
    volume = DOMAIN.read(case)
    label = np.zeros(volume.shape, np.int32)
    label[2:8, 2:8, 0] = label[0, 10::2, 0] = label[20:23, 12:18, 0] = 1  # two objects in noise
    label[10:12, 3, 0] = 2  # all there is of its class on the slice
    label[5, 5, 1] = label[9, 9:11, 1] = 1
    path = write_label(volume, label, scans / "coarse.nii.gz")
    prompts = prompts_of(scans, path, coarse_label=CoarseLabel(min_area=10))
    assert prompts[0].classes.tolist() == [1, 1, 2]
    assert sorted(map(tuple, prompts[0].boxes.tolist())) == [
        (2, 2, 8, 8), (10, 3, 12, 4), (20, 12, 23, 18),
    ]  # fmt: skip
    assert prompts[1].boxes.tolist() == [[9, 9, 10, 11]]
    dropped = len(range(10, 20, 2)) + 1
    assert f"scan_0: {dropped} specks of fewer than 10 pixels" in caplog.text
    whole = prompts_of(scans, path, coarse_label=CoarseLabel(components="whole"))
    assert [len(found) for found in whole.values()] == [2, 1]
    with pytest.raises(InputError, match="min_area=0: expected 1 or more"):
        FilePrompts(path, coarse_label=CoarseLabel(min_area=0))
    with pytest.raises(InputError, match="components='all': use one of each"):
        FilePrompts(path, coarse_label=CoarseLabel(components="all"))


def test_a_margin_ends_at_the_frame(scans: Path) -> None:
    prompts = prompts_of(
        scans, scans / "labelsTr" / "scan_0.nii.gz", coarse_label=CoarseLabel(50.0)
    )
    assert np.allclose(prompts[0].boxes, [[0, 0, 24, 20]] * 2)


@pytest.mark.parametrize("form", ["structures", "object"])
def test_a_folder_of_other_names_is_the_label_of_the_only_source(tmp_path: Path, form: str) -> None:
    volume = read_volume(write_series(tmp_path / "scan", edit=completed).folder)
    label, folder = make_label(volume.shape), tmp_path / "labels"
    if form == "object":
        write_outputs(volume, label, tmp_path / "labels" / "any", ["rtstruct"])
    else:
        for name, value in (("first", 1), ("other", 3)):
            write_outputs(volume, np.where(label == value, 1, 0), folder / name, ["nifti"])
    case = Case("scan", tmp_path / "scan")
    prompts = FilePrompts(folder)(DOMAIN, case, volume)
    assert set(prompts) == set(np.flatnonzero(label.any((0, 1))).tolist())
    assert {int(v) for found in prompts.values() for v in found.classes} == {1, 2}
    with pytest.raises(InputError, match=r"0 files are named scan"):
        FilePrompts(folder, several=True)(DOMAIN, case, volume)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"0 files are named scan"):
        FilePrompts(tmp_path / "empty")(DOMAIN, case, volume)


def labelled(label: np.ndarray) -> Volume:
    return Volume(np.zeros(label.shape, np.float32), np.eye(4), "case", label=label)


def test_one_box_around_a_structure_spans_its_gaps_and_is_drawn_once() -> None:
    label = np.zeros((20, 20, 7), np.int32)
    label[2:6, 3:9, 1] = label[4:12, 1:5, 4] = 1
    label[15:19, 15:19, 5] = 2
    exact = prompts_from_label(DOMAIN, labelled(label), regime="volume")
    assert list(exact) == [1, 2, 3, 4, 5]
    assert all(np.allclose(exact[index].boxes, [[2, 1, 12, 9]], atol=1e-3) for index in (1, 2, 4))
    assert exact[5].classes.tolist() == [2]
    drawn = prompts_from_label(DOMAIN, labelled(label), regime="volume", box_jitter=0.1, seed=3)
    assert all(np.array_equal(drawn[index].boxes, drawn[1].boxes) for index in (2, 3, 4))
    moved = np.abs(drawn[1].boxes - exact[1].boxes)
    assert (moved > 0).any()
    assert (moved <= np.array([1.0, 0.8, 1.0, 0.8]) + 1e-3).all()


def test_a_box_per_slice_is_drawn_anew_from_the_seed() -> None:
    label = np.zeros((40, 40, 3), np.int32)
    label[10:30, 10:30, :] = 1
    exact, first, again, other = (
        prompts_from_label(DOMAIN, labelled(label), box_jitter=jitter, seed=seed)
        for jitter, seed in ((0.0, 0), (0.05, 0), (0.05, 0), (0.05, 1))
    )
    assert np.array_equal(first[0].boxes, again[0].boxes)
    assert not np.array_equal(first[0].boxes, other[0].boxes)
    assert not np.array_equal(first[0].boxes, first[1].boxes)
    assert np.abs(first[0].boxes - exact[0].boxes).max() <= 1.0 + 1e-3


def test_small_components_get_no_box() -> None:
    label = np.zeros((20, 20, 2), np.int32)
    label[2:6, 3:9, 0] = 1
    label[10:12, 10:12, :] = 1
    prompts = prompts_from_label(DOMAIN, labelled(label), min_area=5)
    assert list(prompts) == [0]
    assert len(prompts[0].classes) == 1


def test_prompts_that_do_not_fit_are_refused(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no prompts given"):
        FilePrompts(None)
    with pytest.raises(InputError, match="no such file"):
        FilePrompts(tmp_path / "none.json")
    with pytest.raises(InputError, match="one label map for several cases"):
        prompts_of(scans, scans / "labelsTr" / "scan_0.nii.gz", several=True)
    empty = tmp_path / "boxes"
    empty.mkdir()
    with pytest.raises(InputError, match=r"0 files are named scan_0\.\*"):
        prompts_of(scans, empty)
    volume = DOMAIN.read(Case("scan_0", scans / "imagesTr" / "scan_0.nii.gz"))
    nothing = write_label(volume, np.zeros(volume.shape, np.uint8), empty / "scan_0.nii.gz")
    with pytest.raises(InputError, match="label map is empty"):
        prompts_of(scans, nothing)
