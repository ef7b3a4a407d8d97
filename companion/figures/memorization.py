"""Figures of planted codes and of what limits their memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator

from companion.figures.fonts import legible
from companion.figures.style import COLORS, REFERENCE, band, floor_line, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
            ax.plot(loss, bits, color=color, lw=1.4, label=None if place else legible(name))
            ax.plot(loss[-1:], bits[-1:], "o", color=color)
    floors = [result["source_nats_per_token"]["valid"] for result in results]
    floor_line(ax, float(np.mean(floors)), "the source itself", axis="x")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax
