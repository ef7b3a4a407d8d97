"""Training survives what machines do: being killed at any moment, and disks that lie.

Deaths are real: SIGKILL, to processes of their own, at moments drawn with a seed.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import mortal
import pytest

from companion.core.files import FileError
from companion.training import checkpoints
from companion.training.checkpoints import RunFolder

FILES = (checkpoints.MODEL_FILE, checkpoints.TRAINING_FILE, checkpoints.STATE_FILE)
LAST = f"step-{mortal.CONFIG.steps:08d}"


@dataclass(frozen=True, kw_only=True)
class Life:
    """What became of a training process."""

    killed: bool
    seconds: float
    operations: int | None
    """Operations on files, when it lived to its end."""


def live(folder: Path, *, after: float | None = None, before_operation: int | None = None) -> Life:
    """A process that trains in `folder`, killed at a moment of the clock or a file operation."""
    forks = multiprocessing.get_context("forkserver")
    here, there = forks.Pipe(duplex=False)
    process = forks.Process(target=mortal.live, args=(folder, there, before_operation))
    with mock.patch.dict(os.environ, PYTHONPATH=str(Path(__file__).parents[1])):
        forks.set_forkserver_preload(["mortal"])  # found by that path, when the server starts
        process.start()
    there.close()
    assert here.recv() == "begun"
    begun = time.perf_counter()
    process.join(after)
    process.kill()
    process.join()
    seconds = time.perf_counter() - begun
    assert process.exitcode in (0, -9)
    return Life(
        killed=process.exitcode == -9,
        seconds=seconds,
        operations=here.recv() if process.exitcode == 0 else None,
    )


def outcome(folder: Path) -> dict[str, Any]:
    """All that a training leaves, seconds left out: to the last bit."""
    records = RunFolder(folder).metrics()
    for record in records:
        del record["seconds"]
    return {
        "metrics": records,
        "weights": (folder / "checkpoints" / LAST / checkpoints.MODEL_FILE).read_bytes(),
        "training": (folder / "checkpoints" / LAST / checkpoints.TRAINING_FILE).read_bytes(),
        "best": RunFolder(folder).best().step,
        # A death right after the last one was written leaves older ones too, which do no harm.
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir())[-2:],
        "half_written": list(folder.glob("**/*.partial*")) + list(folder.glob("**/.partial*")),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Life, dict[str, Any]]:
    """A training that nobody killed: how long it takes, and what comes of it."""
    outcomes = []
    for name in ("first", "second"):  # the first one also starts the fork server
        folder = RunFolder.create(tmp_path_factory.mktemp("whole") / name, {}).path
        life = live(folder)
        assert not life.killed
        outcomes.append(outcome(folder))
    assert outcomes[0] == outcomes[1]
    return life, outcomes[1]


@pytest.mark.slow
@pytest.mark.timeout(900)  # half a minute; on a machine with much else to do, several
def test_twenty_runs_killed_at_random_moments_all_resume_to_the_identical_curve(
    whole: tuple[Life, dict[str, Any]], tmp_path: Path
) -> None:
    """Each is killed by the clock, goes on, is killed at an operation on a file, and goes on."""
    uninterrupted, expected = whole
    assert uninterrupted.operations is not None
    assert len(expected["metrics"]) == 30
    chance = random.Random(0)
    reached: list[int | None] = []
    deaths_while_saving = deaths_at_operations = 0
    for number in range(20):
        folder = RunFolder.create(tmp_path / str(number), {}).path
        after = chance.uniform(0, uninterrupted.seconds)
        while not live(folder, after=after).killed:  # it was quicker than the first one
            folder = RunFolder.create(folder, {}, overwrite=True).path
            after *= 0.8
        deaths_while_saving += any(folder.glob("checkpoints/.partial*"))
        steps = sorted(path.name for path in folder.glob("checkpoints/step-*"))
        reached.append(int(steps[-1].removeprefix("step-")) if steps else None)
        operation = chance.randrange(1, uninterrupted.operations)
        deaths_at_operations += live(folder, before_operation=operation).killed
        assert not live(folder).killed
        assert outcome(folder) == expected, f"run {number}, killed after {after} s, {operation}"
    # Or the moments were not as various as this test says.
    assert len(set(reached)) >= 5
    assert deaths_while_saving >= 1
    assert deaths_at_operations >= 5


# --- damage --------------------------------------------------------------------------------------


def truncate(content: bytes, chance: random.Random) -> bytes:
    # The last byte of state.json is a line's end, whose loss does no harm.
    return content[: chance.randrange(len(content) - 1)]


def flip_a_bit(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the checkpoints of steps 57 and 60."""
    folder = RunFolder.create(tmp_path_factory.mktemp("finished") / "run", {}).path
    mortal.go_on(folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit])
@pytest.mark.parametrize("name", FILES)
def test_a_file_damaged_anywhere_is_passed_over_aloud(
    run: Path, name: str, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    file = run / "checkpoints" / LAST / name
    content = file.read_bytes()
    chance = random.Random(name)
    for _ in range(60):
        damaged = damage(content, chance)
        file.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = RunFolder(run).latest()
        assert found is not None
        assert found.step == 57, damaged
        (warning,) = caught
        assert "damaged" in str(warning.message)
        assert str(warning.message).endswith("; going on from step-00000057 instead")
    file.write_bytes(content)
    found = RunFolder(run).latest()
    assert found is not None
    assert found.step == 60


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_passed_over_aloud(run: Path, name: str) -> None:
    (run / "checkpoints" / LAST / name).unlink()
    with pytest.warns(UserWarning, match=rf"{name}.*going on from step-00000057 instead"):
        found = RunFolder(run).latest()
    assert found is not None
    assert found.step == 57


def test_when_every_checkpoint_is_damaged_one_error_says_so(run: Path) -> None:
    chance = random.Random(0)
    for number, folder in enumerate(sorted((run / "checkpoints").iterdir())):
        file = folder / FILES[number % len(FILES)]
        file.write_bytes(flip_a_bit(file.read_bytes(), chance))
    with pytest.raises(FileError, match=r"no checkpoint in .* is whole: .* damaged"):
        RunFolder(run).latest()


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_to_the_identical_curve(
    finished: Path, run: Path
) -> None:
    file = run / "checkpoints" / LAST / checkpoints.TRAINING_FILE
    file.write_bytes(flip_a_bit(file.read_bytes(), random.Random(1)))
    with pytest.warns(UserWarning, match="going on from step-00000057 instead"):
        result = mortal.go_on(run)
    assert result.steps == 60
    assert outcome(run) == outcome(finished)
