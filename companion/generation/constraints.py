"""Constraints on generated text: in each state, which tokens may come next.

A constraint is a deterministic automaton over tokens, without probabilities. Decoding masks the
logits of forbidden tokens and renormalises, so they have probability exactly zero. This is not the
model's distribution conditioned on the whole text being allowed: masking keeps the model's odds
among the allowed next tokens, however improbable their allowed continuations are.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class TokenAutomaton:
    """An automaton of allowed texts: in state s, `token` leads to state `next_states[s, token]`.

    State 0 is the start; -1 means that the token is forbidden. Tokens that lead to a dead end, a
    state without allowed tokens, are forbidden as well, so generation never gets stuck. Raises
    ValueError when no text is allowed.

    `TokenAutomaton(source.transition_states)` allows the texts of a source's grammar.
    """

    def __init__(self, next_states: Int[Tensor, "states vocab"]) -> None:
        if not isinstance(next_states, Tensor) or next_states.is_floating_point():
            kind = getattr(next_states, "dtype", type(next_states).__name__)
            raise TypeError(f"next_states must be a tensor of whole numbers, got {kind}")
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
        """Number of tokens, allowed or forbidden."""
        return int(self.next_states.shape[1])

    def start(self, batch: int) -> Int[Tensor, " batch"]:
        """The states of `batch` texts before their first token."""
        return torch.zeros(batch, dtype=torch.long)

    def allowed(self, states: Int[Tensor, " batch"]) -> Bool[Tensor, "batch vocab"]:
        """Which tokens may come next, for each text."""
        return self.next_states[states] >= 0

    def advance(
        self, states: Int[Tensor, " batch"], tokens: Int[Tensor, " batch"]
    ) -> Int[Tensor, " batch"]:
        """The states after `tokens`; ValueError when one of them is forbidden."""
        after = self.next_states[states, tokens.cpu()]
        if (after < 0).any():
            wrong = int(tokens[int((after < 0).nonzero()[0])])
            raise ValueError(f"token {wrong} is forbidden there; draw from the masked logits")
        return after

    def mask(
        self, logits: Float[Tensor, "batch vocab"], states: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch vocab"]:
        """Logits with -inf for forbidden tokens; their softmax is renormalised over the rest.

        Mask before temperature, top-k or beam search, so that no forbidden token is among the k.
        """
        if logits.shape[-1] != self.vocabulary_size:
            raise ValueError(
                f"the constraint knows {self.vocabulary_size} tokens and the model "
                f"{logits.shape[-1]}; make it for this model's vocabulary"
            )
        return logits.masked_fill(~self.allowed(states).to(logits.device), -math.inf)


def allow_only(tokens: Iterable[int], vocabulary_size: int) -> TokenAutomaton:
    """The constraint that a text has only these tokens; without the end token, no text can end.

    Raises ValueError for no tokens at all, or one outside the vocabulary.
    """
    if vocabulary_size < 1:
        raise ValueError(f"vocabulary_size must be >= 1, got {vocabulary_size}")
    table = torch.full((1, vocabulary_size), -1)
    for token in map(operator.index, tokens):  # a tensor's elements as numbers, too
        if not 0 <= token < vocabulary_size:
            raise ValueError(f"tokens must lie in [0, {vocabulary_size}), got {token}")
        table[0, token] = 0
    return TokenAutomaton(table)
