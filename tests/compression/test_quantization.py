"""Rounding of weights: its error, its bytes, and torch's kernels beside it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion.compression.quantization import (
    Quantized,
    int8_kernels,
    pack_codes,
    quantize,
    quantized,
    unpack_codes,
)
from companion.models.lstm import LSTMConfig, LSTMLanguageModel

SIZE = LSTMConfig(vocabulary_size=30, embedding_size=8, hidden_size=16)


def matrix(rows: int = 7, columns: int = 13, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_a_row_worked_out_by_hand() -> None:
    """3 bits have the codes -3 to 3: the largest weight, 1.5, is the code 3, so a code is 0.5."""
    found = quantize(torch.tensor([[1.5, -0.6, 0.2, 0.3]]), 3)
    assert found.codes.tolist() == [[3, -1, 0, 1]]
    assert found.scales.tolist() == [[0.5]]
    assert found.weights().tolist() == [[1.5, -0.5, 0.0, 0.5]]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(
    ("columns", "group_size", "groups"),
    [
        (13, None, [13]), (13, 1, [1] * 13), (13, 5, [5, 5, 3]), (13, 13, [13]), (13, 40, [13]),
        (13, 4, [4, 4, 4, 1]), (13, 6, [5, 5, 3]), (64, 24, [22, 22, 20]), (9, 4, [3, 3, 3]),
    ],
)  # fmt: skip
def test_no_weight_moves_by_more_than_half_the_step_of_its_own_group(
    bits: int, columns: int, group_size: int | None, groups: list[int]
) -> None:
    """The groups are given one by one, and decoded without `weights`, which must agree."""
    weights = matrix(columns=columns)
    found = quantize(weights, bits, group_size=group_size)
    top = 2 ** (bits - 1) - 1
    assert int(found.codes.abs().max()) == top
    assert found.scales.shape == (7, len(groups))
    decoded = found.weights()
    start = 0
    for number, length in enumerate(groups):
        here = slice(start, start + length)
        step = found.scales[:, number : number + 1]
        torch.testing.assert_close(step, weights[:, here].abs().amax(1, keepdim=True) / top)
        torch.testing.assert_close(decoded[:, here], found.codes[:, here] * step, rtol=0, atol=0)
        # Half a step, and float32's rounding of the quotient.
        assert bool(((decoded[:, here] - weights[:, here]).abs() <= step * (0.5 + 1e-5)).all())
        start += length
    assert start == columns


@pytest.mark.parametrize("shape", [(7, 0), (7, 14)])
def test_scales_of_another_shape_are_refused(shape: tuple[int, int]) -> None:
    codes = quantize(matrix(), 4).codes
    with pytest.raises(ValueError, match="are not those of codes of shape"):
        Quantized(codes=codes, scales=torch.ones(shape), bits=4).weights()


def test_smaller_groups_have_smaller_steps_and_a_row_of_zeros_stays_zero() -> None:
    weights = matrix(4, 64)
    weights[2] = 0
    errors = [
        float((quantize(weights, 3, group_size=size).weights() - weights).square().sum())
        for size in (None, 16, 4)
    ]
    assert errors == sorted(errors, reverse=True)
    assert quantize(weights, 3).weights()[2].tolist() == [0.0] * 64


@given(st.integers(2, 8), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_packed_codes_come_back_in_as_many_bytes_as_their_bits_need(
    bits: int, rows: int, columns: int, seed: int
) -> None:
    codes = quantize(matrix(rows, columns, seed), bits).codes
    packed = pack_codes(codes, bits)
    assert packed.numel() == -(-rows * columns * bits // 8)
    assert torch.equal(unpack_codes(packed, bits, (rows, columns)), codes)


def test_codes_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="3 bytes are not 7 codes of 4 bits"):
        unpack_codes(torch.zeros(3, dtype=torch.uint8), 4, (1, 7))


def test_the_same_seed_of_codes_is_its_own_rounding() -> None:
    """Rounding again changes nothing: the largest code stands for the largest weight."""
    once = quantize(matrix(), 4).weights()
    torch.testing.assert_close(quantize(once, 4).weights(), once, rtol=1e-6, atol=0)


def test_a_quantized_copy_keeps_biases_and_the_tie_and_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = LSTMLanguageModel(
        LSTMConfig(vocabulary_size=30, embedding_size=16, hidden_size=16, tie_weights=True)
    ).eval()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    made = quantized(model, 4)
    assert all(torch.equal(model.state_dict()[name], each) for name, each in before.items())
    assert made.output.weight is made.embedding.weight
    assert not torch.equal(made.embedding.weight, model.embedding.weight)
    assert torch.equal(made.lstm.bias_ih_l0, model.lstm.bias_ih_l0)


@pytest.mark.parametrize(
    ("bits", "group_size", "words"),
    [(1, None, r"bits must be in \[2, 8\], got 1"), (9, None, "got 9"), (4, 0, "group_size must")],
)
def test_wrong_settings_are_refused(bits: int, group_size: int | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        quantize(matrix(), bits, group_size=group_size)


def test_a_model_that_diverged_is_refused() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        quantize(torch.tensor([[1.0, torch.inf]]), 8)


def test_torchs_kernels_give_nearly_the_models_logits_with_a_quarter_of_the_weights() -> None:
    torch.manual_seed(0)
    model = LSTMLanguageModel(SIZE).eval()
    try:
        made = int8_kernels(model)
    except ValueError as error:
        pytest.skip(str(error))
    inputs = torch.randint(30, (3, 9))
    with torch.no_grad():
        mine, theirs = model(inputs)[0], made(inputs)[0]
    # 8 bits of weights and of inputs: errors of about a hundredth of the logits' spread.
    assert 0 < float((mine - theirs).abs().mean()) < 0.1 * float(mine.std())
    odd = LSTMConfig(vocabulary_size=30, embedding_size=8, hidden_size=16, weight_drop=0.1)
    with pytest.raises(ValueError, match=r"know nn\.LSTM alone"):
        int8_kernels(LSTMLanguageModel(odd))
