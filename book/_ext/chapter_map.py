"""A Sphinx extension: what the landing page shows of the chapters, and the line above each one.

`{chapter-map}` draws which chapter needs which, with minutes and memory; `{first-steps}`,
`{live-picture}`, `{part-cards}` and `{cite-book}` are the landing page's other pieces. All is read
from the chapters' openings and from book/results/chapters.json when the site is built
(tools/landing.py, tools/first_screen.py), so the page cannot lag behind them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # where the book is built, only the package is installed
    sys.path.insert(0, str(ROOT))

from tools import chapters, costs, first_screen, landing  # noqa: E402

FOLDED = """\
<details class="chapter-list">
<summary>The same as a table</summary>
<div class="pst-scrollable-table-container">
{table}
</div>
</details>"""


class Piece(SphinxDirective):
    """A piece of the landing page that is made of the chapters."""

    def shown(self) -> str:
        """Its HTML."""
        raise NotImplementedError

    def link(self, path: Path) -> str:
        """The address of a chapter, from this page."""
        there = path.relative_to(ROOT).with_suffix("").as_posix()
        return self.env.app.builder.get_relative_uri(self.env.docname, there)

    def run(self) -> list[nodes.Node]:
        """Sphinx's entry point to a directive."""
        for path in (*chapters.toc_notebooks(), costs.RECORD):
            self.env.note_dependency(str(path))
        return [nodes.raw("", self.shown(), format="html")]


class ChapterMap(Piece):
    """The map, and below it, folded, the same as a table."""

    def shown(self) -> str:
        """Its HTML."""
        return landing.drawing(self.link) + FOLDED.format(table=landing.table(self.link))


class FirstSteps(Piece):
    """The buttons that begin the book."""

    def shown(self) -> str:
        """Its HTML."""
        return first_screen.buttons(self.link)


class LivePicture(Piece):
    """The picture that responds."""

    def shown(self) -> str:
        """Its HTML."""
        return first_screen.live_picture()


class PartCards(Piece):
    """The parts, with their chapters."""

    def shown(self) -> str:
        """Its HTML."""
        return first_screen.cards(self.link)


class CiteBook(Piece):
    """Version and date, and the entry for BibTeX, which the page's copy button copies."""

    def run(self) -> list[nodes.Node]:
        """Sphinx's entry point to a directive."""
        entry = first_screen.citation()
        return [
            nodes.paragraph("", first_screen.version_and_date() + "."),
            nodes.literal_block(entry, entry, language="bibtex"),
        ]


def add_line(
    app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Put the line with part, minutes and memory below a chapter's title."""
    path = ROOT / f"{name}.ipynb"
    if doctree is not None and path in chapters.toc_notebooks():
        line = first_screen.chapter_line(path)
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{line}", 1)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.add_directive("chapter-map", ChapterMap)
    app.add_directive("first-steps", FirstSteps)
    app.add_directive("live-picture", LivePicture)
    app.add_directive("part-cards", PartCards)
    app.add_directive("cite-book", CiteBook)
    app.connect("html-page-context", add_line)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
