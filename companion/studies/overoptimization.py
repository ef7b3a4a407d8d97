"""What becomes of what people want when a model is pressed to score well on a proxy of it?

An LSTM learns the review grammar. A judge compares pairs of its reviews, with errors, by the gold
reward of `companion.quality`; proxies are fitted to the labels. Then optimisation presses on each
proxy, by best-of-n and by policy gradient, and the gold reward, which nothing has seen, is measured
against the distance from the model at the start, the square root of a KL divergence (Gao, Schulman
& Hilton 2022).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from companion.best_of_n import best_of_n_kl, best_of_n_values, fit_gold_curves
from companion.lstm import LSTMLanguageModel
from companion.policy_gradient import PolicyGradientConfig, score_texts, train_policy
from companion.preference import (
    Reward,
    fit_bag_of_words,
    fit_lstm_reward,
    noisy_pairs,
    pairwise_accuracy,
    write_texts,
)
from companion.quality import quality_parts, review_quality, word_counts
from companion.runtime import make_generator
from companion.source_models import train_on_texts
from companion.sources import GrammarSource

if TYPE_CHECKING:
    from jaxtyping import Float64, Int


@dataclass(frozen=True, kw_only=True)
class Config:
    """The model, the judge, the proxies and how hard they are pressed on."""

    steps: int = 1000
    """Optimizer steps of the language model, each on fresh text."""
    learning_rate: float = 1.6e-2
    """Of the language model."""
    hidden_size: int = 128
    """Of the language model."""
    num_tokens: int = 80
    """Tokens of a review at most."""
    judged_texts: int = 4000
    """The model's reviews that pairs are drawn from."""
    test_texts: int = 8000
    """Further reviews of the model, from which best-of-n chooses."""
    judge_temperature: float = 1.0
    """Of the labels: a gold difference of so much is judged rightly in 73 % of the cases."""
    label_counts: tuple[int, ...] = (50, 200, 1000, 5000)
    """Pairs from which proxies are fitted."""
    num_proxies: int = 5
    """Bag-of-words proxies for each number of pairs, each from labels of its own."""
    lstm_epochs: int = 2
    """Passes of the one LSTM proxy over as many pairs as the largest count; 0 leaves it out."""
    ns: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    """Of best-of-n."""
    betas: tuple[float, ...] = (0.0, 0.3, 1.0)
    """KL penalties of the policy gradient, on the first proxy with the most labels."""
    kl_budget: float = 100.0
    """Nats a review at which a policy gradient stops."""
    policy_steps: int = 60
    """Updates after which it stops in any case."""
    policy_learning_rate: float = 3e-3
    """Of the policy gradient."""
    policy_batch: int = 80
    """Reviews at each of them."""
    end_texts: int = 400
    """Reviews of each trained policy by which its end is measured."""

    def __post_init__(self) -> None:
        if not self.label_counts or not self.betas:
            raise ValueError("label_counts and betas need one value or more each")
        if len(self.ns) < 4 or self.policy_steps < 3:
            raise ValueError(
                "a curve is fitted to three points or more: ns needs four values and policy_steps "
                f"must be >= 3, got {self.ns} and {self.policy_steps}"
            )
        if not 1 <= min(self.ns) <= max(self.ns) <= self.test_texts:
            raise ValueError(
                f"ns must lie between 1 and test_texts = {self.test_texts}, got {self.ns}"
            )
        if self.num_proxies < 1:
            raise ValueError(f"num_proxies must be >= 1, got {self.num_proxies}")


@dataclass(kw_only=True)
class Result:
    """Gold rewards are gains over the model at the start, unless the name says otherwise.

    Proxies are called "words 50", ... by the pairs they are fitted to, and "lstm".
    """

    start_gold: float
    """Mean gold reward of the model's reviews."""
    start_gold_spread: float
    """Its standard deviation over reviews."""
    label_accuracy: float
    """The share of the judge's labels that agree with the gold reward."""
    ns: list[int]
    """Of best-of-n."""
    bon_kl: list[float]
    """Its KL for each n, nats a review."""
    bon_ceiling: list[float]
    """Gold gain of best-of-n by the gold reward itself."""
    proxy_accuracy: dict[str, list[float]] = field(default_factory=dict)
    """Share of fresh pairs that each proxy puts in the order of the gold reward."""
    bon_gold: dict[str, list[list[float]]] = field(default_factory=dict)
    """Gold gain of best-of-n by each proxy, for each n."""
    bon_proxy: dict[str, list[list[float]]] = field(default_factory=dict)
    """The proxy's own gain, in its standard deviations over the model's reviews."""
    bon_peak_gain: float = 0.0
    """Largest gold gain over n; mean over the bag-of-words proxies with the most pairs."""
    bon_drop: float = 0.0
    """That less the gain at the largest n; the same mean."""
    peak_gain_by_proxy: dict[str, float] = field(default_factory=dict)
    """The first for every kind of proxy."""
    drop_by_proxy: dict[str, float] = field(default_factory=dict)
    """The second."""
    peaks_inside: dict[str, float] = field(default_factory=dict)
    """Share of the proxies whose gold gain is largest at neither the smallest nor the largest n."""
    policy_curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By beta: "kl" in nats a review, "gold" and "proxy" gains (the proxy's not scaled) and "words"
    at each step, means over its reviews."""
    policy_end: dict[str, dict[str, float]] = field(default_factory=dict)
    """By beta: the same of the policy at the end, from fresh reviews, with "ungrammatical",
    "repetition" and "opinion"."""
    rl_peak_gain: float = 0.0
    """Largest gold gain on the way, five steps averaged; at the lowest beta."""
    rl_drop: float = 0.0
    """That less the gain at the end; at the lowest beta."""
    peak_gain_by_beta: dict[str, float] = field(default_factory=dict)
    """The first for every beta."""
    drop_by_beta: dict[str, float] = field(default_factory=dict)
    """The second."""
    fits: dict[str, dict[str, float]] = field(default_factory=dict)
    """Gao's two forms fitted to "best of n" (mean over the proxies with the most pairs) and to
    "policy" (the lowest beta): "square alpha", "square beta", "square r2"; the same with "log"."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """Reviews of "start", "best of 512" and so on, and of each policy's end."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train a model, ask the judge, fit proxies, press on them, and look at the gold reward."""
    source = GrammarSource()
    model = train_on_texts(
        source,
        seed=seed,
        steps=config.steps,
        hidden_size=config.hidden_size,
        learning_rate=config.learning_rate,
        progress=progress,
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
    first = None
    for count in config.label_counts:
        for _ in range(config.num_proxies):
            pairs = noisy_pairs(
                judged, judged_gold, count, temperature=config.judge_temperature,
                generator=generator,
            )  # fmt: skip
            proxy = fit_bag_of_words(pairs, source.vocabulary_size)
            _press_by_choice(result, f"words {count}", proxy, tested, gold)
            if count == max(config.label_counts) and first is None:
                first = proxy
                _choose_texts(result, proxy, tested, source, max(config.ns))
                if config.lstm_epochs:
                    lstm = fit_lstm_reward(
                        pairs, source.vocabulary_size, seed=seed, epochs=config.lstm_epochs
                    )
                    _press_by_choice(result, "lstm", lstm, tested, gold)
    assert first is not None
    _summarise_choice(result, f"words {max(config.label_counts)}")
    for beta in config.betas:
        _press_by_gradient(result, beta, model, first, source, config, generator, progress)
    lowest = f"{min(config.betas):g}"
    result.rl_peak_gain = result.peak_gain_by_beta[lowest]
    result.rl_drop = result.drop_by_beta[lowest]
    curve = result.policy_curves[lowest]
    _fit(result, "policy", curve["kl"][1:], curve["gold"][1:])
    return result


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
    """Best-of-n by `proxy`, and how good a judge it is."""
    with torch.no_grad():
        rewards = proxy(texts).double()
    half = len(texts) // 2  # texts are independent: the two halves make fresh pairs
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
    """Three reviews as the model writes them, and three that are the best of n of their own."""
    result.texts["start"] = _written(texts[:3], source)
    pools = torch.split(texts[: 3 * min(n, len(texts) // 3)], min(n, len(texts) // 3))
    best = torch.stack([pool[proxy(pool).argmax()] for pool in pools])
    result.texts[f"best of {n}"] = _written(best, source)


def _written(texts: Int[torch.Tensor, "texts time"], source: GrammarSource) -> list[str]:
    counts = word_counts(texts).tolist()
    return [source.decode(row[:count]) for row, count in zip(texts, counts, strict=True)]


def _press_by_gradient(
    result: Result,
    beta: float,
    model: LSTMLanguageModel,
    proxy: Reward,
    source: GrammarSource,
    config: Config,
    generator: torch.Generator,
    progress: bool,
) -> None:
    """A policy gradient on the proxy from the model as it is; its curve and its end."""

    def gold(texts: torch.Tensor) -> torch.Tensor:
        return review_quality(texts, source)

    policy = copy.deepcopy(model)
    records = train_policy(
        policy,
        model,
        proxy,
        PolicyGradientConfig(
            beta=beta,
            kl_budget=config.kl_budget,
            max_steps=config.policy_steps,
            batch_size=config.policy_batch,
            num_tokens=config.num_tokens,
            learning_rate=config.policy_learning_rate,
        ),
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
    }
    name = f"{beta:g}"
    result.policy_curves[name] = curve
    texts = write_texts(policy, config.end_texts, config.num_tokens, generator=generator)
    parts = quality_parts(texts, source)
    with torch.no_grad():
        kl = score_texts(policy, model, texts).kl
    end = {
        "kl": float(kl.mean()),
        "gold": float(gold(texts).mean()) - result.start_gold,
        "proxy": float(proxy(texts).mean()) - start_proxy,
        **{key: float(part.double().mean()) for key, part in parts._asdict().items()},
    }
    result.policy_end[name] = end
    window = min(5, len(records))
    smooth = np.convolve(curve["gold"], np.full(window, 1 / window), mode="valid")
    result.peak_gain_by_beta[name] = float(smooth.max())
    result.drop_by_beta[name] = float(smooth.max()) - end["gold"]
    result.texts[f"policy, beta = {name}"] = _written(texts[:3], source)
