"""Figures of distribution shift, and of the detection of strange text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from companion.figures.fonts import legible
from companion.figures.style import (
    COLORS,
    INK,
    NAMED_COLORS,
    REFERENCE,
    band,
    label_rows,
    mean_and_range,
    new_axes,
    points,
    require_results,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_shift_parts(
    results: Sequence[Mapping[str, Any]],
    sources: Mapping[str, str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Loss above each source's entropy, split into the unavoidable KL and the model's own error.

    results: results of the study `distribution_shift`. sources: sources to plot, the first on top,
    and their labels. Shows means over the results; an error bar is the range of the model's error.
    """
    require_results("plot_shift_parts", results)
    ax = new_axes(
        ax, height=1.3 + 0.45 * len(sources), xlabel="nats per token above the source's entropy"
    )
    rows = np.arange(len(sources))
    unavoidable, own = (
        np.array([[result[key][name] for name in sources] for result in results])
        for key in ("unavoidable", "own_error")
    )
    left = unavoidable.mean(axis=0)
    error, spread = mean_and_range(own)
    ax.barh(rows, left, height=0.6, color=NAMED_COLORS["grey"], label="unavoidable KL")
    ax.barh(
        rows, error, left=left, height=0.6, color=NAMED_COLORS["vermillion"],
        label="the model's own error", xerr=spread, error_kw={"capsize": 3, "ecolor": INK},
    )  # fmt: skip
    label_rows(ax, sources.values())
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return ax


def plot_error_by_context(
    results: Sequence[Mapping[str, Any]],
    sources: Mapping[str, str],
    lows: Sequence[int],
    *,
    ax: Axes | None = None,
) -> Axes:
    """The model's own error by how often the context occurred in training.

    results: results of the study `distribution_shift`. sources: sources to plot, and their labels.
    lows: lower edges of the bins. Shows mean and range over the results.
    """
    require_results("plot_error_by_context", results)
    ax = new_axes(ax, xlabel="times the context was trained on", ylabel="own error, nats per token")
    bins = [
        f"{low:,}–{high - 1:,}" if low else f"below {high:,}"
        for low, high in itertools.pairwise(lows)
    ]
    for name, label in sources.items():
        errors = [
            np.array(result["context_contribution"][name]) / result["context_share"][name]
            for result in results
        ]
        band(ax, np.arange(len(lows)), np.stack(errors), label=label)
        ax.lines[-1].set_marker("o")
    ax.set_xticks(np.arange(len(lows)), [*bins, f"{lows[-1]:,} up"], rotation=20)
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax


def plot_adaptation(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Continued training on new text: KL on the new source against KL on the old one.

    results: results of the study `distribution_shift`. Each line goes from the model before to the
    model after; each dot is a measurement. Shows means over the results; error bars at the end show
    their range.
    """
    require_results("plot_adaptation", results)
    ax = new_axes(
        ax,
        height=4.2,
        xlabel="old source: nats per token above its floor",
        ylabel="new source: nats per token above its floor",
    )
    first = results[0]
    for name, color in zip(first["adaptation_old"], COLORS, strict=False):
        x, y = (
            np.array([result[key][name] for result in results])
            for key in ("adaptation_old", "adaptation_new")
        )
        ax.plot(
            x.mean(axis=0), y.mean(axis=0), "o-", ms=4, color=color, label=legible(f"{name} text")
        )
        (end_x, range_x), (end_y, range_y) = (mean_and_range(v[:, -1:]) for v in (x, y))
        ax.errorbar(end_x, end_y, xerr=range_x, yerr=range_y, color=color, capsize=3)
    elsewhere, bound = first["perfect_elsewhere"], first["mixture_bound"]
    ax.scatter(
        [0, elsewhere["old"]], [elsewhere["new"], 0], marker="s", color=REFERENCE, clip_on=False,
        label="a perfect model of one source", zorder=3,
    )  # fmt: skip
    ax.scatter(
        bound["old"], bound["new"], marker="*", s=130, color=REFERENCE,
        label="both sources, mixed: at most", zorder=3,
    )  # fmt: skip
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    ax.legend(loc="upper right")
    return ax


def plot_detection(
    results: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, str],
    scores: Sequence[str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """AUROC of scores for telling strange text from familiar text, by kind of text.

    results: results of the study `strange_text`. kinds: kinds of text to plot, the first on top,
    and their labels. scores: scores to plot. Shows mean and range over the results.
    """
    require_results("plot_detection", results)
    ax = new_axes(ax, height=1.2 + 0.5 * len(kinds), xlabel="AUROC: 1 is perfect, 0 is fooled")
    rows = np.arange(len(kinds))
    for i, (score, color, marker) in enumerate(zip(scores, COLORS, "oDs^", strict=False)):
        values = np.array([[result["auroc"][kind][score] for kind in kinds] for result in results])
        offset = 0.22 * (i - (len(scores) - 1) / 2)
        points(ax, rows + offset, values, color=color, fmt=marker, label=legible(score))
    ax.axvline(0.5, color=REFERENCE, ls="--", lw=1.2, label="chance")
    label_rows(ax, kinds.values())
    ax.set_xlim(-0.04, 1.04)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return ax
