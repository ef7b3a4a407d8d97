"""A chapter by itself: an empty folder, an environment that holds the usual libraries and not ours.

That is what Colab is. The first cell must install the companion from the repository's tag, and
touch nothing else. The repository's address is sent to a local clone, so nothing need be published.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tools import chapters

ROOT = chapters.ROOT

pytestmark = pytest.mark.network

#: The chapter that trains least; what is tested is its first cell, the same in all of them.
CHAPTER = ROOT / "book" / "cross_entropy" / "surprise_and_code_length.ipynb"

#: Runs one notebook with the kernel of the interpreter that runs this, and fails where a cell does.
RUN_NOTEBOOK = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
"""


def git(*arguments: str, cwd: Path) -> str:
    run = subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return run.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that holds the working tree, tagged with the version as a release would be."""
    clone = tmp_path_factory.mktemp("published") / "repository"
    clone.mkdir()
    names = git("ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    for name in names:
        if (ROOT / name).is_file() and name.startswith(
            ("companion/", "book/results/", "pyproject.toml", "README.md", "LICENSE")
        ):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
    git("init", "--quiet", cwd=clone)
    git("add", "--all", cwd=clone)
    git(*identity, "commit", "--quiet", "--message", "Release", cwd=clone)
    git(*identity, "tag", f"v{chapters.version()}", cwd=clone)
    return clone


@pytest.fixture
def bare_environment(tmp_path: Path) -> Path:
    """An environment like this one, less the companion; its site-packages can be written to."""
    environment = tmp_path / "environment"
    # pip is one of the libraries linked below; installing it takes as long as the chapter.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    theirs = site_packages(environment)
    ours = Path(sysconfig.get_path("purelib"))
    companions = {
        path.parts[0]
        for path in importlib.metadata.distribution("trained-to-predict").files or []
        if path.parts[0] != ".."
    }
    for entry in ours.iterdir():
        if entry.name not in companions and not (theirs / entry.name).exists():
            (theirs / entry.name).symlink_to(entry)
    return environment


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


@pytest.mark.timeout(900)
@pytest.mark.parametrize("chapter", [CHAPTER], ids=[str(CHAPTER.relative_to(ROOT))])
def test_a_chapter_runs_alone_and_installs_nothing_but_the_companion(
    chapter: Path, published: Path, bare_environment: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    python = str(bare_environment / "bin" / "python")
    environment = {
        **{
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "VIRTUAL_ENV"))
        },
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{published.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": chapters.repository_url(),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter"),
        "IPYTHONDIR": str(home),
        "MPLCONFIGDIR": str(home),
        "OMP_NUM_THREADS": "1",
    }
    absent = subprocess.run(
        [python, "-c", "import companion"], cwd=folder, env=environment, capture_output=True
    )
    assert b"ModuleNotFoundError" in absent.stderr
    shutil.copy(chapter, folder)
    before = contents(site_packages(bare_environment))

    run = subprocess.run(
        [python, "-c", RUN_NOTEBOOK, chapter.name],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip

    assert run.returncode == 0, run.stdout + run.stderr
    after = contents(site_packages(bare_environment))
    assert {name: after[name] for name in before} == before, "the install changed a library"
    version = chapters.version()
    assert set(after) - set(before) == {"companion", f"trained_to_predict-{version}.dist-info"}
    where = subprocess.run(
        [python, "-c", "import companion; print(companion.__file__, companion.__version__)"],
        cwd=folder, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert where.stdout.split() == [
        str(site_packages(bare_environment) / "companion" / "__init__.py"),
        version,
    ]


def test_the_package_imports_with_what_colab_holds_alone(published: Path, tmp_path: Path) -> None:
    """No jaxtyping, no pooch, no typer: every module that a chapter imports does without them."""
    code = """
import importlib, importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    names = {"jaxtyping", "beartype", "pooch", "typer", "nbclient", "pytest", "hypothesis"}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import pkgutil, companion
for module in pkgutil.walk_packages(companion.__path__, "companion."):
    if not module.name.startswith(("companion.cli", "companion.__main__")):
        importlib.import_module(module.name)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=published, capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stderr) == (0, "")
