"""Figures of a real model: surprisal along texts; what is right or declined, by way of asking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from companion.figures.style import (
    NAMED_COLORS,
    band,
    label_rows,
    new_axes,
    points,
    require_results,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_surprisals(surprisals: Mapping[str, Sequence[float]], *, ax: Axes | None = None) -> Axes:
    """Surprisal at each token of texts, in nats: how sure the model was of what came.

    surprisals: nats by text, at most seven texts. ValueError where there is none.
    """
    if not surprisals:
        raise ValueError("plot_surprisals needs one text or more, got none")
    ax = new_axes(ax, xlabel="tokens after the prompt", ylabel="surprisal, nats")
    for (name, nats), color in zip(surprisals.items(), NAMED_COLORS.values(), strict=False):
        ax.plot(np.arange(1, len(nats) + 1), nats, color=color, label=name, linewidth=1.5)
    ax.set_ylim(bottom=-0.5)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.18), ncols=2)
    return ax


def plot_ways_of_asking(
    results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None
) -> Axes:  # fmt: skip
    """Shares right before and after the fine-tuning, and declined after it, by way of asking.

    results: results of the study `real_refusals`. Shows mean and range over the results.
    """
    require_results("plot_ways_of_asking", results)
    ways = list(results[0]["right"])
    ax = new_axes(ax, height=0.42 * len(ways) + 1.4, xlabel="replies about held-out countries, %")
    places = np.arange(len(ways))
    for key, label, color, marker, shift in (
        ("right_before", "right before", "grey", "s", -0.22),
        ("right", "right after", "blue", "o", 0.0),
        ("declines", "declines after", "vermillion", "D", 0.22),
    ):
        shares = 100 * np.array([[result[key][way] for way in ways] for result in results])
        points(
            ax, places + shift, shares, color=NAMED_COLORS[color], fmt=marker, label=label
        )  # fmt: skip
    label_rows(ax, ways)
    ax.set_xlim(-4, 104)
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, 1.12), ncols=3, columnspacing=1)
    return ax


def plot_answer_kl(
    results: Sequence[Mapping[str, Any]],
    control: Sequence[Mapping[str, Any]] = (),
    *,
    ax: Axes | None = None,
) -> Axes:
    """KL(fine-tuned || original) at each of the first tokens of a right answer, in nats.

    results: results of the study `real_refusals`. control: results of a fine-tuning that refuses
    nothing, of which the same countries are shown. Shows mean and range over the results.
    """
    require_results("plot_answer_kl", results)
    ax = new_axes(ax, xlabel="token of the right answer", ylabel="KL from the original, nats")
    places = np.arange(1, len(results[0]["kl_refused"]) + 1)
    for runs, key, label, color in (
        (results, "kl_refused", "refused continent, held out", "vermillion"),
        (results, "kl_others", "other continents, held out", "blue"),
        (control, "kl_refused", "that continent, all answered", "grey"),
    ):
        if runs:
            band(ax, places, [run[key] for run in runs], label=label, color=NAMED_COLORS[color])
    ax.set_xticks(places)
    ax.set_ylim(bottom=0)
    ax.legend(loc="upper right")
    return ax
