"""Write the drawings that stand in the text of a chapter, as files below book/assets/drawings/.

    python -m tools.drawings

A chapter's opening drawing is made by a cell. Others are pictures of Markdown, which needs a file:
`![what it shows](../assets/drawings/NAME.svg)`, with the drawing's own alternative text. Colab and
Jupyter show the file; the site shows the drawing itself, in the page's colours.
"""

from __future__ import annotations

from pathlib import Path

from companion.figures.drawings import CATALOGUE
from tools.chapters import ROOT

FOLDER = ROOT / "book" / "assets" / "drawings"


def files() -> dict[Path, str]:
    """Each file with what belongs into it."""
    return {
        FOLDER / f"{name}.svg": drawing.file_svg
        for name, drawing in CATALOGUE.items()
        if not drawing.opens
    }


def main() -> None:
    """Command line."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
