"""A queue of texts that people review: how often they agree, and what their errors do to the rates.

A reviewer has a sensitivity, the share of the positives that they call positive, and a specificity,
the share of the negatives that they call negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from companion.core.settings import check_sizes
from companion.evaluation.decisions import Decisions

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64


class Reviewer(NamedTuple):
    """How often somebody who reviews a text is right."""

    sensitivity: float
    """Share of the positives that they call positive."""
    specificity: float
    """Share of the negatives that they call negative."""


def miss_rate(decisions: Decisions) -> Float64[Tensor, " thresholds"]:
    """Share of the positives that are not flagged, at each threshold; NaN where there is none."""
    positives = decisions.true_positives + decisions.false_negatives
    return decisions.false_negatives.double() / positives


def false_alarm_rate(decisions: Decisions) -> Float64[Tensor, " thresholds"]:
    """Share of the negatives that are flagged, at each threshold; NaN where there is none."""
    negatives = decisions.false_positives + decisions.true_negatives
    return decisions.false_positives.double() / negatives


def reviewed(
    positive: Bool[Tensor, " examples"], reviewer: Reviewer, *, generator: torch.Generator
) -> Bool[Tensor, " examples"]:
    """What a reviewer says of each example, who errs independently of everything but its class."""
    _check(reviewer)
    u = torch.rand(len(positive), generator=generator, dtype=torch.float64)
    says = torch.where(positive, reviewer.sensitivity, 1 - reviewer.specificity)
    return u < says


def agreement(first: Bool[Tensor, " examples"], second: Bool[Tensor, " examples"]) -> float:
    """Cohen's kappa (1960) of two reviewers: agreement beyond chance, 1 where they always agree.

    Raises ValueError for none, for lists that differ in length, and where both call all examples
    the same, as then chance alone agrees always.
    """
    from sklearn.metrics import cohen_kappa_score

    if first.shape != second.shape or first.numel() == 0:
        raise ValueError(
            f"both must be non-empty and of one length, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    both = torch.cat([first, second])
    if bool(both.all()) or not bool(both.any()):
        raise ValueError("both reviewers call all examples the same, so kappa is 0/0")
    return float(cohen_kappa_score(first.numpy(), second.numpy()))


def expected_agreement(share: float, first: Reviewer, second: Reviewer) -> float:
    """The kappa of two reviewers who err independently, where `share` are positive.

    Raises ValueError where both call everything the same, as then chance alone agrees always.
    """
    _check(first, second)
    _check_share("share", share)
    a, b = observed_share(share, first), observed_share(share, second)
    both = share * first.sensitivity * second.sensitivity
    both += (1 - share) * (1 - first.specificity) * (1 - second.specificity)
    agree, chance = 1 - a - b + 2 * both, a * b + (1 - a) * (1 - b)
    if chance >= 1:
        raise ValueError("both reviewers call all examples the same, so kappa is 0/0")
    return (agree - chance) / (1 - chance)


def observed_share(share: float, reviewer: Reviewer) -> float:
    """The share that a reviewer calls positive, where `share` are."""
    return share * reviewer.sensitivity + (1 - share) * (1 - reviewer.specificity)


def corrected_share(observed: float, reviewer: Reviewer) -> float:
    """The share of positives, from the share that a reviewer calls positive (Rogan & Gladen 1978).

    (observed + specificity - 1) / (sensitivity + specificity - 1), cut to [0, 1]. Raises ValueError
    for a reviewer who is no better than chance, from whom nothing can be inferred.
    """
    _check(reviewer)
    _check_share("observed", observed)
    better = reviewer.sensitivity + reviewer.specificity - 1
    if better <= 0:
        raise ValueError(
            "sensitivity + specificity must be > 1, or the reviewer is no better than chance, got "
            f"{reviewer.sensitivity} and {reviewer.specificity}"
        )
    return min(1.0, max(0.0, (observed + reviewer.specificity - 1) / better))


def measured_miss_rate(
    share: float, *, miss: float, false_alarm: float, reviewer: Reviewer
) -> float:
    """The miss rate that is measured where a reviewer's word is taken for the truth.

    share: share of positives. miss, false_alarm: the true rates. The reviewer errs independently of
    the classifier. Of those whom the reviewer calls positive, the share that was not flagged.
    """
    _check(reviewer)
    for name, value in (("share", share), ("miss", miss), ("false_alarm", false_alarm)):
        _check_share(name, value)
    called = observed_share(share, reviewer)
    if not called:
        raise ValueError("nobody is called positive, so there is no miss rate")
    missed = share * reviewer.sensitivity * miss
    missed += (1 - share) * (1 - reviewer.specificity) * (1 - false_alarm)
    return missed / called


def found_in_queue(
    scores: Float[Tensor, " examples"], positive: Bool[Tensor, " examples"], capacity: int
) -> float:
    """Share of the positives among the `capacity` examples with the highest scores.

    Of equal scores the earlier example comes first.
    """
    check_sizes(capacity=capacity)
    if scores.shape != positive.shape or not bool(positive.any()):
        raise ValueError("scores and positive must be of one shape, with a positive among them")
    order = torch.argsort(scores, descending=True, stable=True)[:capacity]
    return float(positive[order].sum() / positive.sum())


def _check(*reviewers: Reviewer) -> None:
    for reviewer in reviewers:
        _check_share("sensitivity", reviewer.sensitivity)
        _check_share("specificity", reviewer.specificity)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a share in [0, 1], got {value}")
