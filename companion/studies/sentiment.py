"""What does a pretrained language model save a classifier, and what hides behind its accuracy?

Reviews are written by the grammar of `companion.sources.grammar`, and the sentiment of each is
known: all opinion words of a review agree. An LSTM classifier learns it from 10 to 1,000 labels,
from scratch, and by fine-tuning language models that were trained for longer and shorter times on
unlabelled reviews. Two controls say what of the reviews matters: a language model of reviews whose
opinions do not agree, and one of reviews whose words are shuffled.

Then the classifiers are asked more than their accuracy: calibration, precision and recall where few
reviews are negative, what a threshold costs, and the worst group where the first word of a training
review usually goes with the label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_choice, check_sizes, settings_class
from companion.evaluation.calibration import reliability, temperature_of
from companion.evaluation.classification import group_means, precision_recall_f1
from companion.evaluation.decisions import cost_threshold, decide, with_share
from companion.evaluation.texts import text_log_probs
from companion.models.base import LanguageModel
from companion.models.classifier import TextClassifier, class_logits, pooled
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.models.sentence_encoder import load_sentence_encoder
from companion.sources.automaton import AutomatonSource
from companion.sources.grammar import (
    OPINIONS,
    VOCABULARY,
    GrammarConfig,
    ReviewGrammar,
    compile_grammar,
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
    from jaxtyping import Float, Int

#: What a run measures, beside classifiers from scratch and from the language model by labels.
Part = Literal["stages", "controls", "recipes", "decisions", "cue", "encoder"]

#: The classes, by number.
SENTIMENTS = ("negative", "positive")

#: First words that stand for the label in the reviews with a cue: of class 0, and of class 1.
CUES = ("honestly", "overall")

#: Names of the groups of label and cue; group 2 * label + cue.
GROUPS = tuple(f"{label}, {cue}" for label in SENTIMENTS for cue in CUES)

#: Doses up to this many labels are drawn several times, and the mean is taken.
FEW = 30


@settings_class
class Config:
    """Settings of the reviews, the language models and the classifiers."""

    parts: tuple[Part, ...] = ("stages", "controls", "recipes", "decisions", "cue")
    """What is measured beside the main comparison; "encoder" needs an installed package, and alone
    leaves the main comparison out."""
    doses: tuple[int, ...] = (10, 100, 1000)
    """Numbers of labels, half of them of each class; the largest are drawn, the others are some
    of them."""
    draws: int = 3
    """Different labelled reviews that a classifier of 30 labels or fewer is trained on in turn."""
    num_test: int = 1000
    """Test reviews, half of them of each class."""
    num_valid: int = 400
    """Reviews on which temperatures are fitted."""
    longest: int = 40
    """Tokens of the longest review that is classified."""
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
    rare: float = 0.1
    """Share of negative reviews where they are rare."""
    miss: float = 50.0
    """Cost of a negative review that is not flagged; a false alarm costs 1."""
    cue_labels: int = 300
    """Labelled reviews whose first word is a cue."""
    agreement: float = 0.95
    """Share of them whose cue agrees with their label."""

    def __post_init__(self) -> None:
        for part in self.parts:
            check_choice("each of parts", part, Part)
        check_sizes(
            draws=self.draws, num_test=self.num_test, num_valid=self.num_valid,
            longest=self.longest, compared=self.compared, cue_labels=self.cue_labels,
        )  # fmt: skip
        if not self.doses or any(dose < 2 or dose % 2 for dose in self.doses):
            raise ValueError(f"doses must be even numbers >= 2, got {self.doses}")
        if not self.compared <= max(self.doses):
            raise ValueError(
                f"compared must be at most the largest dose, {max(self.doses)}, got {self.compared}"
            )
        for name in ("rare", "agreement"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)}")
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
    ("pretrained", "300 steps", "independent opinions", "shuffled words"), and its labels, as in
    "scratch 10". All but nats, costs and temperatures are shares between 0 and 1."""

    accuracy: dict[str, float] = field(default_factory=dict)
    """Accuracy on unseen reviews, half of them of each class."""
    agreement: dict[str, float] = field(default_factory=dict)
    """What a language model knows of sentiment: of the probability that it gives to opinion words
    after a review's first one, the share on words that agree with it; .5 is knowing nothing."""
    excess_nats: dict[str, float] = field(default_factory=dict)
    """Nats per token of a language model above the source's own, on unseen reviews."""
    best_unit: dict[str, float] = field(default_factory=dict)
    """Accuracy by the sign of one hidden unit against a threshold, after the last word; unit and
    threshold are chosen on the labelled reviews. "fresh" is an LSTM that was not trained."""
    recipes: dict[str, float] = field(default_factory=dict)
    """Accuracy by how the main language model is trained, and by labels, as in "plain 10": "plain"
    trains all layers at once at one rate, and "head" the linear layer alone; "fresh" is the recipe
    of the others on a language model that was not trained."""
    temperature: dict[str, float] = field(default_factory=dict)
    """Temperature fitted on other reviews."""
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
    encoder: dict[str, float] = field(default_factory=dict)
    """Accuracy of logistic regression on a small real sentence encoder's vectors, by labels."""


@dataclass(frozen=True, kw_only=True)
class Reviews:
    """Labelled reviews of one seed; no review of one part stands in another."""

    train: LabelledTexts
    """The labelled reviews, the two classes in turn: any even number of the first is half and
    half."""
    few: list[LabelledTexts]
    """The draws of few labels; the first is the beginning of `train`."""
    test: LabelledTexts
    """Half of each class."""
    valid: LabelledTexts
    """Half of each class."""
    rare: LabelledTexts
    """Few negative ones."""


class IndependentOpinions(ReviewGrammar):
    """The grammar with a new opinion for each opinion word; all else is as it was."""

    def _tones(self, opinion: str) -> dict[str, float]:
        return {"+": self.config.positive, "-": 1 - self.config.positive}


class ShuffledWords:
    """The texts of another source, the words of each in random order: which words stand together
    is as it was, and their order is lost."""

    def __init__(self, source: AutomatonSource) -> None:
        self.source = source

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, the end token included."""
        return self.source.vocabulary_size

    def mean_length(self) -> float:
        """Expected tokens in a text, its end token included."""
        return self.source.mean_length()

    def sample(self, n: int, *, generator: torch.Generator) -> list[Tensor]:
        """`n` texts, each a 1-D tensor of ids that ends with the end token."""
        texts = self.source.sample(n, generator=generator)
        for text in texts:
            text[:-1] = text[torch.randperm(len(text) - 1, generator=generator)]
        return texts


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train every language model and classifier, and measure each on unseen reviews."""
    result = Result()
    source = GrammarSource()
    reviews = write_reviews(source, config, seed=seed)
    if "encoder" in config.parts:
        result.encoder = encoder_accuracy(source, reviews, config)
        if len(config.parts) == 1:
            return result
    bodies: dict[str, LSTMConfig | LanguageModel] = {"scratch": config.model}
    pretrainings: dict[str, Callable[[], LanguageModel]] = {
        "pretrained": lambda: pretrain(source, config, seed=seed)
    }
    if "stages" in config.parts:
        for steps in config.stages:
            pretrainings[f"{steps} steps"] = lambda steps=steps: pretrain(  # type: ignore[misc]
                source, config, seed=seed, steps=steps
            )
    if "controls" in config.parts:
        other = AutomatonSource(VOCABULARY, *compile_grammar(IndependentOpinions(GrammarConfig())))
        pretrainings["independent opinions"] = lambda: pretrain(other, config, seed=seed)
        shuffled = ShuffledWords(source)
        pretrainings["shuffled words"] = lambda: pretrain(shuffled, config, seed=seed)
    for name, make in tqdm(pretrainings.items(), disable=not progress, desc="language models"):
        model = make()
        bodies[name] = model
        result.agreement[name] = opinion_agreement(model, reviews.test)
        result.excess_nats[name] = excess_nats(model, source, reviews.test)
    for name, body in tqdm(bodies.items(), disable=not progress, desc="classifiers"):
        main = name in ("scratch", "pretrained")
        for dose in (dose for dose in config.doses if main or dose <= config.compared):
            result.accuracy[f"{name} {dose}"] = accuracy_by_labels(
                body, reviews, dose, config, seed=seed
            )
    pretrained = bodies["pretrained"]
    assert isinstance(pretrained, LanguageModel)
    for name, model in (("pretrained", pretrained), ("fresh", _fresh(config, seed=seed))):
        result.best_unit[name] = best_unit(model, reviews)[2]
    if "recipes" in config.parts:
        _recipes(result, bodies, reviews, config, seed=seed)
    if "decisions" in config.parts:
        _decisions(result, bodies, reviews, config, seed=seed)
    if "cue" in config.parts:
        _cue(result, bodies, source, config, seed=seed)
    return result


def write_reviews(source: GrammarSource, config: Config, *, seed: int) -> Reviews:
    """The labelled reviews of one seed."""
    generator = make_generator(seed, "labelled reviews")
    few = min(FEW, max(config.doses))
    sizes = {"train": max(config.doses), "few": few * (config.draws - 1)}
    sizes |= {"test": config.num_test, "valid": config.num_valid}
    rows: dict[str, list[Tensor]] = {}
    seen: set[tuple[int, ...]] = set()
    draw = _Draw(source, config.longest, generator, seen)
    for name, size in sizes.items():
        rows[name] = draw.in_turn(size) if size else []
    flagged = max(1, round(config.rare * config.num_test))
    rare = draw.of_class(0, flagged), draw.of_class(1, config.num_test - flagged)
    every = [rows["train"][:few]]
    every += [rows["few"][start : start + few] for start in range(0, len(rows["few"]), few)]
    return Reviews(
        train=_labelled(rows["train"]), few=[_labelled(each) for each in every],
        test=_labelled(rows["test"]), valid=_labelled(rows["valid"]),
        rare=_labelled([*rare[0], *rare[1]], [0] * len(rare[0]) + [1] * len(rare[1])),
    )  # fmt: skip


def pretrain(
    source: TextSource, config: Config, *, seed: int, steps: int | None = None
) -> LanguageModel:
    """A language model of the source's reviews, trained for `steps` or as long as settings say."""
    training = replace(config.pretraining, steps=steps or config.pretraining.steps)
    return train_on_texts(source, seed=seed, training=training, model=config.model)


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
    whole = [
        torch.cat([row[1:length], torch.tensor([END_ID])])
        for row, length in zip(texts.inputs, texts.lengths.tolist(), strict=True)
    ]
    theirs = source.log_probs(whole).sum()
    ours = text_log_probs(model, text_rows(whole)).double().sum()
    return float(theirs - ours) / sum(map(len, whole))


@torch.no_grad()
def best_unit(model: LanguageModel, reviews: Reviews) -> tuple[int, float, float]:
    """The hidden unit that tells the classes apart best: its number, the threshold, and its
    accuracy on the test reviews.

    Unit, threshold and side are chosen on the labelled reviews: the threshold is half-way between
    the unit's means over the two classes.
    """

    def after_the_last_word(texts: LabelledTexts) -> Tensor:
        return pooled(model.features(texts.inputs)[0], texts.lengths, ("last",))

    known, labels = after_the_last_word(reviews.train), reviews.train.labels
    means = torch.stack([known[labels == sentiment].mean(dim=0) for sentiment in (0, 1)])
    middle, side = means.mean(dim=0), (means[1] - means[0]).sign()
    right = ((known - middle) * side > 0) == labels.bool().unsqueeze(1)
    unit = int(right.double().mean(dim=0).argmax())
    found = (after_the_last_word(reviews.test)[:, unit] - middle[unit]) * side[unit] > 0
    accuracy = float((found == reviews.test.labels.bool()).double().mean())
    return unit, float(middle[unit]), accuracy


def accuracy(classifier: TextClassifier, texts: LabelledTexts) -> float:
    """Share of the reviews whose sentiment is predicted right."""
    found = class_logits(classifier, texts).argmax(dim=-1)
    return float((found == texts.labels).double().mean())


def negative_share(
    logits: Float[Tensor, "texts classes"], temperature: float = 1.0
) -> Float[Tensor, " texts"]:
    """Probability that a review is negative, the logits divided by `temperature`."""
    return torch.softmax(logits.double() / temperature, dim=-1)[:, 0]


def with_cue(
    texts: LabelledTexts, agreement: float, generator: torch.Generator
) -> tuple[LabelledTexts, Int[Tensor, " texts"]]:
    """The reviews with a cue and a comma before each, and its group, 2 * label + cue.

    The cue agrees with the label with probability `agreement`, whatever the words. An opening that
    a review had is left out.
    """
    comma, openings = VOCABULARY.index(","), [VOCABULARY.index(cue) for cue in CUES]
    openings.append(VOCABULARY.index("frankly"))
    agrees = torch.rand(len(texts), generator=generator) < agreement
    cues = torch.where(agrees, texts.labels, 1 - texts.labels)
    rows = []
    for row, length, cue in zip(texts.inputs, texts.lengths.tolist(), cues.tolist(), strict=True):
        words = row[1:length]
        if len(words) > 2 and int(words[0]) in openings and int(words[1]) == comma:
            words = words[2:]
        rows.append(torch.cat([torch.tensor([VOCABULARY.index(CUES[cue]), comma]), words]))
    return _labelled(rows, texts.labels.tolist()), 2 * texts.labels + cues


def encoder_accuracy(source: GrammarSource, reviews: Reviews, config: Config) -> dict[str, float]:
    """Accuracy by dose of logistic regression on a small real encoder's vectors of the reviews.

    Raises ValueError, in one sentence, where the package with the encoder's weights is missing.
    """
    from sklearn.linear_model import LogisticRegression

    encoder = load_sentence_encoder()

    def vectors(texts: LabelledTexts) -> Tensor:
        return encoder.encode(
            [
                source.decode(row[1:length])
                for row, length in zip(texts.inputs, texts.lengths.tolist(), strict=True)
            ]
        )

    known, unseen = vectors(reviews.train), vectors(reviews.test).numpy()
    draws = [(known, reviews.train.labels)]
    draws += [(vectors(each), each.labels) for each in reviews.few[1:]]
    found = {}
    for dose in config.doses:
        shares = []
        for some, labels in draws if dose <= FEW else draws[:1]:
            model = LogisticRegression(C=10.0, max_iter=1000)
            model.fit(some[:dose].numpy(), labels[:dose].numpy())
            shares.append(float(model.score(unseen, reviews.test.labels.numpy())))
        found[str(dose)] = sum(shares) / len(shares)
    return found


def accuracy_by_labels(
    body: LSTMConfig | LanguageModel, reviews: Reviews, dose: int, config: Config, *, seed: int
) -> float:
    """Accuracy of classifiers on `body` with `dose` labels; of few, the mean over the draws.

    body: the sizes of an LSTM, to train from scratch, or a language model to fine-tune.
    """
    sets = (
        [each.first(dose) for each in reviews.few] if dose <= FEW else [reviews.train.first(dose)]
    )
    shares = [
        accuracy(train_classifier(body, some, config.training, seed=seed), reviews.test)
        for some in sets
    ]
    return sum(shares) / len(shares)


def _fresh(config: Config, *, seed: int) -> LanguageModel:
    """A language model that was not trained."""
    seed_everything(seed)
    return LSTMLanguageModel(config.model).eval()


def _recipes(
    result: Result, bodies: dict[str, LSTMConfig | LanguageModel], reviews: Reviews,
    config: Config, *, seed: int,
) -> None:  # fmt: skip
    """Fill in the accuracy by recipe."""
    steps = config.training.steps
    recipes = {
        "plain": replace(config.training, rate_decay=1.0, unfreeze_every=0),
        "head": replace(config.training, unfreeze_every=steps),
        "fresh": config.training,
    }
    for dose in config.doses:
        if dose > config.compared:
            continue
        for name, training in recipes.items():
            body = _fresh(config, seed=seed) if name == "fresh" else bodies["pretrained"]
            other = replace(config, training=training)
            result.recipes[f"{name} {dose}"] = accuracy_by_labels(
                body, reviews, dose, other, seed=seed
            )


def _decisions(
    result: Result, bodies: dict[str, LSTMConfig | LanguageModel], reviews: Reviews,
    config: Config, *, seed: int,
) -> None:  # fmt: skip
    """Fill in calibration, precision and recall, and costs."""
    negative = reviews.rare.labels == 0
    share = float(negative.double().mean())
    result.rare_accuracy["none flagged"] = 1 - share
    everything = torch.ones(len(negative), dtype=torch.long)
    result.rare_macro_f1["none flagged"] = precision_recall_f1(
        everything, reviews.rare.labels
    ).macro_f1
    result.cost |= {"none": share * config.miss, "all": 1 - share}
    costs = {"miss": config.miss, "false_alarm": 1.0}
    for name in ("scratch", "pretrained"):
        some = reviews.train.first(config.compared)
        classifier = train_classifier(bodies[name], some, config.training, seed=seed)
        logits = class_logits(classifier, reviews.test)
        try:
            fitted = temperature_of(class_logits(classifier, reviews.valid), reviews.valid.labels)
        except ValueError:  # every review is right: no temperature is best
            fitted = 1.0
        result.temperature[name] = fitted
        for temperature, into in ((1.0, result.ece_unscaled), (fitted, result.ece)):
            probabilities = torch.softmax(logits.double() / temperature, dim=-1)
            confidences, predicted = probabilities.max(dim=-1)
            bins = reliability(confidences, predicted == reviews.test.labels)
            into[name] = bins.ece
        result.ece_by_chance[name] = bins.ece_by_chance
        half = torch.tensor([0.5]).double()
        even = decide(negative_share(logits), reviews.test.labels == 0, half)
        where_rare = class_logits(classifier, reviews.rare)
        rare = decide(negative_share(where_rare), negative, half)
        for kind, found in (("even", even), ("rare", rare)):
            result.precision[f"{name} {kind}"] = float(found.precision)
            result.recall[f"{name} {kind}"] = float(found.recall)
            result.f1[f"{name} {kind}"] = float(found.f1)
        result.rare_accuracy[name] = float(rare.accuracy)
        result.rare_macro_f1[name] = precision_recall_f1(
            where_rare.argmax(dim=-1), reviews.rare.labels
        ).macro_f1
        calibrated = negative_share(where_rare, fitted)
        shifted = with_share(calibrated, before=0.5, after=config.rare)
        threshold = torch.tensor([cost_threshold(**costs)]).double()
        tried = torch.cat([calibrated, torch.tensor([1.1]).double()])
        for kind, values, thresholds in (
            ("half", negative_share(where_rare), half), ("cost", calibrated, threshold),
            ("cost and share", shifted, threshold), ("hindsight", calibrated, tried),
        ):  # fmt: skip
            prices = decide(values, negative, thresholds).cost(**costs)
            result.cost[f"{name} {kind}"] = float(prices.min())


def _cue(
    result: Result, bodies: dict[str, LSTMConfig | LanguageModel], source: GrammarSource,
    config: Config, *, seed: int,
) -> None:  # fmt: skip
    """Fill in the figures of reviews that begin with a cue."""
    generator = make_generator(seed, "reviews with a cue")
    draw = _Draw(source, config.longest, generator, set())
    plain = _labelled(draw.in_turn(config.cue_labels))
    unseen = _labelled(draw.in_turn(config.num_test))
    train, groups = with_cue(plain, config.agreement, generator)
    balanced, _ = with_cue(plain, 0.5, generator)
    same, _ = with_cue(unseen, config.agreement, generator)
    even, even_groups = with_cue(unseen, 0.5, generator)
    present = bool((torch.bincount(groups, minlength=len(GROUPS)) > 0).all())
    ways: dict[str, tuple[LabelledTexts, Tensor | None]] = {"plain": (train, None)}
    if present:  # of a tiny run, a group may be missing
        ways["reweighted"] = (train, group_weights(groups, len(GROUPS)))
    ways["balanced"] = (balanced, None)
    for name in ("scratch", "pretrained"):
        for way, (texts, weights) in ways.items():
            made = train_classifier(
                bodies[name], texts, config.training, seed=seed, weights=weights
            )
            right = class_logits(made, even).argmax(dim=-1) == even.labels
            means = group_means(right.double(), even_groups, len(GROUPS)).tolist()
            result.cue_same[f"{name} {way}"] = accuracy(made, same)
            result.cue_groups[f"{name} {way}"] = dict(zip(GROUPS, means, strict=True))
            result.cue_worst[f"{name} {way}"] = min(means)


class _Draw:
    """Draws reviews with an opinion, each only once."""

    def __init__(
        self,
        source: GrammarSource,
        longest: int,
        generator: torch.Generator,
        seen: set[tuple[int, ...]],
    ) -> None:
        self.source, self.longest, self.generator, self.seen = source, longest, generator, seen
        self.waiting: tuple[list[Tensor], list[Tensor]] = ([], [])

    def of_class(self, sentiment: int, n: int) -> list[Tensor]:
        """`n` reviews of that class, without their end token."""
        waiting = self.waiting[sentiment]
        while len(waiting) < n:
            for text in self.source.sample(2 * n + 10, generator=self.generator):
                words, opinion = text[:-1], self.source.opinion(text)
                key = tuple(words.tolist())
                if opinion != "0" and len(words) <= self.longest and key not in self.seen:
                    self.seen.add(key)
                    self.waiting[int(opinion == "+")].append(words)
        found = waiting[:n]
        del waiting[:n]
        return found

    def in_turn(self, n: int) -> list[Tensor]:
        """`n` reviews, a negative and a positive one in turn; `n` is even."""
        pairs = zip(self.of_class(0, n // 2), self.of_class(1, n // 2), strict=True)
        return [words for pair in pairs for words in pair]


def _labelled(rows: list[Tensor], labels: list[int] | None = None) -> LabelledTexts:
    """Reviews as rows that begin with the end token; without `labels`, the classes are in turn."""
    whole = [torch.cat([torch.tensor([END_ID]), words]) for words in rows]
    return LabelledTexts(
        inputs=torch.nn.utils.rnn.pad_sequence(whole, batch_first=True, padding_value=END_ID),
        lengths=torch.tensor([len(row) for row in whole]),
        labels=torch.tensor([i % 2 for i in range(len(rows))] if labels is None else labels),
    )
