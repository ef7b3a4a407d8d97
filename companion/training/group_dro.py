"""Training for low loss in the worst group of examples.

A model that relies on a spurious attribute is right in the common groups and wrong in the rare
ones. Two remedies are weights that make all groups count the same, and online group-DRO, which
moves weight to the groups with the largest loss (Sagawa et al. 2020, Distributionally Robust Neural
Networks).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.evaluation.classification import group_counts, group_means

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def group_weights(groups: Int[Tensor, " examples"], num_groups: int) -> Float[Tensor, " examples"]:
    """A weight for each example: all groups have the same total weight, and the mean weight is 1.

    Multiply the losses by them for reweighting; draw examples in proportion to them for resampling.
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

    Exponentiated gradient ascent, the inner step of online group-DRO. A loss is NaN when the batch
    has no example of that group; it counts as 0.
    """
    if step_size <= 0:
        raise ValueError(f"step_size must be > 0, got {step_size}")
    exponents = step_size * losses.detach().nan_to_num(nan=0.0)
    return torch.softmax(weights.log() + exponents, dim=0)


class GroupDRO:
    """Online group-DRO (Sagawa et al. 2020, algorithm 1): a weighted mean of the groups' losses
    whose weights grow for the groups with high loss.

    Minimising it over the model while the weights ascend lowers the loss of the worst group. The
    weights start equal. Batches should contain every group, each about as often.
    """

    def __init__(self, num_groups: int, *, step_size: float = 0.01) -> None:
        if num_groups < 1 or step_size <= 0:
            raise ValueError(
                f"num_groups must be >= 1 and step_size > 0, got {num_groups} and {step_size}"
            )
        self.step_size = step_size
        self.weights: Tensor = torch.full((num_groups,), 1 / num_groups)
        """Group weights of shape (groups,), which sum to 1."""

    def loss(
        self, losses: Float[Tensor, " examples"], groups: Int[Tensor, " examples"]
    ) -> Float[Tensor, ""]:
        """The loss to minimise on this batch, after one update of the group weights."""
        means = group_means(losses, groups, len(self.weights))
        self.weights = raised_weights(self.weights.to(means), means, self.step_size)
        return (self.weights * means).nansum()
