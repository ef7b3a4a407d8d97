"""Commands about runs: train, evaluate, compare, generate, compress, export, card."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from companion.cli.console import (
    SIGINT_EXIT,
    AsJson,
    Device,
    NewSeed,
    RunPath,
    Seed,
    Settings,
    TopK,
    TopP,
    answer,
    as_typed,
    command,
    out_option,
    pairs,
    refuse_changes,
    say,
    warn,
)

if TYPE_CHECKING:
    from companion.evaluation.scoring import Evaluation
    from companion.runs.pipeline import TrainedModel
    from companion.text.corpora import Corpus
    from companion.training.trainer import TrainResult


Split = Annotated[
    str | None,
    typer.Option(
        help="train, valid, test, or all: the whole text. A file is cut into its first 80 %, the "
        "next 10 % and the last 10 %.",
        show_default="test, or valid where there is no test",
    ),
]


def train(
    out_folder: Annotated[Path, out_option("Folder to write the run to.")],
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
    seed: NewSeed = None,
    settings: Settings = None,
    device: Device = "auto",
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Time for the training, such as 480s, 8m or 1.5h: as many steps as fit, by "
            "a speed that is measured first, in place of the preset's epochs.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume the run in --out from its newest checkpoint."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the metrics for TensorBoard as well.")
    ] = False,
) -> None:
    """Train a language model.

    `--set train.epochs=2` changes a setting of the preset; `companion presets NAME` lists them all.
    Prints a summary of the training data, and keeps it in the run as corpus.json. Saves checkpoints
    while it trains. Ctrl-C saves and stops; --resume continues a stopped or killed run, on a CPU
    with the same losses as if it had never stopped. On several GPUs or machines, start the same
    command by `accelerate launch --multi_gpu -m companion train ...`; on CPUs by
    `torchrun --nproc_per_node 2 -m companion train ...`.
    """
    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other; give one of them")
    how: Mapping[str, Any] = {"device": device, "tensorboard": tensorboard}
    seconds = None if budget is None else _seconds(budget)
    if resume:
        if budget is not None:
            raise ValueError("--budget plans a new run; a run that is resumed ends as planned")
        _refuse_changes(out_folder, preset=preset, seed=seed, settings=settings or [])
        result = _go_on(out_folder, corpus, how)
    else:
        recipe = ("small" if preset is None else preset, pairs(settings or []))
        how = {**how, "overwrite": overwrite, "budget": seconds}
        text = "python-docs" if corpus is None else corpus
        before = _written(out_folder)
        try:
            result = _begin(out_folder, text, recipe, seed or 0, how)
        except KeyboardInterrupt:
            if before is not None and before == _written(out_folder):
                raise KeyboardInterrupt(
                    "Stopped before training began. The earlier run is untouched; begin again with "
                    "the same command."
                ) from None
            raise
    if os.environ.get("RANK", "0") == "0":  # of several processes, only the first reports
        _report(result, out_folder)


def _go_on(out_folder: Path, corpus: str | None, how: Mapping[str, Any]) -> TrainResult:
    """Resume a run; `corpus` is its text, if that has moved."""
    from companion.runs import pipeline
    from companion.text import corpora

    text = None if corpus is None else corpora.load_corpus(corpus)
    return pipeline.resume_run(out_folder, corpus=text, progress=True, on_stage=say, **how)


def _begin(
    out_folder: Path,
    corpus: str,
    recipe: tuple[str, Mapping[str, str]],
    seed: int,
    how: Mapping[str, Any],
) -> TrainResult:
    """Train a new run by `recipe`: the name of a preset, and the settings changed in it."""
    from companion.runs import pipeline, presets
    from companion.text import corpora

    preset_name, settings = recipe
    preset = presets.override(presets.get_preset(preset_name), settings)
    pipeline.check_request(out_folder, **how)
    say(f"Reading {corpus} ...")
    text = corpora.load_corpus(corpus)
    say(text.summary())
    return pipeline.train_run(
        text,
        preset,
        out_folder,
        preset_name=preset_name,
        seed=seed,
        progress=True,
        on_stage=say,
        **how,
    )


def _written(out_folder: Path) -> int | None:
    """When run.json was written, in nanoseconds; None where there is none."""
    record = out_folder / "run.json"
    return record.stat().st_mtime_ns if record.exists() else None


def _seconds(text: str) -> float:
    """A time such as 480s, 8m or 1.5h, or a number of seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        return float(number) * unit
    except ValueError:
        raise ValueError(
            f"--budget must be a time such as 480s, 8m or 1.5h, got {text!r}"
        ) from None


def _report(result: TrainResult, out_folder: Path) -> None:
    """Print how training ended and what to do next; after Ctrl-C, exit with its code."""
    if result.stopped == "interrupted":
        say(
            f"Stopped after step {result.steps} of {result.total_steps}; saved. Go on with:\n"
            f"  {command('train', '--out', out_folder, '--resume')}"
        )
        raise typer.Exit(SIGINT_EXIT)
    best = result.best_nats_per_token
    done = f"{result.steps} of {result.total_steps} steps"
    patient = " as its validation loss no longer fell" if result.stopped == "patience" else ""
    if result.new_steps:
        speed = f"{result.tokens_per_second:,.0f} tokens/s"
        done += f" in {result.seconds:.1f} s ({speed})" + (patient and f", stopped{patient}")
    else:
        done = f"Nothing is left to train: this run ended after {done}{patient}"
    say(
        f"{done}, best validation "
        f"{'not measured' if best is None else f'{best:.4f} nats/token'}. Next:\n"
        f"  {command('evaluate', out_folder)}\n"
        f'  {command("generate", out_folder)} --prompt "The "'
    )


def stopped_in_words(out_folder: Path) -> str:
    """The message after Ctrl-C before the first step, or twice: what was kept, how to resume."""
    if not (out_folder / "run.json").exists():
        return (
            f"Stopped before training began: nothing was saved, and {out_folder} holds no run; "
            "begin again with the same command."
        )
    saved = any((out_folder / "checkpoints").glob("step-*"))
    what = "the last checkpoint stands" if saved else "no step was saved; it begins at its start"
    return f"Stopped: {what}. Go on with:\n  {command('train', '--out', out_folder, '--resume')}"


def evaluate(
    run: RunPath,
    split: Split = None,
    corpus: Annotated[
        str | None, typer.Option(help="Another corpus than the run's own.", show_default=False)
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Also at the best temperature for validation text."),
    ] = False,
    cache: Annotated[
        bool,
        typer.Option("--cache", help="Also with a continuous cache (Grave et al. 2017)."),
    ] = False,
    dynamic: Annotated[
        bool,
        typer.Option("--dynamic", help="Also with dynamic evaluation (Krause et al. 2018)."),
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
    from companion.runs import pipeline, report

    trained, text = _run_and_text(run, corpus, device)
    chosen = _split(text, split, corpus)
    scored = report.assess(trained, text, chosen)
    figures: dict[str, Any] = {
        "run": str(run),
        "corpus": text.name,
        "corpus_report": str(kept) if (kept := run / pipeline.CORPUS_FILE).exists() else None,
        "split": chosen,
        "step": trained.step,
        "compressed": pipeline.compressed_from(trained.record),
        **report.standard_measures(scored),
    }
    if calibrate:
        figures |= report.with_temperature(scored)
    if cache or dynamic:
        figures |= report.in_one_stream(scored)
    if cache:
        figures |= report.with_cache(scored)
    if dynamic:
        figures |= report.dynamically(scored)
    if chosen in ("valid", "all") and (calibrate or cache or dynamic):
        warn(
            "--calibrate, --cache and --dynamic chose their settings on the text that is scored "
            "here, so their figures are optimistic"
        )
    if figures["interval_units"] < 2:
        warn("the text is too short for an interval: it is one piece of less than 8 kB")
    _warn_of_unknown(scored.evaluation)
    answer(figures, as_json)


def compare(
    first: RunPath,
    second: RunPath,
    split: Split = None,
    corpus: Annotated[
        str | None,
        typer.Option(help="A corpus to compare them on.", show_default="the one both trained on"),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Compare two trained models on the same documents, by a paired bootstrap.

    The difference is the first model's nats per token minus the second's, or bits per byte if their
    tokenizers differ: below zero, the first is better. Runs that differ only in their seed differ
    too, so compare several seeds before you trust a difference.
    """
    from companion.runs import report

    runs = [_run_and_text(run, corpus, device) for run in (first, second)]
    text = runs[0][1]
    if text.fingerprint != runs[1][1].fingerprint:
        raise ValueError(
            f"the runs were trained on different corpora, {text.name} and {runs[1][1].name}; "
            "name one to compare them on with --corpus"
        )
    chosen = _split(text, split, corpus)
    scored = [report.assess(trained, text, chosen) for trained, _ in runs]
    result = report.compare(*scored)
    if result["measure"] == "bits_per_byte":
        for each in scored:
            _warn_of_unknown(each.evaluation)
    answer({"first_run": str(first), "second_run": str(second), **result}, as_json)


def generate(
    run: RunPath,
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "",
    tokens: Annotated[int, typer.Option(help="Tokens to generate.", min=1)] = 200,
    temperature: Annotated[
        float, typer.Option(help="Below 1 is safer, above 1 wilder; 0 is greedy.")
    ] = 1.0,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Continue a prompt with a trained model. The same seed gives the same text."""
    import torch

    from companion.core.seeds import make_generator
    from companion.generation import decoding
    from companion.runs import pipeline

    prompt = as_typed(prompt)
    sampling = decoding.SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    trained = pipeline.load_run(run, device=device)
    place = next(trained.model.parameters()).device
    encoded = trained.tokenizer.encode(prompt)
    unknown = sum(token == trained.tokenizer.unknown_id for token in encoded)
    if unknown:
        warn(f"{unknown} tokens of the prompt never occur in the training text")
    # Every text follows an end token; a corpus of one document shows the model too few of them.
    ids = torch.tensor([encoded or [trained.tokenizer.end_id]], device=place)
    generated = decoding.generate(
        trained.model, ids, tokens, sampling, generator=make_generator(seed, device=place)
    )
    text = trained.tokenizer.decode([*encoded, *generated[0].tolist()])
    if as_json:
        answer({"run": str(run), "prompt": prompt, "seed": seed, "text": text}, as_json)
    else:
        print(text)


def compress(
    run: RunPath,
    out_folder: Annotated[Path, out_option("Folder to write the new run to.")],
    method: Annotated[
        str, typer.Option(help="quantize, prune, low-rank or distill.", show_default=False)
    ],
    settings: Settings = None,
    corpus: Annotated[
        str | None,
        typer.Option(help="The run's text, if it has moved.", show_default="the run's own"),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Write a smaller copy of a trained model.

    The new folder is a run that evaluate, compare, generate and export take; training cannot go on
    from it. bytes_before are the weights in float32; bytes is the new file of weights. To see what
    it costs, compare both runs: companion compare RUN OUT.

    Settings for --set are bits, group_size (quantize); share, scope, repair_steps, learning_rate
    (prune); rank (low-rank); hidden_size, steps, temperature, weight (distill).
    """
    from companion.runs.compress import compress_run, method_settings
    from companion.text import corpora

    done = compress_run(
        run,
        out_folder,
        method_settings(method, pairs(settings or [])),
        corpus=None if corpus is None else corpora.load_corpus(corpus),
        seed=seed,
        device=device,
        progress=True,
    )
    inside = done.pop("settings")
    answer({"run": str(run), "out": str(out_folder), **done, **inside}, as_json)
    say(f"Next:\n  {command('compare', run, out_folder)}")


def export(
    run: RunPath,
    out_file: Annotated[
        Path,
        out_option("The .pt2 file, or the folder, to write."),
    ],
    length: Annotated[
        int, typer.Option(help="Tokens that one call of the .pt2 file reads.", min=1)
    ] = 1,
    form: Annotated[
        str,
        typer.Option("--format", help="torch: one .pt2 file. transformers: a folder for that."),
    ] = "torch",
) -> None:
    """Write a trained model so that it runs without this package.

    As one file for torch alone, by torch.export: the batch size may vary; the number of tokens per
    call is fixed, because torch.export unrolls an LSTM over time. With one token per call, and the
    state passed on, texts of any length can be read. Or, with --format transformers, as a folder
    with weights, tokenizer and source that AutoModelForCausalLM loads.
    """
    from companion.core.settings import check_choice
    from companion.runs import pipeline
    from companion.runs.export import export_model

    check_choice("--format", form, ("torch", "transformers"))
    if form == "transformers" and length != 1:
        raise ValueError("--length is about --format torch; leave it out")
    trained = pipeline.load_run(run, device="cpu")
    if form == "transformers":
        from companion.interop.export import export_for_transformers

        folder = export_for_transformers(trained, out_file)
        say(
            f"Wrote {folder}: its logits equal the run's. Transformers alone runs it:\n"
            f'  model = AutoModelForCausalLM.from_pretrained("{folder}", trust_remote_code=True)\n'
            f'  tokenizer = AutoTokenizer.from_pretrained("{folder}")\n'
            "A text begins with the tokenizer's bos_token."
        )
        return
    path = export_model(trained, out_file, length=length)
    config = trained.model.config
    say(
        f"Wrote {path}: its logits and states equal the run's. Torch alone runs it:\n"
        f'  model = torch.export.load("{path}").module()\n'
        "  logits, state = model(inputs, state)\n"
        f"inputs: int64 of shape (B, {length}), B any number of texts.\n"
        f"state: two tensors of shape ({config.num_layers}, B, {config.hidden_size}), zeros where "
        "a text begins.\n"
        f"logits: shape (B, {length}, {config.vocabulary_size})."
    )


def card(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run or of a classifier.", show_default=False)
    ],
    out_file: Annotated[
        Path | None,
        out_option("Markdown file to write; refused if it exists."),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(help="What companion evaluate RUN --json printed, in a file."),
    ] = None,
) -> None:
    """Write a model card and a data sheet, in Markdown, from what a run knows.

    What the folder does not know (what the model is for, whom the text speaks of) stands there as
    questions to answer. With --evaluation, the card has the figures and their intervals. Works for
    the folders of companion classify train too.
    """
    from companion.core.files import read_json
    from companion.runs.card import card_of, write_card

    figures = None if evaluation is None else read_json(evaluation, "an evaluation")
    if out_file is None:
        print(card_of(run, evaluation=figures), end="")
        return
    write_card(run, out_file, evaluation=figures)
    say(f"Wrote {out_file}. Its open boxes are questions that only people can answer.")


def _refuse_changes(
    out_folder: Path, *, preset: str | None, seed: int | None, settings: list[str]
) -> None:
    """Raise a ValueError that names an option or a setting that differs from the run's."""
    from companion.runs.pipeline import checked_record, recorded_preset
    from companion.runs.presets import override, settings_of
    from companion.training.checkpoints import RunFolder

    record = checked_record(RunFolder.open(out_folder))
    refuse_changes("run", out_folder, record, preset=preset, seed=seed)
    recorded = recorded_preset(record)
    for setting, text in pairs(settings).items():
        # With its defaults: an option that was not given is the same as its default given.
        if settings_of(override(recorded, {setting: text})) != settings_of(recorded):
            raise ValueError(
                f"--set {setting}={text} differs from the run in {out_folder}; leave it out to go "
                "on with it, or begin another run in another --out"
            )


def _run_and_text(run: Path, corpus: str | None, device: str) -> tuple[TrainedModel, Corpus]:
    """A run and the named corpus, or the run's own; warns if its own has changed."""
    from companion.runs import pipeline
    from companion.text import corpora

    trained = pipeline.load_run(run, device=device)
    if corpus is not None:
        return trained, corpora.load_corpus(corpus)
    text = pipeline.corpus_at(trained.record["corpus"], f"run {run}")
    if text.fingerprint != trained.record["corpus_fingerprint"]:
        warn(pipeline.another_text(text, trained.record, f"run {run}"))
    return trained, text


def _split(text: Corpus, split: str | None, corpus: str | None) -> str:
    """The split to measure; says so where neither the option nor the run has named it."""
    chosen = split or ("test" if text.test else "valid")
    if corpus is not None and split is None:
        say(f"Measured on the {chosen} split of {text.name}; --split all measures all of it.")
    return chosen


def _warn_of_unknown(evaluation: Evaluation) -> None:
    if evaluation.unknown:
        warn(
            f"{evaluation.unknown:,} of {evaluation.tokens:,} tokens are unknown to the tokenizer: "
            "bits_per_byte leaves out what spelling them costs, so it flatters this model"
        )
