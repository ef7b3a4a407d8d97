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


@each_assignment
def test_the_student_version_is_the_source_without_its_solutions(name: str) -> None:
    """So it has no answer, and nobody forgot `make assignments` after an edit."""
    source = assignments.notebook_of(name, "source")
    release = assignments.notebook_of(name, "release")
    wanted = [SOLUTION.sub(STUB, "".join(cell["source"])) for cell in source["cells"]]
    assert ["".join(cell["source"]) for cell in release["cells"]] == wanted
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
        assert each.notebook(source) != source
    if name == assignments.ABUSED:
        assert len(tried) >= 30


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
    assert "no notebook" in (tmp_path / "bob" / "feedback.txt").read_text(encoding="utf-8")


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
    assert "no notebook" in (tmp_path / "bob" / "feedback.txt").read_text(encoding="utf-8")


def test_a_folder_without_submissions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder for each student"):
        assignments.mark_folder(WHOLE, tmp_path, 3, 1)


def test_cells_that_only_show_are_not_run_for_marks() -> None:
    for name in assignments.names():
        source = assignments.notebook_of(name, "source")
        shows = [c for c in source["cells"] if "shows" in c["metadata"].get("tags", [])]
        assert shows
        cells = cells_of(source, assignments.notebook_of(name, "release"))
        assert all("".join(each["source"]) not in cells for each in shows)
