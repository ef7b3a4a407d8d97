"""Deterministic probabilistic automata: the probability of a text is a product along one path.

In a state, each token has a probability and leads to one next state, so a text has exactly one path
and log p is a sum along it. Token 0 ends a text and leads back to state 0, where the next text
begins: the automaton emits an endless stream of independent texts.

Shapes: states = number of states, vocab = number of tokens.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from companion.text.rows import END_ID

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int

#: A text as token ids: a 1-D tensor or any sequence of integers.
Tokens = torch.Tensor | Sequence[int]


class ScoredText(NamedTuple):
    """A text and its exact log-probability in nats."""

    tokens: list[int]
    log_prob: float


class AutomatonSource:
    """A source of independent texts given by a deterministic probabilistic automaton.

    `probabilities[s, w]` is p(w | s); each row sums to one within 1e-5 and is divided by its sum.
    `next_states[s, w]` is where w leads, -1 exactly where the probability is zero, and 0 (the
    start) for the end token. `vocabulary` names the tokens; its first is the end of a text. Raises
    ValueError when any of this is untrue, or when from some state no text can end.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        probabilities: Float[torch.Tensor, "states vocab"],
        next_states: Int[torch.Tensor, "states vocab"],
    ) -> None:
        self.vocabulary = list(vocabulary)
        self._ids = {word: i for i, word in enumerate(self.vocabulary)}
        p = probabilities.double()
        self._check(p, next_states)
        self.transition_probs: Float64[torch.Tensor, "states vocab"] = p / p.sum(1, keepdim=True)
        """p(token | state); dense."""
        self.transition_states: Int[torch.Tensor, "states vocab"] = next_states.long().clone()
        """The state after each token; -1 where the token is illegal."""

    @property
    def num_states(self) -> int:
        """Number of states, reachable or not; state 0 is the start of a text."""
        return int(self.transition_probs.shape[0])

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, the end token included."""
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """Ids of the words of `text`, which spaces separate; ValueError for a word not known."""
        words = text.split()
        unknown = [word for word in words if word not in self._ids]
        if unknown:
            raise ValueError(f"not in this source's vocabulary: {', '.join(sorted(set(unknown)))}")
        return [self._ids[word] for word in words]

    def decode(self, tokens: Tokens) -> str:
        """The words with spaces between them; the end of a text shows as its own word."""
        return " ".join(self.vocabulary[token] for token in _as_list(tokens))

    # Properties of the source -------------------------------------------------------------------

    @cached_property
    def visits(self) -> Float64[torch.Tensor, " states"]:
        """Expected number of visits of one text to each state, the start included.

        The distribution over states is propagated, token by token, until less than 1e-16 of the
        texts are unfinished: exact to rounding.
        """
        source, token = self._arcs
        probability = self.transition_probs.numpy()[source, token]
        target = self.transition_states.numpy()[source, token]
        going_on = token != END_ID
        source, target, probability = source[going_on], target[going_on], probability[going_on]
        alive = np.zeros(self.num_states)
        alive[0] = 1
        total = alive.copy()
        # A text that can end from everywhere (checked) ends; slow sources need more steps.
        while alive.sum() > 1e-16:
            alive = np.bincount(
                target, weights=alive[source] * probability, minlength=self.num_states
            ).astype(np.float64)
            total += alive
        return torch.from_numpy(total)

    def mean_length(self) -> float:
        """Expected tokens in a text, its end token included."""
        return float(self.visits.sum())

    def entropy_per_text(self) -> float:
        """Entropy of one text in nats: expected visits of a state times the entropy of its row."""
        return float(
            self.visits @ -torch.xlogy(self.transition_probs, self.transition_probs).sum(1)
        )

    def entropy_rate(self) -> float:
        """Nats per token, end tokens counted: entropy per text / expected length.

        It is the entropy rate of the stream, and what the best possible model scores on many texts
        when nats and tokens are each summed and then divided once.
        """
        return self.entropy_per_text() / self.mean_length()

    def kl_divergence(self, other: AutomatonSource) -> float:
        """KL(self || other) in nats per token of self: what a perfect model of `other` pays here.

        Exact: a sum over the pairs of states that one text reaches in the two automata. Infinite
        when `self` can write what `other` cannot. ValueError when the vocabularies differ.
        """
        if self.vocabulary != other.vocabulary:
            raise ValueError("both sources must have the same vocabulary in the same order")
        pairs, order = {(0, 0): 0}, [(0, 0)]
        rows: list[list[tuple[int, float]]] = []
        local = []
        theirs = other._arc_tables
        for mine, other_state in order:  # grows while it is read
            row, nats = [], 0.0
            for token, target, surprisal in self._arc_lists[mine]:
                if token not in theirs[other_state]:
                    return math.inf
                other_target, other_surprisal = theirs[other_state][token]
                p = math.exp(-surprisal)
                nats += p * (other_surprisal - surprisal)
                if token == END_ID:
                    continue
                pair = (target, other_target)
                if pair not in pairs:
                    pairs[pair] = len(order)
                    order.append(pair)
                row.append((pairs[pair], p))
            rows.append(row)
            local.append(nats)
        pair_from = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        pair_to = np.array([t for row in rows for t, _ in row], dtype=np.int64)
        weight = np.array([p for row in rows for _, p in row])
        costs, nats_per_text = np.array(local), 0.0
        alive = np.zeros(len(rows))
        alive[0] = 1
        while alive.sum() > 1e-16:
            nats_per_text += float(alive @ costs)
            moved = alive[pair_from] * weight
            alive = np.bincount(pair_to, weights=moved, minlength=len(rows)).astype(np.float64)
        return nats_per_text / self.mean_length()

    # One text, or a batch of them ---------------------------------------------------------------

    def walk(self, tokens: Int[torch.Tensor, "*batch time"]) -> Int[torch.Tensor, "*batch time"]:
        """The state before each token, from the start of a text; -1 once a token was illegal.

        Padding after the end of a text walks on into a new text: mask it.
        """
        tokens = tokens.cpu()
        if tokens.ndim == 1:
            table, state, states = self._next_state_lists, 0, []
            for token in self._checked(tokens):
                states.append(state)
                state = table[state][token] if state >= 0 else -1
            return torch.tensor(states, dtype=torch.long)
        out = torch.empty_like(tokens, dtype=torch.long)
        current = torch.zeros(tokens.shape[:-1], dtype=torch.long)
        for t in range(tokens.shape[-1]):
            out[..., t] = current
            step = self.transition_states[current.clamp(min=0), tokens[..., t]]
            current = torch.where(current >= 0, step, current)
        return out

    def nats(self, tokens: Tokens) -> Float64[torch.Tensor, " time"]:
        """Surprisal of each token given those before it, in nats; infinite where it is illegal.

        What follows an illegal token is infinite too.
        """
        sequence = torch.tensor(self._checked(tokens), dtype=torch.long)
        states = self.walk(sequence)
        p = self.transition_probs[states.clamp(min=0), sequence]
        return -torch.where(states >= 0, p, torch.zeros_like(p)).log()

    def log_prob(self, tokens: Tokens) -> float:
        """Exact log p, in nats, of a text that ends with the end token, or of a beginning of texts.

        Without its end token it is the log of the probability of all texts that begin so;
        -inf when the source cannot write it. Several texts may follow each other.
        """
        return -float(self.nats(tokens).sum()) + 0.0

    def log_probs(self, texts: Sequence[torch.Tensor]) -> Float64[torch.Tensor, " texts"]:
        """`log_prob` of many texts at once: a million tokens in about a second."""
        out = torch.zeros(len(texts), dtype=torch.float64)
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(by_length), 4096):  # alike in length: little padding
            chunk = by_length[start : start + 4096]
            lengths = torch.tensor([len(texts[i]) for i in chunk])
            padded = torch.nn.utils.rnn.pad_sequence(
                [texts[i].cpu() for i in chunk], batch_first=True, padding_value=END_ID
            )
            states = self.walk(padded)
            p = self.transition_probs[states.clamp(min=0), padded] * (states >= 0)
            inside = torch.arange(padded.shape[1]) < lengths[:, None]
            out[chunk] = torch.where(inside, p, torch.ones_like(p)).log().sum(1)
        return out

    def next_token_probs(self, prefix: Tokens) -> Float64[torch.Tensor, " vocab"]:
        """Exact p(token | prefix); ValueError when no text begins with `prefix`."""
        return self.transition_probs[self.state_after(prefix)].clone()

    def state_after(self, prefix: Tokens) -> int:
        """The state that `prefix` leads to; ValueError when no text begins with it."""
        state = 0
        for place, token in enumerate(self._checked(prefix)):
            state = self._next_state_lists[state][token]
            if state < 0:
                raise ValueError(
                    f"this source never writes {self.vocabulary[token]!r} "
                    f"(token {place} of the prefix) there"
                )
        return state

    def is_legal(self, tokens: Tokens, *, complete: bool = False) -> bool:
        """Whether some text begins with `tokens`; with `complete`, whether they are whole texts."""
        sequence = self._checked(tokens)
        if complete and (not sequence or sequence[-1] != END_ID):
            return False
        state = 0
        for token in sequence:
            state = self._next_state_lists[state][token]
            if state < 0:
                return False
        return True

    # A model's distributions against the truth --------------------------------------------------

    def kl_from(
        self, log_q: Float[torch.Tensor, "*batch vocab"], states: Int[torch.Tensor, "*batch"]
    ) -> Float64[torch.Tensor, "*batch"]:
        """KL(p || q) in nats at each position, from a model's log-probabilities and `walk`.

        Averaged over the positions of sampled texts it estimates KL per token with far less noise
        than the difference of two losses: only the prefixes are sampled, the next token is exact.
        """
        p = self.transition_probs[states.cpu()]
        log_q = log_q.detach().cpu().double()
        # 0 * -inf would be NaN where the model rules out what the truth rules out as well.
        cross = torch.where(p > 0, p * log_q, torch.zeros_like(p)).sum(-1)
        return torch.xlogy(p, p).sum(-1) - cross

    def illegal_mass(
        self, q: Float[torch.Tensor, "*batch vocab"], states: Int[torch.Tensor, "*batch"]
    ) -> Float64[torch.Tensor, "*batch"]:
        """The probability that a model's distributions `q` give to tokens illegal in `states`."""
        illegal = self.transition_probs[states.cpu()] == 0
        return (q.detach().cpu().double() * illegal).sum(-1)

    # Sampling, and most probable texts ----------------------------------------------------------

    def sample(self, n: int, *, generator: torch.Generator) -> list[torch.Tensor]:
        """`n` independent texts, each a 1-D tensor of ids that ends with the end token."""
        if n < 1:
            raise ValueError(f"n must be >= 1, got {n}")
        source, token = self._arcs
        probability = self.transition_probs.numpy()[source, token]
        # One sorted array for all states: state s owns (s, s + 1], cut at its running sums.
        running = np.cumsum(probability)
        first = np.searchsorted(source, np.arange(self.num_states + 1))
        before = np.concatenate([[0.0], running])[first[:-1]]
        edges = torch.from_numpy(source + (running - before[source]))
        tokens = torch.from_numpy(token)
        targets = torch.from_numpy(self.transition_states.numpy()[source, token])
        lowest, highest = torch.from_numpy(first[:-1]), torch.from_numpy(first[1:] - 1)
        who, state = torch.arange(n), torch.zeros(n, dtype=torch.long)
        drawn: list[tuple[torch.Tensor, torch.Tensor]] = []
        while who.numel():
            u = torch.rand(who.numel(), generator=generator, dtype=torch.float64)
            # Where rounding moved an edge, stay within the state's own arcs.
            arc = torch.searchsorted(edges, state + u, right=True)
            arc = arc.clamp(lowest[state], highest[state])
            drawn.append((who, tokens[arc]))
            alive = drawn[-1][1] != END_ID
            who, state = who[alive], targets[arc][alive]
        owner = torch.cat([w for w, _ in drawn])
        flat = torch.cat([t for _, t in drawn])[torch.sort(owner, stable=True).indices]
        return list(torch.split(flat, torch.bincount(owner, minlength=n).tolist()))

    def most_probable(self, length: int | None = None, *, prefix: Tokens = ()) -> ScoredText:
        """The most probable whole text that begins with `prefix`, or its best `length` more tokens.

        Without `length`: the cheapest path to an end token, a token costing -log p (Dijkstra); the
        result ends with that token and starts with `prefix`, and its log p is of all of it. With
        `length`: the most probable stream of exactly that many tokens after `prefix` (Viterbi);
        it may run through the end of one text into the next.
        """
        start = self.state_after(prefix)
        begun = self.log_prob(prefix) if len(prefix) else 0.0
        if length is None:
            tail, log_prob = self._shortest_path(start)
        else:
            if length < 1:
                raise ValueError(f"length must be >= 1 or None, got {length}")
            tail, log_prob = self._best_stream(start, length)
        return ScoredText(_as_list(prefix) + tail, begun + log_prob)

    def _shortest_path(self, start: int) -> tuple[list[int], float]:
        cost, came_from = {start: 0.0}, {}
        heap = [(0.0, start)]
        best, last = math.inf, -1
        while heap:
            so_far, state = heapq.heappop(heap)
            if so_far >= best:
                break
            if so_far > cost[state]:
                continue
            for token, target, surprisal in self._arc_lists[state]:
                total = so_far + surprisal
                if token == END_ID:
                    if total < best:
                        best, last = total, state
                elif total < cost.get(target, math.inf):
                    cost[target] = total
                    came_from[target] = (state, token)
                    heapq.heappush(heap, (total, target))
        tokens, state = [END_ID], last
        while state != start:
            state, token = came_from[state]
            tokens.append(token)
        return tokens[::-1], -best

    def _best_stream(self, start: int, length: int) -> tuple[list[int], float]:
        source, token = self._arcs
        log_p = np.log(self.transition_probs.numpy()[source, token])
        target = self.transition_states.numpy()[source, token]
        first = np.searchsorted(source, np.arange(self.num_states))
        value = np.zeros(self.num_states)
        choices = []
        for _ in range(length):  # backwards: the best that can follow each state
            score = log_p + value[target]
            value = np.maximum.reduceat(score, first)
            best = np.flatnonzero(score == value[source])
            choices.append(best[np.searchsorted(source[best], np.arange(self.num_states))])
        tokens, state = [], start
        for choice in reversed(choices):
            arc = choice[state]
            tokens.append(int(token[arc]))
            state = int(target[arc])
        return tokens, float(value[start])

    @cached_property
    def _arcs(self) -> tuple[np.ndarray, np.ndarray]:
        """State and token of every transition, by state."""
        source, token = np.nonzero(self.transition_probs.numpy())
        return source, token

    @cached_property
    def _arc_lists(self) -> list[list[tuple[int, int, float]]]:
        """(token, next state, surprisal) of every transition out of each state."""
        source, token = self._arcs
        target = self.transition_states.numpy()[source, token]
        surprisal = -np.log(self.transition_probs.numpy()[source, token])
        lists: list[list[tuple[int, int, float]]] = [[] for _ in range(self.num_states)]
        arcs = zip(
            source.tolist(), token.tolist(), target.tolist(), surprisal.tolist(), strict=True
        )
        for s, w, t, nats in arcs:
            lists[s].append((w, t, nats))
        return lists

    @cached_property
    def _arc_tables(self) -> list[dict[int, tuple[int, float]]]:
        """For each state: token -> (next state, surprisal)."""
        return [{w: (t, nats) for w, t, nats in arcs} for arcs in self._arc_lists]

    @cached_property
    def _next_state_lists(self) -> list[list[int]]:
        return [list(map(int, row)) for row in self.transition_states.tolist()]

    def _checked(self, tokens: Tokens) -> list[int]:
        return checked_tokens(tokens, self.vocabulary_size)

    def _check(self, p: torch.Tensor, target: torch.Tensor) -> None:
        if p.ndim != 2 or p.shape != target.shape or p.shape[1] != len(self.vocabulary):
            raise ValueError(
                "probabilities and next_states must be [states, vocab] with vocab = "
                f"{len(self.vocabulary)}, got {tuple(p.shape)} and {tuple(target.shape)}"
            )
        if len(self._ids) != len(self.vocabulary):
            raise ValueError("the words of a vocabulary must differ")
        if (p < 0).any() or not ((p.sum(1) - 1).abs() <= 1e-5).all():
            raise ValueError("each row of probabilities must be >= 0 and sum to 1")
        if ((target >= 0) != (p > 0)).any() or (target >= len(p)).any():
            raise ValueError("next_states must name a state where p > 0, and be -1 elsewhere")
        if (target[:, END_ID] > 0).any():
            raise ValueError("the end token must lead back to state 0")
        can_end, grown = p[:, END_ID] > 0, -1
        while int(can_end.sum()) != grown:
            grown = int(can_end.sum())
            can_end = can_end | (can_end[target.clamp(min=0)] & (p > 0)).any(1)
        if not can_end.all():
            stuck = int(torch.nonzero(~can_end)[0, 0])
            raise ValueError(f"every text must be able to end, but from state {stuck} none can")


def checked_tokens(tokens: Tokens, vocabulary_size: int) -> list[int]:
    """`tokens` as a list of integers; ValueError when one of them is not in the vocabulary."""
    sequence = _as_list(tokens)
    if sequence and not 0 <= min(sequence) <= max(sequence) < vocabulary_size:
        wrong = next(token for token in sequence if not 0 <= token < vocabulary_size)
        raise ValueError(
            f"tokens must lie in [0, {vocabulary_size}), got {wrong}; encode() turns words into ids"
        )
    return sequence


def _as_list(tokens: Tokens) -> list[int]:
    if isinstance(tokens, torch.Tensor):
        numbers: list[int] = tokens.tolist()
        return numbers
    return [int(token) for token in tokens]
