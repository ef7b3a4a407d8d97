"""When does a language model know its training text by heart, and which remedy hinders that?

The training text has reviews of the grammar, whose floor is known, and canaries: names with random
codes, each repeated a known number of times (Carlini et al. 2019). After every epoch the loss on
the training reviews, the loss on fresh reviews and the exposure of each canary are measured:
without a remedy, with weight decay and with dropout. Early stopping takes the epoch with the lowest
validation loss. Trained on few reviews, the same model memorises those as well: its training loss
falls below the floor.

A remedy that slows training leaves fewer codes known after each epoch, and so would training less.
So remedies are compared at equal validation loss, and, as both may be given in several strengths,
it shows at which strength a remedy does more than that.

Texts keep their order from epoch to epoch, and the state is carried from one text to the next, as
in all training on streams in this package; it is sometimes reset, so that the model also learns to
begin a text.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_counts, settings_class
from companion.evaluation.scoring import evaluate
from companion.generalization.canaries import Canaries, exposure
from companion.models.base import LanguageModel, evaluation_mode
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.grammar import VOCABULARY
from companion.sources.reviews import GrammarSource
from companion.text.rows import END_ID
from companion.training.config import TrainConfig
from companion.training.trainer import train

if TYPE_CHECKING:
    from jaxtyping import Int


class Run(NamedTuple):
    """One training."""

    model: LSTMConfig
    """Size and dropout; without the words of the canaries."""
    training: TrainConfig
    """Weight decay, epochs and the rest."""
    num_texts: int
    """Number of training reviews."""
    repetitions: tuple[int, ...]
    """Of which canaries the exposure is measured after every epoch, by how often the text repeats
    them; all are planted."""


@settings_class
class Config:
    """Settings of the texts, the canaries, the model, and the remedies."""

    num_texts: int = 2000
    """Number of training reviews."""
    few_texts: int = 200
    """Number of training reviews in the run "few texts", which has the same canaries; 0 leaves that
    run out."""
    valid_texts: int = 600
    """Number of fresh reviews, without canaries, for the validation loss; and maximum number of
    training reviews for the training loss."""
    repetitions: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    """Numbers of times that a canary is repeated in the training text."""
    each: int = 4
    """Number of different canaries for each of the repetitions."""
    num_digits: int = 5
    """Digits of a canary's code."""
    model: LSTMConfig = LSTMConfig(
        vocabulary_size=len(VOCABULARY), embedding_size=48, hidden_size=128
    )
    """Size of the LSTM; the words of the canaries are added to its vocabulary."""
    training: TrainConfig = TrainConfig(
        epochs=12, num_streams=8, reset_state=0.1, learning_rate=6e-3,
        final_learning_rate=1.0, warmup=0.3 / 12,
    )  # fmt: skip
    """Training on the reviews and canaries. The learning rate is constant after the first steps, so
    that epochs of different runs are comparable."""
    decay_epochs: int = 12
    """Epochs of each run with weight decay."""
    dropout_epochs: int = 16
    """Epochs of each run with dropout, which learns more slowly."""
    few_epochs: int = 25
    """Epochs of the run "few texts"."""
    weight_decay: tuple[float, ...] = (0.2,)
    """AdamW's weight decays, one run for each, such as "weight decay 0.2"."""
    dropout: tuple[float, ...] = (0.4,)
    """Dropout probabilities, one run for each, such as "dropout 0.4"."""
    matched: int = 4
    """Number of repetitions of the canaries whose exposure is compared between remedies."""
    margin: float = 0.05
    """Nats per token above the lowest validation loss of "plain"; runs are compared there as well,
    where the loss of "plain" still falls quickly."""

    def __post_init__(self) -> None:
        if self.matched not in self.repetitions:
            raise ValueError(
                f"matched must be one of the repetitions {self.repetitions}, got {self.matched}"
            )
        if not 0 <= self.few_texts <= self.num_texts:
            raise ValueError(
                f"few_texts must be between 0 and num_texts = {self.num_texts}, "
                f"got {self.few_texts}"
            )
        if self.training.epochs is None or self.training.epochs < 1:
            raise ValueError(f"training must have 1 epoch or more, got {self.training.epochs}")
        check_counts(self, zero=("few_texts", "matched"))
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"margin must be >= 0 and finite, got {self.margin}")
        for name in ("weight_decay", "dropout"):
            strengths = getattr(self, name)
            if len({f"{strength:g}" for strength in strengths}) < len(strengths):
                raise ValueError(f"{name} must be different strengths, got {strengths}")
        self.runs()  # so that a strength that cannot be is named before hours of training

    def runs(self) -> dict[str, Run]:
        """The trainings by name; in all of them, the warmup takes the same part of an epoch."""
        matched = (self.matched,)
        found = {"plain": Run(self.model, self.training, self.num_texts, self.repetitions)}
        for strength in self.weight_decay:
            decaying = replace(self._lasting(self.decay_epochs), weight_decay=strength)
            found[f"weight decay {strength:g}"] = Run(self.model, decaying, self.num_texts, matched)
        for strength in self.dropout:
            dropping = replace(self.model, dropout=strength)
            training = self._lasting(self.dropout_epochs)
            found[f"dropout {strength:g}"] = Run(dropping, training, self.num_texts, matched)
        if self.few_texts:
            lasting = self._lasting(self.few_epochs)
            found["few texts"] = Run(self.model, lasting, self.few_texts, ())
        return found

    def _lasting(self, epochs: int) -> TrainConfig:
        warmup_epochs = self.training.warmup * (self.training.epochs or 0)
        return replace(self.training, epochs=epochs, warmup=warmup_epochs / epochs)


@dataclass(kw_only=True)
class Result:
    """Figures by run ("plain", "weight decay 0.2", "dropout 0.4", "few texts", and so on), most of
    them by epoch."""

    floor_nats_per_token: float
    """Exact entropy of the source."""
    source_nats_per_token: dict[str, float] = field(default_factory=dict)
    """Surprisal under the source of the sampled texts: "train", "few texts" and "valid"."""
    train_nats_per_token: dict[str, list[float]] = field(default_factory=dict)
    """Loss on the training reviews without canaries, in evaluation mode, by run and epoch."""
    valid_nats_per_token: dict[str, list[float]] = field(default_factory=dict)
    """Loss on fresh reviews, by run and epoch."""
    best_epoch: dict[str, int] = field(default_factory=dict)
    """The epoch, from 1, with the lowest validation loss (early stopping), by run."""
    exposure: dict[str, float] = field(default_factory=dict)
    """Mean exposure in bits after the last epoch of "plain", by repetitions."""
    exposure_by_epoch: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Mean exposure in bits, by run, repetitions and epoch; with a remedy, only for `matched`
    repetitions."""
    early_exposure: dict[str, float] = field(default_factory=dict)
    """Mean exposure in bits at the best epoch of "plain", by repetitions."""
    lowest_nats_per_token: dict[str, float] = field(default_factory=dict)
    """Loss on fresh reviews at the best epoch, by run."""
    best_exposure: dict[str, float] = field(default_factory=dict)
    """Mean exposure in bits for `matched` repetitions at the run's own best epoch, by run."""
    matched_exposure: dict[str, float] = field(default_factory=dict)
    """Mean exposure in bits for `matched` repetitions, by run, where its validation loss first
    reaches the lowest of "plain", on a straight line between two epochs; runs that never reach it
    are left out."""
    near_exposure: dict[str, float] = field(default_factory=dict)
    """The same, where the loss first is `margin` above the lowest of "plain"."""
    wrong_name_exposure: dict[str, float] = field(default_factory=dict)
    """Mean exposure in bits of planted codes asked for by the name of a control, whose code was
    never in the text; after the last epoch of "plain", by repetitions."""
    owner_by_epoch: dict[str, list[float]] = field(default_factory=dict)
    """Share of canaries whose code is more probable after its owner's name than all other planted
    codes, by repetitions and epoch of "plain"."""
    extracted: dict[str, dict[str, float]] = field(default_factory=dict)
    """Share of canaries whose code is the model's first guess after the last epoch, by run and
    repetitions; with a remedy, only for `matched` repetitions."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train on reviews and canaries, with each remedy and without; measure after every epoch."""
    source = GrammarSource()
    canaries = Canaries(
        source.vocabulary,
        repetitions=config.repetitions,
        each=config.each,
        num_digits=config.num_digits,
        generator=make_generator(seed, "canaries"),
    )
    texts = source.sample(config.num_texts, generator=make_generator(seed, "training text"))
    valid = source.sample(config.valid_texts, generator=make_generator(seed, "test text"))
    result = Result(floor_nats_per_token=source.entropy_rate())
    shown = {"train": texts[: config.valid_texts], "valid": valid}
    if config.few_texts:
        shown["few texts"] = texts[: config.few_texts]
    for name, read in shown.items():
        nats = -float(source.log_probs(read).sum())
        result.source_nats_per_token[name] = nats / sum(map(len, read))
    for name, one in config.runs().items():
        _learn(result, name, one, texts, valid, canaries, config, seed=seed, progress=progress)
    _compare(result, config)
    return result


def _learn(
    result: Result,
    name: str,
    one: Run,
    texts: Sequence[torch.Tensor],
    valid: Sequence[torch.Tensor],
    canaries: Canaries,
    config: Config,
    *,
    seed: int,
    progress: bool,
) -> None:
    """Train one model, with the same initial weights in every run, and fill in its figures."""
    texts = texts[: one.num_texts]
    ids = canaries.hide(texts, generator=make_generator(seed, "order"))
    own = _joined(texts[: config.valid_texts])
    losses: list[float] = []
    fresh_losses: list[float] = []
    bits: dict[str, list[float]] = {str(repeated): [] for repeated in one.repetitions}
    seed_everything(seed)
    model = LSTMLanguageModel(replace(one.model, vocabulary_size=len(canaries.vocabulary)))

    def measure(record: dict[str, Any]) -> None:
        if "valid_nats_per_token" in record:
            fresh_losses.append(record["valid_nats_per_token"])
            losses.append(evaluate(model, own).nats_per_token)
            for repeated, found in _exposures(model, canaries, one.repetitions).items():
                bits[repeated].append(_mean(found))
            if name == "plain":
                for repeated, share in _owners_found(model, canaries).items():
                    result.owner_by_epoch.setdefault(repeated, []).append(share)

    train(
        model,
        ids,
        one.training,
        valid_ids=_joined(valid),
        device="cpu",
        progress=progress,
        on_record=measure,
    )
    result.train_nats_per_token[name] = losses
    result.valid_nats_per_token[name] = fresh_losses
    result.exposure_by_epoch[name] = bits
    if name == "plain":
        result.wrong_name_exposure = _wrong_name_exposures(model, canaries)
    known, extracted = canaries.max_exposure, one.repetitions or config.repetitions
    result.extracted[name] = {
        repeated: _mean([float(each == known) for each in found])
        for repeated, found in _exposures(model, canaries, extracted).items()
    }


def _exposures(
    model: LanguageModel, canaries: Canaries, repetitions: Sequence[int]
) -> dict[str, list[float]]:
    """Exposure of each canary in bits, by its number of repetitions."""
    found: dict[str, list[float]] = {str(repeated): [] for repeated in repetitions}
    with evaluation_mode(model):
        for canary in canaries.secrets:
            if canary.repetitions in repetitions:
                found[str(canary.repetitions)].append(canaries.exposure(model, canary))
    return found


def _owners_found(model: LanguageModel, canaries: Canaries) -> dict[str, float]:
    """Share of canaries with `owner_rank` 1, by repetitions above 0."""
    found: dict[str, list[float]] = {}
    with evaluation_mode(model):
        for canary in canaries.secrets:
            if canary.repetitions:
                first = canaries.owner_rank(model, canary) == 1
                found.setdefault(str(canary.repetitions), []).append(float(first))
    return {repeated: _mean(shares) for repeated, shares in found.items()}


def _wrong_name_exposures(model: LanguageModel, canaries: Canaries) -> dict[str, float]:
    """Mean exposure of planted codes by the names of controls, by repetitions above 0."""
    controls = [canary.name for canary in canaries.secrets if not canary.repetitions]
    found: dict[str, list[float]] = {}
    if controls:
        names = itertools.cycle(controls)
        for canary in canaries.secrets:
            if canary.repetitions:
                rank = canaries.rank(model, next(names), canary.code)
                found.setdefault(str(canary.repetitions), []).append(
                    exposure(rank, canaries.num_codes)
                )
    return {repeated: _mean(bits) for repeated, bits in found.items()}


def _compare(result: Result, config: Config) -> None:
    """Fill in the exposure with early stopping, and that of each remedy at the same loss."""
    plain = result.exposure_by_epoch["plain"]
    lowest = min(result.valid_nats_per_token["plain"])
    for name, losses in result.valid_nats_per_token.items():
        best = losses.index(min(losses))
        result.best_epoch[name] = 1 + best
        result.lowest_nats_per_token[name] = losses[best]
        bits = result.exposure_by_epoch[name].get(str(config.matched))
        if bits:
            result.best_exposure[name] = bits[best]
            for found, bound in (
                (result.matched_exposure, lowest),
                (result.near_exposure, lowest + config.margin),
            ):
                there = _at_loss(losses, bits, bound)
                if there is not None:
                    found[name] = there
    result.exposure = {repeated: bits[-1] for repeated, bits in plain.items()}
    result.early_exposure = {
        repeated: bits[result.best_epoch["plain"] - 1] for repeated, bits in plain.items()
    }


def _at_loss(losses: Sequence[float], bits: Sequence[float], bound: float) -> float | None:
    """`bits` where `losses` first reach `bound`, on a straight line between two epochs.

    That of the first epoch, if its loss is as low already; None if no epoch's is.
    """
    for epoch, loss in enumerate(losses):
        if loss <= bound:
            if not epoch:
                return bits[0]
            share = (losses[epoch - 1] - bound) / (losses[epoch - 1] - loss)
            return bits[epoch - 1] + share * (bits[epoch] - bits[epoch - 1])
    return None


def _joined(texts: Sequence[torch.Tensor]) -> Int[torch.Tensor, " tokens"]:
    """An end token, then the texts one after the other."""
    return torch.cat([torch.tensor([END_ID]), *texts])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
