"""A model card and a data sheet of a run or a classifier, in Markdown.

The headings are those of model cards (Mitchell et al. 2019) and of datasheets for datasets (Gebru
et al. 2021). Under each stands what the folder knows, and what it cannot know is asked: nothing is
invented. Names and paths come from elsewhere, so they stand as code, in which Markdown and HTML
mean nothing.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from companion.core.files import FileError, disk_errors, read_json, reason
from companion.runs import classifier
from companion.runs.pipeline import CORPUS_FILE, compressed_from, load_run
from companion.training.checkpoints import RunFolder

#: What the card says of a figure or a fact that the folder lacks.
UNKNOWN = "not recorded"

#: Section, the questions that only people can answer.
_OF_THE_MODEL = {
    "Intended use": (
        "What is the model for, and who is to use it?",
        "Which uses are out of scope?",
    ),
    "Factors": (
        "On which groups of people, kinds of text or settings may it do better or worse?",
        "Which of these were measured, and which were not, and why?",
    ),
    "Quantitative analyses": (
        "How do the figures differ between the factors named above, and by how much is that more "
        "than their intervals?",
    ),
    "Ethical considerations": (
        "Who may be harmed by a wrong or a biased output, and how was that measured?",
        "Was the training text searched for personal data, or were canaries hidden in it, and what "
        "was found?",
    ),
    "Caveats and recommendations": (
        "What should a user measure before relying on the model?",
        "How can a fault be reported, and to whom?",
    ),
}
_OF_THE_DATA = {
    "Motivation": ("For what purpose was the text collected, by whom, and who paid for it?",),
    "Composition": (
        "Whom does the text speak of, and whom does it leave out?",
        "Does it hold personal, confidential or offensive passages?",
    ),
    "Collection process": (
        "How and when was the text collected, and did its authors know and agree?",
    ),
    "Preprocessing": ("What was done to the text before companion read it?",),
    "Uses": ("For what should this text not be used?",),
    "Distribution": ("May the text, or a model of it, be passed on, and under which terms?",),
    "Maintenance": ("Who keeps the text, and how are errors in it corrected?",),
}

Facts = Sequence[tuple[str, str]]


def card_of(folder: str | Path, *, evaluation: Mapping[str, Any] | None = None) -> str:
    """The model card and data sheet of a run's or a classifier's folder, as Markdown.

    evaluation: what `companion evaluate RUN --json` or `companion classify evaluate FOLDER FILE
        --json` printed, for the section of metrics.

    Raises FileError for a folder that is neither, or is damaged, and ValueError for figures that
    name another folder, another step or other labels.
    """
    folder = Path(folder)
    is_classifier = (folder / classifier.RECORD).exists()
    if evaluation is not None:
        _check_folder(folder, evaluation, "classifier" if is_classifier else "run")
    facts_of = _classifier_facts if is_classifier else _run_facts
    try:
        return "\n".join(_lines(folder, facts_of(folder, evaluation))) + "\n"
    except (AttributeError, KeyError, TypeError) as error:
        raise FileError(
            f"{folder} is damaged, or the evaluation is ({error!r:.200}); train or evaluate again"
        ) from error


def _check_folder(folder: Path, evaluation: Mapping[str, Any], kind: str) -> None:
    """ValueError unless these figures say that they are of this folder."""
    known = evaluation.get(kind)
    if not isinstance(known, str) or Path(known).resolve() != folder.resolve():
        command = "companion classify evaluate {} FILE" if kind == "classifier" else (
            "companion evaluate {}"
        )  # fmt: skip
        raise ValueError(
            f"the evaluation is of {known if known else 'no ' + kind}, and the card is of "
            f"{folder}; evaluate it again (on the command line: "
            f"{command.format(shlex.quote(str(folder)))} --json, from the same folder)"
        )


def write_card(
    folder: str | Path, out: str | Path, *, evaluation: Mapping[str, Any] | None = None
) -> Path:
    """Write `card_of(folder)` to the file `out`; FileError where there is one already."""
    out = Path(out)
    text = card_of(folder, evaluation=evaluation)
    try:
        file = out.open("x", encoding="utf-8")  # refuses what has come into being meanwhile, too
    except FileExistsError as error:
        raise FileError(
            f"{out} already exists, and somebody may have answered its questions; choose another "
            "file"
        ) from error
    except OSError as error:
        raise FileError(f"cannot write {out}: {reason(error)}") from error
    try:
        with disk_errors(out), file:
            file.write(text)
    except BaseException:  # half a card would stand in the way of the next
        out.unlink(missing_ok=True)
        raise
    return out


def as_code(value: object) -> str:
    """`value` as code in Markdown, whatever stands in it: one line, of visible characters.

    Control and direction characters are written as their numbers; the code is fenced by more
    backticks than stand together in it.
    """
    shown = "".join(map(_visible, str(value)))
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    edge = " " if not shown.strip() or shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{edge}{shown}{edge}{fence}" if shown else UNKNOWN


def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return f"U+{ord(character):04X}" if hidden else character


def _lines(folder: Path, facts: Mapping[str, Facts]) -> Iterator[str]:
    """The card's lines: the headings in the order of the two papers."""
    yield f"# Model card: {as_code(folder.resolve().name)}"
    yield ""
    yield "Written by `companion card` from what the folder holds. A box is a question that only"
    yield "people can answer. Headings: Mitchell et al. 2019; Gebru et al. 2021."
    model = [
        "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
        "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
    ]  # fmt: skip
    for heading in model:
        yield from _section(heading, facts.get(heading, ()), _OF_THE_MODEL.get(heading, ()))
    yield from ("", f"# Data sheet: {dict(facts['Training data']).get('name', UNKNOWN)}")
    for heading, questions in _OF_THE_DATA.items():
        yield from _section(heading, facts.get(heading, ()), questions)


def _section(heading: str, facts: Facts, questions: Sequence[str]) -> Iterator[str]:
    yield from ("", f"## {heading}", "")
    yield from (f"- {name}: {value}" for name, value in facts)
    yield from (f"- [ ] {question}" for question in questions)
    if not facts and not questions:
        yield f"- {UNKNOWN}"


def _run_facts(folder: Path, evaluation: Mapping[str, Any] | None) -> dict[str, Facts]:
    run = RunFolder.open(folder)
    trained = load_run(folder, device="cpu")
    record = trained.record
    kept = folder / CORPUS_FILE
    corpus = read_json(kept, "a run of companion") if kept.exists() else {}
    history = run.metrics()
    losses = [each["valid_nats_per_token"] for each in history if "valid_nats_per_token" in each]
    best = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    report = corpus.get("report", {})
    sizes = corpus.get("sizes", {})
    details = [
        ("kind", "LSTM language model"),
        ("parameters", f"{trained.model.num_parameters:,}"),
        *([("compressed", as_code(compressed))] if (compressed := compressed_from(record)) else []),
        ("preset", _known(record.get("preset"))),
        ("tokenizer", _settings(record.get("tokenizer", {}))),
        ("tokens in the vocabulary", f"{trained.model.vocabulary_size:,}"),
        ("model settings", _settings(record["model"])),
        ("training settings", _settings(record["train"])),
        ("seed", _known(record.get("seed"))),
        ("optimizer steps of these weights", _number(trained.step)),
        ("seconds of training", _number(history[-1].get("seconds")) if history else UNKNOWN),
        ("processes", _known(record.get("processes"))),
        *_environment(record),
    ]
    metrics = [
        ("lowest validation loss, nats per token", _number(min(best)) if best else UNKNOWN),
        *_figures(evaluation, trained.step),
    ]
    training = [
        ("name", _known(corpus.get("name", record.get("corpus")))),
        ("licence", _known(corpus.get("licence"))),
        ("origin", _known(corpus.get("origin"))),
        ("fingerprint of splits, names and text", _known(record.get("corpus_fingerprint"))),
    ]
    composition = [
        (
            f"{as_code(split)} split",
            ", ".join(f"{_number(number)} {as_code(what)}" for what, number in size.items()),
        )
        for split, size in sizes.items()
    ]
    for split, unseen in corpus.get("unseen", {}).items():
        composition.append(
            (
                f"characters of the {as_code(split)} text never seen in training",
                _number(unseen["characters"]),
            )
        )
    cleaning = [
        ("documents read, kept", _pair(report, "documents_read", "documents_kept")),
        ("characters read, kept", _pair(report, "characters_read", "characters_kept")),
        ("near-duplicate documents dropped", _count(report.get("duplicates"))),
        ("copied passages removed", _number(report.get("copied_passages"))),
        *(("note", as_code(note)) for note in report.get("notes", ())),
    ]
    return {
        "Model details": details, "Metrics": metrics, "Training data": training,
        "Evaluation data": _evaluated_on(evaluation), "Composition": composition,
        "Preprocessing": cleaning,
        "Distribution": [("licence, as far as recorded", _known(corpus.get("licence")))],
    }  # fmt: skip


def _classifier_facts(folder: Path, evaluation: Mapping[str, Any] | None) -> dict[str, Facts]:
    trained = classifier.load_classifier(folder, device="cpu")
    record = trained.record
    scored = {} if evaluation is None else evaluation.get("labels")
    if evaluation is not None and (
        not isinstance(scored, dict) or scored.keys() != set(trained.labels)
    ):
        raise ValueError(
            "the evaluation's labels are not those of the classifier; evaluate it again (on the "
            f"command line: companion classify evaluate {shlex.quote(str(folder))} FILE --json)"
        )
    parameters = sum(each.numel() for each in trained.model.parameters())
    details = [
        ("kind", "LSTM classifier of texts"),
        ("labels", ", ".join(map(as_code, trained.labels))),
        ("parameters", f"{parameters:,}"),
        ("fine-tuned from", _known(record.get("pretrained"))),
        ("settings", _settings(record["settings"])),
        ("model settings", _settings(record["model"])),
        ("seed", _known(record.get("seed"))),
        ("temperature of the probabilities", _number(trained.temperature)),
        *_environment(record),
    ]
    training = [
        ("name", as_code(Path(record["file"]["path"]).name)),
        ("SHA-256 of the file", as_code(record["file"]["sha256"])),
    ]
    composition = [
        (f"training texts with label {as_code(label)}", _number(number))
        for label, number in record["examples"].items()
    ]
    return {
        "Model details": details, "Metrics": _figures(evaluation, None),
        "Evaluation data": _evaluated_on(evaluation), "Training data": training,
        "Composition": composition,
    }  # fmt: skip


def _environment(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    known = record.get("environment", {})
    names = ("companion", "python", "torch", "platform", "processor")
    found = [(name, _known(known.get(name))) for name in names]
    return [*found, ("commit of the code", _known(record.get("commit")))]


def _figures(evaluation: Mapping[str, Any] | None, step: int | None) -> list[tuple[str, str]]:
    """The numbers of an evaluation, each with its interval where it has one."""
    if evaluation is None:
        return [("figures on held-out text", "none given (on the command line: --evaluation)")]
    if step is not None and evaluation.get("step") != step:
        raise ValueError(
            f"the evaluation is of step {evaluation.get('step')}, and the run's best weights are "
            f"of step {step}; evaluate it again (on the command line: companion evaluate RUN "
            "--json)"
        )
    found = []
    for name, value in evaluation.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or name == "step":
            continue
        if name.endswith(("_low", "_high")):
            continue
        low, high = evaluation.get(f"{name}_low"), evaluation.get(f"{name}_high")
        interval = "" if low is None or high is None else (
            f" (95 % interval {_number(low)} to {_number(high)}, over "
            f"{_known(evaluation.get('interval_over'))})"
        )  # fmt: skip
        found.append((as_code(name), _number(value) + interval))
    named = [("decisions", evaluation["decisions"])] if "decisions" in evaluation else []
    named += [(f"label {as_code(name)}", each) for name, each in _labels(evaluation).items()]
    for name, each in named:
        values = ", ".join(
            f"{as_code(key)} {_number(value)}" if isinstance(value, int | float)
            else f"{as_code(key)} {as_code(value)}"
            for key, value in each.items()
        )  # fmt: skip
        found.append((name, values or UNKNOWN))
    return found


def _labels(evaluation: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    labels: Mapping[str, Mapping[str, Any]] = evaluation.get("labels") or {}
    return labels


def _evaluated_on(evaluation: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if evaluation is None:
        return []
    names = ("corpus", "split", "file")
    return [(name, _known(evaluation[name])) for name in names if name in evaluation]


def _known(value: object) -> str:
    return UNKNOWN if value is None or value == "" else as_code(value)


def _settings(values: Mapping[str, Any]) -> str:
    return as_code(json.dumps(values, ensure_ascii=False)) if values else UNKNOWN


def _number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return UNKNOWN
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _count(values: object) -> str:
    return f"{len(values):,}" if isinstance(values, list) else UNKNOWN


def _pair(report: Mapping[str, Any], first: str, second: str) -> str:
    return f"{_number(report.get(first))}, {_number(report.get(second))}"
