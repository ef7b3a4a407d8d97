"""Figures of what models refuse and what they leak."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from companion.figures.fonts import legible
from companion.figures.style import COLORS, INK, NAMED_COLORS, REFERENCE, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_refusal_and_leak(
    results: Sequence[Mapping[str, Any]],
    conditions: Mapping[str, str],
    *,
    chance: float = 1 / 24,
    ax: Axes | None = None,
) -> Axes:
    """Shares of replies that refuse, and that leak the answer, by way of asking; as dots.

    results: of a study with `refusal` and `leak` by condition. conditions: those drawn, the first
    on top, and what the reader sees each called. chance: the leak of a model that guesses. Mean,
    and range, of the results.
    """
    if not results:
        raise ValueError("plot_refusal_and_leak needs one result or more, got none")
    ax = new_axes(ax, height=0.9 + 0.5 * len(conditions), xlabel="share of replies, %")
    rows = np.arange(len(conditions))
    for shift, color, key, marker in (
        (-0.14, "blue", "refusal", "o"),
        (0.14, "vermillion", "leak", "D"),
    ):
        shares = 100 * np.array([[result[key][name] for name in conditions] for result in results])
        mean = shares.mean(axis=0)
        spread = np.abs(np.stack([shares.min(axis=0), shares.max(axis=0)]) - mean)
        ax.errorbar(
            mean, rows + shift, xerr=spread, color=NAMED_COLORS[color], fmt=marker, capsize=3,
            label={"refusal": "refuses", "leak": "gives the right answer"}[key],
        )  # fmt: skip
    ax.axvline(100 * chance, color=REFERENCE, ls="--", lw=1.2, label="guessing")
    ax.set_yticks(rows, [legible(words) for words in conditions.values()])
    ax.set_ylim(len(conditions) - 0.5, -0.5)
    ax.set_xlim(-3, 103)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    return ax


def plot_capability_and_leak(
    results: Sequence[Mapping[str, Any]], models: Mapping[str, str], *, ax: Axes | None = None
) -> Axes:
    """What a model leaks after safety training against what it knew before, by model and language.

    results: of the study `mismatched_generalization`. models: those drawn, by name, and what the
    reader sees each called. A dot is one model of one seed: in the language of the safety examples,
    hollow; in the other one, filled. On the diagonal, all that was known is still told.
    """
    if not results:
        raise ValueError("plot_capability_and_leak needs one result or more, got none")
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


def plot_coverage(
    results: Sequence[Mapping[str, Any]],
    data: Mapping[str, str],
    refused: Mapping[str, str],
    answered: Mapping[str, str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Which safety data make which questions come out right, as a table of shares in colour.

    results: of the study `coverage`. data: rows, by name, and what the reader sees each called.
    refused: columns on the left, ways to ask for restricted things, of which the share refused is
    shown; answered: columns on the right, ways to ask for others, of which the share of right
    replies is. Means of the results, in per cent; dark is good on both sides.
    """
    if not results:
        raise ValueError("plot_coverage needs one result or more, got none")
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
    places = np.arange(shares.shape[1]) + 0.25 * (np.arange(shares.shape[1]) >= len(refused))
    for place, column in zip(places, shares.T, strict=True):
        ax.pcolormesh(
            [place - 0.5, place + 0.5], np.arange(len(data) + 1) - 0.5, column[:, None],
            cmap="Blues", vmin=0, vmax=110, edgecolors="white", linewidth=1.5,
        )  # fmt: skip
        for row, share in enumerate(column):
            ax.text(
                place, row, f"{share:.0f}", ha="center", va="center", fontsize=11,
                color="white" if share > 75 else INK,
            )  # fmt: skip
    ax.set_xticks(places, [legible(way) for way in (*refused.values(), *answered.values())])
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.set_yticks(range(len(data)), [legible(words) for words in data.values()])
    ax.set_ylim(len(data) - 0.5, -0.5)
    ax.spines[:].set_visible(False)
    for left, right, title in (
        (0, len(refused), "restricted: % refused"),
        (len(refused), len(places), "others: % right"),
    ):
        if right > left:
            middle = (places[left] + places[right - 1]) / 2
            ax.text(middle, len(data) - 0.35, title, ha="center", va="top", fontsize=11)
    return ax
