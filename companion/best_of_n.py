"""Best-of-n: draw n texts and keep the one that a reward likes best.

The simplest way to press on a reward, and one whose every quantity can be had without training: the
expected gold reward of the text that is kept, for every n at once, from one pool of samples, and
the KL divergence that choosing costs (Stiennon et al. 2020; Gao, Schulman & Hilton 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    weights /= weights.sum()  # rounding of the logarithms, about 1e-11
    return weights


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n: KL(best-of-n || one sample) in nats, for a reward without ties.

    With ties it is an upper bound, also for a discrete distribution (Beirami et al. 2024).
    """
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    return math.log(n) - (n - 1) / n


def best_of_n_distribution(
    p: ArrayLike, proxy: ArrayLike, n: int
) -> Float64[np.ndarray, " outcomes"]:
    """The exact distribution of best-of-n over a few outcomes with probabilities `p`.

    The best is at most r with probability P(proxy <= r) ** n; outcomes with equal proxies share
    in the proportion of `p`, as when the first of them is taken.
    """
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    rewards, probabilities = _paired(proxy, p)
    at_most = np.array([probabilities[rewards <= r].sum() for r in rewards])
    below = np.array([probabilities[rewards < r].sum() for r in rewards])
    mass = at_most - below  # of all outcomes tied with this one
    share: NDArray[np.float64] = np.zeros_like(mass)
    np.divide(probabilities, mass, out=share, where=mass > 0)
    share *= at_most**n - below**n
    return share


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
