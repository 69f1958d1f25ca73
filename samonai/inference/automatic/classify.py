"""Classification of found objects: by the object classifier, else by their pixels' classes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from samonai.inference.automatic.masks import Instance
from samonai.sam.network import SamNetwork
from samonai.sam.object_classifier import ObjectClassifier, object_features

_NONE = 0.95
"""Probability of background above which an object is dropped; the score shows the others'."""


def classifiers_of(networks: Sequence[SamNetwork]) -> list[ObjectClassifier] | None:
    """Return the networks' object classifiers; None unless each of them has one."""
    found = [n.object_classifier for n in networks if n.object_classifier is not None]
    return found if len(found) == len(networks) else None


@torch.no_grad()
def classify(
    networks: Sequence[SamNetwork],
    one: Instance,
    asked: int | None,
    embedding: torch.Tensor,
    probabilities: npt.NDArray[np.float32],
) -> tuple[int, float]:
    """Return the channel of a found object, 0 for background, and its probability.

    Args:
        networks: The mean of their object classifiers is used if all of them have one.
        one: The object; one without decoded logits is classified by its pixels.
        asked: Channel of the component that prompted it, used without classifiers; None: the
            likeliest channel under the mask.
        embedding: float (C, h, w), the frame's.
        probabilities: float32 (K + 1, H, W), the classes of the frame's pixels.
    """
    classifiers = classifiers_of(networks)
    if classifiers is not None and one.low_res is not None:
        features = object_features(embedding, one.low_res[None].to(embedding.device) > 0)
        each = torch.stack([classifier(features)[0] for classifier in classifiers])
        mean = each.mean(0).cpu().numpy()
        channel = int(mean[1:].argmax()) + 1
        return (0 if mean[0] > _NONE else channel), float(mean[channel])
    x0, y0, x1, y1 = one.box
    shares = probabilities[:, y0:y1, x0:x1][:, one.mask].mean(1)
    channel = int(shares.argmax()) if asked is None else asked
    return channel, float(shares[channel])
