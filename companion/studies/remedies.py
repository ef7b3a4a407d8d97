"""Which remedy fixes what, and at what cost, when each has the same labels?

An LSTM learns the review grammar. From one set of labelled pairs of its reviews, remedies that
follow labels are built: best-of-n and policy gradient by a proxy reward fitted to the pairs, with
and without a KL penalty, and DPO on the pairs themselves (Rafailov et al. 2023). Two remedies need
no labels: unlikelihood on the model's own greedy text (Welleck et al. 2020), and the grammar as a
constraint on decoding. Every remedy is judged on fresh reviews that no label and no proxy has seen.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from companion.core.seeds import make_generator
from companion.core.settings import settings_class
from companion.evaluation.calibration import exact_calibration_error
from companion.generation.constraints import TokenAutomaton
from companion.generation.decoding import generate
from companion.generation.texts import write_texts
from companion.models.base import LanguageModel
from companion.preferences.best_of_n import best_of_n_kl
from companion.preferences.comparisons import noisy_pairs
from companion.preferences.dpo import DPOConfig, train_dpo
from companion.preferences.gold_reward import quality_parts, review_quality
from companion.preferences.judged_reviews import JudgedReviewsConfig
from companion.preferences.policy_gradient import PolicyGradientConfig, train_policy
from companion.preferences.reward_models import Reward, fit_bag_of_words
from companion.preferences.tuning_costs import TuningCosts
from companion.sources.reviews import GrammarSource
from companion.text.batching import IGNORE
from companion.text.rows import END_ID, rows_by_length, text_batch, text_rows
from companion.training.unlikelihood import UnlikelihoodConfig, tune_against_repetition

if TYPE_CHECKING:
    from jaxtyping import Float64, Int


@settings_class
class Config(JudgedReviewsConfig):
    """Settings of the model, the labels, and each remedy."""

    labels: int = 1000
    """Number of labelled pairs; every remedy that needs labels uses these."""
    best_of: int = 16
    """Number of reviews of which the proxy chooses one."""
    rl_betas: tuple[float, ...] = (0.0, 1.0)
    """Weights of the KL penalty, one policy-gradient run for each."""
    rl: PolicyGradientConfig = PolicyGradientConfig(max_steps=30, batch_size=64)
    """Settings of the policy-gradient runs; its beta is replaced by `rl_betas`."""
    dpo_betas: tuple[float, ...] = (1.0, 0.1)
    """DPO betas, one run for each."""
    dpo: DPOConfig = DPOConfig()
    """Settings of the DPO runs; its beta is replaced by `dpo_betas`."""
    unlikelihood: UnlikelihoodConfig = UnlikelihoodConfig(steps=60, greedy_tokens=80)
    """Settings of the tuning against repetition."""
    test_texts: int = 400
    """Number of fresh reviews on which each remedy is judged."""
    true_texts: int = 400
    """Number of fresh true reviews for calibration and KL from the source."""
    repetition_texts: int = 48
    """Number of greedy texts, each of `unlikelihood.greedy_tokens`, on which repetition is
    measured."""


@dataclass(kw_only=True)
class Result:
    """Figures of each remedy, by its name: "nothing", "best of 16", "RL 0", "RL 1", "DPO 1",
    "DPO 0.1", "unlikelihood", "constraint"."""

    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    """"gold", "words", "ungrammatical" (share of sentences), "repetition" (seq-rep-4 of greedy
    text), "kl" (nats per review, from the model before), "source_kl" (nats per token) and "ece",
    as in `companion.preferences.tuning_costs.TuningCosts`. The KL of best-of-n is its upper bound,
    log n - (n - 1) / n (Beirami et al. 2024). Greedy text of best-of-n and of the constraint, and
    next-token distributions of best-of-n, are those of the model before."""
    proxy: dict[str, float] = field(default_factory=dict)
    """Mean proxy reward of the fresh reviews, minus that of "nothing", by remedy."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train a model, label pairs, apply each remedy, and judge all on fresh reviews."""
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
    generator = make_generator(seed, "labels and remedies")
    judged = write_texts(model, config.judged_texts, config.num_tokens, generator=generator)
    pairs = noisy_pairs(
        judged, review_quality(judged, source), config.labels,
        temperature=config.judge_temperature, generator=generator,
    )  # fmt: skip
    proxy = fit_bag_of_words(pairs, source.vocabulary_size)

    def by_policy_gradient(beta: float) -> LanguageModel:
        policy = copy.deepcopy(model)
        settings = dataclasses.replace(config.rl, beta=beta)
        train_policy(policy, model, proxy, settings, generator=generator)
        return policy

    def by_dpo(beta: float) -> LanguageModel:
        policy = copy.deepcopy(model)
        settings = dataclasses.replace(config.dpo, beta=beta)
        train_dpo(policy, model, pairs, settings, generator=generator)
        return policy

    def against_repetition() -> LanguageModel:
        policy = copy.deepcopy(model)
        tune_against_repetition(
            policy, source, "sequence", config.unlikelihood, generator=generator
        )
        return policy

    tuned: dict[str, Callable[[], LanguageModel]] = {"nothing": lambda: model}
    for beta in config.rl_betas:
        tuned[f"RL {beta:g}"] = functools.partial(by_policy_gradient, beta)
    for beta in config.dpo_betas:
        tuned[f"DPO {beta:g}"] = functools.partial(by_dpo, beta)
    tuned["unlikelihood"] = against_repetition

    costs = TuningCosts(
        model=model,
        source=source,
        generator=generator,
        own_texts=config.test_texts,
        num_tokens=config.num_tokens,
        true_texts=config.true_texts,
        greedy_texts=config.repetition_texts,
        greedy_tokens=config.unlikelihood.greedy_tokens,
    )
    result = Result()
    for name, tune in tqdm(tuned.items(), disable=not progress, unit="remedy"):
        policy = tune()
        result.figures[name] = {**costs.figures(policy), **costs.greedy_figures(policy)}
        fresh = write_texts(policy, config.test_texts, config.num_tokens, generator=generator)
        result.proxy[name] = float(proxy(fresh).mean())
    before = result.figures["nothing"]

    name = f"best of {config.best_of}"
    chosen = best_of(model, proxy, config, generator=generator)
    result.figures[name] = {
        **before, **of_reviews(chosen, source), "kl": best_of_n_kl(config.best_of)
    }  # fmt: skip
    result.proxy[name] = float(proxy(chosen).mean())

    held, changed = constrained(model, source, config, generator=generator)
    result.figures["constraint"] = {**before, **of_reviews(held, source), **changed}
    result.proxy["constraint"] = float(proxy(held).mean())
    start = result.proxy["nothing"]
    result.proxy = {name: value - start for name, value in result.proxy.items()}
    return result


def of_reviews(reviews: Int[Tensor, "texts time"], source: GrammarSource) -> dict[str, float]:
    """The figures that reviews alone determine."""
    parts = quality_parts(reviews, source)
    return {
        "gold": float(review_quality(reviews, source).mean()),
        "words": float(parts.words.double().mean()),
        "ungrammatical": float(parts.ungrammatical.mean()),
        "opinion": float(parts.opinion.mean()),
    }


def best_of(
    model: LanguageModel, proxy: Reward, config: Config, *, generator: torch.Generator
) -> Int[Tensor, "texts time"]:
    """Of each `config.best_of` fresh reviews the one with the highest proxy reward."""
    count = config.test_texts * config.best_of
    reviews = write_texts(model, count, config.num_tokens, generator=generator)
    groups = proxy(reviews).view(config.test_texts, config.best_of)
    first = torch.arange(config.test_texts) * config.best_of
    return reviews[first + groups.argmax(dim=1)]


def constrained(
    model: LanguageModel, source: GrammarSource, config: Config, *, generator: torch.Generator
) -> tuple[Int[Tensor, "texts time"], dict[str, float]]:
    """Reviews by the model under the grammar as a constraint; their "kl", and "source_kl" and "ece"
    on true reviews."""
    begin = torch.full((config.test_texts, 1), END_ID)
    held = generate(
        model, begin, config.num_tokens, generator=generator, end_id=END_ID,
        constraint=TokenAutomaton(source.transition_states),
    )  # fmt: skip
    _, _, allowed = masked(model, source, held)
    true_texts = text_rows(source.sample(config.true_texts, generator=generator))
    q, p, _ = masked(model, source, true_texts)
    return held, {
        "kl": -float(allowed.log().sum()) / len(held),
        "source_kl": float((torch.xlogy(p, p) - torch.xlogy(p, q)).sum(dim=-1).mean()),
        "ece": exact_calibration_error(q, p),
    }


def masked(
    model: LanguageModel, source: GrammarSource, reviews: Int[Tensor, "texts time"]
) -> tuple[
    Float64[Tensor, "tokens vocab"], Float64[Tensor, "tokens vocab"], Float64[Tensor, " tokens"]
]:
    """At each token of grammatical reviews: the model's distribution under the mask, the true one,
    and the probability that the mask leaves."""
    qs, ps, left = [], [], []
    for rows in rows_by_length(reviews):
        batch = text_batch(reviews[rows])
        kept = batch.targets != IGNORE
        states = source.walk(batch.targets.clamp(min=0))[kept]
        with torch.no_grad():
            q = torch.softmax(model(batch.inputs)[0][kept].double(), dim=-1)
        p, allowed = source.transition_probs[states], 1 - source.illegal_mass(q, states)
        qs.append(q * (p > 0) / allowed[:, None])
        ps.append(p)
        left.append(allowed)
    return torch.cat(qs), torch.cat(ps), torch.cat(left)
