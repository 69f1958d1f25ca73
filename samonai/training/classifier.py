"""Fit what names objects (`sam.naming`) to the training cases, once the decoder is trained.

Only where the domain proposes where objects may lie (`Proposes`): those proposals need a name. The
examples are the labelled objects, and what the decoder answers to the domain's own proposals on the
training frames: each is called what it agrees with, or is an example of what is no object. So parts
of objects, and several at once, are learned to be none, as in Fast R-CNN (arXiv:1504.08083).
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
from samonai.prompts.types import FramePrompts
from samonai.sam.network import SamNetwork
from samonai.sam.object_classifier import ObjectNames, object_features
from samonai.training.data.prepare import TrainingData
from samonai.training.objectives.heads import BOTH

logger = logging.getLogger(__name__)

_MOST_FRAMES = 200
"""They are read and decoded once more; evenly spaced, so many say enough."""

_AT_ONCE = 16  # prompts
_SAME_IOU = 0.5
"""An answer is an example of the object that it shares at least this IoU with, or else of none."""
_UNKNOWN = 0.5
"""One that lies where nothing is known, by this share of it or more, is no example."""

_PENALTY = 10.0
"""Of the squared weights, in examples."""
_BALANCE = 0.5
"""How far rare classes count as much as frequent ones: not at all at 0, as much at 1."""
_STEPS = 200
_LEAST_SCALE = 1e-4

Examples = tuple[torch.Tensor, torch.Tensor]
"""Features float32 (N, F), and channels int64 (N,), 0 for no object."""


@torch.no_grad()
def learn_names(network: SamNetwork, domain: Domain[Any], data: TrainingData) -> ObjectNames | None:
    """Return what names objects as the training cases do; None where nothing asks for it.

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
        answers = _answers(network, embedding, boxes, frame)
        found.append(
            learned_examples(embedding, answers, case.targets.read(index), data.train.values)
        )
    features, channels = (torch.cat(parts) for parts in zip(*found, strict=True))
    logger.info("objects are named as %d examples are", len(channels))
    return fit_names(features, channels, data.train.values)


def fit_names(
    features: torch.Tensor, channels: torch.Tensor, values: tuple[int, ...]
) -> ObjectNames:
    """Fit a multinomial regression to examples, all at once.

    Args:
        features: float32 (N, F), of `object_features`.
        channels: int64 (N,), which of `values` each is.
        values: Label value of each channel, 0 first.
    """
    mean, scale = features.mean(0), features.std(0, unbiased=False).clamp(min=_LEAST_SCALE)
    x = ((features - mean) / scale).double()
    counts = torch.bincount(channels, minlength=len(values)).double()
    weights = (counts.sum() / counts.clamp(min=1)) ** _BALANCE
    weights /= weights[channels].mean()
    # Classes that no example has are out of the question, not as likely as any.
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
    return ObjectNames(
        values=torch.tensor(values),
        mean=mean,
        scale=scale,
        weight=weight.float(),
        bias=bias.float(),
    )


def _answers(
    network: SamNetwork, embedding: torch.Tensor, boxes: np.ndarray, frame: Frame
) -> torch.Tensor:
    """Return what the decoder answers to boxes of a frame, bool (N, 256, 256), none empty."""
    prompts = FramePrompts(boxes, np.zeros(len(boxes), np.int64))
    model = prompts.to_model(FrameGeometry(frame.size, network.long_side))
    rows = torch.arange(len(boxes))
    said = [
        network.decode(embedding[None], model[rows[start : start + _AT_ONCE]]).low_res_logits[:, 0]
        > 0
        for start in range(0, len(boxes), _AT_ONCE)
    ]
    side = network.long_side // 4
    masks = torch.cat(said) if said else torch.zeros(0, side, side, dtype=torch.bool)
    return masks[masks.flatten(1).any(1)]


def learned_examples(
    embedding: torch.Tensor,
    answers: torch.Tensor,
    targets: FrameTargets,
    values: tuple[int, ...],
) -> Examples:
    """Return a frame's examples: its objects, and answers that are one, or none of them.

    Args:
        embedding: float (C, h, w), the frame's.
        answers: bool (N, 256, 256), none empty; low-res frame.
        targets: The frame's objects.
        values: Label value of each channel, 0 first.
    """
    device = embedding.device
    numbers = torch.from_numpy(targets.components.astype(np.int64)).to(device)
    objects = numbers[None] == torch.arange(1, len(targets) + 1, device=device)[:, None, None]
    channels = torch.tensor([values.index(value) for value in targets.classes.tolist()])
    areas = answers.flatten(1).sum(1)
    shared = answers.flatten(1).float() @ objects.flatten(1).float().T
    iou, best = (shared / (areas[:, None] + objects.flatten(1).sum(1) - shared)).max(1)
    unknown = torch.from_numpy(targets.ignored | ~targets.valid).to(device)
    one = iou >= _SAME_IOU
    none = ~one & ((answers & unknown).flatten(1).sum(1) < _UNKNOWN * areas)
    masks = torch.cat([objects, answers[one], answers[none]])
    named = [channels, channels[best[one].cpu()], torch.zeros(int(none.sum()), dtype=torch.int64)]
    return object_features(embedding, masks).cpu(), torch.cat(named)
