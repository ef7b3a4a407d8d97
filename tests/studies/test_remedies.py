"""The study `remedies`: what it compares, its mask, and a small run."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from companion.core.seeds import make_generator
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.preferences.dpo import DPOConfig
from companion.preferences.policy_gradient import PolicyGradientConfig
from companion.sources.grammar import VOCABULARY, GrammarConfig
from companion.sources.reviews import GrammarSource
from companion.studies import remedies
from companion.studies.runner import one_thread
from companion.text.rows import text_rows, word_counts
from companion.training.config import TrainConfig
from companion.training.unlikelihood import UnlikelihoodConfig

SIZE = LSTMConfig(vocabulary_size=len(VOCABULARY), embedding_size=16, hidden_size=16)


def quick() -> remedies.Config:
    return remedies.Config(
        model=SIZE, training=TrainConfig(steps=20), num_tokens=30, judged_texts=200, labels=60,
        best_of=4, rl=PolicyGradientConfig(max_steps=2, batch_size=16), dpo=DPOConfig(),
        unlikelihood=UnlikelihoodConfig(steps=2, greedy_tokens=12), test_texts=40, true_texts=60,
        repetition_texts=6,
    )  # fmt: skip


@pytest.fixture(scope="module")
def shallow() -> GrammarSource:
    return GrammarSource(GrammarConfig(depth=0))


@pytest.fixture(scope="module")
def model() -> LSTMLanguageModel:
    torch.manual_seed(0)
    return LSTMLanguageModel(SIZE).eval()


def test_the_mask_leaves_a_distribution_over_what_the_grammar_allows(
    shallow: GrammarSource, model: LSTMLanguageModel
) -> None:
    texts = text_rows(shallow.sample(20, generator=make_generator(0)))
    q, p, allowed = remedies.masked(model, shallow, texts)
    torch.testing.assert_close(q.sum(dim=-1), torch.ones_like(allowed))
    assert (q[p == 0] == 0).all()
    assert (q[p > 0] > 0).all()
    assert len(allowed) == int(word_counts(texts).sum()) + len(texts)  # the end tokens too
    assert ((allowed > 0) & (allowed < 1)).all()


def test_a_constrained_model_pays_in_kl_what_the_mask_takes_and_is_grammatical(
    shallow: GrammarSource, model: LSTMLanguageModel
) -> None:
    """KL(constrained || model) of a text is the sum of -log(probability that the mask leaves)."""
    held, found = remedies.constrained(model, shallow, quick(), generator=make_generator(1))
    _, _, allowed = remedies.masked(model, shallow, held)
    assert found["kl"] == pytest.approx(-float(allowed.log().sum()) / len(held))
    whole = held[(held == 0).any(dim=1)]
    assert len(whole)
    assert remedies.of_reviews(whole, shallow)["ungrammatical"] == 0


def test_best_of_n_keeps_of_each_group_the_review_that_the_proxy_likes_best(
    model: LSTMLanguageModel,
) -> None:
    def length(texts: torch.Tensor) -> torch.Tensor:
        return word_counts(texts).double()

    kept = remedies.best_of(model, length, quick(), generator=make_generator(2))
    everything = dataclasses.replace(quick(), best_of=1, test_texts=160)
    drawn = remedies.best_of(model, length, everything, generator=make_generator(2))
    longest = word_counts(drawn).view(40, 4).max(dim=1).values
    assert word_counts(kept).tolist() == longest.tolist()


@pytest.mark.slow
def test_a_small_run_repeats_with_its_seed_and_is_json() -> None:
    with one_thread():
        one = remedies.run(quick(), seed=0)
        again = remedies.run(quick(), seed=0)
    assert one == again
    json.dumps(dataclasses.asdict(one), allow_nan=False)
    names = {"nothing", "best of 4", "RL 0", "RL 1", "DPO 1", "DPO 0.1", "unlikelihood"}
    assert set(one.figures) == set(one.proxy) == names | {"constraint"}
    assert len({frozenset(figures) for figures in one.figures.values()}) <= 2
    assert one.proxy["nothing"] == 0
    assert one.proxy["best of 4"] > 0  # it chooses by the proxy


def test_a_study_that_chooses_from_none_is_refused() -> None:
    with pytest.raises(ValueError, match="best_of must be >= 1, got 0"):
        remedies.Config(best_of=0)
