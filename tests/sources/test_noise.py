"""Sources with errors: insertions and substitutions, against sums done by hand."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch

from companion.core.seeds import make_generator
from companion.sources.automaton import AutomatonSource
from companion.sources.grammar import GrammarConfig
from companion.sources.noise import InsertionSource, SubstitutionSource
from companion.sources.reviews import GrammarSource
from companion.sources.streams import TextSource, true_rows

NoisySource = InsertionSource | SubstitutionSource


def small() -> AutomatonSource:
    """Texts "a b b ... b": one a, then b until the end."""
    probs = torch.tensor([[0.0, 1.0, 0.0], [0.25, 0.0, 0.75]])
    return AutomatonSource(["<end>", "a", "b"], probs, torch.tensor([[-1, 1, -1], [0, -1, 1]]))


def noisy() -> list[NoisySource]:
    return [InsertionSource(small(), 0.1), SubstitutionSource(small(), 0.1)]


def after(source: NoisySource, tokens: list[int]) -> torch.Tensor:
    """p(next token) after `tokens`."""
    states = source.start(1)
    for token in tokens:
        states = source.step(states, torch.tensor([token]))
    return source.probs(states)[0]


@pytest.mark.parametrize("source", noisy(), ids=lambda source: type(source).__name__)
def test_after_any_text_the_next_token_has_a_distribution(source: NoisySource) -> None:
    assert isinstance(source, TextSource)
    for tokens in itertools.product(range(3), repeat=6):
        p = after(source, list(tokens))
        assert float(p.sum()) == pytest.approx(1)
        assert bool((p > 0).all())


@pytest.mark.parametrize("source", noisy(), ids=lambda source: type(source).__name__)
def test_texts_are_sampled_with_these_probabilities(source: NoisySource) -> None:
    n = 5_000
    texts = [tuple(t.tolist()) for t in source.sample(n, generator=make_generator(0))]
    assert all(text.index(0) == len(text) - 1 for text in texts)
    for text, count in Counter(texts).most_common(30):
        steps = [float(after(source, list(text[:t]))[token]) for t, token in enumerate(text)]
        expected = math.prod(steps)
        # Five standard errors of a share, for each of 30 texts.
        slack = 5 * math.sqrt(expected * (1 - expected) / n)
        assert count / n == pytest.approx(expected, abs=slack)


def test_an_insertion_leaves_the_place_and_an_early_end_ends_the_text() -> None:
    source = InsertionSource(small(), 0.1)
    torch.testing.assert_close(after(source, [2]), after(source, []))  # b cannot come first
    torch.testing.assert_close(after(source, [1, 1]), after(source, [1]))
    torch.testing.assert_close(after(source, [0]), after(source, []))
    expected = torch.tensor([0.05, 0.9, 0.05]).double()
    torch.testing.assert_close(after(source, []), expected)
    assert source.errors(source.start(1))[0].tolist() == [True, False, True]
    assert float(source.entropy_rate()) > float(small().entropy_rate())


def test_a_substitution_goes_on_as_if_the_right_word_had_come() -> None:
    source = SubstitutionSource(small(), 0.1)
    # The first word is always a, so b in its place was random, and b or the end comes next.
    torch.testing.assert_close(after(source, [2]), after(source, [1]))
    going_on = 0.1 / 3
    by_hand = torch.tensor([0.25 + 0.75 * going_on, 0.75 * going_on, 0.75 * (0.9 + going_on)])
    torch.testing.assert_close(after(source, [1]), by_hand.double())
    assert source.errors(source.start(1))[0].tolist() == [True, False, True]


def test_the_filter_weighs_what_may_have_been_meant() -> None:
    """Two first words lead to different places; a third says only that one of them was meant."""
    probs = torch.tensor([[0.0, 0.75, 0.25, 0.0], [0.5, 0.0, 0.0, 0.5], [0.5, 0.5, 0.0, 0.0]])
    targets = torch.tensor([[-1, 1, 2, -1], [0, -1, -1, 1], [0, 2, -1, -1]])
    source = SubstitutionSource(AutomatonSource(["<end>", "a", "b", "c"], probs, targets), 0.2)
    states = source.step(source.start(1), torch.tensor([3]))
    torch.testing.assert_close(states, torch.tensor([[0.0, 0.75, 0.25]]).double())
    states = source.step(source.start(1), torch.tensor([1]))
    a, b = 0.75 * 0.8 + 0.75 * 0.2 / 4, 0.25 * 0.2 / 4  # meant or random; random
    torch.testing.assert_close(states, torch.tensor([[0.0, a, b]]).double() / (a + b))


def test_reviews_have_about_as_many_errors_as_asked_for() -> None:
    grammar = GrammarSource(GrammarConfig(depth=0))
    for source in (InsertionSource(grammar, 0.05), SubstitutionSource(grammar, 0.05)):
        rows = true_rows(source, 50, 40, make_generator(1))
        states, errors = source.start(50), 0
        for tokens in rows[:, 1:].T:
            errors += int(source.errors(states).gather(1, tokens[:, None]).sum())
            states = source.step(states, tokens)
        # 2,000 tokens: a standard error of .005; a random word may be one that fits.
        assert 0.025 < errors / 2_000 < 0.075


def test_what_cannot_be_is_refused() -> None:
    for kind in (InsertionSource, SubstitutionSource):
        with pytest.raises(ValueError, match=r"noise must be in \(0, 1\), got 0"):
            kind(small(), 0.0)
    anything = AutomatonSource(["<end>", "a"], torch.tensor([[0.5, 0.5]]), torch.tensor([[0, 0]]))
    with pytest.raises(ValueError, match="none can be an error"):
        InsertionSource(anything, 0.1)
    only = AutomatonSource(
        ["<end>", "a"], torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[-1, 1], [0, -1]])
    )
    with pytest.raises(ValueError, match="no text can go on"):
        SubstitutionSource(only, 0.1)
