"""Instances: suppressing what overlaps, splitting what touches, SAM's grid, on drawn frames."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from samonai.core.errors import InputError
from samonai.core.frame import Frame, FrameLocation
from samonai.domains import get_domain
from samonai.inference.automatic.instances import InstanceFinder
from samonai.inference.automatic.masks import Instance, make_instance, paint, suppress
from samonai.inference.automatic.point_grid import GridMasks
from samonai.inference.inferer import SourceInferer
from samonai.prompts.frame_prompts import NO_POINT
from samonai.prompts.types import Prompts
from samonai.sam.outputs import DecodeOutput, HeadsOutput

SIZE = (256, 192)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.indices(SIZE) + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


# Two cells that touch, one apart, and one of another class.
CELLS = [disc(50, 60, 21), disc(90, 60, 21), disc(140, 190, 17), disc(60, 180, 25)]
VALUES = [3, 3, 3, 8]


class Oracle:
    """A network that knows the cells: each prompt gets the cell that it points at.

    Frames of 256 rows have low-res pixels that are theirs, so its answers are exact.
    """

    long_side, multimask, embedding_shape = 1024, False, (1, 1, 1)
    windows = None
    semantic_head = SimpleNamespace(values=(0, 3, 8))
    object_classifier = None
    image_encoder = None

    def low_res(self, mask: np.ndarray) -> torch.Tensor:
        padded = np.zeros((256, 256), bool)
        padded[: SIZE[0], : SIZE[1]] = mask
        return torch.where(torch.from_numpy(padded), 9.0, -9.0)

    def decode_frames(self, embedding: torch.Tensor) -> HeadsOutput:
        maps = [np.zeros(SIZE, bool), *(np.zeros(SIZE, bool) for _ in (3, 8))]
        for cell, value in zip(CELLS, VALUES, strict=True):
            maps[(0, 3, 8).index(value)] |= cell
        maps[0] = ~(maps[1] | maps[2])
        return HeadsOutput(None, torch.stack([self.low_res(one) for one in maps])[None])

    def share(self, embedding: torch.Tensor, prompts: int) -> None:
        pass

    def decode(
        self,
        embedding: torch.Tensor,
        prompts: Prompts,
        multimask_output: bool = False,
        shared: None = None,
    ) -> DecodeOutput:
        masks, ious = [], []
        for row in range(len(prompts)):
            one = prompts[torch.tensor([row])]
            mask, iou = self.by_box(one) if bool(one.row_has_box()[0]) else self.by_point(one)
            masks.append(self.low_res(mask))
            ious.append(iou)
        logits, iou = torch.stack(masks)[:, None], torch.tensor(ious)[:, None]
        if multimask_output:  # the object, everything, and nothing
            rest = torch.stack([torch.full_like(logits[0], 9.0), torch.full_like(logits[0], -9.0)])
            logits = torch.cat([logits, *(one[None].expand_as(logits) for one in rest)], 1)
            iou = torch.cat([iou, iou - 0.5, iou], 1)
        return DecodeOutput(logits, iou)

    def by_box(self, one: Prompts) -> tuple[np.ndarray, float]:
        """All that lies in the box: of touching cells both, of which it is not too sure."""
        x0, y0, x1, y1 = (one.boxes[0] / 4).round().int().tolist()
        mask = np.zeros(SIZE, bool)
        mask[y0:y1, x0:x1] = np.any(CELLS, 0)[y0:y1, x0:x1]
        return mask, 0.7

    def by_point(self, one: Prompts) -> tuple[np.ndarray, float]:
        assert int((one.point_labels != NO_POINT).sum()) == 1
        x, y = (one.point_coords[0, 0] / 4).floor().int().tolist()
        hit = [cell for cell in CELLS if cell[y, x]]
        return (hit[0], 0.95) if hit else (np.zeros(SIZE, bool), 0.95)


class Naming(Oracle):
    """It calls what is one cell wide an 8, and what is wider nothing."""

    def object_classifier(self, features: torch.Tensor) -> torch.Tensor:
        wide = features[:, -3] > np.log(55)
        return torch.where(
            wide[:, None], torch.tensor([0.96, 0.0, 0.04]), torch.tensor([0.0, 0.2, 0.8])
        )


class OneFrame(SourceInferer):
    """An inferer whose embeddings mean nothing."""

    def embed(self, source, frame, network, *_):
        return torch.zeros(1, 1, 1)


@pytest.fixture
def frame() -> Frame:
    return Frame(np.zeros((*SIZE, 3), np.uint8), FrameLocation("cells", 0))


def finder(prompts: str, **options) -> InstanceFinder:
    return InstanceFinder(OneFrame(None), [Oracle()], prompts=prompts, **options)


class Boxes:
    """A domain that proposes boxes."""

    name = "boxes"

    def __init__(self, boxes: list[list[float]]) -> None:
        self.boxes = boxes

    def proposals(self, frame: Frame) -> np.ndarray:
        return np.array(self.boxes, np.float32).reshape(-1, 4)


def proposing(
    prompts: str, boxes: list[list[float]] | None = None, **options: object
) -> InstanceFinder:
    """A finder whose domain proposes the cells' own boxes, or others."""
    if boxes is None:
        boxes = [list(one.box) for cell in CELLS if (one := make_instance(cell)) is not None]
    return InstanceFinder(OneFrame(Boxes(boxes)), [Oracle()], prompts=prompts, **options)


def pixels(found: list[Instance]) -> list[tuple[int, bytes]]:
    return sorted((one.value, one.on_frame(SIZE).tobytes()) for one in found)


def expected(*numbers: int) -> list[tuple[int, bytes]]:
    return sorted((VALUES[n], CELLS[n].tobytes()) for n in numbers)


class TestInstances:
    def test_points_split_what_touches(self, frame):
        assert pixels(finder("points")(None, frame)) == expected(0, 1, 2, 3)

    def test_of_a_whole_and_its_parts_the_surer_ones_stay(self, frame):
        assert pixels(finder("box_and_points")(None, frame)) == expected(0, 1, 2, 3)

    def test_boxes_refine_components_and_cannot_split_them(self, frame):
        found = finder("box")(None, frame)
        assert len(found) == 3
        assert sorted(one.area for one in found)[-1] == (CELLS[0] | CELLS[1]).sum()

    def test_components_as_they_are_need_no_promptable_head(self, frame):
        found = finder("none")(None, frame)
        assert len(found) == 3
        assert {one.iou for one in found} == {1.0}
        assert all(one.score == pytest.approx(1.0, abs=1e-5) for one in found)

    def test_the_score_is_iou_times_probability(self, frame):
        found = finder("points")(None, frame)
        for one in found:
            assert one.score == pytest.approx(0.95 * one.probability)
            assert one.probability == pytest.approx(1.0, abs=1e-5)

    def test_a_component_between_the_points_gets_one_at_its_centre(self, frame):
        assert pixels(finder("points", points_per_side=2)(None, frame))[-1] == expected(3)[0]

    def test_boxes_that_the_domain_proposes_split_what_touches(self, frame):
        found = proposing("proposed")(None, frame)
        assert sorted(one.value for one in found) == [3, 3, 3, 8]
        for cell in CELLS:
            most = max(found, key=lambda one: (one.on_frame(SIZE) & cell).sum())
            mask = most.on_frame(SIZE)
            assert (mask & cell).sum() > 0.95 * (mask | cell).sum()

    def test_what_is_proposed_on_background_is_nothing(self, frame):
        nothing = proposing("proposed", [[150, 10, 190, 90], [0, 230, 60, 256]])
        assert nothing(None, frame) == []

    def test_proposals_of_no_boxes_are_no_instances(self, frame):
        assert proposing("proposed", [])(None, frame) == []
        assert len(proposing("box_and_proposed", [])(None, frame)) == 3

    def test_proposed_classes_are_the_wanted_ones(self, frame):
        found = proposing("proposed", classes=(8,))(None, frame)
        assert [one.value for one in found] == [8]

    @pytest.mark.parametrize("prompts", ["box", "box_and_proposed"])
    def test_what_components_are_answered_is_named_by_the_whole_of_it(self, frame, prompts):
        """Two cells that touch are none, and pixels have no say in what the others are."""
        inferer = OneFrame(Boxes([]))
        found = InstanceFinder(inferer, [Naming()], prompts=prompts)(None, frame)
        assert [(one.value, one.score) for one in found] == [(8, pytest.approx(0.7 * 0.8))] * 2
        assert min(one.box[1] for one in found) > 100
        eights = InstanceFinder(inferer, [Naming()], classes=(8,), prompts=prompts)
        assert pixels(eights(None, frame)) == pixels(found)
        threes = InstanceFinder(inferer, [Naming()], classes=(3,), prompts=prompts)
        assert threes(None, frame) == []

    def test_what_is_not_decoded_and_what_one_network_cannot_name_is_called_by_pixels(self, frame):
        whole = InstanceFinder(OneFrame(None), [Naming()], prompts="none")(None, frame)
        assert sorted(one.value for one in whole) == [3, 3, 8]
        both = InstanceFinder(OneFrame(None), [Naming(), Oracle()], prompts="box")(None, frame)
        assert sorted(one.value for one in both) == [3, 3, 8]

    def test_a_domain_that_proposes_nothing_cannot_be_asked_to(self):
        with pytest.raises(InputError, match="medical data propose no boxes"):
            InstanceFinder(OneFrame(get_domain("medical")), [Oracle()], prompts="proposed")

    def test_only_the_classes_that_are_wanted(self, frame):
        assert pixels(finder("points", classes=(8,))(None, frame)) == expected(3)
        with pytest.raises(InputError, match=r"no class 4, but \[3, 8\]"):
            finder("points", classes=(4,))

    def test_nothing_where_pixels_are_not_valid(self, frame):
        valid = np.ones(SIZE, bool)
        valid[:, :100] = False
        masked = Frame(frame.image, frame.location, valid=valid)
        found = finder("points")(None, masked)
        assert not any(one.on_frame(SIZE)[:, :100].any() for one in found)
        assert pixels([one for one in found if one.box[0] > 112]) == expected(2)

    def test_too_small_and_too_poor_ones_are_dropped(self, frame):
        smallest = CELLS[2].sum()
        assert pixels(finder("points", min_area=smallest + 1)(None, frame)) == expected(0, 1, 3)
        assert finder("points", min_score=0.96)(None, frame) == []

    def test_settings_that_cannot_be(self):
        with pytest.raises(InputError, match="use one of none, box, points"):
            finder("clicks")
        with pytest.raises(InputError, match="at least 1"):
            finder("points", points_per_side=0)

    def test_a_random_network_gives_instances_in_the_frame(self, tiny_network, frame):
        network = tiny_network.add_semantic_head([3, 8])
        found = InstanceFinder(
            Embedded(None), [network], prompts="box_and_points", points_per_side=6
        )
        for one in found(None, frame):
            x0, y0, x1, y1 = one.box
            assert 0 <= x0 < x1 <= SIZE[1]
            assert 0 <= y0 < y1 <= SIZE[0]
            assert one.mask.shape == (y1 - y0, x1 - x0)
            assert one.value in (3, 8)
            assert 0 <= one.score <= 1


class Embedded(SourceInferer):
    """An inferer with random embeddings of the network's shape."""

    def embed(self, source, frame, network, *_):
        return torch.randn(*network.embedding_shape, generator=torch.Generator().manual_seed(0))


class TestGrid:
    def test_finds_every_object_once(self, frame):
        found = GridMasks(OneFrame(None), [Oracle()], points_per_side=16)(None, frame)
        masks = sorted(one.on_frame(SIZE).tobytes() for one in found)
        assert masks == sorted(cell.tobytes() for cell in CELLS)
        assert {one.value for one in found} == {0}

    def test_unsure_masks_are_dropped(self, frame):
        assert GridMasks(OneFrame(None), [Oracle()], 16, min_iou=0.96)(None, frame) == []
        # Logits of 9 everywhere do not hold when the threshold moves by 10.
        assert GridMasks(OneFrame(None), [Oracle()], 16, stability_offset=10)(None, frame) == []

    def test_with_all_thresholds_down_the_whole_frame_is_a_mask_too(self, frame):
        found = GridMasks(OneFrame(None), [Oracle()], 16, min_iou=0.4)(None, frame)
        assert len(found) == 5
        assert found[-1].area == SIZE[0] * SIZE[1]


def square(x: int, y: int, side: int, score: float, value: int = 1) -> Instance:
    mask = np.zeros((40, 40), bool)
    mask[y : y + side, x : x + side] = True
    found = make_instance(mask, value, score)
    assert found is not None
    return found


class TestSuppression:
    def test_the_best_of_those_that_overlap_stays(self):
        # 10 x 10 squares, 2 apart: 80 of 120 pixels in common.
        worse, better, far = square(0, 0, 10, 0.5), square(2, 0, 10, 0.9), square(20, 20, 5, 0.1)
        assert suppress([worse, better, far], iou=0.5) == [better, far]
        assert suppress([worse, better, far], iou=0.7) == [better, worse, far]

    def test_parts_are_kept_or_not_as_asked(self):
        whole, part = square(0, 0, 20, 0.9), square(5, 5, 6, 0.8)
        assert suppress([whole, part], iou=0.5) == [whole, part]
        assert suppress([whole, part], iou=0.5, inside=0.8) == [whole]

    def test_classes_apart_if_asked(self):
        first, second = square(0, 0, 10, 0.9, 1), square(0, 0, 10, 0.8, 2)
        assert suppress([first, second]) == [first]
        assert suppress([first, second], across_classes=False) == [first, second]

    def test_boxes_that_overlap_without_a_common_pixel_are_two_objects(self):
        corner = np.zeros((40, 40), bool)
        corner[:20, :2], corner[:2, :20] = True, True
        inner = np.zeros((40, 40), bool)
        inner[10:18, 10:18] = True
        both = [make_instance(corner, 1, 0.9), make_instance(inner, 1, 0.8)]
        assert suppress(both, iou=0.0) == both

    def test_an_empty_mask_is_no_instance(self):
        assert make_instance(np.zeros((4, 5), bool)) is None

    def test_painting_puts_the_best_on_top(self):
        below, above = square(0, 0, 10, 0.5, 4), square(5, 0, 10, 0.9, 6)
        numbers, values = paint([below, above], (40, 40))
        assert (numbers[0, 4], numbers[0, 5], numbers[20, 20]) == (1, 2, 0)
        assert (values[0, 4], values[0, 5], values[20, 20]) == (4, 6, 0)


@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
@settings(max_examples=60, deadline=None)
def test_an_instance_and_its_json_keep_every_pixel(mask):
    found = make_instance(mask, 2, 0.5, 0.5)
    if found is None:
        assert not mask.any()
        return
    assert np.array_equal(found.on_frame(mask.shape), mask)
    content = json.loads(json.dumps(found.to_json()))
    assert (content["score"], content["area"]) == (0.25, int(mask.sum()))
    counts, (height, width) = content["mask"]["counts"], content["mask"]["size"]
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    assert np.array_equal(flat.reshape(width, height).T, found.mask)
