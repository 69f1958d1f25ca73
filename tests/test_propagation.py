"""One prompt becomes a structure: carried from slice to slice, stopped where it must."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from samonai.core.errors import InputError
from samonai.core.frame import Frame, FrameLocation
from samonai.inference.prompting.interpolate import interpolate_boxes
from samonai.inference.volumes.propagate import FrameTracks, Propagation, Propagator, seeds_of
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.types import Prompts
from samonai.sam.network import DecodeOutput

SIDE, COUNT = 64, 24
PIXELS = 1024 // SIDE


def ball(centre: tuple[int, int, int] = (12, 30, 34), radius: float = 8.5) -> np.ndarray:
    """Bool (slices, rows, columns)."""
    k, j, i = np.ogrid[:COUNT, :SIDE, :SIDE]
    distance = (k - centre[0]) ** 2 + (j - centre[1]) ** 2 + (i - centre[2]) ** 2
    return distance <= radius**2


def box_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def boxes(*found: np.ndarray, classes: tuple[int, ...] | None = None) -> FramePrompts:
    return FramePrompts(
        np.stack(found).astype(np.float32), np.array(classes or [1] * len(found), np.int64)
    )


class Oracle:
    """Answers a box by what of the truth lies in it, and a mask by the truth that touches it.

    A frame's embedding carries its number in the first channel; the second and third are how the
    object looks.
    """

    def __init__(self, truth: np.ndarray, iou: Callable[[int], float] = lambda _: 0.9) -> None:
        self.truth, self.iou = truth, iou
        self.looks: dict[int, tuple[float, float]] = {}
        self.decoded: list[tuple[int, int]] = []  # frame, prompts
        self.kinds: set[tuple[bool, bool]] = set()

    def frame(self, index: int) -> Frame:
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        return Frame(image, FrameLocation("ball", index))

    def embed(self, frame: Frame) -> torch.Tensor:
        values = torch.zeros(3, 64, 64)
        index = frame.location.index
        values[1], values[2] = self.looks.get(index, (1.0, 0.0))
        values[0] = 1e-6 * index  # too small to change a cosine
        return values

    def decode(self, embedding: torch.Tensor, prompts: Prompts) -> DecodeOutput:
        index = round(float(embedding[0, 0, 0]) * 1e6)
        self.decoded.append((index, len(prompts)))
        self.kinds.add((prompts.boxes is not None, prompts.mask_inputs is not None))
        truth = np.kron(self.truth[index], np.ones((4, 4), bool))
        logits = []
        for row in range(len(prompts)):
            allowed = np.ones_like(truth)
            if prompts.boxes is not None and not prompts.boxes[row].isnan().any():
                x0, y0, x1, y1 = (prompts.boxes[row].numpy() / 4).round().astype(int)
                allowed[:] = False
                allowed[y0:y1, x0:x1] = True
            inside = truth & allowed
            logits.append(torch.from_numpy(np.where(inside, 8.0, -8.0)).float()[None])
        iou = torch.full((1, len(prompts), 1), self.iou(index))
        return DecodeOutput(torch.stack(logits)[None], iou)

    def run(self, seeds: dict[int, FramePrompts], **rule: object) -> dict[int, FrameTracks]:
        settings = {"margin": 0.3, "similarity": 0.5, "growth": 50, **rule}
        propagator = Propagator(self.frame, self.embed, self.decode, 1024, Propagation(**settings))
        return propagator(seeds, COUNT)


def filled(tracks: dict[int, FrameTracks]) -> np.ndarray:
    volume = np.zeros((COUNT, SIDE, SIDE), bool)
    for index, found in tracks.items():
        inside = (found.low_res[0, :, 0] > 0).any(0).numpy()
        volume[index] = inside.reshape(SIDE, 4, SIDE, 4).mean((1, 3)) > 0.5
    return volume


@pytest.mark.parametrize("start", [12, 6, 18])
def test_one_box_becomes_the_whole_ball(start: int) -> None:
    truth = ball()
    oracle = Oracle(truth)
    tracks = oracle.run({start: boxes(box_of(truth[start]))}, area=20)
    np.testing.assert_array_equal(filled(tracks), truth)
    there = np.flatnonzero(truth.any((1, 2)))
    # Each slice of the ball once, and the first empty one on each side.
    assert sorted(index for index, _ in oracle.decoded) == [there[0] - 1, *there, there[-1] + 1]


def test_the_mask_can_prompt_as_box_as_logits_or_as_both() -> None:
    truth = ball()
    for prompt, kinds in (
        ("box", (True, False)),
        ("mask", (False, True)),
        ("box+mask", (True, True)),
    ):
        oracle = Oracle(truth)
        oracle.run({12: boxes(box_of(truth[12]))}, prompt=prompt)
        assert kinds in oracle.kinds
        assert oracle.kinds <= {kinds, (True, False)}  # what was given is a box


def test_a_jump_in_area_stops_a_track() -> None:
    truth = ball(radius=6)
    truth[15:, 20:50, 20:50] = True  # leaks into something large
    oracle = Oracle(truth)
    tracks = oracle.run({12: boxes(box_of(truth[12]))}, area=2.0, margin=2.0)
    assert max(tracks) == 14
    loose = Oracle(truth).run({12: boxes(box_of(truth[12]))}, area=50.0, margin=2.0)
    assert max(loose) == COUNT - 1


def test_slow_growth_stops_a_track_too() -> None:
    truth = np.zeros((COUNT, SIDE, SIDE), bool)
    for k in range(10, COUNT):  # an edge of one pixel more on each slice
        truth[k, 20 : 30 + k - 10, 20 : 30 + k - 10] = True
    seed = {10: boxes(box_of(truth[10]))}
    tracks = Oracle(truth).run(seed, area=3.0, growth=2.0)
    assert max(tracks) == 14  # 14 x 14 pixels, of 10 x 10
    assert max(Oracle(truth).run(seed, area=3.0, growth=9.0)) == COUNT - 1


def test_a_low_predicted_iou_stops_a_track() -> None:
    truth = ball()
    oracle = Oracle(truth, iou=lambda index: 0.3 if index == 9 else 0.9)
    tracks = oracle.run({12: boxes(box_of(truth[12]))}, area=20, iou=0.5)
    assert min(tracks) == 10
    assert max(tracks) == 20


def test_the_prompted_frame_is_answered_however_unsure_the_decoder_is() -> None:
    truth = ball()
    oracle = Oracle(truth, iou=lambda index: -0.1 if index == 12 else 0.9)
    tracks = oracle.run({12: boxes(box_of(truth[12]))}, iou=0.5)
    assert {11, 12, 13} <= set(tracks)
    unsure = Oracle(truth, iou=lambda _: 0.3)
    assert set(unsure.run({12: boxes(box_of(truth[12]))}, iou=0.5)) == {12}


def test_another_look_stops_a_track() -> None:
    truth = ball()
    oracle = Oracle(truth)
    oracle.looks = dict.fromkeys(range(15, COUNT), (0.0, 1.0))
    tracks = oracle.run({12: boxes(box_of(truth[12]))}, area=20, similarity=0.8)
    assert (min(tracks), max(tracks)) == (4, 14)


def test_no_more_frames_than_asked_for() -> None:
    truth = ball()
    tracks = Oracle(truth).run({12: boxes(box_of(truth[12]))}, frames=2)
    assert sorted(tracks) == [10, 11, 12, 13, 14]
    assert sorted(Oracle(truth).run({12: boxes(box_of(truth[12]))}, frames=0)) == [12]


def test_objects_of_several_slices_are_decoded_together() -> None:
    one, two = ball((8, 20, 20), 5.5), ball((14, 44, 44), 6.5)
    truth = one | two
    oracle = Oracle(truth)
    seeds = {8: boxes(box_of(one[8]), classes=(3,)), 14: boxes(box_of(two[14]), classes=(7,))}
    tracks = oracle.run(seeds, area=30)
    np.testing.assert_array_equal(filled(tracks), truth)
    both = sorted(index for index, found in tracks.items() if len(found.prompts) == 2)
    assert both == [8, 9, 10, 11, 12, 13]
    assert sorted(tracks[10].prompts.classes.tolist()) == [3, 7]
    assert max(count for _, count in oracle.decoded) == 2


def test_padding_is_no_part_of_a_mask() -> None:
    truth = ball()
    oracle = Oracle(truth)
    plain = oracle.frame

    def half(index: int) -> Frame:
        valid = np.zeros((SIDE, SIDE), bool)
        valid[:, :34] = True
        return Frame(plain(index).image, plain(index).location, valid=valid)

    oracle.frame = half  # type: ignore[method-assign]
    tracks = oracle.run({12: boxes(box_of(truth[12]))}, margin=0.0, area=20)
    assert tracks[12].prompts.boxes[0, 2] == 34


def test_a_click_is_carried_too() -> None:
    truth = ball()
    nowhere = np.full((1, 4), np.nan, np.float32)
    click = FramePrompts(
        nowhere,
        np.array([2]),
        None,
        np.array([[[34.5, 30.5]]], np.float32),
        np.array([[1]]),
    )
    tracks = Oracle(truth).run({12: click}, area=20)
    np.testing.assert_array_equal(filled(tracks), truth)
    assert tracks[5].prompts.classes.tolist() == [2]


def test_a_box_in_three_dimensions_starts_once_in_its_middle() -> None:
    box, other = np.array([1.0, 2, 5, 6]), np.array([1.0, 2, 5, 7])
    prompts = {index: boxes(box) for index in range(3, 8)} | {8: boxes(other)}
    seeds = seeds_of(prompts)
    assert sorted(seeds) == [5, 8]
    apart = seeds_of({3: boxes(box), 5: boxes(box)})
    assert sorted(apart) == [3, 5]
    classes = seeds_of({3: boxes(box, classes=(1,)), 4: boxes(box, classes=(2,))})
    assert sorted(classes) == [3, 4]


def test_nothing_to_carry() -> None:
    assert Oracle(ball()).run({}) == {}
    assert Oracle(np.zeros((COUNT, SIDE, SIDE), bool)).run({3: boxes(np.array([1, 1, 9, 9]))}) == {}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("prompt", "boxes"),
        ("area", 0.5),
        ("growth", 0.5),
        ("iou", 1.5),
        ("similarity", -2),
        ("margin", -0.6),
        ("margin", "wide"),
        ("iou", "high"),
        ("frames", -1),
    ],
)
def test_unusable_rules_are_refused(setting: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{setting}="):
        Propagation(**{setting: value})


# Boxes on a few slices


def test_boxes_between_slices_move_along_straight_lines() -> None:
    first, last = np.array([0.0, 10, 20, 30]), np.array([8.0, 14, 20, 50])
    filled_boxes = interpolate_boxes({2: boxes(first), 6: boxes(last)})
    assert sorted(filled_boxes) == [2, 3, 4, 5, 6]
    np.testing.assert_allclose(filled_boxes[3].boxes, [[2, 11, 20, 35]])
    np.testing.assert_allclose(filled_boxes[6].boxes, [last])


def test_objects_are_interpolated_apart() -> None:
    a, b = np.array([0.0, 0, 4, 4]), np.array([8.0, 8, 12, 12])
    ids = np.array([1, 2])
    prompts = {
        index: FramePrompts(np.stack([a, b]).astype(np.float32), np.array([1, 1]), ids)
        for index in (0, 4)
    }
    assert len(interpolate_boxes(prompts)[2]) == 2
    with pytest.raises(InputError, match="several boxes of one object"):
        interpolate_boxes({0: boxes(a, b), 4: boxes(a, b)})
    classes = interpolate_boxes({0: boxes(a, b, classes=(1, 2)), 4: boxes(a, classes=(1,))})
    assert [len(classes[index]) for index in (0, 2, 4)] == [2, 1, 1]


def test_clicks_cannot_be_interpolated() -> None:
    with pytest.raises(InputError, match="only boxes"):
        interpolate_boxes({0: boxes(np.full(4, np.nan))})
