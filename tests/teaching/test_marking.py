"""Marks: what a submission's process may do, and that it gains nothing by what it may not."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch

from companion.teaching.checks import Mistake
from companion.teaching.marking import Limits, Marks, Task, cells_of, mark
from companion.teaching.student_process import Other, from_json, to_json

unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 2**200, 0.1, float("inf"), "aé", [1, (2, 3)], {"a": [1.5]},
        {(1, 2): 3}, {1, (2, 3)},
        np.arange(6.0).reshape(2, 3), np.array([True]), torch.tensor([[1, 2]]),
        torch.tensor(0.5, dtype=torch.float16), np.float32(0.25),
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
    for broken in (None, {}, {"cells": 3}, {"cells": [{"cell_type": "code"}]}):
        with pytest.raises(ValueError, match="no notebook"):
            cells_of(broken, release)  # type: ignore[arg-type]


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
        "right", "unwritten", "loops", "fills", "reads", "runs", "calls", "remembers", "trains",
        "gone",
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
    assert "MemoryError" in found["fills"][1]
    assert "own folder only" in found["reads"][1]
    assert "may not do this: subprocess.Popen" in found["runs"][1]
    assert "may not do this: socket" in found["calls"][1]
    assert "is not defined; was its cell deleted, renamed" in found["gone"][1]
    assert (marks.points, marks.possible) == (6, 14)
    assert marks.by_cell()["right"] == 3
    assert any(words.startswith("4 ended the process") for words in marks.cells)
    assert any("half way" in words for words in marks.cells)
    assert "6 of 14 points" in marks.feedback()


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
