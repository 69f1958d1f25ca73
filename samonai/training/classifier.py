"""Linear classifier of proposed objects: its fit to the training cases.

It is fitted after the decoder's training, and only for domains that propose regions
(`RegionProposals`), which then need a class. Examples are the labelled objects and the decoder's
masks for the domain's own proposals on the training frames: each mask has the class of the object
that it overlaps, or is a background example. So parts of objects, and several objects at once, are
background, as in Fast R-CNN (arXiv:1504.08083).
"""

import logging
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from samonai.core.frame import Frame
from samonai.core.geometry import FrameGeometry
from samonai.domains.base import Domain
from samonai.domains.capabilities import capabilities
from samonai.embeddings.store import SourceEmbeddings
from samonai.embeddings.targets import FrameTargets
from samonai.prompts.frame_prompts import FramePrompts
from samonai.prompts.types import Prompts
from samonai.sam.network import SamNetwork
from samonai.sam.object_classifier import ObjectClassifier, object_features
from samonai.settings.choices import BOTH
from samonai.training.data.prepare import TrainingData

logger = logging.getLogger(__name__)

_MOST_FRAMES = 200
"""Limit of frames, evenly spaced; each is read and decoded once more."""

_AT_ONCE = 16  # prompts
_SAME_IOU = 0.5
"""IoU from which a mask is an example of an object; below, it is a background example."""
_UNKNOWN = 0.5
"""Share of unlabelled pixels from which a mask is no example."""

_PENALTY = 10.0
"""L2 penalty of the weights, in examples."""
_BALANCE = 0.5
"""Class balance: 0 weights classes by their frequency, 1 equally."""
_STEPS = 200
_LEAST_SCALE = 1e-4

Examples = tuple[torch.Tensor, torch.Tensor]
"""Features float32 (N, F), and channels int64 (N,), 0 for no object."""


@torch.no_grad()
def fit_object_classifier(
    network: SamNetwork, domain: Domain[Any], data: TrainingData
) -> ObjectClassifier | None:
    """Fit the object classifier to the training cases; None where nothing needs it.

    Args:
        network: Trained, with both heads.
        domain: Reads the training cases once more.
        data: The run's data.
    """
    proposing = capabilities(domain).proposals
    if data.heads != BOTH or proposing is None or len(data.classes) < 2:
        return None
    frames = [
        (case, index)
        for case, index in data.train.frames
        if case.targets.has_objects(index) and isinstance(case.embeddings, SourceEmbeddings)
    ]
    if not frames:
        return None
    chosen = np.unique(np.linspace(0, len(frames) - 1, _MOST_FRAMES).round().astype(int))
    cases = {case.case_id: case for case in data.split.train}
    found: list[Examples] = []
    source_of, source = "", None
    network.eval()
    for case, index in (frames[row] for row in chosen.tolist()):
        if case.case_id != source_of:
            source_of, source = case.case_id, domain.read(cases[case.case_id])
        frame = domain.frame(source, index)
        embedding = torch.from_numpy(case.embeddings.read(index)).float().to(network.device)
        boxes = proposing.proposals(frame)
        masks = _masks(network, embedding, boxes, frame)
        found.append(
            training_examples(embedding, masks, case.targets.read(index), data.train.values)
        )
    features, channels = (torch.cat(parts) for parts in zip(*found, strict=True))
    logger.info("the object classifier was fitted to %d examples", len(channels))
    return fit_classifier(features, channels, data.train.values)


def fit_classifier(
    features: torch.Tensor, channels: torch.Tensor, values: tuple[int, ...]
) -> ObjectClassifier:
    """Fit a multinomial logistic regression to examples.

    Args:
        features: float32 (N, F), of `object_features`.
        channels: int64 (N,), index into `values` of each.
        values: Label value of each channel, 0 first.
    """
    mean, scale = features.mean(0), features.std(0, unbiased=False).clamp(min=_LEAST_SCALE)
    x = ((features - mean) / scale).double()
    counts = torch.bincount(channels, minlength=len(values)).double()
    weights = (counts.sum() / counts.clamp(min=1)) ** _BALANCE
    weights /= weights[channels].mean()
    # Classes without examples are excluded.
    bias = torch.where(counts > 0, 0.0, -50.0).double()
    weight = torch.zeros(len(values), x.shape[1], dtype=torch.float64)
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        said = cross_entropy(x @ weight.T + bias, channels, reduction="none") * weights[channels]
        total = said.mean() + _PENALTY / (2 * len(x)) * weight.square().sum()
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    return ObjectClassifier(
        values=torch.tensor(values),
        mean=mean,
        scale=scale,
        weight=weight.float(),
        bias=bias.float(),
    )


def _masks(
    network: SamNetwork, embedding: torch.Tensor, boxes: np.ndarray, frame: Frame
) -> torch.Tensor:
    """Return the decoder's masks for boxes of a frame, bool (N, 256, 256), without empty ones."""
    prompts = FramePrompts(boxes, np.zeros(len(boxes), np.int64))
    model = Prompts.of_frame(prompts, FrameGeometry(frame.size, network.long_side))
    rows = torch.arange(len(boxes))
    said = [
        network.decode(embedding[None], model[rows[start : start + _AT_ONCE]]).low_res_logits[:, 0]
        > 0
        for start in range(0, len(boxes), _AT_ONCE)
    ]
    side = network.long_side // 4
    masks = torch.cat(said) if said else torch.zeros(0, side, side, dtype=torch.bool)
    return masks[masks.flatten(1).any(1)]


def training_examples(
    embedding: torch.Tensor,
    masks: torch.Tensor,
    targets: FrameTargets,
    values: tuple[int, ...],
) -> Examples:
    """Return a frame's examples: its objects, and masks that match one, or none of them.

    Args:
        embedding: float (C, h, w), the frame's.
        masks: bool (N, 256, 256), none empty; low-res frame.
        targets: The frame's objects.
        values: Label value of each channel, 0 first.
    """
    device = embedding.device
    numbers = torch.from_numpy(targets.components.astype(np.int64)).to(device)
    objects = numbers[None] == torch.arange(1, len(targets) + 1, device=device)[:, None, None]
    channels = torch.tensor([values.index(value) for value in targets.classes.tolist()])
    areas = masks.flatten(1).sum(1)
    shared = masks.flatten(1).float() @ objects.flatten(1).float().T
    iou, best = (shared / (areas[:, None] + objects.flatten(1).sum(1) - shared)).max(1)
    unknown = torch.from_numpy(targets.ignored | ~targets.valid).to(device)
    one = iou >= _SAME_IOU
    none = ~one & ((masks & unknown).flatten(1).sum(1) < _UNKNOWN * areas)
    masks = torch.cat([objects, masks[one], masks[none]])
    named = [channels, channels[best[one].cpu()], torch.zeros(int(none.sum()), dtype=torch.int64)]
    return object_features(embedding, masks).cpu(), torch.cat(named)
