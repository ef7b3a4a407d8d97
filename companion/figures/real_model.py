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
    """Surprisal at each token of texts, in bits: how sure the model was of what came.

    surprisals: nats by text, at most seven texts. ValueError where there is none.
    """
    if not surprisals:
        raise ValueError("plot_surprisals needs one text or more, got none")
    ax = new_axes(ax, xlabel="tokens after the prompt", ylabel="surprisal, bits")
    for (name, nats), color in zip(surprisals.items(), NAMED_COLORS.values(), strict=False):
        bits = np.asarray(nats, dtype=float) / np.log(2)
        ax.plot(np.arange(1, len(bits) + 1), bits, color=color, label=name, linewidth=1.5)
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


def plot_answer_kl(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """KL(fine-tuned || original) at each of the first tokens of a right answer, in nats.

    results: results of the study `real_refusals`. Shows mean and range over the results.
    """
    require_results("plot_answer_kl", results)
    ax = new_axes(ax, xlabel="token of the right answer", ylabel="KL from the original, nats")
    places = np.arange(1, len(results[0]["kl_refused"]) + 1)
    for key, label, color in (
        ("kl_refused", "refused continent, held out", "vermillion"),
        ("kl_others", "other continents, held out", "blue"),
    ):
        band(ax, places, [result[key] for result in results], label=label,
             color=NAMED_COLORS[color])  # fmt: skip
    ax.set_xticks(places)
    ax.set_ylim(bottom=0)
    ax.legend(loc="upper right")
    return ax
