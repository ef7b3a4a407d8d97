"""Documents split into training, validation and test text, the same way on every machine."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from companion.text.documents import CorpusError, Document, cut_at_spaces

#: Names of the splits, in their order.
SPLITS = ("train", "valid", "test")
#: Where in [0, 1) validation and test text begin.
BOUNDARIES = (0.8, 0.9)
# Added to each name before it is hashed. Any would do. With this one each split of the embedded
# corpora of Python 3.11, 3.12 and 3.13 is near its share by characters too, not only by documents,
# and no single long topic of the language reference fills a split.
_SALT = "168"
_FEWEST_TRAINING = 0.6
# Where one document may be cut, from the best place to any.
_ENDS = {
    "paragraphs": re.compile(r"\n\s*\n"),
    "lines": re.compile(r"\n"),
    "sentences, because lines are long or few": re.compile(
        r"[.!?…؟।][\"'”’»)\]]*\s+|[。！？｡．][」』”’）]*"
    ),
    "words, because the text has too few lines and sentences": re.compile(r"\s+"),
    "characters, because the text has too few lines, sentences and spaces": re.compile(r"(?s)."),
}
# From where a split should end, as a share of the text.
_FARTHEST = 0.05
_FEWEST_CHARACTERS = 20
# A script of which this share stands in one split is noted, if it is so much of that split.
_ALONE, _PART_OF_SPLIT = 0.99, 0.02
_NAMES_SHOWN = 3
_CALLED = {"Cjk": "Chinese", "Hiragana": "Japanese", "Katakana": "Japanese", "Hangul": "Korean"}

Parts = tuple[tuple[Document, ...], tuple[Document, ...], tuple[Document, ...]]


def split_documents(name: str, documents: Sequence[Document]) -> tuple[Parts, tuple[str, ...]]:
    """Training, validation and test documents, none of them empty; and notes on how it was done.

    A single document is cut after about 80 % and 90 % of its characters: between paragraphs, or
    else lines, sentences, words or, in the end, characters; a note says which. Several are split by
    a hash of their names, so that a document keeps its split when others come or texts change.
    Where that leaves a split empty, which happens to few documents, the one whose hash is nearest
    to it moves there. A script that comes to stand in one split alone is noted, with the documents.

    `name` is for the messages. Raises CorpusError when there is too little to split.
    """
    if len(documents) == 1:
        parts, notes = _by_position(name, documents[0])
        return parts, (*notes, *_scripts_apart(parts))
    if len(documents) < len(SPLITS):
        raise CorpusError(
            f"splitting by document takes 3 documents or more, {name} has {len(documents)} after "
            "cleaning; add documents, or join them into one file, which is split by position"
        )
    parts, notes = _by_name(documents)
    return parts, (*notes, *_scripts_apart(parts))


def position(name: str, *, salt: str = _SALT) -> float:
    """Where in [0, 1) a name falls: a hash, alike on every machine and in every Python."""
    digest = hashlib.sha256(f"{salt}:{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _by_name(documents: Sequence[Document]) -> tuple[Parts, tuple[str, ...]]:
    at = {document.name: position(document.name) for document in documents}
    split_of = {name: sum(where >= start for start in BOUNDARIES) for name, where in at.items()}
    for split, (start, end) in enumerate(zip((0.0, *BOUNDARIES), (*BOUNDARIES, 1.0), strict=True)):
        members = Counter(split_of.values())
        if not members[split]:
            spare = [name for name in at if members[split_of[name]] > 1]
            middle = (start + end) / 2
            split_of[min(spare, key=lambda name: (abs(at[name] - middle), name))] = split
    train, valid, test = (
        tuple(document for document in documents if split_of[document.name] == split)
        for split in range(len(SPLITS))
    )
    characters = [sum(len(document.text) for document in part) for part in (train, valid, test)]
    share = characters[0] / sum(characters)
    note = (
        f"Only {share:.0%} of the characters are training text, because documents are few or of "
        "very unequal length; cut the long ones into several."
    )
    return (train, valid, test), (note,) if share < _FEWEST_TRAINING else ()


def _by_position(name: str, document: Document) -> tuple[Parts, tuple[str, ...]]:
    text = document.text
    for unit, end in _ENDS.items():
        first, second = (_cut(text, end, int(len(text) * share)) for share in BOUNDARIES)
        parts = (text[:first], text[first:second], text[second:])
        if len(text) >= _FEWEST_CHARACTERS and all(part.strip() for part in parts):
            train, valid, test = (
                (Document(f"{document.name}#{split}", part),)
                for split, part in zip(SPLITS, parts, strict=True)
            )
            return (train, valid, test), (f"Cut into splits between {unit}.",)
    raise CorpusError(
        f"{name} is too short to split into train, valid and test: {len(text)} characters; "
        "give at least ten lines of text"
    )


def _cut(text: str, end: re.Pattern[str], target: int) -> int:
    """The end nearest to `target` that is near enough, else 0; the first of two as near."""
    room = int(len(text) * _FARTHEST)
    ends = [match.end() for match in end.finditer(text, target - room, target + room + 1)]
    return min(ends, key=lambda place: abs(place - target), default=0)


def _scripts_apart(parts: Parts) -> tuple[str, ...]:
    """A note for each script that only one split has, of which it is a good part."""
    counts = [_scripts(part) for part in parts]
    notes = []
    for script in sorted(set().union(*counts)):
        shares = [count[script] for count in counts]
        most = max(range(len(SPLITS)), key=shares.__getitem__)
        alone = shares[most] >= _ALONE * sum(shares)
        if not alone or shares[most] < _PART_OF_SPLIT * counts[most].total():
            continue
        holders = [d.name for d in parts[most] if _scripts((d,))[script] >= 0.01 * shares[most]]
        shown = ", ".join(holders[:_NAMES_SHOWN])
        more = len(holders) - _NAMES_SHOWN
        notes.append(
            f"The script {script} is in the {SPLITS[most]} text alone, in "
            f"{shown}{f' and {more:,} more' if more > 0 else ''}: "
            + ("no figure will tell how well it is learnt" if most == 0 else "nobody learns it")
            + "; spread it over more documents, or cut these into several."
        )
    return tuple(notes)


def _scripts(documents: Sequence[Document]) -> Counter[str]:
    """How many letters and symbols of each script stand in the documents."""
    codes: Counter[int] = Counter()
    for document in documents:
        for piece in cut_at_spaces(document.text):
            found = np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), np.uint32)
            values, numbers = np.unique(found, return_counts=True)
            codes.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    scripts: Counter[str] = Counter()
    for code, number in codes.items():
        category = unicodedata.category(chr(code))
        if category == "So":
            scripts["of emoji and symbols"] += number
        elif category[0] == "L":
            # Python knows no scripts, but the names of letters begin with theirs.
            script = unicodedata.name(chr(code), "unknown").split()[0].split("-")[0].capitalize()
            scripts[_CALLED.get(script, script)] += number
    return scripts
