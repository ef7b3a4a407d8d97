"""Text made uniform, and documents that repeat another one dropped, with an account of both.

It comes before splitting: a document that stands twice in a corpus would otherwise be trained on
in one split and tested on in another.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from companion.documents import Document

_LINE_END = re.compile("\r\n?|[\x85\u2028\u2029]")
# Control characters but tab and line feed, the byte-order mark, and halves of surrogate pairs,
# which no file in UTF-8 can hold.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")

#: Words in a shingle: two texts share one where as many words in a row are the same.
SHINGLE_WORDS = 5
#: A document is dropped when this share of its shingles stands in one other document.
NEAR_DUPLICATE_SHARE = 0.8
# Above this many words shingles are sampled, which keeps memory within some hundred megabytes...
_FULL_INDEX_WORDS = 2_000_000
# ...and a document with fewer of them in the sample is compared as a whole only.
_FEWEST_SAMPLED = 8
_NAMES_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class CleaningReport:
    """What cleaning removed and changed; `str(report)` says it in sentences."""

    documents_read: int
    """Documents before cleaning."""
    documents_kept: int
    """Documents after it."""
    characters_read: int
    """Characters before cleaning."""
    characters_kept: int
    """Characters after it."""
    line_ends: int = 0
    """Line ends other than a line feed (carriage returns and the like), replaced by one."""
    control_characters: int = 0
    """Control characters but tab and line feed, byte-order marks, unpaired surrogates: removed."""
    trailing_spaces: int = 0
    """Characters of white space removed from the ends of lines."""
    recomposed: int = 0
    """Documents that were not in Unicode form NFC and were brought to it."""
    empty: tuple[str, ...] = ()
    """Names of the documents dropped because nothing was left in them."""
    duplicates: tuple[tuple[str, str], ...] = ()
    """(dropped, kept): near-duplicate documents dropped, and the one that each repeats."""
    notes: tuple[str, ...] = ()
    """Sentences about the corpus that a reader of its numbers should know."""

    def __str__(self) -> str:
        """The account in sentences, one a line."""
        lines = [
            f"Read {_count(self.documents_read, 'document')}, {self.characters_read:,} characters; "
            f"kept {self.documents_kept:,}, {self.characters_kept:,} characters."
        ]
        pairs = [f"{dropped} (in {kept})" for dropped, kept in self.duplicates]
        for what, names in (("near-duplicate document", pairs), ("empty document", self.empty)):
            if names:
                more = len(names) - _NAMES_SHOWN
                shown = ", ".join(names[:_NAMES_SHOWN]) + (
                    f" and {more:,} more" if more > 0 else ""
                )
                lines.append(f"Dropped {_count(len(names), what)}: {shown}.")
        changes = [
            f"{_count(number, what)} {verb}"
            for number, what, verb in (
                (self.line_ends, "line end", "normalised"),
                (self.control_characters, "control character", "removed"),
                (self.trailing_spaces, "trailing space", "removed"),
                (self.recomposed, "document", "brought to Unicode form NFC"),
            )
            if number
        ]
        if changes:
            lines.append(f"Changed: {', '.join(changes)}.")
        return "\n".join((*lines, *self.notes))


def clean_text(text: str) -> tuple[str, dict[str, int]]:
    """The text made uniform, and how much each rule changed.

    Line ends become line feeds; control characters but tab go, so do spaces at line ends and blank
    lines around the text; Unicode is brought to form NFC. A text that is not empty ends in one line
    feed. The counts stand under the names of `CleaningReport`'s fields. Cleaning twice changes
    nothing more.
    """
    text, line_ends = _LINE_END.subn("\n", text)
    text, control_characters = _CONTROL.subn("", text)
    stripped = "\n".join([line.rstrip() for line in text.split("\n")])
    trailing_spaces = len(text) - len(stripped)
    recomposed = not unicodedata.is_normalized("NFC", stripped)
    if recomposed:
        stripped = unicodedata.normalize("NFC", stripped)
    stripped = stripped.strip("\n")
    return stripped + "\n" if stripped else "", {
        "line_ends": line_ends,
        "control_characters": control_characters,
        "trailing_spaces": trailing_spaces,
        "recomposed": int(recomposed),
    }


def clean_documents(
    documents: Iterable[Document], *, notes: Iterable[str] = ()
) -> tuple[tuple[Document, ...], CleaningReport]:
    """The documents cleaned, in their order, without empty and near-duplicate ones; the report."""
    documents = tuple(documents)
    counts: Counter[str] = Counter()
    cleaned, empty = [], []
    for document in documents:
        text, changes = clean_text(document.text)
        counts.update(changes)
        if text:
            cleaned.append(Document(document.name, text))
        else:
            empty.append(document.name)
    repeats = near_duplicates([document.text for document in cleaned])
    kept = tuple(document for i, document in enumerate(cleaned) if i not in repeats)
    report = CleaningReport(
        documents_read=len(documents),
        documents_kept=len(kept),
        characters_read=sum(len(document.text) for document in documents),
        characters_kept=sum(len(document.text) for document in kept),
        line_ends=counts["line_ends"],
        control_characters=counts["control_characters"],
        trailing_spaces=counts["trailing_spaces"],
        recomposed=counts["recomposed"],
        empty=tuple(empty),
        duplicates=tuple((cleaned[i].name, cleaned[j].name) for i, j in sorted(repeats.items())),
        notes=tuple(notes),
    )
    return kept, report


def near_duplicates(texts: Sequence[str]) -> dict[int, int]:
    """For each text that repeats another: its index, and the index of the one that stays.

    A text repeats another if both are equal but for case and white space, or if at least
    `NEAR_DUPLICATE_SHARE` of its shingles (five words in a row, Broder 1997) stand in the other,
    longer one. That is containment, not Jaccard's resemblance: a chapter that a book quotes in full
    resembles the book little, and would leak all the same. Of equal texts the first stays.

    Every shingle is compared up to two million words in all, a fixed sample of them beyond.
    """
    words = [text.casefold().split() for text in texts]
    stride = 1 + sum(map(len, words)) // _FULL_INDEX_WORDS
    repeats: dict[int, int] = {}
    seen: dict[bytes, int] = {}
    owners: dict[int, list[int]] = {}
    # Longest first: whatever contains a text is in the index before it.
    for i in sorted(range(len(texts)), key=lambda i: (-len(words[i]), i)):
        first = seen.setdefault(hashlib.sha256(" ".join(words[i]).encode()).digest(), i)
        if first != i:
            repeats[i] = repeats.get(first, first)
            continue
        shingles = _shingles(words[i], stride)
        if not shingles or (stride > 1 and len(shingles) < _FEWEST_SAMPLED):
            continue
        shared = Counter(owner for shingle in shingles for owner in owners.get(shingle, ()))
        most, owner = max(((n, -owner) for owner, n in shared.items()), default=(0, 0))
        if most >= NEAR_DUPLICATE_SHARE * len(shingles):
            repeats[i] = -owner
            continue
        for shingle in shingles:
            owners.setdefault(shingle, []).append(i)
    return repeats


def _shingles(words: list[str], stride: int) -> set[int]:
    """Checksums of the runs of five words; one in `stride`, the same ones in every text."""
    runs = zip(*(words[start:] for start in range(SHINGLE_WORDS)), strict=False)
    # A checksum, because Python's own hash of a text differs from process to process.
    hashes = {zlib.crc32(" ".join(run).encode()) for run in runs}
    return {value for value in hashes if value % stride == 0} if stride > 1 else hashes


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
