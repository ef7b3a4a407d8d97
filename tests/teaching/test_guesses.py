"""Guesses: what is kept, what is refused, and what is printed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from companion.teaching import Guesses


@pytest.fixture
def guesses() -> Guesses:
    made = Guesses()
    made["gain"] = 2.5
    return made


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("guess", "truth", "line"),
    [
        (2.5, 0.612, "You guessed 2.5; it is 0.61."),
        (3, 1.2, "You guessed 3; it is 1.20."),
        (0.125, 7, "You guessed 0.125; it is 7."),
        (True, False, "You guessed True; it is False."),
        ("top-k", "top-p 0.9", "You guessed top-k; it is top-p 0.9."),
        ([1, 2.5], (0.1234, 3), "You guessed 1, 2.5; it is 0.12, 3."),
        (("plain", "prefill"), ["plain"], "You guessed plain, prefill; it is plain."),
        (None, 0.612, "You have not guessed yet; it is 0.61."),
        (..., 0.612, "You have not guessed yet; it is 0.61."),
        (1.0, torch.tensor(0.612), "You guessed 1; it is 0.61."),
        (1.0, np.float32(0.612), "You guessed 1; it is 0.61."),
        (1, np.array([0.612, -0.001]), "You guessed 1; it is 0.61, 0.00."),
        (1.0, [torch.tensor(0.612), 2], "You guessed 1; it is 0.61, 2."),
        ("two\n  lines", "one", "You guessed two lines; it is one."),
    ],
)
def test_a_guess_is_shown_beside_the_truth(
    capsys: pytest.CaptureFixture[str], guess: Any, truth: Any, line: str
) -> None:
    made = Guesses()
    made["key"] = guess
    assert made.reveal("key", truth) is None  # type: ignore[func-returns-value]
    assert printed(capsys) == line + "\n"


def test_digits_are_those_after_the_point_of_the_truth(
    capsys: pytest.CaptureFixture[str], guesses: Guesses
) -> None:
    guesses.reveal("gain", 95.7, digits=0)
    guesses.reveal("gain", 0.00049, digits=4)
    assert printed(capsys) == "You guessed 2.5; it is 96.\nYou guessed 2.5; it is 0.0005.\n"


def test_a_long_guess_takes_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    guesses = Guesses()
    guesses["key"] = "a" * 40
    guesses.reveal("key", "b" * 40)
    assert printed(capsys) == f"You guessed {'a' * 40};\nit is {'b' * 40}.\n"


def test_a_guess_that_is_entered_again_replaces_the_first(
    capsys: pytest.CaptureFixture[str], guesses: Guesses
) -> None:
    guesses["gain"] = 1
    assert guesses["gain"] == 1
    guesses.reveal("gain", 2)
    assert printed(capsys) == "You guessed 1; it is 2.\n"


@pytest.mark.parametrize("value", [{"a": 1}, {1}, 1j, object(), [1, None], [], torch.ones(2), b"a"])
def test_a_guess_of_another_kind_is_refused(guesses: Guesses, value: Any) -> None:
    with pytest.raises(ValueError, match=r"a guess is a string, .*guesses\['gain'\] got"):
        guesses["gain"] = value
    assert guesses["gain"] == 2.5


@pytest.mark.parametrize("key", [1, "", " gain", "two\nlines", "a" * 25, 'a"b', ("a", "b")])
def test_a_key_that_is_no_short_word_is_refused(guesses: Guesses, key: Any) -> None:
    with pytest.raises(ValueError, match="the key of a guess is a short word"):
        guesses[key] = 1


def test_an_unknown_key_is_refused_and_near_ones_are_named(guesses: Guesses) -> None:
    with pytest.raises(ValueError, match=r"no guess is called .gian.; did you mean .gain.\?"):
        guesses.reveal("gian", 1)
    with pytest.raises(ValueError, match="run the cell above that enters it"):
        guesses.reveal("entropy", 1)
    with pytest.raises(ValueError, match="no guess is called 'gian'"):
        guesses["gian"]


@pytest.mark.parametrize("digits", [-1, True])
def test_digits_are_a_whole_number(guesses: Guesses, digits: Any) -> None:
    with pytest.raises(ValueError, match="digits must be a whole number >= 0"):
        guesses.reveal("gain", 1.0, digits=digits)


def test_a_truth_of_another_kind_is_refused(guesses: Guesses) -> None:
    with pytest.raises(ValueError, match=r"what is revealed is a string, .*got dict"):
        guesses.reveal("gain", {"a": 1})


def test_the_table_has_a_line_for_each_guess(capsys: pytest.CaptureFixture[str]) -> None:
    guesses = Guesses()
    guesses.table()
    assert printed(capsys) == "No guess has been entered.\n"
    guesses["gain"] = 2.5
    guesses["best decoder"] = "top-k"
    guesses["peak"] = ...
    guesses.reveal("gain", 0.612)
    guesses.reveal("peak", 3)
    printed(capsys)
    guesses.table()
    assert printed(capsys).splitlines() == [
        "key           your guess  truth",
        "gain          2.5         0.61",
        "best decoder  top-k       not yet",
        "peak          no guess    3",
    ]


def test_no_line_of_the_table_is_wider_than_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    guesses = Guesses()
    guesses["k" * 24] = "word " * 12
    guesses.reveal("k" * 24, "w" * 60)
    printed(capsys)
    guesses.table()
    lines = printed(capsys).splitlines()
    assert max(map(len, lines)) == 76
    assert sum(line.count("w") for line in lines) == 60 + 12
