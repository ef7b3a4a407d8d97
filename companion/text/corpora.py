"""Real text, split into training, validation and test text.

Three kinds, all by `load_corpus`: **embedded** corpora, which come with every Python and need no
network; **fetched** ones, downloaded once and checked against the published checksum; and **any
file or folder** of text. All but the published benchmarks are cleaned, then split by document.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from companion.core.settings import check_choice, check_whole
from companion.text import python_library
from companion.text.cleaning import CleaningReport, clean_documents
from companion.text.documents import (
    CorpusError,
    CorpusUnreachableError,
    Document,
    cut_at_spaces,
    read_documents,
    read_folder,
    read_text,
)
from companion.text.splitting import SPLITS, split_documents

_DESCRIPTIONS = {
    "python-docs": "the Python language reference that ships with this Python, by topic",
    "python-docstrings": "docstrings of the standard library, a document for each module",
    "python-code": "source files of the standard library, about two million characters",
    "tiny-shakespeare": "40,000 lines of Shakespeare (Karpathy 2015), no test split; fetched",
    "wikitext-2": "WikiText-2, word level (Merity et al. 2016); fetched",
}

_UNSEEN_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents in three splits; no document, and no near-duplicate of one, is in two."""

    name: str
    """Name or path under which it was loaded."""
    train: tuple[Document, ...]
    """What models and tokenizers are fitted on."""
    valid: tuple[Document, ...]
    """For choosing settings and when to stop."""
    test: tuple[Document, ...]
    """For the final evaluation only; empty where the published corpus has no test split."""
    licence: str
    """Licence of the text."""
    origin: str
    """Where the text comes from."""
    report: CleaningReport
    """What cleaning removed."""

    def documents(self, split: str) -> tuple[Document, ...]:
        """Documents of a split, or of "all"; CorpusError where the split has none."""
        check_choice("split", split, (*SPLITS, "all"))
        if split == "all":
            return self.train + self.valid + self.test
        documents: tuple[Document, ...] = getattr(self, split)
        if not documents:
            present = " or ".join(name for name in SPLITS if getattr(self, name))
            raise CorpusError(f"the corpus {self.name} has no {split} split; use {present}")
        return documents

    def text(self, split: str) -> str:
        """All documents of a split, one after the other."""
        return "".join(document.text for document in self.documents(split))

    @property
    def sizes(self) -> dict[str, dict[str, int]]:
        """For each split the numbers of documents, characters, UTF-8 bytes and words."""
        sizes = {}
        for split in SPLITS:
            texts = [document.text for document in getattr(self, split)]
            sizes[split] = {
                "documents": len(texts),
                "characters": sum(map(len, texts)),
                "bytes": sum(len(text.encode()) for text in texts),
                "words": sum(len(piece.split()) for text in texts for piece in cut_at_spaces(text)),
            }
        return sizes

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of all names and texts: equal only for the very same splits.

        The text of embedded corpora belongs to one release of Python; this tells which one.
        """
        digest = hashlib.sha256()
        for split in SPLITS:
            for document in getattr(self, split):
                for part in (split, document.name, document.text):
                    data = part.encode("utf-8", "surrogatepass")
                    # With its length before it, no part can pass for the end of another.
                    digest.update(b"%d:" % len(data) + data)
        return digest.hexdigest()

    @property
    def unseen(self) -> dict[str, dict[str, Any]]:
        """For validation and test text: kinds and number of characters that training text lacks."""
        seen: set[str] = set()
        for document in self.train:
            seen.update(document.text)
        found = {}
        for split in SPLITS[1:]:
            counts: Counter[str] = Counter()
            for document in getattr(self, split):
                if not seen.issuperset(document.text):
                    counts.update(document.text)
            new = sorted(counts.keys() - seen, key=lambda each: (-counts[each], each))
            found[split] = {
                "kinds": len(new),
                "characters": sum(counts[each] for each in new),
                "most_frequent": "".join(new[:_UNSEEN_SHOWN]),
            }
        return found

    def as_dict(self) -> dict[str, Any]:
        """Everything but the text, in plain types that JSON can hold."""
        return {
            "name": self.name,
            "licence": self.licence,
            "origin": self.origin,
            "fingerprint": self.fingerprint,
            "sizes": self.sizes,
            "unseen": self.unseen,
            "report": asdict(self.report),
        }

    def summary(self) -> str:
        """Origin, licence, sizes of the splits, what cleaning did, what is new in held-out text."""
        lines = [f"{self.name}: {self.origin} ({self.licence})"]
        for split, size in self.sizes.items():
            numbers = (f"{number:12,} {what}" for what, number in size.items())
            lines.append(f"  {split:5}" + ("".join(numbers) if size["documents"] else "  none"))
        lines.append(str(self.report))
        for split, unseen in self.unseen.items():
            if unseen["kinds"]:
                number, kinds = unseen["characters"], unseen["kinds"]
                lines.append(
                    f"Never seen in training: {number:,} character{'s' * (number != 1)} of the "
                    f"{split} text, of {kinds:,} kind{'s' * (kinds != 1)} "
                    f"({' '.join(map(_shown, unseen['most_frequent']))})."
                )
        return "\n".join((*lines, f"Fingerprint {self.fingerprint[:16]}."))


def _shown(character: str) -> str:
    """A character; as its code point where it is white space or leaves no mark."""
    visible = character.isprintable() and not character.isspace()
    return character if visible else f"U+{ord(character):04X}"


def corpus_names() -> tuple[str, ...]:
    """Names that `load_corpus` knows; any other text is given by path."""
    return tuple(_DESCRIPTIONS)


def corpus_descriptions() -> dict[str, str]:
    """Name of each corpus that `load_corpus` knows, and a line about it."""
    return dict(_DESCRIPTIONS)


def load_corpus(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    max_characters: int | None = None,
) -> Corpus:
    """The corpus of that name (see `corpus_names`), or the text in that file or folder.

    `data_dir`, or else the environment variable COMPANION_DATA, names a folder in which the fetched
    corpora lie already, as `wikitext-2/{train,valid,test}.txt` and `tinyshakespeare/input.txt`.
    Files found there are used as they are; where one differs from the published file, the report
    says so. Others are downloaded, checked and kept in the operating system's cache folder.

    A file is cut into its first 80 %, the next 10 % and the last 10 %, where a paragraph ends, or
    else a line, a sentence or a word; passages that it repeats are removed before. A folder is read
    with all folders below it, one document per file, and split by document, as
    `companion.text.splitting.split_documents` describes. In JSON Lines (.jsonl) each line is a
    document, in the field `text`.

    `max_characters` shortens the corpus to that many in all, each split by the same factor.

    Raises CorpusError, in one sentence, for an unknown name, a missing, empty, binary or non-UTF-8
    file, a line of JSON without text, a folder without text, too little to split, and a download
    that fails.
    """
    if max_characters is not None:
        check_whole(max_characters=max_characters)
    if max_characters is not None and max_characters < 1:
        raise CorpusError(f"max_characters must be >= 1, got {max_characters}")
    if name_or_path == "":  # as a path it would be the working folder
        raise CorpusError("an empty name is no corpus; give a name, a file or a folder")
    if isinstance(name_or_path, str) and name_or_path in _DESCRIPTIONS:
        corpus = _named(name_or_path, data_dir)
    else:
        corpus = _from_path(name_or_path)
    return corpus if max_characters is None else _shortened(corpus, max_characters)


def load_corpus_if_reachable(
    name_or_path: str | os.PathLike[str], *, data_dir: str | os.PathLike[str] | None = None
) -> Corpus | None:
    """As `load_corpus`; where a fetched corpus cannot be fetched, one printed line and None.

    For examples that may be left out where there is no network. Every other error is raised, also
    that of a download which is not the published file.
    """
    try:
        return load_corpus(name_or_path, data_dir=data_dir)
    except CorpusUnreachableError:
        print(f"{name_or_path} cannot be fetched here: this example is left out.")
        return None


def _named(name: str, data_dir: str | os.PathLike[str] | None) -> Corpus:
    if name == "tiny-shakespeare":
        return _tiny_shakespeare(data_dir)
    if name == "wikitext-2":
        return _wikitext_2(data_dir)
    load, what, licence = {
        "python-docs": (python_library.documentation, "language reference", "PSF-2.0"),
        "python-docstrings": (python_library.docstrings, "docstrings of the library", "PSF-2.0"),
        "python-code": (
            python_library.code,
            "source of the library",
            "PSF-2.0 and those in the files",
        ),
    }[name]
    origin = f"{what} of Python {sys.version.split()[0]}"
    return _cleaned(name, load(), licence=licence, origin=origin)


def _from_path(name_or_path: str | os.PathLike[str]) -> Corpus:
    name = os.fspath(name_or_path)
    path = Path(name)
    notes: tuple[str, ...] = ()
    if path.is_dir():
        documents, others = read_folder(path)
        if others:
            notes = (f"Left out {others:,} other file(s), which hold no text by their names.",)
    elif path.is_file():
        documents = read_documents(path, path.name)
    elif path.exists():
        raise CorpusError(f"{name} is neither a file nor a folder; name one of the two")
    else:
        raise CorpusError(_not_found(name))
    return _cleaned(
        name, documents, licence="that of the files", origin="text given by path", notes=notes
    )


def _not_found(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), _DESCRIPTIONS, n=1, cutoff=0.5)
    if not close and (os.path.basename(name) != name or "." in name):
        return f"there is no file or folder {name}; check the path"
    guess = f"did you mean {close[0]}? " if close else ""
    return (
        f"unknown corpus {name!r}, and no file or folder of that name; {guess}"
        f"known are {', '.join(_DESCRIPTIONS)}"
    )


def _cleaned(
    name: str, documents: list[Document], *, licence: str, origin: str, notes: Sequence[str] = ()
) -> Corpus:
    kept, report = clean_documents(documents)
    if not kept:
        raise CorpusError(f"{name} is empty; name a file or folder with text in it")
    (train, valid, test), split_notes = split_documents(name, kept)
    return Corpus(
        name=name,
        train=train,
        valid=valid,
        test=test,
        licence=licence,
        origin=origin,
        report=replace(report, notes=(*notes, *report.notes, *split_notes)),
    )


@dataclass(frozen=True)
class _PublishedFile:
    address: str
    sha256: str


_CHAR_RNN = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data"
_EXAMPLES = "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data"
#: Files by their place in the folder that COMPANION_DATA names.
_PUBLISHED = {
    "tinyshakespeare/input.txt": _PublishedFile(
        f"{_CHAR_RNN}/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "wikitext-2/train.txt": _PublishedFile(
        f"{_EXAMPLES}/wikitext-2/train.txt",
        "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
    ),
    "wikitext-2/valid.txt": _PublishedFile(
        f"{_EXAMPLES}/wikitext-2/valid.txt",
        "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    ),
    "wikitext-2/test.txt": _PublishedFile(
        f"{_EXAMPLES}/wikitext-2/test.txt",
        "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
    ),
}


def _tiny_shakespeare(data_dir: str | os.PathLike[str] | None) -> Corpus:
    text, notes = _published("tiny-shakespeare", "tinyshakespeare/input.txt", data_dir)
    cut = int(len(text) * 0.9)  # by characters, as everyone who reports on it does
    return Corpus(
        name="tiny-shakespeare",
        train=(Document("input.txt#train", text[:cut]),),
        valid=(Document("input.txt#valid", text[cut:]),),
        test=(),
        licence="public domain",
        origin="karpathy/char-rnn, data/tinyshakespeare",
        report=_untouched([text], notes),
    )


def _wikitext_2(data_dir: str | os.PathLike[str] | None) -> Corpus:
    # One document a split: published figures count an end token for each line and none beside.
    parts, notes = {}, []
    for split in SPLITS:
        text, more = _published("wikitext-2", f"wikitext-2/{split}.txt", data_dir)
        parts[split] = (Document(f"{split}.txt", text),)
        notes += more
    return Corpus(
        name="wikitext-2",
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        licence="CC BY-SA 3.0",
        origin="pytorch/examples, word_language_model/data/wikitext-2",
        report=_untouched([parts[split][0].text for split in SPLITS], notes),
    )


def _untouched(texts: list[str], notes: list[str]) -> CleaningReport:
    size = sum(map(len, texts))
    return CleaningReport(
        documents_read=len(texts),
        documents_kept=len(texts),
        characters_read=size,
        characters_kept=size,
        notes=("A published benchmark: not cleaned, so that figures compare.", *notes),
    )


def _published(
    name: str, place: str, data_dir: str | os.PathLike[str] | None
) -> tuple[str, list[str]]:
    """Text of a published file, and a note where it is not the published text."""
    file = _PUBLISHED[place]
    folder = data_dir if data_dir is not None else os.environ.get("COMPANION_DATA") or None
    if folder is not None and not Path(folder).is_dir():
        source = "COMPANION_DATA" if data_dir is None else "data_dir"
        raise CorpusError(f"{source} must name a folder, got {os.fspath(folder)!r}; correct it")
    if folder is None or not Path(folder, place).exists():
        return read_text(_fetch(name, place)), []
    text = read_text(Path(folder, place))
    if not text:
        raise CorpusError(f"{Path(folder, place)} is empty; put the published file there")
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if sha256 == file.sha256:
        return text, []
    return text, [
        f"{place} is not the published file (sha256 {sha256[:8]}..., published "
        f"{file.sha256[:8]}...): figures compare with published ones only as far as both agree."
    ]


def _fetch(name: str, place: str) -> Path:
    import pooch

    file = _PUBLISHED[place]
    try:
        with _quiet(pooch.get_logger()):
            return Path(
                pooch.retrieve(
                    file.address,
                    known_hash=f"sha256:{file.sha256}",
                    fname=place.replace("/", "-"),
                    path=pooch.os_cache("trained-to-predict"),
                )
            )
    except (OSError, ValueError) as error:
        # requests' errors are OSErrors; pooch raises a plain ValueError for a wrong checksum.
        network = isinstance(error, OSError)
        cause = type(error).__name__ if network else "its checksum is not the published one"
        raise (CorpusUnreachableError if network else CorpusError)(
            f"{name} could not be fetched from {file.address} ({cause}); connect to the network, "
            f"or put the file at {place} in a folder and name that folder in COMPANION_DATA, "
            "or use an embedded corpus such as python-docs"
        ) from error


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Show warnings and errors only: a notebook shows all that is logged as if it were an error."""
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)


def _shortened(corpus: Corpus, max_characters: int) -> Corpus:
    """The first documents of each split, the last one cut at a line end if it has one."""
    sizes = {split: sum(len(d.text) for d in getattr(corpus, split)) for split in SPLITS}
    total = sum(sizes.values())
    if total <= max_characters:
        return corpus
    parts: dict[str, tuple[Document, ...]] = {}
    for split, size in sizes.items():
        room = size * max_characters // total
        if size and not room:
            raise CorpusError(
                f"max_characters must leave some text in every split, got {max_characters} of "
                f"{total} characters; raise it"
            )
        kept: list[Document] = []
        for document in getattr(corpus, split):
            text = document.text[:room]
            if len(text) < len(document.text):
                text = text[: text.rfind("\n") + 1] or ("" if kept else text)
            if text:
                kept.append(Document(document.name, text))
            room = max(0, room - len(document.text))
        parts[split] = tuple(kept)
    notes = (*corpus.report.notes, f"Shortened from {total:,} characters to {max_characters:,}.")
    return replace(
        corpus,
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        report=replace(corpus.report, notes=notes),
    )
