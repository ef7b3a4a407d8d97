"""Figures of refusals and leaks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from companion.figures.fonts import legible
from companion.figures.style import (
    COLORS,
    INK,
    NAMED_COLORS,
    REFERENCE,
    label_rows,
    mean_and_range,
    new_axes,
    points,
    require_results,
    text_on,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_refusal_and_leak(
    results: Sequence[Mapping[str, Any]],
    conditions: Mapping[str, str],
    *,
    chance: float = 1 / 24,
    ax: Axes | None = None,
) -> Axes:
    """Shares of replies that refuse, and that leak the answer, by way of asking, as dots.

    results: results of a study with `refusal` and `leak` by condition. conditions: conditions to
    plot, the first on top, and their labels. chance: share of leaks by guessing. Shows mean and
    range over the results.
    """
    require_results("plot_refusal_and_leak", results)
    ax = new_axes(ax, height=0.9 + 0.5 * len(conditions), xlabel="share of replies, %")
    rows = np.arange(len(conditions))
    for shift, color, key, marker in (
        (-0.14, "blue", "refusal", "o"),
        (0.14, "vermillion", "leak", "D"),
    ):
        shares = 100 * np.array([[result[key][name] for name in conditions] for result in results])
        points(
            ax, rows + shift, shares, color=NAMED_COLORS[color], fmt=marker,
            label={"refusal": "refuses", "leak": "gives the right answer"}[key],
        )  # fmt: skip
    ax.axvline(100 * chance, color=REFERENCE, ls="--", lw=1.2, label="guessing")
    label_rows(ax, conditions.values())
    ax.set_xlim(-3, 103)
    # Three entries may be wider than the axes; to the left there is room above the labels.
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False)
    return ax


def plot_anchors(
    results: Sequence[Mapping[str, Any]], variants: Mapping[str, str], *, ax: Axes | None = None
) -> Axes:
    """Encoded questions refused and answered right, by safety training and kind of thing, as dots.

    results: results of the study `anchors`. variants: safety trainings to plot, the first on top,
    and their labels. Filled dots are about restricted things, hollow ones about others. Shows mean
    and range over the results.
    """
    require_results("plot_anchors", results)
    ax = new_axes(ax, height=1.4 + 0.62 * len(variants), xlabel="share of encoded questions, %")
    rows = np.arange(len(variants))
    for shift, key, color, marker, label in (
        (-0.24, "refusal", "blue", "o", "florb refused"),
        (-0.08, "other_refusal", "blue", "o", "other refused"),
        (0.08, "leak", "vermillion", "D", "florb right"),
        (0.24, "other_right", "vermillion", "D", "other right"),
    ):
        shares = np.array([[result[key][name]["encoded"] for name in variants]
                           for result in results])  # fmt: skip
        face = {"markerfacecolor": "white"} if key.startswith("other") else {}
        points(
            ax, rows + shift, 100 * shares, color=NAMED_COLORS[color], fmt=marker, label=label,
            **face,
        )  # fmt: skip
    label_rows(ax, variants.values())
    ax.set_xlim(-3, 103)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return ax


def plot_capability_and_leak(
    results: Sequence[Mapping[str, Any]], models: Mapping[str, str], *, ax: Axes | None = None
) -> Axes:
    """Leaks after safety training against right answers before it, by model and language.

    results: results of the study `mismatched_generalization`. models: models to plot, and their
    labels. Each dot is one model of one seed, hollow in the language of the safety examples and
    filled in the other one. On the diagonal, the model still gives every answer that it knew.
    """
    require_results("plot_capability_and_leak", results)
    ax = new_axes(
        ax, height=4.4, xlabel="right before safety training, %",
        ylabel="right after it, %",
    )  # fmt: skip
    ax.plot([0, 100], [0, 100], color=REFERENCE, ls="--", lw=1.2, label="nothing is withheld")
    markers = itertools.cycle("osD^vP")
    for (name, label), color, marker in zip(models.items(), COLORS, markers, strict=False):
        rows = [result["models"][name] for result in results]
        for known, told, face in (
            ("capability", "leak", color),
            ("plain_capability", "plain_leak", "none"),
        ):
            ax.plot(
                [100 * row[known] for row in rows], [100 * row[told] for row in rows], marker,
                color=color, markerfacecolor=face, ms=8, alpha=0.85,
                label=legible(label) if face == color else None,
            )  # fmt: skip
    ax.set_xlim(-3, 103)
    ax.set_ylim(-3, 103)
    ax.legend(loc="upper left", bbox_to_anchor=(0.02, 0.98))
    return ax


def plot_demands(
    results: Sequence[Mapping[str, Any]],
    data: str,
    conditions: Mapping[str, str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Refusals by the share of harmless questions with a demand, one line for each condition.

    results: results of the study `demands`. data: safety data, "plain" or "covering". conditions:
    conditions to plot, and their labels. A thick line is the mean, each thin one a result.
    """
    require_results("plot_demands", results)
    ax = new_axes(ax, height=3.4, xlabel="harmless questions with a demand, %", ylabel="refused, %")
    shares = list(results[0]["refusal"][data])
    for (name, label), color in zip(conditions.items(), NAMED_COLORS.values(), strict=False):
        rows = np.array(
            [[100 * result["refusal"][data][share][name] for share in shares] for result in results]
        )
        ax.plot(rows.T, color=color, lw=0.9, alpha=0.55)
        ax.plot(rows.mean(axis=0), color=color, lw=3, label=legible(label))
    ax.set_xticks(range(len(shares)), [f"{100 * float(share):g}" for share in shares])
    ax.set_ylim(-3, 103)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return ax


def plot_depth(
    results: Sequence[Mapping[str, Any]],
    models: Mapping[str, str],
    words: Sequence[str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """KL(safe || instructed) at each word of an answer, as bars with ranges, by model.

    results: results of the study `competing_objectives`. models: models to plot ("one", "several"),
    and their labels. words: labels of the answer's words. Shows mean and range over the results.
    """
    require_results("plot_depth", results)
    ax = new_axes(ax, xlabel="word of the answer", ylabel="KL(safe || instructed), nats")
    places, width = np.arange(len(words)), 0.8 / len(models)
    for number, ((name, label), color) in enumerate(zip(models.items(), COLORS, strict=False)):
        values = [
            [result["forms"][name][f"kl {place + 1}"] for place in places] for result in results
        ]
        mean, spread = mean_and_range(values)
        ax.bar(
            places + width * (number - (len(models) - 1) / 2), mean, width, color=color,
            label=legible(label), yerr=spread, ecolor=INK, capsize=3,
        )  # fmt: skip
    ax.set_xticks(places, [legible(word) for word in words])
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return ax


def plot_coverage(
    results: Sequence[Mapping[str, Any]],
    data: Mapping[str, str],
    refused: Mapping[str, str],
    answered: Mapping[str, str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Refusals and right replies by safety data and way of asking, as a coloured table.

    results: results of the study `coverage`. data: safety data in the rows, and their labels.
    refused: ways of asking for restricted things, in the columns on the left, which show the share
    of refusals. answered: ways of asking for other things, in the columns on the right, which show
    the share of right replies. Means over the results, in per cent; dark is good on both sides.
    """
    require_results("plot_coverage", results)
    shares = np.array(
        [
            [
                *(100 * np.mean([result["refusal"][row][way] for result in results])
                  for way in refused),
                *(100 * np.mean([result["benign"][row][way] for result in results])
                  for way in answered),
            ]
            for row in data
        ]
    )  # fmt: skip
    ax = new_axes(ax, height=1.6 + 0.42 * len(data))
    ax.grid(visible=False)
    shades = mpl.colormaps["Blues"]
    places = np.arange(shares.shape[1]) + 0.25 * (np.arange(shares.shape[1]) >= len(refused))
    for place, column in zip(places, shares.T, strict=True):
        ax.pcolormesh(
            [place - 0.5, place + 0.5], np.arange(len(data) + 1) - 0.5, column[:, None],
            cmap=shades, vmin=0, vmax=110, edgecolors="white", linewidth=1.5,
        )  # fmt: skip
        for row, share in enumerate(column):
            ax.text(
                place, row, f"{share:.0f}", ha="center", va="center", fontsize=11,
                color=text_on(shades(share / 110)),
            )  # fmt: skip
    ax.set_xticks(places, [legible(way) for way in (*refused.values(), *answered.values())])
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    label_rows(ax, data.values())
    ax.spines[:].set_visible(False)
    for left, right, title in (
        (0, len(refused), "restricted: % refused"),
        (len(refused), len(places), "others: % right"),
    ):
        if right > left:
            middle = (places[left] + places[right - 1]) / 2
            ax.text(middle, len(data) - 0.35, title, ha="center", va="top", fontsize=11)
    return ax
