"""Figures of shortcuts, composition and goal misgeneralization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from companion.figures.fonts import legible
from companion.figures.style import (
    INK,
    NAMED_COLORS,
    floor_line,
    label_rows,
    new_axes,
    points,
    require_results,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_composition(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Share of compositions read right against the number of compositions in training, by model.

    results: results of the study `length_generalization`. Shows mean and range over the results.
    """
    require_results("plot_composition", results)
    doses = list(next(iter(results[0]["composed_by_dose"].values())))
    ax = new_axes(ax, xlabel="different compositions in training", ylabel="new ones read right, %")
    places = np.arange(len(doses))
    readers = list(results[0]["composed_by_dose"])
    for place, (reader, color, marker) in enumerate(
        zip(readers, ("blue", "vermillion"), ("o", "D"), strict=False)
    ):
        by_dose = [result["composed_by_dose"][reader] for result in results]
        points(
            ax, places + 0.12 * (place - (len(readers) - 1) / 2),
            100 * np.array([[shares[dose] for dose in doses] for shares in by_dose]), axis="y",
            color=NAMED_COLORS[color], fmt=f"{marker}-", label=legible(reader),
        )  # fmt: skip
    ax.set_xticks(places, [f"{int(dose):,}" for dose in doses])
    ax.set_ylim(-3, 103)
    ax.legend(loc="upper left")
    return ax


def plot_composition_kinds(
    results: Sequence[Mapping[str, Any]],
    reader: str,
    kinds: Mapping[str, str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Share of compositions read right, by the digits of their rest, for each kind in training.

    results: results of the study `length_generalization`. reader: the model. kinds: kinds to plot,
    the first on top, and their labels. Shows mean and range over the results.
    """
    require_results("plot_composition_kinds", results)
    ax = new_axes(ax, height=0.9 + 0.55 * len(kinds), xlabel="new ones read right, %")
    rows = np.arange(len(kinds))
    for shift, digits, color, marker in (
        (-0.2, "1", "green", "o"), (0.0, "2", "blue", "s"), (0.2, "3", "vermillion", "D"),
    ):  # fmt: skip
        by_kind = [result["composed_by_kind"][reader] for result in results]
        shares = 100 * np.array([[kind[name][digits] for name in kinds] for kind in by_kind])
        label = f"rest of {digits} digit" + "s" * (digits != "1")
        points(ax, rows + shift, shares, color=NAMED_COLORS[color], fmt=marker, label=label)
    label_rows(ax, kinds.values())
    ax.set_xlim(-3, 103)
    title = "tested on compositions with a"
    ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, title=title)
    return ax


def plot_exchange(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Share of texts a^n b^n right after an exchange of cells between long and short texts.

    results: results of the study `length_generalization`. Each is a point; a bar marks the mean.
    """
    require_results("plot_exchange", results)
    rows = {
        ("corrected", "as it is"): "long text as it is",
        ("corrected", "counting units"): "with short texts' counting units",
        ("corrected", "other units"): "with short texts' other units",
        ("corrected", "random units"): "with other units moved at random",
        ("damaged", "counting units"): "short text with a long\none's counting units",
        ("damaged", "other units"): "short text with a long\none's other units",
    }
    ax = new_axes(ax, height=3.6, xlabel="right, %")
    places = np.arange(len(rows)) + 0.5 * np.array([key == "damaged" for key, _ in rows])
    shares = 100 * np.array([[result[key][name] for key, name in rows] for result in results])
    for place, column in zip(places, shares.T, strict=True):
        spots = place + np.linspace(-0.15, 0.15, len(column)) if len(column) > 1 else [place]
        ax.plot(column, spots, "o", color=NAMED_COLORS["blue"], markersize=6)
        ax.plot(2 * [column.mean()], [place - 0.3, place + 0.3], color=INK, lw=1.5)
    ax.set_yticks(places, list(rows.values()))
    ax.set_ylim(places[-1] + 0.6, -0.6)
    ax.set_xlim(-3, 103)
    return ax


def plot_goals(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Return for the moved coin and for the corner where it was, by share of games with it moved.

    results: results of the study `goal_misgeneralization`. Shows mean and range over the results.
    """
    require_results("plot_goals", results)
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
        points(
            ax, places + shift, values, axis="y",
            color=NAMED_COLORS[color], fmt=marker, label=label,
        )  # fmt: skip
    floor_line(ax, 100, "the best possible")
    ax.set_xticks(places, [f"{100 * float(share):g}" for share in shares])
    ax.set_xlim(-0.5, len(shares) - 0.5)
    ax.set_ylim(0, 108)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax
