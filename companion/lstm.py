"""The LSTM language model, and its cell written out.

Shape legend: B batch (parallel streams), T time, V vocabulary, E embedding, H hidden, L layers.
The model is Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, in
PyTorch's gate order (input, forget, cell, output); tied weights are Press & Wolf 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float, Int

#: Hidden state h and cell state c, each (L, B, H).
State = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class LSTMConfig:
    """Size and regularisation of an `LSTMLanguageModel`."""

    vocabulary_size: int
    """Number of token kinds V."""
    embedding_size: int = 128
    """Numbers that represent a token on the way in, E."""
    hidden_size: int = 128
    """Numbers in each layer's state, H."""
    num_layers: int = 1
    """Stacked LSTM layers, L."""
    dropout: float = 0.0
    """Probability of dropping an activation: after the embedding, between layers, and before the
    output."""
    tie_weights: bool = False
    """Use the embedding matrix as the output matrix; needs embedding_size == hidden_size."""
    forget_bias: float = 0.0
    """Initial bias of the forget gate; above zero, the cell starts by remembering, which long
    dependencies need (Jozefowicz et al. 2015)."""

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "embedding_size", "hidden_size", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.tie_weights and self.embedding_size != self.hidden_size:
            raise ValueError(
                "tie_weights needs embedding_size == hidden_size, got "
                f"{self.embedding_size} and {self.hidden_size}"
            )
        if not math.isfinite(self.forget_bias):
            raise ValueError(f"forget_bias must be finite, got {self.forget_bias}")


class LSTMLanguageModel(nn.Module):
    """Embedding, LSTM, linear output: next-token logits at every position.

    The state is passed in and returned; the model keeps none. Pass `detach(state)` to the next
    window, so that gradients stop at its edge (truncated back-propagation through time).
    """

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_size)
        self.lstm = nn.LSTM(
            config.embedding_size,
            config.hidden_size,
            config.num_layers,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_size, config.vocabulary_size)
        if config.tie_weights:
            self.output.weight = self.embedding.weight
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw initial weights from torch's global generator.

        Output weights are small, so the first loss is close to ln V. Embeddings of size one train
        faster than small ones (Tiny Shakespeare, one epoch: 1.9 against 2.8 nats a character), but
        a tied matrix is also the output's, so there they are small.
        """
        bound = 1 / math.sqrt(self.config.hidden_size)
        if self.config.tie_weights:
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        else:
            nn.init.normal_(self.embedding.weight)
            nn.init.uniform_(self.output.weight, -bound, bound)
        nn.init.zeros_(self.output.bias)
        hidden = self.config.hidden_size
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("weight"):
                nn.init.uniform_(parameter, -bound, bound)
            else:
                nn.init.zeros_(parameter)
                if name.startswith("bias_ih"):
                    parameter.data[hidden : 2 * hidden] = self.config.forget_bias

    def features(
        self, inputs: Int[Tensor, "batch time"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """The last layer's outputs, before the output layer, and the state after the last input."""
        embedded = self.dropout(self.embedding(inputs.T))  # (T, B, E): nn.LSTM's fast layout
        outputs, state = self.lstm(embedded, state)
        # Contiguous, so that the output layer is one product with the bias fused in.
        return self.dropout(outputs).transpose(0, 1).contiguous(), state

    def forward(
        self, inputs: Int[Tensor, "batch time"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch time vocab"], State]:
        """Logits of the token after each input, and the state after the last input.

        No softmax: losses take logits. `state` None means zeros, nothing read before.
        """
        features, state = self.features(inputs, state)
        return self.output(features), state

    def initial_state(self, batch_size: int) -> State:
        """Zeros of shape (L, B, H), on the model's device."""
        weight = self.embedding.weight
        shape = (self.config.num_layers, batch_size, self.config.hidden_size)
        return weight.new_zeros(shape), weight.new_zeros(shape)

    @property
    def num_parameters(self) -> int:
        """Number of trained numbers; a tied matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


def detach(state: State) -> State:
    """The same state, cut from the graph that made it. Both h and c must be cut."""
    hidden, cell = state
    return hidden.detach(), cell.detach()


def lstm_cell(
    x: Float[Tensor, "batch embedding"],
    state: tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]],
    weight_ih: Float[Tensor, "4*hidden embedding"],
    weight_hh: Float[Tensor, "4*hidden hidden"],
    bias: Float[Tensor, " 4*hidden"],
) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]:
    """One step of one LSTM layer, as the equations say it: the new (h, c)."""
    h, c = state
    gates = x @ weight_ih.T + h @ weight_hh.T + bias  # (B, 4H)
    input_gate, forget_gate, candidate, output_gate = gates.chunk(4, dim=1)
    c = torch.sigmoid(forget_gate) * c + torch.sigmoid(input_gate) * torch.tanh(candidate)
    h = torch.sigmoid(output_gate) * torch.tanh(c)
    return h, c


def reference_lstm(
    lstm: nn.LSTM, inputs: Float[Tensor, "time batch embedding"], state: State
) -> tuple[Float[Tensor, "time batch hidden"], State]:
    """What `nn.LSTM` computes in evaluation mode, by `lstm_cell` in two plain loops.

    The teaching reference: equal to `lstm(inputs, state)` in outputs and gradients, and slow.
    """
    hidden_states, cell_states = [], []
    for layer in range(lstm.num_layers):
        weight_ih, weight_hh, bias_ih, bias_hh = lstm.all_weights[layer]
        h, c = state[0][layer], state[1][layer]
        outputs = []
        for x in inputs:
            h, c = lstm_cell(x, (h, c), weight_ih, weight_hh, bias_ih + bias_hh)
            outputs.append(h)
        inputs = torch.stack(outputs)
        hidden_states.append(h)
        cell_states.append(c)
    return inputs, (torch.stack(hidden_states), torch.stack(cell_states))
