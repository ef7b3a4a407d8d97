"""Calibration: does what a model calls 70 % likely come 70 % of the time?

The predictions are grouped by their confidence, the probability of the most probable token. In
each group the mean confidence is compared with the accuracy (Guo et al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.batching import IGNORE, scoring_streams
from companion.evaluation import scored_pieces
from companion.lstm import LSTMLanguageModel

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64, Int, Int64

#: Temperatures beyond these ends are not searched: the data do not settle one.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 1e-3, 1e3

#: Newton's method stops when the temperature changes by less than this share of itself.
TOLERANCE = 1e-5
MOST_STEPS = 60


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Confidence against accuracy, bin by bin; bins without a prediction are left out."""

    lows: Float64[Tensor, " bins"]
    """Lower edge of each bin."""
    highs: Float64[Tensor, " bins"]
    """Its upper edge."""
    counts: Int64[Tensor, " bins"]
    """Predictions in it."""
    confidences: Float64[Tensor, " bins"]
    """Their mean confidence."""
    accuracies: Float64[Tensor, " bins"]
    """The share of them that came true."""
    variances: Float64[Tensor, " bins"]
    """Mean of c (1 - c) over them: the variance of a prediction that is right with probability c,
    its confidence."""

    @property
    def ece(self) -> float:
        """Expected calibration error: |accuracy - confidence|, averaged over predictions."""
        gaps = (self.accuracies - self.confidences).abs()
        return float((self.counts * gaps).sum() / self.counts.sum())

    @property
    def ece_by_chance(self) -> float:
        """The error to expect of a perfectly calibrated model on so few predictions.

        In each bin it is the mean of |x| for a normal x with the bin's standard error. An `ece` is
        to be read against this, for even the truth does not have zero.
        """
        errors = (2 / math.pi * self.variances / self.counts).sqrt()
        return float((self.counts * errors).sum() / self.counts.sum())

    @property
    def standard_errors(self) -> Float64[Tensor, " bins"]:
        """Of each accuracy, were the model calibrated."""
        return (self.variances / self.counts).sqrt()


def reliability(
    confidences: Float[Tensor, " predictions"],
    correct: Bool[Tensor, " predictions"],
    *,
    num_bins: int = 15,
    equal_mass: bool = False,
) -> Reliability:
    """Group predictions by confidence in bins of equal width, or of equal mass.

    Equal width is the usual choice; most predictions may share a few bins then. With equal mass
    the bins hold as nearly the same number of predictions as ties allow (Nguyen & O'Connor 2015).
    """
    if confidences.shape != correct.shape or confidences.numel() == 0:
        raise ValueError(
            "confidences and correct must be non-empty and of one shape, got "
            f"{tuple(confidences.shape)} and {tuple(correct.shape)}"
        )
    if num_bins < 1:
        raise ValueError(f"num_bins must be >= 1, got {num_bins}")
    values = confidences.double().cpu()
    if not bool(((values >= 0) & (values <= 1 + 1e-6)).all()):  # float32 sums may pass 1
        raise ValueError(
            f"confidences must be probabilities, got {float(values.min()):g} to "
            f"{float(values.max()):g}"
        )
    values = values.clamp(max=1)
    if equal_mass:
        edges = _edges_of_equal_mass(values, num_bins)
    else:
        edges = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64)
    # An upper edge belongs to the bin above it, but for the last.
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


def _edges_of_equal_mass(values: Tensor, num_bins: int) -> Tensor:
    """Edges between different values, each as near to its quantile as ties allow."""
    different, counts = torch.unique(values, return_counts=True)
    below = counts.cumsum(0)[:-1].double()  # values below each place where a cut may be
    cuts = {
        int((below - k * values.numel() / num_bins).abs().argmin())
        for k in range(1, num_bins if len(below) else 1)
    }
    inner = different[1:][torch.tensor(sorted(cuts), dtype=torch.long)]
    return torch.cat([different[:1], inner, different[-1:]])


def exact_calibration_error(
    q: Float64[Tensor, "positions vocab"],
    p: Float64[Tensor, "positions vocab"],
    num_bins: int = 15,
) -> float:
    """|confidence - truth| averaged over positions, those of like confidence taken together.

    As `Reliability.ece` in bins of equal width, but where the truth is known: instead of the
    accuracy, the true probability `p` of the token that the model `q` thinks likeliest.
    """
    confidence, top = q.max(dim=-1)
    truth = p.gather(-1, top.unsqueeze(-1)).squeeze(-1)
    bins = (confidence * num_bins).long().clamp(max=num_bins - 1)
    gaps = torch.zeros(num_bins, dtype=torch.float64).index_add_(0, bins, truth - confidence)
    return float(gaps.abs().sum() / len(confidence))


def fit_temperature(
    model: LSTMLanguageModel,
    ids: Int[Tensor, " total"],
    *,
    num_streams: int = 32,
    window_length: int = 128,
) -> float:
    """The temperature at which `model` predicts `ids`, a validation text, best.

    Logits divided by it have the lowest cross-entropy (Guo et al. 2017). One number for all
    tokens: it changes no prediction, only how sure the model is. Above 1, the model was too sure.

    The text is read once for each step of Newton's method, about five times; no more logits are
    held than in `evaluation.score`.
    """
    batch = scoring_streams(ids.cpu(), num_streams)

    @torch.no_grad()
    def derivatives(inverse: float) -> tuple[float, float]:
        first = second = 0.0
        for logits, targets in scored_pieces(model, batch, window_length):
            slope, curvature = _derivatives(logits, targets, inverse)
            first, second = first + slope, second + curvature
        return first, second

    return _minimum(derivatives)


def temperature_of(
    logits: Float[Tensor, "targets vocab"], targets: Int[Tensor, " targets"]
) -> float:
    """As `fit_temperature`, of logits at hand."""
    if logits.shape[:-1] != targets.shape or targets.numel() == 0:
        raise ValueError(
            f"logits {tuple(logits.shape)} must be the shape of targets {tuple(targets.shape)} "
            "with the vocabulary added as last axis, and there must be some"
        )
    return _minimum(lambda inverse: _derivatives(logits, targets, inverse))


def _derivatives(logits: Tensor, targets: Tensor, inverse: float) -> tuple[float, float]:
    """First and second derivative of the summed nats in the inverse temperature.

    With p = softmax(inverse * logits): the mean of the logits under p less the target's logit, and
    their variance under p.
    """
    shifted = logits.float() - logits.float().amax(dim=-1, keepdim=True)
    probs = (shifted * inverse).softmax(dim=-1)
    mean = (probs * shifted).sum(dim=-1)
    variance = (probs * (shifted - mean.unsqueeze(-1)) ** 2).sum(dim=-1)
    wanted = shifted.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    kept = targets != IGNORE
    slopes, curvatures = (mean - wanted)[kept], variance[kept]
    if slopes.device.type != "mps":  # which has no float64
        slopes, curvatures = slopes.double(), curvatures.double()
    return float(slopes.sum()), float(curvatures.sum())


def _minimum(derivatives: Callable[[float], tuple[float, float]]) -> float:
    """1 / inverse at the lowest cross-entropy, which is convex in `inverse`: by Newton's method."""
    inverse = 1.0
    for _ in range(MOST_STEPS):
        slope, curvature = derivatives(inverse)
        if not (math.isfinite(slope) and math.isfinite(curvature)):
            raise ValueError("the model's logits are not finite; no temperature mends that")
        # Far from the minimum a step may be too long, or the curvature have vanished.
        step = slope / curvature if curvature > 0 else math.copysign(math.inf, slope)
        before = inverse
        inverse = min(max(inverse - step, inverse / 3), inverse * 3) if slope else inverse
        if not 1 / HIGHEST_TEMPERATURE <= inverse <= 1 / LOWEST_TEMPERATURE:
            break
        if abs(inverse - before) <= TOLERANCE * inverse:
            return 1 / inverse
    raise ValueError(
        f"no temperature between {LOWEST_TEMPERATURE:g} and {HIGHEST_TEMPERATURE:g} is best: on "
        "this text the model is always right, or no better than a uniform guess; use more text"
    )
