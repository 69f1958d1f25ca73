"""Objects without prompts: out of a grid of points, or the semantic head's, merged over frames."""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from document_factory import save_picture
from scipy import ndimage
from tiny_rasters import write_raster

import samonai as api
from samonai.core.errors import InputError
from samonai.domains import get_domain
from samonai.domains.base import Case
from samonai.inference import ObjectFinding, SourceInferer, evaluation_prompts, prediction_prompts
from samonai.inference.inferer import Automatic
from samonai.prompts.frame_prompts import NO_POINT
from samonai.prompts.types import Prompts
from samonai.sam.outputs import DecodeOutput, HeadsOutput
from samonai.settings.choices import AUTOMATIC

if TYPE_CHECKING:
    from samonai.sam.network import SamNetwork

SIZE = (150, 190)
# Each in a colour of its own: two that touch, one longer than a tile, one in a corner.
BLOCKS = [(10, 12, 40, 60), (10, 60, 40, 90), (60, 5, 90, 185), (120, 160, 150, 190)]
COLOURS = [60, 110, 160, 220]


def drawing() -> np.ndarray:
    """Return uint8 (H, W), the blocks' colours on 10."""
    image = np.full(SIZE, 10, np.uint8)
    for (top, left, bottom, right), colour in zip(BLOCKS, COLOURS, strict=True):
        image[top:bottom, left:right] = colour
    return image


class Seeing(SourceInferer):
    """An inferer whose embeddings are the frames themselves."""

    def embed(self, source: Any, frame: Any, network: Any, *_: Any) -> torch.Tensor:
        return torch.from_numpy(frame.image[..., 0].copy())


class ByColour:
    """A network for which an object is what has the colour under the point, or most of the box."""

    long_side, multimask, image_encoder, object_classifier = 1024, False, None, None
    windows = None

    def __init__(self, heads: bool = False) -> None:
        self.semantic_head = SimpleNamespace(values=(0, 5)) if heads else None

    def decode_frames(self, embedding: torch.Tensor) -> HeadsOutput:
        inside = self._low_res(embedding[0] > 10)
        return HeadsOutput(None, torch.stack([-inside, inside])[None])

    def share(self, embedding: torch.Tensor, prompts: int) -> None:
        pass

    def decode(
        self,
        embedding: torch.Tensor,
        prompts: Prompts,
        multimask_output: bool = False,
        shared: None = None,
    ) -> DecodeOutput:
        image = embedding[0]
        scale = self.long_side / max(image.shape)
        masks = []
        for row in range(len(prompts)):
            one = prompts[torch.tensor([row])]
            if bool(one.row_has_box()[0]):
                x0, y0, x1, y1 = (one.boxes[0] / scale).round().int().tolist()
                colour = image[y0:y1, x0:x1].flatten().mode().values
            else:
                assert int((one.point_labels != NO_POINT).sum()) == 1
                x, y = (one.point_coords[0, 0] / scale).floor().int().tolist()
                colour = image[y, x]
            masks.append(self._low_res((image == colour) & (colour > 10)))
        logits = torch.stack(masks)[:, None]
        return DecodeOutput(logits, torch.full((len(masks), 1), 0.9))

    def _low_res(self, mask: torch.Tensor) -> torch.Tensor:
        """Return logits (256, 256), exact but for half a low-res pixel at edges."""
        height, width = mask.shape
        scale = 256 / max(height, width)
        out = torch.full((256, 256), -9.0)
        rows = ((torch.arange(round(height * scale)) + 0.5) / scale).long().clamp(max=height - 1)
        columns = ((torch.arange(round(width * scale)) + 0.5) / scale).long().clamp(max=width - 1)
        out[: len(rows), : len(columns)] = torch.where(mask[rows][:, columns], 9.0, -9.0)
        return out


def read(kind: str, folder: Path) -> tuple[Any, Any]:
    """Return a domain and the drawing as its source."""
    if kind == "satellite":
        path = write_raster(folder / "scene.tif", np.stack([drawing()] * 3))
        domain = get_domain("satellite", tile=64, overlap=24)
    else:
        path = folder / "page.png"
        save_picture(path, np.stack([drawing()] * 3, -1))
        # Longer than wide by more than so much: cut into pieces, three of them.
        domain = get_domain("documents", longest=1.5)
    return domain, domain.read(Case("scene", path))


def assert_one_number_each(instances: np.ndarray) -> None:
    numbers = []
    for top, left, bottom, right in BLOCKS:
        inner = instances[top + 2 : bottom - 2, left + 2 : right - 2]
        assert len(np.unique(inner)) == 1
        numbers.append(int(inner[0, 0]))
    assert sorted(numbers) == [1, 2, 3, 4]
    near = ndimage.binary_dilation(drawing() > 10, iterations=2)
    assert not instances[~near].any()


@pytest.mark.parametrize("kind", ["satellite", "documents"])
@pytest.mark.parametrize("automatic", ["grid", "points"])
def test_objects_cut_by_frames_come_out_whole(kind: str, automatic: str, tmp_path: Path) -> None:
    domain, source = read(kind, tmp_path)
    network = ByColour(heads=automatic == "points")
    finding = ObjectFinding(automatic, points_per_side=8)
    found = Seeing(domain, prompts_at_once=3)(source, network, Automatic(finding=finding))
    maps = domain.maps(source, found)

    assert maps.instances is not None
    assert_one_number_each(maps.instances)
    values = np.unique(maps.label[drawing() > 10]).tolist()
    assert {1 if automatic == "grid" else 5} <= set(values) <= {0, 1, 5}
    # 0.9 is the decoder's own estimate; the probability of the class is 1.
    assert maps.scores == pytest.approx([0.9] * 4, abs=1e-3)


def test_in_volumes_objects_refine_the_class_map(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    volume = np.stack([drawing().T] * 2, -1).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "scan.nii.gz")
    domain = get_domain("medical")
    source = domain.read(Case("scan", tmp_path / "scan.nii.gz"))
    finding = ObjectFinding("grid", points_per_side=16)
    label = Seeing(domain, prompts_at_once=2)(source, Levels(), Automatic(finding=finding))

    assert label.shape == (SIZE[1], SIZE[0], 2)
    inside = ndimage.binary_erosion(drawing() > 10, iterations=2).T
    near = ndimage.binary_dilation(drawing() > 10, iterations=2).T
    assert (label[inside] == 1).all()
    assert not label[~near].any()


class Levels(ByColour):
    """Takes a frame's darkest level for nothing, whatever the window made of it."""

    def decode(self, embedding: torch.Tensor, *args: Any, **kwargs: Any) -> DecodeOutput:
        image = embedding.clone()
        image[image == image.min()] = 10
        image[(image != 10) & (image < 20)] += 20
        return super().decode(image, *args, **kwargs)


def test_two_networks_answer_on_average(tmp_path: Path) -> None:
    class Unsure(ByColour):
        def decode(self, *args: Any, **kwargs: Any) -> DecodeOutput:
            said = super().decode(*args, **kwargs)
            return DecodeOutput(said.low_res_logits, said.iou_predictions - 0.4)

    domain, source = read("satellite", tmp_path)
    finding = ObjectFinding("grid", points_per_side=8, min_score=0.6)
    inferer = Seeing(domain, members=[Unsure()])
    maps = domain.maps(source, inferer(source, ByColour(), Automatic(finding=finding)))
    assert maps.scores == pytest.approx([0.7] * 4, abs=1e-3)
    alone = inferer(source, Unsure(), Automatic(finding=finding), alone=True)
    assert len(domain.maps(source, alone).scores) == 0


def test_a_model_as_it_is_answers_with_a_grid(tiny_network: "SamNetwork", tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", np.stack([drawing()] * 3))
    asked = {"domain": "satellite", "tile": "64", "overlap": "16", "progress": False}
    written = api.predict(
        tiny_network, path, None, tmp_path / "out", automatic="grid", points_per_side=2,
        min_score=0.0, **asked,
    )  # fmt: skip
    names = ["scene.gpkg", "scene.tif", "scene_instances.tif"]
    assert [one.name for one in written] == names
    with pytest.raises(InputError, match="automatic=grid, which uses a grid of points"):
        api.predict(tiny_network, path, None, tmp_path / "none", **asked)
    with pytest.raises(
        InputError, match="use one of classes, box, points, box_and_points, proposed"
    ):
        api.predict(tiny_network, path, None, tmp_path / "none", automatic="dots", **asked)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("automatic", AUTOMATIC)
def test_every_way_can_be_asked_for(automatic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    both = SimpleNamespace(heads=["promptable", "semantic"], classes={"1": "roof"}, training={})
    for module in ("select", "compatibility", "decoder_checks"):
        monkeypatch.setattr(
            f"samonai.inference.prompting.{module}.read_decoder_metadata", lambda _: both
        )
    asked = evaluation_prompts("none", "decoder", finding=ObjectFinding(automatic))
    assert asked.settings()["automatic"] == automatic


def test_what_does_not_go_together_is_told(tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.geojson"
    boxes.write_text("{}")
    grid = ObjectFinding("grid")
    with pytest.raises(InputError, match="automatic=grid finds objects without prompts"):
        prediction_prompts(boxes, None, None, finding=grid)
    with pytest.raises(InputError, match="automatic=grid finds objects without prompts"):
        evaluation_prompts("slices", finding=grid)
    with pytest.raises(InputError, match="a grid of points has no classes"):
        prediction_prompts(None, "roof", None, finding=grid)
    with pytest.raises(InputError, match="a stock model needs some"):
        prediction_prompts(None, None, None, finding=ObjectFinding("points"))
    with pytest.raises(InputError, match="min_score=2: expected 0 or more and at most 1"):
        ObjectFinding("grid", min_score=2.0)
    assert evaluation_prompts("none", finding=grid).settings()["automatic"] == "grid"
