"""What does a pretrained language model save a classifier, and what hides behind its accuracy?

Reviews are written by the grammar of `companion.sources.grammar`, and the sentiment of each is
known (`companion.sources.labelled_reviews`). An LSTM classifier learns it from 10 to 1,000 labels,
from scratch, and by fine-tuning language models that were trained for longer and shorter times on
other reviews, without labels. Two controls say what of the reviews matters: a language model of
reviews whose opinions do not agree, and one of reviews whose words are shuffled.

Then the classifiers are asked more than their accuracy: calibration, precision and recall where few
reviews are negative, what a threshold costs, and the worst group where the first word of a training
review usually goes with the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_choice, check_sizes, settings_class
from companion.evaluation.calibration import (
    NoTemperatureError,
    Reliability,
    reliability,
    temperature_of,
)
from companion.evaluation.classification import group_means, precision_recall_f1
from companion.evaluation.decisions import cost_threshold, decide, with_share
from companion.evaluation.texts import text_log_probs
from companion.models.base import LanguageModel
from companion.models.classifier import TextClassifier, class_logits, pooled
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.automaton import AutomatonSource
from companion.sources.grammar import OPINIONS, VOCABULARY
from companion.sources.labelled_reviews import (
    GROUPS,
    Reviews,
    ReviewSizes,
    ShuffledWords,
    Without,
    disagreeing_reviews,
    with_cue,
    write_reviews,
)
from companion.sources.reviews import GrammarSource
from companion.sources.streams import TextSource
from companion.text.labelled import LabelledTexts
from companion.text.rows import END_ID, text_rows
from companion.training.classification import FineTuningConfig, train_classifier
from companion.training.config import TrainConfig
from companion.training.from_source import train_on_texts
from companion.training.group_dro import group_weights

if TYPE_CHECKING:
    from jaxtyping import Float

#: What a run measures, beside classifiers from scratch and from the language model by labels.
Part = Literal["stages", "controls", "recipes", "decisions", "cue"]

#: What a classifier is built on: the sizes of an LSTM from scratch, or a language model.
Body = LSTMConfig | LanguageModel


@settings_class
class Config:
    """Settings of the reviews, the language models and the classifiers."""

    parts: tuple[Part, ...] = ("stages", "controls", "recipes", "decisions", "cue")
    """What is measured beside the main comparison."""
    doses: tuple[int, ...] = (10, 100, 1000)
    """Numbers of labels, half of them of each class; smaller sets are parts of larger ones."""
    reviews: ReviewSizes = ReviewSizes()
    """How many labelled reviews there are."""
    model: LSTMConfig = LSTMConfig(
        vocabulary_size=len(VOCABULARY), embedding_size=64, hidden_size=128
    )
    """Size of the LSTM."""
    pretraining: TrainConfig = TrainConfig(steps=1500, learning_rate=8e-3)
    """Training of the language models on whole unlabelled reviews; see `train_on_texts`."""
    stages: tuple[int, ...] = (300, 700)
    """Steps of the language models that are trained for a shorter time."""
    training: FineTuningConfig = FineTuningConfig(pooling=("last",), steps=120, unfreeze_every=40)
    """Training of the classifiers."""
    compared: int = 100
    """Labels of the classifiers of the decisions, and most labels of those of stages, controls and
    recipes."""
    miss: float = 50.0
    """Cost of a negative review that is not flagged; a false alarm costs 1."""
    agreement: float = 0.95
    """Share of the reviews with a cue whose cue agrees with their label."""

    def __post_init__(self) -> None:
        for part in self.parts:
            check_choice("each of parts", part, Part)
        check_sizes(compared=self.compared)
        if not self.doses or any(dose < 2 or dose % 2 for dose in self.doses):
            raise ValueError(f"doses must be even numbers >= 2, got {self.doses}")
        for name, labels in (("doses", max(self.doses)), ("compared", self.compared)):
            if labels > self.reviews.train:
                raise ValueError(
                    f"{name} must be at most reviews.train, {self.reviews.train}, got {labels}"
                )
        if "stages" in self.parts and not all(steps >= 1 for steps in self.stages):
            raise ValueError(f"stages must be numbers of steps >= 1, got {self.stages}")
        if not 0 < self.agreement < 1:
            raise ValueError(f"agreement must be in (0, 1), got {self.agreement}")
        if not self.miss > 0:
            raise ValueError(f"miss must be > 0, got {self.miss}")
        if self.model.vocabulary_size != len(VOCABULARY):
            raise ValueError(
                f"model.vocabulary_size must be the grammar's {len(VOCABULARY)}, got "
                f"{self.model.vocabulary_size}"
            )


@dataclass(kw_only=True)
class Result:
    """Figures by classifier. Its name is that of its body, "scratch" or a language model's
    ("pretrained", "300 steps", "independent opinions", "shuffled words"; "fresh" was not trained),
    and its labels, as in "scratch 10". All but nats, costs, temperatures and counts are shares."""

    accuracy: dict[str, float] = field(default_factory=dict)
    """Accuracy on unseen reviews, half of them of each class."""
    word_list: dict[str, float] = field(default_factory=dict)
    """Accuracy of a reader who knows which words have opinions, and learns these from the labelled
    reviews: the reviews without a word that it has met, it guesses. By labels."""
    opinion_words: dict[str, int] = field(default_factory=dict)
    """Different opinion words in the labelled reviews, the "fewest" and the "most" of the sets of
    that many labels, as in "10 fewest"."""
    agreement: dict[str, float] = field(default_factory=dict)
    """What a language model knows of sentiment: of the probability that it gives to opinion words
    after a review's first one, the share on words that agree with it; .5 is knowing nothing."""
    excess_nats: dict[str, float] = field(default_factory=dict)
    """Nats per token of a language model above the source's own, on unseen reviews."""
    best_unit: dict[str, float] = field(default_factory=dict)
    """Accuracy by one hidden unit against a threshold, after the last word; unit and threshold are
    chosen on the labelled reviews."""
    recipes: dict[str, float] = field(default_factory=dict)
    """Accuracy by how the main language model is fine-tuned, and by labels, as in "plain 10":
    "plain" trains all layers at once at one rate, and "head" the linear layer alone. "fresh" is
    the recipe of `accuracy` on the language model that was not trained, and "300 steps plain" the
    plain one on that of the first stage."""
    temperature: dict[str, float] = field(default_factory=dict)
    """Temperature fitted on other reviews; 1 where `unfitted` says that none is best."""
    unfitted: dict[str, int] = field(default_factory=dict)
    """1 where no temperature is best, as where all of these reviews are right, else 0."""
    ece_unscaled: dict[str, float] = field(default_factory=dict)
    """Expected calibration error at temperature 1."""
    ece: dict[str, float] = field(default_factory=dict)
    """Expected calibration error at the fitted temperature."""
    ece_by_chance: dict[str, float] = field(default_factory=dict)
    """The calibration error of perfect calibration on as many reviews with that confidence."""
    rare_accuracy: dict[str, float] = field(default_factory=dict)
    """Accuracy where few reviews are negative; "none flagged" calls all of them positive."""
    rare_macro_f1: dict[str, float] = field(default_factory=dict)
    """Macro-F1 there."""
    precision: dict[str, float] = field(default_factory=dict)
    """Precision of flagging the negative: "even" where half are, "rare" where few are."""
    recall: dict[str, float] = field(default_factory=dict)
    """Recall of the same."""
    f1: dict[str, float] = field(default_factory=dict)
    """F1 of the same."""
    cost: dict[str, float] = field(default_factory=dict)
    """Mean cost of a review where few are negative, by classifier and threshold: "half", "cost" at
    the threshold of the costs, "cost and share" with probabilities for that share of negatives,
    and "hindsight" at the best threshold for these reviews; and of flagging "none" or "all"."""
    cue_same: dict[str, float] = field(default_factory=dict)
    """Accuracy where the cue agrees as often as in training: "scratch plain", "pretrained
    reweighted"; "balanced" is the control whose training cue says nothing."""
    cue_worst: dict[str, float] = field(default_factory=dict)
    """Accuracy in the worst of the four groups of label and cue."""
    cue_groups: dict[str, dict[str, float]] = field(default_factory=dict)
    """Accuracy in each group."""


class Unit(NamedTuple):
    """A hidden unit that tells the classes apart."""

    number: int
    """Which of the hidden units it is."""
    threshold: float
    """The value that decides."""
    side: int
    """1 where values above the threshold are positive, -1 where those below it are."""
    accuracy: float
    """Share of the test reviews that it classifies right, after their last word."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train every language model and classifier, and measure each on unseen reviews."""
    result = Result()
    source = GrammarSource()
    reviews = write_reviews(source, config.reviews, seed=seed)
    pretrainings = _pretrainings(source, config)
    bodies: dict[str, Body] = {"scratch": config.model}
    for name, (text, steps) in tqdm(
        pretrainings.items(), disable=not progress, desc="language models"
    ):
        model = pretrain(text, reviews, config, seed=seed, steps=steps)
        bodies[name] = model
        result.agreement[name] = opinion_agreement(model, reviews.test)
        result.excess_nats[name] = excess_nats(model, source, reviews.test)
    fresh = _fresh(config, seed=seed)
    result.agreement["fresh"] = opinion_agreement(fresh, reviews.test)
    result.excess_nats["fresh"] = excess_nats(fresh, source, reviews.test)
    for dose in config.doses:
        met = [opinion_words(some) for some in reviews.sets(dose)]
        result.opinion_words[f"{dose} fewest"] = min(map(len, met))
        result.opinion_words[f"{dose} most"] = max(map(len, met))
        shares = [word_list_accuracy(words, reviews.test) for words in met]
        result.word_list[str(dose)] = sum(shares) / len(shares)
    for name, body in tqdm(bodies.items(), disable=not progress, desc="classifiers"):
        main = name in ("scratch", "pretrained")
        for dose in (dose for dose in config.doses if main or dose <= config.compared):
            result.accuracy[f"{name} {dose}"] = accuracy_by_labels(
                body, reviews, dose, config.training, seed=seed
            )
    bodies["fresh"] = fresh
    for name in ("pretrained", "independent opinions", "fresh"):
        body_or_none = bodies.get(name)
        if isinstance(body_or_none, LanguageModel):
            result.best_unit[name] = best_unit(body_or_none, reviews).accuracy
    if "recipes" in config.parts:
        _recipes(result, bodies, reviews, config, seed=seed)
    if "decisions" in config.parts:
        _decisions(result, bodies, reviews, config, seed=seed)
    if "cue" in config.parts:
        _cue(result, bodies, reviews, config, seed=seed)
    return result


def _pretrainings(
    source: GrammarSource, config: Config
) -> dict[str, tuple[TextSource, int | None]]:
    """The source and the steps of each language model."""
    found: dict[str, tuple[TextSource, int | None]] = {"pretrained": (source, None)}
    if "stages" in config.parts:
        found |= {f"{steps} steps": (source, steps) for steps in config.stages}
    if "controls" in config.parts:
        found["independent opinions"] = disagreeing_reviews(), None
        found["shuffled words"] = ShuffledWords(source), None
    return found


def pretrain(
    source: TextSource, reviews: Reviews, config: Config, *, seed: int, steps: int | None = None
) -> LanguageModel:
    """A language model of texts of `source`, none of them one of the labelled `reviews`; trained
    for `steps`, or as long as settings say."""
    training = replace(config.pretraining, steps=steps or config.pretraining.steps)
    others = Without(source, reviews.parts())
    return train_on_texts(others, seed=seed, training=training, model=config.model)


def opinion_words(texts: LabelledTexts) -> set[int]:
    """The different opinion words of the reviews, as tokens."""
    return {t for row in texts.rows() for t in row.tolist() if VOCABULARY[t] in OPINIONS}


def word_list_accuracy(words: set[int], texts: LabelledTexts) -> float:
    """Share of reviews right by the first word that is one of `words`; others are guessed."""
    known = sum(bool(words & set(row.tolist())) for row in texts.rows())
    return (known + 0.5 * (len(texts) - known)) / len(texts)


@torch.no_grad()
def opinion_agreement(model: LanguageModel, texts: LabelledTexts) -> float:
    """Of the probability that `model` gives to opinion words where the review has had one, the
    share on words of the same opinion."""
    words = [OPINIONS.get(word, "0") for word in VOCABULARY]
    tones = torch.tensor([{"+": 1, "-": -1, "0": 0}[tone] for tone in words])
    right = wrong = 0.0
    for rows in torch.split(torch.arange(len(texts)), 100):
        some = texts.select(rows)
        probabilities = torch.softmax(model(some.inputs)[0], dim=-1)
        inside = torch.arange(some.inputs.shape[1]) < some.lengths.unsqueeze(1)
        so_far = tones[some.inputs].cumsum(dim=1).sign()  # all opinions of a review agree
        shares = [probabilities[..., tones == sign].sum(dim=-1) for sign in (1, -1)]
        for sign, same, other in ((1, 0, 1), (-1, 1, 0)):
            here = inside & (so_far == sign)
            right += float(shares[same][here].double().sum())
            wrong += float(shares[other][here].double().sum())
    return right / (right + wrong)


@torch.no_grad()
def excess_nats(model: LanguageModel, source: AutomatonSource, texts: LabelledTexts) -> float:
    """Nats per token that `model` needs for these reviews above what their source needs."""
    whole = [torch.cat([words, torch.tensor([END_ID])]) for words in texts.rows()]
    theirs = source.log_probs(whole).sum()
    ours = text_log_probs(model, text_rows(whole)).double().sum()
    return float(theirs - ours) / sum(map(len, whole))


@torch.no_grad()
def best_unit(model: LanguageModel, reviews: Reviews) -> Unit:
    """The hidden unit that tells the classes apart best.

    Unit, threshold and side are chosen on the labelled reviews: the threshold is half-way between
    the unit's means over the two classes.
    """

    def after_the_last_word(texts: LabelledTexts) -> Tensor:
        return pooled(model.features(texts.inputs)[0], texts.lengths, ("last",))

    known, labels = after_the_last_word(reviews.train), reviews.train.labels
    means = torch.stack([known[labels == sentiment].mean(dim=0) for sentiment in (0, 1)])
    middle = means.mean(dim=0)
    side = torch.where(means[1] >= means[0], 1, -1)
    right = ((known - middle) * side > 0) == labels.bool().unsqueeze(1)
    unit = int(right.double().mean(dim=0).argmax())
    found = (after_the_last_word(reviews.test)[:, unit] - middle[unit]) * side[unit] > 0
    accuracy = float((found == reviews.test.labels.bool()).double().mean())
    return Unit(unit, float(middle[unit]), int(side[unit]), accuracy)


def accuracy(classifier: TextClassifier, texts: LabelledTexts) -> float:
    """Share of the reviews whose sentiment is predicted right."""
    found = class_logits(classifier, texts).argmax(dim=-1)
    return float((found == texts.labels).double().mean())


def negative_share(
    logits: Float[Tensor, "texts classes"], temperature: float = 1.0
) -> Float[Tensor, " texts"]:
    """Probability that a review is negative, the logits divided by `temperature`."""
    return torch.softmax(logits.double() / temperature, dim=-1)[:, 0]


def fitted_temperature(classifier: TextClassifier, texts: LabelledTexts) -> float | None:
    """The temperature of a classifier, fitted on these reviews; None where none is best, since all
    of them are right, or no more than guesses would be."""
    try:
        return temperature_of(class_logits(classifier, texts), texts.labels)
    except NoTemperatureError:
        return None


def accuracy_by_labels(
    body: Body, reviews: Reviews, labels: int, training: FineTuningConfig, *, seed: int
) -> float:
    """Accuracy of classifiers on `body` with this many labels; of few, the mean over the sets.

    body: the sizes of an LSTM, to train from scratch, or a language model to fine-tune.
    """
    shares = [
        accuracy(train_classifier(body, some, training, seed=seed), reviews.test)
        for some in reviews.sets(labels)
    ]
    return sum(shares) / len(shares)


def _fresh(config: Config, *, seed: int) -> LanguageModel:
    """A language model that was not trained."""
    seed_everything(seed)
    return LSTMLanguageModel(config.model).eval()


def _recipes(
    result: Result, bodies: dict[str, Body], reviews: Reviews, config: Config, *, seed: int
) -> None:
    """Fill in the accuracy by recipe."""
    plain = replace(config.training, rate_decay=1.0, unfreeze_every=0)
    head = replace(config.training, unfreeze_every=config.training.steps)
    recipes = {
        "plain": ("pretrained", plain),
        "head": ("pretrained", head),
        "fresh": ("fresh", config.training),
    }
    if "stages" in config.parts and config.stages:
        first = f"{config.stages[0]} steps"
        recipes[f"{first} plain"] = (first, plain)
    for labels in config.doses:
        if labels > config.compared:
            continue
        for name, (body, training) in recipes.items():
            result.recipes[f"{name} {labels}"] = accuracy_by_labels(
                bodies[body], reviews, labels, training, seed=seed
            )


def _decisions(
    result: Result, bodies: dict[str, Body], reviews: Reviews, config: Config, *, seed: int
) -> None:
    """Fill in calibration, precision and recall, and costs."""
    negative = reviews.rare.labels == 0
    share = float(negative.double().mean())
    result.rare_accuracy["none flagged"] = 1 - share
    everything = torch.ones_like(reviews.rare.labels)
    result.rare_macro_f1["none flagged"] = precision_recall_f1(
        everything, reviews.rare.labels
    ).macro_f1
    result.cost |= {"none": share * config.miss, "all": 1 - share}

    def cost(probabilities: Tensor, thresholds: Sequence[float]) -> float:
        """The lowest mean cost of a review at these thresholds."""
        found = decide(probabilities, negative, thresholds)
        return float(found.cost(miss=config.miss, false_alarm=1.0).min())

    threshold = cost_threshold(miss=config.miss, false_alarm=1.0)
    for name in ("scratch", "pretrained"):
        some = reviews.train.first(config.compared)
        classifier = train_classifier(bodies[name], some, config.training, seed=seed)
        logits, where_rare = (
            class_logits(classifier, texts) for texts in (reviews.test, reviews.rare)
        )
        fitted = fitted_temperature(classifier, reviews.valid)
        result.unfitted[name] = int(fitted is None)
        temperature = result.temperature[name] = 1.0 if fitted is None else fitted
        before, after = (_reliability(logits, reviews.test, t) for t in (1.0, temperature))
        result.ece_unscaled[name], result.ece[name] = before.ece, after.ece
        result.ece_by_chance[name] = after.ece_by_chance
        for kind, values, truth in (
            ("even", logits, reviews.test.labels == 0), ("rare", where_rare, negative),
        ):  # fmt: skip
            found = decide(negative_share(values), truth, [0.5])
            result.precision[f"{name} {kind}"] = float(found.precision)
            result.recall[f"{name} {kind}"] = float(found.recall)
            result.f1[f"{name} {kind}"] = float(found.f1)
        result.rare_accuracy[name] = float(found.accuracy)
        result.rare_macro_f1[name] = precision_recall_f1(
            where_rare.argmax(dim=-1), reviews.rare.labels
        ).macro_f1
        calibrated = negative_share(where_rare, temperature)
        shifted = with_share(calibrated, before=0.5, after=share)
        result.cost[f"{name} half"] = cost(negative_share(where_rare), [0.5])
        result.cost[f"{name} cost"] = cost(calibrated, [threshold])
        result.cost[f"{name} cost and share"] = cost(shifted, [threshold])
        result.cost[f"{name} hindsight"] = cost(calibrated, [*calibrated.tolist(), 1.1])


def _reliability(logits: Tensor, texts: LabelledTexts, temperature: float) -> Reliability:
    """Confidence against accuracy at that temperature."""
    confidences, predicted = torch.softmax(logits.double() / temperature, dim=-1).max(dim=-1)
    return reliability(confidences, predicted == texts.labels)


def _cue(
    result: Result, bodies: dict[str, Body], reviews: Reviews, config: Config, *, seed: int
) -> None:
    """Fill in the figures of reviews that begin with a cue."""
    generator = make_generator(seed, "cues")
    train, groups = with_cue(reviews.cue_train, config.agreement, generator)
    balanced, _ = with_cue(reviews.cue_train, 0.5, generator)
    same, _ = with_cue(reviews.cue_test, config.agreement, generator)
    even, even_groups = with_cue(reviews.cue_test, 0.5, generator)
    ways: dict[str, tuple[LabelledTexts, Tensor | None]] = {
        "plain": (train, None),
        "reweighted": (train, group_weights(groups, len(GROUPS))),
        "balanced": (balanced, None),
    }
    for name in ("scratch", "fresh", "independent opinions", "pretrained"):
        for way, (texts, weights) in ways.items():
            control = name in ("fresh", "independent opinions")
            if name not in bodies or (control and way == "reweighted"):
                continue
            made = train_classifier(
                bodies[name], texts, config.training, seed=seed, weights=weights
            )
            right = class_logits(made, even).argmax(dim=-1) == even.labels
            means = group_means(right.double(), even_groups, len(GROUPS)).tolist()
            result.cue_same[f"{name} {way}"] = accuracy(made, same)
            result.cue_groups[f"{name} {way}"] = dict(zip(GROUPS, means, strict=True))
            result.cue_worst[f"{name} {way}"] = min(means)
