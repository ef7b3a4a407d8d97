"""What every command shares: its options, and how it speaks.

Answers go to standard output, as a table or with --json as one JSON object; progress, warnings
and errors go to standard error.
"""

from __future__ import annotations

import functools
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

out, err = Console(), Console(stderr=True)

RunPath = Annotated[
    Path, typer.Argument(help="Folder of a run, as given to train --out.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]
Device = Annotated[str, typer.Option(help="auto (CUDA, else MPS, else CPU), cpu, cuda or mps.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.", min=0, max=2**32 - 1)]
SIGINT_EXIT = 130


def print_anything() -> None:
    """From here on, a character that a terminal or a pipe cannot encode is replaced by a `?`.

    Output in another encoding than UTF-8 (`LC_ALL=C`, cp1252 on Windows) would else lose all of an
    answer for one sign in it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not in a notebook, nor None as in pythonw
            stream.reconfigure(errors="replace")


def as_typed(argument: str) -> str:
    """`argument` as it was typed, in UTF-8, where Python could not decode it by the locale."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return os.fsencode(argument).decode(errors="replace")
    return argument


def stoppable(
    command: Callable[..., None], in_words: Callable[[Path], str] | None = None
) -> Callable[..., None]:
    """`command`, such that Ctrl-C ends it with a line: `in_words` of its --out, or "Stopped."."""

    @functools.wraps(command)
    def stopping(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt:
            if os.environ.get("RANK", "0") == "0":  # the first process speaks for all
                words = "Stopped." if in_words is None else in_words(options["out_folder"])
                err.print(plain(words), highlight=False, soft_wrap=True)
            raise typer.Exit(SIGINT_EXIT) from None

    return stopping


def answer(figures: dict[str, Any], as_json: bool) -> None:
    """Print an answer: one JSON object, or a table of names and values."""
    if as_json:
        print(json.dumps(figures))  # in ASCII, which every output can carry
        return
    table = Table(box=None, show_header=False)
    for name, value in figures.items():
        if isinstance(value, float):
            shown = f"{value:.4f}"
        elif isinstance(value, int):
            shown = f"{value:,}"
        else:
            shown = "-" if value is None else str(value)
        table.add_row(name, shown)
    out.print(table)


def listing(heading: str, descriptions: Mapping[str, str]) -> Table:
    """A table of things and what they are."""
    table = Table(heading, "what it is", box=None)
    for name, description in descriptions.items():
        table.add_row(name, description)
    return table


def warn(message: str) -> None:
    """Print a warning; the command goes on."""
    err.print(f"[yellow]warning:[/] {plain(message)}", highlight=False, soft_wrap=True)


def plain(message: str) -> str:
    """`message` with rich's markup signs made harmless: a path may hold brackets."""
    return escape(message)


def pairs(settings: list[str]) -> dict[str, str]:
    """The NAME=VALUE arguments of --set."""
    pairs = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise ValueError(f"--set takes NAME=VALUE, got {setting!r}")
        pairs[name] = value
    return pairs
