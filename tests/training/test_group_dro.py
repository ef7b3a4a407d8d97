"""Groups: what each weighs, and that the mixture of group-DRO climbs to the minimax."""

from __future__ import annotations

import math

import pytest
import torch

from companion.evaluation.classification import group_counts, group_means
from companion.training.group_dro import GroupDRO, group_weights, raised_weights

GROUPS = torch.tensor([0, 0, 0, 2, 1, 2])


def test_means_are_each_groups_own_and_an_empty_group_has_none() -> None:
    values = torch.tensor([1.0, 2.0, 6.0, 10.0, 5.0, 0.0])
    means = group_means(values, GROUPS, 4)
    assert means[:3].tolist() == [3, 5, 5]
    assert math.isnan(means[3])


def test_under_group_weights_every_group_weighs_the_same_and_the_mean_is_one() -> None:
    weights = group_weights(GROUPS, 3)
    sums = torch.zeros(3).index_add_(0, GROUPS, weights)
    torch.testing.assert_close(sums, torch.full((3,), 2.0))
    assert float(weights.mean()) == pytest.approx(1)
    # Reweighted, the mean loss is the mean of the groups' mean losses.
    losses = torch.arange(6.0)
    assert float((weights * losses).mean()) == pytest.approx(
        float(group_means(losses, GROUPS, 3).mean())
    )
    with pytest.raises(
        ValueError, match=r"every group needs an example, got counts \[3, 1, 2, 0\]"
    ):
        group_weights(GROUPS, 4)


def test_groups_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="between 0 and num_groups - 1 = 1, got 0 to 2"):
        group_counts(GROUPS, 2)
    with pytest.raises(ValueError, match="got none"):
        group_counts(torch.zeros(0, dtype=torch.long), 2)


def test_a_step_multiplies_each_weight_by_the_exponential_of_its_loss() -> None:
    before = torch.tensor([0.5, 0.3, 0.2])
    losses = torch.tensor([0.0, 1.0, 3.0])
    after = raised_weights(before, losses, 0.7)
    factors = before * torch.exp(0.7 * losses)
    torch.testing.assert_close(after, factors / factors.sum())
    assert float(after.sum()) == pytest.approx(1)
    # Who is not in the batch lost nothing.
    absent = raised_weights(before, torch.tensor([math.nan, 1.0, 3.0]), 0.7)
    torch.testing.assert_close(absent, after)


def test_a_constant_is_no_reason_to_move() -> None:
    """Only differences between groups matter: the simplex has no other direction."""
    before = torch.tensor([0.5, 0.3, 0.2])
    torch.testing.assert_close(raised_weights(before, torch.full((3,), 5.0), 1.0), before)


def test_group_dro_finds_the_minimax_of_a_convex_toy() -> None:
    """Groups want x = 0, and x = 1 at an extra price of 1/2. The worst is least at x = 3/4, where
    both pay 9/16, under weights 1/4 and 3/4 (the weighted slopes cancel); the mean is least at
    x = 1/2, where the second pays 3/4."""
    x = torch.tensor(0.2, requires_grad=True)
    optimizer = torch.optim.SGD([x], lr=0.1)
    dro = GroupDRO(2, step_size=0.1)
    for _ in range(300):
        losses = torch.stack([x**2, (x - 1) ** 2 + 0.5])
        optimizer.zero_grad()
        dro.loss(losses, torch.tensor([0, 1])).backward()
        optimizer.step()
    # The spiral into the saddle is exponential; 300 steps leave about 1e-6.
    assert float(x.detach()) == pytest.approx(0.75, abs=1e-3)
    assert dro.weights.tolist() == pytest.approx([0.25, 0.75], abs=1e-3)


def test_gradients_reach_the_model_and_not_the_mixture() -> None:
    losses = torch.tensor([1.0, 3.0], requires_grad=True)
    dro = GroupDRO(2, step_size=1.0)
    dro.loss(losses, torch.tensor([0, 1])).backward()
    torch.testing.assert_close(losses.grad, dro.weights)
    assert not dro.weights.requires_grad


def test_an_absent_group_does_not_spoil_the_loss() -> None:
    dro = GroupDRO(3, step_size=0.5)
    loss = dro.loss(torch.tensor([2.0, 4.0]), torch.tensor([0, 0]))
    assert float(loss) == pytest.approx(3 * float(dro.weights[0]))
    with pytest.raises(ValueError, match="step_size > 0, got 3 and 0"):
        GroupDRO(3, step_size=0.0)
