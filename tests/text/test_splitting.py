"""Splits: stable, complete, disjoint, never empty."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.text.documents import CorpusError, Document
from companion.text.splitting import position, split_documents


def documents(number: int) -> list[Document]:
    return [Document(f"d{i}", f"text {i}\n" * 5) for i in range(number)]


@settings(deadline=None, max_examples=40)
@given(st.sets(st.text(min_size=1, max_size=8), min_size=3, max_size=40))
def test_each_document_is_in_exactly_one_split_and_no_split_is_empty(names: set[str]) -> None:
    given_documents = [Document(name, "some text\n") for name in sorted(names)]
    parts, _ = split_documents("corpus", given_documents)
    assert all(parts)
    assert sorted(d.name for part in parts for d in part) == sorted(names)


def test_a_document_keeps_its_split_when_others_come() -> None:
    few, _ = split_documents("corpus", documents(60))
    many, _ = split_documents("corpus", documents(200))
    for before, after in zip(few, many, strict=True):
        assert set(before) < set(after)


def test_the_split_is_this_one_on_every_machine() -> None:
    # Written down: a change of the hash, which would train on what was test text, must show.
    assert position("d0") == pytest.approx(0.89221006350434, abs=1e-12)
    (_, valid, test), _ = split_documents("corpus", documents(30))
    assert ([d.name for d in valid], [d.name for d in test]) == (["d0", "d16"], ["d2", "d7", "d17"])


def test_shares_of_many_documents_are_near_80_10_10() -> None:
    parts, notes = split_documents("corpus", documents(2000))
    # Two standard deviations of a binomial count of 200 in 2,000 are 27.
    assert [len(part) for part in parts] == pytest.approx([1600, 200, 200], abs=30)
    assert notes == ()


def test_two_documents_cannot_be_split() -> None:
    with pytest.raises(CorpusError, match=r"takes 3 documents or more, mine has 2 after cleaning"):
        split_documents("mine", documents(2))


def test_training_text_of_few_characters_is_noted() -> None:
    few = documents(40)
    (_, _, test), _ = split_documents("corpus", few)
    long = Document(test[0].name, "a long test document\n" * 1000)
    _, notes = split_documents("corpus", [long if d.name == long.name else d for d in few])
    assert len(notes) == 1
    assert "of the characters are training text" in notes[0]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text("ab.", max_size=20), min_size=1, max_size=60))
def test_one_document_is_cut_in_order_at_line_ends(lines: list[str]) -> None:
    text = "".join(f"x{line}\n" for line in lines)
    try:
        parts, notes = split_documents("file", [Document("file", text)])
    except CorpusError:
        assert len(lines) < 10
        return
    pieces = [document.text for part in parts for document in part]
    assert "".join(pieces) == text
    assert all(piece.strip() for piece in pieces)
    if notes == ("Cut into splits between lines.",):
        assert all(piece.endswith("\n") for piece in pieces)


def test_one_document_is_cut_after_80_and_90_percent() -> None:
    parts, _ = split_documents("file", [Document("file", "ninety nine\n" * 1000)])
    assert [len(part[0].text) for part in parts] == [9600, 1200, 1200]
    assert [part[0].name for part in parts] == ["file#train", "file#valid", "file#test"]


@pytest.mark.parametrize(
    ("text", "unit", "ends"),
    [
        ("One line.\nAnother.\n\n" * 60, "paragraphs", "\n\n"),
        ("One line. Another.\n" * 60, "lines", ".\n"),
        ("One sentence here. " * 60 + "\n", "sentences, because lines are long or few", ". "),
        ("今天天氣很好。" * 60 + "\n", "sentences, because lines are long or few", "。"),
        ("word " * 60 + "\n", "words, because the text has too few lines and sentences", "d "),
        (
            "天氣" * 60 + "\n",
            "characters, because the text has too few lines, sentences and spaces",
            "",
        ),
    ],
)
def test_one_document_is_cut_at_the_best_place_there_is_and_it_is_said(
    text: str, unit: str, ends: str
) -> None:
    parts, notes = split_documents("file", [Document("file", text)])
    assert notes == (f"Cut into splits between {unit}.",)
    pieces = [part[0].text for part in parts]
    assert "".join(pieces) == text
    assert all(piece.endswith(ends) for piece in pieces[:2])
    assert [len(piece) / len(text) for piece in pieces] == pytest.approx([0.8, 0.1, 0.1], abs=0.03)


def test_a_paragraph_end_far_from_the_place_is_passed_over() -> None:
    text = "a line of text\n" * 20 + "\n" + "a line of text\n" * 80
    _, notes = split_documents("file", [Document("file", text)])
    assert notes == ("Cut into splits between lines.",)


def test_a_text_too_short_to_cut_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"file is too short to split .* 6 characters; give"):
        split_documents("file", [Document("file", "short\n")])


def test_a_script_in_one_split_alone_is_named_with_its_documents() -> None:
    few = documents(30)  # of which d0 and d16 are validation text, as written down above
    texts = {"d0": "今天天氣很好。\n" * 9, "d16": "明天也很好。\n" * 9, "d3": "Привет\n" * 99}
    given_documents = [Document(d.name, texts.get(d.name, d.text)) for d in few]
    _, notes = split_documents("corpus", given_documents)
    about = [note for note in notes if note.startswith("The script")]
    assert len(about) == 2
    assert about[0].startswith("The script Chinese is in the valid text alone, in d0, d16: nobody")
    assert about[1].startswith("The script Cyrillic is in the train text alone, in d3: no figure")


def test_a_script_that_every_split_has_is_not_noted() -> None:
    mixed = [Document(d.name, d.text + "今天天氣很好。🎉\n") for d in documents(30)]
    assert split_documents("corpus", mixed)[1] == ()
