"""Measures of texts, by hand-counted examples."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.evaluation import repetition
from companion.evaluation.repetition import (
    distinct_n,
    ngrams,
    repeated_segments,
    sequence_repetition,
)


def test_ngrams_are_counted_with_overlap() -> None:
    assert ngrams([1, 2, 1, 2], 2) == {(1, 2): 2, (2, 1): 1}
    assert ngrams("ab", 3) == {}


def test_repetition_is_one_less_the_share_of_distinct_ngrams() -> None:
    # 1 2 3 1 2 3 1: the bigrams 12 23 31 12 23 31 are six, of which three are distinct.
    assert sequence_repetition([1, 2, 3, 1, 2, 3, 1], 2) == 0.5
    assert sequence_repetition(list(range(50)), 1) == 0
    assert sequence_repetition([7] * 50, 4) == pytest.approx(1 - 1 / 47)
    assert sequence_repetition([1, 2], 4) == 0


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 4))
def test_repetition_and_variety_of_one_text_add_up_to_one(tokens: list[int], n: int) -> None:
    if len(tokens) >= n:
        assert sequence_repetition(tokens, n) == pytest.approx(1 - distinct_n([tokens], n))


def test_a_repeated_sentence_is_one_that_came_before() -> None:
    # Sentences end with 0: "1 2", "3", "1 2", "1 2"; two of four came before.
    assert repeated_segments([1, 2, 0, 3, 0, 1, 2, 0, 1, 2, 0], [0]) == 0.5
    assert repeated_segments([1, 2, 0, 0, 9, 0, 1, 2], [0]) == 0  # empty, and cut off
    assert repeated_segments([1, 0, 1, 9, 1], [0, 9]) == 0.5
    assert repeated_segments([], [0]) == 0


def test_distinct_ngrams_are_counted_over_all_texts() -> None:
    assert distinct_n([[1, 2, 3], [1, 2, 4]], 2) == 3 / 4
    assert distinct_n([[1, 2], [1, 2]], 2) == 1 / 2
    with pytest.raises(ValueError, match="no text has 3 tokens"):
        distinct_n([[1, 2], [1]], 3)
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        distinct_n([[1]], 0)


def test_the_work_of_distinct_n_grows_with_the_texts_and_not_with_their_square(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each text adds its own n-grams; what was counted before is not gone through again."""
    visited = 0

    class Watched(Counter):
        def items(self):
            nonlocal visited
            visited += len(self)
            return super().items()

        def __iadd__(self, other):
            nonlocal visited
            visited += len(self)  # Counter looks at all of itself, for counts below one
            return super().__iadd__(other)

    monkeypatch.setattr(repetition, "Counter", Watched)
    texts = [range(10 * i, 10 * i + 10) for i in range(300)]
    assert distinct_n(texts, 2) == 1
    assert visited <= 300 * 9
