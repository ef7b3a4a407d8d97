"""What all commands share: common options and printing.

Results go to standard output, as a table or with --json as one JSON object; progress, warnings
and errors go to standard error.
"""

from __future__ import annotations

import functools
import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Texts are printed as they are: a path may have brackets, or a name of an emoji.
out, err = (Console(stderr=stderr, markup=False, emoji=False) for stderr in (False, True))

RunPath = Annotated[
    Path, typer.Argument(help="Folder of a run, as given to train --out.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]
Device = Annotated[str, typer.Option(help="auto (CUDA, else MPS, else CPU), cpu, cuda or mps.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.", min=0, max=2**32 - 1)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a setting (see above); repeatable."),
]
TopK = Annotated[int | None, typer.Option(help="Sample from the k most probable tokens.")]
TopP = Annotated[float | None, typer.Option(help="Sample from the nucleus of mass p.")]
#: The seed of a new run or search; None, if not given, where one is resumed.
NewSeed = Annotated[
    int | None,
    typer.Option(help="Seed of all random numbers.", min=0, max=2**32 - 1, show_default="0"),
]
SIGINT_EXIT = 130


def out_option(what: str) -> Any:
    """The option --out, whose value is not an empty text: that would be the working folder."""

    def named(text: str) -> Path:
        if not text:
            raise typer.BadParameter("give a name, not an empty text")
        return Path(text)

    return typer.Option("--out", help=what, parser=named, metavar="<path>", show_default=False)


def print_anything() -> None:
    """From here on, print `?` for a character that a terminal or a pipe cannot encode.

    Otherwise, in another encoding than UTF-8 (`LC_ALL=C`, cp1252 on Windows), one such character
    would fail the whole output.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not in a notebook, nor None as in pythonw
            stream.reconfigure(errors="replace")


def as_typed(argument: str) -> str:
    """`argument` decoded as UTF-8, if Python could not decode it with the locale's encoding."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return os.fsencode(argument).decode(errors="replace")
    return argument


def stoppable(
    command: Callable[..., None], in_words: Callable[[Path], str] | None = None
) -> Callable[..., None]:
    """`command`, which Ctrl-C ends with a message: that of the KeyboardInterrupt, `in_words` of its
    --out, or "Stopped.".

    SIGTERM, which `kill` and batch systems send, does what Ctrl-C does; its exit code is its own.
    """

    @functools.wraps(command)
    def stopping(*arguments: Any, **options: Any) -> None:
        stopped_by = signal.SIGINT

        def terminate(number: int, frame: FrameType | None) -> None:
            nonlocal stopped_by
            stopped_by = signal.SIGTERM
            handler = signal.getsignal(signal.SIGINT)  # none where a script runs it in background
            (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)

        before = signal.signal(signal.SIGTERM, terminate)
        try:
            command(*arguments, **options)
        except KeyboardInterrupt as interrupt:
            words = "Stopped." if in_words is None else in_words(options["out_folder"])
            say(str(interrupt) or words)
            raise typer.Exit(128 + stopped_by) from None
        except typer.Exit as leave:
            if leave.exit_code == SIGINT_EXIT:
                leave.exit_code = 128 + stopped_by
            raise
        finally:
            signal.signal(signal.SIGTERM, before)

    return stopping


def answer(figures: dict[str, Any], as_json: bool) -> None:
    """Print a result: as one JSON object, or as a table of names and values."""
    if as_json:
        print(json.dumps(figures))  # in ASCII, which every output can encode
        return
    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # the whole of a long path
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
    """A table of names, under `heading`, and their descriptions."""
    table = Table(heading, "what it is", box=None)
    for name, description in descriptions.items():
        table.add_row(name, description)
    return table


def say(message: str) -> None:
    """Print to standard error; of several processes, only the first does."""
    if os.environ.get("RANK", "0") == "0":
        err.print(message, highlight=False, soft_wrap=True)


def command(*arguments: str | Path) -> str:
    """A command of companion as a shell takes it: a path may have spaces."""
    return shlex.join(["companion", *map(str, arguments)])


def warn(message: str) -> None:
    """Print a warning; the command continues."""
    err.print(Text("warning:", "yellow"), message, highlight=False, soft_wrap=True)


def pairs(settings: list[str]) -> dict[str, str]:
    """The NAME=VALUE arguments of --set as a dictionary."""
    pairs: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise ValueError(f"--set takes NAME=VALUE, got {setting!r}")
        if name in pairs:
            raise ValueError(f"--set {name} is given twice, as {pairs[name]} and {value}; give one")
        pairs[name] = value
    return pairs


def refuse_changes(
    kind: str, out_folder: Path, known: Mapping[str, Any], **given: str | int | None
) -> None:
    """Raise a ValueError that names an option that differs from what is being resumed, a run or a
    search (`kind`) with the settings `known`."""
    for name, value in given.items():
        if value is not None and value != known.get(name):
            option = f"--no-{name}" if value is False else f"--{name}"
            shown = option if isinstance(value, bool) else f"{option} {value}"
            raise ValueError(
                f"{shown} differs from the {kind} in {out_folder}, which has {name} "
                f"{known.get(name)}; leave {option} out to go on with it, or begin another {kind} "
                "in another --out"
            )
