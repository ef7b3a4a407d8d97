"""The style of the book's figures, and elements that several of them draw."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from numpy.typing import ArrayLike, NDArray

from companion.figures.fonts import installed_families, legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe and Ito's colours for colour-blind readers, in the order in which lines use them; without
#: black and yellow, which is hardly visible on white.
NAMED_COLORS: dict[str, str] = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "grey": "#6B7378",
}
#: The same as a list, for things that are numbered.
COLORS: list[str] = list(NAMED_COLORS.values())

#: Colour of text and axes.
INK = "#22282B"
#: Colour of floors, baselines and other references.
REFERENCE = "#4A5257"

#: Per cent of an accent of the page behind text, at most: with more of it the page's text would not
#: be legible, in the dark least.
STRONGEST_TINT = 36

#: Width and height in inches; at 100 CSS pixels per inch a figure fits the book's column, and its
#: text is legible on a phone.
SIZE = (6.4, 3.7)

#: Visible characters for white space; `$` is escaped, as it would begin a formula.
VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "$": r"\$"})


def use_style() -> None:
    """Set the book's style for all figures from here on, and in notebooks their resolution.

    The background is white, so that figures are legible on light and dark pages. The font is DejaVu
    Sans, which comes with matplotlib, so that figures look the same on every machine; characters
    that it lacks come from installed fonts.
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
            "font.family": installed_families(),
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

        # Without bbox_inches=None each figure is cropped to its contents, so widths would differ.
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
    """`ax`, or if it is None the Axes of a new figure, `width` by `height` inches; with labels."""
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height))
    if xlabel:
        ax.set_xlabel(legible(xlabel))
    if ylabel:
        ax.set_ylabel(legible(ylabel))
    if title:
        ax.set_title(legible(title, weight=mpl.rcParams["axes.titleweight"]))
    return ax


def band(
    ax: Axes,
    x: ArrayLike,
    samples: ArrayLike,
    *,
    label: str | None = None,
    color: str | None = None,
) -> Axes:
    """Plot the mean over seeds as a line, with the range from smallest to largest as a band.

    x: shape (points,). samples: shape (seeds, points).
    """
    across = np.asarray(x, dtype=float)
    values = np.asarray(samples, dtype=float)
    if across.ndim != 1 or values.ndim != 2 or values.shape[1] != across.size or not len(values):
        raise ValueError(
            f"samples must be of shape (seeds, {across.size}) for x of shape {across.shape}, got "
            f"{values.shape}"
        )
    low, high = values.min(axis=0), values.max(axis=0)
    (line,) = ax.plot(across, values.mean(axis=0), label=label and legible(label), color=color)
    ax.fill_between(across, low, high, color=line.get_color(), alpha=0.22)
    return ax


def mean_and_range(samples: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean over results, and the distances to the lowest and highest, for error bars.

    samples: shape (results, points). Returns shapes (points,) and (2, points).
    """
    values = np.asarray(samples, dtype=float)
    mean = values.mean(axis=0)
    return mean, np.abs(np.stack([values.min(axis=0), values.max(axis=0)]) - mean)


def points(
    ax: Axes, places: ArrayLike, samples: ArrayLike, *, axis: str = "x", **style: Any
) -> Axes:
    """Plot the means over results as points, with error bars from the lowest to the highest.

    places: shape (points,), positions on the axis without values. samples: shape (results, points).
    axis: axis of the values, "x" or "y". style: arguments of matplotlib's `errorbar`.
    """
    mean, spread = mean_and_range(samples)
    if axis == "x":
        ax.errorbar(mean, places, xerr=spread, capsize=3, **style)
    else:
        ax.errorbar(places, mean, yerr=spread, capsize=3, **style)
    return ax


def label_rows(ax: Axes, labels: Iterable[str]) -> Axes:
    """Name the rows at y = 0, 1, ... of a horizontal plot, the first on top."""
    words = [legible(label) for label in labels]
    ax.set_yticks(range(len(words)), words)
    ax.set_ylim(len(words) - 0.5, -0.5)
    return ax


def text_on(color: Any) -> str:
    """ "white" or "black", whichever has the higher contrast on the colour: at least 4.5 to 1."""
    channels = np.asarray(mpl.colors.to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "white" if 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 else "black"


def tint(accent: str, share: float) -> str:
    """A background in CSS: `share` of the strongest tint of the page's accent "primary" or
    "secondary", on which the page's text is legible by day and by night.

    Raises ValueError for another accent and a share outside [0, 1].
    """
    colors = {"primary": "#2b93a2", "secondary": "#d2701c"}  # where no page names its accents
    if accent not in colors or not 0 <= share <= 1:
        raise ValueError(
            f"a tint needs primary or secondary and a share in [0, 1], got {accent!r}, {share}"
        )
    strength = f"{STRONGEST_TINT * share:.0f}%"
    return f"color-mix(in srgb,var(--pst-color-{accent},{colors[accent]}) {strength},transparent)"


def require_results(name: str, results: Sequence[Any]) -> None:
    """Raise ValueError where the function `name` was given no result."""
    if not len(results):
        raise ValueError(f"{name} needs one result or more, got none")


def floor_line(
    ax: Axes,
    value: int | float,
    label: str,
    *,
    axis: str = "y",
    dashes: tuple[int | float, ...] = (5, 3),
) -> Axes:
    """Draw a labelled dashed line at `value` of the axis "y" or "x": a floor or a baseline.

    dashes: lengths of the line's strokes and gaps in turn, in widths of the line; where there are
    two references, give them different dashes.
    """
    style: dict[str, Any] = {"color": REFERENCE, "linestyle": (0, dashes), "linewidth": 1.6}
    label = legible(label)
    if axis == "y":
        ax.axhline(value, label=label, **style)
    elif axis == "x":
        ax.axvline(value, label=label, **style)
    else:
        raise ValueError(f'axis must be "y" or "x", got {axis!r}')
    return ax


def visible(token: str, *, family: str | list[str] | None = None) -> str:
    """The token as shown in a figure: white space as ␣, ⏎ and ⇥, `$` escaped.

    Invisible characters, and those that no installed font of `family` has, are written as code
    points, such as U+200D.
    """
    shown = legible(token.translate(VISIBLE), family=family)
    return "".join(s if s.isprintable() else f"U+{ord(s):04X}" for s in shown) if token else "∅"
