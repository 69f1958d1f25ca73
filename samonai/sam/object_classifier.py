"""Linear classifier on mask-pooled embeddings: the class of an object once its mask is found.

The semantic head classifies each pixel from its neighbourhood, and hardly learns what only a whole
object shows: a list is a text with a mark before some of its lines. The features of an object are
the mean and deviation of each embedding channel over its mask, the mean right around the mask,
which tells a whole from its parts, and its size and shape. Multinomial logistic regression gives
the probability of every class, and of no object. It is fitted at the end of training
(`training.classifier`) to all examples at once.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, max_pool2d

from samonai.core.errors import InputError

STATE_PREFIX = "object_names."
"""Prefix of the tensors in state dicts and files; the attribute is `object_classifier`."""
_ATTRIBUTE = "object_classifier."

_TENSORS = ("values", "mean", "scale", "weight", "bias")
_NOTHING = 1e-6


class ObjectClassifier(nn.Module):
    """Linear classifier (linear probe) from features of objects to probabilities of their classes.

    Attributes:
        values: int64 (K + 1,), label value of each class, 0 for no object first.
        mean: float32 (F,), subtracted from the features.
        scale: float32 (F,), what they are then divided by.
        weight: float32 (K + 1, F).
        bias: float32 (K + 1,).
    """

    values: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, **tensors: torch.Tensor) -> None:
        """Keep the tensors, under the attributes' names."""
        super().__init__()
        for name in _TENSORS:
            self.register_buffer(name, tensors[name].detach().clone())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return float32 (N, K + 1), the classes' probabilities of N objects.

        Raises:
            InputError: They were fitted to other features.
        """
        if features.shape[1] != len(self.mean):
            raise InputError(
                f"this run's object classifier was fitted to {len(self.mean)} features by another "
                f"version of samonai; this one has {features.shape[1]}: train again, or use "
                f"--set automatic=classes"
            )
        logits = (features - self.mean) / self.scale @ self.weight.T + self.bias
        return logits.softmax(1)


def object_features(embedding: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the features of N objects of one frame.

    Args:
        embedding: float (C, h, w), the frame's.
        masks: bool (N, H, W), none empty, H and W multiples of h and w; low-res frame.

    Returns:
        float32 (N, 3 C + 4): mean and deviation of each channel under the mask, and its mean a
        cell around it; logarithms of height, width, their ratio, and the share of the box that
        the mask fills.
    """
    block = masks.shape[-2] // embedding.shape[-2], masks.shape[-1] // embedding.shape[-1]
    cells = avg_pool2d(masks[:, None].float(), block)
    around = _shares(max_pool2d(cells, 3, stride=1, padding=1) - cells)
    shares = _shares(cells)
    channels = embedding.float().flatten(1).T
    mean = shares @ channels
    deviation = (shares @ channels**2 - mean**2).clamp(min=0).sqrt()
    height, width = _extent(masks.any(2)), _extent(masks.any(1))
    filled = masks.flatten(1).sum(1) / (height * width)
    shape = torch.stack([height, width, height / width, filled], 1).clamp(min=_NOTHING).log()
    return torch.cat([mean, deviation, around @ channels, shape.to(mean)], 1)


def classifier_in_state(state: Mapping[str, torch.Tensor], prefix: str) -> ObjectClassifier | None:
    """Return the object classifier of a network's state dict, or None."""
    start = prefix + STATE_PREFIX
    if start + _TENSORS[0] not in state:
        return None
    return ObjectClassifier(**{name: state[start + name] for name in _TENSORS})


def rename_in_state(state: dict[str, torch.Tensor], prefix: str, *, loading: bool) -> None:
    """Convert an object classifier's keys of a state dict from attribute to file names, or back."""
    source, target = (STATE_PREFIX, _ATTRIBUTE) if loading else (_ATTRIBUTE, STATE_PREFIX)
    for name in _TENSORS:
        if (key := prefix + source + name) in state:
            state[prefix + target + name] = state.pop(key)


def _shares(cells: torch.Tensor) -> torch.Tensor:
    """Return float (N, h w), weights (N, 1, h, w) that now sum to 1; to 0 where there are none."""
    flat = cells.flatten(1)
    return flat / flat.sum(1, keepdim=True).clamp(min=_NOTHING)


def _extent(lines: torch.Tensor) -> torch.Tensor:
    """Return float (N,): from the first to the last of the lines, bool (N, L), that are True."""
    places = torch.arange(lines.shape[1], device=lines.device)
    last = torch.where(lines, places, -1).amax(1)
    first = torch.where(lines, places, lines.shape[1]).amin(1)
    return (last - first + 1).float()
