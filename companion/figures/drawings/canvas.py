"""Shapes and words of a drawing, written as SVG that takes its colours from the page.

Lengths are in the drawing's own units. A drawing is 360 of them wide, about as many as a phone's
column has pixels, so that text of size 12 is legible there. No element has an id, so any number of
drawings may stand on one page.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from dataclasses import dataclass

#: Colour of text and lines: that of the text around the drawing.
INK = "currentColor"
#: First accent: what is wanted, seen or covered. The fallbacks of both are legible as lines and
#: areas on white and on the dark backgrounds of Colab, JupyterLab and VS Code.
MAIN = "var(--pst-color-primary,#2b93a2)"
#: Second accent: what is missed, new or left open.
OTHER = "var(--pst-color-secondary,#d2701c)"
FONT = "var(--pst-font-family-base,system-ui,sans-serif)"

WIDTH = 360
#: Size of text; no text is smaller.
SIZE = 12
LINE = 15
#: Pixels on a large screen per unit of the drawing.
LARGEST = 4 / 3

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A drawing, shown where it is the last expression of a cell."""

    name: str
    """Name by which `drawing` finds it."""
    chapter: str
    """File name of the chapter that it opens, without its ending."""
    alt: str
    """Alternative text: what the drawing shows, in one to three sentences."""
    svg: str
    """One `<svg>` element, for the inside of an HTML page."""
    opens: bool = True
    """Whether it opens its chapter; others stand in the text, as files (`file_svg`)."""

    @property
    def file_svg(self) -> str:
        """The same for a file of its own, black and on white, as Colab and Jupyter show it.

        A file gets no colours from a page, so the fallbacks of the accents are used. The site puts
        `svg` in its place (book/_ext/inline_drawings.py).
        """
        height = int(self.svg.partition(f'viewBox="0 0 {WIDTH} ')[2].partition('"')[0])
        head, _, rest = self.svg.partition(' style="')
        size = f' width="{round(WIDTH * LARGEST)}" height="{round(height * LARGEST)}"'
        shapes = rest.partition('"')[2].replace(INK, "#22282b")
        for accent in (MAIN, OTHER, FONT):
            shapes = shapes.replace(accent, accent.partition(",")[2].removesuffix(")"))
        first, _, others = shapes.partition("\n")
        return f'{head}{size}{first}\n<rect width="100%" height="100%" fill="#fff"/>\n{others}\n'

    def _repr_html_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        """The alternative text."""
        return self.alt


class Canvas:
    """Collects shapes; every method adds one and takes coordinates from the upper left corner."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        *lines: str,
        anchor: str = "middle",
        bold: bool = False,
        italic: bool = False,
        size: float = SIZE,
    ) -> None:
        """Lines of text, centred vertically on `y`. anchor: which part lies at `x`."""
        style = _attributes(
            text_anchor=anchor if anchor != "start" else "",
            font_weight="600" if bold else "",
            font_style="italic" if italic else "",
            font_size=_n(size) if size != SIZE else "",
        )
        top = y - LINE * (len(lines) - 1) / 2 + 0.36 * size
        for i, line in enumerate(lines):
            if not line:
                continue
            self.parts.append(
                f'<text x="{_n(x)}" y="{_n(top + LINE * i)}"{style}>{html.escape(line)}</text>'
            )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *lines: str,
        color: str = INK,
        dashed: bool = False,
        bold: bool = False,
        tint: float = 0.12,
        radius: float = 5,
    ) -> None:
        """A tinted rectangle with round corners and centred lines of text."""
        self.parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" '
            f'rx="{_n(radius)}"{_paint(color, dashed, fill=None)} fill="{color}" '
            f'fill-opacity="{_n(tint)}"/>'
        )
        self.text(x + width / 2, y + height / 2, *lines, bold=bold)

    def bar(
        self, x: float, y: float, width: float, height: float, color: str = MAIN, fill: float = 0.75
    ) -> None:
        """A filled rectangle without an outline."""
        self.parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"'
            f' fill="{color}" fill-opacity="{_n(fill)}" stroke="none"/>'
        )

    def circle(
        self, x: float, y: float, radius: float, *lines: str, color: str = INK, tint: float = 0.12
    ) -> None:
        """A tinted circle with centred text."""
        self.parts.append(
            f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"'
            f'{_paint(color, fill=None)} fill="{color}" fill-opacity="{_n(tint)}"/>'
        )
        self.text(x, y, *lines)

    def line(
        self, *points: Point, color: str = INK, dashed: bool = False, width: float = 1.5
    ) -> None:
        """A line through points."""
        self.parts.append(f'<polyline points="{_listed(points)}"{_paint(color, dashed, width)}/>')

    def arrow(
        self, *points: Point, color: str = INK, dashed: bool = False, width: float = 1.5
    ) -> None:
        """A line through points with a head at the last."""
        (x0, y0), (x, y) = points[-2:]
        length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
        u, v = (x - x0) / length, (y - y0) / length
        self.line(*points[:-1], (x - 5 * u, y - 5 * v), color=color, dashed=dashed, width=width)
        corners = ((x, y), *((x - 8 * u - s * v, y - 8 * v + s * u) for s in (4, -4)))
        self.parts.append(f'<polygon points="{_listed(corners)}" fill="{color}" stroke="none"/>')

    def graph(
        self,
        function: Callable[[float], float],
        left: float,
        right: float,
        *,
        color: str = INK,
        dashed: bool = False,
        base: float | None = None,
    ) -> None:
        """The curve y = function(x) from `left` to `right`, in the drawing's units.

        base: y down to which the area below the curve is tinted.
        """
        steps = 60
        xs = [left + (right - left) * i / steps for i in range(steps + 1)]
        points = [(x, function(x)) for x in xs]
        if base is not None:
            area = [(left, base), *points, (right, base)]
            self.parts.append(
                f'<polygon points="{_listed(area)}" fill="{color}" fill-opacity="0.18" '
                'stroke="none"/>'
            )
        self.line(*points, color=color, dashed=dashed, width=2)

    def svg(self, alt: str) -> str:
        """The finished element; `alt` is what screen readers read."""
        style = (
            f"display:block;width:100%;max-width:{round(WIDTH * LARGEST)}px;height:auto;"
            "margin:1rem auto"
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" role="img" '
            f'aria-label="{html.escape(alt)}" viewBox="0 0 {WIDTH} {self.height}" style="{style}" '
            f'font-family="{FONT}" font-size="{SIZE}" fill="{INK}" stroke-linejoin="round">\n'
            + "\n".join(self.parts)
            + "\n</svg>"
        )


def _paint(color: str, dashed: bool = False, width: float = 1.5, fill: str | None = "none") -> str:
    return _attributes(
        stroke=color,
        stroke_width=_n(width),
        stroke_dasharray="5 4" if dashed else "",
        fill=fill or "",
    )


def _attributes(**values: str) -> str:
    return "".join(f' {key.replace("_", "-")}="{value}"' for key, value in values.items() if value)


def _listed(points: Iterable[Point]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _n(value: float) -> str:
    """At most two decimals, so that rounding elsewhere gives the same text."""
    return f"{round(value, 2):g}"
