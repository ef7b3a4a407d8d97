"""Calibration: closed forms, the truth against its own samples, and temperatures that are known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.evaluation import calibration
from companion.evaluation.calibration import (
    exact_calibration_error,
    fit_temperature,
    reliability,
    temperature_of,
)
from companion.evaluation.scoring import score
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.reviews import GrammarSource


def make_model(vocabulary_size: int = 12, **changes: object) -> LSTMLanguageModel:
    torch.manual_seed(3)
    sizes = {"embedding_size": 6, "hidden_size": 8} | changes
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=vocabulary_size, **sizes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    return model


def sampled(model: LSTMLanguageModel, length: int, temperature: float = 1.0) -> torch.Tensor:
    """A text of 32 pieces from the model itself, its logits divided by `temperature`.

    Read in 32 streams, each piece is what the model wrote from an empty state, but for the first
    token of the next.
    """
    generator = torch.Generator().manual_seed(5)
    ids, state = [torch.zeros(32, dtype=torch.long)], None
    with torch.no_grad():
        for _ in range(length // 32 - 1):
            logits, state = model(ids[-1][:, None], state)
            probs = (logits[:, 0].double() / temperature).softmax(-1)
            ids.append(torch.multinomial(probs, 1, generator=generator)[:, 0])
    return torch.cat([torch.stack(ids, dim=1).flatten(), torch.zeros(1, dtype=torch.long)])


def test_ece_by_hand() -> None:
    confidences = torch.tensor([0.2, 0.2, 0.2, 0.9, 0.9])
    correct = torch.tensor([True, False, False, True, False])
    found = reliability(confidences, correct, num_bins=2)
    assert found.counts.tolist() == [3, 2]
    # float32 confidences.
    assert found.accuracies.tolist() == pytest.approx([1 / 3, 1 / 2], rel=1e-6)
    assert found.confidences.tolist() == pytest.approx([0.2, 0.9], rel=1e-6)
    assert found.ece == pytest.approx(3 / 5 * (1 / 3 - 0.2) + 2 / 5 * 0.4, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 20))
def test_bins_hold_every_prediction_once_whatever_their_order(count: int, num_bins: int) -> None:
    confidences = (torch.rand(count) * 8).round() / 8  # with ties, zeros and ones
    correct = torch.rand(count) < confidences
    found = reliability(confidences, correct, num_bins=num_bins)
    assert int(found.counts.sum()) == count
    assert len(found.counts) <= num_bins
    assert bool((found.confidences >= found.lows - 1e-12).all())  # the mean of equal numbers rounds
    assert bool((found.confidences <= found.highs + 1e-12).all())
    mean = float((found.counts * found.accuracies).sum()) / count
    assert mean == pytest.approx(float(correct.double().mean()), abs=1e-12)
    order = torch.randperm(count)
    again = reliability(confidences[order], correct[order], num_bins=num_bins)
    assert again.ece == pytest.approx(found.ece, abs=1e-12)


def test_the_truth_is_calibrated_within_its_standard_errors() -> None:
    """A source's own probabilities on its own samples: only chance is left."""
    source = GrammarSource()
    text = torch.cat(source.sample(3000, generator=torch.Generator().manual_seed(2)))
    confidences, predictions = source.transition_probs[source.walk(text)].max(dim=-1)
    found = reliability(confidences, predictions == text)
    deviations = (found.accuracies - found.confidences) / found.standard_errors
    large = found.variances * found.counts >= 10  # a normal approximation, and no sure bin
    # 15 bins: the largest of 15 normal numbers passes 3.5 once in 140 texts; the seed is fixed.
    assert float(deviations[large].abs().max()) < 3.5
    # A sum of up to 15 half-normal terms varies by about a fifth of itself.
    assert 0.4 * found.ece_by_chance < found.ece < 1.8 * found.ece_by_chance


def test_the_error_of_the_truth_is_on_average_the_error_by_chance() -> None:
    torch.manual_seed(1)
    measured, expected = [], []
    for _ in range(200):
        confidences = 0.2 + 0.7 * torch.rand(2000)
        found = reliability(confidences, torch.rand(2000) < confidences)
        measured.append(found.ece)
        expected.append(found.ece_by_chance)
    # 200 errors, each with a spread of about a quarter of the mean: 2 % standard error.
    assert sum(measured) / sum(expected) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(("temperature", "sign"), [(0.5, 1), (2.0, -1)])
def test_a_sharpened_coin_has_the_ece_of_its_closed_form(temperature: float, sign: int) -> None:
    """p = .7 sharpened to p^(1/T) / (p^(1/T) + (1-p)^(1/T)): the gap is known."""
    p, n = 0.7, 200_000
    q = p ** (1 / temperature) / (p ** (1 / temperature) + (1 - p) ** (1 / temperature))
    correct = torch.rand(n, generator=torch.Generator().manual_seed(0)) < p
    found = reliability(torch.full((n,), q), correct)
    # Four standard errors of a share of .7 among n.
    assert found.ece == pytest.approx(sign * (q - p), abs=4 * math.sqrt(p * (1 - p) / n))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_temperature_scaling_recovers_the_temperature_a_text_was_written_at(
    temperature: float,
) -> None:
    model = make_model()
    ids = sampled(model, 16_000, temperature)
    found = fit_temperature(model, ids)
    with torch.no_grad():
        logits = model(ids[:-1].view(32, 500))[0].flatten(0, 1)
    # The second derivative of the nats in the inverse temperature: the variance of the logits.
    probs = (logits / temperature).softmax(dim=-1)
    mean = (probs * logits).sum(dim=-1, keepdim=True)
    curvature = float((probs * (logits - mean) ** 2).sum())
    error = temperature / math.sqrt(curvature)  # relative, by Fisher's information
    assert error < 0.02
    assert found == pytest.approx(temperature, rel=4 * error)
    # Two ways to the same minimum; each is within 1e-5 of it.
    assert temperature_of(logits, ids[1:]) == pytest.approx(found, rel=2e-5)
    slope = calibration._slope(logits, ids[1:], found)
    assert abs(slope) < 1e-4 * curvature / temperature  # a Newton step would move it less than 1e-4
    # It is the best: nats rise on either side.
    nats = {
        factor: float(score(model, ids, temperature=found * factor).nats.double().sum())
        for factor in (0.97, 1.0, 1.03)
    }
    assert nats[1.0] < min(nats[0.97], nats[1.03])


def test_a_scaled_model_needs_the_scaled_temperature_and_mends_its_calibration() -> None:
    model = make_model()
    ids = sampled(model, 16_000)
    before = fit_temperature(model, ids)
    with torch.no_grad():
        model.output.weight *= 10  # beyond where temperatures mostly are
        model.output.bias *= 10
    found = fit_temperature(model, ids)
    assert found == pytest.approx(10 * before, rel=1e-3)
    errors = []
    for temperature in (1.0, found):
        scores = score(model, ids, temperature=temperature)
        errors.append(reliability(scores.confidences, scores.predictions == scores.targets).ece)
    assert errors[0] > 0.1
    assert errors[1] < 0.04


def test_adaptive_softmax_has_a_temperature_too() -> None:
    torch.manual_seed(0)
    model = LSTMLanguageModel(
        LSTMConfig(vocabulary_size=12, embedding_size=6, hidden_size=16, adaptive_cutoffs=(4, 8))
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    # About five standard errors.
    assert fit_temperature(model, sampled(model, 16_000, 1.5)) == pytest.approx(1.5, rel=0.07)


def test_logits_without_a_best_temperature_are_refused() -> None:
    logits = torch.eye(4) * 5
    with pytest.raises(ValueError, match="no temperature between"):
        temperature_of(logits, torch.arange(4))  # always right: the sharper the better
    with pytest.raises(ValueError, match="no temperature between"):
        temperature_of(logits, (torch.arange(4) + 1) % 4)  # always wrong: the flatter the better
    with pytest.raises(ValueError, match="not finite"):
        temperature_of(torch.full((2, 3), math.nan), torch.zeros(2, dtype=torch.long))
    assert temperature_of(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)) == 1  # all the same


def test_wrong_arguments_are_named() -> None:
    right = torch.tensor([True, False])
    with pytest.raises(ValueError, match="non-empty"):
        reliability(torch.zeros(0), right[:0])
    with pytest.raises(ValueError, match="must be probabilities"):
        reliability(torch.tensor([0.5, 1.5]), right)
    with pytest.raises(ValueError, match="num_bins must be >= 1, got 0"):
        reliability(torch.tensor([0.5, 0.5]), right, num_bins=0)


def test_the_exact_error_is_that_of_endless_labels() -> None:
    """Three positions in two bins, by hand; and by labels in the exact proportions of the truth."""
    q = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.72, 0.18], [0.3, 0.3, 0.4]], dtype=torch.float64)
    p = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0], [0.1, 0.5, 0.4]], dtype=torch.float64)
    by_hand = (abs((0.7 - 0.5) + (0.72 - 0.8)) + abs(0.4 - 0.4)) / 3
    assert exact_calibration_error(q, p) == pytest.approx(by_hand, abs=1e-12)
    confidence, top = q.max(dim=-1)
    right = (p.gather(-1, top[:, None]).squeeze(-1) * 10).round().long()
    correct = torch.cat([torch.arange(10) < n for n in right.tolist()])
    found = reliability(confidence.repeat_interleave(10), correct)
    assert found.ece == pytest.approx(by_hand, abs=1e-12)
    assert exact_calibration_error(p, p) == 0
    sure = torch.eye(3, dtype=torch.float64)  # confidence 1 belongs to the last bin
    assert exact_calibration_error(sure, p) == pytest.approx((3 - (0.5 + 0.8 + 0.4)) / 3, abs=1e-12)


def test_a_confidence_on_an_edge_is_in_the_bin_above_and_certainty_in_the_last() -> None:
    found = reliability(
        torch.tensor([0.5, 0.5, 0.25, 1.0]), torch.tensor([True, False, True, True]), num_bins=4
    )
    assert found.lows.tolist() == [0.25, 0.5, 0.75]
    assert found.counts.tolist() == [1, 2, 1]


def test_errors_of_one_bin_cancel_and_errors_of_two_do_not() -> None:
    q = torch.tensor([[0.6, 0.4], [0.9, 0.1]], dtype=torch.float64)
    p = torch.tensor([[0.7, 0.3], [0.8, 0.2]], dtype=torch.float64)
    assert exact_calibration_error(q, p, num_bins=4) == pytest.approx(0.1)
    assert exact_calibration_error(q, p, num_bins=1) == pytest.approx(0)
