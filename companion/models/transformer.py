"""A small decoder-only Transformer built from PyTorch's own layers.

Shape legend: B batch, T time, V vocabulary. A causal mask hides later tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from companion.core.settings import check_sizes
from companion.models.base import LanguageModel

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class TransformerModel(LanguageModel):
    """A decoder-only Transformer of PyTorch's own layers (Vaswani et al. 2017), with layer
    normalisation before each sublayer and learned position embeddings. Its state is all tokens read
    so far, which it reads again at each call: simple, but slow for long texts.

    Raises ValueError for a size below 1 or a width that `num_heads` does not divide, TypeError for
    one that is not a whole number.
    """

    state_grows = True

    def __init__(
        self,
        *,
        vocabulary_size: int,
        width: int,
        num_layers: int = 2,
        num_heads: int = 4,
        max_length: int = 32,
    ) -> None:
        check_sizes(
            vocabulary_size=vocabulary_size, width=width, num_layers=num_layers,
            num_heads=num_heads, max_length=max_length,
        )  # fmt: skip
        if width % num_heads:
            raise ValueError(
                f"width must be divisible by num_heads, got width {width} and num_heads {num_heads}"
            )
        super().__init__(vocabulary_size)
        self.max_length: int = max_length
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.positions = nn.Embedding(max_length, width)
        nn.init.normal_(self.positions.weight, std=0.1)
        layer = nn.TransformerEncoderLayer(
            width, num_heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary_size)

    def features(
        self, inputs: Int[Tensor, "batch time"], state: Int[Tensor, "batch read"] | None = None
    ) -> tuple[Float[Tensor, "batch time width"], Int[Tensor, "batch all"]]:
        """The last layer's outputs at the inputs, and all tokens read so far; ValueError when they
        are more than the model's `max_length`."""
        new = inputs.shape[1]
        if state is None:
            state = self.initial_state(len(inputs))
        inputs = torch.cat([state, inputs], dim=1)  # a copy: not the caller's memory
        length = inputs.shape[1]
        if length > self.max_length:
            raise ValueError(
                f"the model has positions for {self.max_length} tokens, got {length};"
                " read shorter texts, or make the model with a larger max_length"
            )
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=inputs.device)
        places = torch.arange(length, device=inputs.device)
        hidden = self.embedding(inputs) + self.positions(places)
        hidden = self.layers(hidden, mask=mask, is_causal=True)[:, length - new :]
        return self.norm(hidden), inputs

    def logits(self, features: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocab"]:
        """Logits of the next token from the last layer's outputs."""
        logits: Tensor = self.output(features)
        return logits

    def initial_state(self, batch_size: int) -> Int[Tensor, "batch nothing"]:
        """No tokens read yet: shape (B, 0)."""
        return torch.zeros(batch_size, 0, dtype=torch.long, device=self.device)
