"""One step of gradient descent, compared with its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from companion.training.config import TrainConfig
from companion.training.optimization import learning_rate_at, make_optimizer, take_step


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


def test_a_schedule_rises_stays_flat_and_falls_as_half_a_cosine() -> None:
    config = TrainConfig(
        steps=100, learning_rate=2.0, warmup=0.1, flat=0.4, final_learning_rate=0.0
    )
    rates = [learning_rate_at(step, 100, config) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert set(rates[9:51]) == {2.0}
    falling = [1 + math.cos(math.pi * step / 49) for step in range(50)]
    assert rates[50:] == pytest.approx(falling)


def test_without_a_flat_stretch_the_schedule_is_what_it_was() -> None:
    config = TrainConfig(steps=40, learning_rate=1.0, warmup=0.1)
    for step in range(4, 40):
        falling = 0.01 + 0.99 * (1 + math.cos(math.pi * ((step - 4) / 35))) / 2
        assert learning_rate_at(step, 40, config) == falling  # to the last digit


def test_shares_of_a_schedule_that_are_more_than_all_are_refused() -> None:
    with pytest.raises(ValueError, match=r"together at most 1, got 0.6 and 0.5"):
        TrainConfig(steps=1, warmup=0.6, flat=0.5)


def test_l2_is_in_the_gradient_and_weight_decay_is_not() -> None:
    """A weight without a gradient of its own: Adam's first step is as long as the learning rate,
    whatever the size of L2; decoupled decay is a share of the weight."""
    moved = {}
    for name in ("l2", "weight_decay"):
        model = nn.Linear(2, 1, bias=False)
        nn.init.constant_(model.weight, 2.0)
        optimizer = make_optimizer(model, TrainConfig(steps=1, learning_rate=0.1, **{name: 1e-3}))
        (0 * model.weight.sum()).backward()
        optimizer.step()
        moved[name] = 2 - model.weight.detach().flatten()[0].item()
    assert moved["l2"] == pytest.approx(0.1, rel=1e-3)
    assert moved["weight_decay"] == pytest.approx(2 * 0.1 * 1e-3, rel=1e-3)
    with pytest.raises(
        ValueError, match=r"either l2 or weight_decay, got l2=0.1, weight_decay=0.2"
    ):
        TrainConfig(steps=1, l2=0.1, weight_decay=0.2)
