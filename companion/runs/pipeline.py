"""From a corpus and a preset to a trained model in a run folder; and loading it again.

This is `companion train` for programs and notebooks: read the corpus, fit the tokenizer on its
training text, encode, set the seed, build the model, train.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from companion.compression.packed import fill
from companion.core.files import FileError, check_fields, only_writer, write_json
from companion.core.runtime import (
    choose_device,
    cpu_threads,
    environment,
    keep_freed_memory,
    make_accelerator,
    memory_bytes,
    warn_of_missing_processes,
)
from companion.core.seeds import seed_everything
from companion.core.settings import check_type, check_whole
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.runs.presets import Preset
from companion.text.corpora import Corpus, corpus_names, load_corpus
from companion.text.documents import CorpusError
from companion.text.tokenizers import (
    EncodedText,
    Tokenizer,
    build_tokenizer,
    encode_documents,
    load_tokenizer,
    save_tokenizer,
)
from companion.training.budget import Pace, measure_pace
from companion.training.checkpoints import RunFolder
from companion.training.config import TrainConfig
from companion.training.trainer import TrainResult, share_of_streams, train

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Bytes of training memory per parameter: weight, gradient and two moments, in float32.
BYTES_PER_PARAMETER = 16
#: Called with each record of metrics.
OnRecord = Callable[[dict[str, Any]], None]
#: Called with one line of text before each stage that may take long.
OnStage = Callable[[str], None]
#: File in a run's folder that describes its training data: `Corpus.as_dict`.
CORPUS_FILE = "corpus.json"


#: Fields of run.json that training goes on with, or a model is used with. Runs of older versions
#: recorded no tokenizer.
_FIELDS = {
    "corpus": str, "corpus_fingerprint": str, "seed": int, "threads": int | None,
    "tokenizer": dict | None, "model": dict, "train": dict,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained model with its tokenizer and settings."""

    model: LSTMLanguageModel
    """The model, in evaluation mode, on the device it was loaded for."""
    tokenizer: Tokenizer
    """The tokenizer, fitted on the training text of the run's corpus."""
    record: dict[str, Any]
    """Contents of run.json: corpus, configuration, seed, environment."""
    step: int
    """Optimizer steps after which these weights were saved."""


def train_run(
    corpus: Corpus,
    preset: Preset,
    out: str | Path,
    *,
    preset_name: str | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    budget: float | None = None,
    progress: bool = False,
    tensorboard: bool = False,
    on_record: OnRecord | None = None,
    on_stage: OnStage | None = None,
) -> TrainResult:
    """Train on `corpus` with the settings of `preset`, in a new run folder `out`.

    With `budget`, in seconds from the call on, the speed is measured first and the number of steps
    replaced by one that fits, so that the learning-rate schedule ends where the budget ends.
    `tensorboard` also writes the metrics for TensorBoard; `on_record` is called with each record of
    metrics. The folder keeps a description of the training data as corpus.json.
    """
    say, started = on_stage or _silent, time.perf_counter()
    # Errors that can be found early are raised before the folder is made.
    check_type("corpus", corpus, Corpus, "load_corpus(name_or_path) reads one")
    check_type("preset", preset, Preset, "presets.get_preset(name) gives one")
    check_whole(seed=seed)
    check_request(out, device=device, overwrite=overwrite, budget=budget, tensorboard=tensorboard)
    accelerator = make_accelerator(device, preset.train.precision)
    warn_of_missing_processes(accelerator)
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
            f"{preset.train.num_streams} streams; use a longer text or a smaller num_streams (on "
            "the command line: --set train.num_streams=1)"
        )
    pace = None
    if budget is not None:
        preset, pace = _planned(
            preset, model_config, encoded, corpus, tokenizer, accelerator,
            seed=seed, device=device, budget=budget, started=started, folder=Path(out).parent,
            say=say,
        )  # fmt: skip
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
    if pace is not None:
        record["budget"] = {"seconds": budget, **dataclasses.asdict(pace)}

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


def check_request(
    out: str | Path, *, device: str, overwrite: bool, budget: float | None, tensorboard: bool
) -> None:
    """Raise the errors of `train_run` for which no text need be read."""
    if budget is not None and not 0 < budget < math.inf:
        raise ValueError(f"budget must be > 0 seconds and finite, got {budget}")
    if tensorboard:
        _summary_writer()
    choose_device(device)
    if os.environ.get("RANK", "0") == "0":  # of several processes, only the first writes
        RunFolder(out).check_free(overwrite=overwrite)


def _planned(
    preset: Preset,
    model_config: LSTMConfig,
    encoded: EncodedText,
    corpus: Corpus,
    tokenizer: Tokenizer,
    accelerator: Accelerator,
    *,
    seed: int,
    device: str,
    budget: float,
    started: float,
    folder: Path,
    say: OnStage,
) -> tuple[Preset, Pace]:
    """`preset` with the steps that fit into `budget` seconds from `started` on, and the pace.

    A checkpoint is timed in `folder`.
    """
    say("Measuring the speed ...")
    with cpu_threads(_threads(preset.threads, device)):
        seed_everything(seed)
        pace = measure_pace(
            LSTMLanguageModel(model_config), encoded.ids, preset.train,
            valid_ids=encode_documents(tokenizer, corpus.valid).ids,
            device=device, seconds=budget, folder=folder,
        )  # fmt: skip
    # All processes plan alike: each takes the time that the first one has left.
    left = torch.tensor([budget - (time.perf_counter() - started)], device=accelerator.device)
    seconds = float(accelerator.gather(left)[0])
    if seconds <= 0:
        raise ValueError(
            f"fitting the tokenizer and measuring the speed took {budget - seconds:.3g} s, the "
            f"whole budget of {budget:.3g} s; give more, or a smaller model"
        )
    steps = pace.steps_within(seconds, preset.train)
    settings = dataclasses.replace(preset.train, steps=steps, epochs=None)
    say(
        f"{pace.targets_per_second:,.0f} tokens/s: {steps:,} steps, "
        f"{steps / pace.steps_per_epoch:.2f} epochs, fit into the budget"
    )
    return dataclasses.replace(preset, train=settings), pace


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
    """Resume the run in `out` from its newest checkpoint, with the settings in its run.json.

    Give `corpus` if the run's text has moved. Raises FileError if it is not the text that the run
    was trained on.
    """
    choose_device(device)
    if corpus is not None:
        check_type("corpus", corpus, Corpus, "load_corpus(name_or_path) reads one")
    run = RunFolder.open(out)
    record = checked_record(run)
    if "compressed" in record:
        raise FileError(
            f"{run.path} is a compressed run ({compressed_from(record)}) and holds nothing that "
            "training could go on from; resume the run that it was made from"
        )
    accelerator = make_accelerator(device, _config(TrainConfig, record, "train").precision)
    warn_of_missing_processes(accelerator)
    with _writing(run.path, accelerator), cpu_threads(_threads(record.get("threads"), device)):
        corpus = corpus or corpus_at(record["corpus"], f"run {run.path}")
        if corpus.fingerprint != record["corpus_fingerprint"]:
            raise FileError(another_text(corpus, record, f"run {run.path}"))
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


def compressed_from(record: dict[str, Any]) -> str | None:
    """How the run of `record` was compressed and from which run, in words; None if it was not.

    Raises FileError where the record says that it was, and not how.
    """
    done = record.get("compressed")
    if done is None:
        return None
    try:
        settings = ", ".join(f"{name} {value}" for name, value in done["settings"].items())
        return f"{done['method']}: {settings}; from {done['of']}"
    except (KeyError, TypeError, AttributeError) as error:
        raise FileError(
            "the run.json of a compressed run does not say how it was compressed; compress the run "
            "again"
        ) from error


def checked_record(run: RunFolder) -> dict[str, Any]:
    """The contents of run.json; FileError where what is needed of it is missing or damaged."""
    record = run.record()
    check_fields(record, _FIELDS, run.path / "run.json", "train again")
    return record


def recorded_preset(record: dict[str, Any]) -> Preset:
    """The settings of run.json as a preset.

    Runs of older versions recorded no tokenizer; for them it is "byte".
    """
    model = dataclasses.asdict(_config(LSTMConfig, record, "model"))
    del model["vocabulary_size"]
    options = dict(record.get("tokenizer") or {})
    return Preset(
        description="",
        tokenizer=options.pop("kind", "byte"),
        tokenizer_options=options,
        model=model,
        train=_config(TrainConfig, record, "train"),
        threads=record.get("threads"),
    )


def place_of(corpus: Corpus) -> str:
    """The name of `corpus`, or its absolute path, which finds it from any working folder."""
    path = Path(corpus.name)
    by_path = corpus.name not in corpus_names() and path.exists()
    return str(path.resolve()) if by_path else corpus.name


def corpus_at(place: str, whose: str) -> Corpus:
    """The corpus of the run or search `whose`, at `place`; CorpusError if it cannot be loaded."""
    try:
        return load_corpus(place)
    except CorpusError as error:
        raise CorpusError(
            f"{whose} was trained on {place}, and {error}; or give its text as corpus (on the "
            "command line: --corpus)"
        ) from error


def another_text(corpus: Corpus, record: dict[str, Any], whose: str) -> str:
    """The message that `corpus` is not the text in `record`; file names are part of the text."""
    return (
        f"{whose} was trained on {record['corpus']} with fingerprint "
        f"{record['corpus_fingerprint'][:16]}, and {place_of(corpus)} has "
        f"{corpus.fingerprint[:16]}: it is another text, a file of it has another name, or "
        "another version of companion cleaned and split it otherwise; give the run's own as corpus "
        "(on the command line: --corpus)"
    )


def load_run(path: str | Path, *, device: str = "auto") -> TrainedModel:
    """The best model of the run in `path`, ready to score or generate."""
    run = RunFolder.open(path)
    record = checked_record(run)
    best = run.best()
    model = LSTMLanguageModel(_config(LSTMConfig, record, "model"))
    try:
        if "compressed" in record:
            fill(model, best.model)
        else:
            model.load_state_dict(dict(best.model))
    except (RuntimeError, ValueError) as error:
        raise FileError(
            f"the weights in {path} do not fit the model in its run.json: {error}"
        ) from error
    model.to(choose_device(device)).eval()
    return TrainedModel(
        model=model,
        tokenizer=load_tokenizer(run.path / "tokenizer.json"),
        record=record,
        step=best.step,
    )


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
    keep_freed_memory()
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
    """Warn if the best validation loss is worse than that of a uniform guess among all tokens."""
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
    """The default `on_stage`, which prints nothing."""


def _writing(out: Path, accelerator: Accelerator) -> contextlib.AbstractContextManager[None]:
    """The lock of the run's folder, which the first process holds for all."""
    return only_writer(out) if accelerator.is_main_process else contextlib.nullcontext()


def _threads(count: int | None, device: str) -> int | None:
    """The CPU threads that a preset asks for; None when a GPU is requested."""
    return count if device in ("auto", "cpu") else None


def _check_fits(config: LSTMConfig, device: torch.device) -> None:
    """ValueError when the device's memory cannot hold the model and its optimizer."""
    there = memory_bytes(device)
    # First in Python integers, which cannot overflow, and then exactly: torch's do. All layers but
    # the last two have hidden_size units and as many inputs.
    hidden, embedding = config.hidden_size, config.embedding_size
    parameters = config.vocabulary_size * embedding + max(0, config.num_layers - 2) * 8 * hidden**2
    if config.num_layers > 1 or not config.last_size:
        parameters += 4 * hidden * (hidden + embedding)
    at_least = "at least "
    if parameters * BYTES_PER_PARAMETER <= there:
        at_least = ""
        with torch.device("meta"):  # shapes only
            parameters = LSTMLanguageModel(config).num_parameters
    needed = parameters * BYTES_PER_PARAMETER
    if needed > there:
        raise ValueError(
            f"the model has {at_least}{parameters:,} parameters and needs {needed // 2**30:,} GiB "
            f"to train; device {device.type} has {there / 2**30:,.1f}: lower model.hidden_size "
            f"(now {config.hidden_size}) or model.embedding_size ({config.embedding_size})"
        )


def _listeners(run: RunFolder, tensorboard: bool, on_record: OnRecord | None) -> OnRecord | None:
    """`on_record`, after the writer of TensorBoard's files if `tensorboard` is set."""
    if not tensorboard or os.environ.get("RANK", "0") != "0":
        return on_record
    board = _summary_writer()(run.path / "tensorboard")

    def write(record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name != "step" and value is not None:
                board.add_scalar(name, value, record["step"])
        board.flush()
        if on_record is not None:
            on_record(record)

    return write


def _summary_writer() -> Any:
    """The class of TensorBoard's writers; ValueError where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "tensorboard=True (on the command line: --tensorboard) needs the package tensorboard; "
            "install it with: "
            "python -m pip install tensorboard, or read metrics.jsonl"
        ) from error
    return SummaryWriter


def _config(kind: type, record: dict[str, Any], section: str) -> Any:
    """The dataclass `kind` from a section of run.json."""
    try:
        values = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in record[section].items()
        }
        return kind(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"run.json has no usable {section!r} section: {error}") from error
