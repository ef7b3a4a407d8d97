"""Cross-entropy, the loss of a language model, in nats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.text.batching import IGNORE

if TYPE_CHECKING:
    from jaxtyping import Float, Int
#: A loss has diverged above this many times the larger of the uniform model's loss and the loss
#: before the first step. A confident wrong model may cost 10 times as much, a passing spike 20.
DIVERGED = 100


def token_nats(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Surprisal of each target, -log softmax(logits)[target], in nats; zero where `IGNORE`.

    Raises ValueError when the shapes do not match. `nn.CrossEntropyLoss` accepts swapped axes
    silently when the batch is as large as the vocabulary.
    """
    return _cross_entropy(logits, targets, reduction="none").view(targets.shape)


def summed_nats(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Sum of `token_nats`.

    Training divides it by a constant, not by the number of targets in this batch, so every token
    has the same weight in the gradient, whatever the length of its text.
    """
    return _cross_entropy(logits, targets, reduction="sum")


def divergence_limit(vocabulary_size: int, first: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Mean nats per token above which a loss has diverged.

    It is `DIVERGED` times the uniform model's ln V, or times `first`, the loss before the first
    step, if that is higher. The limit is finite because steps that are far too long may give 1e29
    on one processor and NaN on another; callers count NaN and infinity as diverged as well.
    """
    return DIVERGED * first.clamp(min=math.log(max(2, vocabulary_size)))


def _cross_entropy(logits: Tensor, targets: Tensor, *, reduction: str) -> Tensor:
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} must be the shape of targets {tuple(targets.shape)} "
            "with the vocabulary added as last axis"
        )
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()  # a sum over the vocabulary in half precision is inaccurate
    return F.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORE, reduction=reduction
    )
