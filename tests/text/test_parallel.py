"""Parallel text: what is read, what is refused and with which words, splits and batches."""

import itertools
import re

import pytest
import torch

from companion.core.seeds import make_generator
from companion.text.batching import IGNORE
from companion.text.documents import CorpusError
from companion.text.parallel import (
    Pair,
    encode_sources,
    pair_batch,
    pair_batches,
    read_catalogue,
    read_pairs,
    read_two_files,
    split_pairs,
)
from companion.text.tokenizers import CharacterTokenizer, WordTokenizer

PAIRS = [Pair("two euros", "二欧元"), Pair("one", "一")]


def test_two_columns_and_two_files_give_the_same_pairs(tmp_path):
    # With what editors add: a byte-order mark, carriage returns, no line feed at the end.
    (tmp_path / "both.tsv").write_bytes("\ufefftwo euros\t二欧元\r\none \t一".encode())
    (tmp_path / "en.txt").write_text("two euros\none\n", encoding="utf-8")
    (tmp_path / "zh.txt").write_text("二欧元\n一\n", encoding="utf-8")
    assert read_pairs(tmp_path / "both.tsv") == PAIRS
    assert read_two_files(tmp_path / "en.txt", tmp_path / "zh.txt") == PAIRS
    assert read_pairs(tmp_path / "both.tsv", swap=True) == [Pair(b, a) for a, b in PAIRS]


def test_a_line_ends_at_a_line_feed_alone(tmp_path):
    """Python's splitlines would also cut at these, and shift all pairs after them."""
    (tmp_path / "a").write_text("one\x0bmore\ntwo\u2028three\n", encoding="utf-8")
    (tmp_path / "b").write_text("1\n2\n", encoding="utf-8")
    assert len(read_two_files(tmp_path / "a", tmp_path / "b")) == 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a\tb\nno tab here\n", "line 2 of .* has 0 tabs, and needs one"),
        (b"a\tb\tc\n", "line 1 of .* has 2 tabs, and needs one"),
        (b"a\tb\n\nc\td\n", "line 2 of .* has 0 tabs"),
        (b"a\t \n", "line 1 of .* has an empty sentence"),
        (b"\tb\n", "line 1 of .* has an empty sentence"),
        (b"", "is empty"),
        ("Käse\tcheese".encode("latin-1"), "is not UTF-8: byte 0xe4 at byte offset 1"),
    ],
)
def test_bad_columns_are_refused_in_one_sentence(tmp_path, data, words):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=words) as raised:
        read_pairs(path)
    assert "\n" not in str(raised.value)
    assert not re.search(r"\.\s+[A-Z]", str(raised.value))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (b"a\nb\n", b"x\n", "has 2 lines and .* has 1"),
        (b"a\n\n", b"x\ny\n", "line 2 of .*first has an empty sentence"),
        (b"a\nb\n", b"x\n  \n", "line 2 of .*second has an empty sentence"),
        (b"a\n", b"", "second is empty"),
        (b"a\n", b"\xff\xfa\n", "second is not UTF-8"),
    ],
)
def test_bad_pairs_of_files_are_refused_in_one_sentence(tmp_path, first, second, words):
    (tmp_path / "first").write_bytes(first)
    (tmp_path / "second").write_bytes(second)
    with pytest.raises(CorpusError, match=words) as raised:
        read_two_files(tmp_path / "first", tmp_path / "second")
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="cannot read"):
        read_pairs(tmp_path / "none.tsv")


def test_no_source_sentence_stands_in_two_splits():
    """Each source has two translations, and is written in two ways that mean the same."""
    pairs = [
        Pair(source, f"{target} {i}")
        for i in range(200)
        for source in (f"Sentence number {i}", f"sentence  NUMBER {i}")
        for target in ("Satz", "Aussage")
    ]
    parts = split_pairs(pairs)
    assert sorted(itertools.chain(*parts)) == sorted(pairs)
    sources = [{" ".join(p.source.lower().split()) for p in part} for part in parts]
    assert not any(a & b for a, b in itertools.combinations(sources, 2))
    assert all(len(part) == 4 * len(some) for part, some in zip(parts, sources, strict=True))
    # Of 200 sources 160, 20 and 20 are expected, with standard deviations of 6 and 4.
    assert [round(len(part) / 4 / 200, 1) for part in parts] == [0.8, 0.1, 0.1]


def test_a_pair_keeps_its_split_when_others_come():
    pairs = [Pair(f"s {i}", "t") for i in range(300)]
    few, many = split_pairs(pairs[:100]), split_pairs(pairs)
    for some, more in zip(few, many, strict=True):
        assert set(some) <= set(more)


def test_too_few_pairs_to_split_are_refused():
    with pytest.raises(CorpusError, match="2 pairs are too few"):
        split_pairs(PAIRS)


def test_a_batch_holds_each_pair_between_end_tokens():
    source = WordTokenizer.fit(["two euros one"])
    target = CharacterTokenizer.fit(["二欧元一"])
    batch = pair_batch(PAIRS, source, target)
    assert batch.lengths.tolist() == [3, 2]
    end = target.end_id
    for row, pair in enumerate(PAIRS):
        words, length = target.encode(pair.target), int(batch.lengths[row])
        read = [*source.encode(pair.source), source.end_id]
        assert batch.source[row, :length].tolist() == read
        assert batch.inputs[row, : len(words) + 1].tolist() == [end, *words]
        assert batch.targets[row, : len(words) + 1].tolist() == [*words, end]
        assert set(batch.targets[row, len(words) + 1 :].tolist()) <= {IGNORE}
    assert batch.to(torch.device("cpu")).source.equal(batch.source)
    with pytest.raises(ValueError, match="at least one sentence"):
        encode_sources([], source)


def test_every_pass_holds_every_pair_once():
    pairs = [Pair("w " * (1 + i % 7), str(i)) for i in range(96)]
    batches = list(pair_batches(pairs, 8, steps=24, generator=make_generator(0)))
    for start in (0, 12):
        assert sorted(itertools.chain(*batches[start : start + 12])) == sorted(pairs)
    assert batches[:12] != batches[12:]


def test_batches_have_one_size_even_where_the_pairs_do_not_divide():
    pairs = [Pair("w", str(i)) for i in range(5)]
    batches = list(pair_batches(pairs, 8, steps=3, generator=make_generator(0)))
    assert [len(batch) for batch in batches] == [8, 8, 8]
    assert {pair for batch in batches for pair in batch} == set(pairs)
    with pytest.raises(ValueError, match="one pair or more"):
        next(pair_batches([], 8, steps=1, generator=make_generator(0)))


def test_a_catalogue_is_read_from_its_package(tmp_path, monkeypatch):
    """Written with Babel: a context, plural forms, a message of two lines, one untranslated."""
    pytest.importorskip("babel")
    from babel.messages.catalog import Catalog
    from babel.messages.mofile import write_mo

    folder = tmp_path / "framework" / "part" / "locale" / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (tmp_path / "framework" / "__init__.py").touch()
    catalogue = Catalog(locale="de")
    catalogue.add("Save", "Speichern")
    catalogue.add("May", "Mai", context="month")
    catalogue.add(("one file", "%d files"), ("eine Datei", "%d Dateien"))
    catalogue.add("two\nlines", "zwei\nZeilen")
    catalogue.add("untranslated")
    with (folder / "framework.mo").open("wb") as file:
        write_mo(file, catalogue)
    monkeypatch.syspath_prepend(str(tmp_path))
    expected = [Pair("May", "Mai"), Pair("Save", "Speichern"), Pair("one file", "eine Datei")]
    assert read_catalogue("framework", "de") == expected
    with pytest.raises(CorpusError, match="no message catalogue of the language 'fr'"):
        read_catalogue("framework", "fr")
    with pytest.raises(CorpusError, match="pip install no_such_framework"):
        read_catalogue("no_such_framework", "de")


def test_the_web_frameworks_catalogue_is_there_in_each_language():
    pytest.importorskip("babel")
    pytest.importorskip("django")
    for language in ("de", "fr", "zh_Hans"):
        pairs = read_catalogue("django", language)
        assert 600 < len(pairs) < 2000  # some 830 in version 5.2
        assert all("\n" not in pair.source + pair.target for pair in pairs)
        assert all(split_pairs(pairs))
