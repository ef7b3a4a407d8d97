"""A document, and documents read from files and folders of text."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TEXT_SUFFIXES = frozenset({
    ".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".org", ".tex", ".log", ".srt",
    ".html", ".htm", ".xml", ".csv", ".tsv", ".json", ".jsonl", ".ndjson",
    ".yaml", ".yml", ".toml", ".ini",
    ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".kt", ".swift",
    ".js", ".ts", ".r", ".jl", ".lua", ".rb", ".sh", ".sql",
})  # fmt: skip
"""How the names of files end that are read from a folder. A single file may have any name."""
_JSON_LINES = (".jsonl", ".ndjson")


class CorpusError(ValueError):
    """Text that cannot be loaded, cleaned or split; the message says why and what to do."""


class CorpusUnreachableError(CorpusError):
    """A published file that is in no folder here and could not be downloaded."""


@dataclass(frozen=True)
class Document:
    """A text and its name; the name decides the split it goes to."""

    name: str
    """Such as the path of its file."""
    text: str
    """The whole text."""


_SPACE = re.compile(r"\s")


def cut_at_spaces(text: str, size: int = 1 << 20) -> Iterator[str]:
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


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file, as it stands; CorpusError for one that holds no text.

    In UTF-8, or in UTF-16 or UTF-32 where the file begins with the byte-order mark of one.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(
            f"cannot read {path}: {error.strerror}; check that it is there and may be read"
        ) from error
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    zero = data.find(b"\0") if encoding == "utf-8" else -1
    if zero >= 0:
        raise CorpusError(_about_zero(path, data, zero))
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise CorpusError(
                f"{path} begins as {encoding.upper()} does and is damaged at byte offset "
                f"{error.start}; save it again, best in UTF-8"
            ) from None
        raise CorpusError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} at byte offset {error.start} "
            "does not decode; convert the file to UTF-8"
        ) from None


# The first two bytes of UTF-32's mark are UTF-16's: it has to come first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _about_zero(path: Path, data: bytes, zero: int) -> str:
    """What a file with NUL bytes is: UTF-16, where every other byte of a readable text is one."""
    sample = data[: (1 << 16) - len(data) % 2]
    at_even, at_odd = sample[::2].count(0), sample[1::2].count(0)
    for likely, other, encoding in ((at_odd, at_even, "UTF-16LE"), (at_even, at_odd, "UTF-16BE")):
        text = sample.decode(encoding, errors="replace")
        readable = sum(sign.isprintable() or sign.isspace() for sign in text) > 0.9 * len(text)
        if likely > len(sample) / 8 and likely > 8 * other and readable:
            return (
                f"{path} looks like {encoding} without a byte-order mark; convert it: "
                f"iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}"
            )
    return (
        f"{path} is not a text file: it has a NUL byte at byte offset {zero}; "
        "give plain text in UTF-8"
    )


def read_documents(path: str | os.PathLike[str], name: str) -> list[Document]:
    """The documents in a file: the whole of it, or of JSON Lines the field `text` of each line.

    JSON Lines is what ends in .jsonl or .ndjson; a document is named by file and line. CorpusError
    for a line that is not an object with such a text.
    """
    path = Path(path)
    text = read_text(path)
    if path.suffix.lower() not in _JSON_LINES:
        return [Document(name, text)]
    documents = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
            raise CorpusError(
                f'{path}: line {number} is not a JSON object with the field "text", which holds '
                "the document; write one such object a line, or name the file .txt to read it as "
                "it is"
            )
        documents.append(Document(f"{name}:{number}", fields["text"]))
    return documents


def read_folder(root: str | os.PathLike[str]) -> tuple[list[Document], int]:
    """Text files in and below `root`, in the order of their paths; how many other files lie there.

    A document is named by its path in `root`, with `/`. Names that begin with a dot are passed
    over, symbolic links to folders are not followed. Raises CorpusError where no file is text.
    """
    root = Path(root)
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
    documents = [each for name in sorted(names) for each in read_documents(root / name, name)]
    return documents, others


def _unreadable(error: OSError) -> None:
    raise CorpusError(
        f"cannot read {error.filename}: {error.strerror}; check that it may be read"
    ) from error
