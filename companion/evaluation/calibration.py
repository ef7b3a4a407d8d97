"""Calibration: does what a model calls 70 % likely come 70 % of the time?

The predictions are grouped by their confidence, the probability of the most probable token. In
each group the mean confidence is compared with the accuracy (Guo et al. 2017).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.evaluation.scoring import require_fit, scored_pieces
from companion.models.base import LanguageModel
from companion.text.batching import IGNORE, scoring_streams

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64, Int, Int64

#: Temperatures above this, or below its inverse, are not searched: the data do not settle one.
MOST_TEMPERATURE = 1e3

#: The share of itself within which a temperature is found.
TOLERANCE = 1e-5


class NoTemperatureError(ValueError):
    """No temperature is best: the model is always right, or no better than a uniform guess."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Confidence against accuracy, bin by bin; bins without a prediction are left out."""

    lows: Float64[Tensor, " bins"]
    """Lower edge of each bin."""
    highs: Float64[Tensor, " bins"]
    """Upper edge of each bin."""
    counts: Int64[Tensor, " bins"]
    """Number of predictions in each bin."""
    confidences: Float64[Tensor, " bins"]
    """Mean confidence of the predictions in each bin."""
    accuracies: Float64[Tensor, " bins"]
    """Share of right predictions in each bin."""
    variances: Float64[Tensor, " bins"]
    """Mean of c (1 - c) over the predictions in each bin: the variance of a prediction that is
    right with probability c, its confidence."""

    @property
    def ece(self) -> float:
        """Expected calibration error: |accuracy - confidence|, averaged over predictions."""
        gaps = (self.accuracies - self.confidences).abs()
        return float((self.counts * gaps).sum() / self.counts.sum())

    @property
    def ece_by_chance(self) -> float:
        """The `ece` expected of a perfectly calibrated model on this number of predictions.

        In each bin it is the mean of |x| for a normal x with the bin's standard error. Compare
        `ece` with this, not with zero: sampling noise alone makes it positive.
        """
        errors = (2 / math.pi * self.variances / self.counts).sqrt()
        return float((self.counts * errors).sum() / self.counts.sum())

    @property
    def standard_errors(self) -> Float64[Tensor, " bins"]:
        """Standard error of each bin's accuracy, if the model is calibrated."""
        return (self.variances / self.counts).sqrt()


def reliability(
    confidences: Float[Tensor, " predictions"],
    correct: Bool[Tensor, " predictions"],
    *,
    num_bins: int = 15,
) -> Reliability:
    """Group predictions by confidence in bins of equal width."""
    if confidences.shape != correct.shape or confidences.numel() == 0:
        raise ValueError(
            "confidences and correct must be non-empty and of one shape, got "
            f"{tuple(confidences.shape)} and {tuple(correct.shape)}"
        )
    if num_bins < 1:
        raise ValueError(f"num_bins must be >= 1, got {num_bins}")
    values = confidences.cpu().double()
    if not bool(((values >= 0) & (values <= 1 + 1e-6)).all()):  # float32 sums may pass 1
        raise ValueError(
            f"confidences must be probabilities, got {float(values.min()):g} to "
            f"{float(values.max()):g}"
        )
    values = values.clamp(max=1)
    edges = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64)
    # An upper edge belongs to the bin above it, except the last.
    bins = torch.bucketize(values, edges[1:-1], right=True)

    def sums(of: Tensor) -> Tensor:
        return torch.zeros(len(edges) - 1, dtype=torch.float64).index_add_(0, bins, of.double())

    counts = sums(torch.ones_like(values))
    kept = counts > 0
    return Reliability(
        lows=edges[:-1][kept],
        highs=edges[1:][kept],
        counts=counts[kept].long(),
        confidences=sums(values)[kept] / counts[kept],
        accuracies=sums(correct.cpu())[kept] / counts[kept],
        variances=sums(values * (1 - values))[kept] / counts[kept],
    )


def exact_calibration_error(
    q: Float64[Tensor, "positions vocab"],
    p: Float64[Tensor, "positions vocab"],
    num_bins: int = 15,
) -> float:
    """Calibration error against the true probabilities `p`, in bins of equal width.

    As `Reliability.ece`, with the true probability of the model's most probable token in place of
    the accuracy, so that labels add no noise. `q` holds the model's probabilities.
    """
    confidence, top = q.max(dim=-1)
    truth = p.gather(-1, top.unsqueeze(-1)).squeeze(-1)
    bins = (confidence * num_bins).long().clamp(max=num_bins - 1)
    gaps = torch.zeros(num_bins, dtype=torch.float64).index_add_(0, bins, truth - confidence)
    return float(gaps.abs().sum() / len(confidence))


def fit_temperature(
    model: LanguageModel,
    ids: Int[Tensor, " total"],
    *,
    num_streams: int = 32,
    window_length: int = 128,
) -> float:
    """The temperature at which `model` predicts `ids`, a validation text, best.

    Logits divided by it have the lowest cross-entropy (Guo et al. 2017). One number for all
    tokens: it changes no prediction, only confidences. Above 1, the model was overconfident.

    The text is read about eight times; no more logits are held than in `scoring.score`. Raises
    NoTemperatureError, a ValueError, where none is best.
    """
    batch = scoring_streams(ids.cpu(), num_streams)
    require_fit(model, batch)

    @torch.no_grad()
    def slope(temperature: float) -> float:
        pieces = scored_pieces(model, batch, window_length)
        return sum(_slope(logits, targets, temperature) for logits, targets in pieces)

    return _root(slope)


def temperature_of(
    logits: Float[Tensor, "targets vocab"], targets: Int[Tensor, " targets"]
) -> float:
    """The temperature at which given logits predict the targets best.

    Raises NoTemperatureError, a ValueError, where none is best.
    """
    if logits.shape[:-1] != targets.shape or targets.numel() == 0:
        raise ValueError(
            f"logits {tuple(logits.shape)} must be the shape of targets {tuple(targets.shape)} "
            "with the vocabulary added as last axis, and there must be some"
        )
    return _root(lambda temperature: _slope(logits, targets, temperature))


def _slope(logits: Tensor, targets: Tensor, temperature: float) -> float:
    """Derivative of the summed nats in the inverse temperature; it falls as temperature rises.

    With p = softmax(logits / temperature): the mean of the logits under p less the target's logit.
    """
    shifted = logits.float() - logits.float().amax(dim=-1, keepdim=True)
    mean = ((shifted / temperature).softmax(dim=-1) * shifted).sum(dim=-1)
    wanted = shifted.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return float((mean - wanted)[targets != IGNORE].cpu().double().sum())


def _root(slope: Callable[[float], float]) -> float:
    """The temperature at which `slope`, which reads the whole text, is zero (Brent 1973).

    The minimum of the nats themselves is known less well: near it they change less than they round.
    """
    from scipy.optimize import brentq

    at = functools.cache(lambda log_temperature: slope(math.exp(log_temperature)))
    for reach in (math.log(3), math.log(MOST_TEMPERATURE)):  # most are between a third and three
        if not (math.isfinite(at(-reach)) and math.isfinite(at(reach))):
            raise ValueError("the model's logits are not finite; no temperature mends that")
        if at(-reach) > 0 > at(reach):
            return math.exp(brentq(at, -reach, reach, xtol=TOLERANCE))
    if at(-reach) == at(reach) == 0:
        return 1.0  # all logits of a position are equal: every temperature gives the same
    raise NoTemperatureError(
        f"no temperature between {1 / MOST_TEMPERATURE:g} and {MOST_TEMPERATURE:g} is best: on "
        "this text the model is always right, or no better than a uniform guess; use more text"
    )
