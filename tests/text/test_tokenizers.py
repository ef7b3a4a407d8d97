"""Tokenizers: round trips, what is unknown, stable ids, and refusals."""

from __future__ import annotations

import functools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from companion.text import documents, tokenizers
from companion.text.corpora import load_corpus
from companion.text.documents import Document
from companion.text.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
    WordTokenizer,
    build_tokenizer,
    encode_documents,
    load_tokenizer,
    save_tokenizer,
    tokenizer_from_dict,
)

KINDS = ("byte", "character", "word", "bpe")
TEXT = "the cat sat on the mat\nthe dog sat on the log\n\nnaïve café: 語 🎉\n" * 4


@functools.cache
def fitted(kind: str) -> Tokenizer:
    return build_tokenizer(kind, [TEXT], **({"vocabulary_size": 300} if kind == "bpe" else {}))


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_any_text_comes_back_exactly(kind: str) -> None:
    tokenizer = fitted(kind)

    @settings(deadline=None, max_examples=150)
    @example("<end>")
    @example("\r\n \t\x00\u2028<unk>Ġ")
    @example("  two spaces  and a tail ")
    @given(st.text())
    def check(text: str) -> None:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.end_id not in ids

    check()


def test_text_of_known_characters_comes_back_exactly() -> None:
    tokenizer = fitted("character")

    @settings(deadline=None, max_examples=100)
    @given(st.text(sorted(set(TEXT))))
    def check(text: str) -> None:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert len(ids) == len(text)

    check()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.sampled_from(TEXT.split()), max_size=5), max_size=5))
def test_lines_of_known_words_come_back_exactly(lines: list[list[str]]) -> None:
    text = "\n".join(" ".join(line) for line in lines)
    assert fitted("word").decode(fitted("word").encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_tokenizer_is_the_one_that_was_saved(kind: str, tmp_path: Path) -> None:
    tokenizer = fitted(kind)
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    other = "the dog, unseen: ωμέγα\n"
    assert type(again) is type(tokenizer)
    assert again.tokens == tokenizer.tokens
    assert (again.end_id, again.unknown_id) == (tokenizer.end_id, tokenizer.unknown_id)
    assert again.encode(TEXT + other) == tokenizer.encode(TEXT + other)
    assert again.to_dict() == tokenizer.to_dict()
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_long_text_is_cut_where_no_piece_spans_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    parts = [
        "the",
        " cat",
        "\n",
        "\n\n",
        "  ",
        "\t",
        "7",
        "!",
        "\u00a0",
        "\u2028",
        "\x1f",
        "語",
        "'s",
    ]
    text = "".join(draw.choices(parts, k=3000))
    # Fitted on the text itself, so that it has pieces of several spaces that a cut could break.
    tokenizer = build_tokenizer("bpe", [text], vocabulary_size=400)
    assert any(len(token) > 1 and not token.strip("\\n") for token in tokenizer.tokens)
    whole = tokenizer.encode(text)
    monkeypatch.setattr(tokenizers, "_CHUNK_CHARACTERS", 7)
    monkeypatch.setattr(tokenizers, "_CHUNKS", 3)
    assert len(list(tokenizers._chunks(text, 7))) > 100
    assert tokenizer.encode(text) == whole
    assert tokenizer.decode(whole) == text


@pytest.mark.parametrize("join", [" ", "。"])
def test_a_text_on_one_line_is_cut_for_the_library_too(join: str) -> None:
    words = ("好", "天氣", "雨", "don't", "3", "ends")
    text = join.join(random.Random(0).choices(words, k=20_000))
    chunks = list(tokenizers._chunks(text, 1000))
    assert max(map(len, chunks)) < 1100
    assert "".join(chunks) == text
    tokenizer = build_tokenizer("bpe", [text], vocabulary_size=300)
    ids = [id for chunk in chunks for id in tokenizer.encode(chunk)]
    assert ids == tokenizer.encode(text)


@pytest.mark.parametrize("kind", ["byte", "character", "word", "bpe"])
def test_a_text_encoded_in_pieces_has_the_tokens_of_the_whole(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "über  the hills,\nand far away \n\n" * 50
    tokenizer = build_tokenizer(kind, [text])
    whole = [tokenizer.end_id, *tokenizer.encode(text)]
    monkeypatch.setattr(tokenizers, "_PIECE_CHARACTERS", 20)
    monkeypatch.setattr(tokenizers, "cut_at_spaces", lambda text: documents.cut_at_spaces(text, 20))
    assert len(list(tokenizer._parts(text))) > 30
    assert encode_documents(tokenizer, [Document("a", text)]).ids.tolist() == whole


# --- unknown, end, counts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "seen", "unseen"), [("word", "cat", "unicorn"), ("character", "c", "Z")]
)
def test_what_was_not_in_the_training_text_is_unknown(kind: str, seen: str, unseen: str) -> None:
    tokenizer = fitted(kind)
    assert tokenizer.unknown_id is not None
    assert tokenizer.encode(unseen) == [tokenizer.unknown_id]
    assert tokenizer.encode(seen) != [tokenizer.unknown_id]
    assert unseen not in tokenizer.tokens


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_kinds_on_bytes_know_everything(kind: str) -> None:
    assert fitted(kind).unknown_id is None


def test_each_line_feed_is_the_end_of_sentence_token() -> None:
    tokenizer = fitted("word")
    tokens = [tokenizer.tokens[i] for i in tokenizer.encode("the cat\n\n sat <unk> <eos>")]
    assert tokens == ["the", "cat", "<eos>", "<eos>", "sat", "<unk>", "<eos>"]
    assert tokenizer.end_id == tokenizer.tokens.index("<eos>")


def test_words_seen_less_often_than_min_count_are_unknown() -> None:
    tokenizer = WordTokenizer.fit(["a a a b b c <unk> <unk>\n"], min_count=2)
    assert tokenizer.tokens == ["<unk>", "<eos>", "a", "b"]
    assert tokenizer.encode("a b c") == [2, 3, 0]


def test_words_go_from_frequent_to_rare_and_characters_in_their_order() -> None:
    assert WordTokenizer.fit(["b a c c", "b"]).tokens == ["<unk>", "<eos>", "b", "c", "a"]
    assert CharacterTokenizer.fit(["cab", "d"]).tokens == ["<unk>", "<end>", *"abcd"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_id_is_in_the_vocabulary_and_the_end_too(kind: str) -> None:
    tokenizer = fitted(kind)
    ids = tokenizer.encode(TEXT + "unseen Ω")
    assert 0 <= min(ids) <= max(ids) < tokenizer.vocabulary_size == len(tokenizer.tokens)
    assert 0 <= tokenizer.end_id < tokenizer.vocabulary_size
    assert tokenizer.kind == kind


def test_the_end_token_and_broken_bytes_decode_to_what_can_be_shown() -> None:
    byte, character = fitted("byte"), fitted("character")
    assert byte.decode([ord("a"), byte.end_id, ord("b"), 0xFF]) == "ab\ufffd"
    assert character.decode([0, *character.encode("cat"), character.end_id]) == "\ufffdcat"
    bpe = fitted("bpe")
    assert bpe.decode([*bpe.encode("cat"), bpe.end_id, *bpe.encode("é")]) == "caté"


def test_tokens_are_readable() -> None:
    assert [ByteTokenizer().tokens[i] for i in (0x41, 0x0A, 0xE9, 256)] == [
        "A",
        "\\n",
        "\\xe9",
        "<end>",
    ]
    assert " the" in fitted("bpe").tokens
    assert fitted("bpe").tokens[-1] == "<end>"


def test_decoding_takes_a_tensor_of_ids() -> None:
    assert ByteTokenizer().decode(torch.tensor([104, 105])) == "hi"


# --- byte pairs ----------------------------------------------------------------------------------


def test_bpe_learns_pieces_up_to_the_size_asked_for() -> None:
    text = load_corpus("python-docs", max_characters=60_000).text("train")
    tokenizer = build_tokenizer("bpe", [text], vocabulary_size=600)
    assert tokenizer.vocabulary_size == 600
    assert len(tokenizer.encode(text)) < 0.5 * len(text)
    assert BPETokenizer.fit([text], vocabulary_size=257).encode("cat") == [
        tokenizer.tokens.index(letter) for letter in "cat"
    ]


def test_bpe_of_the_same_text_has_the_same_ids_in_another_process() -> None:
    program = (
        "import json, sys; from companion.text.tokenizers import build_tokenizer; "
        "print(json.dumps(build_tokenizer('bpe', [sys.argv[1]], vocabulary_size=300).to_dict()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, TEXT],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "5"},
    )  # fmt: skip
    assert json.loads(done.stdout) == fitted("bpe").to_dict()


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("syllable", {}, "kind must be one of byte, character, word, bpe, got 'syllable'"),
        ("word", {"vocabulary_size": 9}, "options of a word tokenizer are: min_count; got 'voc"),
        ("byte", {"min_count": 1}, "options of a byte tokenizer are: none; got 'min_count'"),
        ("word", {"min_count": 0}, "min_count must be >= 1, got 0"),
        ("bpe", {"vocabulary_size": 256}, r"vocabulary_size must be >= 257 .*, got 256"),
    ],
)
def test_wrong_kinds_and_options_are_refused(
    kind: str, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_tokenizer(kind, [TEXT], **options)


@pytest.mark.parametrize("kind", ["character", "word", "bpe"])
def test_a_tokenizer_without_training_text_is_refused(kind: str) -> None:
    for texts in ([], [""]):
        with pytest.raises(ValueError, match="needs training text, got none"):
            build_tokenizer(kind, texts)


@pytest.mark.parametrize("kind", ["character", "word", "bpe"])
def test_one_text_in_place_of_several_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"got a single str; pass \[text\]"):
        build_tokenizer(kind, TEXT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [-1, 100_000])
def test_ids_outside_the_vocabulary_are_refused(kind: str, wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"token ids must be >= 0 and < \d+, got {wrong}"):
        fitted(kind).decode([5, wrong])


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_half_a_surrogate_pair_is_refused(kind: str) -> None:
    with pytest.raises(
        ValueError, match="valid Unicode, got half of a surrogate pair at character 2"
    ):
        fitted(kind).encode("ab\ud800")


def damaged() -> list[tuple[str, Any, str]]:
    word, bpe = fitted("word").to_dict(), fitted("bpe").to_dict()
    return [
        ("a list", [1, 2], "not a tokenizer saved by this package"),
        ("foreign", {"model": {"type": "BPE"}}, "not a tokenizer saved by this package"),
        ("newer", {**word, "version": 2}, "version must be 1, got 2"),
        ("other kind", {**word, "kind": "syllable"}, "kind must be one of .*got 'syllable'"),
        ("kind is a list", {**word, "kind": ["word"]}, "kind must be one of"),
        ("no words", {k: v for k, v in word.items() if k != "words"}, "saved word .*damaged"),
        ("words are numbers", {**word, "words": [1, 2]}, "saved word .*damaged"),
        ("word twice", {**word, "words": ["a", "a"]}, "saved word .*damaged"),
        ("words are a text", {**word, "words": "abc"}, "saved word .*damaged"),
        ("bytes missing", {**bpe, "pieces": bpe["pieces"][3:]}, "saved bpe .*damaged"),
        ("merge of nothing", {**bpe, "merges": [["xyz", "q"]]}, "saved bpe .*damaged"),
        ("merge of one", {**bpe, "merges": [["t"]]}, "saved bpe .*damaged"),
    ]


@pytest.mark.parametrize(("fields", "message"), [pytest.param(f, m, id=i) for i, f, m in damaged()])
def test_a_damaged_or_foreign_tokenizer_is_refused(
    fields: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=message) as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b'{"format": "comp', b"\x80\x04\x95pickle", b"[" * 100_000]
)
def test_a_file_that_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a tokenizer: it is not JSON"):
        load_tokenizer(path)


def test_a_missing_file_is_refused_and_fields_are_checked_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read tokenizer .*none\.json: No such file"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(ValueError, match="not a tokenizer saved by this package"):
        tokenizer_from_dict({})


# --- documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_document_begins_with_the_end_token_and_all_else_is_a_target(kind: str) -> None:
    tokenizer = fitted(kind)
    documents = [Document("a", "the café\n"), Document("b", "語 sat\n")]
    encoded = encode_documents(tokenizer, documents)
    end, first, second = tokenizer.end_id, *(tokenizer.encode(d.text) for d in documents)
    assert encoded.ids.tolist() == [end, *first, end, *second]
    assert encoded.ids.dtype == torch.long
    assert encoded.num_characters == 9 + 6
    assert encoded.num_bytes == 10 + 8


@pytest.mark.parametrize("documents", [[], [Document("a", "")]])
def test_documents_without_a_target_are_refused(documents: list[Document]) -> None:
    with pytest.raises(ValueError, match="must be a token to predict"):
        encode_documents(fitted("byte"), documents)


def test_wikitext_2_has_its_published_vocabulary_and_token_counts(companion_data: Path) -> None:
    corpus = load_corpus("wikitext-2", data_dir=companion_data)
    tokenizer = build_tokenizer("word", [corpus.text("train")])
    assert tokenizer.vocabulary_size == 33_278
    start = time.process_time()
    train = tokenizer.encode(corpus.text("train"))
    seconds = time.process_time() - start
    assert len(train) == 2_088_628
    valid = encode_documents(tokenizer, corpus.documents("valid"))
    assert len(valid.ids) - 1 == 217_646
    # .4 s here; the room is for slower machines.
    assert seconds < 4
