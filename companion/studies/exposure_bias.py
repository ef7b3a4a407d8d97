"""Is a model worse after its own text than after true text, when the truth is known after both?

Training reads true text, writing reads the model's own: exposure bias is the damage that this does.
At each position the true next-token distribution is exact, whoever wrote the prefix, so the KL
after own prefixes minus the KL after true ones measures it directly. Two sources are tried: the
review grammar, which forgets a sentence soon, and a noisy copying task, where every token of the
second half depends on one many tokens back. Where a text has a token that its source forbids, the
rest of it has no true distribution and is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from companion.automata import END_ID
from companion.decoding import generate
from companion.runtime import make_generator
from companion.source_models import next_log_probs, train_on_source, true_rows
from companion.sources import GrammarSource

if TYPE_CHECKING:
    from jaxtyping import Float64, Int


@dataclass(frozen=True, kw_only=True)
class Config:
    """The two sources, their models, and how much text is compared."""

    grammar_steps: int = 1200
    """Optimizer steps on reviews."""
    copy_steps: int = 1000
    """Optimizer steps on copied texts."""
    training_streams: int = 20
    """Streams that training reads side by side."""
    hidden_size: int = 128
    """Of both LSTMs."""
    copy_length: int = 7
    """Random tokens of a copied text, each of which is copied once."""
    copy_symbols: int = 8
    """Different tokens, all equally probable."""
    copy_noise: float = 0.002
    """Probability that a token is copied wrongly, to each other token alike."""
    num_streams: int = 300
    """Streams that go on after true text, and as many of true text."""
    prompt_tokens: int = 30
    """True tokens before a stream; two whole texts of the default copying task."""
    num_tokens: int = 150
    """Tokens of a stream."""
    blocks: int = 5
    """Parts into which a stream's positions are divided, to see whether the damage grows."""

    def __post_init__(self) -> None:
        if not 1 <= self.blocks <= self.num_tokens:
            raise ValueError(
                f"blocks must be between 1 and num_tokens = {self.num_tokens}, got {self.blocks}"
            )
        if not 0 < self.copy_noise < 1:
            raise ValueError(f"copy_noise must be in (0, 1), got {self.copy_noise}")
        if self.copy_symbols < 2 or self.copy_length < 1:
            raise ValueError(
                "copy_symbols must be >= 2 and copy_length >= 1, got "
                f"{self.copy_symbols} and {self.copy_length}"
            )


@dataclass(kw_only=True)
class Result:
    """By source, "grammar" and "copy"; KL in nats per token, exact at each position."""

    kl_true_nats_per_token: dict[str, float] = field(default_factory=dict)
    """After true prefixes."""
    kl_own_nats_per_token: dict[str, float] = field(default_factory=dict)
    """After the model's own."""
    gap: dict[str, float] = field(default_factory=dict)
    """Own less true: the exposure bias."""
    gap_standard_error: dict[str, float] = field(default_factory=dict)
    """Of the gap, over streams."""
    defined: dict[str, float] = field(default_factory=dict)
    """Share of the positions of own text where the source says what follows."""
    gap_by_block: dict[str, list[float]] = field(default_factory=dict)
    """The gap in each block of positions, the earliest first."""
    gap_by_block_standard_error: dict[str, list[float]] = field(default_factory=dict)
    """Of those."""


class CopySource:
    """Texts of `length` uniform tokens, the same again with noise, and the end token.

    Tokens 1 to `symbols`; token 0 ends a text. The copy of each token is wrong with probability
    `noise`, independently, and then any other token. The entropy of a text is exact:
    `length` times (log symbols + the entropy of a noisy copy).
    """

    def __init__(self, *, length: int, symbols: int, noise: float) -> None:
        self.length, self.symbols, self.noise = length, symbols, noise

    @property
    def vocabulary_size(self) -> int:
        """The symbols and the end."""
        return self.symbols + 1

    def mean_length(self) -> float:
        """All texts have this length."""
        return 2.0 * self.length + 1

    def entropy_rate(self) -> float:
        """Nats per token, end tokens counted."""
        noise = self.noise
        copy = -(1 - noise) * math.log1p(-noise) - noise * math.log(noise / (self.symbols - 1))
        return self.length * (math.log(self.symbols) + copy) / self.mean_length()

    def sample(self, n: int, *, generator: torch.Generator) -> list[torch.Tensor]:
        """`n` texts."""
        shape = (n, self.length)
        first = torch.randint(self.symbols, shape, generator=generator)
        wrong = torch.rand(shape, generator=generator) < self.noise
        shift = torch.randint(1, self.symbols, shape, generator=generator)
        second = torch.where(wrong, (first + shift) % self.symbols, first)
        end = torch.full((n, 1), END_ID)
        return list(torch.cat([first + 1, second + 1, end], dim=1))

    def truth(
        self, rows: Int[torch.Tensor, "rows tokens"]
    ) -> Float64[torch.Tensor, "rows time vocab"]:
        """p(next) after each token of rows but the last; NaN from a misplaced token to an end."""
        out = torch.empty(len(rows), rows.shape[1] - 1, self.vocabulary_size, dtype=torch.float64)
        place = torch.zeros(len(rows), dtype=torch.long)  # in the text; -1 after a wrong token
        memory = torch.ones(len(rows), self.length, dtype=torch.long)
        every = torch.arange(len(rows))
        for t in range(out.shape[1]):
            p = torch.zeros(len(rows), self.vocabulary_size, dtype=torch.float64)
            p[:, 1:] = 1 / self.symbols
            copying = (place >= self.length) & (place < 2 * self.length)
            p[copying, 1:] = self.noise / (self.symbols - 1)
            source = memory[every, (place - self.length).clamp(0, self.length - 1)]
            p[every[copying], source[copying]] = 1 - self.noise
            p[place == 2 * self.length] = torch.eye(self.vocabulary_size, dtype=torch.float64)[0]
            p[place < 0] = torch.nan
            out[:, t] = p
            token = rows[:, t + 1]
            reading = (place >= 0) & (place < self.length)
            memory[every[reading], place[reading]] = token[reading]
            legal = p[every, token] > 0  # False after a wrong token, where p is NaN
            place = torch.where(token == END_ID, 0, torch.where(legal, place + 1, -1))
        return out


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train a model on each source, and compare its KL after true and after its own prefixes."""
    result = Result()
    copying = CopySource(
        length=config.copy_length, symbols=config.copy_symbols, noise=config.copy_noise
    )
    tasks: dict[str, tuple[GrammarSource | CopySource, int]] = {
        "grammar": (GrammarSource(), config.grammar_steps),
        "copy": (copying, config.copy_steps),
    }
    for name, (source, steps) in tasks.items():
        model = train_on_source(
            source,
            seed=seed,
            steps=steps,
            hidden_size=config.hidden_size,
            num_streams=config.training_streams,
            progress=progress,
        )
        generator = make_generator(seed + 2**31)
        length = config.prompt_tokens + config.num_tokens
        true = true_rows(source, config.num_streams, length, generator)
        # The prompts are of streams of their own, so that the two sides are independent.
        prompts = true_rows(source, config.num_streams, config.prompt_tokens, generator)
        own = generate(model, prompts, config.num_tokens, generator=generator)
        sides = []
        for rows in (true, torch.cat([prompts, own], dim=1)):
            kl = divergence(true_probs(source, rows), next_log_probs(model, rows))
            sides.append(kl[:, config.prompt_tokens :])
        _compare(result, name, sides[0], sides[1], config.blocks)
    return result


def true_probs(
    source: GrammarSource | CopySource, rows: Int[torch.Tensor, "rows tokens"]
) -> Float64[torch.Tensor, "rows time vocab"]:
    """p(next) after each token of rows but the last; NaN where the source says nothing."""
    if isinstance(source, CopySource):
        return source.truth(rows)
    out = []
    state = torch.zeros(len(rows), dtype=torch.long)
    for t in range(rows.shape[1] - 1):
        here = source.transition_probs[state.clamp(min=0)].clone()
        here[state < 0] = torch.nan
        out.append(here)
        after = source.transition_states[state.clamp(min=0), rows[:, t + 1]]
        state = torch.where(state >= 0, after, -1)
        state = torch.where(rows[:, t + 1] == END_ID, 0, state)
    return torch.stack(out, dim=1)


def divergence(
    truth: Float64[torch.Tensor, "rows time vocab"],
    log_q: Float64[torch.Tensor, "rows time vocab"],
) -> Float64[torch.Tensor, "rows time"]:
    """KL(truth || q) at each position, in nats; NaN where the truth is."""
    return (torch.xlogy(truth, truth) - truth * log_q).sum(-1)


def _compare(result: Result, name: str, true: torch.Tensor, own: torch.Tensor, blocks: int) -> None:
    result.kl_true_nats_per_token[name] = float(true.nanmean())
    result.kl_own_nats_per_token[name] = float(own.nanmean())
    result.defined[name] = float(own.isfinite().double().mean())
    result.gap[name], result.gap_standard_error[name] = _gap(true, own)
    parts = [
        _gap(t, o)
        for t, o in zip(true.tensor_split(blocks, 1), own.tensor_split(blocks, 1), strict=True)
    ]
    result.gap_by_block[name] = [gap for gap, _ in parts]
    result.gap_by_block_standard_error[name] = [error for _, error in parts]


def _gap(true: torch.Tensor, own: torch.Tensor) -> tuple[float, float]:
    """Own less true, and its standard error: a ratio of sums over streams, streams independent."""
    means, variances = [], []
    for side in (true, own):
        counts = side.isfinite().sum(1).double()
        sums = side.nansum(1)
        mean = sums.sum() / counts.sum()
        residual = (sums - mean * counts) / counts.mean()
        means.append(float(mean))
        variances.append(float(residual.var()) / len(side))
    return means[1] - means[0], math.sqrt(sum(variances))
