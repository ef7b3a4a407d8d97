"""The runner of studies, and what each study measures."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import companion

from companion import studies
from companion.cli.console import pairs
from companion.core.files import FileError
from companion.core.seeds import make_generator
from companion.core.settings import setting_types
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.grammar import VOCABULARY
from companion.sources.reviews import GrammarSource
from companion.sources.streams import true_rows
from companion.studies import known_floor
from companion.training.config import TrainConfig
from tools import results, variants


@pytest.fixture(scope="module")
def source() -> GrammarSource:
    return GrammarSource()


def quick() -> known_floor.Config:
    return known_floor.Config(
        model=LSTMConfig(vocabulary_size=len(VOCABULARY), embedding_size=8, hidden_size=16),
        training=TrainConfig(steps=32, num_streams=16, learning_rate=1e-2),
        test_tokens=1600,
        curve_length=50,
        ngram_orders=(1, 2),
    )


def test_a_uniform_model_pays_the_log_of_the_vocabulary_less_the_entropy(
    source: GrammarSource,
) -> None:
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=source.vocabulary_size, hidden_size=8))
    torch.nn.init.zeros_(model.output.weight)
    rows = true_rows(source, 16, 2000, make_generator(1))
    kl, illegal = known_floor.measure(model, source, rows)
    # Only prefixes are sampled: 32,000 positions place the mean entropy of a row within about .01.
    expected = math.log(source.vocabulary_size) - source.entropy_rate()
    assert float(kl.mean()) == pytest.approx(expected, abs=0.03)
    legal = (source.transition_probs[source.walk(rows[:, 1:])] > 0).double().mean()
    assert float(illegal.mean()) == pytest.approx(1 - float(legal), abs=1e-6)


def test_the_divergence_is_that_of_the_difference_of_losses(source: GrammarSource) -> None:
    """Exact next-token KL and the plain loss minus the floor agree, within the latter's noise."""
    torch.manual_seed(0)
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=source.vocabulary_size, hidden_size=8))
    rows = true_rows(source, 16, 2000, make_generator(2))
    kl, _ = known_floor.measure(model, source, rows)
    with torch.no_grad():
        log_q = torch.log_softmax(model(rows[:, :-1])[0].double(), dim=-1)
    taken = log_q.gather(-1, rows[:, 1:, None]).squeeze(-1)
    truth = torch.stack([source.nats(row[1:]) for row in rows])
    difference = -taken - truth
    noise = float(difference.std()) / math.sqrt(difference.numel())
    # Four standard errors; neighbouring positions are nearly independent given the prefix.
    assert float(kl.mean()) == pytest.approx(float(difference.mean()), abs=4 * noise)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A quick study with two seeds, and the file it was stored in."""
    out = tmp_path_factory.mktemp("report") / "report.json"
    return studies.run_study("known_floor", [0, 1], config=quick(), out=out), out


@pytest.mark.slow
def test_known_floor_learns_and_repeats_with_its_seed(report: tuple[dict[str, Any], Path]) -> None:
    with studies.one_thread():  # as run_study does: two threads add up in another order
        again = known_floor.run(quick(), seed=0)
    zero, one = ({**result} for result in report[0]["results"])
    for name, value in dataclasses.asdict(again).items():
        assert zero[name] == value, name
    assert zero["kl_nats_per_token"] != one["kl_nats_per_token"]
    assert again.kl_nats_per_token == again.curve_kl_nats_per_token[-1]
    assert again.curve_steps == [1, 2, 4, 8, 16, 32]
    assert again.curve_kl_nats_per_token[-1] < again.curve_kl_nats_per_token[0]
    assert 0 < again.ngram_kl_nats_per_token["2"] < again.ngram_kl_nats_per_token["1"]
    assert 0 < again.illegal_mass_per_token < 1


@pytest.mark.slow
def test_a_report_has_the_documented_fields_and_is_stored(
    report: tuple[dict[str, Any], Path],
) -> None:
    found, out = report
    assert json.loads(out.read_text()) == json.loads(json.dumps(found))
    assert list(found) == ["study", "config", "environment", "seeds", "results"]
    assert found["config"]["training"]["steps"] == 32
    for result in found["results"]:
        assert result["cpu_seconds"] > 0
        assert {"kl_nats_per_token", "entropy_nats_per_token"} <= set(result)
    figures = studies.spread(found["results"])["kl_nats_per_token"]
    assert figures["min"] <= figures["mean"] <= figures["max"]


def test_an_existing_report_is_refused_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    out.write_text("mine")
    with pytest.raises(FileError, match="already exists"):
        studies.run_study("known_floor", [0], config=quick(), out=out)
    assert out.read_text() == "mine"


def test_wrong_requests_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown study 'flor'; the studies are .*known_floor"):
        studies.run_study("flor", [0])
    with pytest.raises(ValueError, match="different numbers"):
        studies.run_study("known_floor", [1, 1])
    with pytest.raises(FileError, match=r"folder of .* does not exist"):
        studies.run_study("known_floor", [0], out=tmp_path / "no" / "report.json")


class Instant:
    """A study that counts its runs, and that Ctrl-C stops in the third."""

    @dataclasses.dataclass(frozen=True)
    class Config:
        pass

    @dataclasses.dataclass(frozen=True)
    class Result:
        one: int = 1

    def __init__(self) -> None:
        self.runs = 0

    def run(self, *_: object, **__: object) -> Any:
        self.runs += 1
        if self.runs == 3:
            raise KeyboardInterrupt
        return self.Result()


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> Instant:
    study = Instant()
    monkeypatch.setattr(studies.runner, "load_study", lambda name: study)
    return study


def test_what_cannot_be_written_or_seeded_is_refused_before_the_first_seed_runs(
    instant: Instant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seeds in ([0, -1], [0, 2**32]):
        with pytest.raises(ValueError, match=r"seed must be between 0 and 2\*\*32 - 1, got"):
            studies.run_study("instant", seeds)

    def unwritable(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "touch", unwritable)  # root may write anywhere
    with pytest.raises(FileError, match=f"cannot write to {re.escape(str(tmp_path))}: Permission"):
        studies.run_study("instant", [0], out=tmp_path / "x.json")
    assert instant.runs == 0
    monkeypatch.undo()


def test_a_report_that_cannot_be_written_later_is_one_error(
    instant: Instant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(studies.runner, "write_json", full)
    with pytest.raises(FileError, match=r"x\.json: the disk is full"):
        studies.run_study("instant", [0], out=tmp_path / "x.json")


def test_ctrl_c_in_a_study_says_which_file_holds_the_seeds_that_are_done(
    instant: Instant, tmp_path: Path
) -> None:
    out = tmp_path / "[x].json"
    done = companion("study", "run", "instant", "--seeds", "0,1,2", "--out", str(out))
    assert done.returncode == 130
    assert done.stderr.endswith(f"Stopped; {out} holds the seeds that were finished.\n")
    assert len(json.loads(out.read_text())["results"]) == 2
    instant.runs = 2
    done = companion("study", "run", "instant", "--out", str(tmp_path / "y.json"))
    assert done.stderr == "Stopped.\n"


#: Whole numbers of the studies' settings that may be 0.
MAY_BE_ZERO = {"plain_only", "few_texts", "matched", "grammar_depth", "unfreeze_every"}


@pytest.mark.parametrize("name", studies.study_names())
def test_a_setting_that_cannot_be_is_refused_before_the_study_runs(name: str) -> None:
    accepted = []
    for setting, declared in setting_types(studies.load_study(name).Config).items():
        last = setting.rpartition(".")[2]
        wrong = {int: ["-1"] + ["0"] * (last not in MAY_BE_ZERO), float: ["nan"]}
        for text in wrong.get(declared, []):
            try:
                studies.configured(name, {setting: text})
            except ValueError:
                continue
            accepted.append(f"{setting}={text}")
    assert accepted == []


def test_a_study_without_a_policy_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="moved_shares must be one share or more"):
        studies.configured("goal_misgeneralization", {"moved_shares": ""})


def test_every_study_has_the_same_face() -> None:
    for name in studies.study_names():
        study = studies.load_study(name)
        assert callable(study.run)
        assert study.Config()
        assert re.match(r"[A-Z].*\?$", (study.__doc__ or "").splitlines()[0]), (
            "a study asks a question"
        )
        assert all(
            field.type in ("float", "int", "list[int]", "list[float]")
            or "dict[str, " in str(field.type)
            for field in study.Result.__dataclass_fields__.values()
        )


def test_the_command_line_lists_studies_and_refuses_bad_seeds() -> None:
    assert "known_floor" in companion("study", "list").stdout
    done = companion("study", "run", "known_floor", "--seeds", "0,x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "--seeds takes numbers" in done.stderr


# --- stored measurements -------------------------------------------------------------------------

STORED = sorted(path.stem for path in (Path(__file__).parents[2] / "book/results").glob("*.json"))


@pytest.mark.parametrize("name", STORED)
def test_a_stored_measurement_says_how_where_and_at_which_commit_it_was_made(name: str) -> None:
    report = studies.stored_report(name)
    assert re.fullmatch(r"(companion|make) .*", report["command"])
    for part in report["measured"]:
        assert re.fullmatch(r"[0-9a-f]{40}", part["commit"])  # and not "with changes"
        assert part["environment"]["torch"]
        assert part["environment"]["torch_threads"] >= 1
        assert part["seeds"]
    seeds = [s for part in report["measured"] if "variant" not in part for s in part["seeds"]]
    assert sorted(seeds) == report["seeds"]
    other = [
        (part["variant"], seed)
        for part in report["measured"]
        if "variant" in part
        for seed in part["seeds"]
    ]
    elsewhere = report.get("elsewhere", [])
    assert other == [(result["variant"], result["seed"]) for result in elsewhere]
    assert {variant for variant, _ in other} <= set(variants.VARIANTS)


@pytest.mark.parametrize("name", sorted(set(results.MEASUREMENTS) - results.SPEED - results.REAL))
def test_a_stored_measurement_has_five_seeds_and_another_processors_rounding(name: str) -> None:
    report = studies.stored_report(name)
    assert len(report["seeds"]) >= 5
    own, *others = [part["environment"]["cpu_capability"] for part in report["measured"]]
    assert others
    assert own not in others[-1:]
    assert {result["seed"] for result in report["elsewhere"]} <= set(report["seeds"])


def test_no_name_is_measured_twice_and_an_unknown_one_stops_before_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not results.MEASUREMENTS.keys() & results.measured_chapters().keys()
    measured: list[str] = []
    monkeypatch.setattr(results, "measure", measured.append)
    monkeypatch.setattr(sys, "argv", ["results", "known_floor", "nonsense"])
    with pytest.raises(SystemExit, match="nothing is measured under the name 'nonsense'; there"):
        results.main()
    assert not measured


def test_a_measurement_that_fails_stops_no_other_and_changes_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measure(name: str) -> dict[str, str]:
        if name == "coverage":
            raise subprocess.CalledProcessError(1, "companion")
        return {"of": name}

    monkeypatch.setattr(results, "measure", measure)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["results", "coverage", "shortcut"])
    monkeypatch.setattr(results, "measured_chapters", dict)
    with pytest.raises(SystemExit, match="not measured, and left as they were: coverage"):
        results.main()
    assert [path.name for path in tmp_path.iterdir()] == ["shortcut.json"]


def as_far_as_stored(stored: Any, now: Any) -> Any:
    """`now` without the fields, at any depth, that came after `stored` was."""
    if not isinstance(stored, dict) or not isinstance(now, dict):
        return now
    return {field: as_far_as_stored(stored[field], now[field]) for field in stored}


@pytest.mark.parametrize("name", sorted(results.MEASUREMENTS))
def test_a_stored_measurement_is_that_of_its_command_and_of_the_studys_settings(name: str) -> None:
    """Whoever changes a default has to measure again; a field that came later is not compared."""
    command = shlex.split(results.MEASUREMENTS[name])
    assert command[:2] == ["study", "run"]
    report = studies.stored_report(name)
    assert shlex.split(report["command"]) == ["companion", *command]
    options = list(zip(command[3::2], command[4::2], strict=True))
    assert {option for option, _ in options} <= {"--seeds", "--set"}
    (seeds,) = (value for option, value in options if option == "--seeds")
    assert report["seeds"] == [int(seed) for seed in seeds.split(",")]
    assert [result["seed"] for result in report["results"]] == report["seeds"]
    settings = pairs([value for option, value in options if option == "--set"])
    config = json.loads(json.dumps(dataclasses.asdict(studies.configured(command[2], settings))))
    assert report["config"] == as_far_as_stored(report["config"], config)


@pytest.mark.parametrize(
    "name",
    sorted(
        n for n, c in results.MEASUREMENTS.items() if "--set" not in c and n not in results.REAL
    ),
)
def test_a_study_that_a_chapter_may_run_takes_at_most_ninety_seconds(name: str) -> None:
    """Of a core of its own: two threads that share a core, or its caches, take up to twice as
    long, so a measurement on a machine that had more to do than cores may take twice as many."""
    report = studies.stored_report(name)
    busy = report["measured"][0].get("load_average", 0) > 2
    assert max(run["cpu_seconds"] for run in report["results"]) <= (180 if busy else 90)


def test_a_measurement_that_was_not_stored_is_an_error() -> None:
    with pytest.raises(ValueError, match="no stored measurement is called 'luck'"):
        studies.stored_report("luck")


def test_the_published_race_is_as_far_apart_as_the_book_says() -> None:
    """At equal CPU time; and what the usual recipe reaches in 600 s, ours does in 60."""
    (result,) = studies.stored_report("speed_to_quality")["results"]
    ours, usual = result["perplexity"], result["usual_perplexity"]
    assert result["valid_tokens"] == 217_646  # the whole validation text
    assert ours["120"] < usual["120"] / 5
    assert ours["600"] < 150
    assert ours["60"] < usual["600"]
    assert all(used <= 1.05 * float(budget) for budget, used in result["cpu_seconds_used"].items())


def test_the_published_chunked_loss_is_as_quick_and_small_as_the_book_says() -> None:
    for result in studies.stored_report("large_vocabulary")["results"]:
        assert result["speed_ratio"]["chunked"] > 1.15
        assert result["memory_ratio"]["chunked"] < 1 / 3
