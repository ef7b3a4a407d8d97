"""The page for instructors names every chapter, and its syllabuses can be taught in their order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tools import chapters, landing, slides

PAGE = chapters.ROOT / "book" / "appendix" / "teaching.md"
TEXT = PAGE.read_text(encoding="utf-8")
ASSIGNMENTS = chapters.ROOT / "assignments" / "source"


class Row(NamedTuple):
    """A week or session."""

    chapters: list[Path]
    figures: list[str]
    """The chapter that the mark behind each number of minutes names."""
    assignments: list[str]


def part(heading: str) -> str:
    """The text under a heading, up to the next one as high."""
    level = heading.partition(" ")[0]
    text = TEXT.partition(f"\n{heading}\n")[2]
    assert text, heading
    return re.split(rf"(?m)^#{{2,{len(level)}}} ", text)[0]


def named(text: str) -> list[Path]:
    """The chapters that a text links to."""
    found = re.findall(r"\{doc\}`/(book/[^`]+)`", text)
    return [chapters.ROOT / f"{name}.ipynb" for name in found]


def rows(syllabus: str) -> list[Row]:
    """The rows of a syllabus."""
    found = []
    for line in re.findall(r"(?m)^\| \d .*\|$", part(f"### {syllabus}")):
        cells = line.strip("| ").split(" | ")
        figures = re.findall(r"<!--=mean chapters: (\w+) cpu_minutes-->", cells[1])
        found.append(Row(named(cells[1]), figures, re.findall(r"\*([^*]+)\*", cells[3])))
    return found


@cache
def labels() -> dict[str, tuple[Path, str]]:
    """The chapter and the title of each exercise."""
    found = {}
    for path in chapters.toc_notebooks():
        for cell in chapters.read_notebook(path)["cells"]:
            text = "".join(cell["source"]) + "\n"
            pairs = re.findall(r"\{exercise(?:-start)?\}([^\n]*)\n:label: (\S+)", text)
            found |= {label: (path, title.strip()) for title, label in pairs}
    return found


def untaught(syllabus: Iterable[Iterable[Path]], known: Iterable[Path] = ()) -> list[str]:
    """Chapters whose needs come neither before them nor in the same week."""
    taught, wrong = set(known), []
    needs = landing.needs()
    for week in syllabus:
        taught |= set(week)
        for path in week:
            wrong += [
                f"{path.stem} needs {need.stem}" for need in needs[path] if need not in taught
            ]
    return wrong


@pytest.mark.parametrize("syllabus", ["Six weeks", "Two weeks"])
def test_a_syllabus_can_be_taught_in_its_order(syllabus: str) -> None:
    found = rows(syllabus)
    assert len(found) == 6
    assumed = named(part(f"### {syllabus}").partition("\n| ")[0])
    assert untaught([row.chapters for row in found], assumed) == []
    every = [path for row in found for path in row.chapters]
    assert len(every) == len(set(every)) > 0
    assert set(every).isdisjoint(assumed)


def test_a_chapter_before_what_it_needs_is_noticed() -> None:
    by_name = {path.stem: path for path in chapters.toc_notebooks()}
    order = [[by_name["lstm"]], [by_name["recurrent_network"]]]
    assert "lstm needs recurrent_network" in untaught(order)
    assert untaught([[by_name["lstm"]]], [by_name["recurrent_network"]]) == []


@pytest.mark.parametrize("syllabus", ["Six weeks", "Two weeks"])
def test_minutes_are_those_of_the_chapters_and_their_sum(syllabus: str) -> None:
    """That the numbers are those of the marks, tests/project/test_prose.py holds."""
    found = rows(syllabus)
    for row in found:
        assert row.figures == [path.stem for path in row.chapters]
    (total,) = re.findall(r"take \d+<!--=mean chapters: (.+?)-->", part(f"### {syllabus}"))
    every = [f"[{path.stem} cpu_minutes]" for row in found for path in row.chapters]
    assert total.split(" + ") == every


def goals() -> dict[Path, list[str]]:
    """The goals of each chapter, as written."""
    found: dict[Path, list[str]] = {}
    for block in part("## Goals, and how each is assessed").split("\n\n"):
        if block.startswith("{doc}"):
            head, *lines = block.splitlines()
            (path,) = named(head)
            assert path not in found
            found[path] = lines
    return found


def test_every_chapter_has_two_goals_each_with_what_assesses_it() -> None:
    assert list(goals()) == chapters.toc_notebooks()
    for path, lines in goals().items():
        assert len(lines) == 2
        for line in lines:
            assert re.fullmatch(r": [A-Z].+\. \*By:\* .+", line), line
            asked = re.findall(r"\{ref\}`([^<]+) <(ex-[^>]+)>`", line.partition("*By:*")[2])
            assert asked, line
            assert [labels()[label] for _, label in asked] == [(path, title) for title, _ in asked]


def assignments() -> dict[str, tuple[str, Path]]:
    """Folder and chapter of each assignment, by its title."""
    found = re.findall(r"(?m)^\| \*(.+)\* \| `(\w+)` \| \{doc\}`/(\S+)` \|", part("## Assignments"))
    return {title: (name, chapters.ROOT / f"{page}.ipynb") for title, name, page in found}


def test_the_assignments_are_those_that_there_are() -> None:
    assert len(assignments()) == 6
    by = " ".join(line.partition("*By:*")[2] for lines in goals().values() for line in lines)
    assert set(re.findall(r" \*([^*]+)\*", by)) == set(assignments())
    assert [each for row in rows("Six weeks") for each in row.assignments] == list(assignments())
    assert {each for row in rows("Two weeks") for each in row.assignments} < set(assignments())
    folders = {path.name for path in ASSIGNMENTS.iterdir() if path.is_dir()}
    assert folders == {name for name, _ in assignments().values()}
    tasks = re.findall(r" \*([^*]+)\* (\d+)", by)
    assert tasks
    for title, task in tasks:
        name, _ = assignments()[title]
        text = (ASSIGNMENTS / name / f"{name}.ipynb").read_text(encoding="utf-8")
        assert f'"## {task}. ' in text, f"{name} has no task {task}"


@pytest.mark.parametrize("syllabus", ["Six weeks", "Two weeks"])
def test_an_assignment_comes_when_its_chapter_was_taught(syllabus: str) -> None:
    taught: set[Path] = set()
    for row in rows(syllabus):
        taught |= set(row.chapters)
        for title in row.assignments:
            assert assignments()[title][1] in taught, title


def test_the_lectures_are_named_as_they_are() -> None:
    titles = {
        yaml.safe_load(path.read_text(encoding="utf-8"))["title"] for path in slides.lectures()
    }
    assert {title for title in titles if f"*{title}*" in part("## Slides")} == titles
    assert set(re.findall(r"lecture \*([^*]+)\*", part("## Two syllabuses"))) == titles
