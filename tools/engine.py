"""Refuse to build the book with another Jupyter Book than the one it is written for.

`python -m tools.engine` is run by `make book` first. Version 2 is another program, which reads
neither _config.yml nor _toc.yml, and says nothing of that.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata

from tools import chapters


def wrong_engine() -> str:
    """What is wrong with the Jupyter Book of this environment and what to do; "" if all is well."""
    (wanted,) = (
        requirement
        for requirement in chapters.project()["project"]["optional-dependencies"]["book"]
        if re.match(r"jupyter-book==", requirement)
    )
    try:
        found = metadata.version("jupyter-book")
    except metadata.PackageNotFoundError:
        found = "missing"
    if found == wanted.partition("==")[2]:
        return ""
    return (
        f"error: this book is built by {wanted}, and in {sys.prefix} jupyter-book is {found}, "
        "which cannot build it. Put the right one there:\n"
        f"  {sys.executable} -m pip install {wanted}\n"
        "or remove the folder .venv and run make book again."
    )


if __name__ == "__main__":
    sys.exit(wrong_engine() or 0)
