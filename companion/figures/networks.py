"""Drawings of recurrent networks: boxes and arrows, no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from companion.figures.fonts import legible
from companion.figures.style import INK, NAMED_COLORS, REFERENCE, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Size of the letters in points: at 390 px, where a figure has 55 % of its width, still 12 px.
LETTERS = 16
#: Heights of the rows of the unrolled graph.
TOKEN, INPUT, HIDDEN, LOGITS, LOSS = 0.0, 0.75, 1.95, 3.15, 3.95


def plot_unrolled(
    tokens: Sequence[str],
    *,
    backward: bool = False,
    cut: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A recurrent network unrolled over `tokens`, of which each but the first is a target as well.

    backward: draw the way of the gradient as well, from the losses down and to the left.
    cut: end a window behind this number of steps; the state passes, the gradient does not.
    Raises ValueError for fewer than two tokens, and for a cut that lies outside.
    """
    steps = len(tokens) - 1
    if steps < 1:
        raise ValueError(f"a step reads one token and predicts another; got {len(tokens)} tokens")
    if cut is not None and not 1 <= cut < steps:
        raise ValueError(f"cut must be between 1 and {steps - 1}, the steps but one, got {cut}")
    ax = _paper(ax, height=4.4, low=(-0.75, -0.35), high=(steps - 0.3, 4.3))
    down: dict[str, Any] = {"color": NAMED_COLORS["vermillion"], "lw": 2.4}
    for t in range(steps):
        _letters(ax, t, TOKEN, tokens[t], size=LETTERS - 2)
        _box(ax, t, INPUT, f"$x_{t + 1}$")
        _box(ax, t, HIDDEN, f"$h_{t + 1}$", color=NAMED_COLORS["blue"])
        _box(ax, t, LOGITS, f"$z_{t + 1}$")
        _letters(ax, t, LOSS, tokens[t + 1] + "?", size=LETTERS - 2)
        _arrow(ax, (t, INPUT + 0.28), (t, HIDDEN - 0.28))
        _arrow(ax, (t, HIDDEN + 0.28), (t, LOGITS - 0.28))
        _arrow(ax, (t - 0.72, HIDDEN), (t - 0.24, HIDDEN))
        if backward:
            _arrow(ax, (t + 0.13, LOGITS - 0.28), (t + 0.13, HIDDEN + 0.28), **down)
            if t and t != cut:
                _arrow(ax, (t - 0.24, HIDDEN - 0.16), (t - 0.76, HIDDEN - 0.16), **down)
    for words, x, y in (
        ("W", -0.16, (INPUT + HIDDEN) / 2),
        ("A", -0.16, (HIDDEN + LOGITS) / 2),
        ("U", 0.5, HIDDEN + 0.25),
    ):
        if words != "U" or steps > 1:
            _letters(ax, x, y, f"${words}$")
    _letters(ax, -0.58, HIDDEN + 0.25, "$h_0$")
    if cut is not None:
        style: dict[str, Any] = {"color": REFERENCE, "linestyle": (0, (5, 3)), "linewidth": 1.8}
        ax.plot([cut - 0.5, cut - 0.5], [-0.25, 4.2], **style)
    return ax


def plot_lstm_cell(*, ax: Axes | None = None) -> Axes:
    """One step of an LSTM: the cell along the top, three gates and the candidate below."""
    ax = _paper(ax, height=4.3, low=(-0.3, -0.6), high=(6.5, 4.1))
    top, gates, bottom = 3.4, 1.2, 0.05
    blue, orange = NAMED_COLORS["blue"], NAMED_COLORS["vermillion"]
    places = {"f": 0.9, "i": 2.0, "g": 3.1, "o": 4.5}
    _letters(ax, 0.0, top + 0.35, "$c_{t-1}$")
    _letters(ax, 6.1, top + 0.35, "$c_t$")
    _letters(ax, 6.1, 2.55, "$h_t$")
    _letters(ax, 0.0, -0.35, "$x_t,\\ h_{t-1}$")
    ax.plot([0.0, 4.5], [bottom, bottom], color=INK, lw=1.6)
    for gate, x in places.items():
        _arrow(ax, (x, bottom), (x, gates - 0.3))
        words = "tanh" if gate == "g" else "$\\sigma$"
        _box(ax, x, gates, words, color=blue if gate == "g" else orange, width=0.74)
        _letters(ax, x + (0.3 if gate in "fg" else -0.22), gates + 0.58, f"${gate}_t$")
    times, plus, shown, show = (0.9, top), (2.55, top), (5.25, 2.1), (5.25, 2.85)
    written = (2.55, 2.45)
    for start, end in (
        ((0.0, top), (0.68, top)), ((1.12, top), (2.33, top)), ((2.77, top), (6.4, top)),
        ((0.9, gates + 0.3), (0.9, top - 0.22)), ((2.0, gates + 0.3), (2.4, 2.27)),
        ((3.1, gates + 0.3), (2.7, 2.27)), ((2.55, 2.67), (2.55, top - 0.22)),
        ((5.25, top), (5.25, 3.1)), ((5.25, 2.6), (5.25, 2.32)),
        ((4.5, gates + 0.3), (5.07, 1.98)), ((5.47, 2.1), (6.4, 2.1)),
    ):  # fmt: skip
        _arrow(ax, start, end)
    for (x, y), sign in ((times, "×"), (plus, "+"), (written, "×"), (shown, "×")):
        _box(ax, x, y, sign, width=0.44, height=0.44)
    _box(ax, *show, "tanh", width=0.9, height=0.44)
    return ax


def _paper(
    ax: Axes | None, *, height: float, low: tuple[float, float], high: tuple[float, float]
) -> Axes:
    ax = new_axes(ax, height=height)
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    ax.set_axis_off()
    return ax


def _letters(ax: Axes, x: float, y: float, words: str, *, size: float = LETTERS) -> None:
    text = legible(words)
    ax.text(x, y, text, ha="center", va="center", fontsize=size, color=INK, zorder=4)


def _box(
    ax: Axes,
    x: float,
    y: float,
    words: str,
    *,
    color: str = REFERENCE,
    width: float = 0.46,
    height: float = 0.54,
) -> None:
    from matplotlib.patches import FancyBboxPatch

    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, zorder=3,
            boxstyle="round,pad=0,rounding_size=0.1", facecolor="white", edgecolor=color,
            linewidth=2,
        )
    )  # fmt: skip
    _letters(ax, x, y, words)


def _arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    color: str = INK,
    lw: float = 1.6,
) -> None:
    style: dict[str, Any] = {
        "arrowstyle": "-|>",
        "color": color,
        "lw": lw,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    ax.annotate("", end, xytext=start, arrowprops=style)
