"""The policy gradient against exact gradients, optima and divergences, by enumerating all texts."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch

from companion.core.seeds import make_generator
from companion.evaluation.texts import log_probs_and_kl
from companion.generation.texts import write_texts
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.preferences.policy_gradient import PolicyGradientConfig, policy_loss, train_policy
from companion.studies.runner import one_thread
from companion.text.rows import tokens_through_end

SIZE, LENGTH = 3, 3


def tiny_model(seed: int = 0) -> LSTMLanguageModel:
    torch.manual_seed(seed)
    return LSTMLanguageModel(
        LSTMConfig(vocabulary_size=SIZE, embedding_size=4, hidden_size=16)
    ).eval()


def all_texts() -> torch.Tensor:
    """Every text of at most LENGTH tokens, filled up with the end token 0; each once."""
    rows = set()
    for tokens in itertools.product(range(SIZE), repeat=LENGTH):
        end = tokens.index(0) if 0 in tokens else LENGTH
        rows.add(tokens[:end] + (0,) * (LENGTH - end))
    return torch.tensor(sorted(rows))


def reward(texts: torch.Tensor) -> torch.Tensor:
    """An arbitrary one that depends on order."""
    return (texts.float() @ torch.tensor([1.0, -0.7, 0.4])).sin() * 2


def test_the_texts_probabilities_sum_to_one() -> None:
    log_p = log_probs_and_kl(tiny_model(), tiny_model(), all_texts()).log_p.detach()
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-5)  # float32
    texts = torch.tensor([[2, 0, 0], [1, 2, 1], [0, 0, 0]])
    assert tokens_through_end(texts).tolist() == [
        [True, True, False],
        [True] * 3,
        [True, False, False],
    ]


def test_the_summed_next_token_divergence_is_that_between_texts() -> None:
    with torch.no_grad():
        scores = log_probs_and_kl(tiny_model(0), tiny_model(1), all_texts())
    p = scores.log_p.exp()
    exact = float((p * (scores.log_p - scores.log_q)).sum())
    assert exact > 0.001
    # The expectation over the policy's own texts, taken exactly.
    assert float((p * scores.kl).sum()) == pytest.approx(exact, abs=1e-5)


def gradient(model: LSTMLanguageModel, value: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    value.backward()  # type: ignore[no-untyped-call]
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_the_policy_gradient_points_where_the_exact_gradient_does() -> None:
    """40,000 sampled texts; whitening changes the length and not the direction."""
    model, reference, beta = tiny_model(0), tiny_model(1), 0.3
    texts = all_texts()
    scores = log_probs_and_kl(model, reference, texts)
    returns = reward(texts) - beta * (scores.log_p - scores.log_q)
    # The gradient of E[reward] - beta KL: the log-ratio's own gradient has mean zero.
    exact = gradient(model, (scores.log_p.exp() * returns).sum())
    with torch.no_grad():
        drawn = write_texts(model, 40_000, LENGTH, generator=make_generator(0))
    scores = log_probs_and_kl(model, reference, drawn)
    advantage = reward(drawn) - beta * (scores.log_p - scores.log_q)
    sampled = -gradient(model, policy_loss(scores.log_p, advantage))
    assert float(torch.cosine_similarity(sampled, exact, dim=0)) > 0.99
    spread = float(advantage.detach().std(correction=0))
    assert float(sampled.norm() * spread / exact.norm()) == pytest.approx(1, abs=0.05)


def test_a_shift_or_a_scale_of_the_reward_changes_no_update() -> None:
    model = tiny_model()
    texts = write_texts(model, 64, LENGTH, generator=make_generator(0))
    log_p = log_probs_and_kl(model, model, texts).log_p.detach()
    one = float(policy_loss(log_p, reward(texts)))
    other = float(policy_loss(log_p, 100 * reward(texts) + 7))
    assert other == pytest.approx(one, abs=1e-4)
    assert float(policy_loss(log_p, torch.full((64,), 3.0))) == 0  # nothing to tell apart


def test_training_ends_at_the_reference_times_exp_reward_over_beta() -> None:
    """All texts have a chance here, so the closed form is known; it is met within about .005."""
    reference = tiny_model(1)
    policy, texts, beta = copy.deepcopy(reference), all_texts(), 1.0
    config = PolicyGradientConfig(
        beta=beta, kl_budget=100, max_steps=120, batch_size=400, num_tokens=LENGTH,
        learning_rate=1.5e-2,
    )  # fmt: skip
    with one_thread():
        records = train_policy(policy, reference, reward, config, generator=make_generator(0))
    with torch.no_grad():
        scores = log_probs_and_kl(policy, reference, texts)
    best = torch.softmax(scores.log_q + reward(texts) / beta, dim=0)
    before = torch.softmax(scores.log_q, dim=0)
    assert float((before - best).abs().sum() / 2) > 0.3
    assert float((scores.log_p.exp() - best).abs().sum() / 2) < 0.02
    divergence = float((best * (best.log() - scores.log_q)).sum())
    assert records[-1]["kl"] == pytest.approx(divergence, abs=0.1)
    assert len(records) == 121


def test_training_stops_at_the_budget_and_records_what_it_is_asked() -> None:
    reference = tiny_model(1)
    policy = copy.deepcopy(reference).train()
    config = PolicyGradientConfig(
        kl_budget=0.3, batch_size=64, num_tokens=LENGTH, learning_rate=2e-2
    )
    with one_thread():
        records = train_policy(
            policy, reference, reward, config, generator=make_generator(0),
            measures={"ends": lambda texts: (texts == 0).any(dim=1).float()},
        )  # fmt: skip
    assert set(records[0]) == {"step", "kl", "reward", "words", "cut_off", "ends"}
    assert records[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert [record["step"] for record in records] == list(range(len(records)))
    assert records[-1]["kl"] >= 0.3 > records[-2]["kl"]
    assert not policy.training
    assert records[-1]["reward"] > records[0]["reward"] + 0.3
    for record in records:  # a text without an end was cut off
        assert record["cut_off"] == pytest.approx(1 - record["ends"])
    assert 0 < records[0]["cut_off"] < 1
    assert 0 <= records[-1]["words"] <= LENGTH


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("beta", -1.0, "beta must be >= 0, got -1"),
        ("kl_budget", 0.0, "kl_budget must be > 0, got 0"),
        ("learning_rate", math.nan, "learning_rate must be > 0, got nan"),
        ("max_steps", 0, "max_steps must be >= 1, got 0"),
        ("batch_size", 1, "batch_size must be >= 2, got 1"),
    ],
)
def test_wrong_settings_are_refused(setting: str, value: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PolicyGradientConfig(**{setting: value})  # type: ignore[arg-type]
