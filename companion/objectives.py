"""Losses: what training minimises. All are in nats."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} must be the shape of targets {tuple(targets.shape)} "
            "with the vocabulary added as last axis"
        )
    flat = F.cross_entropy(
        logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORE, reduction="none"
    )
    return flat.view(targets.shape)


def summed_nats(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Sum of `token_nats`.

    Training divides it by a constant, not by this batch's own count: then every token weighs
    the same in the gradient, whatever the length of the text around it.
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} must be the shape of targets {tuple(targets.shape)} "
            "with the vocabulary added as last axis"
        )
    return F.cross_entropy(
        logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )
