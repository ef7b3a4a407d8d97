"""Hyperparameter search with Optuna: the search space and the loop over trials.

Optuna proposes the settings (TPE, Bergstra et al. 2011) and stops trials whose loss is above the
median of the others' at the same validation. The caller gives the objective;
`companion.runs.tuning` gives one that trains.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import threading
import typing
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from companion.core.files import FileError
from companion.core.runtime import interruptible
from companion.core.seeds import check_seed
from companion.core.settings import check_sizes, parse, settings_class
from companion.runs.presets import Preset, is_setting, override, setting_type
from companion.training.trainer import TrainingError

#: Value of a setting: a number if possible, otherwise text.
Value = int | float | str
#: Settings whose trials were cut off this many times, perhaps for lack of memory, are given up.
MOST_DEATHS = 3


@dataclass(frozen=True, kw_only=True)
class Range:
    """The values that one setting may take: an interval, or a few choices."""

    setting: str
    """Name of the setting, as in `presets.override`: train.FIELD or model.FIELD."""
    low: float | None = None
    """Lowest value of the interval, inclusive."""
    high: float | None = None
    """Highest value of the interval, inclusive."""
    log: bool = False
    """Draw uniformly on a logarithmic scale, for settings such as the learning rate."""
    choices: tuple[Value, ...] = ()
    """The values to choose from, instead of `low` and `high`."""

    def __post_init__(self) -> None:
        if self.choices:
            if (self.low, self.high, self.log) != (None, None, False):
                raise ValueError(f"{self.setting}: give choices or low and high, not both")
            if len(set(self.choices)) < max(2, len(self.choices)):
                raise ValueError(
                    f"{self.setting}: choices must be two or more different values, got "
                    f"{','.join(map(str, self.choices))}; a fixed value is a setting, not a range"
                )
            return
        if self.low is None or self.high is None:
            raise ValueError(f"{self.setting}: give low and high, or choices")
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(
                f"{self.setting}: low must be below high and both finite, got "
                f"{self.low:g}:{self.high:g}"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"{self.setting}: low must be > 0 on a log scale, got {self.low:g}")
        if self.integer and (self.low % 1 or self.high % 1):
            raise ValueError(
                f"{self.setting} is an integer, got the ends {self.low:g} and {self.high:g}"
            )

    @classmethod
    def parse(cls, text: str) -> Range:
        """Parse `NAME=LOW:HIGH`, `NAME=LOW:HIGH:log` or `NAME=VALUE,VALUE,...`."""
        setting, _, values = text.partition("=")
        ends = values.split(":")
        if "," in values and len(ends) == 1:
            choices = tuple(parse(setting, each, Value) for each in values.split(","))
            return cls(setting=setting, choices=choices)
        numbers = [parse(setting, end, Value) for end in ends[:2]]
        low, high = numbers if len(numbers) == 2 else ("", "")
        if isinstance(low, str) or isinstance(high, str) or ends[2:] not in ([], ["log"]):
            raise ValueError(
                f"a range is NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=VALUE,VALUE,..., got {text!r}"
            )
        return cls(setting=setting, low=float(low), high=float(high), log=len(ends) == 3)

    def __str__(self) -> str:
        """The range as text that `parse` can read."""
        if self.choices:
            return f"{self.setting}={','.join(map(str, self.choices))}"
        return f"{self.setting}={self.low:g}:{self.high:g}" + (":log" if self.log else "")

    @property
    def integer(self) -> bool:
        """Whether the setting is an integer."""
        declared = setting_type(self.setting)
        return int in (declared, *typing.get_args(declared))

    @property
    def ends(self) -> tuple[Value, ...]:
        """The choices, or the lowest and the highest value."""
        if self.choices or self.low is None or self.high is None:
            return self.choices
        return (int(self.low), int(self.high)) if self.integer else (self.low, self.high)

    def draw(self, trial: Any) -> Value:
        """The value that Optuna's `trial` proposes; fractions are rounded to four digits."""
        if self.choices:
            chosen: Value = trial.suggest_categorical(self.setting, self.choices)
            return chosen
        low, high = self.ends
        if self.integer:
            return int(trial.suggest_int(self.setting, low, high, log=self.log))
        drawn = trial.suggest_float(self.setting, low, high, log=self.log)
        return min(max(float(f"{drawn:.4g}"), float(low)), float(high))


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The settings that a search varies, and their ranges."""

    ranges: tuple[Range, ...]
    """One range for each setting."""

    def __post_init__(self) -> None:
        names = [each.setting for each in self.ranges]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"a search space needs one range or more, one a setting, got {', '.join(names)}"
            )

    @classmethod
    def parse(cls, texts: Sequence[str]) -> SearchSpace:
        """Parse each text with `Range.parse`, such as `["train.learning_rate=1e-3:3e-2:log"]`."""
        return cls(ranges=tuple(map(Range.parse, texts)))

    def without(self, settings: Collection[str]) -> SearchSpace:
        """The space of the other settings; ValueError when none is left."""
        left = tuple(each for each in self.ranges if each.setting not in settings)
        if not left:
            raise ValueError("all settings of this search space are fixed; vary other ones")
        return SearchSpace(ranges=left)

    def check(self, preset: Preset) -> None:
        """Raise a ValueError that names the setting if a range's ends are invalid in `preset`."""
        for each in self.ranges:
            if not each.setting.startswith(("model.", "train.")) and is_setting(each.setting):
                raise ValueError(
                    f"range {each}: a search varies only settings of model and train, because "
                    "losses of different tokenizers cannot be compared; set it in the preset (on "
                    "the command line: --set)"
                )
            for value in each.ends:
                try:
                    override(preset, {each.setting: str(value)})
                except ValueError as error:
                    raise ValueError(f"range {each}: {error}") from None


#: The settings that matter most in nearly every run.
DEFAULT_SPACE = SearchSpace.parse(
    ["train.learning_rate=1e-3:3e-2:log", "model.dropout=0:0.5", "train.num_streams=16,32,64"]
)


@settings_class
class SearchConfig:
    """Settings of a search."""

    space: SearchSpace = DEFAULT_SPACE
    """The settings that vary, and their ranges."""
    trials: int = 20
    """Number of trials to finish, including those stopped early."""
    startup: int = 5
    """Number of first trials with random settings; TPE and early stopping begin after them."""
    prune: bool = True
    """Whether to stop a trial whose lowest loss is above the median of the others' at the same
    validation, from the second validation on."""
    seed: int = 0
    """Seed of the proposals, and of every trial's weights and dropout."""

    def __post_init__(self) -> None:
        check_sizes(trials=self.trials, startup=self.startup)
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of a search."""

    number: int
    """Number of the trial, from 0 in the order of starting."""
    state: str
    """"complete", "pruned" (stopped early) or "failed"."""
    settings: dict[str, Value]
    """The drawn value of each setting, by name."""
    nats_per_token: float | None
    """Lowest validation loss, in nats per token; None if none was measured."""
    validations: list[float]
    """Validation losses in nats per token, in order."""
    seconds: float
    """Wall-clock seconds that the trial took."""
    reason: str | None = None
    """Error message of a failed trial; None for the others."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The result of a search."""

    trials: list[Trial] = field(repr=False)
    """The trials that ended, in the order of their numbers."""
    space: SearchSpace = field(repr=False)
    """The search space of the trials."""
    stopped: str
    """Why the search ended: "finished" or "interrupted"."""

    @property
    def best(self) -> Trial | None:
        """The complete trial with the lowest validation loss; None if no trial is complete."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return min(complete, key=_loss, default=None)


class PrunedError(Exception):
    """Raised by an objective's `report` to stop a trial early."""


#: Called with the settings as text, and with a function `report` to call with each validation loss,
#: which may raise PrunedError; returns the lowest loss.
Objective = Callable[[dict[str, str], Callable[[float], None]], float]


def search(
    objective: Objective,
    config: SearchConfig,
    *,
    database: Path | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Minimise `objective` over `config.space`.

    A `database` stores the trials and shares them between processes. Proposals depend only on the
    seed, the trial's number and the trials that ended before it, so a resumed search makes the same
    proposals as one that was never stopped. Ctrl-C ends the search at the next report or trial, a
    second one at once. A trial interrupted by it or by the death of its process is marked as
    failed, and the next trial repeats its settings.
    """
    with (
        interruptible() as interrupted,
        _study(config, database) as (optuna, study),
        _worker(database) as worker,
    ):
        states = optuna.trial.TrialState
        while len(study.get_trials(states=(states.COMPLETE, states.PRUNED))) < config.trials:
            with _alone(database):
                if database is not None:
                    _give_up_the_dead(study, database)
                trial = study.ask()
                trial.set_user_attr("worker", worker)
            seed = np.random.SeedSequence((config.seed, _turn(study, trial))).generate_state(1)
            study.sampler = optuna.samplers.TPESampler(
                seed=int(seed[0]),
                n_startup_trials=config.startup,
                multivariate=False,  # the joint sampler draws before the number is known
            )
            try:
                settings = {each.setting: each.draw(trial) for each in config.space.ranges}
                trial.set_user_attr("settings", settings)
                texts = {name: str(value) for name, value in settings.items()}
                study.tell(trial, _finite(objective(texts, _reporter(trial, interrupted))))
            except PrunedError:
                study.tell(trial, state=states.PRUNED)
            except (ValueError, TrainingError) as error:
                trial.set_user_attr("reason", str(error))
                study.tell(trial, state=states.PRUNED)  # so that TPE learns to keep away
            except KeyboardInterrupt:
                _give_up(study, trial)
                return _result(study, config, "interrupted")
            if on_trial is not None:
                on_trial(next(t for t in _ended(study) if t.number == trial.number))
            if interrupted.is_set():
                return _result(study, config, "interrupted")
        return _result(study, config, "finished")


def in_words(trial: Trial) -> str:
    """One line about a trial that ended."""
    drawn = ", ".join(f"{name.partition('.')[2]} {value}" for name, value in trial.settings.items())
    loss = "" if trial.nats_per_token is None else f" {trial.nats_per_token:.4f} nats/token,"
    reason = "" if trial.reason is None else f" ({trial.reason})"
    return f"trial {trial.number}: {trial.state},{loss} {trial.seconds:.1f} s: {drawn}{reason}"


def import_optuna() -> Any:
    """The module optuna; if it is missing, a ValueError that explains how to install it."""
    try:
        import optuna
    except ImportError as error:
        raise ValueError(
            "tuning needs optuna, which is not installed; install it with: "
            "python -m pip install optuna"
        ) from error
    return optuna


def create_study(config: SearchConfig, database: Path) -> None:
    """Make an empty study in `database`, for `search` to fill."""
    with _study(config, database):
        pass


@contextlib.contextmanager
def _study(config: SearchConfig, database: Path | None) -> Iterator[tuple[Any, Any]]:
    """Optuna with its log messages off, and its study, which is created if it does not exist."""
    optuna = import_optuna()
    from sqlalchemy.exc import DatabaseError  # optuna needs it, so it is there

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.NopPruner()
    if config.prune:
        # Not at the first validation: the learning rate may only just have warmed up.
        pruner = optuna.pruners.MedianPruner(n_startup_trials=config.startup, n_warmup_steps=2)
    storage = None
    try:
        if database is not None:
            storage = _storage(optuna, database)
        yield (
            optuna,
            optuna.create_study(
                study_name="search", storage=storage, load_if_exists=True, pruner=pruner
            ),
        )
    except (optuna.exceptions.StorageInternalError, DatabaseError) as error:
        cause = error.__cause__ or error
        # SQLAlchemy's own words hold the statement and an address; SQLite's are one sentence.
        raise FileError(f"cannot use {database}: {getattr(cause, 'orig', cause)}") from error
    finally:
        optuna.logging.set_verbosity(verbosity)
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()


def _storage(optuna: Any, database: Path) -> Any:
    """Optuna's storage in an SQLite file."""

    def connect() -> sqlite3.Connection:
        # Not by a URL, in which characters such as ? have a meaning. The timeout, in seconds, is
        # how long a process waits while another writes.
        return sqlite3.connect(database, timeout=60)

    return optuna.storages.RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect})


def _alone(database: Path | None) -> contextlib.AbstractContextManager[Any]:
    """A lock under which one process at a time starts a trial or abandons interrupted ones."""
    if database is None:
        return contextlib.nullcontext()
    return FileLock(database.with_name(f".{database.name}.lock"), timeout=60)


@contextlib.contextmanager
def _worker(database: Path | None) -> Iterator[str]:
    """A unique name for this process, and a lock that it holds: a free lock means it has died."""
    name = uuid.uuid4().hex
    if database is None:
        yield name
        return
    path = _worker_lock(database, name)
    try:
        with FileLock(path):
            yield name
    finally:
        path.unlink(missing_ok=True)


def _worker_lock(database: Path, worker: str) -> Path:
    return database.with_name(f".worker-{worker}.lock")


def _give_up_the_dead(study: Any, database: Path) -> None:
    """Abandon the trials marked as running whose process was killed."""
    for trial in study.get_trials():
        if trial.state.name != "RUNNING":
            continue
        path = _worker_lock(database, trial.user_attrs.get("worker", "nobody"))
        try:
            with FileLock(path, timeout=0):
                _give_up(study, trial)
        except Timeout:  # it lives
            continue
        path.unlink(missing_ok=True)


def _give_up(study: Any, trial: Any) -> None:
    """Mark an interrupted trial as failed, and queue its settings to be tried again."""
    first = trial.user_attrs.get("retry_of", trial.number)
    lives = sum(first in (t.number, t.user_attrs.get("retry_of")) for t in study.get_trials())
    if lives < MOST_DEATHS:
        study.enqueue_trial(trial.params, user_attrs={"retry_of": first})
    study.tell(trial.number, state=import_optuna().trial.TrialState.FAIL)


def _turn(study: Any, trial: Any) -> int:
    """The trial's number if a repetition of an interrupted trial has the number of that trial."""
    number = trial.user_attrs.get("retry_of", trial.number)
    earlier = (t for t in study.get_trials(deepcopy=False) if t.number < number)
    return sum("retry_of" not in t.user_attrs for t in earlier)


def _reporter(trial: Any, interrupted: threading.Event) -> Callable[[float], None]:
    """The function `report` that an objective calls with each validation loss."""
    losses: list[float] = []

    def report(nats_per_token: float) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        losses.append(_finite(nats_per_token))
        trial.report(nats_per_token, len(losses))
        if trial.should_prune():
            raise PrunedError

    return report


def _finite(nats_per_token: float) -> float:
    if not math.isfinite(nats_per_token):
        raise ValueError(f"the validation loss is {nats_per_token}; lower the learning rate")
    return nats_per_token


def _loss(trial: Trial) -> float:
    return math.inf if trial.nats_per_token is None else trial.nats_per_token


def _result(study: Any, config: SearchConfig, stopped: str) -> SearchResult:
    return SearchResult(trials=_ended(study), space=config.space, stopped=stopped)


def _ended(study: Any) -> list[Trial]:
    """The study's trials that ended, without those interrupted by Ctrl-C or a crash."""
    trials = []
    for frozen in study.get_trials():
        if frozen.state.name not in ("COMPLETE", "PRUNED"):
            continue
        validations = [loss for _, loss in sorted(frozen.intermediate_values.items())]
        losses = validations if frozen.value is None else [*validations, frozen.value]
        trials.append(
            Trial(
                number=frozen.number,
                state="failed" if "reason" in frozen.user_attrs else frozen.state.name.lower(),
                settings=frozen.user_attrs.get("settings", frozen.params),
                nats_per_token=min(losses, default=None),
                validations=validations,
                seconds=round(frozen.duration.total_seconds(), 3),
                reason=frozen.user_attrs.get("reason"),
            )
        )
    return trials
