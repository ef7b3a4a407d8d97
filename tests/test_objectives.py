"""The loss against a hand computation, at extreme logits, and in the traps of shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.batching import IGNORE
from companion.objectives import summed_nats, token_nats

LOSSES = [token_nats, summed_nats]


def by_hand(logits, targets):
    """-log(exp(logit of the target) / sum of exps) in float64, position by position."""
    result = np.zeros(targets.shape)
    for b, t in np.ndindex(*targets.shape):
        row = logits[b, t].double().numpy()
        if targets[b, t] != IGNORE:
            result[b, t] = -math.log(math.exp(row[targets[b, t]]) / np.exp(row).sum())
    return result


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.integers(0, 10**6))
def test_token_nats_equal_a_hand_computation_in_float64(batch, time, vocabulary, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, time, vocabulary, generator=generator) * 3
    targets = torch.randint(vocabulary, (batch, time), generator=generator)
    # float32: losses up to ~20, each within a few parts in 10^7 of them.
    np.testing.assert_allclose(token_nats(logits, targets), by_hand(logits, targets), atol=1e-5)


def test_nats_are_exact_at_logits_times_1000():
    logits = torch.tensor([[[3.0, 1.0, -2.0], [3.0, 1.0, -2.0]]]) * 1000
    assert token_nats(logits, torch.tensor([[0, 2]])).tolist() == [[0.0, 5000.0]]


def test_half_precision_logits_are_summed_in_float32():
    # log(100) has error 0.01 in bfloat16; in float32 it is right to 6 digits.
    nats = token_nats(torch.zeros(1, 1, 100, dtype=torch.bfloat16), torch.zeros(1, 1).long())
    assert nats.dtype == torch.float32
    assert nats.item() == pytest.approx(math.log(100), rel=1e-6)


def test_uniform_logits_cost_the_log_of_the_vocabulary_size():
    nats = token_nats(torch.full((2, 3, 50), 7.0), torch.randint(50, (2, 3)))
    torch.testing.assert_close(nats, torch.full((2, 3), math.log(50)))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_shape_mistake_that_torch_passes_when_batch_equals_vocabulary_raises(loss):
    # CrossEntropyLoss reads dimension 1 as the classes. With B = V, (T, B, V) logits and (T, B)
    # targets pass, and the softmax runs over the batch.
    time, batch = 3, 5
    logits, targets = torch.randn(batch, time, batch), torch.randint(batch, (batch, time))
    naive = F.cross_entropy(logits.transpose(0, 1), targets.T)  # silent
    assert naive != pytest.approx(float(token_nats(logits, targets).mean()), abs=1e-3)
    # The other silent one: time-major logits, flattened, against batch-major targets.
    mixed = F.cross_entropy(logits.transpose(0, 1).reshape(-1, batch), targets.flatten())
    assert mixed != pytest.approx(float(token_nats(logits, targets).mean()), abs=1e-3)
    with pytest.raises(
        ValueError, match=r"logits \(3, 5, 5\) must be the shape of targets \(5, 3\)"
    ):
        # Without the run-time check of annotations, which would raise first: the user's case.
        loss.__wrapped__(logits.transpose(0, 1), targets)
    with pytest.raises(ValueError, match="vocabulary added as last axis"):
        loss.__wrapped__(logits, logits.argmax(dim=1))


@pytest.mark.parametrize("loss", LOSSES)
def test_ignored_targets_cost_nothing_and_give_no_gradient(loss):
    logits = torch.randn(2, 3, 4, requires_grad=True)
    targets = torch.tensor([[1, IGNORE, 2], [IGNORE, IGNORE, 0]])
    nats = token_nats(logits, targets)
    assert (nats[targets == IGNORE] == 0).all()
    loss(logits, targets).sum().backward()
    assert (logits.grad[targets == IGNORE] == 0).all()
    assert (logits.grad[targets != IGNORE] != 0).all()


def test_a_batch_of_nothing_but_padding_costs_zero_and_not_nan():
    assert summed_nats(torch.randn(1, 2, 3), torch.full((1, 2), IGNORE)).item() == 0


def test_the_sum_is_the_sum_of_the_parts():
    logits, targets = torch.randn(3, 4, 6), torch.randint(6, (3, 4))
    targets[1, 2] = IGNORE
    torch.testing.assert_close(summed_nats(logits, targets), token_nats(logits, targets).sum())


def test_the_gradient_is_probability_minus_one_hot():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    targets = torch.randint(5, (2, 3))
    summed_nats(logits, targets).backward()
    expected = logits.detach().softmax(-1) - F.one_hot(targets, 5)
    # float32 and values below 1.
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_target_outside_the_vocabulary_is_an_error(loss):
    with pytest.raises(IndexError, match="out of bounds"):
        loss(torch.randn(1, 1, 3), torch.tensor([[3]]))
