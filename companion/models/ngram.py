"""Count-based language models: interpolated Witten-Bell and interpolated modified Kneser-Ney.

A model of order n predicts a token from the n - 1 tokens before it. Its tables are one sorted
array of integers per n-gram length: an n-gram is stored as (number of its first n - 1 tokens in
the table below) x vocabulary + (its last token). So the followers of a context lie side by side,
keys fit 64 bits for every order, and fitting and scoring are sorts and binary searches.

Both smoothings have the same form. With c a context and c' that context without its oldest token,

    p(w | c) = gain(c, w) + backoff(c) p(w | c'),

below the empty context the distribution is uniform, 1 / vocabulary, and a context without followers
in the training text has gain 0 and backoff 1.

References: Witten & Bell (1991), The zero-frequency problem (method C). Kneser & Ney (1995),
Improved backing-off for m-gram language modeling. Chen & Goodman (1999), An empirical study of
smoothing techniques for language modeling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from companion.core.settings import check_choice, check_sizes
from companion.models.base import LanguageModel

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int

Smoothing = Literal["witten-bell", "kneser-ney"]

#: A stream of token ids: a 1-D tensor on the CPU, a 1-D integer array, or a list.
Ids = torch.Tensor | NDArray[Any] | Sequence[int]


@dataclass(frozen=True, kw_only=True)
class _Level:
    """The n-grams of one length: sorted `keys`, the `gain` of each, `backoff` of each context."""

    keys: NDArray[np.int64]  # [n-grams]  context number * vocabulary + token
    gain: NDArray[np.float64]  # [n-grams]
    backoff: NDArray[np.float64]  # [contexts] = [n-grams of the level below]


class NGramModel(LanguageModel):
    """An interpolated n-gram model over integer token ids. Make one with `NGramModel.fit`.

    As a `LanguageModel`, its features are the context of each prediction, the last order - 1
    tokens, with -1 before the start of the text; its state is the context of the next token.
    """

    def __init__(
        self,
        *,
        order: int,
        vocabulary_size: int,
        smoothing: Smoothing,
        levels: Sequence[_Level],
        discounts: Sequence[tuple[float, float, float]],
    ) -> None:
        super().__init__(vocabulary_size)
        self.order = order
        """The order n: a token is predicted from the n - 1 tokens before it."""
        self.smoothing = smoothing
        self.discounts = tuple(discounts)
        """Kneser-Ney discounts of counts 1, 2, and 3 or more, one triple for each n-gram length."""
        self._levels = tuple(levels)
        self.eval()  # it is already fitted: there is no training mode

    @classmethod
    def fit(
        cls, ids: Ids, *, order: int, vocabulary_size: int, smoothing: Smoothing = "witten-bell"
    ) -> NGramModel:
        """Count the n-grams of one stream of training tokens, ids[tokens], up to length `order`.

        `smoothing` is "witten-bell" (method C: a context seen N times with T different followers
        keeps N / (N + T) and gives T / (N + T) to the shorter context) or "kneser-ney"
        (interpolated modified Kneser-Ney: discounts estimated per length from the counts of
        counts; a shorter n-gram's count is the number of different tokens seen before it, where
        the start of the stream counts as a token).

        Raises ValueError for an order below 1, an unknown smoothing, ids that are not a 1-D
        array of integers in [0, vocabulary_size), or fewer than `order` of them; TypeError for an
        order or vocabulary_size that is not a whole number.
        """
        check_sizes(order=order, vocabulary_size=vocabulary_size)
        check_choice("smoothing", smoothing, Smoothing)
        stream = _as_ids(ids, vocabulary_size)
        if stream.size < order:
            raise ValueError(
                f"an order-{order} model needs at least {order} training tokens, got {stream.size}"
            )
        keys, counts = _count(stream, order, vocabulary_size, distinct=smoothing == "kneser-ney")
        levels, discounts, num_contexts = [], [], 1
        for level_keys, level_counts in zip(keys, counts, strict=True):
            contexts = level_keys // vocabulary_size
            seen = level_counts.astype(np.float64)
            total = _sum_by(contexts, seen, num_contexts)
            if smoothing == "witten-bell":
                given = _sum_by(contexts, np.ones_like(seen), num_contexts)
                kept, whole = seen, total + given
            else:
                taken = _discounts(level_counts)
                discounts.append(taken)
                by_count = np.array((0.0, *taken), dtype=np.float64)
                discount = by_count[np.minimum(level_counts, 3)]
                given = _sum_by(contexts, discount, num_contexts)
                kept, whole = seen - discount, total
            # A context only at the end of the stream has no follower: all mass to the shorter one.
            backoff = np.divide(given, whole, out=np.ones(num_contexts), where=whole > 0)
            levels.append(_Level(keys=level_keys, gain=kept / whole[contexts], backoff=backoff))
            num_contexts = level_keys.size
        return cls(
            order=order,
            vocabulary_size=vocabulary_size,
            smoothing=smoothing,
            levels=levels,
            discounts=discounts,
        )

    @property
    def num_contexts(self) -> tuple[int, ...]:
        """Number of contexts of 0, 1, ... order - 1 tokens with a follower in the training text."""
        return tuple(
            int(np.unique(level.keys // self.vocabulary_size).size) for level in self._levels
        )

    def nats(self, ids: Ids, context: Ids | None = None) -> Float[np.ndarray, " tokens"]:
        """Surprisal -log p of **every** token of `ids` given those before it, in nats.

        `context` holds the tokens before `ids`; None means no context, so that `nats(ids)[0]` is a
        unigram surprisal. For a text encoded with a leading end-of-text token use
        `nats(ids[1:], context=ids[:1])`.
        """
        history, stream = self._stream(ids, context)
        found = self._lookup(stream)
        probability = np.full(stream.size, 1 / self.vocabulary_size)
        for length, level in enumerate(self._levels):
            contexts = _before(found[length], length)
            known = contexts >= 0
            probability[known] *= level.backoff[contexts[known]]
            hit = found[length + 1] >= 0
            probability[hit] += level.gain[found[length + 1][hit]]
        surprisal: NDArray[np.float64] = -np.log(probability[history:])
        return surprisal

    def probs(self, context: Ids) -> Float[np.ndarray, " vocabulary"]:
        """The distribution of the token after the last order - 1 tokens of `context`."""
        probability = np.full(self.vocabulary_size, 1 / self.vocabulary_size)
        tail = self._tail(context)
        ends = [int(row[-1]) for row in self._lookup(tail)] if tail.size else [0]
        for level, number in zip(self._levels[: tail.size + 1], ends, strict=False):
            if number < 0:
                break  # an unseen context makes every longer one unseen
            first, last = np.searchsorted(
                level.keys, [number * self.vocabulary_size, (number + 1) * self.vocabulary_size]
            )
            probability *= level.backoff[number]
            followers = level.keys[first:last] - number * self.vocabulary_size
            probability[followers] += level.gain[first:last]
        return probability

    def seen(self, ids: Ids, context: Ids | None = None) -> Int[np.ndarray, " tokens"]:
        """For each token of `ids`, the length of the longest known context before it.

        A context is known if the training text has it with a follower; it has at most order - 1
        tokens.
        """
        history, stream = self._stream(ids, context)
        found = self._lookup(stream)
        longest = np.zeros(stream.size, dtype=np.int64)
        for length in range(1, self.order):
            contexts = _before(found[length], length)
            known = contexts >= 0
            # backoff is 1 only for a context without followers: any follower keeps some mass.
            known[known] = self._levels[length].backoff[contexts[known]] < 1
            longest[known] = length
        return longest[history:]

    def unseen_share(self, ids: Ids) -> Float[np.ndarray, " order"]:
        """The share of the n-grams of `ids` that are not in the training text, for n = 1 ... order.

        Only whole n-grams count: there are len(ids) - n + 1 of length n. Raises ValueError when
        `ids` is shorter than one n-gram of the longest length.
        """
        _, stream = self._stream(ids, None)
        if stream.size < self.order:
            raise ValueError(f"need at least {self.order} tokens to count, got {stream.size}")
        found = self._lookup(stream)
        return np.array([np.mean(found[n][n - 1 :] < 0) for n in range(1, self.order + 1)])

    def sample(
        self, length: int, *, generator: torch.Generator, context: Ids = ()
    ) -> Int[torch.Tensor, " length"]:
        """`length` tokens drawn one after another, each given `context` and those already drawn."""
        if length < 1:
            raise ValueError(f"length must be >= 1, got {length}")
        before = [int(token) for token in _as_ids(context, self.vocabulary_size)]
        start = len(before)
        for _ in range(length):
            weights = torch.from_numpy(self.probs(before[max(0, len(before) - self.order + 1) :]))
            before.append(int(torch.multinomial(weights, 1, generator=generator)))
        return torch.tensor(before[start:])

    def features(
        self,
        inputs: Int[torch.Tensor, "batch time"],
        state: Int[torch.Tensor, "batch context"] | None = None,
    ) -> tuple[Int[torch.Tensor, "batch time context"], Int[torch.Tensor, "batch context"]]:
        """The context after each input (its last order - 1 tokens), and the last one as state."""
        if state is None:
            state = self.initial_state(len(inputs))
        read = torch.cat([state, inputs], dim=1)
        contexts = read.unfold(1, self.order - 1, 1)  # (B, T + 1, order - 1): `state` is the first
        return contexts[:, 1:], contexts[:, -1]

    def logits(
        self, features: Int[torch.Tensor, "*batch context"]
    ) -> Float64[torch.Tensor, "*batch vocab"]:
        """Log-probabilities of the token after each context."""
        contexts = [tuple(context) for context in features.flatten(0, -2).tolist()]
        log_probs = {
            context: np.log(self.probs([token for token in context if token >= 0]))
            for context in set(contexts)
        }
        rows = torch.from_numpy(np.stack([log_probs[context] for context in contexts]))
        return rows.view(*features.shape[:-1], self.vocabulary_size)

    def initial_state(self, batch_size: int) -> Int[torch.Tensor, "batch context"]:
        """Empty contexts: -1 at each of the order - 1 positions."""
        return torch.full((batch_size, self.order - 1), -1)

    def _stream(self, ids: Ids, context: Ids | None) -> tuple[int, NDArray[np.int64]]:
        """The number of context tokens used (at most order - 1), and these followed by `ids`."""
        stream = _as_ids(ids, self.vocabulary_size)
        tail = self._tail(() if context is None else context)
        return tail.size, np.concatenate([tail, stream])

    def _tail(self, context: Ids) -> NDArray[np.int64]:
        tokens = _as_ids(context, self.vocabulary_size)
        return tokens[max(0, tokens.size - self.order + 1) :]

    def _lookup(self, stream: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """found[n][t]: the table number of the n-gram, n = 0 ... order, that ends at t, or -1."""
        found = [np.zeros(stream.size, dtype=np.int64)]
        for length, level in enumerate(self._levels):
            context = _before(found[-1], length)
            key = context * self.vocabulary_size + stream
            place = np.minimum(np.searchsorted(level.keys, key), level.keys.size - 1)
            found.append(np.where((context >= 0) & (level.keys[place] == key), place, -1))
        return found


def _before(found: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The number of the n-gram of this length that ends just *before* each token, or -1."""
    shifted = np.empty_like(found)
    shifted[1:] = found[:-1]
    shifted[:1] = 0 if length == 0 else -1  # before the first token, only the empty n-gram ends
    return shifted


def _as_ids(ids: Ids, vocabulary_size: int) -> NDArray[np.int64]:
    array = np.asarray(ids)
    if array.size == 0 and array.ndim == 1:
        return np.zeros(0, dtype=np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"ids must be a 1-D array of integers, got {array.dtype} of shape {array.shape}"
        )
    if array.min() < 0 or array.max() >= vocabulary_size:
        raise ValueError(
            f"ids must lie in [0, {vocabulary_size}), got {array.min()} to {array.max()}"
        )
    return array.astype(np.int64)


def _count(
    stream: NDArray[np.int64], order: int, vocabulary_size: int, *, distinct: bool
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Sorted keys and counts of the n-grams of each length 1 ... order.

    With `distinct`, the count of an n-gram shorter than `order` is the number of different tokens
    before it (Kneser & Ney's continuation counts); the start of the stream counts as a token.
    """
    keys: list[NDArray[np.int64]] = []
    counts: list[NDArray[np.int64]] = []
    numbers = np.zeros(stream.size + 1, dtype=np.int64)  # by start: all are the empty n-gram
    for length in range(1, order + 1):
        key = numbers[: stream.size - length + 1] * vocabulary_size + stream[length - 1 :]
        unique, first, longer, count = np.unique(
            key, return_index=True, return_inverse=True, return_counts=True
        )
        if distinct and length > 1:
            suffix = numbers[first + 1]  # one (n+1)-gram, one different token before its suffix
            counts[-1] = np.bincount(suffix, minlength=keys[-1].size)
            counts[-1][numbers[0]] += 1
        keys.append(unique)
        counts.append(count)
        numbers = longer
    return keys, counts


def _sum_by(
    contexts: NDArray[np.int64], values: NDArray[np.float64], num_contexts: int
) -> NDArray[np.float64]:
    return np.bincount(contexts, weights=values, minlength=num_contexts).astype(np.float64)


def _discounts(counts: NDArray[np.int64]) -> tuple[float, float, float]:
    """Chen & Goodman's discounts for counts of 1, 2 and 3 or more (their equation 26).

    They need n-grams that occur exactly once, twice, three and four times. If some are missing,
    because the table is small or regular, all counts have the one discount n1 / (n1 + 2 n2) of
    Kneser & Ney; if none occur once, or none occur twice, the discount is one half.
    """
    n1, n2, n3, n4 = (int((counts == value).sum()) for value in (1, 2, 3, 4))
    if n1 and n2:
        plain = n1 / (n1 + 2 * n2)
        if n3:
            two, three = 2 - 3 * plain * n3 / n2, 3 - 4 * plain * n4 / n3
            if two > 0 and three > 0 and n4:
                return plain, two, three
        return plain, plain, plain
    return 0.5, 0.5, 0.5
