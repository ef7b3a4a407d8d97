"""Unlikelihood: losses that penalise the repetition of earlier tokens, in nats per position."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.text.batching import IGNORE

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def token_unlikelihood(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """-log(1 - p(c)) summed over the candidates c of each position, in nats.

    The candidates are the earlier targets of the same row, except the current target (Welleck et
    al. 2020, equation 5). Positions with `IGNORE` have no candidates and are not candidates. Added
    to `token_nats` with a weight, it makes tokens that already occurred less probable.
    """
    size = logits.shape[-1]
    kept = targets != IGNORE
    one_hot = F.one_hot(targets.clamp(min=0), size).bool() & kept.unsqueeze(-1)
    up_to_here = one_hot.cumsum(dim=1) > 0
    before = torch.cat([torch.zeros_like(up_to_here[:, :1]), up_to_here[:, :-1]], dim=1)
    candidates = before & ~one_hot & kept.unsqueeze(-1)
    return (_minus_log_not(logits) * candidates).sum(dim=-1)


def sequence_unlikelihood(
    logits: Float[Tensor, "batch time vocab"],
    generated: Int[Tensor, "batch time"],
    n: int = 4,
) -> Float[Tensor, "batch time"]:
    """-log(1 - p(x_t)) where x_t is part of an n-gram that occurred earlier in its row; else zero.

    logits: those that predicted `generated`, with gradients.
    generated: the model's own continuation.

    Every token of a repeated n-gram is penalised (Welleck et al. 2020, equation 7).
    """
    repeated = repeated_ngram_mask(generated, n)
    chosen = _minus_log_not(logits).gather(-1, generated.unsqueeze(-1)).squeeze(-1)
    return chosen * repeated


def repeated_ngram_mask(tokens: Int[Tensor, "batch time"], n: int) -> Bool[Tensor, "batch time"]:
    """Which tokens belong to an n-gram that ended earlier in the same row; overlaps count."""
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for row, text in enumerate(tokens.tolist()):
        seen: set[tuple[int, ...]] = set()
        for start in range(len(text) - n + 1):
            gram = tuple(text[start : start + n])
            if gram in seen:
                mask[row, start : start + n] = True
            seen.add(gram)
    return mask


def _minus_log_not(logits: Tensor) -> Tensor:
    """-log(1 - p) for every token, in nats; value and gradient are exact even if p rounds to 1.

    Only the most probable token can be near 1; its 1 - p is the summed probability of the others.
    """
    log_p = torch.log_softmax(logits.float(), dim=-1)
    top = log_p.argmax(dim=-1, keepdim=True)
    others = torch.logsumexp(log_p.scatter(-1, top, -math.inf), dim=-1, keepdim=True)
    return (-torch.log1p(-log_p.exp().scatter(-1, top, 0.0))).scatter(-1, top, -others)
