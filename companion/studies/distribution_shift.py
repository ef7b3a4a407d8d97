"""What does a model pay on a source unlike the one it was trained on, and for what?

An LSTM learns the review grammar. On shifted grammars its loss is split into the entropy of the new
source, the KL that a perfect model of the old source has as well, and the model's own error, which
is grouped by how often its context occurred in training. Another LSTM learns a grammar in which
some pairs of words hardly occur, and is tested where they do. Then the first is trained further on
a little text of a new source, with or without old text mixed in. All floors are exact. The study
`strange_text` uses real text.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_counts, settings_class
from companion.evaluation.texts import next_log_probs
from companion.generalization.shift import (
    by_context_count,
    by_true_probability,
    carried_by_rarest,
    context_counts,
    rarer_pairs,
    split_loss,
    token_terms,
)
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.automaton import AutomatonSource
from companion.sources.grammar import ADJECTIVES, NOUNS, VOCABULARY, GrammarConfig
from companion.sources.reviews import GrammarSource
from companion.sources.streams import endless_text, true_rows
from companion.training.config import TrainConfig
from companion.training.continued import mixed_text, train_and_measure
from companion.training.from_source import steps_of, train_on_source, training_text

#: The old source and its shifts by name; each shift changes one setting.
SHIFTS: dict[str, GrammarConfig] = {
    "old": GrammarConfig(),
    "adjectives": GrammarConfig(adjective_exponent=-0.7),
    "nouns": GrammarConfig(noun_exponent=-0.7),
    "verbs": GrammarConfig(verb_exponent=-0.7),
    "phrases": GrammarConfig(prepositional_phrase=0.5),
    "clauses": GrammarConfig(relative_clause=0.4),
}
#: The new domain of the adaptation, which differs in words and structure.
DOMAIN = GrammarConfig(
    relative_clause=0.4, adjective_exponent=-0.7, noun_exponent=-0.7, pronoun=0.1, copula=0.25
)
#: Bins of the number of times a context occurred in training: their lower edges.
CONTEXT_LOWS = [0, 3, 30, 300, 3000, 30_000]
#: Bins of the true probability of a token: their lower edges; the first bin is for impossible
#: tokens.
PROBABILITY_LOWS = [0, 1e-9, 0.01, 0.05, 0.1, 0.3]
#: Factor by which the probability of a missing pair is reduced.
PAIR_FACTOR = 0.001


@settings_class
class Config:
    """Settings of the models, their training and the test text."""

    depth: int = 2
    """Maximum nesting of noun phrases in all sources; with 1 they have a tenth of the states."""
    model: LSTMConfig = LSTMConfig(
        vocabulary_size=len(VOCABULARY), embedding_size=32, hidden_size=128
    )
    """Size of the LSTMs for the old source and for the source with missing pairs."""
    training: TrainConfig = TrainConfig(
        steps=1500, num_streams=16, window_length=64, learning_rate=1e-2
    )
    """Training on the old source; on the source with missing pairs it ends at the last of
    pair_steps."""
    test_tokens: int = 24_000
    """Fresh test tokens of each source, in 16 rows."""
    pair_steps: tuple[int, ...] = (100, 200, 400, 800)
    """Optimizer steps after which the model trained without pairs is measured."""
    new_tokens: int = 16_000
    """Tokens of text of the new domain for the adaptation."""
    adaptation: TrainConfig = TrainConfig(
        steps=200, num_streams=16, window_length=64, learning_rate=1e-3
    )
    """Continued training on the new domain."""
    old_streams: tuple[int, ...] = (0, 4, 8)
    """Numbers of old-text streams to compare, among the streams of the adaptation."""

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth must be >= 1, or no noun has a clause, got {self.depth}")
        check_counts(self)
        if self.test_tokens < 1600:
            raise ValueError(f"test_tokens must be >= 1600, got {self.test_tokens}")
        if not self.pair_steps or sorted(set(self.pair_steps)) != list(self.pair_steps):
            raise ValueError(f"pair_steps must rise, got {self.pair_steps}")
        streams = self.adaptation.num_streams
        if not all(0 <= old < streams for old in self.old_streams):
            raise ValueError(f"old_streams must lie in [0, {streams}), got {self.old_streams}")


@dataclass(kw_only=True)
class Result:
    """Figures in nats per token unless stated otherwise; by name of the source, as in SHIFTS."""

    entropy: dict[str, float] = field(default_factory=dict)
    """Exact entropy of each source."""
    unavoidable: dict[str, float] = field(default_factory=dict)
    """Exact KL from each source to the old one: the part that a perfect old model has as well."""
    own_error: dict[str, float] = field(default_factory=dict)
    """The model's own error: its loss on each source minus that of the old source itself."""
    own_standard_error: dict[str, float] = field(default_factory=dict)
    """Standard error of `own_error`."""
    overconfidence: dict[str, float] = field(default_factory=dict)
    """Mean probability of the model's top token minus that token's true probability."""
    context_share: dict[str, list[float]] = field(default_factory=dict)
    """Share of positions by how often the context occurred in training; bins of CONTEXT_LOWS."""
    context_contribution: dict[str, list[float]] = field(default_factory=dict)
    """Part of `own_error` from each of these bins; divided by `context_share` it is the bin's mean
    error."""
    token_share: list[float] = field(default_factory=list)
    """Share of the old source's text by the true probability of the token; bins of
    PROBABILITY_LOWS, the first of which holds impossible tokens."""
    token_contribution: list[float] = field(default_factory=list)
    """Part of KL(p || q) from each of these bins, split into terms that are never negative."""
    carried_by_rarest_tenth: dict[str, float] = field(default_factory=dict)
    """Share of the KL on the old source in the rarest tenth of its text, for three meanings of
    "rare": by the true probability of the token, by the word's frequency, and by how often the
    context occurred in training."""
    pair_steps: list[int] = field(default_factory=list)
    """Optimizer steps after which the model trained without pairs was measured."""
    pair_ratio: list[float] = field(default_factory=list)
    """That model's probability of missing pairs, as a share of the true one, by `pair_steps`."""
    pair_own_error: list[float] = field(default_factory=list)
    """That model's own error on the source with the pairs, at each of `pair_steps`."""
    pair_own_error_there: list[float] = field(default_factory=list)
    """That model's own error only where a missing pair may occur, at each of `pair_steps`."""
    pair_unavoidable: float = 0.0
    """Exact KL from the source with the pairs to the one in which they hardly occur."""
    adaptation_steps: list[int] = field(default_factory=list)
    """Steps of continued training after which both sources were tested; 0 is before."""
    adaptation_old: dict[str, list[float]] = field(default_factory=dict)
    """KL from the old source at each of `adaptation_steps`, by the share of old text."""
    adaptation_new: dict[str, list[float]] = field(default_factory=dict)
    """KL from the new source at each of `adaptation_steps`, by the share of old text."""
    perfect_elsewhere: dict[str, float] = field(default_factory=dict)
    """Exact KL of a perfect model of the other source: "old" on old text, "new" on new text."""
    mixture_bound: dict[str, float] = field(default_factory=dict)
    """Upper bound of the KL of the equal mixture of both sources, on text of either: log 2 per
    text."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train on the old source; measure the split of its loss, missing pairs and adaptation."""
    result = Result()
    old = _source(GrammarConfig(), config)
    model = train_on_source(
        old, seed=seed, training=config.training, model=config.model, progress=progress
    )
    measure_shifts(result, model, old, config, seed=seed)
    measure_pairs(result, old, config, seed=seed)
    measure_adaptation(result, model, old, config, seed=seed)
    return result


def _source(changes: GrammarConfig, config: Config) -> GrammarSource:
    return GrammarSource(replace(changes, depth=config.depth))


def measure_shifts(
    result: Result, model: LanguageModel, old: AutomatonSource, config: Config, *, seed: int
) -> None:
    """Split the loss on each of SHIFTS; `model` was trained on `old` with this seed and config."""
    trained_on = training_text(old, config.training, seed=seed)
    contexts = old.walk(trained_on[1:])
    for name, changes in SHIFTS.items():
        new = _source(changes, config)
        rows = true_rows(new, 16, config.test_tokens // 16, make_generator(seed, "test text"))
        log_q = next_log_probs(model, rows)
        split = split_loss(new, old, rows, log_q)
        result.entropy[name] = new.entropy_rate()
        result.unavoidable[name] = new.kl_divergence(old)
        result.own_error[name] = split.means[2]
        result.own_standard_error[name] = split.own_standard_error
        truth = new.transition_probs[new.walk(rows[:, 1:])]
        top, best = log_q.max(dim=-1)
        right = truth.gather(-1, best[..., None]).squeeze(-1)
        result.overconfidence[name] = float((top.exp() - right).mean())
        counts = context_counts(contexts, old.walk(rows[:, 1:]), old.num_states)
        bins = by_context_count(split.own_error, counts, CONTEXT_LOWS)
        result.context_share[name] = bins.shares
        result.context_contribution[name] = bins.contributions
        if name == "old":
            words = torch.bincount(trained_on, minlength=old.vocabulary_size).double()
            _say_what_is_rare(result, truth, log_q, counts, words)


def _say_what_is_rare(
    result: Result, truth: Tensor, log_q: Tensor, counts: Tensor, words: Tensor
) -> None:
    """Share of the error in the rarest tenth of the text, for three meanings of "rare"."""
    terms = token_terms(truth, log_q)
    tokens = terms.flatten(), truth.flatten()
    positions = terms.sum(-1).flatten(), torch.ones(counts.numel(), dtype=torch.float64)
    bins = by_true_probability(truth, log_q, PROBABILITY_LOWS)
    result.token_share, result.token_contribution = bins.shares, bins.contributions
    result.carried_by_rarest_tenth = {
        "token probability": carried_by_rarest(tokens[0], truth.flatten(), tokens[1]),
        "word frequency": carried_by_rarest(tokens[0], words.expand_as(truth).flatten(), tokens[1]),
        "context count": carried_by_rarest(positions[0], counts.flatten().double(), positions[1]),
    }


def missing_pairs(source: AutomatonSource) -> list[tuple[int, int]]:
    """A quarter of all pairs of an adjective of age or origin and the noun right after it, chosen
    so that each word still occurs in other pairs."""
    adjectives = [
        word
        for (group, *_), entry in ADJECTIVES.items()
        if group != "opinion"
        for word in entry.split()
    ]
    nouns = [entry for table in NOUNS.values() for entry in table.split()]
    return [
        (source.encode(adjective)[0], source.encode(form)[0])
        for i, adjective in enumerate(adjectives)
        for j, noun in enumerate(nouns)
        if (i + j) % 4 == 0
        for form in noun.split("/")
    ]


def measure_pairs(
    result: Result, whole: AutomatonSource, config: Config, *, seed: int
) -> LSTMLanguageModel:
    """Train where some pairs hardly occur, test where they do; fill in the figures, and return the
    model."""
    pairs = missing_pairs(whole)
    poor = rarer_pairs(whole, pairs, PAIR_FACTOR)
    missing = torch.zeros(whole.vocabulary_size, whole.vocabulary_size, dtype=torch.bool)
    missing[tuple(torch.tensor(pairs).T)] = True
    rows = true_rows(whole, 16, config.test_tokens // 16, make_generator(seed, "test text"))
    truth = whole.transition_probs[whole.walk(rows[:, 1:])]
    here = missing[rows[:, :-1]] & (truth > 0)

    def measure(model: LanguageModel) -> None:
        log_q = next_log_probs(model, rows)
        split = split_loss(whole, poor, rows, log_q)
        result.pair_ratio.append(float((log_q.exp() * here).sum() / (truth * here).sum()))
        result.pair_own_error.append(split.means[2])
        result.pair_own_error_there.append(float(split.own_error[here.any(-1)].mean()))

    training = replace(config.training, steps=config.pair_steps[-1])
    text = training_text(poor, training, seed=seed)
    seed_everything(seed)
    model = LSTMLanguageModel(config.model)
    train_and_measure(model, text, training, at=config.pair_steps, measure=measure)
    result.pair_steps = list(config.pair_steps)
    result.pair_unavoidable = whole.kl_divergence(poor)
    return model


def measure_adaptation(
    result: Result, model: LanguageModel, old: AutomatonSource, config: Config, *, seed: int
) -> None:
    """Train copies of `model` further on a little text of DOMAIN; test them on both sources."""
    new = _source(DOMAIN, config)
    streams = config.adaptation.num_streams
    generator = make_generator(seed, "adaptation text")
    little = endless_text(new, config.new_tokens + 1, generator=generator)
    enough = endless_text(old, streams * config.new_tokens, generator=generator)
    generator = make_generator(seed, "adaptation test text")
    tests = {
        source: true_rows(source, 16, min(800, config.test_tokens // 16), generator)
        for source in (old, new)
    }
    states = {source: source.walk(rows[:, 1:]) for source, rows in tests.items()}
    last = steps_of(config.adaptation)
    at = sorted({0, *(last // 2**k for k in range(5))})
    for old_streams in config.old_streams:
        name = f"{old_streams / streams:.0%} old"
        kl: dict[AutomatonSource, list[float]] = {old: [], new: []}

        def measure(adapted: LanguageModel, kl: dict[AutomatonSource, list[float]] = kl) -> None:
            for source, rows in tests.items():
                divergence = source.kl_from(next_log_probs(adapted, rows), states[source])
                kl[source].append(float(divergence.mean()))

        text = mixed_text(little, enough, num_streams=streams, old_streams=old_streams)
        seed_everything(seed)
        train_and_measure(copy.deepcopy(model), text, config.adaptation, at=at, measure=measure)
        result.adaptation_old[name], result.adaptation_new[name] = kl[old], kl[new]
    result.adaptation_steps = at
    result.perfect_elsewhere = {"old": old.kl_divergence(new), "new": new.kl_divergence(old)}
    result.mixture_bound = {
        "old": math.log(2) / old.mean_length(),
        "new": math.log(2) / new.mean_length(),
    }
