"""Marks for a notebook, given outside the process that runs it.

    marks = mark(cells_of(notebook, release), tasks, seed=secrets.randbits(32))

The notebook's cells run in a process of their own (`student_process`), which gets hidden inputs,
one at a time, and sends back plain values. This module never imports what a student wrote: it
computes each right answer itself, after the student's, and compares. So patching `companion` or the
checks, reading frames, or an `__eq__` that says yes gain nothing; a cell that exits, loops or is
missing loses what it would have earned and no more.

What this is not: a security boundary. Both processes belong to one user on one machine.
"""

from __future__ import annotations

import copy
import inspect
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from companion.teaching.checks import Mistake, named_mistake
from companion.teaching.comparison import difference
from companion.teaching.limits import WAITING
from companion.teaching.student_process import from_json, to_json

PACKAGE = Path(__file__).resolve().parent.parent

#: A tag of provided cells that only show something: they are not run for marks.
SHOWS = "shows"

#: Runs the process, not as a module `__main__` whose names a cell could change.
SERVE = "from companion.teaching.student_process import serve; serve()"

#: Most characters of a cell's first line, of an error of a submission, and of all words on a task.
MOST_NAME, MOST_ERROR, MOST_WORDS = 60, 300, 1000

#: Lines from a submission that are not replies, before it is ended.
MOST_LINES = 100


@dataclass(frozen=True, kw_only=True)
class Task:
    """What earns points, all or none of them; several tasks may share a cell."""

    name: str
    """What the feedback calls it."""
    cell: str
    """The nbgrader cell (`grade_id`) that its points belong to."""
    points: int | float
    """How many."""
    answer: str
    """The name that the student defines: a function, or a value where there are no `cases`."""
    cases: Callable[[np.random.Generator], Sequence[tuple[Any, ...]]] | None = None
    """Draws the hidden inputs: numbers, strings, lists, arrays and tensors."""
    reference: Callable[..., Any] | None = None
    """Gives the right answer to a case."""
    judged: Callable[..., str] | None = None
    """In place of `reference`: what is wrong with an answer, in words, given it and the case."""
    driver: Callable[..., Any] | None = None
    """Runs in the student's process in place of the bare call: driver(student, *case). It imports
    what it needs. A submission can read its source: it must not hold the answer to its own task,
    and what it brings of earlier tasks may be seen."""
    tolerance: int | float | None = None
    """Largest absolute difference; None suits it to the dtype."""
    mistakes: tuple[Mistake, ...] = ()
    """Mistakes that are recognised by what they give."""
    hint: str = ""
    """Words for an error, and for a wrong answer that is not a known mistake. What `judged` says is
    shown alone."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a submission may use."""

    cell_seconds: int | float = 60.0
    """Processor time for each cell; waiting may take ten times as long."""
    call_seconds: int | float = 20.0
    """The same for each hidden input."""
    starts: int = 6
    """How often the process is started, the first time included; a cell that ends it is left out of
    the next. What is open after the last one earns nothing."""
    memory_bytes: int = 2 << 30
    """Beside what the libraries take."""
    file_bytes: int = 64 << 20
    """For each file that it writes."""
    answer_bytes: int = 1 << 20
    """For each answer."""
    total_seconds: int | float = 600.0
    """Processor time for the whole submission."""
    total_waiting: int | float = 1800.0
    """Seconds that the whole submission may take."""
    cells: int = 200
    """How many cells are run."""


#: What a submission may use unless its instructor says otherwise.
LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a task earned, and why."""

    task: str
    cell: str
    points: int | float
    possible: int | float
    words: str
    """Feedback: empty for a right answer."""


@dataclass(kw_only=True)
class Marks:
    """All marks of a submission."""

    marks: list[Mark] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    """What cells raised, or that they ended the process; each is named by its first line."""
    seconds: int | float = 0.0

    @property
    def points(self) -> float:
        """Points earned."""
        return sum(mark.points for mark in self.marks)

    @property
    def possible(self) -> float:
        """Points there are."""
        return sum(mark.possible for mark in self.marks)

    def by_cell(self) -> dict[str, float]:
        """Points by nbgrader cell."""
        found: dict[str, float] = {}
        for mark in self.marks:
            found[mark.cell] = found.get(mark.cell, 0.0) + mark.points
        return found

    def feedback(self) -> str:
        """A text for the student."""
        lines = [f"{self.points:g} of {self.possible:g} points"]
        for mark in self.marks:
            words = f": {mark.words}" if mark.words else ""
            lines.append(f"{mark.points:g} of {mark.possible:g}  {mark.task}{words}")
        return "\n".join([*lines, *(f"cell {words}" for words in self.cells)]) + "\n"


def cells_of(submission: Any, release: Mapping[str, Any]) -> list[str]:
    """The code to run: the release's own provided cells, then what the student wrote.

    Provided cells come from the release, so a deleted or changed one changes nothing; visible tests
    and cells tagged `SHOWS` are left out. ValueError for what is not a notebook.
    """
    provided, skipped = [], set()
    for cell in _code_cells(release):
        name, locked, graded = _nbgrader(cell)
        if locked:
            skipped.add(name)
            if not graded and SHOWS not in cell.get("metadata", {}).get("tags", []):
                provided.append(_source(cell))
    written = [
        _source(cell) for cell in _code_cells(submission) if _nbgrader(cell)[0] not in skipped
    ]
    return provided + written


def _code_cells(notebook: Any) -> list[dict[str, Any]]:
    try:
        found = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        for cell in found:
            _source(cell), _nbgrader(cell)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is not a notebook ({error}); hand in the .ipynb file") from error
    return found


def _source(cell: Mapping[str, Any]) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _nbgrader(cell: Mapping[str, Any]) -> tuple[str | None, bool, bool]:
    """A cell's `grade_id`, whether it is provided, and whether it is a visible test."""
    data = cell.get("metadata", {}).get("nbgrader", {})
    name = data.get("grade_id")
    provided = bool(data.get("locked") or data.get("grade")) and not data.get("solution")
    return name if isinstance(name, str) else None, provided, bool(data.get("grade"))


def mark(
    cells: Sequence[str],
    tasks: Sequence[Task],
    *,
    seed: int,
    limits: Limits = LIMITS,
    python: str | None = None,
) -> Marks:
    """Run the cells and mark each task on hidden inputs drawn with `seed`.

    python: the interpreter that runs them; None: this one.
    """
    start = time.monotonic()
    process = _Submission(list(cells), limits, python or sys.executable)
    marks = Marks()
    try:
        process.run_cells()
        for number, task in enumerate(tasks):
            words = _wrong(task, process, np.random.default_rng([seed, number]))
            words = _printable(words, MOST_WORDS)
            points = 0.0 if words else task.points
            marks.marks.append(
                Mark(
                    task=task.name, cell=task.cell, points=points, possible=task.points,
                    words=words,
                )
            )  # fmt: skip
    finally:
        process.close()
    marks.cells = [process.said[number] for number in sorted(process.said)]
    marks.seconds = time.monotonic() - start
    return marks


def copy_package(folder: str | Path) -> None:
    """Put `companion` alone into a folder: no assignment, no test and no answer lies beside it."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(PACKAGE, Path(folder) / "companion", ignore=ignore)


def _wrong(task: Task, process: _Submission, generator: np.random.Generator) -> str:
    """What is wrong with the answers to a task, with a hint; "" when nothing is."""
    cases = [()] if task.cases is None else task.cases(generator)
    for case in cases:
        reply = process.ask(task, case)
        if "unanswered" in reply:
            return "Not answered yet."
        if "error" in reply:
            return _joined(f"{task.answer}: {reply['error']}", task.hint)
        try:
            answer = from_json(reply["answer"])
        except Exception:
            return _joined(f"{task.answer} gave no value that can be read", task.hint)
        if answer is None:
            return "Not answered yet."
        if task.judged is not None:
            try:
                wrong = task.judged(answer, *copy.deepcopy(case))
            except Exception as error:  # an answer of a type that the judge did not foresee
                kind = type(error).__name__
                wrong = f"{task.answer}: the answer cannot be judged ({kind}); is its type right?"
            if wrong:
                return wrong
            continue
        assert task.reference is not None
        expected = task.reference(*copy.deepcopy(case))
        wrong = difference(answer, expected, task.tolerance, strict=True)
        if wrong:
            named = named_mistake(answer, expected, case, task.mistakes, task.tolerance)
            return _joined(f"{task.answer}: {wrong}", named or task.hint)
    return ""


def _joined(wrong: str, hint: str) -> str:
    ended = wrong if wrong.endswith((".", "?", "!")) else f"{wrong}."
    return f"{ended} Hint: {hint}" if hint else ended


def _printable(words: Any, most: int) -> str:
    """What a submission wrote, cut, and without characters that act on a terminal or a file."""
    text = str(words)
    kept = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:most])
    return kept if len(text) <= most else f"{kept}..."


def _first_line(source: str) -> str:
    """A name for a cell: its number is another one in the student's notebook."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return f"`{_printable(lines[0], MOST_NAME)}`" if lines else "(an empty one)"


def _processor_seconds(pid: int, *, children: bool = False) -> float:
    import psutil

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    ended = times.children_user + times.children_system if children else 0.0
    return float(times.user + times.system + ended)


def _remove(folder: Path) -> None:
    """Remove a folder, whatever a submission made of it."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:  # folders in folders in folders
        subprocess.run(["rm", "-rf", "--", str(folder)], check=False, stderr=subprocess.DEVNULL)


class _Submission:
    """A student's process, started again without the cell that ended it."""

    def __init__(self, cells: list[str], limits: Limits, python: str) -> None:
        self.cells: list[str | None] = list(cells[: limits.cells])
        self.limits = limits
        self.said: dict[int, str] = {}
        if len(cells) > limits.cells:
            first = _first_line(cells[limits.cells])
            self.said[limits.cells] = f"{first} and all after it were left out: too many"
        self._python = python
        self._starts = 0
        self._folder = Path(tempfile.mkdtemp())
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()
        self._begun, self._ended_seconds = time.monotonic(), 0.0

    def run_cells(self) -> None:
        """Start a process and run all cells but those that ended one before."""
        self._stop()
        while self._starts < self.limits.starts and not self._used_up():
            self._start()
            for number, source in enumerate(self.cells):
                if source is None:
                    continue
                reply = self._exchange({"cell": source}, self.limits.cell_seconds)
                name = _first_line(source)
                if reply is None:
                    self.cells[number] = None
                    self.said[number] = f"{name} ended the process or did not end: it was left out"
                    self._stop()
                    break
                if "error" in reply:
                    error = _printable(reply["error"], MOST_ERROR)
                    self.said[number] = f"{name} raised {error}"
            else:
                return

    def ask(self, task: Task, case: tuple[Any, ...]) -> dict[str, Any]:
        """The reply to a case."""
        driver = "" if task.driver is None else textwrap.dedent(inspect.getsource(task.driver))
        name = task.answer if task.driver is None else task.driver.__name__
        message = {
            "name": name, "driver": driver, "called": task.cases is not None,
            "inputs": to_json(list(case)),
        }  # fmt: skip
        if self._used_up():
            return {"error": "the submission had used all of its time"}
        if self._process is None:
            return {"error": "the process had ended too often to be started again"}
        # The fork keeps the limit itself; this one is for a process that no longer does.
        reply = self._exchange(message, 2 * self.limits.call_seconds)
        if reply is None:
            self.run_cells()
            return {"error": "ended the process before it answered"}
        if "error" in reply:
            reply["error"] = _printable(reply["error"], MOST_ERROR)
        return reply

    def close(self) -> None:
        """End the process and remove its folder."""
        self._stop()
        _remove(self._folder)

    def _seconds(self) -> float:
        """Processor time of all that was started."""
        if self._process is None:
            return self._ended_seconds
        return self._ended_seconds + _processor_seconds(self._process.pid, children=True)

    def _used_up(self) -> bool:
        waited = time.monotonic() - self._begun
        return waited > self.limits.total_waiting or self._seconds() > self.limits.total_seconds

    def _start(self) -> None:
        self._starts += 1
        folder = self._folder / secrets.token_hex(4)
        folder.mkdir()
        # A copy of its own, as a submission may have found a way to write to it.
        package = self._folder / secrets.token_hex(4)
        package.mkdir()
        copy_package(package)
        self._buffer.clear()
        kept = ("LANG", "LD_LIBRARY_PATH", "PATH")
        self._process = subprocess.Popen(
            [self._python, "-s", "-B", "-c", SERVE],
            cwd=folder,
            env={
                **{name: os.environ[name] for name in kept if name in os.environ},
                "PYTHONPATH": str(package),
                "HOME": str(folder), "TMPDIR": str(folder), "MPLCONFIGDIR": str(folder),
                "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
            },
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True, bufsize=0,
        )  # fmt: skip
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        limits = self.limits
        start = {
            "readable": [str(package)],
            "memory_bytes": limits.memory_bytes,
            "file_bytes": limits.file_bytes,
            "call_seconds": limits.call_seconds,
            "answer_bytes": limits.answer_bytes,
        }
        # The libraries are imported.
        sent = self._send(start, _Deadline(self._process.pid, 120))
        if not sent or self._exchange({"cell": ""}, 120) is None:
            raise RuntimeError(
                f"{self._python} could not run companion.teaching.student_process; try "
                f"`{self._python} -c 'import companion.teaching'` there"
            )

    def _stop(self) -> None:
        if self._process is None:
            return
        self._ended_seconds = self._seconds()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def _late(self, deadline: _Deadline) -> bool:
        return deadline.over() or self._used_up()

    def _send(self, message: Mapping[str, Any], deadline: _Deadline) -> bool:
        """Whether the process took the message in time."""
        assert self._process is not None
        assert self._process.stdin is not None
        pipe = self._process.stdin.fileno()
        left = memoryview(json.dumps(message).encode() + b"\n")
        while left:
            if self._late(deadline):
                return False
            if select.select([], [pipe], [], 0.5)[1]:
                try:
                    left = left[os.write(pipe, left[: 1 << 16]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    return False
        return True

    def _exchange(self, message: Mapping[str, Any], seconds: int | float) -> dict[str, Any] | None:
        """The reply to a message; None when the process ended, or did not reply in time."""
        assert self._process is not None
        number = secrets.token_hex(8)
        deadline = _Deadline(self._process.pid, seconds)
        if not self._send({"id": number, **message}, deadline):
            return None
        for _ in range(MOST_LINES):
            line = self._line(deadline)
            if line is None:
                return None
            try:
                reply = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(reply, dict) and reply.pop("id", None) == number:
                return reply
        return None

    def _line(self, deadline: _Deadline) -> bytes | None:
        """The next line that comes in time."""
        assert self._process is not None
        assert self._process.stdout is not None
        reading = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            if self._late(deadline) or len(self._buffer) > 2 * self.limits.answer_bytes:
                return None
            if select.select([reading], [], [], 0.5)[0]:
                piece = os.read(reading, 1 << 16)
                if not piece:
                    return None
                self._buffer += piece
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = rest
        return bytes(line)


class _Deadline:
    """So much processor time of a process from now on; waiting may take longer."""

    def __init__(self, pid: int, seconds: int | float) -> None:
        self._pid = pid
        self._moment = time.monotonic() + WAITING * seconds
        self._used = _processor_seconds(pid) + seconds

    def over(self) -> bool:
        """Whether it has passed."""
        late = time.monotonic() > self._moment
        return late or _processor_seconds(self._pid) > self._used
