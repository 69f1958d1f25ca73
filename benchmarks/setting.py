"""The models and inputs that all subjects measure on: random weights, random pixels, fixed seed."""

from dataclasses import dataclass

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

from samonai.prompts.types import Prompts
from samonai.sam.micro import build_micro
from samonai.sam.network import SamNetwork
from samonai.sam.normalisation import SAM_NORMALISATION
from samonai.training.objectives.losses import MaskTargets

SEED = 0
_NARROW = 32  # channels
_NO_IDENTITY = "00" * 32  # random weights have no checksum to go by


@dataclass(frozen=True)
class Setting:
    """Size of a benchmark run.

    Attributes:
        model: "vit_b", or "micro" for a run that only shows that all works.
        batch: Images per decoder step.
        rounds: Turns for contestants of more than a second.
        short_rounds: Turns for the others.
        objects: Box prompts on one frame.
        crowd: Box prompts on a crowded one.
        crowded_slice: Box prompts on the slice that two checkouts predict.
        frames: Frames in the store.
        scaling_frames: Sizes of the epochs whose growth is measured.
        scaling_rounds: Turns for these.
        scaling_prompts: Numbers of boxes whose growth is measured.
        many_cases: Numbers of tiny cases whose growth is measured.
        volume_slices: Slices of the predicted volume.
        volume_prompted: How many of them have a box: each costs an encoding. And the slices of a
            smaller volume of which all have one.
        volume_memory_prompted: The same for the micro model.
        house_cases: Numbers of tiny cases; the smaller one shows the time that does not grow.
    """

    model: str = "vit_b"
    batch: int = 8
    rounds: int = 3
    short_rounds: int = 15
    objects: int = 50
    crowd: int = 100
    crowded_slice: int = 1000
    frames: int = 64
    scaling_frames: tuple[int, ...] = (100, 1000, 10_000)
    scaling_rounds: int = 1
    scaling_prompts: tuple[int, ...] = (8, 16, 32, 64)
    many_cases: tuple[int, ...] = (100, 400, 1600)
    volume_slices: int = 600
    volume_prompted: int = 12
    volume_memory_prompted: int = 600
    house_cases: tuple[int, int] = (8, 800)


QUICK = Setting(
    "micro",
    batch=2,
    rounds=1,
    short_rounds=2,
    objects=4,
    crowd=8,
    crowded_slice=8,
    frames=4,
    scaling_frames=(2, 4),
    scaling_prompts=(1, 2),
    many_cases=(2, 4),
    volume_slices=3,
    volume_prompted=1,
    volume_memory_prompted=1,
    house_cases=(4, 12),
)


def random_sam(model: str) -> Sam:
    """Build a stock SAM with random weights, relative positions included (upstream's are 0)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        sam = build_micro() if model == "micro" else sam_model_registry[model](checkpoint=None)
        for name, parameter in sam.image_encoder.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    return sam.eval()


def narrow_network(depth: int) -> SamNetwork:
    """Return a SAM of 32 channels with random weights, for what other work than its own is timed.

    Args:
        depth: Blocks of its image encoder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        transformer = TwoWayTransformer(
            depth=2, embedding_dim=_NARROW, num_heads=2, mlp_dim=2 * _NARROW
        )
        sam = Sam(
            ImageEncoderViT(embed_dim=16, depth=depth, num_heads=1, out_chans=_NARROW),
            PromptEncoder(_NARROW, (64, 64), (1024, 1024), mask_in_chans=16),
            MaskDecoder(
                transformer_dim=_NARROW, transformer=transformer, iou_head_hidden_dim=_NARROW
            ),
        )
    return network_of(sam.eval(), "narrow")


def network_of(sam: Sam, name: str) -> SamNetwork:
    """Wrap a stock SAM, sharing its modules."""
    return SamNetwork(sam, name=name, normalisation=SAM_NORMALISATION, encoder_sha256=_NO_IDENTITY)


def random_images(count: int) -> torch.Tensor:
    """Return float32 (B, 3, 1024, 1024), about what normalised images look like."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(count, 3, 1024, 1024, generator=generator)


def random_embeddings(network: SamNetwork, count: int) -> torch.Tensor:
    """Return float32 (B, C, h, w), standing in for what an encoder gave."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(count, *network.embedding_shape, generator=generator)


def random_boxes(count: int) -> torch.Tensor:
    """Return float32 (N, 4), xyxy in model space."""
    generator = torch.Generator().manual_seed(SEED)
    corner = torch.rand(count, 2, generator=generator) * 600
    return torch.cat([corner, corner + 100 + torch.rand(count, 2, generator=generator) * 300], 1)


def one_box_each(count: int) -> tuple[Prompts, MaskTargets]:
    """Return one box prompt on each of B images, and its box filled as the target."""
    boxes = random_boxes(count)
    masks = torch.zeros(count, 1, 256, 256, dtype=torch.bool)
    for mask, box in zip(masks, (boxes / 4).int().tolist(), strict=True):
        mask[0, box[1] : box[3], box[0] : box[2]] = True
    return Prompts(torch.arange(count), boxes=boxes), MaskTargets(masks, torch.ones_like(masks))
