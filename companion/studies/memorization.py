"""When does a language model know its training text by heart, and which remedy hinders that?

Reviews of the grammar, whose floor is known, and among them canaries: names with random codes, each
repeated a known number of times (Carlini et al. 2019). After every epoch the loss on the training
reviews, the loss on fresh ones and the exposure of each canary are measured: without a remedy, with
weight decay and with dropout. Early stopping is the epoch of the lowest validation loss. The same
model on few reviews learns those by heart as well: its training loss falls through the floor.

Texts keep their order from epoch to epoch, and a stream's state is carried from one to the next, as
in all trainings of the package; it is reset now and then, so that the model also learns to begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from companion.automata import END_ID
from companion.canaries import Canaries
from companion.evaluation import evaluate
from companion.lstm import LSTMConfig, LSTMLanguageModel
from companion.runtime import make_generator, seed_everything
from companion.sources import GrammarSource
from companion.training import TrainConfig, train

if TYPE_CHECKING:
    from jaxtyping import Int


@dataclass(frozen=True, kw_only=True)
class Config:
    """The texts, the canaries, the model, and the remedies."""

    num_texts: int = 2000
    """Reviews that are trained on."""
    few_texts: int = 200
    """Of them, those of the run "few texts"; its canaries are the same."""
    valid_texts: int = 600
    """Fresh reviews, without canaries, on which losses are measured; and at most as many of those
    that are trained on."""
    repetitions: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    """How often the training text has a canary."""
    each: int = 4
    """Canaries for each of the repetitions."""
    num_digits: int = 5
    """Digits of a code."""
    hidden_size: int = 128
    """Of the LSTM, one layer."""
    embedding_size: int = 48
    """Of the LSTM."""
    epochs: int = 12
    """Passes over the reviews and canaries."""
    dropout_epochs: int = 16
    """The same for the run "dropout", which learns more slowly."""
    few_epochs: int = 25
    """The same for the run "few texts"."""
    learning_rate: float = 6e-3
    """Of AdamW; constant after the first steps, so that an epoch means the same in all runs."""
    num_streams: int = 8
    """Streams side by side."""
    window_length: int = 64
    """Tokens of a step of each."""
    reset_state: float = 0.1
    """Probability that a stream's state is reset before a window."""
    weight_decay: float = 0.2
    """Of the run "weight decay"."""
    dropout: float = 0.4
    """Of the run "dropout"."""
    matched: int = 4
    """Repetitions of the canaries by whose exposure the remedies are compared."""

    def __post_init__(self) -> None:
        if self.matched not in self.repetitions:
            raise ValueError(
                f"matched must be one of the repetitions {self.repetitions}, got {self.matched}"
            )
        if not 1 <= self.few_texts <= self.num_texts:
            raise ValueError(
                f"few_texts must be between 1 and num_texts = {self.num_texts}, "
                f"got {self.few_texts}"
            )
        if min(self.epochs, self.dropout_epochs, self.few_epochs) < 1:
            raise ValueError(
                "epochs, dropout_epochs and few_epochs must be >= 1, got "
                f"{self.epochs}, {self.dropout_epochs} and {self.few_epochs}"
            )

    def runs(self) -> dict[str, dict[str, Any]]:
        """What each run changes, by its name."""
        return {
            "plain": {"epochs": self.epochs, "measured": self.repetitions},
            "weight decay": {"epochs": self.epochs, "weight_decay": self.weight_decay},
            "dropout": {"epochs": self.dropout_epochs, "dropout": self.dropout},
            "few texts": {"epochs": self.few_epochs, "measured": ()},
        }


@dataclass(kw_only=True)
class Result:
    """Figures by run ("plain", "weight decay", "dropout", "few texts"), most of them by epoch."""

    floor_nats_per_token: float
    """Entropy of the source, exact."""
    source_nats_per_token: dict[str, float] = field(default_factory=dict)
    """Surprisal under the source of the very texts at hand: "train", "few texts" and "valid"."""
    train_nats_per_token: dict[str, list[float]] = field(default_factory=dict)
    """By run and epoch: loss on the reviews that are trained on, without canaries and dropout."""
    valid_nats_per_token: dict[str, list[float]] = field(default_factory=dict)
    """By run and epoch: loss on fresh reviews."""
    best_epoch: dict[str, int] = field(default_factory=dict)
    """By run: the epoch, from 1, with the lowest of these, where early stopping stops."""
    exposure: dict[str, float] = field(default_factory=dict)
    """By repetitions: mean bits after the last epoch of "plain"."""
    exposure_by_epoch: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By run, repetitions and epoch: mean bits. With a remedy, of `matched` repetitions alone."""
    early_exposure: dict[str, float] = field(default_factory=dict)
    """By repetitions: mean bits of "plain" at its best epoch."""
    matched_exposure: dict[str, float] = field(default_factory=dict)
    """By run: mean bits for `matched` repetitions at the first epoch whose validation loss is at
    most the lowest of "plain"; left out where it never is."""
    extracted: dict[str, dict[str, float]] = field(default_factory=dict)
    """By run and repetitions: share of the canaries whose code is the model's first guess, after
    the last epoch. With a remedy, for `matched` repetitions alone."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train on reviews and canaries, with each remedy and without, and measure every epoch."""
    source = GrammarSource()
    generator = make_generator(seed)
    canaries = Canaries(
        source.vocabulary,
        repetitions=config.repetitions,
        each=config.each,
        num_digits=config.num_digits,
        generator=generator,
    )
    texts = source.sample(config.num_texts, generator=generator)
    valid = source.sample(config.valid_texts, generator=generator)
    few = texts[: config.few_texts]
    result = Result(floor_nats_per_token=source.entropy_rate())
    shown = {"train": texts[: config.valid_texts], "few texts": few, "valid": valid}
    for name, read in shown.items():
        nats = -float(source.log_probs(read).sum())
        result.source_nats_per_token[name] = nats / sum(map(len, read))
    for name, changes in config.runs().items():
        _learn(
            result, name, few if name == "few texts" else texts, valid, canaries, config,
            seed=seed, progress=progress, **changes,
        )  # fmt: skip
    _compare(result, config)
    return result


def _learn(
    result: Result,
    name: str,
    texts: Sequence[torch.Tensor],
    valid: Sequence[torch.Tensor],
    canaries: Canaries,
    config: Config,
    *,
    seed: int,
    epochs: int,
    weight_decay: float = 0.0,
    dropout: float = 0.0,
    measured: tuple[int, ...] | None = None,
    progress: bool = False,
) -> None:
    """Train one model, from the same beginning in every run, and fill in its figures."""
    ids = canaries.hide(texts, generator=make_generator(seed + 2**31))
    own = _joined(texts[: config.valid_texts])
    losses: list[float] = []
    fresh_losses: list[float] = []
    measured = (config.matched,) if measured is None else measured
    bits: dict[str, list[float]] = {str(repeated): [] for repeated in measured}
    seed_everything(seed)
    model = LSTMLanguageModel(
        LSTMConfig(
            vocabulary_size=len(canaries.vocabulary),
            embedding_size=config.embedding_size,
            hidden_size=config.hidden_size,
            dropout=dropout,
        )
    )

    def measure(record: dict[str, Any]) -> None:
        if "valid_nats_per_token" in record:
            fresh_losses.append(record["valid_nats_per_token"])
            losses.append(evaluate(model, own).nats_per_token)
            for repeated, found in _exposures(model, canaries, measured).items():
                bits[repeated].append(_mean(found))

    train(
        model,
        ids,
        TrainConfig(
            epochs=epochs,
            num_streams=config.num_streams,
            window_length=config.window_length,
            reset_state=config.reset_state,
            learning_rate=config.learning_rate,
            final_learning_rate=1.0,
            warmup=0.3 / epochs,
            weight_decay=weight_decay,
        ),
        valid_ids=_joined(valid),
        device="cpu",
        progress=progress,
        on_record=measure,
    )
    result.train_nats_per_token[name] = losses
    result.valid_nats_per_token[name] = fresh_losses
    result.exposure_by_epoch[name] = bits
    known = canaries.max_exposure
    result.extracted[name] = {
        repeated: _mean([float(each == known) for each in found])
        for repeated, found in _exposures(model, canaries, measured or config.repetitions).items()
    }


def _exposures(
    model: LSTMLanguageModel, canaries: Canaries, repetitions: Sequence[int]
) -> dict[str, list[float]]:
    """Bits of each canary, by how often it was repeated."""
    was_training = model.training
    model.eval()
    found: dict[str, list[float]] = {str(repeated): [] for repeated in repetitions}
    for canary in canaries.secrets:
        if canary.repetitions in repetitions:
            found[str(canary.repetitions)].append(canaries.exposure(model, canary))
    model.train(was_training)
    return found


def _compare(result: Result, config: Config) -> None:
    """Fill in what early stopping would have left, and what each remedy leaves at its loss."""
    for name, losses in result.valid_nats_per_token.items():
        result.best_epoch[name] = 1 + losses.index(min(losses))
    plain = result.exposure_by_epoch["plain"]
    result.exposure = {repeated: bits[-1] for repeated, bits in plain.items()}
    result.early_exposure = {
        repeated: bits[result.best_epoch["plain"] - 1] for repeated, bits in plain.items()
    }
    lowest = min(result.valid_nats_per_token["plain"])
    for name, by_repetitions in result.exposure_by_epoch.items():
        if by_repetitions:
            losses = result.valid_nats_per_token[name]
            reached = [epoch for epoch, loss in enumerate(losses) if loss <= lowest]
            if reached:
                result.matched_exposure[name] = by_repetitions[str(config.matched)][reached[0]]


def _joined(texts: Sequence[torch.Tensor]) -> Int[torch.Tensor, " tokens"]:
    """An end, then the texts one after the other."""
    return torch.cat([torch.tensor([END_ID]), *texts])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
