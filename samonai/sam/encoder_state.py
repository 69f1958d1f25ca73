"""State dict hooks of a network: the frozen encoder is left out, and restored on loading."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from samonai.core.errors import InputError
from samonai.sam.object_classifier import classifier_in_state, rename_in_state
from samonai.sam.semantic import head_to_restore

ENCODER_PREFIX = "image_encoder."
ENCODER_IDENTITY = "encoder_identity"


def leave_encoder_out(
    module: Any, state: dict[str, Any], prefix: str, local_metadata: Mapping[str, Any]
) -> None:
    """Drop the frozen parts of the encoder from a network's state dict; its identity stays."""
    start = prefix + ENCODER_PREFIX
    for key in [key for key in state if key.startswith(start)]:
        if key.removeprefix(start) not in module.tuned_names:
            del state[key]
    rename_in_state(state, prefix, loading=False)


def check_and_restore_encoder(
    module: Any, state: dict[str, Any], prefix: str, *_unused: Any
) -> None:
    """Complete a state without encoder by the network's own, once the identities agree.

    What the network has tuned of its encoder may differ. A network without semantic head gets the
    one of the state, and every network the state's object classifier.

    Raises:
        InputError: The state belongs to another encoder.
    """
    identity = state.get(prefix + ENCODER_IDENTITY)
    if identity is not None and not torch.equal(identity.cpu(), module.encoder_identity.cpu()):
        raise InputError(
            f"these decoder weights were trained on another encoder (sha256 "
            f"{bytes(identity.cpu().tolist()).hex()[:16]}…) than the one loaded, {module.name} "
            f"(sha256 {module.stock_sha256[:16]}…); load the model they were trained on"
        )
    start = prefix + ENCODER_PREFIX
    own: dict[str, torch.Tensor] = module.image_encoder.state_dict(prefix=start)
    for key, value in own.items():
        if key in state and key.removeprefix(start) in module.tuned_names:
            continue
        if key in state and not torch.equal(state[key].to(value), value):
            raise InputError(
                f"{key} differs from the loaded {module.name} encoder, which is frozen; "
                f"load that checkpoint with load_sam(..., checkpoint=FILE) instead"
            )
        state[key] = value
    state.setdefault(prefix + ENCODER_IDENTITY, module.encoder_identity)
    if (kind := head_to_restore(module.semantic_head, state, prefix)) is not None:
        module.add_semantic_head(kind.values, borders=kind.borders)
    classifier = classifier_in_state(state, prefix)
    module.object_classifier = None if classifier is None else classifier.to(module.device)
    rename_in_state(state, prefix, loading=True)


def register_hooks(network: nn.Module) -> None:
    """Make a network's state dicts leave the frozen encoder out, and take it as it is."""
    network.register_state_dict_post_hook(leave_encoder_out)
    network.register_load_state_dict_pre_hook(check_and_restore_encoder)
