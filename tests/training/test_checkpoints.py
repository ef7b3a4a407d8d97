"""Checkpoints: whole or refused, atomic, and never unpickled."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from companion.core.files import FileError
from companion.training import checkpoints
from companion.training.checkpoints import Checkpoint, RunFolder, Weights


def make(step: int) -> Checkpoint:
    return Checkpoint(
        step=step,
        model={"weight": torch.full((3, 2), float(step))},
        training={"rng.cpu": torch.get_rng_state()},
        counters={"step": step},
    )


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {"seed": 0})


def newest(run: RunFolder) -> Path:
    return sorted(run.checkpoints.glob("step-*"))[-1]


def test_a_checkpoint_comes_back_as_it_was_saved(run: RunFolder) -> None:
    saved = make(7)
    run.save(saved)
    loaded = run.latest()
    assert loaded is not None
    assert loaded.step == 7
    assert loaded.counters == {"step": 7}
    torch.testing.assert_close(loaded.model["weight"], saved.model["weight"], rtol=0, atol=0)
    torch.testing.assert_close(
        loaded.training["rng.cpu"], saved.training["rng.cpu"], rtol=0, atol=0
    )


def test_a_run_without_checkpoints_has_no_latest_and_no_best(run: RunFolder) -> None:
    assert run.latest() is None
    with pytest.raises(FileError, match="no checkpoint yet"):
        run.best()


@pytest.mark.parametrize("change", [{"step": 8}, {"sha256": {}}, {"sha256": ["state.json"]}])
def test_a_state_that_was_changed_is_damaged(change: dict[str, Any], run: RunFolder) -> None:
    run.save(make(7))
    path = newest(run) / checkpoints.STATE_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(FileError, match=r"no checkpoint in .* is whole: .*state\.json"):
        run.latest()


def test_weights_alone_are_used_and_not_trained_on(run: RunFolder) -> None:
    run.save(Weights(step=3, model=make(3).model))
    assert run.best().step == 3
    with pytest.raises(FileError, match="holds the weights alone, so training cannot go on"):
        run.latest()


def test_a_step_is_saved_again_after_a_crash_that_left_its_old_folder(run: RunFolder) -> None:
    run.save(make(3))
    left = newest(run).with_suffix(".replaced")
    shutil.copytree(newest(run), left)
    run.save(replace(make(3), counters={"step": 3, "again": 1}))
    saved = run.latest()
    assert saved is not None
    assert saved.counters["again"] == 1
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000003"]


def test_the_last_two_checkpoints_and_the_best_are_kept(run: RunFolder) -> None:
    run.save(make(1), best=True)
    for step in (2, 3, 4, 5):
        run.save(make(step))
    assert [path.name for path in sorted(run.checkpoints.iterdir())] == [
        "step-00000001", "step-00000004", "step-00000005",
    ]  # fmt: skip
    assert run.best().step == 1


def test_the_best_is_the_newest_that_was_the_best_of_its_time(run: RunFolder) -> None:
    for step, best in ((1, True), (2, True), (3, False)):
        run.save(make(step), best=best)
    assert run.best().step == 2
    run.save(make(4), best=False)
    assert [path.name for path in sorted(run.checkpoints.iterdir())] == [
        "step-00000002", "step-00000003", "step-00000004",
    ]  # fmt: skip


def test_a_best_that_cannot_be_told_is_said_aloud(run: RunFolder) -> None:
    run.save(make(1), best=True)
    run.save(make(2), best=True)
    (newest(run) / checkpoints.STATE_FILE).write_text("{")
    with pytest.warns(UserWarning, match="may have been the best, taking step-00000001"):
        assert run.best().step == 1


@pytest.mark.parametrize("best", [True, False])
def test_a_damaged_optimizer_does_not_stop_the_use_of_the_weights(
    run: RunFolder, best: bool
) -> None:
    run.save(make(1), best=best)
    (newest(run) / checkpoints.TRAINING_FILE).write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # weights need no optimizer
        found = run.best()
    assert found.step == 1
    assert found.model["weight"].unique().tolist() == [1.0]
    with pytest.raises(FileError, match="no checkpoint in"):
        run.latest()


def test_where_the_best_weights_are_damaged_the_error_says_what_to_use_instead(
    run: RunFolder,
) -> None:
    for step, best in ((1, True), (2, False), (3, True)):
        run.save(make(step), best=best)
        if step == 2:
            kept = shutil.copytree(run.checkpoints / "step-00000001", run.path / "first")
    damaged = newest(run)
    (damaged / checkpoints.MODEL_FILE).write_bytes(b"")
    words = "model.safetensors .*; step-00000002 is whole: remove the folder step-00000003, and"
    with pytest.raises(FileError, match=words):
        run.best()
    kept.rename(run.checkpoints / "step-00000001")  # marked as best, so it is taken
    with pytest.raises(FileError, match="; step-00000001 is whole"):
        run.best()
    shutil.rmtree(damaged)
    assert run.best().step == 1
    for path in run.checkpoints.iterdir():
        (path / checkpoints.MODEL_FILE).write_bytes(b"")
    with pytest.raises(FileError, match="no other checkpoint is whole, so train again"):
        run.best()


def test_a_crash_while_writing_leaves_the_earlier_checkpoint(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save(make(1))

    def crash(*_: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        run.save(make(2))
    monkeypatch.undo()
    loaded = run.latest()
    assert loaded is not None
    assert loaded.step == 1
    run.save(make(2))  # what the crash left does not stand in the way
    assert [path.name for path in sorted(run.checkpoints.iterdir())] == [
        "step-00000001",
        "step-00000002",
    ]


@pytest.mark.parametrize("operation", ["replace", "rmtree"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_step_that_is_saved_again_is_there_at_every_moment(
    operation: str, number: int, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever renaming or removal is the last before a power cut."""
    run.save(make(1))
    run.save(make(2), best=True)
    module = os if operation == "replace" else shutil
    real, calls = getattr(module, operation), 0

    def crash(*arguments: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise RuntimeError("power cut")
        real(*arguments, **named)

    monkeypatch.setattr(module, operation, crash)
    with contextlib.suppress(RuntimeError):
        run.save(make(2), best=True)
    monkeypatch.undo()
    loaded = run.latest()
    assert loaded is not None
    assert (loaded.step, run.best().step) == (2, 2)
    assert loaded.model["weight"].eq(2).all()
    run.save(make(2))
    run.save(make(3))
    run.save(make(4), best=True)
    assert [path.name for path in sorted(run.checkpoints.iterdir())] == [
        "step-00000003",
        "step-00000004",
    ]


def test_every_file_of_a_checkpoint_is_on_the_disk_before_it_has_its_name(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[int] = set()
    fsync, replace = os.fsync, os.replace

    def noted(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def after_flushing(source: Path, target: Path) -> None:
        source = Path(source)
        for file in source.iterdir() if source.is_dir() else [source]:
            assert file.stat().st_ino in flushed, file.name
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", after_flushing)
    saved = run.save(make(1))
    assert len(list(saved.iterdir())) == 3
    if os.name != "nt":  # Windows flushes no folder
        assert run.checkpoints.stat().st_ino in flushed


def test_a_full_disk_is_one_error_and_loses_nothing(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save(make(1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, "save_tensors", full)
    with pytest.raises(FileError, match="the disk is full; what was saved before is untouched"):
        run.save(make(2))
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000001"]
    loaded = run.latest()
    assert loaded is not None
    assert loaded.step == 1


def test_an_existing_run_is_refused_unless_overwritten(run: RunFolder) -> None:
    run.save(make(1))
    with pytest.raises(FileError, match="already exists"):
        RunFolder.create(run.path, {"seed": 1})
    assert run.latest() is not None
    replaced = RunFolder.create(run.path, {"seed": 1}, overwrite=True)
    assert replaced.record()["seed"] == 1
    assert replaced.latest() is None


@pytest.mark.parametrize("failing", ["prepare", "write_json"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_run_that_cannot_be_replaced_is_kept(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    run.save(make(1))
    (run.path / "tokenizer.json").write_text("old")

    def fail(*_: object) -> None:
        raise error

    def prepare(folder: Path) -> None:
        (folder / "tokenizer.json").write_text("new")
        if failing == "prepare":
            fail()

    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    if failing == "write_json":
        monkeypatch.setattr(checkpoints, failing, fail)
    expected = FileError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match=r"what was saved before is untouched|^$"):
        RunFolder.create(run.path, {"seed": 1}, overwrite=True, prepare=prepare)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    replaced = RunFolder.create(run.path, {"seed": 1}, overwrite=True)
    assert (replaced.record()["seed"], replaced.latest()) == (1, None)


def test_overwrite_never_removes_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileError, match="not a run of companion; nothing was changed"):
        RunFolder.create(tmp_path, {}, overwrite=True)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize("name", ["thesis.txt", "checkpoints/notes.txt", "another_run/run.json"])
def test_overwrite_never_removes_a_file_that_no_run_writes(name: str, run: RunFolder) -> None:
    run.save(make(1))
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).write_text("years of work")
    with pytest.raises(FileError, match="does not belong to the run; nothing was changed") as error:
        RunFolder.create(run.path, {}, overwrite=True)
    assert str(error.value).startswith(str(run.path / name))
    assert (run.path / name).exists()
    assert run.latest() is not None


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    assert RunFolder.create(tmp_path, {"seed": 3}).record()["seed"] == 3


def test_what_a_run_needs_is_written_before_the_record_that_makes_it_whole(tmp_path: Path) -> None:
    def prepare(folder: Path) -> None:
        assert not (path / "run.json").exists()
        (folder / "tokenizer.json").write_text("{}")

    path = tmp_path / "run"
    RunFolder.create(path, {"seed": 0}, prepare=prepare)
    assert sorted(each.name for each in path.iterdir()) == [
        "checkpoints", "run.json", "tokenizer.json",
    ]  # fmt: skip


def test_missing_foreign_and_other_version_runs_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no run at"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(FileError, match="not a run of companion"):
        RunFolder.open(tmp_path)
    (tmp_path / "run.json").write_text('{"format": "something else"}')
    with pytest.raises(FileError, match="not a run of companion"):
        RunFolder.open(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format": checkpoints.FORMAT, "version": 99}))
    with pytest.raises(FileError, match="version 99, this companion reads version 1"):
        RunFolder.open(tmp_path)
    (tmp_path / "run.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="damaged"):
        RunFolder.open(tmp_path)


def test_metrics_cut_short_by_a_crash_are_read_up_to_there(run: RunFolder) -> None:
    run.append_metrics({"step": 1, "loss": 2.0})
    run.append_metrics({"step": 2, "loss": 1.5})
    with run.metrics_path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert [record["step"] for record in run.metrics()] == [1, 2]
    assert [record["step"] for record in run.rewind_metrics(1)] == [1]
    assert [record["step"] for record in run.metrics()] == [1]


@pytest.mark.parametrize("line", [b'{"a": 1}', b"[1]", b'{"step": "1"}', b'"\xff"'])
def test_a_damaged_line_of_metrics_is_named(run: RunFolder, line: bytes) -> None:
    run.append_metrics({"step": 1})
    run.metrics_path.write_bytes(run.metrics_path.read_bytes() + line + b"\n")
    for read in (run.metrics, lambda: run.metrics(up_to_step=1), lambda: run.rewind_metrics(1)):
        with pytest.raises(FileError, match=r"metrics\.jsonl is damaged in line 2.*; remove"):
            read()


def test_the_optimizer_comes_back_exactly() -> None:
    def build() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model: torch.nn.Linear, optimizer: torch.optim.AdamW) -> None:
        optimizer.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    model, optimizer = build()
    for _ in range(3):
        step(model, optimizer)
    twin, twin_optimizer = build()
    twin.load_state_dict(model.state_dict())
    tensors = checkpoints.optimizer_tensors(model, optimizer)
    assert set(tensors) == {
        f"optimizer.{parameter}.{moment}"
        for parameter in ("weight", "bias")
        for moment in ("exp_avg", "exp_avg_sq", "step")
    }
    checkpoints.restore_optimizer(twin, twin_optimizer, {k: v.clone() for k, v in tensors.items()})
    step(model, optimizer)
    step(twin, twin_optimizer)
    torch.testing.assert_close(twin.weight, model.weight, rtol=0, atol=0)


# --- other systems -------------------------------------------------------------------------------


def refuse_folders(monkeypatch: pytest.MonkeyPatch, number: int, *, opening: bool) -> None:
    """As on Windows, which opens no folder, or on a network disk, which flushes none.

    Windows also flushes no file that was opened for reading alone.
    """
    real_open, real_flush = os.open, os.fsync

    def os_open(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if opening and Path(path).is_dir():
            raise OSError(number, os.strerror(number), str(path))
        return real_open(path, flags, *rest, **named)

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real_flush(descriptor)

    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(os, "open", os_open)
    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize(
    ("number", "opening"), [(errno.EACCES, True), (errno.EPERM, True), (errno.EINVAL, False)]
)
def test_a_checkpoint_is_saved_where_folders_cannot_be_flushed(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, number: int, opening: bool
) -> None:
    refuse_folders(monkeypatch, number, opening=opening)
    run.save(make(1), best=True)
    run.save(make(2))
    loaded = run.latest()
    assert loaded is not None
    assert loaded.step == 2


def test_a_folder_that_a_failing_disk_does_not_flush_is_an_error(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_folders(monkeypatch, errno.EIO, opening=False)
    with pytest.raises(FileError, match="cannot write to"):
        run.save(make(1))


def test_no_tensor_that_was_loaded_reads_from_its_file_any_more(run: RunFolder) -> None:
    """Windows removes no file that is still mapped into memory."""
    run.save(make(1))
    file = newest(run) / checkpoints.MODEL_FILE
    loaded = run.load(newest(run)).model["weight"]
    header = file.stat().st_size - loaded.numel() * loaded.element_size()
    with file.open("r+b") as stream:  # a mapping would see this
        stream.seek(header)
        stream.write(b"\0" * loaded.numel() * loaded.element_size())
    assert loaded.eq(1).all()
