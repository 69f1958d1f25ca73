"""AdamW, with Muon for the weight matrices: fewer steps on a small budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonalise(matrices: Tensor, iterations: int = 4) -> Tensor:
    """Replaces each RxC matrix (R <= C) of a stack by about its nearest semi-orthogonal one."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if torch.is_autocast_enabled(x.device.type):
        x = x.bfloat16()
    for _ in range(iterations):
        square = x @ x.transpose(1, 2)
        x = a * x + torch.baddbmm(b * square, square, square, beta=1, alpha=c) @ x
    return x.float()


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates, scaled so that AdamW's learning rates fit.

    Matrices of one shape are orthogonalised together, in bfloat16 under autocast and in float32
    otherwise (torch's own Muon always works in bfloat16, which is slow on a CPU without it).
    """

    def __init__(
        self, params: Iterable, lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Makes one update."""
        for group in self.param_groups:
            stacks: dict[tuple[int, int], list[tuple[Tensor, Tensor, bool]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                wide = update.shape[0] <= update.shape[1]
                update = update if wide else update.T
                stacks[tuple(update.shape)].append((p, update, wide))  # type: ignore[index]
            for shape, members in stacks.items():
                results = orthogonalise(torch.stack([u for _, u, _ in members]))
                scale = 0.2 * max(shape) ** 0.5
                for (p, _, wide), result in zip(members, results, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_((result if wide else result.T).view_as(p), alpha=-group["lr"] * scale)
