"""Which class what was found is of: by what names objects, or else by its pixels' classes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from samonai.inference.masks import Instance
from samonai.sam.naming import object_features
from samonai.sam.network import SamNetwork


@torch.no_grad()
def channel_shares(
    networks: Sequence[SamNetwork],
    one: Instance,
    embedding: torch.Tensor,
    probabilities: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Return how likely each class is what was found, background first, float32 (K + 1,).

    Args:
        networks: Their names of objects say it where all have some, on average.
        one: What was found.
        embedding: float (C, h, w), the frame's.
        probabilities: float32 (K + 1, H, W), the classes of the frame's pixels.
    """
    names = [n.object_names for n in networks if n.object_names is not None]
    if len(names) < len(networks) or one.low_res is None:
        x0, y0, x1, y1 = one.box
        return probabilities[:, y0:y1, x0:x1][:, one.mask].mean(1)
    features = object_features(embedding, one.low_res[None].to(embedding.device) > 0)
    said = torch.stack([of_network(features)[0] for of_network in names]).mean(0)
    shares: npt.NDArray[np.float32] = said.cpu().numpy()
    return shares
