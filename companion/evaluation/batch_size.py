"""How large a batch pays: steps against examples, and the gradient noise scale.

A training that reaches a loss with batches of B examples takes S(B) steps and E(B) = B S(B)
examples. McCandlish et al. 2018 (An Empirical Model of Large-Batch Training) describe both by

    (S / Smin - 1) (E / Emin - 1) = 1,

with Smin the steps that are left with batches of any size and Emin the examples that single ones
need. At the critical batch size, Emin / Smin, a training takes twice as many of either. They
predict it by the gradient noise scale, the variance of one example's gradient, summed over the
weights, divided by the squared length of the true gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from companion.core.settings import settings_class

if TYPE_CHECKING:
    from jaxtyping import Float

Numbers = Sequence[float] | NDArray[Any]


@settings_class
class BatchSizeLaw:
    """Steps and examples to a loss, by batch size."""

    least_steps: float
    """Smin: the steps that are left with batches of any size."""
    critical: float
    """Emin / Smin, the critical batch size, in examples."""

    def __post_init__(self) -> None:
        for name in ("least_steps", "critical"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0 and finite, got {getattr(self, name)}")

    @property
    def least_examples(self) -> float:
        """Emin: the examples that small batches need."""
        return self.least_steps * self.critical

    def steps(self, batch_size: float | Numbers) -> NDArray[np.float64]:
        """Steps with batches of this many examples: Smin (1 + critical / B)."""
        batch = np.asarray(batch_size, dtype=np.float64)
        return np.asarray(self.least_steps * (1 + self.critical / batch), dtype=np.float64)

    def examples(self, batch_size: float | Numbers) -> NDArray[np.float64]:
        """Examples with batches of this many: Emin (1 + B / critical)."""
        batch = np.asarray(batch_size, dtype=np.float64)
        return np.asarray(batch * self.steps(batch), dtype=np.float64)


def fit_batch_size_law(batch_sizes: Numbers, steps: Numbers) -> BatchSizeLaw:
    """The law with the least squared differences of log steps.

    batch_sizes, steps: one of each a run; three different batch sizes or more, or the two
    coefficients would fit anything. ValueError otherwise, and where the steps do not fall as the
    law does, so that the critical size is not a positive number: more steps with larger batches, or
    examples that fall as batches grow.
    """
    from scipy.optimize import least_squares

    batch, taken = (np.asarray(each, dtype=np.float64) for each in (batch_sizes, steps))
    if batch.shape != taken.shape or batch.ndim != 1 or len(np.unique(batch)) < 3:
        raise ValueError(
            "give one number of steps for each batch size, and three sizes or more, got shapes "
            f"{batch.shape} and {taken.shape}"
        )
    if not (np.isfinite(batch) & np.isfinite(taken) & (batch > 0) & (taken > 0)).all():
        raise ValueError("batch sizes and steps must be > 0 and finite")

    def differences(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(x[0] + np.log1p(np.exp(x[1]) / batch) - np.log(taken))

    start = [math.log(taken.min() / 2), math.log(float(np.median(batch)))]
    least, critical = least_squares(differences, start, xtol=1e-12, ftol=1e-12, gtol=1e-12).x
    # Beyond these sizes one of the two coefficients is no longer in the data.
    if not math.log(batch.min() / 1e3) < critical < math.log(batch.max() * 1e3):
        raise ValueError(
            "these steps have no bend between few examples and few steps: add smaller and larger "
            "batches"
        )
    return BatchSizeLaw(least_steps=math.exp(least), critical=math.exp(critical))


def gradient_noise_scale(gradients: Float[torch.Tensor, "parts weights"], part_size: int) -> float:
    """The noise scale, in examples, from mean gradients of parts of `part_size` fresh examples.

    The parts' variance is that of one example divided by `part_size`; the squared length of their
    mean is too large by the variance that the mean has, which is taken off. Infinite where nothing
    is left: then the gradient cannot be told from 0 with this many examples.
    """
    parts = len(gradients)
    if parts < 2 or part_size < 1:
        raise ValueError(
            f"give two parts or more of one example or more, got {parts} of {part_size}"
        )
    exact = gradients.double()
    mean = exact.mean(dim=0)
    variance = float((exact - mean).square().sum()) / (parts - 1)
    signal = float(mean.square().sum()) - variance / parts
    return part_size * variance / signal if signal > 0 else math.inf
