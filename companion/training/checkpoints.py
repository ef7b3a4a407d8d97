"""The folder of a run: its settings, metrics and checkpoints, from which training can resume.

    run.json            corpus, tokenizer kind, model and training configuration, seed, environment
    tokenizer.json      the tokenizer
    corpus.json         the training data: documents and characters of each split, what was dropped
                        and why
    metrics.jsonl       one record per line
    failed-step.json    the batch at which the loss stopped being finite, if it did
    checkpoints/step-00001200/
        model.safetensors     weights
        training.safetensors  optimizer moments, LSTM state, random-number state
        state.json            counters, whether its validation loss was the lowest so far, and
                              the SHA-256 of the two files above and of itself

Every file is written under another name, flushed to disk and then renamed, so a crash at any moment
leaves either the old or the new file. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import math
import os
import shlex
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from companion.core.files import (
    LOCK_FILE,
    FileError,
    digest,
    disk_errors,
    flush,
    is_free,
    load_tensors,
    partial_name,
    read_json,
    remove,
    save_tensors,
    write_json,
    write_text,
)

#: What is read of a checkpoint.
Read = TypeVar("Read")

FORMAT = "companion-run"
FORMAT_VERSION = 1
MODEL_FILE = "model.safetensors"
TRAINING_FILE = "training.safetensors"
STATE_FILE = "state.json"
#: Files in the folder of a run whose creation was interrupted before run.json was written.
_WRITTEN_FIRST = ("tokenizer.json", "corpus.json")
#: Folder in which a new run is written, so that the run it replaces stays until it is whole.
_NEW = ".new"
UNFINISHED_RUN = ("checkpoints", *_WRITTEN_FIRST, _NEW)
_AT_THE_TOP = ("run.json", *_WRITTEN_FIRST, "metrics.jsonl", "failed-step.json")
#: All files that a run writes into its folder, as patterns of paths.
_OF_A_RUN = (
    LOCK_FILE, *_AT_THE_TOP, *map(partial_name, _AT_THE_TOP), "tensorboard/events.*", f"{_NEW}/*",
    *(
        f"checkpoints/{folder}/{name}"
        for folder in ("step-*", ".partial-*")
        for name in (MODEL_FILE, TRAINING_FILE, STATE_FILE, partial_name(STATE_FILE))
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that training needs to continue exactly as if it had not stopped."""

    step: int
    """Optimizer steps done."""
    model: Mapping[str, Tensor]
    """Weights by parameter name."""
    training: Mapping[str, Tensor]
    """Tensors of the optimizer, the carried LSTM state and the random-number generators."""
    counters: Mapping[str, Any]
    """The numbers of `trainer.Progress`: lowest validation loss so far, validations since then,
    seconds used."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What use of a model needs of a checkpoint; training needs a `Checkpoint`."""

    step: int
    """Optimizer steps done."""
    model: Mapping[str, Tensor]
    """Weights by parameter name."""


class RunFolder:
    """The folder of one run. `create` makes it, `open` opens it, `only_writer` locks it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.metrics_path = self.path / "metrics.jsonl"

    @classmethod
    def create(
        cls,
        path: str | Path,
        record: Mapping[str, Any],
        *,
        overwrite: bool = False,
        prepare: Callable[[Path], object] | None = None,
    ) -> RunFolder:
        """A new folder at `path` that holds `record` as run.json.

        Raises FileError if the folder exists, unless `overwrite` is true and it holds a run and
        nothing else; that run is removed when all of the new one has been written.
        `prepare(folder)` writes the other files that a run needs into a folder, from which they are
        moved to `path`. run.json comes last, so a folder with run.json is complete.
        """
        run = cls(path)
        run.check_free(overwrite=overwrite)
        new = run.path / _NEW
        try:
            with disk_errors(run.path):
                remove(new)
                (new / "checkpoints").mkdir(parents=True)
                if prepare is not None:
                    prepare(new)
                write_json(
                    new / "run.json", {"format": FORMAT, "version": FORMAT_VERSION, **record}
                )
            for old in _run_json_last(run.path):
                if old.name not in (LOCK_FILE, _NEW):
                    _remove(old)
            for written in _run_json_last(new):
                os.replace(written, run.path / written.name)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return run

    def check_free(self, *, overwrite: bool) -> None:
        """Raise FileError if `create` would refuse to make this folder; changes nothing."""
        if is_free(self.path, UNFINISHED_RUN):
            return
        if not overwrite:
            raise FileError(
                f"{self.path} already exists; choose another folder, replace the run in it by "
                "overwrite=True, or go on with it by resume_run (on the command line: --overwrite "
                "or --resume)"
            )
        if not (self.path / "run.json").exists():
            raise FileError(
                f"{self.path} exists and is not a run of companion; nothing was changed, "
                "choose another folder"
            )
        for path in sorted(self.path.rglob("*")):
            own = path.relative_to(self.path).as_posix()
            if not path.is_dir() and not any(fnmatch.fnmatch(own, each) for each in _OF_A_RUN):
                raise FileError(
                    f"{path} does not belong to the run; nothing was changed, move it "
                    "elsewhere or choose another folder"
                )

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The run at `path`; FileError when it is missing, not a run, or of another version."""
        run = cls(path)
        if not run.path.exists():
            raise FileError(
                f"no run at {run.path}; train one with train_run (on the command line: companion "
                f"train --out {shlex.quote(str(run.path))})"
            )
        run.record()
        return run

    def record(self) -> dict[str, Any]:
        """The contents of run.json."""
        record = read_json(self.path / "run.json", "a run of companion")
        if record.get("format") != FORMAT:
            raise FileError(f"{self.path} is not a run of companion: run.json does not say so")
        if record.get("version") != FORMAT_VERSION:
            raise FileError(
                f"{self.path} has run format version {record.get('version')}, this companion reads "
                f"version {FORMAT_VERSION}; use the companion that wrote it "
                f"({record.get('environment', {}).get('companion', 'unknown')}) or train again"
            )
        return record

    def save(self, checkpoint: Checkpoint | Weights, *, best: bool = False) -> Path:
        """Write a checkpoint; keep it, the one before it and the best, and remove the others.

        From `Weights` a model can be loaded, and training cannot go on.
        """
        target = self.checkpoints / f"step-{checkpoint.step:08d}"
        replaced = target.with_suffix(".replaced")
        partial = self.checkpoints / f".partial-{checkpoint.step:08d}"
        with disk_errors(self.path, partial):
            remove(partial)
            partial.mkdir(parents=True)
            state: dict[str, Any] = {
                "step": checkpoint.step,
                "best": best,
                "sha256": {},
            }
            files = {MODEL_FILE: checkpoint.model}
            if isinstance(checkpoint, Checkpoint):
                state["counters"] = dict(checkpoint.counters)
                files[TRAINING_FILE] = checkpoint.training
            for name, tensors in files.items():
                save_tensors(tensors, partial / name)
                flush(partial / name)
                state["sha256"][name] = digest(partial / name)
            state["sha256"][STATE_FILE] = _digest_of_state(state)
            write_json(partial / STATE_FILE, state)
            if target.exists():  # a folder cannot be replaced in one step, so set it aside first
                remove(replaced)
                os.replace(target, replaced)
            os.replace(partial, target)  # atomic: from here on the new checkpoint counts
            flush(self.checkpoints)
            remove(replaced)
        self._prune()
        return target

    def latest(self) -> Checkpoint | None:
        """The newest undamaged checkpoint; None when none was written.

        Damaged ones are skipped, each with a warning. Raises FileError when all are damaged.
        """
        return self._newest(self.load)

    def _newest(self, read: Callable[[Path], Read]) -> Read | None:
        """The newest checkpoint that `read` does not refuse."""
        damaged = []
        for path in reversed(self._steps()):
            try:
                checkpoint = read(path)
            except FileError as error:
                damaged.append(str(error))
                continue
            for message in damaged:
                warnings.warn(f"{message}; going on from {path.name} instead", stacklevel=3)
            return checkpoint
        if damaged:
            raise FileError(f"no checkpoint in {self.path} is whole: {damaged[0]}")
        return None

    def best(self) -> Weights:
        """The weights with the lowest validation loss; the newest if none were validated.

        FileError where they are damaged; it says which other checkpoint is whole, and how to use
        that.
        """
        path, damaged = self._best()
        for message in damaged:
            warnings.warn(
                f"{message}; it may have been the best, taking {path.name if path else 'another'}",
                stacklevel=2,
            )
        if path is not None:
            return self._weights(path)
        weights = self._newest(self._weights)
        if weights is None:
            raise FileError(
                f"{self.path} has no checkpoint yet; go on with resume_run (on the command line: "
                f"companion train --out {shlex.quote(str(self.path))} --resume)"
            )
        return weights

    def load(self, path: Path) -> Checkpoint:
        """Read one checkpoint, checking its files against their SHA-256."""
        state = self._state(path)
        if TRAINING_FILE not in state["sha256"]:
            raise FileError(
                f"checkpoint {path} holds the weights alone, so training cannot go on from it; "
                "evaluate and generate can use it"
            )
        return Checkpoint(
            step=int(state["step"]),
            model=_tensors(path, MODEL_FILE, state),
            training=_tensors(path, TRAINING_FILE, state),
            counters=state["counters"],
        )

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        with disk_errors(self.path), self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def metrics(self, *, up_to_step: int | None = None) -> list[dict[str, Any]]:
        """The records of metrics.jsonl; an incomplete last line after a crash is left out."""
        if not self.metrics_path.exists():
            return []
        records = []
        for number, line in enumerate(self.metrics_path.read_bytes().splitlines(), start=1):
            try:
                record = json.loads(line)
                wanted = record["step"] <= (math.inf if up_to_step is None else up_to_step)
            except json.JSONDecodeError:
                break
            except (UnicodeDecodeError, LookupError, TypeError) as error:
                raise FileError(
                    f"{self.metrics_path} is damaged in line {number} ({error!r:.60}); remove this "
                    "line and those after it"
                ) from error
            if wanted:
                records.append(record)
        return records

    def write_failure(self, failure: Mapping[str, Any]) -> None:
        """Write failed-step.json: the step at which training failed, with its batch."""
        with disk_errors(self.path):
            write_json(self.path / "failed-step.json", failure)

    def rewind_metrics(self, step: int) -> list[dict[str, Any]]:
        """Remove the records after `step`, which a resumed run writes again; return the others."""
        records = self.metrics(up_to_step=step)
        text = "".join(json.dumps(record) + "\n" for record in records)
        with disk_errors(self.path):
            write_text(self.metrics_path, text)
        return records

    def _state(self, path: Path) -> dict[str, Any]:
        """The state.json of a checkpoint, checked against the SHA-256 in it."""
        state = read_json(path / STATE_FILE, "a checkpoint of companion")
        digests = state.get("sha256")
        if not isinstance(digests, dict) or digests.get(STATE_FILE) != _digest_of_state(state):
            raise FileError(_damaged(path, STATE_FILE))
        return state

    def _weights(self, path: Path) -> Weights:
        """A checkpoint's weights; the file of the optimizer is not looked at."""
        state = self._state(path)
        try:
            model = _tensors(path, MODEL_FILE, state)
        except FileError as error:
            raise FileError(f"{error}; {self._instead_of(path)}") from error
        return Weights(step=int(state["step"]), model=model)

    def _instead_of(self, damaged: Path) -> str:
        """What to do about a damaged checkpoint: use the one that is taken without it."""
        others = [path for path in reversed(self._steps()) if path != damaged]
        marked = []
        for path in others:
            with contextlib.suppress(FileError):
                state = self._state(path)
                _tensors(path, MODEL_FILE, state)
                marked.append((not state["best"], path))
        if not marked:
            again = "compress the run again" if "compressed" in self.record() else "train again"
            return f"no other checkpoint is whole, so {again}"
        _, path = min(marked, key=lambda pair: pair[0])  # the newest of the best, or the newest
        return f"{path.name} is whole: remove the folder {damaged.name}, and it is used instead"

    def _best(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint marked as best, and error messages about damaged later ones.

        Each checkpoint marked as best has a lower loss than all before it.
        """
        damaged: list[str] = []
        for path in reversed(self._steps()):
            try:
                if self._state(path)["best"]:
                    return path, damaged
            except FileError as error:
                damaged.append(str(error))
        return None, damaged

    def _steps(self) -> list[Path]:
        """Paths of the checkpoints, newest last; a replaced one comes before its replacement."""
        found = self.checkpoints.glob("step-*")
        return sorted(found, key=lambda path: (path.stem, path.suffix == ""))

    def _prune(self) -> None:
        keep = {*self._steps()[-2:], self._best()[0]}
        for path in self._steps():
            if path not in keep:
                remove(path)


def optimizer_tensors(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: `optimizer.<parameter>.<moment>`."""
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    return {
        f"optimizer.{names[parameter]}.{key}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def restore_optimizer(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Restore the optimizer from `optimizer_tensors`, on the device of each parameter."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            name, moment = key.removeprefix("optimizer.").rsplit(".", 1)
            parameter = parameters[name]
            optimizer.state[parameter][moment] = value.to(parameter.device)


def _tensors(path: Path, name: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors in a file of a checkpoint, checked against the SHA-256 in its state."""
    file = path / name
    if not file.exists():
        raise FileError(f"checkpoint {path} is damaged: {name} is missing")
    if digest(file) != state["sha256"].get(name):
        raise FileError(_damaged(path, name))
    try:
        return load_tensors(file)
    except SafetensorError as error:  # right digest but wrong contents: not written by us
        raise FileError(f"checkpoint {path} cannot be read: {error}") from error


def _damaged(path: Path, name: str) -> str:
    return (
        f"checkpoint {path} is damaged: {name} is not the file that was written "
        "(truncated or changed)"
    )


def _digest_of_state(state: Mapping[str, Any]) -> str:
    """SHA-256 of the contents of state.json, without this digest itself."""
    files = {name: value for name, value in state["sha256"].items() if name != STATE_FILE}
    text = json.dumps({**state, "sha256": files}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _run_json_last(folder: Path) -> list[Path]:
    """What is in the folder of a run; run.json last, which marks the rest as a run."""
    return sorted(folder.iterdir(), key=lambda path: path.name == "run.json")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
