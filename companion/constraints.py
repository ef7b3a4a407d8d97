"""Constraints on generated text: in each state, which tokens may come next.

A constraint is a deterministic automaton over tokens without probabilities. Decoding masks the
logits of what it does not allow and renormalises, so a forbidden token has probability exactly
zero. Masking token by token is not conditioning on the whole text: it keeps the model's odds among
the tokens that are left, however unlikely what must follow them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class TokenAutomaton:
    """Text is allowed as long as it has a path: `next_states[s, token]` is where a token leads.

    State 0 is the start and -1 means forbidden. Tokens that lead into a dead end, where nothing is
    allowed any more, are forbidden as well, so generation never gets stuck. Raises ValueError when
    nothing at all is allowed.

    The automaton of a source, `TokenAutomaton(source.transition_states)`, allows its grammar.
    """

    def __init__(self, next_states: Int[Tensor, "states vocab"]) -> None:
        table = next_states.detach().cpu().long().clone()
        if table.ndim != 2 or (table < -1).any() or (table >= len(table)).any():
            raise ValueError(
                "next_states must be [states, vocab] of states, or -1 for forbidden, got shape "
                f"{tuple(table.shape)}"
            )
        alive, before = torch.ones(len(table), dtype=torch.bool), -1
        while int(alive.sum()) != before:
            before = int(alive.sum())
            table[(table >= 0) & ~alive[table.clamp(min=0)]] = -1
            alive = (table >= 0).any(dim=1)
        if not len(table) or not alive[0]:
            raise ValueError("the constraint allows no text at all: allow more tokens")
        self.next_states = table

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens that it knows."""
        return int(self.next_states.shape[1])

    def start(self, batch: int) -> Int[Tensor, " batch"]:
        """The state of `batch` texts that have not begun."""
        return torch.zeros(batch, dtype=torch.long)

    def allowed(self, states: Int[Tensor, " batch"]) -> Bool[Tensor, "batch vocab"]:
        """Which tokens may come next, for each text."""
        return self.next_states[states] >= 0

    def advance(
        self, states: Int[Tensor, " batch"], tokens: Int[Tensor, " batch"]
    ) -> Int[Tensor, " batch"]:
        """The states after `tokens`; ValueError when one of them was forbidden."""
        after = self.next_states[states, tokens.cpu()]
        if (after < 0).any():
            wrong = int(tokens[int((after < 0).nonzero()[0])])
            raise ValueError(f"token {wrong} is forbidden there; draw from the masked logits")
        return after

    def mask(
        self, logits: Float[Tensor, "batch vocab"], states: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch vocab"]:
        """Logits with -inf for what is forbidden; their softmax is renormalised over the rest.

        The mask is for whatever is done next, temperature, top-k or beam: a forbidden token must
        not take a place among the k.
        """
        if logits.shape[-1] != self.vocabulary_size:
            raise ValueError(
                f"the constraint knows {self.vocabulary_size} tokens and the model "
                f"{logits.shape[-1]}; make it for this model's vocabulary"
            )
        return logits.masked_fill(~self.allowed(states).to(logits.device), -math.inf)


def forbid(sequences: Iterable[Sequence[int]], vocabulary_size: int) -> TokenAutomaton:
    """No text that contains one of `sequences` of token ids anywhere; all else is allowed.

    The states are the beginnings of sequences that the text may be in the middle of (the automaton
    of Aho & Corasick 1975). A word is a sequence of one token with a word tokenizer, several with
    BPE. ValueError for an empty sequence or a token outside the vocabulary.
    """
    children, ends = _trie(sequences, vocabulary_size)
    table = torch.zeros(len(children), vocabulary_size, dtype=torch.long)
    fallback = [0] * len(children)
    queue = deque([0])
    while queue:  # breadth first, so that the shorter state fallen back to is already complete
        state = queue.popleft()
        if state != 0:
            table[state] = table[fallback[state]]
        for token, child in children[state].items():
            fallback[child] = int(table[fallback[state], token]) if state != 0 else 0
            ends[child] = ends[child] or ends[fallback[child]]
            table[state, token] = child
            queue.append(child)
    table[torch.tensor(ends)[table]] = -1
    return TokenAutomaton(table)


def allow_only(tokens: Iterable[int], vocabulary_size: int) -> TokenAutomaton:
    """Texts of these tokens alone; name the end token too, or no text can end."""
    children, _ = _trie([[token] for token in tokens], vocabulary_size)
    table = torch.full((1, vocabulary_size), -1)
    table[0, list(children[0])] = 0
    return TokenAutomaton(table)


def choose_from(
    sequences: Iterable[Sequence[int]], vocabulary_size: int, *, end_id: int
) -> TokenAutomaton:
    """Exactly one of `sequences`, then `end_id` (and no more than `end_id` after it)."""
    children, ends = _trie(sequences, vocabulary_size)
    table = torch.full((len(children) + 1, vocabulary_size), -1)
    for state, following in enumerate(children):
        for token, child in following.items():
            table[state, token] = child
        if ends[state]:
            table[state, end_id] = len(children)
    table[len(children), end_id] = len(children)
    return TokenAutomaton(table)


def _trie(
    sequences: Iterable[Sequence[int]], vocabulary_size: int
) -> tuple[list[dict[int, int]], list[bool]]:
    """Children of each node, which is a beginning of sequences; and whether one ends there."""
    children: list[dict[int, int]] = [{}]
    ends = [False]
    for sequence in sequences:
        if not len(sequence):
            raise ValueError("a sequence must have at least one token, got an empty one")
        node = 0
        for token in sequence:
            if not 0 <= token < vocabulary_size:
                raise ValueError(f"tokens must lie in [0, {vocabulary_size}), got {token}")
            if token not in children[node]:
                children[node][token] = len(children)
                children.append({})
                ends.append(False)
            node = children[node][token]
        ends[node] = True
    return children, ends
