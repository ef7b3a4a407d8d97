"""The studies of speed: that they measure what they say, on models small enough for a test."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from companion import studies
from companion.losses.cross_entropy import token_nats
from companion.models.lstm import LSTMConfig
from companion.studies import large_vocabulary, speed_to_quality, step_speed
from companion.text import batching
from companion.training import benchmark
from companion.training.config import TrainConfig

pytestmark = pytest.mark.slow


def test_chunked_and_sampled_losses_save_memory_and_the_chunked_one_trains_the_same() -> None:
    # 64 MB of logits: enough to stand out from a process's own ups and downs.
    config = large_vocabulary.Config(
        model=LSTMConfig(
            vocabulary_size=20_000, embedding_size=16, hidden_size=16, num_layers=2,
            tie_weights=True,
        ),
        training=TrainConfig(steps=1000, num_streams=16, window_length=50, num_samples=100),
        cutoffs=(1000, 5000), turns=1,
    )  # fmt: skip
    with studies.one_thread():
        result = large_vocabulary.run(config, seed=0)
    assert set(result.speed_ratio) == set(large_vocabulary.KINDS)
    assert result.speed_ratio["full"] == result.memory_ratio["full"] == 1
    assert result.memory_ratio["chunked"] < 0.8
    assert result.memory_ratio["sampled"] < 0.5
    assert result.speed_ratio["sampled"] > 1.5

    losses = {}
    for kind in ("full", "chunked"):
        trainer = large_vocabulary.make_trainer(config, kind, 0)
        for _ in range(3):
            trainer.train_step()
        losses[kind] = trainer.training_record()["train_nats_per_token"]
    assert losses["chunked"] == pytest.approx(losses["full"], rel=1e-5)


def test_each_model_is_measured_beside_its_textbook_loop() -> None:
    with studies.one_thread():
        result = step_speed.run(step_speed.Config(seconds=0.1), seed=0)
    names = [case.name for case in benchmark.MODELS]
    for measured in vars(result).values():
        assert list(measured) == names
    for name in names:
        assert 0 < result.ratio_low[name] <= result.ratio[name] <= result.ratio_high[name]
        assert result.products_share[name] > 0
    with pytest.raises(ValueError, match="seconds must be > 0, got 0"):
        step_speed.Config(seconds=0)


def test_both_recipes_are_trained_for_their_budgets_and_scored_on_the_same_words() -> None:
    config = speed_to_quality.Config(
        budgets=(1.0, 3.0), usual_budgets=(2.0,), turn=0.5, corpus="python-docs", valid_tokens=2000
    )
    with studies.one_thread():
        result = speed_to_quality.run(config, seed=0)
    assert result.valid_tokens == 2000
    assert list(result.perplexity) == ["1", "3"]
    assert list(result.usual_perplexity) == ["2"]
    # Steps are planned from a speed measured before: no machine keeps it to the second.
    for budget, used in result.cpu_seconds_used.items():
        assert 0.4 * float(budget) < used < 2.5 * float(budget) + 1
    assert result.perplexity["3"] < result.perplexity["1"] < 5000
    assert result.words_per_cpu_second > result.usual_words_per_cpu_second


@pytest.mark.parametrize(("scale", "clipped"), [(1.0, False), (30.0, True)])
def test_the_usual_recipe_is_plain_sgd_with_clipping(scale: float, clipped: bool) -> None:
    ids = torch.randint(50, (2001,), generator=torch.Generator().manual_seed(0))
    recipe = speed_to_quality.UsualRecipe(ids, 50, seed=0)
    recipe.model.output.weight.data *= scale  # the larger, the longer the gradient
    recipe.model.dropout.p = recipe.model.input_dropout.p = recipe.model.lstm.dropout = 0.0
    before = {name: value.clone() for name, value in recipe.model.state_dict().items()}

    batch = batching.window(batching.streams(ids, 20), 0, 35)
    token_nats(recipe.model(batch.inputs)[0], batch.targets).mean().backward()
    gradients = {
        n: p.grad.clone() for n, p in recipe.model.named_parameters() if p.grad is not None
    }
    norm = float(torch.stack([g.norm() for g in gradients.values()]).norm())
    assert (norm > 0.25) is clipped
    shrink = min(1.0, 0.25 / norm)

    recipe.train_step()
    for name, gradient in gradients.items():
        moved = recipe.model.get_parameter(name) - before[name]
        torch.testing.assert_close(moved, -20 * shrink * gradient, rtol=1e-3, atol=1e-6)
    assert recipe.words == 20 * 35


def test_a_study_is_configured_by_text() -> None:
    config = studies.configured("speed_to_quality", {"budgets": "60, 120", "turn": "2"})
    assert config.budgets == (60, 120)
    assert config.turn == 2
    assert studies.configured("speed_to_quality", {"budgets": "5"}).budgets == (5,)
    assert studies.configured("mismatched_generalization", {"smaller": ""}).smaller == ()
    default = dataclasses.asdict(speed_to_quality.Config())
    assert dataclasses.asdict(studies.configured("speed_to_quality", {})) == default
    with pytest.raises(ValueError, match=r"unknown setting 'steps'\. The settings are budgets, "):
        studies.configured("speed_to_quality", {"steps": "3"})
    with pytest.raises(ValueError, match="turn must be a number, got 'long'"):
        studies.configured("speed_to_quality", {"turn": "long"})
    with pytest.raises(ValueError, match=r"budgets must be .*, each a number, got 'a, b'"):
        studies.configured("speed_to_quality", {"budgets": "a, b"})
    assert studies.configured("speed_to_quality", {"valid_tokens": "50"}).valid_tokens == 50
    assert studies.configured("speed_to_quality", {"valid_tokens": "None"}).valid_tokens is None
    for wrong in ("abc", "5.5", "1,2", "True", "{[]}"):  # its default, None, says nothing of a type
        with pytest.raises(ValueError, match="valid_tokens must be a whole number or none, got '"):
            studies.configured("speed_to_quality", {"valid_tokens": wrong})
    with pytest.raises(ValueError, match="budgets must rise"):
        studies.configured("speed_to_quality", {"budgets": "5, 2"})


def test_the_spread_reaches_into_named_figures() -> None:
    table = studies.spread([{"seed": 0, "a": {"x": 1.0}}, {"seed": 1, "a": {"x": 3.0}}])
    assert table == {"a x": {"mean": 2.0, "min": 1.0, "max": 3.0}}
