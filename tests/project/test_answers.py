"""Questions and lab notes: each has its evidence, and no number stands without its source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import chapters, prose

APPENDIX = chapters.ROOT / "book" / "appendix"
QUESTIONS = APPENDIX / "questions.md"
NOTES = APPENDIX / "lab_notes.md"

#: What says where a number comes from, within a paragraph.
SOURCE = re.compile(r"<!--[=~]|\{cite:|\{doc\}`|\]\(https?://")
#: Things with digits in them that are names or quantities of an argument.
NO_NUMBER = re.compile(r"`[^`]*`|\$[^$]*\$|GPT-\d|<!--.*?-->|F1|V100|4-grams", re.DOTALL)


def without_source(text: str) -> list[str]:
    """The paragraphs, and notes of a list, that hold a number and name no source."""
    body = text.split("---", 2)[-1]
    parts = [part for part in re.split(r"\n\s*\n", body) if not part.startswith("#")]
    return [
        part
        for part in parts
        if re.search(r"\d", NO_NUMBER.sub("", part)) and not SOURCE.search(part)
    ]


def answers() -> dict[str, str]:
    """The questions, each with its answer."""
    _, *parts = re.split(r"(?m)^### ", QUESTIONS.read_text(encoding="utf-8"))
    pairs = (part.partition("\n") for part in parts)
    return {question: re.split(r"(?m)^## ", answer)[0].strip() for question, _, answer in pairs}


def notes() -> dict[str, str]:
    """What was tried, each with what came."""
    text = NOTES.read_text(encoding="utf-8")
    found = re.findall(r"(?m)^(\S.*)\n: ((?:.*\n(?:  .*(?:\n|$))*))", text)
    return dict(found)


@pytest.mark.parametrize("path", [QUESTIONS, NOTES], ids=lambda path: path.stem)
def test_each_number_has_a_mark_a_citation_or_a_link(path: Path) -> None:
    assert without_source(path.read_text(encoding="utf-8")) == []


def test_a_number_without_a_source_is_noticed() -> None:
    assert without_source("---\n---\n\nIt is 7 %.\n\nGPT-3 has $10^9$ `x2`.") == ["It is 7 %."]
    assert without_source("---\n---\n\nIt is 7 % ({doc}`/book/x`).\n\n{cite:t}`a` has 3.") == []


@pytest.mark.parametrize("question", answers())
def test_an_answer_is_short_and_names_its_evidence(question: str) -> None:
    answer = answers()[question]
    assert question.endswith("?")
    assert SOURCE.search(answer)
    assert len(prose.COMMENT.sub("", answer).split()) <= 130


def test_there_are_the_questions_that_learners_ask() -> None:
    assert len(answers()) >= 16


@pytest.mark.parametrize("tried", notes())
def test_a_note_says_where_it_is_measured_and_what_is_a_single_run(tried: str) -> None:
    note = notes()[tried]
    assert "{doc}`" in note or "](http" in note.rpartition("→")[2]
    stored = "{doc}`" in note  # a chapter measures it, with several seeds
    assert stored or "ingle run" in note or not re.search(r"\d", NO_NUMBER.sub("", note))


def test_every_note_is_found() -> None:
    text = NOTES.read_text(encoding="utf-8")
    assert len(notes()) == len(re.findall(r"(?m)^: ", text)) > 20
