"""One-layer recurrent language models with an LSTM, GRU or tanh cell, to compare the cells.

Shape legend: B batch, T time, V vocabulary, E embedding, H hidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from companion.core.settings import check_choice, check_sizes
from companion.models.base import LanguageModel

if TYPE_CHECKING:
    from jaxtyping import Float, Int

#: Hidden state h of a GRU or tanh cell, or h and c of an LSTM, each (1, B, H).
State = Tensor | tuple[Tensor, Tensor]

#: Recurrent cells by name.
CELLS: dict[str, type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]] = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "tanh RNN": nn.RNN,
}


class RecurrentModel(LanguageModel):
    """Embedding, one layer of a recurrent cell, linear output."""

    batch_axis = 1

    def __init__(
        self, cell: str, *, vocabulary_size: int, embedding_size: int, hidden_size: int
    ) -> None:
        check_choice("cell", cell, CELLS)
        check_sizes(
            vocabulary_size=vocabulary_size, embedding_size=embedding_size, hidden_size=hidden_size
        )
        super().__init__(vocabulary_size)
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.cell = CELLS[cell](embedding_size, hidden_size, batch_first=True)
        self.output = nn.Linear(hidden_size, vocabulary_size)

    def features(
        self, inputs: Int[Tensor, "batch time"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """The cell's outputs, and its state after the last input."""
        hidden, state = self.cell(self.embedding(inputs), state)
        return hidden, state

    def logits(self, features: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch vocab"]:
        """Logits of the next token from the cell's outputs."""
        logits: Tensor = self.output(features)
        return logits

    def initial_state(self, batch_size: int) -> State:
        """Zeros of shape (1, B, H), one tensor or, for an LSTM, two."""
        zeros = self.embedding.weight.new_zeros(1, batch_size, self.cell.hidden_size)
        return (zeros, zeros) if isinstance(self.cell, nn.LSTM) else zeros
