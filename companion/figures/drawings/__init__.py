"""Schematic drawings: one that opens each chapter, of what it is about, and some within the text.

`drawing("three-stages")` as the last expression of a cell shows it: SVG within the page, in the
page's colours, without script, fonts or files. Those within a text are files below
book/assets/drawings (`python -m tools.drawings`). Each module here draws one part of the book.
"""

from companion.figures.drawings import (  # noqa: F401  (each lists its drawings on import)
    background,
    cross_entropy,
    training,
    objective_mismatch,
    mismatched_generalization,
    practice,
)
from companion.figures.drawings.canvas import Drawing
from companion.figures.drawings.catalogue import CATALOGUE

__all__ = ["CATALOGUE", "Drawing", "drawing"]


def drawing(name: str) -> Drawing:
    """The drawing called `name`; ValueError, with all names, when there is none."""
    if name not in CATALOGUE:
        raise ValueError(f"no drawing is called {name!r}; there are: {', '.join(CATALOGUE)}")
    return CATALOGUE[name]
