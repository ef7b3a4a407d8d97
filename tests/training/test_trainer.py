"""The loop: what it computes, and that stopping and going on changes nothing."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import re
import signal
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from annotation_checker import unchecked
from at_step import after_step, ctrl_c, killed
from tqdm import tqdm

from companion.core.files import FileError
from companion.core.seeds import seed_everything
from companion.losses import training_loss
from companion.losses.cross_entropy import summed_nats, token_nats
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.models.ngram import NGramModel
from companion.models.recurrent import RecurrentModel
from companion.models.transformer import TransformerModel
from companion.text import batching
from companion.training import trainer as trainer_module
from companion.training.checkpoints import RunFolder
from companion.training.config import TrainConfig
from companion.training.optimization import learning_rate_at, make_optimizer
from companion.training.trainer import Trainer, TrainingError, train

VOCABULARY = 8


def text(length: int = 1201) -> torch.Tensor:
    """A periodic text with noise: learnable, and not at once."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(VOCABULARY, (length,), generator=generator)
    periodic = torch.arange(length) % 5
    return torch.where(torch.rand(length, generator=generator) < 0.2, noise, periodic)


def model(**changes: Any) -> LSTMLanguageModel:
    seed_everything(0)
    fields: dict[str, Any] = {"embedding_size": 8, "hidden_size": 16, "dropout": 0.1, **changes}
    return LSTMLanguageModel(LSTMConfig(vocabulary_size=VOCABULARY, **fields))


def config(**changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "steps": 40, "num_streams": 4, "window_length": 10, "learning_rate": 1e-2, "log_every": 5,
    }  # fmt: skip
    return TrainConfig(**{**fields, **changes})


def losses(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What must repeat to the last bit; seconds do not."""
    names = (
        "step", "epoch", "learning_rate", "train_nats_per_token", "gradient_norm",
        "valid_nats_per_token",
    )  # fmt: skip
    return [tuple(record.get(name) for name in names) for record in records]


def test_the_loop_computes_what_the_formulas_say() -> None:
    """Two steps by hand, with carried state, clipping and the schedule, give the same weights."""
    trained, reference = model(dropout=0.0), model(dropout=0.0)
    settings = config(steps=2, clip_norm=0.05)
    train(trained, text(), settings, device="cpu")

    optimizer = torch.optim.AdamW(reference.parameters(), betas=settings.betas, weight_decay=0.0)
    data = batching.streams(text(), 4)
    state = None
    for step in range(2):
        optimizer.param_groups[0]["lr"] = learning_rate_at(step, 2, settings)
        batch = batching.window(data, step, 10)
        logits, state = reference(batch.inputs, state)
        state = (state[0].detach(), state[1].detach())
        optimizer.zero_grad()
        (summed_nats(logits, batch.targets) / batch.targets.numel()).backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.05)
        assert norm > 0.05  # or this would not test clipping
        optimizer.step()
    for name, parameter in trained.named_parameters():
        # The fused optimizer adds in another order: float32 rounding, and nothing more.
        torch.testing.assert_close(parameter, reference.get_parameter(name), rtol=1e-5, atol=1e-6)


def by_hand(
    reference: LSTMLanguageModel, settings: TrainConfig, ids: torch.Tensor
) -> list[dict[str, float]]:
    """The records of a training without dropout, window by window as the formulas say."""
    optimizer = torch.optim.AdamW(reference.parameters(), betas=settings.betas, weight_decay=0.0)
    data = batching.streams(ids, settings.num_streams)
    windows, steps = list(batching.windows(data, settings.window_length)), settings.steps or 0
    records, state = [], None
    for step in range(steps):
        if step % len(windows) == 0:
            state = None  # the streams start over
        rate = optimizer.param_groups[0]["lr"] = learning_rate_at(step, steps, settings)
        batch = windows[step % len(windows)]
        logits, state = reference(batch.inputs, state)
        state = (state[0].detach(), state[1].detach())
        nats = summed_nats(logits, batch.targets)
        optimizer.zero_grad()
        (nats / (settings.num_streams * settings.window_length)).backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), settings.clip_norm)
        optimizer.step()
        records.append(
            {
                "learning_rate": rate,
                "train_nats_per_token": float(nats.detach()) / batch.targets.numel(),
                "gradient_norm": float(norm),
            }
        )
    return records


@pytest.mark.parametrize("warmup", [0.0, 0.75])
def test_over_two_epochs_the_loop_computes_what_the_formulas_say(warmup: float) -> None:
    """Windows of 10, 10 and 3 tokens: a short one's loss is divided by the size of a full one, an
    epoch begins with an empty state, and the learning rate warms up."""
    ids = text(4 * 23 + 1)
    settings = config(steps=8, log_every=1, clip_norm=1e9, warmup=warmup)
    trained, reference = (model(dropout=0.0, hidden_size=8) for _ in range(2))
    for one in (trained, reference):  # weights so large that what a state holds matters
        for weight in one.parameters():
            weight.data *= 3
    result = train(trained, ids, settings, device="cpu")
    expected = by_hand(reference, settings, ids)
    for record, figures in zip(result.history, expected, strict=True):
        # The fused optimizer adds in another order: float32 rounding, and nothing more.
        assert record == pytest.approx({**record, **figures}, rel=1e-3), record["step"]


def test_one_small_text_is_learnt_by_heart() -> None:
    fits = model(dropout=0.0, hidden_size=32)
    ids = torch.randint(VOCABULARY, (65,), generator=torch.Generator().manual_seed(0))
    result = train(
        fits,
        ids,
        config(steps=250, num_streams=1, window_length=64, learning_rate=2e-2),
        device="cpu",
    )
    # ln 8 = 2.08 at the start; random text has no structure, so only memory brings it down.
    assert result.history[-1]["train_nats_per_token"] < 0.05


def test_the_first_loss_is_that_of_a_uniform_guess() -> None:
    result = train(model(), text(), config(steps=1), device="cpu")
    # Output weights are within 1/sqrt(H) = .25, states below one: logits stay near zero.
    assert result.history[0]["train_nats_per_token"] == pytest.approx(
        math.log(VOCABULARY), abs=0.15
    )


def test_accumulated_windows_make_one_step_with_the_mean_gradient() -> None:
    """Two windows of 10 equal one step on their 20 tokens, gradients cut between them."""
    accumulated, reference = model(dropout=0.0), model(dropout=0.0)
    settings = config(steps=1, accumulation=2, clip_norm=1e9)
    train(accumulated, text(), settings, device="cpu")

    data = batching.streams(text(), 4)
    state = None
    for index in range(2):
        batch = batching.window(data, index, 10)
        logits, state = reference(batch.inputs, state)
        state = (state[0].detach(), state[1].detach())
        (summed_nats(logits, batch.targets) / 80).backward()
    optimizer = torch.optim.AdamW(reference.parameters(), betas=settings.betas, weight_decay=0.0)
    optimizer.param_groups[0]["lr"] = learning_rate_at(0, 1, settings)
    optimizer.step()
    for name, parameter in accumulated.named_parameters():
        torch.testing.assert_close(parameter, reference.get_parameter(name), rtol=1e-5, atol=1e-6)


def test_every_token_of_an_epoch_is_a_target_once() -> None:
    ids = text(1201)
    trainer = Trainer(model(), ids, config(epochs=1, steps=None, window_length=7), device="cpu")
    result = trainer.fit()
    counted = sum(
        batching.window(trainer.data, index, 7).targets.numel()
        for index in range(trainer.num_windows)
    )
    assert result.steps == result.total_steps == math.ceil(300 / 7)
    assert counted == 1200


def test_carried_state_helps_where_the_clue_is_a_window_away() -> None:
    """The clue lies two tokens back; a window of 1 sees no more than the last one."""
    generator = torch.Generator().manual_seed(3)
    pairs = torch.randint(2, (400,), generator=generator)
    ids = torch.stack(
        [pairs, torch.full_like(pairs, 2), pairs, torch.full_like(pairs, 3)], dim=1
    ).flatten()
    # After the mark 2 comes the symbol from two tokens ago: ln 2 nats without memory, 0 with it.
    nats = {}
    for carry in (True, False):
        settings = config(
            epochs=2, steps=None, window_length=1, num_streams=16, carry_state=carry, log_every=100,
            learning_rate=3e-2,
        )  # fmt: skip
        result = train(model(dropout=0.0), ids, settings, valid_ids=ids, device="cpu")
        nats[carry] = result.best_nats_per_token
    # Without carried state, training never sees the clue. Evaluation carries it in both cases.
    assert nats[True] < nats[False] - 0.05


def test_the_learning_rate_rises_and_falls() -> None:
    settings = config(steps=100, learning_rate=1.0, warmup=0.1, final_learning_rate=0.05)
    rates = [learning_rate_at(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[10] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.05)
    assert all(later <= earlier for earlier, later in pairwise(rates[9:]))


def test_weight_decay_spares_biases() -> None:
    decayed, spared = make_optimizer(model(), config(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1
    assert all(parameter.ndim == 2 for parameter in decayed["params"])
    assert spared["weight_decay"] == 0.0
    assert all(parameter.ndim == 1 for parameter in spared["params"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 1.0}, "either epochs or steps"),
        ({"steps": None}, "either epochs or steps"),
        ({"steps": 0}, "steps must be > 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be > 0"),
        ({"warmup": 1.5}, "warmup must be in"),
        ({"betas": (0.9, 1.0)}, "betas must be in"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
        ({"weight_decay": float("nan")}, "weight_decay must be >= 0"),
        ({"learning_rate": float("inf")}, "learning_rate must be finite"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"num_streams": -3}, "num_streams must be > 0, got -3"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], words: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=words):
        config(**changes)


def test_a_text_shorter_than_one_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="too few for 4 streams"):
        train(model(), text(4), config(), device="cpu")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run that never stops: its records and its last weights."""
    run = RunFolder.create(tmp_path_factory.mktemp("whole") / "run", {})
    whole = model()
    result = train(whole, text(), resumable(), valid_ids=text(301), run=run, device="cpu")
    return {"records": losses(result.history), "weights": whole.state_dict()}


def resumable() -> TrainConfig:
    return config(steps=70, evaluate_every=30, checkpoint_every=4)  # an epoch is 30 steps


@pytest.mark.parametrize("stop", [4, 16, 30, 52])
def test_a_killed_run_resumes_to_identical_losses(
    stop: int, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    """Killed two steps after a checkpoint: in an epoch's start, middle, at a validation."""
    run = RunFolder.create(tmp_path / "run", {})
    with after_step(stop + 2, killed), pytest.raises(SystemExit):
        train(model(), text(), resumable(), valid_ids=text(301), run=run, device="cpu")

    seed_everything(99)  # another process starts with other random numbers
    resumed = LSTMLanguageModel(model().config)
    result = train(
        resumed, text(), resumable(), valid_ids=text(301), run=run, resume=True, device="cpu"
    )
    assert losses(result.history) == uninterrupted["records"]
    assert losses(run.metrics()) == uninterrupted["records"]
    for name, value in resumed.state_dict().items():
        torch.testing.assert_close(value, uninterrupted["weights"][name], rtol=0, atol=0)


def test_ctrl_c_saves_and_the_run_goes_on_as_if_nothing_had_happened(
    uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    with after_step(17, ctrl_c):  # between two records: the half-summed loss must survive
        result = train(model(), text(), resumable(), valid_ids=text(301), run=run, device="cpu")
    assert (result.stopped, result.steps) == ("interrupted", 17)

    result = train(
        model(), text(), resumable(), valid_ids=text(301), run=run, resume=True, device="cpu"
    )
    assert (result.stopped, result.steps) == ("finished", 70)
    assert losses(result.history) == uninterrupted["records"]


@pytest.mark.parametrize("at", [2, 5])
def test_without_a_run_ctrl_c_is_no_finished_training(at: int) -> None:
    """Nothing is saved to go on from: a study must not take the half-trained model for its own."""
    with after_step(at, ctrl_c), pytest.raises(KeyboardInterrupt):
        train(model(), text(), config(steps=5), device="cpu")


def test_ctrl_c_in_the_last_step_comes_too_late_to_interrupt(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    with after_step(5, ctrl_c):
        result = train(model(), text(), config(steps=5), run=run, device="cpu")
    assert (result.stopped, result.steps) == ("finished", 5)


def test_ctrl_c_works_again_after_training() -> None:
    before = signal.getsignal(signal.SIGINT)
    train(model(), text(), config(steps=1), device="cpu")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_killed_before_its_first_checkpoint_starts_over_with_its_records(
    tmp_path: Path,
) -> None:
    run, settings = RunFolder.create(tmp_path / "run", {}), config(steps=6, log_every=1)
    with after_step(4, killed), pytest.raises(SystemExit):
        train(model(), text(), settings, run=run, device="cpu")
    assert [record["step"] for record in run.metrics()] == [1, 2, 3]
    result = train(model(), text(), settings, run=run, resume=True, device="cpu")
    assert (result.steps, result.new_steps) == (6, 6)
    assert [record["step"] for record in run.metrics()] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="resume needs the run to resume"):
        train(model(), text(), settings, resume=True, device="cpu")


def test_a_finished_run_resumed_does_nothing_more(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    train(model(), text(), config(steps=10), run=run, device="cpu")
    result = train(model(), text(), config(steps=10), run=run, resume=True, device="cpu")
    assert (result.steps, result.new_steps) == (10, 0)
    assert [record["step"] for record in result.history] == [5, 10]


def test_a_checkpoint_that_counts_other_things_is_refused_in_one_sentence(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    train(model(), text(), config(steps=5), run=run, device="cpu")
    saved = run.latest()
    assert saved is not None
    # As version 0.1.0 had it before it kept the size of each window.
    run.save(replace(saved, counters={**saved.counters, "unlogged_targets": 0}, step=6), best=False)
    with pytest.raises(FileError, match="are of another version of companion"):
        train(model(), text(), config(steps=10), run=run, resume=True, device="cpu")


def test_a_loss_that_is_not_a_number_stops_with_the_step_and_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    step = Trainer.train_step

    def poison(self: Trainer) -> None:
        if self.progress.step == 12:
            self.model.output.bias.data.fill_(float("nan"))
        step(self)

    monkeypatch.setattr(Trainer, "train_step", poison)
    with pytest.raises(TrainingError, match="at step 13"):
        train(model(), text(), config(checkpoint_every=2), run=run, device="cpu")
    monkeypatch.undo()
    failed = json.loads((run.path / "failed-step.json").read_text())
    assert failed["step"] == 13
    (window,) = failed["windows"]
    assert (window["start"], window["stop"]) == (120, 130)
    assert window["ids"] == batching.streams(text(), 4)[:, 120:131].tolist()
    saved = run.latest()
    assert saved is not None
    assert saved.step == 12
    assert all(torch.isfinite(weight).all() for weight in saved.model.values())


@pytest.mark.parametrize("loss", [1e29, math.inf, math.nan])
def test_a_step_far_too_long_is_the_same_error_on_a_processor_that_rounds_otherwise(
    loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the loss is after such a step depends on the processor: here each of three."""
    summed = training_loss.summed_nats
    calls = 0

    def unlucky(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return summed(logits, targets) * (1.0 if calls < 3 else loss)

    monkeypatch.setattr(training_loss, "summed_nats", unlucky)
    with pytest.raises(TrainingError) as raised:
        train(model(), text(), config(), device="cpu")
    assert str(raised.value).startswith(
        "training diverged at step 3: its loss rose above 100 times that of a uniform guess"
    )


def test_a_loop_without_records_keeps_its_losses_together() -> None:
    """Not one by one among what is freed: the process would grow by a megabyte a step."""
    trainer = Trainer(model(), text(), config(log_every=5))
    for _ in trainer.steps(20):
        pass
    for kept in (trainer.watch.nats, trainer.watch.norms):
        assert len(kept) == 20
        assert len({each.untyped_storage().data_ptr() for each in kept}) == 4


def test_a_learning_rate_of_1e30_diverges_in_its_second_step() -> None:
    with pytest.raises(TrainingError, match="training diverged at step 2"):
        train(model(), text(), config(learning_rate=1e30), device="cpu")


def test_a_loss_that_is_high_from_the_start_has_not_diverged() -> None:
    large = model(dropout=0.0)
    large.output.weight.data.normal_(std=500)  # logits in the hundreds
    result = train(large, text(), config(steps=10, log_every=1), device="cpu")
    first = result.history[0]["train_nats_per_token"]
    assert first > 100 * math.log(VOCABULARY)
    assert result.steps == 10


@pytest.mark.parametrize(("times", "diverged"), [(60, False), (180, True)])
def test_a_loss_diverges_at_a_hundred_times_a_uniform_guess(
    times: int, diverged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At step 7 the text costs `times` what a uniform guess costs, as a planted bias has it."""
    step = Trainer.train_step

    def mislead(self: Trainer) -> None:
        if self.progress.step == 6:  # all mass on a token that is rare
            self.model.output.bias.data[6] = times * math.log(VOCABULARY)
        step(self)

    monkeypatch.setattr(Trainer, "train_step", mislead)
    with pytest.raises(TrainingError, match="step 7") if diverged else contextlib.nullcontext():
        train(model(), text(), config(steps=8), device="cpu")


def test_a_caller_of_train_step_gets_the_error_too_and_only_the_checks_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = []
    check = Trainer.check

    def counted(self: Trainer) -> None:
        checks.append(self.progress.step)
        check(self)

    monkeypatch.setattr(Trainer, "check", counted)
    trainer = Trainer(model(), text(), config(steps=13, log_every=5), device="cpu")
    for _ in range(12):
        trainer.train_step()
    trainer.model.output.bias.data.fill_(math.nan)
    with pytest.raises(TrainingError, match="training diverged at step 13"):
        trainer.train_step()
    assert checks == [5, 10, 13]


def test_steps_of_a_loop_of_one_s_own_are_looked_at_after_the_last_one_too() -> None:
    """Seven steps of 40, with a record every fifth: the seventh is neither due nor the last."""
    trainer = Trainer(model(), text(), config(steps=40, log_every=5), device="cpu")
    done = []
    for step in trainer.steps(6):
        done.append(step)
        trainer.model.eval()  # as whoever measures it leaves it
    assert done == [1, 2, 3, 4, 5, 6]
    trainer.model.output.bias.data.fill_(math.nan)
    with pytest.raises(TrainingError, match="training diverged at step 7"):
        list(trainer.steps(1))


def test_a_step_of_a_loop_of_one_s_own_trains_whatever_mode_the_model_was_left_in() -> None:
    modes = []
    trainer = Trainer(model(), text(), config(steps=3), device="cpu")
    trainer.model.register_forward_hook(lambda module, *_: modes.append(module.training))
    trainer.model.lstm.register_forward_hook(lambda module, *_: modes.append(module.training))
    for _ in trainer.steps():
        trainer.model.eval()
    assert modes == [True] * 3
    assert list(trainer.steps()) == []  # none are left


def test_memory_that_runs_out_in_a_loop_of_one_s_own_is_said_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Trainer, "train_step", lambda self: torch.empty(2**50))
    trainer = Trainer(model(), text(), config(), device="cpu")
    with pytest.raises(TrainingError, match="not enough memory"):
        next(trainer.steps())


@pytest.mark.parametrize("jitter", [0.0, 3.0])
def test_speed_counts_the_targets_there_were_and_not_full_windows(
    jitter: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs of 23 positions in four streams are 184 targets, however they are cut."""
    settings = config(steps=6, window_jitter=jitter)
    trainer = Trainer(model(), text(4 * 23 + 1), settings, device="cpu")
    clock = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    result = trainer.fit()
    assert trainer.targets_done == 184
    assert result.tokens_per_second == 184 / result.seconds


def test_weights_that_the_last_step_broke_are_not_saved_as_the_best(tmp_path: Path) -> None:
    """The loss of a step is measured before it, so only the validation can tell."""
    run = RunFolder.create(tmp_path / "run", {})

    def break_weights(trainer: Trainer) -> None:
        trainer.model.output.bias.data.fill_(math.nan)

    words = "diverged at step 10, as its validation shows"
    with after_step(10, break_weights), pytest.raises(TrainingError, match=words):
        train(model(), text(), config(steps=10), valid_ids=text(301), run=run, device="cpu")
    assert run.latest() is None


def test_what_diverged_means_is_kept_over_a_resumption(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    first = Trainer(model(), text(), config(), run=run, device="cpu")
    first.train_step()
    first.save(best=False)
    again = Trainer(model(), text(), config(), run=run, device="cpu")
    again.restore()
    assert first.watch.first is not None
    assert again.watch.first == first.watch.first
    assert again.watch.targets == first.watch.targets == 40


def test_a_gradient_that_is_infinite_stops_before_the_weights_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    backward = training_loss.summed_nats

    def explode(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nats = backward(logits, targets)
        nats.register_hook(lambda gradient: gradient * math.inf)
        return nats

    monkeypatch.setattr(training_loss, "summed_nats", explode)
    with pytest.raises(TrainingError, match="at step 1"):
        train(model(), text(), config(checkpoint_every=1), run=run, device="cpu")
    assert run.latest() is None


def test_a_listener_hears_every_record_and_can_end_the_training() -> None:
    heard: list[dict[str, Any]] = []
    result = train(model(), text(), config(), device="cpu", on_record=heard.append)
    assert heard == result.history

    def enough(record: dict[str, Any]) -> None:
        if record["step"] == 10:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        train(model(), text(), config(), device="cpu", on_record=enough)


def test_the_recorded_gradient_norm_is_the_one_before_clipping() -> None:
    settings = config(steps=1, clip_norm=1e-3)
    recorded = train(model(dropout=0.0), text(), settings, device="cpu").history[0]["gradient_norm"]
    reference = model(dropout=0.0)
    batch = batching.window(batching.streams(text(), 4), 0, 10)
    token_nats(reference(batch.inputs)[0], batch.targets).mean().backward()
    squares = sum(
        float(p.grad.square().sum()) for p in reference.parameters() if p.grad is not None
    )
    assert recorded == pytest.approx(math.sqrt(squares), rel=1e-5)


def test_windows_of_any_length_see_every_target_once_an_epoch_and_differ_between_epochs() -> None:
    trainer = Trainer(model(), text(), config(window_jitter=2.0, accumulation=3), device="cpu")
    epochs = []
    for epoch in range(2):
        first = epoch * trainer.steps_per_epoch
        steps = range(first, first + trainer.steps_per_epoch)
        windows = [window for step in steps for window in trainer.windows_of(step)]
        assert windows[0][0] == 0
        assert windows[-1][1] == 300
        assert all(one[1] == two[0] for one, two in pairwise(windows))
        epochs.append(windows)
    assert epochs[0] != epochs[1]
    assert len({stop - start for start, stop in epochs[0]}) > 3
    again = Trainer(model(), text(), config(window_jitter=2.0, accumulation=3), device="cpu")
    assert again.windows_of(5) == trainer.windows_of(5)  # a function of the step, not of history


def test_a_state_is_emptied_as_often_as_asked_and_stream_by_stream() -> None:
    trainer = Trainer(model(), text(), config(num_streams=40, reset_state=0.25), device="cpu")
    state = torch.ones(1, 40, 16), torch.ones(1, 40, 16)
    emptied = 0
    for _ in range(50):
        hidden, cell = trainer._state_to_carry(state) or state
        assert torch.equal(hidden, cell)
        assert set(hidden.sum(dim=2).flatten().tolist()) <= {0.0, 16.0}
        emptied += int((hidden[0, :, 0] == 0).sum())
    # 2,000 flips: standard deviation .01, four of them allowed.
    assert emptied / 2000 == pytest.approx(0.25, abs=0.04)


def test_the_output_bias_can_start_at_the_unigram() -> None:
    ids, fresh = text(), model(dropout=0.0)
    torch.nn.init.zeros_(fresh.output.weight)
    result = train(fresh, ids, config(steps=1, unigram_bias=True), device="cpu")
    shares = torch.bincount(ids, minlength=VOCABULARY).double() / len(ids)
    # With no output weights, the first window is scored by the unigram of the text.
    batch = batching.window(batching.streams(ids, 4), 0, 10)
    expected = -shares.log()[batch.targets].mean()
    assert result.history[0]["train_nats_per_token"] == pytest.approx(float(expected), rel=1e-5)


def test_a_token_that_the_text_lacks_starts_as_if_it_had_come_once() -> None:
    ids = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, 3])
    Trainer(started := model(), ids, config(num_streams=1, unigram_bias=True), device="cpu")
    expected = torch.tensor([3, 2, 1, 4, 1, 1, 1, 1]).div(10).log()
    torch.testing.assert_close(started.output.bias.detach(), expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"loss": "chunked"},
        {"loss": "sampled", "num_samples": 64, "unigram_bias": True},
        {"window_jitter": 3.0, "activation_penalty": 2.0, "temporal_penalty": 1.0},
        {"reset_state": 0.1},
    ],
)
def test_a_resumed_run_repeats_an_uninterrupted_one_with(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    settings = config(checkpoint_every=7, **fields)
    heavy = {"variational": True, "weight_drop": 0.3, "embedding_dropout": 0.1, "num_layers": 2}
    whole = train(model(**heavy), text(), settings, valid_ids=text(301), device="cpu")

    run = RunFolder.create(tmp_path / "run", {})
    with after_step(24, killed), pytest.raises(SystemExit):
        train(model(**heavy), text(), settings, valid_ids=text(301), run=run, device="cpu")
    resumed = train(
        model(**heavy), text(), settings, valid_ids=text(301), run=run, resume=True, device="cpu"
    )
    assert losses(resumed.history) == losses(whole.history)


OTHERS: dict[str, Any] = {
    **{cell: functools.partial(RecurrentModel, cell) for cell in ("LSTM", "GRU", "tanh RNN")},
    "Transformer": TransformerModel,
}


def other_model(kind: str) -> LanguageModel:
    """A small model that is no `LSTMLanguageModel`."""
    seed_everything(0)
    sizes = {"embedding_size": 8, "hidden_size": 16}
    if kind == "Transformer":
        sizes = {"width": 16, "num_layers": 1, "num_heads": 2, "max_length": 12}
    trained: LanguageModel = OTHERS[kind](vocabulary_size=VOCABULARY, **sizes)
    return trained


@pytest.mark.parametrize("kind", OTHERS)
def test_every_model_with_weights_trains_and_resumes_to_the_same_losses(
    kind: str, tmp_path: Path
) -> None:
    grows = kind == "Transformer"
    carried = {"carry_state": False} if grows else {"reset_state": 0.1}
    settings = config(checkpoint_every=7, **carried)
    valid = text(301)
    whole = train(other_model(kind), text(), settings, valid_ids=valid, device="cpu")
    first, last = (whole.history[at]["train_nats_per_token"] for at in (0, -1))
    assert last < first - 0.1  # it learns; the text's period alone is worth far more
    assert whole.best_nats_per_token is not None

    run = RunFolder.create(tmp_path / "run", {})
    with after_step(24, killed), pytest.raises(SystemExit):
        train(other_model(kind), text(), settings, valid_ids=valid, run=run, device="cpu")
    again = other_model(kind)
    resumed = train(again, text(), settings, valid_ids=valid, run=run, resume=True, device="cpu")
    assert losses(resumed.history) == losses(whole.history)


@pytest.mark.parametrize("targets", [37, 40, 41])
def test_a_growing_state_reads_validation_text_in_windows_from_empty_states(
    targets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "VALIDATION_STREAMS", 3)  # four windows: three, then one
    trained, valid = other_model("Transformer"), text(targets + 1)
    settings = config(steps=5, carry_state=False)
    result = train(trained, text(), settings, valid_ids=valid, device="cpu")
    length = math.ceil(targets / math.ceil(targets / 10))  # 10, or 9 where five windows are needed
    with torch.no_grad():
        nats = [
            token_nats(trained(valid[None, at:end])[0], valid[None, at + 1 : end + 1])
            for at in range(0, targets, length)
            for end in [min(at + length, targets)]
        ]
    mean = torch.cat(nats, dim=1).double().mean()
    # Sums of float32 in another order.
    assert result.best_nats_per_token == pytest.approx(float(mean), rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"run": "folder"}, "run must be a RunFolder, got 'folder'; RunFolder.create"),
        ({"config": {"steps": 5}}, r"config must be a TrainConfig, got {'steps': 5}; TrainConfig"),
    ],
)
def test_what_is_no_run_and_no_config_is_refused(wrong: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"config": config(), "device": "cpu", **wrong}
    with unchecked(), pytest.raises(TypeError, match=words):
        train(model(), text(), **arguments)


@pytest.mark.parametrize(
    ("untrainable", "settings", "words"),
    [
        (lambda: torch.nn.Linear(3, 3), {}, "train takes a LanguageModel, got Linear"),
        (
            lambda: NGramModel.fit(text(), order=2, vocabulary_size=VOCABULARY),
            {},
            "NGramModel has no weights.*NGramModel.fit",
        ),
        (lambda: other_model("Transformer"), {}, "train with carry_state=False"),
        (lambda: other_model("GRU"), {"loss": "chunked"}, "for an LSTMLanguageModel only"),
        (lambda: other_model("GRU"), {"temporal_penalty": 1.0}, "for an LSTMLanguageModel only"),
        (lambda: other_model("GRU"), {"unigram_bias": True}, "for an LSTMLanguageModel only"),
        (
            lambda: model(adaptive_cutoffs=(2, 5)),
            {"unigram_bias": True},
            "unigram_bias.*adaptive_cutoffs",
        ),
        (lambda: model(), {"patience": 3}, "patience .3. counts validations.*give valid_ids"),
    ],
)
def test_a_training_that_cannot_be_is_refused_with_what_can(
    untrainable: Any, settings: dict[str, Any], words: str
) -> None:
    with unchecked(), pytest.raises((TypeError, ValueError), match=words):
        train(untrainable(), text(), config(**settings), device="cpu")


@pytest.mark.parametrize(
    ("ids", "valid_ids", "words"),
    [
        (text().tolist(), None, "ids must be a tensor of token ids, got list"),
        (text()[None], None, r"ids must have shape \(time,\).* give one row, ids\[0\]"),
        (text().float(), None, "ids must hold token ids as torch.int64, got torch.float32"),
        (text() + 3, None, r"ids must hold tokens of the model, in \[0, 8\), got 10"),
        (text(), text() - 9, r"valid_ids must hold tokens of the model, in \[0, 8\), got -9"),
        (text(), text(1), "valid_ids needs two tokens or more"),
    ],
)
def test_a_text_that_is_none_of_the_models_is_refused(ids: Any, valid_ids: Any, words: str) -> None:
    with unchecked(), pytest.raises((TypeError, ValueError), match=words):
        train(model(), ids, config(), valid_ids=valid_ids, device="cpu")


def test_memory_that_runs_out_is_said_with_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(self: Trainer) -> None:
        torch.empty(2**50)  # four petabytes

    monkeypatch.setattr(Trainer, "train_step", greedy)
    words = r"not enough memory.*lower num_streams \(now 4\), .*hidden_size \(16\)"
    with pytest.raises(TrainingError, match=rf"{words}, or try loss='chunked'$"):
        train(model(), text(), config(), device="cpu")
    with pytest.raises(TrainingError, match=f"{words}$"):
        train(model(), text(), config(loss="chunked"), device="cpu")


def test_patience_ends_a_run_that_no_longer_improves_for_good(tmp_path: Path) -> None:
    noise = torch.randint(VOCABULARY, (401,), generator=torch.Generator().manual_seed(5))
    settings = config(steps=400, learning_rate=3e-2, evaluate_every=10, patience=2)
    run = RunFolder.create(tmp_path / "run", {})
    result = train(model(dropout=0.0), text(), settings, valid_ids=noise, run=run, device="cpu")
    assert result.stopped == "patience"
    assert result.steps < 400
    valid = [r["valid_nats_per_token"] for r in result.history if "valid_nats_per_token" in r]
    assert min(valid) == result.best_nats_per_token
    assert valid.index(min(valid)) == len(valid) - 3  # two without a lower loss, and not three
    again = train(model(), text(), settings, valid_ids=noise, run=run, resume=True, device="cpu")
    assert (again.stopped, again.steps, again.new_steps) == ("patience", result.steps, 0)


def test_a_patience_of_one_ends_at_the_first_validation_that_is_no_better() -> None:
    noise = torch.randint(VOCABULARY, (401,), generator=torch.Generator().manual_seed(5))
    settings = config(steps=400, learning_rate=3e-2, evaluate_every=10, patience=1)
    result = train(model(dropout=0.0), text(), settings, valid_ids=noise, device="cpu")
    valid = [r["valid_nats_per_token"] for r in result.history if "valid_nats_per_token" in r]
    assert valid.index(min(valid)) == len(valid) - 2


def test_a_bar_is_drawn_where_one_was_asked_for_and_steps_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[dict[str, Any]] = []
    moves: list[str] = []

    class Bar(tqdm):
        def __init__(self, **settings: Any) -> None:
            bars.append(settings)
            super().__init__(**{**settings, "disable": True})

        def update(self, n: float | None = 1) -> None:
            moves.append(f"{n} more")

        def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
            moves.append(s)

    monkeypatch.setattr(trainer_module, "tqdm", Bar)
    Trainer(model(), text(), config(steps=2), device="cpu").fit()
    train(model(), text(), config(steps=2), device="cpu")
    train(model(), text(), config(steps=2), device="cpu", progress=True)
    assert [bar["disable"] for bar in bars] == [True, True, False]
    assert (bars[-1]["initial"], bars[-1]["total"]) == (0, 2)
    assert moves[-3:-1] == ["1 more", "1 more"]
    assert re.fullmatch(r"train \d\.\d{3} nats/token", moves[-1])

    run = RunFolder.create(tmp_path / "run", {})
    with after_step(4, ctrl_c):
        train(model(), text(), config(steps=10), run=run, device="cpu")
    for disabled, step in ((False, 4), (True, 10)):
        train(model(), text(), config(steps=10), run=run, resume=True, device="cpu", progress=True)
        assert bars[-1] == {**bars[-1], "disable": disabled, "initial": step, "total": 10}

    worse = RunFolder.create(tmp_path / "worse", {})
    settings = config(steps=40, learning_rate=1.0, evaluate_every=1, patience=1)
    for disabled in (False, True):
        result = train(
            model(), text(), settings, valid_ids=text(301), run=worse, resume=disabled,
            device="cpu", progress=True,
        )  # fmt: skip
        assert result.stopped == "patience"
        assert result.steps < 40
        assert bars[-1]["disable"] is disabled
    assert re.fullmatch(r"train .*, valid \d+\.\d{3} nats/token", moves[-1])


def test_seconds_go_on_where_the_interrupted_run_left_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count(1000)  # a second passes from one look at the clock to the next
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    run = RunFolder.create(tmp_path / "run", {})
    with after_step(4, ctrl_c):
        first = train(model(), text(), config(steps=10), run=run, device="cpu")
    looks = next(now)
    assert 0 < first.seconds < looks - 1000
    saved = run.latest()
    assert saved is not None
    assert 0 < saved.counters["seconds"] <= first.seconds

    second = Trainer(model(), text(), config(steps=10), run=run, device="cpu")
    second.restore()
    result = second.fit()
    here = result.seconds - saved.counters["seconds"]
    assert 0 < here < next(now) - looks
    assert result.tokens_per_second == second.targets_done / here


def test_speed_leaves_out_the_seconds_of_validations(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count()  # each validation looks at the clock twice, and lasts a second
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    settings = config(steps=6, evaluate_every=2)
    trainer = Trainer(model(), text(), settings, valid_ids=text(301), device="cpu")
    result = trainer.fit()
    assert result.tokens_per_second == trainer.targets_done / (result.seconds - 3)


def test_validations_are_a_step_apart_or_more() -> None:
    settings = config(steps=None, epochs=1)  # 30 steps
    for epochs, steps in ((0.001, 1), (0.1, 3), (2.0, 60)):
        trainer = Trainer(model(), text(), replace(settings, evaluate_epochs=epochs), device="cpu")
        assert trainer.evaluate_every == steps


def test_a_loss_as_low_as_the_lowest_is_no_better() -> None:
    settings = config(learning_rate=1e-30, evaluate_every=1, patience=2)  # no weight moves
    result = train(model(), text(), settings, valid_ids=text(301), device="cpu")
    assert (result.stopped, result.steps) == ("patience", 3)


def test_a_record_of_a_validation_alone_looks_at_the_steps_before_it() -> None:
    """Of a step that failed, and not of what its weights do on the validation text."""

    def break_weights(trainer: Trainer) -> None:
        trainer.model.output.bias.data.fill_(math.nan)

    settings = config(steps=20, log_every=7, evaluate_every=5)
    words = "training diverged at step 4: "
    with after_step(3, break_weights), pytest.raises(TrainingError, match=words):
        train(model(), text(), settings, valid_ids=text(301), device="cpu")


def test_a_record_says_how_many_epochs_are_done() -> None:
    settings = config(steps=None, epochs=2, log_every=1)
    result = train(model(), text(4 * 30 + 1), settings, device="cpu")
    assert [record["epoch"] for record in result.history] == [0.3333, 0.6667, 1, 1.3333, 1.6667, 2]


def test_training_uses_dropout_and_leaves_a_model_that_does_not() -> None:
    modes = []
    trained = model(dropout=0.5).eval()
    trained.lstm.register_forward_hook(lambda module, *_: modes.append(module.training))
    result = train(trained, text(), config(steps=2), device="cpu")
    assert modes == [True, True]
    assert not trained.training
    assert "history" not in repr(result)  # it may be thousands of records


def test_an_epoch_of_accumulated_windows_has_fewer_steps() -> None:
    """12 windows of 10 in steps of 5 are three steps, the last of two windows."""
    settings = config(steps=None, epochs=2, accumulation=5)
    trainer = Trainer(model(), text(4 * 120 + 1), settings, device="cpu")
    assert (trainer.num_windows, trainer.steps_per_epoch, trainer.total_steps) == (12, 3, 6)
    assert trainer.windows_of(2) == trainer.windows_of(5) == [(100, 110), (110, 120)]


def test_two_tokens_are_a_validation_text() -> None:
    result = train(model(), text(), config(steps=1), valid_ids=text(2), device="cpu")
    assert 0 < result.history[-1]["valid_nats_per_token"] < 10


def test_a_loss_of_ones_own_takes_the_place_of_the_configured_one() -> None:
    trained = model(dropout=0.0)
    own = training_loss.TrainingLoss(trained)
    assert Trainer(trained, text(), config(), device="cpu", loss=own).loss is own
    for other in ({"loss": "chunked"}, {"activation_penalty": 1.0}, {"temporal_penalty": 1.0}):
        with pytest.raises(ValueError, match="a loss of your own takes the place of config's"):
            Trainer(trained, text(), config(**other), device="cpu", loss=own)


def test_the_best_checkpoint_is_the_one_with_the_lowest_validation_loss(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    noise = torch.randint(VOCABULARY, (401,), generator=torch.Generator().manual_seed(5))
    settings = config(steps=60, learning_rate=3e-2, evaluate_every=10)
    result = train(model(dropout=0.0), text(), settings, valid_ids=noise, run=run, device="cpu")
    valid = {
        r["step"]: r["valid_nats_per_token"] for r in result.history if "valid_nats_per_token" in r
    }
    assert run.best().step == min(valid, key=lambda step: valid[step])


def refused(precision: str) -> contextlib.AbstractContextManager[Any] | None:
    """In a `with` block, the error of a device whose LSTMs compute in fp16 where bf16 was asked
    for; None where the device takes this precision."""
    dtype = trainer_module.lstm_dtype(torch.device("cuda"), precision)
    if precision == "bf16" and dtype == torch.float16:
        return pytest.raises(ValueError, match="'bf16' loses gradients of LSTMLanguageModel")
    return None


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_and_keeps_float32_weights(precision: str) -> None:
    half, settings = model(), config(steps=60, precision=precision)
    if (error := refused(precision)) is not None:
        with error:
            train(half, text(), settings, device="cuda")
        return
    result = train(half, text(), settings, device="cuda")
    first, last = (result.history[i]["train_nats_per_token"] for i in (0, -1))
    assert last < first - 0.3
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}


@pytest.mark.gpu
def test_the_gpu_computes_the_losses_of_the_cpu() -> None:
    """Fifty steps in fp32 without dropout: kernels differ in rounding, the curve does not."""
    curves = {}
    for device in ("cpu", "cuda"):
        result = train(model(dropout=0.0), text(), config(steps=50), device=device)
        curves[device] = [record["train_nats_per_token"] for record in result.history]
    assert curves["cuda"] == pytest.approx(curves["cpu"], abs=2e-3)


@pytest.mark.gpu
def test_a_step_never_waits_for_the_gpu() -> None:
    """No number is read back inside a step: CUDA's own check raises when one is."""
    heavy = {"num_layers": 2, "variational": True, "weight_drop": 0.3, "embedding_dropout": 0.1}
    recipe = {  # the fields of the preset awd-lstm
        "loss": "chunked", "precision": "fp16", "l2": 1.2e-6, "activation_penalty": 3.0,
        "temporal_penalty": 1.5, "window_jitter": 2.0, "unigram_bias": True,
    }  # fmt: skip
    for fields in ({}, recipe, {"loss": "sampled"}):
        trainer = Trainer(model(**heavy), text(), config(reset_state=0.1, **fields), device="cuda")
        trainer.model.train()
        trainer.train_step()  # the first step may set things up
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                trainer.train_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


#: Models with nn.LSTM, which on a GPU drops out between layers by itself, and with LSTMStack.
BETWEEN_LAYERS = {
    "one call": {"num_layers": 2, "dropout": 0.3},
    "layer by layer": {
        "num_layers": 2, "dropout": 0.3, "variational": True, "weight_drop": 0.3, "last_size": 8,
    },
}  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("layers", BETWEEN_LAYERS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_on_a_gpu_a_killed_run_resumes_to_the_same_losses(
    layers: str, precision: str, tmp_path: Path
) -> None:
    fields, settings = BETWEEN_LAYERS[layers], config(checkpoint_every=7, precision=precision)
    whole = train(model(**fields), text(), settings, valid_ids=text(301), device="cuda")
    run = RunFolder.create(tmp_path / "run", {})
    with after_step(24, killed), pytest.raises(SystemExit):
        train(model(**fields), text(), settings, valid_ids=text(301), run=run, device="cuda")
    seed_everything(99)  # another process starts with other random numbers
    again = LSTMLanguageModel(model(**fields).config)
    seed_everything(99)
    resumed = train(
        again, text(), settings, valid_ids=text(301), run=run, resume=True, device="cuda"
    )
    names = "train_nats_per_token", "valid_nats_per_token"
    curves = [
        [record[name] for record in result.history for name in names if name in record]
        for result in (resumed, whole)
    ]
    # A GPU may add in another order at each run, in fp16 with 11 binary digits. Other masks of
    # dropout, tried on a CPU, moved one of these losses by two hundredths.
    assert curves[0] == pytest.approx(curves[1], rel=3e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_tests_for_a_gpu_can_pass(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU in the place of a GPU whose LSTMs compute in fp16, or in what was asked for."""
    real = trainer_module.make_accelerator
    monkeypatch.setattr(
        trainer_module, "make_accelerator", lambda name, precision, **m: real("cpu", "fp32", **m)
    )
    monkeypatch.setattr(trainer_module, "lstm_dtype", lambda device, precision: dtype)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    for precision in ("bf16", "fp16"):
        test_mixed_precision_learns_and_keeps_float32_weights(precision)
    test_a_step_never_waits_for_the_gpu()
    for layers in BETWEEN_LAYERS:
        test_on_a_gpu_a_killed_run_resumes_to_the_same_losses(layers, "fp32", tmp_path / layers)


@pytest.mark.gpu
@pytest.mark.filterwarnings("error")
def test_weight_drop_keeps_cudnns_weights_in_one_piece() -> None:
    """cuDNN warns when it has to copy weights that lie apart; warnings are errors here."""
    heavy = model(num_layers=2, weight_drop=0.3, variational=True)
    train(heavy, text(), config(steps=3), device="cuda")
