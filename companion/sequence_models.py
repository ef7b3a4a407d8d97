"""Small next-token models beside the LSTM: other recurrent cells, and a Transformer.

Shape legend: B batch, T time, V vocabulary, E embedding, H hidden. All are called as the LSTM of
`companion.lstm` is: token ids (B, T) and a state in, None at the start of a text; logits (B, T, V)
of what follows each token and the state after the last one out. They see no token before its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float, Int

#: Recurrent cells by name; the plain one has tanh.
CELLS: dict[str, type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]] = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "tanh RNN": nn.RNN,
}


class RecurrentModel(nn.Module):
    """Embedding, one layer of a recurrent cell, linear output."""

    def __init__(
        self, cell: str, *, vocabulary_size: int, embedding_size: int, hidden_size: int
    ) -> None:
        if cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.cell = CELLS[cell](embedding_size, hidden_size, batch_first=True)
        self.output = nn.Linear(hidden_size, vocabulary_size)

    def forward(
        self, inputs: Int[Tensor, "batch time"], state: Any = None
    ) -> tuple[Float[Tensor, "batch time vocab"], Any]:
        """Logits of the token after each input, and the cell's state after the last."""
        hidden, state = self.cell(self.embedding(inputs), state)
        return self.output(hidden), state


class TransformerModel(nn.Module):
    """A decoder-only Transformer of PyTorch's own layers (Vaswani et al. 2017), normalised before
    each sublayer, with a learned vector for each position. Its state is all that it has read, which
    it reads again at each call: simple, and slow for long texts."""

    def __init__(
        self,
        *,
        vocabulary_size: int,
        width: int,
        num_layers: int = 2,
        num_heads: int = 4,
        max_length: int = 32,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.positions = nn.Embedding(max_length, width)
        nn.init.normal_(self.positions.weight, std=0.1)
        layer = nn.TransformerEncoderLayer(
            width, num_heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary_size)

    def forward(
        self, inputs: Int[Tensor, "batch time"], state: Int[Tensor, "batch read"] | None = None
    ) -> tuple[Float[Tensor, "batch time vocab"], Int[Tensor, "batch all"]]:
        """Logits of the token after each input, and all tokens so far; ValueError when the model
        has too few positions for them."""
        new = inputs.shape[1]
        if state is not None:
            inputs = torch.cat([state, inputs], dim=1)
        length = inputs.shape[1]
        if length > self.positions.num_embeddings:
            raise ValueError(
                f"the model has positions for {self.positions.num_embeddings} tokens, got {length}"
            )
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=inputs.device)
        places = torch.arange(length, device=inputs.device)
        hidden = self.embedding(inputs) + self.positions(places)
        hidden = self.layers(hidden, mask=mask, is_causal=True)[:, length - new :]
        return self.output(self.norm(hidden)), inputs


def num_parameters(model: nn.Module) -> int:
    """Number of trained numbers."""
    return sum(parameter.numel() for parameter in model.parameters())
