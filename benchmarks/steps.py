"""Training steps: ours from embeddings, and that of scripts on segment-anything itself."""

from collections.abc import Callable

import torch
from segment_anything.modeling import Sam
from torch.optim import AdamW, Optimizer

from samonai.prompts.types import Prompts
from samonai.sam.network import DecodeOutput, SamNetwork
from samonai.training.objectives.losses import MaskLoss, MaskTargets

_LOSS = MaskLoss()


def decoder_optimizer(network: SamNetwork) -> Optimizer:
    """Return AdamW, fused as the bundles have it, on the mask decoder."""
    return AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-6, fused=True)


def decoder_step(
    network: SamNetwork,
    optimizer: Optimizer,
    read: Callable[[], torch.Tensor],
    prompts: Prompts,
    targets: MaskTargets,
) -> float:
    """Take one step of samonai's training: read embeddings, decode the batch, learn."""
    loss = _LOSS(network.decode(read(), prompts), targets)
    return _learn(loss, optimizer)


def upstream_step(
    sam: Sam, optimizer: Optimizer, images: torch.Tensor, prompts: Prompts, targets: MaskTargets
) -> float:
    """Take one step with the stock encoder in the loop: with its gradient where it asks for one."""
    trains_encoder = any(p.requires_grad for p in sam.image_encoder.parameters())
    with torch.set_grad_enabled(trains_encoder):
        embeddings = sam.image_encoder(images)
    return upstream_decoder_step(sam, optimizer, embeddings, prompts, targets)


def upstream_decoder_step(
    sam: Sam, optimizer: Optimizer, embeddings: torch.Tensor, prompts: Prompts, targets: MaskTargets
) -> float:
    """Take one step image by image, as upstream's mask decoder asks for."""
    assert prompts.boxes is not None
    loss = embeddings.new_zeros(())
    for row in range(len(prompts)):
        output = upstream_decode(sam, embeddings[row : row + 1], prompts.boxes[row : row + 1])
        target = MaskTargets(targets.masks[row : row + 1], targets.valid[row : row + 1])
        loss = loss + _LOSS(output, target) / len(prompts)
    return _learn(loss, optimizer)


def upstream_decode(sam: Sam, embedding: torch.Tensor, boxes: torch.Tensor) -> DecodeOutput:
    """Decode N boxes (N, 4) on one image's embedding (1, C, h, w) with the stock modules."""
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes[:, None], masks=None)
    return DecodeOutput(
        *sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
    )


def _learn(loss: torch.Tensor, optimizer: Optimizer) -> float:
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.item()
