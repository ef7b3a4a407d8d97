"""How near the floor does a language model come, where the floor is known exactly?

The source is the review grammar, whose entropy per token is computed exactly. An LSTM and n-gram
models learn from the same sampled texts. The loss above the entropy is KL(p || q): the mean over
positions of the KL between the exact next-token distribution and the model's, so that only the
prefixes are sampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_counts, settings_class
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.models.ngram import NGramModel
from companion.sources.grammar import VOCABULARY
from companion.sources.reviews import GrammarSource
from companion.sources.streams import true_rows
from companion.training.config import TrainConfig
from companion.training.continued import train_and_measure
from companion.training.from_source import steps_of, training_text

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@settings_class
class Config:
    """Settings of the models, the training text and the measurement."""

    model: LSTMConfig = LSTMConfig(
        vocabulary_size=len(VOCABULARY), embedding_size=32, hidden_size=128
    )
    """Size of the LSTM."""
    training: TrainConfig = TrainConfig(
        steps=2600, num_streams=16, window_length=64, learning_rate=1e-2
    )
    """Training of the LSTM, on fresh text."""
    ngram_orders: tuple[int, ...] = (2, 3, 4, 5)
    """Orders of the Kneser-Ney models fitted on the same text."""
    test_tokens: int = 48_000
    """Fresh tokens on which KL is measured, in 16 rows."""
    curve_points: int = 6
    """Number of KL measurements: after the last step, after half of the steps, a quarter, ..."""
    curve_length: int = 500
    """Tokens of each test row used for the measurements before the last step."""

    def __post_init__(self) -> None:
        check_counts(self)
        if self.test_tokens < 16 * self.curve_length:
            raise ValueError(
                f"test_tokens must be >= 16 * curve_length, got {self.test_tokens} "
                f"and {self.curve_length}"
            )


@dataclass(kw_only=True)
class Result:
    """Exact and measured figures, in nats per token unless stated otherwise."""

    entropy_nats_per_token: float
    """Exact entropy of the source, the floor of the loss."""
    kl_nats_per_token: float
    """KL(p || q) from the source to the trained LSTM: its loss above the floor."""
    kl_standard_error: float
    """Standard error of that KL, over the rows of the test text."""
    illegal_mass_per_token: float
    """Mean probability that the LSTM gives to next tokens that the grammar forbids."""
    training_tokens: int
    """Number of tokens read in training, none of them twice."""
    ngram_kl_nats_per_token: dict[str, float] = field(default_factory=dict)
    """KL(p || q) from the source to the n-gram models, by their order."""
    curve_steps: list[int] = field(default_factory=list)
    """Optimizer steps after which the LSTM was measured."""
    curve_kl_nats_per_token: list[float] = field(default_factory=list)
    """KL(p || q) from the source to the LSTM after each of `curve_steps`."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train on fresh text from the source, and measure every model against the source."""
    source = GrammarSource()
    train_ids = training_text(source, config.training, seed=seed)
    test_rows = true_rows(source, 16, config.test_tokens // 16, make_generator(seed, "test text"))

    seed_everything(seed)
    model = LSTMLanguageModel(config.model)
    steps = steps_of(config.training)
    points = [steps // 2**k for k in range(config.curve_points - 1, 0, -1)]
    curve: list[float] = []

    def measure_shortly(model: LSTMLanguageModel) -> None:
        kl, _ = measure(model, source, test_rows[:, : config.curve_length])
        curve.append(float(kl.mean()))

    train_and_measure(
        model, train_ids, config.training, at=points, measure=measure_shortly, progress=progress
    )
    kl, illegal = measure(model, source, test_rows)
    rows = kl.mean(dim=1)
    return Result(
        entropy_nats_per_token=source.entropy_rate(),
        kl_nats_per_token=float(kl.mean()),
        kl_standard_error=float(rows.std() / math.sqrt(rows.numel())),
        illegal_mass_per_token=float(illegal.mean()),
        training_tokens=train_ids.numel() - 1,
        ngram_kl_nats_per_token={
            str(order): ngram_kl(source, train_ids, test_rows, order)
            for order in config.ngram_orders
        },
        curve_steps=[*points, steps],
        curve_kl_nats_per_token=[*curve, float(kl.mean())],
    )


@torch.no_grad()
def measure(
    model: LanguageModel, source: GrammarSource, rows: Int[torch.Tensor, "rows tokens"]
) -> tuple[Float[torch.Tensor, "rows time"], Float[torch.Tensor, "rows time"]]:
    """KL(p || q) at each position of the rows, exact given the prefix; and the probability that q
    gives to forbidden tokens at each position.

    Leaves the model in evaluation mode.
    """
    model.eval()
    states = source.walk(rows[:, 1:])
    kl, illegal = [], []
    state = None
    for start in range(0, states.shape[1], 500):
        logits, state = model(rows[:, :-1][:, start : start + 500], state)
        there = states[:, start : start + 500]
        log_q = torch.log_softmax(logits.cpu().double(), dim=-1)
        kl.append(source.kl_from(log_q, there))
        illegal.append(source.illegal_mass(log_q.exp(), there))
    return torch.cat(kl, dim=1), torch.cat(illegal, dim=1)


def ngram_kl(
    source: GrammarSource,
    train_ids: Int[torch.Tensor, " training"],
    test_rows: Int[torch.Tensor, "rows tokens"],
    order: int,
) -> float:
    """KL from the source to an interpolated Kneser-Ney model, in nats per token, estimated.

    The mean of log p - log q over the test tokens estimates KL(p || q); using the same tokens for
    both removes most of the sampling noise.
    """
    model = NGramModel.fit(
        train_ids, order=order, vocabulary_size=source.vocabulary_size, smoothing="kneser-ney"
    )
    differences = [
        np.mean(model.nats(row)[1:]) - float(source.nats(row[1:]).mean()) for row in test_rows
    ]
    return float(np.mean(differences))
