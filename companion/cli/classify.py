"""The commands classify train, classify evaluate and classify predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from companion.cli.console import (
    AsJson,
    Device,
    Seed,
    Settings,
    answer,
    as_typed,
    command,
    out,
    out_option,
    pairs,
    say,
    warn,
)

if TYPE_CHECKING:
    from companion.runs.classifier import TrainedClassifier

Folder = Annotated[
    Path,
    typer.Argument(help="Folder of a classifier, as given to --out.", show_default=False),
]
Text = Annotated[str, typer.Option("--text", help="Name of the column that holds the texts.")]
Label = Annotated[str, typer.Option("--label", help="Name of the column that holds the labels.")]
TextAsTrained = Annotated[
    str | None,
    typer.Option("--text", help="Column of the texts.", show_default="as in training"),
]
LabelAsTrained = Annotated[
    str | None,
    typer.Option("--label", help="Column of the labels.", show_default="as in training"),
]
Positive = Annotated[
    str | None,
    typer.Option(help="One of two labels: flag it at --threshold.", show_default=False),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Least probability at which --positive is flagged.", min=0, max=1, show_default="0.5"
    ),
]


def train(
    file: Annotated[
        Path, typer.Argument(help="CSV file with a text and its label a row.", show_default=False)
    ],
    out_folder: Annotated[Path, out_option("Folder to write the classifier to.")],
    text: Text = "text",
    label: Label = "label",
    pretrained: Annotated[
        Path | None,
        typer.Option(help="Folder of a run whose language model is fine-tuned."),
    ] = None,
    valid: Annotated[
        Path | None,
        typer.Option(help="CSV file on which the temperature of the probabilities is fitted."),
    ] = None,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the classifier in --out.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a classifier of texts on a CSV file.

    The file has a header line; files whose name ends in .tsv have tabs. With --pretrained, the
    language model of a run (companion train) is fine-tuned: upper layers first, lower layers with
    smaller rates; it has a tokenizer and sizes of its own. Settings are `--set hidden_size=64`,
    `--set tokenizer=bpe`, `--set training.steps=400` and others, which an unknown name lists.
    """
    from companion.core.settings import changed
    from companion.runs import classifier

    config = changed(classifier.ClassifyConfig(), pairs(settings or []))
    trained = classifier.train_on_file(
        file, out_folder, config, text=text, label=label, pretrained=pretrained, valid=valid,
        seed=seed, device=device, overwrite=overwrite, progress=not as_json,
    )  # fmt: skip
    if trained.record["temperature_note"]:
        warn(trained.record["temperature_note"])
    from companion.text.labelled import read_examples

    report: dict[str, Any] = {"out": str(out_folder), "temperature": trained.temperature}
    parts = [("train", file)] + ([] if valid is None else [("valid", valid)])
    for name, path in parts:
        examples = read_examples(path, text=text, label=label, labels=trained.labels)
        report[name] = classifier.evaluate_on(trained, examples)
    if as_json:
        answer(report, as_json)
        return
    out.print(_table({name: report[name] for name, _ in parts}))
    say(
        f"Saved in {out_folder}. Measure it on texts that it was not trained on:\n"
        f"  {command('classify', 'evaluate', out_folder, 'FILE')}"
    )


def evaluate(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="CSV file of labelled texts.", show_default=False)],
    text: TextAsTrained = None,
    label: LabelAsTrained = None,
    positive: Positive = None,
    threshold: Threshold = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a classifier: accuracy, precision, recall and F1 by label, calibration.

    `ece` is the mean gap between confidence and accuracy, and `ece_by_chance` what a calibrated
    classifier would show on as many texts. With --positive, also the decisions at --threshold.
    """
    from companion.runs import classifier
    from companion.text.labelled import read_examples

    trained = classifier.load_classifier(folder, device=device)
    classifier.positive_class(trained, positive, threshold)
    examples = read_examples(
        file, text=text or trained.record["text"], label=label or trained.record["label"],
        labels=trained.labels,
    )  # fmt: skip
    report = classifier.evaluate_on(trained, examples, positive=positive, threshold=threshold)
    if as_json:
        answer({"classifier": str(folder), "file": str(file), **report}, as_json)
        return
    out.print(_table({"": report}))
    by_label = Table("label", "precision", "recall", "F1", "texts", box=None)
    for name, each in report["labels"].items():
        shares = (f"{each[key]:.4f}" for key in ("precision", "recall", "f1"))
        by_label.add_row(name, *shares, f"{each['support']:,}")
    out.print(by_label)
    if positive is not None:
        rest = dict(report["decisions"])
        shown, level = rest.pop("positive"), rest.pop("threshold")
        out.print(f"\nflagging {shown!r} at {level:g}:", highlight=False)
        answer(rest, as_json=False)


def predict(
    folder: Folder,
    file: Annotated[
        Path | None, typer.Argument(help="CSV file with a text a row.", show_default=False)
    ] = None,
    say: Annotated[
        list[str] | None, typer.Option("--say", metavar="TEXT", help="A text; repeatable.")
    ] = None,
    text: TextAsTrained = None,
    positive: Positive = None,
    threshold: Threshold = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Predict the label of each text, with its probability.

    Give a CSV file, which needs no labels, or texts as `--say "the film is great ."`. The label is
    the most probable one, or with --positive that one wherever it reaches --threshold.
    """
    from companion.runs import classifier
    from companion.text.labelled import read_column

    if (file is None) == (not say):
        raise ValueError("give texts to classify, by a FILE or by --say, and not by both")
    if say and text is not None:
        raise ValueError("--text names a column of a FILE; leave it out with --say")
    trained = classifier.load_classifier(folder, device=device)
    if file is not None:
        texts = read_column(file, text or trained.record["text"])
    else:
        texts = [as_typed(each) for each in say or []]
        if not all(each.strip() for each in texts):
            raise ValueError("--say takes a text, got an empty one")
    predictions = _predicted(trained, texts, positive, threshold)
    if as_json:
        answer({"classifier": str(folder), "predictions": predictions}, as_json)
        return
    table = Table("label", "probability", "text", box=None)
    for each in predictions:
        shown = each["text"] if len(each["text"]) <= 60 else each["text"][:59] + "…"
        probability = each["probabilities"][each["label"]]
        table.add_row(each["label"], f"{probability:.4f}", " ".join(shown.split()))
    out.print(table)


def _predicted(
    trained: TrainedClassifier, texts: list[str], positive: str | None, threshold: float | None
) -> list[dict[str, Any]]:
    from companion.runs.classifier import positive_class

    flagging = positive_class(trained, positive, threshold)
    found = []
    for text, row in zip(texts, trained.probabilities(texts).tolist(), strict=True):
        if flagging is None:
            place = max(range(len(row)), key=row.__getitem__)
        else:
            flag, level = flagging
            place = flag if row[flag] >= level else 1 - flag
        label = trained.labels[place]
        shares = dict(zip(trained.labels, row, strict=True))
        found.append({"text": text, "label": label, "probabilities": shares})
    return found


def _table(reports: dict[str, dict[str, Any]]) -> Table:
    """The numbers of one report or several, a column each."""
    table = Table("", *reports, box=None, show_header=len(reports) > 1 or "" not in reports)
    first = next(iter(reports.values()))
    for name, value in first.items():
        if isinstance(value, dict):
            continue
        shown = (
            f"{r[name]:.4f}" if isinstance(value, float) else f"{r[name]:,}"
            for r in reports.values()
        )
        table.add_row(name, *shown)
    return table
