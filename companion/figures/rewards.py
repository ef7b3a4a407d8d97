"""Figures of decoding, proxy rewards and preference tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patheffects import withStroke

from companion.figures.fonts import legible
from companion.figures.style import (
    COLORS,
    NAMED_COLORS,
    REFERENCE,
    SIZE,
    band,
    floor_line,
    label_rows,
    new_axes,
    points,
    require_results,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_decoders(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Ungrammatical reviews against moved probability, with one dot for each decoder.

    results: results of the study `degeneration`. The moved probability is the total variation
    between the true next-word distribution and the decoder's. Shows mean and range over the
    results.
    """
    require_results("plot_decoders", results)
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
        points(ax, x, wrong, axis="y", color=color, fmt="o-", lw=1.2, label=words)
        for name, at, up in zip(names, x, y, strict=True):
            ax.annotate(
                legible(name.removeprefix(prefix)), (at, up), xytext=(5, 5),
                textcoords="offset points", color=color, fontsize=12, zorder=4,
                path_effects=[withStroke(linewidth=3.5, foreground="white")],
            )  # fmt: skip
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=-0.02 * ax.get_ylim()[1])  # so that dots at zero are not cut off
    ax.legend(loc="upper right")
    return ax


def plot_best_of_n(
    results: Sequence[Mapping[str, Any]],
    proxies: Mapping[str, str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Gold gain of best-of-n against the square root of its KL.

    results: results of the study `overoptimization`. proxies: kinds of proxies to plot, and their
    labels. Solid lines: the gold gain, mean and range over proxies and results. Dotted line: the
    own gain of the first kind, scaled to the gold reward's standard deviation, so that both start
    with about the same slope. The reference is the gain when the gold reward itself chooses.
    """
    require_results("plot_best_of_n", results)
    if not proxies:
        raise ValueError("plot_best_of_n needs one kind of proxy or more, got none")
    ax = new_axes(ax, height=4.4, xlabel="√KL, KL in nats a review", ylabel="gain in reward")
    distance = np.sqrt(results[0]["bon_kl"])
    for color, (name, words) in zip(COLORS, proxies.items(), strict=False):
        gold = np.concatenate([result["bon_gold"][name] for result in results])
        band(ax, distance, gold, label=words, color=color)
    first = next(iter(proxies))
    own = np.concatenate(
        [result["start_gold_spread"] * np.asarray(result["bon_proxy"][first]) for result in results]
    )
    ax.plot(distance, own.mean(axis=0), color=COLORS[0], lw=1.4, ls=(0, (2, 2)))
    ceiling = np.mean([result["bon_ceiling"] for result in results], axis=0)
    ax.plot(distance, ceiling, color=REFERENCE, lw=1.6, ls=(0, (5, 3)), label="gold chooses")
    ax.set_ylim(-0.2, 2 * ceiling.max())  # the proxies' own gains leave the plot
    ax.legend(loc="upper left")
    return ax


def plot_policies(
    results: Sequence[Mapping[str, Any]],
    policies: Mapping[str, str],
    *,
    key: str = "gold",
    ax: Axes | None = None,
) -> Axes:
    """Gain of policies against the square root of their KL during training, a line per result.

    results: results of the study `overoptimization`. policies: those to plot, as the study names
    them, and their labels. key: "gold" or "proxy". Averaged over five steps. Dashed is what comes
    after the limit of tokens has cut off more than a tenth of the reviews.
    """
    require_results("plot_policies", results)
    ax = new_axes(ax, height=4.4, xlabel="√KL, KL in nats a review", ylabel=f"gain in {key} reward")
    for color, (name, words) in zip(COLORS, policies.items(), strict=False):
        for number, result in enumerate(results):
            curve = result["policy_curves"][name]
            window = np.full(min(5, len(curve["kl"])), 1 / min(5, len(curve["kl"])))
            distance, gain, cut_off = (
                np.convolve(curve[part], window, mode="valid") for part in ("kl", key, "cut_off")
            )
            distance = np.sqrt(distance.clip(min=0))
            bound = int(np.append(cut_off > 0.1, True).argmax())  # the first step that is limited
            ax.plot(
                distance[:bound], gain[:bound], color=color, lw=1.4,
                label=None if number else legible(words),
            )  # fmt: skip
            if bound < len(gain):
                after = slice(max(0, bound - 1), None)
                ax.plot(distance[after], gain[after], color=color, lw=1.4, ls=(0, (2, 2)))
    floor_line(ax, 0, "the model at the start")
    ax.legend(loc="best")
    return ax


def plot_preference_tuning(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Gold gain of DPO against the square root of its KL.

    results: results of the study `preference_tuning`. Dots: one run for each beta, with mean and
    range of the gain. Solid line: the overtrained run, epoch by epoch, mean over the results.
    Dotted line: the best possible policy.
    """
    require_results("plot_preference_tuning", results)
    ax = new_axes(ax, height=4.4, xlabel="√KL, KL in nats a review", ylabel="gain in gold reward")
    starts = [result["dpo"]["start"]["gold"] for result in results]
    betas = [name for name in results[0]["dpo"] if name != "start"]
    kl, gains = (
        np.array([[result["dpo"][beta][key] for beta in betas] for result in results])
        for key in ("kl", "gold")
    )
    gains = gains - np.array(starts)[:, None]
    x = np.sqrt(kl).mean(axis=0)
    blue, red = NAMED_COLORS["blue"], NAMED_COLORS["vermillion"]
    order = ", ".join(betas[place] for place in np.argsort(x))
    label = legible(f"DPO, one pass; from left, β = {order}")
    points(ax, x, gains, axis="y", color=blue, fmt="o", label=label)
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


def plot_tradeoffs(
    results: Sequence[Mapping[str, Any]], remedies: Mapping[str, str], metrics: Mapping[str, str]
) -> list[Axes]:
    """What each remedy changes, one panel for each metric, a new figure.

    results: results of the study `remedies`. remedies: remedies to plot, the first on top, and
    their labels; "nothing" is the dashed line. metrics: metrics to plot, and the panels' titles.
    Shows mean and range over the results.
    """
    require_results("plot_tradeoffs", results)
    rows = -(-len(metrics) // 2)
    height = rows * (0.9 + 0.36 * len(remedies))
    figure, grid = plt.subplots(rows, 2, figsize=(SIZE[0], height), sharey=True, squeeze=False)
    axes = list(grid.flat)
    for unused in axes[len(metrics) :]:
        figure.delaxes(unused)
    places = np.arange(len(remedies))
    for ax, (metric, title) in zip(axes, metrics.items(), strict=False):
        values = np.array([[run["figures"][who][metric] for who in remedies] for run in results])
        points(ax, places, values, color=NAMED_COLORS["blue"], fmt="o", ms=5)
        start = np.mean([run["figures"]["nothing"][metric] for run in results])
        ax.axvline(start, color=REFERENCE, ls="--", lw=1.2)
        ax.set_title(legible(title), fontsize=11)
        label_rows(ax, remedies.values())
    return axes[: len(metrics)]
