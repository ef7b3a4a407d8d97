"""One step of gradient descent, compared with its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from companion.training.optimization import take_step


def line() -> tuple[nn.Linear, torch.optim.SGD]:
    model = nn.Linear(2, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    return model, torch.optim.SGD(model.parameters(), lr=0.5)


def loss_of(model: nn.Linear, scale: float = 1.0) -> torch.Tensor:
    return scale * model(torch.tensor([3.0, 4.0])).sum()  # its gradient is (3, 4), of length 5


def test_a_step_goes_down_the_gradient_and_forgets_the_one_before() -> None:
    model, optimizer = line()
    take_step(model, optimizer, loss_of(model))
    take_step(model, optimizer, loss_of(model), learning_rate=0.25)
    assert model.weight.flatten().tolist() == [1 - 3 * 0.75, 1 - 4 * 0.75]


def test_a_long_gradient_is_scaled_down_and_a_short_one_is_not() -> None:
    for clip_norm, length in ((2.5, 2.5), (10.0, 5.0)):
        model, optimizer = line()
        take_step(model, optimizer, loss_of(model), clip_norm=clip_norm, learning_rate=1.0)
        moved = torch.linalg.vector_norm(model.weight.detach() - 1)
        assert float(moved) == pytest.approx(length, rel=1e-5)  # float32


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_changes_nothing_and_says_so(scale: float) -> None:
    model, optimizer = line()
    with pytest.raises(FloatingPointError, match="use a lower learning rate"):
        take_step(model, optimizer, loss_of(model, scale), clip_norm=1.0)
    assert model.weight.flatten().tolist() == [1.0, 1.0]
