"""From a corpus and a preset to a trained model in a run folder, and back out of it.

This is what `companion train` does, for programs and notebooks: read the corpus, fit the
tokenizer on its training text, encode, build, seed, train.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from companion.checkpoints import CheckpointError, RunFolder, only_writer, write_json
from companion.corpora import Corpus, CorpusError, corpus_names, load_corpus
from companion.evaluation import Evaluation, Scores, score, summarize
from companion.lstm import LSTMConfig, LSTMLanguageModel
from companion.presets import Preset
from companion.runtime import (
    choose_device,
    cpu_threads,
    environment,
    make_accelerator,
    memory_bytes,
    seed_everything,
    warn_of_missing_processes,
)
from companion.tokenizers import (
    EncodedText,
    Tokenizer,
    build_tokenizer,
    encode_documents,
    load_tokenizer,
    save_tokenizer,
)
from companion.training import TrainConfig, TrainResult, share_of_streams, train

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Weight, gradient and two moments, in float32.
BYTES_PER_PARAMETER = 16
#: Called with each record of metrics.
OnRecord = Callable[[dict[str, Any]], None]
#: Called with one line before each stage that may take long.
OnStage = Callable[[str], None]
#: File in a run's folder that says what the run learns from: `Corpus.as_dict`.
CORPUS_FILE = "corpus.json"


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model with what it takes to use it."""

    model: LSTMLanguageModel
    """In evaluation mode, on the device it was loaded for."""
    tokenizer: Tokenizer
    """Fitted on the training text of the run's corpus."""
    record: dict[str, Any]
    """run.json: corpus, configuration, seed, environment."""
    step: int
    """Optimizer steps behind these weights."""


def train_run(
    corpus: Corpus,
    preset: Preset,
    out: str | Path,
    *,
    preset_name: str | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = False,
    tensorboard: bool = False,
    on_record: OnRecord | None = None,
    on_stage: OnStage | None = None,
) -> TrainResult:
    """Train on `corpus` by `preset` into a new run folder `out`.

    `tensorboard` writes the metrics for TensorBoard besides; `on_record` is called with each of
    them. The folder keeps what the run learns from as corpus.json.
    """
    say = on_stage or _silent
    # What cannot be done is refused before a folder is made.
    accelerator = make_accelerator(device, preset.train.precision)
    warn_of_missing_processes(accelerator)
    if accelerator.is_main_process:
        RunFolder(Path(out)).check_free(overwrite=overwrite)
    share_of_streams(preset.train.num_streams, accelerator)
    characters = sum(len(document.text) for document in corpus.train)
    say(f"Fitting the {preset.tokenizer} tokenizer on {characters:,} characters ...")
    tokenizer = build_tokenizer(
        preset.tokenizer, (document.text for document in corpus.train), **preset.tokenizer_options
    )
    model_config = preset.model_config(tokenizer.vocabulary_size)
    _check_fits(model_config, accelerator.device)
    say(f"Encoding the training text by {tokenizer.vocabulary_size:,} tokens ...")
    encoded = encode_documents(tokenizer, corpus.train)
    if encoded.ids.numel() <= preset.train.num_streams:
        raise ValueError(
            f"the training text has {encoded.ids.numel() - 1} tokens, too few for "
            f"{preset.train.num_streams} streams; use a longer text or "
            "--set train.num_streams=1"
        )
    record = {
        "corpus": place_of(corpus),
        "corpus_fingerprint": corpus.fingerprint,
        "preset": preset_name,
        "seed": seed,
        "threads": preset.threads,
        "tokenizer": {"kind": preset.tokenizer, **preset.tokenizer_options},
        "processes": accelerator.num_processes,
        "model": dataclasses.asdict(model_config),
        "train": dataclasses.asdict(preset.train),
    }

    def prepare(folder: Path) -> None:
        save_tokenizer(tokenizer, folder / "tokenizer.json")
        write_json(folder / CORPUS_FILE, corpus.as_dict())

    with _writing(Path(out), accelerator), cpu_threads(_threads(preset.threads, device)):
        if accelerator.is_main_process:
            RunFolder.create(
                out,
                {**record, "environment": environment()},
                overwrite=overwrite,
                prepare=prepare,
            )
        accelerator.wait_for_everyone()
        run = RunFolder.open(out)
        return _train(
            run,
            corpus,
            tokenizer,
            encoded,
            resume=False,
            device=device,
            progress=progress,
            on_record=_listeners(run, tensorboard, on_record),
        )


def resume_run(
    out: str | Path,
    *,
    corpus: Corpus | None = None,
    device: str = "auto",
    progress: bool = False,
    tensorboard: bool = False,
    on_record: OnRecord | None = None,
    on_stage: OnStage | None = None,
) -> TrainResult:
    """Go on with the run in `out` from its newest checkpoint, by the configuration it records.

    `corpus` is its text, where that no longer lies where the run found it. Another text than the
    run's own is refused.
    """
    choose_device(device)
    run = RunFolder.open(out)
    record = run.record()
    accelerator = make_accelerator(device, _config(TrainConfig, record, "train").precision)
    warn_of_missing_processes(accelerator)
    with _writing(run.path, accelerator), cpu_threads(_threads(record["threads"], device)):
        corpus = corpus or corpus_at(record["corpus"], f"run {run.path}")
        if corpus.fingerprint != record["corpus_fingerprint"]:
            raise CheckpointError(another_text(corpus, record, f"run {run.path}"))
        tokenizer = load_tokenizer(run.path / "tokenizer.json")
        (on_stage or _silent)(f"Encoding the training text of {corpus.name} ...")
        return _train(
            run,
            corpus,
            tokenizer,
            encode_documents(tokenizer, corpus.train),
            resume=True,
            device=device,
            progress=progress,
            on_record=_listeners(run, tensorboard, on_record),
        )


def recorded_preset(record: dict[str, Any]) -> Preset:
    """The settings of run.json as a preset, of which some can be changed.

    A run of an older version, which recorded no tokenizer, has bytes here.
    """
    model = dataclasses.asdict(_config(LSTMConfig, record, "model"))
    del model["vocabulary_size"]
    options = dict(record.get("tokenizer", {"kind": "byte"}))
    return Preset(
        description="",
        tokenizer=options.pop("kind"),
        tokenizer_options=options,
        model=model,
        train=_config(TrainConfig, record, "train"),
        threads=record["threads"],
    )


def place_of(corpus: Corpus) -> str:
    """What finds `corpus` again from any working folder: its name, or its absolute path."""
    path = Path(corpus.name)
    by_path = corpus.name not in corpus_names() and path.exists()
    return str(path.resolve()) if by_path else corpus.name


def corpus_at(place: str, whose: str) -> Corpus:
    """The corpus at `place`, which is that of `whose`; CorpusError, naming both, without it."""
    try:
        return load_corpus(place)
    except CorpusError as error:
        raise CorpusError(
            f"{whose} was trained on {place}, and {error}; or name its text with --corpus"
        ) from error


def another_text(corpus: Corpus, record: dict[str, Any], whose: str) -> str:
    """That `corpus` is not the text that `record` tells of, in words; file names are part of it."""
    return (
        f"{whose} was trained on {record['corpus']} with fingerprint "
        f"{record['corpus_fingerprint'][:16]}, and {place_of(corpus)} has "
        f"{corpus.fingerprint[:16]}: it is another text, a file of it has another name, or "
        "another version of companion cleaned and split it otherwise; name the run's own with "
        "--corpus"
    )


def load_run(path: str | Path, *, device: str = "auto") -> TrainedModel:
    """The best model of the run in `path`, ready to score or generate."""
    run = RunFolder.open(path)
    record = run.record()
    checkpoint = run.best()
    model = LSTMLanguageModel(_config(LSTMConfig, record, "model"))
    try:
        model.load_state_dict(dict(checkpoint.model))
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights in {path} do not fit the model in its run.json: {error}"
        ) from error
    model.to(choose_device(device)).eval()
    return TrainedModel(
        model=model,
        tokenizer=load_tokenizer(run.path / "tokenizer.json"),
        record=record,
        step=checkpoint.step,
    )


def score_split(trained: TrainedModel, corpus: Corpus, split: str) -> tuple[Scores, Evaluation]:
    """Surprisal of every token of one split of `corpus`, and the sums of it."""
    encoded = encode_documents(trained.tokenizer, corpus.documents(split))
    scores = score(trained.model, encoded.ids)
    evaluation = summarize(
        scores, num_bytes=encoded.num_bytes, unknown_id=trained.tokenizer.unknown_id
    )
    return scores, evaluation


def _train(
    run: RunFolder,
    corpus: Corpus,
    tokenizer: Tokenizer,
    encoded: EncodedText,
    *,
    resume: bool,
    device: str,
    progress: bool,
    on_record: OnRecord | None,
) -> TrainResult:
    record = run.record()
    seed_everything(record["seed"])
    result = train(
        LSTMLanguageModel(_config(LSTMConfig, record, "model")),
        encoded.ids,
        _config(TrainConfig, record, "train"),
        valid_ids=encode_documents(tokenizer, corpus.valid).ids,
        run=run,
        resume=resume,
        device=device,
        progress=progress,
        on_record=on_record,
    )
    _warn_of_nothing_learnt(result, tokenizer)
    return result


def _warn_of_nothing_learnt(result: TrainResult, tokenizer: Tokenizer) -> None:
    """Say it when the best validation loss is worse than a guess among all tokens."""
    best, uniform = result.best_nats_per_token, math.log(tokenizer.vocabulary_size)
    if best is not None and best > uniform:
        warnings.warn(
            f"the best validation loss, {best:.4f} nats/token, is above ln V = {uniform:.4f}, that "
            f"of a guess among all {tokenizer.vocabulary_size:,} tokens: training was too short or "
            "too fast, or the validation text is unlike the training text (see "
            f"{CORPUS_FILE} in the run)",
            stacklevel=3,
        )


def _silent(stage: str) -> None:
    """For programs that want no lines."""


def _writing(out: Path, accelerator: Accelerator) -> contextlib.AbstractContextManager[None]:
    """The lock of the run's folder, which the first process holds for all."""
    return only_writer(out) if accelerator.is_main_process else contextlib.nullcontext()


def _threads(count: int | None, device: str) -> int | None:
    """The CPU threads that a recipe asks for, where a CPU may train it."""
    return count if device in ("auto", "cpu") else None


def _check_fits(config: LSTMConfig, device: torch.device) -> None:
    """ValueError when the device's memory cannot hold the model and its optimizer."""
    with torch.device("meta"):  # shapes only
        parameters = LSTMLanguageModel(config).num_parameters
    needed, there = parameters * BYTES_PER_PARAMETER, memory_bytes(device)
    if needed > there:
        raise ValueError(
            f"the model has {parameters:,} parameters and needs {needed / 2**30:,.1f} GiB to "
            f"train; device {device.type} has {there / 2**30:,.1f}: lower model.hidden_size (now "
            f"{config.hidden_size}) or model.embedding_size ({config.embedding_size})"
        )


def _listeners(run: RunFolder, tensorboard: bool, on_record: OnRecord | None) -> OnRecord | None:
    """`on_record`, and before it the writer of TensorBoard's files where they are wanted."""
    if not tensorboard or os.environ.get("RANK", "0") != "0":
        return on_record
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "--tensorboard needs the package tensorboard; install it with: "
            "python -m pip install tensorboard, or read metrics.jsonl"
        ) from error
    board = SummaryWriter(run.path / "tensorboard")

    def write(record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name != "step":
                board.add_scalar(name, value, record["step"])
        board.flush()
        if on_record is not None:
            on_record(record)

    return write


def _config(kind: type, record: dict[str, Any], section: str) -> Any:
    """The dataclass `kind` from a section of run.json."""
    try:
        values = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in record[section].items()
        }
        return kind(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"run.json has no usable {section!r} section: {error}") from error
