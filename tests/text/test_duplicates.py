"""Copies: found in any script, in time that grows as the text does, and removed with a word."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from companion.text.cleaning import clean_documents
from companion.text.documents import Document
from companion.text.duplicates import (
    PASSAGE_WORDS,
    SHINGLE_WORDS,
    copied_passages,
    near_duplicates,
    words_of,
)


def words(seed: int, number: int) -> str:
    draw = random.Random(seed)
    return " ".join(f"w{draw.randrange(10_000)}" for _ in range(number))


def chinese(seed: int, number: int) -> str:
    draw = random.Random(seed)
    return "".join(chr(0x4E00 + draw.randrange(2000)) for _ in range(number))


def by_definition(texts: list[str]) -> dict[int, int]:
    """Every pair compared, longest first."""
    lists = [text.casefold().split() for text in texts]
    sets = [
        {tuple(each[i : i + SHINGLE_WORDS]) for i in range(len(each) - SHINGLE_WORDS + 1)}
        for each in lists
    ]
    repeats: dict[int, int] = {}
    order = sorted(range(len(texts)), key=lambda i: (-len(lists[i]), i))
    for rank, i in enumerate(order):
        kept = [j for j in order[:rank] if j not in repeats]
        shared, owner = max(((len(sets[i] & sets[j]), -j) for j in kept), default=(0, 0))
        if sets[i] and shared >= 0.8 * len(sets[i]):
            repeats[i] = -owner
    return repeats


def test_what_is_found_is_what_comparing_every_pair_finds() -> None:
    draw = random.Random(0)
    found = 0
    for _ in range(30):
        passages = [words(draw.randrange(12), draw.randrange(6, 40)) for _ in range(12)]
        texts = [" ".join(draw.choices(passages, k=draw.randrange(1, 9))) for _ in range(25)]
        texts = list(dict.fromkeys(texts))
        expected = by_definition(texts)
        assert near_duplicates(texts) == expected
        found += len(expected)
    assert found > 50


def test_a_header_that_all_share_makes_no_duplicates_and_hides_none() -> None:
    header = words(0, 100)
    texts = [f"{header} {words(i, 100)}" for i in range(1, 200)]
    assert near_duplicates([*texts, f"{texts[70]} and one more"]) == {70: 199}


@pytest.mark.slow
def test_time_grows_as_the_number_of_documents_does() -> None:
    def seconds(number: int) -> float:
        texts = [f"{words(0, 100)} {words(i, 100)}" for i in range(1, number)]
        start = time.process_time()
        assert near_duplicates(texts) == {}
        return time.process_time() - start

    seconds(100)  # tables of characters are made once
    # In proportion 4; comparing all pairs 16. Half as much again for a disturbed machine.
    assert seconds(8000) < 8 * seconds(2000)


def test_a_quotation_is_found_in_a_script_without_spaces() -> None:
    quoted = chinese(1, 80)
    texts = [quoted, chinese(2, 500), chinese(3, 300) + quoted + chinese(4, 300)]
    assert near_duplicates(texts) == {0: 2}
    # A changed character in forty is a near-duplicate still.
    changed = quoted[:40] + "x" + quoted[41:]
    assert near_duplicates([changed, *texts[1:]]) == {0: 2}


def test_a_quotation_is_found_in_letters_without_spaces() -> None:
    draw = random.Random(0)
    text = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=20_000))
    other = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=3000))
    assert near_duplicates([other, text, text[7013:11_000]]) == {2: 1}


def test_words_are_those_between_white_space_whatever_their_case() -> None:
    text = "  One two\u00a0THREE\n\tstraße one 你好 ok\n"
    hashes, starts, ends = words_of(text)
    found = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    assert found == ["One", "two", "THREE", "straße", "one", "你", "好", "ok"]
    assert hashes[0] == hashes[4]
    assert len(np.unique(hashes)) == 7


@pytest.mark.parametrize("make", [words, chinese])
def test_a_file_that_holds_a_text_eight_times_is_left_with_one(make) -> None:
    once = make(1, 3000) + "\n"
    kept, report = clean_documents([Document("a.txt", once * 8)])
    assert [document.text for document in kept] == [once]
    assert report.copied_passages == 1
    assert report.copied_characters == 7 * len(once)
    said = "Removed 1 passage of 50 words or more that stood in the text before"
    assert f"{said}: {7 * len(once):,} characters." in str(report)


def test_only_what_stood_before_is_a_copy() -> None:
    passage = words(1, PASSAGE_WORDS)
    parts = [words(2, 200), passage, words(3, 200), passage.upper(), words(4, 200)]
    text = "\n".join(parts)
    [(start, end)] = copied_passages(text)
    assert text[start:end] == passage.upper() + "\n"
    shorter = " ".join(passage.split()[1:])
    assert copied_passages("\n".join([*parts[:3], shorter, parts[4]])) == []


def test_each_repeated_word_stands_somewhere_in_what_is_left() -> None:
    draw = random.Random(0)
    passages = [words(i, 60) for i in range(5)]
    text = "\n".join(draw.choices(passages, k=40))
    copies = copied_passages(text)
    left = text
    for start, end in reversed(copies):
        left = left[:start] + left[end:]
    assert copied_passages(left) == []
    assert set(left.split()) == set(text.split())
    assert len(left) < len(text) / 4


def test_a_text_made_of_one_repeated_line_stays_and_it_is_said() -> None:
    text = "ten green bottles standing on the wall\n" * 400
    kept, report = clean_documents([Document("a.txt", text)])
    assert kept[0].text == text
    [note] = report.notes
    assert note.startswith("100% of the text repeats the other")
    assert "losses on validation and test text say nothing about new text" in note


def test_documents_that_are_not_cut_keep_what_they_repeat() -> None:
    once = words(1, 3000)
    kept, report = clean_documents([Document("a", f"{once}\n{once}"), Document("b", words(2, 99))])
    assert len(kept[0].text) == 2 * len(once) + 2
    assert report.copied_passages == 0
