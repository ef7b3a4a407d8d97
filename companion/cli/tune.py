"""The command tune, and the figure and table of its results."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from companion.cli.console import (
    SIGINT_EXIT,
    AsJson,
    Device,
    NewSeed,
    Settings,
    answer,
    command,
    out,
    out_option,
    pairs,
    refuse_changes,
    say,
)

if TYPE_CHECKING:
    from companion.runs.search import SearchResult, Trial
    from companion.text.corpora import Corpus

#: Defaults of the options for a new search.
DEFAULTS: dict[str, Any] = {
    "corpus": "python-docs", "preset": "small", "trials": 20, "seed": 0, "prune": True,
}  # fmt: skip


def tune(
    out_folder: Annotated[Path, out_option("Folder to write the search to.")],
    corpus: Annotated[
        str | None, typer.Option(help="As for train.", show_default="python-docs")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Recipe to start from.", show_default="small")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Trials to finish.", min=1, show_default="20")
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            metavar="NAME=RANGE",
            help="What to vary, and between what (see above); repeatable.",
            show_default="learning rate, dropout and streams",
        ),
    ] = None,
    settings: Settings = None,
    seed: NewSeed = None,
    prune: Annotated[
        bool | None,
        typer.Option(help="Stop trials that are worse than the median.", show_default="prune"),
    ] = None,
    device: Device = "auto",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume the search in --out, or join it while it runs."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Search for settings with a low validation loss.

    Each trial is a training; Optuna proposes its settings. Ctrl-C keeps the finished trials.
    --resume continues a search, also in several processes at once; interrupted trials are tried
    again. Ranges are given as `--space model.dropout=0:0.5`, on a logarithmic scale as
    `--space train.learning_rate=1e-3:3e-2:log`, and a few values as
    `--space model.hidden_size=128,192,256`. `--set train.epochs=2` fixes a setting in all trials.
    """
    from companion.runs import presets, search, tuning

    search.import_optuna()
    known = tuning.recorded(out_folder) if resume else {}
    given = {"corpus": corpus, "preset": preset, "trials": trials, "seed": seed, "prune": prune}
    if known:
        refuse_changes("search", out_folder, known, preset=preset, seed=seed, prune=prune)
    chosen = {**DEFAULTS, **known, **{name: v for name, v in given.items() if v is not None}}
    fixed = {**(known.get("settings") or {}), **pairs(settings or [])}
    ranges = space or known.get("space")
    config = search.SearchConfig(
        space=search.SearchSpace.parse(ranges) if ranges else search.DEFAULT_SPACE.without(fixed),
        **{name: chosen[name] for name in ("trials", "seed", "prune")},
    )
    for each in config.space.ranges:
        if each.setting in fixed:
            raise ValueError(f"{each.setting} is fixed by --set and varied by --space; give one")
    result = tuning.tune(
        _corpus(chosen["corpus"], out_folder if resume and corpus is None else None),
        presets.override(presets.get_preset(chosen["preset"]), fixed),
        config,
        out=out_folder,
        record={"preset": chosen["preset"], "settings": fixed},
        resume=resume,
        device=device,
        on_trial=_say_trial,
    )
    _finish(result, out_folder, config.trials, as_json)


def _corpus(name: str, recorded_in: Path | None) -> Corpus:
    """The corpus called `name`; an error names the search in `recorded_in`, if given."""
    from companion.runs import pipeline
    from companion.text import corpora

    if recorded_in is None:
        return corpora.load_corpus(name)
    return pipeline.corpus_at(name, f"the search in {recorded_in}")


def _say_trial(trial: Trial) -> None:
    from companion.runs import search

    say(search.in_words(trial))


def stopped_in_words(out_folder: Path) -> str:
    """The message after Ctrl-C outside of a trial: what was kept, and how to resume."""
    if not (out_folder / "tune.json").exists():
        return f"Stopped before the search began: {out_folder} holds none, and nothing is lost."
    return (
        "Stopped; the trials that ended are kept. Go on with:\n"
        f"  {command('tune', '--out', out_folder, '--resume')}"
    )


def _finish(result: SearchResult, folder: Path, wanted: int, as_json: bool) -> None:
    """Print the results; after Ctrl-C, exit with its code and say how to resume."""
    _print_found(result, folder, as_json)
    if result.stopped == "interrupted":
        say(
            f"Stopped after {len(result.trials)} of {wanted} trials; they are kept. Go on "
            f"with:\n  {command('tune', '--out', folder, '--resume')}"
        )
        raise typer.Exit(SIGINT_EXIT)
    if result.best is None:
        raise ValueError(f"no trial is complete; the last one failed: {result.trials[-1].reason}")


def _print_found(result: SearchResult, folder: Path, as_json: bool) -> None:
    """Print the trials as a table or JSON and the command that trains the best; save the figure."""
    from companion.runs import tuning

    best, train_best = result.best, None
    if best is not None:
        train_best = tuning.train_command(folder, best)
        _save_search_figure(result, folder / "search.png")
    if as_json:
        trials = [dataclasses.asdict(trial) for trial in result.trials]
        number = None if best is None else best.number
        report = {"out": str(folder), "best": number, "command": train_best, "trials": trials}
        answer({**report, "stopped": result.stopped}, as_json)
        return
    if result.trials:
        out.print(_trials_table(result.trials))
    if train_best is not None:
        say(f"Drawn in {folder / 'search.png'}. Train the best with:\n  {train_best}")


def _trials_table(trials: Sequence[Trial]) -> Table:
    """A table of the trials: complete ones first, sorted by loss."""
    settings = list(trials[0].settings)
    fields = [name.partition(".")[2] for name in settings]
    table = Table("trial", "state", "nats/token", "seconds", *fields, box=None)
    for trial in sorted(trials, key=lambda trial: (trial.state, trial.nats_per_token or 0)):
        loss = "-" if trial.nats_per_token is None else f"{trial.nats_per_token:.4f}"
        values = [str(trial.settings[name]) for name in settings]
        table.add_row(str(trial.number), trial.state, loss, f"{trial.seconds:.1f}", *values)
    return table


def _save_search_figure(result: SearchResult, path: Path) -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    from companion import figures

    own = path.with_name(f".{os.getpid()}-{path.name}")  # another process may save it, too
    with mpl.rc_context():
        figures.use_style()
        figures.plot_search(
            [dataclasses.asdict(trial) for trial in result.trials],
            log=[each.setting for each in result.space.ranges if each.log],
        )
        plt.savefig(own)
        plt.close()
    own.replace(path)
