"""Losses that ask for more than the next token: unlikelihood, label smoothing, own inputs.

All are in nats and unreduced, so that a training step sums them and divides by a constant, as in
`companion.objectives`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.batching import IGNORE
from companion.lstm import LSTMLanguageModel
from companion.objectives import token_nats

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def smoothed_nats(
    logits: Float[Tensor, "batch time vocab"],
    targets: Int[Tensor, "batch time"],
    smoothing: float,
) -> Float[Tensor, "batch time"]:
    """Cross-entropy against the target mixed with the uniform distribution; zero where `IGNORE`.

    (1 - smoothing) of the mass is on the target and `smoothing` is spread over all tokens
    (Szegedy et al. 2016). Its lowest value is the mixture's entropy, not zero, so losses with
    different smoothing cannot be compared: evaluate with `token_nats`.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be in [0, 1), got {smoothing}")
    nats = token_nats(logits, targets)
    everywhere = -torch.log_softmax(logits.float(), dim=-1).mean(dim=-1)
    return torch.where(targets == IGNORE, nats, (1 - smoothing) * nats + smoothing * everywhere)


def token_unlikelihood(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """-log(1 - p(c)) summed over the candidates c of each position, in nats.

    The candidates are the tokens that were targets before in the same row, but for the target
    itself (Welleck et al. 2020, equation 5); positions to `IGNORE` have none and are none. Added to
    `token_nats`, with a weight, it pushes down what the text has already said.
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
    """-log(1 - p(x_t)) where x_t is part of an n-gram that came before in its row; else zero.

    `generated` is the model's own continuation and `logits` what predicted it, with gradients
    (Welleck et al. 2020, equation 7). Every token of a repeated n-gram is pushed down.
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


def inverse_sigmoid(step: int, k: float) -> float:
    """The probability of a true input after `step` steps: k / (k + exp(step / k)), falling to 0.

    One of the schedules of Bengio et al. 2015; it is one half at step k log k.
    """
    if not k >= 1:
        raise ValueError(f"k must be >= 1, got {k}")
    if step < 0:
        raise ValueError(f"step must be >= 0, got {step}")
    return 1 / (1 + math.exp(min(step / k - math.log(k), 700)))


@torch.no_grad()
def scheduled_inputs(
    model: LSTMLanguageModel,
    inputs: Int[Tensor, "batch time"],
    true_probability: float,
    *,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch time"]:
    """`inputs`, each after the first replaced by the model's own guess at it now and then.

    A coin decides at each position: with `true_probability` the true token stays, otherwise the
    model's sample for that place, given the mixed inputs before it, takes its place (scheduled
    sampling, Bengio et al. 2015). The targets stay the true ones. Note that this estimates no
    likelihood: Huszar 2015 shows that its optimum is not the source. Gradients do not flow through
    the choice, and the model keeps its mode. A row begins with an empty state.
    """
    if not 0 <= true_probability <= 1:
        raise ValueError(f"true_probability must be in [0, 1], got {true_probability}")
    mixed = inputs.clone()
    if true_probability == 1:
        return mixed
    state = None
    for t in range(inputs.shape[1] - 1):
        logits, state = model(mixed[:, t : t + 1], state)
        own = torch.multinomial(
            torch.softmax(logits[:, 0].float(), dim=-1), 1, generator=generator
        ).squeeze(1)
        coin = torch.rand(len(inputs), generator=generator, device=inputs.device)
        mixed[:, t + 1] = torch.where(coin < true_probability, inputs[:, t + 1], own)
    return mixed


def _minus_log_not(logits: Tensor) -> Tensor:
    """-log(1 - p) for every token, in nats; exact, with its gradient, also where p rounds to 1.

    Only the most probable token can come near 1; its 1 - p is the summed mass of the others.
    """
    log_p = torch.log_softmax(logits.float(), dim=-1)
    top = log_p.argmax(dim=-1, keepdim=True)
    others = torch.logsumexp(log_p.scatter(-1, top, -math.inf), dim=-1, keepdim=True)
    return (-torch.log1p(-log_p.exp().scatter(-1, top, 0.0))).scatter(-1, top, -others)
