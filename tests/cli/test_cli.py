"""The command line as a user meets it: exit codes, one sentence a mistake, real signals.

Signals, and what is said of a mistake, are tried on real processes once; else see command_line.py.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from command_line import TERMINAL, companion

from companion import cli
from companion.runs.presets import PRESETS

SMALL = [
    "--preset", "char-small", "--device", "cpu", "--set", "model.hidden_size=16",
    "--set", "train.num_streams=4", "--set", "train.log_every=5",
]  # fmt: skip


def start(*arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "companion", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **TERMINAL},
    )  # fmt: skip


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "rhyme.txt"
    path.write_text("".join(f"{i % 7} green bottles standing on the wall\n" for i in range(300)))
    return path


@pytest.fixture(scope="module")
def run(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of forty steps, with a checkpoint half-way."""
    path = tmp_path_factory.mktemp("runs") / "a"
    done = companion(
        "train", "--corpus", str(text_file), "--out", str(path), "--set", "train.steps=40",
        "--set", "train.checkpoint_every=20", *SMALL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, _, _ = done.stderr.partition("Fitting the ")
    assert "Reading " in before
    assert re.search(r"  train +1 documents .* characters", before)
    assert "Cut into splits between lines." in before
    assert "Encoding the training text by " in done.stderr
    assert "40 of 40 steps" in done.stderr
    assert f"companion evaluate {path}" in done.stderr
    return path


def test_evaluate_prints_the_documented_names_as_json(run: Path) -> None:
    done = companion("evaluate", str(run), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {
        "nats_per_token", "perplexity", "bits_per_byte", "accuracy", "tokens", "bytes",
        "split", "corpus",
    } <= set(report)  # fmt: skip
    assert json.loads(Path(report["corpus_report"]).read_text())["sizes"]["train"]["documents"] == 1
    assert report["split"] == "test"
    assert 0 < report["macro_f1"] <= 1
    assert report["perplexity"] == pytest.approx(2.718281828 ** report["nats_per_token"], rel=1e-6)


def test_generate_continues_the_prompt_and_repeats_with_the_seed(run: Path) -> None:
    texts = [
        json.loads(
            companion("generate", str(run), "--prompt", "3 gre", "--seed", seed, "--json").stdout
        )["text"]
        for seed in ("1", "1", "2")
    ]
    assert texts[0].startswith("3 gre")
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    "command", [[], ["train"], ["evaluate"], ["generate"], ["corpora"], ["bench"]]
)
def test_help_teaches(command: list[str]) -> None:
    done = companion(*command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


COMMANDS = (
    "", "train", "evaluate", "compare", "generate", "chat", "tune", "export", "corpora", "presets",
    "bench", "study", "study list", "study run", "classify", "classify train",
    "classify evaluate", "classify predict",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_no_word_of_a_help_is_cut_in_a_terminal_of_80_columns(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TERMINAL, "COLUMNS", "80")
    done = companion(*command.split(), "--help")
    assert max(map(len, done.stdout.splitlines())) == 80
    assert "…" not in done.stdout


@pytest.mark.parametrize("option", [["--preset", "medium"], ["--seed", "5"], ["--no-prune"]])
def test_a_search_is_not_gone_on_with_by_another_option_which_is_named(
    option: list[str], tmp_path: Path
) -> None:
    known = {
        "format": "companion-search", "preset": "small", "seed": 0, "prune": True, "trials": 2,
        "corpus": "a", "corpus_fingerprint": "f", "space": ["model.dropout=0:0.5"],
    }  # fmt: skip
    (tmp_path / "tune.json").write_text(json.dumps(known))
    done = companion("tune", "--out", str(tmp_path), "--resume", *option)
    assert done.returncode == 1
    words = f"error: {' '.join(option)} differs from the search in {tmp_path}, which has "
    assert done.stderr.startswith(words)
    assert f"leave {option[0]} out" in done.stderr


def test_corpora_lists_and_looks(text_file: Path) -> None:
    listed = companion("corpora")
    assert "python-docs" in listed.stdout
    report = json.loads(companion("corpora", str(text_file), "--json").stdout)
    assert report["sizes"]["train"]["characters"] > report["sizes"]["valid"]["characters"] > 0


MISTAKES: dict[str, tuple[list[str], str]] = {
    "missing file": (["train", "--corpus", "no/such/file.txt", "--out", "x"], "no/such/file.txt"),
    "empty file": (["train", "--corpus", "empty.txt", "--out", "x"], "empty"),
    "binary file": (["train", "--corpus", "binary.bin", "--out", "x"], "not a text file"),
    "not UTF-8": (["train", "--corpus", "latin.txt", "--out", "x"], "not UTF-8"),
    "too short": (
        ["train", "--corpus", "short.txt", "--preset", "char-small", "--out", "x"], "too few for"
    ),
    "unknown corpus": (["train", "--corpus", "python-dosc", "--out", "x"], "did you mean python"),
    "unknown preset": (["train", "--preset", "smal", "--out", "x"], "Did you mean 'small'"),
    "unknown device": (["train", "--device", "tpu", "--out", "x"], "device must be one of"),
    "unknown setting": (["train", "--set", "train.epoch=2", "--out", "x"], "train.epoch"),
    "wrong value": (["train", "--set", "train.epochs=many", "--out", "x"], "got 'many'"),
    "setting without value": (["train", "--set", "epochs", "--out", "x"], "NAME=VALUE"),
    "setting given twice": (
        ["train", "--set", "threads=1", "--set", "threads=2", "--out", "x"],
        "--set threads is given twice, as 1 and 2; give one",
    ),
    "file for a folder": (["evaluate", "short.txt"], "run.json does not exist"),
    "no run to resume": (["train", "--resume", "--out", "x"], "no run at x"),
    "resume and overwrite": (["train", "--resume", "--overwrite", "--out", "x"], "exclude"),
    "no run to evaluate": (["evaluate", "x"], "no run at x"),
    "folder that is no run": (["evaluate", "."], "not a run of companion"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_a_failing_exit(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.bin").write_bytes(b"\x00\x01\x02")
    (tmp_path / "latin.txt").write_bytes("d\xe9j\xe0 vu\n".encode("latin-1") * 50)
    (tmp_path / "short.txt").write_text("".join(f"{i}\n" for i in range(12)))
    arguments, words = MISTAKES[name]
    before = sorted(path.name for path in tmp_path.iterdir())
    done = companion(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()  # before it, what was read so far
    assert last.startswith("error: ")
    assert words in last
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_unknown_option_is_refused() -> None:
    done = companion("train", "--out", "x", "--learning-rate", "1")
    assert done.returncode == 2
    assert "No such option" in done.stderr


def test_a_run_has_the_tokenizer_that_was_set_and_resuming_knows_it(
    text_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    chosen = ["--set", "tokenizer.kind=bpe", "--set", "tokenizer.vocabulary_size=270"]
    done = companion(
        "train", "--corpus", str(text_file), "--out", str(path), "--set", "train.steps=2", *SMALL,
        *chosen, "--set", "threads=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((path / "run.json").read_text(encoding="utf-8"))
    assert record["tokenizer"] == {"kind": "bpe", "vocabulary_size": 270}
    assert record["model"]["vocabulary_size"] == 270
    for setting, differs in (
        ("tokenizer.kind=bpe", False), ("tokenizer.vocabulary_size=270", False),
        ("threads=1", False), ("tokenizer.kind=byte", True), ("threads=2", True),
    ):  # fmt: skip
        done = companion("train", "--out", str(path), "--resume", "--set", setting)
        assert ("differs from the run in" in done.stderr) == differs, setting


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_shown_whole_with_what_each_setting_means(name: str) -> None:
    shown = companion("presets", name)
    settings = json.loads(companion("presets", name, "--json").stdout)["settings"]
    assert {"tokenizer.kind", "threads", "model.hidden_size", "train.learning_rate"} < set(settings)
    for setting, fields in settings.items():
        assert re.search(rf"(?m)^ *{re.escape(setting)} ", shown.stdout), setting
        assert fields["description"].split()[0] in shown.stdout
    wrong = companion("presets", "smal")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "Did you mean 'small'" in wrong.stderr


def test_an_existing_folder_is_refused_and_untouched(run: Path, text_file: Path) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in run.rglob("*"))
    done = companion("train", "--corpus", str(text_file), "--out", str(run), *SMALL)
    assert done.returncode == 1
    assert "--resume" in done.stderr
    assert sorted((path.name, path.stat().st_mtime_ns) for path in run.rglob("*")) == before


@pytest.mark.parametrize("name", ["w[", "[red]", "a b", ":x:"])
def test_a_path_is_printed_as_it_is_and_suggested_so_that_a_shell_takes_it(
    name: str, run: Path, text_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / ("long" * 40) / name / "red]"
    quoted = shlex.quote(str(path))
    done = companion(
        "train", "--corpus", str(text_file), "--out", str(path), "--set", "train.steps=2", *SMALL
    )
    assert done.returncode == 0, done.stderr
    assert f"\n  companion evaluate {quoted}\n" in done.stderr
    assert f"\n  companion generate {quoted} --prompt" in done.stderr
    done = companion("evaluate", str(path))
    assert done.returncode == 0, done.stderr
    assert "".join(str(path).split()) in "".join(done.stdout.split())  # a cell may be folded
    small = ["compress", str(path), "--method", "quantize", "--out", str(tmp_path / name)]
    done = companion(*small)
    assert f"\n  companion compare {quoted} {shlex.quote(str(tmp_path / name))}\n" in done.stderr
    done = companion("train", "--out", str(path), "--set", "train.steps=[bold]", "--resume")
    assert "[bold]" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["train", "--corpus", ""], ["train", "--preset", ""], ["evaluate", "--corpus", ""]],
)
def test_an_empty_name_is_not_the_default(
    arguments: list[str], run: Path, tmp_path: Path, text_file: Path
) -> None:
    (tmp_path / "a.txt").write_text(text_file.read_text())
    if arguments[0] == "evaluate":
        arguments = ["evaluate", str(run), *arguments[1:]]
    else:
        arguments = [*arguments, "--out", "x", "--set", "train.steps=2"]
    done = companion(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "unknown preset ''" in done.stderr or "an empty name is no corpus" in done.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "command",
    ["train", "tune", "classify train x.csv", "compress x --method quantize", "export x",
     "card x", "study run known_floor"],
)  # fmt: skip
def test_an_empty_out_is_not_the_working_folder(command: str, tmp_path: Path) -> None:
    done = companion(*command.split(), "--out", "", cwd=tmp_path)
    assert done.returncode == 2
    assert "give a name, not an empty text" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "already exists"), (["--budget", "0s"], "budget must be > 0"),
        (["--device", "tpu"], "device must be one of"),
    ],
)  # fmt: skip
def test_what_needs_no_text_is_refused_before_it_is_read(
    options: list[str], words: str, run: Path
) -> None:
    done = companion("train", "--corpus", "no/such/text", "--out", str(run), *options)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Reading" not in done.stderr


def test_resuming_with_another_setting_names_it(run: Path) -> None:
    for option in (["--seed", "5"], ["--preset", "small"], ["--set", "train.steps=80"]):
        done = companion("train", "--out", str(run), "--resume", *option)
        assert done.returncode == 1
        assert option[0] in done.stderr
        assert "differs from the run in" in done.stderr


@pytest.mark.parametrize(
    "setting", ["train.learning_rate=1e-2", "train.betas=0.90,.99", "train.steps=040"]
)
def test_resuming_with_the_same_setting_in_other_words_goes_on(run: Path, setting: str) -> None:
    done = companion("train", "--out", str(run), "--resume", "--set", setting)
    assert done.returncode == 0, done.stderr


def test_resuming_with_a_default_that_was_not_given_goes_on(
    text_file: Path, tmp_path: Path
) -> None:
    out = ("--out", str(tmp_path / "run"))
    word = ("--set", "tokenizer.kind=word")
    done = companion(
        "train", "--corpus", str(text_file), *out, "--set", "train.steps=2", *SMALL, *word
    )
    assert done.returncode == 0, done.stderr
    done = companion("train", *out, "--resume", "--set", "tokenizer.min_count=1")
    assert done.returncode == 0, done.stderr
    done = companion("train", *out, "--resume", "--set", "tokenizer.min_count=2")
    assert "differs from the run in" in done.stderr


def test_a_study_that_diverges_says_so_in_one_sentence() -> None:
    small = {"learning_rate": "1e30", "steps": "20", "batch_size": "8", "num_test": "10"}
    settings = [f"--set={name}={value}" for name, value in small.items()]
    done = companion("study", "run", "goal_misgeneralization", *settings, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "use a lower learning rate" in done.stderr


def test_a_finished_run_says_so_when_resumed(run: Path) -> None:
    done = companion("train", "--out", str(run), "--resume")
    assert done.returncode == 0
    assert "\nNothing is left to train: this run ended after 40 of 40 steps," in done.stderr
    assert "tokens/s" not in done.stderr


def test_a_text_that_is_gone_is_said_with_the_run_and_what_to_do(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    record = json.loads((copy / "run.json").read_text())
    assert Path(record["corpus"]).is_absolute()
    (copy / "run.json").write_text(json.dumps({**record, "corpus": "/no/such/text"}))
    for command in (["evaluate", str(copy)], ["train", "--resume", "--out", str(copy)]):
        done = companion(*command)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: run {copy} was trained on /no/such/text, and")
        assert done.stderr.endswith("give its text as corpus (on the command line: --corpus)\n")
        done = companion(*command, "--corpus", record["corpus"])
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        ("text.corpora", "load_corpus", "Stopped before training began: nothing was saved, and"),
        ("runs.pipeline", "save_tokenizer", "Stopped before training began: nothing was saved,"),
        ("runs.pipeline", "seed_everything", "Stopped: no step was saved; it begins at its start."),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_kill_before_the_first_step_say_so_and_leave_nothing_broken(
    module: str, name: str, words: str, number: signal.Signals, text_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def interrupted(*arguments: object, **options: object) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt  # the signal itself is ignored in a shell's background job
        signal.raise_signal(number)

    arguments = ["train", "--corpus", str(text_file), "--out", "run", *SMALL]
    arguments += ["--set", "train.steps=5"]
    monkeypatch.setattr(importlib.import_module(f"companion.{module}"), name, interrupted)
    done = companion(*arguments, cwd=tmp_path)
    monkeypatch.undo()
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert any(line.startswith(words) for line in done.stderr.splitlines())
    assert "begin again with the same command" in done.stderr or "--resume" in done.stderr
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if "--resume" in done.stderr:
        arguments = ["train", "--out", "run", "--resume"]
    done = companion(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5 of 5 steps" in done.stderr


@pytest.mark.parametrize(
    ("module", "name", "replaced"),
    [
        ("text.corpora", "load_corpus", False),
        ("runs.pipeline", "save_tokenizer", False),
        ("runs.pipeline", "seed_everything", True),
    ],
)
def test_ctrl_c_before_a_run_is_replaced_says_that_it_is_untouched(
    module: str, name: str, replaced: bool, text_file: Path, run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    copy = shutil.copytree(run, tmp_path / "copy")
    monkeypatch.setattr(importlib.import_module(f"companion.{module}"), name, interrupted)
    done = companion("train", "--corpus", str(text_file), "--out", str(copy), "--overwrite", *SMALL)
    assert done.returncode == 130
    untouched = "The earlier run is untouched; begin again with the same command." in done.stderr
    assert untouched != replaced
    assert ("--resume" in done.stderr) == replaced
    assert any((copy / "checkpoints").iterdir()) != replaced


@pytest.mark.parametrize("command", [["evaluate", "x"], ["tune", "--out", "x"]])
def test_ctrl_c_in_any_command_is_one_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("companion.runs.pipeline"), "load_run", interrupted)
    monkeypatch.setattr(
        importlib.import_module("companion.text.corpora"), "load_corpus", interrupted
    )
    done = companion(*command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith("Stopped")
    assert done.stderr.count("\n") == 1


def test_a_damaged_checkpoint_is_refused_in_one_sentence(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for weights in copy.glob("checkpoints/*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-7])
    done = companion("evaluate", str(copy))
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["evaluate", "generate"])
def test_a_damaged_optimizer_concerns_no_use_of_the_model(
    command: str, run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for optimizer in copy.glob("checkpoints/*/training.safetensors"):
        optimizer.write_bytes(b"")
    done = companion(command, str(copy))
    assert done.returncode == 0
    assert "damaged" not in done.stderr


def test_resuming_passes_a_damaged_checkpoint_over_aloud(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    expected = losses(copy)
    file = copy / "checkpoints" / "step-00000040" / "training.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    done = companion("train", "--out", str(copy), "--resume")
    assert done.returncode == 0, done.stderr
    assert "warning: checkpoint" in done.stderr
    assert re.search(r"going on from step-000000[23]\d instead", done.stderr)
    assert losses(copy) == expected


@pytest.mark.skipif(
    getattr(os, "geteuid", lambda: None)() != 0, reason="mounting a small disk takes root"
)
def test_a_full_disk_is_one_sentence_and_leaves_no_half_checkpoint(
    tmp_path: Path, text_file: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        done = companion(
            "train", "--corpus", str(text_file), "--out", str(disk / "run"),
            "--set", "train.steps=40", "--set", "train.checkpoint_every=5",
            *(each.replace("hidden_size=16", "hidden_size=48") for each in SMALL),
        )  # fmt: skip
        assert done.returncode == 1
        assert "the disk is full; what was saved before is untouched" in done.stderr
        assert not list((disk / "run" / "checkpoints").glob(".partial*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_mistake_in_a_process_of_its_own_is_one_sentence_too() -> None:
    process = start("train", "--preset", "smal", "--out", "x")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_kill_save_and_say_how_to_go_on(
    number: signal.Signals, text_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    process = start(
        "train", "--corpus", str(text_file), "--out", str(path), "--set", "train.steps=100000",
        *SMALL,
    )  # fmt: skip
    wait_for(path / "metrics.jsonl", process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"companion train --out {path} --resume" in stderr
    assert list(path.glob("checkpoints/step-*"))
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_a_run_killed_half_way_resumes_to_the_same_end(text_file: Path, tmp_path: Path) -> None:
    """Through the command line, once; many moments of death are tried in test_robustness.py."""
    arguments = ["train", "--corpus", str(text_file), *SMALL]
    arguments += ["--set", "train.steps=300", "--set", "train.checkpoint_every=20"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert companion(*arguments, "--out", str(whole)).returncode == 0

    process = start(*arguments, "--out", str(killed))
    wait_for(killed / "checkpoints" / "step-00000020", process)
    process.kill()
    process.communicate()
    assert not (killed / "checkpoints" / "step-00000300").exists()
    done = companion("train", "--out", str(killed), "--resume")
    assert done.returncode == 0, done.stderr

    assert losses(killed) == losses(whole)
    reports = [json.loads(companion("evaluate", str(p), "--json").stdout) for p in (whole, killed)]
    assert reports[0]["nats"] == reports[1]["nats"]


def losses(run: Path) -> list[tuple[Any, ...]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"], r["train_nats_per_token"], r.get("valid_nats_per_token")) for r in records]


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.005)


# --- output that cannot be encoded ---------------------------------------------------------------


@pytest.fixture(scope="module")
def snowmen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose text has signs that few encodings know."""
    folder = tmp_path_factory.mktemp("wide")
    text = folder / "text.txt"
    text.write_text("☃ 雪 🙂\n" * 900, encoding="utf-8")
    path = folder / "run"
    done = companion(
        "train", "--corpus", str(text), "--out", str(path), "--set", "train.steps=2", *SMALL
    )
    assert done.returncode == 0, done.stderr
    return path


def narrow(encoding: str, *arguments: str) -> tuple[object, str, str]:
    """The command with both outputs in `encoding`, as on Windows or in a pipe: exit code, outputs.

    A character that cannot be encoded raises where nothing is done about it.
    """
    outputs = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    with (
        mock.patch.dict(os.environ, TERMINAL),
        mock.patch.multiple(sys, stdout=outputs[0], stderr=outputs[1]),
        mock.patch.object(sys, "argv", ["companion", *arguments]),
        warnings.catch_warnings(),
    ):
        try:
            cli.main()
            code: object = 0
        except SystemExit as leave:
            code = leave.code or 0
    for output in outputs:
        output.flush()
    texts = [output.buffer.getvalue().decode(encoding) for output in outputs]  # type: ignore[attr-defined]
    return code, texts[0], texts[1]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_text_that_the_output_cannot_encode_is_replaced_and_not_lost(
    encoding: str, snowmen: Path
) -> None:
    prompt = ["--prompt", "雪☃", "--tokens", "9", "--device", "cpu"]
    code, text, errors = narrow(encoding, "generate", str(snowmen), *prompt)
    assert (code, errors) == (0, "")
    assert text.startswith("??")
    code, answer, errors = narrow(encoding, "generate", str(snowmen), *prompt, "--json")
    assert (code, errors) == (0, "")
    assert answer.isascii()
    assert json.loads(answer)["text"].startswith("雪☃")
    code, _, errors = narrow(encoding, "evaluate", str(snowmen / "雪"))
    assert code == 1
    assert errors.startswith("error: no run at ")
    assert "?" in errors


@pytest.mark.slow
def test_without_a_locale_a_prompt_is_read_and_its_text_is_printed(snowmen: Path) -> None:
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = [sys.executable, "-m", "companion", "generate", str(snowmen), "--prompt", "雪☃"]
    done = subprocess.run(
        process, capture_output=True, check=False, env={**os.environ, **TERMINAL, **bare}
    )
    # Nothing is said of unknown tokens: the bytes of the prompt were read as UTF-8.
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"??")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize(
    "command",
    [["--help"], ["train", "--help"], ["corpora"], ["presets"], ["presets", "small"],
     ["study", "list"]],
    ids=" ".join,
)  # fmt: skip
def test_every_list_can_be_printed_in_any_encoding(command: list[str], encoding: str) -> None:
    code, text, _ = narrow(encoding, *command)
    assert code == 0
    assert text.strip()


@pytest.mark.parametrize(
    "command", [["corpora"], ["presets"], ["presets", "small"], ["study", "list"]], ids=" ".join
)
def test_json_is_ascii(command: list[str]) -> None:
    done = companion(*command, "--json")
    assert done.stdout.isascii()
    json.loads(done.stdout)


# --- export --------------------------------------------------------------------------------------


def test_export_to_a_folder_that_is_not_there_is_one_sentence(run: Path, tmp_path: Path) -> None:
    done = companion("export", str(run), "--out", str(tmp_path / "no" / "a.pt2"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the folder of ")
    assert "does not exist; make it first" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_export_says_by_which_names_the_file_is_called(run: Path, tmp_path: Path) -> None:
    """The lines that it prints are run as they stand."""
    done = companion("export", str(run), "--out", str(tmp_path / "a.pt2"))
    assert done.returncode == 0, done.stderr
    load, call = (line.strip() for line in done.stderr.splitlines() if line.startswith("  "))
    shape = re.search(r"two tensors of shape \((\d+), B, (\d+)\)", done.stderr)
    assert shape is not None
    layers, hidden = map(int, shape.groups())
    names: dict[str, Any] = {
        "torch": torch,
        "inputs": torch.zeros(3, 1, dtype=torch.int64),
        "state": (torch.zeros(layers, 3, hidden), torch.zeros(layers, 3, hidden)),
    }
    exec(f"{load}\n{call}", names)
    assert names["logits"].shape[:2] == (3, 1)
    assert f"logits: shape (B, 1, {names['logits'].shape[2]})" in done.stderr


@pytest.mark.slow
def test_export_for_transformers_says_how_its_folder_is_loaded(run: Path, tmp_path: Path) -> None:
    """The lines that it prints are run as they stand."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "exported"
    done = companion("export", str(run), "--format", "transformers", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    names: dict[str, Any] = {name: getattr(transformers, name) for name in
                             ("AutoModelForCausalLM", "AutoTokenizer")}  # fmt: skip
    lines = [line.strip() for line in done.stderr.splitlines() if line.startswith("  ")]
    exec("\n".join(lines), names)
    ids = torch.tensor([[names["tokenizer"].bos_token_id]])
    assert names["model"](input_ids=ids).logits.shape[-1] == len(names["tokenizer"])


def test_an_unknown_format_and_an_option_of_another_are_one_sentence(
    run: Path, tmp_path: Path
) -> None:
    for options, words in (
        (("--format", "onnx"), "--format must be one of torch, transformers, got 'onnx'"),
        (("--format", "transformers", "--length", "3"), "--length is about --format torch"),
    ):
        done = companion("export", str(run), "--out", str(tmp_path / "a"), *options)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_version_is_the_package_s() -> None:
    from companion import __version__

    assert companion("--version").stdout.strip() == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
