"""Volumes from three planes, cleaned in 3D, and the settings that ask for it."""

import numpy as np
import pytest
import torch

from samonai.core.errors import InputError
from samonai.core.frame import Frame
from samonai.domains.medical import MedicalDomain, Volume
from samonai.evaluation.baselines import box_scores
from samonai.inference import Certainty, VolumeInferer, cleaning, prompts_from_label
from samonai.inference.inferer import FrameOutput, SourceInferer
from samonai.inference.volumes import planes
from samonai.inference.volumes.inferer import cleaned
from samonai.inference.volumes.planes import across
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.types import Prompts
from samonai.sam.network import DecodeOutput

SHAPE = (12, 10, 6)


@pytest.fixture
def volume() -> Volume:
    generator = np.random.default_rng(0)
    label = np.zeros(SHAPE, np.int32)
    label[3:8, 2:7, 1:5] = 1
    label[8:11, 7:9, 2:4] = 2
    data = generator.normal(size=SHAPE).astype(np.float32) + 3 * label
    return Volume(data, np.diag([1.0, 1, 2, 1]), "case", label=label)


DOMAIN = MedicalDomain()


class Blobs:
    """Stands for a network: a blob in each box, as bright as the frame."""

    long_side, windows = 1024, None

    def __init__(self, brighter: float = 0.0) -> None:
        self.brighter, self.asked = brighter, 0

    def share(self, embeddings: torch.Tensor, prompts: int) -> None:
        pass

    def decode_single(
        self, embeddings: torch.Tensor, prompts: Prompts, shared: None = None
    ) -> DecodeOutput:
        self.asked += 1
        rows, columns = torch.meshgrid(
            torch.arange(256) + 0.5, torch.arange(256) + 0.5, indexing="ij"
        )
        found = []
        for box in prompts.boxes / 4:
            x, y = (
                (columns - (box[0] + box[2]) / 2) / (box[2] - box[0]),
                (rows - (box[1] + box[3]) / 2) / (box[3] - box[1]),
            )
            found.append(8 - 30 * (x**2 + y**2) + embeddings.mean() + self.brighter)
        return DecodeOutput(
            torch.stack(found)[:, None], torch.full((len(found), 1), 0.9 - 0.1 * self.brighter)
        )


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Blobs:
    def embed(self: SourceInferer, source: object, frame: Frame, *_: object) -> torch.Tensor:
        return torch.full((2, 64, 64), float(frame.image.mean()) / 255)

    monkeypatch.setattr(SourceInferer, "embed", embed)
    return Blobs()


@pytest.mark.parametrize("settings", [{"planes": 3}, {"spread": "propagate"}])
def test_what_needs_prompts_is_refused_without(volume: Volume, network, settings) -> None:
    with pytest.raises(InputError, match=f"{next(iter(settings))}=.* needs boxes or clicks"):
        VolumeInferer(DOMAIN, **settings)(volume, network)


def test_three_planes_average_the_logits_of_each(volume: Volume, network) -> None:
    prompts = prompts_from_label(DOMAIN, volume, regime="volume")
    fused = VolumeInferer(DOMAIN, planes=3)(volume, network, prompts)
    best, expected = np.zeros(SHAPE), np.zeros(SHAPE, int)
    for value in (1, 2):
        total = np.zeros(SHAPE)
        for axis in range(3):
            domain = MedicalDomain(axis=axis)
            asked = prompts_from_label(domain, volume, regime="volume")
            inferer, logits = SourceInferer(domain), np.full(SHAPE, -10.0)
            for index, found in asked.items():
                frame = domain.frame(volume, index)
                rows = np.flatnonzero(found.classes == value)
                if len(rows):
                    embedding = inferer.embed(volume, frame, network)
                    said = inferer.logits([network], embedding, found[rows], frame.size)
                    place = [slice(None)] * 3
                    place[axis] = index
                    logits[tuple(place)] = said[0].clamp(-10, 10).numpy().T
            total += logits
        total = (total / 3).astype(np.float16)
        best_before, best = best, np.maximum(best, total)
        expected[total > best_before] = value
    # Half precision decides otherwise only where two logits are all but equal.
    assert (fused != expected).mean() < 0.01
    assert {1, 2} <= set(np.unique(fused))
    assert fused.dtype == np.int32


@pytest.mark.parametrize("spread", ["none", "propagate"])
def test_three_planes_ask_each_frame_once_for_all_classes(
    volume: Volume, network, spread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = prompts_from_label(DOMAIN, volume, regime="middle" if spread != "none" else "volume")
    VolumeInferer(DOMAIN, spread=spread)(volume, network, prompts)
    alone = network.asked
    asked: list[tuple[int, int]] = []
    embed = SourceInferer.embed

    def counted(self: SourceInferer, source: object, frame: Frame, *others: object) -> torch.Tensor:
        asked.append((self.domain.axis, frame.location.index))
        return embed(self, source, frame, *others)

    monkeypatch.setattr(SourceInferer, "embed", counted)
    network.asked = 0
    label = VolumeInferer(DOMAIN, spread=spread, planes=3)(volume, network, prompts)
    assert label.any()
    of_others = [place for place in asked if place[0] != DOMAIN.axis]
    assert len(set(of_others)) == len(of_others) > 8
    assert network.asked == alone + len(of_others)

    monkeypatch.setattr(planes, "_ROOM", 1)  # a turn for each class
    inferer = VolumeInferer(DOMAIN, spread=spread, planes=3)
    np.testing.assert_array_equal(inferer(volume, network, prompts), label)
    spy = Spy()
    VolumeInferer(DOMAIN, spread=spread, planes=3, observers=[spy])(volume, network, prompts)
    assert {1, 2} <= {int(value) for found, _ in spy.seen.values() for value in found.classes}


def test_boxes_are_cut_by_the_other_planes(volume: Volume) -> None:
    prompts = prompts_from_label(DOMAIN, volume, regime="volume")
    of_one = {index: found[np.array([0])] for index, found in prompts.items()
              if found.classes[0] == 1}  # fmt: skip
    for axis in (0, 1):
        domain = MedicalDomain(axis=axis)
        only = Volume(volume.data, volume.affine, "case", label=np.where(volume.label == 1, 1, 0))
        expected = prompts_from_label(domain, only, regime="volume")
        found = across(of_one, 2, axis, SHAPE)
        assert sorted(found) == sorted(expected)
        for index, boxes in expected.items():
            np.testing.assert_array_equal(found[index].boxes, boxes.boxes)


def test_slabs_of_different_size_are_cut_where_they_are() -> None:
    boxes = {
        1: FramePrompts(np.array([[2, 3, 6, 5]], np.float32), np.array([4])),
        2: FramePrompts(np.array([[4, 1, 8, 5]], np.float32), np.array([4])),
    }
    cut = across(boxes, 2, 0, SHAPE)  # frames across i: x is j, y is k
    assert sorted(cut) == [2, 3, 4, 5, 6, 7]
    np.testing.assert_array_equal(cut[2].boxes, [[3, 1, 5, 2]])
    np.testing.assert_array_equal(cut[4].boxes, [[1, 1, 5, 3]])
    np.testing.assert_array_equal(cut[7].boxes, [[1, 2, 5, 3]])
    assert cut[2].classes.tolist() == [4]


def test_one_plane_without_spread_is_the_plain_inferer(volume: Volume, network) -> None:
    prompts = prompts_from_label(DOMAIN, volume)
    plain = SourceInferer(DOMAIN)(volume, network, prompts)
    np.testing.assert_array_equal(VolumeInferer(DOMAIN)(volume, network, prompts), plain)


def test_interpolation_reaches_network_and_box_baseline_alike(volume: Volume, network) -> None:
    keyframes = prompts_from_label(DOMAIN, volume, regime="keyframes")
    assert sorted(keyframes) == [1, 2, 3, 4]
    ones = {index: found[np.flatnonzero(found.classes == 1)] for index, found in keyframes.items()}
    ones = {index: found for index, found in ones.items() if len(found)}
    assert sorted(ones) == [1, 3, 4]  # first, middle and last
    inferer = VolumeInferer(DOMAIN, spread="interpolate")
    filled = inferer.merge(volume, ones, box_scores)
    np.testing.assert_array_equal(filled, np.where(volume.label == 1, 1, 0))
    every = prompts_from_label(DOMAIN, volume)
    asked = {i: f[np.flatnonzero(f.classes == 1)] for i, f in every.items()}
    expected = SourceInferer(DOMAIN)(volume, network, asked)
    np.testing.assert_array_equal(inferer(volume, network, ones), expected)


def test_the_middle_slice_alone_is_prompted(volume: Volume) -> None:
    prompts = prompts_from_label(DOMAIN, volume, regime="middle")
    assert {index: found.classes.tolist() for index, found in prompts.items()} == {3: [1, 2]}
    np.testing.assert_array_equal(prompts[3].boxes[0], [3, 2, 8, 7])


def test_one_click_on_the_middle_slice(volume: Volume) -> None:
    label = volume.label.copy()
    label[:, :, 4][0, 0] = 1  # a speck beside the structure gets no click
    label[8:11, 7:9, 4:6] = 2
    labelled = DOMAIN.with_label(volume, label)
    prompts = prompts_from_label(DOMAIN, labelled, regime="middle_click")
    assert {index: found.classes.tolist() for index, found in prompts.items()} == {3: [1], 4: [2]}
    for index, found in prompts.items():
        assert np.isnan(found.boxes).all()
        ((x, y),) = found.point_coords[0].astype(int).tolist()
        assert label[x, y, index] == found.classes[0]


def test_propagation_of_a_box_runs_on_a_network(volume: Volume, network) -> None:
    prompts = prompts_from_label(DOMAIN, volume, regime="middle")
    label = VolumeInferer(DOMAIN, spread="propagate")(volume, network, prompts)
    assert label.shape == SHAPE
    assert set(np.unique(label)) <= {0, 1, 2}
    fused = VolumeInferer(DOMAIN, spread="propagate", planes=3)(volume, network, prompts)
    assert fused.shape == SHAPE


def test_padding_is_never_labelled(volume: Volume, network) -> None:
    valid = np.ones(SHAPE, bool)
    valid[5:] = False
    padded = Volume(volume.data, volume.affine, "case", label=volume.label, valid=valid)
    prompts = prompts_from_label(DOMAIN, padded, regime="volume")
    label = VolumeInferer(DOMAIN, planes=3)(padded, network, prompts)
    assert not label[5:].any()


class Spy(Certainty):
    """Keeps what it is shown, beside what certainty is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, tuple[FramePrompts, FrameOutput]] = {}

    def observe(self, frame: Frame, prompts: FramePrompts, answer: FrameOutput) -> None:
        assert frame.location.index not in self.seen
        self.seen[frame.location.index] = prompts, answer
        super().observe(frame, prompts, answer)


@pytest.mark.parametrize("options", [{"spread": "propagate"}, {"planes": 3},
                                     {"spread": "propagate", "planes": 3}])  # fmt: skip
def test_observers_see_each_network_wherever_prompts_come_from(
    volume: Volume, network, options: dict
) -> None:
    regime = "middle" if "spread" in options else "volume"
    prompts = prompts_from_label(DOMAIN, volume, regime=regime)
    members, spy = [Blobs(brighter=2.0)], Spy()
    expected = VolumeInferer(DOMAIN, members=members, **options)(volume, network, prompts)
    inferer = VolumeInferer(DOMAIN, members=members, observers=[spy], **options)
    label = inferer(volume, network, prompts)
    np.testing.assert_array_equal(label, expected)
    assert label.any()
    assert set(np.flatnonzero(label.any((0, 1)))) <= set(spy.seen)
    found = np.zeros_like(label)
    for index, (asked, answer) in spy.seen.items():
        assert answer.scores.shape == (2, len(asked), SHAPE[1], SHAPE[0])
        assert (answer.scores[1] >= answer.scores[0]).all()
        if "planes" in options:
            assert answer.iou is None
        else:
            np.testing.assert_allclose(answer.iou, [[0.9] * len(asked), [0.7] * len(asked)])
        mean = answer.scores.mean(0)
        for row in mean.amax(1).amax(1).argsort().tolist():
            wins = (mean[row] > 0) & (mean[row] == mean.amax(0))
            found[:, :, index][wins.numpy().T] = asked.classes[row]
    # Half precision decides otherwise only where logits are all but equal.
    assert (found != label).mean() < 0.01
    document = spy.document({1: "one", 2: "two"})
    assert document["one"]["voxels"] > 0
    assert 0.5 < document["one"]["probability"] <= 1
    assert 0 < document["one"]["agreement"] <= 1
    assert 0 < document["one"]["uncertainty"] < 1
    assert max(values.max() for values in spy.maps.values()) > 0.5
    spy.seen.clear()
    inferer(volume, network, prompts, alone=True)
    assert not spy.seen


@pytest.mark.parametrize(
    ("options", "words"), [({"spread": "all"}, "spread"), ({"planes": 2}, "planes=2")]
)
def test_unknown_settings_are_refused(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        VolumeInferer(DOMAIN, **options)


# Cleaning


def scattered() -> np.ndarray:
    label = np.zeros(SHAPE, np.int32)
    label[1:6, 1:6, 1:5] = 1
    label[3, 3, 3] = 0  # a hole
    label[10, 8, 5] = 1  # a speck
    label[7:10, 1:4, 1:3] = 2
    label[8, 8, 0:2] = 2  # a component of two voxels
    return label


def test_the_largest_component_of_each_class_is_kept() -> None:
    label = cleaned(scattered(), cleaning(keep_largest=True))
    assert label[10, 8, 5] == 0
    assert label[8, 8, 0] == 0
    assert (label[7:10, 1:4, 1:3] == 2).all()
    assert label[3, 3, 3] == 0


def test_small_components_are_removed() -> None:
    label = cleaned(scattered(), cleaning(min_size=2))
    assert label[10, 8, 5] == 0
    assert label[8, 8, 0] == 2
    assert cleaned(scattered(), cleaning(min_size=3))[8, 8, 0] == 0


def test_holes_are_filled_but_not_over_another_class() -> None:
    label = scattered()
    label[3, 3, 3] = 2
    np.testing.assert_array_equal(cleaned(label, cleaning(fill_holes=True)), label)
    assert cleaned(scattered(), cleaning(fill_holes=True))[3, 3, 3] == 1


def test_nothing_asked_for_is_nothing_done(volume: Volume, network) -> None:
    assert cleaning() is None
    prompts = prompts_from_label(DOMAIN, volume)
    clean = cleaning(keep_largest=True)
    dirty = VolumeInferer(DOMAIN)(volume, network, prompts)
    label = VolumeInferer(DOMAIN, clean=clean)(volume, network, prompts)
    np.testing.assert_array_equal(label, cleaned(dirty, clean))
    baseline = VolumeInferer(DOMAIN, clean=clean).merge(volume, prompts, box_scores)
    np.testing.assert_array_equal(
        baseline, SourceInferer(DOMAIN).merge(volume, prompts, box_scores)
    )


def test_memory_of_tracks_is_small(volume: Volume, network) -> None:
    tracks = VolumeInferer(DOMAIN, spread="propagate").tracks(
        volume, [network], prompts_from_label(DOMAIN, volume, regime="middle")
    )
    assert all(found.low_res.dtype == torch.float16 for found in tracks.values())


def test_the_bundles_know_the_settings() -> None:
    from samonai.workflows.bundle_files import EVALUATE, INFERENCE, TRAIN, config_files, read_config
    from samonai.workflows.settings import plain_settings

    for names in ((INFERENCE,), (TRAIN, EVALUATE)):
        plain = plain_settings(read_config(config_files("medical", *names)))
        cleaning = {"cleaning.keep_largest", "cleaning.min_size", "cleaning.fill_holes"}
        assert {"spread", "planes", *cleaning} <= set(plain)
        assert plain["planes"] == 1
