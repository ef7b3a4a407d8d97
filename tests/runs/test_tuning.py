"""The search for settings: what is drawn, what is stopped, what is kept, who may share it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from at_step import after_step, ctrl_c
from command_line import TERMINAL, companion

from companion.core.files import FileError
from companion.core.runtime import cpu_threads
from companion.runs import pipeline, search, tuning
from companion.runs.presets import get_preset, override
from companion.runs.search import Range, SearchConfig, SearchSpace
from companion.text.corpora import load_corpus
from companion.training.trainer import TrainingError

pytest.importorskip("optuna", reason="optuna is in the extra 'tune'")

RATES = "train.learning_rate=1e-3:1e-1:log"
SPACE = SearchSpace.parse([RATES, "model.num_layers=1:4", "train.loss=full,chunked"])


def bowl(settings: dict[str, str], report: Callable[[float], None]) -> float:
    """A loss that is lowest at a learning rate of .01 and one layer; four validations."""
    rate, layers = float(settings["train.learning_rate"]), int(settings["model.num_layers"])
    loss = 1 + abs(rate - 0.01) + layers
    for remaining in (3, 2, 1, 0):
        report(loss + remaining)
    return loss


def drawn(result: search.SearchResult) -> list[tuple[str, dict[str, Any], float | None]]:
    return [(trial.state, trial.settings, trial.nats_per_token) for trial in result.trials]


# --- the space -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["train.learning_rate=0.001:0.03:log", "model.dropout=0:0.5", "model.hidden_size=128,192,256"],
)
def test_a_range_is_written_as_it_is_read(text: str) -> None:
    assert str(Range.parse(text)) == text


WRONG_RANGES = {
    "model.dropout": "a range is NAME=LOW:HIGH",
    "model.dropout=0.1": "a range is NAME=LOW:HIGH",
    "model.dropout=a:b": "a range is NAME=LOW:HIGH",
    "model.dropout=0:1:linear": "a range is NAME=LOW:HIGH",
    "model.dropout=0.5:0.1": "low must be below high",
    "model.dropout=0:inf": "both finite",
    "train.learning_rate=0:1:log": "low must be > 0 on a log scale",
    "model.hidden_size=16:32.5": "is an integer",
    "model.hidden_size=16,16": "two or more different values",
}


@pytest.mark.parametrize("text", WRONG_RANGES)
def test_a_wrong_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=WRONG_RANGES[text]):
        Range.parse(text)


def test_a_space_has_each_setting_once_and_fits_the_preset() -> None:
    with pytest.raises(ValueError, match="one a setting"):
        SearchSpace.parse([RATES, RATES])
    with pytest.raises(ValueError, match="one range or more"):
        SearchSpace.parse([])
    preset = get_preset("char-small")
    with pytest.raises(ValueError, match=r"range model\.dropout=0:2: dropout must be in"):
        SearchSpace.parse(["model.dropout=0:2"]).check(preset)
    with pytest.raises(ValueError, match=r"unknown setting 'model\.depth'"):
        SearchSpace.parse(["model.depth=1:2"]).check(preset)
    for fixed in ("tokenizer.vocabulary_size=300:900", "tokenizer.kind=byte,bpe", "threads=1,2"):
        with pytest.raises(ValueError, match=r"a search varies only settings of model and train"):
            SearchSpace.parse([fixed]).check(get_preset("small"))
    for name in ("small", "char-small", "char-medium"):
        search.DEFAULT_SPACE.check(get_preset(name))


def test_what_is_drawn_lies_in_the_space_and_reads_well() -> None:
    result = search.search(bowl, SearchConfig(space=SPACE, trials=30, prune=False))
    for trial in result.trials:
        rate, layers, loss = trial.settings.values()
        assert isinstance(rate, float)
        assert 1e-3 <= rate <= 1e-1
        assert float(f"{rate:.4g}") == rate
        assert isinstance(layers, int)
        assert 1 <= layers <= 4
        assert loss in ("full", "chunked")
    assert len({trial.settings["train.learning_rate"] for trial in result.trials}) == 30
    # Four layer counts and both losses occur, or thirty draws were no search.
    assert {trial.settings["model.num_layers"] for trial in result.trials} == {1, 2, 3, 4}
    assert len({trial.settings["train.loss"] for trial in result.trials}) == 2


# --- the search ----------------------------------------------------------------------------------


def test_the_best_is_the_complete_trial_with_the_lowest_loss() -> None:
    result = search.search(bowl, SearchConfig(space=SPACE, trials=25))
    assert result.stopped == "finished"
    assert [trial.number for trial in result.trials] == list(range(25))
    best = result.best
    assert best is not None
    complete = [trial for trial in result.trials if trial.state == "complete"]
    assert best.nats_per_token == min(trial.nats_per_token for trial in complete)
    assert best.validations[-1] == best.nats_per_token
    # One layer costs a whole nat less than two; twenty informed trials find that.
    assert best.settings["model.num_layers"] == 1


def test_the_same_seed_draws_the_same_and_another_seed_does_not() -> None:
    first, second, other = (
        drawn(search.search(bowl, SearchConfig(space=SPACE, trials=8, seed=seed)))
        for seed in (3, 3, 4)
    )
    assert first == second
    assert first != other


def test_a_search_that_goes_on_equals_one_that_never_stopped(tmp_path: Path) -> None:
    shorter = SearchConfig(space=SPACE, trials=4, startup=2)
    longer = SearchConfig(space=SPACE, trials=6, startup=2)
    search.search(bowl, shorter, database=tmp_path / "study.db")
    resumed = search.search(bowl, longer, database=tmp_path / "study.db")
    whole = search.search(bowl, longer)
    assert drawn(resumed) == drawn(whole)


def test_a_trial_above_the_median_is_stopped_but_not_at_its_first_validation() -> None:
    losses = iter([[3.0, 2.0, 1.0], [3.1, 2.1, 1.1], [9.0, 8.0, 0.5]])
    reported: list[float] = []

    def objective(settings: dict[str, str], report: Callable[[float], None]) -> float:
        reported.clear()
        for loss in next(losses):
            reported.append(loss)
            report(loss)
        return reported[-1]

    config = SearchConfig(space=SPACE, trials=3, startup=2)
    result = search.search(objective, config)
    assert [trial.state for trial in result.trials] == ["complete", "complete", "pruned"]
    assert reported == [9.0, 8.0]
    assert result.trials[2].nats_per_token == 8.0
    losses = iter([[3.0, 2.0, 1.0], [3.1, 2.1, 1.1], [9.0, 8.0, 0.5]])
    unpruned = search.search(objective, SearchConfig(space=SPACE, trials=3, startup=2, prune=False))
    assert unpruned.best is not None
    assert unpruned.best.number == 2


def test_a_trial_that_fails_is_counted_with_its_reason_and_the_search_goes_on() -> None:
    failures: list[Any] = [TrainingError("diverged"), ValueError("tie_weights needs"), None, None]

    def objective(settings: dict[str, str], report: Callable[[float], None]) -> float:
        failure = failures.pop(0)
        if failure is not None:
            raise failure
        return 2.0 if failures else float("nan")

    result = search.search(objective, SearchConfig(space=SPACE, trials=4))
    assert [(trial.state, trial.reason) for trial in result.trials] == [
        ("failed", "diverged"),
        ("failed", "tie_weights needs"),
        ("complete", None),
        ("failed", "the validation loss is nan; lower the learning rate"),
    ]
    assert result.best is result.trials[2]
    assert "failed" in search.in_words(result.trials[0])
    assert "(diverged)" in search.in_words(result.trials[0])


def test_ctrl_c_gives_up_the_trial_in_hand_and_keeps_the_others(tmp_path: Path) -> None:
    calls = 0

    def objective(settings: dict[str, str], report: Callable[[float], None]) -> float:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return bowl(settings, report)

    config = SearchConfig(space=SPACE, trials=4)
    result = search.search(objective, config, database=tmp_path / "study.db")
    assert (result.stopped, [trial.number for trial in result.trials]) == ("interrupted", [0, 1])
    result = search.search(objective, config, database=tmp_path / "study.db")
    assert (result.stopped, [trial.number for trial in result.trials]) == ("finished", [0, 1, 3, 4])
    assert drawn(result) == drawn(search.search(bowl, config))  # trial 3 is what 2 would have been


def test_ctrl_c_is_not_lost_where_exceptions_are_ignored() -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)  # an exception raised here is only printed

    def objective(settings: dict[str, str], report: Callable[[float], None]) -> float:
        Dying()
        return bowl(settings, lambda loss: None)  # nor does it reach a report

    before = signal.getsignal(signal.SIGINT)
    result = search.search(objective, SearchConfig(space=SPACE, trials=4))
    assert (result.stopped, len(result.trials)) == ("interrupted", 1)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_gives_up_a_trial_at_its_next_report() -> None:
    def objective(settings: dict[str, str], report: Callable[[float], None]) -> float:
        signal.raise_signal(signal.SIGINT)
        report(1.0)
        raise AssertionError("the report did not end the trial")

    result = search.search(objective, SearchConfig(space=SPACE, trials=4))
    assert (result.stopped, result.trials) == ("interrupted", [])


def test_a_ctrl_c_in_the_last_step_of_a_trial_ends_the_search(text_file: Path) -> None:
    with after_step(None, ctrl_c):
        assert tune(text_file, 2).stopped == "interrupted"


def test_a_space_leaves_out_what_is_fixed() -> None:
    space = SearchSpace.parse(["train.learning_rate=1e-3:1e-1", "model.dropout=0:0.5"])
    assert [str(each) for each in space.without({"model.dropout"}).ranges] == [
        "train.learning_rate=0.001:0.1"
    ]
    with pytest.raises(ValueError, match="all settings of this search space are fixed"):
        space.without({"model.dropout", "train.learning_rate"})


def test_optuna_says_nothing(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    search.search(bowl, SearchConfig(space=SPACE, trials=3), database=tmp_path / "study.db")
    assert capfd.readouterr() == ("", "")


def test_without_optuna_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"python -m pip install optuna$"):
        search.search(bowl, SearchConfig(space=SPACE))


@pytest.mark.parametrize("name", ["trials", "startup"])
def test_a_config_out_of_range_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        SearchConfig(**{name: 0})
    with pytest.raises(ValueError, match="seed must be between"):
        SearchConfig(seed=-1)


def test_a_damaged_database_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database" * 1000)
    with pytest.raises(FileError, match="file is not a database"):
        search.search(bowl, SearchConfig(space=SPACE), database=tmp_path / "study.db")


MORTAL = """
import os, signal, sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[2], str(Path(sys.argv[2]).parent)]
from companion.runs import search
from test_tuning import SPACE, bowl

trials = 0

def objective(settings, report):
    global trials
    trials += 1
    if trials == 3:
        report(9.0)
        print("in its third", flush=True)
        time.sleep(600)
    return bowl(settings, report)

config = search.SearchConfig(space=SPACE, trials=5, startup=2, prune=False)
search.search(objective, config, database=Path(sys.argv[1]))
"""


def states(database: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return [
            state for (state,) in connection.execute("SELECT state FROM trials ORDER BY number")
        ]


def in_its_third_trial(database: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", MORTAL, str(database), str(Path(__file__).parent)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in its third\n"
    return process


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_trials_of_one_that_was_not(tmp_path: Path) -> None:
    """The trial that the kill cut off is failed, and its settings are tried again, the next."""
    database = tmp_path / "study.db"
    process = in_its_third_trial(database)
    config, shorter = (
        SearchConfig(space=SPACE, trials=trials, startup=2, prune=False) for trials in (5, 3)
    )
    # While that process lives, its trial is its own; this one may finish another or two.
    search.search(bowl, shorter, database=database)
    assert states(database) == ["COMPLETE", "COMPLETE", "RUNNING", "COMPLETE"]
    process.kill()
    process.communicate()

    result = search.search(bowl, config, database=database)
    assert states(database) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert [trial.number for trial in result.trials] == [0, 1, 3, 4, 5]
    whole = search.search(bowl, config)
    assert result.trials[3].settings == whole.trials[2].settings
    assert not list(tmp_path.glob(".worker-*"))


@pytest.mark.slow
def test_a_trial_that_kills_its_process_three_times_is_left_out(tmp_path: Path) -> None:
    database, config = tmp_path / "study.db", SearchConfig(space=SPACE, trials=2)

    def deadly(settings: dict[str, str], report: Callable[[float], None]) -> float:
        raise SystemExit  # nothing is told, as when memory runs out

    for _ in range(3):
        with pytest.raises(SystemExit):
            search.search(deadly, config, database=database)
    result = search.search(bowl, config, database=database)
    assert states(database) == ["FAIL", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert drawn(result)[0] == drawn(search.search(bowl, SearchConfig(space=SPACE, trials=2)))[1]


WORKER = """
import sys, time
from pathlib import Path
from companion.runs import search

def objective(settings, report):
    time.sleep(0.1)
    with open(sys.argv[2], "a") as own:
        own.write("x")
    return float(settings["model.dropout"])

config = search.SearchConfig(space=search.SearchSpace.parse(["model.dropout=0:0.5"]), trials=16)
search.search(objective, config, database=Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_two_processes_share_one_search(tmp_path: Path) -> None:
    database, marks = tmp_path / "study.db", [tmp_path / "first", tmp_path / "second"]
    config = SearchConfig(space=SearchSpace.parse(["model.dropout=0:0.5"]), trials=16)
    search.create_study(config, database)
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WORKER, str(database), str(mark)],
            stderr=subprocess.PIPE, text=True,
        )
        for mark in marks
    ]  # fmt: skip
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert (worker.returncode, errors) == (0, "")
    result = search.search(bowl, config, database=database)  # nothing is left to do
    counts = [len(mark.read_text()) for mark in marks]
    assert min(counts) > 0
    assert sum(counts) == len(result.trials)
    # A process that asks while the other's last trial runs may do one more.
    assert 16 <= len(result.trials) <= 17
    # No number is given twice, and no two trials draw the same.
    assert [trial.number for trial in result.trials] == list(range(len(result.trials)))
    assert len({str(trial.settings) for trial in result.trials}) == len(result.trials)


# --- training ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "rhyme.txt"
    path.write_text("".join(f"{i % 7} green bottles standing on the wall\n" for i in range(100)))
    return path


TINY = {"model.hidden_size": "8", "train.num_streams": "4", "train.epochs": "3"}


def tune(text_file: Path, trials: int, **options: Any) -> search.SearchResult:
    config = SearchConfig(
        space=SearchSpace.parse([RATES, "model.dropout=0:0.5"]), trials=trials,
        startup=2, seed=options.pop("seed", 0),
    )  # fmt: skip
    preset = override(get_preset("char-small"), TINY)
    return tuning.tune(load_corpus(text_file), preset, config, device="cpu", **options)


def test_the_best_settings_trained_again_give_the_loss_found(
    text_file: Path, tmp_path: Path
) -> None:
    result = tune(text_file, 5)
    best = result.best
    assert best is not None
    assert max(len(trial.validations) for trial in result.trials) == 3  # one an epoch
    settings = {name: str(value) for name, value in best.settings.items()}
    preset = override(get_preset("char-small"), TINY | settings)
    again = pipeline.train_run(load_corpus(text_file), preset, tmp_path / "run", device="cpu")
    assert again.best_nats_per_token == best.nats_per_token


def test_a_search_leaves_the_number_of_threads_as_it_was(
    text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    during = []
    train = tuning.train

    def noted(*arguments: Any, **options: Any) -> Any:
        during.append(torch.get_num_threads())
        return train(*arguments, **options)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    with cpu_threads(2):
        monkeypatch.setattr(tuning, "train", noted)
        tune(text_file, 1)
        assert torch.get_num_threads() == 2
        monkeypatch.setattr(tuning, "train", interrupted)
        with contextlib.suppress(KeyboardInterrupt):
            tune(text_file, 1)
        assert torch.get_num_threads() == 2
    assert during == [1]  # what the preset asks for


def test_settings_that_do_not_go_together_fail_alone(text_file: Path) -> None:
    config = SearchConfig(space=SearchSpace.parse(["train.num_streams=2,100000"]), trials=6)
    preset = override(get_preset("char-small"), {**TINY, "train.epochs": "1"})
    result = tuning.tune(load_corpus(text_file), preset, config, device="cpu")
    states = {trial.settings["train.num_streams"]: trial.state for trial in result.trials}
    assert states == {2: "complete", 100000: "failed"}


def test_a_folder_is_refused_resumed_and_compared(text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "odd name? [b] #1 100%"
    tune(text_file, 2, out=out)
    files = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    assert files == ["study.db", "trials.json", "tune.json"]
    assert not list(out.glob(".worker-*"))
    with pytest.raises(FileError, match="already exists"):
        tune(text_file, 2, out=out)
    with pytest.raises(FileError, match="seed is 1, which differs"):
        tune(text_file, 2, out=out, resume=True, seed=1)
    result = tune(text_file, 3, out=out, resume=True)
    stored = json.loads((out / "trials.json").read_text())["trials"]
    assert [trial["settings"] for trial in stored] == [trial.settings for trial in result.trials]
    assert len(stored) == 3
    with pytest.raises(FileError, match="no search at"):
        tune(text_file, 2, out=tmp_path / "none", resume=True)
    with pytest.raises(FileError, match="not a search of companion"):
        tune(text_file, 2, out=tmp_path, resume=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Path, "touch", mock.Mock(side_effect=PermissionError(13, "Permission denied"))
        )
        with pytest.raises(FileError, match=r"cannot write to .*: Permission denied"):
            tune(text_file, 4, out=out, resume=True)
    preset = override(get_preset("char-small"), {**TINY, "train.epochs": "4"})
    with pytest.raises(FileError, match=r"train.epochs is 4.0, which differs .* has 3.0"):
        tuning.tune(load_corpus(text_file), preset, SearchConfig(), out=out, resume=True)


@pytest.mark.parametrize(
    "setting",
    [
        "train.learning_rate=1e-2", "train.betas=0.90,.99", "train.num_streams=04",
        "model.num_layers=1",
    ],
)  # fmt: skip
def test_a_search_goes_on_with_the_same_setting_in_other_words(
    text_file: Path, tmp_path: Path, setting: str
) -> None:
    fixed = {**TINY, "train.learning_rate": "0.01", "train.betas": "0.9,0.99"}
    name, _, in_other_words = setting.partition("=")

    def go_on(settings: dict[str, str], resume: bool = True, threads: int = 1) -> Any:
        config = SearchConfig(space=SearchSpace.parse(["model.dropout=0:0.5"]), trials=1)
        preset = dataclasses.replace(override(get_preset("char-small"), settings), threads=threads)
        return tuning.tune(
            load_corpus(text_file), preset, config, device="cpu", out=tmp_path / "a", resume=resume,
            record={"preset": "char-small", "settings": settings},
        )  # fmt: skip

    go_on(fixed, resume=False)
    assert len(go_on({**fixed, name: in_other_words}).trials) == 1
    with pytest.raises(FileError, match=f"{re.escape(name)} is .*, which differs"):
        go_on({**fixed, name: {"betas": "0.8,0.99"}.get(name.partition(".")[2], "2")})
    with pytest.raises(FileError, match="threads is 2, which differs"):
        go_on(fixed, threads=2)


@pytest.mark.parametrize("name", ["corpus", "corpus_fingerprint", "space", "seed", "prune"])
@pytest.mark.parametrize("wrong", [None, {}])
def test_a_damaged_record_of_a_search_is_one_error(
    name: str, wrong: object, tmp_path: Path
) -> None:
    record = {
        "format": "companion-search", "corpus": "a", "corpus_fingerprint": "f", "seed": 0,
        "space": [RATES], "startup": 5, "prune": True, "trials": 2, "preset": "small",
    }  # fmt: skip
    (tmp_path / "tune.json").write_text(json.dumps(record))
    assert tuning.recorded(tmp_path) == record
    del record[name]
    (tmp_path / "tune.json").write_text(
        json.dumps(record if wrong is None else {**record, name: wrong})
    )
    shown = "missing" if wrong is None else "{}"
    done = companion("tune", "--out", str(tmp_path), "--resume")
    assert done.returncode == 1
    assert f"tune.json is damaged: {name} is {shown}; begin another search" in done.stderr


def test_accelerate_launch_is_refused(text_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="one process, not under accelerate launch"):
        tune(text_file, 2)


# --- the command ---------------------------------------------------------------------------------


def command(text_file: Path) -> list[str]:
    settings = [f"--set={name}={value}" for name, value in TINY.items()]
    return [
        "tune", "--corpus", str(text_file), "--preset", "char-small", "--device", "cpu",
        "--space", RATES, *settings,
    ]  # fmt: skip


@pytest.mark.slow
def test_the_command_ends_with_a_table_a_picture_and_a_command(
    text_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    done = companion(*command(text_file), "--trials", "2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "learning_rate" in done.stdout
    assert done.stdout.count("complete") == 2
    assert (out / "search.png").read_bytes()[:4] == b"\x89PNG"
    assert "trial 1: complete" in done.stderr
    refused = companion(*command(text_file), "--trials", "3", "--out", str(out))
    assert refused.returncode == 1
    assert "on the command line: --resume" in refused.stderr

    done = companion("tune", "--out", str(out), "--resume", "--trials", "3", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [trial["number"] for trial in report["trials"]] == [0, 1, 2]
    best = report["trials"][report["best"]]
    words = shlex.split(report["command"])
    assert f"--set=train.learning_rate={best['settings']['train.learning_rate']}" in words
    trained = companion(*words[1:], "--device", "cpu")
    assert trained.returncode == 0, trained.stderr
    assert f"best validation {best['nats_per_token']:.4f}" in trained.stderr


def test_a_search_in_which_all_fails_is_an_error_with_the_reason(
    text_file: Path, tmp_path: Path
) -> None:
    done = companion(
        "tune", "--corpus", str(text_file), "--preset", "char-small", "--device", "cpu",
        "--space", "train.num_streams=90000,100000", "--trials", "2", "--out", str(tmp_path / "a"),
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: no trial is complete; the last one failed:" in done.stderr


def test_a_setting_is_fixed_or_varied_and_the_default_space_yields(
    text_file: Path, tmp_path: Path
) -> None:
    small = [
        "tune", "--corpus", str(text_file), "--preset", "char-small", "--device", "cpu",
        "--trials", "1", "--json", *(f"--set={name}={value}" for name, value in TINY.items()),
        "--set", "train.learning_rate=0.01",
    ]  # fmt: skip
    done = companion(*small, "--out", str(tmp_path / "a"))
    (trial,) = json.loads(done.stdout)["trials"]
    assert set(trial["settings"]) == {"model.dropout"}
    done = companion(*small, "--space", RATES, "--out", str(tmp_path / "b"))
    assert done.returncode == 1
    words = "error: train.learning_rate is fixed by --set and varied by --space; give one"
    assert words in done.stderr


def test_a_search_goes_on_though_only_some_of_its_settings_are_given_again(
    text_file: Path, tmp_path: Path
) -> None:
    out = ("--out", str(tmp_path / "a"))
    assert companion(*command(text_file), "--trials", "1", *out).returncode == 0
    one = [f"--set={name}={value}" for name, value in TINY.items()][:1]
    done = companion("tune", *out, "--resume", "--trials", "1", *one)
    assert done.returncode == 0, done.stderr
    done = companion("tune", *out, "--resume", "--trials", "1", "--set", "train.num_streams=3")
    assert "train.num_streams is 3, which differs" in done.stderr


@pytest.mark.slow
def test_ctrl_c_keeps_finished_trials_and_says_how_to_go_on(
    text_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    arguments = [*command(text_file), "--trials", "1000", "--out", str(out)]
    with subprocess.Popen(
        [sys.executable, "-m", "companion", *arguments], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, **TERMINAL},
        # A shell's background job ignores Ctrl-C, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        try:
            assert process.stderr.readline().startswith("trial 0: complete")
            time.sleep(0.1)  # into the next trial
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"companion tune --out {out} --resume" in stderr
    assert "complete" in stdout
    kept = len(json.loads((out / "trials.json").read_text())["trials"])
    done = companion("tune", "--out", str(out), "--resume", "--trials", str(kept + 1), "--json")
    assert len(json.loads(done.stdout)["trials"]) == kept + 1
