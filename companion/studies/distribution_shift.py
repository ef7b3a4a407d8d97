"""What does a model pay on a source unlike the one it was trained on, and for what?

An LSTM learns the review grammar. On shifted grammars its loss is split into the new source's
entropy, the KL that a perfect model of the old source pays too, and the model's own error, which
is sorted by how often its context was trained on. Another LSTM learns a grammar in which some
pairs of words hardly come, and meets them. Then the first is trained on with a little text of a
new source, old text mixed in or not. All floors are exact. Real text is in `strange_text`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from companion.adaptation import mixed_text, train_and_measure
from companion.automata import AutomatonSource
from companion.grammar import ADJECTIVES, NOUNS
from companion.lstm import LSTMConfig, LSTMLanguageModel
from companion.runtime import make_generator, seed_everything
from companion.shift import (
    by_context_count,
    by_true_probability,
    carried_by_rarest,
    context_counts,
    rarer_pairs,
    split_loss,
    token_terms,
)
from companion.source_models import endless_text, next_log_probs, train_on_source, true_rows
from companion.sources import GrammarConfig, GrammarSource
from companion.training import TrainConfig

#: The shifted sources by name: what differs from the old one.
SHIFTS: dict[str, GrammarConfig] = {
    "old": GrammarConfig(),
    "adjectives": GrammarConfig(adjective_exponent=-0.7),
    "nouns": GrammarConfig(noun_exponent=-0.7),
    "verbs": GrammarConfig(verb_exponent=-0.7),
    "phrases": GrammarConfig(prepositional_phrase=0.5),
    "clauses": GrammarConfig(relative_clause=0.4),
}
#: The new domain of the adaptation: words and structure differ.
DOMAIN = GrammarConfig(
    relative_clause=0.4, adjective_exponent=-0.7, noun_exponent=-0.7, pronoun=0.1, copula=0.25
)
#: How often a context was trained on: lower edges of the bins.
CONTEXT_LOWS = [0, 3, 30, 300, 3000, 30_000]
#: The true probability of a token: lower edges, the first bin for what cannot come.
PROBABILITY_LOWS = [0, 1e-9, 0.01, 0.05, 0.1, 0.3]
#: What is left of the probability of a held-out pair.
PAIR_FACTOR = 0.001


@dataclass(frozen=True, kw_only=True)
class Config:
    """The models, and how much text judges them."""

    depth: int = 2
    """How deep noun phrases nest in all sources; at 1 there are a tenth of the states."""
    steps: int = 1500
    """Of the model of the old source, each on 1,024 fresh tokens."""
    test_tokens: int = 24_000
    """Fresh tokens of each shifted source, in 16 rows."""
    pair_steps: tuple[int, ...] = (100, 200, 400, 800)
    """When the model that misses pairs is measured; it is trained to the last."""
    new_tokens: int = 16_000
    """Text of the new domain to adapt to."""
    adaptation_steps: int = 200
    """Of continued training, each on 1,024 tokens."""
    old_streams: tuple[int, ...] = (0, 4, 8)
    """Of the 16 streams, how many hold old text."""
    adaptation_learning_rate: float = 1e-3
    """Peak learning rate of it."""

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth must be >= 1, or no noun has a clause, got {self.depth}")
        if self.test_tokens < 1600:
            raise ValueError(f"test_tokens must be >= 1600, got {self.test_tokens}")
        if not self.pair_steps or sorted(set(self.pair_steps)) != list(self.pair_steps):
            raise ValueError(f"pair_steps must rise, got {self.pair_steps}")
        if not all(0 <= streams < 16 for streams in self.old_streams):
            raise ValueError(f"old_streams must lie in [0, 16), got {self.old_streams}")


@dataclass(kw_only=True)
class Result:
    """Nats per token; dictionaries by name of the source, as in SHIFTS."""

    entropy: dict[str, float] = field(default_factory=dict)
    """Of each source, exact."""
    unavoidable: dict[str, float] = field(default_factory=dict)
    """KL from it to the old one, exact."""
    own_error: dict[str, float] = field(default_factory=dict)
    """The model's, against the old source."""
    own_standard_error: dict[str, float] = field(default_factory=dict)
    """Of that."""
    overconfidence: dict[str, float] = field(default_factory=dict)
    """Mean top probability, less the true probability of that token."""
    context_share: dict[str, list[float]] = field(default_factory=dict)
    """Share of positions by how often the context was trained on; bins of CONTEXT_LOWS."""
    context_contribution: dict[str, list[float]] = field(default_factory=dict)
    """What the bins add to the own error; divide by the share for the mean error in a bin."""
    token_share: list[float] = field(default_factory=list)
    """On the old source: share of the text by the true probability of the token; bins of
    PROBABILITY_LOWS, the first of words that cannot come."""
    token_contribution: list[float] = field(default_factory=list)
    """What they add to KL(p || q), by terms that are never negative."""
    carried_by_rarest_tenth: dict[str, float] = field(default_factory=dict)
    """On the old source: share of the KL in the tenth of the text that is rarest by the true
    probability of the token, by the frequency of the word, by how often the context was trained
    on."""
    pair_steps: list[int] = field(default_factory=list)
    """Steps at which the model that misses pairs was measured."""
    pair_ratio: list[float] = field(default_factory=list)
    """Probability that it gives to missing pairs, as a share of their true one."""
    pair_own_error: list[float] = field(default_factory=list)
    """Its own error on the source that has them."""
    pair_own_error_there: list[float] = field(default_factory=list)
    """The same at the places where a missing pair may come."""
    pair_unavoidable: float = 0.0
    """KL to the source that hardly has them, exact."""
    adaptation_steps: list[int] = field(default_factory=list)
    """Steps of continued training at which both sources were tested; 0 is before."""
    adaptation_old: dict[str, list[float]] = field(default_factory=dict)
    """KL above the old source's floor, by the share of old text."""
    adaptation_new: dict[str, list[float]] = field(default_factory=dict)
    """KL above the new source's floor."""
    perfect_elsewhere: dict[str, float] = field(default_factory=dict)
    """What a perfect model of the one pays on the other, exact: "old" on old text, "new" on new."""
    mixture_bound: dict[str, float] = field(default_factory=dict)
    """What the equal mixture of both sources pays at most on text of either: log 2 a text."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train on the old source, and measure the split, the missing pairs and the adaptation."""
    result = Result()
    old = _source(GrammarConfig(), config)
    model = train_on_source(old, seed=seed, steps=config.steps, progress=progress)
    measure_shifts(result, model, old, config, seed=seed)
    measure_pairs(result, old, config, seed=seed)
    measure_adaptation(result, model, old, config, seed=seed)
    return result


def _source(changes: GrammarConfig, config: Config) -> GrammarSource:
    return GrammarSource(replace(changes, depth=config.depth))


def measure_shifts(
    result: Result, model: LSTMLanguageModel, old: AutomatonSource, config: Config, *, seed: int
) -> None:
    """The split on each of SHIFTS; `model` was trained on `old` with this seed and config.steps."""
    trained_on = endless_text(old, (config.steps * 64 + 1) * 16, generator=make_generator(seed))
    contexts = old.walk(trained_on[1:])
    for name, changes in SHIFTS.items():
        new = _source(changes, config)
        rows = true_rows(new, 16, config.test_tokens // 16, make_generator(seed + 2**31))
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
    """Three meanings of rare: which of them has more of the error than its share of the text?"""
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
    """A quarter of all pairs of an adjective of age or origin and the noun right after it, so that
    each of the words still comes in other pairs."""
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
    """Train where some pairs hardly come, and test where they do: the model, and the figures."""
    pairs = missing_pairs(whole)
    poor = rarer_pairs(whole, pairs, PAIR_FACTOR)
    missing = torch.zeros(whole.vocabulary_size, whole.vocabulary_size, dtype=torch.bool)
    missing[tuple(torch.tensor(pairs).T)] = True
    rows = true_rows(whole, 16, config.test_tokens // 16, make_generator(seed + 2**31))
    truth = whole.transition_probs[whole.walk(rows[:, 1:])]
    here = missing[rows[:, :-1]] & (truth > 0)

    def measure(model: LSTMLanguageModel) -> None:
        log_q = next_log_probs(model, rows)
        split = split_loss(whole, poor, rows, log_q)
        result.pair_ratio.append(float((log_q.exp() * here).sum() / (truth * here).sum()))
        result.pair_own_error.append(split.means[2])
        result.pair_own_error_there.append(float(split.own_error[here.any(-1)].mean()))

    steps = config.pair_steps[-1]
    text = endless_text(poor, (steps * 64 + 1) * 16, generator=make_generator(seed))
    seed_everything(seed)
    model = LSTMLanguageModel(
        LSTMConfig(vocabulary_size=whole.vocabulary_size, embedding_size=32, hidden_size=128)
    )
    settings = TrainConfig(steps=steps, num_streams=16, window_length=64, learning_rate=1e-2)
    train_and_measure(model, text, settings, at=config.pair_steps, measure=measure)
    result.pair_steps = list(config.pair_steps)
    result.pair_unavoidable = whole.kl_divergence(poor)
    return model


def measure_adaptation(
    result: Result, model: LSTMLanguageModel, old: AutomatonSource, config: Config, *, seed: int
) -> None:
    """Train copies of `model` on with a little text of DOMAIN, and test them on both sources."""
    new = _source(DOMAIN, config)
    generator = make_generator(seed + 2**32)
    little = endless_text(new, config.new_tokens + 1, generator=generator)
    enough = endless_text(old, 16 * config.new_tokens, generator=generator)
    tests = {
        source: true_rows(source, 16, min(800, config.test_tokens // 16), generator)
        for source in (old, new)
    }
    states = {source: source.walk(rows[:, 1:]) for source, rows in tests.items()}
    last = config.adaptation_steps
    at = sorted({0, *(last // 2**k for k in range(5))})
    settings = TrainConfig(
        steps=last,
        num_streams=16,
        window_length=64,
        learning_rate=config.adaptation_learning_rate,
    )
    for old_streams in config.old_streams:
        name = f"{old_streams / 16:.0%} old"
        kl: dict[AutomatonSource, list[float]] = {old: [], new: []}

        def measure(
            adapted: LSTMLanguageModel, kl: dict[AutomatonSource, list[float]] = kl
        ) -> None:
            for source, rows in tests.items():
                divergence = source.kl_from(next_log_probs(adapted, rows), states[source])
                kl[source].append(float(divergence.mean()))

        text = mixed_text(little, enough, num_streams=16, old_streams=old_streams)
        seed_everything(seed)
        train_and_measure(copy.deepcopy(model), text, settings, at=at, measure=measure)
        result.adaptation_old[name], result.adaptation_new[name] = kl[old], kl[new]
    result.adaptation_steps = at
    result.perfect_elsewhere = {"old": old.kl_divergence(new), "new": new.kl_divergence(old)}
    result.mixture_bound = {
        "old": math.log(2) / old.mean_length(),
        "new": math.log(2) / new.mean_length(),
    }
