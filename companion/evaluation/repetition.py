"""Measures of texts alone, without a model: repetition and variety.

Texts are token ids. None of these measures says whether a text is good: compare with samples of the
source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice


def ngrams(tokens: Sequence[Hashable], n: int) -> Counter[tuple[Hashable, ...]]:
    """How often each n-gram comes up in a text; empty when it has fewer than n tokens."""
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    return Counter(zip(*(islice(tokens, i, None) for i in range(n)), strict=False))


def sequence_repetition(tokens: Sequence[Hashable], n: int = 4) -> float:
    """seq-rep-n of one text: 1 - distinct n-grams / n-grams, 0 to 1 (Welleck et al. 2020).

    0 when no n-gram comes twice; a text too short for an n-gram repeats nothing. It grows with
    length, so compare texts of equal length.
    """
    counts = ngrams(tokens, n)
    return 1 - len(counts) / counts.total() if counts else 0.0


def repeated_segments(tokens: Sequence[int], separators: Iterable[int]) -> float:
    """The share of a text's segments that came before in it, word for word.

    A segment, say a sentence, is what stands between two separators; empty ones do not count, and
    neither does what is cut off after the last separator. 0 where there is no segment.
    """
    ends = set(separators)
    seen: set[tuple[int, ...]] = set()
    segment: list[int] = []
    repeated = total = 0
    for token in tokens:
        if token not in ends:
            segment.append(token)
        elif segment:
            total += 1
            repeated += tuple(segment) in seen
            seen.add(tuple(segment))
            segment = []
    return repeated / max(1, total)


def distinct_n(texts: Iterable[Sequence[Hashable]], n: int) -> float:
    """Distinct n-grams of all texts together, per n-gram: 0 to 1 (Li et al. 2016).

    Li et al. divide by the number of tokens; by the number of n-grams, as here, 1 can be reached.
    It falls as texts are added, so compare equal amounts. ValueError when there is no n-gram.
    """
    counts: Counter[tuple[Hashable, ...]] = Counter()
    for text in texts:
        counts.update(ngrams(text, n))
    if not counts:
        raise ValueError(f"no text has {n} tokens or more, so there is no {n}-gram to count")
    return len(counts) / counts.total()
