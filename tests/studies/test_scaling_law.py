"""The study `scaling_law`: a tiny grid, its fits, and what the divergence measures."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from companion.core.seeds import make_generator
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
def test_a_tiny_run_fills_every_figure_and_json_holds_it() -> None:
    result = scaling_law.run(CONFIG, seed=0)
    tokens = [32 * steps for steps in CONFIG.steps]
    assert set(result.loss) == {f"{h} {d}" for h in CONFIG.hidden_sizes for d in tokens}
    assert min(result.loss.values()) > result.floor == pytest.approx(2.178853, abs=1e-6)
    assert set(result.repeated) == {"1", "2"}
    assert result.repeated["1"] == result.loss["6 512"] != result.repeated["2"]
    assert set(result.floors) == {"all", "longer", "small"}
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
