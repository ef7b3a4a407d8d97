"""What becomes of what people want when a model is pressed to score well on a proxy of it?

An LSTM learns the review grammar. A judge compares pairs of its reviews, with errors, by the gold
reward of `companion.preferences.gold_reward`; proxy rewards are fitted to the labels. Then each
proxy is optimised, by best-of-n and by policy gradient, and the gold reward, which the optimisation
does not use, is measured against the distance from the initial model, the square root of a KL
divergence (Gao, Schulman & Hilton 2022).

A proxy can miss the gold reward by noise in its labels, and because it cannot express it. Two kinds
of proxies have one error each: bags of words fitted to labels without errors, and sums of the gold
reward's own terms fitted to labels with errors.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from companion.core.seeds import make_generator
from companion.core.settings import settings_class
from companion.evaluation.texts import log_probs_and_kl
from companion.generation.texts import write_texts
from companion.models.base import LanguageModel
from companion.preferences.best_of_n import best_of_n_kl, best_of_n_values, fit_gold_curves
from companion.preferences.comparisons import Pairs, noisy_pairs, pairwise_accuracy
from companion.preferences.gold_reward import quality_parts, review_quality
from companion.preferences.judged_reviews import JudgedReviewsConfig
from companion.preferences.policy_gradient import PolicyGradientConfig, train_policy
from companion.preferences.reward_models import (
    Reward,
    fit_bag_of_words,
    fit_gold_form,
    fit_lstm_reward,
)
from companion.sources.reviews import GrammarSource
from companion.text.rows import word_counts
from companion.training.config import TrainConfig

if TYPE_CHECKING:
    from jaxtyping import Float64, Int


@settings_class
class Config(JudgedReviewsConfig):
    """Settings of the model, the judge, the proxies and their optimisation."""

    training: TrainConfig = TrainConfig(steps=1000, learning_rate=1.6e-2)
    judged_texts: int = 4000
    test_texts: int = 8000
    """Number of further reviews of the model, from which best-of-n chooses."""
    label_counts: tuple[int, ...] = (50, 200, 1000, 5000)
    """Numbers of labelled pairs to which proxies are fitted."""
    num_proxies: int = 5
    """Number of proxies of each kind but the LSTMs, each with pairs of its own."""
    lstm_sizes: tuple[int, ...] = (16, 64)
    """Hidden sizes of LSTM proxies, one of each, on the largest number of pairs."""
    lstm_epochs: int = 2
    """Epochs of their training."""
    ns: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    """Values of n of best-of-n."""
    betas: tuple[float, ...] = (0.0, 0.3, 1.0)
    """Weights of the KL penalty of the policy gradient, on the first proxy with the most labels."""
    other_betas: tuple[float, ...] = (0.0,)
    """The same, on the first proxy of each other kind with the most labels."""
    policy: PolicyGradientConfig = PolicyGradientConfig(
        kl_budget=30.0, max_steps=60, batch_size=64, num_tokens=320, learning_rate=4e-3
    )
    """Settings of the policy gradient; `beta` is replaced by each of `betas` and `other_betas`."""
    end_texts: int = 400
    """Number of reviews by which each trained policy is measured at the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.label_counts or not self.betas:
            raise ValueError("label_counts and betas need one value or more each")
        if len(self.ns) < 4 or self.policy.max_steps < 3:
            raise ValueError(
                "a curve is fitted to three points or more: ns needs four values and "
                f"policy.max_steps must be >= 3, got {self.ns} and {self.policy.max_steps}"
            )
        if not 1 <= min(self.ns) <= max(self.ns) <= self.test_texts:
            raise ValueError(
                f"ns must lie between 1 and test_texts = {self.test_texts}, got {self.ns}"
            )


@dataclass(kw_only=True)
class Result:
    """The study's figures. A gold gain is the mean gold reward above that of the initial model.

    Proxies are called by their kind and the number of pairs they are fitted to: "words 50" (bags of
    words), "form 50" (the gold reward's own terms), "words 5000 noiseless" (the same pairs as
    "words 5000", labelled without errors), and "lstm 32" by the LSTM's size. Policies are called by
    their beta, "0.3", if the proxy is the first bag of words with the most pairs, and else by proxy
    and beta, "lstm 32 0.3".
    """

    start_gold: float
    """Mean gold reward of the initial model's reviews."""
    start_gold_spread: float
    """Standard deviation of the gold reward over the initial model's reviews."""
    label_accuracy: float
    """Expected share of the judge's labels that agree with the gold reward."""
    ns: list[int]
    """Values of n of best-of-n."""
    bon_kl: list[float]
    """KL of best-of-n for each n, in nats per review."""
    bon_ceiling: list[float]
    """Gold gain for each n when best-of-n chooses by the gold reward itself."""
    proxy_accuracy: dict[str, list[float]] = field(default_factory=dict)
    """Share of fresh pairs that each proxy ranks as the gold reward does."""
    bon_gold: dict[str, list[list[float]]] = field(default_factory=dict)
    """Gold gain for each n when best-of-n chooses by each proxy."""
    bon_proxy: dict[str, list[list[float]]] = field(default_factory=dict)
    """Proxy gain for each n when best-of-n chooses by each proxy, in standard deviations of the
    proxy over the initial model's reviews."""
    bon_peak_gain: float = 0.0
    """Largest gold gain over n; mean over the bag-of-words proxies with the most pairs."""
    bon_drop: float = 0.0
    """Largest gold gain minus the gain at the largest n; mean over the same proxies."""
    peak_gain_by_proxy: dict[str, float] = field(default_factory=dict)
    """Largest gold gain over n, by kind of proxy."""
    drop_by_proxy: dict[str, float] = field(default_factory=dict)
    """Largest gold gain minus the gain at the largest n, by kind of proxy."""
    peaks_inside: dict[str, float] = field(default_factory=dict)
    """Share of proxies whose gold gain peaks between the smallest and the largest n, by kind."""
    policy_curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Means over the reviews of each step, by policy: "kl" in nats per review, "gold" and "proxy"
    gains (the proxy's not scaled), "words" per review, and "cut_off", the share of reviews that
    `policy.num_tokens` ends."""
    policy_end: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same figures for each final policy, from fresh reviews, with "ungrammatical",
    "repetition" and "opinion"."""
    rl_peak_gain: float = 0.0
    """Largest gold gain during training, averaged over five steps, at the lowest beta."""
    rl_drop: float = 0.0
    """Largest gold gain during training minus the gain at the end, at the lowest beta."""
    peak_gain_by_policy: dict[str, float] = field(default_factory=dict)
    """Largest gold gain during training, averaged over five steps, by policy."""
    drop_by_policy: dict[str, float] = field(default_factory=dict)
    """Largest gold gain during training minus the gain at the end, by policy."""
    fits: dict[str, dict[str, float]] = field(default_factory=dict)
    """Fits of Gao's two curves to "best of n" (mean over the proxies with the most pairs) and to
    "policy" (the lowest beta): "square alpha", "square beta", "square r2"; the same with "log"."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """Example reviews: "start", "best of 512" and so on, and those of each final policy,
    "policy 0.3"."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train a model, label pairs, fit proxies, optimise them, and measure the gold reward."""
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
    generator = make_generator(seed, "reviews, labels and policies")
    judged = write_texts(model, config.judged_texts, config.num_tokens, generator=generator)
    tested = write_texts(model, config.test_texts, config.num_tokens, generator=generator)
    gold = review_quality(tested, source)
    judged_gold = review_quality(judged, source)
    result = Result(
        start_gold=float(gold.mean()),
        start_gold_spread=float(gold.std()),
        label_accuracy=_label_accuracy(judged_gold, config.judge_temperature),
        ns=list(config.ns),
        bon_kl=[best_of_n_kl(n) for n in config.ns],
        bon_ceiling=(best_of_n_values(gold, gold, config.ns) - float(gold.mean())).tolist(),
    )
    most = max(config.label_counts)
    first: dict[str, Reward] = {}  # of each kind with the most pairs
    for count in config.label_counts:
        for number in range(config.num_proxies):
            noisy, certain = _labelled(judged, judged_gold, count, config, generator)
            fitted: dict[str, Reward] = {
                f"words {count}": fit_bag_of_words(noisy, source.vocabulary_size),
                f"form {count}": fit_gold_form(noisy, source),
            }
            if count == most:
                fitted[f"words {count} noiseless"] = fit_bag_of_words(
                    certain, source.vocabulary_size
                )
            if count == most and number == 0:
                for size in config.lstm_sizes:
                    fitted[f"lstm {size}"] = fit_lstm_reward(
                        noisy, source.vocabulary_size, seed=seed, epochs=config.lstm_epochs,
                        hidden_size=size,
                    )  # fmt: skip
                first = fitted
            for name, proxy in fitted.items():
                _press_by_choice(result, name, proxy, tested, gold)
    _choose_texts(result, first[f"words {most}"], tested, source, max(config.ns))
    _summarise_choice(result, f"words {most}")
    for name, proxy in first.items():
        main = name == f"words {most}"
        for beta in config.betas if main else config.other_betas:
            policy = f"{beta:g}" if main else f"{name} {beta:g}"
            _press_by_gradient(
                result, policy, beta, model, proxy, source, config, generator, progress
            )
    lowest = f"{min(config.betas):g}"
    result.rl_peak_gain = result.peak_gain_by_policy[lowest]
    result.rl_drop = result.drop_by_policy[lowest]
    curve = result.policy_curves[lowest]
    _fit(result, "policy", curve["kl"][1:], curve["gold"][1:])
    return result


def _labelled(
    texts: Int[torch.Tensor, "texts time"],
    gold: Float64[torch.Tensor, " texts"],
    count: int,
    config: Config,
    generator: torch.Generator,
) -> tuple[Pairs, Pairs]:
    """Random pairs as the judge labels them, and the same pairs labelled without errors."""
    again = torch.Generator()
    again.set_state(generator.get_state())
    noisy = noisy_pairs(
        texts, gold, count, temperature=config.judge_temperature, generator=generator
    )
    return noisy, noisy_pairs(texts, gold, count, temperature=0, generator=again)


def _label_accuracy(gold: Float64[torch.Tensor, " texts"], temperature: float) -> float:
    """Expected share of right labels over all pairs of texts that differ in gold."""
    sample = gold[:500]
    difference = (sample[:, None] - sample[None, :]).abs()
    difference = difference[difference > 0]
    return float(torch.sigmoid(difference / temperature).mean()) if temperature > 0 else 1.0


def _press_by_choice(
    result: Result,
    name: str,
    proxy: Reward,
    texts: Int[torch.Tensor, "texts time"],
    gold: Float64[torch.Tensor, " texts"],
) -> None:
    """Fill in the figures of best-of-n by `proxy`, and the proxy's accuracy."""
    with torch.no_grad():
        rewards = proxy(texts).double()
    half = len(texts) // 2  # texts are independent, so the two halves form fresh pairs
    sign = (gold[:half] - gold[half : 2 * half]).sign()
    accuracy = pairwise_accuracy(rewards[:half] * sign, rewards[half : 2 * half] * sign)
    result.proxy_accuracy.setdefault(name, []).append(accuracy)
    for gains, values in (
        (result.bon_gold, gold),
        (result.bon_proxy, rewards / rewards.std()),
    ):
        found = best_of_n_values(rewards, values, result.ns) - float(values.mean())
        gains.setdefault(name, []).append(found.tolist())


def _summarise_choice(result: Result, most: str) -> None:
    for name, curves in result.bon_gold.items():
        gains = np.array(curves)
        peaks = gains.max(axis=1)
        result.peak_gain_by_proxy[name] = float(peaks.mean())
        result.drop_by_proxy[name] = float((peaks - gains[:, -1]).mean())
        where = gains.argmax(axis=1)
        inside = (where > 0) & (where < gains.shape[1] - 1)
        result.peaks_inside[name] = float(inside.mean())
    result.bon_peak_gain = result.peak_gain_by_proxy[most]
    result.bon_drop = result.drop_by_proxy[most]
    mean = np.array(result.bon_gold[most]).mean(axis=0)
    _fit(result, "best of n", result.bon_kl[1:], mean[1:].tolist())


def _fit(result: Result, name: str, kl: Sequence[float], gain: Sequence[float]) -> None:
    distance = [math.sqrt(max(0.0, nats)) for nats in kl]
    result.fits[name] = {
        f"{form} {key}": value
        for form, fit in fit_gold_curves(distance, gain).items()
        for key, value in (("alpha", fit.alpha), ("beta", fit.beta), ("r2", fit.r_squared))
    }


def _choose_texts(
    result: Result,
    proxy: Reward,
    texts: Int[torch.Tensor, "texts time"],
    source: GrammarSource,
    n: int,
) -> None:
    """Keep three reviews of the model as examples, and three that are each the best of n others."""
    result.texts["start"] = _written(texts[:3], source)
    pools = torch.split(texts[: 3 * min(n, len(texts) // 3)], min(n, len(texts) // 3))
    best = torch.stack([pool[proxy(pool).argmax()] for pool in pools])
    result.texts[f"best of {n}"] = _written(best, source)


def _written(texts: Int[torch.Tensor, "texts time"], source: GrammarSource) -> list[str]:
    counts = word_counts(texts).tolist()
    return [source.decode(row[:count]) for row, count in zip(texts, counts, strict=True)]


def _press_by_gradient(
    result: Result,
    name: str,
    beta: float,
    model: LanguageModel,
    proxy: Reward,
    source: GrammarSource,
    config: Config,
    generator: torch.Generator,
    progress: bool,
) -> None:
    """Fill in the curve and the final figures of a policy gradient on `proxy`."""

    def gold(texts: torch.Tensor) -> torch.Tensor:
        return review_quality(texts, source)

    policy = copy.deepcopy(model)
    records = train_policy(
        policy,
        model,
        proxy,
        dataclasses.replace(config.policy, beta=beta),
        generator=generator,
        measures={"gold": gold},
        progress=progress,
    )
    start_proxy = records[0]["reward"]
    curve = {
        "kl": [record["kl"] for record in records],
        "gold": [record["gold"] - result.start_gold for record in records],
        "proxy": [record["reward"] - start_proxy for record in records],
        "words": [record["words"] for record in records],
        "cut_off": [record["cut_off"] for record in records],
    }
    result.policy_curves[name] = curve
    num_tokens = config.policy.num_tokens
    texts = write_texts(policy, config.end_texts, num_tokens, generator=generator)
    parts = quality_parts(texts, source)
    with torch.no_grad():
        kl, rewards = log_probs_and_kl(policy, model, texts).kl, proxy(texts)
    end = {
        "kl": float(kl.mean()),
        "gold": float(gold(texts).mean()) - result.start_gold,
        "proxy": float(rewards.mean()) - start_proxy,
        "cut_off": float((parts.words == num_tokens).double().mean()),
        **{key: float(part.double().mean()) for key, part in parts._asdict().items()},
    }
    result.policy_end[name] = end
    window = min(5, len(records))
    smooth = np.convolve(curve["gold"], np.full(window, 1 / window), mode="valid")
    result.peak_gain_by_policy[name] = float(smooth.max())
    result.drop_by_policy[name] = float(smooth.max()) - end["gold"]
    result.texts[f"policy {name}"] = _written(texts[:3], source)
