"""Stored weights: they come back, in the bytes that were promised, and nothing else does."""

from __future__ import annotations

import pytest
import torch

from companion.compression.low_rank import truncated
from companion.compression.packed import (
    fill,
    low_rank_tensors,
    num_bytes,
    plain_tensors,
    quantized_tensors,
    sparse_tensors,
)
from companion.compression.pruning import magnitude_masks, pruned
from companion.compression.quantization import quantized
from companion.models.lstm import LSTMConfig, LSTMLanguageModel


@pytest.fixture(params=[False, True], ids=["own", "tied"])
def model(request: pytest.FixtureRequest) -> LSTMLanguageModel:
    torch.manual_seed(0)
    size = LSTMConfig(
        vocabulary_size=50, embedding_size=32, hidden_size=32, tie_weights=request.param
    )
    return LSTMLanguageModel(size).eval()


def filled(model: LSTMLanguageModel, packed: dict[str, torch.Tensor]) -> LSTMLanguageModel:
    torch.manual_seed(9)
    made = LSTMLanguageModel(model.config)
    fill(made, packed)
    return made.eval()


def same(one: LSTMLanguageModel, other: LSTMLanguageModel) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_each_form_gives_back_the_compressed_model(model: LSTMLanguageModel) -> None:
    assert same(filled(model, plain_tensors(model)), model)
    for bits in (8, 3):
        for size in (None, 8):
            packed = quantized_tensors(model, bits, group_size=size)
            assert same(filled(model, packed), quantized(model, bits, group_size=size))
    smaller = pruned(model, magnitude_masks(model, 0.6))
    assert same(filled(model, sparse_tensors(smaller)), smaller)
    assert same(filled(model, low_rank_tensors(model, 4)), truncated(model, 4))


def test_bytes_are_those_of_the_numbers_and_a_tied_matrix_counts_once(
    model: LSTMLanguageModel,
) -> None:
    whole = num_bytes(plain_tensors(model))
    assert whole == 4 * model.num_parameters
    weights = sum(each.numel() for each in model.parameters() if each.ndim == 2)
    rows = sum(len(each) for each in model.parameters() if each.ndim == 2)
    biases = model.num_parameters - weights
    for bits in (8, 4, 2):
        assert num_bytes(quantized_tensors(model, bits)) == weights * bits // 8 + 4 * (
            rows + biases
        )
    smaller = sparse_tensors(pruned(model, magnitude_masks(model, 0.75)))
    assert num_bytes(smaller) == pytest.approx(weights / 8 + weights + 4 * biases, abs=8)


def test_weights_that_do_not_fit_are_refused(model: LSTMLanguageModel) -> None:
    packed = quantized_tensors(model, 4)
    with pytest.raises(ValueError, match="the model has no more"):
        fill(model, {**packed, "more": torch.zeros(1)})
    missing = {name: each for name, each in packed.items() if name != "lstm.weight_hh_l0.scales"}
    with pytest.raises(ValueError, match=r"there are no weights for lstm\.weight_hh_l0"):
        fill(model, missing)
    scales = packed["lstm.weight_hh_l0.scales"]
    wide = {**packed, "lstm.weight_hh_l0.scales": scales.repeat(1, 99)}
    with pytest.raises(ValueError, match="are not those of codes of shape"):
        fill(model, wide)
    small = LSTMLanguageModel(LSTMConfig(vocabulary_size=50, embedding_size=32, hidden_size=16))
    with pytest.raises(ValueError, match="are not 2048 codes of 4 bits"):
        fill(small, packed)
    with pytest.raises(ValueError, match="has shape"):
        fill(small, plain_tensors(model))
