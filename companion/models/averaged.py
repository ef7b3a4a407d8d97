"""A language model that reads each text in two versions and averages what it says next.

The versions differ in the words of a list, such as the names of two groups. Whatever the model has
learnt about one group only, the average says of both: a bias taken out when the model is asked,
without training it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.models.base import LanguageModel, State, state_parts

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class SwapAveraged(LanguageModel):
    """`model`, with each next-token distribution the mean of those after two versions of the text.

    swaps: word to counterpart, as token ids; the first version has every listed word replaced by
        its counterpart where that is a value of `swaps`, the second the other way round.
    share: weight of the second version.

    So after a listed word, the distribution does not depend on which of the two it was. The name
    itself is predicted as before: until a listed word is read, both versions are the text.
    """

    def __init__(self, model: LanguageModel, swaps: Mapping[int, int], *, share: float) -> None:
        super().__init__(model.vocabulary_size)
        if not 0 < share < 1:
            raise ValueError(f"share must be in (0, 1), got {share}")
        if set(swaps) & set(swaps.values()) or len(set(swaps.values())) < len(swaps):
            raise ValueError("swaps must pair different words, each once")
        self.model = model
        self.share = share
        self.batch_axis = model.batch_axis  # type: ignore[misc]
        self.state_grows = model.state_grows  # type: ignore[misc]
        self.max_length = model.max_length
        first, second = torch.arange(self.vocabulary_size), torch.arange(self.vocabulary_size)
        for one, other in swaps.items():
            second[one] = other
            first[other] = one
        self.register_buffer("first", first)
        self.register_buffer("second", second)

    def features(
        self, inputs: Int[Tensor, "batch time"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch time features"], State]:
        """Features of both versions side by side, and both states."""
        half = None if state is None else len(state) // 2
        parts = (None, None) if half is None else (state[:half], state[half:])  # type: ignore[index]
        found: list[Tensor] = []
        states: list[Tensor] = []
        for table, part in zip((self.first, self.second), parts, strict=True):
            if part is not None and len(part) == 1:
                part = part[0]
            features, after = self.model.features(table[inputs], part)  # type: ignore[index]
            found.append(features)
            states.extend(state_parts(after))
        return torch.cat(found, dim=-1), tuple(states)

    def logits(self, features: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch vocab"]:
        """Log-probabilities of the mean of the two distributions."""
        first, second = features.chunk(2, dim=-1)
        weights = torch.tensor([1 - self.share, self.share]).log()
        return torch.logaddexp(
            torch.log_softmax(self.model.logits(first), dim=-1) + weights[0],
            torch.log_softmax(self.model.logits(second), dim=-1) + weights[1],
        )

    def initial_state(self, batch_size: int) -> State:
        """The initial states of both versions."""
        one = state_parts(self.model.initial_state(batch_size))
        return (*one, *one)
