"""Best-of-n against brute force over all subsets, and against exact distributions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from companion.core.information import kl_divergence
from companion.preferences.best_of_n import (
    best_of_n_kl,
    best_of_n_values,
    best_of_n_weights,
)


def brute_force(proxy: list[float], values: list[float], n: int) -> float:
    """Mean over all subsets; of tied best samples the mean value."""
    found = []
    for subset in itertools.combinations(range(len(proxy)), n):
        top = max(proxy[i] for i in subset)
        best = [values[i] for i in range(len(proxy)) if i in subset and proxy[i] == top]
        found.append(sum(best) / len(best))
    return sum(found) / len(found)


def test_the_estimate_is_the_mean_over_all_subsets() -> None:
    rng = np.random.default_rng(0)
    proxy, values = rng.normal(size=9).tolist(), rng.normal(size=9).tolist()
    found = best_of_n_values(proxy, values, range(1, 10))
    expected = [brute_force(proxy, values, n) for n in range(1, 10)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_ties_are_shared_whatever_the_order_of_the_samples() -> None:
    proxy, values = [1.0, 2.0, 2.0, 0.0, 2.0, 1.0], [5.0, 1.0, 2.0, 7.0, 9.0, -3.0]
    found = best_of_n_values(proxy, values, range(1, 7))
    assert found.tolist() == pytest.approx(
        [brute_force(proxy, values, n) for n in range(1, 7)], abs=1e-12
    )
    turned = best_of_n_values(proxy[::-1], values[::-1], range(1, 7))
    assert turned.tolist() == pytest.approx(found.tolist(), abs=1e-12)


def test_best_of_one_is_the_mean_and_best_of_all_the_best() -> None:
    proxy, values = [3.0, 1.0, 2.0], [10.0, 20.0, 60.0]
    found = best_of_n_values(proxy, values, [1, 3])
    assert found.tolist() == pytest.approx([30, 10])
    with pytest.raises(ValueError, match="n must be between 1 and the 3 samples, got 4"):
        best_of_n_values(proxy, values, [4])
    with pytest.raises(ValueError, match="one proxy reward for each value"):
        best_of_n_values(proxy, values[:2], [1])
    with pytest.raises(ValueError, match="must be finite"):
        best_of_n_values([1.0, math.nan], [1.0, 2.0], [1])


def test_a_perfect_proxy_of_uniform_values_gives_n_over_n_plus_one() -> None:
    """The expected maximum of n of the numbers 1..N is n (N + 1) / (n + 1); N is large here."""
    size = 100_000
    values = np.arange(1, size + 1, dtype=float)
    ns = [1, 2, 16, 512, 50_000, size]
    expected = [n * (size + 1) / (n + 1) for n in ns]
    assert best_of_n_values(values, values, ns).tolist() == pytest.approx(expected, rel=1e-8)


def test_weights_are_shares_of_subsets() -> None:
    weights = best_of_n_weights(7, 3)
    expected = [math.comb(i, 2) / math.comb(7, 3) for i in range(7)]
    assert weights.tolist() == pytest.approx(expected, abs=1e-14)


def best_of_n_distribution(p: np.ndarray, n: int) -> np.ndarray:
    """The exact distribution of the best of n outcomes, each better than those before it."""
    return np.diff(np.cumsum(p) ** n, prepend=0)


def test_the_estimate_is_unbiased_for_the_exact_expectation() -> None:
    """1,500 pools of 6 samples; the mean is within four standard errors of the exact value."""
    p, proxy = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.0, 1.0, 2.0, 3.0])
    values = np.array([0.0, 1.0, 2.5, -4.0])
    exact = float(best_of_n_distribution(p, 3) @ values)
    rng = np.random.default_rng(1)
    pools = rng.choice(4, size=(1500, 6), p=p)
    found = np.array([best_of_n_values(proxy[pool], values[pool], [3])[0] for pool in pools])
    assert found.mean() == pytest.approx(exact, abs=4 * found.std() / math.sqrt(1500))
    assert abs(exact - float(p @ values)) > 0.1  # not what best-of-1 would give


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_the_divergence_is_below_the_formula_and_meets_it_as_atoms_get_small(n: int) -> None:
    p = np.array([0.4, 0.3, 0.2, 0.1])
    coarse = kl_divergence(best_of_n_distribution(p, n), p)
    assert coarse <= best_of_n_kl(n) + 1e-12
    assert n == 1 or coarse < best_of_n_kl(n) - 0.03
    fine = np.full(3000, 1 / 3000)
    exact = kl_divergence(best_of_n_distribution(fine, n), fine)
    assert exact == pytest.approx(best_of_n_kl(n), abs=1e-2)


def test_wrong_numbers_of_draws_are_refused() -> None:
    assert best_of_n_kl(1) == 0
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        best_of_n_kl(0)
