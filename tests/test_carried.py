"""Prompts of the frame beside: what training with them asks, and what the decoder then is asked."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from samonai.core.errors import InputError
from samonai.core.frame import Frame, FrameLocation
from samonai.embeddings import EmbeddingStore, build_targets
from samonai.embeddings.target_store import SourceTargets, save_targets
from samonai.inference import Propagation
from samonai.inference import checkpoint_context as trained
from samonai.prompts.sampling import PromptSampler
from samonai.training.data.frame_dataset import FrameDataset
from samonai.training.data.propagated import REACH, carried_objects, neighbours
from samonai.training.data.stored import StoredCase

SHAPE = (64, 64)  # one pixel of the frame is four by four of the low-res frame


def targets_of(*labels: np.ndarray) -> list[Any]:
    frames = [
        Frame(np.zeros((*SHAPE, 3), np.uint8), FrameLocation("scan", index), label)
        for index, label in enumerate(labels)
    ]
    return [build_targets(frame, min_area=4) for frame in frames]


def label(*parts: tuple[int, int, int, int, int]) -> np.ndarray:
    """Blocks of value, first row, first column, rows, columns."""
    made = np.zeros(SHAPE, np.uint8)
    for value, row, column, height, width in parts:
        made[row : row + height, column : column + width] = value
    return made


# The first structure moves and ends, the second goes on; a third appears.
LABELS = (
    label((1, 10, 10, 12, 12), (2, 40, 40, 10, 10)),
    label((1, 12, 13, 8, 8), (2, 40, 42, 10, 10)),
    label((2, 41, 44, 8, 8), (3, 4, 50, 6, 6)),
    label(),
)


@pytest.fixture
def source(tmp_path: Path) -> SourceTargets:
    return save_targets(
        EmbeddingStore(tmp_path),
        "key",
        enumerate(targets_of(*LABELS)),
        source_id="scan",
        spacing=(1.0, 1.0, 1.0),
        frame_count=4,
        long_side=1024,
    )


def dataset(source: SourceTargets, carried: float, **options: Any) -> FrameDataset:
    embeddings: Any = SimpleNamespace(read=lambda index: np.zeros((4, 64, 64), np.float16))
    case = StoredCase("scan", embeddings, source)
    return FrameDataset(
        [case], PromptSampler(box_jitter=0.0, carried_probability=carried), **options
    )


def test_objects_are_followed_by_class_and_touch() -> None:
    first, second, third, _ = targets_of(*LABELS)
    found = carried_objects(second, first)
    assert found.classes.tolist() == [1, 2]
    for row in range(2):
        np.testing.assert_array_equal(found.before[row], first.mask(row + 1))
        np.testing.assert_array_equal(found.masks[row], second.mask(row + 1))
    np.testing.assert_array_equal(found.boxes, first.boxes)
    ended = carried_objects(third, second)
    assert not ended.masks[0].any()
    np.testing.assert_array_equal(ended.masks[1], third.mask(1))


def test_what_touches_an_object_of_another_class_is_not_it() -> None:
    here, beside = targets_of(label((2, 10, 10, 9, 9)), label((1, 10, 10, 9, 9)))
    assert not carried_objects(here, beside).masks.any()


def test_an_object_that_splits_is_both_parts() -> None:
    here, beside = targets_of(
        label((1, 10, 10, 4, 10), (1, 16, 10, 4, 10), (1, 40, 40, 9, 9)),
        label((1, 10, 10, 10, 10)),
    )
    (mask,) = carried_objects(here, beside).masks
    np.testing.assert_array_equal(mask, here.mask(1) | here.mask(2))


def test_only_near_frames_with_objects_are_neighbours(source: SourceTargets) -> None:
    assert REACH == 3
    assert neighbours(source, 0) == [1, 2]
    assert neighbours(source, 2) == [0, 1]
    assert neighbours(source, 4) == [1, 2]
    assert neighbours(source, 5) == [2]
    assert neighbours(source, 6) == []


def test_training_asks_with_a_frame_beside_and_for_this_one(source: SourceTargets) -> None:
    frames = dataset(source, carried=1.0)
    kinds, given_by = set(), set()
    for epoch in range(1, 25):
        frames.set_epoch(epoch)
        asked = frames[2]  # the third frame, where the first structure has ended
        assert asked.objects == (("scan", 1), ("scan", 2))
        masks = asked.masks.numpy()
        assert not masks[0].any()
        np.testing.assert_array_equal(masks[1], source.read(2).mask(1))
        has_box = ~np.isnan(asked.prompts.boxes.numpy()).any(1)
        has_mask = np.zeros(2, bool)
        if asked.prompts.mask_inputs is not None:
            has_mask = asked.prompts.has_mask.numpy()
        assert (has_box | has_mask).all()
        kinds |= set(zip(has_box.tolist(), has_mask.tolist(), strict=True))
        for row in np.flatnonzero(has_box):
            box = asked.prompts.boxes[row].numpy()
            (index,) = (n for n in (0, 1) if np.array_equal(source.read(n).boxes[row], box))
            given_by.add(index)
            if has_mask[row]:
                given = asked.prompts.mask_inputs[row, 0].numpy() > 0
                true = source.read(index).mask(row + 1)
                assert (given & true).sum() / (given | true).sum() > 0.7
    assert kinds == {(True, False), (False, True), (True, True)}
    assert given_by == {0, 1}


def test_empty_frames_near_objects_are_asked_what_has_ended(source: SourceTargets) -> None:
    assert [index for _, index in dataset(source, carried=0.0).frames] == [0, 1, 2]
    frames = dataset(source, carried=0.01)
    assert [index for _, index in frames.frames] == [0, 1, 2, 3]
    asked = frames[3]
    assert len(asked.prompts) == len(asked.objects) == len(asked.masks) > 0
    assert not asked.masks.any()
    # Validation asks the frames that have objects.
    assert len(dataset(source, carried=0.5, varies=False)) == 3


def test_validation_and_other_runs_are_asked_as_before(source: SourceTargets) -> None:
    plain, fixed = dataset(source, 0.0), dataset(source, 1.0, varies=False)
    for index in range(len(plain)):
        one, other = plain[index], fixed[index]
        assert one.objects == other.objects
        np.testing.assert_array_equal(one.prompts.boxes, other.prompts.boxes)
        np.testing.assert_array_equal(one.masks, other.masks)


def test_at_most_so_many_objects_are_drawn(source: SourceTargets) -> None:
    assert len(dataset(source, 1.0, objects_per_frame=1)[0].objects) == 1


def test_a_share_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="expected 0 or more and at most 1"):
        PromptSampler(carried_probability=1.5)


@pytest.mark.parametrize(
    ("carried", "expected"),
    [(0.5, Propagation("box+mask", iou=0.6)), (0.0, Propagation()), (None, Propagation())],
)
def test_a_decoder_is_asked_as_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carried: float | None, expected: Propagation
) -> None:
    prompts = {} if carried is None else {"carried_probability": carried}
    monkeypatch.setattr(
        trained,
        "read_decoder_metadata",
        lambda path: SimpleNamespace(training={"prompts": prompts}),
    )
    decoder = tmp_path / "decoder.safetensors"
    assert trained.trained_propagation(decoder) == Propagation()  # not there yet
    decoder.touch()
    assert trained.trained_propagation(decoder) == expected
    given = trained.trained_propagation(decoder, "mask", margin=0.1, iou=0.25, frames=2)
    assert given == Propagation("mask", margin=0.1, iou=0.25, frames=2)
    assert trained.trained_propagation(None) == Propagation()
    with pytest.raises(InputError, match="prompt='boxes': use one of"):
        trained.trained_propagation(decoder, "boxes")
