"""Figures of decoding, of proxies and of tuning by preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from companion.figures.fonts import legible
from companion.figures.style import COLORS, NAMED_COLORS, REFERENCE, band, floor_line, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_decoders(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """What decoders gain and what they give up, from results of the study `degeneration`.

    Each dot is a decoder: the share of its reviews that are ungrammatical, against the true
    probability that it moves to other next words. Mean, and range, of the results.
    """
    if not results:
        raise ValueError("plot_decoders needs one result or more, got none")
    ax = new_axes(
        ax, xlabel="true probability moved elsewhere, %", ylabel="ungrammatical reviews, %"
    )
    for color, (prefix, words) in zip(
        COLORS,
        {"T=": "temperature T", "top-k ": "top-k", "top-p ": "nucleus, top-p"}.items(),
        strict=False,
    ):
        names = [name for name in results[0]["moved_mass"] if name.startswith(prefix)]
        if not names:
            continue
        moved, wrong = (
            100 * np.array([[result[key][name] for name in names] for result in results])
            for key in ("moved_mass", "ungrammatical")
        )
        x, y = moved.mean(axis=0), wrong.mean(axis=0)
        spread = np.abs(np.stack([wrong.min(axis=0), wrong.max(axis=0)]) - y)
        ax.errorbar(x, y, yerr=spread, color=color, fmt="o-", lw=1.2, label=words, capsize=3)
        for name, at, up in zip(names, x, y, strict=True):
            ax.annotate(
                legible(name.removeprefix(prefix)), (at, up), xytext=(5, 5),
                textcoords="offset points", color=color, fontsize=10,
            )  # fmt: skip
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=-0.02 * ax.get_ylim()[1])  # dots at zero are whole
    ax.legend(loc="upper right")
    return ax


def plot_best_of_n(
    results: Sequence[Mapping[str, Any]],
    proxies: Mapping[str, str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Gold gain of best-of-n against the square root of its KL, from `overoptimization`.

    proxies: kinds of proxies drawn, and what the reader sees each called. Solid: the gold gain,
    mean and range over proxies and results. Dashed in the same colour: the proxy's own gain, in
    its standard deviations times the gold's, so that both start alike. The reference is the gain
    when the gold reward itself chooses.
    """
    if not results:
        raise ValueError("plot_best_of_n needs one result or more, got none")
    ax = new_axes(ax, height=4.4, xlabel="√KL, KL in nats a review", ylabel="gain in reward")
    distance = np.sqrt(results[0]["bon_kl"])
    for color, (name, words) in zip(COLORS, proxies.items(), strict=False):
        gold = np.concatenate([result["bon_gold"][name] for result in results])
        own = np.concatenate(
            [
                result["start_gold_spread"] * np.asarray(result["bon_proxy"][name])
                for result in results
            ]
        )
        band(ax, distance, gold, label=words, color=color)
        ax.plot(distance, own.mean(axis=0), color=color, lw=1.4, ls=(0, (2, 2)))
    ceiling = np.mean([result["bon_ceiling"] for result in results], axis=0)
    ax.plot(distance, ceiling, color=REFERENCE, lw=1.6, ls=(0, (5, 3)), label="gold chooses")
    ax.set_ylim(-0.2, 2 * ceiling.max())  # a proxy climbs far out of sight
    ax.legend(loc="upper left")
    return ax


def plot_policies(
    results: Sequence[Mapping[str, Any]],
    betas: Mapping[str, str],
    *,
    key: str = "gold",
    ax: Axes | None = None,
) -> Axes:
    """Gain of policies against the square root of their KL while they train: a line a result.

    results: of `overoptimization`. betas: those drawn, and what the reader sees each called. key:
    "gold" or "proxy". Five steps are averaged.
    """
    if not results:
        raise ValueError("plot_policies needs one result or more, got none")
    ax = new_axes(ax, height=4.4, xlabel="√KL, KL in nats a review", ylabel=f"gain in {key} reward")
    for color, (beta, words) in zip(COLORS, betas.items(), strict=False):
        for number, result in enumerate(results):
            curve = result["policy_curves"][beta]
            window = np.full(min(5, len(curve["kl"])), 1 / min(5, len(curve["kl"])))
            distance, gain = (
                np.convolve(curve[name], window, mode="valid") for name in ("kl", key)
            )
            ax.plot(
                np.sqrt(distance.clip(min=0)), gain, color=color, lw=1.4,
                label=None if number else legible(words),
            )  # fmt: skip
    floor_line(ax, 0, "the model at the start")
    ax.legend(loc="best")
    return ax


def plot_preference_tuning(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Gold gain against distance for DPO, from results of the study `preference_tuning`.

    Dots: one pass at each beta; mean, and range of the gain. Line: the run that goes on for too
    long, epoch by epoch, the mean of the results. Dotted: the best possible policy.
    """
    if not results:
        raise ValueError("plot_preference_tuning needs one result or more, got none")
    ax = new_axes(ax, height=4.4, xlabel="√KL, KL in nats a review", ylabel="gain in gold reward")
    starts = [result["dpo"]["start"]["gold"] for result in results]
    betas = [name for name in results[0]["dpo"] if name != "start"]
    kl, gains = (
        np.array([[result["dpo"][beta][key] for beta in betas] for result in results])
        for key in ("kl", "gold")
    )
    gains = gains - np.array(starts)[:, None]
    x, y = np.sqrt(kl).mean(axis=0), gains.mean(axis=0)
    spread = np.abs(np.stack([gains.min(axis=0), gains.max(axis=0)]) - y)
    blue, red = NAMED_COLORS["blue"], NAMED_COLORS["vermillion"]
    order = ", ".join(betas[place] for place in np.argsort(x))
    label = legible(f"DPO, one pass; from left, β = {order}")
    ax.errorbar(x, y, yerr=spread, color=blue, fmt="o", capsize=3, label=label)
    long_kl, long_gain = (
        np.mean([np.array(result["overtraining"][key]) for result in results], axis=0)
        for key in ("kl", "gold")
    )
    ax.plot(
        np.sqrt(long_kl.clip(min=0)), long_gain - np.mean(starts), "o-", color=red, ms=3, lw=1.2,
        label="DPO for too long, by epoch",
    )  # fmt: skip
    shared = min(len(result["ideal"]["kl"]) for result in results)
    ideal_kl, ideal_gold = (
        np.array([result["ideal"][key][:shared] for result in results]) for key in ("kl", "gold")
    )
    ideal_gain = (ideal_gold - np.array(starts)[:, None]).mean(axis=0)
    style: dict[str, Any] = {"color": REFERENCE, "linestyle": (0, (1, 1.5)), "linewidth": 2.0}
    ax.plot(np.sqrt(ideal_kl).mean(axis=0), ideal_gain, label="best possible", **style)
    floor_line(ax, 0, "the model at the start")
    ax.legend(loc="best", fontsize=10)
    return ax
