"""Chapters where most readers run them: an empty folder, Colab's libraries, and not ours.

`make colab` builds .venv-colab from tests/colab.txt and runs this with the developers' environment,
which drives the other's kernel. The first cell must install the companion from the branch it names,
and touch nothing else; then every picture must respond. The repository's address is sent to a local
copy, so nothing need be published.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tools import assignments, chapters, colab

ROOT = chapters.ROOT

#: `make colab` builds it.
COLAB = ROOT / ".venv-colab"

pytestmark = [
    pytest.mark.network,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not COLAB.exists(), reason="no .venv-colab here: run `make colab`"),
]

#: Of each part of the book a chapter that takes little, the more so when the models it shares with
#: other chapters are in the cache, as after `make nbval`; the others run once a week.
LEAST = {
    "background/language_models",
    "cross_entropy/surprise_and_code_length",
    "training/text_to_tokens",
    "objective_mismatch/competing_objectives",
    "mismatched_generalization/closing_the_gap",
    "practice/translation",
}


def named(chapter: Path) -> str:
    return str(chapter.relative_to(ROOT / "book").with_suffix(""))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that holds the working tree and no tag, as before the first release."""
    clone = tmp_path_factory.mktemp("published") / "repository"
    colab.publish(clone)
    return clone


@pytest.fixture
def bare_environment(tmp_path: Path) -> Iterator[Path]:
    """An environment like Colab's, without the companion; its site-packages can be written to."""
    environment = tmp_path / "environment"
    python = COLAB / "bin" / "python"
    # pip is one of the libraries linked below, at Colab's version.
    subprocess.run([python, "-m", "venv", "--without-pip", str(environment)], check=True)
    for entry in site_packages(COLAB).iterdir():
        if not (site_packages(environment) / entry.name).exists():
            (site_packages(environment) / entry.name).symlink_to(entry)
    yield environment
    shutil.rmtree(environment)


def site_packages(environment: Path) -> Path:
    (found,) = environment.glob("lib/python3*/site-packages")
    return found


def contents(folder: Path) -> dict[str, str]:
    """Name to where it points: changes when anything is added, removed or replaced."""
    return {
        entry.name: os.path.realpath(entry)
        for entry in folder.iterdir()
        if entry.name != "__pycache__"
    }


@pytest.mark.parametrize(
    "chapter",
    [
        pytest.param(path, id=named(path), marks=[] if named(path) in LEAST else pytest.mark.slow)
        for path in chapters.toc_notebooks()
    ],
)
def test_a_chapter_runs_in_colab_alone_and_its_pictures_respond(
    chapter: Path, published: Path, bare_environment: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    python = str(bare_environment / "bin" / "python")
    variables = colab.environment(published, tmp_path / "home")

    def run(code: str) -> Any:
        return subprocess.run(
            [python, "-c", code], cwd=folder, env=variables, capture_output=True, text=True
        )

    assert "ModuleNotFoundError" in run("import companion").stderr
    before = contents(site_packages(bare_environment))

    report = colab.run_chapter(chapter, python, folder, variables)

    assert report.pictures >= 1
    after = contents(site_packages(bare_environment))
    assert {name: after[name] for name in before} == before, "the install changed a library"
    version = chapters.version()
    assert set(after) - set(before) == {"companion", f"trained_to_predict-{version}.dist-info"}
    where = run("import companion; print(companion.__file__, companion.__version__)")
    assert where.stdout.split() == [
        str(site_packages(bare_environment) / "companion" / "__init__.py"),
        version,
    ]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "decoding_and_goodhart" else pytest.mark.slow)
        for name in assignments.names()
    ],
)
def test_a_student_who_answers_an_assignment_in_colab_sees_every_test_pass(
    name: str, published: Path, bare_environment: Path, tmp_path: Path
) -> None:
    """The source is the student version with answers; the student version has no others."""
    folder = tmp_path / "empty"
    folder.mkdir()
    python = str(bare_environment / "bin" / "python")
    source = ROOT / "assignments" / "source" / name / f"{name}.ipynb"
    colab.run_chapter(source, python, folder, colab.environment(published, tmp_path / "home"))


PICTURE = """
import ipywidgets
from companion.teaching import widgets

def draw(order, smoothing):
    return f"{order} {smoothing}"

def picture():
    return widgets.explore(draw, alt="Order", order=[1, 2, 3, 4], smoothing=["wb", "kn"])

"""


def run_picture(code: str, published: Path, folder: Path) -> colab.Report:
    """What the tool reports of a chapter with one picture, made by `code`."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PICTURE + code)])
    stored = {"text/plain": "", "text/html": '<figure class="explore"></figure>'}
    notebook.cells[0].outputs = [nbformat.v4.new_output("execute_result", data=stored)]
    chapter = folder / "chapter.ipynb"
    nbformat.write(notebook, chapter)
    python = str(COLAB / "bin" / "python")
    variables = {**colab.environment(published, folder / "home"), "PYTHONPATH": str(published)}
    return colab.run_chapter(chapter, python, folder, variables)


def test_a_picture_that_responds_is_counted(published: Path, tmp_path: Path) -> None:
    assert run_picture("picture()", published, tmp_path).pictures == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("'a chapter without its picture'", "0 pictures that respond, 1 are stored"),
        ("del ipywidgets.VBox\npicture()", "has no live face"),
        ("p = picture()\np.frame = lambda _: p.frames[0]\np", "does not answer a move"),
        ("p = picture()\np.frame = lambda _: p.frames[-1]\np", r"in place of Order \(Order: 2"),
        ("import warnings\nwarnings.warn('old')\npicture()", "wrote to stderr"),
    ],
    ids=["absent", "one face", "dead", "wrong frame", "warning"],
)
def test_a_picture_with_a_fault_is_refused(
    fault: str, words: str, published: Path, tmp_path: Path
) -> None:
    """The check of chapters can fail, in each way there is."""
    with pytest.raises(ValueError, match=words):
        run_picture(fault, published, tmp_path)


def test_a_chapter_of_each_part_is_among_those_that_run_every_time() -> None:
    parts = {named(path).split("/")[0] for path in chapters.toc_notebooks()}
    assert {name.split("/")[0] for name in LEAST} == parts
    assert {named(path) for path in chapters.toc_notebooks()} >= LEAST


def test_every_module_imports_in_colab(published: Path, tmp_path: Path) -> None:
    """With what Colab holds: no jaxtyping, no nbclient, an older Jupyter.

    The one module left out is the source of exported models, which asks for Transformers, an extra.
    """
    code = """
import importlib, pkgutil, companion
assert importlib.util.find_spec("jaxtyping") is None
for module in pkgutil.walk_packages(companion.__path__, "companion."):
    if not module.name.endswith((".__main__", ".lstm_for_transformers")):
        importlib.import_module(module.name)
"""
    run = subprocess.run(
        [COLAB / "bin" / "python", "-c", code],
        cwd=published, env=colab.environment(published, tmp_path),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
