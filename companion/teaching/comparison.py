"""How far an answer is from what is expected, in words that never give the right one away.

The answer's own methods decide nothing: numbers, strings and containers of any subclass are made
plain first, so that an `__eq__` that always says yes is not asked.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from numbers import Complex, Integral, Number, Real
from typing import Any

import numpy as np

#: Relative and absolute tolerance by dtype, those of `torch.testing.assert_close`.
TOLERANCES = {
    "bfloat16": (1.6e-2, 1e-5),
    "float16": (1e-3, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
}

#: A Python number may be a float32 result's `.item()`.
OF_NUMBERS = "float32"

#: Most characters of a value that a message shows.
MOST_SHOWN = 60


def difference(
    answer: Any, expected: Any, tolerance: int | float | None = None, *, strict: bool = False
) -> str:
    """What is wrong with `answer`, in words; the empty string when nothing is.

    tolerance: the largest absolute difference of each number; None suits it to the coarser dtype
    of the two (`TOLERANCES`), or with strict to that of `expected`, so that a coarser answer gains
    nothing. Whole numbers must then be equal.
    """
    try:
        suited = _suited(expected) if strict else _suited(answer, expected)
        allowed = suited if tolerance is None else (0.0, float(tolerance))
        inner = partial(difference, tolerance=tolerance, strict=strict)
        return _compare(plain(answer), plain(expected), allowed, inner)
    except Exception as error:  # an answer may be any object, with any method
        return f"got {short(answer)}, which cannot be compared ({type(error).__name__})"


def plain(value: Any) -> Any:
    """Tensors as arrays, arrays without an axis and all numbers and strings as Python's own."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        tensor = value.detach().cpu()
        value = np.asarray(tensor.double() if tensor.is_floating_point() else tensor)
    if isinstance(value, np.ndarray):
        value = np.asarray(value)  # no subclass
        return value.item() if value.ndim == 0 else value
    if isinstance(value, np.generic):
        return value.item()
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, (Real, Complex)):
        return float(value) if isinstance(value, Real) else complex(value)
    if isinstance(value, str):
        return str.__str__(value)
    return value


def short(value: Any, beside: Any = None) -> str:
    """`value` in one short line; a number with enough digits to differ from `beside`."""
    words = reprlib.Repr()
    words.maxstring = words.maxother = MOST_SHOWN
    try:
        value = plain(value)
        if isinstance(value, float):
            return _digits(value, plain(beside))
        if isinstance(value, np.ndarray):
            return f"an array of shape {value.shape}"
        return " ".join(words.repr(value).split())
    except Exception:  # an answer may be any object, with any __repr__
        return f"a {type(value).__name__}"


def _digits(value: float, beside: Any) -> str:
    if not isinstance(beside, (int, float)):
        return f"{value:.6g}"
    return next(
        (text for n in range(6, 17) if (text := f"{value:.{n}g}") != f"{beside:.{n}g}"),
        f"{value!r}",
    )


def _suited(*values: Any) -> tuple[float, float]:
    """The coarsest tolerance of the dtypes that the values have."""
    found = [TOLERANCES[name] for value in values if (name := _dtype(value)) in TOLERANCES]
    return max(found, default=(0.0, 0.0))


def _dtype(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    if dtype is not None:
        return str(dtype).removeprefix("torch.")
    if isinstance(value, (list, tuple)) and value:
        return _dtype(value[0])
    return (
        "" if isinstance(value, (Integral, bool)) or not isinstance(value, Number) else OF_NUMBERS
    )


def _compare(
    answer: Any, expected: Any, allowed: tuple[float, float], inner: Callable[..., str]
) -> str:
    if expected is None or isinstance(expected, (bool, str, bytes)):
        return _compare_exactly(answer, expected)
    if isinstance(expected, (int, float, complex)):
        return _compare_numbers(answer, expected, allowed)
    if isinstance(expected, np.ndarray):
        return _compare_arrays(answer, expected, allowed)
    if isinstance(expected, Mapping):
        return _compare_mappings(answer, expected, inner)
    if isinstance(expected, Set):
        if not isinstance(answer, (set, frozenset)):
            return f"a set is asked for, got {short(answer)}"
        found = {plain(each) for each in answer}
        missing, surplus = len(expected - found), len(found - expected)
        return f"{missing} missing and {surplus} too many in the set" if missing or surplus else ""
    if isinstance(expected, Sequence):
        return _compare_sequences(answer, expected, inner)
    if type(answer) is not type(expected):
        return f"got {short(answer)}"
    return "" if bool(expected == answer) else f"got {short(answer)}"


def _compare_exactly(answer: Any, expected: bool | str | bytes | None) -> str:
    kinds: dict[type, str] = {bool: "True or False", str: "a string", bytes: "bytes"}
    if type(answer) is not type(expected):
        return f"{kinds.get(type(expected), 'None')} is asked for, got {short(answer)}"
    if answer == expected:
        return ""
    if isinstance(answer, str) and isinstance(expected, str) and len(answer) > MOST_SHOWN:
        pairs = enumerate(zip(answer, expected, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), min(len(answer), len(expected)))
        return f"the string differs from character {place} on"
    return f"got {short(answer)}"


def _compare_numbers(answer: Any, expected: Any, allowed: tuple[float, float]) -> str:
    if isinstance(answer, bool) or not isinstance(answer, (int, float, complex)):
        return f"a number is asked for, got {short(answer)}"
    got: Any = answer
    if got == expected or (got != got and expected != expected):
        return ""
    relative, absolute = allowed
    size = abs(expected) if math.isfinite(abs(expected)) else 0.0
    if abs(got - expected) <= absolute + relative * size:
        return ""
    if isinstance(got, complex) or isinstance(expected, complex) or got != got:
        return f"got {short(got)}"
    return f"{short(got, expected)} is too {'large' if got > expected else 'small'}"


def _compare_arrays(answer: Any, expected: np.ndarray, allowed: tuple[float, float]) -> str:
    if not isinstance(answer, np.ndarray):
        if isinstance(answer, (str, bytes, Mapping, Set)) or not isinstance(answer, Sequence):
            return f"numbers of shape {expected.shape} are asked for, got {short(answer)}"
        answer = np.asarray(answer)
    if answer.shape != expected.shape:
        return f"shape {expected.shape} is asked for, got {answer.shape}"
    relative, absolute = allowed
    if answer.dtype == object or answer.dtype.kind in "USO":
        wrong = np.array(answer != expected)
    elif (answer.dtype.kind == "b") != (expected.dtype.kind == "b"):
        kind = "True and False" if expected.dtype.kind == "b" else "numbers"
        return f"{kind} are asked for, got an array of {answer.dtype}"
    else:
        wrong = ~np.isclose(answer, expected, rtol=relative, atol=absolute, equal_nan=True)
    if not wrong.any():
        return ""
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    place = first[0] if len(first) == 1 else first
    value = short(answer[first].item(), expected[first].item())
    return f"{int(wrong.sum())} of {wrong.size} entries are wrong, first [{place}], got {value}"


def _compare_mappings(answer: Any, expected: Mapping[Any, Any], inner: Callable[..., str]) -> str:
    if not isinstance(answer, Mapping):
        return f"a dictionary is asked for, got {short(answer)}"
    answer = dict(answer)
    missing = [key for key in expected if key not in answer]
    surplus = [key for key in answer if key not in expected]
    if missing or surplus:
        such = f", such as {short(surplus[0])}" if surplus else ""
        return f"{len(missing)} missing and {len(surplus)} too many keys{such}"
    for key, value in expected.items():
        different = inner(answer[key], value)
        if different:
            return f"at [{short(key)}] {different}"
    return ""


def _compare_sequences(answer: Any, expected: Sequence[Any], inner: Callable[..., str]) -> str:
    if isinstance(answer, np.ndarray):
        answer = answer.tolist()
    if isinstance(answer, (str, bytes)) or not isinstance(answer, Sequence):
        return f"a list is asked for, got {short(answer)}"
    answer = list(answer)
    if len(answer) != len(expected):
        return f"{len(expected)} items are asked for, got {len(answer)}"
    for i, (item, value) in enumerate(zip(answer, expected, strict=True)):
        different = inner(item, value)
        if different:
            return f"at [{i}] {different}"
    return ""
