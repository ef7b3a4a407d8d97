"""Losses: what training minimises. All are in nats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.batching import IGNORE

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def token_nats(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Surprisal of each target, -log softmax(logits)[target], in nats; zero where `IGNORE`.

    Raises ValueError when the shapes do not belong together: the mistake that
    `nn.CrossEntropyLoss` passes silently when the batch is as large as the vocabulary.
    """
    return _cross_entropy(logits, targets, reduction="none").view(targets.shape)


def summed_nats(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Sum of `token_nats`.

    Training divides it by a constant, not by this batch's own count: then every token weighs
    the same in the gradient, whatever the length of the text around it.
    """
    return _cross_entropy(logits, targets, reduction="sum")


def _cross_entropy(logits: Tensor, targets: Tensor, *, reduction: str) -> Tensor:
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} must be the shape of targets {tuple(targets.shape)} "
            "with the vocabulary added as last axis"
        )
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()  # a sum over the vocabulary in half precision loses digits
    return F.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORE, reduction=reduction
    )
