"""Tuning: train many short runs, keep the settings with the lowest validation loss.

A search in a folder can be interrupted, resumed, and worked on by several processes at once:

    tune.json      what is searched, by which seed, on which text
    study.db       the trials, in Optuna's SQLite
    trials.json    the trials, to read

The test text is never looked at. The lowest of many validation losses is too good by luck: train
the winner again with other seeds before you report it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from companion.checkpoints import CheckpointError, is_free, only_writer, read_json, write_json
from companion.corpora import Corpus
from companion.lstm import LSTMLanguageModel
from companion.pipeline import another_text, place_of
from companion.presets import Preset, override
from companion.runtime import choose_device, cpu_threads, environment, seed_everything
from companion.search import (
    Objective,
    SearchConfig,
    SearchResult,
    Trial,
    create_study,
    import_optuna,
    search,
)
from companion.tokenizers import build_tokenizer, encode_documents
from companion.training import train

FORMAT = "companion-search"
#: What stands beside a lock in a folder whose making was cut off before tune.json was there.
UNFINISHED = ("study.db", "study.db-journal", ".study.db.lock", ".tune.json.partial")


def tune(
    corpus: Corpus,
    preset: Preset,
    config: SearchConfig,
    *,
    out: str | Path | None = None,
    record: Mapping[str, Any] | None = None,
    resume: bool = False,
    device: str = "auto",
    on_trial: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Search `config.space` for the settings with which `preset` predicts `corpus.valid` best.

    The tokenizer is fitted once, so losses in nats per token can be compared. Each trial trains
    with the same seed. With `out`, the search lives in that folder, which must be new unless
    `resume`; `record` adds to its tune.json. Without, it lives in memory.

    A trial whose training fails, or whose settings do not go together, counts as failed and the
    search goes on. A trial that Ctrl-C or a kill cuts off is given up, and its settings are tried
    again when the search goes on. Several processes may work on one folder, each of them but the
    first with `resume`; then a few trials more than asked for may finish.
    """
    import_optuna()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "a trial runs in one process, not under accelerate launch; start several searches "
            "with --resume on one folder instead"
        )
    choose_device(device)
    config.space.check(preset)
    folder = None
    if out is not None:
        folder = Path(out)
        identity = _identity(corpus, preset, config) | dict(record or {})
        if resume:
            _check_same(folder, identity, corpus)
        else:
            _claim(folder, identity, config)
    with cpu_threads(preset.threads if device in ("auto", "cpu") else None):
        result = search(
            _training_objective(corpus, preset, config.seed, device),
            config,
            database=None if folder is None else folder / "study.db",
            on_trial=on_trial,
        )
    if folder is not None:
        own = folder / f".trials-{os.getpid()}.json"  # another process may write at this moment
        write_json(own, {"trials": [dataclasses.asdict(trial) for trial in result.trials]})
        os.replace(own, folder / "trials.json")
    return result


def recorded(out: str | Path) -> dict[str, Any]:
    """The tune.json of the search in `out`; CheckpointError when there is none."""
    folder = Path(out)
    if not folder.exists():
        raise CheckpointError(f"no search at {folder}; begin one with: companion tune --out ...")
    record = read_json(folder / "tune.json", "a search of companion")
    if record.get("format") != FORMAT:
        raise CheckpointError(f"{folder} is not a search of companion: tune.json does not say so")
    return record


def train_command(out: str | Path, trial: Trial) -> str:
    """The command that trains the settings of `trial`, of the search in `out`, into a run."""
    record = recorded(out)
    settings = {**record["settings"], **trial.settings}
    return shlex.join(
        [
            *("companion", "train", "--corpus", record["corpus"], "--preset", record["preset"]),
            *("--seed", str(record["seed"])),
            *(f"--set={name}={value}" for name, value in settings.items()),
            *("--out", str(Path(out) / "best")),
        ]
    )


def _training_objective(corpus: Corpus, preset: Preset, seed: int, device: str) -> Objective:
    """Train `preset` with the settings given; the lowest validation loss in nats per token."""
    tokenizer = build_tokenizer(
        preset.tokenizer, (document.text for document in corpus.train), **preset.tokenizer_options
    )
    ids = encode_documents(tokenizer, corpus.train).ids
    valid_ids = encode_documents(tokenizer, corpus.valid).ids

    def objective(settings: dict[str, str], report: Callable[[float], None]) -> float:
        recipe = override(preset, settings)
        seed_everything(seed)
        result = train(
            LSTMLanguageModel(recipe.model_config(tokenizer.vocabulary_size)),
            ids,
            recipe.train,
            valid_ids=valid_ids,
            device=device,
            on_record=lambda record: (
                report(record["valid_nats_per_token"]) if "valid_nats_per_token" in record else None
            ),
        )
        if result.stopped == "interrupted":
            raise KeyboardInterrupt
        assert result.best_nats_per_token is not None
        return result.best_nats_per_token

    return objective


def _identity(corpus: Corpus, preset: Preset, config: SearchConfig) -> dict[str, Any]:
    """What must be the same for a search to go on."""
    return {
        "corpus": place_of(corpus),
        "corpus_fingerprint": corpus.fingerprint,
        "tokenizer": {"kind": preset.tokenizer, **preset.tokenizer_options},
        "model": dict(preset.model),
        "train": dataclasses.asdict(preset.train),
        "space": [str(each) for each in config.space.ranges],
        "startup": config.startup,
        "prune": config.prune,
        "seed": config.seed,
    }


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of its sections by dotted names, as settings are called: train.epochs."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _check_same(folder: Path, identity: Mapping[str, Any], corpus: Corpus) -> None:
    """CheckpointError, naming what differs, unless the search in `folder` is this very one."""
    known = recorded(folder)
    if known["corpus_fingerprint"] != corpus.fingerprint:
        raise CheckpointError(another_text(corpus, known, f"the search in {folder}"))
    flat = _flat(known)
    for name, value in _flat(json.loads(json.dumps(identity))).items():
        if name != "corpus" and flat.get(name) != value:  # the same text may lie elsewhere
            raise CheckpointError(
                f"{name} is {value}, which differs from the search being resumed: {folder} has "
                f"{flat.get(name)}; leave the option out, or begin another search"
            )


def _claim(folder: Path, identity: Mapping[str, Any], config: SearchConfig) -> None:
    """Make a new folder with tune.json."""
    _check_free(folder)
    with only_writer(folder):
        _check_free(folder)  # another process may have been quicker
        (folder / "study.db").unlink(missing_ok=True)
        create_study(config, folder / "study.db")  # before tune.json: whoever finds that finds it
        write_json(
            folder / "tune.json",
            {"format": FORMAT, **identity, "trials": config.trials, "environment": environment()},
        )


def _check_free(folder: Path) -> None:
    if not is_free(folder, UNFINISHED):
        raise CheckpointError(f"{folder} already exists; choose another --out, or give --resume")
