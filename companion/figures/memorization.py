"""Figures of overfitting, of canaries, and of remedies against memorization."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from companion.figures.fonts import legible
from companion.figures.style import (
    COLORS,
    NAMED_COLORS,
    REFERENCE,
    SIZE,
    band,
    floor_line,
    label_rows,
    new_axes,
    points,
    require_results,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_fit(
    results: Sequence[Mapping[str, Any]], run: str, text: str, *, ax: Axes | None = None
) -> Axes:
    """Training and validation loss by epoch, with the floor.

    results: results of the study `memorization`. run: "plain" or another of its runs. text: the
    training text whose surprisal under the source is the floor, "train" or "few texts". Shows mean
    and range over the results.
    """
    require_results("plot_fit", results)
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
    """Exposure of canaries by epoch, with one line for each number of repetitions.

    results: results of the study `memorization`. most: exposure in bits of a code that is the
    model's first guess. chance: mean exposure in bits of a code that was never seen. Shows mean and
    range over the results; a dotted line marks the mean epoch of the lowest validation loss.
    """
    require_results("plot_exposure", results)
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
    floor_line(ax, chance, "chance", dashes=(6, 2, 1, 2))
    ax.set_ylim(0, most + 1.4)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(title="in the text", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def plot_remedies(
    results: Sequence[Mapping[str, Any]], repeated: str, *, ax: Axes | None = None
) -> Axes:
    """Exposure against validation loss, with one path for each run and result.

    results: results of the study `memorization`. repeated: number of repetitions of the canaries.
    Epochs go from right to left until the loss rises again; at equal loss, the lower path has
    memorised less. Each path ends with a dot.
    """
    require_results("plot_remedies", results)
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
            ax.plot(loss, bits, color=color, lw=1.4, label=None if place else legible(name))
            ax.plot(loss[-1:], bits[-1:], "o", color=color)
    floors = [result["source_nats_per_token"]["valid"] for result in results]
    floor_line(ax, float(np.mean(floors)), "the source itself", axis="x")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax


def plot_strengths(
    results: Sequence[Mapping[str, Any]], *, margin: int | float = 0.05
) -> tuple[Axes, Axes]:
    """What remedies of several strengths leave at equal loss, and the loss each reaches; two panels
    of a new figure.

    results: results of the study `memorization`. margin: the study's setting, in nats per token.
    Left, exposure where a run first reaches the lowest validation loss of "plain", and where it is
    `margin` above it; the dashed line is that of "plain" at its lowest loss. Where not all results
    reach the loss, the number of those that do stands beside the point, which is about them alone.
    Right, the lowest loss of each run. Shows mean and range over the results.
    """
    require_results("plot_strengths", results)
    names = list(results[0]["best_exposure"])
    size = SIZE[0], 1.5 + 0.42 * len(names)
    _, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=(3, 2))
    for key, shift, color, label in (
        ("near_exposure", -0.16, "blue", f"{margin:g} nats above plain's lowest loss"),
        ("matched_exposure", 0.16, "vermillion", "at plain's lowest loss"),
    ):
        style: dict[str, Any] = {"color": NAMED_COLORS[color], "fmt": "o", "ms": 5}
        for row, name in enumerate(names):
            bits = [[result[key][name]] for result in results if name in result[key]]
            if bits:
                points(left, [row + shift], bits, label=None if row else label, **style)
            if len(bits) < len(results):
                place = max(bits)[0] if bits else 0.0
                left.annotate(
                    f"{len(bits)} of {len(results)}", (place, row + shift), xytext=(6, 0),
                    textcoords="offset points", va="center", fontsize=11, color=style["color"],
                    zorder=4, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )  # fmt: skip
    plain = float(np.mean([result["matched_exposure"]["plain"] for result in results]))
    left.axvline(plain, color=REFERENCE, ls="--", lw=1.2)
    left.set_xlim(left=0)
    lowest = [[result["lowest_nats_per_token"][name] for name in names] for result in results]
    points(right, range(len(names)), lowest, color=NAMED_COLORS["green"], fmt="o", ms=5)
    start = float(np.mean([result["lowest_nats_per_token"]["plain"] for result in results]))
    right.axvline(start, color=REFERENCE, ls="--", lw=1.2)
    new_axes(left, xlabel="exposure, bits")
    new_axes(right, xlabel="lowest loss, nats")
    label_rows(left, names)
    left.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), fontsize=10)
    return left, right
