"""Count-based models: closed forms, an independent dictionary implementation, real text."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from annotation_checker import unchecked
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.models.ngram import NGramModel, Smoothing


class SlowNGram:
    """The same definitions, written directly over tuples and dictionaries."""

    def __init__(self, ids, order, vocabulary_size, smoothing):
        self.order, self.size, self.smoothing = order, vocabulary_size, smoothing
        grams = {
            n: Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1))
            for n in range(1, order + 1)
        }
        if smoothing == "kneser-ney":
            for n in range(1, order):
                left = defaultdict(set)
                for gram in grams[n + 1]:
                    left[gram[1:]].add(gram[0])
                left[tuple(ids[:n])].add("start of the stream")
                grams[n] = Counter({gram: len(tokens) for gram, tokens in left.items()})
        self.tables = {n: defaultdict(dict) for n in grams}
        for n, table in grams.items():
            for gram, count in table.items():
                self.tables[n][gram[:-1]][gram[-1]] = count
        self.discounts = {n: self.estimate(list(table.values())) for n, table in grams.items()}

    @staticmethod
    def estimate(counts):
        n = {value: counts.count(value) for value in (1, 2, 3, 4)}
        if not (n[1] and n[2]):
            return [0.0, 0.5, 0.5, 0.5]
        y = n[1] / (n[1] + 2 * n[2])
        if n[3] and n[4]:
            modified = [
                0.0,
                1 - 2 * y * n[2] / n[1],
                2 - 3 * y * n[3] / n[2],
                3 - 4 * y * n[4] / n[3],
            ]
            if min(modified[1:]) > 0:
                return modified
        return [0.0, y, y, y]

    def prob(self, token, context):
        context = tuple(context)[-(self.order - 1) :] if self.order > 1 else ()
        p = 1 / self.size
        for k in range(len(context) + 1):
            followers = self.tables[k + 1].get(context[len(context) - k :])
            if not followers:
                continue
            total, count = sum(followers.values()), followers.get(token, 0)
            if self.smoothing == "witten-bell":
                p = (count + len(followers) * p) / (total + len(followers))
            else:
                d = self.discounts[k + 1]
                given_away = sum(d[min(c, 3)] for c in followers.values())
                p = (count - d[min(count, 3)] + given_away * p) / total
        return p


@st.composite
def streams(draw):
    vocabulary_size = draw(st.integers(1, 6))
    token = st.integers(0, vocabulary_size - 1)
    train = draw(st.lists(token, min_size=5, max_size=80))
    held_out = draw(st.lists(token, min_size=1, max_size=12))
    return vocabulary_size, train, held_out


@pytest.mark.parametrize("smoothing", get_args(Smoothing))
@settings(max_examples=60, deadline=None)
@given(data=streams(), order=st.integers(1, 5))
def test_every_probability_equals_the_slow_dictionary_implementation(smoothing, data, order):
    size, train, held_out = data
    model = NGramModel.fit(train, order=order, vocabulary_size=size, smoothing=smoothing)
    slow = SlowNGram(train, order, size, smoothing)
    for i in range(len(held_out) + 1):
        expected = [slow.prob(token, held_out[:i]) for token in range(size)]
        np.testing.assert_allclose(model.probs(held_out[:i]), expected, rtol=1e-12)
    expected = [-math.log(slow.prob(token, held_out[:i])) for i, token in enumerate(held_out)]
    np.testing.assert_allclose(model.nats(held_out), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("smoothing", get_args(Smoothing))
@settings(max_examples=60, deadline=None)
@given(data=streams(), order=st.integers(1, 5))
def test_probabilities_sum_to_one_and_nats_is_minus_their_logarithm(smoothing, data, order):
    size, train, stream = data
    model = NGramModel.fit(train, order=order, vocabulary_size=size, smoothing=smoothing)
    context = train[-3:]
    for i, surprisal in enumerate(model.nats(stream, context=context)):
        p = model.probs(context + stream[:i])
        assert (p > 0).all()
        assert p.sum() == pytest.approx(1, abs=1e-12)
        assert surprisal == pytest.approx(-math.log(p[stream[i]]), rel=1e-12, abs=1e-12)


def test_witten_bell_bigram_equals_the_hand_computation():
    # a b a b a c over {a, b, c, d}. Counts: a 3, b 2, c 1, T = 3 kinds, N = 6, base 1/4.
    # p(b) = (2 + 3/4) / 9 = 11/36. After a: b twice, c once, N = 3, T = 2:
    # p(b | a) = (2 + 2 * 11/36) / 5 = 47/90. d was never seen: p(d) = (3/4) / 9 = 1/12.
    model = NGramModel.fit([0, 1, 0, 1, 0, 2], order=2, vocabulary_size=4)
    assert model.probs([0])[1] == pytest.approx(47 / 90, rel=1e-14)
    assert model.probs([])[3] == pytest.approx(1 / 12, rel=1e-14)
    # c ends the stream and has no follower; d was never seen: both fall back to the unigram.
    for context in ([2], [3]):
        np.testing.assert_array_equal(model.probs(context), model.probs([]))
    np.testing.assert_allclose(model.nats([0, 1]), [-math.log(15 / 36), -math.log(47 / 90)])


def test_kneser_ney_bigram_equals_the_hand_computation():
    # The same stream. Bigrams: ab 2, ba 2, ac 1, so n1 = 1, n2 = 2 and one discount
    # D = 1 / (1 + 4) = 1/5. Continuation counts: a has b and the start before it, 2; b 1; c 1:
    # n1 = 2, n2 = 1, D = 2 / (2 + 2) = 1/2, which takes 3/2 of 4 and gives it to the base 1/4.
    # p(b) = (1 - 1/2) / 4 + (3/8) / 4 = 7/32.
    # p(b | a) = (2 - 1/5) / 3 + (2/5) / 3 * 7/32 = 3/5 + 7/240 = 151/240.
    model = NGramModel.fit([0, 1, 0, 1, 0, 2], order=2, vocabulary_size=4, smoothing="kneser-ney")
    assert model.discounts == ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert model.probs([])[1] == pytest.approx(7 / 32, rel=1e-14)
    assert model.probs([0])[1] == pytest.approx(151 / 240, rel=1e-14)


def test_modified_discounts_equal_chen_and_goodmans_formula():
    # Unigram counts of counts n1..n4 = 4, 3, 2, 1: y = 4 / (4 + 6) = .4,
    # D1 = 1 - 2 * .4 * 3/4 = .4, D2 = 2 - 3 * .4 * 2/3 = 1.2, D3+ = 3 - 4 * .4 * 1/2 = 2.2.
    repeats = [1] * 4 + [2] * 3 + [3] * 2 + [4]
    ids = np.repeat(np.arange(10), repeats)
    model = NGramModel.fit(ids, order=1, vocabulary_size=10, smoothing="kneser-ney")
    np.testing.assert_allclose(model.discounts, [(0.4, 1.2, 2.2)])
    # Of 20 tokens they take 4 * .4 + 3 * 1.2 + 3 * 2.2 = 11.8, a tenth of it for each token.
    np.testing.assert_allclose(
        model.probs([])[[0, 4, 7, 9]], (np.array([0.6, 0.8, 0.8, 1.8]) + 1.18) / 20
    )


def test_all_three_discounts_at_work_equal_the_slow_implementation():
    rng = np.random.default_rng(1)
    ids = np.minimum(rng.geometric(0.15, 600) - 1, 19)
    train, held_out = ids[:500].tolist(), ids[500:].tolist()
    model = NGramModel.fit(train, order=3, vocabulary_size=20, smoothing="kneser-ney")
    assert all(len(set(discounts)) == 3 for discounts in model.discounts[1:])
    slow = SlowNGram(train, 3, 20, "kneser-ney")
    expected = [-math.log(slow.prob(w, held_out[:i])) for i, w in enumerate(held_out)]
    np.testing.assert_allclose(model.nats(held_out), expected, rtol=1e-12)


def test_a_constant_stream_keeps_its_first_position_apart():
    # All n-grams have table number zero: what comes before the first token must still be nothing.
    model = NGramModel.fit([0] * 9, order=3, vocabulary_size=2)
    assert model.nats([0])[0] == pytest.approx(-math.log((9 + 1 / 2) / 10))
    assert model.seen([0, 0, 0, 0]).tolist() == [0, 1, 2, 2]


def test_a_token_is_predicted_from_its_context_and_nothing_else():
    rng = np.random.default_rng(0)
    model = NGramModel.fit(rng.integers(0, 5, 400), order=3, vocabulary_size=5)
    ids = rng.integers(0, 5, 50)
    whole = model.nats(ids)
    np.testing.assert_array_equal(model.nats(ids[20:], context=ids[:20]), whole[20:])
    np.testing.assert_array_equal(model.nats(ids[20:], context=ids[18:20]), whole[20:])
    np.testing.assert_array_equal(model.nats(torch.tensor(ids)), whole)
    assert model.nats([], context=[1]).shape == (0,)


def test_seen_is_the_longest_context_that_training_followed():
    model = NGramModel.fit([0, 1, 2, 0, 1, 3], order=3, vocabulary_size=5)
    # Before each token of 0 1 2 4 1 3 0: nothing; 0; 0 1; 1 2; 4 never; 1 but not 4 1;
    # and 3, which training saw but nothing after it.
    assert model.seen([0, 1, 2, 4, 1, 3, 0]).tolist() == [0, 1, 2, 2, 0, 1, 0]
    assert model.seen([2], context=[4, 0, 1]).tolist() == [2]
    # After a context: the empty one; 0 1 2; 01 12 20 (13 ends the stream).
    assert model.num_contexts == (1, 3, 3)


def test_unseen_share_counts_whole_ngrams():
    model = NGramModel.fit([0, 1, 2, 0, 1, 3], order=3, vocabulary_size=5)
    # 0 1 2 4: of four unigrams 4 is new; of 01 12 24, 24; of 012 124, 124.
    np.testing.assert_allclose(model.unseen_share([0, 1, 2, 4]), [1 / 4, 1 / 3, 1 / 2])
    with pytest.raises(ValueError, match="at least 3 tokens"):
        model.unseen_share([0, 1])


def test_samples_follow_the_distribution_of_their_context():
    ids = [0, 1] * 20 + [0, 2] * 10
    model = NGramModel.fit(ids, order=2, vocabulary_size=3, smoothing="kneser-ney")
    generator = torch.Generator().manual_seed(0)
    drawn = [int(model.sample(1, generator=generator, context=[0])[0]) for _ in range(2000)]
    p = model.probs([0])
    expected = 2000 * p
    chi_square = float((((np.bincount(drawn, minlength=3) - expected) ** 2) / expected).sum())
    assert chi_square < 13.8  # level .001 at two degrees of freedom
    again = model.sample(30, generator=torch.Generator().manual_seed(5), context=[0])
    same = model.sample(30, generator=torch.Generator().manual_seed(5), context=[0])
    assert torch.equal(again, same)
    assert again.shape == (30,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 0}, "order must be >= 1, got 0"),
        ({"smoothing": "laplace"}, "witten-bell, kneser-ney, got 'laplace'"),
        ({"vocabulary_size": 2}, r"in \[0, 2\), got 0 to 2"),
        ({"vocabulary_size": 0}, "vocabulary_size must be >= 1, got 0"),
        ({"ids": [0, -1, 1]}, r"in \[0, 3\), got -1 to 1"),
        ({"ids": [0, 1]}, "at least 3 training tokens, got 2"),
        (
            {"ids": np.zeros((2, 3), dtype=int)},
            r"1-D array of integers, got int64 of shape \(2, 3\)",
        ),
        ({"ids": np.zeros(4)}, "1-D array of integers, got float64"),
    ],
)
def test_bad_input_is_refused_with_the_rule_and_the_value(arguments, message):
    good = {"ids": [0, 1, 2, 1], "order": 3, "vocabulary_size": 3}
    with unchecked(), pytest.raises(ValueError, match=message):
        NGramModel.fit(**{**good, **arguments})


@pytest.fixture
def shakespeare(companion_data: Path):
    text = (companion_data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    characters = {c: i for i, c in enumerate(sorted(set(text)))}
    ids = np.array([characters[c] for c in text])
    assert len(characters) == 65
    cut = int(0.9 * len(ids))
    return ids[:cut], ids[cut:]


@pytest.mark.slow
def test_witten_bell_numbers_on_tiny_shakespeare(shakespeare):
    train, valid = shakespeare
    measured = []
    for order in range(1, 8):
        model = NGramModel.fit(train, order=order, vocabulary_size=65)
        measured.append(model.nats(valid).mean())
    # Computed once by an independent implementation, and given to three decimals.
    reference = [3.347, 2.486, 2.049, 1.774, 1.669, 1.698, 1.779]
    np.testing.assert_allclose(measured, reference, atol=0.001)


def test_kneser_ney_keeps_improving_where_witten_bell_turns_back(shakespeare):
    train, valid = shakespeare
    nats = {}
    for order in (5, 7):
        model = NGramModel.fit(train, order=order, vocabulary_size=65, smoothing="kneser-ney")
        nats[order] = model.nats(valid).mean()
    # Witten-Bell has 1.669 at order 5 and 1.779 at order 7 (the test above).
    assert nats[5] < 1.669 - 0.05
    assert nats[7] < nats[5] - 0.02
