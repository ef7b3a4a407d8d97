"""The command line: `companion train | evaluate | compare | generate | tune | export | ...`.

Answers go to standard output, as a table or with --json as one JSON object; progress, warnings
and errors go to standard error. An error is one sentence and a non-zero exit.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

from companion import __version__
from companion.cli import lists, runs, tune
from companion.cli.console import SIGINT_EXIT, err, plain, print_anything, warn

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help=(
        "Train, evaluate and sample LSTM language models: companion of *Trained to Predict*.\n\n"
        "A first run, about a minute on a laptop:\n\n"
        "    companion train --corpus python-docs --preset small --out runs/a\n\n"
        "    companion evaluate runs/a\n\n"
        '    companion generate runs/a --prompt "The "'
    ),
)
app.command()(runs.train)
app.command()(runs.evaluate)
app.command()(runs.compare)
app.command()(runs.generate)
app.command()(tune.tune)
app.command()(runs.export)
app.command(name="corpora")(lists.corpora_command)
app.command(name="presets")(lists.presets_command)
app.command()(lists.bench)
study_app = typer.Typer(no_args_is_help=True, help="Run the studies behind the book's figures.")
study_app.command("list")(lists.study_list)
study_app.command("run")(lists.study_run)
app.add_typer(study_app, name="study")


@app.callback(invoke_without_command=True)
def _global(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.")
    ] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: run the command; turn an error of use into one sentence and exit code 1."""
    from companion.training import TrainingError

    print_anything()
    warnings.showwarning = lambda message, *rest, **named: warn(str(message))
    try:
        app()
    except (ValueError, TrainingError, OSError) as error:
        if os.environ.get("COMPANION_DEBUG"):
            raise
        err.print(f"[bold red]error:[/] {plain(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("Stopped. If a training was running, its last checkpoint stands: use --resume.")
        sys.exit(SIGINT_EXIT)
    finally:
        _leave_the_others()


def _leave_the_others() -> None:
    """Take leave of the other processes of a distributed run, which wait for it."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
