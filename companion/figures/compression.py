"""Figures of compressed models: the cost against the bytes, and refusals beside knowledge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from companion.figures.fonts import legible
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

#: What is drawn of each way to compress: the beginning and the end of its names, words, a colour
#: and a marker.
WAYS = (
    ("", " bits", "fewer bits", "blue", "o-"),
    ("prune ", " repaired", "pruned and repaired", "vermillion", "D-"),
    ("random ", " repaired", "the same at random", "orange", "x-"),
    ("rank ", "", "output of low rank", "green", "s-"),
)


def plot_compression(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Nats above the floor against the share of the bytes, by way to compress; both axes in powers.

    results: results of the study `compression` with its parts "floor" and "distillation". Shows the
    model itself as a line, and mean and range over the results.
    """
    require_results("plot_compression", results)
    ax = new_axes(ax, xlabel="bytes of the weights, % of float32", ylabel="nats above the floor",
                  height=4.6)  # fmt: skip
    whole = results[0]["bytes"]["float32"]
    for start, end, label, color, marker in WAYS:
        names = [
            name for name in results[0]["kl"]
            if name.startswith(start) and name.endswith(end)
            and name[len(start) : len(name) - len(end)].replace(".", "").isdigit()
        ]  # fmt: skip
        if names:
            shares = np.array([100 * results[0]["bytes"][name] / whole for name in names])
            costs = [[result["kl"][name] for name in names] for result in results]
            points(
                ax, shares, costs, axis="y", color=NAMED_COLORS[color], fmt=marker,
                label=legible(label),
            )  # fmt: skip
    share = [100 * results[0]["student_bytes"] / whole]
    for name, label, color, marker in (
        ("alone", "small model alone", "grey", "v"),
        ("teacher", "small model with a teacher", "purple", "^"),
    ):
        costs = [[result["student"][name]] for result in results]
        points(
            ax, share, costs, axis="y", color=NAMED_COLORS[color], fmt=marker, ms=9,
            label=legible(label),
        )  # fmt: skip
    floor_line(ax, float(np.mean([result["kl"]["float32"] for result in results])), "the model")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ticks = (10, 20, 50, 100)
    ax.set_xticks(ticks, [legible(f"{tick}") for tick in ticks])
    ax.minorticks_off()
    values = (0.03, 0.1, 0.3, 1, 3)
    ax.set_yticks(values, [legible(f"{value:g}") for value in values])
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return ax


def plot_compressed_refusals(
    results: Sequence[Mapping[str, Any]], rows: Mapping[str, str], *, ax: Axes | None = None
) -> Axes:
    """Shares of refused restricted questions and of rightly answered other ones, by damage.

    results: results of the study `compression` with its part "safety". rows: words for each row, by
    the name in the results. Shows mean and range over the results.
    """
    require_results("plot_compressed_refusals", results)
    missing = [name for name in rows if name not in results[0]["refusal"]]
    if missing:
        raise ValueError(f"the results have no {missing[0]!r}; they have "
                         f"{', '.join(results[0]['refusal'])}")  # fmt: skip
    ax = new_axes(ax, xlabel="% of replies", height=0.42 * len(rows) + 1.2)
    places = np.arange(len(rows))
    for key, label, color, marker, shift in (
        ("refusal", "restricted questions refused", "blue", "o", -0.12),
        ("benign", "other questions right", "vermillion", "D", 0.12),
    ):
        shares = 100 * np.array([[result[key][name] for name in rows] for result in results])
        points(
            ax, places + shift, shares, color=NAMED_COLORS[color], fmt=marker, label=legible(label)
        )  # fmt: skip
    label_rows(ax, rows.values())
    ax.set_xlim(-3, 103)
    below = -0.55 / (0.42 * len(rows) + 0.2)
    ax.legend(loc="upper right", bbox_to_anchor=(1, below), ncols=2, columnspacing=1)
    return ax
