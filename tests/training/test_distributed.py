"""Two processes train as one does: on CPUs, over gloo, by the command that a user would type."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import every_loss
import mortal
import pytest
import torch
from safetensors.torch import load_file

from companion.training.checkpoints import RunFolder

pytestmark = pytest.mark.slow

SETTINGS = {
    "train.steps": 40, "train.num_streams": 8, "train.log_every": 5, "train.evaluate_every": 20,
    "model.hidden_size": 16, "model.dropout": 0, "train.reset_state": 0,
}  # fmt: skip


def companion(*arguments: str, processes: int) -> subprocess.CompletedProcess[str]:
    """`companion ...` in one process, or in several started by torchrun."""
    launcher = [sys.executable, "-m", "companion"]
    if processes > 1:
        launcher = [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc_per_node={processes}", "-m", "companion",
        ]  # fmt: skip
    return subprocess.run(
        [*launcher, *arguments],
        capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def train(folder: Path, text: Path, *, processes: int, **changes: Any) -> str:
    settings = [f"--set={name}={value}" for name, value in {**SETTINGS, **changes}.items()]
    done = companion(
        "train", "--corpus", str(text), "--preset", "char-small", "--out", str(folder),
        "--device", "cpu", *settings, processes=processes,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def assert_same_training(folder: Path, other: Path) -> None:
    ours, theirs = records(folder), records(other)
    assert [set(record) for record in ours] == [set(record) for record in theirs]
    for one, two in zip(ours, theirs, strict=True):
        # Two halves of a float32 sum are added in another order, forty steps long.
        assert one == pytest.approx(two, rel=2e-5)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "rhyme.txt"
    path.write_text("".join(f"{i % 7} green bottles on the {i % 3} walls\n" for i in range(800)))
    return path


@pytest.fixture(scope="module")
def runs(text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same training by one process and by two."""
    folder = tmp_path_factory.mktemp("runs")
    for processes in (1, 2):
        train(folder / str(processes), text, processes=processes)
    return {processes: folder / str(processes) for processes in (1, 2)}


def test_two_processes_compute_the_losses_of_one_with_all_the_streams(
    runs: dict[int, Path],
) -> None:
    assert len(records(runs[1])) == 8
    assert_same_training(runs[1], runs[2])


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_checkpoint_of_one_number_of_processes_goes_on_with_another(
    runs: dict[int, Path], tmp_path: Path, first: int, then: int
) -> None:
    half = tmp_path / "half"
    shutil.copytree(runs[first], half)
    shutil.rmtree(half / "checkpoints" / "step-00000040")
    done = companion("train", "--out", str(half), "--resume", "--device", "cpu", processes=then)
    assert done.returncode == 0, done.stderr
    assert_same_training(half, runs[1])


def test_each_process_has_random_numbers_of_its_own(runs: dict[int, Path]) -> None:
    file = runs[2] / "checkpoints" / "step-00000040" / "training.safetensors"
    first, second = load_file(file)["rng.cpu"]
    assert not torch.equal(first, second)


def test_streams_that_two_processes_cannot_share_are_refused_in_one_sentence(
    text: Path, tmp_path: Path
) -> None:
    done = companion(
        "train", "--corpus", str(text), "--preset", "char-small", "--out", str(tmp_path / "run"),
        "--device", "cpu", "--set", "train.num_streams=9", processes=2,
    )  # fmt: skip
    assert done.returncode != 0
    assert "num_streams must be a multiple of the 2 processes, got 9" in done.stderr
    assert not (tmp_path / "run").exists()


def test_two_processes_killed_in_their_second_epoch_resume_to_the_identical_curve(
    tmp_path: Path,
) -> None:
    """With windows of varying length: an epoch is 20 steps, the last checkpoint before is of 33."""

    def live(folder: Path, deadly_step: int = -1) -> None:
        done = subprocess.run(
            [
                sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc_per_node=2", mortal.__file__, str(folder), str(deadly_step),
            ],
            capture_output=True, text=True, timeout=300, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        )  # fmt: skip
        # Of two processes that die, the launcher names the one whose end it saw first.
        assert (done.returncode == 0) == (deadly_step < 0), done.stderr
        assert deadly_step < 0 or list(folder.glob("checkpoints/step-*")), done.stderr

    whole, killed = (RunFolder.create(tmp_path / name, {}).path for name in ("whole", "killed"))
    live(whole)
    live(killed, deadly_step=35)
    assert sorted(path.name for path in killed.glob("checkpoints/step-*"))[-1] == "step-00000033"
    live(killed)
    assert len(records(whole)) == 60
    assert records(killed) == records(whole)
    last = Path("checkpoints", "step-00000060", "model.safetensors")
    assert (killed / last).read_bytes() == (whole / last).read_bytes()


def test_two_processes_train_with_each_loss_as_one_does_and_exchange_once_a_step(
    tmp_path: Path,
) -> None:
    """Also with an adaptive softmax, some of whose clusters have no token in most windows: without
    a look for weights that nobody used, this training never ends. With three windows a step."""
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        done = subprocess.run(
            [sys.executable, *launcher, every_loss.__file__, str(folder)],
            capture_output=True, text=True, timeout=200, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found[processes] = json.loads((folder / "found.json").read_text())
    for kind in every_loss.KINDS:
        (alone, _), (together, exchanges) = found[1][kind], found[2][kind]
        # Two halves of a float32 sum are added in another order.
        assert together == pytest.approx(alone, rel=2e-6), kind
        assert exchanges == every_loss.STEPS, kind
    _, too_often = found[2]["full, exchanged after each window"]
    assert too_often == every_loss.STEPS * every_loss.ACCUMULATION


def test_the_documented_launch_starts_as_many_processes_as_it_says(
    text: Path, tmp_path: Path
) -> None:
    """`accelerate launch --multi_gpu`, as for GPUs: with --device cpu its processes are on CPUs."""
    done = subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu",
            "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
            "--dynamo_backend", "no", "--main_process_port", "0",
            "-m", "companion", "train", "--corpus", str(text), "--preset", "char-small",
            "--out", str(tmp_path / "run"), "--device", "cpu", "--set", "train.steps=2",
        ],
        capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2


def test_accelerate_launch_on_cpus_says_that_it_starts_one_process(
    text: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
            "-m", "companion", "train", "--corpus", str(text), "--preset", "char-small",
            "--out", str(tmp_path / "run"), "--device", "cpu", "--set", "train.steps=2",
        ],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning: accelerate launch --cpu starts one process" in done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 1


def test_a_run_records_how_many_processes_trained_it(runs: dict[int, Path]) -> None:
    for processes, run in runs.items():
        assert json.loads((run / "run.json").read_text())["processes"] == processes
