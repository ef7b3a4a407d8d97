"""Dynamic evaluation against its equations, without a leak, and with the weights put back."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from companion.evaluation import dynamic
from companion.evaluation.dynamic import (
    DivergedError,
    DynamicConfig,
    choose_dynamic,
    score_dynamically,
)
from companion.evaluation.scoring import score
from companion.losses import cross_entropy
from companion.models.base import detach
from companion.models.lstm import LSTMConfig, LSTMLanguageModel

VOCABULARY = 9


def make_model(**changes: object) -> LSTMLanguageModel:
    torch.manual_seed(1)
    sizes = {"vocabulary_size": VOCABULARY, "embedding_size": 8, "hidden_size": 8} | changes
    model = LSTMLanguageModel(LSTMConfig(**sizes)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def random_text(length: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (length,))


MODELS = [
    {},
    {"num_layers": 2, "dropout": 0.5},
    {"tie_weights": True},
    {"num_layers": 2, "last_size": 8, "weight_drop": 0.5, "variational": True, "dropout": 0.4},
    {"adaptive_cutoffs": (3, 6), "hidden_size": 16},
]
each_model = pytest.mark.parametrize("changes", MODELS, ids=lambda c: "-".join(c) or "plain")


@each_model
def test_learning_rate_zero_is_the_plain_model(changes: dict[str, object]) -> None:
    model, ids = make_model(**changes), random_text(70)
    plain = score(model, ids, num_streams=1)
    dynamic = score_dynamically(model, ids, DynamicConfig(learning_rate=0.0, segment=9))
    # float32, in other shapes.
    torch.testing.assert_close(dynamic.nats, plain.nats, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dynamic.confidences, plain.confidences, rtol=1e-5, atol=1e-5)
    assert torch.equal(dynamic.predictions, plain.predictions)
    assert torch.equal(dynamic.targets, plain.targets)


@each_model
def test_weights_modes_and_gradients_are_left_as_they_were(changes: dict[str, object]) -> None:
    model, ids = make_model(**changes), random_text(70)
    model.train()
    before = copy.deepcopy(model.state_dict())
    first = score_dynamically(model, ids, DynamicConfig(learning_rate=0.5))
    assert model.training
    assert all(module.training for module in model.modules())
    dropouts = [m.dropout for m in model.modules() if isinstance(m, nn.LSTM)]
    assert all(dropout == (0.5 if changes == MODELS[1] else 0.0) for dropout in dropouts)
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert torch.equal(
        first.nats, score_dynamically(model, ids, DynamicConfig(learning_rate=0.5)).nats
    )


def test_it_is_krause_s_rule() -> None:
    """The loop written out: predict a segment, then theta += decay (theta_0 - theta) - eta g."""
    model, ids = make_model(), random_text(47)
    config = DynamicConfig(learning_rate=0.3, decay=0.05, segment=10)
    scores = score_dynamically(model, ids, config)

    by_hand, start, state = copy.deepcopy(model), copy.deepcopy(model.state_dict()), None
    nats = []
    for low in range(0, 46, 10):
        span = ids[low : low + 11]
        logits, state = by_hand(span[None, :-1], state)
        state = detach(state)
        loss = nn.functional.cross_entropy(logits[0], span[1:], reduction="none")
        nats.append(loss.detach())
        by_hand.zero_grad()
        loss.mean().backward()
        with torch.no_grad():
            for name, weight in by_hand.named_parameters():
                weight.copy_(weight + 0.05 * (start[name] - weight) - 0.3 * weight.grad)
    torch.testing.assert_close(scores.nats, torch.cat(nats), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(scores.nats, score(model, ids, num_streams=1).nats, atol=1e-2)


@pytest.mark.parametrize("place", [1, 15, 39])
def test_no_probability_depends_on_its_own_target_or_on_later_tokens(place: int) -> None:
    model, ids = make_model(), random_text(40)
    config = DynamicConfig(learning_rate=0.5, segment=7)
    before = score_dynamically(model, ids, config)
    changed = ids.clone()
    changed[place:] = (changed[place:] + 1 + torch.arange(40 - place)) % VOCABULARY
    after = score_dynamically(model, changed, config)
    assert torch.equal(before.nats[: place - 1], after.nats[: place - 1])
    assert torch.equal(before.confidences[:place], after.confidences[:place])
    assert torch.equal(before.predictions[:place], after.predictions[:place])
    assert not torch.equal(before.nats[place - 1 :], after.nats[place - 1 :])


def test_the_distribution_sums_to_one_whatever_the_target() -> None:
    model, ids = make_model(), random_text(30)
    config = DynamicConfig(learning_rate=0.5, segment=4)
    total = 0.0
    for token in range(VOCABULARY):
        changed = torch.cat([ids[:-1], torch.tensor([token])])
        total += float(score_dynamically(model, changed, config).nats[-1].double().neg().exp())
    assert total == pytest.approx(1, abs=1e-5)  # nine float32 probabilities


def test_it_learns_a_text_that_repeats_itself() -> None:
    model, ids = make_model(), random_text(12).repeat(40)
    plain = score(model, ids, num_streams=1).nats
    dynamic = score_dynamically(model, ids, DynamicConfig(learning_rate=1.0)).nats
    assert float(dynamic[-100:].mean()) < 0.5 * float(plain[-100:].mean())


def test_full_decay_keeps_only_the_last_step() -> None:
    """With decay 1, each segment is predicted from the trained weights and one step."""
    model, ids = make_model(), random_text(61)
    step = {"learning_rate": 0.5, "segment": 20}
    # The second segment has seen one step either way; the third two, of which one is undone.
    kept = score_dynamically(model, ids, DynamicConfig(**step)).nats
    undone = score_dynamically(model, ids, DynamicConfig(decay=1.0, **step)).nats
    assert torch.equal(undone[:40], kept[:40])
    assert not torch.allclose(undone[40:], kept[40:], atol=1e-3)


def test_the_chosen_rate_is_the_best_and_one_that_diverges_is_passed_over() -> None:
    model, ids = make_model(), random_text(15).repeat(10)
    rates = (0.0, 0.1, 0.5, 1e30)
    chosen = choose_dynamic(model, ids, learning_rates=rates)
    losses = {
        rate: float(score_dynamically(model, ids, DynamicConfig(learning_rate=rate)).nats.sum())
        for rate in rates[:-1]
    }
    assert chosen.learning_rate == min(losses, key=losses.__getitem__) > 0
    with pytest.raises(ValueError, match=r"every learning rate of .* diverged"):
        choose_dynamic(model, ids, learning_rates=(1e30,))


def test_a_step_that_diverges_is_said_and_the_weights_come_back() -> None:
    model, ids = make_model(), random_text(100)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DivergedError, match="lower learning_rate, now 1e\\+30"):
        score_dynamically(model, ids, DynamicConfig(learning_rate=1e30))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name


@pytest.mark.parametrize("high", [1e29, math.inf, math.nan])
def test_divergence_is_the_same_error_whatever_the_processor_makes_of_it(
    high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a step far too long, some processors have a loss of 1e29, others no number."""
    model, ids = make_model(), random_text(100)
    calls = 0

    def token_nats(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return cross_entropy.token_nats(logits, targets) * (1.0 if calls == 1 else high)

    monkeypatch.setattr(dynamic, "token_nats", token_nats)
    with pytest.raises(DivergedError, match="dynamic evaluation diverged: a segment's loss is abo"):
        score_dynamically(model, ids, DynamicConfig(learning_rate=0.1))


def test_a_loss_that_is_high_from_the_start_has_not_diverged() -> None:
    model, ids = make_model(), random_text(100)
    model.output.weight.data *= 2000  # logits in the thousands
    scores = score_dynamically(model, ids, DynamicConfig(learning_rate=0.0))
    assert float(scores.nats.mean()) > 100 * math.log(VOCABULARY)


def test_frozen_weights_stay_and_a_model_without_others_is_refused() -> None:
    model, ids = make_model(), random_text(60)
    model.embedding.weight.requires_grad_(False)
    score_dynamically(model, ids, DynamicConfig())
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="weights that require gradients"):
        score_dynamically(model, ids, DynamicConfig())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"segment": 0}, "segment must be >= 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be >= 0 and finite, got -1.0"),
        ({"learning_rate": math.inf}, "learning_rate must be >= 0 and finite, got inf"),
        ({"decay": 1.5}, r"decay must be in \[0, 1\], got 1.5"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicConfig(**wrong)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_losses() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    model, ids = make_model(num_layers=2, dropout=0.5), random_text(200)
    config = DynamicConfig(learning_rate=0.1)
    here = score_dynamically(model, ids, config).nats
    there = score_dynamically(model.cuda(), ids, config).nats
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)  # TF32 may be on
