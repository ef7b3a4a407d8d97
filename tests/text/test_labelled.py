"""Labelled texts from CSV: what is read, and what is refused in one sentence with the line."""

import pytest
import torch
from annotation_checker import unchecked

from companion.text.documents import CorpusError
from companion.text.labelled import (
    Example,
    LabelledTexts,
    classes_of,
    encode_texts,
    read_column,
    read_examples,
)
from companion.text.tokenizers import WordTokenizer


@pytest.fixture
def file(tmp_path):
    def write(content: str | bytes, name: str = "a.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_columns_are_found_by_name_and_others_passed_over(file):
    path = file('id,stars,review\n1,good,a film\n2,bad,"slow, and long"\n\n3,good,two\n')
    assert read_examples(path, text="review", label="stars") == [
        Example("a film", "good"), Example("slow, and long", "bad"), Example("two", "good"),
    ]  # fmt: skip
    assert read_column(path, "review") == ["a film", "slow, and long", "two"]


@pytest.mark.parametrize(
    "content",
    [
        "text,label\r\nfilm,x\r\nother,y\r\n",
        b"\xef\xbb\xbftext,label\nfilm,x\nother,y",
        "\ufefftext,label\nfilm,x\nother,y\n".encode("utf-16"),
        ' text , label \n "film",x\nother,y\n'.replace(' "film"', '"film"'),
    ],
    ids=["windows", "mark", "utf-16", "spaces"],
)
def test_files_as_spreadsheets_write_them_are_read(file, content):
    assert read_examples(file(content)) == [Example("film", "x"), Example("other", "y")]


def test_tabs_and_texts_of_several_lines(file):
    path = file('text\tlabel\n"one\ntwo, three"\tx\nfour\ty\n', "a.tsv")
    assert read_examples(path) == [Example("one\ntwo, three", "x"), Example("four", "y")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty; its first line must name the columns"),
        ("text,label\n", "has no row below its header"),
        ("review,label\na,x\n", "no column 'text'; its first line, cut at commas, names 'review'"),
        ("text;label\na;x\n", "no column 'text'.*names 'text;label'"),
        ("text,text,label\na,b,x\n", "has 2 columns 'text'; rename all but one"),
        ("text,label\na,x\nslow, and long,y\n", "line 3 of .* has 3 fields and the header 2"),
        ("text,label\na,x\n  ,y\n", "line 3 of .* has an empty text in column 'text'"),
        ("text,label\na,\n", "line 2 of .* has no label"),
        ('text,label\n"a,x\n', "is not CSV .*check its double quotes"),
        ('text,label\na,x\n"b" c,y\n', "line 3 of .* is not CSV"),
        (b"text,label\ncaf\xe9,x\n", "is not UTF-8: byte 0xe9"),
        (b"\x89PNG\0\0", "is not a text file"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(file, content, words):
    with pytest.raises(CorpusError, match=words) as refused:
        read_examples(file(content))
    assert "\n" not in str(refused.value)


def test_a_text_too_long_for_a_field_is_refused_in_one_sentence(file):
    with pytest.raises(CorpusError, match=r"line 2 of .*field larger than"):
        read_examples(file(f'text,label\n"{"a" * 200_000}",x\n'))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"cannot read .*none\.csv"):
        read_examples(tmp_path / "none.csv")


def test_an_unknown_label_and_a_single_one_are_refused(file):
    path = file("text,label\na,good\nb,bad\nc,sad\n")
    with pytest.raises(CorpusError, match=r"line 4 of .* label 'sad', and the classifier knows"):
        read_examples(path, labels=["bad", "good"])
    examples = read_examples(path)
    assert classes_of(examples, path) == ["bad", "good", "sad"]
    with pytest.raises(CorpusError, match="one label only, 'good'"):
        classes_of(examples[:1], path)


def test_texts_become_rows_that_begin_with_the_end_token():
    tokenizer = WordTokenizer.fit(["a b c"])
    texts = encode_texts(["a b", "c", "a b c a"], tokenizer, [0, 1, 1], max_tokens=3)
    end, a, b, c = tokenizer.end_id, *tokenizer.encode("a b c")
    assert texts.inputs.tolist() == [[end, a, b, end], [end, c, end, end], [end, a, b, c]]
    assert texts.lengths.tolist() == [3, 2, 4]
    assert texts.labels.tolist() == [0, 1, 1]
    some = texts.select(torch.tensor([1, 0]))
    assert some.inputs.tolist() == [[end, c, end], [end, a, b]]
    assert some.labels.tolist() == [1, 0]
    assert len(texts.first(2)) == 2
    assert encode_texts(["a"], tokenizer).labels.tolist() == [0]
    assert texts.to(torch.device("cpu")).inputs.equal(texts.inputs)
    with pytest.raises(ValueError, match="one text or more"):
        encode_texts([], tokenizer)
    with unchecked(), pytest.raises(ValueError, match="one number of texts"):
        LabelledTexts(inputs=texts.inputs, lengths=texts.lengths, labels=texts.labels[:2])
