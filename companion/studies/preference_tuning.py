"""What does a model pay when it is tuned by preferences, or against repetition?

An LSTM learns the review grammar. A judge compares pairs of its reviews, with errors, by the gold
reward of `companion.quality`, and the model is tuned on the pairs by DPO (Rafailov et al. 2023), at
several beta and once for far too long. Another copy is tuned by unlikelihood (Welleck et al. 2020),
token by token or on its own greedy text. What each buys is measured, and what it costs: distance
from the model before and from the source, calibration, length, grammar.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from companion.dpo import DPOConfig, DPORecord, text_log_probs, train_dpo
from companion.lstm import LSTMLanguageModel
from companion.preference import Pairs, noisy_pairs, write_texts
from companion.quality import review_quality
from companion.runtime import make_generator
from companion.source_models import train_on_texts
from companion.sources import GrammarSource
from companion.tuned_models import Scales
from companion.unlikelihood import KINDS, UnlikelihoodConfig, tune_against_repetition

if TYPE_CHECKING:
    from jaxtyping import Float64


@dataclass(frozen=True, kw_only=True)
class Config:
    """The model, the judge, and the two kinds of tuning."""

    steps: int = 1000
    """Optimizer steps of the language model, each on fresh text."""
    hidden_size: int = 128
    """Of the language model."""
    num_tokens: int = 80
    """Tokens of a review at most."""
    judged_texts: int = 3000
    """The model's reviews that pairs are drawn from."""
    judge_temperature: float = 1.0
    """Of the labels: a gold difference of so much is judged rightly in 73 % of the cases."""
    pairs: int = 1500
    """Pairs for DPO at several beta."""
    betas: tuple[float, ...] = (1.0, 0.3, 0.1, 0.01)
    """Those beta; one pass over the pairs each."""
    learning_rate: float = 1e-3
    """Of these runs."""
    overtrained_pairs: int = 200
    """Pairs for the run that goes on for too long."""
    overtrained_beta: float = 0.02
    """Its beta."""
    overtrained_rate: float = 3e-3
    """Its learning rate."""
    overtrained_epochs: int = 16
    """Its passes over the pairs."""
    test_texts: int = 400
    """Reviews of each tuned model by which it is judged."""
    curve_texts: int = 150
    """The same after each epoch of the run that goes on for too long."""
    true_texts: int = 600
    """Fresh true reviews for calibration and KL to the source."""
    unlikelihood_steps: int = 100
    """Steps of tuning against repetition."""
    unlikelihood_rate: float = 1e-3
    """Learning rate there."""
    unlikelihood_weight: float = 1.0
    """Weight of the unlikelihood beside the likelihood."""
    greedy_tokens: int = 80
    """Tokens of a greedy text, which may not end before."""
    repetition_texts: int = 48
    """Greedy texts on which repetition is measured."""

    def __post_init__(self) -> None:
        if not self.betas:
            raise ValueError("betas needs one value or more")

    @property
    def unlikelihood(self) -> UnlikelihoodConfig:
        """How models are tuned against repetition."""
        return UnlikelihoodConfig(
            steps=self.unlikelihood_steps,
            learning_rate=self.unlikelihood_rate,
            weight=self.unlikelihood_weight,
            greedy_tokens=self.greedy_tokens,
        )


@dataclass(kw_only=True)
class Result:
    """Figures of each tuned model, by name; "start" is the model before.

    They are called as in `companion.tuned_models.Scales`.
    """

    dpo: dict[str, dict[str, float]] = field(default_factory=dict)
    """By beta: the costs, and "chosen" and "rejected", how much the mean log-probability of the
    pairs' texts has changed, nats a text; "margin" and "accuracy" of the implied reward."""
    ideal: dict[str, list[float]] = field(default_factory=dict)
    """The best policy for the judge's own reward, by importance weights on the model's reviews:
    "beta", "kl" and "gold"; only where the weights rest on a hundred reviews or more."""
    overtraining: dict[str, list[float]] = field(default_factory=dict)
    """The long run, epoch by epoch, the start included: figures of its own reviews and of its pairs
    as above, and "fresh_accuracy" on other pairs."""
    overtrained: dict[str, float] = field(default_factory=dict)
    """Its end, with the costs."""
    unlikelihood: dict[str, dict[str, float]] = field(default_factory=dict)
    """"start", "likelihood" (as many steps without unlikelihood), "token" and "sequence":
    "repetition" (seq-rep-4 of greedy text that may not end), "greedy_ungrammatical" (share of
    its sentences), and the costs."""
    source_repetition: float = 0.0
    """seq-rep-4 of as many tokens of the source's own long reviews."""
    dpo_kl_growth: float = 0.0
    """KL at the lowest beta over that at the highest."""
    dpo_gain: float = 0.0
    """Largest gold gain over the betas."""
    overtrained_peak_gain: float = 0.0
    """Largest gold gain on the way of the long run."""
    overtrained_drop: float = 0.0
    """That less the gain at its end."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train a model, ask the judge, tune by preferences and against repetition, and measure."""
    source = GrammarSource()
    model = train_on_texts(
        source, seed=seed, steps=config.steps, hidden_size=config.hidden_size, progress=progress
    )
    return measure(model, source, config, seed=seed, progress=progress)


def measure(
    model: LSTMLanguageModel,
    source: GrammarSource,
    config: Config,
    *,
    seed: int,
    progress: bool = False,
) -> Result:
    """All figures for a model that is already trained on `source`."""
    generator = make_generator(seed + 2**31)  # not the text that the model was trained on
    judged = write_texts(model, config.judged_texts, config.num_tokens, generator=generator)
    gold = review_quality(judged, source)
    scales = Scales(
        model=model,
        source=source,
        generator=generator,
        own_texts=config.test_texts,
        num_tokens=config.num_tokens,
        true_texts=config.true_texts,
        greedy_texts=config.repetition_texts,
        greedy_tokens=config.greedy_tokens,
    )
    ideal = ideal_policies(gold, temperature=config.judge_temperature)
    result = Result(dpo={"start": scales.figures(model)}, ideal=ideal)
    pairs = noisy_pairs(
        judged, gold, config.pairs, temperature=config.judge_temperature, generator=generator
    )
    for beta in tqdm(config.betas, disable=not progress, unit="beta"):
        policy = copy.deepcopy(model)
        settings = DPOConfig(beta=beta, learning_rate=config.learning_rate)
        records = train_dpo(policy, model, pairs, settings, generator=generator)
        result.dpo[f"{beta:g}"] = {**scales.figures(policy), **pair_figures(records[-1])}
    start = result.dpo["start"]["gold"]
    ends = [result.dpo[f"{beta:g}"] for beta in config.betas]
    lowest, highest = (result.dpo[f"{pick(config.betas):g}"]["kl"] for pick in (min, max))
    result.dpo_kl_growth = lowest / highest
    result.dpo_gain = max(end["gold"] for end in ends) - start
    few = noisy_pairs(
        judged, gold, config.overtrained_pairs,
        temperature=config.judge_temperature, generator=generator,
    )  # fmt: skip
    _overtrain(result, scales, config, few, pairs)
    result.overtrained_peak_gain = max(result.overtraining["gold"]) - start
    result.overtrained_drop = max(result.overtraining["gold"]) - result.overtrained["gold"]
    result.source_repetition = scales.source_repetition()
    for name in ("start", *KINDS):
        tuned = copy.deepcopy(model)
        if name != "start":
            tune_against_repetition(
                tuned, source, name, config.unlikelihood, generator=generator, progress=progress
            )
        result.unlikelihood[name] = {**scales.figures(tuned), **scales.greedy_figures(tuned)}
    return result


def ideal_policies(
    gold: Float64[torch.Tensor, " texts"], *, temperature: float = 1.0, fewest: float = 100.0
) -> dict[str, list[float]]:
    """KL and gold of the model times exp(reward / beta), normalised, for a row of beta.

    gold: of reviews that the model wrote; expectations are weighted means over them. The judge's
    reward is gold / temperature. A beta is left out where the weights rest on fewer than `fewest`
    reviews (the inverse of the summed squares).
    """
    found: dict[str, list[float]] = {"beta": [], "kl": [], "gold": []}
    for beta in (8.0, 4.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.09):
        weights = torch.softmax(gold / (temperature * beta), dim=0)
        if 1 / float(weights.square().sum()) >= fewest:
            found["beta"].append(beta)
            kl = torch.xlogy(weights, weights * len(weights)).sum()
            found["kl"].append(float(kl))
            found["gold"].append(float(weights @ gold))
    return found


# --- DPO for too long ----------------------------------------------------------------------------


def _overtrain(result: Result, scales: Scales, c: Config, pairs: Pairs, fresh: Pairs) -> None:
    policy = copy.deepcopy(scales.model)
    curve: dict[str, list[float]] = {}

    def watch(record: DPORecord) -> None:
        row = {
            **scales.own_figures(policy, c.curve_texts),
            **pair_figures(record),
            "fresh_accuracy": accuracy(policy, scales.model, fresh) if record.epoch else 0.5,
        }
        for name, value in row.items():
            curve.setdefault(name, []).append(value)

    settings = DPOConfig(
        beta=c.overtrained_beta, epochs=c.overtrained_epochs, learning_rate=c.overtrained_rate
    )
    train_dpo(policy, scales.model, pairs, settings, generator=scales.generator, watch=watch)
    result.overtraining = curve
    result.overtrained = scales.figures(policy)


def pair_figures(record: DPORecord) -> dict[str, float]:
    """What a record says, by the names of `Result`."""
    return {
        "chosen": record.chosen_change,
        "rejected": record.rejected_change,
        "margin": record.margin,
        "accuracy": record.accuracy,
    }


@torch.no_grad()
def accuracy(policy: LSTMLanguageModel, reference: LSTMLanguageModel, pairs: Pairs) -> float:
    """Share of up to 200 pairs of which the chosen text has the higher implied reward."""
    chosen, rejected = (
        text_log_probs(policy, side[:200]) - text_log_probs(reference, side[:200])
        for side in (pairs.chosen, pairs.rejected)
    )
    return float((chosen > rejected).double().mean())
