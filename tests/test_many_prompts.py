"""Many prompts on one image: what they share is computed once, masks only where they are."""

import numpy as np
import pytest
import torch

from samonai.core.frame import Frame, FrameLocation
from samonai.core.geometry import FrameGeometry
from samonai.domains.tiling.frames import FrameMerger
from samonai.inference.inferer import SourceInferer
from samonai.prompts.frame_prompts import NO_POINT, FramePrompts
from samonai.prompts.types import Prompts
from samonai.sam import positive as positive_module
from samonai.sam.network import SamNetwork
from samonai.sam.positive import _Asked, _window, positive_logits

CORNERS = [[0, 0, 60, 40], [960, 0, 1024, 70], [0, 970, 30, 1024], [900, 900, 1024, 1024]]
INNER = [[100, 200, 400, 500], [512, 512, 530, 525], [0, 0, 1024, 1024], [3, 700, 1020, 720]]


def embedding_of(network: SamNetwork) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, *network.embedding_shape, generator=generator)


def ragged() -> Prompts:
    """Boxes; boxes with a click; single clicks; two clicks."""
    boxes = torch.tensor([*CORNERS, *INNER] * 2, dtype=torch.float32)
    boxes[12:] = torch.nan
    coords = torch.rand(16, 2, 2, generator=torch.Generator().manual_seed(2)) * 1024
    labels = torch.full((16, 2), NO_POINT)
    labels[8:, 0] = 1
    labels[14:, 1] = 0
    return Prompts(torch.zeros(16, dtype=torch.int64), boxes, coords, labels)


@pytest.mark.parametrize("options", [{}, {"multimask_output": True}, {"all_masks": True}])
def test_sharing_an_image_equals_decoding_its_tokens(tiny_network, options):
    embedding, prompts = embedding_of(tiny_network), ragged()
    expected = tiny_network.decode(embedding, prompts, **options)  # with a gradient: nothing shared
    with torch.no_grad():
        assert tiny_network.share(embedding, len(prompts)) is not None
        found = tiny_network.decode(embedding, prompts, **options)
    torch.testing.assert_close(found.low_res_logits, expected.low_res_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found.iou_predictions, expected.iou_predictions, rtol=1e-4, atol=1e-5
    )


def test_few_prompts_several_images_and_gradients_share_nothing(tiny_network):
    embedding = embedding_of(tiny_network)
    assert tiny_network.share(embedding, 100) is None  # a gradient may be needed
    with torch.no_grad():
        assert tiny_network.share(embedding, 1) is None
        assert tiny_network.share(embedding.repeat(2, 1, 1, 1), 100) is None
        with torch.autocast("cpu", torch.bfloat16):
            assert tiny_network.share(embedding, 100) is None


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("size", [(256, 256), (60, 80), (97, 33), (300, 200)])
@torch.no_grad()
def test_positive_logits_are_those_of_the_whole_frame(tiny_network, size, multimask):
    network = tiny_network.fork()
    network.multimask = multimask
    embedding, prompts, geometry = embedding_of(network), ragged(), FrameGeometry(size)
    shared = network.share(embedding, len(prompts))
    found = positive_logits(network, embedding, prompts, geometry, shared)
    answered = network.decode_single(embedding, prompts, shared)
    expected = geometry.logits_to_frame(answered.low_res_logits)[:, 0]
    inside = expected > 1e-6
    assert inside.any(dim=(1, 2)).all()
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-5)
    assert not (found[expected < -1e-6] > 0).any()


class Drawn:
    """Upscaling whose logits are known: the mask's pixels are 5, all others -5."""

    def __init__(self, mask: np.ndarray) -> None:
        self.logits = torch.where(torch.from_numpy(mask), 5.0, -5.0)
        blocks = self.logits.view(64, 4, 64, 4).permute(0, 2, 1, 3)
        # A token's pixels in the order of the two convolutions: rows and columns of each.
        order = blocks.reshape(64 * 64, 2, 2, 2, 2).permute(0, 1, 3, 2, 4)
        self.blocks = order.reshape(64 * 64, 16, 1)
        self.upscaled = 0
        self.upscaling = self

    def samples(self, *_: torch.Tensor) -> torch.Tensor:
        return self.logits[2::4, 2::4].flatten()

    def pixels_at(self, tokens: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        self.upscaled += len(tokens)
        return self.blocks[tokens]


def drawn_mask(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((256, 256), bool)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize("size", [(256, 256), (512, 384), (61, 90)])
@pytest.mark.parametrize("rows", [slice(0, 9), slice(100, 106), slice(249, 256), slice(0, 256)])
@pytest.mark.parametrize("columns", [slice(0, 5), slice(77, 140), slice(251, 256)])
def test_windows_at_borders_and_corners_lie_where_the_mask_is(rows, columns, size):
    mask, geometry = drawn_mask(rows, columns), FrameGeometry(size)
    drawn = Drawn(mask)
    nothing = torch.zeros(64 * 64)
    asked = _Asked(nothing, nothing[None], nothing, nothing[None])
    window, top, left = _window(drawn, asked, None)
    lines, across, logits = geometry.window_to_frame(window, top, left)
    found = torch.full(size, -1.0)
    found[lines, across] = logits
    expected = geometry.logits_to_frame(drawn.logits[None, None])[0, 0]
    inside = expected > 0
    torch.testing.assert_close(found[inside], expected[inside])
    assert not (found[~inside] > 0).any()
    height, width = rows.stop - rows.start, columns.stop - columns.start
    assert drawn.upscaled <= (height // 4 + 6) * (width // 4 + 6)


def test_a_mask_grows_beyond_its_box_and_islands_are_found():
    mask = drawn_mask(slice(40, 44), slice(8, 230)) | drawn_mask(slice(200, 204), slice(200, 204))
    drawn = Drawn(mask)
    nothing = torch.zeros(64 * 64)
    asked = _Asked(nothing, nothing[None], nothing, nothing[None])
    window, top, left = _window(drawn, asked, torch.tensor([40.0, 160.0, 60.0, 176.0]))
    found = np.zeros((256, 256), bool)
    found[top : top + window.shape[0], left : left + window.shape[1]] = window.numpy() > 0
    np.testing.assert_array_equal(found, mask)


def test_an_empty_mask_without_a_box_has_no_window():
    drawn = Drawn(np.zeros((256, 256), bool))
    drawn.logits[:] = -5
    nothing = torch.zeros(64 * 64)
    window, *_ = _window(drawn, _Asked(nothing, nothing[None], nothing, nothing[None]), None)
    rows, columns, logits = FrameGeometry((50, 70)).window_to_frame(window, 0, 0)
    assert (rows, columns, logits.numel()) == (slice(0), slice(0), 0)


class OneFrame:
    """A domain of one frame, whose label map is the source's."""

    name = "one frame"

    def __init__(self) -> None:
        self.given: list[int] = []

    def frame_count(self, source: object) -> int:
        return 1

    def frame(self, source: object, index: int) -> Frame:
        image = np.full((90, 120, 3), 100, np.uint8)
        return Frame(image, FrameLocation("one", 0))

    def merger(self, source: object) -> FrameMerger:
        domain = self

        class Counting(FrameMerger):
            def add(self, frame, scores, prompts, confidence=None):
                domain.given.append(len(prompts))
                super().add(frame, scores, prompts, confidence)

        return Counting(self, source)

    def merge(self, source: object, labels: dict) -> np.ndarray:
        return labels[0]


@torch.no_grad()
def test_prompts_of_a_crowded_frame_are_merged_a_few_at_a_time(tiny_network, monkeypatch):
    embedding = embedding_of(tiny_network)[0]
    boxes = np.array([[x, y, x + 9, y + 7] for x in range(0, 110, 10) for y in (0, 40, 83)])
    prompts = FramePrompts(boxes.astype(np.float32), np.arange(len(boxes)) % 9 + 1)
    domain = OneFrame()
    inferer = SourceInferer(domain)
    monkeypatch.setattr(inferer, "embed", lambda *_: embedding)
    shares: list[float] = []
    inferer.progress = shares.append
    found = inferer(None, tiny_network, {0: prompts})
    assert domain.given == [16, 16, 1]
    assert shares == pytest.approx([16 / 33, 32 / 33, 1])
    frame = domain.frame(None, 0)
    scores = inferer.logits(tiny_network, embedding, prompts, (90, 120)).numpy()
    merger = FrameMerger(domain, None)
    merger.add(frame, scores, prompts)
    np.testing.assert_array_equal(found, merger.finish())
    assert positive_module.OUTSIDE < 0
