"""Figures of dialogues: a dialogue with its verdicts, scores against success, and users met."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from companion.figures.fonts import legible
from companion.figures.style import (
    COLORS,
    NAMED_COLORS,
    SIZE,
    mean_and_range,
    new_axes,
    points,
    require_results,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def dialogue_html(turns: Sequence[tuple[str, str]], verdicts: Sequence[str]) -> str:
    """A dialogue as HTML: the user's sentences on the left, the bot's replies on the right, each
    wrong one tinted and with its verdict below it.

    verdicts: a word or two on each reply, "right" for the right ones. ValueError for another number
    of verdicts than of turns.
    """
    if len(turns) != len(verdicts):
        raise ValueError(f"verdicts must be one a turn, got {len(verdicts)} for {len(turns)} turns")
    rows = []
    bubble = "display:inline-block;padding:.2em .6em;border-radius:.7em;max-width:85%"
    for (said, reply), verdict in zip(turns, verdicts, strict=True):
        right = verdict == "right"
        tint = "secondary,#d2701c) 32%" if not right else "primary,#2b93a2) 16%"
        color = f"color-mix(in srgb,var(--pst-color-{tint},transparent)"
        told = "" if right else f"<br><small><strong>{html.escape(verdict)}</strong></small>"
        rows.append(
            f'<p style="margin:.15em 0"><span style="{bubble};border:1px solid currentColor">'
            f"{html.escape(said)}</span></p>"
            f'<p style="margin:.15em 0;text-align:right"><span style="{bubble};text-align:left;'
            f'background:{color}">{html.escape(reply) or "(nothing)"}{told}</span></p>'
        )
    return f"<div>{''.join(rows)}</div>"


def plot_scores_against_success(
    results: Sequence[Mapping[str, Any]], alike: Sequence[str], others: Mapping[str, str]
) -> list[Axes]:
    """Success of the bots against their loss above the floor, and their BLEU, in two panels.

    results: results of the study `dialogue`. alike: bots that differ only in size and steps, in the
    order in which a line joins them. others: the other bots, and their labels. Means over the
    results, with bars from the lowest to the highest in both directions.
    """
    require_results("plot_scores_against_success", results)
    figure, (left, right) = plt.subplots(1, 2, figsize=(SIZE[0], SIZE[1] + 0.9), sharey=True)
    markers = dict(zip(others, "sD^vP*", strict=False))
    colors = dict(zip(others, [c for c in NAMED_COLORS.values() if c != NAMED_COLORS["blue"]],
                      strict=False))  # fmt: skip

    def samples(figure: str, names: Sequence[str]) -> Any:
        return np.array([[result[figure][name] for name in names] for result in results])

    floors = np.array([[result["floor_nats_per_token"]] for result in results])
    for ax, key, floor, label in (
        (left, "nats_per_token", floors, "nats a token above the floor"),
        (right, "bleu", 0, "BLEU"),
    ):
        new_axes(ax, xlabel=label)
        for names, style in (
            (list(alike), {"color": NAMED_COLORS["blue"], "fmt": "o-", "label": "size and steps"}),
            *(
                ([name], {"color": colors[name], "fmt": markers[name], "label": legible(words)})
                for name, words in others.items()
            ),
        ):
            x, x_range = mean_and_range(samples(key, names) - floor)
            y, y_range = mean_and_range(100 * samples("success", names))
            ax.errorbar(x, y, xerr=x_range, yerr=y_range, capsize=2, ms=7, lw=1.5, **style)
    left.set_xscale("log")
    left.set_ylabel("users who got their orders, %")
    left.set_ylim(-4, 104)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return [left, right]


def plot_users_met(
    results: Sequence[Mapping[str, Any]], kinds: Mapping[str, str], orders: Sequence[int]
) -> list[Axes]:
    """Right replies of the bot "full", and users who got all their orders, in two panels, by number
    of orders, with a line for each kind of user.

    results: results of the study `dialogue`. kinds: kinds of user, and their labels. orders: the
    numbers of orders, those of the study's `Config`. Mean and range over the results.
    """
    require_results("plot_users_met", results)
    figure, axes = plt.subplots(1, 2, figsize=(SIZE[0], SIZE[1] + 0.4), sharey=True)
    places = np.arange(len(orders))
    for ax, key, title in zip(
        axes, ("right_by_user", "by_user"), ("right replies", "users served"), strict=True
    ):
        new_axes(ax, xlabel="orders of a dialogue", title=title)
        for number, (kind, label) in enumerate(kinds.items()):
            shares = [[run[key]["full"][f"{kind} {count}"] for count in orders] for run in results]
            points(
                ax, places + 0.07 * (number - (len(kinds) - 1) / 2), 100 * np.array(shares),
                axis="y", fmt=f"{'osD^vP'[number]}-", color=COLORS[number], label=legible(label),
            )  # fmt: skip
        ax.set_xticks(places, [str(count) for count in orders])
        ax.set_xlim(-0.4, len(orders) - 0.6)
    axes[0].set(ylabel="%", ylim=(-4, 104))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return list(axes)
