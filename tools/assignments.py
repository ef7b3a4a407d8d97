"""Mark submissions, and try each assignment on what students hand in.

`python -m tools.assignments mark NAME FOLDER` marks FOLDER/<student>/NAME.ipynb for every student:
a line each, feedback beside the notebook, and FOLDER/marks.json for `tools.gradebook export`. Its
status is 1 where something needs a look by hand, which is named at the end.

`python -m tools.assignments try [NAME ...]` marks the reference, the empty student version, every
plausible wrong submission and, once, every abuse, and prints what each got; it fails where one got
other points than it should, or a hint that does not name its mistake. `--class 30` then times a
class of so many.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from assignments.tried import Tried
from companion.teaching.marking import (
    LIMITS,
    Limits,
    Mark,
    Marks,
    Task,
    cells_of,
    copy_package,
    mark,
)
from companion.teaching.student_process import without_magic

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "assignments"

#: The assignment that abuse is tried on.
ABUSED = "cross_entropy_and_a_coder"


def names() -> list[str]:
    """The assignments."""
    return sorted(path.name for path in (FOLDER / "source").iterdir() if path.is_dir())


def notebook_of(name: str, version: str) -> dict[str, Any]:
    """The notebook of an assignment: its "source", with solutions, or its "release"."""
    path = FOLDER / version / name / f"{name}.ipynb"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def tasks_of(name: str) -> list[Task]:
    """What the assignment's judge asks."""
    found: list[Task] = importlib.import_module(f"assignments.judges.{name}").TASKS
    return found


def wrong_submissions(name: str) -> list[Tried]:
    """What was tried on an assignment, abuse included where it is tried."""
    found: list[Tried] = list(importlib.import_module(f"assignments.tried.{name}").TRIED)
    if name == ABUSED:
        found += importlib.import_module("assignments.tried.abuse").TRIED
    return found


def mark_notebook(
    name: str,
    notebook: Mapping[str, Any],
    *,
    seed: int,
    limits: Limits = LIMITS,
    python: str | None = None,
) -> Marks:
    """Marks of one notebook; none where it is no notebook."""
    tasks = tasks_of(name)
    try:
        cells = cells_of(notebook, notebook_of(name, "release"))
    except ValueError as error:
        return no_points(name, str(error))
    return mark(cells, tasks, seed=seed, limits=limits, python=python)


def no_points(name: str, words: str) -> Marks:
    """Marks of a submission that could not be marked, and why."""
    return Marks(
        marks=[
            Mark(task=task.name, cell=task.cell, points=0, possible=task.points, words=words)
            for task in tasks_of(name)
        ]
    )


#: Short, as nothing that is tried needs longer.
TRYING = Limits(cell_seconds=10, call_seconds=3, memory_bytes=1 << 29)


def try_one(name: str, tried: Tried, seed: int, version: str = "source") -> tuple[Marks, list[str]]:
    """The marks of a submission that is tried, and what is unexpected of them."""
    notebook = tried.notebook(notebook_of(name, version))
    marks = mark_notebook(name, notebook, seed=seed, limits=TRYING)
    return marks, tried.unexpected(marks)


def run_whole(notebook: Mapping[str, Any]) -> float:
    """Run all cells of a notebook, visible tests too, in an empty folder; the seconds it took.

    RuntimeError with the last words of the first cell that fails.
    """
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    code = "\n\n".join(map(without_magic, cells))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as package:
        copy_package(package)
        done = subprocess.run(
            [sys.executable, "-s", "-c", code], cwd=folder, capture_output=True, text=True,
            env={"PYTHONPATH": package, "HOME": folder, "OMP_NUM_THREADS": "1", "PATH": ""},
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-1000:])
    return time.monotonic() - start


def print_matrix(name: str, seed: int, jobs: int) -> bool:
    """Try all of an assignment; whether all came out as it should."""
    possible = sum(task.points for task in tasks_of(name))
    print(f"\n{name}: {possible:g} points; the reference notebook, whole: ", end="", flush=True)
    print(f"{run_whole(notebook_of(name, 'source')):.0f} s", flush=True)
    right = True

    def one(tried: Tried) -> tuple[Marks, list[str]]:
        return try_one(name, tried, seed, "release" if tried is empty else "source")

    empty = Tried(name="empty", lost={task.name: "" for task in tasks_of(name)})
    everything = [empty, Tried(name="reference"), *wrong_submissions(name)]
    with ThreadPoolExecutor(jobs) as pool:
        for tried, (marks, wrong) in zip(everything, pool.map(one, everything), strict=True):
            print(f"  {tried.name:46}{marks.points:5g}  {'' if wrong else 'as it should'}")
            if tried is not empty:
                for each in marks.marks:
                    if each.words:
                        print(f"      {each.task}: {each.words}")
            for words in wrong:
                print(f"      UNEXPECTED {words}")
            right = right and not wrong
            sys.stdout.flush()
    return right


def mark_folder(
    name: str, folder: Path, seed: int, jobs: int, python: str | None = None
) -> dict[str, Any]:
    """Mark the notebook of every student, so many at a time; writes feedback and marks.json.

    `by_hand` in the result has, by student, why a notebook or its feedback needs a look.
    """
    if not any(folder.glob(f"*/{name}.ipynb")):
        raise ValueError(f"{folder} holds no */{name}.ipynb; a folder for each student is asked")
    folders = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )

    cells: dict[str, float] = {}
    for task in tasks_of(name):
        cells[task.cell] = cells.get(task.cell, 0) + task.points
    students: dict[str, dict[str, float]] = {}
    by_hand: dict[str, str] = {}
    marks = {
        "assignment": name, "cells": cells, "seed": seed, "students": students,
        "by_hand": by_hand,
    }  # fmt: skip
    writing = threading.Lock()

    def one(student: Path) -> None:
        failures = []
        try:
            found = mark_student(name, student, seed, python)
        except Exception as error:  # one submission must not cost the others their marks
            failures.append(f"could not be marked: {type(error).__name__}: {str(error)[:200]}")
            found = no_points(name, f"{failures[0]}; look at it by hand")
        try:
            write_feedback(student, found.feedback())
        except OSError as error:
            failures.append(f"has no feedback.txt: {error.strerror}")
        with writing:
            students[student.name] = found.by_cell()
            if failures:
                by_hand[student.name] = "; ".join(failures)
            (folder / "marks.json").write_text(json.dumps(marks, indent=1), encoding="utf-8")
            print(f"{student.name:24}{found.points:5g} points {found.seconds:6.1f} s")
            sys.stdout.flush()

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, folders))
    for student in sorted(by_hand):
        print(f"look by hand: {student} {by_hand[student]}")
    return marks


def mark_student(name: str, student: Path, seed: int, python: str | None) -> Marks:
    """Marks of a student's folder; a process that does not start is tried once more."""
    path = student / f"{name}.ipynb"
    if not path.exists():
        others = sorted(each.name for each in student.iterdir() if each.name != "feedback.txt")
        named = ", ".join(map(repr, others)) or "nothing"
        raise FileNotFoundError(f"no {path.name} here, but: {named}")
    notebook = notebook_in(path)
    try:
        return mark_notebook(name, notebook, seed=seed, python=python)
    except (OSError, RuntimeError):
        return mark_notebook(name, notebook, seed=seed, python=python)


def write_feedback(student: Path, text: str) -> None:
    """Write feedback.txt; a link of that name, which could lead anywhere, is replaced."""
    new = student / f"feedback-{secrets.token_hex(8)}"
    try:
        with new.open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        os.replace(new, student / "feedback.txt")
    finally:
        new.unlink(missing_ok=True)


def notebook_in(path: Path) -> Any:
    """What a file holds; None where it cannot be read as JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None


def write_class(name: str, folder: Path, size: int) -> None:
    """A class of submissions: what is tried, again and again, the reference first."""
    tried = [Tried(name="reference"), *wrong_submissions(name)]
    for number in range(size):
        notebook = tried[number % len(tried)].notebook(notebook_of(name, "source"))
        student = folder / f"student-{number + 1:02}"
        student.mkdir(parents=True)
        text = json.dumps(notebook)
        (student / f"{name}.ipynb").write_text(text, encoding="utf-8")


def try_all(chosen: Iterable[str], size: int, seed: int, jobs: int) -> bool:
    """Print the matrix of each assignment, and time a class on the one with abuse."""
    right = True
    for name in chosen:
        right = print_matrix(name, seed, jobs) and right
    if size:
        with tempfile.TemporaryDirectory() as folder:
            write_class(ABUSED, Path(folder), size)
            start = time.monotonic()
            mark_folder(ABUSED, Path(folder), seed, jobs)
            print(f"{size} submissions: {time.monotonic() - start:.0f} s")
    return right


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tools.assignments")
    commands = parser.add_subparsers(dest="command", required=True)
    trying = commands.add_parser("try")
    trying.add_argument("names", nargs="*")
    trying.add_argument("--class", type=int, default=0, dest="size")
    marking = commands.add_parser("mark")
    marking.add_argument("name", choices=names())
    marking.add_argument("folder", type=Path)
    marking.add_argument("--python", help="interpreter of the submissions, or what stands for it")
    for each in (trying, marking):
        each.add_argument("--seed", type=int, default=None, help="of the hidden inputs")
        each.add_argument("--jobs", type=int, default=2, help="submissions at a time (2)")
    arguments = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a folder's name may hold what cannot be printed
        sys.stdout.reconfigure(errors="backslashreplace")
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    print(f"hidden inputs from seed {seed}")
    if arguments.command == "try":
        return int(not try_all(arguments.names or names(), arguments.size, seed, arguments.jobs))
    python = None
    if arguments.python:
        python = shutil.which(arguments.python)
        if python is None:
            parser.error(f"--python: {arguments.python} is no program that can be run")
        python = str(Path(python).absolute())  # it is started in another folder
    try:
        marks = mark_folder(arguments.name, arguments.folder, seed, arguments.jobs, python)
    except ValueError as error:
        parser.error(str(error))
    return int(bool(marks["by_hand"]))


if __name__ == "__main__":
    raise SystemExit(main())
