"""A crop to the body or to the prompt: exact geometry, and nothing left out in silence."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from archive_factory import write_boxes, write_study
from hypothesis import given, settings
from hypothesis import strategies as st
from test_medical_domain import ORIENTATIONS
from test_volume_inference import Blobs
from tiny_scans import write_scans

from samonai.cli import main
from samonai.core.errors import InputError
from samonai.core.frame import Frame
from samonai.core.pseudonyms import pseudonym
from samonai.domains import get_domain
from samonai.domains.base import Case
from samonai.domains.medical import MedicalDomain, Volume, read_volume, write_label
from samonai.domains.medical.crop import body_part
from samonai.domains.medical.volume import FormatFacts
from samonai.embeddings import EmbeddingStore, encode_cases
from samonai.embeddings.encode import embedding_signature
from samonai.inference import CaseDataset, FilePrompts, VolumeInferer, prompts_from_label
from samonai.inference.case_dataset import CaseItem
from samonai.inference.inferer import SourceInferer
from samonai.inference.prompting.select import NoPrompts
from samonai.prompts.frame_prompts import FramePrompts
from samonai.sam.decoder_metadata import read_decoder_metadata
from samonai.workflows.archive.archive import embed_archive, predict_archive

AIR, TISSUE = -1000.0, 40.0


@st.composite
def bodies(draw: Any) -> tuple[npt.NDArray[np.float32], tuple[slice, ...]]:
    """CT values with one block of tissue in air, and where it is."""
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    block = []
    for size in shape:
        start = draw(st.integers(0, size - 1))
        block.append(slice(start, draw(st.integers(start + 1, size))))
    values = np.full(shape, AIR, np.float32)
    values[tuple(block)] = TISSUE
    return values, tuple(block)


def ct(values: npt.NDArray[np.float32], **changes: Any) -> Volume:
    facts = FormatFacts("made", modality="CT")
    return Volume(
        **{"data": values, "affine": np.eye(4), "source_id": "v", "facts": facts} | changes
    )


def read(folder: Path, values: npt.NDArray[np.float32], domain: MedicalDomain) -> Volume:
    path = folder / "v.nii"
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return domain.read(Case("v", path))


def item(folder: Path, values: Any, domain: MedicalDomain, prompts: Any) -> CaseItem:
    """Read a volume and its prompts as prediction does."""
    read(folder, values, domain)
    (folder / "asked.json").write_text(json.dumps(prompts))
    asked = FilePrompts(folder / "asked.json")
    return CaseDataset(domain, [Case("v", folder / "v.nii")], asked)[0]


@settings(max_examples=30, deadline=None)
@given(
    body=bodies(),
    orientation=st.sampled_from(ORIENTATIONS),
    axis=st.integers(0, 2),
    endings=st.tuples(*[st.sampled_from([".nii.gz", ".nii", ".nrrd", ".mha"])] * 2),
    margin=st.floats(0, 12),
    seed=st.integers(0, 1000),
)
def test_read_cut_merge_write_read_is_the_identity(
    body, orientation, axis, endings, margin, seed
) -> None:
    values, block = body
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = orientation * rng.uniform(0.4, 5, 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    affine = affine.astype(np.float32).astype(np.float64)
    label = np.zeros(values.shape, np.int32)
    # 0 and 255 alone are refused: that may be a mask of another program.
    label[block] = rng.choice(np.delete(np.arange(300), 255), label[block].shape)
    domain = MedicalDomain(axis=axis, crop="body", crop_margin=margin)
    with TemporaryDirectory() as folder:
        grid = Volume(values, affine, "grid", FormatFacts("made"))
        image = Path(folder) / "a.nii.gz"
        nib.save(nib.Nifti1Image(values, affine), image)
        source = domain.read(
            Case("a", image, write_label(grid, label, Path(folder) / f"b{endings[0]}"))
        )
        frames = [domain.frame(source, index) for index in range(domain.frame_count(source))]
        whole = domain.all_frames(source)
        for frame in frames:
            full, (rows, columns) = domain.frame(whole, frame.location.index), frame.part
            assert full.location.origin == (0, 0)
            np.testing.assert_array_equal(frame.image, full.image[rows, columns])
            np.testing.assert_array_equal(frame.label, full.label[rows, columns])
        merged = domain.merge(source, {f.location.index: f.label for f in frames})
        np.testing.assert_array_equal(merged, label)
        maps = domain.map_merger(source)
        for frame in frames:
            maps.add(frame, frame.label.astype(np.float32))
        np.testing.assert_array_equal(maps.finish(), label)
        second = domain.write(source, merged, Path(folder) / f"c{endings[1]}")
        np.testing.assert_array_equal(domain.read(Case("a", image, second)).label, label)
        np.testing.assert_allclose(read_volume(second).affine, affine, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(body=bodies(), axis=st.integers(0, 2), margin=st.integers(0, 3))
def test_the_crop_is_the_body_and_its_margin(body, axis, margin) -> None:
    values, block = body
    domain = MedicalDomain(axis=axis, crop="body", crop_margin=margin)
    found = domain.crop.of_volume(ct(values), axis).part
    for side, (part, of_body, size) in enumerate(zip(found, block, values.shape, strict=True)):
        grown = slice(max(of_body.start - margin, 0), min(of_body.stop + margin, size))
        assert part == (slice(0, size) if side == axis else grown)


@settings(max_examples=60, deadline=None)
@given(
    body=bodies(), axis=st.integers(0, 2), crop=st.sampled_from(["body", "prompt"]), data=st.data()
)
def test_prompts_land_on_the_voxels_that_they_name(body, axis, crop, data) -> None:
    values, _ = body
    box, point = [], []
    for size in values.shape:
        start = data.draw(st.integers(0, size - 1))
        box.append((start, data.draw(st.integers(start + 1, size))))
        point.append(data.draw(st.integers(0, size - 1)))
    prompts = {
        "boxes": [[start for start, _ in box] + [stop for _, stop in box]],
        "points": [point],
        "object": ["another"],
        "classes": [1],
    }
    if data.draw(st.booleans()):
        prompts = {"boxes": prompts["boxes"]}
    with TemporaryDirectory() as folder:
        whole = item(Path(folder), values, MedicalDomain(axis=axis), prompts)
        domain = MedicalDomain(axis=axis, crop=crop, crop_margin=1)
        found = item(Path(folder), values, domain, prompts)
        again = domain.read_boxes(found.source, Path(folder) / "asked.json")
    assert found.prompts.keys() == whole.prompts.keys() == again.keys()
    for index, expected in whole.prompts.items():
        frame, asked = domain.frame(found.source, index), found.prompts[index]
        y, x = frame.location.origin
        np.testing.assert_array_equal(asked.boxes + np.array([x, y, x, y]), expected.boxes)
        np.testing.assert_array_equal(again[index].boxes, asked.boxes)
        boxes = asked.boxes[~np.isnan(asked.boxes).any(1)]
        assert (boxes >= 0).all()
        assert (boxes <= [*frame.size[::-1], *frame.size[::-1]]).all()
        if expected.point_coords is not None:
            real = expected.point_labels >= 0
            points = asked.point_coords[real]
            np.testing.assert_array_equal(points + np.array([x, y]), expected.point_coords[real])
            assert (points > 0).all()
            assert (points < frame.size[::-1]).all()


def test_a_coarse_label_map_widens_the_crop_like_a_box(tmp_path: Path) -> None:
    values = np.full((20, 20, 4), AIR, np.float32)
    values[8:12, 8:12] = TISSUE
    domain = MedicalDomain(crop="body", crop_margin=0)
    source = read(tmp_path, values, domain)
    assert source.part == (slice(8, 12), slice(8, 12), slice(0, 4))
    coarse = np.zeros(values.shape, np.int32)
    coarse[2:10, 9:11, 1] = 1
    path = write_label(source, coarse, tmp_path / "coarse.nii.gz")
    found = CaseDataset(domain, [Case("v", tmp_path / "v.nii")], FilePrompts(path))[0]
    assert found.source.part == (slice(2, 12), slice(8, 12), slice(0, 4))
    assert found.prompts[1].boxes.tolist() == [[0, 1, 8, 3]]
    assert found.source.content_hash() != source.content_hash()


def test_an_object_outside_the_body_is_asked_about_and_put_back(tmp_path, monkeypatch) -> None:
    values = np.full((24, 20, 3), AIR, np.float32)
    values[10:14, 10:14] = TISSUE
    domain = MedicalDomain(crop="body", crop_margin=0)
    found = item(tmp_path, values, domain, {"boxes": [[0, 2, 1, 6, 8, 2]], "classes": [3]})
    monkeypatch.setattr(SourceInferer, "embed", lambda *_: torch.zeros(2, 64, 64))
    label = VolumeInferer(domain)(found.source, Blobs(), found.prompts)
    assert label.shape == values.shape
    assert set(np.unique(label)) == {0, 3}
    inside = np.zeros(values.shape, bool)
    inside[0:6, 2:8, 1] = True
    assert (label[inside] == 3).mean() > 0.7
    assert not label[~inside].any()


@pytest.mark.parametrize("planes", [1, 3])
@pytest.mark.parametrize("spread", ["none", "propagate", "interpolate"])
def test_a_cropped_volume_is_predicted_as_what_it_was_cropped_to(
    planes, spread, monkeypatch
) -> None:
    def embed(self: SourceInferer, source: object, frame: Frame, *_: object) -> torch.Tensor:
        return torch.full((2, 64, 64), float(frame.image.mean()) / 255)

    monkeypatch.setattr(SourceInferer, "embed", embed)
    rng = np.random.default_rng(0)
    label = np.zeros((12, 10, 6), np.int32)
    label[3:8, 2:7, 1:5] = 1
    label[8:11, 7:9, 2:4] = 2
    alone = ct(rng.normal(0, 40, label.shape).astype(np.float32) + 90 * label, label=label)
    room = (slice(5, 17), slice(0, 10), slice(0, 6))
    data, known = np.full((20, 13, 6), AIR, np.float32), np.zeros((20, 13, 6), np.int32)
    data[room], known[room] = alone.data, label
    cropped = ct(data, label=known).with_crop(room)

    domain = MedicalDomain()
    regime = {"none": "volume", "propagate": "middle", "interpolate": "keyframes"}[spread]
    asked = prompts_from_label(domain, alone, regime=regime)
    wide = prompts_from_label(domain, cropped, regime=regime)
    assert all((wide[index].boxes == asked[index].boxes).all() for index in asked | wide)
    seen: list[dict[int, Any]] = []

    class Spy:
        def observe(self, frame: Frame, prompts: FramePrompts, answer: Any) -> None:
            assert answer.scores.shape[-2:] == frame.size
            seen[-1][frame.location.index] = answer.scores

    labels = []
    for source, prompts in ((alone, asked), (cropped, wide)):
        seen.append({})
        inferer = VolumeInferer(domain, spread=spread, planes=planes, observers=[Spy()])
        labels.append(inferer(source, Blobs(), prompts))
    assert {1, 2} <= set(np.unique(labels[0]))
    np.testing.assert_array_equal(labels[1][room], labels[0])
    assert np.count_nonzero(labels[1]) == np.count_nonzero(labels[0])
    assert seen[0].keys() == seen[1].keys()
    assert all(torch.equal(scores, seen[1][index]) for index, scores in seen[0].items())


def test_the_crop_around_a_prompt_is_square_with_context_and_stays_in_the_slice(tmp_path) -> None:
    values = np.full((60, 50, 3), TISSUE, np.float32)
    domain = MedicalDomain(crop="prompt", crop_margin=2)
    asked = {"boxes": [[20, 20, 0, 28, 24, 1], [22, 21, 2, 30, 26, 3]], "classes": [1, 1]}
    found = item(tmp_path, values, domain, asked)
    assert found.source.part == (slice(15, 35), slice(13, 33), slice(0, 3))  # twice 10 columns
    corner = item(tmp_path, values, domain, {"boxes": [[0, 48, 0, 1, 50, 1]], "classes": [1]})
    assert corner.source.part == (slice(0, 6), slice(44, 50), slice(0, 3))  # 2 rows, 2 mm beside
    # A click does not say how large a thing is.
    click = item(tmp_path, values, domain, {"points": [[30, 30, 1]]})
    assert click.source.part == (slice(15, 45), slice(15, 45), slice(0, 3))
    assert domain.read(Case("v", tmp_path / "v.nii")).crop is None


def test_all_large_parts_of_a_body_count_and_no_speck() -> None:
    values = np.full((40, 40, 6), AIR, np.float32)
    values[4:12, 10:30] = values[20:28, 12:28] = TISSUE  # two legs
    values[7:9, 15:20] = AIR  # and what is hollow in one
    values[38, 2, 3] = TISSUE
    assert body_part(ct(values)) == (slice(4, 28), slice(10, 30), slice(0, 6))


def test_a_scan_in_its_own_unit_is_told_from_its_noise() -> None:
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(0, 8, (60, 50, 8))).astype(np.float32)
    values[10:44, 12:40] += rng.normal(220, 40, (34, 28, 8)).astype(np.float32)
    found = body_part(Volume(values, np.eye(4), "mr"))
    assert found == (slice(10, 44), slice(12, 40), slice(0, 8))


def test_a_large_volume_is_looked_at_coarsely_and_nothing_of_it_is_lost() -> None:
    values = np.full((300, 7, 5), AIR, np.float32)
    values[31:250, 1:6] = TISSUE
    i, j, k = body_part(ct(values))
    assert 28 <= i.start <= 31
    assert 250 <= i.stop <= 253
    assert (j, k) == (slice(1, 6), slice(0, 5))


def test_padding_is_no_body() -> None:
    values = np.full((12, 12, 3), AIR, np.float32)
    values[3:9, 3:9] = TISSUE
    valid = np.ones(values.shape, bool)
    valid[6:] = False
    assert body_part(ct(values, valid=valid))[0] == slice(3, 6)


@pytest.mark.parametrize("value", [AIR, 0.0, 55.0])
def test_a_volume_of_one_value_is_not_cropped_and_says_so(tmp_path, caplog, value) -> None:
    values = np.full((6, 5, 4), value, np.float32)
    source = read(tmp_path, values, MedicalDomain(crop="body"))
    assert source.crop is None
    assert [r.getMessage() for r in caplog.records if "crop" in r.getMessage()] == [
        "v: crop=body found nothing but air; not cropped"
    ]


def test_labels_outside_of_the_crop_are_counted(tmp_path: Path, caplog) -> None:
    values = np.full((20, 20, 4), AIR, np.float32)
    values[8:12, 8:12] = TISSUE
    label = np.zeros(values.shape, np.int32)
    label[10:15, 9, 2] = 1
    read(tmp_path, values, MedicalDomain())
    path = write_label(ct(values), label, tmp_path / "label.nii")
    source = MedicalDomain(crop="body", crop_margin=0).read(Case("v", tmp_path / "v.nii", path))
    assert "v: the crop leaves out 3 of 5 labelled voxels" in caplog.text
    assert np.count_nonzero(source.label) == 5  # what is measured against is whole
    caplog.clear()
    MedicalDomain(crop="body", crop_margin=3).read(Case("v", tmp_path / "v.nii", path))
    assert caplog.text == ""


def test_the_setting_is_in_signatures_where_there_is_a_crop(tiny_network) -> None:
    plain = MedicalDomain()
    assert MedicalDomain(crop_margin=3).settings() == plain.settings()
    assert "crop" not in plain.settings()
    body = get_domain("medical", **MedicalDomain(crop="body", crop_margin=3).settings())
    assert body.settings() == {**plain.settings(), "crop": "body", "crop_margin": 3.0}
    assert embedding_signature(tiny_network, body) != embedding_signature(tiny_network, plain)
    volume = ct(np.arange(60, dtype=np.float32).reshape(5, 4, 3))
    part = (slice(1, 5), slice(0, 4), slice(0, 3))
    hashes = {
        v.content_hash() for v in (volume, volume.with_crop(part), replace(volume, crop=part))
    }
    assert len(hashes) == 2
    assert volume.with_crop((slice(0, 5), slice(0, 4), slice(0, 3))).crop is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"crop": "brain"}, "use one of none, body, prompt"),
        ({"crop": "body", "crop_margin": -1}, "0 or more"),
        ({"crop": "body", "crop_margin": "wide"}, "crop_margin='wide': expected"),
        ({"crop": "body", "crop_margin": True}, "crop_margin=True: expected"),
    ],
)
def test_wrong_settings_say_what_is_expected(wrong, said) -> None:
    with pytest.raises(InputError, match=said):
        get_domain("medical", **wrong)


def test_where_nothing_is_asked_no_crop_can_follow_it(tmp_path: Path) -> None:
    domain = MedicalDomain(crop="prompt")
    read(tmp_path, np.full((6, 5, 4), TISSUE, np.float32), domain)
    case = Case("v", tmp_path / "v.nii")
    with pytest.raises(InputError, match="use --set crop=body or --set crop=none"):
        CaseDataset(domain, [case], NoPrompts())[0]
    with pytest.raises(InputError, match="use --set crop=body or --set crop=none"):
        domain.fit([case])
    MedicalDomain(crop="body").fit([case])
    nothing = CaseDataset(domain, [case], lambda *_: {})[0]  # a label without objects
    assert nothing.source.crop is None


def test_a_store_holds_what_each_crop_shows(tmp_path: Path, tiny_network) -> None:
    values = np.full((30, 24, 2), AIR, np.float32)
    values[10:20, 8:16] = TISSUE + np.arange(10, dtype=np.float32)[:, None, None]
    read(tmp_path, values, MedicalDomain())
    cases, store = [Case("v", tmp_path / "v.nii")], EmbeddingStore(tmp_path / "store")
    body = MedicalDomain(crop="body", crop_margin=2)
    for domain in (MedicalDomain(), body, body):
        report = encode_cases(tiny_network, domain, cases, store, frames="all", progress=False)
    assert (report.encoded, report.reused) == (0, 2)
    whole = encode_cases(tiny_network, MedicalDomain(), cases, store, frames="all", progress=False)
    assert whole.reused == 2
    assert whole.cases[0].source_hash != report.cases[0].source_hash


def test_a_run_predicts_with_its_crop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = write_scans(tmp_path)
    run, out = tmp_path / "run", tmp_path / "out"
    argv = ["train", "medical", "--images", images, "--labels", labels, "--out", run]
    argv += [
        "--epochs",
        "1",
        "--set",
        "crop=body",
        "--set",
        "crop_margin=3",
        "--val-fraction",
        "0.3",
    ]
    assert main([str(part) for part in argv]) == 0
    learned = read_decoder_metadata(run / "decoder.safetensors").domain_settings
    assert (learned["crop"], learned["crop_margin"]) == ("body", 3.0)
    data = ["--images", str(images), "--labels", str(labels), "--out", str(out / "measured")]
    assert main(["evaluate", "medical", "--run", str(run), *data]) == 0
    facts = json.loads((out / "measured" / "metrics.json").read_text())
    assert facts["domain_settings"]["crop"] == "body"
    image = images / "case_a.nii.gz"
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"boxes": [[6, 4, 1, 18, 16, 2]], "classes": [1]}))
    predict = [
        "predict",
        "medical",
        "--input",
        str(image),
        "--boxes",
        str(boxes),
        "--out",
        str(out),
    ]
    assert main([*predict, "--run", str(run)]) == 0
    written = nib.load(out / "case_a.nii.gz")
    assert written.shape == nib.load(image).shape
    np.testing.assert_array_equal(written.affine, nib.load(image).affine)
    capsys.readouterr()
    for setting, said in (("crop=none", "crop=none"), ("crop_margin=4", "crop_margin=4.0")):
        assert main([*predict, "--run", str(run), "--set", setting]) != 0
        assert f"but {said} is given" in " ".join(capsys.readouterr().err.split())
    train = [*argv[:6], "--out", tmp_path / "other", "--set", "crop=prompt"]
    assert main([str(part) for part in train]) != 0
    assert "use --set crop=body or --set crop=none" in " ".join(capsys.readouterr().err.split())


def test_archives_are_cropped(tmp_path: Path, tiny_network) -> None:
    write_study(tmp_path / "in" / "one", 0)
    name = pseudonym("one__CT")
    boxes = write_boxes(tmp_path / "boxes.csv", ["one__CT"])
    for crop in ("body", "prompt"):
        out = tmp_path / crop
        report = predict_archive(
            tiny_network, tmp_path / "in", boxes, out, formats=["nifti", "dicom-seg"], crop=crop
        )
        assert report.states == {name: "done"}
        assert nib.load(out / f"{name}.nii.gz").shape == read_volume(tmp_path / "in/one/CT").shape
    stored = tmp_path / "store"
    done = embed_archive(tiny_network, tmp_path / "in", tmp_path / "e", store=stored, crop="body")
    assert done.states == {name: "done"}
    with pytest.raises(InputError, match="use --set crop=body or --set crop=none"):
        embed_archive(tiny_network, tmp_path / "in", tmp_path / "f", store=stored, crop="prompt")
