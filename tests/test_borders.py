"""Borders beside the classes: objects that touch are told apart, and no class is touched by it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from bundle_factory import write_scenes
from tiny_rasters import write_raster

import samonai
import samonai as api
from samonai.core.errors import InputError
from samonai.core.frame import Frame, FrameLocation
from samonai.domains import get_domain
from samonai.domains.base import Case
from samonai.embeddings.targets import FrameTargets
from samonai.inference import ObjectFinding, SourceInferer
from samonai.inference.automatic.borders import components
from samonai.inference.automatic.instances import InstanceFinder
from samonai.inference.inferer import Automatic
from samonai.inference.prompting.select import NoPrompts
from samonai.sam.network import HeadsOutput, SamNetwork
from samonai.training import ClassTargets, SemanticLoss, with_heads
from samonai.training.objectives.border_targets import border_map
from samonai.training.objectives.semantic_loss import IGNORED

SIZE = (40, 60)
# (top, left, bottom, right): two that touch, and one apart.
SQUARES = [(8, 6, 28, 26), (8, 26, 28, 46), (31, 50, 39, 58)]


def numbers() -> np.ndarray:
    """uint16 (H, W): the number of the square at each pixel."""
    out = np.zeros(SIZE, np.uint16)
    for number, (top, left, bottom, right) in enumerate(SQUARES, 1):
        out[top:bottom, left:right] = number
    return out


def borders_of(
    components: np.ndarray, valid: np.ndarray | None = None, reach: int = 2
) -> np.ndarray:
    count = int(components.max())
    targets = FrameTargets(
        image_size=components.shape,
        components=components.astype(np.uint16),
        valid=np.ones(components.shape, bool) if valid is None else valid,
        classes=np.ones(count, np.int32),
        boxes=np.zeros((count, 4), np.float32),
        areas=np.ones(count, np.int32),
        dropped=0,
        ignored=np.zeros(components.shape, bool),
    )
    return border_map(targets, reach)


class TestTargets:
    def test_both_sides_of_what_touches_are_border(self):
        border = borders_of(numbers())
        assert border[18, 23:29].tolist() == [False, True, True, True, True, False]
        assert border[18, 3:9].tolist() == [False, True, True, True, True, False]
        assert not border[10:26, 8:24].any()
        assert not border[0:6].any()

    def test_without_touching_nothing_lies_between(self):
        joined = np.minimum(numbers(), 1)
        assert not borders_of(joined)[18, 10:42].any()

    def test_every_object_keeps_an_inside(self):
        thin = np.zeros(SIZE, np.uint16)
        thin[5:8, 5:50] = 1  # three wide: its middle row stays
        thin[20, 20] = 2  # one pixel: all of it
        border = borders_of(thin, reach=4)
        assert not border[6, 7:48].any()
        assert border[5, 7:48].all()
        assert not border[20, 20]

    def test_what_the_frame_cuts_does_not_end_there(self):
        valid = np.ones(SIZE, bool)
        valid[:, 16:] = False
        assert not borders_of(np.where(valid, numbers(), 0), valid)[12:24, 10:].any()
        whole = np.ones(SIZE, np.uint16)
        assert not borders_of(whole).any()
        assert not borders_of(0 * whole).any()


class TestLoss:
    def targets(self, channels: torch.Tensor) -> ClassTargets:
        border = torch.from_numpy(borders_of(numbers()))[None]
        return ClassTargets(channels, (0, 4), ("a",), border)

    def channels(self) -> torch.Tensor:
        return torch.from_numpy((numbers() > 0).astype(np.uint8))[None]

    def said(self, channels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(channels.long(), 2).permute(0, 3, 1, 2) * 30.0

    def test_what_is_right_costs_nothing_and_wrong_borders_do(self):
        channels = self.channels()
        targets = self.targets(channels)
        right = torch.where(targets.borders, 30.0, -30.0)
        loss = SemanticLoss()
        assert loss(self.said(channels), targets, right).item() < 1e-4
        assert loss(self.said(channels), targets, -right).item() > 1
        assert loss(self.said(channels), targets).item() < 1e-4

    def test_classes_are_learned_as_without_borders(self):
        channels = self.channels()
        logits = torch.randn(1, 2, *SIZE, generator=torch.Generator().manual_seed(0))
        gradients = []
        for border_logits in (None, torch.zeros(1, *SIZE)):
            given = logits.clone().requires_grad_()
            SemanticLoss()(given, self.targets(channels), border_logits).backward()
            gradients.append(given.grad)
        assert torch.equal(*gradients)

    def test_ignored_pixels_teach_no_border(self):
        channels = self.channels()
        channels[:, :, 30:] = IGNORED
        border_logits = torch.zeros(1, *SIZE, requires_grad=True)
        SemanticLoss()(torch.zeros(1, 2, *SIZE), self.targets(channels), border_logits).backward()
        assert border_logits.grad[..., 30:].abs().max() == 0
        assert border_logits.grad[..., :30].abs().min() > 0


class TestParts:
    def test_touching_squares_are_two_with_borders_and_one_without(self):
        mask = numbers() > 0
        border = borders_of(numbers()).astype(np.float32)
        found = components(mask, border)
        assert found.max() == 3
        assert np.array_equal(found > 0, mask)
        for square in (1, 2, 3):
            assert len(np.unique(found[numbers() == square])) == 1
        assert components(mask).max() == 2

    def test_no_pixel_is_lost_where_all_is_border(self):
        mask = numbers() > 0
        found = components(mask, np.ones(SIZE, np.float32))
        assert found.max() == 2
        assert np.array_equal(found > 0, mask)

    def test_gaps_in_a_border_join_nothing(self):
        border = borders_of(numbers()).astype(np.float32)
        border[14:17, 24:28] = 0.0
        assert components(numbers() > 0, border).max() == 3

    def test_a_wrong_border_in_an_object_parts_nothing(self):
        mask = numbers() == 1
        border = np.zeros(SIZE, np.float32)
        border[12:15, 12:14] = 1.0
        border[27, 6:20] = 1.0
        assert components(mask, border).max() == 1

    @pytest.mark.parametrize("unit", [2.0, 3.9, 7.0])
    def test_large_frames_are_parted_as_finely_as_logits_are(self, unit):
        step = int(unit)
        large = np.repeat(np.repeat(numbers(), step, 0), step, 1)[:-1, :-1]
        border = np.repeat(np.repeat(borders_of(numbers()), step, 0), step, 1)[:-1, :-1]
        found = components(large > 0, border.astype(np.float32), unit)
        assert found.max() == 3
        assert np.array_equal(found > 0, large > 0)
        assert (found[large == 1] == found[12 * step, 12 * step]).all()

    def test_nothing_has_no_parts(self):
        assert not components(np.zeros(SIZE, bool), np.zeros(SIZE, np.float32)).any()
        assert (components(np.ones(SIZE, bool), np.zeros(SIZE, np.float32)) == 1).all()


class Seeing(SourceInferer):
    """An inferer whose embeddings are the frames themselves."""

    def embed(self, source: Any, frame: Any, network: Any, *_: Any) -> torch.Tensor:
        return torch.from_numpy(frame.image[..., 0].copy())


class ByColour:
    """A semantic head for which what is not dark is of class 5, and colours end at borders."""

    long_side, multimask, image_encoder, object_classifier = 1024, False, None, None
    windows = None

    def __init__(self, borders: bool) -> None:
        self.semantic_head = SimpleNamespace(values=(0, 5), borders=borders)

    def decode_frames(self, embedding: torch.Tensor) -> HeadsOutput:
        image = embedding[0].numpy()
        scale = 256 / max(image.shape)
        rows, columns = (
            ((np.arange(round(side * scale)) + 0.5) / scale).astype(int).clip(max=side - 1)
            for side in image.shape
        )
        seen = np.zeros((256, 256), np.uint8)
        seen[: len(rows), : len(columns)] = image[rows][:, columns]
        inside = torch.from_numpy(np.where(seen > 10, 3.0, -3.0).astype(np.float32))
        colours = np.where(seen > 10, seen, 0).astype(np.uint16)
        near = borders_of(colours, seen > 0, reach=5)
        logits = torch.from_numpy(np.where(near, 9.0, -9.0).astype(np.float32))
        classes = torch.stack([-inside, inside])[None]
        return HeadsOutput(None, classes, logits[None] if self.semantic_head.borders else None)


# Long ones that lie over several tiles of 64, side by side.
BLOCKS = [(10, 12, 50, 150), (50, 12, 90, 150), (110, 20, 140, 60)]
COLOURS = [60, 140, 220]


def drawing() -> np.ndarray:
    image = np.full((150, 190), 10, np.uint8)
    for (top, left, bottom, right), colour in zip(BLOCKS, COLOURS, strict=True):
        image[top:bottom, left:right] = colour
    return image


def predicted(tmp_path: Path, borders: bool, **options: Any) -> Any:
    path = write_raster(tmp_path / "scene.tif", np.stack([drawing()] * 3))
    domain = get_domain("satellite", tile=64, overlap=24)
    source = domain.read(Case("scene", path))
    asked = NoPrompts(**options)(domain, Case("scene", path), source)
    return domain.maps(source, Seeing(domain)(source, ByColour(borders), asked))


class TestWhole:
    def test_classes_give_one_number_to_each_object_over_all_tiles(self, tmp_path):
        maps = predicted(tmp_path, borders=True)
        found = [
            np.unique(maps.instances[top + 4 : bottom - 4, left + 4 : right - 4]).tolist()
            for top, left, bottom, right in BLOCKS
        ]
        assert sorted(found) == [[1], [2], [3]]
        assert len(maps.scores) == 3

    def test_without_borders_what_touches_is_one(self, tmp_path):
        maps = predicted(tmp_path, borders=False)
        assert maps.instances.max() == 2

    def test_the_map_of_classes_is_the_same(self, tmp_path):
        apart, joined = (predicted(tmp_path, borders=b).label for b in (True, False))
        assert set(np.unique(apart)) == {0, 5}
        assert (apart != joined).mean() < 0.005

    def test_min_score_and_classes_hold_for_them_too(self, tmp_path):
        assert not predicted(
            tmp_path, True, classes=(5,), finding=ObjectFinding(min_score=1.0)
        ).label.any()
        assert predicted(tmp_path, True, classes=(5,)).label.any()
        with pytest.raises(InputError, match=r"no class 4, but \[5\]"):
            predicted(tmp_path, True, classes=(4,))

    def test_medical_maps_of_classes_stay_maps_of_classes(self):
        domain = get_domain("medical")
        assert NoPrompts()(domain, None, None) == Automatic()
        box = ObjectFinding("box")
        assert NoPrompts(finding=box)(domain, None, None) == Automatic(finding=box)

    def test_of_several_networks_those_that_learned_borders_say_them(self):
        frame = Frame(np.stack([drawing()] * 3, -1), FrameLocation("a", 0))
        one = [ByColour(True)]
        for networks in (one, [ByColour(False), *one]):
            found = InstanceFinder(Seeing(None), networks, prompts="none")(None, frame)
            assert len(found) == 3
        without = InstanceFinder(Seeing(None), [ByColour(False)], prompts="none")
        assert len(without(None, frame)) == 2


class TestHead:
    def test_classes_are_as_many_as_without(self, tiny_network: SamNetwork):
        network = tiny_network.add_semantic_head([2, 5], borders=True)
        embedding = torch.randn(2, *network.embedding_shape)
        with torch.no_grad():
            said = network.decode_frames(embedding)
        assert said.class_logits.shape == (2, 3, 256, 256)
        assert said.border_logits.shape == (2, 256, 256)
        assert network.semantic_head.values == (0, 2, 5)
        plain = network.fork().add_semantic_head([2, 5])
        assert plain.decode_frames(embedding).border_logits is None
        for name, value in plain.semantic_head.state_dict().items():
            assert torch.equal(value, network.semantic_head.state_dict()[name])

    def test_the_state_carries_it_and_old_ones_load(self, tiny_network: SamNetwork):
        network = tiny_network.add_semantic_head([2], borders=True)
        without = network.fork().add_semantic_head([2])
        fresh = network.fork().remove_semantic_head()
        fresh.load_state_dict(network.state_dict())
        assert fresh.semantic_head.borders
        assert not any("border" in name for name in without.state_dict())
        old = network.fork().remove_semantic_head()
        old.load_state_dict(without.state_dict())
        assert not old.semantic_head.borders
        with pytest.raises(InputError, match=r"trained with borders=false.*of borders=true"):
            network.fork().load_state_dict(without.state_dict())

    def test_another_kind_of_head_is_replaced(self, tiny_network: SamNetwork):
        network = with_heads(tiny_network.set_trainable(), {5: "b"}, "both")
        plain = network.semantic_head
        assert with_heads(network, {5: "b"}, "both", True).semantic_head.borders
        assert network.semantic_head is not plain
        kept = network.semantic_head
        assert with_heads(network, {5: "b"}, "both", True).semantic_head is kept


def test_a_run_with_borders_end_to_end(tiny_network: SamNetwork, tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data")
    images, labels = data / "images", data / "labels"
    settings = {"domain": "satellite", "tile": "32", "overlap": "8", "progress": False}
    with pytest.raises(InputError, match="borders=true is for the semantic head"):
        api.finetune(tiny_network, images, labels, out=tmp_path / "no", borders=True, **settings)
    run = samonai.finetune(
        tiny_network, images, labels, out=tmp_path / "run", epochs=1, heads="both", borders=True,
        **settings,
    )  # fmt: skip
    assert run.metadata.training["borders"] is True
    assert run.network.semantic_head.borders
    assert list(run.metadata.classes) == ["1"]
    row = json.loads((run.path / "history.json").read_text())[-1]
    assert 0 <= row["val_dice_semantic"] <= 1

    written = api.predict(run, images / "scene_0.tif", None, tmp_path / "out", progress=False)
    assert [path.name for path in written] == [
        "scene_0.gpkg",
        "scene_0.tif",
        "scene_0_instances.tif",
    ]
    with rasterio.open(written[1]) as out:
        assert set(np.unique(out.read(1))) <= {0, 1}
    metrics = run.evaluate(images, labels, tmp_path / "test", prompts="none", report=False)
    assert metrics["prompts"]["automatic"] == "classes"
    assert set(metrics["pooled_instances"]) == {"class_1"}


def test_borders_need_no_new_embeddings(tiny_network: SamNetwork, tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data")
    seen = []
    for borders in (False, True):
        run = samonai.finetune(
            tiny_network, data / "images", data / "labels", out=tmp_path / f"run_{borders}",
            store=tmp_path / "store", epochs=1, heads="semantic", borders=borders,
            domain="satellite", tile="32", overlap="8", progress=False,
        )  # fmt: skip
        seen.append(len(list((tmp_path / "store").rglob("*"))))
        assert run.network.semantic_head.borders == borders
    assert seen[0] == seen[1]
