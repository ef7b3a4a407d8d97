"""Entropy, cross-entropy, KL divergence and perplexity of known distributions.

Distributions are one-dimensional arrays of probabilities, or of log-probabilities where a
function says so; results are Python floats in nats unless the name says otherwise. The
definitions are those of Cover & Thomas, *Elements of Information Theory* (2006), chapter 2.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: How far the sum of a distribution may be from one: float32 rounding over a large vocabulary.
SUM_TOLERANCE = 1e-4


def as_distribution(p: ArrayLike, name: str = "p") -> NDArray[np.float64]:
    """`p` as a float64 array, checked to be a probability distribution.

    Raises ValueError when `p` is not one-dimensional, is empty, holds a negative or non-finite
    number, or does not sum to one within `SUM_TOLERANCE`.
    """
    array = np.asarray(p, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"{name} must be a non-empty one-dimensional array of probabilities, "
            f"got shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name} must hold finite probabilities, got {array[~np.isfinite(array)][0]}"
        )
    if (array < 0).any():
        raise ValueError(f"{name} must hold probabilities >= 0, got {array.min():g}")
    total = float(array.sum())
    if abs(total - 1) > SUM_TOLERANCE:
        raise ValueError(f"{name} must sum to 1, got {total:g}; divide it by its sum")
    return array


def log_softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Log-probabilities of `logits` along the last axis, exact at any scale of the logits.

    Subtracting the maximum first keeps every exponential at most one, so logits multiplied by
    1000 neither overflow nor lose the largest probability.
    """
    array = np.asarray(logits, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(
            f"logits need at least one class on the last axis, got shape {array.shape}"
        )
    if np.isnan(array).any() or (array == np.inf).any():
        raise ValueError("logits must hold no NaN and no +inf")
    largest = array.max(axis=-1, keepdims=True)
    if (largest == -np.inf).any():
        raise ValueError("logits must hold at least one finite number per distribution")
    shifted = array - largest
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def entropy(p: ArrayLike) -> float:
    """Entropy H(p) = -sum p log p, in nats; terms with p = 0 count as zero."""
    probabilities = as_distribution(p)
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum()) + 0.0


def cross_entropy(p: ArrayLike, q: ArrayLike) -> float:
    """Cross-entropy H(p, q) = -sum p log q, in nats: the mean surprisal of q when p is true.

    Infinite when q gives probability zero to something p can produce. Raises ValueError for what
    is not a distribution (`as_distribution`), and for two of different lengths.
    """
    truth, model = _pair(p, q)
    support = truth > 0
    if (model[support] == 0).any():
        return math.inf
    return float(-(truth[support] * np.log(model[support])).sum()) + 0.0


def kl_divergence(p: ArrayLike, q: ArrayLike) -> float:
    """KL(p || q) = sum p log(p / q), in nats: what using q in place of the truth p costs.

    Infinite, and a ValueError, where `cross_entropy` is so.
    """
    truth, model = _pair(p, q)
    support = truth > 0
    if (model[support] == 0).any():
        return math.inf
    ratio = np.log(truth[support]) - np.log(model[support])
    return max(0.0, float((truth[support] * ratio).sum()))


def perplexity(nats_per_token: float) -> float:
    """exp(nats per token): the size of the fair die that would be as hard to predict.

    Infinite where the exponential overflows (above about 709 nats per token).
    """
    if math.isnan(nats_per_token) or nats_per_token < 0:
        raise ValueError(f"nats_per_token must be >= 0, got {nats_per_token}")
    return math.exp(nats_per_token) if nats_per_token < 709 else math.inf


def nats_to_bits(nats: float) -> float:
    """The same amount of information in bits: one nat is log2(e) = 1.4427 bits."""
    return nats / math.log(2)


def per_unit(nats_per_token: float, *, tokens: int, units: int) -> float:
    """Nats per character, byte or word, from nats per token and the two counts of one text.

    The total is that of the whole text, however it is cut into units; only the divisor changes.
    So models with different tokenizers are compared per byte, never per token.
    """
    if tokens < 1 or units < 1:
        raise ValueError(f"tokens and units must be >= 1, got {tokens} and {units}")
    return nats_per_token * tokens / units


def bits_per_byte(nats_per_token: float, *, tokens: int, num_bytes: int) -> float:
    """Bits per UTF-8 byte of a text that has `tokens` tokens and `num_bytes` bytes."""
    return nats_to_bits(per_unit(nats_per_token, tokens=tokens, units=num_bytes))


def _pair(p: ArrayLike, q: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    truth, model = as_distribution(p, "p"), as_distribution(q, "q")
    if truth.shape != model.shape:
        raise ValueError(
            f"p and q must be over the same outcomes, got {truth.size} and {model.size} of them"
        )
    return truth, model
