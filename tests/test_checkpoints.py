"""Checkpoints: whole or refused, atomic, and never unpickled."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from companion import checkpoints
from companion.checkpoints import Checkpoint, CheckpointError, RunFolder


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
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        run.best()


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


def test_a_full_disk_is_one_error_and_loses_nothing(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save(make(1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(
        CheckpointError, match="the disk is full; what was saved before is untouched"
    ):
        run.save(make(2))
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000001"]
    loaded = run.latest()
    assert loaded is not None
    assert loaded.step == 1


def test_an_existing_run_is_refused_unless_overwritten(run: RunFolder) -> None:
    run.save(make(1))
    with pytest.raises(CheckpointError, match="already exists"):
        RunFolder.create(run.path, {"seed": 1})
    assert run.latest() is not None
    replaced = RunFolder.create(run.path, {"seed": 1}, overwrite=True)
    assert replaced.record()["seed"] == 1
    assert replaced.latest() is None


def test_overwrite_never_removes_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="not a run of companion; nothing was changed"):
        RunFolder.create(tmp_path, {}, overwrite=True)
    assert (tmp_path / "thesis.txt").exists()


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    assert RunFolder.create(tmp_path, {"seed": 3}).record()["seed"] == 3


def test_missing_foreign_and_other_version_runs_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run at"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="not a run of companion"):
        RunFolder.open(tmp_path)
    (tmp_path / "run.json").write_text('{"format": "something else"}')
    with pytest.raises(CheckpointError, match="not a run of companion"):
        RunFolder.open(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format": checkpoints.FORMAT, "version": 99}))
    with pytest.raises(CheckpointError, match="version 99, this companion reads version 1"):
        RunFolder.open(tmp_path)
    (tmp_path / "run.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="damaged"):
        RunFolder.open(tmp_path)


def test_metrics_cut_short_by_a_crash_are_read_up_to_there(run: RunFolder) -> None:
    run.append_metrics({"step": 1, "loss": 2.0})
    run.append_metrics({"step": 2, "loss": 1.5})
    with run.metrics_path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert [record["step"] for record in run.metrics()] == [1, 2]
    assert [record["step"] for record in run.rewind_metrics(1)] == [1]
    assert [record["step"] for record in run.metrics()] == [1]


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
    with pytest.raises(CheckpointError, match="cannot write to"):
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
