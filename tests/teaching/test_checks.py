"""What the checks of exercises accept, what they say, and that no answer can break them."""

from __future__ import annotations

import re
import signal
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from companion.teaching.checks import (
    CHARACTERS,
    CORRECT,
    NOT_ANSWERED,
    Mistake,
    check,
    check_exercise,
    check_function,
    check_gradient,
    check_sampler,
    check_shape,
    partial_points,
)
from companion.teaching.exercises import EXERCISES, Exercise
from companion.teaching.limits import time_limit


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (2, 2.0),
        (np.float32(0.5), 0.5),
        (torch.tensor(0.5), 0.5),
        (Fraction(1, 2), 0.5),
        (float("inf"), float("inf")),
        (float("nan"), float("nan")),
        (np.bool_(True), True),
        ("forward", "forward"),
        ([1, 2], np.array([1.0, 2.0])),
        (torch.tensor([1.0, 2.0], requires_grad=True), np.array([1, 2])),
        (np.array([1, 2]), torch.tensor([1, 2])),
        (torch.tensor([[1, 2]]), [[1, 2]]),
        ((1, "a"), [1, "a"]),
        ({"a": np.array([1.0]), "b": {1}}, {"b": {1}, "a": [1]}),
    ],
)
def test_the_same_value_is_correct_in_any_clothes(
    answer: Any, expected: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(answer, expected)
    assert capsys.readouterr().out == f"{CORRECT}\n"


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (2.5, 2.0, "2.5 is too large"),
        (1, 2.0, "1 is too small"),
        (True, 1, "a number is asked for, got True"),
        (1, True, "True or False is asked for, got 1"),
        ("2", 2, "a number is asked for, got '2'"),
        (float("nan"), 2, "got nan"),
        (2, "two", "a string is asked for, got 2"),
        ("tow", "two", "got 'tow'"),
        ([1, 2, 3], np.array([1, 2]), "shape (2,) is asked for, got (3,)"),
        (np.array([1.0, 9.0]), np.array([1.0, 2.0]), "1 of 2 entries are wrong, first [1], got 9"),
        (torch.eye(2), np.zeros((2, 2)), "2 of 4 entries are wrong, first [(0, 0)], got 1"),
        (np.array([1, 0]), np.array([True, False]), "True and False are asked for"),
        (7, np.zeros(2), "numbers of shape (2,) are asked for, got 7"),
        ([[1], [1, 2]], np.zeros((2, 2)), "cannot be compared"),
        ([1, 2], [1, 3], "at [1] 2 is too small"),
        ([1], [1, 3], "2 items are asked for, got 1"),
        ("ab", ["a", "b"], "a list is asked for, got 'ab'"),
        ({"a": 1}, {"a": 2}, "at ['a'] 1 is too small"),
        ({"a": 1}, {"b": 1}, "1 missing and 1 too many keys, such as 'a'"),
        ([1], {"b": 1}, "a dictionary is asked for"),
        ({1, 2}, {1, 3}, "1 missing and 1 too many in the set"),
        ([1], {1}, "a set is asked for"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(
    answer: Any, expected: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not check(answer, expected, hint="think again")
    printed = capsys.readouterr().out
    assert words in printed
    assert printed.startswith("Not yet: ")
    assert printed.endswith(" Hint: think again\n")


def test_a_wrong_number_is_not_told_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    check(1.0, 1.3863)
    check([0.1, 0.2], np.array([0.1, 0.9187]))
    check("x", "perplexity")
    check({"y": 1}, {"perplexity": 1})
    check({}, {"perplexity": 1})
    printed = capsys.readouterr().out
    assert not any(secret in printed for secret in ("1.38", "0.91", "perplexity"))


@pytest.mark.parametrize("answer", [None, ...])
def test_no_answer_is_not_a_wrong_one(answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert not check(answer, 3, hint="a hint would be too early")
    assert capsys.readouterr().out == f"{NOT_ANSWERED}\n"


def test_the_tolerance_is_absolute_and_inclusive() -> None:
    assert check(1000.5, 1000.0, tolerance=0.5)
    assert not check(1000.6, 1000.0, tolerance=0.5)
    assert check([1000.5, 0.5], np.array([1000.0, 0.0]), tolerance=0.5)
    assert not check([1000.6, 0.0], np.array([1000.0, 0.0]), tolerance=0.5)
    with pytest.raises(ValueError, match="tolerance must be >= 0, got -1"):
        check(1, 1, tolerance=-1)


class Hostile:
    """An answer that raises whatever is asked of it."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("expected", [1, "a", True, [1], {"a": 1}, {1}, np.ones(2), object()])
def test_no_answer_whatever_raises(expected: Any) -> None:
    answers = [Hostile(), [Hostile()], object(), np.array([None, "a"]), torch.ones(3), {}, print]
    assert not any(check(answer, expected) for answer in answers)


def test_require_raises_with_the_same_words_unless_right() -> None:
    assert check(1, 1, require=True)
    with pytest.raises(AssertionError, match=r"Not yet: 2 is too large\. Hint: halve it"):
        check(2, 1, hint="halve it", require=True)
    with pytest.raises(AssertionError, match=NOT_ANSWERED):
        check(None, 1, require=True)
    with pytest.raises(AssertionError, match="raised ZeroDivisionError"):
        check_function(lambda x: x / 0, lambda x: x, [1], require=True)


def test_a_notebook_shows_the_words_of_a_check_and_nothing_else() -> None:
    from IPython.core.formatters import DisplayFormatter

    # What a kernel sends as the result of the cell; it sends nothing when this is empty.
    assert DisplayFormatter().format(check(1, 1)) == ({}, {})
    assert repr((check(1, 1), check(2, 1))) == "(True, False)"


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_a_function_that_agrees_in_all_cases_is_correct(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_function(lambda values: np.mean(values), mean, [[1.0, 2.0], [5.0]])
    assert check_function(pow, lambda base, power: base**power, [(2, 3), (3, 2)])
    assert capsys.readouterr().out == f"{CORRECT}\n" * 2


def test_the_first_case_that_differs_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def my_mean(values: list[float]) -> float:
        return sum(values) / 2

    assert not check_function(my_mean, mean, [[1.0, 2.0], [3.0]], hint="count them")
    assert capsys.readouterr().out == (
        "Not yet: for my_mean([3.0]): 1.5 is too small. Hint: count them\n"
    )
    assert not check_function(lambda x: x[9], mean, [[1.0]])
    assert "raised IndexError: list index out of range" in capsys.readouterr().out
    assert not check_function(3, mean, [[1.0]])
    assert "a function is asked for, got 3" in capsys.readouterr().out


def test_a_function_that_is_not_written_is_not_answered(capsys: pytest.CaptureFixture[str]) -> None:
    def to_do(values: list[float]) -> float:
        raise NotImplementedError

    assert not check_function(None, mean, [[1.0]])
    assert not check_function(lambda values: None, mean, [[1.0]])
    assert not check_function(to_do, mean, [[1.0]])
    assert capsys.readouterr().out == f"{NOT_ANSWERED}\n" * 3


def test_a_function_that_changes_its_argument_cannot_spoil_the_next() -> None:
    def sorts_in_place(values: list[float]) -> float:
        values.sort()
        return values[0]

    case = [3.0, 1.0]
    assert not check_function(sorts_in_place, lambda values: values[0], [case])
    assert case == [3.0, 1.0]


def test_no_case_is_the_authors_mistake() -> None:
    with pytest.raises(ValueError, match="one case or more"):
        check_function(mean, mean, [])


def test_an_exercise_is_checked_with_its_own_answer_tolerance_and_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exercise = Exercise(expected=1.0, tolerance=0.1, hint="count again")
    monkeypatch.setitem(EXERCISES, "ex-x", exercise)
    assert check_exercise("ex-x", 1.05)
    assert not check_exercise("ex-x", 1.2)
    assert not check_exercise("ex-x", None)
    right, wrong, open_ = capsys.readouterr().out.splitlines()
    assert (right, open_) == (CORRECT, NOT_ANSWERED)
    assert wrong == "Not yet: 1.2 is too large. Hint: count again"


def test_every_exercise_has_one_kind_of_answer() -> None:
    for exercise in EXERCISES.values():
        kinds = (exercise.expected, exercise.computed, exercise.reference)
        assert sum(kind is not None for kind in kinds) == 1


def test_an_answer_that_the_run_decides_is_computed_from_what_is_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = torch.tensor([3, 5, 100]), torch.tensor([False, False, True])
    assert check_exercise("ex-gen-filter", 4.0, *given)
    assert not check_exercise("ex-gen-filter", 36.0, *given)
    assert not check_exercise("ex-gen-filter", None, "nothing is computed for no answer")
    right, wrong, open_ = capsys.readouterr().out.splitlines()
    assert (right, open_) == (CORRECT, NOT_ANSWERED)
    assert "judge gave wrong and lengths" in wrong


def test_an_answer_that_is_a_function_is_tried_on_the_cases() -> None:
    cases = [([("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")], {("b", "y")})]

    def all_held_out(pairs: list[Any], held_out: set[Any]) -> tuple[list[Any], list[Any]]:
        return [p for p in pairs if p not in held_out], sorted(held_out)

    assert check_exercise("ex-lc-split", all_held_out, cases)  # right in this case
    alone = [([("a", "x"), ("b", "y")], {("b", "y")})]  # b and y are in no other pair
    assert not check_exercise("ex-lc-split", all_held_out, alone)
    assert not check_exercise("ex-lc-split", lambda pairs, held_out: None, cases)
    half = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    kept = torch.tensor([4 / 7, 3 / 7, 0, 0])
    assert check_exercise("ex-gen-min-p", lambda z, share: kept, [(half, 0.6)])


def test_an_unknown_exercise_is_named_with_the_one_that_may_be_meant() -> None:
    with pytest.raises(ValueError, match="no exercise is called 'ex-lm-by-hnd'; did you mean 'ex-"):
        check_exercise("ex-lm-by-hnd", 1)


# --- tolerances, and what messages show ----------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "right", "wrong"),
    [
        (torch.bfloat16, 1e-2, 5e-2),
        (torch.float16, 5e-4, 5e-3),
        (torch.float32, 1e-6, 1e-4),
        (torch.float64, 1e-8, 1e-6),
    ],
)
def test_without_a_tolerance_the_dtype_decides(
    dtype: torch.dtype, right: float, wrong: float
) -> None:
    truth = torch.tensor([100.0, 3.0], dtype=torch.float64)
    assert check((truth * (1 + right)).to(dtype), truth)
    assert not check((truth * (1 + wrong)).to(dtype), truth)


def test_a_right_float32_cross_entropy_is_right_as_a_python_number() -> None:
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 3, 6, 2])

    def loss(dtype: torch.dtype) -> float:
        return float(torch.nn.functional.cross_entropy(logits.to(dtype), targets))

    assert loss(torch.float32) != loss(torch.float64)
    assert check_function(lambda: loss(torch.float32), lambda: loss(torch.float64), [()])
    assert not check(3, 2)  # whole numbers have no tolerance


@pytest.mark.parametrize("answer", [1.0000001, 1 + 1e-12, np.nextafter(1, 2)])
def test_a_message_never_shows_the_number_that_is_expected(
    answer: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not check(answer, 1.0, tolerance=0)
    assert not check([1.0, answer], np.ones(2), tolerance=0)
    shown = re.findall(r"(?:: |got )([\d.]+)(?: is|\.$)", capsys.readouterr().out, re.MULTILINE)
    assert len(shown) == 2
    assert [float(each) == 1.0 for each in shown] == [False, False]


def test_long_strings_say_where_they_differ(capsys: pytest.CaptureFixture[str]) -> None:
    assert not check("a" * 90 + "b", "a" * 91)
    assert "differs from character 90 on" in capsys.readouterr().out


# --- code that is tried --------------------------------------------------------------------------


def test_what_is_expected_is_computed_after_the_call_and_out_of_its_reach() -> None:
    order = []

    def search(x: int) -> object:
        order.append("student")
        frame = sys._getframe()
        while frame.f_code.co_name != "check_function":
            assert frame.f_back is not None
            frame = frame.f_back
        return frame.f_locals.get("expected", "nothing")

    def reference(x: int) -> int:
        order.append("reference")
        return 7 * x

    assert not check_function(search, reference, [3])
    assert order == ["student", "reference"]


class Yes(float):
    """A number that says it is equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __sub__(self, other: object) -> float:
        return 0.0

    __rsub__ = __sub__
    __hash__ = None  # type: ignore[assignment]


class Yeah(list[int]):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_an_answer_cannot_say_itself_that_it_is_right() -> None:
    class Any_:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    expected = [2.0, 2, [1, 2], "a", object(), np.ones(2), {"a": 1}, {1}]
    for each in expected:
        assert not check(Yes(1.0), each)
        assert not check(Yeah([5, 6]), each)
        assert not check(Any_(), each)
    assert check(Yes(2.0), 2.0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarms on this system")
def test_code_that_exits_or_never_ends_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    def ends(x: int) -> None:
        sys.exit(x)

    def loops(x: int) -> None:
        while True:
            try:
                x += 1
            except Exception:
                x = 0

    assert not check_function(ends, abs, [1])
    assert not check_function(loops, abs, [1], seconds=0.1)
    first, second = capsys.readouterr().out.splitlines()
    assert "raised SystemExit: 1" in first
    assert "did not end: it ran for more than 0.1 seconds" in second


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarms on this system")
def test_an_alarm_that_was_set_before_goes_on_afterwards() -> None:
    before = signal.getitimer(signal.ITIMER_REAL)[0]  # pytest's own, where it has one
    with time_limit(500):
        with time_limit(1):
            pass
        left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert 4000 < left <= 5000
    assert interval > 0
    after = signal.getitimer(signal.ITIMER_REAL)[0]
    assert after <= before
    assert (after > 0) == (before > 0)


def test_a_flood_of_output_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    def floods(x: int) -> int:
        for _ in range(1000):
            print("x" * 1000)
        return x

    assert check_function(floods, abs, [1])
    out = capsys.readouterr().out
    assert out.endswith(f"dropped)\n{CORRECT}\n")
    assert len(out) < CHARACTERS + 100


def test_a_tensor_in_a_case_and_an_enormous_answer_are_survived() -> None:
    case = torch.ones(3)
    assert check_function(lambda t: t.mul_(2), lambda t: 2 * t, [case])
    assert case.tolist() == [1, 1, 1]
    assert not check_function(lambda t: torch.ones(10**6), lambda t: t, [case])
    assert not check_function(lambda t: "x" * 10**6, lambda t: "y", [case])


def test_a_mistake_that_is_recognised_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    mistakes = [
        Mistake(lambda values: 1 / 0, "impossible"),
        Mistake(sum, "this is the sum"),
        Mistake(max, "this is the largest"),
    ]
    cases = [[4.0], [1.0, 5.0]]  # in the first case all of them are right
    assert not check_function(max, mean, cases, hint="count", mistakes=mistakes)
    assert not check_function(min, mean, cases, hint="count", mistakes=mistakes)
    assert check_function(mean, mean, cases, mistakes=mistakes)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith("Hint: this is the largest")
    assert second.endswith("Hint: count")
    assert third == CORRECT


def test_hints_open_one_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    hints = ("look at the units", "nats or bits?", "divide by ln 2")
    for _ in range(4):
        check(1.0, 2.0, hint=hints)
    shown = [line.partition("Hint: ")[2] for line in capsys.readouterr().out.splitlines()]
    assert shown == [
        "look at the units (2 more)", "nats or bits? (1 more)", "divide by ln 2", "divide by ln 2",
    ]  # fmt: skip


def test_points_are_given_for_parts(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = {"mean": (check(1, 1), 2), "spread": (check(1, 2), 1.5)}
    capsys.readouterr()
    assert partial_points(verdicts) == 2
    assert capsys.readouterr().out == "2 of 2  mean\n0 of 1.5  spread\n2 of 3.5 points\n"


def test_shapes_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_shape(torch.zeros(2, 3), (2, 3))
    assert not check_shape(torch.zeros(3, 2), (2, 3))
    assert not check_shape([1, 2], (2,))
    assert "shape (2, 3) is asked for, got (3, 2)" in capsys.readouterr().out


def test_gradients_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    x, w = torch.tensor([0.3, -0.7]), torch.tensor([1.0, 2.0])
    assert check_gradient(lambda x, w: torch.tanh(x * w), x, w)
    assert not check_gradient(lambda x, w: torch.tanh(x * w).detach(), x, w)
    assert not check_gradient(lambda x, w: torch.tanh(x.detach() * w), x, w)
    assert not check_gradient(lambda x, w: x / 0 + [], x, w)
    right, cut, partly, wrong = capsys.readouterr().out.splitlines()
    assert right == CORRECT
    assert "no gradient flows" in cut
    assert "not the slope" in partly
    assert "raised TypeError" in wrong


# --- samplers ------------------------------------------------------------------------------------

PROBS = [0.5, 0.3, 0.2, 0.0]


def draw(n: int, generator: torch.Generator) -> torch.Tensor:
    return torch.multinomial(torch.tensor(PROBS), n, replacement=True, generator=generator)


def test_a_right_sampler_is_called_wrong_at_the_rate_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of 200 seeds at a rate of 5 %, between 1 and 25: binomial, one in 2,000 falls outside."""
    wrong = [not check_sampler(draw, PROBS, draws=400, error_rate=0.05, seed=s) for s in range(200)]
    assert 1 <= sum(wrong) <= 25
    assert "a right sampler is told so at one of 20 seeds" in capsys.readouterr().out


def test_wrong_samplers_are_told_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    def greedy(n: int, generator: torch.Generator) -> torch.Tensor:
        return torch.zeros(n, dtype=torch.long)

    def seeds_inside(n: int, generator: torch.Generator) -> torch.Tensor:
        return draw(n, torch.Generator().manual_seed(0))

    def uniform(n: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randint(3, (n,), generator=generator)

    def impossible(n: int, generator: torch.Generator) -> torch.Tensor:
        drawn = draw(n, generator)
        drawn[0] = 3
        return drawn

    wrong = (greedy, seeds_inside, uniform, impossible, lambda n, g: [0], lambda n, g: ["a"] * n)
    for each in wrong:
        assert not check_sampler(each, PROBS)
    words = capsys.readouterr().out.splitlines()
    assert "same draws" in words[0]
    assert "seeded inside" in words[1]
    assert "outcome" in words[2]
    assert "has probability 0" in words[3]
    assert "2000 draws are asked for, got 1" in words[4]
    assert "whole numbers are asked for" in words[5]
