"""Pruning: which weights go, that they stay away, and what a sparse matrix takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from companion.compression.pruning import (
    from_sparse,
    magnitude_masks,
    matrices,
    pruned,
    random_masks,
    repair,
    to_sparse,
)
from companion.core.seeds import make_generator
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.training.config import TrainConfig

SIZE = LSTMConfig(vocabulary_size=20, embedding_size=8, hidden_size=12)


@pytest.fixture
def model() -> LSTMLanguageModel:
    torch.manual_seed(0)
    return LSTMLanguageModel(SIZE).eval()


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Parameter(torch.tensor([[1.0, -2.0], [3.0, 4.0]]))
        self.large = nn.Parameter(torch.tensor([[-10.0, 20.0], [30.0, 2.5]]))
        self.bias = nn.Parameter(torch.tensor([0.1]))


def test_global_pruning_compares_all_matrices_and_the_other_scope_each() -> None:
    masks = magnitude_masks(Two(), 0.5)
    assert masks["small"].tolist() == [[False, False], [False, True]]
    assert masks["large"].tolist() == [[True, True], [True, False]]
    each = magnitude_masks(Two(), 0.5, "matrix")
    assert each["small"].tolist() == [[False, False], [True, True]]
    assert each["large"].tolist() == [[False, True], [True, False]]
    assert set(masks) == {"small", "large"}  # a bias is never removed


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
def test_as_many_weights_go_as_asked_and_random_ones_for_the_control(
    model: LSTMLanguageModel, share: float
) -> None:
    count = sum(each.numel() for each in matrices(model).values())
    removed = sum(int((~mask).sum()) for mask in magnitude_masks(model, share).values())
    assert removed == round(share * count)
    chosen = random_masks(model, share, generator=make_generator(0))
    for name, weights in matrices(model).items():
        assert int((~chosen[name]).sum()) == round(share * weights.numel())
    smaller = pruned(model, chosen)
    for name, weights in matrices(smaller).items():
        assert torch.equal(weights == 0, ~chosen[name] | (model.get_parameter(name) == 0))


def test_equal_weights_are_removed_in_the_number_that_was_asked_for() -> None:
    made = Two()
    with torch.no_grad():
        made.small.fill_(1.0)
        made.large.fill_(1.0)
    removed = sum(int((~mask).sum()) for mask in magnitude_masks(made, 0.5).values())
    assert removed == 4


@pytest.mark.slow
def test_a_repair_learns_and_leaves_what_was_removed_at_zero(model: LSTMLanguageModel) -> None:
    ids = torch.arange(20).repeat(200)
    masks = magnitude_masks(model, 0.5)
    smaller = pruned(model, masks)
    training = TrainConfig(steps=80, num_streams=4, window_length=16, learning_rate=3e-2)
    with torch.no_grad():
        before = nn.functional.cross_entropy(smaller(ids[None, :-1])[0][0], ids[1:])
    repair(smaller, masks, ids, training)
    with torch.no_grad():
        after = nn.functional.cross_entropy(smaller(ids[None, :-1])[0][0], ids[1:])
    assert float(after) < 0.7 * float(before)
    for name, weights in matrices(smaller).items():
        assert int((weights != 0).sum()) == int(masks[name].sum())
    assert not smaller.training


def test_a_sparse_matrix_comes_back_from_a_bit_a_weight_and_the_weights_kept() -> None:
    weights = torch.randn(5, 7, generator=make_generator(0))
    weights[weights.abs() < 0.7] = 0
    bits, values = to_sparse(weights)
    assert bits.numel() == 5  # 35 bits
    assert values.numel() == int((weights != 0).sum())
    assert torch.equal(from_sparse(bits, values, (5, 7)), weights)
    with pytest.raises(ValueError, match=r"do not make a \(5, 7\) matrix"):
        from_sparse(bits, values[:-1], (5, 7))


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_leaves_nothing_is_refused(model: LSTMLanguageModel, share: float) -> None:
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\)"):
        magnitude_masks(model, share)
    for scope in ("global", "matrix"):
        with pytest.raises(ValueError, match="leaves no weight of this model"):
            magnitude_masks(model, 0.999999, scope)
