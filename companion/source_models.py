"""A language model of a source whose truth is known: endless text, and training on it.

Several studies begin with such a model. The recipe is that of the study `known_floor`: every token
of training is fresh, texts follow each other in streams, and the state is carried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from tqdm import tqdm

from companion.automata import END_ID
from companion.lstm import LSTMConfig, LSTMLanguageModel
from companion.runtime import make_generator, seed_everything
from companion.training import TrainConfig, Trainer

if TYPE_CHECKING:
    from jaxtyping import Int


@runtime_checkable
class TextSource(Protocol):
    """What writes independent texts that end with token 0."""

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, the end token included."""

    def mean_length(self) -> float:
        """Expected tokens in a text, its end token included."""

    def sample(self, n: int, *, generator: torch.Generator) -> list[torch.Tensor]:
        """`n` texts, each a 1-D tensor of ids that ends with the end token."""


def endless_text(
    source: TextSource, num_tokens: int, *, generator: torch.Generator
) -> Int[torch.Tensor, " tokens"]:
    """An end token, then text after text of the source; cut off after `num_tokens` tokens."""
    if num_tokens < 1:
        raise ValueError(f"num_tokens must be >= 1, got {num_tokens}")
    texts = [torch.tensor([END_ID])]
    have = 1
    while have < num_tokens:
        more = source.sample(
            int((num_tokens - have) / source.mean_length()) + 1, generator=generator
        )
        texts += more
        have += sum(map(len, more))
    return torch.cat(texts)[:num_tokens]


def train_on_source(
    source: TextSource,
    *,
    seed: int,
    steps: int,
    hidden_size: int = 128,
    embedding_size: int = 32,
    num_streams: int = 16,
    window_length: int = 64,
    learning_rate: float = 1e-2,
    progress: bool = False,
) -> LSTMLanguageModel:
    """A one-layer LSTM, in evaluation mode, after `steps` steps on text it has never seen before.

    Seeds all generators with `seed`, so it is an entry point: the text and the weights follow.
    """
    text = endless_text(
        source, (steps * window_length + 1) * num_streams, generator=make_generator(seed)
    )
    seed_everything(seed)
    model = LSTMLanguageModel(
        LSTMConfig(
            vocabulary_size=source.vocabulary_size,
            embedding_size=embedding_size,
            hidden_size=hidden_size,
        )
    )
    settings = TrainConfig(
        steps=steps,
        num_streams=num_streams,
        window_length=window_length,
        learning_rate=learning_rate,
    )
    trainer = Trainer(model, text, settings, device="cpu")
    model.train()
    for _ in tqdm(range(steps), disable=not progress, unit="step"):
        trainer.train_step()
    return model.eval()
