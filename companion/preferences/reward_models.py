"""Reward models: scores fitted to comparisons, as a proxy for what people want.

Fit scores to the labels of a judge, and there is a *proxy* reward (Christiano et al. 2017; Stiennon
et al. 2020), which `companion.preferences.best_of_n` and `companion.preferences.policy_gradient`
then optimise. A reward is any function from texts [texts, time] to numbers [texts]; texts are rows
of token ids filled up with the end token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from companion.core.seeds import make_generator, seed_everything
from companion.preferences.comparisons import Pairs, bradley_terry_nats
from companion.preferences.gold_reward import quality_terms
from companion.sources.reviews import GrammarSource
from companion.text.rows import END_ID, word_counts
from companion.training.optimization import take_step

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int

#: From texts, [texts, time], to one number each, [texts].
Reward = Callable[[Tensor], Tensor]


# --- Reward models ----------------------------------------------------------------------------


def token_counts(
    texts: Int[Tensor, "texts time"], vocabulary_size: int
) -> Float64[Tensor, "texts vocab"]:
    """Number of occurrences of each token in each text; for the end token, 1 if there is one."""
    counts = torch.zeros(len(texts), vocabulary_size, dtype=torch.float64)
    counts.scatter_add_(1, texts, torch.ones(texts.shape, dtype=torch.float64))
    counts[:, END_ID] = (texts == END_ID).any(dim=1)
    return counts


@dataclass(frozen=True, kw_only=True)
class BagOfWordsReward:
    """A weighted sum of word counts: it ignores the order of words, and does not saturate."""

    weights: Float64[Tensor, " vocab"]
    """Reward that one more occurrence of each token adds."""

    def __call__(self, texts: Int[Tensor, "texts time"]) -> Float64[Tensor, " texts"]:
        """The reward of each text."""
        return token_counts(texts, len(self.weights)) @ self.weights


def fit_bag_of_words(
    pairs: Pairs, vocabulary_size: int, *, penalty: float = 1.0
) -> BagOfWordsReward:
    """The weights with the least Bradley-Terry surprisal of the labels, plus a penalty.

    Minimised is the sum of `bradley_terry_nats` plus penalty / 2 times the sum of squared weights:
    logistic regression on differences of counts, without an intercept. `penalty` must be above 0,
    or separable labels would have no minimum.
    """
    x = token_counts(pairs.chosen, vocabulary_size) - token_counts(pairs.rejected, vocabulary_size)
    return BagOfWordsReward(weights=_least_surprised(x, penalty))


@dataclass(frozen=True, kw_only=True)
class GoldFormReward:
    """A weighted sum of the gold reward's own terms: only its four weights can be wrong."""

    weights: Float64[Tensor, " terms"]
    """Reward that one more of each of `quality_terms` adds."""
    source: GrammarSource
    """The grammar by which the terms are counted."""

    def __call__(self, texts: Int[Tensor, "texts time"]) -> Float64[Tensor, " texts"]:
        """The reward of each text."""
        return quality_terms(texts, self.source) @ self.weights


def fit_gold_form(pairs: Pairs, source: GrammarSource, *, penalty: float = 1.0) -> GoldFormReward:
    """The weights of the gold reward's terms with the least surprisal, as `fit_bag_of_words`."""
    x = quality_terms(pairs.chosen, source) - quality_terms(pairs.rejected, source)
    return GoldFormReward(weights=_least_surprised(x, penalty), source=source)


def _least_surprised(
    x: Float64[Tensor, "pairs features"], penalty: float
) -> Float64[Tensor, " features"]:
    """Weights that make a positive sum of each row least surprising; see `fit_bag_of_words`."""
    from sklearn.linear_model import LogisticRegression

    if not penalty > 0:
        raise ValueError(f"penalty must be > 0, got {penalty}")
    # scikit-learn wants two classes: each pair stands there in both orders, so C is halved.
    fit = LogisticRegression(
        C=1 / (2 * penalty), fit_intercept=False, solver="newton-cholesky", tol=1e-10
    ).fit(torch.cat([x, -x]).numpy(), [1] * len(x) + [0] * len(x))
    return torch.from_numpy(fit.coef_[0])


class LSTMReward(nn.Module):
    """A reward from an LSTM that reads the text in order: a weighted sum of its last state."""

    def __init__(self, vocabulary_size: int, *, embedding_size: int = 32, hidden_size: int = 64):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.lstm = nn.LSTM(embedding_size, hidden_size)
        self.output = nn.Linear(hidden_size, 1)

    def forward(self, texts: Int[Tensor, "texts time"]) -> Float[Tensor, " texts"]:
        """The reward of each text, read up to its end token or to its last word without one."""
        last = word_counts(texts).clamp(max=texts.shape[1] - 1)
        outputs, _ = self.lstm(self.embedding(texts[:, : int(last.max()) + 1].T))
        rewards: Tensor = self.output(outputs[last, torch.arange(len(texts))])
        return rewards.squeeze(-1)


def fit_lstm_reward(
    pairs: Pairs,
    vocabulary_size: int,
    *,
    seed: int,
    epochs: int = 3,
    batch_size: int = 64,
    learning_rate: float = 5e-3,
    hidden_size: int = 64,
) -> LSTMReward:
    """An `LSTMReward`, in evaluation mode, trained on the pairs by Adam with a falling rate.

    Seeds all generators, so it is an entry point; its random stream is independent of other models
    with the same seed.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be >= 1, got {epochs}")
    generator = make_generator(seed, "reward model")
    # Not `seed` itself: the weights would repeat those of a language model with that seed.
    seed_everything(int(torch.randint(2**32, (), generator=generator)))
    model = LSTMReward(vocabulary_size, hidden_size=hidden_size)
    steps = epochs * -(-len(pairs) // batch_size)  # pools are whole batches, except the last one
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    longest = torch.maximum(word_counts(pairs.chosen), word_counts(pairs.rejected))
    for _ in range(epochs):
        batches: list[Tensor] = []
        for pool in torch.split(torch.randperm(len(pairs), generator=generator), 16 * batch_size):
            # Of similar length, so that little is padding; every pair has the same weight.
            batches += torch.split(pool[longest[pool].argsort()], batch_size)
        for place in torch.randperm(len(batches), generator=generator).tolist():
            rows = batches[place]
            both = model(torch.cat([pairs.chosen[rows], pairs.rejected[rows]]))
            loss = bradley_terry_nats(*both.chunk(2)).sum() / batch_size
            take_step(model, optimizer, loss, clip_norm=1.0)
            schedule.step()
    return model.eval()
