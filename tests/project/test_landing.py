"""The landing page says what is so: needs, counts, minutes and memory of the chapters."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import nbformat
import pytest
from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font

from companion.evaluation.claims import stored_report
from tools import chapters, costs, landing

NOTEBOOKS = chapters.toc_notebooks()
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def page() -> str:
    return chapters.toc_files()[0].read_text(encoding="utf-8")


# --- Which chapter needs which ----------------------------------------------------------------


def test_a_chapter_needs_earlier_chapters_only() -> None:
    assert landing.wrong_needs(landing.needs()) == []


def test_a_need_that_comes_later_or_is_no_chapter_is_noticed() -> None:
    a, b, c = Path("a.ipynb"), Path("b.ipynb"), Path("c.ipynb")
    assert landing.wrong_needs({a: [], b: [a]}) == []
    assert landing.wrong_needs({a: [b], b: [a]}) == ["a needs b, which does not come before it"]
    assert landing.wrong_needs({a: [a]}) == ["a needs a, which does not come before it"]
    assert landing.wrong_needs({a: [c], b: []}) == ["a needs c, which is no chapter"]


@each_notebook
def test_a_chapter_says_what_it_needs(path: Path) -> None:
    found = landing.NEEDED.search(landing.opening(path))
    assert found, 'the opening lacks a sentence "You need {doc}`lstm` ..."'
    assert len(landing.named_in(landing.opening(path), path)) == len(
        set(re.findall(r"\{doc\}`[^`]+`|\]\([^)]+\.ipynb\)", found[0]))
    )
    assert path == NOTEBOOKS[0] or landing.needs()[path]


def test_needs_are_read_from_the_sentence_that_says_so_and_no_other() -> None:
    here = chapters.ROOT / "book" / "training" / "lstm.ipynb"
    text = (
        "# T\n\n- see {doc}`fast_and_large`\n\nYou need the chain rule, {doc}`recurrent_network` "
        "and {doc}`the floor <../cross_entropy/known_source>` and [text](text_to_tokens.ipynb). "
        "The chapter takes about a minute; see {doc}`training_loop`."
    )
    names = [path.stem for path in landing.named_in(text, here)]
    assert names == ["recurrent_network", "known_source", "text_to_tokens"]
    assert landing.named_in("# T\n\nAll you need is {doc}`love`.", here) == []


def test_lines_that_follow_from_others_are_left_out() -> None:
    a, b, c, d = (Path(f"{name}.ipynb") for name in "abcd")
    pairs = landing.direct({a: [], b: [a], c: [a, b], d: [a, c]})
    assert pairs == [(a, b), (b, c), (c, d)]
    assert landing.direct({a: [], b: [], c: [a, b]}) == [(a, c), (b, c)]


def test_lines_that_lie_side_by_side_have_lanes_of_their_own() -> None:
    pairs = landing.direct(landing.needs())
    rows = {path: float(i) for i, path in enumerate(NOTEBOOKS)}
    lane = landing.lanes(pairs, rows)
    spans = {
        needed: (rows[needed], max(rows[to] for start, to in pairs if start == needed))
        for needed in lane
    }
    for one, (top, bottom) in spans.items():
        for other, (a, b) in spans.items():
            assert one == other or lane[one] != lane[other] or bottom <= a or b <= top


# --- The drawing ------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def drawn() -> ElementTree.Element:
    return ElementTree.fromstring(landing.drawing(lambda path: f"{path.stem}.html"))


def test_the_map_links_every_chapter_and_has_a_line_for_each_need() -> None:
    root = drawn()
    wanted = landing.needs()
    links = [element.get("href") for element in root.iter(f"{SVG}a")]
    assert links == [f"{path.stem}.html" for path in NOTEBOOKS]
    assert len(list(root.iter(f"{SVG}path"))) == len(landing.direct(wanted))
    assert len(root.get("aria-label", "")) > 80
    table = landing.table(lambda path: f"{path.stem}.html")
    for path in NOTEBOOKS:
        named = sum(path in others for others in wanted.values())
        assert table.count(f'href="{path.stem}.html"') == 1 + named


def test_the_map_is_legible_on_a_phone_and_nothing_in_it_meets() -> None:
    """360 units are as many pixels as a phone's column has; DejaVu Sans is as wide as any font."""
    root = drawn()
    _, _, width, height = map(float, root.get("viewBox", "").split())
    assert width == 360
    assert float(root.get("font-size", "0")) >= 12
    face = {
        weight: FT2Font(font_manager.findfont(FontProperties(family="DejaVu Sans", weight=weight)))
        for weight in ("normal", "bold")
    }
    rows: dict[float, list[tuple[float, float]]] = {}
    for element in root.iter(f"{SVG}text"):
        font = face["bold" if element.get("font-weight") else "normal"]
        font.set_size(12, 72)
        font.set_text(element.text or "")
        long = font.get_width_height()[0] / 64
        x, y = float(element.get("x", "0")), float(element.get("y", "0"))
        left = x - long if element.get("text-anchor") == "end" else x
        assert left >= landing.POINT + 5
        assert left + long <= width
        assert 12 <= y <= height
        rows.setdefault(y, []).append((left, left + long))
    for spans in rows.values():
        spans.sort()
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert end + 2 <= start
    heights = sorted(rows)
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 16


# --- Counts -----------------------------------------------------------------------------------


def test_every_exercise_has_a_solution() -> None:
    for path in NOTEBOOKS:
        found = landing.exercises(chapters.read_notebook(path))
        assert found
        assert None not in found.values(), path.stem
    counts = landing.counts()
    assert counts["exercises"] == counts["solutions"]
    assert 0.8 * counts["solutions"] < counts["solutions that run"] < counts["solutions"]


def markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": text.splitlines(keepends=True)}


def code(text: str, count: int | None = 1) -> dict[str, Any]:
    return {"cell_type": "code", "source": [text], "execution_count": count, "outputs": []}


def test_exercises_solutions_and_guesses_are_counted() -> None:
    notebook = {
        "cells": [
            code("import companion"),
            code("guesses = Guesses()"),
            code('guesses["gain"] = 2.5  # gain'),
            code("guess_a, guess_b = 1, -2.0"),
            code("guesses = model(x)"),
            code("best = 3"),
            markdown("```{exercise} One\n:label: ex-a\n\nText\n```"),
            markdown("```{solution-start} ex-a\n:class: dropdown\n```"),
            code("answer = 1"),
            markdown("```{solution-end}\n```\n\n```{exercise-start} Two\n:label: ex-b\n```"),
            code("answer = None"),
            markdown("```{exercise-end}\n```\n\n```{solution} ex-b\nIn words.\n```"),
            markdown("```{exercise}\n:label: ex-c\n```\n```{solution-start} ex-c\n```"),
            code("not_run = 1", None),
            markdown("```{exercise}\n:label: ex-d\n```"),
        ]
    }
    assert landing.exercises(notebook) == {"ex-a": True, "ex-b": False, "ex-c": False, "ex-d": None}
    assert landing.guesses(notebook) == 3


def test_the_page_s_numbers_of_exercises_solutions_guesses_and_chapters_are_marked() -> None:
    """tests/project/test_prose.py holds marked numbers against the counts."""
    wanted = ["chapters", "exercises", "solutions that run", "guesses"]
    wanted += ["minutes of the longest", "minutes"]
    for what in wanted:
        assert f"<!--=count chapters: {what}-->" in page()
    assert re.findall(r"\d+(?! *<!--)\s+(?:exercises|chapters|solutions|guesses)", page()) == []
    assert re.search(r"each exercise has a solution", page())


# --- Minutes and memory ------------------------------------------------------------------------


def test_every_chapter_was_measured_on_the_processor_that_the_page_names() -> None:
    assert set(costs.stored()) == {path.stem for path in NOTEBOOKS}, "run `make costs`"
    report = stored_report(costs.NAME)
    (part,) = report["measured"]
    assert part["environment"]["processor"] in page()
    assert part["environment"]["torch_threads"] == 1
    assert "one thread" in page()
    for name in costs.stored():
        assert re.fullmatch(r"[0-9a-f]{40}", report["results"][0][name]["commit"])


@each_notebook
def test_an_opening_says_the_minutes_and_the_memory_that_were_measured(path: Path) -> None:
    """To within 30 %, a quarter of a minute and 0.15 GB: `python -m tools.costs --say`."""
    said = costs.said(landing.opening(path))
    measured = costs.stored()[path.stem]
    assert said is not None, f"the opening lacks: {costs.sentence(measured)}"
    assert costs.differs(said, measured) == "", f"it may say: {costs.sentence(measured)}"


@pytest.mark.parametrize(
    ("text", "minutes", "gigabytes"),
    [
        ("The chapter takes about two minutes and 1 GB of memory on two cores.", 2, 1),
        ("The chapter takes about half a minute and half a gigabyte of memory.", 0.5, 0.5),
        ("The chapter takes about a minute and a half and 1 GB of memory on two cores.", 1.5, 1),
        ("The chapter trains for about a minute and a quarter on two processor cores and takes "
         "less than 1 GB of memory.", 1.25, 1),
        ("The chapter takes about two and a half minutes and 0.7 GB of memory. More.", 2.5, 0.7),
        ("The chapter takes about three quarters of a minute and .4 GB of memory.", 0.75, 0.4),
        ("The chapter takes about a quarter of a minute and a gigabyte of memory.", 0.25, 1),
        ("The chapter takes about 1.5 minutes of processor time and 1.2 GB of memory.", 1.5, 1.2),
    ],
)  # fmt: skip
def test_minutes_and_memory_are_read_from_words(
    text: str, minutes: float, gigabytes: float
) -> None:
    assert costs.said(f"# T\n\nYou need nothing. {text}\n\nThe question: 7 GB?") == (
        minutes, gigabytes,
    )  # fmt: skip


def test_an_opening_without_time_or_memory_is_refused_and_one_without_both_is_none() -> None:
    assert costs.said("# T\n\nYou need a minute.") is None
    with pytest.raises(ValueError, match=r"an opening says .* got 'The chapter takes about two"):
        costs.said("The chapter takes about two minutes on two cores.")


def test_what_an_opening_may_say_is_read_as_what_was_measured() -> None:
    for minutes in (0.2, 0.5, 0.8, 1, 1.3, 1.5, 1.8, 2.1, 2.5, 3.2, 5.9, 7.5, 12):
        measured = costs.Cost(minutes, 0.84)
        said = costs.said(costs.sentence(measured))
        assert said
        assert costs.differs(said, measured) == ""
        assert costs.differs(costs.Cost(said.minutes + 0.8 + minutes / 2, 0.8), measured)
        assert costs.differs(costs.Cost(said.minutes, 1.2), measured)


def test_a_run_is_measured_with_what_it_starts(tmp_path: Path) -> None:
    """Half a second of work here, half a second in a child, and 200 MB held for a while."""
    busy = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    cells = (
        busy,
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])",
        "held = bytearray(b'x' * 200_000_000); time.sleep(0.5)",
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbformat.write(notebook, tmp_path / "a.ipynb")
    before = (tmp_path / "a.ipynb").read_bytes()
    large = "import time; held = bytearray(b'x' * 500_000_000); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", large], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()  # it holds its memory, and is none of the notebook's
        cost = costs.measure(tmp_path / "a.ipynb")
        other.kill()
    assert 1 / 60 - 0.01 <= cost.minutes < 0.2
    assert 0.2 <= cost.gigabytes < 0.6
    assert (tmp_path / "a.ipynb").read_bytes() == before
