"""Figures of scale and cost: loss by tokens and by operations, batch sizes, floors, a table."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from companion.figures.style import (
    COLORS,
    NAMED_COLORS,
    floor_line,
    label_rows,
    new_axes,
    points,
    require_results,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Markers of the sizes, so that lines can be told apart without their colours.
MARKERS = "os^DvP"
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def plot_scaling_losses(
    results: Sequence[Mapping[str, Any]], *, by: str = "tokens", ax: Axes | None = None
) -> Axes:
    """Loss in nats per token, one line a model size, against training tokens or operations.

    results: results of the study `scaling_law`. by: "tokens", or "operations" of the training, as
    counted in the matrix products. Shows mean and range over the results, and the floor.
    """
    require_results("plot_scaling_losses", results)
    if by not in ("tokens", "operations"):
        raise ValueError(f'by must be "tokens" or "operations", got {by!r}')
    label = "training tokens" if by == "tokens" else "operations of the training"
    ax = new_axes(ax, height=4.1, xlabel=label, ylabel="nats per token")
    first = results[0]
    for number, (hidden, parameters) in enumerate(first["parameters"].items()):
        tokens = sorted(int(run.split()[1]) for run in first["loss"] if run.split()[0] == hidden)
        losses = [[result["loss"][f"{hidden} {seen}"] for seen in tokens] for result in results]
        each = 1.0 if by == "tokens" else float(first["flops_per_token"][hidden])
        points(
            ax, each * np.array(tokens), losses, axis="y", color=COLORS[number % len(COLORS)],
            fmt=f"{MARKERS[number % len(MARKERS)]}-", label=f"{parameters / 1000:.1f} thousand",
        )  # fmt: skip
    floor_line(ax, first["floor"], "floor")
    ax.set_xscale("log")
    if by == "tokens":
        ax.set_xticks(tokens, [f"{seen / 1000:.0f}k" for seen in tokens])
        ax.minorticks_off()
    ax.set_ylim(1.9, None)
    ax.legend(title="parameters", loc="upper left", bbox_to_anchor=(1, 1), fontsize=10)
    return ax


def plot_floors(
    floors: Mapping[str, tuple[float, float, float]], truth: float, *, ax: Axes | None = None
) -> Axes:
    """Fitted floors with their ranges, a row each with the range in numbers, beside the true one.

    floors: label -> (middle, low, high), in nats per token.
    """
    if not floors:
        raise ValueError("plot_floors needs one floor or more, got none")
    ax = new_axes(ax, height=1.3 + 0.5 * len(floors), xlabel="fitted floor, nats per token")
    for row, (middle, low, high) in enumerate(floors.values()):
        ax.errorbar(
            [middle], [row], xerr=[[max(0, middle - low)], [max(0, high - middle)]], capsize=3,
            fmt="o", color=NAMED_COLORS["blue"], label=None if row else "middle and range",
        )  # fmt: skip
        ax.annotate(
            f"{low:.2f} to {high:.2f}", (min(high, truth), row), xytext=(-5, 7),
            textcoords="offset points", ha="right", fontsize=10,
        )  # fmt: skip
    floor_line(ax, truth, "true floor", axis="x")
    label_rows(ax, floors)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return ax


def plot_extrapolation(
    measured: Sequence[float], predicted: Mapping[str, Sequence[float]], *, ax: Axes | None = None
) -> Axes:
    """Predicted against measured losses of runs that no law was fitted to.

    measured: nats per token, one a run. predicted: law -> the same runs' predicted losses. On the
    diagonal the prediction is right; below it the model is worse than foreseen.
    """
    if not measured or not predicted:
        raise ValueError("plot_extrapolation needs measured runs and predictions, got none")
    ax = new_axes(
        ax, height=4.1, xlabel="measured, nats per token", ylabel="predicted, nats per token"
    )
    both = [*measured]
    if len(predicted) > 4:
        raise ValueError(f"plot_extrapolation has markers for four laws, got {len(predicted)}")
    styles = (("vermillion", "D"), ("blue", "o"), ("green", "s"), ("purple", "^"))
    for (law, losses), (color, marker) in zip(predicted.items(), styles, strict=False):
        ax.plot(measured, losses, marker, color=NAMED_COLORS[color], label=law, alpha=0.8)
        both += losses
    low, high = min(both) - 0.02, max(both) + 0.02
    ax.plot([low, high], [low, high], color=NAMED_COLORS["grey"], linewidth=1.2, label="equal")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=10)
    return ax


def plot_batch_sizes(
    results: Sequence[Mapping[str, Any]], critical: float, *, ax: Axes | None = None
) -> Axes:
    """Steps to a loss against windows in a batch, with tuned learning rates and with one rate.

    results: results of the study `critical_batch_size`. critical: where to draw the critical size,
    in windows. The curve is the law of the mean coefficients.
    """
    require_results("plot_batch_sizes", results)
    ax = new_axes(ax, height=4.1, xlabel="windows in a batch", ylabel="steps to the target")
    sizes = np.array([int(size) for size in results[0]["steps"]])
    across = np.geomspace(sizes.min() / 1.3, sizes.max() * 1.3, 100)
    least, middle = (
        float(np.mean([each[name] for each in results])) for name in ("least_steps", "critical")
    )
    color = NAMED_COLORS["blue"]
    ax.plot(across, least * (1 + middle / across), color=color, linewidth=1.4, label="the law")
    points(
        ax, sizes, [list(each["steps"].values()) for each in results], axis="y", fmt="o",
        color=color, label="a rate for each batch",
    )  # fmt: skip
    if results[0]["steps_untuned"]:
        untuned = np.array([int(size) for size in results[0]["steps_untuned"]])
        points(
            ax, untuned * 1.06, [list(each["steps_untuned"].values()) for each in results],
            axis="y", fmt="D", color=NAMED_COLORS["vermillion"], label="the smallest batch's rate",
        )  # fmt: skip
    floor_line(ax, critical, "critical size", axis="x")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(sizes, [str(size) for size in sizes])
    low, high = ax.get_ylim()
    steps = [each for each in (10, 20, 50, 100, 200, 500, 1000) if low <= each <= high]
    ax.set_yticks(steps, [str(each) for each in steps])
    ax.minorticks_off()
    ax.legend(loc="upper right", fontsize=10)
    return ax


def cost_html(title: str, rows: Mapping[str, str]) -> str:
    """A table of two columns, what and how much, as HTML for `teaching.widgets.explore`."""
    lines = "".join(
        f'<tr><th scope="row" style="text-align:left;font-weight:400;padding:.2em 1em .2em 0">'
        f'{html.escape(what)}</th><td style="text-align:right;font-variant-numeric:tabular-nums">'
        f"{html.escape(much)}</td></tr>"
        for what, much in rows.items()
    )
    return f"<div><p><strong>{html.escape(title)}</strong></p><table>{lines}</table></div>"


def plainly(number: float) -> str:
    """A number for a table: three digits, and words in place of powers of ten up to 10^12."""
    number = float(number)  # whole numbers may be too large for numpy
    if not np.isfinite(number):
        raise ValueError(f"number must be finite, got {number}")
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(number) >= size * 0.9995:
            if size == 1e12 and abs(number) >= 1e15:
                digits, _, power = f"{number:.2g}".partition("e+")
                return f"{digits} × 10{power.translate(RAISED)}"
            return f"{number / size:.3g} {word}"
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.3g}" if abs(number) >= 0.001 or not number else f"{number:.1g}"
