"""`companion card`: what a run knows, what is asked, and names that would be Markdown or HTML."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import companion

from companion.core.files import FileError
from companion.runs import pipeline
from companion.runs.card import as_code, card_of, write_card
from companion.runs.classifier import ClassifyConfig, train_on_file
from companion.runs.presets import get_preset, override
from companion.text.corpora import load_corpus
from companion.training.classification import FineTuningConfig

#: A name that closes code, opens HTML and a table, and turns the direction of the line.
HOSTILE = "a`b <script>alert(1)</script> | [x](javascript:1) ``` \u202e # _"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    text = folder / "te``xt <b>.txt"
    text.write_text("".join(f"{i % 7} green bottles on the wall\n" for i in range(400)))
    settings = {
        "model.hidden_size": "8", "train.steps": "4", "train.num_streams": "4",
        "train.evaluate_every": "2",
    }  # fmt: skip
    preset = override(get_preset("char-small"), settings)
    corpus = load_corpus(text)
    pipeline.train_run(corpus, preset, folder / "run", preset_name="char-small", seed=7)
    return folder / "run"


def test_the_card_says_what_the_run_knows(run: Path) -> None:
    card = card_of(run)
    trained = pipeline.load_run(run)
    record = json.loads((run / "corpus.json").read_text())
    for fact in (
        f"- parameters: {trained.model.num_parameters:,}",
        "- preset: `char-small`",
        "- seed: `7`",
        f"- fingerprint of splits, names and text: `{record['fingerprint']}`",
        "- licence: `that of the files`",
        f"- `train` split: 1 `documents`, {record['sizes']['train']['characters']:,} `characters`",
        "- commit of the code: not recorded",
        "- near-duplicate documents dropped: 0",
    ):
        assert fact in card
    losses = [
        json.loads(line).get("valid_nats_per_token")
        for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    best = min(loss for loss in losses if loss is not None)
    assert f"- lowest validation loss, nats per token: {best:.4g}" in card


def test_what_the_run_cannot_know_is_asked_under_the_headings_of_both_papers(run: Path) -> None:
    card = card_of(run)
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert headings == [
        "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
        "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
        "Motivation", "Composition", "Collection process", "Preprocessing", "Uses",
        "Distribution", "Maintenance",
    ]  # fmt: skip
    for heading in ("Intended use", "Ethical considerations", "Motivation", "Maintenance"):
        section = card.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        assert "- [ ] " in section
    assert "none given (on the command line: --evaluation)" in card


def test_figures_of_an_evaluation_stand_with_their_intervals(run: Path, tmp_path: Path) -> None:
    done = companion("evaluate", str(run), "--split", "valid", "--json")
    figures = json.loads(done.stdout)
    path = tmp_path / "figures.json"
    path.write_text(done.stdout)
    out = tmp_path / "card.md"
    written = companion("card", str(run), "--out", str(out), "--evaluation", str(path))
    assert written.returncode == 0, written.stderr
    card = out.read_text()
    assert f"- `nats_per_token`: {figures['nats_per_token']:.4g}" in card
    assert "- split: `valid`" in card
    with_interval = {
        **figures, "nats_per_token_low": 1.25, "nats_per_token_high": 1.5,
        "interval_over": "documents",
    }  # fmt: skip
    assert "(95 % interval 1.25 to 1.5, over `documents`)" in card_of(run, evaluation=with_interval)
    with pytest.raises(ValueError, match="step 99, and the run's best weights are of step"):
        card_of(run, evaluation={**figures, "step": 99})
    for other in ({**figures, "run": str(tmp_path)}, {"step": figures["step"]}):
        with pytest.raises(ValueError, match=r"the evaluation is of .*, and the card is of"):
            card_of(run, evaluation=other)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("run.json", lambda record: record.pop("train")),
        ("corpus.json", lambda record: record["sizes"].update(train=None)),
        ("corpus.json", lambda record: record.update(unseen={"test": {}})),
        ("metrics.jsonl", None),
    ],
)
def test_a_damaged_record_is_one_clear_error(
    run: Path, tmp_path: Path, file: str, change: Callable[[dict], object] | None
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    path = copy / file
    if change is None:
        path.write_text("7\n")
    else:
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))
    with pytest.raises(FileError, match="is damaged"):
        card_of(copy)


def test_no_loss_is_taken_for_the_lowest_and_names_of_splits_are_code(
    run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    path = copy / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 9, "valid_nats_per_token": NaN}\n')
    record = json.loads((copy / "corpus.json").read_text())
    record["sizes"][HOSTILE] = {HOSTILE: "many"}
    (copy / "corpus.json").write_text(json.dumps(record))
    card = card_of(copy)
    assert "lowest validation loss, nats per token: nan" not in card
    assert f"- {as_code(HOSTILE)} split: not recorded {as_code(HOSTILE)}" in card


def test_nothing_is_overwritten(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "card.md"
    write_card(run, out)
    before = out.read_text() + "answered"
    out.write_text(before)
    done = companion("card", str(run), "--out", str(out))
    assert done.returncode == 1
    assert "already exists, and somebody may have answered its questions" in done.stderr
    assert out.read_text() == before


def test_without_out_the_card_is_printed_and_other_folders_are_refused(
    run: Path, tmp_path: Path
) -> None:
    done = companion("card", str(run))
    assert done.stdout == card_of(run)
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="is not a run of companion"):
        card_of(tmp_path / "folder")


@pytest.mark.parametrize(
    "name", [HOSTILE, "`", "``", " ", "a\n# heading", "`edge`", "\x1b[31m", "plain", "日本"]
)
def test_a_name_stays_code_on_one_line(name: str) -> None:
    """By CommonMark, a code span ends at the first run of as many backticks as opened it."""
    shown = as_code(name)
    fence = re.match("`+", shown)[0]
    inside = shown[len(fence) : -len(fence)]
    assert shown.endswith(fence)
    assert fence not in re.findall("`+", inside)
    assert "\n" not in shown
    assert "\u202e" not in shown
    assert "\x1b" not in shown
    if name == "plain":
        assert shown == "`plain`"


def test_a_hostile_path_is_code_in_the_card(run: Path) -> None:
    card = card_of(run)
    assert "- name: ```" in card
    without_code = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", card)
    assert "<b>" not in without_code


def test_a_classifier_has_a_card_too(tmp_path: Path) -> None:
    rows = [f"film {i},{'g|ood' if i % 2 else 'b`ad'}" for i in range(20)]
    (tmp_path / "few.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    config = ClassifyConfig(embedding_size=4, hidden_size=4, training=FineTuningConfig(steps=2))
    trained = train_on_file(tmp_path / "few.csv", tmp_path / "c", config, device="cpu")
    card = card_of(tmp_path / "c")
    assert "- kind: LSTM classifier of texts" in card
    assert "- labels: ``b`ad``, `g|ood`" in card
    assert "- training texts with label `g|ood`: 10" in card
    assert trained.record["file"]["sha256"] in card
    assert str(tmp_path) not in card
    assert "- name: `few.csv`" in card
    of_it = {"classifier": str(tmp_path / "c"), "accuracy": 0.5, "file": "t.csv"}
    with pytest.raises(ValueError, match="labels are not those of the classifier"):
        card_of(tmp_path / "c", evaluation={**of_it, "labels": {"x": {}}})
    figures = {**of_it, "labels": {name: {"recall": 0.25} for name in trained.labels}}
    with pytest.raises(ValueError, match="the evaluation is of elsewhere"):
        card_of(tmp_path / "c", evaluation={**figures, "classifier": "elsewhere"})
    with_figures = card_of(tmp_path / "c", evaluation=figures)
    assert "- `accuracy`: 0.5" in with_figures
    assert "- label `g|ood`: `recall` 0.25" in with_figures
    assert "- file: `t.csv`" in with_figures
