"""How large may a batch be, before more of it no longer saves steps?

One LSTM is trained on fresh text from the review grammar with batches of several sizes, each until
it is within `target` nats per token of the source: the exact KL, so that the goal is the same
whatever the batch. The steps that it takes and the windows that it reads are fitted by the law of
McCandlish et al. 2018 (`companion.evaluation.batch_size`), whose critical size is compared with the
gradient noise scale, measured where the runs pass several losses.

A batch needs a learning rate of its own. The rates of `learning_rates` were found on seed 100: of
rates that differ by a factor of 2, the one with the fewest steps. Two controls say what tuning
does: some batches are trained with the rate of the smallest one (`untuned`), and, where `factors`
are given, all with other rates too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_counts, settings_class
from companion.evaluation.batch_size import (
    BatchSizeLaw,
    fit_batch_size_law,
    gradient_noise_scale,
)
from companion.evaluation.texts import next_log_probs
from companion.losses.cross_entropy import summed_nats
from companion.models.base import detach
from companion.models.lstm import LSTMConfig, LSTMLanguageModel, State
from companion.sources.reviews import GrammarSource
from companion.sources.streams import endless_text, true_rows
from companion.text import batching
from companion.training.optimization import take_step

#: The KL is measured at each of the first steps, and then each time there are 12 % more.
EACH_UNTIL, SPACING = 8, 1.12


@settings_class
class Config:
    """Settings of the model, of the batches, and of the measurements."""

    hidden_size: int = 32
    """Hidden and embedding size of the LSTM."""
    window_length: int = 16
    """Tokens in a window. A window is one example of a batch; the state is carried."""
    batch_sizes: tuple[int, ...] = (4, 16, 64, 256, 1024)
    """Windows in a batch."""
    learning_rates: tuple[float, ...] = (0.02, 0.04, 0.04, 0.08, 0.08)
    """Learning rate of AdamW for each batch size, the same at each step."""
    factors: tuple[float, ...] = ()
    """Each batch is also trained with its rate times these."""
    untuned: tuple[int, ...] = (64, 256)
    """Batches that are also trained with the rate of the smallest batch."""
    target: float = 0.4
    """KL from the source, in nats per token, at which a training ends."""
    noise_at: tuple[float, ...] = (0.8, 0.4)
    """Where the tuned runs first have no more than these KLs, the noise scale is measured."""
    noise_windows: int = 256
    """Fresh windows of which it is measured, in parts of 16."""
    test_tokens: int = 2400
    """Fresh tokens, in 16 rows, on which the KL is measured."""
    train_tokens: int = 600_000
    """Most tokens that a training reads; none twice."""

    def __post_init__(self) -> None:
        check_counts(self)
        if len(self.batch_sizes) < 3 or list(self.batch_sizes) != sorted(set(self.batch_sizes)):
            raise ValueError(
                "batch_sizes must be three numbers or more, rising, as a law is fitted to them, "
                f"got {self.batch_sizes}"
            )
        if len(self.learning_rates) != len(self.batch_sizes):
            raise ValueError(
                f"learning_rates must be one for each of the {len(self.batch_sizes)} batch_sizes, "
                f"got {len(self.learning_rates)}"
            )
        if not set(self.untuned) <= set(self.batch_sizes[1:]):
            raise ValueError(
                f"untuned must be some of {self.batch_sizes[1:]}, the sizes above the smallest, "
                f"got {self.untuned}"
            )
        if not self.noise_at or list(self.noise_at) != sorted(set(self.noise_at), reverse=True):
            raise ValueError(f"noise_at must be one KL or more, falling, got {self.noise_at}")
        if not 0 < self.target <= self.noise_at[-1]:
            raise ValueError(
                f"target must be > 0 and at most the last of noise_at, {self.noise_at[-1]}, got "
                f"{self.target}"
            )
        if self.noise_windows < 32 or self.noise_windows % 16:
            raise ValueError(
                f"noise_windows must be a multiple of 16 and >= 32, got {self.noise_windows}"
            )
        if self.test_tokens < 16:
            raise ValueError(f"test_tokens must be >= 16, got {self.test_tokens}")


@dataclass(kw_only=True)
class Result:
    """Steps to the target, by windows in a batch, and the laws behind them."""

    floor: float = 0.0
    """Exact entropy of the source, in nats per token."""
    steps: dict[str, float] = field(default_factory=dict)
    """Steps to the target with the tuned rate."""
    windows: dict[str, float] = field(default_factory=dict)
    """Windows read by then."""
    steps_by_factor: dict[str, dict[str, float]] = field(default_factory=dict)
    """Steps with the rate times each of the factors, by batch size; "1" is the tuned rate."""
    steps_untuned: dict[str, float] = field(default_factory=dict)
    """Steps with the rate of the smallest batch."""
    least_steps: float = 0.0
    """Smin of the law fitted to the tuned runs."""
    least_windows: float = 0.0
    """Emin of it, in windows."""
    critical: float = 0.0
    """The critical batch size, in windows, Emin / Smin."""
    misfit: float = 0.0
    """`misfit` of that law."""
    critical_best: float = 0.0
    """The critical size where each batch has the best of its rates on this very seed."""
    critical_untuned: float = 0.0
    """The critical size where the untuned batches have the rate of the smallest one."""
    noise_scale: dict[str, float] = field(default_factory=dict)
    """Gradient noise scale, in windows, by KL: the median over the batch sizes."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train with each batch size and rate until the target is reached; fit the law."""
    source = GrammarSource()
    result = Result(floor=source.entropy_rate())
    text = endless_text(
        source, config.train_tokens, generator=make_generator(seed, "training text")
    )
    training = Training(source, config, text, seed)
    tuned = dict(zip(config.batch_sizes, config.learning_rates, strict=True))
    noise: dict[str, list[float]] = {f"{kl:g}": [] for kl in config.noise_at}
    bar = tqdm(
        total=len(tuned) * (1 + len(config.factors)) + len(config.untuned), disable=not progress,
        unit="model",
    )  # fmt: skip
    for batch, rate in tuned.items():
        steps, scales = training.to_target(batch, rate, config.noise_at)
        result.steps[str(batch)], result.windows[str(batch)] = steps, batch * steps
        for kl, scale in scales.items():
            noise[kl].append(scale)
        bar.update()
        by_factor = result.steps_by_factor[str(batch)] = {"1": steps}
        for factor in config.factors:
            by_factor[f"{factor:g}"], _ = training.to_target(batch, factor * rate)
            bar.update()
    smallest = config.batch_sizes[0]
    for batch in config.untuned:
        result.steps_untuned[str(batch)], _ = training.to_target(batch, tuned[smallest])
        bar.update()
    bar.close()
    law = fit_batch_size_law(config.batch_sizes, list(result.steps.values()))
    result.least_steps, result.critical = law.least_steps, law.critical
    result.least_windows = law.least_examples
    result.misfit = misfit(law, config.batch_sizes, list(result.steps.values()))
    best = [min(each.values()) for each in result.steps_by_factor.values()]
    result.critical_best = fit_batch_size_law(config.batch_sizes, best).critical
    if len(config.untuned) > 1:
        untuned = [result.steps[str(smallest)], *result.steps_untuned.values()]
        law = fit_batch_size_law([smallest, *config.untuned], untuned)
        result.critical_untuned = law.critical
    result.noise_scale = {kl: float(torch.tensor(each).median()) for kl, each in noise.items()}
    return result


def misfit(law: BatchSizeLaw, batch_sizes: Sequence[int], steps: Sequence[float]) -> float:
    """Largest ratio, less 1, between the steps of a run and of the law, larger by smaller."""
    ratios = torch.tensor(law.steps(batch_sizes)) / torch.tensor(steps, dtype=torch.float64)
    return float(ratios.log().abs().max().exp()) - 1


class Training:
    """Trainings of one model on one text, which differ in the batch size and the learning rate."""

    def __init__(
        self, source: GrammarSource, config: Config, text: torch.Tensor, seed: int
    ) -> None:
        self.source, self.config, self.text, self.seed = source, config, text, seed
        test = make_generator(seed, "test text")
        self.rows = true_rows(source, 16, config.test_tokens // 16, test)
        self.states = source.walk(self.rows[:, 1:])
        length = 3 * config.window_length + 1
        fresh = make_generator(seed, "noise scale")
        self.fresh = true_rows(source, config.noise_windows, length, fresh)

    def divergence(self, model: LSTMLanguageModel) -> float:
        """KL(source || model) in nats per token: exact at each position, given the prefix."""
        return float(self.source.kl_from(next_log_probs(model, self.rows), self.states).mean())

    def to_target(
        self, batch_size: int, rate: float, noise_at: Sequence[float] = ()
    ) -> tuple[float, dict[str, float]]:
        """Steps until the KL is at most the target, interpolated between two measurements of it,
        and the noise scale, by KL, where the KL first was at most each of `noise_at`.

        ValueError when the text ends before.
        """
        config, size = self.config, self.source.vocabulary_size
        seed_everything(self.seed)
        model = LSTMLanguageModel(
            LSTMConfig(
                vocabulary_size=size, embedding_size=config.hidden_size,
                hidden_size=config.hidden_size,
            )
        )  # fmt: skip
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )
        data = batching.streams(self.text, batch_size)
        state: State | None = None
        scales: dict[str, float] = {}
        before, due = (0, self.divergence(model)), 1.0
        for step in itertools.count(1):
            if step * config.window_length >= data.shape[1]:
                raise ValueError(
                    f"with batches of {batch_size} windows and learning rate {rate:g} the KL is "
                    f"{before[1]:.3g} after all of {config.train_tokens} train_tokens; give more, "
                    "another rate, or a higher target"
                )
            batch = batching.window(data, step - 1, config.window_length)
            logits, state = model(batch.inputs, state)
            state = detach(state)
            loss = summed_nats(logits, batch.targets) / batch.targets.numel()
            take_step(model, optimizer, loss, clip_norm=1.0)
            if step < due:
                continue
            due = step + 1 if step < EACH_UNTIL else step * SPACING
            here = step, self.divergence(model)
            for kl in noise_at:
                if here[1] <= kl and f"{kl:g}" not in scales:
                    scales[f"{kl:g}"] = self.noise_scale(model)
            if here[1] <= config.target:
                return crossing(before, here, config.target), scales
            before = here
        raise AssertionError("a text has an end")

    def noise_scale(self, model: LSTMLanguageModel) -> float:
        """The gradient noise scale in windows: of third windows, after the state of two."""
        length, found = self.config.window_length, []
        for start in range(0, len(self.fresh), 16):
            rows = self.fresh[start : start + 16]
            with torch.no_grad():
                _, state = model(rows[:, : 2 * length])
            batch = batching.span(rows, 2 * length, 3 * length)
            logits, _ = model(batch.inputs, detach(state))
            loss = summed_nats(logits, batch.targets) / batch.targets.numel()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            found.append(torch.cat([gradient.flatten() for gradient in gradients]))
        return gradient_noise_scale(torch.stack(found), 16)


def crossing(before: tuple[int, float], after: tuple[int, float], target: float) -> float:
    """The step at which a KL measured at two steps, above the target and not above it, reaches it.

    The KL is taken to fall in a straight line between the two.
    """
    (first, high), (second, low) = before, after
    return first + (second - first) * (high - target) / (high - low)
