"""Predictions of classes against the truth: precision, recall, and how each group is served.

A group is the examples that share a label and an attribute that should not matter, such as where a
review was posted. A mean over all examples hides a group that is served badly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Int64


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Precision, recall and F1 over classes, averaged in the two usual ways."""

    accuracy: float
    """Share of right predictions."""
    micro_precision: float
    """Precision over all decisions together: equal to the accuracy."""
    micro_recall: float
    """Recall over all decisions together: equal to the accuracy."""
    micro_f1: float
    """F1 of the two: equal to the accuracy."""
    macro_precision: float
    """Mean precision of the classes that occur."""
    macro_recall: float
    """Mean recall of the classes that occur."""
    macro_f1: float
    """Mean F1 of the classes that occur."""


def precision_recall_f1(
    predictions: Int[Tensor, " targets"], targets: Int[Tensor, " targets"]
) -> Classification:
    """Precision, recall and F1 of single-label predictions.

    With one label a position, every false positive of one class is a false negative of another:
    micro precision, recall and F1 all equal accuracy. The macro average weighs each class that
    occurs alike, so rare tokens rule it; a class never predicted counts as precision 0.
    """
    from sklearn.metrics import precision_recall_fscore_support

    _check_pairs(predictions, targets)
    labels, predicted = targets.numpy(), predictions.numpy()
    averages = {
        average: precision_recall_fscore_support(
            labels, predicted, average=average, zero_division=0
        )
        for average in ("micro", "macro")
    }
    micro, macro = averages["micro"], averages["macro"]
    return Classification(
        accuracy=float((predictions == targets).double().mean()),
        micro_precision=float(micro[0]),
        micro_recall=float(micro[1]),
        micro_f1=float(micro[2]),
        macro_precision=float(macro[0]),
        macro_recall=float(macro[1]),
        macro_f1=float(macro[2]),
    )


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Precision, recall and F1 of one class, and how many examples it has."""

    precision: float
    """Share of the examples predicted to be of the class that are; 0 where none was predicted."""
    recall: float
    """Share of the class's examples that are predicted to be; 0 where it has none."""
    f1: float
    """Harmonic mean of the two."""
    support: int
    """Examples of the class."""


def class_scores(
    predictions: Int[Tensor, " targets"], targets: Int[Tensor, " targets"], num_classes: int
) -> list[ClassScores]:
    """Precision, recall and F1 of each class, 0 to num_classes - 1.

    Raises ValueError for a prediction or target outside these classes.
    """
    from sklearn.metrics import precision_recall_fscore_support

    _check_pairs(predictions, targets)
    for name, values in (("predictions", predictions), ("targets", targets)):
        low, high = (int(end) for end in torch.aminmax(values))
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"{name} must be classes from 0 to {num_classes - 1}, got "
                f"{low if low < 0 else high}"
            )
    columns = precision_recall_fscore_support(
        targets.numpy(), predictions.numpy(), labels=list(range(num_classes)), zero_division=0
    )
    return [
        ClassScores(precision=float(p), recall=float(r), f1=float(f), support=int(n))
        for p, r, f, n in zip(*columns, strict=True)
    ]


def group_counts(groups: Int[Tensor, " examples"], num_groups: int) -> Int64[Tensor, " groups"]:
    """Examples in each of the groups 0 to num_groups - 1."""
    if groups.numel() == 0:
        raise ValueError("groups must name the group of one example or more, got none")
    lowest, highest = int(groups.min()), int(groups.max())
    if lowest < 0 or highest >= num_groups:
        raise ValueError(
            f"groups must be between 0 and num_groups - 1 = {num_groups - 1}, got {lowest} to "
            f"{highest}"
        )
    return torch.bincount(groups, minlength=num_groups)


def group_means(
    values: Float[Tensor, " examples"], groups: Int[Tensor, " examples"], num_groups: int
) -> Float[Tensor, " groups"]:
    """The mean of `values` in each group, through which gradients flow; NaN in an empty group."""
    counts = group_counts(groups, num_groups)
    return values.new_zeros(num_groups).index_add(0, groups, values) / counts


def _check_pairs(predictions: Tensor, targets: Tensor) -> None:
    """ValueError unless there is a prediction for each target, and one or more."""
    if predictions.shape != targets.shape or targets.numel() == 0:
        raise ValueError(
            "predictions and targets must be non-empty and of one shape, got "
            f"{tuple(predictions.shape)} and {tuple(targets.shape)}"
        )
