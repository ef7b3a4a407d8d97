"""The LSTM language model, and its cell written out.

Shape legend: B batch (parallel streams), T time, V vocabulary, E embedding, H hidden, L layers.
The model is Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, in
PyTorch's gate order (input, forget, cell, output); tied weights are Press & Wolf 2017. Its
regularisation is AWD-LSTM's (Merity et al. 2018): weight drop, and dropout with one mask for a
whole window (Gal & Ghahramani 2016).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.core.settings import settings_class
from companion.models.base import LanguageModel

if TYPE_CHECKING:
    from jaxtyping import Float, Int

#: Hidden state h and cell state c, each (L, B, H). A narrower last layer uses its first columns.
State = tuple[Tensor, Tensor]


@settings_class
class LSTMConfig:
    """Size and regularisation of an `LSTMLanguageModel`."""

    vocabulary_size: int
    """Number of token kinds V."""
    embedding_size: int = 128
    """Size of the token embeddings, E."""
    hidden_size: int = 128
    """Hidden units of each layer, H."""
    num_layers: int = 1
    """Number of stacked LSTM layers, L."""
    last_size: int | None = None
    """Hidden units of the last layer; None means hidden_size. Set it to embedding_size to tie the
    weights of an LSTM that is wider than its embeddings."""
    dropout: float = 0.0
    """Probability of dropping an activation: after the embedding, between layers, and before the
    output."""
    input_dropout: float | None = None
    """Dropout probability after the embedding; None means `dropout`."""
    layer_dropout: float | None = None
    """Dropout probability between layers; None means `dropout`."""
    variational: bool = False
    """Drop the same activations at all positions of a window, instead of drawing a mask for each
    position (Gal & Ghahramani 2016)."""
    embedding_dropout: float = 0.0
    """Probability of dropping a token of the vocabulary, at all its positions in the window."""
    weight_drop: float = 0.0
    """Probability of dropping a hidden-to-hidden weight, for a whole window (DropConnect)."""
    tie_weights: bool = False
    """Use the embedding matrix as the output matrix; needs embedding_size equal to the last layer's
    hidden size."""
    forget_bias: float = 0.0
    """Initial bias of the forget gate; a positive value makes the cell remember at first, which
    helps to learn long dependencies (Jozefowicz et al. 2015)."""
    adaptive_cutoffs: tuple[int, ...] = ()
    """Token ids, most frequent tokens first, at which an adaptive softmax cuts the vocabulary into
    clusters (Grave et al. 2017); empty means one linear output layer."""

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "embedding_size", "hidden_size", "num_layers", "last_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if self.last_size is not None and self.last_size > self.hidden_size:
            raise ValueError(
                f"last_size must be at most hidden_size, {self.hidden_size}, got {self.last_size}"
            )
        for name in (
            "dropout", "input_dropout", "layer_dropout", "embedding_dropout", "weight_drop",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        if self.tie_weights and self.embedding_size != self.layer_sizes[-1]:
            which = "hidden_size" if self.last_size is None else "last_size"
            raise ValueError(
                f"tie_weights needs embedding_size == {which}, got "
                f"{self.embedding_size} and {self.layer_sizes[-1]}"
            )
        if not math.isfinite(self.forget_bias):
            raise ValueError(f"forget_bias must be finite, got {self.forget_bias}")
        if self.adaptive_cutoffs:
            cuts = [0, *self.adaptive_cutoffs, self.vocabulary_size]
            if any(low >= high for low, high in itertools.pairwise(cuts)):
                raise ValueError(
                    "adaptive_cutoffs must rise, between 0 and the vocabulary's "
                    f"{self.vocabulary_size} tokens, got {self.adaptive_cutoffs}"
                )
            if self.tie_weights:
                raise ValueError("adaptive_cutoffs cannot be combined with tie_weights")

    @property
    def layer_sizes(self) -> list[int]:
        """Hidden size of each layer, from the first to the last."""
        return [self.hidden_size] * (self.num_layers - 1) + [self.last_size or self.hidden_size]


class LSTMLanguageModel(LanguageModel):
    """Embedding, LSTM, linear output: next-token logits at every position.

    The state is passed in and returned; the module stores none. Pass `detach(state)` to the next
    window, so that gradients stop at its edge (truncated back-propagation through time).
    """

    batch_axis = 1

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config.vocabulary_size)
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_size)
        between = config.dropout if config.layer_dropout is None else config.layer_dropout
        self.lstm: nn.LSTM | LSTMStack
        if config.variational or config.weight_drop or config.last_size:
            self.lstm = LSTMStack(
                config.embedding_size,
                config.layer_sizes,
                dropout=_dropout(between, config.variational),
                weight_drop=config.weight_drop,
            )
        else:  # all layers in one call
            self.lstm = nn.LSTM(
                config.embedding_size,
                config.hidden_size,
                config.num_layers,
                dropout=between if config.num_layers > 1 else 0.0,
            )
        before = config.dropout if config.input_dropout is None else config.input_dropout
        self.input_dropout = _dropout(before, config.variational)
        self.dropout = _dropout(config.dropout, config.variational)
        self.output: nn.Linear | nn.AdaptiveLogSoftmaxWithLoss
        if config.adaptive_cutoffs:
            self.output = nn.AdaptiveLogSoftmaxWithLoss(
                config.layer_sizes[-1], config.vocabulary_size, list(config.adaptive_cutoffs)
            )
        else:
            self.output = nn.Linear(config.layer_sizes[-1], config.vocabulary_size)
            if config.tie_weights:
                self.output.weight = self.embedding.weight
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw initial weights from torch's global generator.

        Output weights are small, so the first loss is close to ln V. Embeddings with standard
        deviation 1 train faster than small ones (Tiny Shakespeare after one epoch: 1.9 against 2.8
        nats per character); a tied matrix is also the output matrix, so it starts small.
        """
        bound = 1 / math.sqrt(self.config.layer_sizes[-1])
        if self.config.tie_weights:
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        else:
            nn.init.normal_(self.embedding.weight)
        if isinstance(self.output, nn.Linear):
            if not self.config.tie_weights:
                nn.init.uniform_(self.output.weight, -bound, bound)
            nn.init.zeros_(self.output.bias)
        for layers in self.lstm.modules():
            if isinstance(layers, nn.LSTM):
                self._reset_layers(layers)

    def _reset_layers(self, lstm: nn.LSTM) -> None:
        hidden = lstm.hidden_size
        bound = 1 / math.sqrt(hidden)
        for name, parameter in lstm.named_parameters():
            if name.startswith("weight"):
                nn.init.uniform_(parameter, -bound, bound)
            else:
                nn.init.zeros_(parameter)
                if name.startswith("bias_ih"):
                    parameter.data[hidden : 2 * hidden] = self.config.forget_bias

    def outputs(
        self,
        inputs: Int[Tensor, "batch time"],
        state: State | None = None,
        *,
        embedded: Float[Tensor, "time batch embedding"] | None = None,
    ) -> tuple[Float[Tensor, "time batch hidden"], State]:
        """The last layer's outputs before dropout, time first, and the state after the last.

        `embedded` are the embeddings of the inputs, where they were looked up before.
        """
        if embedded is None:
            embedded = self.embedding(inputs.T)  # (T, B, E): nn.LSTM's fast layout
        if self.training and self.config.embedding_dropout:
            ones = embedded.new_ones(self.config.vocabulary_size)
            kept = F.dropout(ones, self.config.embedding_dropout)
            embedded = embedded * kept[inputs.T].unsqueeze(-1)
        outputs, state = self.lstm(self.input_dropout(embedded), state)
        return outputs, state

    def features(
        self, inputs: Int[Tensor, "batch time"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """The last layer's outputs after dropout, and the state after the last input."""
        outputs, state = self.outputs(inputs, state)
        # Contiguous, so that the output layer is one matrix product with the bias fused in.
        return self.dropout(outputs).transpose(0, 1).contiguous(), state

    def logits(self, features: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch vocab"]:
        """Logits of the next token from `features`; an adaptive softmax gives log-probabilities."""
        if isinstance(self.output, nn.AdaptiveLogSoftmaxWithLoss):
            flat = self.output.log_prob(features.flatten(0, -2))
            return flat.view(*features.shape[:-1], self.config.vocabulary_size)
        logits: Tensor = self.output(features)
        return logits

    def initial_state(self, batch_size: int) -> State:
        """Zeros of shape (L, B, H), on the model's device."""
        weight = self.embedding.weight
        shape = (self.config.num_layers, batch_size, self.config.hidden_size)
        return weight.new_zeros(shape), weight.new_zeros(shape)


class LSTMStack(nn.Module):
    """Stacked LSTM layers with options that `nn.LSTM` lacks.

    The layers may differ in size, the dropout between them is any module, and weight drop
    (DropConnect on the hidden-to-hidden weights) draws one mask per call.
    """

    def __init__(
        self, input_size: int, sizes: list[int], *, dropout: nn.Module, weight_drop: float
    ) -> None:
        super().__init__()
        inputs = [input_size, *sizes[:-1]]
        self.layers = nn.ModuleList(map(nn.LSTM, inputs, sizes))
        self.dropout = dropout
        self.weight_drop = weight_drop
        self.width = max(sizes)

    def forward(
        self, inputs: Float[Tensor, "time batch embedding"], state: State | None = None
    ) -> tuple[Float[Tensor, "time batch hidden"], State]:
        """As `nn.LSTM`: the last layer's outputs, and the state after the last position."""
        if state is None:
            zeros = inputs.new_zeros(len(self.layers), inputs.shape[1], self.width)
            state = zeros, zeros
        hidden, cell = [], []
        outputs = inputs
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, nn.LSTM)
            if index:
                outputs = self.dropout(outputs)
            own = slice(index, index + 1), slice(None), slice(0, layer.hidden_size)
            before = state[0][own].contiguous(), state[1][own].contiguous()
            outputs, (h, c) = self._run(layer, outputs, before)
            unused = (0, self.width - layer.hidden_size)
            hidden.append(F.pad(h, unused))
            cell.append(F.pad(c, unused))
        return outputs, (torch.cat(hidden), torch.cat(cell))

    def _run(self, layer: nn.LSTM, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        if not (self.training and self.weight_drop):
            outputs, after = layer(inputs, state)
            return outputs, after
        weight_ih, weight_hh, *biases = layer.all_weights[0]
        weights = [weight_ih, F.dropout(weight_hh, self.weight_drop), *biases]
        # cuDNN needs all weights in one block of memory, in this order, or copies them each time.
        piece = torch.cat([weight.flatten() for weight in weights])
        parts = torch.split(piece, [weight.numel() for weight in weights])
        weights = [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]
        outputs, h, c = torch.lstm(inputs, state, weights, True, 1, 0.0, True, False, False)
        return outputs, (h, c)


class VariationalDropout(nn.Module):
    """Dropout with one (B, H) mask for all positions of a (T, B, H) tensor."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, inputs: Float[Tensor, "time batch size"]) -> Float[Tensor, "time batch size"]:
        """`inputs` with the dropped columns zero and the others scaled by 1 / (1 - p)."""
        if not (self.training and self.p):
            return inputs
        return inputs * F.dropout(torch.ones_like(inputs[:1]), self.p)


def _dropout(p: float, variational: bool) -> nn.Module:
    return VariationalDropout(p) if variational else nn.Dropout(p)


def lstm_cell(
    x: Float[Tensor, "batch embedding"],
    state: tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]],
    weight_ih: Float[Tensor, "4*hidden embedding"],
    weight_hh: Float[Tensor, "4*hidden hidden"],
    bias: Float[Tensor, " 4*hidden"],
) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]:
    """One step of one LSTM layer, written as the equations: the new (h, c)."""
    h, c = state
    gates = x @ weight_ih.T + h @ weight_hh.T + bias  # (B, 4H)
    input_gate, forget_gate, candidate, output_gate = gates.chunk(4, dim=1)
    kept = torch.sigmoid(forget_gate) * c
    c = kept + torch.sigmoid(input_gate) * torch.tanh(candidate)
    h = torch.sigmoid(output_gate) * torch.tanh(c)
    return h, c


def reference_lstm(
    lstm: nn.LSTM, inputs: Float[Tensor, "time batch embedding"], state: State
) -> tuple[Float[Tensor, "time batch hidden"], State]:
    """What `nn.LSTM` computes in evaluation mode: `lstm_cell` in two loops, over layers and time.

    A slow reference for teaching and tests; outputs and gradients equal those of
    `lstm(inputs, state)` up to rounding.
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
