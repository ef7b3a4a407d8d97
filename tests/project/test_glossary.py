"""The glossary is sorted, its links lead to chapters that have the term, its code names exist."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass

import pytest

from tools import chapters

PAGE = chapters.ROOT / "book" / "appendix" / "glossary.md"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One term of the glossary."""

    term: str
    text: str
    """Its sentence, symbol, code name and chapter, as written."""


def entries(page: str) -> list[Entry]:
    """The entries of the page's `{glossary}` directive; ValueError for one without a text."""
    body = page.split("```{glossary}\n")[1].split("\n```")[0]
    found = []
    for block in body.split("\n\n"):
        term, _, text = block.partition("\n  ")
        if not text or "\n" in text or term.startswith(" "):
            raise ValueError(f"an entry is a term and one indented line, got {block!r}")
        found.append(Entry(term=term, text=text))
    return found


def fault(entry: Entry) -> str:
    """What is wrong with an entry; empty when nothing is."""
    links = re.findall(r"\{doc\}`/([^`]+)`", entry.text)
    if len(links) != 1 or not entry.text.endswith(f"First: {{doc}}`/{links[0]}`."):
        return "it must end with the link to one chapter"
    pages = {str(path.relative_to(chapters.ROOT).with_suffix("")): path for path in NOTEBOOKS}
    if links[0] not in pages:
        return f"no chapter is called {links[0]}"
    written = " ".join(
        "".join(cell["source"])
        for cell in chapters.read_notebook(pages[links[0]])["cells"]
        if cell["cell_type"] == "markdown"
    )
    if entry.term[:5].lower() not in written.lower():  # "Sampling" is there as "sampled"
        return f"{links[0]} does not have the term"
    named = re.findall(r"Code: `([^`]+)`\.", entry.text)
    if ("Code:" in entry.text) != bool(named):
        return "the code name is not in the form Code: `name`."
    return "".join(f"{name} does not exist" for name in named if not exists(name))


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one, down to attributes and fields."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            fields = getattr(found, "__dataclass_fields__", {})
            if not hasattr(found, attribute) and attribute not in fields:
                return False
            found = getattr(found, attribute, None)
        return True
    return False


NOTEBOOKS = chapters.toc_notebooks()
ENTRIES = entries(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.term)
def test_each_glossary_entry_names_a_chapter_that_has_it_and_code_that_exists(entry: Entry) -> None:
    assert fault(entry) == ""


def test_the_terms_of_the_glossary_are_sorted_and_each_is_there_once() -> None:
    terms = [entry.term.lower() for entry in ENTRIES]
    assert terms == sorted(set(terms))
    assert len(terms) > 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A unit.", "must end with the link"),
        ("A unit. First: {doc}`/book/background/nowhere`.", "no chapter is called"),
        ("A unit. First: {doc}`/book/training/lstm`.", "does not have the term"),
        ("Code: `companion.core.no_such`. First: {doc}`/book/background/language_models`.",
         "companion.core.no_such does not exist"),
        ("Code: `no_such.thing`. First: {doc}`/book/background/language_models`.",
         "no_such.thing does not exist"),
        ("Code: nats. First: {doc}`/book/background/language_models`.", "not in the form"),
    ],
)  # fmt: skip
def test_a_wrong_glossary_entry_is_noticed(text: str, message: str) -> None:
    term = "Zipf" if "lstm" in text else "Nat"
    assert message in fault(Entry(term=term, text=text))


def test_an_entry_without_a_text_is_refused() -> None:
    with pytest.raises(ValueError, match="a term and one indented line"):
        entries("```{glossary}\nNat\n\nBit\n  A unit.\n```\n")
