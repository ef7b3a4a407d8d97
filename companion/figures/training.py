"""Figures of next-token predictions and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from companion.figures.fonts import legible
from companion.figures.style import NAMED_COLORS, REFERENCE, new_axes, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_next_tokens(
    tokens: Sequence[str],
    probs: ArrayLike,
    *,
    truth: ArrayLike | None = None,
    top: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Horizontal bars of next-token probabilities, shape (tokens,), the first token on top.

    truth: the source's own probabilities, drawn as marks. top: plot only this number of most
    probable tokens, in order of `probs`. White space is made visible.
    """
    heights = np.asarray(probs, dtype=float)
    marks = None if truth is None else np.asarray(truth, dtype=float)
    for name, array in (("probs", heights), ("truth", marks)):
        if array is not None and array.shape != (len(tokens),):
            raise ValueError(
                f"{name} must hold one number for each of the {len(tokens)} tokens, got shape "
                f"{array.shape}"
            )
    if top is not None and top < 1:
        raise ValueError(f"top must be >= 1, got {top}")
    # Stable, so that tokens of equal probability are in the order of the vocabulary.
    chosen = np.arange(len(tokens)) if top is None else np.argsort(-heights, kind="stable")[:top]
    ax = new_axes(ax, height=max(1.6, 0.95 + 0.34 * len(chosen)), xlabel="probability")
    rows = np.arange(len(chosen))
    ax.barh(rows, heights[chosen], height=0.7, color=NAMED_COLORS["blue"], label="model")
    if marks is not None:
        ax.plot(
            marks[chosen],
            rows,
            linestyle="",
            marker="D",
            markersize=7,
            color=NAMED_COLORS["vermillion"],
            markeredgecolor="white",
            label="truth",
        )
        ax.legend(loc="lower right")
    ax.set_yticks(rows, [visible(tokens[i]) for i in chosen])
    ax.set_ylim(len(chosen) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    return ax


class _WholeNumbersWithin(MaxNLocator):
    """Ticks at whole numbers from `low` to `high`, however far the axis goes."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__(integer=True)
        self.low, self.high = low, high

    def tick_values(self, vmin: float, vmax: float) -> Any:
        ticks = np.asarray(super().tick_values(max(vmin, self.low), min(vmax, self.high)))
        return ticks[(ticks >= self.low) & (ticks <= self.high)]


def plot_over_text(
    tokens: Sequence[str],
    values: ArrayLike,
    *,
    truth: ArrayLike | None = None,
    limits: tuple[int | float, int | float] | None = None,
    label: str = "unit",
    truth_label: str = "truth",
    ax: Axes | None = None,
) -> Axes:
    """The value of one unit after each token of a text, shape (tokens,), plotted above the text.

    truth: a quantity to remember, shape (tokens,), drawn as steps with an axis of its own on the
    right. That axis is scaled so that both have the same mean and standard deviation: the better
    they are correlated, the closer the steps are to the line. White space is made visible.
    limits: lowest and highest possible value of the unit, such as (0, 1) for a gate. The axis shows
    this whole range, and the truth is scaled to fill it: scaled by the standard deviation of a gate
    that hardly moves, it would be flat. ValueError for values outside the limits.
    """
    heights = np.asarray(values, dtype=float)
    marks = None if truth is None else np.asarray(truth, dtype=float)
    for name, array in (("values", heights), ("truth", marks)):
        if array is not None and (array.shape != (len(tokens),) or not array.size):
            raise ValueError(
                f"{name} must hold one number for each of the {len(tokens)} tokens, got shape "
                f"{array.shape}"
            )
    if limits is not None and not limits[0] < limits[1]:
        raise ValueError(f"limits must be (lowest, highest), got {limits}")
    if limits is not None and not limits[0] <= heights.min() <= heights.max() <= limits[1]:
        raise ValueError(
            f"values must lie within limits={limits}, got {heights.min():g} to {heights.max():g}"
        )
    ax = new_axes(ax, ylabel=label)
    places = np.arange(len(tokens))
    if limits is not None:
        margin = 0.05 * (limits[1] - limits[0])
        ax.set_ylim(limits[0] - margin, limits[1] + margin)
    if marks is not None:
        # A constant has no spread to scale by.
        if limits is None:
            unit = (heights.std() / marks.std() if marks.std() else 1.0) or 1.0
            shift = heights.mean() - unit * marks.mean()
        else:
            unit = (limits[1] - limits[0]) / (np.ptp(marks) or 1.0)
            shift = limits[0] - unit * marks.min()
        steps = unit * marks + shift
        bottom = min(steps.min(), heights.min())
        style: dict[str, Any] = {"color": NAMED_COLORS["orange"], "step": "mid"}
        ax.fill_between(places, steps, bottom, alpha=0.3, **style)
        ax.step(
            places, steps, where="mid", color=NAMED_COLORS["orange"], label=legible(truth_label)
        )

        def to_truth(value: Any) -> Any:
            return (value - shift) / unit

        def from_truth(value: Any) -> Any:
            return unit * value + shift

        right = ax.secondary_yaxis("right", functions=(to_truth, from_truth))
        right.set_ylabel(legible(truth_label))
        right.yaxis.set_major_locator(_WholeNumbersWithin(marks.min(), marks.max()))
    ax.plot(places, heights, "o-", color=NAMED_COLORS["blue"], markersize=3.5, label=legible(label))
    family = ["DejaVu Sans Mono", *mpl.rcParams["font.family"]]
    shown = [visible(token, family=family) for token in tokens]
    upright = any("U+" in each for each in shown)  # side by side, code points would overlap
    ax.set_xticks(places, shown, family=family, rotation=90 if upright else 0)
    ax.set_xlim(-0.6, len(tokens) - 0.4)
    ax.tick_params(axis="x", length=0)
    ax.grid(visible=False, axis="x")
    return ax


def plot_reliability(
    confidences: ArrayLike,
    accuracies: ArrayLike,
    counts: ArrayLike,
    *,
    standard_errors: ArrayLike | None = None,
    label: str = "model",
    color: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Reliability diagram: accuracy against confidence, one dot per bin.

    The arguments are fields of a `calibration.Reliability`, of shape (bins,); dots are larger for
    bins with more predictions. On the diagonal, predictions of 70 % confidence are right 70 % of
    the time; below it the model is overconfident. standard_errors: bars of two standard errors to
    each side of the diagonal, within which a calibrated model's dots lie by chance alone.
    """
    x, y, n = (np.asarray(each, dtype=float) for each in (confidences, accuracies, counts))
    if x.ndim != 1 or not x.size or not x.shape == y.shape == n.shape:
        raise ValueError(
            "confidences, accuracies and counts must hold one number for each bin, got shapes "
            f"{x.shape}, {y.shape} and {n.shape}"
        )
    first = ax is None or not ax.has_data()
    ax = new_axes(ax, height=4.6, xlabel="confidence", ylabel="accuracy")
    if first:
        style: dict[str, Any] = {"color": REFERENCE, "linestyle": (0, (5, 3)), "linewidth": 1.6}
        ax.plot([0, 1], [0, 1], label="calibrated", **style)
    if standard_errors is not None:
        errors = 2 * np.asarray(standard_errors, dtype=float)
        ax.errorbar(x, x, errors, linestyle="", color=REFERENCE, linewidth=1.2, capsize=3)
    (line,) = ax.plot(x, y, color=color, linewidth=1.4, label=legible(label))
    sizes = 20 + 160 * n / n.max()
    ax.scatter(x, y, s=sizes, color=line.get_color(), edgecolor="white", linewidth=0.8, zorder=3)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.legend(loc="upper left")
    return ax
