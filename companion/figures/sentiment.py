"""Figures of sentiment: accuracy by labels and pretraining, groups, decisions by threshold."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from companion.figures.style import (
    NAMED_COLORS,
    floor_line,
    label_rows,
    new_axes,
    points,
    require_results,
    tint,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: How the classifiers of each body are drawn: label, colour, marker and line.
_BODIES = {
    "scratch": ("from scratch", "grey", "s--"),
    "pretrained": ("fine-tuned: reviews", "blue", "o-"),
    "shuffled words": ("shuffled reviews", "green", "^-"),
    "independent opinions": ("opinions disagree", "vermillion", "D-"),
}

#: The same in a few words; "fresh" is fine-tuned from a language model that was not trained.
_SHORT = {
    "scratch": "from scratch",
    "fresh": "not trained",
    "independent opinions": "disagreeing opinions",
    "pretrained": "reviews",
}


def plot_labels(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Accuracy against the number of labels, by what the classifier was built on.

    results: results of the study `sentiment`. Shows mean and range over the results.
    """
    require_results("plot_labels", results)
    doses = sorted({int(name.rpartition(" ")[2]) for name in results[0]["accuracy"]})
    ax = new_axes(ax, xlabel="labelled reviews", ylabel="unseen reviews right, %")
    places = np.arange(len(doses))
    first = results[0]["accuracy"]
    shown = [body for body in _BODIES if any(f"{body} {dose}" in first for dose in doses)]
    for number, body in enumerate(shown):
        label, color, line = _BODIES[body]
        has = [i for i, dose in enumerate(doses) if f"{body} {dose}" in first]
        shares = [[100 * r["accuracy"][f"{body} {doses[i]}"] for i in has] for r in results]
        points(
            ax, places[has] + 0.06 * (number - (len(shown) - 1) / 2), shares, axis="y",
            color=NAMED_COLORS[color], fmt=line, label=label,
        )  # fmt: skip
    floor_line(ax, 50, "guessing")
    ax.set_xticks(places, [f"{dose:,}" for dose in doses])
    ax.set_ylim(12, 102)  # room for the legend
    ax.legend(loc="lower right")
    return ax


def plot_stages(
    results: Sequence[Mapping[str, Any]], steps: int, *, labels: int = 10, ax: Axes | None = None
) -> Axes:
    """What a language model knows of sentiment, and accuracy with few labels, by its training.

    results: results of the study `sentiment`. steps: steps of its main language model. labels: the
    classifiers' number of labels. Shows mean and range over the results.
    """
    require_results("plot_stages", results)
    names = {
        int(name.split()[0]): name for name in results[0]["agreement"] if name.endswith(" steps")
    }
    names[steps] = "pretrained"
    order = sorted(names)
    ax = new_axes(ax, xlabel="steps of pretraining", ylabel="%")
    places = np.arange(len(order))
    agreement = [[100 * r["agreement"][names[n]] for n in order] for r in results]
    points(
        ax, places - 0.03, agreement, axis="y", color=NAMED_COLORS["purple"], fmt="^--",
        label="opinion words that agree",
    )  # fmt: skip
    right = [[100 * r["accuracy"][f"{names[n]} {labels}"] for n in order] for r in results]
    points(
        ax, places + 0.03, right, axis="y", color=NAMED_COLORS["blue"], fmt="o-",
        label=f"right with {labels} labels",
    )  # fmt: skip
    scratch = float(np.mean([r["accuracy"][f"scratch {labels}"] for r in results]))
    floor_line(ax, 100 * scratch, f"from scratch, {labels} labels")
    ax.set_xticks(places, [f"{n:,}" for n in order])
    ax.set_ylim(38, 102)
    ax.legend(loc="upper left")
    return ax


def plot_cue_groups(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Accuracy where a cue usually agrees with the label, and in the worst group, by training.

    results: results of the study `sentiment`. Shows mean and range over the results.
    """
    require_results("plot_cue_groups", results)
    names = list(results[0]["cue_worst"])
    ax = new_axes(ax, height=0.5 * len(names) + 1.4, xlabel="unseen reviews right, %")
    places = np.arange(len(names))
    for key, label, color, marker, shift in (
        ("cue_same", "cue as in training", "blue", "o", -0.1),
        ("cue_worst", "worst group", "vermillion", "D", 0.1),
    ):
        shares = [[100 * result[key][name] for name in names] for result in results]
        points(ax, places + shift, shares, color=NAMED_COLORS[color], fmt=marker, label=label)
    rows = [name.rpartition(" ") for name in names]
    label_rows(ax, [f"{_SHORT.get(body, body)}, {way}" for body, _, way in rows])
    ax.set_xlim(None, 102)
    ax.legend(loc="lower left")
    return ax


def decisions_html(
    counts: Mapping[str, int],
    *,
    positive: str,
    negative: str,
    miss: float,
    false_alarm: float,
) -> str:
    """A table of right and wrong decisions, with precision, recall, F1 and what they cost.

    counts: `true_positives`, `false_positives`, `false_negatives` and `true_negatives`.
    """
    keys = ("true_positives", "false_negatives", "false_positives", "true_negatives")
    tp, fn, fp, tn = (int(counts[key]) for key in keys)
    total = tp + fn + fp + tn
    if min(tp, fn, fp, tn) < 0 or total == 0:
        raise ValueError(f"counts must be >= 0 and not all 0, got {dict(counts)}")

    def cell(number: int, of: int, right: bool) -> str:
        color = tint("primary" if right else "secondary", number / max(1, of))
        return (
            f'<td style="background:{color};padding:.5em 1em;text-align:right;'
            f'font-variant-numeric:tabular-nums">{number:,}</td>'
        )

    def share(part: int, whole: int) -> str:
        return f"{part / whole:.0%}" if whole else "none flagged"

    cost = (miss * fn + false_alarm * fp) / total
    said = " · ".join(
        [
            f"precision {share(tp, tp + fp)}", f"recall {share(tp, tp + fn)}",
            f"F1 {2 * tp / max(1, 2 * tp + fp + fn):.2f}", f"accuracy {(tp + tn) / total:.1%}",
            f"cost {cost:.3f} a review",
        ]
    )  # fmt: skip
    head = "".join(
        f'<th scope="col" style="padding:.3em 1em">{word}</th>'
        for word in ("flagged", "not flagged")
    )
    rows = "".join(
        f'<tr><th scope="row" style="padding:.3em 1em;text-align:left">{html.escape(name)}</th>'
        f"{''.join(cells)}</tr>"
        for name, cells in (
            (positive, (cell(tp, tp + fn, True), cell(fn, tp + fn, False))),
            (negative, (cell(fp, fp + tn, False), cell(tn, fp + tn, True))),
        )
    )
    return (
        f'<div><table style="margin:0 0 .6em"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table><p>{said}</p></div>"
    )
