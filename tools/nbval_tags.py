"""A pytest plugin for nbval: what the book's own cell tags mean. Used as `-p tools.nbval_tags`.

`python-docs`: what the cell prints depends on the documentation that ships with the interpreter,
which differs between Python releases. Its output is compared strictly under the release that
pyproject.toml names by fingerprint; under another one the cell still runs, with its assertions,
and one warning says that its text was not compared.

Progress bars go to stderr and are not stored; `make notebooks` refuses anything else there.

A kernel that dies before its first answer is started again: the ports are chosen before the kernel
binds them, so of two kernels that start at once one can find its port taken.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import nbval.kernel
import pytest

from tools import chapters

TAG = "python-docs"


class TextNotCompared(UserWarning):
    """This interpreter's documentation is not that of the stored outputs."""


STARTS = 3


def tried_again(start: Callable[..., Any]) -> Callable[..., Any]:
    """`start`, called up to `STARTS` times while the kernel dies before its first answer."""

    @functools.wraps(start)
    def started(*arguments: Any, **options: Any) -> Any:
        for _ in range(STARTS - 1):
            try:
                return start(*arguments, **options)
            except RuntimeError as error:
                if "died before replying" not in str(error):
                    raise
        return start(*arguments, **options)

    return started


nbval.kernel.start_new_kernel = tried_again(nbval.kernel.start_new_kernel)


@functools.cache
def same_python_docs() -> bool:
    """Whether this interpreter's documentation is that of the stored outputs."""
    from companion.text.corpora import load_corpus

    recorded = chapters.project()["tool"]["companion"][TAG]
    return bool(load_corpus(TAG).fingerprint == recorded)


@functools.cache
def _warn_once() -> None:
    warnings.warn(
        "the documentation of this Python is not that of the stored outputs (see [tool.companion] "
        "in pyproject.toml): cells tagged python-docs run, but their text is not compared",
        TextNotCompared,
        stacklevel=2,
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Switch the comparison off for tagged cells under another release."""
    for item in items:
        cell: Any = getattr(item, "cell", None)
        if cell is None:
            continue
        notebook: Any = item.parent
        if "stderr" not in notebook.skip_compare:
            notebook.skip_compare = (*notebook.skip_compare, "stderr")
        if TAG in cell.metadata.get("tags", []) and not same_python_docs():
            _warn_once()
            item.options["check"] = False  # type: ignore[attr-defined]
