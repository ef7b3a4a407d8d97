"""`companion ARGUMENTS` without a process: the entry point itself, its output caught.

A process of its own takes seconds to import torch. Where a process is not the point, this runs
`companion.cli.main`, which a process runs too; an exception that would have been a traceback there
is raised here.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch

from companion import cli

#: What the terminal is like, for processes too.
TERMINAL = {"COLUMNS": "200", "NO_COLOR": "1"}


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def companion(*arguments: str, cwd: Path | None = None) -> Done:
    """Run the command. Warnings are printed, as a user would see them."""
    stdout, stderr = io.StringIO(), io.StringIO()
    code: object = 0
    threads = torch.get_num_threads()
    with (
        contextlib.chdir(cwd or "."),
        mock.patch.dict(os.environ, TERMINAL),
        mock.patch.object(sys, "argv", ["companion", *arguments]),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        try:
            cli.main()
        except SystemExit as leave:
            code = leave.code or 0
        finally:
            torch.set_num_threads(threads)  # a preset may have set them
    assert isinstance(code, int)
    return Done(returncode=code, stdout=stdout.getvalue(), stderr=stderr.getvalue())
