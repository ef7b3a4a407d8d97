"""The optimizer, its learning rate, and one step of it as the package's small loops take it.

`companion.training.trainer` has its own step, which supports several processes and precisions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from companion.training.config import TrainConfig

#: Devices with one kernel for the whole step. With loss scaling the others wait for the device in
#: each step, to know whether a gradient overflowed.
FUSED_ON = ("cpu", "cuda")


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Adam | torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019), with weight decay on matrices only; with `l2`, Adam, which
    adds `l2` times each weight, biases too, to its gradient. Fused if supported."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = next(model.parameters()).device.type in FUSED_ON
    if config.l2:
        return torch.optim.Adam(
            model.parameters(), lr=config.learning_rate, betas=config.betas,
            weight_decay=config.l2, fused=fused,
        )  # fmt: skip
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=fused)


def learning_rate_at(step: int, total_steps: int, config: TrainConfig) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, flat, then a cosine."""
    warmup_steps, flat_steps = round(config.warmup * total_steps), round(config.flat * total_steps)
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps
    falls_from = warmup_steps + flat_steps
    progress = max(0, step - falls_from) / max(1, total_steps - 1 - falls_from)
    low = config.final_learning_rate
    return config.learning_rate * (
        low + (1 - low) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
    )


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    *,
    clip_norm: float = math.inf,
    learning_rate: float | None = None,
) -> None:
    """Change the weights of `model` by one step of `optimizer` down the gradient of `loss`.

    loss: a scalar.
    clip_norm: maximum gradient norm; longer gradients are scaled down (Pascanu et al. 2013).
    learning_rate: learning rate of this step; None keeps the optimizer's own.

    Raises FloatingPointError, and leaves the weights unchanged, if the gradient is not finite.
    """
    if learning_rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    length = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    if not math.isfinite(length):
        raise FloatingPointError(
            f"the gradient is {length.item()} at a loss of {loss.item():.4g}: training has "
            "diverged; use a lower learning rate"
        )
    optimizer.step()
