"""Does a scaling law find the floor of a source whose floor is known?

LSTMs of several sizes are trained on several amounts of fresh text from the review grammar, whose
entropy per token is computed exactly, and the law L(N, D) = E + A/N^a + B/D^b is fitted to their
losses (`companion.evaluation.scaling`). With real text nobody knows E. Here it is known, so one can
ask whether the fit finds it, and what a law fitted to small models says about larger ones, whose
losses are measured too. `planted` makes the control: runs of the same grid with the same spread, in
which the law is true.

Three laws are fitted to the small runs: one with E free, one with E at the truth, and one without
E. Other models read the same number of tokens, but fewer different ones, several times over
(Muennighoff et al. 2023, Scaling Data-Constrained Language Models).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import settings_class
from companion.evaluation.scaling import ScalingLaw, fit_scaling_law
from companion.evaluation.texts import next_log_probs
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.reviews import GrammarSource
from companion.sources.streams import endless_text, true_rows
from companion.training.benchmark import training_flops_per_token
from companion.training.config import TrainConfig
from companion.training.trainer import Trainer


@settings_class
class Config:
    """Settings of the grid of models and texts, and of the measurement."""

    hidden_sizes: tuple[int, ...] = (4, 8, 16, 32, 64)
    """Hidden and embedding sizes of the models."""
    steps: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Optimizer steps, each on new tokens; the schedule of each run is as long as the run."""
    training: TrainConfig = TrainConfig(
        steps=1, num_streams=8, window_length=32, learning_rate=0.16
    )
    """Training of every model; its steps are replaced, and its learning rate is divided by the root
    of the hidden size: small models want larger ones."""
    small_sizes: int = 3
    """How many sizes, from the smallest up, small runs may have."""
    small_steps: int = 3
    """How many numbers of steps, from the smallest up, small runs may have."""
    repeated_size: int = 32
    """Hidden size of the models that read text again."""
    epochs: tuple[int, ...] = (2, 4, 8, 16)
    """How often they read it, with as many tokens in all as the longest run of that size."""
    test_tokens: int = 8000
    """Fresh tokens, in 16 rows, on which the loss above the floor is measured."""

    def __post_init__(self) -> None:
        for name, values in (("hidden_sizes", self.hidden_sizes), ("steps", self.steps)):
            if len(values) < 4 or list(values) != sorted(set(values)) or values[0] < 1:
                raise ValueError(
                    f"{name} must be four numbers >= 1 or more, rising, as a law is fitted to "
                    f"three of them, got {values}"
                )
        for name, most in (("small_sizes", self.hidden_sizes), ("small_steps", self.steps)):
            if not 3 <= getattr(self, name) < len(most):
                raise ValueError(
                    f"{name} must be in [3, {len(most)}): a law needs three, and a larger one must "
                    f"be left to predict; got {getattr(self, name)}"
                )
        if self.repeated_size not in self.hidden_sizes:
            raise ValueError(
                f"repeated_size must be one of hidden_sizes = {self.hidden_sizes}, for the run "
                f"without repetition, got {self.repeated_size}"
            )
        for epochs in self.epochs:
            if epochs < 2 or self.steps[-1] % epochs:
                raise ValueError(
                    f"each of epochs must be >= 2 and divide the longest run's {self.steps[-1]} "
                    f"steps, got {epochs}"
                )
        if self.test_tokens < 16:
            raise ValueError(f"test_tokens must be >= 16, got {self.test_tokens}")


@dataclass(kw_only=True)
class Result:
    """Losses in nats per token. A run is named by its hidden size and its tokens: "16 65536"."""

    floor: float = 0.0
    """Exact entropy of the source."""
    parameters: dict[str, int] = field(default_factory=dict)
    """Trainable parameters by hidden size."""
    flops_per_token: dict[str, int] = field(default_factory=dict)
    """Operations of training on one token, by hidden size, counted in the matrix products."""
    loss: dict[str, float] = field(default_factory=dict)
    """Loss of each run of the grid: the floor plus the KL divergence measured on test text."""
    repeated: dict[str, float] = field(default_factory=dict)
    """Loss of models that read the text this many times, "1" once, with as many tokens in all."""
    floors: dict[str, float] = field(default_factory=dict)
    """Floor of the law fitted to "all" runs and to the "small" ones."""
    misfit: float = 0.0
    """`misfit` of the law fitted to all runs."""
    extrapolation: dict[str, float] = field(default_factory=dict)
    """Mean of predicted minus measured loss of the large runs, which are larger than the small
    ones in both respects, by the law fitted to the small ones: "free", "known floor", "no floor".
    """


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train and measure every model of the grid and of the repetitions; fit the laws."""
    source = GrammarSource()
    result = Result(floor=source.entropy_rate())
    per_step = config.training.num_streams * config.training.window_length
    text = endless_text(
        source, config.steps[-1] * per_step + 1, generator=make_generator(seed, "training text")
    )
    rows = true_rows(source, 16, config.test_tokens // 16, make_generator(seed, "test text"))
    bar = tqdm(
        total=len(config.hidden_sizes) * len(config.steps) + len(config.epochs),
        disable=not progress, unit="model",
    )  # fmt: skip

    def trained(hidden: int, steps: int, epochs: int = 1) -> LSTMLanguageModel:
        seed_everything(seed)
        model = LSTMLanguageModel(architecture(source, hidden))
        part = text[: steps * per_step // epochs + 1]
        training = replace(
            config.training, steps=steps, log_every=steps,
            learning_rate=config.training.learning_rate / hidden**0.5,
        )  # fmt: skip
        trainer = Trainer(model, part, training, device="cpu")
        for _ in trainer.steps():
            pass
        bar.update()
        return model.eval()

    for hidden in config.hidden_sizes:
        result.flops_per_token[str(hidden)] = training_flops_per_token(architecture(source, hidden))
        for steps in config.steps:
            model = trained(hidden, steps)
            result.parameters[str(hidden)] = model.num_parameters
            result.loss[f"{hidden} {steps * per_step}"] = result.floor + divergence(
                model, source, rows
            )
    longest = config.steps[-1]
    result.repeated["1"] = result.loss[f"{config.repeated_size} {longest * per_step}"]
    for epochs in config.epochs:
        model = trained(config.repeated_size, longest, epochs)
        result.repeated[str(epochs)] = result.floor + divergence(model, source, rows)
    bar.close()
    tokens = [steps * per_step for steps in config.steps]
    every = runs_of([dataclasses.asdict(result)], sizes=config.hidden_sizes, tokens=tokens)
    law = fitted(every)
    result.misfit = misfit(every, law)
    small, result.extrapolation = extrapolate(dataclasses.asdict(result), config)
    result.floors = {"all": law.floor, "small": small}
    return result


def architecture(source: GrammarSource, hidden: int) -> LSTMConfig:
    """The model of one size: one layer, embeddings as wide as the hidden state, nothing tied."""
    return LSTMConfig(
        vocabulary_size=source.vocabulary_size, embedding_size=hidden, hidden_size=hidden
    )


def divergence(model: LSTMLanguageModel, source: GrammarSource, rows: torch.Tensor) -> float:
    """KL(source || model) in nats per token: exact at each position, given the prefix.

    rows: shape (rows, tokens), true text after an end token.
    """
    return float(source.kl_from(next_log_probs(model, rows), source.walk(rows[:, 1:])).mean())


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs as `fit_scaling_law` takes them, one number a run."""

    parameters: list[float]
    tokens: list[float]
    losses: list[float]


def runs_of(
    results: Sequence[Mapping[str, Any]], *, sizes: Sequence[int], tokens: Sequence[int]
) -> Runs:
    """The runs of `results`, stored or `dataclasses.asdict`, with these sizes and tokens."""
    found = Runs(parameters=[], tokens=[], losses=[])
    for result in results:
        count, loss = result["parameters"], result["loss"]
        for hidden, seen in itertools.product(sizes, tokens):
            found.parameters.append(float(count[str(hidden)]))
            found.tokens.append(float(seen))
            found.losses.append(float(loss[f"{hidden} {seen}"]))
    return found


def misfit(runs: Runs, law: ScalingLaw) -> float:
    """Root of the mean squared difference of log loss between the law and the runs."""
    differences = np.log(law.loss(runs.parameters, runs.tokens)) - np.log(runs.losses)
    return float(np.sqrt(np.mean(differences**2)))


def extrapolate(
    result: Mapping[str, Any], config: Config, *, near: ScalingLaw | None = None
) -> tuple[float, dict[str, float]]:
    """The floor fitted to the small runs, and `Result.extrapolation`.

    result: stored, planted or `dataclasses.asdict`; near: see `fit_scaling_law`.
    """
    per_step = config.training.num_streams * config.training.window_length
    tokens = [steps * per_step for steps in config.steps]
    sizes, large_sizes = (
        config.hidden_sizes[: config.small_sizes], config.hidden_sizes[config.small_sizes :],
    )  # fmt: skip
    small = runs_of([result], sizes=sizes, tokens=tokens[: config.small_steps])
    large = runs_of([result], sizes=large_sizes, tokens=tokens[config.small_steps :])
    laws = {
        "free": fitted(small, near=near),
        "known floor": fitted(small, floor=result["floor"], near=near),
        "no floor": fitted(small, floor=0.0, near=near),
    }
    errors = {
        name: float((law.loss(large.parameters, large.tokens) - large.losses).mean())
        for name, law in laws.items()
    }
    return laws["free"].floor, errors


def planted(
    results: Sequence[Mapping[str, Any]], law: ScalingLaw, *, seed: int
) -> list[dict[str, Any]]:
    """The control: results in which `law` is true, with the noise that was measured.

    Each run of each result has the loss that the law gives its parameters and tokens, times
    exp(noise): normal, independent, with the standard deviation that the logarithm of that run's
    loss has over the results. As many results come back, of another draw for each seed.
    """
    if len(results) < 3:
        raise ValueError(f"the spread over seeds needs three results or more, got {len(results)}")
    normal = np.random.default_rng(seed)
    spread = {
        run: float(np.std([np.log(each["loss"][run]) for each in results], ddof=1))
        for run in results[0]["loss"]
    }
    made = []
    for each in results:
        loss = {}
        for run, deviation in spread.items():
            hidden, tokens = run.split()
            true = float(law.loss(each["parameters"][hidden], float(tokens)))
            loss[run] = true * float(np.exp(deviation * normal.standard_normal()))
        made.append({"floor": law.floor, "parameters": each["parameters"], "loss": loss})
    return made


def fitted(runs: Runs, *, floor: float | None = None, near: ScalingLaw | None = None) -> ScalingLaw:
    """The law of these runs (`companion.evaluation.scaling.fit_scaling_law`)."""
    return fit_scaling_law(runs.parameters, runs.tokens, runs.losses, floor=floor, near=near)
