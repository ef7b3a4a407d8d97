"""Information measures against closed forms, identities, and scipy-free hand computations."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.core import information
from companion.core.information import (
    bits_per_byte,
    cross_entropy,
    entropy,
    kl_divergence,
    log_softmax,
    nats_to_bits,
    per_unit,
    perplexity,
)

# Sums of at most a few dozen float64 terms of size ~1: rounding stays below 1e-13.
ROUNDING = 1e-12


@st.composite
def distributions(draw, number=1, zeros=False):
    """`number` distributions over the same 1 to 12 outcomes."""
    size = draw(st.integers(1, 12))
    smallest = 0.0 if zeros else 1e-6
    result = []
    for _ in range(number):
        weights = draw(
            st.lists(st.floats(smallest, 1.0), min_size=size, max_size=size).filter(
                lambda w: sum(w) > 1e-3
            )
        )
        result.append(np.array(weights) / sum(weights))
    return result


@settings(deadline=None)
@given(st.integers(1, 1000))
def test_entropy_of_a_uniform_distribution_is_log_of_its_size(n):
    assert entropy(np.full(n, 1 / n)) == pytest.approx(math.log(n), abs=ROUNDING)


def test_entropy_of_a_sure_outcome_is_exactly_zero_and_not_minus_zero():
    result = entropy([0.0, 1.0, 0.0])
    assert result == 0
    assert math.copysign(1, result) == 1


def test_entropy_of_the_textbook_example_is_seven_quarters_of_a_bit():
    # Cover & Thomas (2006), example 2.1.1.
    assert nats_to_bits(entropy([0.5, 0.25, 0.125, 0.125])) == pytest.approx(1.75, abs=ROUNDING)


@settings(deadline=None)
@given(distributions(zeros=True))
def test_entropy_lies_between_zero_and_log_of_the_number_of_outcomes(ps):
    (p,) = ps
    assert 0 <= entropy(p) <= math.log(len(p)) + ROUNDING


@settings(deadline=None)
@given(distributions(number=2))
def test_kl_is_not_negative_and_cross_entropy_is_entropy_plus_kl(ps):
    p, q = ps
    assert kl_divergence(p, q) >= 0
    # Terms reach -log(1e-7) = 16 nats; a dozen of them round below 1e-13.
    assert cross_entropy(p, q) == pytest.approx(entropy(p) + kl_divergence(p, q), abs=ROUNDING)


@settings(deadline=None)
@given(distributions(zeros=True))
def test_kl_of_a_distribution_from_itself_is_zero(ps):
    (p,) = ps
    assert kl_divergence(p, p) == 0
    assert cross_entropy(p, p) == pytest.approx(entropy(p), abs=ROUNDING)


@settings(deadline=None)
@given(distributions(number=2))
def test_kl_is_zero_only_for_equal_distributions(ps):
    p, q = ps
    # Pinsker: KL >= (total variation)^2 * 2, so distinct distributions are apart; the rounding
    # allowance matters only where the two are equal but for the last digits.
    total_variation = np.abs(p - q).sum() / 2
    assert kl_divergence(p, q) >= 2 * total_variation**2 - ROUNDING


def test_kl_is_not_symmetric_and_has_its_closed_form():
    # KL((1, 0) || (1/2, 1/2)) = ln 2; the other way round an outcome of p is impossible under q.
    assert kl_divergence([1.0, 0.0], [0.5, 0.5]) == pytest.approx(math.log(2), abs=ROUNDING)
    assert kl_divergence([0.5, 0.5], [1.0, 0.0]) == math.inf
    assert cross_entropy([0.5, 0.5], [1.0, 0.0]) == math.inf


def test_an_outcome_that_p_never_produces_costs_nothing_even_where_q_is_zero():
    assert cross_entropy([1.0, 0.0], [1.0, 0.0]) == 0
    assert kl_divergence([0.5, 0.5, 0.0], [0.25, 0.75, 0.0]) == pytest.approx(
        0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=ROUNDING
    )


@settings(deadline=None)
@given(st.lists(st.floats(-30, 30), min_size=1, max_size=12), st.floats(-1e6, 1e6))
def test_log_softmax_sums_to_one_and_ignores_a_common_shift(logits, shift):
    result = log_softmax(logits)
    assert np.exp(result).sum() == pytest.approx(1, abs=ROUNDING)
    # Adding 1e6 keeps 10 digits after the point of a float64.
    np.testing.assert_allclose(log_softmax(np.array(logits) + shift), result, atol=1e-8)


def test_log_softmax_is_exact_and_silent_at_logits_times_1000():
    logits = np.array([[3.0, 1.0, -2.0], [0.0, 0.0, 0.0]]) * 1000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = log_softmax(logits)
    # exp(-2000) is zero in float64, so the normaliser is exactly the largest term.
    np.testing.assert_array_equal(result[0], [0.0, -2000.0, -5000.0])
    np.testing.assert_allclose(result[1], -math.log(3), atol=ROUNDING)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([0.5, 0.6], "sum to 1"),
        ([2.0, 2.0], "divide it by its sum"),
        ([1.5, -0.5], ">= 0"),
        ([math.nan, 1.0], "finite"),
        ([math.inf, 0.0], "finite"),
        ([], "non-empty"),
        ([[0.5, 0.5]], "one-dimensional"),
        (1.0, "one-dimensional"),
    ],
)
@pytest.mark.parametrize("function", [entropy, lambda p: cross_entropy(p, [0.5, 0.5]),
                                      lambda p: kl_divergence([0.5, 0.5], p)])  # fmt: skip
def test_what_is_no_distribution_is_refused_everywhere(function, bad, message):
    with pytest.raises(ValueError, match=message):
        function(bad)


def test_the_message_names_which_argument_is_wrong():
    with pytest.raises(ValueError, match=r"^q must sum to 1"):
        kl_divergence([0.5, 0.5], [0.5, 0.4])


def test_distributions_over_different_outcomes_are_refused_instead_of_broadcast():
    with pytest.raises(ValueError, match="same outcomes, got 1 and 2"):
        cross_entropy([1.0], [0.5, 0.5])


@pytest.mark.parametrize("bad", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf], [], 1.0])
def test_logits_without_a_distribution_are_refused(bad):
    with pytest.raises(ValueError, match="logits"):
        log_softmax(bad)


def test_float32_rounding_over_a_large_vocabulary_is_tolerated():
    p = np.random.default_rng(0).random(50_000, dtype=np.float32)
    information.as_distribution(p / p.sum())


@settings(deadline=None)
@given(st.integers(1, 100_000))
def test_perplexity_of_a_uniform_model_equals_the_vocabulary_size(size):
    # exp(log(V)) loses the relative rounding of log(V) times its size, ~12: 3e-15.
    assert perplexity(math.log(size)) == pytest.approx(size, rel=1e-14)


def test_perplexity_overflows_to_infinity_and_refuses_what_no_loss_can_be():
    assert perplexity(0.0) == 1
    assert perplexity(1000.0) == math.inf
    for bad in (-0.1, math.nan):
        with pytest.raises(ValueError, match="nats_per_token must be >= 0"):
            perplexity(bad)


def test_one_bit_is_ln_2_nats():
    assert nats_to_bits(math.log(2)) == 1


@settings(deadline=None)
@given(st.floats(0, 20), st.integers(1, 10**6), st.integers(1, 10**7))
def test_the_cost_of_a_text_does_not_depend_on_the_unit(nats, tokens, units):
    # Two roundings of a product and a quotient.
    assert per_unit(nats, tokens=tokens, units=units) * units == pytest.approx(
        nats * tokens, rel=1e-15
    )


def test_uniform_bytes_cost_eight_bits_a_byte_whatever_the_tokens():
    # A byte model: ln 256 a token. Pairs of bytes as tokens: ln 65536 a token, half as many.
    assert bits_per_byte(math.log(256), tokens=100, num_bytes=100) == pytest.approx(8, rel=1e-15)
    assert bits_per_byte(math.log(65536), tokens=50, num_bytes=100) == pytest.approx(8, rel=1e-15)


def test_counts_below_one_are_refused():
    with pytest.raises(ValueError, match="tokens and units must be >= 1, got 5 and 0"):
        per_unit(1.0, tokens=5, units=0)
    with pytest.raises(ValueError, match="got 0 and 5"):
        bits_per_byte(1.0, tokens=0, num_bytes=5)
