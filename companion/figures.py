"""The book's figures: results in, Axes out. Nothing here touches a model.

`use_style()` once, in a chapter's second cell. Every `plot_*` takes `ax=None`, makes an Axes of the
book's size where it gets none, and returns the Axes it drew on.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe and Ito's colours, told apart by colour-blind readers, less black and a yellow that white
#: paper swallows; in the order in which lines take them.
NAMED_COLORS: dict[str, str] = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "grey": "#6B7378",
}
COLORS: list[str] = list(NAMED_COLORS.values())

#: Text and axes.
INK = "#22282B"
#: Floors, baselines and other references.
REFERENCE = "#4A5257"

#: Inches; at 100 CSS pixels an inch it fits the book's column, and its text is legible on a phone.
SIZE = (6.4, 3.7)

#: What stands for a token's white space, which nobody can see.
VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "$": r"\$"})


def use_style() -> None:
    """Set the book's style for all figures from here on: in notebooks also their resolution.

    White paper, so that a figure reads alike on a light and on a dark page; DejaVu Sans, which
    comes with matplotlib, so that it is the same on every machine.
    """
    mpl.rcParams.update(
        {
            "figure.figsize": SIZE,
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.w_pad": 0.09,
            "figure.constrained_layout.h_pad": 0.09,
            "savefig.dpi": 200,
            "savefig.facecolor": "white",
            "svg.hashsalt": "trained-to-predict",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 12,
            "text.color": INK,
            "axes.facecolor": "white",
            "axes.edgecolor": "#9AA2A6",
            "axes.labelcolor": INK,
            "axes.titlesize": 13,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 10,
            "axes.labelsize": 12,
            "axes.labelpad": 5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.prop_cycle": cycler(color=COLORS),
            "grid.color": "#E3E6E7",
            "grid.linewidth": 0.8,
            "xtick.color": "#9AA2A6",
            "xtick.labelcolor": INK,
            "xtick.labelsize": 11,
            "ytick.color": "#9AA2A6",
            "ytick.labelcolor": INK,
            "ytick.labelsize": 11,
            "lines.linewidth": 2,
            "lines.markersize": 5,
            "patch.linewidth": 0,
            "legend.frameon": False,
            "legend.fontsize": 11,
            "image.cmap": "cividis",
        }
    )
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        # Without bbox_inches=None each figure is cut to its ink, and no two are of one width.
        set_matplotlib_formats("retina", bbox_inches=None)  # type: ignore[no-untyped-call]


def new_axes(
    ax: Axes | None = None,
    *,
    width: int | float = SIZE[0],
    height: int | float = SIZE[1],
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
) -> Axes:
    """`ax`, or an Axes of its own figure (`ax.figure`), `width` by `height` inches, with labels."""
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height))
    if xlabel:
        ax.set_xlabel(xlabel)
    if ylabel:
        ax.set_ylabel(ylabel)
    if title:
        ax.set_title(title)
    return ax


def plot_history(
    records: Sequence[Mapping[str, Any]],
    *,
    floor: int | float | None = None,
    floor_label: str = "entropy of the source",
    ax: Axes | None = None,
) -> Axes:
    """Training and validation loss against the step, from `TrainResult.history`.

    Each record has a `step` and `train_nats_per_token`, `valid_nats_per_token` or both. `floor`,
    in nats per token, is what no model can beat on average.
    """
    if not records:
        raise ValueError(
            "plot_history needs one record or more, got none: train with log_every set"
        )
    ax = new_axes(ax, xlabel="optimizer step", ylabel="nats per token")
    drawn = 0
    for split, words, color in (
        ("train", "training", NAMED_COLORS["blue"]),
        ("valid", "validation", NAMED_COLORS["vermillion"]),
    ):
        key = f"{split}_nats_per_token"
        points = [(record["step"], record[key]) for record in records if key in record]
        if points:
            steps, nats = zip(*points, strict=True)
            marker = "o" if len(points) == 1 or split == "valid" else ""
            ax.plot(steps, nats, color=color, marker=marker, label=words)
            drawn += 1
    if not drawn:
        raise ValueError(
            "no record has train_nats_per_token or valid_nats_per_token; the first has: "
            + ", ".join(records[0])
        )
    if floor is not None:
        floor_line(ax, floor, floor_label)
    ax.legend(loc="upper right")
    return ax


def plot_next_tokens(
    tokens: Sequence[str],
    probs: ArrayLike,
    *,
    truth: ArrayLike | None = None,
    top: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Horizontal bars of next-token probabilities, shape (tokens,), the first token on top.

    truth: the source's own probabilities, drawn as marks. top: only the so many most probable, in
    order of `probs`. White space is made visible.
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
    # Stable, so that equal probabilities stand in the order of the vocabulary.
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


def plot_over_text(
    tokens: Sequence[str],
    values: ArrayLike,
    *,
    truth: ArrayLike | None = None,
    label: str = "unit",
    truth_label: str = "truth",
    ax: Axes | None = None,
) -> Axes:
    """What one unit held after each token of a text, shape (tokens,), above the text itself.

    truth: what there was to remember, shape (tokens,), as steps against an axis of its own at the
    right. That axis is scaled so that both have one mean and one spread: the steps lie on the line
    as far as the two are correlated. White space is made visible.
    """
    heights = np.asarray(values, dtype=float)
    marks = None if truth is None else np.asarray(truth, dtype=float)
    for name, array in (("values", heights), ("truth", marks)):
        if array is not None and (array.shape != (len(tokens),) or not array.size):
            raise ValueError(
                f"{name} must hold one number for each of the {len(tokens)} tokens, got shape "
                f"{array.shape}"
            )
    ax = new_axes(ax, ylabel=label)
    places = np.arange(len(tokens))
    if marks is not None:
        # A constant has no spread to scale by.
        unit = (heights.std() / marks.std() if marks.std() else 1.0) or 1.0
        shift = heights.mean() - unit * marks.mean()
        steps = unit * marks + shift
        style: dict[str, Any] = {"color": NAMED_COLORS["orange"], "step": "mid"}
        ax.fill_between(places, steps, min(steps.min(), heights.min()), alpha=0.3, **style)
        ax.step(places, steps, where="mid", color=NAMED_COLORS["orange"], label=truth_label)

        def to_truth(value: Any) -> Any:
            return (value - shift) / unit

        def from_truth(value: Any) -> Any:
            return unit * value + shift

        right = ax.secondary_yaxis("right", functions=(to_truth, from_truth))
        right.set_ylabel(truth_label)
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.plot(places, heights, "o-", color=NAMED_COLORS["blue"], markersize=3.5, label=label)
    ax.set_xticks(places, [visible(token) for token in tokens], family="DejaVu Sans Mono")
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
    """Accuracy against confidence, one dot a bin, larger where it holds more predictions.

    The fields of a `calibration.Reliability`, shape (bins,). On the diagonal, what is called 70 %
    likely comes 70 % of the time; below it the model is too sure. standard_errors: bars of two to
    each side of the diagonal, within which chance alone puts a calibrated model's dots.
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
    (line,) = ax.plot(x, y, color=color, linewidth=1.4, label=label)
    sizes = 20 + 160 * n / n.max()
    ax.scatter(x, y, s=sizes, color=line.get_color(), edgecolor="white", linewidth=0.8, zorder=3)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.legend(loc="upper left")
    return ax


def plot_trials(trials: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Validation loss of each trial of a search, and the lowest so far as a line.

    Each trial has `number`, `state` and `nats_per_token`, as in trials.json. Those that were
    stopped early are hollow; those that failed without a loss are left out.
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

    Values that are no numbers stand side by side. log: draw the setting on a logarithmic axis.
    """
    complete, stopped = _trials_with_a_loss(trials)
    for trial in trials:
        if setting not in trial["settings"]:
            raise ValueError(
                f"trial {trial['number']} has no setting {setting!r}; it has "
                f"{', '.join(trial['settings'])}"
            )
    ax = new_axes(ax, xlabel=setting, ylabel="validation nats per token")
    for group, words, face in (
        (stopped, "stopped early", "white"),
        (complete, "complete", NAMED_COLORS["blue"]),
    ):
        if group:
            _dots(ax, [trial["settings"][setting] for trial in group], group, words, face)
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    elif all(isinstance(trial["settings"][setting], int) for trial in trials):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def plot_search(trials: Sequence[Mapping[str, Any]], *, log: Collection[str] = ()) -> list[Axes]:
    """A search in one figure: `plot_trials`, and `plot_setting` for each setting, two in a row.

    log: the settings to draw on a logarithmic axis.
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
    """The complete ones, and those that were stopped early; ValueError without a complete one."""
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


def plot_decoders(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """What decoders gain and what they give up, from results of the study `degeneration`.

    Each dot is a decoder: the share of its reviews that are ungrammatical, against the true
    probability that it moves to other next words. Mean, and range, of the results.
    """
    if not results:
        raise ValueError("plot_decoders needs one result or more, got none")
    ax = new_axes(
        ax, xlabel="true probability moved elsewhere, %", ylabel="ungrammatical reviews, %"
    )
    for color, (prefix, words) in zip(
        COLORS,
        {"T=": "temperature T", "top-k ": "top-k", "top-p ": "nucleus, top-p"}.items(),
        strict=False,
    ):
        names = [name for name in results[0]["moved_mass"] if name.startswith(prefix)]
        if not names:
            continue
        moved, wrong = (
            100 * np.array([[result[key][name] for name in names] for result in results])
            for key in ("moved_mass", "ungrammatical")
        )
        x, y = moved.mean(axis=0), wrong.mean(axis=0)
        spread = np.abs(np.stack([wrong.min(axis=0), wrong.max(axis=0)]) - y)
        ax.errorbar(x, y, yerr=spread, color=color, fmt="o-", lw=1.2, label=words, capsize=3)
        for name, at, up in zip(names, x, y, strict=True):
            ax.annotate(
                name.removeprefix(prefix), (at, up), xytext=(5, 5), textcoords="offset points",
                color=color, fontsize=10,
            )  # fmt: skip
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=-0.02 * ax.get_ylim()[1])  # dots at zero are whole
    ax.legend(loc="upper right")
    return ax


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
    ax.set_yticks(rows, list(conditions.values()))
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
                label=label if face == color else None,
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
    ax.set_xticks(places, [*refused.values(), *answered.values()])
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.set_yticks(range(len(data)), list(data.values()))
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


def plot_fit(
    results: Sequence[Mapping[str, Any]], run: str, text: str, *, ax: Axes | None = None
) -> Axes:
    """Training and validation loss by epoch against the floor, of the study `memorization`.

    run: "plain", or another that the results have. text: the training text whose surprisal under
    the source is the floor, "train" or "few texts". Mean, and range, of the results.
    """
    if not results:
        raise ValueError("plot_fit needs one result or more, got none")
    ax = new_axes(ax, xlabel="epoch", ylabel="nats per token")
    for key, words, color in (
        ("valid_nats_per_token", "fresh reviews", "vermillion"),
        ("train_nats_per_token", "training reviews", "blue"),
    ):
        losses = [result[key][run] for result in results]
        band(ax, range(1, 1 + len(losses[0])), losses, label=words, color=NAMED_COLORS[color])
    floors = [result["source_nats_per_token"][text] for result in results]
    floor_line(ax, float(np.mean(floors)), "the source itself")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return ax


def plot_exposure(
    results: Sequence[Mapping[str, Any]],
    *,
    most: float = math.log2(10**5),
    chance: float = 1 / math.log(2),
    ax: Axes | None = None,
) -> Axes:
    """Exposure of canaries by epoch, a line for each number of repetitions; study `memorization`.

    most: bits of a code that is the first guess. chance: mean bits of one that was never seen.
    Mean, and range, of the results; a dotted line at the mean epoch of the lowest validation loss.
    """
    if not results:
        raise ValueError("plot_exposure needs one result or more, got none")
    ax = new_axes(ax, xlabel="epoch", ylabel="exposure, bits", height=4.2)
    lines = results[0]["exposure_by_epoch"]["plain"]
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(lines)))
    for repeated, shade in zip(reversed(lines), shades, strict=True):
        bits = [result["exposure_by_epoch"]["plain"][repeated] for result in results]
        epochs = range(1, 1 + len(bits[0]))
        band(ax, epochs, bits, label=f"{repeated} times", color=mpl.colors.to_hex(shade))
    best = float(np.mean([result["best_epoch"]["plain"] for result in results]))
    ax.axvline(best, color=REFERENCE, lw=1.2, ls=":")
    ax.annotate(
        "lowest validation loss", (best, most), xytext=(-4, 5), textcoords="offset points",
        fontsize=10, ha="right",
    )  # fmt: skip
    floor_line(ax, most, "first guess")
    floor_line(ax, chance, "chance")
    ax.set_ylim(0, most + 1.4)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(title="in the text", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def plot_remedies(
    results: Sequence[Mapping[str, Any]], repeated: str, *, ax: Axes | None = None
) -> Axes:
    """Exposure against validation loss, one path a run and result; of the study `memorization`.

    Epochs go from right to left, until the loss rises again: at one loss, the lower path has
    learnt less by heart. A dot ends each path.
    """
    if not results:
        raise ValueError("plot_remedies needs one result or more, got none")
    ax = new_axes(
        ax,
        xlabel="validation loss, nats per token",
        ylabel=f"exposure after {repeated} copies, bits",
    )
    names = [name for name, bits in results[0]["exposure_by_epoch"].items() if repeated in bits]
    for name, color in zip(names, COLORS, strict=False):
        for place, result in enumerate(results):
            loss = result["valid_nats_per_token"][name]
            bits = result["exposure_by_epoch"][name][repeated]
            ax.plot(loss, bits, color=color, lw=1.4, label=None if place else name)
            ax.plot(loss[-1:], bits[-1:], "o", color=color)
    floors = [result["source_nats_per_token"]["valid"] for result in results]
    floor_line(ax, float(np.mean(floors)), "the source itself", axis="x")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax


def plot_preference_tuning(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Gold gain against distance for DPO, from results of the study `preference_tuning`.

    Dots: one pass at each beta; mean, and range of the gain. Line: the run that goes on for too
    long, epoch by epoch, the mean of the results. Dotted: the best possible policy.
    """
    if not results:
        raise ValueError("plot_preference_tuning needs one result or more, got none")
    ax = new_axes(ax, height=4.4, xlabel="√KL, KL in nats a review", ylabel="gain in gold reward")
    starts = [result["dpo"]["start"]["gold"] for result in results]
    betas = [name for name in results[0]["dpo"] if name != "start"]
    kl, gains = (
        np.array([[result["dpo"][beta][key] for beta in betas] for result in results])
        for key in ("kl", "gold")
    )
    gains = gains - np.array(starts)[:, None]
    x, y = np.sqrt(kl).mean(axis=0), gains.mean(axis=0)
    spread = np.abs(np.stack([gains.min(axis=0), gains.max(axis=0)]) - y)
    blue, red = NAMED_COLORS["blue"], NAMED_COLORS["vermillion"]
    order = ", ".join(betas[place] for place in np.argsort(x))
    label = f"DPO, one pass; from left, β = {order}"
    ax.errorbar(x, y, yerr=spread, color=blue, fmt="o", capsize=3, label=label)
    long_kl, long_gain = (
        np.mean([np.array(result["overtraining"][key]) for result in results], axis=0)
        for key in ("kl", "gold")
    )
    ax.plot(
        np.sqrt(long_kl.clip(min=0)), long_gain - np.mean(starts), "o-", color=red, ms=3, lw=1.2,
        label="DPO for too long, by epoch",
    )  # fmt: skip
    shared = min(len(result["ideal"]["kl"]) for result in results)
    ideal_kl, ideal_gold = (
        np.array([result["ideal"][key][:shared] for result in results]) for key in ("kl", "gold")
    )
    ideal_gain = (ideal_gold - np.array(starts)[:, None]).mean(axis=0)
    style: dict[str, Any] = {"color": REFERENCE, "linestyle": (0, (1, 1.5)), "linewidth": 2.0}
    ax.plot(np.sqrt(ideal_kl).mean(axis=0), ideal_gain, label="best possible", **style)
    floor_line(ax, 0, "the model at the start")
    ax.legend(loc="best", fontsize=10)
    return ax


def plot_shift_parts(
    results: Sequence[Mapping[str, Any]],
    sources: Mapping[str, str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """What is paid above each source's own entropy: the unavoidable part, and the model's error.

    results: of the study `distribution_shift`. sources: those drawn, the first on top, and what the
    reader sees each called. Mean of the results; a bar shows the range of the model's error.
    """
    if not results:
        raise ValueError("plot_shift_parts needs one result or more, got none")
    ax = new_axes(
        ax, height=1.3 + 0.45 * len(sources), xlabel="nats per token above the source's entropy"
    )
    rows = np.arange(len(sources))
    unavoidable, own = (
        np.array([[result[key][name] for name in sources] for result in results])
        for key in ("unavoidable", "own_error")
    )
    left, error = unavoidable.mean(axis=0), own.mean(axis=0)
    spread = np.abs(np.stack([own.min(axis=0), own.max(axis=0)]) - error)
    ax.barh(rows, left, height=0.6, color=NAMED_COLORS["grey"], label="unavoidable KL")
    ax.barh(
        rows, error, left=left, height=0.6, color=NAMED_COLORS["vermillion"],
        label="the model's own error", xerr=spread, error_kw={"capsize": 3, "ecolor": INK},
    )  # fmt: skip
    ax.set_yticks(rows, list(sources.values()))
    ax.set_ylim(len(sources) - 0.5, -0.5)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return ax


def plot_error_by_context(
    results: Sequence[Mapping[str, Any]],
    sources: Mapping[str, str],
    lows: Sequence[int],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Mean own error by how often the context was trained on; mean, and range, of the results.

    results: of the study `distribution_shift`. sources: those drawn and what the reader sees each
    called. lows: lower edges of the bins.
    """
    if not results:
        raise ValueError("plot_error_by_context needs one result or more, got none")
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
    """Continued training on new text: what is lost on the old source against what is gained.

    results: of the study `distribution_shift`. A line goes from the model before to the model
    after; each dot is a measurement. Mean of the results; bars at the end show their range.
    """
    if not results:
        raise ValueError("plot_adaptation needs one result or more, got none")
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
        ax.plot(x.mean(axis=0), y.mean(axis=0), "o-", ms=4, color=color, label=f"{name} text")
        end = [
            np.abs(np.array([[v[:, -1].min()], [v[:, -1].max()]]) - v[:, -1].mean()) for v in (x, y)
        ]
        ax.errorbar(
            x[:, -1].mean(), y[:, -1].mean(), xerr=end[0], yerr=end[1], color=color, capsize=3
        )
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
    """AUROC of scores that should tell strange text from familiar, by kind of text.

    results: of the study `strange_text`. kinds: those drawn, the first on top, and what the reader
    sees each called. Mean, and range, of the results.
    """
    if not results:
        raise ValueError("plot_detection needs one result or more, got none")
    ax = new_axes(ax, height=1.2 + 0.5 * len(kinds), xlabel="AUROC: 1 is perfect, 0 is fooled")
    rows = np.arange(len(kinds))
    for i, (score, color, marker) in enumerate(zip(scores, COLORS, "oDs^", strict=False)):
        values = np.array([[result["auroc"][kind][score] for kind in kinds] for result in results])
        mean = values.mean(axis=0)
        spread = np.abs(np.stack([values.min(axis=0), values.max(axis=0)]) - mean)
        offset = 0.22 * (i - (len(scores) - 1) / 2)
        ax.errorbar(
            mean, rows + offset, xerr=spread, color=color, fmt=marker, capsize=3, label=score
        )
    ax.axvline(0.5, color=REFERENCE, ls="--", lw=1.2, label="chance")
    ax.set_yticks(rows, list(kinds.values()))
    ax.set_ylim(len(kinds) - 0.5, -0.5)
    ax.set_xlim(-0.04, 1.04)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return ax


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
    ax.set_yticks(rows, list(methods.values()))
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
            color=NAMED_COLORS[color], fmt=marker, capsize=3, label=reader,
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


def visible(token: str) -> str:
    """The token as a figure can show it: white space as ␣, ⏎ and ⇥, `$` without its meaning."""
    return token.translate(VISIBLE) if token else "∅"


def band(
    ax: Axes,
    x: ArrayLike,
    samples: ArrayLike,
    *,
    label: str | None = None,
    color: str | None = None,
    spread: str = "range",
) -> Axes:
    """The mean over seeds as a line, with its spread as a band.

    x: shape (points,). samples: shape (seeds, points). spread: "range" from smallest to largest,
    or "std", one sample standard deviation to each side (two seeds or more).
    """
    across = np.asarray(x, dtype=float)
    values = np.asarray(samples, dtype=float)
    if across.ndim != 1 or values.ndim != 2 or values.shape[1] != across.size or not len(values):
        raise ValueError(
            f"samples must be of shape (seeds, {across.size}) for x of shape {across.shape}, got "
            f"{values.shape}"
        )
    mean = values.mean(axis=0)
    if spread == "range":
        low, high = values.min(axis=0), values.max(axis=0)
    elif spread == "std":
        if len(values) < 2:
            raise ValueError("a standard deviation needs two seeds or more, got 1")
        deviation = values.std(axis=0, ddof=1)
        low, high = mean - deviation, mean + deviation
    else:
        raise ValueError(f'spread must be "range" or "std", got {spread!r}')
    (line,) = ax.plot(across, mean, label=label, color=color)
    ax.fill_between(across, low, high, color=line.get_color(), alpha=0.22)
    return ax


def floor_line(ax: Axes, value: int | float, label: str, *, axis: str = "y") -> Axes:
    """A dashed line at `value` on the y axis (or "x"): a floor or a baseline, with its label."""
    style: dict[str, Any] = {"color": REFERENCE, "linestyle": (0, (5, 3)), "linewidth": 1.6}
    if axis == "y":
        ax.axhline(value, label=label, **style)
    elif axis == "x":
        ax.axvline(value, label=label, **style)
    else:
        raise ValueError(f'axis must be "y" or "x", got {axis!r}')
    return ax


def plot_best_of_n(
    results: Sequence[Mapping[str, Any]],
    proxies: Mapping[str, str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Gold gain of best-of-n against the square root of its KL, from `overoptimization`.

    proxies: kinds of proxies drawn, and what the reader sees each called. Solid: the gold gain,
    mean and range over proxies and results. Dashed in the same colour: the proxy's own gain, in
    its standard deviations times the gold's, so that both start alike. The reference is the gain
    when the gold reward itself chooses.
    """
    if not results:
        raise ValueError("plot_best_of_n needs one result or more, got none")
    ax = new_axes(ax, height=4.4, xlabel="√KL, KL in nats a review", ylabel="gain in reward")
    distance = np.sqrt(results[0]["bon_kl"])
    for color, (name, words) in zip(COLORS, proxies.items(), strict=False):
        gold = np.concatenate([result["bon_gold"][name] for result in results])
        own = np.concatenate(
            [
                result["start_gold_spread"] * np.asarray(result["bon_proxy"][name])
                for result in results
            ]
        )
        band(ax, distance, gold, label=words, color=color)
        ax.plot(distance, own.mean(axis=0), color=color, lw=1.4, ls=(0, (2, 2)))
    ceiling = np.mean([result["bon_ceiling"] for result in results], axis=0)
    ax.plot(distance, ceiling, color=REFERENCE, lw=1.6, ls=(0, (5, 3)), label="gold chooses")
    ax.set_ylim(-0.2, 2 * ceiling.max())  # a proxy climbs far out of sight
    ax.legend(loc="upper left")
    return ax


def plot_policies(
    results: Sequence[Mapping[str, Any]],
    betas: Mapping[str, str],
    *,
    key: str = "gold",
    ax: Axes | None = None,
) -> Axes:
    """Gain of policies against the square root of their KL while they train: a line a result.

    results: of `overoptimization`. betas: those drawn, and what the reader sees each called. key:
    "gold" or "proxy". Five steps are averaged.
    """
    if not results:
        raise ValueError("plot_policies needs one result or more, got none")
    ax = new_axes(ax, height=4.4, xlabel="√KL, KL in nats a review", ylabel=f"gain in {key} reward")
    for color, (beta, words) in zip(COLORS, betas.items(), strict=False):
        for number, result in enumerate(results):
            curve = result["policy_curves"][beta]
            window = np.full(min(5, len(curve["kl"])), 1 / min(5, len(curve["kl"])))
            distance, gain = (
                np.convolve(curve[name], window, mode="valid") for name in ("kl", key)
            )
            ax.plot(
                np.sqrt(distance.clip(min=0)), gain, color=color, lw=1.4,
                label=None if number else words,
            )  # fmt: skip
    floor_line(ax, 0, "the model at the start")
    ax.legend(loc="best")
    return ax
