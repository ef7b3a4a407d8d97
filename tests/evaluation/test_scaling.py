"""Fitted scaling laws: planted coefficients come back, intervals cover, optima are optima."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from companion.evaluation import scaling
from companion.evaluation.scaling import (
    BESIROGLU,
    HOFFMANN,
    ScalingFit,
    ScalingLaw,
    bootstrap_scaling_law,
    fit_scaling_law,
)

PLANTED = ScalingLaw(
    floor=2.1, size_scale=60.0, size_exponent=0.6, data_scale=900.0, data_exponent=0.7
)
SIZES, TOKENS = (
    np.array(each, dtype=float)
    for each in zip(
        *itertools.product([1e3, 3e3, 6e3, 2e4, 5e4], 2.0 ** np.arange(14, 19)), strict=True
    )
)


def noisy(seed: int, spread: float) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(len(SIZES))
    return PLANTED.loss(SIZES, TOKENS) * np.exp(spread * noise)


@pytest.mark.parametrize("planted", [PLANTED, HOFFMANN])
def test_a_fit_recovers_planted_coefficients_from_losses_without_noise(planted: ScalingLaw) -> None:
    scale = 1.0 if planted is PLANTED else 1e6  # models and texts as they had them
    found = fit_scaling_law(
        SIZES * scale, TOKENS * scale, planted.loss(SIZES * scale, TOKENS * scale)
    )
    for name in ("floor", "size_scale", "size_exponent", "data_scale", "data_exponent"):
        # The optimizer stops when a step changes less than a billionth; scales are exponentials.
        assert getattr(found, name) == pytest.approx(getattr(planted, name), rel=1e-4), name


def test_a_fit_with_the_floor_given_keeps_it_and_recovers_the_rest() -> None:
    losses = PLANTED.loss(SIZES, TOKENS)
    found = fit_scaling_law(SIZES, TOKENS, losses, floor=2.1)
    assert found.floor == 2.1
    assert found.size_exponent == pytest.approx(0.6, rel=1e-4)
    wrong = fit_scaling_law(SIZES, TOKENS, losses, floor=0.0)
    # Without a floor the curves must be flatter to end where they end.
    assert wrong.floor == 0
    assert wrong.data_exponent < 0.35


def test_one_run_gone_wrong_moves_the_fit_little() -> None:
    losses = noisy(0, 0.002)
    spoilt = losses.copy()
    spoilt[7] *= 1.5
    found, other = (fit_scaling_law(SIZES, TOKENS, each) for each in (losses, spoilt))
    assert found.floor == pytest.approx(other.floor, abs=0.03)


def test_least_squares_would_be_moved_by_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a threshold that no difference reaches, Huber's loss is the squared one."""
    monkeypatch.setattr(scaling, "HUBER", 10.0)
    losses = noisy(0, 0.002)
    spoilt = losses.copy()
    spoilt[7] *= 1.5
    found, other = (fit_scaling_law(SIZES, TOKENS, each) for each in (losses, spoilt))
    assert found.floor == pytest.approx(PLANTED.floor, abs=0.03)
    assert abs(found.floor - other.floor) > 0.5


def test_a_fit_near_a_law_finds_what_the_fit_from_all_starts_finds() -> None:
    losses = noisy(1, 0.01)
    for floor in (None, 2.0, 0.0):
        found = fit_scaling_law(SIZES, TOKENS, losses, floor=floor)
        near = fit_scaling_law(SIZES, TOKENS, losses, floor=floor, near=PLANTED)
        assert near.floor == pytest.approx(found.floor, abs=1e-3)
        assert near.data_exponent == pytest.approx(found.data_exponent, abs=1e-3)


def test_a_fit_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "ITERATIONS", 2)
    found = fit_scaling_law(SIZES, TOKENS, PLANTED.loss(SIZES, TOKENS))  # goes on from the best end
    assert found.floor == pytest.approx(PLANTED.floor, rel=1e-4)
    monkeypatch.setattr(scaling, "MORE_ITERATIONS", 2)
    with pytest.raises(RuntimeError, match=r"not converged after 2 \+ 2 iterations"):
        fit_scaling_law(SIZES, TOKENS, noisy(0, 0.01))


def test_an_exponent_at_the_end_of_its_range_is_a_warning() -> None:
    flat = np.where(SIZES.min() < SIZES, 2.5, 3.0) + 900 / TOKENS**0.7  # a step, as no power is
    with pytest.warns(UserWarning, match="size_exponent ended at 5, an end of its range"):
        fit_scaling_law(SIZES, TOKENS, flat)


def test_resamples_that_cannot_be_fitted_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 9 runs in a square, a resample often lacks a size, and some lie on its diagonal."""
    seen = []

    def watched(n: np.ndarray, d: np.ndarray, *rest: Any, **options: Any) -> ScalingLaw:
        seen.append((n, d))
        return PLANTED

    monkeypatch.setattr(scaling, "_fit", watched)
    n, d = (each.ravel() for each in np.meshgrid([1e3, 3e3, 9e3], [1e4, 3e4, 9e4]))
    losses = PLANTED.loss(n, d)
    bootstrap_scaling_law(
        n, d, losses, floor=2.1, resamples=200, generator=torch.Generator().manual_seed(0)
    )
    assert len(seen) == 201
    assert all(len(np.unique(n)) == len(np.unique(d)) == 3 for n, d in seen)
    assert all(abs(np.corrcoef(np.log(n), np.log(d))[0, 1]) < 0.999 for n, d in seen)


@pytest.mark.slow
def test_most_intervals_hold_the_planted_floor() -> None:
    held, widths = 0, []
    for seed in range(6):
        fit = bootstrap_scaling_law(
            SIZES, TOKENS, noisy(seed, 0.01), resamples=200,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        low, high = fit.interval("floor", 0.9)
        held += low <= PLANTED.floor <= high
        widths.append(high - low)
    # If each holds it with probability .9, fewer than 3 of 6 do in 1 of 1,000 such tests. They may
    # hold it more often, as a resample leaves runs out, but are no wider than this for that.
    assert held >= 3
    assert 0.05 < np.median(widths) < 0.5


def test_intervals_are_percentiles_of_the_resampled_laws() -> None:
    laws = tuple(
        ScalingLaw(
            floor=k / 100, size_scale=1.0, size_exponent=0.5, data_scale=1.0, data_exponent=0.5
        )
        for k in range(101)
    )
    fit = ScalingFit(law=PLANTED, resampled=laws)
    assert fit.interval("floor", 0.9) == (pytest.approx(0.05), pytest.approx(0.95))


@pytest.mark.parametrize("law", [HOFFMANN, BESIROGLU, PLANTED])
@pytest.mark.parametrize("flops", [1e18, 5.76e23])
def test_no_other_split_of_a_budget_has_a_lower_loss(law: ScalingLaw, flops: float) -> None:
    best = law.best_split(flops)
    assert 6 * best.parameters * best.tokens == pytest.approx(flops)
    factors = np.geomspace(0.1, 10, 40)  # without 1, the split itself
    others = law.loss(best.parameters * factors, best.tokens / factors)
    assert law.loss(best.parameters, best.tokens) < others.min()


def test_the_refit_agrees_with_what_chinchilla_did_and_the_published_fit_does_not() -> None:
    """70 billion parameters and 1.4 trillion tokens: 20 tokens for each parameter."""
    budget = 6 * 70e9 * 1.4e12
    assert 15 < BESIROGLU.best_split(budget).tokens_per_parameter < 25
    assert HOFFMANN.best_split(budget).tokens_per_parameter > 60


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tokens": TOKENS[:-1]}, "one number a run each"),
        ({"losses": np.append(noisy(0, 0.0)[:-1], -1)}, "losses must be > 0 and finite"),
        ({"parameters": SIZES * 0 + 5}, "three different sizes or more, got 1"),
        ({"tokens": TOKENS * 0 + 5}, "three different amounts of data or more, got 1"),
        ({"tokens": SIZES * 20}, "in proportion to a power of the parameters"),
        ({"floor": 3.0}, "below the lowest loss"),
        ({"parameters": SIZES[:4], "tokens": TOKENS[:4], "losses": TOKENS[:4]}, "5 coefficients"),
    ],
)
def test_runs_that_cannot_be_fitted_are_refused(arguments: dict, words: str) -> None:
    plain = {"parameters": SIZES, "tokens": TOKENS, "losses": noisy(0, 0.0)}
    with pytest.raises(ValueError, match=words):
        fit_scaling_law(**{**plain, **arguments})


def test_wrong_coefficients_and_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match="size_exponent must be > 0"):
        ScalingLaw(floor=1, size_scale=1, size_exponent=0, data_scale=1, data_exponent=1)
    with pytest.raises(ValueError, match="floor must be >= 0"):
        ScalingLaw(floor=-1, size_scale=1, size_exponent=1, data_scale=1, data_exponent=1)
    with pytest.raises(ValueError, match="flops must be > 0"):
        HOFFMANN.best_split(0)
    with pytest.raises(ValueError, match="tokens must be > 0"):
        HOFFMANN.loss(1e9, 0)
    with pytest.raises(ValueError, match="resamples must be >= 200"):
        bootstrap_scaling_law(
            SIZES, TOKENS, noisy(0, 0.0), generator=torch.Generator(), resamples=199
        )
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        ScalingFit(law=PLANTED, resampled=(PLANTED,)).interval("floor", 1.0)
