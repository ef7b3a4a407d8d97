"""A Sphinx extension: `{chapter-map}` draws which chapter needs which, with minutes and memory.

What is drawn is read from the chapters' openings and from book/results/chapters.json when the site
is built (tools/landing.py), so the page cannot lag behind them.
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

from tools import costs, landing  # noqa: E402

FOLDED = """\
<details class="chapter-list">
<summary>The same as a table</summary>
<div class="pst-scrollable-table-container">
{table}
</div>
</details>"""


class ChapterMap(SphinxDirective):
    """The map, and below it, folded, the same as a table."""

    def run(self) -> list[nodes.Node]:
        """Sphinx's entry point to a directive."""
        builder = self.env.app.builder
        here = self.env.docname

        def link(path: Path) -> str:
            there = path.relative_to(ROOT).with_suffix("").as_posix()
            return builder.get_relative_uri(here, there)

        for path in (*landing.needs(), costs.RECORD):
            self.env.note_dependency(str(path))
        shown = landing.drawing(link) + FOLDED.format(table=landing.table(link))
        return [nodes.raw("", shown, format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.add_directive("chapter-map", ChapterMap)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
