"""What `companion evaluate` and `companion compare` say of runs, on a corpus of many documents."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from command_line import companion

from companion.runs import pipeline, report
from companion.runs.presets import get_preset, override
from companion.text.corpora import Corpus, load_corpus

WORDS = [
    "red",
    "green",
    "blue",
    "fish",
    "bird",
    "stone",
    "river",
    "walks",
    "sings",
    "falls",
    "slowly",
    "again",
    "over",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty documents; each says its own few words over and over, so a cache has its use."""
    path, draw = tmp_path_factory.mktemp("many"), random.Random(0)
    for number in range(80):
        own = draw.sample(WORDS, 5)
        lines = [" ".join(draw.choices(own, k=6)) for _ in range(14)]
        (path / f"{number:02}.txt").write_text("\n".join(lines) + "\n")
    return path


def train(corpus: Corpus, path: Path, preset: str, steps: int, seed: int = 0) -> Path:
    settings = {
        "model.hidden_size": "32", "train.steps": str(steps), "train.num_streams": "8",
        "train.learning_rate": "0.01",
    }  # fmt: skip
    if preset == "wikitext-cpu":
        settings |= {"model.embedding_size": "32", "train.num_samples": "32"}
    recipe = override(get_preset(preset), settings)
    pipeline.train_run(corpus, recipe, path, seed=seed, device="cpu")
    return path


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    path, corpus = tmp_path_factory.mktemp("runs"), load_corpus(folder)
    return {
        "long": train(corpus, path / "long", "char-small", 200),
        "short": train(corpus, path / "short", "char-small", 30),
        "words": train(corpus, path / "words", "wikitext-cpu", 60),
    }


def evaluate(run: Path, *options: str) -> dict[str, float]:
    done = companion("evaluate", str(run), "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_intervals_hold_the_means_and_are_over_documents(
    runs: dict[str, Path], folder: Path
) -> None:
    report = evaluate(runs["long"])
    assert report["interval_over"] == "documents"
    assert report["interval_units"] == len(load_corpus(folder).test) >= 5
    for name in ("nats_per_token", "bits_per_byte", "accuracy"):
        assert report[f"{name}_low"] < report[name] < report[f"{name}_high"]
    assert 0 < report["ece"] < 1
    assert 0 < report["ece_by_chance"] < 0.1


def test_units_hold_the_nats_of_the_whole(runs: dict[str, Path], folder: Path) -> None:
    trained = pipeline.load_run(runs["words"], device="cpu")
    scored = report.assess(trained, load_corpus(folder), "test")
    assert float(scored.nats.sum()) == pytest.approx(scored.evaluation.nats, rel=1e-12)
    assert int(scored.units.bytes.sum()) == scored.evaluation.bytes


def test_what_is_fitted_at_test_time_is_reported_apart_and_leaves_the_plain_figures(
    runs: dict[str, Path],
) -> None:
    plain = evaluate(runs["short"])
    report = evaluate(runs["short"], "--calibrate", "--cache", "--dynamic")
    assert plain.items() <= report.items()
    assert report["temperature"] > 0
    # The temperature is fitted on validation text; on the test text it can lose, by very little.
    assert report["temperature_nats_per_token"] < report["nats_per_token"] + 0.01
    assert report["dynamic_nats_per_token"] < report["one_stream_nats_per_token"] - 0.1
    assert report["dynamic_perplexity"] == pytest.approx(
        math.exp(report["dynamic_nats_per_token"]), rel=1e-9
    )
    assert 0 <= report["cache_weight"] < 1
    assert report["cache_nats_per_token"] < report["one_stream_nats_per_token"] + 0.01


def test_a_cache_pays_where_documents_have_words_of_their_own(runs: dict[str, Path]) -> None:
    report = evaluate(runs["words"], "--cache")
    assert report["cache_weight"] > 0
    assert report["cache_nats_per_token"] < report["one_stream_nats_per_token"] - 0.02


def test_choosing_on_the_text_that_is_measured_is_said_aloud(runs: dict[str, Path]) -> None:
    done = companion("evaluate", str(runs["short"]), "--split", "valid", "--calibrate", "--json")
    assert "chose their settings on the text that is scored here" in done.stderr
    assert json.loads(done.stdout)["split"] == "valid"


def test_the_longer_training_is_found_to_be_better(runs: dict[str, Path]) -> None:
    done = companion("compare", str(runs["long"]), str(runs["short"]), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["measure"] == "nats_per_token"
    assert report["difference"] == pytest.approx(report["first"] - report["second"], abs=1e-12)
    assert report["difference_low"] < report["difference"] < report["difference_high"] < 0
    assert report["p_value"] < 0.01
    assert report["first_better"] > 0.99
    # What evaluate says of each.
    assert report["first"] == pytest.approx(evaluate(runs["long"])["nats_per_token"], rel=1e-9)


def test_models_with_different_tokens_are_compared_per_byte(runs: dict[str, Path]) -> None:
    done = companion("compare", str(runs["words"]), str(runs["long"]), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["measure"] == "bits_per_byte"
    for name, run in (("first", "words"), ("second", "long")):
        assert report[name] == pytest.approx(evaluate(runs[run])["bits_per_byte"], rel=1e-9)


def test_a_run_does_not_differ_from_itself(runs: dict[str, Path]) -> None:
    done = companion("compare", str(runs["long"]), str(runs["long"]))
    assert done.returncode == 0, done.stderr
    assert "p_value" in done.stdout
    assert "1.0000" in done.stdout


def test_runs_on_different_corpora_are_refused_unless_one_is_named(
    runs: dict[str, Path], folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.txt"
    path.write_text("".join(f"{i % 7} green bottles standing on the wall\n" for i in range(300)))
    other = train(load_corpus(path), tmp_path / "other", "char-small", 5)
    done = companion("compare", str(runs["long"]), str(other))
    assert done.returncode == 1
    assert "trained on different corpora" in done.stderr
    assert "--corpus" in done.stderr
    named = companion("compare", str(runs["long"]), str(other), "--corpus", str(folder), "--json")
    assert named.returncode == 0, named.stderr
    assert json.loads(named.stdout)["measure"] == "bits_per_byte"


def test_different_splits_are_refused(runs: dict[str, Path], folder: Path) -> None:
    trained, corpus = pipeline.load_run(runs["long"], device="cpu"), load_corpus(folder)
    splits = [report.assess(trained, corpus, split) for split in ("valid", "test")]
    with pytest.raises(report.ComparisonError, match=r"\(valid\) and .* \(test\)"):
        report.compare(*splits)


def test_a_text_of_one_piece_has_no_interval_and_says_so(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "short.txt"
    path.write_text("".join(f"{i} red fish\n" for i in range(100)))
    done = companion("evaluate", str(runs["long"]), "--corpus", str(path), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nats_per_token_low"] is None
    assert "too short for an interval" in done.stderr
    compared = companion(
        "compare", str(runs["long"]), str(runs["short"]), "--corpus", str(path)
    )  # fmt: skip
    assert compared.returncode == 1
    assert "too short for an interval: it is one piece of less than 8 kB" in compared.stderr


def test_a_text_of_somebodys_own_is_measured_whole_or_it_is_said_that_it_is_not(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("".join(f"{i} red fish\n" for i in range(1000)))
    sizes = {}
    for split in ("train", "valid", "test", "all"):
        found = evaluate(runs["long"], "--corpus", str(path), "--split", split)
        assert found["split"] == split
        sizes[split] = found["bytes"]
    # The end tokens between the three parts are targets, but spell no bytes.
    assert sizes["all"] == sizes["train"] + sizes["valid"] + sizes["test"]
    assert sizes["all"] == pytest.approx(path.stat().st_size, abs=10)
    for command in (
        ["evaluate", str(runs["long"])],
        ["compare", *map(str, list(runs.values())[:2])],
    ):
        done = companion(*command, "--corpus", str(path))
        words = f"Measured on the test split of {path}; --split all measures all of it."
        assert words in done.stderr
        assert "Measured on" not in companion(*command, "--split", "test").stderr


def test_choosing_on_a_part_of_the_text_that_is_measured_is_said_aloud(
    runs: dict[str, Path],
) -> None:
    done = companion("evaluate", str(runs["long"]), "--split", "all", "--calibrate")
    assert "chose their settings on the text that is scored here" in done.stderr
