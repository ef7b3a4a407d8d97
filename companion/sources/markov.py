"""Stationary streams: the Markov chain and the hidden Markov model, with exact probabilities.

Reference: Cover & Thomas (2006), *Elements of Information Theory*, chapter 4; for the forward
recursion Rabiner (1989), A tutorial on hidden Markov models.
"""

from __future__ import annotations

import heapq
import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from companion.sources.automaton import ScoredText, Tokens, checked_tokens

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64


class _Stream:
    """Shared by the two stationary sources: words and ids, and log p as a sum of surprisals."""

    vocabulary: list[str]

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
        return " ".join(self.vocabulary[token] for token in self._checked(tokens))

    def log_prob(self, tokens: Tokens) -> float:
        """Exact log-probability in nats that the stream begins with `tokens`; -inf if it cannot."""
        return -float(self.nats(tokens).sum()) + 0.0

    def nats(self, tokens: Tokens) -> Float64[torch.Tensor, " time"]:
        """Surprisal of each token given all before it, in nats."""
        raise NotImplementedError

    def _checked(self, tokens: Tokens) -> list[int]:
        return checked_tokens(tokens, self.vocabulary_size)


class MarkovSource(_Stream):
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

    def entropy_rate(self) -> float:
        """Nats per token, in closed form: each row's entropy, weighted by its frequency."""
        return float(self.stationary @ _row_entropies(self.transition))

    def nats(self, tokens: Tokens) -> Float64[torch.Tensor, " time"]:
        """Surprisal of each token given all before it, in nats; once impossible, infinite."""
        sequence = np.array(self._checked(tokens), dtype=np.int64)
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
        for place, token in enumerate(self._checked(prefix)):
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


class EntropyBounds(NamedTuple):
    """Bounds on the entropy rate, in nats per token, from blocks of `length` tokens."""

    lower: float
    upper: float
    length: int


class HiddenMarkovSource(_Stream):
    """A stationary hidden Markov model: a hidden chain, each state of which emits one token.

    `transition` is [states, states], `emission` [states, vocab]; rows sum to one. The first hidden
    state comes from the stationary distribution and emits the first token. Probabilities of texts
    are exact, by forward filtering (Rabiner 1989). Raises ValueError when rows are no distributions
    or when more than one distribution of the hidden chain is stationary.
    """

    def __init__(
        self,
        transition: ArrayLike,
        emission: ArrayLike,
        *,
        vocabulary: Sequence[str] | None = None,
    ) -> None:
        self.transition = _rows(transition, "transition")
        self.emission = _rows(emission, "emission")
        states = self.transition.shape[0]
        if self.transition.shape != (states, states) or self.emission.shape[0] != states:
            raise ValueError(
                "transition must be [states, states] and emission [states, vocab], "
                f"got {self.transition.shape} and {self.emission.shape}"
            )
        self.vocabulary = _vocabulary(vocabulary, self.emission.shape[1])
        self.stationary: NDArray[np.float64] = _stationary(self.transition)
        """[states]: how often the chain is in each hidden state."""

    def entropy_bounds(self, *, tolerance: float = 1e-4, max_beliefs: int = 2**17) -> EntropyBounds:
        """Rigorous bounds on the entropy rate, tightened until they are within `tolerance` nats.

        H(X_n | X_1 ... X_n-1, S_1) <= rate <= H(X_n | X_1 ... X_n-1), S_1 being the first hidden
        state (Cover & Thomas, section 4.5). Both close in exponentially in n, but sum over vocab**n
        texts. What matters of a text is the belief it leads to (the distribution of the next
        hidden state), so near beliefs are put together on a grid, in the direction that keeps each
        bound a bound: in the upper one they are replaced by their mean, which forgets a little; in
        the lower one each is split among the corners of its grid cell with itself as the mean,
        which tells a little (Lovejoy 1991, Computationally feasible bounds for partially observed
        Markov decision processes). Entropy is concave in the belief, so the first can only raise
        and the second only lower it. The grid is refined until the bounds meet the tolerance or
        more than `max_beliefs` are in use: check the result. Work per length and memory are about
        beliefs x vocab x states**2; 2 to 4 states need between milliseconds and some seconds.
        """
        if tolerance <= 0 or max_beliefs < 1:
            raise ValueError(
                f"tolerance must be > 0 and max_beliefs >= 1, got {tolerance}, {max_beliefs}"
            )
        best = EntropyBounds(0.0, math.log(self.vocabulary_size), 0)
        resolution = 32
        while best.upper - best.lower > tolerance:
            found = self._bounds_on_grid(resolution, tolerance, max_beliefs)
            if found is None:
                break
            lower, upper = max(best.lower, found.lower), min(best.upper, found.upper)
            best = EntropyBounds(lower, upper, found.length)
            resolution *= 2
        return best

    def entropy_rate(self) -> float:
        """The middle of `entropy_bounds()`: within 5e-5 nats per token of the truth.

        Raises ValueError when the bounds do not come within 1e-4 of each other; then call
        `entropy_bounds` with more beliefs, or take its bounds for what they are.
        """
        lower, upper, length = self._default_bounds
        if upper - lower > 1e-4:
            raise ValueError(
                f"the entropy rate is only known to lie in [{lower:.6f}, {upper:.6f}] nats per "
                f"token (blocks of {length}); call entropy_bounds(max_beliefs=...) with more"
            )
        return (lower + upper) / 2

    def nats(self, tokens: Tokens) -> Float64[torch.Tensor, " time"]:
        """Surprisal of each token given all before it, in nats; once impossible, infinite."""
        sequence = np.array(self._checked(tokens), dtype=np.int64)
        length = max(1, math.isqrt(len(sequence)))
        chunks = -(-len(sequence) // length)
        # The stream as [chunks, length], so that a step advances all chunks. What a chunk does to
        # any belief is one matrix (pass 1); chained, these give the belief each chunk starts from,
        # and from there the surprisals follow (pass 2). Rescaling keeps all from underflowing.
        padded = np.zeros(chunks * length, dtype=np.int64)
        padded[: len(sequence)] = sequence
        grid = padded.reshape(chunks, length)
        # emit_then_move[w, i, j] = p(w | i) p(j | i)
        emit_then_move = self.emission.T[:, :, None] * self.transition
        effect = np.repeat(np.eye(len(self.stationary))[None], chunks, 0)
        for column in grid.T:
            effect = effect @ emit_then_move[column]
            effect /= np.maximum(effect.max((1, 2), keepdims=True), 1e-300)
        starts = np.zeros((chunks, len(self.stationary)))
        belief = self.stationary
        for chunk in range(chunks):
            starts[chunk] = belief
            belief = belief @ effect[chunk]
            belief = belief / max(float(belief.sum()), 1e-300)
        beliefs, p = starts, np.empty((chunks, length))
        for place, column in enumerate(grid.T):
            joint = (beliefs[:, None] @ emit_then_move[column])[:, 0]
            p[:, place] = joint.sum(1)
            beliefs = joint / np.maximum(p[:, place, None], 1e-300)
        with np.errstate(divide="ignore"):
            return torch.from_numpy(0.0 - np.log(p.ravel()[: len(sequence)]))

    def next_token_probs(self, prefix: Tokens) -> Float64[torch.Tensor, " vocab"]:
        """Exact p(next token | prefix); ValueError when the source never writes `prefix`."""
        return torch.from_numpy(self.belief(prefix) @ self.emission)

    def belief(self, prefix: Tokens) -> NDArray[np.float64]:
        """[states] p(hidden state of the next token | prefix), which is all that matters of it."""
        belief: NDArray[np.float64] = self.stationary
        for token in self._checked(prefix):
            joint = belief * self.emission[:, token]
            if joint.sum() == 0:
                raise ValueError(f"this source never writes {self.decode(prefix)!r}")
            belief = (joint / joint.sum()) @ self.transition
        return belief

    def sample(self, n: int, *, generator: torch.Generator) -> Int64[torch.Tensor, " n"]:
        """One stream of `n` tokens."""
        return self.sample_with_states(n, generator=generator)[0]

    def sample_with_states(
        self, n: int, *, generator: torch.Generator
    ) -> tuple[Int64[torch.Tensor, " n"], Int64[torch.Tensor, " n"]]:
        """One stream of `n` tokens, and the hidden states that emitted them."""
        rows = _running_sums(self.transition)
        u = _uniform(n, generator)
        states = [bisect_right(_running_sums(self.stationary[None])[0], u[0])]
        for x in u[1:]:
            states.append(bisect_right(rows[states[-1]], x))
        emit = _running_sums(self.emission)
        v = _uniform(n, generator)
        tokens = [bisect_right(emit[s], x) for s, x in zip(states, v, strict=True)]
        return torch.tensor(tokens), torch.tensor(states)

    def most_probable(self, length: int, *, max_texts: int = 2**20) -> ScoredText:
        """The most probable text of `length` tokens, summed over all hidden paths (exact).

        That is not the text of the most probable hidden path, and in general takes exponential
        time: texts are extended best first, by their probability times a bound on what can follow
        (A*). Raises ValueError when more than `max_texts` beginnings had to be looked at.
        """
        if length < 1:
            raise ValueError(f"length must be >= 1, got {length}")
        ahead = [np.ones(len(self.stationary))]  # the most that r more tokens can leave of a state
        for _ in range(length):
            ahead.append((self.emission * (self.transition @ ahead[-1])[:, None]).max(1))
        # alpha[j] = p(text, the next hidden state is j). The counter breaks ties before arrays do.
        counter = itertools.count()
        queue: list[tuple[float, int, tuple[int, ...], NDArray[np.float64]]] = []
        heapq.heappush(
            queue, (-float(self.stationary @ ahead[length]), next(counter), (), self.stationary)
        )
        for _ in range(max_texts):
            bound, _, text, alpha = heapq.heappop(queue)
            if len(text) == length:
                return ScoredText(list(text), math.log(-bound))
            for token in range(self.vocabulary_size):
                after = (alpha * self.emission[:, token]) @ self.transition
                most = float(after @ ahead[length - len(text) - 1])
                heapq.heappush(queue, (-most, next(counter), (*text, token), after))
        raise ValueError(
            f"the most probable text of {length} tokens needs more than {max_texts} beginnings; "
            "ask for a shorter one, or give max_texts="
        )

    def _bounds_on_grid(
        self, resolution: int, tolerance: float, max_beliefs: int
    ) -> EntropyBounds | None:
        """Bounds from a grid of this many cells a side; None where it takes too many beliefs."""
        states = len(self.stationary)
        if (states - 1) * math.log2(resolution + 1) > 62:
            return None  # the number of a cell would not fit 64 bits
        coarse, coarse_mass = self.stationary[None], np.ones(1)
        fine, fine_mass = np.eye(states), self.stationary
        lowest, highest, improved = 0.0, math.log(self.vocabulary_size), 0
        # A bound may rest for some lengths before it moves again (a chain with a long cycle).
        patience = 10 + 2 * states
        for length in range(1, 100_000):
            upper = float(coarse_mass @ _row_entropies(coarse @ self.emission))
            lower = float(fine_mass @ _row_entropies(fine @ self.emission))
            if max(highest - upper, lower - lowest) > tolerance / 1000:
                improved = length
            highest, lowest = min(highest, upper), max(lowest, lower)
            if highest - lowest <= tolerance or length - improved > patience:
                break
            coarse, coarse_mass = self._step(coarse, coarse_mass)
            corner, share = _corners(coarse, resolution)
            coarse, coarse_mass = _together(corner[:, 0], coarse, coarse_mass, resolution)
            fine, fine_mass = self._step(fine, fine_mass)
            corner, share = _corners(fine, resolution)
            flat = corner.reshape(-1, states)
            fine, fine_mass = _together(
                flat,
                _to_beliefs(flat, resolution),
                (fine_mass[:, None] * share).ravel(),
                resolution,
            )
            if len(coarse) + len(fine) > max_beliefs:
                return None
        return EntropyBounds(lowest, highest, length)

    def _step(
        self, beliefs: NDArray[np.float64], mass: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Every belief after every token that may come, and how probable each of these is."""
        joint = (beliefs[:, :, None] * self.emission).transpose(0, 2, 1)  # [beliefs, vocab, states]
        p = joint.sum(2)
        possible = p > 0
        after = (joint[possible] / p[possible][:, None]) @ self.transition
        return after, (mass[:, None] * p)[possible]

    @cached_property
    def _default_bounds(self) -> EntropyBounds:
        return self.entropy_bounds()


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


# A grid on the beliefs (Freudenthal's triangulation, as in Lovejoy 1991). In the coordinates
# x_i = resolution * (b_i + ... + b_last) the corners of the cells are whole numbers.


def _corners(
    beliefs: NDArray[np.float64], resolution: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The corners around each belief, and shares with which they average to it.

    Shapes [beliefs, states, states] (belief, corner, coordinate) and [beliefs, states].
    """
    x = resolution * np.cumsum(beliefs[:, ::-1], 1)[:, ::-1]
    x[:, 0] = resolution
    x = np.minimum(x, resolution)
    base = np.floor(x)
    part = x - base
    order = np.argsort(-part[:, 1:], 1) + 1  # coordinate 0 is always `resolution`
    rows = np.arange(len(x))
    corner = np.repeat(base[:, None].astype(np.int64), x.shape[1], 1)
    falling = np.take_along_axis(part, order, 1)
    for k in range(order.shape[1]):
        corner[rows[:, None], np.arange(k + 1, x.shape[1]), order[:, k, None]] += 1
    ones, zeros = np.ones((len(x), 1)), np.zeros((len(x), 1))
    shares = np.hstack([ones, falling]) - np.hstack([falling, zeros])
    # Up to rounding a corner of share zero may lie outside; it carries nothing.
    return np.where(shares[:, :, None] > 0, corner, corner[:, :1]), shares


def _to_beliefs(corner: NDArray[np.int64], resolution: int) -> NDArray[np.float64]:
    below = np.hstack([corner[:, 1:], np.zeros((len(corner), 1), dtype=np.int64)])
    beliefs: NDArray[np.float64] = (corner - below) / resolution
    return beliefs


def _together(
    cell: NDArray[np.int64],
    beliefs: NDArray[np.float64],
    mass: NDArray[np.float64],
    resolution: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One belief for each cell: the mean of those in it, with their mass."""
    key = np.zeros(len(cell), dtype=np.int64)
    for column in cell[:, 1:].T:
        key = key * (resolution + 1) + column
    kept = mass > 0
    _, number = np.unique(key[kept], return_inverse=True)
    total = np.bincount(number, weights=mass[kept]).astype(np.float64)
    means = [
        np.bincount(number, weights=mass[kept] * b).astype(np.float64) / total
        for b in beliefs[kept].T
    ]
    return np.stack(means, 1), total
