"""A language model of reviews, and a judge of its texts: what studies of preferences begin with."""

from __future__ import annotations

from companion.core.settings import check_counts, settings_class
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig
from companion.sources.grammar import VOCABULARY
from companion.sources.reviews import GrammarSource
from companion.training.config import TrainConfig
from companion.training.from_source import train_on_texts


@settings_class
class JudgedReviewsConfig:
    """Settings of the model and the judge."""

    model: LSTMConfig = LSTMConfig(vocabulary_size=len(VOCABULARY), embedding_size=64)
    """Size of the LSTM language model."""
    training: TrainConfig = TrainConfig(steps=1000, learning_rate=8e-3)
    """Training of the language model on whole texts; see `train_on_texts`."""
    num_tokens: int = 80
    """Maximum number of tokens of a review."""
    judged_texts: int = 3000
    """Number of the model's reviews from which pairs are drawn."""
    judge_temperature: float = 1.0
    """Temperature of the labels: when the gold rewards differ by this much, 73 % of labels are
    right."""

    def __post_init__(self) -> None:
        check_counts(self)

    def trained(self, source: GrammarSource, *, seed: int, progress: bool = False) -> LanguageModel:
        """A new model, trained on texts of `source`. Sets the seed of all generators."""
        return train_on_texts(
            source, seed=seed, training=self.training, model=self.model, progress=progress
        )
