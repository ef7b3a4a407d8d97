"""Text to token ids and back: bytes, characters, words, byte-pair pieces.

A tokenizer is fitted on training text only: what stands in validation text alone is unknown to it,
as it will be to the model. Every kind has an end token, which begins each document; ids are stable,
and are saved as JSON.
"""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from companion.core.files import write_text
from companion.core.settings import check_choice
from companion.text.documents import Document, cut_at_spaces

if TYPE_CHECKING:
    from jaxtyping import Int

_FORMAT = "companion tokenizer"
_VERSION = 1
_BYTES = 256
_CHUNK_CHARACTERS = 1 << 14
_CHUNKS = 64
_PIECE_CHARACTERS = 1 << 20
_LONGEST_FITTED = 1 << 10
# White space as the library defines it: without the four separator characters.
_CUT = re.compile(r"(?<=\S)(?=[^\S\x1c-\x1f])|(?<=[^\W\d_])(?=[^\w\s])")


class Tokenizer(ABC):
    """What the four kinds have in common."""

    kind: ClassVar[str]
    """Name of the kind, as `build_tokenizer` takes it."""
    options: ClassVar[Mapping[str, str]] = {}
    """The options that `fit` takes, and what each is."""
    unknown_id: int | None = None
    """Id of whatever was not in the training text; None where that cannot happen."""
    end_id: int
    """Id of the token that begins each document and stands between two."""
    tokens: list[str]
    """The tokens by id, for people to read."""

    @classmethod
    @abstractmethod
    def fit(cls, texts: Iterable[str]) -> Tokenizer:
        """The tokenizer of these training texts; ValueError when there is nothing in them."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of the tokens of the text; no end token is added."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Its contents as plain types, from which `tokenizer_from_dict` restores it."""

    @classmethod
    @abstractmethod
    def _from_fields(cls, fields: dict[str, Any]) -> Tokenizer:
        """The tokenizer from what `to_dict` gave; any error means that the fields are damaged."""

    @abstractmethod
    def _join(self, ids: list[int]) -> str:
        """Text of ids known to be in the vocabulary."""

    def _parts(self, text: str) -> Iterator[str]:
        """Pieces of a long text whose tokens, one after the other, are those of the whole."""
        return cut_at_spaces(text)

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, end and unknown among them."""
        return len(self.tokens)

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """Text of the tokens; ValueError for an id outside the vocabulary."""
        ids = [int(i) for i in ids]
        if ids and not (min(ids) >= 0 and max(ids) < self.vocabulary_size):
            wrong = next(i for i in ids if not 0 <= i < self.vocabulary_size)
            raise ValueError(
                f"token ids must be >= 0 and < {self.vocabulary_size}, got {wrong}; "
                "decode with the tokenizer that encoded"
            )
        return self._join(ids)

    def _header(self) -> dict[str, Any]:
        return {"format": _FORMAT, "version": _VERSION, "kind": self.kind}


class ByteTokenizer(Tokenizer):
    """The 256 bytes and the end token: encodes any text, without unknown tokens or fitting."""

    kind = "byte"
    end_id = _BYTES

    def __init__(self) -> None:
        self.tokens = [_printable(bytes([byte])) for byte in range(_BYTES)] + ["<end>"]

    @classmethod
    def fit(cls, texts: Iterable[str] = ()) -> ByteTokenizer:
        """The byte tokenizer, which is the same for all texts."""
        return cls()

    def encode(self, text: str) -> list[int]:
        """Ids of the bytes of the text in UTF-8."""
        return list(_utf8(text))

    def _join(self, ids: list[int]) -> str:
        # A model may write bytes that are not UTF-8: they show as replacement characters.
        return bytes(i for i in ids if i < _BYTES).decode("utf-8", errors="replace")

    def to_dict(self) -> dict[str, Any]:
        """Only the kind: there is nothing else to keep."""
        return self._header()

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> ByteTokenizer:
        return cls()


class CharacterTokenizer(Tokenizer):
    """The characters (Unicode code points) of the training text, sorted; unknown and end."""

    kind = "character"
    unknown_id: int = 0
    end_id = 1

    def __init__(self, characters: Sequence[str]) -> None:
        if len(set(characters)) < len(characters) or any(len(each) != 1 for each in characters):
            raise ValueError("characters must be single and different; fit them on a text")
        self.tokens = ["<unk>", "<end>", *characters]
        self._ids = {character: i for i, character in enumerate(characters, start=2)}

    @classmethod
    def fit(cls, texts: Iterable[str]) -> CharacterTokenizer:
        """The characters that the texts use."""
        characters: set[str] = set().union(*_checked(texts))
        if not characters:
            raise ValueError("a character tokenizer needs training text, got none; pass some")
        return cls(sorted(characters))

    def encode(self, text: str) -> list[int]:
        """Ids of the characters; `unknown_id` for one that the training text lacks."""
        get, unknown = self._ids.get, self.unknown_id
        return [get(character, unknown) for character in text]

    def _join(self, ids: list[int]) -> str:
        special = {self.unknown_id: "\ufffd", self.end_id: ""}
        return "".join([special[i] if i in special else self.tokens[i] for i in ids])

    def to_dict(self) -> dict[str, Any]:
        """Kind and characters."""
        return {**self._header(), "characters": self.tokens[2:]}

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> CharacterTokenizer:
        return cls(_strings(fields["characters"]))


class WordTokenizer(Tokenizer):
    """Words between white space; each line feed is the end token `<eos>`, as in WikiText-2.

    Ids go from the most to the least frequent word. A word `<unk>` in the text is the unknown
    token, and one `<eos>` the end token. Spaces are not kept: decoding joins words by single ones.
    """

    kind = "word"
    options: ClassVar = {"min_count": "Words that stand more rarely in the text are unknown."}
    unknown_id: int = 0
    end_id = 1

    def __init__(self, words: Sequence[str]) -> None:
        self.tokens = ["<unk>", "<eos>", *words]
        self._ids = {word: i for i, word in enumerate(self.tokens)}
        if len(self._ids) < len(self.tokens) or any(word.split() != [word] for word in words):
            raise ValueError("words must be different and hold no white space; fit them on a text")

    @classmethod
    def fit(cls, texts: Iterable[str], *, min_count: int = 1) -> WordTokenizer:
        """The words that stand in the texts at least `min_count` times."""
        if min_count < 1:
            raise ValueError(f"min_count must be >= 1, got {min_count}")
        counts: Counter[str] = Counter()
        for text in _checked(texts):
            counts.update(text.split())
        if not counts:
            raise ValueError("a word tokenizer needs training text, got none; pass some")
        for special in ("<unk>", "<eos>"):
            counts.pop(special, None)
        words = [word for word, count in counts.items() if count >= min_count]
        return cls(sorted(words, key=lambda word: (-counts[word], word)))

    def encode(self, text: str) -> list[int]:
        """Ids of the words and line feeds; `unknown_id` for a word outside the vocabulary."""
        get, unknown = self._ids.get, self.unknown_id
        return [get(word, unknown) for word in text.replace("\n", " <eos> ").split()]

    def _join(self, ids: list[int]) -> str:
        lines = " ".join([self.tokens[i] if i != self.end_id else "\n" for i in ids])
        return lines.replace(" \n", "\n").replace("\n ", "\n")

    def to_dict(self) -> dict[str, Any]:
        """Kind and words."""
        return {**self._header(), "words": self.tokens[2:]}

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> WordTokenizer:
        return cls(_strings(fields["words"]))


class BPETokenizer(Tokenizer):
    """Byte-pair encoding on bytes (Sennrich 2016, Radford 2019): no text has unknown tokens.

    The end is the last id, and no text is encoded to it.
    """

    kind = "bpe"
    options: ClassVar = {"vocabulary_size": "Pieces at most, the 256 bytes and the end among them."}

    def __init__(self, pieces: Sequence[str], merges: Sequence[tuple[str, str]]) -> None:
        from tokenizers import decoders, models, pre_tokenizers

        ids = {piece: i for i, piece in enumerate(pieces)}
        byte_of = byte_of_letter()
        if len(ids) < len(pieces) or not byte_of.keys() <= ids.keys():
            raise ValueError("pieces must be different and hold all 256 bytes; fit them on a text")
        self._pieces = list(pieces)
        self._merges = list(merges)
        self._model = _tokenizer(models.BPE(ids, self._merges), pre_tokenizers, decoders)
        self.tokens = [_printable(bytes(byte_of[c] for c in piece)) for piece in pieces] + ["<end>"]
        self.end_id = len(pieces)

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocabulary_size: int = 2048) -> BPETokenizer:
        """Pieces learnt from the texts, at most `vocabulary_size` with the end token.

        Fewer come out where a short text has no more pairs that occur twice.
        """
        from tokenizers import decoders, models, pre_tokenizers, trainers

        if vocabulary_size <= _BYTES:
            raise ValueError(
                f"vocabulary_size must be >= {_BYTES + 1} (256 bytes and the end), "
                f"got {vocabulary_size}"
            )
        model = _tokenizer(models.BPE(), pre_tokenizers, decoders)
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size - 1,
            min_frequency=2,
            initial_alphabet=sorted(byte_of_letter()),
            show_progress=False,
        )
        fitted = [_valid(text) for text in _checked(texts) if text]
        if not fitted:
            raise ValueError("a BPE tokenizer needs training text, got none; pass some")
        model.train_from_iterator(
            (part for text in fitted for part in _parts_to_fit(text)), trainer
        )
        learnt = json.loads(model.to_str())["model"]
        pieces = sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)
        # Older releases of the library write a merge as one text, newer ones as two.
        merges = [m.split(" ") if isinstance(m, str) else m for m in learnt["merges"]]
        return cls(pieces, [(left, right) for left, right in merges])

    def encode(self, text: str) -> list[int]:
        """Ids of the pieces."""
        ids: list[int] = []
        chunks = list(_chunks(_valid(text), _CHUNK_CHARACTERS))
        for start in range(0, len(chunks), _CHUNKS):
            for encoding in self._model.encode_batch_fast(chunks[start : start + _CHUNKS]):
                ids += encoding.ids
        return ids

    def _parts(self, text: str) -> Iterator[str]:
        return _chunks(text, _PIECE_CHARACTERS)

    def _join(self, ids: list[int]) -> str:
        return str(self._model.decode([i for i in ids if i != self.end_id]))

    def to_dict(self) -> dict[str, Any]:
        """Kind, pieces in the order of their ids, and merges in the order they are made."""
        return {**self._header(), "pieces": self._pieces, "merges": [list(m) for m in self._merges]}

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> BPETokenizer:
        merges = [(left, right) for left, right in map(_strings, fields["merges"])]
        return cls(_strings(fields["pieces"]), merges)


#: The tokenizers by the names of their kinds.
KINDS: dict[str, type[Tokenizer]] = {
    each.kind: each for each in (ByteTokenizer, CharacterTokenizer, WordTokenizer, BPETokenizer)
}


def build_tokenizer(kind: str, texts: Iterable[str], **options: Any) -> Tokenizer:
    """The tokenizer of that kind (byte, character, word, bpe), fitted on training texts.

    Options: `min_count` for word, `vocabulary_size` for bpe. ValueError for others of either.
    """
    check_choice("tokenizer kind", kind, KINDS)
    for option in options:
        if option not in KINDS[kind].options:
            known = ", ".join(KINDS[kind].options) or "none"
            raise ValueError(f"options of a {kind} tokenizer are: {known}; got {option!r}")
    return KINDS[kind].fit(texts, **options)


def tokenizer_from_dict(fields: Any) -> Tokenizer:
    """The tokenizer that `to_dict` described; ValueError when it is damaged or something else."""
    if not isinstance(fields, dict) or fields.get("format") != _FORMAT:
        raise ValueError("not a tokenizer saved by this package; save one with save_tokenizer")
    if fields.get("version") != _VERSION:
        raise ValueError(
            f"tokenizer version must be {_VERSION}, got {fields.get('version')!r}; "
            "load it with the release that saved it"
        )
    kind: Any = fields.get("kind")
    check_choice("tokenizer kind", kind, KINDS)
    try:
        return KINDS[kind]._from_fields(fields)
    # Everything, because the library that holds the merges raises bare Exceptions.
    except Exception as error:
        raise ValueError(
            f"the saved {kind} tokenizer is damaged ({error}); save it again"
        ) from error


def save_tokenizer(tokenizer: Tokenizer, path: str | os.PathLike[str]) -> None:
    """Write the tokenizer as JSON; the file is whole or not there at all."""
    # Escaped as ASCII, so that also characters that UTF-8 cannot hold come back as they were.
    write_text(Path(path), json.dumps(tokenizer.to_dict()))


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer in a file; ValueError when the file is missing, damaged or something else."""
    try:
        return tokenizer_from_dict(json.loads(Path(path).read_bytes()))
    except OSError as error:
        raise ValueError(f"cannot read tokenizer {path}: {error.strerror}; check it") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a tokenizer: it is not JSON; save it again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedText:
    """Token ids of documents, and the size of their text, for losses per byte and per character."""

    ids: Int[Tensor, " total"]
    """For each document the end token, then its tokens: all but the first are targets."""
    num_bytes: int
    """Bytes of the documents in UTF-8."""
    num_characters: int
    """Characters (Unicode code points) of the documents."""


def encode_documents(tokenizer: Tokenizer, documents: Iterable[Document]) -> EncodedText:
    """The documents concatenated, an end token before each, so that every token is a target.

    The number of targets is `len(ids) - 1`. ValueError when there is nothing to predict.
    """
    ids = array("q")  # an eighth of what a list of numbers takes
    num_bytes = num_characters = 0
    for document in documents:
        num_bytes += len(_utf8(document.text))
        ids.append(tokenizer.end_id)
        for piece in tokenizer._parts(document.text):
            ids.extend(tokenizer.encode(piece))
        num_characters += len(document.text)
    if len(ids) < 2:
        raise ValueError("there must be a token to predict, got documents without text")
    return EncodedText(
        ids=torch.frombuffer(ids, dtype=torch.long),
        num_bytes=num_bytes,
        num_characters=num_characters,
    )


def _checked(texts: Iterable[str]) -> Iterable[str]:
    if isinstance(texts, str):
        raise ValueError("texts must be several texts, got a single str; pass [text]")
    return texts


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must be valid Unicode, got half of a surrogate pair at character {error.start}; "
            "remove it"
        ) from None


def _valid(text: str) -> str:
    _utf8(text)
    return text


def _strings(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"expected a list of texts, got {str(value)[:40]}")
    return value


def _chunks(text: str, size: int) -> Iterator[str]:
    """Pieces of a long text whose tokens, one after the other, are those of the whole.

    The library's time grows faster than the length. No token of it holds white space after anything
    else, or other signs after a letter, so that a cut in between changes nothing.
    """
    start = 0
    while len(text) - start > size:
        cut = _CUT.search(text, start + size)
        if not cut:
            break
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def _parts_to_fit(text: str) -> Iterator[str]:
    """The text in parts whose words are those of the whole.

    But for those above 1,024 characters, as of scripts without spaces: learning takes a time that
    grows with the square of a word's length, so they are cut, and about one pair in a thousand is
    missed.
    """
    for chunk in _chunks(text, _LONGEST_FITTED):
        if len(chunk) <= 2 * _LONGEST_FITTED:
            yield chunk
        else:
            for start in range(0, len(chunk), _LONGEST_FITTED):
                yield chunk[start : start + _LONGEST_FITTED]


def _tokenizer(model: Any, pre_tokenizers: Any, decoders: Any) -> Any:
    from tokenizers import Tokenizer as LibraryTokenizer

    tokenizer = LibraryTokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_of_letter() -> dict[str, int]:
    """The letters by which byte-level BPE writes bytes: themselves if printable, else from 256."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(_BYTES) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(_BYTES + i): byte for i, byte in enumerate(others)
    }


def _printable(data: bytes) -> str:
    r"""Bytes as text for people: `\x0a` and the like for what cannot be shown."""
    text = data.decode("utf-8", errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
