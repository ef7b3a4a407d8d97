"""What does a model pay when it is tuned by preferences, or against repetition?

An LSTM learns the review grammar. A judge compares pairs of its reviews, with errors, by the gold
reward of `companion.preferences.gold_reward`, and the model is tuned on the pairs by DPO (Rafailov
et al. 2023), with several beta and once for far too many epochs. Other copies are tuned by
unlikelihood (Welleck et al. 2020), token by token or on their own greedy text. The gain of each is
measured, and its costs: distance from the initial model and from the source, calibration, length,
grammar.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from companion.core.seeds import make_generator
from companion.core.settings import settings_class
from companion.evaluation.texts import text_log_probs
from companion.generation.texts import write_texts
from companion.models.base import LanguageModel
from companion.preferences.comparisons import Pairs, noisy_pairs, pairwise_accuracy
from companion.preferences.dpo import DPOConfig, DPORecord, train_dpo
from companion.preferences.gold_reward import review_quality
from companion.preferences.judged_reviews import JudgedReviewsConfig
from companion.preferences.tuning_costs import TuningCosts
from companion.sources.reviews import GrammarSource
from companion.training.unlikelihood import KINDS, UnlikelihoodConfig, tune_against_repetition

if TYPE_CHECKING:
    from jaxtyping import Float64


@settings_class
class Config(JudgedReviewsConfig):
    """Settings of the model, the judge, and the two kinds of tuning."""

    pairs: int = 1500
    """Number of labelled pairs for the DPO runs with `betas`."""
    betas: tuple[float, ...] = (1.0, 0.3, 0.1, 0.01)
    """DPO betas, one run for each."""
    dpo: DPOConfig = DPOConfig()
    """Settings of the DPO runs with `betas`; its beta is replaced by theirs."""
    overtrained_pairs: int = 200
    """Number of labelled pairs for the DPO run that is trained for too many epochs."""
    overtrained_dpo: DPOConfig = DPOConfig(beta=0.02, epochs=16, learning_rate=3e-3)
    """Settings of the DPO run that is trained for too many epochs."""
    test_texts: int = 400
    """Number of reviews sampled from each tuned model to measure it."""
    curve_texts: int = 150
    """Number of reviews sampled after each epoch of the overtrained run to measure it."""
    true_texts: int = 600
    """Number of fresh true reviews for calibration and KL from the source."""
    unlikelihood: UnlikelihoodConfig = UnlikelihoodConfig(steps=100, greedy_tokens=80)
    """Settings of the tuning against repetition."""
    repetition_texts: int = 48
    """Number of greedy texts, each of `unlikelihood.greedy_tokens`, on which repetition is
    measured."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.betas:
            raise ValueError("betas needs one value or more")


@dataclass(kw_only=True)
class Result:
    """Figures of each tuned model, by name; "start" is the initial model.

    The costs are named as in `companion.preferences.tuning_costs.TuningCosts`.
    """

    dpo: dict[str, dict[str, float]] = field(default_factory=dict)
    """Figures of each DPO run, by beta: the costs; "chosen" and "rejected", the changes of the mean
    log-probability of the pairs' texts, in nats per text; "margin" and "accuracy" of the implied
    reward."""
    ideal: dict[str, list[float]] = field(default_factory=dict)
    """Estimates for the optimal policy for the judge's own reward: "beta", "kl" and "gold"; only
    where its importance weights have an effective sample size of at least 100 reviews."""
    overtraining: dict[str, list[float]] = field(default_factory=dict)
    """Figures of the overtrained run before training and after each epoch: of its own reviews, of
    its pairs as in `dpo`, and "fresh_accuracy" on other pairs."""
    overtrained: dict[str, float] = field(default_factory=dict)
    """Figures of the overtrained run at its end, with the costs."""
    unlikelihood: dict[str, dict[str, float]] = field(default_factory=dict)
    """Figures of "start", "likelihood" (as many steps without unlikelihood), "token" and
    "sequence": "repetition" (seq-rep-4 of greedy text that may not end), "greedy_ungrammatical"
    (share of its sentences), and the costs."""
    source_repetition: float = 0.0
    """seq-rep-4 of as many tokens of the source's own long reviews."""
    dpo_kl_growth: float = 0.0
    """KL at the lowest beta divided by the KL at the highest beta."""
    dpo_gain: float = 0.0
    """Largest gold gain over the betas."""
    overtrained_peak_gain: float = 0.0
    """Largest gold gain of the overtrained run over its epochs."""
    overtrained_drop: float = 0.0
    """Largest gold gain of the overtrained run minus the gain at its end."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train a model, label pairs, tune by preferences and against repetition, and measure."""
    source = GrammarSource()
    model = config.trained(source, seed=seed, progress=progress)
    return measure(model, source, config, seed=seed, progress=progress)


def measure(
    model: LanguageModel,
    source: GrammarSource,
    config: Config,
    *,
    seed: int,
    progress: bool = False,
) -> Result:
    """The study's result for a model that is already trained on `source`."""
    generator = make_generator(seed, "reviews, labels and tuning")
    judged = write_texts(model, config.judged_texts, config.num_tokens, generator=generator)
    gold = review_quality(judged, source)
    scales = TuningCosts(
        model=model,
        source=source,
        generator=generator,
        own_texts=config.test_texts,
        num_tokens=config.num_tokens,
        true_texts=config.true_texts,
        greedy_texts=config.repetition_texts,
        greedy_tokens=config.unlikelihood.greedy_tokens,
    )
    ideal = ideal_policies(gold, temperature=config.judge_temperature)
    result = Result(dpo={"start": scales.figures(model)}, ideal=ideal)
    pairs = noisy_pairs(
        judged, gold, config.pairs, temperature=config.judge_temperature, generator=generator
    )
    for beta in tqdm(config.betas, disable=not progress, unit="beta"):
        policy = copy.deepcopy(model)
        settings = dataclasses.replace(config.dpo, beta=beta)
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
    """KL and mean gold reward of the optimal policies, model * exp(reward / beta), for many beta.

    gold: gold rewards of the model's reviews; expectations are importance-weighted means over them.
    The judge's reward is gold / temperature. A beta is left out if the effective sample size of the
    weights (the inverse of the sum of their squares) is below `fewest`.
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


def _overtrain(result: Result, scales: TuningCosts, c: Config, pairs: Pairs, fresh: Pairs) -> None:
    policy = copy.deepcopy(scales.model)
    curve: dict[str, list[float]] = {}

    def watch(record: DPORecord) -> None:
        row = {
            **scales.own_figures(policy, c.curve_texts),
            **pair_figures(record),
            "fresh_accuracy": accuracy(policy, scales.model, fresh),
        }
        for name, value in row.items():
            curve.setdefault(name, []).append(value)

    train_dpo(
        policy, scales.model, pairs, c.overtrained_dpo, generator=scales.generator, watch=watch
    )
    result.overtraining = curve
    result.overtrained = scales.figures(policy)


def pair_figures(record: DPORecord) -> dict[str, float]:
    """The figures of a record, by their names in `Result`."""
    return {
        "chosen": record.chosen_change,
        "rejected": record.rejected_change,
        "margin": record.margin,
        "accuracy": record.accuracy,
    }


@torch.no_grad()
def accuracy(policy: LanguageModel, reference: LanguageModel, pairs: Pairs) -> float:
    """`pairwise_accuracy` of the implied reward on the first 200 pairs."""
    chosen, rejected = (
        text_log_probs(policy, side[:200]) - text_log_probs(reference, side[:200])
        for side in (pairs.chosen, pairs.rejected)
    )
    return pairwise_accuracy(chosen, rejected)
