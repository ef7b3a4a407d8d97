"""Cleaning: what it changes, what it drops, and that it says so."""

from __future__ import annotations

import random
import sys
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from companion.text import duplicates
from companion.text.cleaning import clean_documents, clean_text
from companion.text.documents import Document
from companion.text.duplicates import near_duplicates


def words(seed: int, number: int) -> str:
    draw = random.Random(seed)
    return " ".join(f"w{draw.randrange(10_000)}" for _ in range(number))


def test_line_ends_controls_spaces_and_composition_are_made_uniform_and_counted() -> None:
    text, changes = clean_text("\ufeffa\tb  \r\nc\rcafe\u0301\x00\x1b[0m\u2028end\n\n")
    assert text == "a\tb\nc\ncafé[0m\nend\n"
    assert changes == {
        "line_ends": 3,
        "control_characters": 3,
        "trailing_spaces": 2,
        "recomposed": 1,
    }


@pytest.mark.parametrize("space", [c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace()])
def test_words_that_any_white_space_kept_apart_stay_apart(space: str) -> None:
    """A form feed is a control character, and what stood between two pages of a document."""
    text, changes = clean_text(f"page{space}Start")
    assert text.split() == ["page", "Start"]
    assert changes["control_characters"] == 0


@settings(deadline=None)
@example("\n \x00 \n")
@example("e\x00\u0301")
@given(st.text(st.characters()))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once, _ = clean_text(text)
    again, changes = clean_text(once)
    assert again == once
    assert not any(changes.values())
    once.encode("utf-8")
    assert unicodedata.is_normalized("NFC", once)
    assert not any(unicodedata.category(c) == "Cc" for c in once if c not in "\n\t")
    assert once == "" or (once.endswith("\n") and not once.endswith("\n\n"))


def test_a_document_quoted_in_a_longer_one_is_dropped() -> None:
    quoted = words(1, 60)
    book = f"{words(2, 400)} {quoted} {words(3, 400)}"
    assert near_duplicates([quoted, book]) == {0: 1}


def test_documents_that_share_less_than_the_threshold_stay() -> None:
    shared, own = words(1, 60), words(2, 60)
    assert near_duplicates([f"{shared} {own}", f"{shared} {words(3, 60)}"]) == {}


def test_of_documents_that_differ_in_case_and_space_the_first_stays() -> None:
    assert near_duplicates(["Too short", "too  SHORT\n", "another"]) == {1: 0}


def test_a_few_changed_words_do_not_hide_a_duplicate() -> None:
    original = words(1, 200).split()
    changed = [*original[:100], "changed", *original[101:]]
    assert near_duplicates([" ".join(original), " ".join(changed)]) == {1: 0}


def test_every_copy_points_at_a_document_that_stays() -> None:
    quoted = words(1, 60)
    texts = [quoted, f"{quoted} {words(2, 100)}", quoted, f"{words(3, 9)} {quoted} {words(2, 100)}"]
    repeats = near_duplicates(texts)
    assert set(repeats) == {0, 1, 2}
    assert set(repeats.values()) == {3}


def test_a_sample_of_the_shingles_still_finds_duplicates(monkeypatch) -> None:
    texts = [words(i, 300) for i in range(10)]
    texts.append(f"{texts[4]} {words(99, 30)}")
    monkeypatch.setattr(duplicates, "_MOST_SHINGLES", 500)
    assert near_duplicates(texts) == {4: 10}


def test_the_report_counts_what_was_removed_and_names_it() -> None:
    quoted = words(1, 50)
    kept, report = clean_documents(
        [
            Document("a", f"{quoted}\r\n"),
            Document("b", f"{words(2, 50)} {quoted}"),
            Document("blank", " \n\x00"),
            Document("c", "x"),
        ]
    )
    assert [document.name for document in kept] == ["b", "c"]
    assert report.duplicates == (("a", "b"),)
    assert report.empty == ("blank",)
    assert (report.documents_read, report.documents_kept) == (4, 2)
    assert report.characters_kept == sum(len(document.text) for document in kept)
    assert (report.line_ends, report.control_characters, report.trailing_spaces) == (1, 1, 1)
    said = str(report)
    assert "1 near-duplicate document: a (in b)" in said
    assert "1 empty document: blank" in said
    assert "1 line end normalised, 1 control character removed, 1 trailing space removed" in said
