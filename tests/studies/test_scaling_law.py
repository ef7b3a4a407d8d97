"""The study `scaling_law`: a tiny grid, its fits, and what the divergence measures."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from companion.core.seeds import make_generator
from companion.evaluation.scaling import ScalingLaw
from companion.models.lstm import LSTMLanguageModel
from companion.sources.reviews import GrammarSource
from companion.sources.streams import true_rows
from companion.studies import scaling_law
from companion.training.config import TrainConfig

CONFIG = scaling_law.Config(
    hidden_sizes=(2, 3, 4, 6), steps=(2, 4, 8, 16), repeated_size=6, epochs=(2,), test_tokens=160,
    training=TrainConfig(steps=1, num_streams=4, window_length=8, learning_rate=2e-2),
)  # fmt: skip


def test_the_divergence_of_uniform_guesses_is_log_v_minus_the_entropy() -> None:
    source = GrammarSource()
    model = LSTMLanguageModel(scaling_law.architecture(source, 4)).eval()
    for parameter in model.output.parameters():
        torch.nn.init.zeros_(parameter)
    rows = true_rows(source, 16, 400, make_generator(0, "test"))
    uniform = torch.tensor(float(source.vocabulary_size)).log() - source.entropy_rate()
    # The entropy differs from prefix to prefix; over 6,400 of them its mean by about .02.
    assert scaling_law.divergence(model, source, rows) == pytest.approx(float(uniform), abs=0.08)


@pytest.mark.slow
def test_a_tiny_run_fills_every_figure_and_json_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def law(*runs: Any, floor: float | None = None, near: ScalingLaw | None = None) -> ScalingLaw:
        """Models of a few steps obey no law: whether a fit to them converges is the rounding's."""
        return TRUE if floor is None else dataclasses.replace(TRUE, floor=floor)

    monkeypatch.setattr(scaling_law, "fit_scaling_law", law)
    result = scaling_law.run(CONFIG, seed=0)
    tokens = [32 * steps for steps in CONFIG.steps]
    assert set(result.loss) == {f"{h} {d}" for h in CONFIG.hidden_sizes for d in tokens}
    assert min(result.loss.values()) > result.floor == pytest.approx(2.178853, abs=1e-6)
    assert set(result.repeated) == {"1", "2"}
    assert result.repeated["1"] == result.loss["6 512"] != result.repeated["2"]
    assert set(result.floors) == {"all", "small"}
    assert result.misfit > 0
    assert set(result.extrapolation) == {"free", "known floor", "no floor"}
    assert result.flops_per_token["6"] == 6 * (4 * 6 * 12 + 6 * 131)
    assert result.parameters["2"] < result.parameters["6"]
    assert json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))


def test_runs_of_takes_the_cells_that_are_asked_for_from_each_result() -> None:
    result = {"parameters": {"4": 10, "8": 20}, "loss": {"4 1": 3.0, "8 1": 2.5, "8 2": 2.4}}
    runs = scaling_law.runs_of([result, result], sizes=(8,), tokens=(1, 2))
    assert runs.parameters == [20, 20, 20, 20]
    assert runs.tokens == [1, 2, 1, 2]
    assert runs.losses == [2.5, 2.4, 2.5, 2.4]


TRUE = ScalingLaw(
    floor=2.1, size_scale=60.0, size_exponent=0.6, data_scale=900.0, data_exponent=0.7
)


def stored(spread: float) -> list[dict[str, Any]]:
    """Three results of a grid of four sizes and lengths, with losses that are no law's."""
    grid = [f"{h} {32 * s}" for h in CONFIG.hidden_sizes for s in CONFIG.steps]
    return [
        {
            "floor": 2.1,
            "parameters": {str(h): 500 * h * h for h in CONFIG.hidden_sizes},
            "loss": {run: 5.0 * math.exp(spread * sign) for run in grid},
        }
        for sign in (-1, 0, 1)
    ]


def test_planted_results_have_the_law_s_losses_and_the_measured_spread() -> None:
    (plain,) = {
        tuple(each["loss"].values()) for each in scaling_law.planted(stored(0.0), TRUE, seed=0)
    }
    results = scaling_law.planted(stored(0.0), TRUE, seed=0)
    expected = [
        float(TRUE.loss(500 * h * h, 32 * s)) for h in CONFIG.hidden_sizes for s in CONFIG.steps
    ]
    assert plain == pytest.approx(expected)
    assert [each["floor"] for each in results] == [2.1, 2.1, 2.1]
    many = [scaling_law.planted(stored(0.05), TRUE, seed=seed) for seed in range(100)]
    logs = np.log([list(each["loss"].values()) for draw in many for each in draw])
    # 300 draws of 16 runs: the standard error of a pooled deviation is about 1 %.
    assert logs.std(axis=0).mean() == pytest.approx(0.05, rel=0.05)
    assert logs.mean(axis=0) == pytest.approx(np.log(expected), abs=0.015)
    assert many[0] != many[1]
    with pytest.raises(ValueError, match="three results or more, got 2"):
        scaling_law.planted(stored(0.1)[:2], TRUE, seed=0)


def test_laws_predict_held_out_runs_of_a_true_law_if_they_know_the_floor_or_find_it() -> None:
    (result, *_) = scaling_law.planted(stored(0.0), TRUE, seed=0)
    for near in (None, TRUE):
        floor, errors = scaling_law.extrapolate(result, CONFIG, near=near)
        assert floor == pytest.approx(2.1, abs=1e-3)
        assert errors["free"] == pytest.approx(0, abs=1e-3)
        assert errors["known floor"] == pytest.approx(0, abs=1e-3)
        assert errors["no floor"] < -0.05  # a sum of powers falls further than it should


def test_the_misfit_is_the_root_mean_square_of_log_differences() -> None:
    runs = scaling_law.Runs(parameters=[1e3, 4e3], tokens=[1e5, 1e5], losses=[0.0, 0.0])
    runs.losses[:] = [
        float(TRUE.loss(n, 1e5)) * factor for n, factor in ((1e3, math.exp(0.03)), (4e3, 1.0))
    ]
    assert scaling_law.misfit(runs, TRUE) == pytest.approx(0.03 / math.sqrt(2))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_sizes": (4, 8)}, "hidden_sizes must be four numbers"),
        ({"steps": (8, 4, 2)}, "steps must be four numbers >= 1 or more, rising"),
        ({"small_sizes": 4}, r"small_sizes must be in \[3, 4\)"),
        ({"small_steps": 2}, r"small_steps must be in \[3, 4\)"),
        ({"repeated_size": 5}, "repeated_size must be one of hidden_sizes"),
        ({"epochs": (3,)}, "divide the longest run's 16 steps"),
        ({"epochs": (1,)}, "each of epochs must be >= 2"),
        ({"test_tokens": 3}, "test_tokens must be >= 16"),
    ],
)
def test_wrong_settings_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **changes)
