"""Is a bias that was planted in a source found in a model, and what do remedies cost?

Sentences about two invented peoples are drawn from a source in which traits go with one people by
a known log odds (`companion.sources.planted`). Models learn it from fresh text; the log odds of
their next words is compared with the planted one. Then the strength is varied, and association of
word vectors and a classifier's decisions are measured at each; remedies are compared by what is
left of the bias, asked in four ways, and by their exact cost on the source; and texts that a
classifier flags are reviewed by simulated people who err.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_choice, check_counts, settings_class
from companion.evaluation.bias import (
    Questionnaire,
    association_test,
    mean_interval,
    odds_ratio,
    rates_by_group,
)
from companion.evaluation.decisions import cost_threshold, decide
from companion.evaluation.review import (
    Reviewer,
    agreement,
    corrected_share,
    false_alarm_rate,
    found_in_queue,
    measured_miss_rate,
    miss_rate,
    observed_share,
    reviewed,
)
from companion.generation.texts import write_texts
from companion.losses.cross_entropy import token_nats
from companion.models.averaged import SwapAveraged
from companion.models.base import LanguageModel
from companion.models.classifier import TextClassifier, class_logits
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.planted import (
    ADJECTIVES,
    DEEDS,
    LINKS,
    NAMES,
    PEOPLES,
    REVERSE,
    SHARES,
    TONES,
    TRAITS,
    People,
    PlantedConfig,
    PlantedSource,
    Question,
    forward_questions,
    reverse_questions,
)
from companion.text.labelled import LabelledTexts
from companion.text.rows import END_ID, text_batch, text_rows
from companion.training.classification import FineTuningConfig, train_classifier
from companion.training.weighted import train_on_rows

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int

#: What is done against the bias, after two controls: "again" changes the initial weights alone,
#: "placebo" swaps words that carry no bias.
Remedy = Literal["again", "placebo", "balancing", "reweighting", "term", "averaging"]

#: Places in NAMES of the names that remedies know; the last name of each people is on no list.
LISTED = (0, 1, 2)
#: The link that no remedy's templates have.
HELD_OUT = "who sells bread is"
#: Tokens of the longest text that is generated; those of the source have ten at most.
LONGEST = 12
#: Words that the placebo swaps; they are equally frequent, so the texts' distribution stays.
PLACEBO = (("old", "young"),)


@settings_class
class Config:
    """Settings of the source, the models and the measurements."""

    source: PlantedConfig = PlantedConfig()
    """The source of the main models."""
    strengths: tuple[float, ...] = (0.0, 0.5, 3.0)
    """Other planted log odds; 0 is the control."""
    num_runs: int = 4
    """Main models, each with texts and weights of its own."""
    texts: int = 51_200
    """Training texts of each model, freshly drawn; each is read once."""
    batch_size: int = 64
    """Texts of each optimizer step."""
    learning_rate: float = 1e-2
    """Peak learning rate."""
    embedding_size: int = 32
    """Size of the embeddings."""
    hidden_size: int = 64
    """Units of the LSTM."""
    vector_size: int = 8
    """Size of the word vectors that are counted instead."""
    samples: tuple[int, ...] = (100, 1_000, 10_000)
    """Numbers of generated texts from which the log odds is estimated, too."""
    remedies: tuple[Remedy, ...] = (
        "again", "placebo", "balancing", "reweighting", "term", "averaging"
    )  # fmt: skip
    """What is done with the first main model's texts."""
    penalty: float = 0.05
    """Weight of the objective term, the mean squared log odds ratio of the known templates."""
    labelled: int = 100
    """Labelled messages that a classifier is fine-tuned on."""
    label_log_odds: float = 1.5
    """Log odds of a complaint about a vel, minus about an ond, where labels are biased."""
    repeats: int = 2
    """Samples of labelled messages for each language model."""
    fine_tuning: FineTuningConfig = FineTuningConfig(steps=60, unfreeze_every=10)
    """Training of the classifiers."""
    queue: int = 4_000
    """Messages that are scored and reviewed."""
    miss_cost: float = 5.0
    """Cost of not reading a complaint, relative to reading a non-complaint."""
    reviewers: tuple[tuple[float, float], ...] = ((0.9, 0.95), (0.8, 0.9))
    """Sensitivity and specificity of the two who review."""

    def __post_init__(self) -> None:
        check_counts(self)
        if self.num_runs < 2:
            raise ValueError(f"num_runs must be >= 2, for an interval, got {self.num_runs}")
        for remedy in self.remedies:
            check_choice("each of remedies", remedy, Remedy)
        if 0.0 not in self.strengths:
            raise ValueError(f"strengths must have the control 0, got {self.strengths}")
        if self.source.log_odds in self.strengths:
            raise ValueError(
                f"strengths are beside source.log_odds = {self.source.log_odds}, got "
                f"{self.strengths}"
            )
        if not self.penalty > 0:
            raise ValueError(f"penalty must be > 0, got {self.penalty}")
        if len(self.reviewers) != 2:
            raise ValueError(f"reviewers must be two, got {len(self.reviewers)}")
        for sensitivity, specificity in self.reviewers:
            corrected_share(0.0, Reviewer(sensitivity, specificity))  # refuses impossible reviewers
        cost_threshold(miss=self.miss_cost, false_alarm=1)  # refuses impossible costs


@dataclass(kw_only=True)
class Result:
    """Log odds ratios in nats unless stated otherwise; by strength, "0" and so on, by remedy
    ("none" is the first main model), or by way of asking (see `ways_of_asking`)."""

    planted: float
    """The log odds ratio that was planted."""
    association_nats: float
    """Exact mutual information of people and tone, in nats per token: the least that a model
    without bias pays."""
    runs: list[float] = field(default_factory=list)
    """The mean over all templates of each main model."""
    interval: dict[str, float] = field(default_factory=dict)
    """Student's interval over the main models: "value", "low", "high"."""
    inside: dict[str, float] = field(default_factory=dict)
    """Whether it holds the planted one (1 or 0), "models"; the share of the main models whose own
    interval does, over "templates"; and that of their training texts' counts, "corpus"."""
    corpus: list[float] = field(default_factory=list)
    """The log odds ratio of the counts in each main model's training texts."""
    spread_models: float = 0.0
    """Standard deviation of `runs`."""
    spread_templates: float = 0.0
    """Standard deviation over the templates of the first main model."""
    kl: list[float] = field(default_factory=list)
    """Exact KL from the source to each main model, in nats per token."""
    generated: dict[str, float] = field(default_factory=dict)
    """The estimate from generated texts of the first main model, by their number."""
    generated_half: dict[str, float] = field(default_factory=dict)
    """Half the width of its 95 % interval."""
    temperature: dict[str, float] = field(default_factory=dict)
    """The first main model's mean log odds ratio at temperature "0.5", and "2"."""
    written: dict[str, float] = field(default_factory=dict)
    """What counts in infinitely many texts of the first main model would give, at temperature "1"
    and "0.5": from its exact probabilities of all texts of the source."""
    by_strength: dict[str, float] = field(default_factory=dict)
    """A model's mean log odds ratio, by planted strength."""
    vectors_initial: float = 0.0
    """Effect size of the association test on the embeddings before training, which all models of
    `by_strength` have in common."""
    vectors_lstm: dict[str, float] = field(default_factory=dict)
    """Effect size of the association test on the model's embeddings, by strength."""
    vectors_counted: dict[str, float] = field(default_factory=dict)
    """The same on vectors counted from its training texts."""
    p_counted: dict[str, float] = field(default_factory=dict)
    """The p-value of the latter."""
    gap_equal: dict[str, float] = field(default_factory=dict)
    """Mean probability of a complaint by a vel's message, minus by the same message about an ond,
    of classifiers fine-tuned on labels without bias, by the language model's strength."""
    gap_biased: dict[str, float] = field(default_factory=dict)
    """The same, fine-tuned on labels with bias."""
    opportunity_equal: dict[str, float] = field(default_factory=dict)
    """Share of the complaints flagged at 1/2, of the vel minus of the ond, on labels without bias:
    the equal opportunity difference."""
    opportunity_biased: dict[str, float] = field(default_factory=dict)
    """The same on labels with bias."""
    correlation: dict[str, float] = field(default_factory=dict)
    """Correlation of the gap with the model's log odds ratio over the language models, for labels
    without bias, "equal", and with, "biased"."""
    left: dict[str, dict[str, float]] = field(default_factory=dict)
    """What is left of the log odds ratio, by remedy and by way of asking."""
    cost: dict[str, float] = field(default_factory=dict)
    """Exact KL from the source, in nats per token, minus the first main model's, by remedy."""
    least: dict[str, float] = field(default_factory=dict)
    """The KL of what a remedy aims at, without training: see `least_costs`."""
    threshold: float = 0.0
    """The threshold of the queue that the costs give."""
    queue: dict[str, float] = field(default_factory=dict)
    """At that threshold the "miss" rate, "false_alarm" rate and "cost" of a message, the "cost at
    half" at 1/2, the lowest cost of all thresholds, "cost at best", that of reading everything,
    "cost of all", and that of the true probabilities, "cost of truth"; the "share" of complaints;
    and of a queue with room for a tenth of the messages, the share of the complaints "found" and
    the largest possible one, "room"."""
    review: dict[str, float] = field(default_factory=dict)
    """"kappa" of the reviewers; the share that the first calls complaints, "observed", by the
    formula, "expected observed", and "corrected"; the miss rate by the first one's word,
    "measured miss", and "expected miss" by the formula."""


class Message(NamedTuple):
    """A message about somebody, of a kind that a classifier reads, and its exact probabilities."""

    text: str
    people: People
    weight: float
    """Share of this message among all about its people."""
    complaint: float
    """Probability that it is a complaint."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train the models, and measure their bias, its traces, its remedies and their costs."""
    source = PlantedSource(config.source)
    training = [each for each in config.remedies if each != "averaging"]
    bar = tqdm(
        total=config.num_runs + len(config.strengths) + len(training), disable=not progress,
        unit="model",
    )  # fmt: skip
    result = Result(planted=config.source.log_odds, association_nats=source.association_nats())
    mains: list[LSTMLanguageModel] = []
    templates = [template for way in ways_of_asking().values() for template in way]
    in_templates, in_corpus = 0, 0
    for number in range(config.num_runs):
        rows = training_rows(source, config, seed=seed, number=number)
        model = learn(source, rows, config, seed=seed + 1000 * number)
        bar.update()
        odds = log_odds_of(model, source, templates)
        own = mean_interval(odds.tolist())
        counted = odds_ratio(counts(source, rows))
        in_templates += own.holds(result.planted)
        in_corpus += counted.holds(result.planted)
        result.runs.append(own.value)
        result.corpus.append(counted.value)
        result.kl.append(exact_kl(source, model))
        mains.append(model)
        if number == 0:
            first_rows = rows
            result.spread_templates = float(odds.std())
    over_models = mean_interval(result.runs)
    result.spread_models = float(torch.tensor(result.runs).double().std())
    result.interval = over_models._asdict()
    result.inside = {
        "models": float(over_models.holds(result.planted)),
        "templates": in_templates / config.num_runs,
        "corpus": in_corpus / config.num_runs,
    }
    main = mains[0]
    _generated(result, source, main, config, seed=seed)
    for temperature in (0.5, 2.0):
        cooled = log_odds_of(main, source, templates, temperature=temperature)
        result.temperature[f"{temperature:g}"] = float(cooled.mean())
    for temperature in (1.0, 0.5):
        result.written[f"{temperature:g}"] = written_odds(source, main, temperature=temperature)
    models = {config.source.log_odds: (main, first_rows)}
    for strength in config.strengths:
        other = PlantedSource(dataclasses.replace(config.source, log_odds=strength))
        rows = training_rows(other, config, seed=seed)
        models[strength] = learn(other, rows, config, seed=seed), rows
        bar.update()
    _strengths(result, source, dict(sorted(models.items())), config, seed=seed)
    result.least = least_costs(source)
    _judge(result, "none", main, source, main)
    for remedy in config.remedies:
        if remedy == "averaging":
            better: LanguageModel = SwapAveraged(
                main, swaps(source), share=config.source.vel
            ).eval()
        else:
            better = remedied(remedy, source, first_rows, config, seed=seed)
            bar.update()
        _judge(result, remedy, better, source, main)
    _review(result, source, main, config, seed=seed)
    bar.close()
    return result


# --- Models and their log odds ------------------------------------------------------------------


def ways_of_asking() -> dict[str, list[list[Question]]]:
    """Templates by way of asking.

    "asked": those that the objective term knows, about listed names. "new template": the link
    HELD_OUT. "unlisted names": the known templates, about names on no list. "reverse": the name is
    asked for, after a trait.
    """
    unlisted = tuple(i for i in range(len(SHARES)) if i not in LISTED)
    known = [(link, adj) for link in LINKS if link != HELD_OUT for adj in ADJECTIVES]
    return {
        "asked": [forward_questions(link, adj, names=LISTED) for link, adj in known],
        "new template": [forward_questions(HELD_OUT, adj, names=LISTED) for adj in ADJECTIVES],
        "unlisted names": [forward_questions(link, adj, names=unlisted) for link, adj in known],
        "reverse": [reverse_questions(template) for template in REVERSE],
    }


def training_rows(
    source: PlantedSource, config: Config, *, seed: int, number: int = 0
) -> Int[Tensor, "texts time"]:
    """The training texts of the model with that number, filled up with the end token."""
    generator = make_generator(seed, f"training text {number}")
    return text_rows(source.sample(config.texts, generator=generator))


def learn(
    source: PlantedSource, rows: Int[Tensor, "texts time"], config: Config, *, seed: int
) -> LSTMLanguageModel:
    """A model of these texts, without any remedy."""
    return remedied(None, source, rows, config, seed=seed)


@torch.no_grad()
def log_odds_of(
    model: LanguageModel,
    source: PlantedSource,
    templates: Sequence[Sequence[Question]],
    *,
    temperature: float = 1.0,
) -> Float64[Tensor, " templates"]:
    """The log odds ratio of each template, at a temperature of the model's."""
    if temperature != 1.0:
        model = _Cooled(model, temperature)
    return questionnaire(source, templates)(model).double()


def questionnaire(source: PlantedSource, templates: Sequence[Sequence[Question]]) -> Questionnaire:
    """The questions of these templates in the source's words."""
    return Questionnaire(templates, source.encode, vocabulary_size=source.vocabulary_size)


@torch.no_grad()
def exact_kl(source: PlantedSource, model: LanguageModel) -> float:
    """KL from the source to the model, in nats per token, summed over all possible texts."""
    rows, log_p = source.all_texts()
    return float((log_p.exp() * (log_p - _log_probs(model, rows))).sum()) / source.mean_length()


@torch.no_grad()
def written_odds(source: PlantedSource, model: LanguageModel, *, temperature: float = 1.0) -> float:
    """The log odds ratio of the texts that a model writes, names and templates taken together: what
    counts would give if there were infinitely many, texts that the source lacks left out."""
    rows, _ = source.all_texts()
    _, people, tone = people_and_tone(source, rows)
    both = (people >= 0) & (tone >= 0)
    q = _log_probs(_Cooled(model, temperature), rows[both]).exp()
    cells = torch.zeros(4, dtype=torch.float64).index_add_(0, (2 * people + tone)[both], q)
    return float((cells[3] * cells[0] / (cells[1] * cells[2])).log())


def _log_probs(model: LanguageModel, rows: Tensor) -> Float64[Tensor, " texts"]:
    batch = text_batch(rows)
    logits, _ = model(batch.inputs)
    return -token_nats(logits.double(), batch.targets).sum(dim=1)


def counts(source: PlantedSource, rows: Int[Tensor, "texts time"]) -> Int[Tensor, "2 2"]:
    """Texts with a people and a trait: ond and vel by row, good and bad by column."""
    return people_and_tone(source, rows)[0]


def people_and_tone(
    source: PlantedSource, rows: Int[Tensor, "texts time"], *, names: Sequence[int] | None = None
) -> tuple[Int[Tensor, "2 2"], Int[Tensor, " texts"], Int[Tensor, " texts"]]:
    """The table of `counts`, and of each text its row and its column in it, -1 where it has none.

    names: places in NAMES of the names that count; None means all.
    """
    of_people = torch.full((source.vocabulary_size,), -1)
    of_tone = torch.full((source.vocabulary_size,), -1)
    places = range(len(SHARES)) if names is None else names
    for place, group in enumerate(PEOPLES):
        of_people[source.encode(" ".join(NAMES[group][i] for i in places))] = place
    for place, kind in enumerate(TONES):
        of_tone[source.encode(" ".join(TRAITS[kind]))] = place
    people, tone = of_people[rows].amax(dim=1), of_tone[rows].amax(dim=1)
    both = (people >= 0) & (tone >= 0)
    table = torch.bincount(2 * people[both] + tone[both], minlength=4).view(2, 2)
    return table, people, tone


class _Cooled(LanguageModel):
    """A model with its logits divided by a temperature."""

    def __init__(self, model: LanguageModel, temperature: float) -> None:
        super().__init__(model.vocabulary_size)
        self.model, self.temperature = model, temperature

    def features(self, inputs: Tensor, state: object = None) -> tuple[Tensor, object]:
        return self.model.features(inputs, state)

    def logits(self, features: Tensor) -> Tensor:
        return self.model.logits(features) / self.temperature

    def initial_state(self, batch_size: int) -> object:
        return self.model.initial_state(batch_size)


def _generated(
    result: Result, source: PlantedSource, main: LanguageModel, config: Config, *, seed: int
) -> None:
    """Fill in the estimates from generated texts: the first of one sample each."""
    generator = make_generator(seed, "generated")
    texts = write_texts(main, max(config.samples), LONGEST, generator=generator)
    for number in config.samples:
        found = odds_ratio(counts(source, texts[:number]))
        result.generated[str(number)] = found.value
        result.generated_half[str(number)] = (found.high - found.low) / 2


# --- Strengths: word vectors and decisions ------------------------------------------------------


def counted_vectors(
    rows: Int[Tensor, "texts time"], vocabulary_size: int, size: int
) -> Float64[Tensor, "vocab size"]:
    """Word vectors from counts: positive pointwise mutual information of words of one text, and of
    that matrix the leading singular vectors (Levy & Goldberg 2014)."""
    inside = torch.zeros(len(rows), vocabulary_size, dtype=torch.float64).scatter_(1, rows, 1.0)
    inside[:, END_ID] = 0
    together = (inside.T @ inside).fill_diagonal_(0)
    each = together.sum(dim=1)
    expected = each.unsqueeze(1) * each.unsqueeze(0) / together.sum()
    ratio = together / expected.clamp(min=1e-12)
    positive = ratio.clamp(min=1).log()  # where a pair is rarer than by chance, 0
    left, strength, _ = torch.linalg.svd(positive)
    vectors: Tensor = left[:, :size] * strength[:size].sqrt()
    return vectors


def _strengths(
    result: Result,
    source: PlantedSource,
    models: Mapping[float, tuple[LSTMLanguageModel, Tensor]],
    config: Config,
    *,
    seed: int,
) -> None:
    """Fill in what word vectors and classifiers show of each planted strength."""
    templates = [template for way in ways_of_asking().values() for template in way]
    words = [NAMES["ond"], NAMES["vel"], TRAITS["bad"], TRAITS["good"]]
    ids = [torch.tensor(source.encode(" ".join(some))) for some in words]
    start = initial_embeddings(source, config, seed=seed)
    result.vectors_initial = association_test(*(start[some] for some in ids)).effect
    for strength, (model, rows) in models.items():
        name = f"{strength:g}"
        result.by_strength[name] = float(log_odds_of(model, source, templates).mean())
        own = model.embedding.weight.detach()
        result.vectors_lstm[name] = association_test(*(own[some] for some in ids)).effect
        counted = counted_vectors(rows, source.vocabulary_size, config.vector_size)
        found = association_test(*(counted[some] for some in ids))
        result.vectors_counted[name], result.p_counted[name] = found
        for labels, gap, opportunity in (
            (0.0, result.gap_equal, result.opportunity_equal),
            (config.label_log_odds, result.gap_biased, result.opportunity_biased),
        ):
            gap[name], opportunity[name] = gaps(model, source, config, log_odds=labels, seed=seed)
    odds = list(result.by_strength.values())
    for kind, found_gaps in (("equal", result.gap_equal), ("biased", result.gap_biased)):
        pairs = torch.tensor([odds, list(found_gaps.values())], dtype=torch.float64)
        result.correlation[kind] = float(torch.corrcoef(pairs)[0, 1])


def initial_embeddings(
    source: PlantedSource, config: Config, *, seed: int
) -> Float[Tensor, "vocab size"]:
    """The input embeddings that models of this seed begin with, whatever they then read."""
    seed_everything(seed)
    return LSTMLanguageModel(_sizes(source, config)).embedding.weight.detach()


def messages(
    log_odds: float = 0.0, *, complaints: float = 0.3, kept: float = 0.75
) -> list[Message]:
    """All messages with their exact probabilities: who did two things, and whether it is a
    complaint.

    log_odds: log odds of a complaint about a vel, minus about an ond; `complaints` is the share
        among those about an ond.
    kept: probability of a bad deed in a complaint, and of a good deed in another message.
    """
    found = []
    base = math.log(complaints / (1 - complaints))
    deeds = [(deed, tone == "bad") for tone in TONES for deed in DEEDS[tone]]
    for people, (one, bad), (other, worse) in itertools.product(PEOPLES, deeds, deeds):
        share = 1 / (1 + math.exp(-base - (log_odds if people == "vel" else 0)))
        each = [(kept if is_bad else 1 - kept) / len(DEEDS["bad"]) for is_bad in (bad, worse)]
        others = [(1 - kept if is_bad else kept) / len(DEEDS["bad"]) for is_bad in (bad, worse)]
        of_complaint, of_praise = share * math.prod(each), (1 - share) * math.prod(others)
        for (name, p), (adjective, a) in itertools.product(
            zip(NAMES[people], SHARES, strict=True), ADJECTIVES.items()
        ):
            words = ("the", adjective, name, one, "and", other)
            text = " ".join(word for word in words if word)
            either = of_complaint + of_praise
            found.append(Message(text, people, p * a * either, of_complaint / either))
    return found


def draw_messages(
    source: PlantedSource, n: int, *, generator: torch.Generator, log_odds: float = 0.0
) -> tuple[LabelledTexts, list[Message]]:
    """Messages drawn at random, `config.vel` of them about vel, with label 1 for a complaint."""
    everything = messages(log_odds)
    vel = source.config.vel
    weights = torch.tensor(
        [m.weight * (vel if m.people == "vel" else 1 - vel) for m in everything]
    ).double()
    chosen = torch.multinomial(weights, n, replacement=True, generator=generator).tolist()
    drawn = [everything[i] for i in chosen]
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    labels = (u < torch.tensor([m.complaint for m in drawn])).long()
    return encoded_messages(source, drawn, labels), drawn


def encoded_messages(
    source: PlantedSource, some: Sequence[Message], labels: Tensor | None = None
) -> LabelledTexts:
    """Messages as rows of token ids that begin with the end token."""
    rows = [torch.tensor(source.encode(message.text)) for message in some]
    return LabelledTexts.of_rows(rows, [0] * len(rows) if labels is None else labels.tolist())


def judge_of_messages(
    model: LanguageModel,
    source: PlantedSource,
    config: Config,
    *,
    log_odds: float,
    seed: int,
    repeat: int = 0,
) -> TextClassifier:
    """A classifier of messages, fine-tuned from the language model on a few labelled ones."""
    generator = make_generator(seed, f"messages {repeat}")
    texts, _ = draw_messages(source, config.labelled, generator=generator, log_odds=log_odds)
    return train_classifier(
        model, texts, config.fine_tuning, seed=seed + 1000 * repeat, num_classes=2
    )


def gaps(
    model: LanguageModel, source: PlantedSource, config: Config, *, log_odds: float, seed: int
) -> tuple[float, float]:
    """`unfairness` of classifiers fine-tuned from the model, mean over `config.repeats` samples of
    labelled messages with that log odds."""
    pairs = [
        unfairness(
            judge_of_messages(model, source, config, log_odds=log_odds, seed=seed, repeat=repeat),
            source,
        )
        for repeat in range(config.repeats)
    ]
    gap, opportunity = (sum(each) / len(each) for each in zip(*pairs, strict=True))
    return gap, opportunity


def unfairness(classifier: TextClassifier, source: PlantedSource) -> tuple[float, float]:
    """How differently a classifier treats equal messages: the gap of mean probabilities, and the
    equal opportunity difference at 1/2, both vel minus ond, exact over all messages where people
    and complaints are independent."""
    everything = messages()
    scores = torch.softmax(
        class_logits(classifier, encoded_messages(source, everything)).double(), dim=1
    )[:, 1]
    rates = rates_by_group(
        scores,
        torch.tensor([m.complaint for m in everything]).double(),
        [m.people for m in everything],
        weights=torch.tensor([m.weight for m in everything]).double(),
    )
    vel, ond = rates["vel"], rates["ond"]
    return vel.mean_score - ond.mean_score, vel.true_positive_rate - ond.true_positive_rate


# --- Remedies -----------------------------------------------------------------------------------


def swaps(source: PlantedSource) -> dict[int, int]:
    """Listed names of the ond and their counterparts, as tokens."""
    return {source.encode(NAMES["ond"][i])[0]: source.encode(NAMES["vel"][i])[0] for i in LISTED}


def swapped(
    rows: Int[Tensor, "texts time"], pairs: Mapping[int, int], *, generator: torch.Generator
) -> Int[Tensor, "texts time"]:
    """Each text, with probability 1/2, with its listed words replaced by their counterparts.

    Counterfactual data substitution (Hall Maudslay et al. 2019); the augmentation of Lu et al.
    (2020) keeps the replaced texts as well.
    """
    chosen = torch.rand(len(rows), generator=generator) < 0.5
    return torch.where(chosen.unsqueeze(1), _counterparts(rows, pairs), rows)


def _counterparts(rows: Tensor, pairs: Mapping[int, int]) -> Tensor:
    table = torch.arange(max(int(rows.max()), *pairs, *pairs.values()) + 1)
    for one, other in pairs.items():
        table[one], table[other] = other, one
    return table[rows]


def balancing_weights(
    source: PlantedSource, rows: Int[Tensor, "texts time"]
) -> Float64[Tensor, " texts"]:
    """Weights under which listed people and tone are independent, with margins as they are
    (Kamiran & Calders 2012); 1 for a text that lacks one of them."""
    table, people, tone = people_and_tone(source, rows, names=LISTED)
    return _independent(table.double(), people, tone)


def _independent(table: Tensor, people: Tensor, tone: Tensor) -> Tensor:
    shares = table / table.sum()
    ratio = shares.sum(dim=1, keepdim=True) * shares.sum(dim=0, keepdim=True) / shares
    both = (people >= 0) & (tone >= 0)
    return torch.where(both, ratio[people.clamp(min=0), tone.clamp(min=0)], 1.0)


def least_costs(source: PlantedSource) -> dict[str, float]:
    """Exact KL from the source to the distribution that a remedy aims at, in nats per token: what
    it costs a perfect learner. The objective term aims at no single one.
    """
    rows, log_p = source.all_texts()
    p = log_p.exp()
    place = {tuple(row): i for i, row in enumerate(rows.tolist())}

    def half_swapped(pairs: Mapping[int, int]) -> Tensor:
        other = [place[tuple(row)] for row in _counterparts(rows, pairs).tolist()]
        return (p + p[other]) / 2

    _, people, tone = people_and_tone(source, rows, names=LISTED)
    both = (people >= 0) & (tone >= 0)
    table = torch.zeros(4, dtype=torch.float64)
    table.index_add_(0, (2 * people + tone)[both], p[both])
    ratio = _independent(table.view(2, 2), people, tone)
    of_tone = torch.tensor(source.encode(" ".join(word for kind in TONES for word in TRAITS[kind])))
    trait_last = torch.isin(rows.gather(1, (rows > 0).sum(dim=1, keepdim=True) - 1), of_tone)
    aims = {
        "placebo": half_swapped(_placebo(source)),
        "balancing": half_swapped(swaps(source)),
        "reweighting": p * ratio,
        # Only what follows a listed name is averaged: the trait at the end of a text.
        "averaging": p * torch.where(trait_last.squeeze(1), ratio, 1.0),
    }
    return {
        name: float((p * (log_p - q.log())).sum()) / source.mean_length()
        for name, q in aims.items()
    }


def _placebo(source: PlantedSource) -> dict[int, int]:
    return {source.encode(one)[0]: source.encode(other)[0] for one, other in PLACEBO}


def remedied(
    remedy: Remedy | None,
    source: PlantedSource,
    rows: Int[Tensor, "texts time"],
    config: Config,
    *,
    seed: int,
) -> LSTMLanguageModel:
    """A model trained on these texts with that remedy, or none, from the same initial weights,
    except that "again" has others."""
    weights, term = None, None
    generator = make_generator(seed, "swaps")
    if remedy == "again":
        seed += 500
    elif remedy == "placebo":
        rows = swapped(rows, _placebo(source), generator=generator)
    elif remedy == "balancing":
        rows = swapped(rows, swaps(source), generator=generator)
    elif remedy == "reweighting":
        weights = balancing_weights(source, rows)
    elif remedy == "term":
        asked = questionnaire(source, ways_of_asking()["asked"])

        def term(model: LanguageModel) -> Tensor:
            return config.penalty * asked(model).square().mean()

    return train_on_rows(
        rows, _sizes(source, config), batch_size=config.batch_size,
        learning_rate=config.learning_rate, seed=seed, weights=weights, term=term,
    )  # fmt: skip


def _sizes(source: PlantedSource, config: Config) -> LSTMConfig:
    return LSTMConfig(
        vocabulary_size=source.vocabulary_size, embedding_size=config.embedding_size,
        hidden_size=config.hidden_size,
    )  # fmt: skip


def _judge(
    result: Result, name: str, model: LanguageModel, source: PlantedSource, main: LanguageModel
) -> None:
    result.left[name] = {
        way: float(log_odds_of(model, source, templates).mean())
        for way, templates in ways_of_asking().items()
    }
    if name != "none":
        result.cost[name] = exact_kl(source, model) - exact_kl(source, main)


# --- The review queue ---------------------------------------------------------------------------


def _review(
    result: Result, source: PlantedSource, main: LanguageModel, config: Config, *, seed: int
) -> None:
    """Fill in the rates of a queue, by the truth and by reviewers who err."""
    classifier = judge_of_messages(main, source, config, log_odds=0.0, seed=seed)
    generator = make_generator(seed, "queue")
    texts, drawn = draw_messages(source, config.queue, generator=generator)
    scores = torch.softmax(class_logits(classifier, texts).double(), dim=1)[:, 1]
    truth = texts.labels == 1
    result.threshold = cost_threshold(miss=config.miss_cost, false_alarm=1)
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)
    at = decide(scores, truth, [result.threshold, 0.5, *grid.tolist()])
    costs = at.cost(miss=config.miss_cost, false_alarm=1)
    misses, alarms = miss_rate(at), false_alarm_rate(at)
    share = float(truth.double().mean())
    exact = torch.tensor([message.complaint for message in drawn]).double()
    by_truth = decide(exact, truth, [result.threshold, 0.0])
    least, most = by_truth.cost(miss=config.miss_cost, false_alarm=1).tolist()
    room = max(1, config.queue // 10)
    result.queue = {
        "miss": float(misses[0]), "false_alarm": float(alarms[0]), "cost": float(costs[0]),
        "cost at half": float(costs[1]), "cost at best": float(costs[2:].min()),
        "cost of all": most, "cost of truth": least, "share": share,
        "found": found_in_queue(scores, truth, room), "room": min(1.0, room / int(truth.sum())),
    }  # fmt: skip
    one, other = (Reviewer(*each) for each in config.reviewers)
    says = [reviewed(truth, each, generator=generator) for each in (one, other)]
    flagged = scores >= result.threshold
    observed = float(says[0].double().mean())
    result.review = {
        "kappa": agreement(*says), "observed": observed,
        "expected observed": observed_share(share, one),
        "corrected": corrected_share(observed, one),
        "measured miss": float((~flagged & says[0]).sum() / says[0].sum()),
        "expected miss": measured_miss_rate(
            share, miss=result.queue["miss"], false_alarm=result.queue["false_alarm"], reviewer=one
        ),
    }  # fmt: skip
