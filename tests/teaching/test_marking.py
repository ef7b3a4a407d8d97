"""Marks: what a submission's process may do, and that it gains nothing by what it may not."""

from __future__ import annotations

import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from companion.teaching.checks import Mistake
from companion.teaching.comparison import difference
from companion.teaching.marking import Limits, Marks, Task, cells_of, mark
from companion.teaching.student_process import (
    Other,
    from_json,
    run_call,
    to_json,
    without_magic,
)

unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 2**200, 0.1, float("inf"), "aé", [1, (2, 3)], {"a": [1.5]},
        {(1, 2): 3}, {1, (2, 3)},
        np.arange(6.0).reshape(2, 3), np.array([True]), torch.tensor([[1, 2]]),
        torch.tensor(0.5, dtype=torch.float16), np.float32(0.25),
        np.array([-3], dtype=np.int16), np.array([2**63], dtype=np.uint64),
    ],
)  # fmt: skip
def test_values_cross_the_pipe_as_they_are(value: Any) -> None:
    import json

    back = from_json(json.loads(json.dumps(to_json(value))))
    if isinstance(value, (np.ndarray, torch.Tensor)):
        assert type(back) is type(value)
        assert back.dtype == value.dtype
        assert back.tolist() == value.tolist()
    else:
        assert back == value


def test_objects_cross_the_pipe_as_names_and_nothing_is_unpickled() -> None:
    class Lie(float):
        def __eq__(self, other: object) -> bool:
            return True

        def __add__(self, other: object) -> float:
            return 5.0

        __hash__ = None  # type: ignore[assignment]

    assert to_json(Lie(1.0)) == 1.0
    assert type(to_json(Lie(1.0))) is float
    found = from_json(to_json(print))
    assert isinstance(found, Other)
    assert "builtin_function" in repr(found)
    assert "object" in repr(from_json(to_json(np.array([print]))))
    with pytest.raises(ValueError, match="not a value"):
        from_json({"pickle": "gASV"})
    with pytest.raises(ValueError, match="not a value"):
        from_json({"array": "", "dtype": "object", "shape": [0]})


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.str_("aé"), "aé"), (np.array(["a", "bc"]), ["a", "bc"]), (Fraction(1, 4), 0.25),
        (0.5 + 0j, 0.5), (np.complex128(0.5), 0.5), (np.array([1 + 0j, 2]), [1.0, 2.0]),
        (torch.tensor([1 + 0j]), [1.0]),
    ],
)  # fmt: skip
def test_strings_and_numbers_of_other_kinds_cross_the_pipe_as_what_they_are_worth(
    value: Any, plain: Any
) -> None:
    back = from_json(to_json(value))
    assert (back.tolist() if hasattr(back, "tolist") else back) == plain
    assert type(back) is not complex


@pytest.mark.parametrize("value", [1 + 1j, np.array([1 + 0j, 1j]), complex(1, math.nan)])
def test_complex_numbers_off_the_line_are_no_numbers(value: Any) -> None:
    assert isinstance(from_json(to_json(value)), Other)


def test_only_an_error_without_words_says_that_nothing_was_written() -> None:
    def raises(error: Exception | type[Exception]) -> Any:
        def f() -> None:
            raise error

        return run_call({"inputs": {"list": []}, "name": "f", "called": True}, {"f": f})

    assert raises(NotImplementedError) == {"unanswered": True}
    assert "no kernel" in raises(NotImplementedError("no kernel"))["error"]


def test_views_and_ranges_cross_the_pipe_as_lists() -> None:
    assert from_json(to_json(range(3))) == [0, 1, 2]
    assert from_json(to_json({"a": 1}.items())) == [("a", 1)]


@pytest.mark.parametrize("kind", ["set", "dict"])
def test_keys_that_could_be_chosen_to_collide_are_not_read(kind: str) -> None:
    def entries(keys: Any) -> Any:
        return {kind: [key if kind == "set" else [key, 0] for key in keys]}

    assert len(from_json(entries(range(9)))) == 9
    for keys in ([2**64], [{"tuple": [1, {"tuple": [2**64]}]}]):
        with pytest.raises(ValueError, match="more than 64 bits"):
            from_json(entries(keys))
    with pytest.raises(ValueError, match="100001 entries"):
        from_json(entries(range(100_001)))


def test_a_coarser_answer_gains_nothing_where_the_expected_value_decides() -> None:
    expected = np.array([1.0003, 2.0007])
    coarse = expected.astype(np.float16)
    for answer, right in ((coarse, expected), ({"a": [coarse]}, {"a": [expected]})):
        assert difference(answer, right) == ""
        assert "entries are wrong" in difference(answer, right, strict=True)
    assert difference(expected + 1e-9, expected, strict=True) == ""


def test_what_only_jupyter_reads_is_left_out_and_python_stays() -> None:
    assert without_magic('x = ("%d"\n     % 3)') == 'x = ("%d"\n     % 3)'
    source = (
        "%time f()\nif a:\n    !pip install \\\n        b\nfiles = !ls\ny = %time f()\nf?\nz = 1"
    )
    wanted = "pass\nif a:\n    pass\nfiles = None\ny = None\npass\nz = 1"
    assert without_magic(source) == wanted
    broken = 'x = ("%d"\n     % 3)\n'
    assert without_magic(broken + "%%timeit\n%pip list") == broken + "pass\npass"


def cell(source: str, name: str = "", *, kind: str = "solution", tags: Any = ()) -> dict[str, Any]:
    data = {
        "grade_id": name, "solution": kind == "solution", "grade": kind == "test",
        "locked": kind != "solution",
    }  # fmt: skip
    metadata = {"nbgrader": data, "tags": list(tags)} if name else {}
    return {"cell_type": "code", "source": source, "metadata": metadata}


def test_provided_cells_come_from_the_release_and_tests_are_left_out() -> None:
    text = {"cell_type": "markdown", "source": "words", "metadata": {}}
    release = {
        "cells": [
            text, cell("import numpy", "imports", kind="setup"), cell("...", "a"),
            cell("assert a", "a-test", kind="test"), cell("slow()", "s", kind="x", tags=["shows"]),
        ]
    }  # fmt: skip
    submission = {
        "cells": [
            cell("own = 1"), cell("numpy = None", "imports", kind="setup"),
            cell(["a =", " 1"], "a"), cell("cheat()", "a-test", kind="test"),  # type: ignore[arg-type]
        ]
    }  # fmt: skip
    assert cells_of(submission, release) == ["import numpy", "own = 1", "a = 1"]
    assert cells_of({"cells": []}, release) == ["import numpy"]
    odd = cell("b = 2")
    odd["metadata"] = {"nbgrader": {"grade_id": []}}
    assert cells_of({"cells": [odd]}, release) == ["import numpy", "b = 2"]
    for broken in (None, {}, {"cells": 3}, {"cells": [{"cell_type": "code"}]}):
        with pytest.raises(ValueError, match="not a notebook"):
            cells_of(broken, release)


def task(name: str, reference: Any = lambda x: 2 * x, **more: Any) -> Task:
    words = {"points": 1, "cases": lambda g: [(float(g.integers(2, 9)),)], "answer": name}
    return Task(name=name, cell=name, reference=reference, **{**words, **more})


def by_name(marks: Marks) -> dict[str, tuple[float, str]]:
    return {each.task: (each.points, each.words) for each in marks.marks}


CELLS = """
import torch

def right(x):
    return 2 * x
---
def unwritten(x):
    raise NotImplementedError
---
def squares(x):
    return x * x
---
import os, sys
os._exit(1)
---
value = 12
raise RuntimeError("half way")
---
def loops(x):
    while True:
        pass
---
def floods(x):
    import os
    for end in range(3, 20):
        try:
            os.write(end, b"\\n" * 200)
        except OSError:
            pass
    return 2 * x
---
def fills(x):
    return [bytearray(2**24) for _ in range(10**6)]
---
def reads(x):
    return len(open(HERE).read())
---
def runs(x):
    import subprocess
    return subprocess.run(["ls"])
---
def calls(x):
    import socket
    socket.create_connection(("127.0.0.1", 9))
---
seen = []
def remembers(x):
    seen.append(x)
    return 2 * x if len(seen) == 1 else 0
---
def trains(x):
    w = torch.ones(3, requires_grad=True)
    (x * w).sum().backward()
    return w.grad.sum() * 2 / 3
---
right.__globals__["torch"] = None
torch = __import__("torch")
""".replace("HERE", repr(__file__))


@unix
@pytest.mark.slow
def test_each_task_earns_what_its_own_answer_is_worth() -> None:
    names = (
        "right", "unwritten", "loops", "floods", "fills", "reads", "runs", "calls", "remembers",
        "trains", "gone",
    )  # fmt: skip
    mistakes = (Mistake(lambda x: x * x, "this is the square"),)
    tasks = [
        *map(task, names),
        task("squares", mistakes=mistakes),
        task("value", lambda: 12, cases=None),
        task("right", judged=lambda answer, x: "" if answer == 2 * x else "no", points=2),
    ]
    limits = Limits(call_seconds=3, cell_seconds=20, memory_bytes=2**28)
    marks = mark(CELLS.split("---\n"), tasks, seed=5, limits=limits)
    found = by_name(marks)
    earned = {name for name, (points, _) in found.items() if points}
    # `remembers` is right in each fork: no call sees what another left behind.
    assert earned == {"right", "remembers", "trains", "value"}
    assert found["unwritten"][1] == "Not answered yet."
    assert "Hint: this is the square" in found["squares"][1]
    assert "did not end within 3 seconds" in found["loops"][1]
    assert "ended the process before it answered" in found["floods"][1]
    assert "MemoryError" in found["fills"][1]
    assert "own folder only" in found["reads"][1]
    assert "may not do this: subprocess.Popen" in found["runs"][1]
    assert "may not do this: socket" in found["calls"][1]
    assert "is not defined; was its cell deleted, renamed" in found["gone"][1]
    assert (marks.points, marks.possible) == (6, 15)
    assert marks.by_cell()["right"] == 3
    # After `floods` all cells ran once more: that of `value` raised twice and is named once.
    assert marks.cells == [
        "`import os, sys` ended the process or did not end: it was left out",
        "`value = 12` raised RuntimeError: half way",
    ]
    assert "6 of 15 points" in marks.feedback()


@unix
@pytest.mark.slow
def test_hidden_inputs_are_drawn_anew_with_each_seed_and_sent_only_when_asked() -> None:
    seen: list[float] = []

    def judged(answer: Any, x: float) -> str:
        seen.append(x)
        return ""

    cases = task("f", judged=judged, cases=lambda g: [(float(g.normal()),)])
    for seed in (1, 2, 1):
        assert mark(["def f(x):\n    return x"], [cases], seed=seed).points == 1
    assert seen[0] == seen[2] != seen[1]


OUTSIDE = """
import os, socket, sqlite3, subprocess, sys
import _posixsubprocess, ctypes
home = os.getcwd()
outside = OUTSIDE
tries = {
    "a folder as a way to others": lambda: os.open("/usr", os.O_RDONLY),
    "a relative path": lambda: open(os.path.relpath(outside)),
    "chdir": lambda: os.chdir("/usr"),
    "system": lambda: ctypes.pythonapi.system(b"true"),
    "fork_exec": lambda: _posixsubprocess.fork_exec(),
    "run": lambda: subprocess.run(["true"]),
    "fork": lambda: os.fork() or os._exit(0),
    "kill": lambda: os.kill(os.getppid(), 0),
    "pidfd": lambda: os.pidfd_open(os.getppid()),
    "prlimit": lambda: __import__("resource").prlimit(os.getppid(), 0),
    "session": lambda: os.setsid(),
    "fifo": lambda: os.mkfifo("fifo"),
    "utime": lambda: os.utime(outside),
    "chown": lambda: os.chown(outside, -1, -1),
    "sendto": lambda: socket.socket(2, 2).sendto(b"x", ("127.0.0.1", 9)),
    "sqlite": lambda: sqlite3.connect(outside + ".sqlite"),
    "sqlite by URI": lambda: sqlite3.connect("file:" + outside, uri=True),
}
done = []
for name, act in tries.items():
    try:
        act()
        done.append(name)
    except (PermissionError, AttributeError):
        pass
    except Exception as error:
        done.append(name + " " + repr(error))
os.makedirs("a/b"), os.chdir("a"), os.chdir(home), open("a/b/c", "w").close(), os.remove("a/b/c")
"""


@unix
@pytest.mark.slow
def test_what_the_fence_refuses(tmp_path: Path) -> None:
    outside = tmp_path / "file"
    outside.write_text("x", encoding="utf-8")
    seen: list[Any] = []

    def judged(answer: Any) -> str:
        seen.append(answer)
        return ""

    asked = task("done", judged=judged, cases=None)
    source = OUTSIDE.replace("OUTSIDE", repr(str(outside)))
    marks = mark([source], [asked], seed=1, limits=Limits(starts=1))
    assert marks.cells == []
    assert seen == [[]]
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


PIPES = """
import json, os, stat, sys, time
frame = sys._getframe()
while "message" not in frame.f_locals:
    frame = frame.f_back
for end in range(3, 12):
    try:
        if stat.S_ISFIFO(os.fstat(end).st_mode):
            answers = end
    except OSError:
        pass
"""
FLOODS = PIPES + "while True:\n    os.write(answers, b'\\n' * 10)\n    time.sleep(0.05)"
#: Says that the cell has ended, and never reads the next.
STOPS = (
    PIPES
    + "reply = {'id': frame.f_locals['message']['id']}\n"
    + "os.write(answers, json.dumps(reply).encode() + b'\\n')\ntime.sleep(3000)"
)


@unix
@pytest.mark.slow
@pytest.mark.parametrize(
    ("cells", "seconds"), [([FLOODS], 1000), ([STOPS, "long = 1\n" + "#" * 300_000], 1)]
)
def test_a_flood_ends_by_its_lines_and_a_pipe_that_is_not_read_by_its_time(
    cells: list[str], seconds: int
) -> None:
    value = task("value", lambda: 1, cases=None)
    limits = Limits(cell_seconds=seconds, starts=1)
    marks = mark([*cells, "value = 1"], [value], seed=1, limits=limits)
    last = cells[-1].split("\n")[0] or "import json, os, stat, sys, time"
    assert marks.cells == [f"`{last}` ended the process or did not end: it was left out"]
    assert "ended too often" in marks.marks[0].words


@unix
def test_a_submission_has_a_limit_of_time_as_a_whole_and_of_cells() -> None:
    value = task("value", lambda: 1, cases=None)
    marks = mark(["pass"] * 3, [value], seed=1, limits=Limits(total_waiting=0, cells=2))
    assert "had used all of its time" in marks.marks[0].words
    assert marks.cells == ["`pass` and all after it were left out: too many"]


def uses_a_right_helper(student, x):  # type: ignore[no-untyped-def]
    student.use("helper", lambda x: 2 * x)
    return student.f(x)


HONEST = """
import functools, torch
torch.set_num_threads(2)
(torch.ones(400, 400) @ torch.ones(400, 400)).exp().sum()
def helper(x):
    return 0
---
def partly(x, k):
    return helper(x)
f = functools.partial(partly, k=0)
---
@functools.lru_cache
def f(x):
    return helper(x)
f = f
---
display("shown")
get_ipython().run_line_magic("matplotlib", "inline")
y = %time sum([1])
def threads(x):
    return float((torch.ones(400, 400) @ torch.ones(400, 400))[0, 0]) / 200 * x
---
def shouts(x):
    raise ValueError("\\udce4\\x1b[2J" + "x" * 1000)
---
def mixed(x):
    return ["a", 1]
"""


@unix
@pytest.mark.slow
def test_honest_ways_of_writing_are_marked_and_odd_ones_stop_nothing(tmp_path: Path) -> None:
    cells = HONEST.split("---\n")
    tasks = [
        task("f", driver=uses_a_right_helper), task("threads"), task("shouts"),
        task("mixed", judged=lambda answer, x: str(sum(answer))),
    ]  # fmt: skip
    marks = mark(cells, tasks, seed=1, limits=Limits(starts=1))
    found = by_name(marks)
    assert {name for name, (points, _) in found.items() if points} == {"f", "threads"}, found
    assert "cannot be judged (TypeError)" in found["mixed"][1]
    words = found["shouts"][1]
    assert words.isprintable()
    assert 300 < len(words) < 400
    (tmp_path / "feedback").write_text(marks.feedback(), encoding="utf-8")
