"""Labelled texts: read from CSV, and as rows of token ids.

Any CSV with a header line is read: one column holds the texts, another the labels. What is not
right is refused in one sentence that names the line.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from companion.core.settings import check_sizes
from companion.text.documents import CorpusError, read_text
from companion.text.rows import END_ID
from companion.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Int


class Example(NamedTuple):
    """A text and its label."""

    text: str
    label: str


@dataclass(frozen=True, kw_only=True)
class LabelledTexts:
    """Texts as rows of token ids, each filled up to the longest, with their classes."""

    inputs: Int[Tensor, "texts time"]
    """The end token, which begins each text, then its tokens; then padding."""
    lengths: Int[Tensor, " texts"]
    """Tokens of each row, the first one included; what follows is padding."""
    labels: Int[Tensor, " texts"]
    """The class of each text, from 0."""

    def __post_init__(self) -> None:
        if not len(self.inputs) == len(self.lengths) == len(self.labels) > 0:
            raise ValueError(
                "inputs, lengths and labels must be of one number of texts, one or more, got "
                f"{len(self.inputs)}, {len(self.lengths)} and {len(self.labels)}"
            )

    @classmethod
    def of_rows(
        cls, rows: Sequence[Int[Tensor, " _"]], labels: Sequence[int], *, end_id: int = END_ID
    ) -> LabelledTexts:
        """Texts, each without its end token, with their classes."""
        whole = [torch.cat([torch.tensor([end_id]), words]) for words in rows]
        return cls(
            inputs=torch.nn.utils.rnn.pad_sequence(
                whole, batch_first=True, padding_value=float(end_id)
            ),
            lengths=torch.tensor([len(row) for row in whole]),
            labels=torch.tensor(labels),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Int[Tensor, " rows"]) -> LabelledTexts:
        """These texts, in that order, without columns that are padding in all of them."""
        lengths = self.lengths[rows]
        longest = int(lengths.max()) if len(lengths) else 0
        return LabelledTexts(
            inputs=self.inputs[rows, :longest], lengths=lengths, labels=self.labels[rows]
        )

    def first(self, n: int) -> LabelledTexts:
        """The first `n` texts, or all if there are fewer."""
        return self.select(torch.arange(min(n, len(self))))

    def rows(self) -> list[Tensor]:
        """The tokens of each text, without the end token before it and the padding behind it."""
        lengths = self.lengths.tolist()
        return [row[1:length] for row, length in zip(self.inputs, lengths, strict=True)]

    def to(self, device: torch.device) -> LabelledTexts:
        """The same texts on that device."""
        return LabelledTexts(
            inputs=self.inputs.to(device), lengths=self.lengths.to(device),
            labels=self.labels.to(device),
        )  # fmt: skip


def encode_texts(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    labels: Sequence[int] | None = None,
    *,
    max_tokens: int = 400,
) -> LabelledTexts:
    """Texts as rows of token ids; of each the first `max_tokens` tokens.

    `labels` None gives class 0 to all, for texts whose class is to be predicted.
    """
    check_sizes(max_tokens=max_tokens)
    rows = [torch.tensor(tokenizer.encode(text)[:max_tokens]).long() for text in texts]
    if not rows:
        raise ValueError("encode_texts needs one text or more, got none")
    classes = [0] * len(rows) if labels is None else list(labels)
    return LabelledTexts.of_rows(rows, classes, end_id=tokenizer.end_id)


def read_examples(
    path: str | os.PathLike[str],
    *,
    text: str = "text",
    label: str = "label",
    labels: Sequence[str] | None = None,
) -> list[Example]:
    """The examples of a CSV file, or of one with tabs where its name ends in .tsv.

    text, label: the names of the two columns; others are passed over.
    labels: the labels that are known; others are refused.

    Raises CorpusError, in one sentence, for a file that is not UTF-8 text or has no header, a
    column that is missing or there twice, a line with another number of fields than the header, an
    empty text or label, and an unknown label.
    """
    examples = []
    for line, (content, name) in _columns(path, text, label):
        if not name:
            raise CorpusError(f"line {line} of {path} has no label; write one or take the line out")
        if labels is not None and name not in labels:
            raise CorpusError(
                f"line {line} of {path} has the label {name!r}, and the classifier knows "
                f"{listed(labels)}; correct it, or train with it"
            )
        examples.append(Example(content, name))
    return examples


def read_column(path: str | os.PathLike[str], text: str = "text") -> list[str]:
    """The texts of a CSV file that needs no labels; errors as those of `read_examples`."""
    return [content for _, (content,) in _columns(path, text)]


def classes_of(examples: Sequence[Example], where: str | os.PathLike[str]) -> list[str]:
    """The labels of the examples, sorted: a label's class is its place.

    Raises CorpusError, with `where` they stand, if there is one label only.
    """
    found = sorted({example.label for example in examples})
    if len(found) < 2:
        raise CorpusError(
            f"{where} has one label only, {listed(found)}; a classifier needs examples of two or "
            "more"
        )
    return found


def _columns(
    path: str | os.PathLike[str], text: str, *others: str
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The named columns of each row, with the number of its last line; the text is not empty."""
    delimiter = "\t" if Path(path).suffix.lower() == ".tsv" else ","
    content = read_text(path).removeprefix("\ufeff")
    rows = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    found = 0
    try:
        header = [name.strip() for name in next(rows, [])]
        places = [_place(path, header, name, delimiter) for name in (text, *others)]
        for row in rows:
            if not row:  # an empty line
                continue
            if len(row) != len(header):
                raise CorpusError(
                    f"line {rows.line_num} of {path} has {len(row)} fields and the header "
                    f"{len(header)}; put a text that holds commas into double quotes"
                )
            values = tuple(row[place].strip() for place in places)
            if not values[0]:
                raise CorpusError(
                    f"line {rows.line_num} of {path} has an empty text in column {text!r}; write "
                    "one or take the line out"
                )
            yield rows.line_num, values
            found += 1
    except csv.Error as error:
        raise CorpusError(
            f"line {rows.line_num} of {path} is not CSV ({error}); check its double quotes"
        ) from None
    if not found:
        raise CorpusError(f"{path} has no row below its header; give one text a row")


def _place(path: str | os.PathLike[str], header: list[str], name: str, delimiter: str) -> int:
    if not any(header):
        raise CorpusError(f"{path} is empty; its first line must name the columns")
    if header.count(name) == 1:
        return header.index(name)
    if name in header:
        raise CorpusError(f"{path} has {header.count(name)} columns {name!r}; rename all but one")
    split = "tabs" if delimiter == "\t" else "commas"
    raise CorpusError(
        f"{path} has no column {name!r}; its first line, cut at {split}, names {listed(header)}"
    )


def listed(names: Sequence[str]) -> str:
    """The first few names with commas between, for a message."""
    shown = ", ".join(repr(name[:40]) for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown
