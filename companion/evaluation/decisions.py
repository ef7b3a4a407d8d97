"""From probabilities to decisions: thresholds, what mistakes cost, and another share of positives.

A classifier of two classes flags an example as positive when its probability reaches a threshold.
Precision, recall and cost follow from how many it flags rightly and wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64, Int64


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Counts of right and wrong decisions at each threshold, and the ratios of them."""

    thresholds: Float64[Tensor, " thresholds"]
    """An example is flagged where its probability is at least this."""
    true_positives: Int64[Tensor, " thresholds"]
    """Positives that are flagged."""
    false_positives: Int64[Tensor, " thresholds"]
    """Negatives that are flagged: false alarms."""
    false_negatives: Int64[Tensor, " thresholds"]
    """Positives that are not flagged: misses."""
    true_negatives: Int64[Tensor, " thresholds"]
    """Negatives that are not flagged."""

    @property
    def precision(self) -> Float64[Tensor, " thresholds"]:
        """Share of the flagged that are positive; 0 where none is flagged."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> Float64[Tensor, " thresholds"]:
        """Share of the positives that are flagged."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> Float64[Tensor, " thresholds"]:
        """Harmonic mean of precision and recall; 0 where no positive is flagged."""
        wrong = self.false_positives + self.false_negatives
        return _share(2 * self.true_positives, 2 * self.true_positives + wrong)

    @property
    def accuracy(self) -> Float64[Tensor, " thresholds"]:
        """Share of right decisions."""
        right = self.true_positives + self.true_negatives
        return _share(right, right + self.false_positives + self.false_negatives)

    def cost(self, *, miss: float, false_alarm: float) -> Float64[Tensor, " thresholds"]:
        """Mean cost of an example, in the unit in which the two mistakes are given."""
        _check_costs(miss, false_alarm)
        total = miss * self.false_negatives + false_alarm * self.false_positives
        everything = self.true_positives + self.true_negatives
        return total.double() / (everything + self.false_positives + self.false_negatives)


def decide(
    probabilities: Float[Tensor, " examples"],
    positive: Bool[Tensor, " examples"],
    thresholds: Sequence[float],
) -> Decisions:
    """What comes of flagging the examples whose probability reaches each threshold.

    A threshold is rounded to the precision of the probabilities, so that 0.9 in float32 reaches
    0.9. One above 1 flags nothing.

    Raises ValueError for no example or threshold, for others than probabilities, for shapes that
    differ, and for a threshold that is not a number.
    """
    if probabilities.shape != positive.shape or probabilities.numel() == 0:
        raise ValueError(
            "probabilities and positive must be non-empty and of one shape, got "
            f"{tuple(probabilities.shape)} and {tuple(positive.shape)}"
        )
    if not bool(((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all()):
        raise ValueError(
            f"probabilities must be in [0, 1], got {float(probabilities.min()):g} to "
            f"{float(probabilities.max()):g}"
        )
    levels = torch.tensor(list(thresholds), dtype=torch.float64)
    if not len(levels) or bool(levels.isnan().any()):
        raise ValueError(f"thresholds must be one number or more, got {list(thresholds)}")
    flagged = probabilities >= levels.to(probabilities).unsqueeze(1)  # (thresholds, examples)
    hits, alarms = (flagged & positive).sum(dim=1), (flagged & ~positive).sum(dim=1)
    return Decisions(
        thresholds=levels,
        true_positives=hits,
        false_positives=alarms,
        false_negatives=positive.sum() - hits,
        true_negatives=(~positive).sum() - alarms,
    )


def cost_threshold(*, miss: float, false_alarm: float) -> float:
    """The threshold with the lowest expected cost, where the probabilities are calibrated.

    Flagging costs (1 - p) false_alarm, not flagging costs p miss; they are equal at
    p = false_alarm / (false_alarm + miss) (Elkan 2001).
    """
    _check_costs(miss, false_alarm)
    return false_alarm / (false_alarm + miss)


def with_share(
    probabilities: Float[Tensor, " examples"], *, before: float, after: float
) -> Float64[Tensor, " examples"]:
    """Probabilities of the positive class where its share is `after`, from those where it was
    `before`: the odds are multiplied by the ratio of the shares' odds (Bayes' rule).

    Right where nothing else differs: texts of each class are as they were.
    """
    for name, share in (("before", before), ("after", after)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must be a share in (0, 1), got {share}")
    ratio = after * (1 - before) / (before * (1 - after))
    values = probabilities.double()
    return ratio * values / (ratio * values + 1 - values)


def _check_costs(miss: float, false_alarm: float) -> None:
    for name, cost in (("miss", miss), ("false_alarm", false_alarm)):
        if not 0 < cost < math.inf:
            raise ValueError(f"{name} must be a cost > 0 and finite, got {cost}")


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return part.double() / whole.clamp(min=1)
