"""Beam search: the most probable text, looked for among a few beginnings at a time.

At each step every kept beginning, a hypothesis, is extended by every token, and the `width` most
probable of the results are kept. It is exact when nothing has to be dropped, and greedy decoding
when the width is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.constraints import TokenAutomaton
from companion.lstm import LSTMLanguageModel

if TYPE_CHECKING:
    from jaxtyping import Int


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A text that beam search found."""

    tokens: list[int]
    """After the prompt; the last is the end token when the text is finished."""
    log_prob: float
    """Of those tokens given the prompt, in nats."""
    score: float
    """What hypotheses are ranked by: log_prob / (number of tokens)**length_penalty."""
    finished: bool
    """It ends with the end token, rather than being cut off at the last step."""


def beam_search(
    model: LSTMLanguageModel,
    prompt: Int[Tensor, " time"],
    num_tokens: int,
    *,
    width: int,
    end_id: int | None = None,
    length_penalty: float = 0.0,
    constraint: TokenAutomaton | None = None,
) -> list[Hypothesis]:
    """Up to `width` hypotheses of at most `num_tokens` tokens after the prompt, best first.

    With `end_id`, a hypothesis that ends is set aside, and the beam goes on with the others until
    none of them can beat the `width`-th best that is finished, or `num_tokens` are reached;
    unfinished ones are returned only when nothing has finished. `length_penalty` is alpha: 0 ranks
    by probability, which favours short texts, since each token can only lower it; 1 ranks by nats
    per token. Wu et al. 2016 divide by ((5 + length) / 6)**alpha; we divide by length**alpha,
    as is common. The beam itself is pruned by probability, where all lengths are equal.

    Raises ValueError for a width or number of tokens below 1, an empty prompt, a negative
    penalty, or a model in training mode.
    """
    for name, value in {"width": width, "num_tokens": num_tokens}.items():
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    if not length_penalty >= 0:
        raise ValueError(f"length_penalty must be >= 0, got {length_penalty}")
    if prompt.numel() < 1:
        raise ValueError("the prompt needs at least one token; begin with the tokenizer's end_id")
    if model.training:
        raise ValueError("the model is in training mode, so dropout is on; call model.eval() first")
    device, size = prompt.device, model.config.vocabulary_size
    if end_id is not None and not 0 <= end_id < size:
        raise ValueError(f"end_id must be a token in [0, {size}), got {end_id}")
    allowed = None if constraint is None else constraint.start(1)
    finished: list[Hypothesis] = []
    tokens = torch.zeros(1, 0, dtype=torch.long, device=device)  # [hypotheses, tokens so far]
    total = torch.zeros(1, dtype=torch.float64, device=device)
    inputs, state = prompt.unsqueeze(0), None
    for _ in range(num_tokens):
        with torch.no_grad():
            logits, state = model(inputs, state)
        last = logits[:, -1]
        if constraint is not None and allowed is not None:
            last = constraint.mask(last, allowed)
        extended = (total.unsqueeze(1) + torch.log_softmax(last.double(), dim=-1)).flatten()
        # Twice the width: even if `width` of the best end here, as many others remain. A stable
        # sort, so that of equals the earlier hypothesis and the lower id win, on every machine.
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
        places = torch.tensor(kept, device=device)
        parents, last_tokens = order[places] // size, order[places] % size
        tokens = torch.cat([tokens[parents], last_tokens.unsqueeze(1)], dim=1)
        total = values[places]
        state = (state[0][:, parents], state[1][:, parents])
        inputs = last_tokens.unsqueeze(1)
        if constraint is not None and allowed is not None:
            allowed = constraint.advance(allowed[parents.cpu()], last_tokens)
        # log_prob only falls, and no text has more than num_tokens to divide it by.
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
