"""Scaling laws: loss against parameters and training tokens, fitted with uncertainty.

The law is that of Hoffmann et al. 2022 (Training Compute-Optimal Large Language Models),

    L(N, D) = E + A / N^a + B / D^b,

with the loss L in nats per token, N parameters and D training tokens. E is the loss that would be
left with infinitely many of both: the entropy of the text, if the law is right. It is fitted as
they did: Huber's loss on the difference of logarithms, from several starts. With their threshold of
.001 nearly all runs of a grid that is fitted to within some per cent count by the size of their
difference, not its square: in effect, least absolute deviations. How far the optimizer
goes matters: Besiroglu et al. 2024 (Chinchilla Scaling: A Replication Attempt) found that the
published fit had stopped early.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from companion.core.settings import settings_class

if TYPE_CHECKING:
    from jaxtyping import Float64

Array = NDArray[np.float64]

#: Differences of log loss beyond this count by their size and not their square (Hoffmann et al.).
HUBER = 1e-3
#: Exponents and shares of the lowest loss from which fits start.
START_EXPONENTS = (0.2, 0.5, 1.0)
START_FLOORS = (0.3, 0.95)
#: Largest exponent that is looked for.
STEEPEST = 5.0
#: Iterations from each start, and from the best end again if it had not converged.
ITERATIONS, MORE_ITERATIONS = 200, 2000
#: Sizes and data that go together more closely than this, in logarithms, cannot be told apart.
TOGETHER = 0.999
#: A fitted floor is at least this share of the lowest loss; a fit that wants none ends there.
LEAST_FLOOR = 1e-3


@settings_class
class ScalingLaw:
    """The loss of a model with N parameters after D training tokens: E + A / N^a + B / D^b."""

    floor: float
    """E: nats per token that no size and no data take away."""
    size_scale: float
    """A, in nats per token: what one parameter would leave; large, as no model is that small."""
    size_exponent: float
    """a: how fast the loss falls with parameters."""
    data_scale: float
    """B, in nats per token."""
    data_exponent: float
    """b: how fast the loss falls with training tokens."""

    def __post_init__(self) -> None:
        if not 0 <= self.floor < math.inf:
            raise ValueError(f"floor must be >= 0 and finite, got {self.floor}")
        for name in ("size_scale", "size_exponent", "data_scale", "data_exponent"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0 and finite, got {getattr(self, name)}")

    def loss(self, parameters: ArrayLike, tokens: ArrayLike) -> Array:
        """Nats per token; `parameters` and `tokens` of any shapes that fit together."""
        n, d = _positive("parameters", parameters), _positive("tokens", tokens)
        size = self.size_scale * n**-self.size_exponent
        data = self.data_scale * d**-self.data_exponent
        return np.asarray(self.floor + size + data, dtype=np.float64)

    def best_split(self, flops: float) -> Split:
        """The parameters and tokens with the lowest loss for `flops` of training, at 6 N D.

        In closed form (Hoffmann et al. 2022, equation 4): N = G (C/6)^(b/(a+b)) and
        D = (C/6)^(a/(a+b)) / G with G = (a A / (b B))^(1/(a+b)).
        """
        if not 0 < flops < math.inf:
            raise ValueError(f"flops must be > 0 and finite, got {flops}")
        a, b = self.size_exponent, self.data_exponent
        ratio = math.log(a * self.size_scale) - math.log(b * self.data_scale)
        log_n = (ratio + b * math.log(flops / 6)) / (a + b)
        return Split(parameters=math.exp(log_n), tokens=flops / 6 / math.exp(log_n))


class Split(NamedTuple):
    """How a budget of training operations is spent."""

    parameters: float
    tokens: float

    @property
    def tokens_per_parameter(self) -> float:
        """D / N."""
        return self.tokens / self.parameters


#: Hoffmann et al. 2022, approach 3, with the digits of the paper's body: exponents are rounded.
HOFFMANN = ScalingLaw(
    floor=1.69, size_scale=406.4, size_exponent=0.34, data_scale=410.7, data_exponent=0.28
)
#: Besiroglu et al. 2024: the same form, fitted to the data read off Hoffmann et al.'s figure.
BESIROGLU = ScalingLaw(
    floor=1.8172, size_scale=482.01, size_exponent=0.3478, data_scale=2085.43, data_exponent=0.3658
)


def fit_scaling_law(
    parameters: ArrayLike,
    tokens: ArrayLike,
    losses: ArrayLike,
    *,
    floor: float | None = None,
    near: ScalingLaw | None = None,
) -> ScalingLaw:
    """The law with the least summed Huber loss of log(predicted) - log(measured).

    parameters, tokens, losses: one of each for each run, shape (runs,); losses in nats per token.
    floor: fixes E, where the entropy of the source is known; otherwise E is fitted, and a fit that
    wants no floor ends at a thousandth of the lowest loss. near: a law to start from, where one is
    known roughly; it and one other start are then tried, in place of 18.
    Raises ValueError for fewer runs than coefficients, fewer than three sizes or amounts of data,
    amounts of data in proportion to a power of the sizes, or a floor above the lowest loss, and
    RuntimeError if the best fit does not converge. Warns of a coefficient at the end of its range.
    """
    n, d, y = _runs(parameters, tokens, losses, floor)
    starts = _starts(n, d, y, floor)
    if near is not None:
        starts = [_packed(near, n, d, floor), starts[len(starts) // 2]]
    law = _fit(n, d, y, floor, starts=starts)
    for name in ("size_exponent", "data_exponent"):
        if not 1.001e-3 < getattr(law, name) < 0.999 * STEEPEST:
            warnings.warn(
                f"{name} ended at {getattr(law, name):.3g}, an end of its range: these runs do not "
                "determine it",
                stacklevel=2,
            )
    return law


@dataclass(frozen=True, kw_only=True)
class ScalingFit:
    """A fitted law, and the laws fitted to resampled runs."""

    law: ScalingLaw
    """Fitted to all runs."""
    resampled: tuple[ScalingLaw, ...]
    """Fitted to as many runs drawn with replacement, once for each resample."""

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Bootstrap interval of the coefficient `name`, by percentiles of the resamples."""
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        values = [getattr(law, name) for law in self.resampled]
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def bootstrap_scaling_law(
    parameters: ArrayLike,
    tokens: ArrayLike,
    losses: ArrayLike,
    *,
    generator: torch.Generator,
    resamples: int = 1000,
    floor: float | None = None,
) -> ScalingFit:
    """The fitted law and `resamples` laws of resampled runs; arguments as in `fit_scaling_law`.

    The bootstrap over runs (Efron 1979) says how the fit would vary with other runs of the same
    grid. It takes the form of the law for granted: where the form is wrong, the interval does not
    show it. It takes the runs for independent: models that share a training text or a test text
    are not quite. Resamples that could not be fitted, with fewer than three sizes or amounts of
    data or with both in proportion, are drawn again.
    """
    if resamples < 200:
        raise ValueError(
            f"resamples must be >= 200, so that five are beyond each end of 95 %, got {resamples}"
        )
    n, d, y = _runs(parameters, tokens, losses, floor)
    every = _starts(n, d, y, floor)
    law = _fit(n, d, y, floor, starts=every)
    some = [_packed(law, n, d, floor), every[len(every) // 2]]
    found: list[ScalingLaw] = []
    while len(found) < resamples:
        drawn = torch.randint(len(y), (len(y),), generator=generator).numpy()
        if _separable(n[drawn], d[drawn]):
            found.append(
                _fit(
                    n[drawn], d[drawn], y[drawn], floor, starts=some, centres=(n, d),
                    tolerance=1e-6,
                )
            )  # fmt: skip
    return ScalingFit(law=law, resampled=tuple(found))


# Coefficients are fitted as (log of the size term at the middle of log N, a, the same of the data,
# b, log E): near the middle of the runs, so that a scale and its exponent are not one thing.


def _fit(
    n: Array,
    d: Array,
    y: Array,
    floor: float | None,
    *,
    starts: Sequence[Array],
    centres: tuple[Array, Array] | None = None,
    tolerance: float = 1e-9,
) -> ScalingLaw:
    from scipy.optimize import least_squares

    middle_n, middle_d = (float(np.log(each).mean()) for each in centres or (n, d))
    log_n, log_d = np.log(n) - middle_n, np.log(d) - middle_d
    lowest = float(y.min())

    def terms(x: Array) -> Array:
        log_floor = x[4] if floor is None else math.log(floor) if floor else -np.inf
        return np.stack([x[0] - x[1] * log_n, x[2] - x[3] * log_d, np.full(len(y), log_floor)])

    def differences(x: Array) -> Array:
        return np.asarray(np.logaddexp.reduce(terms(x), axis=0) - np.log(y))

    def slopes(x: Array) -> Array:
        each = terms(x)
        size, data, left = np.exp(each - np.logaddexp.reduce(each, axis=0))
        columns = [size, -size * log_n, data, -data * log_d]
        return np.stack([*columns, left] if floor is None else columns, axis=1)

    low = np.array([-20.0, 1e-3, -20.0, 1e-3, math.log(LEAST_FLOOR * lowest)])
    high = np.array([20.0, STEEPEST, 20.0, STEEPEST, math.log(lowest)])
    used = 5 if floor is None else 4

    def minimum(start: Array, iterations: int) -> Any:
        return least_squares(
            differences, np.clip(start, low[:used] + 1e-6, high[:used] - 1e-6), jac=slopes,
            bounds=(low[:used], high[:used]), loss="huber", f_scale=HUBER, x_scale="jac",
            xtol=tolerance, ftol=tolerance, gtol=tolerance, max_nfev=iterations,
        )  # fmt: skip

    best = min((minimum(start, ITERATIONS) for start in starts), key=lambda end: float(end.cost))
    if best.status == 0:
        best = minimum(best.x, MORE_ITERATIONS)
    if best.status == 0:
        raise RuntimeError(
            f"the fit has not converged after {ITERATIONS} + {MORE_ITERATIONS} iterations: these "
            "runs hardly determine the law; use more runs, or give the floor"
        )
    x = best.x
    return ScalingLaw(
        floor=float(np.exp(x[4])) if floor is None else floor,
        size_scale=float(np.exp(x[0] + x[1] * middle_n)),
        size_exponent=float(x[1]),
        data_scale=float(np.exp(x[2] + x[3] * middle_d)),
        data_exponent=float(x[3]),
    )


def _starts(n: Array, d: Array, y: Array, floor: float | None) -> list[Array]:
    """Starts with several exponents and floors, the rest of the middle loss dealt evenly."""
    found = []
    floors = START_FLOORS if floor is None else (floor / float(y.min()),)
    for share, a, b in itertools.product(floors, START_EXPONENTS, START_EXPONENTS):
        start = share * float(y.min())
        rest = math.log(max(float(np.median(y)) - start, 1e-6) / 2)
        coefficients = [rest, a, rest, b]
        found.append(np.array([*coefficients, math.log(start)] if floor is None else coefficients))
    return found


def _packed(law: ScalingLaw, n: Array, d: Array, floor: float | None) -> Array:
    middle_n, middle_d = float(np.log(n).mean()), float(np.log(d).mean())
    coefficients = [
        math.log(law.size_scale) - law.size_exponent * middle_n, law.size_exponent,
        math.log(law.data_scale) - law.data_exponent * middle_d, law.data_exponent,
    ]  # fmt: skip
    log_floor = math.log(law.floor) if law.floor else -math.inf  # then the fit starts at its least
    return np.array([*coefficients, log_floor] if floor is None else coefficients)


def _runs(
    parameters: ArrayLike, tokens: ArrayLike, losses: ArrayLike, floor: float | None
) -> tuple[Float64[Array, " runs"], Float64[Array, " runs"], Float64[Array, " runs"]]:
    n, d = _positive("parameters", parameters), _positive("tokens", tokens)
    y = _positive("losses", losses)
    if not (n.ndim == d.ndim == y.ndim == 1 and n.shape == d.shape == y.shape):
        raise ValueError(
            "parameters, tokens and losses must be one number a run each, got shapes "
            f"{n.shape}, {d.shape} and {y.shape}"
        )
    used = 5 if floor is None else 4
    if len(y) < used:
        raise ValueError(f"a fit of {used} coefficients needs {used} runs or more, got {len(y)}")
    for name, values in (("sizes", n), ("amounts of data", d)):
        if len(np.unique(values)) < 3:
            raise ValueError(
                f"a curve needs three different {name} or more, got {len(np.unique(values))}"
            )
    if not _separable(n, d):
        raise ValueError(
            "tokens rise in proportion to a power of the parameters, as at 20 tokens for each, so "
            "that what is due to which cannot be told: train some models on other amounts of data"
        )
    if floor is not None and not 0 <= floor < y.min():
        raise ValueError(
            f"floor must be >= 0 and below the lowest loss, {y.min():.4g}, got {floor}; no run can "
            "be below the entropy of its source but by chance: use more test text"
        )
    return n, d, y


def _separable(n: Array, d: Array) -> bool:
    """Whether there are three sizes and amounts of data, which do not rise as one."""
    if min(len(np.unique(n)), len(np.unique(d))) < 3:
        return False
    return abs(float(np.corrcoef(np.log(n), np.log(d))[0, 1])) < TOGETHER


def _positive(name: str, values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not ((array > 0) & np.isfinite(array)).all():
        raise ValueError(f"{name} must be > 0 and finite, and not empty")
    return array
