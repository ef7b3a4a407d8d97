"""Figures of translation: what a decoder reads, and shares right by dose, length and beam width."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from companion.figures.fonts import legible
from companion.figures.style import (
    NAMED_COLORS,
    floor_line,
    new_axes,
    points,
    require_results,
    tint,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def attention_html(
    source: Sequence[str], target: Sequence[str], weights: Any, position: int
) -> str:
    """The source, each token tinted by how much of it is read while target token `position` is
    written; below it the target so far, the token itself in bold. HTML, as no font need be found.

    weights: shape (target, source), each row with sum one. Raises ValueError for other shapes or a
    position outside the target.
    """
    shares = np.asarray(weights, dtype=float)
    if shares.shape != (len(target), len(source)):
        raise ValueError(
            f"weights must have shape {(len(target), len(source))}, a row a target token, got "
            f"{shares.shape}"
        )
    if not 0 <= position < len(target):
        raise ValueError(f"position must be in [0, {len(target)}), got {position}")

    def token(text: str, share: float) -> str:
        color = tint("secondary", min(1.0, max(0.0, share)))  # softmax rounds
        number = f"<br><small>{share:.0%}</small>" if share >= 0.05 else (
            '<br><small style="visibility:hidden">0</small>'
        )  # fmt: skip
        return (
            f'<span style="display:inline-block;text-align:center;padding:.15em .35em;margin:.1em;'
            f'border-radius:.35em;background:{color}">{html.escape(text)}{number}</span>'
        )

    read = "".join(token(text, share) for text, share in zip(source, shares[position], strict=True))
    before = " ".join(map(html.escape, target[:position]))
    now = f"<strong>{html.escape(target[position])}</strong>"
    return (
        f'<div><p style="line-height:1.4">{read}</p>'
        f'<p>writes: {before} {now}<span style="visibility:hidden">.</span></p></div>'
    )


def plot_translation_doses(
    results: Sequence[Mapping[str, Any]], num_pairs: int, *, ax: Axes | None = None
) -> Axes:
    """Share of unseen sentences translated right, against the number of training pairs.

    results: results of the study `translation`. num_pairs: training pairs of its main translator,
    whose controls without attention are drawn beside it. Shows mean and range over the results.
    """
    require_results("plot_translation_doses", results)
    doses = sorted(int(name) for name in results[0]["exact"] if name.isdigit())
    ax = new_axes(ax, xlabel="training pairs", ylabel="unseen sentences right, %")
    places = np.arange(len(doses) + 1)
    names = [*map(str, doses), "attention"]
    shares = 100 * np.array([[result["exact"][name] for name in names] for result in results])
    points(
        ax, places, shares, axis="y", color=NAMED_COLORS["blue"], fmt="o-", label="attention"
    )  # fmt: skip
    for name, label, color, marker in (
        ("uniform", "mean of the source", "green", "s"),
        ("none", "no attention", "vermillion", "D"),
    ):
        if name in results[0]["exact"]:
            values = 100 * np.array([[result["exact"][name]] for result in results])
            points(
                ax, places[-1:], values, axis="y", color=NAMED_COLORS[color], fmt=marker,
                label=label,
            )  # fmt: skip
    ax.set_xticks(places, [f"{dose:,}" for dose in [*doses, num_pairs]])
    ax.set_ylim(-3, 103)
    ax.legend(loc="upper left")
    return ax


def plot_translation_lengths(
    results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None
) -> Axes:
    """Share of unseen numbers translated right, by their digits: trained on short ones, or on all.

    results: results of the study `translation`. Shows mean and range over the results.
    """
    require_results("plot_translation_lengths", results)
    digits = list(results[0]["by_digits"])
    ax = new_axes(ax, xlabel="digits of the number", ylabel="numbers right, %")
    places = np.arange(len(digits))
    for key, label, color, marker, shift in (
        ("by_digits_all", "trained on all lengths", "blue", "o", -0.06),
        ("by_digits", "trained on short numbers", "vermillion", "D", 0.06),
    ):
        shares = 100 * np.array([[result[key][d] for d in digits] for result in results])
        points(
            ax, places + shift, shares, axis="y", color=NAMED_COLORS[color], fmt=f"{marker}-",
            label=label,
        )  # fmt: skip
    ax.set_xticks(places, digits)
    ax.set_ylim(-3, 103)
    ax.legend(loc="lower left")
    return ax


def plot_beam_widths(results: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Length of the translations found, against the beam's width, with and without penalty.

    results: results of the study `translation`. The noisy translator by length penalty, and the
    clean one without. Shows mean and range over the results.
    """
    require_results("plot_beam_widths", results)
    widths = list(results[0]["clean_ratio"])
    ax = new_axes(ax, xlabel="beam width", ylabel="length found / right length")
    places = np.arange(len(widths))
    penalties = list(dict.fromkeys(name.split()[0] for name in results[0]["beam_ratio"]))
    styles = (("vermillion", "D"), ("blue", "o"), ("purple", "^"))
    for penalty, (color, marker) in zip(penalties, styles, strict=False):
        ratios = [[r["beam_ratio"][f"{penalty} {width}"] for width in widths] for r in results]
        label = {"0": "by probability", "1": "by nats per token"}.get(penalty, f"penalty {penalty}")
        points(
            ax, places, ratios, axis="y", color=NAMED_COLORS[color], fmt=f"{marker}-",
            label=f"cut targets, {label}",
        )  # fmt: skip
    clean = [[result["clean_ratio"][width] for width in widths] for result in results]
    points(
        ax, places, clean, axis="y", color=NAMED_COLORS["green"], fmt="s--",
        label="clean targets, by probability",
    )  # fmt: skip
    floor_line(ax, 1, "right length")
    ax.set_xticks(places, [legible(width) for width in widths])
    ax.set_ylim(0, 1.15)
    ax.legend(loc="lower left")
    return ax
