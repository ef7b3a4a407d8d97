"""Figures of a hyperparameter search."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from companion.figures.fonts import legible
from companion.figures.style import NAMED_COLORS, SIZE, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_trials(trials: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Validation loss of each trial of a search, and the lowest so far as a line.

    Each trial has `number`, `state` and `nats_per_token`, as in trials.json. Trials stopped early
    are hollow dots; trials that failed without a loss are left out.
    """
    complete, stopped = _trials_with_a_loss(trials)
    ax = new_axes(ax, xlabel="trial", ylabel="validation nats per token")
    numbers = [trial["number"] for trial in complete]
    lowest = np.minimum.accumulate([trial["nats_per_token"] for trial in complete])
    ax.step(numbers, lowest, where="post", color=NAMED_COLORS["vermillion"], label="lowest so far")
    for group, words, face in (
        (complete, "complete", NAMED_COLORS["blue"]),
        (stopped, "stopped early", "white"),
    ):
        if group:
            _dots(ax, [trial["number"] for trial in group], group, words, face)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=1.4)  # above all dots
    return ax


def plot_setting(
    trials: Sequence[Mapping[str, Any]],
    setting: str,
    *,
    log: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Validation loss of each trial of a search against one of its `settings`.

    Values that are not numbers are placed side by side. log: use a logarithmic axis for the
    setting.
    """
    complete, stopped = _trials_with_a_loss(trials)
    for trial in trials:
        if setting not in trial["settings"]:
            raise ValueError(
                f"trial {trial['number']} has no setting {setting!r}; it has "
                f"{', '.join(trial['settings'])}"
            )
    ax = new_axes(ax, xlabel=setting.replace("_", " "), ylabel="validation nats per token")
    for group, words, face in (
        (stopped, "stopped early", "white"),
        (complete, "complete", NAMED_COLORS["blue"]),
    ):
        if group:
            values = [trial["settings"][setting] for trial in group]
            shown = [legible(each) if isinstance(each, str) else each for each in values]
            _dots(ax, shown, group, words, face)
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    elif all(isinstance(trial["settings"][setting], int) for trial in trials):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def plot_search(trials: Sequence[Mapping[str, Any]], *, log: Collection[str] = ()) -> list[Axes]:
    """A search in one figure: `plot_trials`, and `plot_setting` for each setting, two per row.

    log: settings with a logarithmic axis.
    """
    if not trials:
        raise ValueError("plot_search needs one trial or more, got none")
    settings = list(trials[0]["settings"])
    rows = -(-(1 + len(settings)) // 2)
    figure, grid = plt.subplots(rows, 2, figsize=(2 * SIZE[0], rows * SIZE[1]), squeeze=False)
    axes = list(grid.flat)
    for unused in axes[1 + len(settings) :]:
        figure.delaxes(unused)
    plot_trials(trials, ax=axes[0])
    for setting, ax in zip(settings, axes[1:], strict=False):
        plot_setting(trials, setting, log=setting in log, ax=ax)
    return axes[: 1 + len(settings)]


def _trials_with_a_loss(
    trials: Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The complete trials, and those stopped early; ValueError if no trial is complete."""
    measured = [trial for trial in trials if trial["nats_per_token"] is not None]
    complete = [trial for trial in measured if trial["state"] == "complete"]
    if not complete:
        raise ValueError(f"a search needs one complete trial or more, got {len(trials)} others")
    return complete, [trial for trial in measured if trial["state"] != "complete"]


def _dots(
    ax: Axes, x: Sequence[Any], trials: Sequence[Mapping[str, Any]], label: str, face: str
) -> None:
    losses = [trial["nats_per_token"] for trial in trials]
    edge = NAMED_COLORS["blue"]
    ax.scatter(
        x, losses, s=36, facecolor=face, edgecolor=edge, linewidth=1.4, label=label, zorder=3
    )
