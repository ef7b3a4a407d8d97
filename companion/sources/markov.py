"""A stationary stream: the Markov chain, with exact probabilities.

Reference: Cover & Thomas (2006), *Elements of Information Theory*, chapter 4.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from companion.sources.automaton import ScoredText, Tokens, checked_tokens

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64


class MarkovSource:
    """A stationary Markov chain of order k: the next token depends on the k tokens before it.

    `transition` is [vocab**k, vocab]: row c holds p(next | context c), where a context is read as a
    number in base vocab, its oldest token first. The stream begins in the stationary distribution,
    so its first tokens are distributed like any others. Raises ValueError when the rows are no
    distributions or when more than one distribution is stationary.
    """

    def __init__(
        self, transition: ArrayLike, *, order: int = 1, vocabulary: Sequence[str] | None = None
    ) -> None:
        if order < 1:
            raise ValueError(f"order must be >= 1, got {order}")
        self.transition = _rows(transition, "transition")
        self.order = order
        contexts, size = self.transition.shape
        if contexts != size**order:
            raise ValueError(
                f"an order-{order} chain over {size} tokens needs {size**order} rows, "
                f"got {contexts}"
            )
        self.vocabulary = _vocabulary(vocabulary, size)
        step = np.zeros((contexts, contexts))
        context = np.repeat(np.arange(contexts), size)
        token = np.tile(np.arange(size), contexts)
        step[context, (context * size + token) % contexts] = self.transition.ravel()
        self.stationary: NDArray[np.float64] = _stationary(step)
        """[vocab**order]: how often each context comes up."""

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens."""
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """Ids of the words of `text`, which spaces separate; ValueError for a word not known."""
        ids = {word: i for i, word in enumerate(self.vocabulary)}
        unknown = sorted({word for word in text.split() if word not in ids})
        if unknown:
            raise ValueError(f"not in this source's vocabulary: {', '.join(unknown)}")
        return [ids[word] for word in text.split()]

    def decode(self, tokens: Tokens) -> str:
        """The words with spaces between them."""
        return " ".join(
            self.vocabulary[token] for token in checked_tokens(tokens, self.vocabulary_size)
        )

    def log_prob(self, tokens: Tokens) -> float:
        """Exact log-probability in nats that the stream begins with `tokens`; -inf if it cannot."""
        return -float(self.nats(tokens).sum()) + 0.0

    def entropy_rate(self) -> float:
        """Nats per token, in closed form: each row's entropy, weighted by its frequency."""
        return float(self.stationary @ _row_entropies(self.transition))

    def nats(self, tokens: Tokens) -> Float64[torch.Tensor, " time"]:
        """Surprisal of each token given all before it, in nats; once impossible, infinite."""
        sequence = np.array(checked_tokens(tokens, self.vocabulary_size), dtype=np.int64)
        p = np.ones(len(sequence))
        context = 0
        for place, token in enumerate(sequence[: self.order].tolist()):
            p[place] = self._row(context, place)[token]
            context = self._after(context, place, token)
        if len(sequence) > self.order:
            contexts = np.zeros(len(sequence) - self.order, dtype=np.int64)
            for i in range(self.order):
                contexts = contexts * self.vocabulary_size + sequence[i : i + len(contexts)]
            p[self.order :] = self.transition[contexts, sequence[self.order :]]
        p[np.logical_or.accumulate(p == 0)] = 0
        with np.errstate(divide="ignore"):
            return torch.from_numpy(0.0 - np.log(p))

    def next_token_probs(self, prefix: Tokens) -> Float64[torch.Tensor, " vocab"]:
        """Exact p(next token | prefix); ValueError when the source never writes `prefix`."""
        if self.log_prob(prefix) == -math.inf:
            raise ValueError(f"this source never writes {self.decode(prefix)!r}")
        context = 0
        for place, token in enumerate(checked_tokens(prefix, self.vocabulary_size)):
            context = self._after(context, place, token)
        return torch.from_numpy(self._row(context, len(prefix)).copy())

    def sample(self, n: int, *, generator: torch.Generator) -> Int64[torch.Tensor, " n"]:
        """One stream of `n` tokens."""
        u = _uniform(n, generator)
        size, contexts = self.transition.shape[1], self.transition.shape[0]
        rows = _running_sums(self.transition)
        context = bisect_right(_running_sums(self.stationary[None])[0], u[0])
        # The first context *is* the first k tokens, its oldest token on top.
        out = [context // size ** (self.order - 1 - i) % size for i in range(self.order)]
        for x in u[1 : max(1, n - self.order + 1)]:
            token = bisect_right(rows[context], x)
            out.append(token)
            context = (context * size + token) % contexts
        return torch.tensor(out[:n])

    def most_probable(self, length: int) -> ScoredText:
        """The most probable stream of `length` tokens (Viterbi)."""
        if length < 1:
            raise ValueError(f"length must be >= 1, got {length}")
        contexts, size = self.transition.shape
        with np.errstate(divide="ignore"):
            log_p = np.log(self.transition)
            log_start = np.log(self._marginal(min(length, self.order)))
        target = (np.arange(contexts)[:, None] * size + np.arange(size)) % contexts
        value, choices = np.zeros(contexts), []
        for _ in range(length - self.order):
            score = log_p + value[target]
            choices.append(score.argmax(1))
            value = score.max(1)
        score = log_start + (value if length >= self.order else 0)
        context = int(score.argmax())
        first = min(length, self.order)
        tokens = [context // size ** (first - 1 - i) % size for i in range(first)]
        state = context
        for choice in reversed(choices):
            tokens.append(int(choice[state]))
            state = (state * size + tokens[-1]) % contexts
        return ScoredText(tokens, float(score.max()))

    def _marginal(self, length: int) -> NDArray[np.float64]:
        """The stationary probability of each string of `length` <= order tokens."""
        shorter: NDArray[np.float64] = self.stationary.reshape(
            self.vocabulary_size**length, -1
        ).sum(1)
        return shorter

    def _row(self, context: int, seen: int) -> NDArray[np.float64]:
        """p(next | the last `seen` tokens), also while fewer than `order` are known."""
        if seen >= self.order:
            row: NDArray[np.float64] = self.transition[context]
            return row
        joint = self._marginal(seen + 1).reshape(-1, self.vocabulary_size)[context]
        known: NDArray[np.float64] = joint / max(float(joint.sum()), 1e-300)  # 0 if never written
        return known

    def _after(self, context: int, seen: int, token: int) -> int:
        context = context * self.vocabulary_size + token
        return context % self.transition.shape[0] if seen >= self.order else context


def _rows(table: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(table, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} must be two-dimensional, got shape {array.shape}")
    if not (array >= 0).all() or not np.allclose(array.sum(1), 1, rtol=0, atol=1e-9):
        raise ValueError(f"each row of {name} must be >= 0 and sum to 1; divide rows by their sums")
    normalised: NDArray[np.float64] = array / array.sum(1, keepdims=True)
    return normalised


def _vocabulary(words: Sequence[str] | None, size: int) -> list[str]:
    chosen = [str(i) for i in range(size)] if words is None else list(words)
    if len(chosen) != size or len(set(chosen)) != size:
        raise ValueError(f"vocabulary must hold {size} different words, got {chosen}")
    return chosen


def _stationary(step: NDArray[np.float64]) -> NDArray[np.float64]:
    """The one distribution pi with pi = pi step."""
    n = len(step)
    equations = np.vstack([step.T - np.eye(n), np.ones((1, n))])
    pi, _, rank, _ = np.linalg.lstsq(equations, np.r_[np.zeros(n), 1.0], rcond=1e-12)
    if rank < n:
        raise ValueError(
            "more than one distribution is stationary: the chain falls into parts that never meet"
        )
    pi = np.where(pi < 1e-14, 0.0, pi)
    distribution: NDArray[np.float64] = pi / pi.sum()
    return distribution


def _row_entropies(p: NDArray[np.float64]) -> NDArray[np.float64]:
    logs = np.log(np.where(p > 0, p, 1.0))
    entropies: NDArray[np.float64] = -(p * logs).sum(-1)
    return entropies


def _running_sums(p: NDArray[np.float64]) -> list[list[float]]:
    sums: NDArray[np.float64] = np.cumsum(p, 1)
    # The last token that can occur takes what rounding leaves, so that no draw falls off the end.
    sums[sums >= sums[:, -1:]] = np.inf
    return [list(row) for row in sums.tolist()]


def _uniform(n: int, generator: torch.Generator) -> list[float]:
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    numbers: list[float] = torch.rand(n, generator=generator, dtype=torch.float64).tolist()
    return numbers
