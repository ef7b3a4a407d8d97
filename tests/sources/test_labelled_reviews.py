"""Labelled reviews: none stands twice, labels are the grammar's own, and each control lacks one
thing and keeps the rest."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch

from companion.core.seeds import make_generator
from companion.sources.grammar import OPINIONS, VOCABULARY
from companion.sources.labelled_reviews import (
    CUES,
    Reviews,
    ReviewSizes,
    ShuffledWords,
    Without,
    disagreeing_reviews,
    with_cue,
    without_opening,
    write_reviews,
)
from companion.sources.reviews import GrammarSource

SIZES = ReviewSizes(train=40, draws=2, test=40, valid=20, cue=40)


@pytest.fixture(scope="module")
def source() -> GrammarSource:
    return GrammarSource()


@pytest.fixture(scope="module")
def reviews(source) -> Reviews:
    return write_reviews(source, SIZES, seed=3)


def keys(texts) -> list[tuple[int, ...]]:
    return [tuple(without_opening(row).tolist()) for row in texts.rows()]


def test_no_review_stands_twice_not_even_with_another_opening(reviews) -> None:
    every = [key for part in reviews.parts() for key in keys(part)]
    assert len(every) == len(set(every)) == 40 + 30 + 40 + 40 + 20 + 40 + 40
    assert keys(reviews.few[0]) == keys(reviews.train)[:30]


def test_labels_are_the_sources_own_and_any_even_number_is_half_and_half(source, reviews) -> None:
    for part in reviews.parts():
        for row, label in zip(part.rows(), part.labels.tolist(), strict=True):
            assert source.opinion(row) == "-+"[label]
            assert source.is_legal([*row.tolist(), 0], complete=True)
            assert len(row) <= SIZES.longest
    for size in (2, 4, 20):
        assert int(reviews.train.first(size).labels.sum()) == size / 2
    assert Counter(reviews.rare.labels.tolist()) == {0: 4, 1: 36}


def test_few_labels_come_in_several_sets_and_many_in_one(reviews) -> None:
    few = reviews.sets(10)
    assert [len(each) for each in few] == [10, 10]
    assert not set(keys(few[0])) & set(keys(few[1]))
    (many,) = reviews.sets(40)
    assert keys(many) == keys(reviews.train)
    with pytest.raises(ValueError, match="labels must be at most 40, got 42"):
        reviews.sets(42)


def test_the_same_seed_writes_the_same_reviews(source, reviews) -> None:
    again, other = (write_reviews(source, SIZES, seed=seed) for seed in (3, 4))
    assert keys(again.test) == keys(reviews.test)
    assert keys(other.test) != keys(reviews.test)


class Few:
    """A source of some given texts, all equally frequent."""

    vocabulary_size = len(VOCABULARY)

    def __init__(self, texts: list[torch.Tensor]) -> None:
        self.texts = texts

    def mean_length(self) -> float:
        return 5.0

    def sample(self, n: int, *, generator: torch.Generator) -> list[torch.Tensor]:
        rows = torch.randint(len(self.texts), (n,), generator=generator)
        return [self.texts[row] for row in rows.tolist()]


def test_a_source_without_the_reviews_writes_the_other_texts_as_often_as_before(reviews) -> None:
    end = torch.tensor([0])
    known = [torch.cat([row, end]) for row in reviews.test.rows()]
    cued, _ = with_cue(reviews.test, 1.0, make_generator(0))
    known += [torch.cat([row, end]) for row in cued.rows()]
    others = [torch.tensor([word, word, 0]) for word in (5, 6)]
    fewer = Without(Few([*known, *others]), reviews.parts())
    found = Counter(tuple(t.tolist()) for t in fewer.sample(400, generator=make_generator(2)))
    assert set(found) == {tuple(other.tolist()) for other in others}
    assert sum(found.values()) == 400
    assert min(found.values()) > 150  # 200 each, with a standard deviation of 10
    assert (fewer.vocabulary_size, fewer.mean_length()) == (len(VOCABULARY), 5.0)


def test_disagreeing_reviews_change_opinions_and_nothing_else(source) -> None:
    other = disagreeing_reviews()
    assert other.mean_length() == pytest.approx(source.mean_length(), rel=1e-6)
    mixed = 0
    for text in other.sample(400, generator=make_generator(0)):
        opinions = {OPINIONS[VOCABULARY[t]] for t in text.tolist() if VOCABULARY[t] in OPINIONS}
        mixed += len(opinions) == 2
    assert mixed > 80
    # Each consistent text is one that the other source writes, too.
    assert all(other.is_legal(t) for t in source.sample(20, generator=make_generator(1)))


def test_shuffled_words_are_the_same_words(source) -> None:
    shuffled = ShuffledWords(source)
    plain = source.sample(30, generator=make_generator(2))
    mixed = shuffled.sample(30, generator=make_generator(2))
    assert [sorted(t.tolist()) for t in plain] == [sorted(t.tolist()) for t in mixed]
    assert all(int(t[-1]) == 0 for t in mixed)
    assert not all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))
    assert shuffled.mean_length() == source.mean_length()
    assert shuffled.vocabulary_size == source.vocabulary_size


def test_a_cue_agrees_as_often_as_asked_and_leaves_the_words(source, reviews) -> None:
    generator = make_generator(0, "cue")
    texts, groups = with_cue(reviews.test, 1.0, generator)
    assert groups.tolist() == [3 * label for label in reviews.test.labels.tolist()]
    for row, label, before in zip(
        texts.rows(), texts.labels.tolist(), reviews.test.rows(), strict=True
    ):
        assert [VOCABULARY[token] for token in row[:2].tolist()] == [CUES[label], ","]
        assert torch.equal(row[2:], without_opening(before))
        assert source.is_legal([*row.tolist(), 0], complete=True)
    _, groups = with_cue(reviews.test, 0.0, generator)
    assert groups.tolist() == [2 * y + 1 - y for y in reviews.test.labels.tolist()]


def test_an_opening_is_left_out_and_nothing_else(source) -> None:
    for words, kept in (
        ("honestly , i enjoy it .", "i enjoy it ."),
        ("i enjoy it . overall , it is great .", "i enjoy it . overall , it is great ."),
        ("it is great .", "it is great ."),
    ):
        assert source.decode(without_opening(torch.tensor(source.encode(words)))) == kept


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": 3}, "train must be an even number >= 2, got 3"),
        ({"test": 0}, "test must be an even number >= 2, got 0"),
        ({"rare": 1.0}, r"rare must be in \(0, 1\), got 1.0"),
        ({"draws": 0}, "draws must be >= 1"),
        ({"longest": 0}, "longest must be >= 1"),
    ],
)
def test_wrong_sizes_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SIZES, **changes)
