"""A run's folder: what was trained, how far it got, and how to go on.

    run.json            corpus, tokenizer kind, model and training configuration, seed, environment
    tokenizer.json      the tokenizer
    corpus.json         what the run learns from: documents and characters of each split, what was
                        dropped and why
    metrics.jsonl       one record a line
    failed-step.json    the batch at which the loss stopped being finite, if it did
    checkpoints/step-00001200/
        model.safetensors     weights
        training.safetensors  optimizer moments, LSTM state, random-number state
        state.json            counters, whether its validation loss was the lowest so far, and
                              the SHA-256 of the two files above and of itself

Every file is written under another name, flushed to the disk and then renamed, so a crash at any
moment leaves either the old or the new one. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = "companion-run"
FORMAT_VERSION = 1
MODEL_FILE = "model.safetensors"
TRAINING_FILE = "training.safetensors"
STATE_FILE = "state.json"
LOCK_FILE = ".lock"
#: What stands beside a lock in a folder whose making was cut off before run.json was there.
_WRITTEN_FIRST = ("tokenizer.json", "corpus.json")
UNFINISHED_RUN = (
    "checkpoints",
    *_WRITTEN_FIRST,
    *(f".{name}.partial" for name in ("run.json", *_WRITTEN_FIRST)),
)


class CheckpointError(ValueError):
    """A run folder or a checkpoint that cannot be used; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that training needs to go on as if it had never stopped."""

    step: int
    """Optimizer steps done."""
    model: Mapping[str, Tensor]
    """Weights by parameter name."""
    training: Mapping[str, Tensor]
    """Tensors of the optimizer, the carried LSTM state and the random-number generators."""
    counters: Mapping[str, Any]
    """Plain numbers: best loss so far, evaluations without improvement, seconds used."""


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made; CheckpointError while another process holds it.

    The system lets go of it when a process ends, however it ends. Reading needs no lock.
    """
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(
                f"another process is writing to {folder}; wait until it ends, or choose another "
                "--out"
            ) from None
    try:
        yield
    finally:
        lock.release()


def is_free(folder: Path, unfinished: Collection[str]) -> bool:
    """Whether `folder` is missing or empty, or holds a lock and `unfinished` files alone: what a
    process leaves that was killed while it made the folder."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return not names or (LOCK_FILE in names and names <= {LOCK_FILE, *unfinished})


class RunFolder:
    """The folder of one run. `create` makes it, `open` finds it; `only_writer` keeps others out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics_path = path / "metrics.jsonl"

    @classmethod
    def create(
        cls,
        path: str | Path,
        record: Mapping[str, Any],
        *,
        overwrite: bool = False,
        prepare: Callable[[Path], object] | None = None,
    ) -> RunFolder:
        """A new folder at `path` holding `record` as run.json.

        An existing one is refused, or replaced when `overwrite` and when it is a run of ours.
        `prepare(path)` writes what a run needs besides: run.json comes last, and whoever finds it
        finds all.
        """
        run = cls(Path(path))
        run.check_free(overwrite=overwrite)
        with _disk_errors(run.path):
            if run.path.exists():
                _empty(run.path)
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            if prepare is not None:
                prepare(run.path)
            write_json(
                run.path / "run.json", {"format": FORMAT, "version": FORMAT_VERSION, **record}
            )
        return run

    def check_free(self, *, overwrite: bool) -> None:
        """CheckpointError, and nothing changed, where `create` refuses to make this folder."""
        if is_free(self.path, UNFINISHED_RUN):
            return
        if not overwrite:
            raise CheckpointError(
                f"{self.path} already exists; choose another --out, or give --resume or --overwrite"
            )
        if not (self.path / "run.json").exists():
            raise CheckpointError(
                f"{self.path} exists and is not a run of companion; nothing was changed, "
                "choose another --out"
            )

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The run at `path`; CheckpointError when it is missing, foreign or of another version."""
        run = cls(Path(path))
        if not run.path.exists():
            raise CheckpointError(
                f"no run at {run.path}; train one with: companion train --out {run.path}"
            )
        run.record()
        return run

    def record(self) -> dict[str, Any]:
        """The contents of run.json."""
        record = read_json(self.path / "run.json", "a run of companion")
        if record.get("format") != FORMAT:
            raise CheckpointError(
                f"{self.path} is not a run of companion: run.json does not say so"
            )
        if record.get("version") != FORMAT_VERSION:
            raise CheckpointError(
                f"{self.path} has run format version {record.get('version')}, this companion reads "
                f"version {FORMAT_VERSION}; use the companion that wrote it "
                f"({record.get('environment', {}).get('companion', 'unknown')}) or train again"
            )
        return record

    def save(self, checkpoint: Checkpoint, *, best: bool = False) -> Path:
        """Write a checkpoint; keep it, the one before it and the best, remove the others."""
        target = self.checkpoints / f"step-{checkpoint.step:08d}"
        partial = self.checkpoints / f".partial-{checkpoint.step:08d}"
        with _disk_errors(self.path, partial):
            _remove(partial)
            partial.mkdir(parents=True)
            state: dict[str, Any] = {
                "step": checkpoint.step,
                "best": best,
                "counters": dict(checkpoint.counters),
                "sha256": {},
            }
            for name, tensors in (
                (MODEL_FILE, checkpoint.model),
                (TRAINING_FILE, checkpoint.training),
            ):
                # Tied weights share storage, which safetensors refuses: store a copy of each.
                save_file({k: v.detach().cpu().clone() for k, v in tensors.items()}, partial / name)
                _flush(partial / name)
                state["sha256"][name] = _digest(partial / name)
            state["sha256"][STATE_FILE] = _digest_of_state(state)
            write_json(partial / STATE_FILE, state)
            _remove(target)
            os.replace(partial, target)  # the one moment at which everything changes
            _flush(self.checkpoints)
        self._prune()
        return target

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None when none was written.

        A damaged one is passed over, with a warning that names it. When all are damaged,
        CheckpointError.
        """
        damaged = []
        for path in reversed(self._steps()):
            try:
                checkpoint = self.load(path)
            except CheckpointError as error:
                damaged.append(str(error))
                continue
            for message in damaged:
                warnings.warn(f"{message}; going on from {path.name} instead", stacklevel=2)
            return checkpoint
        if damaged:
            raise CheckpointError(f"no checkpoint in {self.path} is whole: {damaged[0]}")
        return None

    def best(self) -> Checkpoint:
        """The checkpoint with the lowest validation loss; the newest where none was evaluated."""
        path, damaged = self._best()
        for message in damaged:
            warnings.warn(
                f"{message}; it may have been the best, taking {path.name if path else 'another'}",
                stacklevel=2,
            )
        if path is not None:
            return self.load(path)
        checkpoint = self.latest()
        if checkpoint is None:
            raise CheckpointError(
                f"{self.path} has no checkpoint yet; go on with: "
                f"companion train --out {self.path} --resume"
            )
        return checkpoint

    def load(self, path: Path) -> Checkpoint:
        """Read one checkpoint, checking its files against their SHA-256."""
        state = self._state(path)
        loaded = {}
        for name in (MODEL_FILE, TRAINING_FILE):
            file = path / name
            if not file.exists():
                raise CheckpointError(f"checkpoint {path} is damaged: {name} is missing")
            if _digest(file) != state["sha256"].get(name):
                raise CheckpointError(_damaged(path, name))
            try:
                # Copies: Windows removes no file that a tensor still reads from.
                loaded[name] = {key: value.clone() for key, value in load_file(file).items()}
            except SafetensorError as error:  # digest right, contents not: not written by us
                raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
        return Checkpoint(
            step=int(state["step"]),
            model=loaded[MODEL_FILE],
            training=loaded[TRAINING_FILE],
            counters=state["counters"],
        )

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        with _disk_errors(self.path), self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def metrics(self, *, up_to_step: int | None = None) -> list[dict[str, Any]]:
        """The records of metrics.jsonl; a last line cut short by a crash is left out."""
        if not self.metrics_path.exists():
            return []
        records = []
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                break
            if up_to_step is None or record["step"] <= up_to_step:
                records.append(record)
        return records

    def write_failure(self, failure: Mapping[str, Any]) -> None:
        """Write down the step at which training failed, with its batch, as failed-step.json."""
        with _disk_errors(self.path):
            write_json(self.path / "failed-step.json", failure)

    def rewind_metrics(self, step: int) -> list[dict[str, Any]]:
        """Drop the records after `step`, which a resumed run writes again; return those kept."""
        records = self.metrics(up_to_step=step)
        text = "".join(json.dumps(record) + "\n" for record in records)
        with _disk_errors(self.path):
            _write_text(self.metrics_path, text)
        return records

    def _state(self, path: Path) -> dict[str, Any]:
        """The state.json of a checkpoint, checked against the SHA-256 in it."""
        state = read_json(path / STATE_FILE, "a checkpoint of companion")
        digests = state.get("sha256")
        if not isinstance(digests, dict) or digests.get(STATE_FILE) != _digest_of_state(state):
            raise CheckpointError(_damaged(path, STATE_FILE))
        return state

    def _best(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint that was the best of its time, and what is wrong with later ones.

        A best one is better than every best one before it.
        """
        damaged: list[str] = []
        for path in reversed(self._steps()):
            try:
                if self._state(path)["best"]:
                    return path, damaged
            except CheckpointError as error:
                damaged.append(str(error))
        return None, damaged

    def _steps(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step-*"))

    def _prune(self) -> None:
        keep = {*self._steps()[-2:], self._best()[0]}
        for path in self._steps():
            if path not in keep:
                _remove(path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` to `path` as JSON, all or nothing."""
    _write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object at `path`; CheckpointError naming `what` was expected when it is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{path.parent} is not {what}: {path.name} {_reason(error)}"
        ) from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise CheckpointError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} is damaged: expected a JSON object, got {type(value).__name__}"
        )
    return value


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
    """Put back what `optimizer_tensors` took, on each parameter's own device."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            name, moment = key.removeprefix("optimizer.").rsplit(".", 1)
            parameter = parameters[name]
            optimizer.state[parameter][moment] = value.to(parameter.device)


class _disk_errors:
    """Turn an OSError while writing into one CheckpointError, and clean the partial files up."""

    def __init__(self, run: Path, partial: Path | None = None) -> None:
        self.run, self.partial = run, partial

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # safetensors reports a failed write as its own error, with the system's words in it.
        if not isinstance(error, (OSError, SafetensorError)):
            return
        if self.partial is not None:
            shutil.rmtree(self.partial, ignore_errors=True)
        raise CheckpointError(
            f"cannot write to {self.run}: {_reason(error)}; what was saved before is untouched"
        ) from error


def _reason(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC or "No space left" in str(error):
        return "the disk is full"
    if number == errno.ENOENT:
        return "does not exist"
    return getattr(error, "strerror", None) or str(error)


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    if not path.is_dir():
        with path.open("r+b") as file:  # Windows flushes none that is open for reading alone
            os.fsync(file.fileno())
        return
    # Windows opens no folder, and some network disks flush none: there, the system alone decides
    # when a new name is on the disk. What is in the files has been flushed.
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(descriptor)


def _damaged(path: Path, name: str) -> str:
    return (
        f"checkpoint {path} is damaged: {name} is not the file that was written "
        "(truncated or changed)"
    )


def _digest_of_state(state: Mapping[str, Any]) -> str:
    """SHA-256 of all that state.json says, but for this number."""
    files = {name: value for name, value in state["sha256"].items() if name != STATE_FILE}
    text = json.dumps({**state, "sha256": files}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _empty(folder: Path) -> None:
    """Remove all of a run but its lock; run.json last, by which a half removed one is known."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "run.json"):
        if path.name == LOCK_FILE:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
