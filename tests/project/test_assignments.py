"""Assignments: student versions hold no answer, points agree, and marks are what they should be.

All that was tried on them is tried by `make assignments`; here, one assignment whole (slow) and of
the others the reference and the empty student version.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from assignments.tried import Tried, abuse
from companion.teaching.marking import cells_of
from tools import assignments, chapters

unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
each_assignment = pytest.mark.parametrize("name", assignments.names())

#: The one that is tried whole.
WHOLE = "decoding_and_goodhart"

SOLUTION = re.compile(r"([ \t]*)### BEGIN SOLUTION.*?### END SOLUTION", re.DOTALL)
STUB = r"\1# YOUR CODE HERE\n\1raise NotImplementedError()"


def graded(notebook: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Cells by nbgrader's name."""
    cells = [c for c in notebook["cells"] if "nbgrader" in c["metadata"]]
    found = {c["metadata"]["nbgrader"]["grade_id"]: c for c in cells}
    assert len(found) == len(cells), "two cells have one grade_id"
    return found


def sources(notebook: dict[str, Any]) -> list[str]:
    """The text of each cell."""
    return ["".join(cell["source"]) for cell in notebook["cells"]]


@each_assignment
def test_the_student_version_is_the_source_without_its_solutions(name: str) -> None:
    """So it has no answer, and nobody forgot `make assignments` after an edit."""
    source = assignments.notebook_of(name, "source")
    release = assignments.notebook_of(name, "release")
    wanted = [SOLUTION.sub(STUB, text) for text in sources(source)]
    assert sources(release) == wanted
    assert "SOLUTION" not in json.dumps(release)
    assert all(not cell.get("outputs") for cell in [*source["cells"], *release["cells"]])


@each_assignment
def test_a_notebook_begins_as_chapters_do_and_its_lines_fit_the_page(name: str) -> None:
    notebook = assignments.notebook_of(name, "source")
    first, *_ = code = chapters.code_cells(notebook)
    assert first["source"] == chapters.first_cell()
    for cell in code[1:]:
        assert max(map(len, cell["source"].splitlines())) <= 76


@each_assignment
def test_points_of_cells_are_those_of_the_judge(name: str) -> None:
    cells = graded(assignments.notebook_of(name, "release"))
    points = {
        key: cell["metadata"]["nbgrader"]["points"]
        for key, cell in cells.items()
        if cell["metadata"]["nbgrader"]["grade"]
    }
    tasks = assignments.tasks_of(name)
    asked = {cell: sum(t.points for t in tasks if t.cell == cell) for cell in points}
    assert points == asked
    assert {task.cell for task in tasks} == set(points)
    assert sum(points.values()) == 20
    assert len({task.name for task in tasks}) == len(tasks)
    for task in tasks:
        assert (task.reference is None) != (task.judged is None)


@each_assignment
def test_enough_is_tried_and_each_edit_fits_the_reference(name: str) -> None:
    source = assignments.notebook_of(name, "source")
    tried = assignments.wrong_submissions(name)
    wrong = [each for each in tried if each.lost]
    assert len(wrong) >= 6
    for each in tried:
        assert sources(each.notebook(source)) != sources(source), each.name


def test_the_readme_counts_what_attacks() -> None:
    text = (assignments.FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"has {len(abuse.TRIED)} such submissions" in text


@unix
@pytest.mark.slow
@each_assignment
def test_the_reference_gets_all_points_and_the_empty_version_none(name: str) -> None:
    source = assignments.notebook_of(name, "source")
    marks = assignments.mark_notebook(name, source, seed=1)
    assert (marks.points, marks.possible) == (20, 20), marks.feedback()
    empty = assignments.notebook_of(name, "release")
    marks = assignments.mark_notebook(name, empty, seed=1)
    assert marks.points == 0, marks.feedback()


@unix
@pytest.mark.slow
@each_assignment
def test_the_reference_runs_whole_in_an_empty_folder(name: str) -> None:
    """Its visible tests too; it takes seconds."""
    assignments.run_whole(assignments.notebook_of(name, "source"))


@unix
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_wrong_submissions_get_their_points_and_a_hint_that_names_their_mistake() -> None:
    for tried in assignments.wrong_submissions(WHOLE):
        _, unexpected = assignments.try_one(WHOLE, tried, seed=2)
        assert unexpected == [], tried.name


@unix
@pytest.mark.slow
def test_a_class_is_marked_and_one_broken_file_stops_nobody(tmp_path: Path) -> None:
    source = assignments.notebook_of(WHOLE, "source")
    for student, text in {"ada": json.dumps(source), "bob": "{", "cyd": "[]"}.items():
        (tmp_path / student).mkdir()
        (tmp_path / student / f"{WHOLE}.ipynb").write_text(text, encoding="utf-8")
    marks = assignments.mark_folder(WHOLE, tmp_path, 3, 1)
    assert {name: sum(found.values()) for name, found in marks["students"].items()} == {
        "ada": 20, "bob": 0, "cyd": 0,
    }  # fmt: skip
    assert sum(marks["cells"].values()) == 20
    assert json.loads((tmp_path / "marks.json").read_text(encoding="utf-8")) == marks
    assert "20 of 20 points" in (tmp_path / "ada" / "feedback.txt").read_text(encoding="utf-8")
    assert "not a notebook" in (tmp_path / "bob" / "feedback.txt").read_text(encoding="utf-8")


def test_a_submission_that_cannot_be_marked_costs_no_other_its_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for student, text in {"ada": '{"cells": []}', "bob": "[" * 100_000, "cyd": "3"}.items():
        (tmp_path / student).mkdir()
        (tmp_path / student / f"{WHOLE}.ipynb").write_text(text, encoding="utf-8")

    def broken(*_: Any, **__: Any) -> Any:
        raise TypeError("unforeseen \udce4")

    monkeypatch.setattr(assignments, "mark", broken)
    marks = assignments.mark_folder(WHOLE, tmp_path, 3, 1)
    assert sorted(marks["students"]) == ["ada", "bob", "cyd"]
    assert json.loads((tmp_path / "marks.json").read_text(encoding="utf-8")) == marks
    assert "look at it by hand" in (tmp_path / "ada" / "feedback.txt").read_text(encoding="utf-8")
    assert "not a notebook" in (tmp_path / "bob" / "feedback.txt").read_text(encoding="utf-8")


@unix
def test_nobody_is_left_out_and_no_link_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, outside = tmp_path / "class", tmp_path / "outside"
    outside.write_text("kept", encoding="utf-8")
    files = {"ada": f"{WHOLE}.ipynb", "bob": f"{WHOLE}.ipynb", "cyd": f"{WHOLE} (1).ipynb"}
    for student, file in files.items():
        (folder / student).mkdir(parents=True)
        (folder / student / file).write_text('{"cells": []}', encoding="utf-8")
    (folder / "ada" / "feedback.txt").symlink_to(outside)
    (folder / "bob" / "feedback.txt").mkdir()
    starts = []

    def second_time(*_: Any, **__: Any) -> Any:
        starts.append(0)
        if len(starts) == 1:
            raise RuntimeError("did not start")
        return assignments.no_points(WHOLE, "wrong")

    monkeypatch.setattr(assignments, "mark", second_time)
    monkeypatch.setattr("sys.argv", ["assignments", "mark", WHOLE, str(folder), "--jobs", "1"])
    assert assignments.main() == 1
    assert len(starts) == 3
    marks = json.loads((folder / "marks.json").read_text(encoding="utf-8"))
    assert sorted(marks["students"]) == ["ada", "bob", "cyd"]
    assert sum(marks["students"]["cyd"].values()) == 0
    assert sorted(marks["by_hand"]) == ["bob", "cyd"]
    assert outside.read_text(encoding="utf-8") == "kept"
    assert "wrong" in (folder / "ada" / "feedback.txt").read_text(encoding="utf-8")
    assert [path.name for path in (folder / "bob").glob("feedback*")] == ["feedback.txt"]
    said = capsys.readouterr().out
    assert f"no {WHOLE}.ipynb here, but: '{WHOLE} (1).ipynb'" in said
    assert "bob has no feedback.txt" in said


def test_a_folder_without_submissions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder for each student"):
        assignments.mark_folder(WHOLE, tmp_path, 3, 1)


def titles_in(text: str) -> set[str]:
    """What stands in italics."""
    return set(re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", text))


@each_assignment
def test_chapters_are_named_by_their_headings_and_alike_in_the_table(name: str) -> None:
    notebooks = [path for path in chapters.toc_files() if path.suffix == ".ipynb"]
    texts = [json.loads(path.read_text(encoding="utf-8"))["cells"][0] for path in notebooks]
    headings = {
        match[1] for cell in texts if (match := re.search(r"(?m)^# (.+)$", "".join(cell["source"])))
    }
    first = "".join(assignments.notebook_of(name, "source")["cells"][0]["source"])
    needed = re.search(r"You need the chapters? (.*?) All cells run", first, re.DOTALL)
    assert needed is not None
    named = titles_in(needed[1])
    assert named
    assert named <= headings
    table = (assignments.FOLDER / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"(?m)^\| `{name}` \|([^|]*)\|", table)
    assert row is not None
    assert titles_in(row[1]) == named


@each_assignment
def test_the_notebook_says_what_is_on_honour(name: str) -> None:
    first = "".join(assignments.notebook_of(name, "source")["cells"][0]["source"])
    assert first.count("on your honour") == 1


#: What is too simple or half repaired, by solution cell, and a word of the visible test about it.
REFUSED = [
    ("decoding_and_goodhart", "best-of-n", "math.log(n) - (n - 1) / n", "0.0", "Not yet"),
    (
        "decoding_and_goodhart", "control",
        "return gold_of_best(proxy, gold, n) - float(np.mean(controls))", "return 0.0",
        "minus the mean of the controls",
    ),
    (
        "memorization_and_shift", "exposure", "return means[0] - means[1]", "return 0.0",
        "minus a mean over the controls",
    ),
    (
        "memorization_and_shift", "parts", "MarkovSource(new).stationary",
        "np.full(len(new), 1 / len(new))", "its share on the new source",
    ),
    ("memorization_and_shift", "auroc", " + 0.5 * (second == first)", "", "one is a tie"),
    ("lstm_and_training_loop", "loop", "model.train()", "model.eval()", "dropout is off"),
    ("lstm_and_training_loop", "loop", "nats / targets.numel()", "nats / len(targets)", "a mean"),
    ("lstm_and_training_loop", "loop", "optimizer.zero_grad()", "pass", "loss alone"),
    (
        "lstm_and_training_loop", "loop", "None if state is None else state.detach()", "None",
        "carry it on",
    ),
    (
        "lstm_and_training_loop", "loop", "None if state is None else state.detach()", "state",
        "detach the state",
    ),
    (
        "lstm_and_training_loop", "loop",
        "nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n        optimizer.step()",
        "optimizer.step()\n        nn.utils.clip_grad_norm_(model.parameters(), max_norm)",
        "clipped before the step",
    ),
]  # fmt: skip


@unix
@pytest.mark.slow
@pytest.mark.parametrize(("name", "cell", "old", "new", "words"), REFUSED)
def test_visible_tests_refuse_what_is_trivial_or_half_repaired(
    name: str, cell: str, old: str, new: str, words: str
) -> None:
    tried = Tried(name="trivial", edits=[(cell, old, new)])
    with pytest.raises(RuntimeError, match=words):
        assignments.run_whole(tried.notebook(assignments.notebook_of(name, "source")))


def test_cells_that_only_show_are_not_run_for_marks() -> None:
    for name in assignments.names():
        source = assignments.notebook_of(name, "source")
        shows = [c for c in source["cells"] if "shows" in c["metadata"].get("tags", [])]
        assert shows
        cells = cells_of(source, assignments.notebook_of(name, "release"))
        assert all("".join(each["source"]) not in cells for each in shows)
