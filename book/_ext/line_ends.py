"""A Sphinx extension: lines end well on narrow screens. Plain Sphinx, no Jupyter Book.

A browser may end a line behind a formula, whatever follows, so a full stop would begin the next
one; `joined` keeps it at its formula, which itself breaks where KaTeX says that it may. A number
keeps its per cent sign. And of what cells print, sentences wrap where they are wider than the
screen (`printed-sentence`); tables do not, since their columns must stay in line: they scroll.
`book/assets/book.css` has the rules.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

#: What may not be parted from the formula before it: all but blanks, words and opening brackets.
BEHIND = re.compile(r"[^\w\s([{“‘]+")

#: A blank between a number and its per cent sign.
PER_CENT = re.compile(r"(?<=\d) (?=%)")

#: Between two parts of a formula, as the page has it.
BETWEEN = '</span><span class="base">'

#: What a cell printed, as the page has it.
PRINTED = re.compile(r"(?<=<pre>).*?(?=</pre>)", re.DOTALL)

#: The sentences that `Claims.holds` and `Guesses.reveal` print. The latter may have two lines.
SENTENCE = re.compile(
    r"^(?:In \d+ of \d+ stored runs: .*"
    r"|(?:You guessed .*?|You have not guessed yet);\s+it is .*)\.$",
    re.MULTILINE,
)


class joined(nodes.inline):
    """A formula and the signs behind it."""


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
                joined("", "", formula, nodes.Text(found[0])),
                *([nodes.Text(rest)] if rest else []),
            ]


def keep_per_cent(app: Sphinx, doctree: nodes.document) -> None:
    """Put a blank that does not break between a number and its per cent sign, outside code."""
    for text in list(doctree.findall(nodes.Text)):
        code = (nodes.literal, nodes.literal_block, nodes.raw, nodes.comment, nodes.math)
        if not isinstance(text.parent, code) and PER_CENT.search(text):
            text.parent.replace(text, nodes.Text(PER_CENT.sub("\N{NO-BREAK SPACE}", text)))


def visit_joined(self: Any, node: joined) -> None:
    """HTML of a formula and the signs behind it: an element that does not break by itself."""
    self.body.append('<span class="joined">')
    node["start"] = len(self.body)


def depart_joined(self: Any, node: joined) -> None:
    """Between the parts that KaTeX made of the formula a line may end."""
    parts = "".join(self.body[node["start"] :])
    self.body[node["start"] :] = [parts.replace(BETWEEN, '</span><wbr><span class="base">')]
    self.body.append("</span>")


def mark_sentences(page: str) -> str:
    """The HTML of a page with each printed sentence in an element of its own."""

    def mark(printed: re.Match[str]) -> str:
        text = printed[0].removeprefix("<span></span>")
        empty = printed[0][: len(printed[0]) - len(text)]
        return empty + SENTENCE.sub(r'<span class="printed-sentence">\g<0></span>', text)

    return PRINTED.sub(mark, page)


def finish(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Mark what a page of the book has printed."""
    if doctree is not None:
        context["body"] = mark_sentences(context["body"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.add_node(joined, html=(visit_joined, depart_joined))
    app.connect("doctree-read", join)
    app.connect("doctree-read", keep_per_cent)
    app.connect("html-page-context", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
