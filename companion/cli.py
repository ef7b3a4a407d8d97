"""The command line: `companion train | evaluate | compare | generate | tune | export | ...`.

Answers go to standard output, as a table or with --json as one JSON object; progress, warnings
and errors go to standard error. An error is one sentence and a non-zero exit.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from companion import __version__

if TYPE_CHECKING:
    from companion.corpora import Corpus
    from companion.evaluation import Evaluation
    from companion.pipeline import TrainedModel
    from companion.search import SearchResult, Trial

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
study_app = typer.Typer(no_args_is_help=True, help="Run the studies behind the book's figures.")
app.add_typer(study_app, name="study")
out, err = Console(), Console(stderr=True)

RunPath = Annotated[
    Path, typer.Argument(help="Folder of a run, as given to train --out.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]
Device = Annotated[str, typer.Option(help="auto (CUDA, else MPS, else CPU), cpu, cuda or mps.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.", min=0, max=2**32 - 1)]
SIGINT_EXIT = 130


@app.command()
def train(
    out_folder: Annotated[
        Path, typer.Option("--out", help="Folder to write the run to.", show_default=False)
    ],
    corpus: Annotated[
        str | None,
        typer.Option(
            help="Name of a corpus (see: companion corpora), or a text file, or a folder of them.",
            show_default="python-docs",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Recipe: tokenizer, model and training (see: companion presets).",
            show_default="small",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of all random numbers.", min=0, max=2**32 - 1, show_default="0"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a field of the preset: train.epochs=2, model.hidden_size=256; repeatable.",
        ),
    ] = None,
    device: Device = "auto",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in --out from its newest checkpoint."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the metrics for TensorBoard as well.")
    ] = False,
) -> None:
    """Train a language model.

    Writes checkpoints while it goes. Ctrl-C saves and stops; a run that was killed goes on with
    --resume, to the same losses as if it had never stopped. On several GPUs or machines, start the
    same command by `accelerate launch --multi_gpu -m companion train ...`; on CPUs by
    `torchrun --nproc_per_node 2 -m companion train ...`.
    """
    from companion import corpora, pipeline, presets

    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other; give one of them")
    if resume:
        _refuse_changes(out_folder, corpus=corpus, preset=preset, seed=seed, settings=settings)
        result = pipeline.resume_run(
            out_folder, device=device, progress=True, tensorboard=tensorboard
        )
    else:
        preset_name = preset or "small"
        recipe = presets.override(presets.get_preset(preset_name), _pairs(settings or []))
        result = pipeline.train_run(
            corpora.load_corpus(corpus or "python-docs"),
            recipe,
            out_folder,
            preset_name=preset_name,
            seed=seed or 0,
            device=device,
            overwrite=overwrite,
            progress=True,
            tensorboard=tensorboard,
        )
    if os.environ.get("RANK", "0") != "0":
        return  # under accelerate launch, the first process speaks for all
    if result.stopped == "interrupted":
        err.print(
            f"Stopped after step {result.steps} of {result.total_steps}; saved. Go on with:\n"
            f"  companion train --out {out_folder} --resume",
            highlight=False,
        )
        raise typer.Exit(SIGINT_EXIT)
    best = result.best_nats_per_token
    err.print(
        f"{result.steps} of {result.total_steps} steps in {result.seconds:.1f} s "
        f"({result.tokens_per_second:,.0f} tokens/s), best validation "
        f"{'not measured' if best is None else f'{best:.4f} nats/token'}. Next:\n"
        f"  companion evaluate {out_folder}\n"
        f'  companion generate {out_folder} --prompt "The "',
        highlight=False,
    )


@app.command()
def evaluate(
    run: RunPath,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, valid or test.", show_default="test, or valid where there is no test"
        ),
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="Another corpus than the run's own.", show_default=False)
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Also at the temperature that suits validation text."),
    ] = False,
    cache: Annotated[
        bool,
        typer.Option("--cache", help="Also with a cache of what was read (Grave et al. 2017)."),
    ] = False,
    dynamic: Annotated[
        bool,
        typer.Option("--dynamic", help="Also learning while it reads (Krause et al. 2018)."),
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a trained model on a split of its corpus, or of another.

    Nats per token, perplexity, bits per byte, accuracy, and macro precision, recall and F1 (their
    micro averages all equal accuracy, so they are not printed). `_low` and `_high` are 95 %
    intervals by the bootstrap over documents, or over pieces of 4 kB where there are fewer than
    five documents. `ece` is the calibration error. Temperature, cache and learning rate are chosen
    on validation text.
    """
    from companion import assessment

    trained, text = _run_and_text(run, corpus, device)
    chosen = split or ("test" if text.test else "valid")
    scored = assessment.assess(trained, text, chosen)
    report: dict[str, Any] = {
        "run": str(run),
        "corpus": text.name,
        "split": chosen,
        "step": trained.step,
        **assessment.figures_of(scored),
    }
    if calibrate:
        report |= assessment.with_temperature(scored)
    if cache or dynamic:
        report |= assessment.in_one_stream(scored)
    if cache:
        report |= assessment.with_cache(scored)
    if dynamic:
        report |= assessment.dynamically(scored)
    if chosen == "valid" and (calibrate or cache or dynamic):
        _warn(
            "what --calibrate, --cache and --dynamic chose, they chose on this very text: it "
            "flatters their figures"
        )
    if report["interval_units"] < 2:
        _warn("the text is too short for an interval: it is one piece of less than 8 kB")
    _warn_of_unknown(scored.evaluation)
    _report(report, as_json)


@app.command()
def compare(
    first: RunPath,
    second: RunPath,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, valid or test.", show_default="test, or valid where there is no test"
        ),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(help="A corpus to compare them on.", show_default="the one both trained on"),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Compare two trained models on the same documents, by a paired bootstrap.

    The difference is the first's nats per token less the second's, or bits per byte where their
    tokenizers differ: below zero, the first is better. Between runs that differ in their seed
    alone there is a difference too: compare several seeds before you believe in one.
    """
    from companion import assessment

    runs = [_run_and_text(run, corpus, device) for run in (first, second)]
    text = runs[0][1]
    if text.fingerprint != runs[1][1].fingerprint:
        raise ValueError(
            f"the runs were trained on different corpora, {text.name} and {runs[1][1].name}; "
            "name one to compare them on with --corpus"
        )
    chosen = split or ("test" if text.test else "valid")
    scored = [assessment.assess(trained, text, chosen) for trained, _ in runs]
    result = assessment.compare(*scored)
    if result["measure"] == "bits_per_byte":
        for each in scored:
            _warn_of_unknown(each.evaluation)
    _report({"first_run": str(first), "second_run": str(second), **result}, as_json)


@app.command()
def generate(
    run: RunPath,
    prompt: Annotated[str, typer.Option(help="Text to go on from.")] = "",
    tokens: Annotated[int, typer.Option(help="Tokens to generate.", min=1)] = 200,
    temperature: Annotated[
        float, typer.Option(help="Below 1 is safer, above 1 wilder; 0 is greedy.")
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(help="Sample from the k most probable tokens.")
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from the nucleus of mass p.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Continue a prompt with a trained model. The same seed gives the same text."""
    import torch

    from companion import decoding, pipeline, runtime

    decoder = decoding.Decoder(temperature=temperature, top_k=top_k, top_p=top_p)
    trained = pipeline.load_run(run, device=device)
    place = next(trained.model.parameters()).device
    encoded = trained.tokenizer.encode(prompt)
    unknown = sum(token == trained.tokenizer.unknown_id for token in encoded)
    if unknown:
        _warn(f"{unknown} tokens of the prompt never occur in the training text")
    # A text begins after an end, which a corpus of one document shows the model too seldom.
    ids = torch.tensor([encoded or [trained.tokenizer.end_id]], device=place)
    generated = decoding.generate(
        trained.model, ids, tokens, decoder, generator=runtime.make_generator(seed, place)
    )
    text = trained.tokenizer.decode([*encoded, *generated[0].tolist()])
    if as_json:
        _report({"run": str(run), "prompt": prompt, "seed": seed, "text": text}, as_json)
    else:
        print(text)


@app.command()
def tune(
    out_folder: Annotated[
        Path, typer.Option("--out", help="Folder to write the search to.", show_default=False)
    ],
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
            help="What to vary: train.learning_rate=1e-3:3e-2:log, model.dropout=0:0.5, "
            "model.hidden_size=128,192,256; repeatable.",
            show_default="learning rate, dropout and streams",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Fix a field of the preset; repeatable."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of all random numbers.", min=0, max=2**32 - 1, show_default="0"),
    ] = None,
    prune: Annotated[
        bool | None,
        typer.Option(help="Stop trials that are worse than the median.", show_default="prune"),
    ] = None,
    device: Device = "auto",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the search in --out, or join in with it."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Search for settings with a low validation loss.

    Each trial is a training; Optuna proposes its settings. Ctrl-C keeps the finished trials. A
    search goes on with --resume, which several processes may do at once.
    """
    from companion import corpora, presets, search, tuning

    search.import_optuna()
    known = tuning.recorded(out_folder) if resume else {}
    given = {"corpus": corpus, "preset": preset, "trials": trials, "seed": seed, "prune": prune}
    chosen: dict[str, Any] = {
        "corpus": "python-docs",
        "preset": "small",
        "trials": 20,
        "seed": 0,
        "prune": True,
        **known,
        **{name: value for name, value in given.items() if value is not None},
    }
    fixed = _pairs(settings) if settings else known.get("settings", {})
    ranges = space or known.get("space")
    config = search.SearchConfig(
        space=search.SearchSpace.parse(ranges) if ranges else search.DEFAULT_SPACE,
        trials=chosen["trials"],
        seed=chosen["seed"],
        prune=chosen["prune"],
    )
    result = tuning.tune(
        corpora.load_corpus(chosen["corpus"]),
        presets.override(presets.get_preset(chosen["preset"]), fixed),
        config,
        out=out_folder,
        record={"preset": chosen["preset"], "settings": fixed},
        resume=resume,
        device=device,
        on_trial=lambda trial: err.print(
            _plain(search.in_words(trial)), highlight=False, soft_wrap=True
        ),
    )
    _report_search(result, out_folder, as_json)
    if result.stopped == "interrupted":
        err.print(
            f"Stopped after {len(result.trials)} of {config.trials} trials; they are kept. Go on "
            f"with:\n  companion tune --out {out_folder} --resume",
            highlight=False,
        )
        raise typer.Exit(SIGINT_EXIT)
    if result.best is None:
        raise ValueError(f"no trial is complete; the last one failed: {result.trials[-1].reason}")


@app.command()
def export(
    run: RunPath,
    out_file: Annotated[
        Path, typer.Option("--out", help="The .pt2 file to write.", show_default=False)
    ],
    length: Annotated[int, typer.Option(help="Tokens that one call reads.", min=1)] = 1,
) -> None:
    """Write a trained model to one file that torch alone can load, by torch.export.

    The batch size is free; the number of tokens a call reads is fixed, for torch.export unrolls an
    LSTM over time. One token, with the state handed on, reads a text of any length.
    """
    from companion import pipeline
    from companion.export import export_model

    path = export_model(pipeline.load_run(run, device="cpu"), out_file, length=length)
    err.print(
        f"Wrote {path}: its logits and states equal the run's. Load it with:\n"
        f'  torch.export.load("{path}").module()',
        highlight=False,
        markup=False,
    )


@app.command(name="corpora")
def corpora_command(
    name: Annotated[
        str | None, typer.Argument(help="A corpus, file or folder to look at.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the corpora, or load one and report its size and what cleaning removed."""
    from companion import corpora

    if name is None:
        if as_json:
            _report({"corpora": corpora.corpus_descriptions()}, as_json)
            return
        out.print(_listing("corpus", corpora.corpus_descriptions()))
        err.print("Any text file or folder of text files is a corpus too: give its path.")
        return
    corpus = corpora.load_corpus(name)
    if as_json:
        _report(corpus.as_dict(), as_json)
    else:
        print(corpus.summary())


@app.command(name="presets")
def presets_command(as_json: AsJson = False) -> None:
    """List the presets that train can follow."""
    from companion.presets import PRESETS

    descriptions = {name: preset.description for name, preset in PRESETS.items()}
    if as_json:
        _report({"presets": descriptions}, as_json)
    else:
        out.print(_listing("preset", descriptions))


@app.command()
def bench(
    seconds: Annotated[
        float, typer.Option(help="Seconds that each loop trains each model.", min=0.05)
    ] = 5.0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure training speed here, beside a plain textbook loop in the same run."""
    from companion import benchmark, runtime

    speeds = []
    for case in benchmark.MODELS:
        err.print(f"measuring {case.name} ...", highlight=False)
        speeds.append(benchmark.measure(case, device=device, seconds=seconds))
    if as_json:
        _report(
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
            f"{speed.peak_bytes / 1e6:,.0f}",
        )
    out.print(table)


@study_app.command("list")
def study_list(as_json: AsJson = False) -> None:
    """List the studies and the question each answers."""
    from companion import studies

    questions = {
        name: (studies.load_study(name).__doc__ or "").partition("\n")[0]
        for name in studies.study_names()
    }
    if as_json:
        _report({"studies": questions}, as_json)
    else:
        out.print(_listing("study", questions))


@study_app.command("run")
def study_run(
    name: Annotated[str, typer.Argument(help="Name of a study (see: companion study list).")],
    seeds: Annotated[str, typer.Option(help="Seeds with commas between, e.g. 0,1,2.")] = "0",
    out_file: Annotated[
        Path | None, typer.Option("--out", help="JSON file to write; refused if it exists.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Change a field of the study's Config; repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a study once a seed; print its figures with their spread, or all of it as JSON."""
    from companion import studies

    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ValueError(f"--seeds takes numbers with commas between, got {seeds!r}") from None
    config = studies.configured(name, _pairs(settings or []))
    report = studies.run_study(name, numbers, config=config, out=out_file, progress=not as_json)
    if as_json:
        _report(report, as_json)
        return
    table = Table("figure", "mean", "lowest", "highest", box=None)
    for figure, values in studies.spread(report["results"]).items():
        table.add_row(figure, *(f"{values[key]:.4g}" for key in ("mean", "min", "max")))
    out.print(table)


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

    warnings.showwarning = lambda message, *rest, **named: _warn(str(message))
    try:
        app()
    except (ValueError, TrainingError, OSError) as error:
        if os.environ.get("COMPANION_DEBUG"):
            raise
        err.print(f"[bold red]error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
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


def _refuse_changes(
    out_folder: Path, *, settings: list[str] | None, **given: str | int | None
) -> None:
    """A resumed run keeps its configuration; say which option differs from it."""
    from companion.checkpoints import RunFolder

    record = RunFolder.open(out_folder).record()
    for name, value in given.items():
        if value is not None and value != record.get(name):
            raise ValueError(
                f"--{name} {value} differs from the run being resumed, which has "
                f"{record.get(name)}; leave --{name} out, or train another run"
            )
    for setting, text in _pairs(settings or []).items():
        section, _, field = setting.partition(".")
        recorded = record.get(section, {})
        if not isinstance(recorded, dict) or str(recorded.get(field)) != text:
            raise ValueError(
                f"--set {setting}={text} differs from the run being resumed; leave it out, "
                "or train another run"
            )


def _run_and_text(run: Path, corpus: str | None, device: str) -> tuple[TrainedModel, Corpus]:
    """A run and the corpus named, or else its own; says so when that has changed."""
    from companion import corpora, pipeline

    trained = pipeline.load_run(run, device=device)
    text = corpora.load_corpus(corpus or trained.record["corpus"])
    if corpus is None and text.fingerprint != trained.record["corpus_fingerprint"]:
        _warn(f"the text of corpus {text.name} is not the one this run was trained on")
    return trained, text


def _warn_of_unknown(evaluation: Evaluation) -> None:
    if evaluation.unknown:
        _warn(
            f"{evaluation.unknown:,} of {evaluation.tokens:,} tokens are unknown to the tokenizer: "
            "bits_per_byte leaves out what spelling them costs, so it flatters this model"
        )


def _pairs(settings: list[str]) -> dict[str, str]:
    pairs = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise ValueError(f"--set takes NAME=VALUE, got {setting!r}")
        pairs[name] = value
    return pairs


def _report(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
        return
    table = Table(box=None, show_header=False)
    for name, value in report.items():
        if isinstance(value, float):
            shown = f"{value:.4f}"
        elif isinstance(value, int):
            shown = f"{value:,}"
        else:
            shown = "-" if value is None else str(value)
        table.add_row(name, shown)
    out.print(table)


def _listing(heading: str, descriptions: Mapping[str, str]) -> Table:
    table = Table(heading, "what it is", box=None)
    for name, description in descriptions.items():
        table.add_row(name, description)
    return table


def _report_search(result: SearchResult, folder: Path, as_json: bool) -> None:
    """The trials as a table or JSON, their picture, and the command that trains the best."""
    from companion import tuning

    best, command = result.best, None
    if best is not None:
        command = tuning.train_command(folder, best)
        _save_search_figure(result, folder / "search.png")
    if as_json:
        trials = [dataclasses.asdict(trial) for trial in result.trials]
        number = None if best is None else best.number
        report = {"out": str(folder), "best": number, "command": command, "trials": trials}
        _report({**report, "stopped": result.stopped}, as_json)
        return
    if result.trials:
        out.print(_trials_table(result.trials))
    if command is not None:
        err.print(f"Drawn in {_plain(str(folder / 'search.png'))}. Train the best with:")
        err.print(f"  {_plain(command)}", highlight=False, soft_wrap=True)


def _trials_table(trials: Sequence[Trial]) -> Table:
    """The complete ones first, the best on top."""
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

    own = path.with_name(f".{os.getpid()}-{path.name}")  # another process may draw it as well
    with mpl.rc_context():
        figures.use_style()
        figures.plot_search(
            [dataclasses.asdict(trial) for trial in result.trials],
            log=[each.setting for each in result.space.ranges if each.log],
        )
        plt.savefig(own)
        plt.close()
    own.replace(path)


def _warn(message: str) -> None:
    err.print(f"[yellow]warning:[/] {_plain(message)}", highlight=False, soft_wrap=True)


def _plain(message: str) -> str:
    """`message` with rich's markup signs made harmless: a path may hold brackets."""
    from rich.markup import escape

    return escape(message)
