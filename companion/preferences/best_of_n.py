"""Best-of-n: draw n texts and keep the one that a reward likes best.

The simplest way to optimise a reward, and one that needs no training: from one pool of samples it
gives, for every n at once, the expected gold reward of the text that is kept, and the KL divergence
of best-of-n from one sample (Stiennon et al. 2020; Gao, Schulman & Hilton 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from jaxtyping import Float64


def best_of_n_values(
    proxy: ArrayLike, values: ArrayLike, ns: Sequence[int]
) -> Float64[np.ndarray, " ns"]:
    """E[value of the proxy's best of n], for each n, from N samples of one distribution.

    proxy, values: shape (samples,). The estimate is the mean over *all* subsets of n samples
    (Nakano et al. 2021), which is unbiased, and less noisy than drawing some of them: with the
    samples in the order of the proxy, the i-th lowest is the best of C(i - 1, n - 1) of the C(N, n)
    subsets. Of samples with equal proxies each is taken equally often. Computed with logarithms of
    factorials, so large N and n do not overflow; ValueError when an n is not in [1, N].
    """
    rewards, worth = _paired(proxy, values)
    order = np.argsort(rewards, kind="stable")
    ordered, worth = rewards[order], worth[order]
    # Within a tie the order must not matter: give each the mean of its group.
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(np.concatenate([starts, [len(ordered)]]))
    worth = np.repeat(np.add.reduceat(worth, starts) / sizes, sizes)
    return np.array([best_of_n_weights(len(worth), n) @ worth for n in ns])


def best_of_n_weights(num_samples: int, n: int) -> Float64[np.ndarray, " samples"]:
    """The share of the subsets of size n whose best is the i-th lowest sample; sums to 1."""
    if not 1 <= n <= num_samples:
        raise ValueError(f"n must be between 1 and the {num_samples} samples, got {n}")
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, num_samples + 1)))])
    below = np.arange(n - 1, num_samples)  # how many are lower; at least n - 1
    log_share = (
        log_factorial[below] - log_factorial[n - 1] - log_factorial[below - (n - 1)]
        - (log_factorial[-1] - log_factorial[n] - log_factorial[num_samples - n])
    )  # fmt: skip
    weights: NDArray[np.float64] = np.zeros(num_samples)
    weights[n - 1 :] = np.exp(log_share)
    return weights


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n, an upper bound on KL(best-of-n || one sample), in nats.

    It is reached where no two samples ever tie, which samples from a discrete distribution do
    (Beirami et al. 2024).
    """
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    return math.log(n) - (n - 1) / n


@dataclass(frozen=True, kw_only=True)
class GoldFit:
    """A curve of two numbers through gold gains, and how much of their variance it explains."""

    alpha: float
    """Coefficient of the first term, which is proportional to the distance d."""
    beta: float
    """Coefficient of the second term, which bends the curve down."""
    r_squared: float
    """1 - squared residuals / squared deviations from the mean gain."""


def fit_gold_curves(distance: ArrayLike, gain: ArrayLike) -> dict[str, GoldFit]:
    """Least-squares fits of the two forms of Gao, Schulman & Hilton (2022), zero at no distance.

    distance: d = sqrt(KL), above zero; gain: of the gold reward; both of shape (points,), three or
    more. "square" is d (alpha - beta d), their form for best-of-n, and "log" is
    d (alpha - beta log d), theirs for reinforcement learning. Points on one smooth curve are not
    independent, so a high R squared is weak evidence for a form.
    """
    d, gains = _paired(distance, gain)
    if d.size < 3 or not (d > 0).all() or not np.ptp(gains) > 0:
        raise ValueError(
            "a fit of two numbers needs three points or more, distances above 0 and gains that "
            f"differ, got distances {d} and gains {gains}"
        )
    fits = {}
    for name, bend in (("square", d * d), ("log", d * np.log(d))):
        columns = np.stack([d, -bend], axis=1)
        (alpha, beta), *_ = np.linalg.lstsq(columns, gains, rcond=None)
        residuals = gains - columns @ np.array([alpha, beta])
        fits[name] = GoldFit(
            alpha=float(alpha),
            beta=float(beta),
            r_squared=1
            - float(residuals @ residuals) / float(np.square(gains - gains.mean()).sum()),
        )
    return fits


def _paired(proxy: ArrayLike, values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rewards, others = np.asarray(proxy, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if rewards.ndim != 1 or rewards.shape != others.shape or not rewards.size:
        raise ValueError(
            "there must be one proxy reward for each value, one or more, got shapes "
            f"{rewards.shape} and {others.shape}"
        )
    if not np.isfinite(rewards).all():
        raise ValueError("proxy rewards must be finite, or their order is not defined")
    return rewards, others
