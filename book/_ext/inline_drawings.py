"""A Sphinx extension: a drawing within the text takes its colours from the page.

Markdown shows such a drawing as a file (`python -m tools.drawings`), and a file is black on white
wherever it is shown, as in Colab and Jupyter. On the site the file's place is taken by the `<svg>`
itself, which is in the page's colours, light or dark, as the drawings that cells show.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # where the book is built, only the package is installed
    sys.path.insert(0, str(ROOT))

from companion.figures.drawings import CATALOGUE  # noqa: E402
from tools import drawings  # noqa: E402

FOLDER = drawings.FOLDER.relative_to(ROOT)


class InlineDrawings(SphinxPostTransform):
    """Puts each drawing into the page in place of its file."""

    default_priority = 5  # before the pictures of a page are collected
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Sphinx's entry point to a transform."""
        for image in list(self.document.findall(nodes.image)):
            path = Path(image["uri"])
            if path.parent == FOLDER:
                image.replace_self(nodes.raw("", CATALOGUE[path.stem].svg, format="html"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.add_post_transform(InlineDrawings)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
