"""Is a model worse after its own text than after true text, and if so, is it for its errors?

In training the model reads true text, in generation its own: exposure bias is the loss in quality
from this difference (Bengio et al. 2015; Ranzato et al. 2016). Here the sources make errors
themselves and go on from a known state, so that after *any* text, whoever wrote it, the true
next-token distribution is known, and the KL from it to the model. No position is left out.

Four kinds of text follow the same true prompts. "true" is written by the source; "own" by the
model. Two controls lie between them: in "injected" the source writes, but makes as many errors as
the model does; in "own errors" each error is the model's, at the place and with the probability
that the model has it, and the rest is the source's. Where "injected" has the KL of "own", errors
harm by their number; where only "own errors" has it, by their kind and place; where neither has
it, something else in the model's text does harm.

Two sources: the review grammar with substitutions, after which it goes on as if the right word had
been written, and with insertions, after which it goes on as if nothing had.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from companion.core.seeds import make_generator
from companion.core.settings import check_counts, settings_class
from companion.models.base import LanguageModel, State
from companion.models.lstm import LSTMConfig
from companion.sources.grammar import VOCABULARY, GrammarConfig
from companion.sources.noise import InsertionSource, SubstitutionSource
from companion.sources.reviews import GrammarSource
from companion.sources.streams import TextSource, true_rows
from companion.training.config import TrainConfig
from companion.training.from_source import train_on_source

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int

#: The kinds of text, by who wrote what.
KINDS = ("true", "injected", "own errors", "own")

#: Distance used when no earlier error exists.
NEVER = 10**9
#: Groups of distances to the last error, in tokens: the first and the last of each group.
DISTANCES = {"1": (1, 1), "2-3": (2, 3), "4-7": (4, 7), "8-15": (8, 15), "16+": (16, 2 * NEVER)}


class NoisySource(TextSource, Protocol):
    """A source that makes errors with probability `noise`, and is defined after each of them."""

    noise: float

    def start(self, rows: int) -> torch.Tensor:
        """The states of `rows` texts before their first token."""

    def probs(self, states: torch.Tensor) -> torch.Tensor:
        """p(next token) in each state."""

    def errors(self, states: torch.Tensor) -> torch.Tensor:
        """Which next tokens are errors."""

    def step(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The states after one more token of each text."""


@settings_class
class Config:
    """Settings of the sources, their models, and the text that is compared."""

    model: LSTMConfig = LSTMConfig(
        vocabulary_size=len(VOCABULARY), embedding_size=32, hidden_size=128
    )
    """Size of the LSTMs."""
    grammar_depth: int = 1
    """How deep phrases of reviews nest; one level less than usual, for fewer states to filter."""
    training: TrainConfig = TrainConfig(
        steps=800, num_streams=20, window_length=64, learning_rate=1e-2
    )
    """Training on each source, on fresh text."""
    noise: float = 0.02
    """Probability of an error at a token of a review."""
    num_streams: int = 120
    """Streams of each kind of text."""
    prompt_tokens: int = 30
    """True tokens before each stream."""
    num_tokens: int = 150
    """Tokens of each stream."""

    def __post_init__(self) -> None:
        check_counts(self, zero=("grammar_depth",))

    def sources(self) -> dict[str, NoisySource]:
        """The sources by name."""
        grammar = GrammarSource(GrammarConfig(depth=self.grammar_depth))
        return {
            "substitutions": SubstitutionSource(grammar, self.noise),
            "insertions": InsertionSource(grammar, self.noise),
        }


@dataclass(kw_only=True)
class Result:
    """Figures by source and kind of text. KL is exact at each position, in nats per token."""

    kl_nats_per_token: dict[str, dict[str, float]] = field(default_factory=dict)
    """Mean KL from the source to the model, over all positions after the prompts."""
    gap: dict[str, dict[str, float]] = field(default_factory=dict)
    """That KL minus the KL in true text."""
    gap_standard_error: dict[str, dict[str, float]] = field(default_factory=dict)
    """Standard error of `gap`, over streams; the streams of two kinds share their prompts."""
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    """Share of the tokens that are errors."""
    error_mass: dict[str, dict[str, float]] = field(default_factory=dict)
    """Mean probability that the model gives to errors."""
    kl_by_distance: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Mean KL by how many tokens ago the last error was (`DISTANCES`); 1 is right behind it."""
    gap_by_half: dict[str, list[float]] = field(default_factory=dict)
    """The gap of "own" in the first and in the second half of the streams."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train a model on each source, and compare its KL in the four kinds of text."""
    result = Result()
    for name, source in config.sources().items():
        model = train_on_source(
            source, seed=seed, training=config.training, model=config.model, progress=progress
        )
        _measure(result, name, model, source, config, seed)
    return result


class Place(NamedTuple):
    """Where some texts are in a source and in a model, after their last token."""

    states: torch.Tensor
    """The states of the source."""
    log_q: Float64[torch.Tensor, "rows vocab"]
    """The model's log-probabilities of the next token."""
    memory: State
    """The state of the model."""
    distance: Int[torch.Tensor, " rows"]
    """How many tokens before the next one the last error is; at least `NEVER` without one."""


class Continuation(NamedTuple):
    """What follows some texts, and figures of each of its tokens, given those before it."""

    tokens: Int[torch.Tensor, "rows time"]
    kl: Float64[torch.Tensor, "rows time"]
    """KL of the next token from the source to the model, in nats."""
    error_mass: Float64[torch.Tensor, "rows time"]
    """The probability that the model gives to errors."""
    errors: Bool[torch.Tensor, "rows time"]
    """Whether the token is an error."""
    distance: Int[torch.Tensor, "rows time"]
    """How many tokens before it the last error is; at least `NEVER` without one."""


@torch.no_grad()
def read(
    source: NoisySource, model: LanguageModel, rows: Int[torch.Tensor, "rows tokens"]
) -> Place:
    """The place after `rows`, each of which begins with an end token."""
    states = source.start(len(rows))
    distance = torch.full((len(rows),), NEVER)
    for token in rows[:, 1:].T:
        states, distance = _step(source, states, distance, token)
    logits, memory = model(rows)
    return Place(states, torch.log_softmax(logits[:, -1].double(), dim=-1), memory, distance)


@torch.no_grad()
def go_on(
    source: NoisySource,
    model: LanguageModel,
    place: Place,
    kind: str,
    num_tokens: int,
    *,
    rate: float | None = None,
    generator: torch.Generator,
) -> Continuation:
    """Text of one of the `KINDS` from `place` on, and how well the model predicts each token.

    "injected" wants a `rate`, the probability of an error. Where no token can be an error, as after
    very many substitutions, none is made.
    """
    states, log_q, memory, distance = place
    columns = []
    for _ in range(num_tokens):
        p, wrong, q = source.probs(states), source.errors(states), log_q.exp()
        if kind == "true":
            draw = p
        elif kind == "own":
            draw = q
        elif kind == "own errors":
            draw = q * wrong + (q * ~wrong).sum(1, keepdim=True) * _share(p * ~wrong)
        elif kind == "injected" and rate is not None:
            draw = rate * _share(p * wrong) + (1 - rate) * _share(p * ~wrong)
        else:
            raise ValueError(f"kind must be one of {KINDS}, and has a rate if injected: {kind!r}")
        token = torch.multinomial(draw, 1, generator=generator).squeeze(1)
        kl = (torch.xlogy(p, p) - p * log_q).sum(1)
        error = wrong.gather(1, token[:, None]).squeeze(1)
        columns.append((token, kl, (q * wrong).sum(1), error, distance))
        states, distance = _step(source, states, distance, token)
        logits, memory = model(token[:, None], memory)
        log_q = torch.log_softmax(logits[:, -1].double(), dim=-1)
    return Continuation(*(torch.stack(parts, dim=1) for parts in zip(*columns, strict=True)))


def _step(
    source: NoisySource, states: torch.Tensor, distance: torch.Tensor, token: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    error = source.errors(states).gather(1, token[:, None]).squeeze(1)
    return source.step(states, token), torch.where(error, 1, distance + 1)


def _share(weights: Float64[torch.Tensor, "rows vocab"]) -> Float64[torch.Tensor, "rows vocab"]:
    """The weights over their sum; zeros where all are."""
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-300)


def _measure(
    result: Result,
    name: str,
    model: LanguageModel,
    source: NoisySource,
    config: Config,
    seed: int,
) -> None:
    """Write the figures of the source called `name`, and of its trained model, into `result`."""
    prompts = true_rows(
        source, config.num_streams, config.prompt_tokens, make_generator(seed, f"{name} prompts")
    )
    place = read(source, model, prompts)
    found: dict[str, Continuation] = {}
    rate = None
    for kind in reversed(KINDS):  # the model's own text first: it has the number of errors
        found[kind] = go_on(
            source, model, place, kind, config.num_tokens,
            rate=rate, generator=make_generator(seed, f"{name} {kind}"),
        )  # fmt: skip
        rate = float(found["own"].errors.double().mean())
    means = {kind: found[kind].kl.mean(1) for kind in KINDS}  # one a stream
    gaps = {kind: each - means["true"] for kind, each in means.items()}
    result.kl_nats_per_token[name] = {kind: float(each.mean()) for kind, each in means.items()}
    result.gap[name] = {kind: float(gap.mean()) for kind, gap in gaps.items()}
    result.gap_standard_error[name] = {
        kind: float(gap.std()) / math.sqrt(len(gap)) for kind, gap in gaps.items()
    }
    result.errors[name] = {k: float(found[k].errors.double().mean()) for k in KINDS}
    result.error_mass[name] = {k: float(found[k].error_mass.mean()) for k in KINDS}
    result.kl_by_distance[name] = {k: _by_distance(found[k]) for k in KINDS}
    halves = (found["own"].kl - found["true"].kl).tensor_split(2, dim=1)
    result.gap_by_half[name] = [float(half.mean()) for half in halves]


def _by_distance(judged: Continuation) -> dict[str, float]:
    groups = {}
    for name, (low, high) in DISTANCES.items():
        inside = (judged.distance >= low) & (judged.distance <= high)
        if inside.any():
            groups[name] = float(judged.kl[inside].mean())
    return groups
