"""As many steps are planned as fit into the time, so that the schedule ends with it."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path

import pytest
import torch

from companion.cli.runs import _seconds
from companion.core.files import save_tensors
from companion.core.seeds import seed_everything
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.runs import pipeline
from companion.runs.presets import get_preset, override
from companion.text.corpora import load_corpus
from companion.training import checkpoints
from companion.training.budget import MARGIN, Pace, measure_pace
from companion.training.config import TrainConfig
from companion.training.optimization import learning_rate_at
from companion.training.trainer import Trainer, TrainingError

PACE = Pace(
    seconds_per_step=0.1, seconds_per_validation=2.0, seconds_per_save=3.0, steps_per_epoch=50,
    targets_per_second=1000.0, finite=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "every", "saved"),
    [
        ({}, 50, 50),
        ({"evaluate_epochs": 4.0}, 200, 200),
        ({"evaluate_every": 10}, 10, 10),
        ({"evaluate_every": 100, "checkpoint_every": 25}, 100, 25),
        ({"evaluate_every": 25, "checkpoint_every": 100}, 25, 25),
        ({"evaluate_epochs": 0.501}, 25, 25),
    ],
)
def test_steps_validations_and_checkpoints_fill_the_time_and_no_more(
    fields: dict[str, float], every: int, saved: int
) -> None:
    config = TrainConfig(epochs=1, **fields)
    steps = PACE.steps_within(100.0, config)
    needed = [
        n * 0.1 + (n // every + 1) * 2.0 + (n // saved + 1) * 3.0 for n in (steps, steps + every)
    ]
    assert needed[0] <= 100 * (1 - MARGIN) < needed[1]


def test_a_time_too_short_for_one_step_is_refused_with_what_it_takes() -> None:
    with pytest.raises(ValueError, match=r"2 seconds are left is too short.*end, take 5\.1"):
        PACE.steps_within(2.0, TrainConfig(epochs=1))


def probe(*, folder: Path | None = None, **fields: float) -> Pace:
    spoilt = fields.pop("spoilt", False)
    ids = torch.randint(9, (2001,), generator=torch.Generator().manual_seed(0))
    seed_everything(0)
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=9, embedding_size=4, hidden_size=8))
    if spoilt:
        model.output.bias.data[0] = math.nan
    settings = TrainConfig(epochs=3, num_streams=4, window_length=10, **fields)
    return measure_pace(
        model, ids, settings, valid_ids=ids[:401], device="cpu", seconds=1.0, folder=folder
    )


def test_a_pace_is_measured_on_the_training_itself() -> None:
    pace = probe()
    assert pace.finite
    assert pace.steps_per_epoch == 50
    assert pace.targets_per_second == pytest.approx(40 / pace.seconds_per_step)
    assert pace.seconds_per_validation > 0
    assert pace.seconds_per_save == 0


def test_a_probe_trains_at_the_full_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    rates, step = [], Trainer.train_step

    def watched(self: Trainer) -> None:
        step(self)
        rates.extend(group["lr"] for group in self.optimizer.param_groups)

    monkeypatch.setattr(Trainer, "train_step", watched)
    probe(learning_rate=0.5, warmup=0.3)
    # A cosine over a thousand million steps has not fallen by more than rounding.
    assert rates == pytest.approx([0.5] * len(rates))
    assert len(rates) > 6


def test_weights_that_a_probes_last_step_broke_are_not_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def diverged(self: Trainer) -> None:
        raise TrainingError("training diverged at step 5, as its validation shows")

    monkeypatch.setattr(Trainer, "validate", diverged)
    assert not probe().finite


def save_slowly(tensors: dict[str, torch.Tensor], path: Path) -> None:
    time.sleep(0.2)
    save_tensors(tensors, path)


def test_a_checkpoint_is_timed_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "save_tensors", save_slowly)
    pace = probe(folder=tmp_path / "none" / "yet")
    assert pace.seconds_per_save >= 2 * 0.2  # weights, and all else
    assert list(tmp_path.iterdir()) == []


def test_a_pace_says_when_losses_are_no_numbers() -> None:
    pace = probe(spoilt=True, log_every=1)
    assert not pace.finite
    assert pace.seconds_per_validation == 0


def test_a_run_within_a_budget_is_planned_by_its_pace_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = dataclasses.replace(
        PACE, seconds_per_step=100.0, seconds_per_validation=60.0, seconds_per_save=40.0
    )
    folders = []

    def measured(*parts: object, folder: Path, **named: object) -> Pace:
        folders.append(folder)
        return planned

    monkeypatch.setattr(pipeline, "measure_pace", measured)
    text = tmp_path / "rhyme.txt"
    text.write_text("".join(f"{i % 7} green bottles on the {i % 3} walls\n" for i in range(400)))
    preset = override(get_preset("char-small"), {"model.hidden_size": "8"})
    said: list[str] = []
    result = pipeline.train_run(
        load_corpus(str(text)), preset, tmp_path / "run", budget=2000.0, device="cpu",
        on_stage=said.append,
    )  # fmt: skip
    assert folders == [tmp_path]
    # Of 1900 seconds, 100 for the last validation and checkpoint; a minute before the probe changes
    # nothing.
    assert result.steps == result.total_steps == 17
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["train"]["steps"] == result.steps
    assert record["train"]["epochs"] is None
    assert record["budget"] == {"seconds": 2000.0, **dataclasses.asdict(planned)}
    assert any(f"{result.steps} steps, " in line for line in said)
    last = learning_rate_at(result.steps - 1, result.steps, preset.train)
    assert result.history[-1]["learning_rate"] == last == 0.01 * preset.train.learning_rate


@pytest.mark.parametrize(
    ("text", "seconds"), [("480s", 480), ("8m", 480), ("1.5h", 5400), ("90", 90)]
)
def test_a_time_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["soon", "", "m", "8 minutes"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--budget must be a time such as 480s, 8m or 1.5h"):
        _seconds(text)


@pytest.mark.parametrize("budget", [0.0, -1.0, math.inf, math.nan])
def test_a_budget_that_is_no_time_is_refused(budget: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="budget must be > 0 seconds and finite"):
        pipeline.train_run(
            load_corpus("python-docs"), get_preset("small"), tmp_path / "run", budget=budget
        )
