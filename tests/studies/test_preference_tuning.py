"""The study `preference_tuning`: its closed forms, its judge, and a small run."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from companion.models.lstm import LSTMConfig
from companion.preferences.dpo import DPOConfig
from companion.sources.grammar import VOCABULARY
from companion.studies import preference_tuning
from companion.studies.runner import one_thread
from companion.training.config import TrainConfig
from companion.training.unlikelihood import UnlikelihoodConfig


def quick() -> preference_tuning.Config:
    return preference_tuning.Config(
        model=LSTMConfig(vocabulary_size=len(VOCABULARY), embedding_size=16, hidden_size=16),
        training=TrainConfig(steps=20), judged_texts=200, pairs=64, betas=(1.0, 0.1),
        num_tokens=30, overtrained_pairs=20, overtrained_dpo=DPOConfig(beta=0.02, epochs=2),
        test_texts=40, curve_texts=20, true_texts=60, repetition_texts=6,
        unlikelihood=UnlikelihoodConfig(steps=2, greedy_tokens=12),
    )  # fmt: skip


def test_the_ideal_policy_of_a_coin_is_the_logistic_one() -> None:
    """Half of the reviews are worth 0, half 1: p(good) = sigmoid(1 / beta), KL = ln 2 - entropy."""
    gold = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(500)
    found = preference_tuning.ideal_policies(gold)
    for beta, kl, value in zip(found["beta"], found["kl"], found["gold"], strict=True):
        good = 1 / (1 + math.exp(-1 / beta))
        entropy = -good * math.log(good) - (1 - good) * math.log(1 - good)
        assert value == pytest.approx(good, abs=1e-9)
        assert kl == pytest.approx(math.log(2) - entropy, abs=1e-9)
    assert found["beta"][-1] == 0.09  # the weights rest on 500 reviews whatever beta is


def test_a_judge_of_more_noise_wants_less_and_thin_weights_are_left_out() -> None:
    gold = torch.linspace(-3, 3, 1000, dtype=torch.float64)
    sharp, dull = (preference_tuning.ideal_policies(gold, temperature=t) for t in (1.0, 2.0))
    assert len(sharp["beta"]) < len(dull["beta"])
    assert sharp["gold"][0] > dull["gold"][0] > 0
    assert sharp["kl"] == sorted(sharp["kl"])


@pytest.mark.slow
def test_a_small_run_repeats_with_its_seed_and_is_json() -> None:
    with one_thread():
        one = preference_tuning.run(quick(), seed=0)
        again = preference_tuning.run(quick(), seed=0)
    assert one == again
    json.dumps(dataclasses.asdict(one), allow_nan=False)
    assert list(one.dpo) == ["start", "1", "0.1"]
    costs = {"kl", "source_kl", "ece", "gold", "words", "ungrammatical", "opinion"}
    assert set(one.dpo["start"]) == costs
    assert set(one.dpo["0.1"]) == costs | {"chosen", "rejected", "margin", "accuracy"}
    assert {len(values) for values in one.overtraining.values()} == {3}
    assert one.overtraining["chosen"][0] == one.overtraining["margin"][0] == 0
    assert list(one.unlikelihood) == ["start", "likelihood", "token", "sequence"]
    assert set(one.unlikelihood["token"]) == costs | {"repetition", "greedy_ungrammatical"}


def test_a_study_without_beta_is_refused() -> None:
    with pytest.raises(ValueError, match="betas needs one value or more"):
        preference_tuning.Config(betas=())
