"""Figures of models that are right in training for another reason than ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from companion.figures.fonts import legible
from companion.figures.style import NAMED_COLORS, REFERENCE, floor_line, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_shortcut(
    results: Sequence[Mapping[str, Any]],
    methods: Mapping[str, str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy in distribution, in the worst group and with the cue turned around, as dots.

    results: of the study `shortcut`. methods: the ways of training that are drawn, the first on
    top, and what the reader sees each called. Mean, and range, of the results.
    """
    if not results:
        raise ValueError("plot_shortcut needs one result or more, got none")
    ax = new_axes(ax, height=0.9 + 0.5 * len(methods), xlabel="accuracy, %")
    rows = np.arange(len(methods))
    for shift, color, key, marker, label in (
        (-0.18, "green", "in_distribution", "o", "as in training"),
        (0.0, "blue", "worst_group", "s", "worst group"),
        (0.18, "vermillion", "flipped", "D", "cue flipped"),
    ):
        shares = 100 * np.array([[result[key][name] for name in methods] for result in results])
        mean = shares.mean(axis=0)
        spread = np.abs(np.stack([shares.min(axis=0), shares.max(axis=0)]) - mean)
        ax.errorbar(
            mean, rows + shift, xerr=spread, color=NAMED_COLORS[color], fmt=marker, capsize=3,
            label=label,
        )  # fmt: skip
    ax.axvline(50, color=REFERENCE, ls="--", lw=1.2, label="guessing")
    ax.set_yticks(rows, [legible(words) for words in methods.values()])
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.set_xlim(right=101.5)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def plot_composition(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """What was read right of each type and of their composition, by model, as dots.

    results: of the study `length_generalization`. Mean, and range, of the results.
    """
    if not results:
        raise ValueError("plot_composition needs one result or more, got none")
    kinds = {
        "below_thousand": "below 1,000",
        "thousands": "whole thousands",
        "composed": "compositions",
        "composed_after_examples": "compositions, after\nexamples of such",
    }
    ax = new_axes(ax, height=3.2, xlabel="numbers read without a mistake, %")
    rows = np.arange(len(kinds))
    readers = list(results[0]["composed"])
    for place, (reader, color, marker) in enumerate(
        zip(readers, ("blue", "vermillion"), ("o", "D"), strict=False)
    ):
        shares = 100 * np.array([[result[kind][reader] for kind in kinds] for result in results])
        mean = shares.mean(axis=0)
        spread = np.abs(np.stack([shares.min(axis=0), shares.max(axis=0)]) - mean)
        ax.errorbar(
            mean, rows + 0.24 * (place - (len(readers) - 1) / 2), xerr=spread,
            color=NAMED_COLORS[color], fmt=marker, capsize=3, label=legible(reader),
        )  # fmt: skip
    ax.set_yticks(rows, list(kinds.values()))
    ax.set_ylim(len(kinds) - 0.5, -0.5)
    ax.set_xlim(-3, 103)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def plot_goals(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """What walks return for the coin and for the corner where it was, by what training showed.

    results: of the study `goal_misgeneralization`; the coin is moved. Mean, and range, of the
    results.
    """
    if not results:
        raise ValueError("plot_goals needs one result or more, got none")
    ax = new_axes(
        ax, xlabel="training games with the coin moved, %", ylabel="return, % of the best possible"
    )
    shares = list(results[0]["coin_moved"])
    places = np.arange(len(shares))
    for shift, key, color, marker, label in (
        (-0.06, "corner_moved", "vermillion", "D", "for the corner where it was"),
        (0.06, "coin_moved", "blue", "o", "for the moved coin"),
    ):
        values = 100 * np.array([[result[key][share] for share in shares] for result in results])
        mean = values.mean(axis=0)
        spread = np.abs(np.stack([values.min(axis=0), values.max(axis=0)]) - mean)
        ax.errorbar(
            places + shift, mean, yerr=spread, color=NAMED_COLORS[color], fmt=marker, capsize=3,
            label=label,
        )  # fmt: skip
    floor_line(ax, 100, "the best possible")
    ax.set_xticks(places, [f"{100 * float(share):g}" for share in shares])
    ax.set_xlim(-0.5, len(shares) - 0.5)
    ax.set_ylim(0, 108)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax
