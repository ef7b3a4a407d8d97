"""The models that the book's pages run (`companion.teaching.Play`), as the notebooks hold them."""

from __future__ import annotations

from pathlib import Path

from tools import chapters

#: How the HTML of each begins.
SHELL = '<div class="play"'


def stored(path: Path) -> dict[str, str]:
    """The HTML of each model in a chapter, by the id of the cell that shows it."""
    found = {}
    for cell in chapters.code_cells(chapters.read_notebook(path)):
        for output in cell["outputs"]:
            page = "".join(output.get("data", {}).get("text/html", ""))
            if SHELL in page:
                found[str(cell["id"])] = page
    return found


def printed(path: Path, cell_id: str) -> str:
    """What the cell with this id prints beside its model."""
    cells = chapters.code_cells(chapters.read_notebook(path))
    (cell,) = (cell for cell in cells if cell["id"] == cell_id)
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])
