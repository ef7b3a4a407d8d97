"""Learning what people want from noisy comparisons: pairs, Bradley-Terry, reward models.

A judge sees two texts and names the better one. Bradley and Terry (1952) say with which
probability: the sigmoid of the difference of two scores. Fit scores to such labels, and there is a
*proxy* reward (Christiano et al. 2017; Stiennon et al. 2020), which `companion.best_of_n` and
`companion.policy_gradient` then press on.

A reward is any function from texts [texts, time] to numbers [texts]. Texts are rows of token ids
filled up with the end token, as in `companion.quality`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.automata import END_ID
from companion.decoding import Decoder
from companion.lstm import LSTMLanguageModel
from companion.quality import word_counts
from companion.runtime import seed_everything

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int

#: From texts, [texts, time], to one number each, [texts].
Reward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Comparisons: in row i, a judge took `chosen[i]` to be better than `rejected[i]`."""

    chosen: Int[Tensor, "pairs time"]
    """The texts preferred, filled up with the end token."""
    rejected: Int[Tensor, "pairs time"]
    """The texts they were compared with."""

    def __post_init__(self) -> None:
        if self.chosen.shape != self.rejected.shape or self.chosen.ndim != 2:
            raise ValueError(
                "chosen and rejected must both be [pairs, time], got "
                f"{tuple(self.chosen.shape)} and {tuple(self.rejected.shape)}"
            )

    def __len__(self) -> int:
        return len(self.chosen)


def write_texts(
    model: LSTMLanguageModel, num_texts: int, num_tokens: int, *, generator: torch.Generator
) -> Int[Tensor, "texts time"]:
    """Independent texts that a model writes from an empty state, at most `num_tokens` tokens each.

    Each is filled up with the end token; `time` may be less than `num_tokens`.
    """
    if num_texts < 1 or num_tokens < 1:
        raise ValueError(f"num_texts and num_tokens must be >= 1, got {num_texts} and {num_tokens}")
    if model.training:
        raise ValueError("the model is in training mode, so dropout is on; call model.eval() first")
    rows = torch.full((num_texts, num_tokens), END_ID)
    going_on, inputs, state = torch.arange(num_texts), rows[:, :1], None
    for t in range(num_tokens):
        with torch.no_grad():
            logits, (hidden, cell) = model(inputs, state)
        tokens = Decoder().choose(logits[:, -1], generator)
        rows[going_on, t] = tokens
        kept = tokens != END_ID  # most texts are short: the model goes on with the others alone
        if not bool(kept.any()):
            return rows[:, : t + 1]
        going_on, inputs = going_on[kept], tokens[kept].unsqueeze(1)
        state = hidden[:, kept], cell[:, kept]
    return rows


def noisy_pairs(
    texts: Int[Tensor, "texts time"],
    gold: Float[Tensor, " texts"],
    num_pairs: int,
    *,
    temperature: float,
    generator: torch.Generator,
) -> Pairs:
    """Random pairs of different texts, labelled by a judge who knows the gold reward and errs.

    The first is preferred with probability sigmoid((gold_1 - gold_2) / temperature), which is
    Bradley and Terry's model; at temperature 0 the better text always wins and ties fall by a coin.
    """
    if len(texts) != len(gold) or len(texts) < 2:
        raise ValueError(
            f"two texts or more are needed, one gold reward each, got {len(texts)} texts and "
            f"{len(gold)} rewards"
        )
    if num_pairs < 1:
        raise ValueError(f"num_pairs must be >= 1, got {num_pairs}")
    if not temperature >= 0:
        raise ValueError(f"temperature must be >= 0, got {temperature}")
    first = torch.randint(len(texts), (num_pairs,), generator=generator)
    shift = torch.randint(1, len(texts), (num_pairs,), generator=generator)
    second = (first + shift) % len(texts)  # never the same text
    difference = (gold[first] - gold[second]).double()
    if temperature > 0:
        probability = torch.sigmoid(difference / temperature)
    else:
        probability = (difference.sign() + 1) / 2
    coin = torch.rand(num_pairs, generator=generator, dtype=torch.float64)
    wins = (coin < probability)[:, None]
    return Pairs(
        chosen=torch.where(wins, texts[first], texts[second]),
        rejected=torch.where(wins, texts[second], texts[first]),
    )


def bradley_terry_nats(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """Surprisal of each label given the rewards of the two texts, -log sigmoid(chosen - rejected).

    In nats and unreduced; log 2 where the rewards are equal, exact for any difference.
    """
    return F.softplus(rejected - chosen)


def pairwise_accuracy(chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]) -> float:
    """The share of pairs in which the chosen text has the higher reward; ties count one half."""
    if not len(chosen):
        raise ValueError("pairwise accuracy needs one pair or more, got none")
    return float(((chosen > rejected).double() + (chosen == rejected).double() / 2).mean())


# --- Reward models ----------------------------------------------------------------------------


def token_counts(
    texts: Int[Tensor, "texts time"], vocabulary_size: int
) -> Float64[Tensor, "texts vocab"]:
    """How often each token comes up in each text; of the end token, whether there is one."""
    counts = torch.zeros(len(texts), vocabulary_size, dtype=torch.float64)
    counts.scatter_add_(1, texts, torch.ones(texts.shape, dtype=torch.float64))
    counts[:, END_ID] = (texts == END_ID).any(dim=1)
    return counts


@dataclass(frozen=True, kw_only=True)
class BagOfWordsReward:
    """A reward that adds up a weight for each word: blind to order, and without saturation."""

    weights: Float64[Tensor, " vocab"]
    """What one more of each token adds."""

    def __call__(self, texts: Int[Tensor, "texts time"]) -> Float64[Tensor, " texts"]:
        """The reward of each text."""
        return token_counts(texts, len(self.weights)) @ self.weights


def fit_bag_of_words(
    pairs: Pairs, vocabulary_size: int, *, penalty: float = 1.0
) -> BagOfWordsReward:
    """The weights with the least Bradley-Terry surprisal of the labels, plus a penalty.

    Minimised is the sum of `bradley_terry_nats` plus penalty / 2 times the sum of squared weights:
    logistic regression on differences of counts, strictly convex, solved by damped Newton steps to
    a gradient below 1e-6. `penalty` must be above 0, or separable labels would have no minimum.
    """
    if not penalty > 0:
        raise ValueError(f"penalty must be > 0, got {penalty}")
    x = token_counts(pairs.chosen, vocabulary_size) - token_counts(pairs.rejected, vocabulary_size)
    weights = torch.zeros(vocabulary_size, dtype=torch.float64)

    def loss(w: Tensor) -> Tensor:
        return F.softplus(-(x @ w)).sum() + penalty / 2 * w.square().sum()

    for _ in range(100):
        wrong = torch.sigmoid(-(x @ weights))  # the probability of the other label
        gradient = penalty * weights - x.T @ wrong
        if float(gradient.abs().max()) < 1e-6:
            return BagOfWordsReward(weights=weights)
        curvature = x.T @ (x * (wrong * (1 - wrong))[:, None])
        curvature += penalty * torch.eye(vocabulary_size, dtype=torch.float64)
        step = torch.linalg.solve(curvature, gradient)
        size, slope = 1.0, float(gradient @ step)
        while loss(weights - size * step) > loss(weights) - 1e-4 * size * slope and size > 1e-6:
            size /= 2
        weights = weights - size * step
    raise ValueError(
        f"the fit did not converge: the gradient is {float(gradient.abs().max()):.1e} after 100 "
        "steps; use a larger penalty"
    )


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

    Seeds all generators with `seed`, so it is an entry point.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be >= 1, got {epochs}")
    seed_everything(seed)
    model = LSTMReward(vocabulary_size, hidden_size=hidden_size)
    steps = epochs * -(-len(pairs) // batch_size)  # pools are whole batches, but for the last one
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    longest = torch.maximum(word_counts(pairs.chosen), word_counts(pairs.rejected))
    for _ in range(epochs):
        batches: list[Tensor] = []
        for pool in torch.split(torch.randperm(len(pairs)), 16 * batch_size):
            # Alike in length, so that little is padding; the pairs weigh the same all the same.
            batches += torch.split(pool[longest[pool].argsort()], batch_size)
        for place in torch.randperm(len(batches)).tolist():
            rows = batches[place]
            both = model(torch.cat([pairs.chosen[rows], pairs.rejected[rows]]))
            loss = bradley_terry_nats(*both.chunk(2)).sum() / batch_size
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()
