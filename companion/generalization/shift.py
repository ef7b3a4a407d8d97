"""Distribution shift: the loss of a model on another source than its own, in three parts.

Trained on the old source p, a model q is used on the new source p'. Its loss there is exactly

    E'[-log q] = H(p') + KL(p' || p) + E'[log p - log q].

The first part is the new source's entropy, below which no model gets. The second is **unavoidable**
for a model that learns from the old source alone: a perfect model of p pays it too. The third is
the model's **own error**, against the old source, at the contexts that the new one reaches. It may
be negative, where the model's ignorance of the old source helps on the new one.

Shapes: rows = streams of text, time = their tokens but the first, vocab = number of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.sources.automaton import AutomatonSource
from companion.text.rows import END_ID

if TYPE_CHECKING:
    from jaxtyping import Float64, Int


@dataclass(frozen=True, kw_only=True)
class SplitLoss:
    """The three parts at each position, in nats; the next token in expectation under the new
    source, so that only the prefixes are sampled."""

    entropy: Float64[Tensor, "rows time"]
    """Entropy of the new source's next token."""
    unavoidable: Float64[Tensor, "rows time"]
    """KL from the new source's next token to the old source's."""
    own_error: Float64[Tensor, "rows time"]
    """Mean of log p - log q of the next token: the model against the old source."""

    @property
    def means(self) -> tuple[float, float, float]:
        """Entropy, unavoidable part and own error in nats per token; they sum to the loss."""
        parts = (self.entropy, self.unavoidable, self.own_error)
        return tuple(float(part.mean()) for part in parts)  # type: ignore[return-value]

    @property
    def own_standard_error(self) -> float:
        """Standard error of the mean own error, over rows; needs two rows or more."""
        rows = self.own_error.mean(dim=1)
        if len(rows) < 2:
            raise ValueError("a standard error over rows needs two rows or more, got 1")
        return float(rows.std() / math.sqrt(len(rows)))


def split_loss(
    new: AutomatonSource,
    old: AutomatonSource,
    rows: Int[Tensor, "rows tokens"],
    log_q: Float64[Tensor, "rows time vocab"],
) -> SplitLoss:
    """Split the loss of a model on text of the new source, position by position.

    rows: an end token, then texts of `new`, as `streams.true_rows` writes them.
    log_q: the model's log-probabilities of what follows each token but the last.

    ValueError when the text, or what `new` may write next, is impossible under `old`: the
    unavoidable part is infinite then, and the decomposition is undefined.
    """
    if new.vocabulary != old.vocabulary:
        raise ValueError("both sources must have the same vocabulary in the same order")
    if log_q.shape[:2] != (rows.shape[0], rows.shape[1] - 1):
        raise ValueError(
            f"log_q must have a position for each token of rows {tuple(rows.shape)} but the last, "
            f"got {tuple(log_q.shape)}"
        )
    there, before = (source.walk(rows[:, 1:]) for source in (new, old))
    if bool((there < 0).any()):
        raise ValueError("rows must be text of the new source; from one token on it is not")
    if bool((before < 0).any()):
        raise ValueError(_INFINITE)
    truth = new.transition_probs[there]
    known = old.transition_probs[before]
    if bool(((truth > 0) & (known == 0)).any()):
        raise ValueError(_INFINITE)
    minus_entropy = torch.xlogy(truth, truth).sum(-1)
    against_old = _expected(truth, known.log())
    return SplitLoss(
        entropy=-minus_entropy,
        unavoidable=minus_entropy - against_old,
        own_error=against_old - _expected(truth, log_q),
    )


_INFINITE = (
    "the old source never writes what the new one does there, so the unavoidable part is "
    "infinite; give it a small probability in the old source (see rarer_pairs)"
)


def _expected(p: Tensor, values: Tensor) -> Tensor:
    """Sum over tokens of p times values, where 0 times minus infinity is 0."""
    return torch.where(p > 0, p * values, torch.zeros_like(p)).sum(-1)


# --- Which positions, and which tokens, carry the error ----------------------------------------


@dataclass(frozen=True, kw_only=True)
class Bins:
    """An error binned by a key, such as a count: each bin's share of text and of the error."""

    lows: list[float]
    """Lower edge of each bin, which belongs to it."""
    shares: list[float]
    """Share of the text in it; they sum to 1."""
    contributions: list[float]
    """What it adds to the error, nats per token; they sum to the mean error."""

    @property
    def means(self) -> list[float]:
        """Mean error in each bin, nats; NaN where there is no text."""
        pairs = zip(self.contributions, self.shares, strict=True)
        return [amount / share if share else math.nan for amount, share in pairs]


def by_context_count(
    errors: Float64[Tensor, "*shape"], counts: Int[Tensor, "*shape"], lows: Sequence[int]
) -> Bins:
    """Errors by how often the training text has been in the context of each position.

    lows: lower edges of the bins, rising, the first 0; the last bin is open.
    """
    amounts = errors.flatten()
    return _binned(amounts, torch.ones_like(amounts), counts.flatten(), lows)


def by_true_probability(
    p: Float64[Tensor, "*shape vocab"],
    log_q: Float64[Tensor, "*shape vocab"],
    lows: Sequence[float],
) -> Bins:
    """`token_terms` by the true probability of the token; a token's share of the text is p.

    lows: as in `by_context_count`. With a second edge near 0, such as 1e-9, the first bin holds
    the tokens that cannot come.
    """
    return _binned(token_terms(p, log_q).flatten(), p.flatten(), p.flatten(), lows)


def token_terms(
    p: Float64[Tensor, "*shape vocab"], log_q: Float64[Tensor, "*shape vocab"]
) -> Float64[Tensor, "*shape vocab"]:
    """What each token adds to KL(p || q): p log(p / q) - p + q, which is never negative.

    They sum to KL over the vocabulary, as p log(p / q) does. But that is negative for a token with
    too much probability, and charges to the others what it took from them. A token that cannot
    come, p = 0, adds q.
    """
    q = log_q.exp()
    return torch.where(p > 0, torch.xlogy(p, p) - p * log_q, torch.zeros_like(p)) - p + q


def context_counts(
    trained_on: Int[Tensor, "*text"], states: Int[Tensor, "*shape"], num_states: int
) -> Int[Tensor, "*shape"]:
    """How often each of `states` is among the states of the training text."""
    return torch.bincount(trained_on.flatten(), minlength=num_states)[states]


def carried_by_rarest(
    amounts: Float64[Tensor, " items"],
    keys: Float64[Tensor, " items"],
    weights: Float64[Tensor, " items"],
    *,
    part: float = 0.1,
) -> float:
    """Share of all `amounts` that lies in the `part` of the weight with the lowest keys.

    About `part` where the key says nothing. Items with one key at the edge count in proportion;
    items without weight are not text and belong to no part, but their amounts count in the whole.
    """
    if not 0 < part < 1:
        raise ValueError(f"part must lie between 0 and 1, got {part}")
    text = weights > 0
    values, which = torch.unique(keys[text], return_inverse=True)  # sorted
    empty = torch.zeros(len(values), dtype=torch.float64)
    mass = empty.index_add(0, which, weights[text])
    sums = empty.index_add(0, which, amounts[text])
    before = mass.cumsum(0) - mass
    inside = ((part * mass.sum() - before) / mass).clamp(0, 1)
    return float((inside * sums).sum() / amounts.sum())


def _binned(amounts: Tensor, weights: Tensor, keys: Tensor, lows: Sequence[float]) -> Bins:
    if len(lows) < 1 or lows[0] != 0 or sorted(set(lows)) != list(lows):
        raise ValueError(f"lows must rise from 0, got {list(lows)}")
    edges = torch.tensor(lows[1:], dtype=torch.float64)
    place = torch.bucketize(keys.double(), edges, right=True)
    empty = torch.zeros(len(lows), dtype=torch.float64)
    mass, sums = (empty.index_add(0, place, of) for of in (weights, amounts))
    return Bins(
        lows=[float(low) for low in lows],
        shares=(mass / weights.sum()).tolist(),
        contributions=(sums / weights.sum()).tolist(),
    )


# --- A shift in combinations -------------------------------------------------------------------


def rarer_pairs(
    source: AutomatonSource, pairs: Iterable[tuple[int, int]], factor: float
) -> AutomatonSource:
    """`source` with the probability of some tokens, right after some others, times `factor`.

    pairs: (token, token right after it). What is taken away goes to the other tokens that may
    follow there, in proportion. At 0 the pair never comes; ValueError when nothing else may.
    The single words keep their frequencies, except what the missing pairs take from them.
    """
    if not 0 <= factor <= 1:
        raise ValueError(f"factor must be in [0, 1], got {factor}")
    followers: dict[int, list[int]] = {}
    for first, second in pairs:
        if first == END_ID:
            raise ValueError("a pair lies within a text; it cannot begin with the end token")
        followers.setdefault(first, []).append(second)
    # A state is the old one, and the token just read where it is the first of some pair.
    numbers, order = {(0, -1): 0}, [(0, -1)]
    rows, targets = [], []
    for state, last in order:  # grows while it is read
        row = source.transition_probs[state].clone()
        row[followers.get(last, [])] *= factor
        if not float(row.sum()) > 0:
            raise ValueError(
                f"after {source.vocabulary[last]!r} nothing may come but pairs that are taken away"
            )
        row /= row.sum()
        target = torch.full_like(source.transition_states[state], -1)
        for token in row.nonzero().flatten().tolist():
            after = int(source.transition_states[state, token])
            key = (after, token if token in followers else -1)
            if key not in numbers:
                numbers[key] = len(order)
                order.append(key)
            target[token] = numbers[key]
        rows.append(row)
        targets.append(target)
    return AutomatonSource(source.vocabulary, torch.stack(rows), torch.stack(targets))
