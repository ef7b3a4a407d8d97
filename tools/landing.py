"""What the landing page shows of the whole book: which chapter needs which, their costs, counts.

All of it is read from the chapters. "You need {doc}`lstm` ..." in a chapter's opening says what it
builds on; `book/_ext/chapter_map.py` draws that, with the measured minutes and memory
(`tools.costs`), when the site is built. Numbers in the page's sentences have marks (`tools.prose`).
"""

from __future__ import annotations

import ast
import html
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import chapters, costs
from tools.chapters import ROOT

# --- Which chapter needs which -------------------------------------------------------------------


def opening(path: Path) -> str:
    """A chapter's text before its first code."""
    cells: list[str] = []
    for cell in chapters.read_notebook(path)["cells"]:
        if cell["cell_type"] != "markdown":
            break
        cells.append("".join(cell["source"]))
    return "\n\n".join(cells)


def title(path: Path) -> str:
    """A chapter's heading."""
    found = re.search(r"(?m)^# (.+)$", opening(path))
    if found is None:
        raise ValueError(f"{path.name} must begin with a heading: # ...")
    return found[1].strip()


#: The sentence of an opening that says what a chapter builds on, up to the one on time and memory.
NEEDED = re.compile(
    r"(?:^|(?<=\s))You need .*?(?=\sThe chapter (?:takes|trains|needs|runs)|\n\n|$)", re.DOTALL
)


def named_in(text: str, path: Path) -> list[Path]:
    """The chapters that "You need ..." in an opening at `path` links to, in its order."""
    found = NEEDED.search(text)
    if found is None:
        return []
    targets = re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`|\]\(([^)#]+)\.ipynb[^)]*\)", found[0])
    paths = []
    for target in ("".join(pair) for pair in targets):
        wanted = Path(os.path.normpath(path.parent / f"{target}.ipynb"))
        if wanted not in paths:
            paths.append(wanted)
    return paths


def needs() -> dict[Path, list[Path]]:
    """For each chapter in reading order, those that its opening names as needed."""
    return {path: named_in(opening(path), path) for path in chapters.toc_notebooks()}


def wrong_needs(found: Mapping[Path, Iterable[Path]]) -> list[str]:
    """Needs that are no earlier chapter of the book. Without them, no chapters need each other."""
    place = {path: i for i, path in enumerate(found)}
    wrong = []
    for path, wanted in found.items():
        for other in wanted:
            if other not in place:
                wrong.append(f"{path.stem} needs {other.stem}, which is no chapter")
            elif place[other] >= place[path]:
                wrong.append(f"{path.stem} needs {other.stem}, which does not come before it")
    return wrong


def direct(found: Mapping[Path, Iterable[Path]]) -> list[tuple[Path, Path]]:
    """Pairs (needed, chapter), without those that follow from others."""
    behind: dict[Path, set[Path]] = {}
    for path, wanted in found.items():  # in reading order, so what is needed is known already
        behind[path] = set().union(*({other} | behind[other] for other in wanted))
    pairs = []
    for path, wanted in found.items():
        for other in wanted:
            if not any(other in behind[third] for third in wanted):
                pairs.append((other, path))
    return pairs


def parts() -> dict[str, list[Path]]:
    """The chapters of each part, by the part's name."""
    notebooks = set(chapters.toc_notebooks())
    found: dict[str, list[Path]] = {}
    for name, part in chapters.toc():
        path = ROOT / f"{name}.ipynb"
        if path in notebooks:
            found.setdefault(part, []).append(path)
    return found


# --- Counts --------------------------------------------------------------------------------------


TASK = re.compile(r"\{(exercise(?:-start)?|solution(?:-start|-end)?)\}([^\n]*)\n(?::label: (\S+))?")


@dataclass
class _Solution:
    ran: bool = False


def exercises(notebook: Mapping[str, Any]) -> dict[str, bool | None]:
    """Each exercise by its label: whether code of its solution ran; None where it has none."""
    tasks: list[str] = []
    solved: dict[str, _Solution] = {}
    inside: _Solution | None = None
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            if inside is not None and cell["execution_count"]:
                inside.ran = True
            continue
        for kind, argument, label in TASK.findall(source + "\n"):
            if kind.startswith("exercise"):
                tasks.append(label)
            elif kind == "solution-end":
                inside = None
            else:
                new = solved.setdefault(argument.strip(), _Solution())
                inside = new if kind == "solution-start" else None
    return {task: solved[task].ran if task in solved else None for task in tasks}


def guesses(notebook: dict[str, Any]) -> int:
    """How many results a chapter asks the reader to guess before it shows them."""
    total = 0
    for cell in chapters.code_cells(notebook)[1:]:
        for node in ast.walk(ast.parse(cell["source"])):
            if isinstance(node, ast.Assign) and all(map(_asks, node.targets)):
                try:
                    ast.literal_eval(node.value)
                except ValueError:
                    continue
                total += sum(len(getattr(target, "elts", [0])) for target in node.targets)
    return total


def _asks(target: ast.expr) -> bool:
    """Whether an assignment to this enters a guess: guesses["gain"], or guess_gain."""
    return ast.unparse(target).lstrip("(").startswith("guess")


def counts() -> dict[str, float]:
    """What there is in the book and what it costs, for sentences that say so.

    Costs are left out until every chapter has been measured.
    """
    notebooks = [chapters.read_notebook(path) for path in chapters.toc_notebooks()]
    solved = [ran for notebook in notebooks for ran in exercises(notebook).values()]
    found: dict[str, float] = {
        "chapters": len(notebooks),
        "exercises": len(solved),
        "solutions": sum(ran is not None for ran in solved),
        "solutions that run": sum(ran is True for ran in solved),
        "guesses": sum(map(guesses, notebooks)),
    }
    measured = costs.stored()
    if all(path.stem in measured for path in chapters.toc_notebooks()):
        found |= {
            "minutes": sum(cost.minutes for cost in measured.values()),
            "minutes of the longest": max(cost.minutes for cost in measured.values()),
            "gigabytes of the largest": max(cost.gigabytes for cost in measured.values()),
        }
    return found


# --- The map -------------------------------------------------------------------------------------

WIDTH = 360
SIZE = 12
ROW = 24
HEADING = 34
TOP = -6
#: Where the chapters' points lie, their titles begin, and the two columns of figures end.
POINT, TITLE, MINUTES, MEMORY = 64, 74, 322, 358
MAIN = "var(--pst-color-primary,#2b93a2)"
OTHER = "var(--pst-color-secondary,#d2701c)"
#: Neighbouring lanes differ, so that a line can be followed.
COLORS = (MAIN, OTHER, "currentColor")

Link = Callable[[Path], str]


def shown_minutes(cost: costs.Cost) -> str:
    """Minutes with one digit after the point."""
    return f"{cost.minutes:.1f}"


def _places() -> tuple[dict[Path, float], list[tuple[str, float]], float]:
    """The height of each chapter's row, of each part's heading, and of the whole."""
    y: float = TOP
    rows: dict[Path, float] = {}
    headings = []
    for name, own in parts().items():
        headings.append((name, y + 0.6 * HEADING))
        y += HEADING
        for path in own:
            rows[path] = y + ROW / 2
            y += ROW
    return rows, headings, y + 4


def lanes(pairs: Iterable[tuple[Path, Path]], rows: Mapping[Path, float]) -> dict[Path, int]:
    """The lane in which the lines from each needed chapter run down, 0 the nearest to the titles.

    Short ones come nearest, and no two that lie side by side share a lane.
    """
    ends: dict[Path, float] = {}
    for needed, path in pairs:
        ends[needed] = max(ends.get(needed, 0.0), rows[path])
    taken: list[list[tuple[float, float]]] = []
    found = {}
    for needed in sorted(ends, key=lambda path: (ends[path] - rows[path], rows[path])):
        top, bottom = rows[needed], ends[needed]
        lane = 0
        while lane < len(taken) and any(top < b and a < bottom for a, b in taken[lane]):
            lane += 1
        if lane == len(taken):
            taken.append([])
        taken[lane].append((top, bottom))
        found[needed] = lane
    return found


def _line(upper: float, lower: float, x: float) -> str:
    """From one point to the left, down at `x`, and to another point."""
    r = min(8.0, POINT - x, (lower - upper) / 2)
    return (
        f"M{POINT},{upper:g}H{x + r:g}Q{x:g},{upper:g} {x:g},{upper + r:g}"
        f"V{lower - r:g}Q{x:g},{lower:g} {x + r:g},{lower:g}H{POINT}"
    )


def drawing(link: Link) -> str:
    """The map as one `<svg>`: a row for each chapter, lines to what it needs, minutes, memory.

    link: gives the address of a chapter. A chapter's lines are emphasized while its title is
    pointed at.
    """
    rows, headings, height = _places()
    measured = costs.stored()
    number = {path: i for i, path in enumerate(rows)}
    out = []
    for x, unit in ((MINUTES, "min"), (MEMORY, "GB")):  # beside the first part's name
        out.append(f'<text x="{x}" y="{headings[0][1] + 4:g}" text-anchor="end">{unit}</text>')
    for name, y in headings:
        out.append(f'<text x="{TITLE}" y="{y + 4:g}" font-weight="600">{html.escape(name)}</text>')
    pairs = direct(needs())
    lane = lanes(pairs, rows)
    step = min(9.0, (POINT - 4) / (1 + max(lane.values(), default=0)))
    for needed, path in pairs:
        color = COLORS[lane[needed] % len(COLORS)]
        line = _line(rows[needed], rows[path], POINT - step * (1 + lane[needed]))
        out.append(f'<path class="to-{number[path]}" stroke="{color}" d="{line}"/>')
    for path, y in rows.items():
        out.append(f'<circle cx="{POINT}" cy="{y:g}" r="4"/>')
        out.append(
            f'<a class="chapter-{number[path]}" href="{html.escape(link(path))}">'
            f'<text x="{TITLE}" y="{y + 4:g}">{html.escape(title(path))}</text></a>'
        )
        if path.stem in measured:
            cost = measured[path.stem]
            for x, figure in ((MINUTES, shown_minutes(cost)), (MEMORY, f"{cost.gigabytes:.1f}")):
                out.append(f'<text x="{x}" y="{y + 4:g}" text-anchor="end">{figure}</text>')
    style = "".join(
        f".chapter-map:has(.chapter-{i}:is(:hover,:focus-visible)) path.to-{i}"
        "{stroke-width:3;opacity:1}"
        for i in number.values()
    )
    alt = (
        f"The {len(rows)} chapters in reading order, by part. A line leads to a chapter from each "
        "that it needs. The table below says the same in words."
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chapter-map" role="group" '
        f'aria-label="{alt}" viewBox="0 0 {WIDTH} {height:g}" '
        f'font-family="var(--pst-font-family-base,system-ui,sans-serif)" font-size="{SIZE}" '
        f'fill="currentColor">\n<style>{style}</style>\n' + "\n".join(out) + "\n</svg>"
    )


def table(link: Link) -> str:
    """The same as a table of HTML, part by part, with all that each opening names."""
    measured = costs.stored()
    wanted = needs()

    def linked(path: Path) -> str:
        return f'<a href="{html.escape(link(path))}">{html.escape(title(path))}</a>'

    out = [
        '<table class="table chapter-table"><thead><tr><th>chapter</th><th>needs</th>'
        "<th>minutes</th><th>GB</th></tr></thead>"
    ]
    for name, own in parts().items():
        out.append(f'<tbody><tr><th colspan="4" scope="rowgroup">{html.escape(name)}</th></tr>')
        for path in own:
            cost = measured.get(path.stem)
            figures = (shown_minutes(cost), f"{cost.gigabytes:.1f}") if cost else ("", "")
            cells = [linked(path), ", ".join(map(linked, wanted[path])) or "–", *figures]
            out.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        out.append("</tbody>")
    return "\n".join([*out, "</table>"])
