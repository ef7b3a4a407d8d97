"""The continuous cache against its definition, token by token, and that nothing leaks into it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from companion.evaluation import continuous_cache
from companion.evaluation.continuous_cache import (
    ContinuousCacheConfig,
    choose_cache,
    score_with_cache,
)
from companion.evaluation.dynamic import (
    DynamicConfig,
    choose_dynamic,
    score_dynamically,
)
from companion.evaluation.scoring import score
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.models.ngram import NGramModel
from companion.models.transformer import TransformerModel

VOCABULARY = 9
# float32 probabilities, summed in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def make_model(**changes: object) -> LSTMLanguageModel:
    torch.manual_seed(1)
    sizes = {"vocabulary_size": VOCABULARY, "embedding_size": 6, "hidden_size": 8} | changes
    model = LSTMLanguageModel(LSTMConfig(**sizes)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=1.0)
    return model


def random_text(length: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (length,))


def by_definition(
    model: LSTMLanguageModel, ids: torch.Tensor, config: ContinuousCacheConfig
) -> np.ndarray:
    """Distributions, (targets, V): Grave et al.'s equations in plain loops and float64."""
    with torch.no_grad():
        features, _ = model.features(ids[None, :-1])
        own = model.logits(features)[0].double().softmax(-1).numpy()
    states = features[0].double().numpy()
    out = []
    for t in range(len(ids) - 1):
        entries = range(max(0, t - config.size), t)
        recalled = np.zeros(VOCABULARY)
        for i in entries:
            recalled[int(ids[i + 1])] += math.exp(config.sharpness * states[t] @ states[i])
        weight = config.weight if len(entries) else 0.0
        share = recalled / recalled.sum() if len(entries) else recalled
        out.append((1 - weight) * own[t] + weight * share)
    return np.array(out)


@pytest.mark.parametrize("size", [1, 5, 100])
@pytest.mark.parametrize("window_length", [1, 7, 128])
def test_the_cache_is_its_definition(size: int, window_length: int) -> None:
    model, ids = make_model(), random_text(50)
    config = ContinuousCacheConfig(size=size, weight=0.3, sharpness=0.7)
    probs = by_definition(model, ids, config)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-12)
    scores = score_with_cache(model, ids, config, window_length=window_length)
    wanted = -np.log(probs[np.arange(len(ids) - 1), ids[1:]])
    np.testing.assert_allclose(scores.nats, wanted, **CLOSE)
    np.testing.assert_allclose(scores.confidences, probs.max(axis=1), **CLOSE)
    assert scores.predictions.tolist() == probs.argmax(axis=1).tolist()
    assert torch.equal(scores.targets, ids[1:])


def test_the_distribution_sums_to_one_whatever_the_target() -> None:
    """Over all possible last tokens: none of their probabilities depends on which one came."""
    model, ids = make_model(), random_text(30)
    config = ContinuousCacheConfig(size=20, weight=0.5, sharpness=1.0)
    total = 0.0
    for token in range(VOCABULARY):
        changed = torch.cat([ids[:-1], torch.tensor([token])])
        total += float(score_with_cache(model, changed, config).nats[-1].double().neg().exp())
    assert total == pytest.approx(1, abs=1e-5)  # nine float32 probabilities


@pytest.mark.parametrize("place", [1, 12, 28])
def test_no_probability_depends_on_its_own_target_or_on_later_tokens(place: int) -> None:
    model, ids = make_model(), random_text(30)
    config = ContinuousCacheConfig(size=9, weight=0.4, sharpness=1.0)
    before = score_with_cache(model, ids, config, window_length=10)
    changed = ids.clone()
    changed[place:] = (changed[place:] + 1 + torch.arange(30 - place)) % VOCABULARY
    after = score_with_cache(model, changed, config, window_length=10)
    # Targets are ids[1:]: those before `place` are predicted alike, to the bit.
    assert torch.equal(before.nats[: place - 1], after.nats[: place - 1])
    # And the prediction of the token at `place` is the same whatever it is.
    assert torch.equal(before.confidences[:place], after.confidences[:place])
    assert torch.equal(before.predictions[:place], after.predictions[:place])
    assert not torch.equal(before.nats[place:], after.nats[place:])


@pytest.mark.parametrize("num_streams", [1, 4])
@pytest.mark.parametrize("cutoffs", [(), (3, 6)])
def test_weight_zero_is_the_plain_model(num_streams: int, cutoffs: tuple[int, ...]) -> None:
    model, ids = make_model(adaptive_cutoffs=cutoffs, hidden_size=16), random_text(60)
    plain = score(model, ids, num_streams=num_streams)
    cached = score_with_cache(
        model, ids, ContinuousCacheConfig(weight=0.0), num_streams=num_streams
    )
    # Through a probability and back: float32 loses a digit where it is small.
    torch.testing.assert_close(cached.nats, plain.nats, rtol=1e-4, atol=1e-4)
    assert torch.equal(cached.predictions, plain.predictions)


def test_each_stream_has_a_cache_of_its_own() -> None:
    model, ids = make_model(), random_text(31)
    config = ContinuousCacheConfig(size=8, weight=0.4, sharpness=1.0)
    together = score_with_cache(model, ids, config, num_streams=3)
    apart = [score_with_cache(model, ids[s : s + 11], config).nats for s in (0, 10, 20)]
    torch.testing.assert_close(together.nats, torch.cat(apart), **CLOSE)


def test_a_text_that_repeats_itself_is_recalled() -> None:
    model = make_model()
    ids = random_text(25).repeat(8)
    plain = score(model, ids, num_streams=1).nats
    cached = score_with_cache(model, ids, ContinuousCacheConfig(weight=0.5, sharpness=3.0)).nats
    assert float(cached[:25].mean()) > float(plain[:25].mean()) - 0.3  # nothing to recall yet
    assert float(cached[50:].mean()) < float(plain[50:].mean()) - 0.5


def test_the_chosen_settings_are_the_best_of_the_grid() -> None:
    model = make_model()
    ids = torch.cat([random_text(40).repeat(3), random_text(80)])
    grid = {"weights": (0.0, 0.1, 0.4), "sharpnesses": (0.1, 1.0, 5.0)}
    chosen = choose_cache(model, ids, size=60, window_length=50, **grid)
    losses = {}
    for weight in grid["weights"]:
        for sharpness in grid["sharpnesses"]:
            config = ContinuousCacheConfig(size=60, weight=weight, sharpness=sharpness)
            losses[config] = float(score_with_cache(model, ids, config).nats.sum())
    assert chosen == min(losses, key=losses.__getitem__)
    assert chosen.weight > 0
    for parameter in model.parameters():
        nn.init.zeros_(parameter)  # a uniform model, of uniform noise
    assert choose_cache(model, random_text(400), size=60, weights=(0.0, 0.5)).weight == 0


def test_an_entry_costs_no_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large vocabulary no more logits are held than MOST_LOGITS, whatever the cache's size."""
    vocabulary = 50_000
    model = LSTMLanguageModel(
        LSTMConfig(vocabulary_size=vocabulary, embedding_size=4, hidden_size=4)
    ).eval()
    monkeypatch.setattr(continuous_cache, "MOST_LOGITS", 10 * vocabulary)
    held, logits = [], model.logits
    monkeypatch.setattr(
        model, "logits", lambda features: held.append(features.shape[1]) or logits(features)
    )
    ids = torch.randint(vocabulary, (300,))
    scores = score_with_cache(model, ids, ContinuousCacheConfig(size=200))
    assert max(held) == 10
    assert sum(held) == scores.nats.numel() == 299


def test_the_model_is_left_as_it_was() -> None:
    model, ids = make_model(dropout=0.5), random_text(30)
    model.train()
    first = score_with_cache(model, ids, ContinuousCacheConfig())
    assert model.training
    assert torch.equal(
        first.nats, score_with_cache(model.eval(), ids, ContinuousCacheConfig()).nats
    )
    assert not model.training


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "size must be >= 1, got 0"),
        ({"weight": 1.0}, r"weight must be in \[0, 1\), got 1.0"),
        ({"sharpness": -1.0}, "sharpness must be >= 0 and finite, got -1.0"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContinuousCacheConfig(**wrong)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_losses() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    model, ids = make_model(), random_text(200)
    config = ContinuousCacheConfig(size=50, weight=0.3)
    here = score_with_cache(model, ids, config).nats
    there = score_with_cache(model.cuda(), ids, config).nats
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)  # TF32 may be on


def test_a_text_that_a_model_cannot_read_in_one_stream_is_refused_with_what_is_needed():
    model = TransformerModel(vocabulary_size=9, width=8, max_length=16)
    ids = torch.arange(40) % 9
    words = "read in one stream, and TransformerModel reads at most 16 .* got 39; give a shorter"
    for choose in (choose_cache, choose_dynamic):
        with pytest.raises(ValueError, match=words):
            choose(model, ids)
    with pytest.raises(ValueError, match=words):
        score_dynamically(model, ids, DynamicConfig())
    assert choose_cache(model, ids[:17]).size == 2000


def test_a_model_without_hidden_states_is_refused():
    ids = torch.tensor([0, 1, 2, 1, 0, 2, 1, 2, 0, 1])
    counts = NGramModel.fit(ids, order=2, vocabulary_size=3)
    words = "compares hidden states, and the features of this NGramModel are whole numbers"
    with pytest.raises(ValueError, match=words):
        score_with_cache(counts, ids, ContinuousCacheConfig())
    with pytest.raises(ValueError, match=words):
        choose_cache(counts, ids)
