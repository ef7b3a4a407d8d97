"""What our own cell tag and `make notebooks` promise, shown on small notebooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tools import chapters, notebooks

ROOT = chapters.ROOT

pytestmark = pytest.mark.slow


def write_notebook(path: Path, *cells: Any) -> None:
    notebook = nbformat.v4.new_notebook(cells=list(cells))
    nbformat.write(notebook, path)


def code(source: str, stored: str | None = None, *tags: str) -> Any:
    outputs = (
        [] if stored is None else [nbformat.v4.new_output("stream", name="stdout", text=stored)]
    )
    return nbformat.v4.new_code_cell(
        source, outputs=outputs, execution_count=1, metadata={"tags": list(tags)}
    )


def nbval(path: Path, *, same_docs: bool) -> subprocess.CompletedProcess[str]:
    """Validate as `make nbval` does, under the recorded Python release or under another one."""
    plugin = path.parent / "release.py"
    plugin.write_text(f"import tools.nbval_tags as t\nt.same_python_docs = lambda: {same_docs}\n")
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "release", "-p", "tools.nbval_tags",
            "-p", "no:cacheprovider",
            "--nbval", "--nbval-current-env", "--nbval-sanitize-with", "tests/nbval_sanitize.cfg",
            "-o", "filterwarnings=default", str(path),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(path.parent)},
        capture_output=True,
        text=True,
    )  # fmt: skip


def test_a_stored_output_that_is_not_true_fails(tmp_path: Path) -> None:
    write_notebook(tmp_path / "a.ipynb", code("print(1)", "2\n"))
    run = nbval(tmp_path / "a.ipynb", same_docs=True)
    assert run.returncode == 1
    assert "1 failed" in run.stdout


def test_documentation_text_is_compared_under_the_recorded_release(tmp_path: Path) -> None:
    write_notebook(tmp_path / "a.ipynb", code("print(1)", "2\n", "python-docs"))
    assert nbval(tmp_path / "a.ipynb", same_docs=True).returncode == 1


def test_under_another_release_only_the_text_is_not_compared(tmp_path: Path) -> None:
    """One warning says so; an assertion in the cell still counts, and other cells are compared."""

    def tagged() -> Any:
        return code("print(1)", "2\n", "python-docs")

    write_notebook(tmp_path / "a.ipynb", tagged(), tagged())
    run = nbval(tmp_path / "a.ipynb", same_docs=False)
    assert run.returncode == 0, run.stdout
    assert run.stdout.count("their text is not compared") == 1
    write_notebook(tmp_path / "b.ipynb", code("print(1); assert False", "2\n", "python-docs"))
    assert nbval(tmp_path / "b.ipynb", same_docs=False).returncode == 1
    write_notebook(tmp_path / "c.ipynb", tagged(), code("print(1)", "2\n"))
    assert nbval(tmp_path / "c.ipynb", same_docs=False).returncode == 1


def test_executing_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3]);"
    write_notebook(path, code("print(1)"), code(plot))
    notebooks.execute(path)
    first = path.read_bytes()
    assert b"image/png" in first
    assert b"iopub" not in first
    notebooks.execute(path)
    assert path.read_bytes() == first


def test_progress_bars_are_not_stored_and_do_not_fail(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    write_notebook(
        path, code("from tqdm import tqdm\nfor _ in tqdm(range(3)): pass\nprint('done')")
    )
    notebooks.execute(path)
    (cell,) = nbformat.read(path, as_version=4).cells
    assert [output.name for output in cell.outputs] == ["stdout"]
    assert nbval(path, same_docs=True).returncode == 0


def test_a_warning_is_not_stored_but_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    write_notebook(path, code("import warnings\nwarnings.warn('mend me')"))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="mend me"):
        notebooks.execute(path)
    assert path.read_bytes() == before
