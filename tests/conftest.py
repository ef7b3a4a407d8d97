"""Fixtures, and the run-time check of every annotation in the package.

`companion` names its shapes with jaxtyping under `if TYPE_CHECKING:`, so that it runs where
jaxtyping is not installed. Here the modules are imported with TYPE_CHECKING true and through
jaxtyping's import hook, so that beartype checks each argument and result, shapes and dtypes
included, in every test.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import random
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What the package's modules import is imported first: a third party's own TYPE_CHECKING blocks are
# not meant to run, and often cannot.
THIRD_PARTY = (
    "accelerate", "filelock", "ipywidgets", "IPython.display", "matplotlib.pyplot", "numpy",
    "pooch", "rich.console", "rich.table", "rich.progress", "safetensors.torch",
    "sklearn.metrics", "tokenizers", "torch", "torch.utils.data", "tqdm.auto", "typer.testing",
    "jaxtyping", "beartype",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--unchecked",
        action="store_true",
        help="leave the package's annotations unchecked: for tests of the site and of installation",
    )
    parser.addoption(
        "--share", default="1/1", help="2/3: every third of the files with tests, from the second"
    )
    parser.addoption(
        "--slow-share", default="1/1", help="2/3: of the tests marked slow every third, all others"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files that are in another `--share`."""
    if not collection_path.match("test_*.py") or (share := config.getoption("share")) == "1/1":
        return None
    from tools.chapters import share_of  # asks for packages of the book

    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    return True if collection_path not in share_of(files, share) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the slow tests that are in another `--slow-share`."""
    if (share := config.getoption("slow_share")) == "1/1":
        return
    from tools.chapters import share_of

    slow = [item for item in items if item.get_closest_marker("slow")]
    left_out = set(slow) - set(share_of(slow, share))
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


def pytest_configure(config: pytest.Config) -> None:
    """Import the package, checked, wherever tests of it run.

    The process that only hands tests to workers (-n) runs none and is spared the ten seconds.
    """
    with contextlib.suppress(ImportError):  # a machine without it runs the files that need it not
        from hypothesis import settings

        settings.register_profile("any machine", deadline=None)  # a slow one is not a failure
        settings.load_profile("any machine")
    hands_out = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if not (hands_out or config.getoption("unchecked")):
        import_companion_checked()


#: Not checked: it runs without this package, needs an extra, and has no annotations of shapes.
STANDALONE = ("lstm_for_transformers",)


def import_companion_checked() -> None:
    for name in THIRD_PARTY:
        importlib.import_module(name)
    import matplotlib
    from jaxtyping import install_import_hook

    import companion

    matplotlib.use("agg")
    with install_import_hook("companion", "annotation_checker.checked"):
        typing.TYPE_CHECKING = True
        try:
            for module in pkgutil.walk_packages(companion.__path__, "companion."):
                if not module.name.endswith(("__main__", *STANDALONE)):
                    importlib.import_module(module.name)
        finally:
            typing.TYPE_CHECKING = False


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Each test starts from the same seeds, whatever ran before it."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["numpy"].random.seed(0)  # third parties draw from it
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def _true_fp32_on_a_gpu(request: pytest.FixtureRequest) -> None:
    """Tests on a GPU compare with the CPU, so without TF32, which cuDNN takes for LSTMs."""
    if request.node.get_closest_marker("gpu"):
        import torch

        monkeypatch = request.getfixturevalue("monkeypatch")
        for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
            monkeypatch.setattr(backend, "allow_tf32", False)


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    """No figure outlives its test."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def companion_data() -> Path:
    """The folder COMPANION_DATA names, with real corpora; skips, saying so, if there is none."""
    folder = os.environ.get("COMPANION_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip(
            "COMPANION_DATA names no folder with the fetched corpora (Tiny Shakespeare, WikiText-2)"
        )
    return Path(folder)


@pytest.fixture
def annotations_checked(request: pytest.FixtureRequest) -> None:
    """For tests of that check itself; skips, saying so, under --unchecked."""
    if request.config.getoption("unchecked"):
        pytest.skip("--unchecked: annotations are not checked in this session")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT
