"""The semantic head: stock modules, a state that carries it, labels without a prompt."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader, CheckpointSaver
from segment_anything.modeling.mask_decoder import MaskDecoder

from samonai.core.errors import InputError
from samonai.core.frame import Frame, FrameLocation
from samonai.core.geometry import FrameGeometry
from samonai.domains.tiling.frames import FrameMerger
from samonai.inference.inferer import SourceInferer
from samonai.prompts.types import Prompts
from samonai.sam.network import HeadsOutput, SamNetwork
from samonai.sam.semantic import MAX_CLASSES

BOX = [[100.0, 120.0, 600.0, 500.0]]


@pytest.fixture
def headed(tiny_network: SamNetwork) -> SamNetwork:
    """The tiny network with a head for the labels 2 and 5."""
    return tiny_network.add_semantic_head([2, 5])


@pytest.fixture
def embeddings(tiny_network: SamNetwork) -> torch.Tensor:
    return torch.randn(2, *tiny_network.embedding_shape, generator=torch.Generator().manual_seed(1))


def classes(network: SamNetwork, embeddings: torch.Tensor) -> torch.Tensor:
    return network.decode_frames(embeddings).class_logits


def by_stock_modules(network: SamNetwork, embedding: torch.Tensor) -> torch.Tensor:
    """Run the class tokens through upstream's transformer and upscaling, for one image."""
    decoder: MaskDecoder = network.mask_decoder
    head = network.semantic_head
    dense = network.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    image = embedding[None] + dense
    tokens = head.class_tokens.weight[None]
    queries, keys = decoder.transformer(image, network.prompt_encoder.get_dense_pe(), tokens)
    upscaled = decoder.output_upscaling(keys.transpose(1, 2).reshape(image.shape))
    weights = torch.stack([mlp(queries[0, k]) for k, mlp in enumerate(head.hypernetworks)])
    return torch.einsum("kc,chw->khw", weights, upscaled[0])


def test_equals_the_tokens_in_upstreams_modules_image_by_image(headed, embeddings):
    with torch.no_grad():
        logits = classes(headed, embeddings)
        assert logits.shape == (2, 3, 256, 256)
        for image, embedding in enumerate(embeddings):
            expected = by_stock_modules(headed, embedding)
            torch.testing.assert_close(logits[image], expected, rtol=1e-4, atol=1e-4)


def test_prompts_are_answered_bit_for_bit_as_without_it(tiny_network, embeddings):
    prompts = Prompts.from_boxes(BOX * 2, [0, 1])
    with torch.no_grad():
        before = tiny_network.decode(embeddings, prompts)
        tiny_network.add_semantic_head([1])
        after = tiny_network.decode(embeddings, prompts)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_one_pass_gives_both_answers(headed, embeddings):
    prompts = Prompts.from_boxes(BOX, [1])
    with torch.no_grad():
        both = headed(embeddings, prompts, classes=True)
        alone = headed(embeddings, classes=True)
        assert isinstance(both, HeadsOutput)
        expected = headed.decode(embeddings, prompts).low_res_logits
        assert torch.equal(both.prompted.low_res_logits, expected)
        assert torch.equal(both.class_logits, classes(headed, embeddings))
    assert alone.prompted is None
    assert torch.equal(alone.class_logits, both.class_logits)


def test_the_state_carries_it_into_a_network_without(headed, embeddings):
    fresh = headed.fork().remove_semantic_head()
    state = headed.state_dict()
    assert state["semantic_head.class_values"].tolist() == [0, 2, 5]
    fresh.load_state_dict(state)
    assert fresh.semantic_head.values == (0, 2, 5)
    with torch.no_grad():
        assert torch.equal(
            classes(fresh, embeddings),
            classes(headed, embeddings),
        )


def test_a_fork_has_a_head_of_its_own(headed, embeddings):
    fork = headed.fork()
    with torch.no_grad():
        before = classes(headed, embeddings)
        fork.semantic_head.class_tokens.weight.add_(1)
        assert torch.equal(classes(headed, embeddings), before)
        assert not torch.equal(classes(fork, embeddings), before)


def test_a_head_for_other_classes_is_refused(headed):
    other = headed.fork().add_semantic_head([1, 2])
    with pytest.raises(InputError, match=r"\[2, 5\].*\[1, 2\]"):
        other.load_state_dict(headed.state_dict())
    with pytest.raises(InputError, match="no semantic head"):
        other.load_state_dict(headed.fork().remove_semantic_head().state_dict())


def test_gradients_reach_the_tokens_and_the_shared_decoder(headed, embeddings):
    classes(headed.train(), embeddings).square().mean().backward()
    assert headed.semantic_head.class_tokens.weight.grad.abs().max() > 0
    assert headed.mask_decoder.transformer.norm_final_attn.weight.grad.abs().max() > 0
    assert headed.mask_decoder.mask_tokens.weight.grad is None
    assert all(p.grad is None for p in headed.image_encoder.parameters())


@pytest.mark.parametrize("classes", [[], [1, 1], [0, 1], [-3], list(range(1, MAX_CLASSES + 2))])
def test_classes_that_no_head_can_have(tiny_network, classes):
    with pytest.raises(InputError, match="classes"):
        tiny_network.add_semantic_head(classes)


def test_without_a_head_there_is_one_line(tiny_network, embeddings):
    with pytest.raises(InputError, match="heads=both"):
        tiny_network.decode_frames(embeddings)


class Tiles:
    """A domain of frames 3 pixels wide, whose class logits the source itself holds."""

    def __init__(self, valid: np.ndarray | None = None) -> None:
        self.valid = valid

    def frame_count(self, source: torch.Tensor) -> int:
        return len(source)

    def frame(self, source: torch.Tensor, index: int) -> Frame:
        image = np.arange(0, 90, 10, np.uint8).reshape(1, 3, 3)
        return Frame(image, FrameLocation("a", index), valid=self.valid)

    def merger(self, source: torch.Tensor) -> FrameMerger:
        return FrameMerger(self, source)

    def merge(self, source: torch.Tensor, labels: dict[int, np.ndarray]) -> np.ndarray:
        return np.concatenate([labels[index] for index in range(len(source))])


class TestMergingClasses:
    # Two frames, three channels, one row of three pixels.
    LOGITS = torch.tensor(
        [
            [[[1.0, 0.0, 0.0]], [[0.0, 2.0, 1.0]], [[0.0, 1.0, 3.0]]],
            [[[9.0, 9.0, 2.0]], [[0.0, 0.0, 3.0]], [[0.0, 0.0, 2.5]]],
        ]
    )

    def merged(self, domain: Tiles, **options: object) -> list[list[int]]:
        inferer = SourceInferer(domain)
        logits = self.LOGITS
        label = inferer.merge_classes(
            logits, lambda frame: logits[frame.location.index], (0, 2, 5), **options
        )
        return label.tolist()

    def test_every_pixel_gets_its_likeliest_class(self):
        assert self.merged(Tiles()) == [[0, 2, 5], [0, 0, 2]]

    def test_nothing_where_pixels_are_not_valid(self):
        assert self.merged(Tiles(np.array([[True, True, False]]))) == [[0, 2, 0], [0, 0, 0]]

    def test_a_class_that_is_not_asked_for_does_not_go_to_another(self):
        assert self.merged(Tiles(), keep=[5]) == [[0, 0, 5], [0, 0, 0]]


def test_class_logits_come_back_to_the_frame(headed):
    frame = Frame(np.zeros((30, 50, 3), np.uint8), FrameLocation("a", 0))
    embedding = torch.randn(*headed.embedding_shape, generator=torch.Generator().manual_seed(2))
    logits, _ = SourceInferer(Tiles()).frame_classes([headed], embedding, frame)
    with torch.no_grad():
        low_res = classes(headed, embedding[None])
    expected = FrameGeometry((30, 50)).logits_to_frame(low_res)[0]
    torch.testing.assert_close(logits, expected)


def test_no_prompts_and_no_head_is_one_line(tiny_network):
    with pytest.raises(InputError, match="--heads both"):
        SourceInferer(Tiles())(torch.zeros(1), tiny_network)


def test_monais_saver_and_loader_carry_it(headed, embeddings, tmp_path):
    def engine() -> Engine:
        return Engine(lambda *_: None)

    saving = engine()
    CheckpointSaver(str(tmp_path), {"network": headed}, save_final=True).attach(saving)
    saving.run([0], 1)
    fresh, loading = headed.fork().remove_semantic_head(), engine()
    (path,) = tmp_path.glob("*.pt")
    loader = CheckpointLoader(str(path), {"network": fresh})
    loader.attach(loading)
    loading.run([0], 1)
    with torch.no_grad():
        assert torch.equal(
            classes(fresh, embeddings),
            classes(headed, embeddings),
        )
