"""Classifiers of labelled files: trained into a folder, loaded, evaluated, asked.

    classifier.json     labels, columns, settings, seed, the file it was trained on, environment,
                        temperature, and the SHA-256 of the two files below
    tokenizer.json      the tokenizer
    model.safetensors   weights

classifier.json is written last and removed first, so a folder that has it is whole.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from companion.core.files import (
    LOCK_FILE,
    FileError,
    digest,
    disk_errors,
    flush,
    is_free,
    only_writer,
    partial_name,
    read_json,
    save_tensors,
    whole_file,
    write_json,
)
from companion.core.runtime import choose_device, environment
from companion.core.settings import check_sizes, settings_class
from companion.evaluation.calibration import NoTemperatureError, reliability, temperature_of
from companion.evaluation.classification import class_scores, precision_recall_f1
from companion.evaluation.decisions import decide
from companion.models.base import LanguageModel
from companion.models.classifier import ClassifierConfig, TextClassifier, class_logits
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.runs.pipeline import load_run
from companion.text.labelled import (
    Example,
    LabelledTexts,
    classes_of,
    encode_texts,
    listed,
    read_examples,
)
from companion.text.tokenizers import Tokenizer, build_tokenizer, load_tokenizer, save_tokenizer
from companion.training.classification import FineTuningConfig, train_classifier

FORMAT = "companion-classifier"
FORMAT_VERSION = 1
RECORD = "classifier.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
_FILES = (TOKENIZER, WEIGHTS, RECORD)
_PARTIAL = tuple(map(partial_name, _FILES))
_OWN = {LOCK_FILE, *_FILES, *_PARTIAL, *map(partial_name, _PARTIAL)}


@settings_class
class ClassifyConfig:
    """Settings of a classifier of a labelled file.

    The first three are of a training from scratch; a language model that is fine-tuned has its own.
    """

    tokenizer: str | None = None
    """Kind of tokenizer: word, bpe, character or byte; None means word."""
    embedding_size: int | None = None
    """Size of the token embeddings; None means 64."""
    hidden_size: int | None = None
    """Units of the LSTM; None means 128."""
    max_tokens: int = 400
    """Tokens of a text that are read; the rest is cut off."""
    training: FineTuningConfig = FineTuningConfig()
    """Training of the classifier."""

    def __post_init__(self) -> None:
        check_sizes(max_tokens=self.max_tokens)
        sizes = {name: getattr(self, name) for name in ("embedding_size", "hidden_size")}
        check_sizes(**{name: size for name, size in sizes.items() if size is not None})


@dataclass(frozen=True, kw_only=True)
class TrainedClassifier:
    """A classifier with its tokenizer and labels."""

    model: TextClassifier
    """The classifier, in evaluation mode."""
    tokenizer: Tokenizer
    """The tokenizer that its language model was trained with."""
    labels: list[str]
    """The labels, by class."""
    temperature: float
    """What logits are divided by; fitted on a validation file, else 1."""
    record: dict[str, Any]
    """Contents of classifier.json."""

    def probabilities(self, texts: Sequence[str]) -> torch.Tensor:
        """Probabilities of the labels for each text, of shape (texts, labels), in float64."""
        encoded = encode_texts(
            texts, self.tokenizer, max_tokens=self.record["settings"]["max_tokens"]
        )
        logits = class_logits(self.model, encoded).double()
        return torch.softmax(logits / self.temperature, dim=-1)


def train_on_file(
    path: str | Path,
    out: str | Path,
    config: ClassifyConfig | None = None,
    *,
    text: str = "text",
    label: str = "label",
    pretrained: str | Path | None = None,
    valid: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = False,
) -> TrainedClassifier:
    """Train a classifier on a CSV file with the columns `text` and `label`, in the folder `out`.

    pretrained: the folder of a run of `train_run`, whose language model is fine-tuned and whose
        tokenizer is used; None trains from scratch.
    valid: another CSV file, on which the temperature is fitted.
    device: where it is trained: cpu, cuda, mps or auto.

    Raises CorpusError for a file that is not as it should be, FileError for a folder that is taken,
    unless `overwrite` is true and it holds a classifier and nothing else, and ValueError for
    settings that mean nothing: of a tokenizer or sizes with `pretrained`, and of how layers are
    unfrozen without.
    """
    config = config or ClassifyConfig()
    _refuse_unread(config, fine_tuned=pretrained is not None)
    out = Path(out)
    _check_free(out, overwrite=overwrite)
    examples = read_examples(path, text=text, label=label)
    labels = classes_of(examples, path)
    others = read_examples(valid, text=text, label=label, labels=labels) if valid else []
    place = choose_device(device)
    body: LSTMConfig | LanguageModel
    if pretrained is None:
        tokenizer = build_tokenizer(
            config.tokenizer or "word", [example.text for example in examples]
        )
        body = sizes = LSTMConfig(
            vocabulary_size=tokenizer.vocabulary_size,
            embedding_size=config.embedding_size or 64, hidden_size=config.hidden_size or 128,
        )  # fmt: skip
    else:
        run = load_run(pretrained, device=str(place))
        tokenizer, body, sizes = run.tokenizer, run.model, run.model.config

    def encoded(some: Sequence[Example]) -> LabelledTexts:
        classes = [labels.index(example.label) for example in some]
        return encode_texts(
            [example.text for example in some], tokenizer, classes, max_tokens=config.max_tokens
        )

    with only_writer(out):
        model = train_classifier(
            body, encoded(examples), config.training, seed=seed, num_classes=len(labels),
            device=place, progress=progress,
        )  # fmt: skip
        temperature, note = 1.0, None
        if others:
            known = encoded(others)
            try:
                temperature = temperature_of(class_logits(model, known), known.labels)
            except NoTemperatureError as error:
                note = f"no temperature was fitted: {error}"
        record = {
            "labels": labels,
            "text": text,
            "label": label,
            "settings": dataclasses.asdict(config),
            "model": dataclasses.asdict(sizes),
            "seed": seed,
            "pretrained": None if pretrained is None else str(Path(pretrained).resolve()),
            "file": {"path": str(Path(path).resolve()), "sha256": digest(Path(path))},
            "examples": {name: _count(examples, name) for name in labels},
            "temperature": temperature,
            "temperature_note": note,
            "environment": environment(),
        }
        _save(out, model, tokenizer, record)
    return load_classifier(out, device=str(place))


def load_classifier(path: str | Path, *, device: str = "auto") -> TrainedClassifier:
    """The classifier in a folder; FileError when it is missing, damaged or something else."""
    folder = Path(path)
    if not folder.exists():
        raise FileError(
            f"no classifier at {folder}; train one with train_on_file (on the command line: "
            f"companion classify train FILE --out {shlex.quote(str(folder))})"
        )
    record = read_json(folder / RECORD, "a classifier of companion")
    if record.get("format") != FORMAT:
        raise FileError(f"{folder} is not a classifier of companion: {RECORD} does not say so")
    if record.get("version") != FORMAT_VERSION:
        raise FileError(
            f"{folder} has classifier format version {record.get('version')}, this companion reads "
            f"version {FORMAT_VERSION}; train again"
        )
    try:
        _check_record(record)
        for name in (TOKENIZER, WEIGHTS):
            if record["sha256"][name] != digest(folder / name):
                raise FileError(f"{folder / name} is damaged: its checksum differs; train again")
        sizes: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in record["model"].items()
        }
        training = record["settings"]["training"]
        model = TextClassifier(
            LSTMLanguageModel(LSTMConfig(**sizes)),
            ClassifierConfig(
                num_classes=len(record["labels"]), pooling=tuple(training["pooling"]),
                dropout=training["dropout"],
            ),
        )  # fmt: skip
        model.load_state_dict(load_file(folder / WEIGHTS))
        tokenizer = load_tokenizer(folder / TOKENIZER)
    except OSError as error:
        raise FileError(f"{folder} lacks a file: {error}; train again") from error
    except FileError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError, SafetensorError) as e:
        raise FileError(f"{folder / RECORD} is damaged ({e!r:.200}); train again") from e
    return TrainedClassifier(
        model=model.to(choose_device(device)).eval(),
        tokenizer=tokenizer,
        labels=record["labels"],
        temperature=float(record["temperature"]),
        record=record,
    )


def _check_record(record: Mapping[str, Any]) -> None:
    """ValueError where classifier.json holds what no training has written."""
    labels, temperature = record["labels"], record["temperature"]
    if (
        not isinstance(labels, list)
        or not all(isinstance(label, str) for label in labels)
        or len(set(labels)) < max(2, len(labels))
    ):
        raise ValueError(f"labels must be two different texts or more, got {labels!r:.60}")
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be a number > 0, got {temperature!r:.60}")
    for name in ("text", "label"):
        if not isinstance(record[name], str):
            raise ValueError(f"{name} must be the name of a column, got {record[name]!r:.60}")
    check_sizes(max_tokens=record["settings"]["max_tokens"])


def evaluate_on(
    trained: TrainedClassifier,
    examples: Sequence[Example],
    *,
    positive: str | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """How good a classifier is on these examples, as a dictionary of numbers.

    positive: one of two labels; adds precision, recall and F1 of flagging it at `threshold`.
    threshold: between 0 and 1; None means 0.5. It needs `positive`.

    Raises ValueError for no example, and for a label that the classifier does not know.
    """
    flagging = positive_class(trained, positive, threshold)
    if not examples:
        raise ValueError("examples must be one or more, got none")
    classes = {label: number for number, label in enumerate(trained.labels)}
    for example in examples:
        if example.label not in classes:
            raise ValueError(
                f"examples have the label {example.label!r}, and the classifier knows "
                f"{listed(trained.labels)}; leave them out, or train with them"
            )
    targets = torch.tensor([classes[example.label] for example in examples])
    probabilities = trained.probabilities([example.text for example in examples])
    confidences, predictions = probabilities.max(dim=-1)
    scores = precision_recall_f1(predictions, targets)
    bins = reliability(confidences, predictions == targets)
    per_class = class_scores(predictions, targets, len(trained.labels))
    report: dict[str, Any] = {
        "examples": len(examples),
        **{
            name: value
            for name, value in dataclasses.asdict(scores).items()
            if not name.startswith("micro")  # all equal to the accuracy
        },
        "ece": bins.ece,
        "ece_by_chance": bins.ece_by_chance,
        "labels": {
            name: dataclasses.asdict(each)
            for name, each in zip(trained.labels, per_class, strict=True)
        },
    }
    if flagging is not None:
        place, level = flagging
        found = decide(probabilities[:, place], targets == place, [level])
        shares = ("precision", "recall", "f1", "accuracy")
        counts = ("true_positives", "false_positives", "false_negatives", "true_negatives")
        report["decisions"] = {
            "positive": positive, "threshold": level,
            **{name: float(getattr(found, name)[0]) for name in shares},
            **{name: int(getattr(found, name)[0]) for name in counts},
        }  # fmt: skip
    return report


def positive_class(
    trained: TrainedClassifier, positive: str | None, threshold: float | None = None
) -> tuple[int, float] | None:
    """The class that is flagged and the threshold, 0.5 where none is given; None without either.

    Raises ValueError unless `positive` is one of two labels and `threshold` a number in [0, 1], and
    for a threshold without the label that it is about.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")
    if positive is None:
        if threshold is not None:
            raise ValueError(
                f"a threshold is about one label; say which by positive (on the command line: "
                f"--positive), one of {listed(trained.labels)}"
            )
        return None
    if positive not in trained.labels:
        raise ValueError(
            f"positive must be one of the labels {listed(trained.labels)}, got {positive!r}"
        )
    if len(trained.labels) != 2:
        raise ValueError(
            f"a threshold needs two labels, and the classifier has {len(trained.labels)}; leave "
            "positive out (on the command line: --positive)"
        )
    return trained.labels.index(positive), 0.5 if threshold is None else threshold


def _refuse_unread(config: ClassifyConfig, *, fine_tuned: bool) -> None:
    """ValueError where a setting is given that this training does not read."""
    if fine_tuned:
        names = ("tokenizer", "embedding_size", "hidden_size")
        unread = [name for name in names if getattr(config, name) is not None]
        why = "the pretrained language model has its own; leave out"
    else:
        plain = FineTuningConfig()
        unread = [
            f"training.{name}"
            for name in ("rate_decay", "unfreeze_every")
            if getattr(config.training, name) != getattr(plain, name)
        ]
        why = (
            "from scratch all layers are trained at once at one rate; give a pretrained "
            "language model (on the command line: --pretrained), or leave out"
        )
    if unread:
        raise ValueError(f"{why} {', '.join(unread)}")


def _count(examples: Sequence[Example], name: str) -> int:
    return sum(example.label == name for example in examples)


def _check_free(out: Path, *, overwrite: bool) -> None:
    """FileError where training would replace something else than a classifier."""
    if is_free(out, _OWN - {RECORD}):
        return
    if not out.is_dir():
        raise FileError(f"{out} is a file; choose another folder")
    if not overwrite:
        raise FileError(
            f"{out} already exists; choose another folder, or replace the classifier in it by "
            "overwrite=True (on the command line: --overwrite)"
        )
    strange = sorted(path.name for path in out.iterdir() if path.name not in _OWN)
    if strange or not (out / RECORD).exists():
        raise FileError(
            f"{out} holds {strange[0] if strange else 'no ' + RECORD}, so it is not a classifier "
            "of companion alone; nothing was changed, choose another folder"
        )


def _save(out: Path, model: TextClassifier, tokenizer: Tokenizer, record: dict[str, Any]) -> None:
    """Write the three files beside those of an earlier classifier, and only then replace them."""
    with (
        disk_errors(out),
        whole_file(out / RECORD) as new_record,  # the last one to take its name
        whole_file(out / WEIGHTS) as weights,
        whole_file(out / TOKENIZER) as new_tokenizer,
    ):
        save_tokenizer(tokenizer, new_tokenizer)
        save_tensors(model.state_dict(), weights)
        sums = {TOKENIZER: digest(new_tokenizer), WEIGHTS: digest(weights)}
        write_json(
            new_record, {"format": FORMAT, "version": FORMAT_VERSION, **record, "sha256": sums}
        )
        for written in (new_tokenizer, weights, new_record):
            flush(written)
        (out / RECORD).unlink(missing_ok=True)
    flush(out)
