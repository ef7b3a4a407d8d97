"""Where the site's links to Colab lead: the chapter itself, in what the link calls our repository.

A local repository holds the working tree; the address in the links is sent to it, so nothing need
be published. Needs the built site, and no browser.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import nbformat
import pytest

from tools import chapters, colab

ROOT = chapters.ROOT
HTML = ROOT / "_build" / "html"
COLAB = "https://colab.research.google.com/github/"
NOTEBOOKS = chapters.toc_notebooks()

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone by the very address and branch that the links name."""
    folder = tmp_path_factory.mktemp("colab")
    published = folder / "published"
    colab.publish(published, also=("book/",))
    variables = {**os.environ, **colab.environment(published, folder / "home")}
    address = chapters.repository_url()
    subprocess.run(
        ["git", "clone", "--quiet", "--branch", chapters.BRANCH, address, str(folder / "clone")],
        env=variables, check=True,
    )  # fmt: skip
    return folder / "clone"


def targets(page: str) -> list[str]:
    """The paths behind a page's links to Colab, less owner, name and branch, which must be ours."""
    found = re.findall(rf'href="{re.escape(COLAB)}([^"]+)"', page)
    owner_and_name = chapters.repository_url().removeprefix("https://github.com/")
    start = f"{owner_and_name}/blob/{chapters.BRANCH}/"
    assert [link for link in found if not link.startswith(start)] == []
    return [link.removeprefix(start) for link in found]


@pytest.mark.parametrize("chapter", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_link_to_colab_opens_the_chapter(chapter: Path, clone: Path) -> None:
    name = chapter.relative_to(ROOT)
    page = (HTML / name).with_suffix(".html").read_text(encoding="utf-8")
    found = targets(page)
    assert found
    assert set(found) == {name.as_posix()}
    notebook = nbformat.read(clone / found[0], as_version=4)
    nbformat.validate(notebook)
    heading = re.search(r"(?m)^# (.+)$", notebook.cells[0].source)
    assert heading is not None
    assert notebook.cells[0].source == nbformat.read(chapter, as_version=4).cells[0].source
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert code.source == chapters.first_cell()


def test_a_link_to_another_repository_or_branch_is_noticed() -> None:
    name = chapters.repository_url().removeprefix("https://github.com/")
    for wrong in (f"{name}/blob/draft/book/x.ipynb", "someone/else/blob/main/book/x.ipynb"):
        with pytest.raises(AssertionError):
            targets(f'<a href="{COLAB}{wrong}">')
