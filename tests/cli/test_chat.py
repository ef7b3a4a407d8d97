"""`companion chat` as a user meets it: piped turns, a terminal, JSON, and mistakes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from command_line import TERMINAL, Done, companion

from companion.world import dialogue_model
from companion.world.dialogue_model import DialogueModelConfig, train_dialogue_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps on a text of characters."""
    folder = tmp_path_factory.mktemp("chat")
    text = folder / "rhyme.txt"
    text.write_text("".join(f"{i % 7} green bottles on the wall ☃\n" for i in range(200)), "utf-8")
    done = companion(
        "train", "--corpus", str(text), "--out", str(folder / "a"), "--preset", "char-small",
        "--device", "cpu", "--set", "train.steps=10", "--set", "model.hidden_size=16",
        "--set", "train.num_streams=4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "a"


@pytest.fixture
def dialogue() -> object:
    """The dialogue model after twenty steps in place of the whole training."""
    config = DialogueModelConfig(hidden_size=16, embedding_size=8, steps=20, num_dialogues=50)
    model = train_dialogue_model(config, seed=0)
    return mock.patch.object(dialogue_model, "trained_dialogue_model", return_value=model)


class Terminal(io.StringIO):
    """A standard input that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def say(lines: str, *arguments: str, stdin: type[io.StringIO] = io.StringIO) -> Done:
    """The command, with `lines` as its standard input."""
    with mock.patch.object(sys, "stdin", stdin(lines)):
        return companion("chat", *arguments, "--device", "cpu")


def test_piped_turns_get_a_reply_each_and_the_same_ones_with_the_same_seed(run: Path) -> None:
    answers = [
        say("3 gre\n\n4 green\n", str(run), "--tokens", "7", "--json", "--seed", seed)
        for seed in ("0", "0", "1")
    ]
    turns = [[json.loads(line) for line in done.stdout.splitlines()] for done in answers]
    assert [each["user"] for each in turns[0]] == ["3 gre", "4 green"]
    assert [each["turn"] for each in turns[0]] == [1, 2]
    assert all(len(each["bot"]) == 7 for each in turns[0])  # characters are the tokens
    assert turns[0] == turns[1] != turns[2]
    assert all(done.returncode == 0 for done in answers)


def test_turns_are_lines_where_a_text_before_them_is_given(run: Path) -> None:
    done = say("green\nwall\n", str(run), "--user", "3 ", "--bot", "\\n4 ", "--temperature", "0")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split("\n")) == 3  # two replies of one line, and the last line feed


def test_a_terminal_is_asked_for_turns_until_the_end_of_input(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter(["3 green"])

    def typing(prompt: str) -> str:
        print(prompt, end="")
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typing)
    done = say("", str(run), "--tokens", "3", stdin=Terminal)
    assert done.returncode == 0
    assert "Ctrl-D ends the chat" in done.stderr
    assert done.stdout.startswith("you> bot> ")
    assert done.stdout.endswith("you> \n")


def test_no_turn_at_all_is_said_and_no_error(run: Path) -> None:
    done = say("\n  \n", str(run))
    assert (done.returncode, done.stdout) == (0, "")
    assert "Nothing was said." in done.stderr


def test_unknown_tokens_are_warned_of(run: Path) -> None:
    done = say("ÄÖ\n", str(run), "--tokens", "3")
    assert done.returncode == 0
    assert "tokens of this turn that never occur in the training text: 2" in done.stderr


def test_the_dialogue_model_is_judged_turn_by_turn(dialogue: mock._patch[object]) -> None:
    with dialogue:
        done = say("I want a glane, of cedar\nyes\n", "--dialogue", "--json")
        shown = say("I want a glane of cedar.\n", "--dialogue", "--check")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["user"] == "i want a glane , of cedar ."
    assert first["right"] == "which kind ?"  # a comma between slots is no sentence of the users
    assert {"bot", "judgement", "contradicts"} <= set(first)
    assert second["turn"] == 2
    assert "right is: a glane of cedar , which day ?" in shown.stdout
    assert "kind: glane, tweck" in shown.stderr


def test_a_wrong_device_is_refused_before_the_dialogue_model_is_trained() -> None:
    with mock.patch.object(dialogue_model, "trained_dialogue_model") as trained:
        done = companion("chat", "--dialogue", "--device", "gpu")
    assert "error: device must be one of" in done.stderr
    assert done.returncode == 1
    trained.assert_not_called()


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "chat takes the folder of a run, or --dialogue, and not both"),
    (["runs/a", "--dialogue"], "chat takes the folder of a run, or --dialogue, and not both"),
    (["--dialogue", "--user", "me: "], "--user and --bot are for a run"),
    (["nowhere", "--check"], "--check needs --dialogue"),
    (["nowhere"], "no run at nowhere"),
    (["nowhere", "--temperature", "-1"], "temperature must be >= 0, got -1.0"),
    (["nowhere", "--top-p", "2"], r"top_p must be in \(0, 1], got 2.0"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = say("hello\n", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message.replace("\\", "") in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--tokens", "0"], ["--seed", "-1"], ["--tokens", "many"]])
def test_a_number_out_of_range_is_a_usage_error(arguments: list[str]) -> None:
    assert say("", "nowhere", *arguments).returncode == 2


@pytest.mark.slow
def test_control_c_and_a_narrow_encoding_end_in_words_and_not_in_a_traceback(run: Path) -> None:
    command = [sys.executable, "-m", "companion", "chat", str(run), "--device", "cpu"]
    environment = {**os.environ, **TERMINAL, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, input="☃ green\n".encode(), capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
        # A process that was started in the background of a shell ignores it, and so would its own.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("green\n")
    process.stdin.flush()
    process.stdout.readline()  # the first reply: it has begun
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("Stopped.\n")
    assert "Traceback" not in errors
