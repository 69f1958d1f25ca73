"""Frames turned and mirrored: what is said of them lands where it belongs, and is averaged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_scans import affine, ball, save

from samonai.core.errors import InputError
from samonai.core.frame import Frame, FrameLocation
from samonai.domains.base import Case
from samonai.domains.medical import MedicalDomain
from samonai.embeddings import EmbeddingStore
from samonai.evaluation import ClickSimulation
from samonai.inference import ObjectFinding, SourceInferer, VolumeInferer
from samonai.inference.inferer import Automatic
from samonai.inference.tta import Orientation, orientations_of
from samonai.prompts.frame_prompts import FramePrompts

SIZE = (7, 11)
ALL = orientations_of(8)


@pytest.fixture
def frame() -> Frame:
    values = np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE)
    return Frame(
        np.repeat(values[..., None], 3, 2),
        FrameLocation("a", 0),
        label=values.astype(np.int32),
        valid=values > 3,
        instances=values.astype(np.int64),
    )


def prompts() -> FramePrompts:
    nowhere = [np.nan] * 4
    return FramePrompts(
        boxes=np.array([[2, 1, 6, 4], nowhere], np.float32),
        classes=np.array([1, 2]),
        point_coords=np.array([[[8.5, 5.5], [0.5, 6.5]], [[10.5, 0.5], [0, 0]]], np.float32),
        point_labels=np.array([[1, 0], [1, -1]]),
    )


def test_the_turns_are_all_there_are_and_the_first_is_none() -> None:
    seen = {way: way.back(torch.arange(6).reshape(2, 3)).tolist() for way in ALL}
    assert len({str(values) for values in seen.values()}) == 8
    assert seen[Orientation()] == [[0, 1, 2], [3, 4, 5]]
    assert [orientations_of(count) for count in (1, 2, 4)] == [ALL[:1], ALL[:2], ALL[:4]]
    assert not any(way.transposed for way in orientations_of(4))


@pytest.mark.parametrize("count", [0, 3, 9, -1, "2", True, None])
def test_other_numbers_are_one_line(count: Any) -> None:
    with pytest.raises(InputError, match="tta="):
        orientations_of(count)


@pytest.mark.parametrize("way", ALL)
def test_all_of_a_frame_turns_and_comes_back(way: Orientation, frame: Frame) -> None:
    seen = way.frame(frame)
    assert seen.size == (SIZE[::-1] if way.transposed else SIZE)
    assert np.array_equal(seen.image[..., 0], seen.label)
    assert np.array_equal(seen.image[..., 0], seen.instances)
    assert np.array_equal(seen.image[..., 0] > 3, seen.valid)
    assert np.array_equal(way.back(torch.from_numpy(seen.label)), frame.label)


@pytest.mark.parametrize("way", ALL)
def test_prompts_ask_for_the_same_pixels(way: Orientation, frame: Frame) -> None:
    """The values of the pixels tell which ones a box holds and a point lies on."""
    asked, seen = way.prompts(prompts(), SIZE), way.frame(frame)
    x0, y0, x1, y1 = asked.boxes[0].astype(int).tolist()
    assert set(seen.label[y0:y1, x0:x1].flat) == set(frame.label[1:4, 2:6].flat)
    assert np.isnan(asked.boxes[1]).all()
    for row, number in ((0, 0), (0, 1), (1, 0)):
        x, y = np.floor(prompts().point_coords[row, number]).astype(int)
        u, v = np.floor(asked.point_coords[row, number]).astype(int)
        assert seen.label[v, u] == frame.label[y, x]
    assert np.array_equal(asked.point_labels, prompts().point_labels)
    assert asked.boxes.dtype == asked.point_coords.dtype == np.float32


def test_prompts_without_points_stay_without() -> None:
    only = FramePrompts(prompts().boxes, prompts().classes)
    assert ALL[-1].prompts(only, SIZE).point_coords is None


@pytest.fixture
def scan(tmp_path: Path) -> Any:
    image, _ = ball(0)
    return MedicalDomain().read(Case("a", save(tmp_path / "a.nii.gz", image, affine(0))))


ASKED = FramePrompts(np.array([[4, 5, 15, 17]], np.float32), np.array([1]))


def said(number: int, scan: Any, network: Any, way: Orientation = ALL[0]) -> torch.Tensor:
    """Return what is answered about the middle slice, seen in one orientation, turned back."""
    domain = MedicalDomain()
    frame = domain.frame(scan, 1)
    answers = SourceInferer(domain, tta=number).frame_outputs(scan, [network], each=True)
    found = answers(way.frame(frame), way.prompts(ASKED, frame.size))
    assert found.iou.shape == (1, 1)
    return way.back(found.logits)[0, 0]


@pytest.mark.parametrize(("count", "way"), [(2, ALL[1]), (4, ALL[3]), (8, ALL[4])])
def test_with_all_turns_it_no_longer_matters_how_a_frame_lies(
    count: int, way: Orientation, scan: Any, tiny_network: Any
) -> None:
    """A property that no average over other number, and no way brought back wrongly, has."""
    torch.testing.assert_close(
        said(count, scan, tiny_network, way),
        said(count, scan, tiny_network),
        atol=2e-3,
        rtol=0,
    )
    alone = said(1, scan, tiny_network, way) - said(1, scan, tiny_network)
    assert alone.abs().max() > 0.02


def test_the_mean_is_that_of_frames_turned_by_hand(scan: Any, tiny_network: Any) -> None:
    domain = MedicalDomain()
    inferer, frame = SourceInferer(domain), domain.frame(scan, 1)
    height, width = frame.size
    plain = inferer.embed(scan, frame, tiny_network)
    flipped = Frame(np.ascontiguousarray(frame.image[:, ::-1]), frame.location)
    mirrored = inferer.embed(scan, flipped, tiny_network)
    box = ASKED.boxes[0]
    other = np.array([[width - box[2], box[1], width - box[0], box[3]]], np.float32)
    expected = (
        inferer.logits(tiny_network, plain, ASKED, (height, width))
        + inferer.logits(
            tiny_network, mirrored, FramePrompts(other, ASKED.classes), (height, width)
        ).flip(-1)
    ) / 2
    torch.testing.assert_close(said(2, scan, tiny_network), expected[0])


def test_maps_of_classes_are_averaged_too(scan: Any, tiny_network: Any) -> None:
    tiny_network.add_semantic_head([1])
    torch.nn.init.normal_(next(tiny_network.semantic_head.parameters()), std=0.5)
    domain = MedicalDomain()
    frame = domain.frame(scan, 1)

    def classes(number: int, way: Orientation = Orientation()) -> torch.Tensor:  # noqa: B008
        inferer = SourceInferer(domain, tta=number)
        return way.back(inferer.class_logits(scan, [tiny_network], way.frame(frame)))

    torch.testing.assert_close(classes(2, ALL[1]), classes(2), atol=2e-3, rtol=0)
    assert not torch.allclose(classes(1, ALL[1]), classes(1), atol=2e-3)


def test_borders_are_averaged_with_the_classes(scan: Any, tiny_network: Any) -> None:
    tiny_network.add_semantic_head([1, 2], borders=True)
    for parameter in tiny_network.semantic_head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    frame, mirror = MedicalDomain().frame(scan, 1), ALL[1]

    def maps(number: int, way: Orientation) -> list[torch.Tensor]:
        inferer, seen = SourceInferer(MedicalDomain(), tta=number), way.frame(frame)
        embedding = inferer.embed(scan, seen, tiny_network)
        return [way.back(m) for m in inferer.class_maps(scan, [tiny_network], seen, embedding)]

    for one, other in zip(maps(2, mirror), maps(2, Orientation()), strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0)
    classes, borders = maps(2, Orientation())
    assert classes.shape == (3, *frame.size)
    assert borders.shape == frame.size
    assert not torch.allclose(maps(1, mirror)[1], maps(1, Orientation())[1], atol=2e-3)


def test_objects_that_borders_part_are_found_on_the_mean(scan: Any, tiny_network: Any) -> None:
    tiny_network.add_semantic_head([1], borders=True)
    turned: list[Orientation] = []

    class Seen(SourceInferer):
        def embed(self, source: Any, frame: Frame, network: Any, way: Orientation = ALL[0]) -> Any:
            turned.append(way)
            return super().embed(source, frame, network, way)

    inferer = Seen(MedicalDomain(), tta=4)
    find = ObjectFinding(automatic="classes")(inferer, [tiny_network])
    find(scan, inferer.domain.frame(scan, 1))
    assert turned == list(ALL[:4])


def test_a_store_keeps_each_turn_apart(scan: Any, tiny_network: Any, tmp_path: Path) -> None:
    encoded: list[int] = []
    encode = tiny_network.encode
    tiny_network.encode = lambda *given, **named: encoded.append(1) or encode(*given, **named)

    def predict(number: int) -> np.ndarray:
        inferer = VolumeInferer(MedicalDomain(), EmbeddingStore(tmp_path / "store"), tta=number)
        return inferer(scan, tiny_network, {1: ASKED})

    first = predict(4)
    assert len(encoded) == 4
    assert np.array_equal(predict(4), first)
    assert len(encoded) == 4
    predict(8)
    assert len(encoded) == 8


def test_what_is_not_averaged_is_refused(scan: Any, tiny_network: Any) -> None:
    domain = MedicalDomain()
    carried = VolumeInferer(domain, tta=2, spread="propagate")
    with pytest.raises(InputError, match=r"tta=2.*carried from frame to frame"):
        carried(scan, tiny_network, {1: ASKED})
    with pytest.raises(InputError, match=r"tta=4.*prompts of automatic=grid"):
        SourceInferer(domain, tta=4)(
            scan, tiny_network, Automatic(finding=ObjectFinding(automatic="grid"))
        )
    with pytest.raises(InputError, match=r"tta=8.*clicks that follow"):
        ClickSimulation(SourceInferer(domain, tta=8), (1,))(scan, tiny_network)
