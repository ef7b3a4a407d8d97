"""Checks that exercises and assignments share.

`check(answer, expected)` prints "Not answered yet.", "Correct." or what is wrong, and returns
whether the answer is right, as a condition: a solution asserts it, an exercise just calls it. A
wrong answer never raises, whatever it is, unless `require=True`, which is how an auto-graded
assignment calls it. `check_exercise(label, answer)` looks the expected answer up, so that a task
does not show it. The words say in which direction an answer is wrong and never give the right
one away.
"""

from __future__ import annotations

import copy
import difflib
import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from numbers import Number
from typing import Any

import numpy as np

from companion.teaching.exercises import EXERCISES

NOT_ANSWERED = "Not answered yet."
CORRECT = "Correct."


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


def check(
    answer: Any,
    expected: Any,
    *,
    tolerance: int | float = 0.0,
    hint: str = "",
    require: bool = False,
) -> Verdict:
    """Whether `answer` is `expected`; prints which, with `hint` after what is wrong.

    Numbers, strings, booleans, arrays, tensors, sequences, sets and dictionaries, also nested; a
    list, an array and a tensor of the same numbers are the same. `tolerance` is absolute and holds
    for each number. None and `...` are answers not given yet. With `require`, raises AssertionError
    with the same words for anything but a right answer.
    """
    _check_tolerance(tolerance)
    if _is_unanswered(answer):
        return _report(NOT_ANSWERED, hint="", require=require)
    return _report(_difference(answer, expected, tolerance), hint=hint, require=require)


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
    tolerance: int | float = 1e-9,
    hint: str = "",
    require: bool = False,
) -> Verdict:
    """Whether `function` gives what `reference` gives, to `tolerance`, in each of `cases`.

    A case is a tuple of positional arguments, or else the only argument; both functions get copies.
    The first case that differs is named, with what the function gave or raised. A function that is
    None, returns None or raises NotImplementedError is not written yet.
    """
    _check_tolerance(tolerance)
    arguments = [case if isinstance(case, tuple) else (case,) for case in cases]
    if not arguments:
        raise ValueError("check_function needs one case or more, got none")
    if _is_unanswered(function):
        return _report(NOT_ANSWERED, hint="", require=require)
    if not callable(function):
        message = f"a function is asked for, got {_short(function)}"
        return _report(message, hint=hint, require=require)
    for case in arguments:
        expected = reference(*copy.deepcopy(case))
        call = f"{getattr(function, '__name__', 'function')}({', '.join(map(_short, case))})"
        try:
            answer = function(*copy.deepcopy(case))
        except NotImplementedError:
            return _report(NOT_ANSWERED, hint="", require=require)
        except Exception as error:
            words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return _report(f"{call} raised {words}", hint=hint, require=require)
        if _is_unanswered(answer) and expected is not None:
            return _report(NOT_ANSWERED, hint="", require=require)
        different = _difference(answer, expected, tolerance)
        if different:
            return _report(f"for {call}: {different}", hint=hint, require=require)
    return _report("", hint="", require=require)


def _report(wrong: str, *, hint: str, require: bool) -> Verdict:
    if not wrong:
        print(CORRECT)
        return Verdict(True)
    words = wrong if wrong == NOT_ANSWERED else f"Not yet: {wrong}."
    if hint:
        words = f"{words} Hint: {hint}"
    if require:
        raise AssertionError(words)
    print(words)
    return Verdict(False)


def _check_tolerance(tolerance: int | float) -> None:
    if math.isnan(tolerance) or tolerance < 0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}")


def _is_unanswered(answer: Any) -> bool:
    return answer is None or answer is Ellipsis


def _difference(answer: Any, expected: Any, tolerance: int | float) -> str:
    """What is wrong with `answer`, in words; the empty string when nothing is."""
    try:
        return _compare(_plain(answer), _plain(expected), tolerance)
    except Exception as error:  # an answer may be any object, with any __eq__
        return f"got {_short(answer)}, which cannot be compared ({type(error).__name__})"


def _compare(answer: Any, expected: Any, tolerance: int | float) -> str:
    if expected is None or isinstance(expected, (bool, str, bytes)):
        kind = {bool: "True or False", str: "a string", bytes: "bytes"}.get(type(expected), "None")
        if type(answer) is not type(expected):
            return f"{kind} is asked for, got {_short(answer)}"
        return "" if answer == expected else f"got {_short(answer)}"
    if isinstance(expected, (int, float, complex)):
        return _compare_numbers(answer, expected, tolerance)
    if isinstance(expected, np.ndarray):
        return _compare_arrays(answer, expected, tolerance)
    if isinstance(expected, Mapping):
        return _compare_mappings(answer, expected, tolerance)
    if isinstance(expected, Set):
        if not isinstance(answer, Set):
            return f"a set is asked for, got {_short(answer)}"
        missing, surplus = len(expected - answer), len(answer - expected)
        return f"{missing} missing and {surplus} too many in the set" if missing or surplus else ""
    if isinstance(expected, Sequence):
        return _compare_sequences(answer, expected, tolerance)
    return "" if bool(answer == expected) else f"got {_short(answer)}"


def _compare_numbers(answer: Any, expected: Any, tolerance: int | float) -> str:
    if isinstance(answer, bool) or not isinstance(answer, Number):
        return f"a number is asked for, got {_short(answer)}"
    got: Any = answer
    if got == expected or (got != got and expected != expected):
        return ""
    if abs(got - expected) <= tolerance:
        return ""
    if isinstance(got, complex) or isinstance(expected, complex) or got != got:
        return f"got {_short(got)}"
    return f"{_short(got)} is too {'large' if got > expected else 'small'}"


def _compare_arrays(answer: Any, expected: np.ndarray, tolerance: int | float) -> str:
    if not isinstance(answer, np.ndarray):
        if isinstance(answer, (str, bytes, Mapping, Set)) or not isinstance(answer, Sequence):
            return f"numbers of shape {expected.shape} are asked for, got {_short(answer)}"
        answer = np.asarray(answer)
    if answer.shape != expected.shape:
        return f"shape {expected.shape} is asked for, got {answer.shape}"
    if answer.dtype == object or answer.dtype.kind in "USO":
        wrong = np.array(answer != expected)
    elif (answer.dtype.kind == "b") != (expected.dtype.kind == "b"):
        kind = "True and False" if expected.dtype.kind == "b" else "numbers"
        return f"{kind} are asked for, got an array of {answer.dtype}"
    else:
        wrong = ~np.isclose(answer, expected, rtol=0, atol=tolerance, equal_nan=True)
    if not wrong.any():
        return ""
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    place = first[0] if len(first) == 1 else first
    value = _short(answer[first].item())
    return f"{int(wrong.sum())} of {wrong.size} entries are wrong, first [{place}], got {value}"


def _compare_mappings(answer: Any, expected: Mapping[Any, Any], tolerance: int | float) -> str:
    if not isinstance(answer, Mapping):
        return f"a dictionary is asked for, got {_short(answer)}"
    missing = [key for key in expected if key not in answer]
    surplus = [key for key in answer if key not in expected]
    if missing or surplus:
        return (
            f"{len(missing)} missing and {len(surplus)} too many keys, such as "
            f"{_short((missing or surplus)[0])}"
        )
    for key, value in expected.items():
        different = _difference(answer[key], value, tolerance)
        if different:
            return f"at [{_short(key)}] {different}"
    return ""


def _compare_sequences(answer: Any, expected: Sequence[Any], tolerance: int | float) -> str:
    if isinstance(answer, np.ndarray):
        answer = answer.tolist()
    if isinstance(answer, (str, bytes)) or not isinstance(answer, Sequence):
        return f"a list is asked for, got {_short(answer)}"
    if len(answer) != len(expected):
        return f"{len(expected)} items are asked for, got {len(answer)}"
    for i, (item, value) in enumerate(zip(answer, expected, strict=True)):
        different = _difference(item, value, tolerance)
        if different:
            return f"at [{i}] {different}"
    return ""


def _plain(value: Any) -> Any:
    """Tensors as arrays, arrays without an axis and NumPy's scalars as Python's numbers."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        tensor = value.detach().cpu()
        value = np.asarray(tensor.double() if tensor.is_floating_point() else tensor)
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value


def _short(value: Any) -> str:
    """`value` in one short line."""
    words = reprlib.Repr()
    words.maxstring = words.maxother = 60
    try:
        value = _plain(value)
        if isinstance(value, float):
            return f"{value:.6g}"
        if isinstance(value, np.ndarray):
            return f"an array of shape {value.shape}"
        return " ".join(words.repr(value).split())
    except Exception:  # an answer may be any object, with any __repr__
        return f"a {type(value).__name__}"
