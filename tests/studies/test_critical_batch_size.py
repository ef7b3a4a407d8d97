"""The study `critical_batch_size`: a tiny run, its noise scale, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from companion.core.seeds import make_generator
from companion.evaluation.batch_size import BatchSizeLaw
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.reviews import GrammarSource
from companion.sources.streams import endless_text
from companion.studies import critical_batch_size as study

#: A target that a model of 8 units reaches in some tens of steps.
CONFIG = study.Config(
    hidden_size=8, window_length=8, batch_sizes=(4, 16, 64), learning_rates=(0.02, 0.04, 0.08),
    factors=(2.0,), untuned=(16, 64), target=1.4, noise_at=(1.8, 1.4), noise_windows=64,
    test_tokens=320, train_tokens=60_000,
)  # fmt: skip


@pytest.mark.slow
def test_a_tiny_run_fills_every_figure_and_json_holds_it() -> None:
    result = study.run(CONFIG, seed=0)
    assert set(result.steps) == {"4", "16", "64"}
    assert result.windows == {size: int(size) * steps for size, steps in result.steps.items()}
    assert result.steps["4"] > result.steps["64"] > 0
    for size, by_factor in result.steps_by_factor.items():
        assert set(by_factor) == {"1", "2"}
        assert by_factor["1"] == result.steps[size]
    assert result.steps_untuned["64"] > result.steps["64"]  # a quarter of the rate is slower
    assert result.critical == pytest.approx(result.least_windows / result.least_steps)
    assert min(result.critical_best, result.critical_untuned) > 0
    law = BatchSizeLaw(least_steps=result.least_steps, critical=result.critical)
    found = study.misfit(law, CONFIG.batch_sizes, list(result.steps.values()))
    assert found == pytest.approx(result.misfit)
    assert set(result.noise_scale) == {"1.8", "1.4"}
    assert json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))


def training(config: study.Config = CONFIG) -> study.Training:
    source = GrammarSource()
    text = endless_text(source, config.train_tokens, generator=make_generator(0, "training text"))
    return study.Training(source, config, text, 0)


def test_a_text_that_ends_before_the_target_is_refused() -> None:
    short = dataclasses.replace(CONFIG, train_tokens=400)
    with pytest.raises(ValueError, match="after all of 400 train_tokens"):
        training(short).to_target(16, 0.04)


def test_noise_of_a_new_model_is_small_beside_its_gradient() -> None:
    """All windows of an untrained model want the same thing first: frequent tokens."""
    some = training()
    torch.manual_seed(0)
    size = some.source.vocabulary_size
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=size, embedding_size=8, hidden_size=8))
    assert some.noise_scale(model) < 16


def test_the_step_of_the_target_is_interpolated() -> None:
    assert study.crossing((10, 0.5), (14, 0.3), 0.4) == 12
    assert study.crossing((10, 0.5), (14, 0.3), 0.3) == 14


def test_the_misfit_is_the_larger_of_both_ratios() -> None:
    law = BatchSizeLaw(least_steps=10.0, critical=4.0)  # 20 steps at 4, 12.5 at 16
    assert study.misfit(law, (4, 16), (25.0, 12.5)) == pytest.approx(0.25)
    assert study.misfit(law, (4, 16), (20.0, 10.0)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_sizes": (4, 16), "learning_rates": (0.1, 0.1)}, "three numbers or more"),
        ({"learning_rates": (0.1,)}, "one for each of the 3"),
        ({"untuned": (4,)}, "sizes above the smallest"),
        ({"noise_at": (1.4, 1.8)}, "falling"),
        ({"target": 1.5}, "at most the last of noise_at"),
        ({"noise_windows": 40}, "multiple of 16"),
        ({"test_tokens": 8}, "test_tokens must be >= 16"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(CONFIG, **changes)
