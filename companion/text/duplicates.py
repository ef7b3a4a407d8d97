"""Repeated text: documents contained in others, and passages repeated within one document.

Both are found by comparing hashes of runs of words, in time nearly proportional to the length.
Scripts written without spaces have a word for each character.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from companion.text.documents import cut_at_spaces

#: Words in a shingle: two texts share one where as many words in a row are the same.
SHINGLE_WORDS = 5
#: A document is dropped when this share of its shingles is in one other document.
NEAR_DUPLICATE_SHARE = 0.8
#: Words in a row that stand earlier in the same document make a copy (Lee et al. 2022: 50 tokens).
PASSAGE_WORDS = 50

# Above this many shingles they are sampled, which bounds memory to some hundred megabytes...
_MOST_SHINGLES = 10_000_000
# ...and a document with fewer of them in the sample is compared as a whole only.
_FEWEST_SAMPLED = 8
# Documents compared with each one, and owners looked at for each shingle: the longest.
_MOST_CANDIDATES = 32
# A longer run without white space (and of no script that does without) is cut by its content.
_LONGEST_WORD = 80
_SPACE, _LETTER, _ALONE = 0, 1, 2
# Thai to Burmese, Khmer, Chinese and Japanese with their punctuation, emoji.
_WITHOUT_SPACES = (
    (0x0E00, 0x10A0), (0x1780, 0x1800), (0x2E80, 0xA000), (0xF900, 0xFB00), (0xFE30, 0xFE50),
    (0xFF00, 0xFFF0), (0x1B000, 0x1B170), (0x1F000, 0x1FB00), (0x20000, 0x40000),
)  # fmt: skip
_FACTOR = 0x9E3779B97F4A7C15

Hashes = NDArray[np.uint64]
Positions = NDArray[np.int64]


def near_duplicates(texts: Sequence[str]) -> dict[int, int]:
    """Index of each text that repeats another -> index of the one that is kept.

    A text repeats another if both are equal except for case and white space, or if at least
    `NEAR_DUPLICATE_SHARE` of its shingles (five words in a row, Broder 1997) stand in the other,
    longer one. That is containment, not Jaccard's resemblance, which MinHash estimates: a chapter
    that a book quotes in full resembles the book little, and would leak all the same. Of equal
    texts the first stays.

    What contains four fifths of a text's shingles contains one of its rarest fifth. So only the
    owners of those are compared, the 32 longest of each, and a header that all texts share costs
    nothing. Every shingle counts up to ten million in all, a fixed sample of them beyond.
    """
    if len(texts) < 2:
        return {}
    lengths: list[int] = []
    seen: dict[bytes, int] = {}
    equal: dict[int, int] = {}
    shingles: dict[int, Hashes] = {}
    total, stride = 0, 1
    for i, text in enumerate(texts):
        words, _, _ = words_of(text)
        lengths.append(len(words))
        first = seen.setdefault(hashlib.sha256(words.tobytes()).digest(), i)
        if first != i:
            equal[i] = first
            continue
        shingles[i] = _sampled(np.unique(_runs(words, SHINGLE_WORDS)), stride)
        total += len(shingles[i])
        while total > _MOST_SHINGLES:
            stride *= 2
            shingles = {j: _sampled(each, stride) for j, each in shingles.items()}
            total = sum(map(len, shingles.values()))
    fewest = _FEWEST_SAMPLED if stride > 1 else 1
    compared = [i for i, each in shingles.items() if len(each) >= fewest]
    # Longest first: whatever contains a text comes before it.
    compared.sort(key=lambda i: (-lengths[i], i))
    repeats = _contained(compared, [shingles[i] for i in compared])
    repeats |= {i: repeats.get(first, first) for i, first in equal.items()}
    return repeats


def copied_passages(text: str) -> list[tuple[int, int]]:
    """Where, in characters, a text repeats 50 words or more that stand in it before.

    Each passage ends where the next word begins. The first occurrence of everything is in none.
    """
    words, starts, _ = words_of(text)
    windows = _runs(words, PASSAGE_WORDS)
    if not len(windows):
        return []
    order = np.argsort(windows, kind="stable")
    ordered = windows[order]
    repeated = np.zeros(len(words), dtype=bool)
    repeated[order[1:]] = ordered[1:] == ordered[:-1]
    # A word is copied if one of the 50 windows that hold it is.
    before = np.concatenate(([0], np.cumsum(repeated)))
    ends = np.arange(1, len(words) + 1)
    copied = before[ends] > before[np.maximum(ends - PASSAGE_WORDS, 0)]
    edges = np.flatnonzero(np.diff(copied, prepend=False, append=False))
    places = np.append(starts, len(text))[edges].reshape(-1, 2)
    return [(int(start), int(end)) for start, end in places]


def words_of(text: str) -> tuple[Hashes, Positions, Positions]:
    """A hash of each word without its case, and where in the text it starts and ends.

    A word is what stands between white space. A character of a script that is written without
    spaces is a word of its own, and so are pieces of other runs above 80 characters.
    """
    hashes, starts, ends = [], [], []
    offset = 0
    for piece in cut_at_spaces(text):
        codes = np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), np.uint32)
        found = _words_of_piece(codes)
        hashes.append(found[0])
        starts.append(found[1] + offset)
        ends.append(found[2] + offset)
        offset += len(codes)
    if not hashes:
        return np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64)
    return np.concatenate(hashes), np.concatenate(starts), np.concatenate(ends)


def _words_of_piece(codes: NDArray[np.uint32]) -> tuple[Hashes, Positions, Positions]:
    kinds, folded = _characters()
    kind = kinds[codes]
    values = (folded[codes] + np.uint64(1)) * (kind != _SPACE)
    first = kind != _SPACE
    first[1:] &= (kind[1:] == _ALONE) | (kind[:-1] != _LETTER)
    starts, ends = _edges(kind, first)
    long = np.flatnonzero(ends - starts > _LONGEST_WORD)
    if len(long):
        # By what stands before the cut, so that a copy is cut alike: one place in eight.
        cuts = np.zeros(len(codes), dtype=bool)
        cuts[4:] = _runs(values, 4)[:-1] % np.uint64(8) == 0
        for start, end in zip(starts[long].tolist(), ends[long].tolist(), strict=True):
            first[start + 1 : end] |= cuts[start + 1 : end]
        starts, ends = _edges(kind, first)
    if not len(starts):
        return np.empty(0, np.uint64), starts, ends
    # Sum of each character's value times a power of the factor for its place in the word.
    place = np.arange(len(codes)) - np.repeat(
        np.append(0, starts), np.diff(starts, prepend=0, append=len(codes))
    )
    longest = int((ends - starts).max())
    powers = np.cumprod(np.full(longest, _FACTOR, np.uint64))
    values *= powers[np.minimum(place, longest - 1)]
    return _mixed(np.add.reduceat(values, starts)), starts, ends


def _edges(kind: NDArray[np.uint8], first: NDArray[np.bool_]) -> tuple[Positions, Positions]:
    """Where words start and end."""
    last = kind != _SPACE
    last[:-1] &= first[1:] | (kind[1:] == _SPACE)
    return np.flatnonzero(first), np.flatnonzero(last) + 1


@functools.cache
def _characters() -> tuple[NDArray[np.uint8], Hashes]:
    """For every code point whether it is white space, a letter or alone; and its folded case."""
    kinds = np.full(0x110000, _LETTER, np.uint8)
    for start, end in _WITHOUT_SPACES:
        kinds[start:end] = _ALONE
    folded = np.arange(0x110000, dtype=np.uint64)
    for code in range(0x1F000):  # no script above has cases
        character = chr(code)
        if character.isspace():
            kinds[code] = _SPACE
        fold = character.casefold()
        folded[code] = ord(fold if len(fold) == 1 else character.lower()[0])
    return kinds, folded


def _runs(words: Hashes, length: int) -> Hashes:
    """A hash of each run of that many words."""
    number = max(0, len(words) - length + 1)
    runs, taken = np.zeros(number, np.uint64), 0
    # Runs of 1, 2, 4, ... words, put together by the binary digits of the length.
    block, size = words, 1
    while size <= length:
        if length & size:
            runs = runs * np.uint64(pow(_FACTOR, size, 2**64)) + block[taken : taken + number]
            taken += size
        block = block[:-size] * np.uint64(pow(_FACTOR, size, 2**64)) + block[size:]
        size *= 2
    return _mixed(runs)


def _mixed(values: Hashes) -> Hashes:
    """Each bit of the value spread over all of them (SplitMix64)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))


def _sampled(shingles: Hashes, stride: int) -> Hashes:
    """One in `stride`, a power of two; the same ones of every text."""
    return shingles if stride == 1 else shingles[shingles & np.uint64(stride - 1) == 0]


def _contained(names: Sequence[int], shingles: Sequence[Hashes]) -> dict[int, int]:
    """Of texts, longest first: name of a contained one -> name of the kept one with its text."""
    if not names:
        return {}
    sizes = np.array([len(each) for each in shingles])
    offsets = np.append(0, np.cumsum(sizes))
    flat = np.concatenate(shingles)
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    counts = np.diff(begins, append=len(flat)).astype(np.int32)
    # Owners of one shingle stand in a row, the longest first; where, and how many, for each.
    owners = np.repeat(np.arange(len(names), dtype=np.int32), sizes)[order]
    number, begin = np.empty_like(owners), np.empty(len(flat), np.int64)
    number[order], begin[order] = np.repeat(counts, counts), np.repeat(begins, counts)
    del ordered, order, begins, counts
    shared = np.add.reduceat(number > 1, offsets[:-1], dtype=np.int64)
    dropped = np.zeros(len(names), dtype=bool)
    repeats: dict[int, int] = {}
    for i in np.flatnonzero(shared >= NEAR_DUPLICATE_SHARE * sizes).tolist():
        own = slice(offsets[i], offsets[i + 1])
        least = math.ceil(NEAR_DUPLICATE_SHARE * sizes[i])
        rarest = offsets[i] + np.argsort(number[own], kind="stable")[: sizes[i] - least + 1]
        looked_at = np.arange(_MOST_CANDIDATES)
        places = (begin[rarest, None] + looked_at)[looked_at < number[rarest, None]]
        found = owners[places]
        candidates, hits = np.unique(found[(found < i) & ~dropped[found]], return_counts=True)
        candidates = candidates[np.argsort(-hits, kind="stable")[:_MOST_CANDIDATES]]
        common, owner = max(
            (
                (_number_in(flat[own], flat[offsets[j] : offsets[j + 1]]), -names[j])
                for j in candidates.tolist()
            ),
            default=(0, 0),
        )
        if common >= NEAR_DUPLICATE_SHARE * sizes[i]:
            dropped[i] = True
            repeats[names[i]] = -owner
    return repeats


def _number_in(these: Hashes, those: Hashes) -> int:
    """How many of the sorted `these` are among the sorted `those`."""
    places = np.minimum(np.searchsorted(those, these), len(those) - 1)
    return int((those[places] == these).sum())
