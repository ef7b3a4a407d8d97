"""The project holds together: imports, versions, addresses, chapters and contents agree."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from bs4 import BeautifulSoup
from jaxtyping import TypeCheckError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import companion
from companion.teaching.exercises import EXERCISES
from tools import chapters, minimum, notebooks, packages, variants

ROOT = chapters.ROOT
PACKAGE = ROOT / "companion"


def tracked_files() -> list[Path]:
    """Files that are, or would be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def texts() -> dict[Path, str]:
    """Committed text files with their content."""
    found = {}
    for path in tracked_files():
        try:
            found[path] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


# --- imports -------------------------------------------------------------------------------------


def test_every_package_has_a_place_in_the_order_of_imports() -> None:
    assert {name.split(".")[0] for name in packages.modules()} == set(packages.ORDER)
    assert [path for path in PACKAGE.glob("*.py") if not path.name.startswith("__")] == []


@pytest.mark.parametrize("module", sorted(packages.modules()))
def test_a_module_imports_only_from_those_before_it(module: str) -> None:
    source = packages.modules()[module].read_text(encoding="utf-8")
    assert packages.wrong_imports(source, module) == []


def test_no_modules_import_each_other() -> None:
    assert packages.cycle(packages.graph()) == []


def test_the_order_of_imports_is_noticed_when_broken() -> None:
    """The rule above is itself tested, on sources that break it in each way there is."""
    wrong = packages.wrong_imports
    assert wrong("from companion.training.trainer import train", "models.lstm") == [
        "training.trainer"
    ]
    assert wrong("def f():\n    import companion.training", "models.lstm") == ["training"]
    assert wrong("from ..training.trainer import train", "models.lstm") == ["training.trainer"]
    assert wrong("from companion import training", "models.lstm") == ["training"]
    assert wrong("from companion.core import runtime", "figures.style") == ["core.runtime"]
    assert wrong("from companion.nowhere import x", "models.lstm") == ["nowhere"]
    assert wrong("from companion.studies import shortcut", "studies.coverage") == [
        "studies.shortcut"
    ]
    assert wrong("from companion.models import lstm", "training.trainer") == []
    assert wrong("from companion import __version__", "core.runtime") == []
    assert packages.cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


def test_a_package_exports_what_it_says_and_hides_no_module() -> None:
    """`from companion.world import World` works in a chapter, and a name is one thing only."""
    for name in packages.ORDER:
        if name in ("cli", "__main__"):
            continue
        package = importlib.import_module(f"companion.{name}")
        assert package.__doc__
        exported = package.__all__
        assert len(exported) == len(set(exported))
        assert all(hasattr(package, each) for each in exported)
        modules = {each.split(".")[1] for each in packages.modules() if each.startswith(f"{name}.")}
        assert modules.isdisjoint(exported)


def texts_that_name_options(source: str) -> list[str]:
    """Strings that name an option of the command line and do not say that it is one.

    Left out are docstrings, strings that begin as an option and so are one for a command, and the
    `var(--name)` of a style sheet.
    """
    tree = ast.parse(source)
    docs = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {
        part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
    }
    found = []
    for node in ast.walk(tree):
        parts: list[ast.expr] = node.values if isinstance(node, ast.JoinedStr) else [node]
        if node in docs or (node in inside):
            continue
        pieces = [part.value for part in parts if isinstance(part, ast.Constant)]
        text = " ".join(piece for piece in pieces if isinstance(piece, str))
        by_name = text.startswith("--") or "on the command line" in text
        if re.search(r"(?<![\w(-])--[a-z]", text) and not by_name:
            found.append(text)
    return found


@pytest.mark.parametrize(
    "module",
    [name for name in packages.modules() if name.split(".")[0] not in ("cli", "teaching")],
)
def test_errors_name_arguments_and_an_option_only_as_that_of_the_command_line(module: str) -> None:
    source = packages.modules()[module].read_text(encoding="utf-8")
    named = texts_that_name_options(source)
    assert [text for text in named if not text.startswith("accelerate launch")] == []


def test_an_option_in_an_error_is_noticed() -> None:
    assert texts_that_name_options('raise ValueError(f"{x} exists; give --overwrite")')
    assert not texts_that_name_options('raise ValueError("overwrite (on the command line: --o)")')
    assert not texts_that_name_options('"""Read by `--set`."""\ncommand = ["--out", f"--set={x}"]')


def test_the_package_itself_imports_nothing() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]


@pytest.mark.slow
def test_importing_the_package_takes_less_than_half_of_the_time_of_importing_torch() -> None:
    """What a chapter imports, in processor time beside torch's in the same process; the least of
    three, for the first one may still compile."""
    code = (
        "import time, numpy, matplotlib.pyplot; start = time.process_time(); import torch;"
        "before = time.process_time();"
        "import companion.models, companion.training, companion.text, companion.evaluation;"
        "import companion.figures, companion.teaching;"
        "print((time.process_time() - before) / (before - start))"
    )
    shares: list[float] = []
    while len(shares) < 3 and min(shares, default=1.0) >= 0.5:
        run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        shares.append(float(run.stdout))
    assert min(shares) < 0.5


@pytest.mark.slow
def test_importing_every_module_does_no_work(tmp_path: Path) -> None:
    """No thread, no file, no output, no random number, no figure: importing only defines."""
    code = """
import importlib, pkgutil, threading
import numpy, torch
import companion

def state():
    # Python's own generator is left out: rich draws from it when it is imported.
    return (
        torch.get_rng_state().tolist(),
        numpy.random.get_state()[1].tolist(), numpy.random.get_state()[2],
        threading.active_count(), torch.get_num_threads(),
    )

before = state()
for module in pkgutil.walk_packages(companion.__path__, "companion."):
    if module.name != "companion.__main__":
        importlib.import_module(module.name)
assert state() == before
assert torch.get_default_dtype() == torch.float32
assert not torch.are_deterministic_algorithms_enabled()
"""
    home = tmp_path / "home"
    home.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(home), "MPLCONFIGDIR": str(tmp_path / "mpl")},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(home.iterdir()) == []


@pytest.mark.usefixtures("annotations_checked")
def test_annotations_are_checked_at_run_time() -> None:
    """The import hook in conftest.py works: a wrong shape raises."""
    from companion.losses.cross_entropy import token_nats

    logits = torch.zeros(2, 3, 5)
    assert token_nats(logits, torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3)
    with pytest.raises(TypeCheckError):
        token_nats(logits, torch.zeros(3, 2, dtype=torch.long))


# --- dependencies --------------------------------------------------------------------------------


def requirements(*extras: str) -> dict[str, Requirement]:
    project = chapters.project()["project"]
    listed = list(project["dependencies"])
    for extra in extras:
        listed += project["optional-dependencies"][extra]
    parsed = {canonicalize_name(r.name): r for r in map(Requirement, listed)}
    own = parsed.pop("trained-to-predict", None)  # the developers' extra asks for smaller ones
    return parsed if own is None else parsed | requirements(*own.extras)


def test_the_lock_satisfies_every_bound_in_pyproject() -> None:
    locked = minimum.locked()
    for name, requirement in requirements("book", "test", "dev").items():
        assert name in locked, f"requirements.lock lacks {name}: run `make lock`"
        assert requirement.specifier.contains(locked[name]), requirement


def test_the_lowest_versions_are_installed_with_all_that_their_tests_import() -> None:
    """A module of tests that skips itself for want of a library tries no lower bound."""
    installed = {re.split("==", pin)[0] for pin in minimum.pins()}
    wanted = {"bs4": "beautifulsoup4"}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for name in re.findall(r'importorskip\(\s*"(\w+)"', path.read_text(encoding="utf-8")):
            there = name in sys.stdlib_module_names  # fcntl, say, but not on every system
            assert there or wanted.get(name, name) in installed, (
                f"{path.name} would skip itself: {name}"
            )


def test_what_colab_holds_satisfies_every_bound_in_pyproject() -> None:
    """There the package is installed without its dependencies, and nobody else would notice."""
    held = minimum.pinned(ROOT / "tests" / "colab.txt")
    live = requirements("book")["ipywidgets"]  # there too a move draws a picture again
    for name, requirement in (requirements() | {"ipywidgets": live}).items():
        assert name in held, f"tests/colab.txt lacks {name}"
        assert requirement.specifier.contains(held[name]), requirement


def test_every_requirement_has_a_lower_bound() -> None:
    for requirement in requirements("book", "test", "dev").values():
        assert minimum.lower_bound(requirement)


def test_the_lock_belongs_to_no_machine() -> None:
    """No local version (+cpu), no accelerator library, no index: it must install anywhere."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins = [line for line in text.splitlines() if not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert [
        pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9_.\-]+==[0-9][0-9a-z.]*", pin)
    ] == []
    assert [pin for pin in pins if pin.startswith(("nvidia", "triton", "cuda"))] == []


def test_conda_users_get_the_same_environment() -> None:
    """environment.yml takes Python from conda and all else from the lock and pyproject.toml."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert {re.split("[=<>]", entry)[0] for entry in conda} == {"python", "pip", "make", "git"}
    assert f"python{chapters.project()['project']['requires-python']}" in conda
    assert pip["pip"] == ["--requirement requirements.lock", "--editable .[book,test,dev]"]


def test_python_versions_agree_wherever_they_are_named() -> None:
    project = chapters.project()
    assert project["project"]["requires-python"] == ">=3.11"
    assert project["tool"]["mypy"]["python_version"] == "3.11"
    assert project["tool"]["ruff"]["target-version"] == "py311"


IMPORTS = """
import importlib, pkgutil, sys
sys.modules["resource"] = None  # an import of it fails, as on Windows
import companion
# The library that lstm_for_transformers needs warns by itself, and is an extra.
LEFT_OUT = ("companion.__main__", "companion.interop.lstm_for_transformers")
for module in pkgutil.walk_packages(companion.__path__, "companion."):
    if module.name not in LEFT_OUT:
        importlib.import_module(module.name)
        print(module.name)
"""


@pytest.mark.slow
def test_every_module_is_imported_without_a_warning_and_without_unix_alone() -> None:
    """Warnings are errors here, also in what the modules import."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "error"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert {"companion.figures", "companion.studies.large_vocabulary"} <= {*done.stdout.split()}


def opened_by_the_locale(source: str) -> list[int]:
    """Lines that open a text file in whatever encoding the machine has."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
        values = [each.value for each in node.args if isinstance(each, ast.Constant)]
        named = {keyword.arg for keyword in node.keywords}
        if "encoding" in named or owner in ("os", "tokenize", "webbrowser", "Image"):
            continue
        modes = [value for value in values if re.fullmatch(r"[rwaxb+]{1,3}", str(value))]
        if (
            (name == "read_text" and owner and not node.args)
            or (name == "write_text" and owner and len(node.args) < 2)
            or (
                name == "open"
                and not any("b" in mode for mode in modes)
                and owner not in ("RunFolder", "Pdf")
            )
            or (name in ("NamedTemporaryFile", "fdopen") and any("w" in mode for mode in modes))
        ):
            found.append(node.lineno)
    return found


def test_no_text_is_read_or_written_in_the_encoding_of_the_machine() -> None:
    assert opened_by_the_locale("a.read_text()\nopen(a, 'w')\na.open()\na.write_text(b)") == [
        1, 2, 3, 4,
    ]  # fmt: skip
    assert opened_by_the_locale("a.read_text('ascii')\na.open('rb')\nopen(a, encoding='x')") == []
    wrong = {
        str(path.relative_to(ROOT)): lines
        for folder in (PACKAGE, ROOT / "tools")
        for path in folder.rglob("*.py")
        if (lines := opened_by_the_locale(path.read_text(encoding="utf-8")))
    }
    assert wrong == {}


def test_what_is_said_to_be_supported_is_tried() -> None:
    """Python versions and systems: the metadata, the README and the workflows say the same."""
    classifiers = chapters.project()["project"]["classifiers"]
    versions = {c.rpartition(" ")[2] for c in classifiers if ":: Python :: 3." in c}
    systems = {c.rpartition(" ")[2] for c in classifiers if c.startswith("Operating System")}
    workflows = ROOT / ".github" / "workflows"
    ci = yaml.safe_load((workflows / "ci.yml").read_text(encoding="utf-8"))["jobs"]["test"]
    other = yaml.safe_load((workflows / "systems.yml").read_text(encoding="utf-8"))["jobs"]["quick"]
    assert set(ci["strategy"]["matrix"]["python"]) == versions == {"3.11", "3.12", "3.13", "3.14"}
    runners = {"ubuntu": "Linux", "macos": "MacOS", "windows": "Windows"}
    tried = [ci["runs-on"], *other["strategy"]["matrix"]["system"]]
    assert {runners[runner.partition("-")[0]] for runner in tried} == systems
    assert set(other["strategy"]["matrix"]["python"]) == versions
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "Python 3.11, 3.12, 3.13 or 3.14" in readme
    for system in ("Linux", "macOS", "Windows"):
        assert system in readme


@pytest.mark.parametrize("found", ["2.0.0", "1.0.3", None])
def test_another_jupyter_book_is_refused_before_the_book_is_built(
    found: str | None, tmp_path: Path
) -> None:
    (wanted,) = (
        requirement
        for requirement in chapters.project()["project"]["optional-dependencies"]["book"]
        if requirement.startswith("jupyter-book==")
    )
    version = found or wanted.partition("==")[2]
    folder = tmp_path / f"jupyter_book-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: jupyter-book\nVersion: {version}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tools.engine"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == ""
    if found is None:
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: this book is built by {wanted}, and in ")
    assert f"jupyter-book is {found}, which cannot build it" in done.stderr
    assert f"-m pip install {wanted}" in done.stderr
    # Make stops there: it is the first thing that building does.
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("$(SITE): $(READY)")[2]
    assert 0 < recipe.index("-m tools.engine") < recipe.index("jupyter-book build")


# --- addresses -----------------------------------------------------------------------------------


def test_the_repository_has_one_address() -> None:
    """Every GitHub address that ends in our repository's name is the one in pyproject.toml."""
    url = chapters.repository_url()
    name = url.rsplit("/", 1)[1]
    for path, text in texts().items():
        for found in re.findall(rf"https://github\.com/[\w.-]+/{re.escape(name)}\b", text):
            assert found == url, f"{path}: run `make repository`"


def test_each_place_that_needs_the_address_has_it() -> None:
    url = chapters.repository_url()
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert config["repository"]["url"] == url
    assert citation["repository-code"] == url
    pages = chapters.project()["project"]["urls"]["Documentation"]
    assert config["html"]["baseurl"] == pages
    assert citation["url"] == pages


def test_the_version_is_the_same_wherever_it_is_named() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert companion.__version__ == chapters.version() == str(citation["version"])


def test_chapters_are_opened_and_installed_from_one_branch() -> None:
    """A branch and no tag, which would have to be there before the release that makes it."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert config["repository"]["branch"] == chapters.BRANCH
    url = f"{chapters.repository_url()}@{chapters.BRANCH}"
    assert f'"trained-to-predict @ git+{url}"' in chapters.first_cell()


def test_the_program_in_the_readme_trains_generates_and_scores(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As it stands there; its last line is the loss, ln 14 = 2.6 before training."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"(?s)  ```python\n(.*?)  ```", readme)
    names: dict[str, Any] = {}
    exec(textwrap.dedent(program), names)
    *_, written, loss = capsys.readouterr().out.splitlines()
    assert len(written) == 40
    assert set(written) <= set(names["rhyme"])
    assert float(loss) < 1.0


def test_every_file_that_the_readme_lists_is_where_it_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| ((?:`[^`]+`(?:, )?)+) \| (.*) \|$", readme)
    assert len(rows) > 15
    for names, description in rows:
        for name in re.findall(r"`([^`]+)`", names):
            inside = "companion/" if name.startswith(" ") else ""
            assert (ROOT / f"{inside}{name.strip()}").exists(), name
        own = names.strip("`").strip()
        for file in re.findall(r"`([\w/]+\.\w+)`", description):
            assert (ROOT / own / file).exists(), f"{own}{file}"


def test_nobody_is_told_to_install_us_from_where_we_are_not() -> None:
    """No package index holds our name: whoever installs it is given the repository."""
    found = [
        line
        for text in texts().values()
        for line in text.splitlines()
        if re.search(r"pip3? install\b.*trained-to" + "-predict", line)
    ]
    assert len(found) > len(NOTEBOOKS)  # the first cells, and where they are made
    assert [line for line in found if "git+" not in line] == []


def test_no_file_names_a_package_registry_or_a_place_on_one_machine() -> None:
    # Written in pieces, so that this file does not find itself.
    registries = [
        "pypi" + ".org", "pythonhosted" + ".org", "registry.npm" + "js", "npmjs" + ".org",
        "conda.anaconda" + ".org", "download.pytorch" + ".org", "deb.debian" + ".org",
    ]  # fmt: skip
    places = [
        "/wo" + "rk/",
        "/ro" + "ot/",
        "/ho" + "me/",
        "/Us" + "ers/",
        "/o" + "pt/",
        "/tm" + "p/",
    ]
    wrong = [
        f"{path.relative_to(ROOT)}: {word}"
        for path, text in texts().items()
        for word in registries + places
        if word in text
    ]
    assert wrong == []


# --- chapters ------------------------------------------------------------------------------------

NOTEBOOKS = chapters.toc_notebooks()
each_notebook = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=[str(path.relative_to(ROOT)) for path in NOTEBOOKS]
)


def test_every_document_of_the_book_is_in_the_table_of_contents() -> None:
    on_disk = {
        path
        for suffix in ("*.ipynb", "*.md")
        for path in (ROOT / "book").rglob(suffix)
        if ".ipynb_checkpoints" not in path.parts
    }
    assert on_disk - set(chapters.toc_files()) == set()


@each_notebook
def test_the_first_code_cell_is_the_one_that_works_anywhere(path: Path) -> None:
    cell = chapters.code_cells(chapters.read_notebook(path))[0]
    assert cell["source"] == chapters.first_cell(), "run `make repository`"
    assert set(chapters.FIRST_CELL_TAGS) <= set(cell["metadata"].get("tags", []))
    assert cell["outputs"] == []


@each_notebook
def test_code_lines_fit_the_page_which_cuts_longer_ones(path: Path) -> None:
    for cell in chapters.code_cells(chapters.read_notebook(path))[1:]:
        for line in cell["source"].splitlines():
            assert len(line) <= 76, line


def wide_lines(cells: list[dict[str, Any]]) -> list[str]:
    """Printed lines of more than 76 characters, which the page cuts."""
    texts = ["".join(output.get("text", "")) for cell in cells for output in cell["outputs"]]
    return [line for text in texts for line in text.splitlines() if len(line) > 76]


@each_notebook
def test_printed_lines_fit_the_page_which_cuts_longer_ones(path: Path) -> None:
    assert wide_lines(chapters.code_cells(chapters.read_notebook(path))) == []


def test_a_printed_line_that_is_too_long_is_noticed() -> None:
    cell = {"outputs": [{"output_type": "stream", "text": ["short\n", "x" * 77 + "\n"]}]}
    assert wide_lines([cell]) == ["x" * 77]


def guess_faults(sources: list[str]) -> list[str]:
    """What is wrong with the guesses of a chapter, given its code cells after the first."""
    faults, guessed, revealed = [], [], []
    for source in sources:
        tree = ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", source))
        for node in ast.walk(tree):
            target = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ""
            if target == "guesses" and ast.unparse(node.value) != "Guesses()":
                faults.append(f"guesses is something else now: {source}")
            if target.startswith("guesses["):
                guessed.append(ast.literal_eval(node.targets[0].slice))
                if len(tree.body) != 1 or "\n" in source.strip() or len(source) > 76:
                    faults.append(f"a guess is a cell of one line of at most 76: {source}")
                try:
                    ast.literal_eval(node.value)
                except ValueError:
                    faults.append(f"a guess is a literal: {source}")
                if not re.search(r"  # \S", source):
                    faults.append(f"a guess has its question in a comment: {source}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "guesses.reveal":
                revealed.append(ast.literal_eval(node.args[0]))
                if revealed[-1] not in guessed:
                    faults.append(f"revealed before it is guessed: {revealed[-1]}")
    if not guessed:
        faults.append("no guess is asked for")
    if sorted(guessed) != sorted(set(revealed)) or len(revealed) != len(set(revealed)):
        faults.append(f"guessed {guessed}, revealed {revealed}")
    if sources[-1].strip() != "guesses.table()":
        faults.append(f"the last code cell is guesses.table(), got {sources[-1]}")
    return faults


@each_notebook
def test_a_guess_is_asked_for_revealed_once_and_listed_at_the_end(path: Path) -> None:
    cells = chapters.code_cells(chapters.read_notebook(path))[1:]
    assert guess_faults([cell["source"] for cell in cells]) == []


GUESS = ['guesses["a"] = 1  # how many', 'print(2)\nguesses.reveal("a", 2)', "guesses.table()"]


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        (["print(1)"], "no guess is asked for"),
        (['guesses["a"] = 1', *GUESS[1:]], "a guess has its question in a comment"),
        (['x = 1\nguesses["a"] = 1  # b', *GUESS[1:]], "a guess is a cell of one line"),
        ([f'guesses["a"] = 1  # {"b" * 60}', *GUESS[1:]], "a guess is a cell of one line"),
        (['guesses["a"] = x  # b', *GUESS[1:]], "a guess is a literal"),
        ([GUESS[0], GUESS[2]], "guessed ['a'], revealed []"),
        ([GUESS[0], GUESS[1], *GUESS[1:]], "guessed ['a'], revealed ['a', 'a']"),
        ([GUESS[1], GUESS[0], GUESS[2]], "revealed before it is guessed: a"),
        (GUESS[:2], "the last code cell is guesses.table()"),
        ([*GUESS, "print(3)"], "the last code cell is guesses.table()"),
        (["guesses = [1]", *GUESS], "guesses is something else now"),
    ],
)
def test_a_guess_that_breaks_the_convention_is_noticed(sources: list[str], fault: str) -> None:
    assert guess_faults(GUESS) == []
    assert any(found.startswith(fault) for found in guess_faults(sources))


def ends_silenced(source: str) -> bool:
    """Whether a cell ends with a semicolon, which hides its value in a notebook and not in nbval.

    A check may: what it returns shows nothing.
    """
    tree = ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", source))
    return source.rstrip().endswith(";") and "checks.check" not in ast.unparse(tree.body[-1])


@each_notebook
def test_no_cell_hides_its_value_by_a_semicolon(path: Path) -> None:
    cells = chapters.code_cells(chapters.read_notebook(path))
    assert [cell["source"] for cell in cells if ends_silenced(cell["source"])] == []


def test_a_semicolon_that_hides_a_value_is_noticed() -> None:
    assert ends_silenced("x = 1\nax.legend();")
    assert not ends_silenced("x = 1\nchecks.check_exercise('a', x);")


def checks_of(path: Path) -> Iterator[ast.Call]:
    """The calls of a chapter's cells to `checks.check`, `check_exercise` and `check_function`."""
    for cell in chapters.code_cells(chapters.read_notebook(path))[1:]:
        for node in ast.walk(ast.parse(cell["source"])):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("checks.check"):
                yield node


@each_notebook
def test_no_task_shows_its_answer(path: Path) -> None:
    """Answers are looked up; a function may be held against what the chapter has specified."""
    for call in checks_of(path):
        assert ast.unparse(call.func) in ("checks.check_exercise", "checks.check_function"), (
            f"an answer belongs into EXERCISES: {ast.unparse(call)}"
        )


def test_each_stored_answer_is_that_of_an_exercise() -> None:
    asked = {
        ast.literal_eval(call.args[0])
        for path in chapters.toc_notebooks()
        for call in checks_of(path)
        if ast.unparse(call.func) == "checks.check_exercise"
    }
    assert asked == set(EXERCISES)


@each_notebook
def test_every_code_cell_was_run_in_order_and_none_failed(path: Path) -> None:
    cells = [c for c in chapters.code_cells(chapters.read_notebook(path)) if c["source"].strip()]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"


@each_notebook
def test_stored_metadata_is_free_of_noise(path: Path) -> None:
    """What `make notebooks` leaves out has not come back through an editor."""
    import nbformat

    stored = nbformat.read(path, as_version=4)
    again = nbformat.from_dict(stored)
    notebooks.tidy(again)
    assert nbformat.writes(again) == nbformat.writes(nbformat.read(path, as_version=4)), (
        "run `make notebooks`"
    )


def prints_text(cell: dict[str, Any]) -> bool:
    """Whether the cell stores something to read, beside a picture's own `<Figure size ...>`."""
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            return True
        if "image/png" not in output.get("data", {}):
            return True
    return False


def is_check(node: ast.AST) -> bool:
    """An assertion, or a call of `check...`, `assert_...`, or a claim's `value` or `holds`."""
    if isinstance(node, ast.Assert):
        return True
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in ("value", "holds") or name.startswith(("check", "assert_"))


@each_notebook
def test_output_that_is_not_compared_is_asserted_instead(path: Path) -> None:
    """A cell whose trained numbers nbval ignores must claim or assert something of them.

    Not so the table of guesses, which repeats what the cells above have revealed.
    """
    for cell in chapters.code_cells(chapters.read_notebook(path)):
        if cell["source"].strip() == "guesses.table()":
            continue
        if "nbval-ignore-output" in cell["metadata"].get("tags", []) and prints_text(cell):
            tree = ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", cell["source"]))
            assert any(map(is_check, ast.walk(tree))), cell["source"]


@each_notebook
def test_what_a_cell_of_claims_prints_is_compared(path: Path) -> None:
    """`holds` prints of stored runs alone, whatever was trained above it."""
    for cell in chapters.code_cells(chapters.read_notebook(path)):
        if "nbval-ignore-output" in cell["metadata"].get("tags", []):
            body = ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", cell["source"])).body
            claims = [ast.unparse(each).partition("(")[0].endswith(".holds") for each in body]
            assert not (claims and all(claims)), cell["source"]


def only_draws(source: str) -> bool:
    """Whether a cell sets names, calls functions that draw, and shows the figure, and no more."""
    body = ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", source)).body
    called = [
        ast.unparse(each.value.func)
        for each in body
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Call)
    ]
    assigned = sum(isinstance(each, ast.Assign) for each in body)
    draws = all(name.startswith(("figures.", "plt.", "ax.", "axes.")) for name in called)
    return "plt.show" in called and draws and len(called) + assigned == len(body)


@each_notebook
def test_a_cell_that_only_draws_is_folded(path: Path) -> None:
    for cell in chapters.code_cells(chapters.read_notebook(path)):
        if only_draws(cell["source"]):
            assert {"hide-input", "remove-input"} & {*cell["metadata"].get("tags", [])}, cell["id"]


def read_later(cells: Sequence[str]) -> set[str]:
    """Names that functions read from the notebook when the last of these cells calls them again."""
    reads: dict[str, set[str]] = {}  # by the function's name, of its last definition
    found: set[str] = set()
    last = ast.parse(cells[-1])
    for tree in (*map(ast.parse, cells[:-1]), last):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.Lambda):
                names = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
                own = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
                own |= {each.id for each in names if isinstance(each.ctx, ast.Store)}
                read = {each.id for each in names} - own
                if isinstance(node, ast.FunctionDef):
                    reads[node.name] = read
                elif tree is last:
                    found |= read
    called = found | {node.id for node in ast.walk(last) if isinstance(node, ast.Name)}
    seen: set[str] = set()
    while functions := called & reads.keys() - seen:
        seen |= functions
        read = set().union(*(reads[name] for name in functions))
        found |= read
        called = read
    return found


def names_set(cell: str) -> set[str]:
    """Names that a cell gives a value in the notebook itself."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(cell)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif not isinstance(node, ast.Lambda | ast.comprehension):
            nodes += ast.iter_child_nodes(node)
    return found


@each_notebook
def test_no_later_cell_changes_what_a_picture_that_responds_draws(path: Path) -> None:
    """A kernel draws it anew when a reader moves the control, after the last cell."""
    cells = [
        re.sub(r"(?m)^\s*[%!].*$", "", cell["source"])
        for cell in chapters.code_cells(chapters.read_notebook(path))
    ]
    for number, cell in enumerate(cells):
        if "widgets.explore(" in cell:
            read = read_later(cells[: number + 1])
            for later in cells[number + 1 :]:
                assert not read & names_set(later), later


@each_notebook
def test_alternative_texts_of_frames_say_more_than_what_was_chosen(path: Path) -> None:
    """Without the values of the controls, the texts of a picture's frames still differ."""
    for cell in chapters.code_cells(chapters.read_notebook(path)):
        for output in cell["outputs"]:
            page = "".join(output.get("data", {}).get("text/html", ""))
            frames = BeautifulSoup(page, "html.parser").select("figure.explore .explore-frames img")
            if not frames:
                continue
            controls = BeautifulSoup(page, "html.parser").select(".explore-controls input")
            chosen = {
                text
                for each in controls
                for text in (
                    json.loads(str(each["data-texts"]))
                    if each.has_attr("data-texts")
                    else [each.parent.get_text()]  # type: ignore[union-attr]
                )
            }
            pattern = "|".join(map(re.escape, sorted(chosen, key=len, reverse=True)))
            said = [str(frame["alt"]).replace("_", " ") for frame in frames]
            texts = {re.sub(rf"(?<!\w)(?:{pattern})(?!\w)", "", text) for text in said}
            assert len(texts) > 1, f"{cell['id']}: {said[:2]}"


@each_notebook
def test_only_known_tags_are_used(path: Path) -> None:
    known = {
        "hide-input", "hide-output", "hide-cell", "remove-input", "remove-output", "remove-cell",
        "raises-exception", "nbval-ignore-output", "python-docs", "full-width", "margin",
    }  # fmt: skip
    for cell in chapters.read_notebook(path)["cells"]:
        assert set(cell["metadata"].get("tags", [])) <= known


@each_notebook
def test_every_page_describes_itself(path: Path) -> None:
    """Search engines and link previews show this sentence."""
    notebook = chapters.read_notebook(path)
    description = notebook["metadata"]["myst"]["html_meta"]["description"]
    assert 50 <= len(description) <= 220


def test_the_chapters_that_take_most_come_first() -> None:
    found = chapters.listed(longest_first=True, that_train=False, share="1/1")
    minutes = [chapters.measured()[path.stem]["cpu_minutes"] for path in found]
    assert minutes == sorted(minutes, reverse=True)
    assert sorted(found) == sorted(chapters.toc_notebooks())


def test_shares_of_the_chapters_that_train_are_together_all_of_them() -> None:
    every = chapters.listed(longest_first=False, that_train=True, share="1/1")
    thirds = [
        chapters.listed(longest_first=False, that_train=True, share=f"{part}/3")
        for part in (1, 2, 3)
    ]
    assert sorted(path for third in thirds for path in third) == sorted(every)
    assert set(every) < set(chapters.toc_notebooks())
    assert min(map(len, thirds)) >= len(every) // 3
    with pytest.raises(ValueError, match=r"a share is like 1/3 .* got '0/3'"):
        chapters.listed(longest_first=False, that_train=True, share="0/3")


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_a_variant_is_printed_as_variables_for_env(name: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "tools.variants", name],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert dict(pair.split("=") for pair in printed) == variants.variables(name)


def test_a_variant_that_there_is_not_stops_make() -> None:
    with pytest.raises(ValueError, match=r"unknown variant 'avx3'; there are as-is, avx2"):
        variants.variables("avx3")
    done = subprocess.run(
        [sys.executable, "-m", "tools.variants", "avx3"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "unknown variant" in done.stderr


def test_another_variant_has_other_kernels_than_this_machine() -> None:
    asked = "import torch; print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())"
    found = {
        subprocess.run(
            [sys.executable, "-c", asked],
            env={**os.environ, "OMP_NUM_THREADS": "1", **variants.variables(name)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in ("as-is", variants.another())
    }
    assert len(found) == 2


@pytest.mark.parametrize("variant", ["nonsense", ""])
def test_make_elsewhere_stops_at_a_variant_that_is_none(variant: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "elsewhere", f"VARIANT={variant}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "VARIANT must be one of as-is avx2 default two-threads, got" in done.stderr


def conftest_of(request: pytest.FixtureRequest) -> Any:
    (plugin,) = (
        plugin
        for plugin in request.config.pluginmanager.get_plugins()
        if getattr(plugin, "__file__", None) == str(ROOT / "tests" / "conftest.py")
    )
    return plugin


def test_shares_of_the_tests_are_all_of_them_once(request: pytest.FixtureRequest) -> None:
    plugin = conftest_of(request)
    files = sorted((ROOT / "tests").rglob("test_*.py"))

    def collected(share: str) -> list[Path]:
        config = SimpleNamespace(getoption=lambda name: share)
        return [path for path in files if not plugin.pytest_ignore_collect(path, config)]

    shares = [collected(f"{number}/3") for number in (1, 2, 3)]
    assert all(len(files) // 3 <= len(share) <= len(files) // 3 + 1 for share in shares)
    assert sorted(path for share in shares for path in share) == files == collected("1/1")
    assert not plugin.pytest_ignore_collect(ROOT / "tests" / "core", SimpleNamespace())


def test_a_share_of_the_slow_tests_leaves_all_others(request: pytest.FixtureRequest) -> None:
    plugin = conftest_of(request)

    class Item:
        def __init__(self, number: int) -> None:
            self.number = number

        def get_closest_marker(self, name: str) -> int:
            return self.number % 3

    tests = [Item(number) for number in range(30)]

    def kept(share: str) -> list[int]:
        out: list[Any] = []
        hook = SimpleNamespace(pytest_deselected=lambda items: out.extend(items))
        found = list(tests)
        config = SimpleNamespace(getoption=lambda name: share, hook=hook)
        plugin.pytest_collection_modifyitems(config, found)
        assert len(found) + len(out) == 30
        return [test.number for test in found]

    first, second = kept("1/2"), kept("2/2")
    quick = set(range(0, 30, 3))
    assert set(first) & set(second) == quick
    assert set(first) | set(second) == set(kept("1/1")) == set(range(30))
    assert len(first) == len(second) == 20


def imported_tools(path: Path) -> set[str]:
    """The modules of tools that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "tools":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tools."):
            found.add(str(node.module).removeprefix("tools."))
    return found


def test_the_site_is_built_again_after_a_change_of_what_its_extensions_import() -> None:
    needed: set[str] = set()
    measures = {
        "commits",
        "results",
    }  # what `tools.costs` measures with; a page shows what is stored
    new = set().union(*map(imported_tools, (ROOT / "book" / "_ext").glob("*.py")))
    while new:
        needed |= new
        new = (
            set().union(*(imported_tools(ROOT / "tools" / f"{n}.py") for n in new))
            - needed
            - measures
        )
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (listed,) = re.findall(r"patsubst %,tools/%\.py,([\w ]+)\)", makefile)
    assert set(listed.split()) == needed
    assert "CITATION.cff" in makefile.partition("SOURCES :=")[2].partition("\n")[0]


def test_each_test_of_the_project_in_which_a_model_computes_runs_elsewhere_too() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (listed,) = re.findall(r"patsubst %,tests/project/test_%\.py,([\w ]+)\)", makefile)
    computes = re.compile(
        r"(?m)^from companion\.(?:models|training|evaluation\.scoring)|\bmark_notebook\("
    )
    found = {
        path.stem.removeprefix("test_")
        for path in (ROOT / "tests" / "project").glob("test_*.py")
        if path.name != Path(__file__).name and computes.search(path.read_text(encoding="utf-8"))
    }
    assert found == set(listed.split())
