"""Beam search: an approximate search for the most probable text.

At each step every hypothesis, the beginning of a text, is extended by every token, and the `width`
most probable results are kept. The search is exact when nothing has to be dropped; with width 1 it
is greedy decoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.core.settings import check_sizes
from companion.generation.constraints import TokenAutomaton
from companion.models.base import LanguageModel

if TYPE_CHECKING:
    from jaxtyping import Int


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A text that beam search found."""

    tokens: list[int]
    """Token ids after the prompt; the last is the end token when the text is finished."""
    log_prob: float
    """Log-probability of the tokens given the prompt, in nats."""
    score: float
    """The key for ranking hypotheses: log_prob / (number of tokens)**length_penalty."""
    finished: bool
    """Whether the text ends with the end token; otherwise it was cut off at the last step."""


def beam_search(
    model: LanguageModel,
    prompt: Int[Tensor, " time"],
    num_tokens: int,
    *,
    width: int,
    end_id: int | None = None,
    length_penalty: float = 0.0,
    constraint: TokenAutomaton | None = None,
) -> list[Hypothesis]:
    """Up to `width` hypotheses of at most `num_tokens` tokens after the prompt, best first.

    With `end_id`, a hypothesis that ends is set aside, and the search continues with the others
    until none can beat the `width`-th best finished one, or `num_tokens` are reached; unfinished
    hypotheses are returned only when none has finished. `length_penalty` is alpha: 0 ranks by
    probability, which favours short texts, since each token can only lower it; 1 ranks by nats per
    token. Wu et al. 2016 divide by ((5 + length) / 6)**alpha; we divide by length**alpha, as is
    common. The beam itself is pruned by probability, since its hypotheses have equal length.

    prompt: token ids of one text, of shape (time,), on the model's device.

    Raises ValueError for a width or number of tokens below 1, an empty prompt or one of more than
    one text, token ids outside the model's vocabulary, a negative penalty, or a model in training
    mode; TypeError for a width, number of tokens or end_id that is not a whole number.
    """
    check_sizes(width=width, num_tokens=num_tokens)
    if not length_penalty >= 0:
        raise ValueError(f"length_penalty must be >= 0, got {length_penalty}")
    if end_id is not None:
        model.require_token(end_id, "end_id")
    model.require_tokens(prompt, "prompt", ndim=1, on_device=True)
    model.require_evaluation_mode()
    device, size = prompt.device, model.vocabulary_size
    allowed = None if constraint is None else constraint.start(1)
    finished: list[Hypothesis] = []
    tokens = torch.zeros(1, 0, dtype=torch.long, device=device)  # [hypotheses, tokens so far]
    total = torch.zeros(1, dtype=torch.float64)  # on the CPU: Apple's MPS has no float64
    inputs, state = prompt.unsqueeze(0), None
    for _ in range(num_tokens):
        with torch.no_grad():
            logits, state = model(inputs, state)
        last = logits[:, -1]
        if constraint is not None and allowed is not None:
            last = constraint.mask(last, allowed)
        extended = (total.unsqueeze(1) + torch.log_softmax(last.cpu().double(), dim=-1)).flatten()
        # Twice the width: even if `width` of the best end here, as many others remain. The sort is
        # stable, so ties go to the earlier hypothesis and the lower token id on every machine.
        values, order = extended.sort(descending=True, stable=True)
        kept: list[int] = []
        for place in range(min(2 * width, len(values))):
            log_prob, index = float(values[place]), int(order[place])
            if log_prob == -math.inf or len(kept) == width:
                break
            parent, token = divmod(index, size)
            if token != end_id:
                kept.append(place)
            elif place < width:
                words = [*tokens[parent].tolist(), token]
                finished.append(_hypothesis(words, log_prob, length_penalty, finished=True))
        finished = sorted(finished, key=lambda h: -h.score)[:width]
        if not kept:
            break
        places = torch.tensor(kept)
        parents, last_tokens = (order[places] // size).to(device), (order[places] % size).to(device)
        tokens = torch.cat([tokens[parents], last_tokens.unsqueeze(1)], dim=1)
        total = values[places]
        state = model.select_rows(state, parents)
        inputs = last_tokens.unsqueeze(1)
        if constraint is not None and allowed is not None:
            allowed = constraint.advance(allowed[parents.cpu()], last_tokens)
        # An upper bound on later scores: log_prob only falls, and length is at most num_tokens.
        hope = float(total[0]) / num_tokens**length_penalty
        if len(finished) == width and finished[-1].score >= hope:
            break
    if finished:
        return finished
    return [
        _hypothesis(words, float(log_prob), length_penalty, finished=False)
        for words, log_prob in zip(tokens.tolist(), total, strict=True)
    ]


def _hypothesis(
    tokens: list[int], log_prob: float, length_penalty: float, *, finished: bool
) -> Hypothesis:
    score = log_prob / len(tokens) ** length_penalty
    return Hypothesis(tokens=tokens, log_prob=log_prob, score=score, finished=finished)
