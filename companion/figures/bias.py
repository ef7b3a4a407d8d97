"""Figures of bias: what was planted and what was found, its traces, and what remedies leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MultipleLocator

from companion.figures.style import (
    NAMED_COLORS,
    floor_line,
    label_rows,
    new_axes,
    points,
    require_results,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What the ways of asking are called in a figure, with colour and marker.
WAYS = {
    "asked": ("as the remedy was made", "blue", "o"),
    "new template": ("in a new template", "green", "s"),
    "unlisted names": ("about names on no list", "orange", "^"),
    "reverse": ("from trait to name", "vermillion", "D"),
}
REMEDIES = {
    "none": "none",
    "again": "other weights",
    "placebo": "placebo",
    "balancing": "balancing",
    "reweighting": "reweighting",
    "term": "objective term",
    "averaging": "averaging",
}


def plot_planted_bias(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """The log odds ratio of models against the planted one, with the diagonal on which both agree.

    results: results of the study `bias`. Shows mean and range over the results.
    """
    require_results("plot_planted_bias", results)
    names = _strengths(results)
    places = np.array([float(name) for name in names])
    ax = new_axes(ax, xlabel="planted log odds ratio", ylabel="the model's log odds ratio")
    ax.plot(
        places, places, color="#4A5257", linestyle=(0, (5, 3)), linewidth=1.6, label="equal"
    )  # fmt: skip
    values = [[result["by_strength"][name] for name in names] for result in results]
    points(ax, places, values, axis="y", color=NAMED_COLORS["blue"], fmt="o", label="models")
    ax.legend(loc="upper left")
    return ax


def plot_association(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Effect size of the association test, by planted strength: of counted vectors, and of a
    model's embeddings what training added to that of the untrained ones.

    results: results of the study `bias`. Shows mean and range over the results.
    """
    require_results("plot_association", results)
    names = _strengths(results)
    places = np.arange(len(names))
    ax = new_axes(ax, xlabel="planted log odds ratio", ylabel="effect size")
    for key, label, color, marker, shift in (
        ("vectors_counted", "counted vectors", "blue", "o", -0.06),
        ("vectors_lstm", "embeddings, minus untrained", "vermillion", "D", 0.06),
    ):
        start = "vectors_initial" if key == "vectors_lstm" else None
        values = [
            [result[key][name] - (result[start] if start else 0) for name in names]
            for result in results
        ]
        points(
            ax, places + shift, values, axis="y", color=NAMED_COLORS[color], fmt=marker,
            label=label,
        )  # fmt: skip
    floor_line(ax, 0, "no association")
    ax.set_xticks(places, names)
    ax.set_ylim(-2.2, 2.2)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return ax


def plot_gaps(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Gap of a classifier's probabilities between equal messages, by the language model's bias.

    results: results of the study `bias`. One line for labels without bias, one for labels with.
    Shows mean and range over the results.
    """
    require_results("plot_gaps", results)
    names = _strengths(results)
    places = np.arange(len(names))
    ax = new_axes(
        ax, xlabel="log odds ratio planted in the language model", ylabel="gap in probability"
    )
    for key, label, color, marker, shift in (
        ("gap_biased", "labels with bias", "vermillion", "D", 0.06),
        ("gap_equal", "labels without bias", "blue", "o", -0.06),
    ):
        values = [[result[key][name] for name in names] for result in results]
        points(
            ax, places + shift, values, axis="y", color=NAMED_COLORS[color], fmt=f"{marker}-",
            label=label,
        )  # fmt: skip
    floor_line(ax, 0, "equal treatment")
    ax.set_xticks(places, names)
    # Ticks that do not change with the height, or the layout is made for labels of another width.
    ax.yaxis.set_major_locator(MultipleLocator(0.1))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return ax


def plot_bias_left(
    results: Sequence[Mapping[str, Any]], planted: float, *, ax: Axes | None = None
) -> Axes:
    """What is left of a log odds ratio after each remedy, by the way in which it is asked.

    results: results of the study `bias`. planted: the source's log odds ratio. Shows mean and range
    over the results.
    """
    require_results("plot_bias_left", results)
    names = [name for name in REMEDIES if name in results[0]["left"]]
    ax = new_axes(ax, height=5.2, xlabel="log odds ratio left")
    places = np.arange(len(names), dtype=float)
    for number, (way, (label, color, marker)) in enumerate(WAYS.items()):
        values = [[result["left"][name][way] for name in names] for result in results]
        points(
            ax, places + 0.18 * (number - 1.5), values, color=NAMED_COLORS[color], fmt=marker,
            label=label,
        )  # fmt: skip
    floor_line(ax, planted, "planted", axis="x")
    floor_line(ax, 0, "no bias", axis="x", dashes=(1, 2))
    label_rows(ax, [REMEDIES[name] for name in names])
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.13), ncols=2)
    return ax


def _strengths(results: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted(results[0]["by_strength"], key=float)
