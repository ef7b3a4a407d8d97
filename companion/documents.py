"""A document, and documents read from files and folders of text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TEXT_SUFFIXES = frozenset({
    ".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".org", ".tex", ".log", ".srt",
    ".html", ".htm", ".xml", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".ini",
    ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".kt", ".swift",
    ".js", ".ts", ".r", ".jl", ".lua", ".rb", ".sh", ".sql",
})  # fmt: skip
"""How the names of files end that are read from a folder. A single file may have any name."""


class CorpusError(ValueError):
    """Text that cannot be had, cleaned or split; the message says why and what to do."""


@dataclass(frozen=True)
class Document:
    """A text and its name; the name decides the split it goes to."""

    name: str
    text: str


_SPACE = re.compile(r"\s")


def pieces(text: str, size: int = 1 << 20) -> Iterator[str]:
    """The text in pieces of about `size` characters, each ending in white space but the last.

    So that work on a long text needs memory for a piece alone. A run of more than `size` characters
    without white space is cut as well.
    """
    start = 0
    while len(text) - start > size:
        space = _SPACE.search(text, start + size, start + 2 * size)
        end = space.end() if space else start + 2 * size
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, as it stands; CorpusError for any other kind of file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(
            f"cannot read {path}: {error.strerror}; check that it is there and may be read"
        ) from error
    zero = data.find(b"\0")
    if zero >= 0:
        raise CorpusError(
            f"{path} is not a text file: it has a NUL byte at byte offset {zero}; "
            "give plain text in UTF-8"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} at byte offset {error.start} "
            "does not decode; convert the file to UTF-8"
        ) from None


def read_folder(root: Path) -> tuple[list[Document], int]:
    """Text files in and below `root`, in the order of their paths; how many other files lie there.

    A document is named by its path in `root`, with `/`. Names that begin with a dot are passed
    over, symbolic links to folders are not followed. Raises CorpusError where no file is text.
    """
    names: list[str] = []
    others = 0
    for folder, subfolders, files in os.walk(root, onerror=_unreadable):
        subfolders[:] = [n for n in subfolders if n[0] != "." and n != "__pycache__"]
        for file in files:
            if file[0] != "." and Path(file).suffix.lower() in TEXT_SUFFIXES:
                names.append(Path(folder, file).relative_to(root).as_posix())
            else:
                others += 1
    if not names:
        raise CorpusError(
            f"{root} holds no text file; put files there that end in .txt, .md, .rst or .py, "
            "or name a single file"
        )
    return [Document(name, read_text(root / name)) for name in sorted(names)], others


def _unreadable(error: OSError) -> None:
    raise CorpusError(
        f"cannot read {error.filename}: {error.strerror}; check that it may be read"
    ) from error
