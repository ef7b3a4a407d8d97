"""What the book consists of: the chapters in _toc.yml, their first cell, the address in pyproject.

`python -m tools.chapters` prints the notebooks of the table of contents, one a line; with
--longest-first, those that take most minutes come first, so that no long one is begun when all
others are done; with --that-train, in the same order, those alone whose outputs depend on training;
with --share 1/3, every third of what is left.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import yaml

_Item = TypeVar("_Item")

ROOT = Path(__file__).resolve().parent.parent

#: The branch that chapters are opened from (_config.yml names it too) and their first cell installs
#: from: it is there before the first release and after, and what it holds belongs together.
BRANCH = "main"

FIRST_CELL = """\
try:
    import companion
except ModuleNotFoundError:  # away from the book's environment, as in Colab: add the companion alone
    %pip install -q --no-deps "trained-to-predict @ git+{url}@{branch}"
    import companion"""  # noqa: E501

#: The site folds the first cell away, and nbval compares its (empty) output like any other.
FIRST_CELL_TAGS = ["hide-input"]


def project() -> dict[str, Any]:
    """The content of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def repository_url() -> str:
    """The repository's address, from the one place that holds it."""
    url: str = project()["project"]["urls"]["Repository"]
    return url


def version() -> str:
    """The package's version, read without importing it."""
    text = (ROOT / "companion" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise ValueError('companion/__init__.py must hold a line __version__ = "..."')
    return match.group(1)


def first_cell() -> str:
    """The source of every chapter's first code cell."""
    return FIRST_CELL.format(url=repository_url(), branch=BRANCH)


def toc() -> list[tuple[str, str]]:
    """Name and part of every document in _toc.yml, in reading order; the first one has no part."""

    def names(node: Any) -> list[str]:
        if isinstance(node, list):
            return [name for item in node for name in names(item)]
        if not isinstance(node, dict):
            return []
        own = [node["file"]] if "file" in node else []
        return own + [name for value in node.values() for name in names(value)]

    listed = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [(listed["root"], "")] + [
        (name, part["caption"]) for part in listed["parts"] for name in names(part["chapters"])
    ]


def toc_files() -> list[Path]:
    """Every document in _toc.yml, in reading order, with its suffix."""
    files = []
    for name, _ in toc():
        found = [p for p in (ROOT / f"{name}.ipynb", ROOT / f"{name}.md") if p.exists()]
        if len(found) != 1:
            raise ValueError(f"_toc.yml names {name}: exactly one of .ipynb and .md must exist")
        files.append(found[0])
    return files


def toc_notebooks() -> list[Path]:
    """The notebooks in _toc.yml, in reading order."""
    return [path for path in toc_files() if path.suffix == ".ipynb"]


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook's JSON."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The notebook's code cells, their source joined to one string."""
    return [
        {**cell, "source": "".join(cell["source"])}
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def trained_cells(path: Path) -> int:
    """How many cells of a notebook have outputs that training makes."""
    cells = code_cells(read_notebook(path))
    return sum("nbval-ignore-output" in cell["metadata"].get("tags", []) for cell in cells)


def measured() -> dict[str, dict[str, Any]]:
    """What each chapter takes, as `tools.costs` has stored it, by the file's name without its
    ending."""
    stored = json.loads((ROOT / "book" / "results" / "chapters.json").read_text(encoding="utf-8"))
    (one,) = stored["results"]
    return {name: figures for name, figures in one.items() if name != "seed"}


def share_of(items: list[_Item], share: str) -> list[_Item]:
    """The k-th of n shares of a list, for "k/n"; ValueError for a share that is none."""
    part, _, parts = share.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ValueError(f"a share is like 1/3 (the first of three), got {share!r}")
    return items[int(part) - 1 :: int(parts)]


def listed(*, longest_first: bool, that_train: bool, share: str) -> list[Path]:
    """The notebooks that the command line asks for; ValueError for a share that is none."""
    found = toc_notebooks()
    if longest_first or that_train:
        known = {name: figures["cpu_minutes"] for name, figures in measured().items()}
        found.sort(key=lambda path: known.get(path.stem, math.inf), reverse=True)
    if that_train:
        found = [path for path in found if trained_cells(path)]
    return share_of(found, share)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tools.chapters")
    parser.add_argument("--longest-first", action="store_true")
    parser.add_argument("--that-train", action="store_true")
    parser.add_argument("--share", default="1/1", metavar="1/3")
    try:
        for path in listed(**vars(parser.parse_args())):
            print(path.relative_to(ROOT))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
