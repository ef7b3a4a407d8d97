"""Checks that exercises and assignments share.

`check(answer, expected)` prints "Not answered yet.", "Correct." or what is wrong, and returns
whether the answer is right, as a condition: a solution asserts it, an exercise just calls it. A
wrong answer never raises, whatever it is, unless `require=True`, which is how an assignment calls
it. `check_exercise(label, answer)` looks the expected answer up, so that a task does not show it.
`check_function`, `check_shape`, `check_gradient` and `check_sampler` try what a learner wrote. The
words say in which direction an answer is wrong and never give the right one away.

These checks teach; they run beside the learner's code, which can replace them. Marks are given by
`companion.teaching.marking`, in another process.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from companion.teaching.comparison import difference, short
from companion.teaching.exercises import EXERCISES
from companion.teaching.limits import TimeLimitError, output_limit, time_limit

NOT_ANSWERED = "Not answered yet."
CORRECT = "Correct."

#: Most seconds of one call of a learner's function, and most characters that it may print.
SECONDS = 10.0
CHARACTERS = 2000


class Verdict:
    """Whether an answer is right, as a condition: `assert check(...)`, `if check(...)`.

    A notebook shows nothing for it, so a cell that ends with a check shows the check's words alone,
    with a semicolon or without: nbval, which runs cells outside the history, overlooks semicolons.
    """

    def __init__(self, right: bool) -> None:
        self.right = right

    def __bool__(self) -> bool:
        """Whether the answer is right."""
        return self.right

    def __repr__(self) -> str:
        """True or False."""
        return repr(self.right)

    def _ipython_display_(self) -> None:
        """Nothing: the words are printed already."""


@dataclass(frozen=True)
class Mistake:
    """A mistake that is often made: a function that makes it, and words for who made it."""

    function: Callable[..., Any]
    hint: str


#: Words after a wrong answer. Of several, one more is shown after each wrong try.
Hints = str | Sequence[str]

_tries: dict[tuple[str, ...], int] = {}


def check(
    answer: Any,
    expected: Any,
    *,
    tolerance: int | float | None = None,
    hint: Hints = "",
    require: bool = False,
) -> Verdict:
    """Whether `answer` is `expected`; prints which, with `hint` after what is wrong.

    Numbers, strings, booleans, arrays, tensors, sequences, sets and dictionaries, also nested; a
    list, an array and a tensor of the same numbers are the same. `tolerance` is absolute and holds
    for each number; None suits it to the dtype (`comparison.TOLERANCES`). None and `...` are
    answers not given yet. With `require`, raises AssertionError with the same words for anything
    but a right answer.
    """
    _check_tolerance(tolerance)
    if _is_unanswered(answer):
        return _report(NOT_ANSWERED, hint="", require=require)
    return _report(difference(answer, expected, tolerance), hint=hint, require=require)


def check_exercise(label: str, answer: Any, *given: Any, require: bool = False) -> Verdict:
    """As `check` or `check_function`, with what the exercise `label` of the book expects.

    given: what the task hands over, where the chapter's own run decides the answer; or the cases,
    where the answer is a function. ValueError for an unknown label.
    """
    if label not in EXERCISES:
        near = difflib.get_close_matches(label, EXERCISES, n=1)
        raise ValueError(
            f"no exercise is called {label!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    exercise = EXERCISES[label]
    words: dict[str, Any] = {
        "tolerance": exercise.tolerance, "hint": exercise.hint, "require": require
    }  # fmt: skip
    if exercise.reference is not None:
        return check_function(answer, exercise.reference, *given, **words)
    if _is_unanswered(answer):  # before what may take a while is computed
        return _report(NOT_ANSWERED, hint="", require=require)
    expected = exercise.expected if exercise.computed is None else exercise.computed(*given)
    return check(answer, expected, **words)


def check_function(
    function: Any,
    reference: Callable[..., Any],
    cases: Iterable[Any],
    *,
    tolerance: int | float | None = None,
    hint: Hints = "",
    mistakes: Sequence[Mistake] = (),
    require: bool = False,
    seconds: int | float = SECONDS,
) -> Verdict:
    """Whether `function` gives what `reference` gives, to `tolerance`, in each of `cases`.

    A case is a tuple of positional arguments, or else the only argument; both functions get copies,
    the learner's first. The first case that differs is named, with what the function gave or
    raised; where it gave what one of the `mistakes` gives, that one's hint is printed. A function
    that is None, returns None or raises NotImplementedError is not written yet. Each call may take
    `seconds` (`limits.time_limit` says where) and print `CHARACTERS`.
    """
    _check_tolerance(tolerance)
    arguments = [case if isinstance(case, tuple) else (case,) for case in cases]
    if not arguments:
        raise ValueError("check_function needs one case or more, got none")
    if _is_unanswered(function):
        return _report(NOT_ANSWERED, hint="", require=require)
    if not callable(function):
        message = f"a function is asked for, got {short(function)}"
        return _report(message, hint=hint, require=require)
    for case in arguments:
        call = f"{getattr(function, '__name__', 'function')}({', '.join(map(short, case))})"
        answer, raised = _called(function, case, seconds)
        if raised == NOT_ANSWERED:
            return _report(NOT_ANSWERED, hint="", require=require)
        if raised:
            return _report(f"{call} {raised}", hint=hint, require=require)
        expected = reference(*copy.deepcopy(case))  # later: the call above cannot read it
        if _is_unanswered(answer) and expected is not None:
            return _report(NOT_ANSWERED, hint="", require=require)
        different = difference(answer, expected, tolerance)
        if different:
            named = named_mistake(answer, expected, case, mistakes, tolerance)
            words = f"for {call}: {different}"
            return _report(words, hint=named or hint, require=require)
    return _report("", hint="", require=require)


def named_mistake(
    answer: Any,
    expected: Any,
    case: tuple[Any, ...],
    mistakes: Sequence[Mistake],
    tolerance: int | float | None = None,
) -> str:
    """The hint of the first of `mistakes` that gives this wrong answer; "" where none does."""
    for mistake in mistakes:
        try:
            given = mistake.function(*copy.deepcopy(case))
        except Exception:  # a mistake may be impossible for some case
            continue
        if difference(given, expected, tolerance) and not difference(answer, given, tolerance):
            return mistake.hint
    return ""


def check_shape(
    answer: Any, shape: Sequence[int], *, hint: Hints = "", require: bool = False
) -> Verdict:
    """Whether `answer` is a tensor or an array of this shape."""
    if _is_unanswered(answer):
        return _report(NOT_ANSWERED, hint="", require=require)
    found = getattr(answer, "shape", None)
    if found is None:
        wrong = f"a tensor of shape {tuple(shape)} is asked for, got {short(answer)}"
    else:
        equal = tuple(found) == tuple(shape)
        wrong = "" if equal else f"shape {tuple(shape)} is asked for, got {tuple(found)}"
    return _report(wrong, hint=hint, require=require)


def check_gradient(
    function: Callable[..., Any],
    *inputs: Any,
    hint: Hints = "",
    require: bool = False,
    seconds: int | float = SECONDS,
) -> Verdict:
    """Whether the gradient that torch takes through `function` is that of its values.

    The inputs are tensors; they are tried as float64, against differences of the values
    (`torch.autograd.gradcheck`, on one number: the sum of what the function returns).
    """
    import torch

    leaves = tuple(each.detach().double().requires_grad_() for each in inputs)

    def total(*arguments: Any) -> Any:
        return function(*arguments).sum()

    value, raised = _called(total, leaves, seconds)
    if raised == NOT_ANSWERED:
        return _report(NOT_ANSWERED, hint="", require=require)
    if not raised and not getattr(value, "requires_grad", False):
        raised = (
            "gave a result that no gradient flows through; look for detach(), item(), numpy(), "
            "torch.tensor(...) or no_grad()"
        )
    if not raised:
        right, raised = _called(
            lambda *x: torch.autograd.gradcheck(total, x, raise_exception=False), leaves, seconds
        )
        if not raised and not right:
            raised = "has a gradient that is not the slope of its values"
    name = getattr(function, "__name__", "function")
    return _report(f"{name} {raised}" if raised else "", hint=hint, require=require)


def check_sampler(
    sample: Callable[..., Any],
    probs: Sequence[float],
    *,
    draws: int = 4000,
    error_rate: int | float = 1e-4,
    seed: int = 0,
    hint: Hints = "",
    require: bool = False,
    seconds: int | float = SECONDS,
) -> Verdict:
    """Whether `sample(n, generator)` draws n outcomes with the probabilities `probs`.

    A chi-squared test of the counts: a right sampler is called wrong at the rate `error_rate`, over
    the seeds. An outcome of probability zero is wrong at once, and so are two calls that give the
    same draws.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    halves = []
    for _ in range(2):
        half, raised = _called(lambda n: sample(n, generator), (draws // 2,), seconds)
        if raised == NOT_ANSWERED or (not raised and _is_unanswered(half)):
            return _report(NOT_ANSWERED, hint="", require=require)
        if raised:
            return _report(f"the sampler {raised}", hint=hint, require=require)
        halves.append(half)
    wrong = wrong_draws(halves, probs, draws // 2, error_rate)
    return _report(wrong, hint=hint, require=require)


def wrong_draws(
    halves: Sequence[Any], probs: Sequence[float], count: int, error_rate: int | float
) -> str:
    """What is wrong with two times `count` draws from `probs`, in words; "" when nothing is."""
    from scipy import stats

    p = np.asarray(probs, dtype=np.float64)
    try:
        drawn = [np.asarray(half).astype(np.int64).ravel() for half in halves]
    except Exception:
        return f"whole numbers are asked for, got {short(halves[0])}"
    for half in drawn:
        if half.size != count:
            return f"{count} draws are asked for, got {half.size}"
        if half.min() < 0 or half.max() >= p.size:
            return f"outcomes are 0 to {p.size - 1}, got {half.min()} to {half.max()}"
    if (drawn[0] == drawn[1]).all() and (p**2).sum() < 0.9:
        return "two calls in a row gave the same draws; is a generator seeded inside?"
    counts = np.bincount(np.concatenate(drawn), minlength=p.size)
    if counts[p == 0].any():
        return f"outcome {int(np.argmax((p == 0) & (counts > 0)))} was drawn and has probability 0"
    wanted = p / p.sum() * counts.sum()
    rare = wanted < 5  # too few for the test: counted as one outcome
    observed, wanted = (
        np.append(each[~rare], each[rare].sum()) if rare.any() else each
        for each in (counts.astype(np.float64), wanted)
    )
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    if wanted.size > 1 and stats.chisquare(observed, wanted).pvalue < error_rate:
        worst = int(np.argmax(np.abs(counts / counts.sum() - p / p.sum())))
        way = "often" if counts[worst] / counts.sum() > p[worst] / p.sum() else "seldom"
        return (
            f"outcome {worst} is drawn too {way} (a right sampler is told so at one of "
            f"{round(1 / error_rate):,} seeds)"
        )
    return ""


def partial_points(verdicts: Mapping[str, tuple[Any, float]]) -> float:
    """The points of the verdicts that are right; prints a line for each.

    verdicts: name to whether it is right, and its points. As the last line of an nbgrader cell it
    is the cell's score.
    """
    earned = sum(points for right, points in verdicts.values() if right)
    for name, (right, points) in verdicts.items():
        print(f"{points if right else 0:g} of {points:g}  {name}")
    print(f"{earned:g} of {sum(points for _, points in verdicts.values()):g} points")
    return float(earned)


def _called(
    function: Callable[..., Any], case: tuple[Any, ...], seconds: int | float
) -> tuple[Any, str]:
    """What a learner's function gives for copies of `case`; else how it failed, in words."""
    arguments = copy.deepcopy(case)
    try:
        with output_limit(CHARACTERS), time_limit(seconds):
            return function(*arguments), ""
    except NotImplementedError:
        return None, NOT_ANSWERED
    except TimeLimitError as error:
        return None, f"did not end: {error}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too
        return None, f"raised {raised_words(error)}"


def raised_words(error: BaseException) -> str:
    """An exception in one short line."""
    try:
        words = " ".join(str(error)[:300].split())
    except BaseException:  # an exception of the learner's own may do anything
        words = ""
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _report(wrong: str, *, hint: Hints, require: bool) -> Verdict:
    if not wrong:
        print(CORRECT)
        return Verdict(True)
    words = wrong if wrong == NOT_ANSWERED else f"Not yet: {wrong}."
    if hint:
        words = f"{words} Hint: {_next_hint(hint)}"
    if require:
        raise AssertionError(words)
    print(words)
    return Verdict(False)


def _next_hint(hint: Hints) -> str:
    if isinstance(hint, str):
        return hint
    hints = tuple(hint)
    opened = _tries.get(hints, 0)
    _tries[hints] = opened + 1
    left = len(hints) - opened - 1
    shown = hints[min(opened, len(hints) - 1)]
    return f"{shown} ({left} more)" if left > 0 else shown


def _check_tolerance(tolerance: int | float | None) -> None:
    if tolerance is not None and (math.isnan(tolerance) or tolerance < 0):
        raise ValueError(f"tolerance must be >= 0, got {tolerance}")


def _is_unanswered(answer: Any) -> bool:
    return answer is None or answer is Ellipsis
