"""What our own cell tag and `make notebooks` promise, shown on small notebooks."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tools import chapters, nbval_tags, notebooks

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


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What nbval said of some notebooks."""

    cells: dict[str, list[str]]
    """Outcome of each cell, by notebook."""
    output: str
    """All that was printed."""


PLUGIN = """
import json, pathlib
import tools.nbval_tags
tools.nbval_tags.same_python_docs = lambda: {same_docs}

def pytest_runtest_logreport(report):
    if report.when == "call":
        with pathlib.Path(__file__).with_name("outcomes").open("a") as file:
            print(json.dumps([report.nodeid, report.outcome]), file=file)
"""


def nbval(folder: Path, *, same_docs: bool) -> Validation:
    """Validate as `make nbval` does, under the recorded Python release or under another one."""
    (folder / "release.py").write_text(PLUGIN.format(same_docs=same_docs))
    names = sorted(path.name for path in folder.glob("*.ipynb"))
    run = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "release", "-p", "tools.nbval_tags",
            "-p", "no:cacheprovider", "--rootdir", str(folder),
            "--nbval", "--nbval-current-env", "--nbval-sanitize-with", "tests/nbval_sanitize.cfg",
            "-o", "filterwarnings=default", *(str(folder / name) for name in names),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    cells: dict[str, list[str]] = {name: [] for name in names}
    for line in (folder / "outcomes").read_text().splitlines():
        node, outcome = json.loads(line)
        cells[node.split("::")[0]].append(outcome)
    failures = sum(outcome == "failed" for outcomes in cells.values() for outcome in outcomes)
    assert run.returncode == int(failures > 0), run.stdout
    return Validation(cells=cells, output=run.stdout)


@pytest.mark.parametrize(("deaths", "works"), [(0, True), (2, True), (3, False)])
def test_a_kernel_that_dies_while_it_starts_is_started_again(deaths: int, works: bool) -> None:
    starts = []

    def start(name: str) -> str:
        starts.append(name)
        if len(starts) <= deaths:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return name

    if works:
        assert nbval_tags.tried_again(start)("python") == "python"
    else:
        with pytest.raises(RuntimeError, match="died before replying"):
            nbval_tags.tried_again(start)("python")
    assert len(starts) == min(deaths + 1, nbval_tags.STARTS)


@pytest.fixture(scope="module")
def same_release(tmp_path_factory: pytest.TempPathFactory) -> Validation:
    """Notebooks validated under the Python release that the stored outputs were made with."""
    folder = tmp_path_factory.mktemp("same")
    untrue = code("print(1)", "2\n")
    write_notebook(folder / "untrue.ipynb", untrue, code("print(1)", "1\n"))
    write_notebook(folder / "tagged.ipynb", code("print(1)", "2\n", "python-docs"))
    bar = "from tqdm import tqdm\nfor _ in tqdm(range(3)): pass\nprint('done')"
    write_notebook(folder / "bar.ipynb", code(bar, "done\n"))
    return nbval(folder, same_docs=True)


def test_a_stored_output_that_is_not_true_fails(same_release: Validation) -> None:
    assert same_release.cells["untrue.ipynb"] == ["failed", "passed"]


def test_documentation_text_is_compared_under_the_recorded_release(
    same_release: Validation,
) -> None:
    assert same_release.cells["tagged.ipynb"] == ["failed"]


def test_a_progress_bar_does_not_fail(same_release: Validation) -> None:
    assert same_release.cells["bar.ipynb"] == ["passed"]


def test_under_another_release_only_the_text_is_not_compared(tmp_path: Path) -> None:
    """One warning says so; an assertion in the cell still counts, and other cells are compared."""
    write_notebook(
        tmp_path / "a.ipynb",
        code("print(1)", "2\n", "python-docs"),
        code("print(1)", "2\n", "python-docs"),
        code("print(1); assert False", "2\n", "python-docs"),
        code("print(1)", "2\n"),
    )
    seen = nbval(tmp_path, same_docs=False)
    assert seen.cells["a.ipynb"] == ["passed", "passed", "failed", "failed"]
    assert seen.output.count("their text is not compared") == 1


def magics(source: str) -> list[str]:
    """The names of IPython's own commands in a cell, as IPython finds them: %, %%, !, ?."""
    plain = TransformerManager().transform_cell(source)
    calls = (node for node in ast.walk(ast.parse(plain)) if isinstance(node, ast.Call))
    return [
        str(ast.literal_eval(call.args[0]))
        for call in calls
        if ast.unparse(call.func).startswith("get_ipython().")
    ]


@pytest.mark.parametrize(
    "source",
    ["%time x = 1", "%%timee\nassert False", "!ls", "x = !ls", "x = %pwd", "len?", "%%capture\n1",
     "if True:\n    %timeit 1"],
)  # fmt: skip
def test_a_magic_is_found_however_it_is_written(source: str) -> None:
    assert magics(source)
    assert magics("x = 7 % 3\ny = '%time'\nassert x != 2  # !") == []


def test_a_magic_that_does_not_exist_hides_what_follows_it(tmp_path: Path) -> None:
    """Why no cell may have one: validation passes, and nothing below the first line has run."""
    write_notebook(tmp_path / "a.ipynb", code("%%timee\nassert False"))
    assert nbval(tmp_path, same_docs=True).cells["a.ipynb"] == ["passed"]


@pytest.mark.parametrize("path", chapters.toc_notebooks(), ids=lambda path: path.stem)
def test_a_chapter_has_one_magic_that_installs_and_no_other(path: Path) -> None:
    first, *others = chapters.code_cells(chapters.read_notebook(path))
    (command,) = magics(first["source"])
    assert command == "pip"
    for cell in others:
        assert magics(cell["source"]) == [], cell["source"]


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


def test_a_cell_whose_extra_is_missing_keeps_its_stored_output(tmp_path: Path) -> None:
    path = tmp_path / "book.ipynb"
    write_notebook(path, code("print('Not here: a model')", "Oslo\n"), code("print(2)", "1\n"))
    notebooks.execute(path)
    told, compared = nbformat.read(path, as_version=4).cells
    assert (told.outputs[0].text, compared.outputs[0].text) == ("Oslo\n", "2\n")


def test_progress_bars_are_not_stored(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    write_notebook(
        path, code("from tqdm import tqdm\nfor _ in tqdm(range(3)): pass\nprint('done')")
    )
    notebooks.execute(path)
    (cell,) = nbformat.read(path, as_version=4).cells
    assert [output.name for output in cell.outputs] == ["stdout"]


def test_a_warning_is_not_stored_but_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    write_notebook(path, code("import warnings\nwarnings.warn('mend me')"))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="mend me"):
        notebooks.execute(path)
    assert path.read_bytes() == before
