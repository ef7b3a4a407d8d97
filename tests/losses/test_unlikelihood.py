"""Unlikelihood, in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from companion.losses.unlikelihood import (
    repeated_ngram_mask,
    sequence_unlikelihood,
    token_unlikelihood,
)
from companion.text.batching import IGNORE

V = 5


def logits_of(probs: list[float], batch: int, time: int) -> torch.Tensor:
    return torch.tensor(probs).log().expand(batch, time, len(probs)).clone()


def random_logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_token_unlikelihood_sums_over_earlier_targets_but_not_the_present_one() -> None:
    probs = [0.1, 0.2, 0.3, 0.15, 0.25]
    targets = torch.tensor([[2, 2, 0, 2]])
    got = token_unlikelihood(logits_of(probs, 1, 4), targets)
    # Candidates: none; {2} less the target 2; {2}; {0, 2} less 2.
    expected = [0, 0, -math.log(1 - 0.3), -math.log(1 - 0.1)]
    torch.testing.assert_close(got, torch.tensor([expected]))


def test_ignored_positions_have_no_candidates_and_are_none() -> None:
    targets = torch.tensor([[IGNORE, 1, IGNORE, 2]])
    got = token_unlikelihood(logits_of([0.2] * 5, 1, 4), targets)
    torch.testing.assert_close(got, torch.tensor([[0, 0, 0, -math.log(0.8)]]))


def test_token_unlikelihood_is_exact_with_its_gradient_at_certainty() -> None:
    logits = torch.full((1, 2, V), -50.0)
    logits[0, :, 1] = 50.0
    logits.requires_grad_()
    loss = token_unlikelihood(logits, torch.tensor([[1, 0]])).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    # The other four share e^-100 of the mass each; p itself has long been rounded to 1.
    assert float(loss.detach()) == pytest.approx(100 - math.log(4), abs=1e-3)
    assert logits.grad is not None
    assert logits.grad[0, 1].tolist() == pytest.approx([-0.25, 1, -0.25, -0.25, -0.25], abs=1e-5)


def test_the_gradient_of_unlikelihood_pushes_the_candidate_down() -> None:
    logits = random_logits(1, 2, V).requires_grad_()
    token_unlikelihood(logits, torch.tensor([[3, 1]])).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    p = float(torch.softmax(logits.detach()[0, 1], -1)[3])
    # d/dz of -log(1 - p) is p for the candidate's own logit.
    assert float(logits.grad[0, 1, 3]) == pytest.approx(p, rel=1e-4)
    assert bool((logits.grad[0, 0] == 0).all())


def test_tokens_of_repeated_ngrams_are_marked() -> None:
    tokens = torch.tensor([[1, 2, 3, 1, 2, 4], [1, 1, 1, 0, 2, 3]])
    assert repeated_ngram_mask(tokens, 2).int().tolist() == [[0, 0, 0, 1, 1, 0], [0, 1, 1, 0, 0, 0]]
    assert not repeated_ngram_mask(tokens, 4).any()
    assert repeated_ngram_mask(tokens, 1).int().tolist()[0] == [0, 0, 0, 1, 1, 0]
    assert not repeated_ngram_mask(tokens[:, :2], 3).any()  # too short for one


def test_sequence_unlikelihood_is_taken_at_marked_tokens_alone() -> None:
    probs = [0.1, 0.2, 0.3, 0.15, 0.25]
    got = sequence_unlikelihood(logits_of(probs, 1, 5), torch.tensor([[1, 2, 1, 2, 0]]), n=2)
    expected = [0, 0, -math.log(0.8), -math.log(0.7), 0]
    torch.testing.assert_close(got, torch.tensor([expected]))


def test_wrong_settings_are_refused() -> None:
    inputs = torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        repeated_ngram_mask(inputs, 0)
