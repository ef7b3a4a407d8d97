"""Tuning: train many short runs, keep the settings with the lowest validation loss.

A search in a folder can be interrupted, resumed, and worked on by several processes at once:

    tune.json      search space, preset, seed and text
    study.db       the trials, in Optuna's SQLite database
    trials.json    the trials, as readable JSON

The test text is not used. The lowest of many validation losses is optimistic: train the best
settings again with other seeds before you report their loss.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from companion.core.files import (
    FileError,
    check_fields,
    check_writable,
    is_free,
    only_writer,
    partial_name,
    read_json,
    write_json,
)
from companion.core.runtime import choose_device, cpu_threads, environment
from companion.core.seeds import seed_everything
from companion.models.lstm import LSTMLanguageModel
from companion.runs.pipeline import another_text, place_of
from companion.runs.presets import Preset, override, settings_of
from companion.runs.search import (
    Objective,
    SearchConfig,
    SearchResult,
    Trial,
    create_study,
    import_optuna,
    search,
)
from companion.text.corpora import Corpus
from companion.text.tokenizers import build_tokenizer, encode_documents
from companion.training.trainer import train

FORMAT = "companion-search"
#: Files in the folder of a search whose creation was interrupted before tune.json was written.
UNFINISHED = ("study.db", "study.db-journal", ".study.db.lock", partial_name("tune.json"))

#: Fields of tune.json; the last two are there if they were given as `record`.
_FIELDS = {
    "corpus": str, "corpus_fingerprint": str, "seed": int, "space": list, "prune": bool,
    "trials": int, "preset": str | None, "settings": dict | None,
}  # fmt: skip


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
    """Search `config.space` for the settings of `preset` with the lowest loss on `corpus.valid`.

    The tokenizer is fitted once, so losses in nats per token can be compared. All trials train with
    the same seed. With `out`, the search is stored in that folder, which must be new unless
    `resume`; `record` is added to its tune.json. Without `out`, it is kept in memory.

    A trial whose training fails, or whose settings are inconsistent, counts as failed and the
    search continues. A trial that Ctrl-C or a kill interrupts is abandoned, and its settings are
    tried again when the search is resumed. Several processes may work on one folder, all but the
    first with `resume`; then a few more trials than `config.trials` may finish.
    """
    import_optuna()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "a trial runs in one process, not under accelerate launch; start several searches "
            "on one folder instead, with resume=True (on the command line: --resume)"
        )
    choose_device(device)
    config.space.check(preset)
    folder = None
    if out is not None:
        folder = Path(out)
        identity = _identity(corpus, preset, config) | dict(record or {})
        if resume:
            _check_same(folder, identity, corpus)
            check_writable(folder)
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
        trials = [dataclasses.asdict(trial) for trial in result.trials]
        write_json(folder / "trials.json", {"trials": trials}, shared=True)
    return result


def recorded(out: str | Path) -> dict[str, Any]:
    """The tune.json of the search in `out`; FileError when there is none."""
    folder = Path(out)
    if not folder.exists():
        raise FileError(
            f"no search at {folder}; begin one with resume=False (on the command line: without "
            "--resume)"
        )
    record = read_json(folder / "tune.json", "a search of companion")
    if record.get("format") != FORMAT:
        raise FileError(f"{folder} is not a search of companion: tune.json does not say so")
    check_fields(record, _FIELDS, folder / "tune.json", "begin another search")
    return record


def train_command(out: str | Path, trial: Trial) -> str:
    """The command that trains a run with the settings of `trial`, from the search in `out`."""
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
    """The objective: train with the given settings, return the lowest validation loss in nats per
    token."""
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
        assert result.best_nats_per_token is not None
        return result.best_nats_per_token

    return objective


def _identity(corpus: Corpus, preset: Preset, config: SearchConfig) -> dict[str, Any]:
    """Everything that must be the same for a search to be resumed; settings with their defaults."""
    recipe: dict[str, Any] = {}
    for setting in settings_of(preset):
        section, _, name = setting.name.rpartition(".")
        (recipe.setdefault(section, {}) if section else recipe)[name] = setting.value
    return {
        "corpus": place_of(corpus),
        "corpus_fingerprint": corpus.fingerprint,
        **recipe,
        "space": [str(each) for each in config.space.ranges],
        "startup": config.startup,
        "prune": config.prune,
        "seed": config.seed,
    }


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its nested sections flattened to dotted names, such as train.epochs."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _check_same(folder: Path, identity: Mapping[str, Any], corpus: Corpus) -> None:
    """Raise a FileError that names the difference, unless `folder` holds this same search."""
    known = recorded(folder)
    if known["corpus_fingerprint"] != corpus.fingerprint:
        raise FileError(another_text(corpus, known, f"the search in {folder}"))
    flat = _flat(known)
    for name, value in _flat(json.loads(json.dumps(identity))).items():
        # The same text may have moved, and `settings` are texts: their values are in the sections.
        if name == "corpus" or name.startswith("settings."):
            continue
        if flat.get(name) != value:
            raise FileError(
                f"{name} is {value}, which differs from the search being resumed: {folder} has "
                f"{flat.get(name)}; leave it as it is there, or begin another search"
            )


def _claim(folder: Path, identity: Mapping[str, Any], config: SearchConfig) -> None:
    """Create the folder of a new search, with an empty study and tune.json."""
    _check_free(folder)
    with only_writer(folder):
        _check_free(folder)  # again, as another process may have made it meanwhile
        (folder / "study.db").unlink(missing_ok=True)
        create_study(config, folder / "study.db")  # before tune.json, which marks it as complete
        write_json(
            folder / "tune.json",
            {"format": FORMAT, **identity, "trials": config.trials, "environment": environment()},
        )


def _check_free(folder: Path) -> None:
    if not is_free(folder, UNFINISHED):
        raise FileError(
            f"{folder} already exists; choose another folder, or go on with the search in it by "
            "resume=True (on the command line: --resume)"
        )
