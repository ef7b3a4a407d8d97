"""Does a model learn what decides, or what usually goes with it?

Short reviews are positive if they have more good words than bad ones. They begin with the place
where the review was posted, which agrees with the label in 95 of 100 training reviews: a shortcut.
An LSTM classifier is trained plainly (empirical risk minimisation) and with remedies, and is tested
where the shortcut holds, where it is reversed, and in each of the four groups of label and place. A
model that counts the words is right everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_choice, check_counts, settings_class
from companion.evaluation.calibration import Reliability, reliability, temperature_of
from companion.evaluation.classification import group_counts, group_means
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.training.group_dro import GroupDRO, group_weights
from companion.training.optimization import take_step

if TYPE_CHECKING:
    from jaxtyping import Float, Int

#: Places where reviews are posted; the second usually has positive reviews.
PLACES = ("harbour", "market")
BAD = (
    "bland", "burnt", "cold", "dirty", "dull", "flat", "greasy", "grim", "rude", "slow", "soggy",
    "sour", "stale", "tired", "tough", "weak",
)  # fmt: skip
GOOD = (
    "bright", "calm", "clean", "crisp", "fair", "fine", "fresh", "generous", "kind", "light",
    "lovely", "neat", "rich", "swift", "tender", "warm",
)  # fmt: skip
NEUTRAL = (
    "bread", "chair", "cup", "door", "garden", "lamp", "menu", "onion", "plate", "rice", "road",
    "soup", "table", "tea", "waiter", "window",
)  # fmt: skip
WORDS: tuple[str, ...] = (*PLACES, *BAD, *GOOD, *NEUTRAL)

#: Suffix of the names of training methods with strong weight decay.
DECAYED = ", decayed"

#: Training methods, by the names that results use.
METHODS = (
    "plain", "resampled", "reweighted", "group DRO", "plain, decayed", "resampled, decayed",
    "group DRO, decayed", "place randomised", "balanced data",
)  # fmt: skip

#: Number of test reviews after each epoch.
CURVE_REVIEWS = 1000

#: Names of the groups of label and place; group 2 * label + place.
GROUPS = tuple(f"{label}, {place}" for label in ("negative", "positive") for place in PLACES)


@settings_class
class Config:
    """Settings of the reviews, the classifier and its training."""

    methods: tuple[str, ...] = METHODS
    """Training methods to compare."""
    num_train: int = 1000
    """Number of training reviews."""
    num_test: int = 4000
    """Number of test reviews of each kind, and of validation reviews for the temperature."""
    agreement: float = 0.95
    """Share of training reviews whose place agrees with their label."""
    length: int = 12
    """Words of a review, without the place."""
    model: LSTMConfig = LSTMConfig(vocabulary_size=len(WORDS), embedding_size=32, hidden_size=64)
    """Size of the LSTM classifier."""
    epochs: int = 20
    """Passes over the training reviews."""
    batch_size: int = 50
    """Reviews per optimizer step."""
    learning_rate: float = 5e-3
    """Learning rate of AdamW."""
    weight_decay: float = 1.0
    """AdamW's weight decay in the methods called "decayed"; the others have none."""
    dro_step_size: float = 0.05
    """Step size of group-DRO's updates of its group weights."""

    def __post_init__(self) -> None:
        check_counts(self)
        for method in self.methods:
            check_choice("each of methods", method, METHODS)
        if not 0 < self.agreement < 1:
            raise ValueError(f"agreement must be in (0, 1), got {self.agreement}")
        if self.num_train < self.batch_size or self.batch_size < len(GROUPS):
            raise ValueError(
                f"batch_size must be between {len(GROUPS)} and num_train = {self.num_train}, got "
                f"{self.batch_size}"
            )


@dataclass(kw_only=True)
class Result:
    """Figures by training method; accuracies and calibration errors (ECE) are between 0 and 1."""

    in_distribution: dict[str, float] = field(default_factory=dict)
    """Accuracy when the place agrees with the label as often as in training."""
    flipped: dict[str, float] = field(default_factory=dict)
    """Accuracy when the place never agrees with the label."""
    worst_group: dict[str, float] = field(default_factory=dict)
    """Accuracy in the worst of the four groups."""
    group_accuracy: dict[str, dict[str, float]] = field(default_factory=dict)
    """Accuracy in each group."""
    train_accuracy: dict[str, float] = field(default_factory=dict)
    """Accuracy on the training reviews."""
    temperature: dict[str, float] = field(default_factory=dict)
    """Temperature fitted on validation reviews whose place agrees as often as in training."""
    ece_unscaled: dict[str, float] = field(default_factory=dict)
    """Expected calibration error in distribution, at temperature 1."""
    ece: dict[str, float] = field(default_factory=dict)
    """Expected calibration error in distribution, at the fitted temperature."""
    ece_flipped: dict[str, float] = field(default_factory=dict)
    """Expected calibration error when the place never agrees, at the fitted temperature."""
    confidence_flipped: dict[str, float] = field(default_factory=dict)
    """Mean confidence when the place never agrees, at the fitted temperature."""
    training_groups: dict[str, int] = field(default_factory=dict)
    """Number of training reviews in each group."""
    flipped_by_epoch: dict[str, list[float]] = field(default_factory=dict)
    """Accuracy when the place never agrees, after each epoch, on `CURVE_REVIEWS` reviews."""


@dataclass(frozen=True, kw_only=True)
class Reviews:
    """Reviews with their labels and groups."""

    tokens: Int[Tensor, "reviews words"]
    """Indices into `WORDS`; the first is the place."""
    labels: Int[Tensor, " reviews"]
    """1 where there are more good words than bad ones, 0 where there are fewer."""

    @property
    def places(self) -> Int[Tensor, " reviews"]:
        """The place of each review: 0 or 1, an index into `PLACES`."""
        return self.tokens[:, 0]

    @property
    def groups(self) -> Int[Tensor, " reviews"]:
        """The group of each review: 2 * label + place, an index into `GROUPS`."""
        return 2 * self.labels + self.places

    def first(self, n: int) -> Reviews:
        """The first `n` reviews, or all if there are fewer."""
        return Reviews(tokens=self.tokens[:n], labels=self.labels[:n])

    def text(self, row: int) -> str:
        """One review, with the place before a colon."""
        place, *words = (WORDS[token] for token in self.tokens[row].tolist())
        return f"{place}: {' '.join(words)}"


def write_reviews(
    n: int, *, agreement: float, generator: torch.Generator, length: int = 12
) -> Reviews:
    """`n` reviews of `length` uniform random words, none with as many good words as bad ones.

    The place agrees with the label with probability `agreement`, independently of the words.
    """
    if n < 1 or length < 1 or not 0 <= agreement <= 1:
        raise ValueError(
            f"n and length must be >= 1 and agreement in [0, 1], got {n}, {length}, {agreement}"
        )
    polarity = torch.zeros(len(WORDS), dtype=torch.long)
    polarity[len(PLACES) : len(PLACES) + len(BAD)] = -1
    polarity[len(PLACES) + len(BAD) : len(PLACES) + len(BAD) + len(GOOD)] = 1
    kept = torch.empty(0, length, dtype=torch.long)
    while len(kept) < n:  # a draw is kept with probability 2/3 or more
        drawn = torch.randint(len(PLACES), len(WORDS), (2 * n, length), generator=generator)
        kept = torch.cat([kept, drawn[polarity[drawn].sum(dim=1) != 0]])
    words = kept[:n]
    labels = (polarity[words].sum(dim=1) > 0).long()
    agrees = torch.rand(n, generator=generator) < agreement
    places = torch.where(agrees, labels, 1 - labels)
    return Reviews(tokens=torch.cat([places[:, None], words], dim=1), labels=labels)


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train a classifier with every method, and test each on the same reviews."""
    generator = make_generator(seed, "reviews")

    def draw(n: int, agreement: float) -> Reviews:
        return write_reviews(n, agreement=agreement, generator=generator, length=config.length)

    train = draw(config.num_train, config.agreement)
    tests = {
        "valid": draw(config.num_test, config.agreement),
        "same": draw(config.num_test, config.agreement),
        "even": draw(config.num_test, 0.5),
        "flipped": draw(config.num_test, 0.0),
    }
    balanced = draw(config.num_train, 0.5)
    result = Result()
    counts = group_counts(train.groups, len(GROUPS))
    result.training_groups = dict(zip(GROUPS, counts.tolist(), strict=True))
    for method in tqdm(config.methods, disable=not progress, desc="ways of training"):
        reviews = balanced if method == "balanced data" else train
        curve: list[float] = []
        for model in training(reviews, config, method, seed=seed):
            curve.append(accuracy(model, tests["flipped"].first(CURVE_REVIEWS)))
        result.flipped_by_epoch[method] = curve
        result.train_accuracy[method] = accuracy(model, reviews)
        _measure(result, method, model, tests)
    return result


def training(
    reviews: Reviews, config: Config, method: str, *, seed: int
) -> Iterator[LSTMLanguageModel]:
    """Train an LSTM to predict the label after the last word; yield it after each epoch.

    It is a language model, of whose last logits only two are used. It is yielded in evaluation
    mode, the same object each time. Sets the seed of all generators to `seed`.
    """
    check_choice("method", method, METHODS)
    seed_everything(seed)
    model = LSTMLanguageModel(config.model)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay if method.endswith(DECAYED) else 0.0,
    )
    way = method.removesuffix(DECAYED)
    generator = make_generator(seed, "order")
    weights = group_weights(reviews.groups, len(GROUPS))
    dro = GroupDRO(len(GROUPS), step_size=config.dro_step_size)
    for _ in range(config.epochs):
        if way in ("resampled", "group DRO"):
            order = torch.multinomial(weights, len(weights), True, generator=generator)
        else:
            order = torch.randperm(len(weights), generator=generator)
        model.train()
        for rows in torch.split(order, config.batch_size):
            tokens, groups = reviews.tokens[rows], reviews.groups[rows]
            if way == "place randomised":
                places = torch.randint(len(PLACES), (len(rows), 1), generator=generator)
                tokens = torch.cat([places, tokens[:, 1:]], dim=1)
            logits = label_logits(model, tokens)
            losses = F.cross_entropy(logits, reviews.labels[rows], reduction="none")
            if way == "group DRO":
                loss = dro.loss(losses, groups)
            elif way == "reweighted":
                loss = (weights[rows] * losses).mean()
            else:
                loss = losses.mean()
            take_step(model, optimizer, loss, clip_norm=1.0)
        yield model.eval()


def label_logits(
    model: LanguageModel, tokens: Int[Tensor, "reviews words"]
) -> Float[Tensor, "reviews 2"]:
    """Logits of "negative" and "positive" after the last word."""
    features, _ = model.features(tokens)
    return model.logits(features[:, -1])[:, :2]


@torch.no_grad()
def accuracy(model: LanguageModel, reviews: Reviews) -> float:
    """Share of reviews whose label the model predicts."""
    return float((label_logits(model, reviews.tokens).argmax(-1) == reviews.labels).double().mean())


@torch.no_grad()
def calibration(model: LanguageModel, reviews: Reviews, *, temperature: float = 1.0) -> Reliability:
    """Confidence against accuracy, the logits divided by `temperature`."""
    probs = torch.softmax(label_logits(model, reviews.tokens) / temperature, dim=-1)
    confidences, predicted = probs.max(dim=-1)
    return reliability(confidences, predicted == reviews.labels)


@torch.no_grad()
def _measure(result: Result, method: str, model: LanguageModel, tests: dict[str, Reviews]) -> None:
    result.in_distribution[method] = accuracy(model, tests["same"])
    result.flipped[method] = accuracy(model, tests["flipped"])
    even = tests["even"]
    correct = label_logits(model, even.tokens).argmax(-1) == even.labels
    means = group_means(correct.double(), even.groups, len(GROUPS)).tolist()
    result.group_accuracy[method] = dict(zip(GROUPS, means, strict=True))
    result.worst_group[method] = min(means)
    temperature = temperature_of(label_logits(model, tests["valid"].tokens), tests["valid"].labels)
    result.temperature[method] = temperature
    result.ece_unscaled[method] = calibration(model, tests["same"]).ece
    result.ece[method] = calibration(model, tests["same"], temperature=temperature).ece
    flipped = calibration(model, tests["flipped"], temperature=temperature)
    result.ece_flipped[method] = flipped.ece
    shares = flipped.counts / flipped.counts.sum()
    result.confidence_flipped[method] = float((shares * flipped.confidences).sum())
