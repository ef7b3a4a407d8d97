"""The command line: `companion train | evaluate | compare | generate | chat | classify | ...`.

Results go to standard output, as a table or with --json as one JSON object; progress, warnings
and errors go to standard error. An error is one sentence, with a non-zero exit code.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer
from rich.text import Text

from companion import __version__
from companion.cli import chat, classify, lists, runs, tune
from companion.cli.console import SIGINT_EXIT, err, print_anything, stoppable, warn

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
app.command()(stoppable(runs.train, runs.stopped_in_words))
app.command()(stoppable(runs.evaluate))
app.command()(stoppable(runs.compare))
app.command()(stoppable(runs.generate))
app.command()(stoppable(chat.chat))
app.command()(stoppable(tune.tune, tune.stopped_in_words))
app.command()(stoppable(runs.compress))
app.command()(stoppable(runs.export))
app.command()(stoppable(runs.card))
classify_app = typer.Typer(
    no_args_is_help=True, help="Train and use classifiers of texts, from any CSV with labels."
)
classify_app.command()(stoppable(classify.train))
classify_app.command()(stoppable(classify.evaluate))
classify_app.command()(stoppable(classify.predict))
app.add_typer(classify_app, name="classify")
app.command(name="corpora")(stoppable(lists.corpora_command))
app.command(name="presets")(lists.presets_command)
app.command()(stoppable(lists.bench))
study_app = typer.Typer(no_args_is_help=True, help="Run the studies behind the book's figures.")
study_app.command("list")(lists.study_list)
study_app.command("run")(stoppable(lists.study_run))
app.add_typer(study_app, name="study")


@app.callback(invoke_without_command=True)
def _global(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: run the command; turn a user's error into one sentence and exit code 1."""
    print_anything()
    warnings.showwarning = lambda message, *rest, **named: warn(str(message))
    try:
        app()
    except Exception as error:
        if os.environ.get("COMPANION_DEBUG") or not _of_use(error):
            raise
        err.print(Text("error:", "bold red"), str(error), highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:  # outside of a command
        err.print("Stopped.")
        sys.exit(SIGINT_EXIT)
    finally:
        _leave_the_others()


def _of_use(error: Exception) -> bool:
    """Whether an error is a user's error, which we raise on purpose, and not a bug."""
    training = sys.modules.get(
        "companion.training.trainer"
    )  # torch is imported only where it is needed
    ours = () if training is None else (training.TrainingError,)
    return isinstance(error, (ValueError, OSError, FloatingPointError, *ours))


def _leave_the_others() -> None:
    """Destroy the process group, so that the other processes of a distributed run do not hang."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
