"""Tuning against repetition: greedy text that may not end, and what the loss pushes down."""

from __future__ import annotations

import copy

import pytest
import torch

from companion.core.seeds import make_generator, seed_everything
from companion.generation.texts import endless, greedy_text
from companion.losses.unlikelihood import repeated_ngram_mask
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.reviews import GrammarSource
from companion.sources.streams import beginnings
from companion.training.unlikelihood import (
    KINDS,
    UnlikelihoodConfig,
    own_unlikelihood,
    tune_against_repetition,
)


@pytest.fixture(scope="module")
def source() -> GrammarSource:
    return GrammarSource()


def tiny(source: GrammarSource, seed: int = 0) -> LSTMLanguageModel:
    seed_everything(seed)
    size = source.vocabulary_size
    return LSTMLanguageModel(
        LSTMConfig(vocabulary_size=size, embedding_size=8, hidden_size=16)
    ).eval()


def test_beginnings_are_of_texts_that_go_on(source: GrammarSource) -> None:
    prompts = beginnings(source, 50, 6, generator=make_generator(0))
    assert prompts.shape == (50, 6)
    assert not bool((prompts == 0).any())
    assert all(source.is_legal(row) for row in prompts)


def test_greedy_text_never_ends_and_is_the_likeliest_of_what_is_left(source: GrammarSource) -> None:
    model = tiny(source)
    with torch.no_grad():
        model.output.bias[0] = 50.0  # type: ignore[operator]  # it would end at once
    prompts = beginnings(source, 3, 4, generator=make_generator(0))
    text = greedy_text(model, prompts, 12)
    assert text.shape == (3, 12)
    assert not bool((text == 0).any())
    start = torch.zeros(3, 1, dtype=torch.long)
    with torch.no_grad():
        logits, _ = model(torch.cat([start, prompts, text[:, :-1]], dim=1))
    expected = logits[:, 4:, 1:].argmax(dim=-1) + 1
    assert torch.equal(text, expected)
    assert endless(5).allowed(torch.zeros(1, dtype=torch.long)).tolist() == [
        [False, True, True, True, True]
    ]


def test_only_repeated_tokens_are_pushed_down(source: GrammarSource) -> None:
    model = tiny(source, seed=1)
    prompts = beginnings(source, 2, 4, generator=make_generator(1))
    varied = torch.arange(20, 32).repeat(2, 1)
    assert float(own_unlikelihood(model, prompts, varied).detach()) == 0
    looping = torch.tensor([[7, 8, 9, 10] * 3, list(range(20, 32))])
    found = float(own_unlikelihood(model, prompts, looping).detach())
    start = torch.zeros(2, 1, dtype=torch.long)
    with torch.no_grad():
        logits, _ = model(torch.cat([start, prompts, looping[:, :-1]], dim=1))
    p = torch.softmax(logits[:, 4:], dim=-1).gather(-1, looping[..., None]).squeeze(-1)
    mask = repeated_ngram_mask(looping, 4)
    assert mask[0].sum() == 8
    assert found == pytest.approx(float((-torch.log1p(-p) * mask).mean()), abs=1e-6)


def test_steps_of_sequence_unlikelihood_lower_the_loops_probability(source: GrammarSource) -> None:
    before = tiny(source, seed=2)
    with torch.no_grad():
        before.output.bias[7] = 6.0  # type: ignore[operator]  # it says one word for ever
    prompts = beginnings(source, 4, 8, generator=make_generator(2))
    loop = greedy_text(before, prompts, 16)
    assert bool((loop == 7).all())
    config = UnlikelihoodConfig(
        steps=4, learning_rate=3e-3, weight=10.0, batch_size=2, greedy_rows=4, greedy_tokens=16
    )
    losses = {}
    for kind in ("likelihood", "sequence"):
        model = copy.deepcopy(before)
        tune_against_repetition(model, source, kind, config, generator=make_generator(3))
        losses[kind] = float(own_unlikelihood(model, prompts, loop).detach())
        assert not model.training
    assert losses["sequence"] < losses["likelihood"] - 0.01, losses


def test_every_kind_changes_the_model_in_its_own_way(source: GrammarSource) -> None:
    config = UnlikelihoodConfig(steps=2, batch_size=2, greedy_rows=2, greedy_tokens=8)
    weights = []
    for kind in KINDS:
        model = tiny(source, seed=4)
        tune_against_repetition(model, source, kind, config, generator=make_generator(5))
        weights.append(model.embedding.weight.detach())
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(weights[one], weights[other])


def test_wrong_settings_are_named(source: GrammarSource) -> None:
    with pytest.raises(
        ValueError, match="kind must be one of likelihood, token, sequence, got 'x'"
    ):
        tune_against_repetition(
            tiny(source), source, "x", UnlikelihoodConfig(), generator=make_generator(0)
        )
    with pytest.raises(ValueError, match="greedy_tokens must be >= 1, got 0"):
        UnlikelihoodConfig(greedy_tokens=0)
    with pytest.raises(ValueError, match="learning_rate must be > 0 and weight >= 0, got 0 and 1"):
        UnlikelihoodConfig(learning_rate=0)
