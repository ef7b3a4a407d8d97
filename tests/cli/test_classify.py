"""`companion classify` as a user meets it: train, evaluate, predict, and one sentence a mistake."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest
import torch
from command_line import companion
from safetensors.torch import load_file, save_file

from companion.core.files import FileError, digest, read_json
from companion.models.classifier import class_logits
from companion.models.lstm import LSTMLanguageModel
from companion.runs import classifier
from companion.runs.classifier import (
    ClassifyConfig,
    evaluate_on,
    load_classifier,
    positive_class,
    train_on_file,
)
from companion.runs.pipeline import load_run
from companion.text.labelled import Example, encode_texts, read_examples
from companion.training.classification import FineTuningConfig, train_classifier

FEW = ["--set", "training.steps=30", "--set", "hidden_size=16", "--set", "embedding_size=8"]
GOOD, BAD = ("great", "fine", "lovely"), ("dull", "awful", "weak")


def rows(n: int, start: int = 0) -> list[tuple[str, str]]:
    """Reviews whose word decides, the classes in turn."""
    found = []
    for i in range(start, start + n):
        words, label = (GOOD, "good") if i % 2 else (BAD, "bad")
        found.append((f"film {i % 5} is {words[i % 3]} , really", label))
    return found


def write(path: Path, examples: list[tuple[str, str]], header: str = "text,label") -> Path:
    lines = [header, *(f'"{text}",{label}' for text, label in examples)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("labelled")
    noisy = [(text, "bad" if i % 10 == 1 else label) for i, (text, label) in enumerate(rows(60))]
    return {
        "train": write(folder / "train.csv", rows(60)),
        "valid": write(folder / "valid.csv", noisy),
        "test": write(folder / "test.csv", rows(40, start=7)),
    }


@pytest.fixture(scope="module")
def folder(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "s"
    done = companion(
        "classify", "train", str(files["train"]), "--out", str(path), "--device", "cpu",
        "--valid", str(files["valid"]), "--json", *FEW,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["train"]["accuracy"] > 0.9
    assert report["valid"]["examples"] == 60
    assert report["temperature"] != 1.0
    return path


def test_the_folder_holds_weights_tokenizer_and_record_and_nothing_else(folder, files) -> None:
    names = {path.name for path in folder.iterdir()} - {".lock"}
    assert names == {"classifier.json", "tokenizer.json", "model.safetensors"}
    record = read_json(folder / "classifier.json", "a classifier")
    assert record["labels"] == ["bad", "good"]
    assert record["examples"] == {"bad": 30, "good": 30}
    assert record["file"]["sha256"] == digest(files["train"])
    assert record["sha256"]["model.safetensors"] == digest(folder / "model.safetensors")


def test_evaluate_prints_the_documented_names_as_json(folder, files) -> None:
    done = companion(
        "classify", "evaluate", str(folder), str(files["test"]), "--positive", "bad",
        "--threshold", "0.2", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {"accuracy", "macro_f1", "ece", "ece_by_chance", "labels", "decisions"} <= set(report)
    assert report["labels"]["good"]["support"] == 20
    assert report["accuracy"] > 0.9
    found = report["decisions"]
    trained = load_classifier(folder, device="cpu")
    examples = read_examples(files["test"])
    bad = trained.probabilities([each.text for each in examples])[:, 0] >= 0.2
    truth = torch.tensor([each.label == "bad" for each in examples])
    assert found["true_positives"] == int((bad & truth).sum())
    assert found["false_positives"] == int((bad & ~truth).sum())
    assert found["false_negatives"] == int((~bad & truth).sum())
    assert found["true_negatives"] == int((~bad & ~truth).sum())
    assert (found["positive"], found["threshold"]) == ("bad", 0.2)


def test_a_table_has_the_same_numbers(folder, files) -> None:
    arguments = ["classify", "evaluate", str(folder), str(files["test"])]
    report = json.loads(companion(*arguments, "--json").stdout)
    shown = companion(*arguments, "--positive", "bad").stdout
    assert f"{report['macro_f1']:.4f}" in shown
    assert f"{report['labels']['good']['recall']:.4f}" in shown
    assert "flagging 'bad' at 0.5" in shown


def test_predict_takes_a_file_without_labels_or_texts(folder, tmp_path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("id,text\n1,film 2 is lovely\n2,film 1 is awful\n", encoding="utf-8")
    done = companion("classify", "predict", str(folder), str(path), "--json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)["predictions"]
    assert (first["label"], second["label"]) == ("good", "bad")
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    said = companion("classify", "predict", str(folder), "--say", "film 2 is lovely", "--json")
    again = json.loads(said.stdout)["predictions"][0]["probabilities"]
    assert again == pytest.approx(first["probabilities"], abs=1e-6)
    table = companion("classify", "predict", str(folder), str(path)).stdout
    assert "film 2 is lovely" in table


def test_a_low_threshold_flags_more(folder) -> None:
    arguments = ["classify", "predict", str(folder), "--say", "film 3 is fine", "--json"]
    flags = ["--positive", "bad", "--threshold", "0"]
    assert json.loads(companion(*arguments).stdout)["predictions"][0]["label"] == "good"
    assert json.loads(companion(*arguments, *flags).stdout)["predictions"][0]["label"] == "bad"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "FOLDER", "TEST", "--positive", "sad"], "positive must be one of the labels"),
        (["evaluate", "FOLDER", "TEST", "--label", "stars"], "has no column 'stars'"),
        (["evaluate", "FOLDER", "UNKNOWN"], "line 2 of .* label 'sad', and the classifier knows"),
        (["evaluate", "NOTHING", "TEST"], "no classifier at"),
        (["evaluate", "HERE", "TEST"], "is not a classifier of companion: classifier.json does"),
        (["evaluate", "FOLDER", "TEST", "--threshold", "0.5"], "is about one label; .*--positive"),
        (["predict", "FOLDER", "--say", "x", "--threshold", "0"], "about one label; .*--positive"),
        (["train", "TEST", "--out", "NEW", "--pretrained", "NOTHING", "--set", "hidden_size=128"],
         "the pretrained language model has its own; leave out hidden_size$"),
        (["train", "TEST", "--out", "NEW", "--pretrained", "NOTHING", "--set", "tokenizer=word"],
         "leave out tokenizer$"),
        (["train", "TEST", "--out", "NEW", "--set", "training.unfreeze_every=0"],
         "from scratch .* --pretrained.* leave out training.unfreeze_every$"),
        (["train", "TEST", "--out", "NEW", "--set", "hidden_size=0"], "hidden_size must be >= 1"),
        (["train", "TEST", "--out", "NEW", "--set", "max_tokens=0"], "max_tokens must be >= 1"),
        (["predict", "FOLDER"], "by a FILE or by --say"),
        (["predict", "FOLDER", "TEST", "--say", "x"], "by a FILE or by --say"),
        (["predict", "FOLDER", "--say", "x", "--text", "y"], "--text names a column of a FILE"),
        (["predict", "FOLDER", "--say", " "], "--say takes a text, got an empty one"),
        (["train", "TEST", "--out", "FOLDER"], "already exists; choose another folder, or replace"),
        (["train", "TEST", "--out", "HERE", "--overwrite"], "nothing was changed"),
        (["train", "TEST", "--out", "TEST"], "is a file; choose another folder"),
        (["train", "UNKNOWN", "--out", "NEW"], "one label only, 'sad'"),
        (["train", "TEST", "--out", "NEW", "--pretrained", "NOTHING"], "no run at"),
        (["train", "TEST", "--out", "NEW", "--pretrained", "FOLDER"], "not a run of companion"),
        (["train", "TEST", "--out", "NEW", "--set", "steps=3"], "Did you mean 'training.steps'"),
        (["train", "TEST", "--out", "NEW", "--valid", "UNKNOWN"], "label 'sad'"),
        (["train", "TEST", "--out", "NEW", "--set", "tokenizer=letters"], "tokenizer kind must be"),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_by_one_sentence(folder, files, tmp_path, arguments, words) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.txt").write_text("x")
    places = {
        "FOLDER": folder, "TEST": files["test"], "NOTHING": tmp_path / "nothing",
        "HERE": tmp_path / "here", "NEW": tmp_path / "new",
        "UNKNOWN": write(tmp_path / "sad.csv", [("a film", "sad")]),
    }  # fmt: skip
    done = companion("classify", *(str(places.get(each, each)) for each in arguments))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert re.search(words, done.stderr)
    assert not (tmp_path / "new" / "classifier.json").exists()


def test_a_classifier_is_replaced_only_when_asked(files, tmp_path) -> None:
    few = ["--set", "training.steps=2", "--set", "hidden_size=4", "--json"]
    arguments = ["classify", "train", str(files["train"]), "--out", str(tmp_path / "a"), *few]
    assert companion(*arguments).returncode == 0
    before = digest(tmp_path / "a" / "model.safetensors")
    assert companion(*arguments, "--seed", "1").returncode == 1
    assert digest(tmp_path / "a" / "model.safetensors") == before
    assert companion(*arguments, "--seed", "1", "--overwrite").returncode == 0
    assert digest(tmp_path / "a" / "model.safetensors") != before


@pytest.mark.parametrize("failing", ["save_tensors", "save_tokenizer", "flush"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_classifier_that_cannot_be_replaced_is_kept(
    files, tmp_path, monkeypatch, failing: str, error: BaseException
) -> None:
    few = ["--set", "training.steps=2", "--set", "hidden_size=4", "--json"]
    out = tmp_path / "a"
    arguments = ["classify", "train", str(files["train"]), "--out", str(out), *few]
    assert companion(*arguments).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(classifier, failing, fail)
    done = companion(*arguments, "--seed", "1", "--overwrite")
    assert done.returncode != 0
    if isinstance(error, OSError):
        assert "the disk is full; what was saved before is untouched" in done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    load_classifier(out)


def test_a_damaged_folder_is_refused(files, tmp_path) -> None:
    few = ["--set", "training.steps=2", "--set", "hidden_size=4", "--json"]
    out = tmp_path / "a"
    done = companion("classify", "train", str(files["train"]), "--out", str(out), *few)
    assert done.returncode == 0, done.stderr
    record = read_json(out / "classifier.json", "a classifier")
    settings = record["settings"]
    for change, words in (
        ({"version": 9}, "classifier format version 9"),
        ({"format": "x"}, "does not say so"),
        (
            {"sha256": {}},
            r"classifier\.json is damaged \(KeyError\('tokenizer\.json'\)\); train again",
        ),
        ({"sha256": None}, r"classifier\.json is damaged"),
        ({"temperature": 0}, "temperature must be a number > 0, got 0"),
        ({"temperature": -1.5}, "temperature must be a number > 0, got -1.5"),
        ({"temperature": float("nan")}, "temperature must be a number > 0, got nan"),
        ({"temperature": None}, "temperature must be a number > 0, got None"),
        ({"labels": "bad"}, "labels must be two different texts or more, got 'bad'"),
        ({"labels": ["bad", "bad"]}, "labels must be two different texts or more"),
        ({"labels": ["bad", "good", "so"]}, r"classifier\.json is damaged .*size mismatch"),
        ({"text": 3}, "text must be the name of a column, got 3"),
        ({"model": {}}, r"classifier\.json is damaged"),
        ({"model": [1]}, r"classifier\.json is damaged"),
        ({"model": {**record["model"], "hidden_size": -4}}, r"hidden_size must be >= 1, got -4"),
        ({"settings": {}}, r"classifier\.json is damaged"),
        ({"settings": {**settings, "max_tokens": 0}}, "max_tokens must be >= 1"),
        ({"settings": {**settings, "training": 1}}, r"classifier\.json is damaged"),
    ):
        (out / "classifier.json").write_text(json.dumps({**record, **change}))
        with pytest.raises(FileError, match=words) as refused:
            load_classifier(out)
        assert "\n" not in str(refused.value)
    (out / "classifier.json").write_text("[]")
    with pytest.raises(FileError, match="expected a JSON object, got list"):
        load_classifier(out)
    (out / "classifier.json").write_text(json.dumps(record))
    load_classifier(out)
    weights = load_file(out / "model.safetensors")
    save_file({k: v + 1 for k, v in weights.items()}, out / "model.safetensors")
    with pytest.raises(FileError, match=r"model\.safetensors is damaged: its checksum differs"):
        load_classifier(out)
    (out / "tokenizer.json").unlink()
    with pytest.raises(FileError, match="lacks a file"):
        load_classifier(out)


def test_three_labels_work_and_have_no_threshold(tmp_path) -> None:
    path = write(tmp_path / "three.csv", [("a b", "x"), ("c d", "y"), ("e f", "z")] * 4)
    trained = train_on_file(path, tmp_path / "out", seed=0, device="cpu")
    report = evaluate_on(trained, read_examples(path))
    assert report["accuracy"] == 1.0
    assert {name: each["support"] for name, each in report["labels"].items()} == dict.fromkeys(
        "xyz", 4
    )
    assert trained.probabilities(["e f", "a b"]).argmax(dim=1).tolist() == [2, 0]
    with pytest.raises(ValueError, match="a threshold needs two labels, and the classifier has 3"):
        positive_class(trained, "x")


def test_the_probabilities_are_those_at_the_fitted_temperature(folder) -> None:
    trained = load_classifier(folder, device="cpu")
    texts = ["film 2 is lovely", "film 1 is awful , really"]
    logits = class_logits(trained.model, encode_texts(texts, trained.tokenizer)).double()
    assert trained.temperature != 1.0
    expected = torch.softmax(logits / trained.temperature, dim=-1)
    torch.testing.assert_close(trained.probabilities(texts), expected, rtol=0, atol=1e-6)


def test_all_words_that_training_never_saw_are_one_unknown_word(folder) -> None:
    trained = load_classifier(folder, device="cpu")
    unknown, other, known = trained.probabilities(["zzz 🎬 qqq", "so many new", "film 1 awful"])
    torch.testing.assert_close(unknown, other, rtol=0, atol=1e-7)
    assert float((unknown - known).abs().max()) > 1e-3


def test_what_is_evaluated_has_labels_that_the_classifier_knows(folder) -> None:
    trained = load_classifier(folder, device="cpu")
    with pytest.raises(ValueError, match=r"examples have the label 'sad', .* knows 'bad', 'good'"):
        evaluate_on(trained, [Example("a film", "sad")])
    with pytest.raises(ValueError, match="examples must be one or more"):
        evaluate_on(trained, [])
    with pytest.raises(ValueError, match="threshold is about one label"):
        evaluate_on(trained, [Example("a film", "bad")], threshold=0.3)
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\], got 1.5"):
        evaluate_on(trained, [Example("a film", "bad")], positive="bad", threshold=1.5)


def test_a_classifier_from_scratch_is_trained_on_the_device_that_was_chosen(
    files, tmp_path, monkeypatch
) -> None:
    """This machine may have a CPU only: what is asked for is seen, and done on the CPU."""
    seen = []

    def spy(*arguments, device, **others):
        seen.append(device)
        return train_classifier(*arguments, device="cpu", **others)

    def load(folder, *, device):
        seen.append(device)
        return load_classifier(folder, device="cpu")

    monkeypatch.setattr(classifier, "train_classifier", spy)
    monkeypatch.setattr(classifier, "load_classifier", load)
    monkeypatch.setattr(classifier, "choose_device", torch.device)
    few = ClassifyConfig(hidden_size=4, training=FineTuningConfig(steps=1))
    train_on_file(files["train"], tmp_path / "a", few, device="cuda")
    assert seen == [torch.device("cuda"), "cuda"]


def test_where_no_temperature_is_best_the_record_says_so_and_other_errors_are_raised(
    files, tmp_path, monkeypatch
) -> None:
    few = ClassifyConfig(hidden_size=16, training=FineTuningConfig(steps=60))
    trained = train_on_file(files["train"], tmp_path / "a", few, valid=files["test"], device="cpu")
    assert evaluate_on(trained, read_examples(files["test"]))["accuracy"] == 1.0
    assert trained.temperature == 1.0
    assert "no temperature was fitted: no temperature between" in trained.record["temperature_note"]

    def broken(logits, targets):
        raise ValueError("the model's logits are not finite")

    monkeypatch.setattr(classifier, "temperature_of", broken)
    with pytest.raises(ValueError, match="not finite"):
        train_on_file(files["train"], tmp_path / "b", few, valid=files["test"], device="cpu")


@pytest.mark.slow
def test_the_language_model_of_a_run_is_fine_tuned(files, tmp_path) -> None:
    text = tmp_path / "reviews.txt"
    text.write_text("\n".join(each for each, _ in rows(400)) + "\n")
    run = tmp_path / "lm"
    done = companion(
        "train", "--corpus", str(text), "--out", str(run), "--preset", "char-small", "--device",
        "cpu", "--set", "train.steps=20", "--set", "model.hidden_size=16", "--set",
        "train.num_streams=4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = tmp_path / "c"
    done = companion(
        "classify", "train", str(files["train"]), "--out", str(out), "--pretrained", str(run),
        "--device", "cpu", "--set", "training.steps=3", "--set", "training.unfreeze_every=3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"companion classify evaluate {out}" in done.stderr
    trained = load_classifier(out, device="cpu")
    assert trained.tokenizer.kind == "character"
    assert trained.record["pretrained"] == str(run.resolve())
    before = load_run(run, device="cpu").model
    assert isinstance(before, LSTMLanguageModel)
    for name, value in trained.model.body.state_dict().items():  # the head alone had its turn
        assert torch.equal(value, before.state_dict()[name]), name
    done = companion("classify", "evaluate", str(out), str(files["test"]), "--json")
    assert json.loads(done.stdout)["examples"] == 40
