"""Documents split into training, validation and test text, the same way on every machine."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from companion.documents import CorpusError, Document

#: Names of the splits, in their order.
SPLITS = ("train", "valid", "test")
#: Where in [0, 1) validation and test text begin.
BOUNDARIES = (0.8, 0.9)
# Added to each name before it is hashed. Any would do. With this one each split of the embedded
# corpora of Python 3.11, 3.12 and 3.13 is near its share by characters too, not only by documents,
# and no single long topic of the language reference fills a split.
_SALT = "168"
_FEWEST_TRAINING = 0.6

Parts = tuple[tuple[Document, ...], tuple[Document, ...], tuple[Document, ...]]


def split_documents(name: str, documents: Sequence[Document]) -> tuple[Parts, tuple[str, ...]]:
    """Training, validation and test documents, none of them empty; and notes on how it was done.

    A single document is cut, at line ends, after 80 % and 90 % of its characters, or between words
    where it has too few lines. Several are split by a hash of their names, so that a document keeps
    its split when others come or texts change. Where that leaves a split empty, which happens to
    few documents, the one whose hash is nearest to it moves there.

    `name` is for the messages. Raises CorpusError when there is too little to split.
    """
    if len(documents) == 1:
        return _by_position(name, documents[0])
    if len(documents) < len(SPLITS):
        raise CorpusError(
            f"splitting by document takes 3 documents or more, {name} has {len(documents)} after "
            "cleaning; add documents, or join them into one file, which is split by position"
        )
    return _by_name(documents)


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
    for boundary, notes in (
        ("\n", ()),
        (" ", ("Split between words, because the text has too few line ends.",)),
    ):
        first, second = (_cut(text, boundary, int(len(text) * share)) for share in BOUNDARIES)
        pieces = (text[:first], text[first:second], text[second:])
        if all(piece.strip() for piece in pieces):
            train, valid, test = (
                (Document(f"{document.name}#{split}", piece),)
                for split, piece in zip(SPLITS, pieces, strict=True)
            )
            return (train, valid, test), notes
    raise CorpusError(
        f"{name} is too short to split into train, valid and test: {len(text)} characters in "
        f"{len(text.split())} words; give at least ten lines of text"
    )


def _cut(text: str, boundary: str, target: int) -> int:
    """End of the boundary before or after `target`, whichever is nearer; 0 where there is none."""
    before, after = text.rfind(boundary, 0, target) + 1, text.find(boundary, target) + 1
    return before if target - before <= abs(after - target) else after
