"""Results that wait for a guess: what the site's extension makes of a page; none is built."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docutils import nodes
from docutils.utils import new_document
from extensions import extension

ROOT = Path(__file__).resolve().parents[2]


waiting = extension("waiting_results")


def cell(source: str, output: str = "", tag: str = "") -> nodes.container:
    """A code cell as myst-nb puts it into a page."""
    made = nodes.container(nb_element="cell_code", classes=["cell", f"tag_{tag}"])
    made += nodes.container(
        "", nodes.literal_block("", source), nb_element="cell_code_source", classes=["cell_input"]
    )
    if output:
        made += nodes.container(
            "",
            nodes.literal_block("", output),
            nb_element="cell_code_output",
            classes=["cell_output"],
        )
    return made


def paragraph(text: str) -> nodes.paragraph:
    return nodes.paragraph(text, text)


def page(*children: nodes.Node) -> nodes.document:
    document = new_document("page")
    document.extend(children)
    waiting.wait(SimpleNamespace(), document)
    return document


def only(document: nodes.document, kind: Any) -> Any:
    (found,) = list(document.findall(kind))
    return found


GUESS = 'guesses["gain"] = 2.5  # gain in reward'
REVEAL = 'gain = 0.612\nguesses.reveal("gain", gain)'
LINE = "a b\nYou guessed 2.5; it is 0.61.\n"


def test_a_guess_cell_is_one_assignment_of_a_guess() -> None:
    assert waiting.guess_of(GUESS) == ("gain", "gain in reward")
    assert waiting.guess_of('guesses["a"] = "#1"  # which # is best') == ("a", "which # is best")
    assert waiting.guess_of('guesses["a"] = "too low"  # or "too high"') == (
        "a",
        '"too low" or "too high"',
    )
    for other in (REVEAL, "guess = 1", "%pip install x", GUESS + "\nx = 1", "guesses[key] = 1"):
        assert waiting.guess_of(other) is None


def test_what_a_cell_reveals_is_read_in_order() -> None:
    source = 'guesses.reveal("b", 1)\nif x:\n    guesses.reveal("a", 2, digits=1)'
    assert waiting.revealed_keys(source) == ["b", "a"]
    assert waiting.revealed_keys("print('guesses.reveal')") == []


def test_output_text_and_folded_cells_wait_up_to_the_next_cell_that_shows_code() -> None:
    document = page(
        cell(GUESS),
        cell(REVEAL, LINE),
        paragraph("It is 0.61."),
        cell("plot()", "picture", tag="hide-input"),
        paragraph("So it is small."),
        cell("x = 1", "1"),
        paragraph("Later."),
    )
    closed = only(document, waiting.outcome)
    assert closed["keys"] == ["gain"]
    assert "0.61" in closed.astext()
    assert "picture" in closed.astext()
    assert "So it is small." in closed.astext()
    assert "gain = 0.612" not in closed.astext()  # the code stays where it was
    assert "Later." not in closed.astext()
    assert "x = 1" not in closed.astext()
    form = only(document, waiting.guess_form)
    assert (form["key"], form["question"]) == ("gain", "gain in reward")
    assert document.index(form) == 1


def test_a_result_ends_at_a_heading() -> None:
    section = nodes.section("", paragraph("Next."))
    document = page(cell(GUESS), cell(REVEAL, LINE), paragraph("So."), nodes.target(), section)
    closed = only(document, waiting.outcome)
    assert "So." in closed.astext()
    assert "Next." not in closed.astext()
    assert not list(closed.findall(nodes.target))  # it names the heading


def test_the_question_of_the_next_guess_does_not_wait() -> None:
    other = 'guesses["peak"] = 1  # the peak'
    document = page(
        cell(GUESS), cell(REVEAL, LINE), paragraph("So."), paragraph("Where is it?"), cell(other)
    )
    closed = only(document, waiting.outcome)
    assert "So." in closed.astext()
    assert "Where is it?" not in closed.astext()


def test_one_cell_may_reveal_two_guesses() -> None:
    output = LINE + "In 6 of 6 runs.\nYou guessed a;\nit is c.\nIn 6 of 6 stored runs.\n"
    other = 'guesses["peak"] = 1  # the peak'
    document = page(
        cell(GUESS),
        cell(other),
        cell(REVEAL + '\nguesses.reveal("peak", "c")', output),
        cell("guesses.table()", "key  your guess  truth"),
    )
    assert only(document, waiting.outcome)["keys"] == ["gain", "peak"]
    assert only(document, waiting.guess_table)["rows"] == [
        ("gain", "gain in reward", "0.61"),
        ("peak", "the peak", "c"),
    ]


def test_a_result_that_was_not_stored_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make book` turns warnings into errors."""
    said: list[str] = []
    monkeypatch.setattr(
        waiting.logger, "warning", lambda text, *given, **_: said.append(text % given)
    )
    document = page(cell(GUESS), cell(REVEAL, "a b"), cell("guesses.table()", "key"))
    assert said == ["the stored output does not reveal ['gain']; run `make notebooks`"]
    assert not list(document.findall(waiting.outcome))


def test_a_page_without_guesses_stays_as_it_is() -> None:
    document = page(paragraph("Text."), cell("x = 1", "1"))
    assert [type(node) for node in document.children] == [nodes.paragraph, nodes.container]


def test_what_is_written_into_the_page_is_escaped() -> None:
    builder = SimpleNamespace(body=[])
    waiting.visit_form(builder, waiting.guess_form("", key="a", question='is p < "q"?'))
    waiting.visit_outcome(builder, waiting.outcome("", keys=["a b", "c"]))
    rows = [("a", "<b>", '"x"'), ("c", "", "1")]
    waiting.visit_table(builder, waiting.guess_table("", rows=rows))
    written = "".join(builder.body)
    assert "is p &lt; &quot;q&quot;?" in written
    assert "<b>" not in written
    assert 'id="outcome-a-b" data-guess="[&quot;a b&quot;, &quot;c&quot;]"' in written
    assert 'data-truth="&quot;x&quot;"' in written
    assert '<th scope="row">a: &lt;b&gt;</th>' in written
    assert '<th scope="row">c</th>' in written
