"""Numbers in sentences, held against the stored measurements they come from.

    python -m tools.prose               names each that differs, and fails if one does
    python -m tools.prose --write       writes what they should be
    python -m tools.prose --plain PATH  numbers of a chapter that carry no mark, to be looked at

A number about what training gave carries a mark behind it, a comment of HTML that neither Jupyter
nor Colab shows, and that the site leaves out:

    It refuses 96 %<!--=mean mismatched_generalization: refusal plain--> of them.
    about a third<!--~.3 .36 mean two_problems: ungrammatical-->

`=` says that the number before it is the statistic, rounded as it is written; with a % sign, in per
cent. `~low high` says that the words before it are true of a statistic between two bounds. The
statistic is mean, min or max over the runs with fresh seeds, then come measurement and figure. With
square brackets around figures one may calculate: `=min shortcut: [flipped plain] - [worst plain]`;
it is done for each run by itself. Captions and alternative texts carry marks like other sentences.

Pages of Markdown have marks too, and those of another kind, `=count chapters: exercises`: what
there is in the book, as `tools.landing.counts` counts it.
"""

from __future__ import annotations

import ast
import functools
import json
import operator
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from companion.evaluation.claims import numbers_by_name, stored_report
from tools import chapters, landing

# All comments but the place of a model, `<!--model: CHAPTER CELL-->` (book/_ext/page_models.py).
COMMENT = re.compile(r"<!--(?!model: ).*?-->", re.DOTALL)
MARK = re.compile(r"<!--(?P<kind>[=~])(?P<rest>.*?)-->", re.DOTALL)
# A sign behind a letter or a digit is a hyphen: "10-13 %". Of 3e-3, a part is no number.
NUMBER = re.compile(
    r"(?P<sign>(?<![\w.,%)])[-\N{MINUS SIGN}])?(?<![\w.,])(?<!\de[-\N{MINUS SIGN}])"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?P<per>(?:\s|&nbsp;)?%)?$"
)
STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "mean": lambda values: sum(values) / len(values),
    "min": min,
    "max": max,
}
OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


class Fault(NamedTuple):
    """A mark whose number or words are not so."""

    where: str
    text: str
    wanted: str


@functools.cache
def _runs(name: str) -> list[dict[str, float]]:
    return [numbers_by_name(result) for result in stored_report(name)["results"]]


def statistic(words: str) -> float:
    """What "mean MEASUREMENT: FIGURE" is; ValueError for words that say no such thing."""
    match = re.fullmatch(r"\s*(\w+)\s+(\w+):\s*(.+?)\s*", words)
    if match is None or match[1] not in (*STATISTICS, "count"):
        known = ", ".join((*STATISTICS, "count"))
        raise ValueError(f"a mark says {known}, then MEASUREMENT: FIGURE; got {words!r}")
    how, name, formula = match.groups()
    if how == "count":
        return _counted(name, formula)
    return STATISTICS[how]([_figure(formula, run, name) for run in _runs(name)])


@functools.cache
def _counts() -> dict[str, float]:
    return landing.counts()


def _counted(name: str, what: str) -> float:
    if name != "chapters" or what not in _counts():
        raise ValueError(
            f"what is counted is one of chapters: {', '.join(_counts())}; got {name}: {what}"
        )
    return _counts()[what]


def _measured(words: str, where: str) -> float:
    """The statistic; an error in its words says where they stand."""
    try:
        return statistic(words)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _figure(formula: str, run: dict[str, float], name: str) -> float:
    names = re.findall(r"\[([^\]]*)\]", formula) or [formula]
    for figure in names:
        if figure not in run:
            raise ValueError(f"{name} has no figure {figure!r}; it has {', '.join(sorted(run))}")
    if "[" not in formula:
        return run[formula]
    plain = re.sub(r"\[([^\]]*)\]", lambda found: f"({run[found[1]]!r})", formula)
    return _value(ast.parse(plain, mode="eval").body)


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.operand))
    raise ValueError(
        f"a formula has numbers, figures in brackets and + - * /, not {ast.dump(node)}"
    )


def _as_written(value: float, before: re.Match[str]) -> str:
    """`value` with as many decimals, and in the same style, as the number it stands for."""
    digits = before["digits"]
    places = len(digits.partition(".")[2])
    value *= 100 if before["per"] else 1
    text = f"{abs(value):{',' if ',' in digits else ''}.{places}f}"
    if digits.startswith("."):
        text = text.removeprefix("0")
    sign = before["sign"] or "\N{MINUS SIGN}"
    negative = value < 0 and any(digit in "123456789" for digit in text)
    return (sign if negative else "") + text + (before["per"] or "")


def corrected(text: str, where: str) -> tuple[str, list[Fault]]:
    """`text` with each marked number as it should be, and what was not so.

    ValueError, which says where, for a comment that is no mark.
    """
    for comment in COMMENT.findall(text):
        if not MARK.fullmatch(comment):
            raise ValueError(f"{where}: {comment} is no mark, which begins with <!--= or <!--~")
    faults: list[Fault] = []
    parts: list[str] = []
    end = 0
    for mark in MARK.finditer(text):
        before = text[end : mark.start()]
        if mark["kind"] == "~":
            bounds = re.match(r"\s*(\S+)\s+(\S+)\s+(.*)", mark["rest"], re.DOTALL)
            if bounds is None:
                raise ValueError(f"{where}: {mark[0]} needs two bounds, then a statistic")
            found = _measured(bounds[3], where)
            if not float(bounds[1]) <= found <= float(bounds[2]):
                wanted = f"{found:.4g}, which is not between {bounds[1]} and {bounds[2]}"
                faults.append(Fault(where, before[-40:] + mark[0], wanted))
        else:
            number = NUMBER.search(before)
            if number is None:
                raise ValueError(f"{where}: no number stands before {mark[0]}: ...{before[-40:]!r}")
            wanted = _as_written(_measured(mark["rest"], where), number)
            if wanted.replace("\N{MINUS SIGN}", "-") != number[0].replace("\N{MINUS SIGN}", "-"):
                faults.append(Fault(where, number[0] + mark[0], wanted))
            before = before[: number.start()] + wanted
        parts += [before, mark[0]]
        end = mark.end()
    return "".join([*parts, text[end:]]), faults


def passages(notebook: dict[str, Any]) -> Iterator[tuple[str, str, Callable[[str], None]]]:
    """Each text that a reader sees: where it stands, the text, and how to replace it."""
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":

            def put(new: str, cell: dict[str, Any] = cell) -> None:
                cell["source"] = new.splitlines(keepends=True)

            yield f"cell {number}", "".join(cell["source"]), put
        look = cell["metadata"].get("mystnb", {})
        for part, key in (("figure", "caption"), ("image", "alt")):
            if key in look.get(part, {}):

                def put_in(new: str, of: dict[str, str] = look[part], key: str = key) -> None:
                    of[key] = new

                yield f"cell {number}, {key}", look[part][key], put_in


def check(path: Path, *, write: bool = False) -> list[Fault]:
    """The marks of a page that are not so; `write` puts them right where a number can be."""
    if path.suffix == ".md":
        text = path.read_text(encoding="utf-8")
        new, wrong = corrected(text, path.name)
        if write and new != text:
            path.write_text(new, encoding="utf-8")
        return wrong
    notebook = chapters.read_notebook(path)
    faults: list[Fault] = []
    for where, text, put in passages(notebook):
        new, found = corrected(text, f"{path.name}, {where}")
        faults += found
        if new != text:
            put(new)
    if write and faults:
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
    return faults


def pages() -> list[Path]:
    """All pages: those that hold no mark cost nothing."""
    return chapters.toc_files()


def plain_numbers(path: Path) -> Iterator[str]:
    """Numbers that carry no mark, each with the words around it."""
    for where, text, _ in passages(chapters.read_notebook(path)):
        for found in re.finditer(r"(?<![\w$\\{])\d[\d,.]*(?: ?%)?", text):
            if not text[found.end() :].startswith("<!--"):
                around = text[max(0, found.start() - 45) : found.end() + 30].replace("\n", " ")
                yield f"{where}: ...{around}..."


def main() -> int:
    """Command line; the exit status is 1 when a mark is not so."""
    if "--plain" in sys.argv[1:]:
        print("\n".join(plain_numbers(Path(sys.argv[-1]))))
        return 0
    write = "--write" in sys.argv[1:]
    named = [Path(name) for name in sys.argv[1:] if not name.startswith("-")]
    faults = [fault for path in named or pages() for fault in check(path, write=write)]
    for fault in faults:
        print(f"{fault.where}: {fault.text} should be {fault.wanted}")
    return int(bool(faults) and not (write and not any("~" in fault.text for fault in faults)))


if __name__ == "__main__":
    raise SystemExit(main())
