"""Text normalised, and near-duplicate documents dropped, with a report of both.

It comes before splitting: of two copies of a document, one might otherwise be training text and the
other test text.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from companion.text.documents import Document
from companion.text.duplicates import PASSAGE_WORDS, copied_passages
from companion.text.duplicates import near_duplicates as near_duplicates

# Every control character that is white space, except tab and line feed, and Unicode's line ends.
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x1c-\x1f\x85\u2028\u2029]")
# The other control characters, the byte-order mark, and halves of surrogate pairs, which no file in
# UTF-8 can hold.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x9f\ufeff\ud800-\udfff]")

_NAMES_SHOWN = 6
# Repeated passages stay where fewer than this many characters would be left without them.
_FEWEST_LEFT = 2_000


@dataclass(frozen=True, kw_only=True)
class CleaningReport:
    """What cleaning removed and changed; `str(report)` says it in sentences."""

    documents_read: int
    """Number of documents before cleaning."""
    documents_kept: int
    """Number of documents after cleaning."""
    characters_read: int
    """Number of characters before cleaning."""
    characters_kept: int
    """Number of characters after cleaning."""
    line_ends: int = 0
    """Line ends such as carriage returns and form feeds that were replaced by a line feed."""
    control_characters: int = 0
    """Removed characters: control characters except tab, byte-order marks, unpaired surrogates."""
    trailing_spaces: int = 0
    """White space removed from the ends of lines, in characters."""
    recomposed: int = 0
    """Number of documents that were converted to Unicode form NFC."""
    empty: tuple[str, ...] = ()
    """Names of the documents dropped because nothing was left in them."""
    duplicates: tuple[tuple[str, str], ...] = ()
    """(dropped, kept): near-duplicate documents dropped, and the one that each repeats."""
    copied_passages: int = 0
    """Number of passages removed because they occur earlier in the same document."""
    copied_characters: int = 0
    """Number of characters in the removed passages."""
    notes: tuple[str, ...] = ()
    """Sentences about the corpus that a reader of its numbers should know."""

    def __str__(self) -> str:
        """The report in sentences, one per line."""
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
        if self.copied_passages:
            lines.append(
                f"Removed {_count(self.copied_passages, 'passage')} of {PASSAGE_WORDS} words or "
                f"more that stood in the text before: {self.copied_characters:,} characters."
            )
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
    """The normalised text, and how much each rule changed.

    Line ends become line feeds, and so do form feeds; control characters but tab go, so do spaces
    at line ends and blank lines around the text; Unicode is brought to form NFC. A text that is not
    empty ends in one line feed. The counts stand under the names of `CleaningReport`'s fields.
    Cleaning twice changes nothing more.
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
    """The documents cleaned, in their order, without empty and near-duplicate ones; the report.

    A single one, which will be cut into training and test text, is also rid of the passages that it
    repeats.
    """
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
    copies: list[tuple[int, int]] = []
    notes = tuple(notes)
    if len(kept) == 1:
        kept, copies, more = _without_copies(kept[0])
        notes += more
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
        copied_passages=len(copies),
        copied_characters=sum(end - start for start, end in copies),
        notes=notes,
    )
    return kept, report


def _without_copies(
    document: Document,
) -> tuple[tuple[Document, ...], list[tuple[int, int]], tuple[str, ...]]:
    """The document without its repeated passages, their places, and a note if some were kept."""
    text = document.text
    copies = copied_passages(text)
    size = sum(end - start for start, end in copies)
    if not copies:
        return (document,), [], ()
    if len(text) - size < _FEWEST_LEFT:
        note = (
            f"{size / len(text):.0%} of the text repeats the other {len(text) - size:,} characters "
            "of it. That is too little to train on alone, so nothing was removed, and losses on "
            "validation and test text say nothing about new text."
        )
        return (document,), [], (note,)
    edges = [0, *(edge for copy in copies for edge in copy), len(text)]
    parts = [text[edges[i] : edges[i + 1]] for i in range(0, len(edges), 2)]
    return (Document(document.name, "".join(parts).rstrip() + "\n"),), copies, ()


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
