"""Groups of examples: how each is served, and training that serves the worst one.

A group is the examples that share a label and an attribute that should not matter, such as where a
review was posted. A model that leans on the attribute is right in the groups that are common and
wrong in the rare ones, and a mean over all examples hides it. Weights that make the groups count
alike, and online group-DRO, which moves weight to the group with the largest loss, are remedies
(Sagawa et al. 2020, Distributionally Robust Neural Networks).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Int64


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


def worst_group_accuracy(
    correct: Bool[Tensor, " examples"], groups: Int[Tensor, " examples"], num_groups: int
) -> float:
    """The accuracy in the group where it is lowest; every group must have an example."""
    accuracies = group_means(correct.double(), groups, num_groups)
    empty = accuracies.isnan().nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"no example is in group {empty[0]}; its accuracy cannot be measured")
    return float(accuracies.min())


def group_weights(groups: Int[Tensor, " examples"], num_groups: int) -> Float[Tensor, " examples"]:
    """A weight for each example: every group weighs the same in all, and the mean weight is 1.

    Multiplied into the losses it is reweighting; as probabilities of drawing, resampling.
    """
    counts = group_counts(groups, num_groups)
    if bool((counts == 0).any()):
        raise ValueError(
            f"every group needs an example, got counts {counts.tolist()}; no weight makes up for "
            "a group that was never seen"
        )
    return (len(groups) / (num_groups * counts.float()))[groups]


def raised_weights(
    weights: Float[Tensor, " groups"], losses: Float[Tensor, " groups"], step_size: float
) -> Float[Tensor, " groups"]:
    """Group weights after one step up the simplex: q_g exp(step_size loss_g), normalised.

    Exponentiated gradient ascent, the inner step of online group-DRO. Where a loss is NaN, because
    the batch has nobody of that group, the group counts as having lost nothing.
    """
    if step_size <= 0:
        raise ValueError(f"step_size must be > 0, got {step_size}")
    exponents = step_size * losses.detach().nan_to_num(nan=0.0)
    return torch.softmax(weights.log() + exponents, dim=0)


class GroupDRO:
    """Online group-DRO (Sagawa et al. 2020, algorithm 1): the loss of a mixture of groups that
    leans more and more to those that do badly.

    Minimised over the model while the mixture climbs, it seeks the model whose worst group is
    best. Weights start equal. Batches should hold every group, each about as often.
    """

    def __init__(self, num_groups: int, *, step_size: float = 0.01) -> None:
        if num_groups < 1 or step_size <= 0:
            raise ValueError(
                f"num_groups must be >= 1 and step_size > 0, got {num_groups} and {step_size}"
            )
        self.step_size = step_size
        self.weights: Tensor = torch.full((num_groups,), 1 / num_groups)
        """[groups]: the mixture, which sums to 1."""

    def loss(
        self, losses: Float[Tensor, " examples"], groups: Int[Tensor, " examples"]
    ) -> Float[Tensor, ""]:
        """The loss to minimise on this batch, after the mixture took its step."""
        means = group_means(losses, groups, len(self.weights))
        self.weights = raised_weights(self.weights.to(means), means, self.step_size)
        return (self.weights * means).nansum()
