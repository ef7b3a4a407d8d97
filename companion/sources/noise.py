"""Sources that make errors, and have a true next-token distribution after each of them.

A grammar forbids most words at most places, and says nothing about what should follow one that it
forbids. These two sources make such errors themselves, with probability `noise`, and go on in one
of the two ways that are usual for errors of transcription: as if the wrong word had not been
written (an insertion), or as if the right one had been (a substitution). So every text has a
positive probability, and the next token a true distribution after any text, whoever wrote it.

Both have the methods `start`, `probs`, `errors` and `step`, which follow texts token by token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from companion.sources.automaton import AutomatonSource
from companion.text.rows import END_ID

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int


class InsertionSource(AutomatonSource):
    """`source` with insertions: a word too many, after which it goes on as if it were not there.

    Each token is an error with probability `noise`, and then any token that `source` forbids in
    its state, all of them alike; the state stays. A misplaced end token ends the text. Raises
    ValueError unless 0 < `noise` < 1, and when `source` has a state in which it forbids nothing.
    """

    def __init__(self, source: AutomatonSource, noise: float) -> None:
        _check(noise)
        errors = source.transition_probs == 0
        number = errors.sum(1, keepdim=True)
        if (number == 0).any():
            raise ValueError("in some state all tokens are legal, so none can be an error")
        same = torch.arange(source.num_states)[:, None].repeat(1, source.vocabulary_size)
        same[:, END_ID] = 0
        super().__init__(
            source.vocabulary,
            torch.where(errors, noise / number, (1 - noise) * source.transition_probs),
            torch.where(errors, same, source.transition_states),
        )
        self.noise = noise
        self._errors = errors

    def start(self, rows: int) -> Int[torch.Tensor, " rows"]:
        """The states of `rows` texts before their first token."""
        return torch.zeros(rows, dtype=torch.long)

    def probs(self, states: Int[torch.Tensor, " rows"]) -> Float64[torch.Tensor, "rows vocab"]:
        """p(next token) in each state."""
        return self.transition_probs[states]

    def errors(self, states: Int[torch.Tensor, " rows"]) -> Bool[torch.Tensor, "rows vocab"]:
        """Which next tokens are errors."""
        return self._errors[states]

    def step(
        self, states: Int[torch.Tensor, " rows"], tokens: Int[torch.Tensor, " rows"]
    ) -> Int[torch.Tensor, " rows"]:
        """The states after one more token of each text."""
        return self.transition_states[states, tokens]


class SubstitutionSource:
    """`source` with substitutions: a wrong word replaces the right one, and the source continues as
    if the right one had been written.

    `source` chooses each token. Where it is not the end of the text, it is replaced with
    probability `noise` by a random token, all of them alike; `source` goes on from the state after
    the token that it chose. A random end token ends the text. Raises ValueError unless
    0 < `noise` < 1, and when `source` has a state in which a text can only end.

    The choices are hidden, so the state of a text is the exact distribution over the states of
    `source`, given the tokens so far: the filter of a hidden Markov model, one row of numbers.
    """

    def __init__(self, source: AutomatonSource, noise: float) -> None:
        _check(noise)
        self.source, self.noise = source, noise
        probs, targets = source.transition_probs, source.transition_states
        if (probs[:, END_ID] == 1).any():
            raise ValueError("in some state the end alone is legal, so no text can go on from it")
        self._targets = targets.clamp(min=0)
        state, token = (probs > 0).nonzero(as_tuple=True)
        state, token = state[token != END_ID], token[token != END_ID]
        places = torch.stack([targets[state, token], state])
        size = (source.num_states, source.num_states)
        # Column s: where a text goes on from state s, whatever token is chosen.
        self._onward = torch.sparse_coo_tensor(
            places, probs[state, token], size, check_invariants=True
        ).coalesce()

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, the end token included."""
        return self.source.vocabulary_size

    def mean_length(self) -> float:
        """Expected tokens in a text of `source`; a few of its texts end before."""
        return self.source.mean_length()

    def sample(self, n: int, *, generator: torch.Generator) -> list[torch.Tensor]:
        """`n` texts."""
        texts = self.source.sample(n, generator=generator)
        tokens = torch.cat(texts)
        replaced = torch.rand(len(tokens), generator=generator) < self.noise
        replaced &= tokens != END_ID
        random = torch.randint(self.vocabulary_size, tokens.shape, generator=generator)
        tokens = torch.where(replaced, random, tokens)
        written = torch.split(tokens, [len(text) for text in texts])
        return [text[: int((text == END_ID).nonzero()[0]) + 1] for text in written]

    def start(self, rows: int) -> Float64[torch.Tensor, "rows states"]:
        """The states of `rows` texts before their first token."""
        states = torch.zeros(rows, self.source.num_states, dtype=torch.float64)
        states[:, 0] = 1
        return states

    def probs(
        self, states: Float64[torch.Tensor, "rows states"]
    ) -> Float64[torch.Tensor, "rows vocab"]:
        """p(next token) in each state."""
        meant, random = self._parts(states)
        return meant + random

    def errors(
        self, states: Float64[torch.Tensor, "rows states"]
    ) -> Bool[torch.Tensor, "rows vocab"]:
        """Which next tokens are more probably random than meant."""
        meant, random = self._parts(states)
        return meant < random

    def step(
        self, states: Float64[torch.Tensor, "rows states"], tokens: Int[torch.Tensor, " rows"]
    ) -> Float64[torch.Tensor, "rows states"]:
        """The states after one more token of each text."""
        chosen = (1 - self.noise) * states * self.source.transition_probs[:, tokens].T
        after = torch.sparse.mm(self._onward, states.T).T * (self.noise / self.vocabulary_size)
        after = after.scatter_add(1, self._targets[:, tokens].T, chosen)
        after = after / after.sum(1, keepdim=True)
        return torch.where((tokens == END_ID)[:, None], self.start(1), after)

    def _parts(
        self, states: Float64[torch.Tensor, "rows states"]
    ) -> tuple[Float64[torch.Tensor, "rows vocab"], Float64[torch.Tensor, "rows 1"]]:
        """p(token and not replaced), and p(token and random), which is the same for all."""
        chosen = states @ self.source.transition_probs
        going_on = 1 - chosen[:, END_ID, None]
        meant = (1 - self.noise) * chosen
        meant[:, END_ID] = chosen[:, END_ID]
        return meant, going_on * self.noise / self.vocabulary_size


def _check(noise: float) -> None:
    if not 0 < noise < 1:
        raise ValueError(f"noise must be in (0, 1), got {noise}")
