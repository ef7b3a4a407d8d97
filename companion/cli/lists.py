"""Commands that list corpora and presets, list and run studies, and measure training speed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from companion.cli.console import (
    AsJson,
    Device,
    Settings,
    answer,
    err,
    listing,
    out,
    out_option,
    pairs,
)


def corpora_command(
    name: Annotated[
        str | None, typer.Argument(help="A corpus, file or folder to look at.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the corpora, or load one and report its size and what cleaning removed."""
    from companion.text import corpora

    if name is None:
        if as_json:
            answer({"corpora": corpora.corpus_descriptions()}, as_json)
            return
        out.print(listing("corpus", corpora.corpus_descriptions()))
        err.print("Any text file or folder of text files is a corpus too: give its path.")
        return
    corpus = corpora.load_corpus(name)
    if as_json:
        answer(corpus.as_dict(), as_json)
    else:
        print(corpus.summary())


def presets_command(
    name: Annotated[
        str | None, typer.Argument(help="A preset to look at.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the presets that train can follow, or all settings of one and what they mean."""
    from companion.runs.presets import PRESETS, get_preset, settings_of

    if name is not None:
        preset = get_preset(name)
        settings = settings_of(preset)
        if as_json:
            answer(
                {"preset": name, "description": preset.description}
                | {"settings": {each.name: dataclasses.asdict(each) for each in settings}},
                as_json,
            )
            return
        table = Table("setting", "value", "what it is", box=None)
        for each in settings:
            table.add_row(each.name, each.text, each.description)
        out.print(table, highlight=False)
        err.print(f"Change one with: companion train --preset {name} --set NAME=VALUE")
        return
    descriptions = {name: preset.description for name, preset in PRESETS.items()}
    if as_json:
        answer({"presets": descriptions}, as_json)
    else:
        out.print(listing("preset", descriptions))
        err.print("All settings of one, and what they mean: companion presets NAME")


def bench(
    seconds: Annotated[
        float, typer.Option(help="Seconds of training for each model and loop.", min=0.05)
    ] = 5.0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure training speed on this machine, compared with a plain textbook loop.

    `of matmul` is the share of the operations a second that large matrix products reach. `own
    products` is the share of the time that the step's own products, which are smaller, need alone:
    the rest of it is all that can be gained without another algorithm.
    """
    from companion.core import runtime
    from companion.training import benchmark

    speeds = []
    for case in benchmark.MODELS:
        err.print(f"measuring {case.name} ...", highlight=False)
        speeds.append(benchmark.measure(case, device=device, seconds=seconds))
    if as_json:
        answer(
            {"environment": runtime.environment(), "models": [speed.to_dict() for speed in speeds]},
            as_json,
        )
        return
    table = Table(
        "model",
        "tokens/s",
        "textbook",
        "ratio (95 %)",
        "of matmul",
        "own products",
        "peak MB",
        box=None,
    )
    for speed in speeds:
        table.add_row(
            speed.name,
            f"{speed.tokens_per_second:,.0f}",
            f"{speed.reference_tokens_per_second:,.0f}",
            f"{speed.ratio:.2f} ({speed.ratio_low:.2f}–{speed.ratio_high:.2f})",
            f"{speed.matmul_share:.0%}",
            f"{speed.products_share:.0%}",
            f"{speed.peak_bytes / 1e6:,.0f}",
        )
    out.print(table)


def study_list(as_json: AsJson = False) -> None:
    """List the studies and the question each answers."""
    from companion import studies

    questions = {
        name: (studies.load_study(name).__doc__ or "").partition("\n")[0]
        for name in studies.study_names()
    }
    if as_json:
        answer({"studies": questions}, as_json)
    else:
        out.print(listing("study", questions))


def study_run(
    name: Annotated[str, typer.Argument(help="Name of a study (see: companion study list).")],
    seeds: Annotated[str, typer.Option(help="Seeds with commas between, e.g. 0,1,2.")] = "0",
    out_file: Annotated[
        Path | None, out_option("JSON file to write; refused if it exists.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Run a study once for each seed; print its figures' mean and range, or all of them as JSON.

    Settings for --set are the fields of the study's Config, which an unknown name lists.
    """
    from companion import studies

    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ValueError(f"--seeds takes numbers with commas between, got {seeds!r}") from None
    config = studies.configured(name, pairs(settings or []))
    try:
        report = studies.run_study(name, numbers, config=config, out=out_file, progress=not as_json)
    except KeyboardInterrupt:
        if out_file is not None and out_file.exists():
            raise KeyboardInterrupt(
                f"Stopped; {out_file} holds the seeds that were finished."
            ) from None
        raise
    if as_json:
        answer(report, as_json)
        return
    table = Table("figure", "mean", "lowest", "highest", box=None)
    for figure, values in studies.spread(report["results"]).items():
        table.add_row(figure, *(f"{values[key]:.4g}" for key in ("mean", "min", "max")))
    out.print(table)
