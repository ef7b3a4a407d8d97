"""How near the floor does a language model come, where the floor is known exactly?

The source is the review grammar, whose entropy per token is computed, not estimated. An LSTM and
n-gram models learn from the same sampled texts. What is left above the entropy is KL(p || q): the
mean over positions of KL between the exact next-token distribution and the model's, so that only
the prefixes are sampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from companion.automata import END_ID
from companion.lstm import LSTMConfig, LSTMLanguageModel
from companion.ngram import NGramModel
from companion.runtime import make_generator, seed_everything
from companion.sources import GrammarSource
from companion.training import TrainConfig, Trainer

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of the models, of the training text and of the measurement."""

    hidden_size: int = 128
    """Of the LSTM."""
    embedding_size: int = 32
    """Of the LSTM."""
    steps: int = 2600
    """Optimizer steps."""
    num_streams: int = 16
    """Streams read side by side."""
    window_length: int = 64
    """Tokens a stream advances per step."""
    learning_rate: float = 1e-2
    """Peak learning rate."""
    ngram_orders: tuple[int, ...] = (2, 3, 4, 5)
    """Orders of the Kneser-Ney models fitted on the same text."""
    test_tokens: int = 48_000
    """Fresh tokens on which KL is measured, in 16 rows."""
    curve_points: int = 6
    """Measurements of KL: at the last step, at half of it, at a quarter, ..."""
    curve_length: int = 500
    """Tokens of each row used for those before the last."""

    def __post_init__(self) -> None:
        if self.test_tokens < 16 * self.curve_length:
            raise ValueError(
                f"test_tokens must be >= 16 * curve_length, got {self.test_tokens} "
                f"and {self.curve_length}"
            )

    @property
    def training_tokens(self) -> int:
        """Tokens that training reads, each once."""
        return self.steps * self.num_streams * self.window_length


@dataclass(kw_only=True)
class Result:
    """Exact and measured figures, in nats per token unless the name says otherwise."""

    entropy_nats_per_token: float
    """The floor, exact."""
    kl_nats_per_token: float
    """What the trained LSTM pays above it."""
    kl_standard_error: float
    """Of that, over the rows of the test text."""
    illegal_mass_per_token: float
    """Probability that the LSTM gives to tokens the grammar forbids there."""
    training_tokens: int
    """Tokens read in training, all of them fresh."""
    ngram_kl_nats_per_token: dict[str, float] = field(default_factory=dict)
    """What n-gram models pay, by order."""
    curve_steps: list[int] = field(default_factory=list)
    """Steps at which the LSTM was measured on its way."""
    curve_kl_nats_per_token: list[float] = field(default_factory=list)
    """Its KL there."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train on fresh text from the source and measure every model against the truth."""
    source = GrammarSource()
    generator = make_generator(seed)
    train_ids = sample_rows(source, 1, config.training_tokens + config.num_streams, generator)[0]
    test_rows = sample_rows(source, 16, config.test_tokens // 16, generator)

    seed_everything(seed)
    model = LSTMLanguageModel(
        LSTMConfig(
            vocabulary_size=source.vocabulary_size,
            embedding_size=config.embedding_size,
            hidden_size=config.hidden_size,
        )
    )
    settings = TrainConfig(
        steps=config.steps,
        num_streams=config.num_streams,
        window_length=config.window_length,
        learning_rate=config.learning_rate,
    )
    trainer = Trainer(model, train_ids, settings, device="cpu")
    points = [config.steps // 2**k for k in range(config.curve_points - 1, 0, -1)]
    curve = []
    for step in tqdm(range(1, config.steps + 1), disable=not progress, unit="step"):
        model.train()
        trainer.train_step()
        if step in points:
            curve.append(
                float(measure(model, source, test_rows[:, : config.curve_length])[0].mean())
            )

    kl, illegal = measure(model, source, test_rows)
    rows = kl.mean(dim=1)
    return Result(
        entropy_nats_per_token=source.entropy_rate(),
        kl_nats_per_token=float(kl.mean()),
        kl_standard_error=float(rows.std() / math.sqrt(rows.numel())),
        illegal_mass_per_token=float(illegal.mean()),
        training_tokens=config.training_tokens,
        ngram_kl_nats_per_token={
            str(order): ngram_kl(source, train_ids, test_rows, order)
            for order in config.ngram_orders
        },
        curve_steps=[*points, config.steps],
        curve_kl_nats_per_token=[*curve, float(kl.mean())],
    )


def sample_rows(
    source: GrammarSource, rows: int, length: int, generator: torch.Generator
) -> Int[torch.Tensor, "rows tokens"]:
    """Endless texts in rows: an end token, then text after text, cut after `length` tokens."""
    streams = []
    for _ in range(rows):
        texts: list[torch.Tensor] = [torch.tensor([END_ID])]
        while (have := sum(map(len, texts))) < length + 1:
            texts += source.sample(
                int((length + 1 - have) / source.mean_length()) + 1, generator=generator
            )
        streams.append(torch.cat(texts)[: length + 1])
    return torch.stack(streams)


@torch.no_grad()
def measure(
    model: LSTMLanguageModel, source: GrammarSource, rows: Int[torch.Tensor, "rows tokens"]
) -> tuple[Float[torch.Tensor, "rows time"], Float[torch.Tensor, "rows time"]]:
    """KL(p || q) at each position of the rows, exact given its prefix; and q's illegal mass there.

    Leaves the model in evaluation mode.
    """
    model.eval()
    states = source.walk(rows[:, 1:])
    kl, illegal = [], []
    state = None
    for start in range(0, states.shape[1], 500):
        logits, state = model(rows[:, :-1][:, start : start + 500], state)
        there = states[:, start : start + 500]
        log_q = torch.log_softmax(logits.double(), dim=-1)
        kl.append(source.kl_from(log_q, there))
        illegal.append(source.illegal_mass(log_q.exp(), there))
    return torch.cat(kl, dim=1), torch.cat(illegal, dim=1)


def ngram_kl(
    source: GrammarSource,
    train_ids: Int[torch.Tensor, " training"],
    test_rows: Int[torch.Tensor, "rows tokens"],
    order: int,
) -> float:
    """What an interpolated Kneser-Ney model pays above the source, on the very same tokens.

    The mean of log p - log q over the test tokens estimates KL(p || q); that both are taken on
    one text removes most of the sampling noise.
    """
    model = NGramModel.fit(
        train_ids, order=order, vocabulary_size=source.vocabulary_size, smoothing="kneser-ney"
    )
    differences = [
        np.mean(model.nats(row)[1:]) - float(source.nats(row[1:]).mean()) for row in test_rows
    ]
    return float(np.mean(differences))
