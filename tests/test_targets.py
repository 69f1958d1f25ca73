"""Training targets: exact objects, boxes and maps from hand-made labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samonai.core.errors import InputError
from samonai.core.frame import Frame, FrameLocation
from samonai.core.geometry import FrameGeometry
from samonai.embeddings import EmbeddingStore, FrameTargets, build_targets, load_targets
from samonai.embeddings.target_store import save_targets, targets_key
from samonai.embeddings.targets import COMPONENT_POLICIES, object_map


def frame_of(label: np.ndarray, valid: np.ndarray | None = None) -> Frame:
    image = np.zeros((*label.shape, 3), np.uint8)
    return Frame(image, FrameLocation("case-1", 3), label, valid)


def test_instances_that_touch_are_objects_of_their_own() -> None:
    label = np.zeros((20, 40), np.uint8)
    label[4:12, 2:30] = 3
    instances = np.where(label > 0, 7, 0)
    instances[4:12, 10:30] = 12  # shares a whole side with number 7
    instances[15, 1] = 9  # no label: no object
    frame = Frame(frame_of(label).image, FrameLocation("scene", 0), label, None, instances)
    targets = build_targets(frame, min_area=1)

    assert targets.classes.tolist() == [3, 3]
    assert targets.areas.tolist() == [64, 160]
    assert targets.instances is not None
    assert targets.instances.tolist() == [7, 12]
    assert len(build_targets(frame_of(label), min_area=1)) == 1


def test_components_boxes_and_areas_are_exact() -> None:
    label = np.zeros((50, 100), np.uint8)  # long side 100: 10.24 model pixels per pixel
    label[10:20, 30:40] = 2
    label[20:25, 40:50] = 2  # touches by its corner: the same object
    label[10:20, 60:65] = 5
    label[40:42, 0:3] = 2  # 6 pixels
    targets = build_targets(frame_of(label), min_area=7)

    assert targets.image_size == (50, 100)
    assert targets.classes.tolist() == [2, 5]
    assert targets.areas.tolist() == [150, 50]
    assert targets.dropped == 1
    np.testing.assert_allclose(
        targets.boxes,
        [[307.2, 102.4, 512.0, 256.0], [614.4, 102.4, 665.6, 204.8]],
        rtol=1e-6,
    )
    expected = np.zeros((256, 256), np.uint16)
    for row in range(128):
        for column in range(256):
            r, c = int((row + 0.5) * 4 / 10.24), int((column + 0.5) * 4 / 10.24)
            in_two = (10 <= r < 20 and 30 <= c < 40) or (20 <= r < 25 and 40 <= c < 50)
            in_five = 10 <= r < 20 and 60 <= c < 65
            expected[row, column] = 1 if in_two else 2 if in_five else 0
    np.testing.assert_array_equal(targets.components, expected)
    assert targets.components.dtype == np.uint16
    assert targets.valid[:128].all()
    assert not targets.valid[128:].any()
    assert len(targets) == 2
    assert targets.mask(2).sum() == (expected == 2).sum()


def test_classes_that_touch_are_objects_of_their_own_and_parts_are_numbered() -> None:
    label = np.zeros((256, 256), np.int32)
    label[0:8, 0:8] = 70_000
    label[0:8, 8:16] = 1
    label[100:108, 0:8] = 1
    targets = build_targets(frame_of(label), min_area=1)
    assert targets.classes.tolist() == [1, 1, 70_000]
    assert targets.boxes.tolist() == [[32, 0, 64, 32], [0, 400, 32, 432], [0, 0, 32, 32]]
    expected = np.zeros((256, 256), int)
    expected[0:8, 8:16], expected[100:108, 0:8], expected[0:8, 0:8] = 1, 2, 3
    np.testing.assert_array_equal(targets.components, expected)


def test_a_component_that_vanishes_keeps_the_pixel_nearest_to_its_centroid() -> None:
    # At 1024 the centre of low-res pixel (r, c) is sampled from pixel (4r + 2, 4c + 2).
    label = np.zeros((1024, 1024), np.uint8)
    label[401, 201] = 1  # low-res (100, 50), not sampled
    label[401, 203] = 2  # the same low-res pixel, which is the first one's only one
    label[602, 602] = 3  # sampled: the only pixel of this object at (150, 150)
    label[600, 600] = 4  # would want (150, 150): the nearest free one is above or left
    targets = build_targets(frame_of(label), min_area=1)
    assert targets.classes.tolist() == [1, 2, 3, 4]
    where = {number: np.argwhere(targets.components == number).tolist() for number in (1, 2, 3, 4)}
    assert where == {1: [[100, 50]], 2: [[100, 51]], 3: [[150, 150]], 4: [[149, 150]]}
    assert targets.boxes[0].tolist() == [201, 401, 202, 402]


def test_a_vanished_component_may_take_a_pixel_of_a_large_one() -> None:
    label = np.zeros((1024, 1024), np.uint8)
    label[0:64, 0:64] = 1
    label[33, 33] = 2
    targets = build_targets(frame_of(label), min_area=1)
    assert np.argwhere(targets.components == 2).tolist() == [[8, 8]]
    assert (targets.components == 1).sum() == 16 * 16 - 1


def test_invalid_pixels_carry_no_label_and_are_not_valid() -> None:
    label = np.zeros((256, 256), np.uint8)
    label[0:10, 0:10] = 1
    valid = np.ones(label.shape, bool)
    valid[:, 5:20] = False
    targets = build_targets(frame_of(label, valid), min_area=1)
    assert targets.areas.tolist() == [50]
    assert targets.boxes.tolist() == [[0, 0, 20, 40]]
    np.testing.assert_array_equal(targets.valid, valid)


@pytest.mark.parametrize("size", [(37, 53), (1, 7), (999, 512), (3, 1025), (1024, 1024), (2000, 9)])
def test_every_kept_object_has_pixels_class_and_box(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(sum(size))
    label = (generator.random(size) < 0.02) * generator.integers(1, 4, size)
    label[: size[0] // 2, : size[1] // 2 + 1] = 2
    targets = build_targets(frame_of(label), min_area=2)
    geometry = FrameGeometry(size)
    counts = np.bincount(targets.components.ravel(), minlength=len(targets) + 1)
    assert (counts[1:] > 0).all()
    assert not targets.components[~targets.valid].any()
    np.testing.assert_array_equal(targets.valid, geometry.valid_low_res())
    assert (targets.areas >= 2).all()
    height, width = geometry.input_size
    assert (targets.boxes >= 0).all()
    assert (targets.boxes[:, 2] <= width + 1e-3).all()
    assert (targets.boxes[:, 3] <= height + 1e-3).all()
    assert (targets.boxes[:, 2:] > targets.boxes[:, :2]).all()
    sampled = geometry.label_to_low_res(label)
    kept = (targets.components > 0) & (counts[targets.components] > 1)
    classes = np.concatenate([[0], targets.classes])[targets.components]
    assert not kept.any() or (classes[kept] == sampled[kept]).mean() > 0.9


def test_a_frame_too_thin_for_the_low_res_frame_is_told() -> None:
    with pytest.raises(InputError, match=r"\(1, 2000\) is too thin"):
        build_targets(frame_of(np.ones((1, 2000), np.uint8)))


def test_a_frame_without_objects_has_none() -> None:
    targets = build_targets(frame_of(np.zeros((9, 9), np.uint8)))
    assert (len(targets), targets.boxes.shape, targets.dropped) == (0, (0, 4), 0)


def test_wrong_labels_are_told() -> None:
    label = np.zeros((9, 9), np.int16)
    with pytest.raises(InputError, match="min_area"):
        build_targets(frame_of(label), min_area=0)
    with pytest.raises(InputError, match="label value -1"):
        build_targets(frame_of(label - 1))
    wrong = Frame(np.zeros((9, 8, 3), np.uint8), FrameLocation("case-1", 3), label)
    with pytest.raises(InputError, match=r"frame 3 of case-1: image \(9, 8\) and label \(9, 9\)"):
        build_targets(wrong)
    with pytest.raises(ValueError, match="no label"):
        build_targets(Frame(np.zeros((9, 9, 3), np.uint8), FrameLocation("case-1", 3)))


def test_a_class_map_ignores_padding_invalid_pixels_and_what_was_dropped() -> None:
    label = np.zeros((64, 128), np.uint8)
    label[10:30, 10:40], label[40:60, 50:60] = 7, 2
    label[2:4, 100:102] = 7  # too small to ask for
    valid = np.ones(label.shape, bool)
    valid[:, 120:] = False
    targets = build_targets(frame_of(label, valid), min_area=5)
    expected = np.where(valid, label.astype(int), -1)
    expected[2:4, 100:102] = -1
    # 128 columns make 256: each pixel of the frame is two by two of the low-res frame.
    doubled = np.kron(expected, np.ones((2, 2), int))
    np.testing.assert_array_equal(targets.class_map()[:128], doubled)
    assert (targets.class_map()[128:] == -1).all()
    assert targets.ignored.sum() == 16


def some_targets() -> dict[int, FrameTargets]:
    first, second = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
    first[2:9, 3:9], first[12:18, 20:28] = 1, 2
    second[5:15, 5:15], second[0, 0] = 3, 1
    speck = np.zeros((20, 30), np.uint8)
    speck[0, 0] = 1
    bare = np.zeros((20, 30), np.uint8)
    labels = {1: first, 2: speck, 3: bare, 4: second}
    valid = np.ones((20, 30), bool)
    valid[:, 25:] = False
    targets = {index: build_targets(frame_of(label), 4) for index, label in labels.items()}
    return {**targets, 5: build_targets(frame_of(bare, valid), 4)}


def save(store: EmbeddingStore, targets: dict[int, FrameTargets]) -> Any:
    return save_targets(
        store,
        "key",
        iter(targets.items()),
        source_id="case-1",
        spacing=(3.0, 1.0, 0.7),
        frame_count=6,
        long_side=1024,
    )


def test_targets_come_back_from_the_store(tmp_path: Path) -> None:
    targets = some_targets()
    save(EmbeddingStore(tmp_path), targets)
    loaded = load_targets(EmbeddingStore(tmp_path, read_only=True), "key")
    assert loaded is not None
    assert loaded.whole()
    assert loaded.indices == (1, 4)
    assert loaded.original_sizes == ((20, 30), (20, 30))
    assert (loaded.frame_count, loaded.dropped, loaded.spacing) == (6, 2, (3.0, 1.0, 0.7))
    assert loaded.empty_indices == (2, 3, 5)
    assert loaded.classes_by_frame() == {1: {1, 2}, 4: {3}}
    for index in range(1, 6):
        read, built = loaded.read(index), targets[index]
        assert (read.image_size, read.dropped) == (built.image_size, built.dropped)
        for name in ("components", "valid", "ignored", "classes", "boxes", "areas"):
            np.testing.assert_array_equal(getattr(read, name), getattr(built, name))
            assert getattr(read, name).dtype == getattr(built, name).dtype
    maps = 4  # frame 3 needs none
    assert (tmp_path / "targets" / "key").stat().st_size // (256 * 256 * 2) == maps
    for index in (0, 9):
        with pytest.raises(InputError, match="no whole targets"):
            loaded.read(index)


def test_a_source_without_objects_is_remembered(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    save(store, {})
    loaded = load_targets(store, "key")
    assert loaded is not None
    assert loaded.whole()
    assert loaded.indices == ()


def test_damaged_targets_are_absent_and_saving_repairs(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    assert load_targets(store, "key") is None
    saved = save(store, some_targets())
    path = tmp_path / "targets" / "key"
    whole = path.read_bytes()
    for cut in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert load_targets(store, "key") is None
    save(store, some_targets())
    assert path.read_bytes() == whole

    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])  # the first map
    loaded = load_targets(store, "key")
    assert loaded is not None
    assert not loaded.whole()
    with pytest.raises(InputError, match="no whole targets"):
        loaded.read(1)
    save(store, some_targets())
    assert loaded.whole()
    assert saved.whole()


def test_targets_of_many_objects_come_back(tmp_path: Path) -> None:
    label = np.zeros((256, 256), np.uint8)
    label[::4, ::4] = 1  # a table larger than what is read at once
    saved = save(EmbeddingStore(tmp_path), {0: build_targets(frame_of(label), 1)})
    assert len(saved.objects) == 64 * 64
    assert saved.objects[:, 2:4].tolist()[65] == [16, 16]


def test_the_key_changes_with_all_that_decides_the_targets() -> None:
    base: dict[str, Any] = {
        "source_hash": "a",
        "label_hash": "b",
        "domain": {"name": "stack", "settings": {"axis": 2}},
        "min_area": 10,
        "long_side": 1024,
    }
    changes = {
        "source_hash": "c",
        "label_hash": "c",
        "domain": {"name": "stack", "settings": {"axis": 1}},
        "min_area": 11,
        "long_side": 512,
    }
    keys = {targets_key(**base)} | {
        targets_key(**{**base, name: value}) for name, value in changes.items()
    }
    assert len(keys) == 6


def scattered() -> np.ndarray:
    label = np.zeros((40, 40), np.uint8)
    label[2:6, 2:6] = 1
    label[20:30, 20:30] = 1
    label[35, 35] = 1
    label[10:14, 30:34] = 2
    return label


@pytest.mark.parametrize(
    ("policy", "classes", "areas", "dropped"),
    [
        ("each", [1, 1, 2], [16, 100, 16], 1),
        ("largest", [1, 2], [100, 16], 2),
        ("whole", [1, 2], [117, 16], 0),
    ],
)
def test_scattered_labels_become_objects_by_the_policy(policy, classes, areas, dropped) -> None:
    targets = build_targets(frame_of(scattered()), 2, policy)
    assert targets.classes.tolist() == classes
    assert targets.areas.tolist() == areas
    assert targets.dropped == dropped
    numbers, found, instances = object_map(frame_of(scattered()), 2, policy)
    assert found.tolist() == classes
    assert instances is None
    assert [(numbers == n + 1).sum() for n in range(len(found))] == areas


def test_the_whole_of_a_class_has_one_box_around_it() -> None:
    targets = build_targets(frame_of(scattered()), 1, "whole")
    np.testing.assert_allclose(targets.boxes[0] / 25.6, [2, 2, 36, 36])


def test_another_policy_is_another_key_and_the_old_one_keeps_its_name() -> None:
    keys = {policy: targets_key("a", "b", {}, 4, 1024, policy) for policy in COMPONENT_POLICIES}
    assert len(set(keys.values())) == 3
    assert keys["each"] == targets_key("a", "b", {}, 4, 1024)


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(InputError, match="'all' is not known; use one of each, largest, whole"):
        build_targets(frame_of(scattered()), 1, "all")


def test_a_slice_that_is_missing_is_remembered_and_is_no_empty_frame(tmp_path: Path) -> None:
    targets = some_targets()
    label = np.ones((20, 30), np.int32)
    nowhere = np.zeros((20, 30), bool)
    frame = Frame(np.zeros((20, 30, 3), np.uint8), FrameLocation("case-1", 2), label, nowhere)
    targets[2] = build_targets(frame)
    saved = save(EmbeddingStore(tmp_path), targets)
    assert saved.whole()
    assert saved.empty_indices == (3, 5)
    assert saved.indices == (1, 4)
    read = saved.read(2)
    assert not read.valid.any()
    assert len(read) == 0
    assert (read.class_map() == -1).all()
    assert saved.read(3).valid.any()
