"""The truncated output matrix: the nearest of its rank, at one end of the network or both."""

from __future__ import annotations

import pytest
import torch

from companion.compression.low_rank import factors, highest_rank, in_factors, truncated
from companion.models.lstm import LSTMConfig, LSTMLanguageModel


def model(**changes: object) -> LSTMLanguageModel:
    torch.manual_seed(0)
    settings = {"vocabulary_size": 40, "embedding_size": 16, "hidden_size": 16, **changes}
    return LSTMLanguageModel(LSTMConfig(**settings)).eval()


def test_the_squared_error_is_that_of_the_singular_values_left_out() -> None:
    matrix = torch.randn(30, 12, dtype=torch.float64).float()
    left, right = factors(matrix, 5)
    assert left.shape == (30, 5)
    assert right.shape == (5, 12)
    values = torch.linalg.svdvals(matrix.double())
    error = (matrix.double() - left.double() @ right.double()).square().sum()
    # float32 factors of a matrix of size one.
    torch.testing.assert_close(error, values[5:].square().sum(), rtol=1e-4, atol=1e-6)


def test_a_matrix_of_that_rank_is_kept() -> None:
    matrix = torch.randn(30, 3) @ torch.randn(3, 12)
    left, right = factors(matrix, 3)
    torch.testing.assert_close(left @ right, matrix, rtol=1e-4, atol=1e-5)


def test_factors_that_save_nothing_are_refused() -> None:
    assert highest_rank(40, 16) == 11  # 11 * 56 = 616 of 640 numbers, 12 * 56 = 672
    with pytest.raises(ValueError, match=r"rank must be in \[1, 11\], got 12"):
        truncated(model(), 12)


def test_a_tied_matrix_changes_at_both_ends_unless_it_is_untied() -> None:
    tied = model(tie_weights=True)
    both = truncated(tied, 4)
    assert both.output.weight is both.embedding.weight
    assert torch.linalg.matrix_rank(both.embedding.weight) == 4
    one = truncated(tied, 4, untie=True)
    assert torch.equal(one.embedding.weight, tied.embedding.weight)
    torch.testing.assert_close(one.output.weight, both.output.weight)
    alone = truncated(model(), 4)
    assert torch.equal(alone.embedding.weight, model().embedding.weight)


@pytest.mark.parametrize("tie_weights", [False, True])
def test_two_thin_products_give_the_logits_of_the_truncated_matrix(tie_weights: bool) -> None:
    made = model(tie_weights=tie_weights)
    inputs = torch.randint(40, (2, 5))
    with torch.no_grad():
        thin, whole = in_factors(made, 4)(inputs)[0], truncated(made, 4, untie=True)(inputs)[0]
    torch.testing.assert_close(thin, whole, rtol=1e-4, atol=1e-5)


def test_an_adaptive_softmax_is_refused() -> None:
    with pytest.raises(ValueError, match="no single output matrix"):
        truncated(model(adaptive_cutoffs=(10, 20)), 2)
