"""The command line as a user meets it: exit codes, one sentence a mistake, real signals.

Signals, and what is said of a mistake, are tried on real processes once; else see command_line.py.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import TERMINAL, companion

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
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_unknown_option_is_refused() -> None:
    done = companion("train", "--out", "x", "--learning-rate", "1")
    assert done.returncode == 2
    assert "No such option" in done.stderr


def test_an_existing_folder_is_refused_and_untouched(run: Path, text_file: Path) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in run.rglob("*"))
    done = companion("train", "--corpus", str(text_file), "--out", str(run), *SMALL)
    assert done.returncode == 1
    assert "--resume" in done.stderr
    assert sorted((path.name, path.stat().st_mtime_ns) for path in run.rglob("*")) == before


def test_resuming_with_another_setting_names_it(run: Path) -> None:
    for option in (["--seed", "5"], ["--preset", "small"], ["--set", "train.steps=80"]):
        done = companion("train", "--out", str(run), "--resume", *option)
        assert done.returncode == 1
        assert option[0] in done.stderr
        assert "differs from the run being resumed" in done.stderr


@pytest.mark.parametrize(
    "setting", ["train.learning_rate=1e-2", "train.betas=0.90,.99", "train.steps=040"]
)
def test_resuming_with_the_same_setting_in_other_words_goes_on(run: Path, setting: str) -> None:
    done = companion("train", "--out", str(run), "--resume", "--set", setting)
    assert done.returncode == 0, done.stderr


def test_a_finished_run_says_so_when_resumed(run: Path) -> None:
    done = companion("train", "--out", str(run), "--resume")
    assert done.returncode == 0
    assert done.stderr.startswith("Nothing is left to train: this run ended after 40 of 40 steps,")
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
        assert done.stderr.endswith("name its text with --corpus\n")
        done = companion(*command, "--corpus", record["corpus"])
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        ("corpora", "load_corpus", "Stopped before training began: run holds no run"),
        ("pipeline", "save_tokenizer", "Stopped before training began: run holds no run"),
        ("pipeline", "seed_everything", "Stopped: no step was saved, it begins at its start."),
    ],
)
def test_ctrl_c_before_the_first_step_says_so_and_leaves_nothing_broken(
    module: str, name: str, words: str, text_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    arguments = ["train", "--corpus", str(text_file), "--out", "run", *SMALL]
    arguments += ["--set", "train.steps=5"]
    monkeypatch.setattr(importlib.import_module(f"companion.{module}"), name, interrupted)
    done = companion(*arguments, cwd=tmp_path)
    monkeypatch.undo()
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith(words)
    if "--resume" in done.stderr:
        arguments = ["train", "--out", "run", "--resume"]
    done = companion(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5 of 5 steps" in done.stderr


@pytest.mark.parametrize("command", [["evaluate", "x"], ["tune", "--out", "x"]])
def test_ctrl_c_in_any_command_is_one_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("companion.pipeline"), "load_run", interrupted)
    monkeypatch.setattr(importlib.import_module("companion.corpora"), "load_corpus", interrupted)
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


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
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
            "--set", "train.steps=40", "--set", "train.checkpoint_every=5", *SMALL,
            "--set", "model.hidden_size=48",
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
def test_ctrl_c_saves_and_says_how_to_go_on(text_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    process = start(
        "train", "--corpus", str(text_file), "--out", str(path), "--set", "train.steps=100000",
        *SMALL,
    )  # fmt: skip
    wait_for(path / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
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


def test_version_is_the_package_s() -> None:
    from companion import __version__

    assert companion("--version").stdout.strip() == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
