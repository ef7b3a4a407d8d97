"""A Sphinx extension: lines end well on narrow screens. Plain Sphinx, no Jupyter Book.

A browser may end a line behind a formula, whatever follows, so a full stop would begin the next
one; `joined` keeps it at its formula, which itself may still break. And of what cells print,
sentences are wrapped where they are wider than the screen; tables are not, since their columns must
stay in line: they scroll.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from myst_nb.core.lexers import AnsiColorLexer
from pygments.token import Text
from sphinx.application import Sphinx

#: What may not be parted from the formula before it: all but blanks, words and opening brackets.
BEHIND = re.compile(r"[^\w\s([{“‘]+")

#: The sentences that `Claims.holds` and `Guesses.reveal` print. The latter may have two lines.
SENTENCE = re.compile(
    r"^(?:In \d+ of \d+ stored runs: .*"
    r"|(?:You guessed .*?|You have not guessed yet);\s+it is .*)\.$",
    re.MULTILINE,
)

#: Its class in the page is "-Sentence".
Sentence = Text.Sentence


def join(app: Sphinx, doctree: nodes.document) -> None:
    """Put each formula within a sentence into one element with the signs that follow it."""
    for formula in list(doctree.findall(nodes.math)):
        parent = formula.parent
        at = parent.index(formula)
        following = parent[at + 1] if at + 1 < len(parent) else None
        found = BEHIND.match(following.astext()) if isinstance(following, nodes.Text) else None
        if found is not None:
            rest = following.astext()[found.end() :]
            parent[at : at + 2] = [
                nodes.inline("", "", formula, nodes.Text(found[0]), classes=["joined"]),
                *([nodes.Text(rest)] if rest else []),
            ]


class OutputLexer(AnsiColorLexer):
    """MyST-NB's lexer of what cells print, with a name for sentences."""

    name = "Output of a cell"
    aliases = ("cell-output",)

    def get_tokens_unprocessed(
        self, text: str, stack: tuple[str, ...] = ("root",)
    ) -> Iterator[tuple[int, Any, str]]:
        """Position, kind and text of each piece."""
        for start, kind, piece in super().get_tokens_unprocessed(text, stack):
            if kind is not Text:
                yield start, kind, piece
                continue
            end = 0
            for found in SENTENCE.finditer(piece):
                yield start + end, Text, piece[end : found.start()]
                yield start + found.start(), Sentence, found[0]
                end = found.end()
            yield start + end, Text, piece[end:]


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.add_lexer("cell-output", OutputLexer)
    app.connect("doctree-read", join)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
