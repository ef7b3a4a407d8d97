"""A Sphinx extension: the result of a prediction stays closed until a reader has entered a guess.

A code cell that is one line `guesses["key"] = literal  # question` gets a form beneath it, and the
output of the cell that calls `guesses.reveal("key", ...)` goes into a closed `<details>`, together
with the text and the cells with folded code that follow it, up to the next heading or the next cell
whose code is shown. Beside the output of `guesses.table()` stands a table for the reader's own
guesses. `book/assets/guesses.js` makes forms and tables work; without it they stay hidden, and a
click opens the `<details>`. `companion.teaching.Guesses` is what the cells call.
"""

from __future__ import annotations

import ast
import html
import io
import json
import re
import tokenize
from dataclasses import dataclass, field
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

#: What `Guesses.reveal` prints.
REVEALED = re.compile(
    r"^(?:You guessed .*?|You have not guessed yet);\s+it is (?P<truth>.*)\.$", re.MULTILINE
)

#: Cells whose code is folded away belong to the result that they follow.
FOLDED = {"tag_hide-input", "tag_remove-input", "tag_hide-cell"}


class guess_form(nodes.General, nodes.Element):
    """The form beneath a guess cell."""


class outcome(nodes.General, nodes.Element):
    """A result that waits."""


class guess_table(nodes.General, nodes.Element):
    """All guesses of a page beside what turned out."""


@dataclass
class Page:
    """The guesses of one page."""

    questions: dict[str, str] = field(default_factory=dict)
    truths: dict[str, str] = field(default_factory=dict)


def guess_of(source: str) -> tuple[str, str] | None:
    """Key and question of a cell that is one guess; None for any other cell.

    The question is the comment; with the guess before it where it goes on: `"a"  # or "b"`.
    """
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a line for IPython, such as %pip
        return None
    if len(body) != 1 or not isinstance(body[0], ast.Assign) or len(body[0].targets) != 1:
        return None
    target = body[0].targets[0]
    if not (isinstance(target, ast.Subscript) and ast.unparse(target.value) == "guesses"):
        return None
    if not (isinstance(target.slice, ast.Constant) and isinstance(target.slice.value, str)):
        return None
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    question = " ".join(text.lstrip("# ") for text in comments)
    if question.startswith("or "):
        question = f"{ast.get_source_segment(source, body[0].value)} {question}"
    return target.slice.value, question


def calls_of(source: str, method: str) -> list[ast.Call]:
    """The calls of `guesses.<method>` in a cell, in their order."""
    if f"guesses.{method}" not in source:
        return []
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"guesses.{method}"
    ]
    return sorted(found, key=lambda call: (call.lineno, call.col_offset))


def revealed_keys(source: str) -> list[str]:
    """The keys that a cell reveals."""
    arguments = [call.args[0] for call in calls_of(source, "reveal") if call.args]
    return [str(node.value) for node in arguments if isinstance(node, ast.Constant)]


def part_of(cell: nodes.Element, name: str) -> nodes.Element | None:
    """The source or the output of a cell."""
    for child in cell.children:
        if isinstance(child, nodes.Element) and child.get("nb_element") == f"cell_code_{name}":
            return child
    return None


def source_of(cell: nodes.Element) -> str:
    """The code of a cell; empty where it is removed."""
    part = part_of(cell, "source")
    return "" if part is None else part.astext()


def is_cell(node: nodes.Node) -> bool:
    """Whether a node is a code cell."""
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


def belongs_to_result(node: nodes.Node) -> bool:
    """Whether what follows a result is still about it."""
    if isinstance(node, nodes.section):
        return False
    return not is_cell(node) or bool(FOLDED & set(node["classes"]))  # type: ignore[index]


def add_behind(cell: nodes.Element, node: nodes.Element) -> None:
    """Put a node behind a cell."""
    cell.parent.insert(cell.parent.index(cell) + 1, node)


def close(cell: nodes.Element, keys: list[str], page: Page) -> None:
    """Move the output of `cell`, and what belongs to it, into a closed <details> behind it."""
    output = part_of(cell, "output")
    printed = "" if output is None else output.astext()
    truths = [match["truth"] for match in REVEALED.finditer(printed)]
    if output is None or len(truths) != len(keys):
        logger.warning(
            "the stored output does not reveal %s; run `make notebooks`", keys, location=cell
        )
        return
    page.truths |= dict(zip(keys, truths, strict=True))
    closed = outcome("", keys=keys)
    cell.remove(output)
    closed += nodes.container("", output, classes=["cell", "outcome-output"])
    parent = cell.parent
    at = parent.index(cell) + 1
    last = at
    while last < len(parent) and belongs_to_result(parent[last]):
        last += 1
    asks = last < len(parent) and is_cell(parent[last]) and guess_of(source_of(parent[last]))
    if asks and last > at and isinstance(parent[last - 1], nodes.paragraph):
        last -= 1  # the question of the next guess
    while last > at and isinstance(parent[last - 1], nodes.target):
        last -= 1  # the name of what comes next
    following = parent.children[at:last]
    for node in following:
        parent.remove(node)
    closed.extend(following)
    parent.insert(at, closed)


def wait(app: Sphinx, doctree: nodes.document) -> None:
    """Give a page its forms, closed results and table."""
    page = Page()
    for cell in [node for node in doctree.findall(nodes.container) if is_cell(node)]:
        source = source_of(cell)
        guess = guess_of(source)
        if guess is not None:
            key, question = guess
            page.questions[key] = question
            add_behind(cell, guess_form("", key=key, question=question))
        keys = [key for key in revealed_keys(source) if key in page.questions]
        if keys:
            close(cell, keys, page)
        if calls_of(source, "table"):
            output = part_of(cell, "output")
            if output is not None:
                output["classes"].append("guess-stored-table")
                rows = [(k, text, page.truths.get(k, "")) for k, text in page.questions.items()]
                add_behind(cell, guess_table("", rows=rows))


def identifier(prefix: str, key: str) -> str:
    """An id for the form or the result of a key."""
    return nodes.make_id(f"{prefix}-{key}")


def visit_form(self: Any, node: guess_form) -> None:
    """HTML of a form, which the script shows."""
    key, name = html.escape(node["key"]), identifier("guess", node["key"])
    self.body.append(
        f'<form class="guess" data-guess="{key}" hidden>'
        f'<label for="{name}"><span class="guess-label">Your guess</span> '
        f"{html.escape(node['question'])}</label>"
        f'<div class="guess-row"><input id="{name}" type="text" autocomplete="off" '
        'spellcheck="false" maxlength="80">'
        '<button type="submit">Enter my guess</button>'
        '<button type="button" class="guess-skip" hidden>Show it anyway</button></div>'
        '<p class="guess-status" role="status" aria-live="polite"></p></form>\n'
    )


def visit_outcome(self: Any, node: outcome) -> None:
    """HTML of a result that waits: a closed <details> with or without the script."""
    keys = html.escape(json.dumps(node["keys"]))
    name = identifier("outcome", node["keys"][0])
    self.body.append(
        f'<details class="outcome" id="{name}" data-guess="{keys}">'
        "<summary>The result: make your guess first, then open it</summary>"
        '<div class="outcome-guess" hidden></div>\n'
    )


def depart_outcome(self: Any, node: outcome) -> None:
    """The end of the <details>."""
    self.body.append("</details>\n")


def visit_table(self: Any, node: guess_table) -> None:
    """HTML of the table, which the script fills and shows."""
    self.body.append(
        '<div class="guess-table" hidden><table class="table"><caption>Your guesses on this page'
        '</caption><thead><tr><th scope="col">Question</th><th scope="col">Your guess</th>'
        '<th scope="col">Truth</th></tr></thead><tbody>'
    )
    for key, question, truth in node["rows"]:
        # Two questions may read the same ("% right"): the key tells them apart.
        question = f"{key}: {question}" if question else key
        key, question, truth = map(html.escape, (key, question, truth))
        self.body.append(
            f'<tr data-guess="{key}" data-truth="{truth}"><th scope="row">{question}</th>'
            "<td>no guess yet</td><td>not yet</td></tr>"
        )
    self.body.append(
        '</tbody></table><button type="button" class="guess-forget">Forget my guesses</button>'
        "</div>\n"
    )


def depart_nothing(self: Any, node: nodes.Element) -> None:
    """All is written."""


def add_script(app: Sphinx, page: str, template: str, context: Any, doctree: Any) -> None:
    """The script, on pages that ask for guesses."""
    if doctree is not None and any(True for _ in doctree.findall(guess_form)):
        app.add_js_file("guesses.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.add_node(guess_form, html=(visit_form, depart_nothing))
    app.add_node(outcome, html=(visit_outcome, depart_outcome))
    app.add_node(guess_table, html=(visit_table, depart_nothing))
    app.connect("doctree-read", wait)
    app.connect("html-page-context", add_script)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
