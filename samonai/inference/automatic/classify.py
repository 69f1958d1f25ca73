"""Which class what was found is of: by what names objects, or else by its pixels' classes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from samonai.inference.automatic.masks import Instance
from samonai.sam.network import SamNetwork
from samonai.sam.object_classifier import ObjectNames, object_features

_NONE = 0.95
"""What is no object with a higher probability is dropped; the score says how sure the rest is."""


def names_of(networks: Sequence[SamNetwork]) -> list[ObjectNames] | None:
    """Return what names objects, None unless each of the networks has learned it."""
    names = [n.object_names for n in networks if n.object_names is not None]
    return names if len(names) == len(networks) else None


@torch.no_grad()
def name(
    networks: Sequence[SamNetwork],
    one: Instance,
    asked: int | None,
    embedding: torch.Tensor,
    probabilities: npt.NDArray[np.float32],
) -> tuple[int, float]:
    """Return the channel of what was found, 0 where it is nothing, and how likely that is.

    Args:
        networks: Where all of them name objects, they say it on average.
        one: What was found; what was not decoded is called by its pixels' classes.
        asked: Channel of the component that asked for it, which else it is of; None: it is of
            the channel that is likeliest under the mask.
        embedding: float (C, h, w), the frame's.
        probabilities: float32 (K + 1, H, W), the classes of the frame's pixels.
    """
    names = names_of(networks)
    if names is not None and one.low_res is not None:
        features = object_features(embedding, one.low_res[None].to(embedding.device) > 0)
        said = torch.stack([of_network(features)[0] for of_network in names]).mean(0).cpu().numpy()
        channel = int(said[1:].argmax()) + 1
        return (0 if said[0] > _NONE else channel), float(said[channel])
    x0, y0, x1, y1 = one.box
    shares = probabilities[:, y0:y1, x0:x1][:, one.mask].mean(1)
    channel = int(shares.argmax()) if asked is None else asked
    return channel, float(shares[channel])
