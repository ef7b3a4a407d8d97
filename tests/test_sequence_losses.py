"""Unlikelihood, label smoothing and scheduled sampling, in closed form."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from companion.batching import IGNORE
from companion.lstm import LSTMConfig, LSTMLanguageModel
from companion.objectives import token_nats
from companion.sequence_losses import (
    inverse_sigmoid,
    repeated_ngram_mask,
    scheduled_inputs,
    sequence_unlikelihood,
    smoothed_nats,
    token_unlikelihood,
)

V = 5


def logits_of(probs: list[float], batch: int, time: int) -> torch.Tensor:
    return torch.tensor(probs).log().expand(batch, time, len(probs)).clone()


def random_logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_smoothing_equals_torchs_and_none_is_the_plain_loss() -> None:
    logits, targets = random_logits(2, 3, V), torch.tensor([[0, 1, IGNORE], [4, 4, 2]])
    got = smoothed_nats(logits, targets, 0.1)
    expected = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), label_smoothing=0.1, reduction="none"
    ).view(2, 3)
    torch.testing.assert_close(got, expected)
    assert got[0, 2] == 0
    torch.testing.assert_close(smoothed_nats(logits, targets, 0.0), token_nats(logits, targets))


def test_the_smoothed_loss_is_lowest_at_the_mixture() -> None:
    mixture = [0.9 + 0.02, 0.02, 0.02, 0.02, 0.02]
    targets = torch.zeros(1, 1, dtype=torch.long)
    lowest = float(smoothed_nats(logits_of(mixture, 1, 1), targets, 0.1))
    assert lowest == pytest.approx(-sum(p * math.log(p) for p in mixture), abs=1e-6)
    surer = [0.99, 0.0025, 0.0025, 0.0025, 0.0025]
    assert float(smoothed_nats(logits_of(surer, 1, 1), targets, 0.1)) > lowest


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


def make_model() -> LSTMLanguageModel:
    torch.manual_seed(0)
    return LSTMLanguageModel(LSTMConfig(vocabulary_size=V, hidden_size=4)).eval()


def always(token: int) -> LSTMLanguageModel:
    model = make_model()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    model.output.bias.data[token] = 50.0  # type: ignore[union-attr, operator]
    return model


def test_all_true_inputs_are_the_inputs_and_none_are_the_models() -> None:
    inputs = torch.tensor([[0, 1, 2, 3]])
    assert torch.equal(scheduled_inputs(always(4), inputs, 1.0), inputs)
    assert scheduled_inputs(always(4), inputs, 0.0).tolist() == [[0, 4, 4, 4]]
    assert inputs.tolist() == [[0, 1, 2, 3]]


def test_a_true_token_stays_with_its_probability() -> None:
    inputs = torch.zeros(4000, 6, dtype=torch.long)
    mixed = scheduled_inputs(always(4), inputs, 0.7, generator=torch.Generator().manual_seed(1))
    # 20,000 coins: a standard error of .0032; four of them.
    assert float((mixed[:, 1:] == 0).double().mean()) == pytest.approx(0.7, abs=0.013)
    assert (mixed[:, 0] == 0).all()


def test_own_inputs_are_samples_of_the_model_given_the_mixed_text() -> None:
    """With no true token after the first, the text is one that the model wrote."""
    model = make_model()
    with torch.no_grad():
        nn.init.normal_(model.output.weight, std=3.0)  # type: ignore[arg-type]
    inputs = torch.zeros(20_000, 3, dtype=torch.long)
    mixed = scheduled_inputs(model, inputs, 0.0, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        first = torch.softmax(model(inputs[:1, :1])[0][0, 0], -1)
        second = torch.stack(
            [torch.softmax(model(torch.tensor([[0, x]]))[0][0, 1], -1) for x in range(V)]
        )
    joint = torch.zeros(V, V)
    joint.index_put_((mixed[:, 1], mixed[:, 2]), torch.tensor(1 / 20_000), accumulate=True)
    # 20,000 draws: the standard error of a share is at most .0035; four of them.
    torch.testing.assert_close(joint, first[:, None] * second, atol=0.014, rtol=0)


def test_the_schedule_falls_from_nearly_one_through_a_half_to_zero() -> None:
    assert inverse_sigmoid(0, 1000) == pytest.approx(1000 / 1001)
    assert inverse_sigmoid(round(1000 * math.log(1000)), 1000) == pytest.approx(0.5, abs=1e-3)
    assert inverse_sigmoid(10**7, 1000) == pytest.approx(0)


def test_wrong_settings_are_refused() -> None:
    inputs = torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\), got 1"):
        smoothed_nats(torch.zeros(1, 2, V), inputs, 1.0)
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        repeated_ngram_mask(inputs, 0)
    with pytest.raises(ValueError, match=r"true_probability must be in \[0, 1\], got 1.5"):
        scheduled_inputs(make_model(), inputs, 1.5)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        inverse_sigmoid(1, 0.0)
    with pytest.raises(ValueError, match="step must be >= 0, got -1"):
        inverse_sigmoid(-1, 10.0)
