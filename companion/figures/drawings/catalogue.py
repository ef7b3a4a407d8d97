"""The list of all drawings, and the decorator that puts one there."""

from __future__ import annotations

from collections.abc import Callable

from companion.figures.drawings.canvas import Canvas, Drawing

#: Name -> drawing, in the book's order.
CATALOGUE: dict[str, Drawing] = {}

Draw = Callable[[Canvas], None]


def drawn(
    name: str, *, chapter: str, height: int, alt: str, opens: bool = True
) -> Callable[[Draw], Draw]:
    """Draws what the function below it draws, once, and lists it as `name`."""

    def draw_and_list(draw: Draw) -> Draw:
        canvas = Canvas(height)
        draw(canvas)
        text = " ".join(alt.split())
        CATALOGUE[name] = Drawing(
            name=name, chapter=chapter, alt=text, svg=canvas.svg(text), opens=opens
        )
        return draw

    return draw_and_list
