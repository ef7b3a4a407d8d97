"""Translations by a trained encoder-decoder: greedy for many sentences, or by beam search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.core.settings import check_sizes
from companion.generation.beam import beam_search
from companion.generation.decoding import SamplingConfig, generate
from companion.models.seq2seq import Seq2Seq
from companion.text.parallel import Pair, PairBatch, encode_sources, pair_batch
from companion.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, kw_only=True)
class Translation:
    """A translation that beam search found."""

    text: str
    """The translation."""
    log_prob: float
    """Its log-probability given the source, in nats, the end token included."""
    score: float
    """The key for ranking: log_prob / (number of tokens)**length_penalty."""
    num_tokens: int
    """Its target tokens, without the end token."""
    finished: bool
    """Whether it ends; otherwise it was cut off."""


@dataclass(frozen=True, kw_only=True)
class Translator:
    """An encoder-decoder and the tokenizers of both sides."""

    model: Seq2Seq
    """The model, in evaluation mode."""
    source: Tokenizer
    """Tokenizer of the source language."""
    target: Tokenizer
    """Tokenizer of the target language."""

    def __post_init__(self) -> None:
        sizes = (self.model.config.source_size, self.model.config.target_size)
        theirs = (self.source.vocabulary_size, self.target.vocabulary_size)
        if sizes != theirs:
            raise ValueError(
                f"the model has {sizes[0]} source and {sizes[1]} target tokens, the tokenizers "
                f"have {theirs[0]} and {theirs[1]}; use those it was trained with"
            )

    def batch(self, pairs: Sequence[Pair]) -> PairBatch:
        """Pairs as one padded batch, on the model's device."""
        batch = pair_batch(pairs, self.source, self.target)
        return batch.to(self.model.device)

    def translate(
        self, sentences: Sequence[str], *, max_tokens: int = 100, batch_size: int = 100
    ) -> list[str]:
        """The greedy translation of each sentence, at most `max_tokens` tokens long."""
        check_sizes(max_tokens=max_tokens, batch_size=batch_size)
        end = self.target.end_id
        translations: list[str] = [""] * len(sentences)
        # Sentences alike in length go together: little padding, and few wait for the longest.
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            source, lengths = self._encoded([sentences[i] for i in places])
            with torch.no_grad():
                given = self.model.given(source, lengths)
            prompts = torch.full((len(places), 1), end, device=source.device)
            rows = generate(
                given, prompts, max_tokens, SamplingConfig(temperature=0), end_id=end
            ).tolist()
            for place, row in zip(places, rows, strict=True):
                ended = row.index(end) if end in row else len(row)
                translations[place] = self.target.decode(row[:ended])
        return translations

    def search(
        self,
        sentence: str,
        *,
        width: int,
        length_penalty: float = 0.0,
        max_tokens: int = 100,
    ) -> list[Translation]:
        """Up to `width` translations that beam search finds, best first; see `beam_search`."""
        source, lengths = self._encoded([sentence])
        end = self.target.end_id
        with torch.no_grad():
            given = self.model.given(source, lengths)
        found = beam_search(
            given, torch.tensor([end], device=source.device), max_tokens,
            width=width, end_id=end, length_penalty=length_penalty,
        )  # fmt: skip
        return [
            Translation(
                text=self.target.decode(h.tokens[: len(h.tokens) - h.finished]),
                log_prob=h.log_prob,
                score=h.score,
                num_tokens=len(h.tokens) - h.finished,
                finished=h.finished,
            )
            for h in found
        ]

    def attention(
        self, sentence: str, translation: str
    ) -> tuple[list[str], list[str], Float[Tensor, "target source"]]:
        """Source tokens, target tokens (both with the end), and what each target token read."""
        batch = self.batch([Pair(sentence, translation)])
        weights = self.model.attention_weights(batch.source, batch.lengths, batch.inputs)[0]
        read = [self.source.tokens[i] for i in batch.source[0].tolist()]
        wrote = [self.target.tokens[i] for i in batch.targets[0].tolist()]
        return read, wrote, weights

    def _encoded(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        source, lengths = encode_sources(sentences, self.source)
        return source.to(self.model.device), lengths.to(self.model.device)
