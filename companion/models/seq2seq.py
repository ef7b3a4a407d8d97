"""Encoder and decoder with attention: a language model of the target, given a source.

The encoder reads the source in both directions. The decoder is a `LanguageModel` whose state holds
what the encoder wrote, so `generate` and `beam_search` work with it as with any other model:

    beam_search(model.given(source), prompt, 40, width=4, end_id=end_id)

The encoder-decoder is Sutskever et al. 2014; the attention is read after the decoder's LSTM, as in
Luong et al. 2015, with their scores "dot" and "general" or the additive one of Bahdanau et al.
2015.

Shape legend: B batch, S source positions, T target positions, H hidden, V target vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from companion.core.settings import check_choice, check_sizes, settings_class
from companion.models.base import LanguageModel

if TYPE_CHECKING:
    from jaxtyping import Float, Int

#: How a decoder's position is compared with a source position.
Attention = Literal["dot", "general", "additive", "uniform", "none"]


#: What the decoder knows of B texts, one row a text: the LSTM's h and c, each (B, H); what the
#: encoder wrote at each source position, its memory (B, S, H); and the source tokens of each text
#: (B): memory from there on is padding.
DecoderState = tuple[Tensor, Tensor, Tensor, Tensor]


@settings_class
class Seq2SeqConfig:
    """Size of a `Seq2Seq` model and its kind of attention."""

    source_size: int
    """Number of token kinds of the source."""
    target_size: int
    """Number of token kinds of the target V."""
    embedding_size: int = 64
    """Size of the token embeddings of both."""
    hidden_size: int = 128
    """Units of the decoder's LSTM, and of both directions of the encoder together; even."""
    attention: Attention = "general"
    """dot: h·m; general: h·Wm; additive: v·tanh(Wh + Um); uniform: the mean over the source, with
    nothing learnt; none: the decoder knows of the source only its first state."""
    dropout: float = 0.0
    """Probability of dropping an activation, after the embeddings and before the output."""

    def __post_init__(self) -> None:
        check_sizes(
            source_size=self.source_size, target_size=self.target_size,
            embedding_size=self.embedding_size, hidden_size=self.hidden_size,
        )  # fmt: skip
        if self.hidden_size % 2:
            raise ValueError(
                f"hidden_size must be even, for two directions, got {self.hidden_size}"
            )
        check_choice("attention", self.attention, Attention)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


class Seq2Seq(LanguageModel):
    """An LSTM that reads a source in both directions, and one that writes the target."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__(config.target_size)
        self.config = config
        hidden, half = config.hidden_size, config.hidden_size // 2
        self.source_embedding = nn.Embedding(config.source_size, config.embedding_size)
        self.forwards = nn.LSTM(config.embedding_size, half, batch_first=True)
        self.backwards = nn.LSTM(config.embedding_size, half, batch_first=True)
        self.first_state = nn.Linear(hidden, 2 * hidden)
        self.embedding = nn.Embedding(config.target_size, config.embedding_size)
        self.lstm = nn.LSTM(config.embedding_size, hidden, batch_first=True)
        self.attention = SourceAttention(hidden, config.attention)
        read = hidden if config.attention == "none" else 2 * hidden
        self.combine = nn.Linear(read, hidden)
        self.output = nn.Linear(hidden, config.target_size)
        self.dropout = nn.Dropout(config.dropout)

    def encode(
        self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"]
    ) -> DecoderState:
        """The decoder's state before its first token.

        source: token ids; those of each row from `lengths` on are padding, and may be any. They
            change nothing: the direction from the end begins at each row's own last token.

        Raises ValueError for a row without a token or a length beyond the batch's.
        """
        self._check_source(source, lengths)
        embedded = self.dropout(self.source_embedding(source))
        positions = torch.arange(source.shape[1], device=source.device)
        inside = positions < lengths.unsqueeze(1)  # [B, S]
        # Each row turned round within its own length; padding stays where it is.
        turned = torch.where(inside, lengths.unsqueeze(1) - 1 - positions, positions)
        onward, _ = self.forwards(embedded)
        back, _ = self.backwards(_rows_at(embedded, turned))
        last = (lengths - 1).unsqueeze(1)
        ends = torch.cat([_rows_at(onward, last), _rows_at(back, last)], dim=-1).squeeze(1)
        memory = torch.cat([onward, _rows_at(back, turned)], dim=-1)
        hidden, cell = torch.tanh(self.first_state(ends)).chunk(2, dim=-1)
        return hidden, cell, memory, lengths

    def given(
        self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"] | None = None
    ) -> GivenSource:
        """The language model of the target, given these sources: for `generate` (a prompt for each
        source) and, with one source, `beam_search`. `lengths` None means that no row is padded."""
        if lengths is None:
            lengths = torch.full((len(source),), source.shape[1], device=source.device)
        return GivenSource(self, self.encode(source, lengths))

    def translate_logits(
        self,
        source: Int[Tensor, "batch source"],
        lengths: Int[Tensor, " batch"],
        inputs: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time vocab"]:
        """Logits of the token after each target input: teacher forcing, all positions at once."""
        features, _ = self.features(inputs, self.encode(source, lengths))
        return self.logits(features)

    @torch.no_grad()
    def attention_weights(
        self,
        source: Int[Tensor, "batch source"],
        lengths: Int[Tensor, " batch"],
        inputs: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time source"]:
        """How much of each source position is read for the token after each target input.

        Each row sums to one; padding has exactly zero. Raises ValueError without attention.
        """
        if self.config.attention == "none":
            raise ValueError('a model with attention="none" has no attention weights')
        state = self.encode(source, lengths)
        hidden, _ = self._run(inputs, state)
        return self.attention.weights(hidden, *state[2:])

    def features(
        self, inputs: Int[Tensor, "batch time"], state: DecoderState | None = None
    ) -> tuple[Float[Tensor, "batch time hidden"], DecoderState]:
        """What the output layer reads at each input, and the state after the last one."""
        if state is None:
            state = self.initial_state(len(inputs))
        hidden, after = self._run(inputs, state)
        if self.config.attention != "none":
            context = self.attention(hidden, *state[2:])
            hidden = torch.cat([hidden, context], dim=-1)
        return self.dropout(torch.tanh(self.combine(hidden))), after

    def logits(self, features: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch vocab"]:
        """Logits of the next target token."""
        logits: Tensor = self.output(features)
        return logits

    def initial_state(self, batch_size: int) -> DecoderState:
        """Raises ValueError: the initial state depends on a source; use `given`."""
        raise ValueError("a translation begins with a source; use model.given(source, lengths)")

    def _run(self, inputs: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """The decoder's LSTM alone: its outputs, and the state after the last input."""
        h, c, memory, lengths = state
        before = (h.unsqueeze(0), c.unsqueeze(0))
        hidden, (h, c) = self.lstm(self.dropout(self.embedding(inputs)), before)
        return hidden, (h.squeeze(0), c.squeeze(0), memory, lengths)

    def _check_source(self, source: Tensor, lengths: Tensor) -> None:
        if source.ndim != 2 or lengths.shape != source.shape[:1]:
            raise ValueError(
                "a source must have shape (batch, time), with one length a row, got "
                f"{tuple(source.shape)} and {tuple(lengths.shape)}"
            )
        if not source.numel():
            raise ValueError(f"a source needs one token or more, got shape {tuple(source.shape)}")
        low, high = (int(end) for end in torch.aminmax(lengths))
        if low < 1 or high > source.shape[1]:
            raise ValueError(
                f"lengths must be between 1 and {source.shape[1]}, the source's positions, got "
                f"{low if low < 1 else high}"
            )


class GivenSource(LanguageModel):
    """A `Seq2Seq` model whose initial state is that of given sources; made by `Seq2Seq.given`."""

    def __init__(self, model: Seq2Seq, state: DecoderState) -> None:
        super().__init__(model.vocabulary_size)
        self.model = model
        self.state = state
        self.training = model.training

    def features(
        self, inputs: Int[Tensor, "batch time"], state: DecoderState | None = None
    ) -> tuple[Float[Tensor, "batch time hidden"], DecoderState]:
        """As the model's, from the sources' own state where there is none yet."""
        return self.model.features(
            inputs, self.initial_state(len(inputs)) if state is None else state
        )

    def logits(self, features: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch vocab"]:
        """Logits of the next target token."""
        return self.model.logits(features)

    def initial_state(self, batch_size: int) -> DecoderState:
        """The state before the first target token; one source serves for any number of texts."""
        hidden, cell, memory, lengths = self.state
        if len(lengths) == 1:
            return (
                hidden.expand(batch_size, -1), cell.expand(batch_size, -1),
                memory.expand(batch_size, -1, -1), lengths.expand(batch_size),
            )  # fmt: skip
        if batch_size != len(lengths):
            raise ValueError(f"there are {len(lengths)} sources, got {batch_size} prompts")
        return self.state


class SourceAttention(nn.Module):
    """The mean of what the encoder wrote, weighted by how well each position fits the decoder."""

    def __init__(self, size: int, kind: Attention) -> None:
        super().__init__()
        self.kind = kind
        if kind == "general":
            self.query = nn.Linear(size, size, bias=False)
        elif kind == "additive":
            self.query = nn.Linear(size, size)
            self.key = nn.Linear(size, size, bias=False)
            self.score = nn.Linear(size, 1, bias=False)

    def weights(
        self,
        hidden: Float[Tensor, "batch time hidden"],
        memory: Float[Tensor, "batch source hidden"],
        lengths: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch time source"]:
        """Softmax of the scores over the positions before each row's length; zero from there on."""
        if self.kind == "additive":
            summed = self.query(hidden).unsqueeze(2) + self.key(memory).unsqueeze(1)
            scores = self.score(torch.tanh(summed)).squeeze(-1)
        elif self.kind == "uniform":
            scores = hidden.new_zeros(*hidden.shape[:2], memory.shape[1])
        else:
            query = self.query(hidden) if self.kind == "general" else hidden
            scores = query @ memory.transpose(1, 2)
        positions = torch.arange(memory.shape[1], device=memory.device)
        padding = (positions >= lengths.unsqueeze(1)).unsqueeze(1)
        return torch.softmax(scores.masked_fill(padding, -math.inf), dim=-1)

    def forward(
        self,
        hidden: Float[Tensor, "batch time hidden"],
        memory: Float[Tensor, "batch source hidden"],
        lengths: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch time hidden"]:
        """The context: one mean over the source for each decoder position."""
        return self.weights(hidden, memory, lengths) @ memory


def _rows_at(values: Tensor, places: Tensor) -> Tensor:
    """`values[b, places[b, i]]` for each row b: (B, S, H) and (B, I) give (B, I, H)."""
    return values.gather(1, places.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
