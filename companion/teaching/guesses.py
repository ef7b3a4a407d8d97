"""Guesses before results: what a reader expects, kept until the result can be set beside it.

`guesses["gain"] = 2.5` in a cell of its own enters a guess, and `guesses.reveal("gain", gain)` at
the end of the cell that measures prints `You guessed 2.5; it is 0.61.` At a chapter's end
`guesses.table()` prints all of them. On the site the result stays closed until a guess has been
entered (`book/_ext/waiting_results.py`), which reads these two lines from the stored outputs.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from itertools import zip_longest
from typing import Any

#: Width of a printed line at most: the page cuts longer ones.
WIDTH = 76

#: Width of each of the three columns of the table at most, with two spaces between them.
COLUMN = 24

NOT_YET = "not yet"
NO_GUESS = "no guess"

Guess = str | bool | int | float | list[Any] | tuple[Any, ...]


class Guesses:
    """A reader's guesses, by a short key, and the truths that were revealed.

    A guess is a string, True or False, a number, or a list or tuple of these; None or `...` stands
    for a guess not made yet. Entering a guess again replaces it.
    """

    def __init__(self) -> None:
        self._guesses: dict[str, Guess | None] = {}
        self._truths: dict[str, str] = {}

    def __setitem__(self, key: Any, value: Any) -> None:
        """Enter a guess; ValueError for a key or a guess of another kind."""
        if not isinstance(key, str) or not re.fullmatch(rf"\w[\w -]{{0,{COLUMN - 1}}}", key):
            raise ValueError(
                f"the key of a guess is a short word, at most {COLUMN} letters, digits, spaces or "
                f"hyphens, got {key!r}"
            )
        if value is not None and value is not Ellipsis and not _is_guess(value):
            raise ValueError(
                "a guess is a string, True or False, a number, or a list of these; "
                f"guesses[{key!r}] got {type(value).__name__}"
            )
        self._guesses[key] = None if value is Ellipsis else value

    def __getitem__(self, key: Any) -> Guess | None:
        """The guess, None when it was not made; ValueError for a key that was never entered."""
        if key not in self._guesses:
            near = difflib.get_close_matches(str(key), self._guesses, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else (
                f"run the cell above that enters it: guesses[{key!r}] = ..."
            )  # fmt: skip
            raise ValueError(f"no guess is called {key!r}; {hint}")
        return self._guesses[key]

    def reveal(self, key: Any, truth: Any, digits: int = 2) -> None:
        """Print the guess beside `truth`, in one line, or in two when one would be too long.

        digits: digits after the point, for each number of `truth` that is not whole by its type.
        The guess is printed as it was entered. ValueError for a key that was never entered.
        """
        if isinstance(digits, bool) or digits < 0:
            raise ValueError(f"digits must be a whole number >= 0, got {digits!r}")
        guess, shown = self[key], _show(_plain(truth), digits)
        self._truths[key] = shown
        start = "You have not guessed yet" if guess is None else f"You guessed {_show(guess)}"
        line = f"{start}; it is {shown}."
        print(line if len(line) <= WIDTH else f"{start};\nit is {shown}.")

    def table(self) -> None:
        """Print every key with the guess and the truth, which is "not yet" until it is revealed."""
        if not self._guesses:
            print("No guess has been entered.")
            return
        rows = [("key", "your guess", "truth")]
        for key, guess in self._guesses.items():
            shown = NO_GUESS if guess is None else _show(guess)
            rows.append((key, shown, self._truths.get(key, NOT_YET)))
        cells = [[textwrap.wrap(text, COLUMN) or [""] for text in row] for row in rows]
        widths = [max(len(line) for row in cells for line in row[i]) for i in range(3)]
        for row in cells:
            for lines in zip_longest(*row, fillvalue=""):
                padded = (line.ljust(width) for line, width in zip(lines, widths, strict=True))
                print("  ".join(padded).rstrip())


def _is_guess(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(map(_is_guess, value))
    return isinstance(value, (str, bool, int, float))


def _plain(value: Any) -> Any:
    """Tensors, arrays and their scalars as Python's numbers and lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _show(value: Any, digits: int | None = None) -> str:
    """`value` in one line: floats with `digits` digits after the point, or as they were entered."""
    if isinstance(value, (list, tuple)):
        return ", ".join(_show(_plain(item), digits) for item in value)
    if isinstance(value, float):
        # + 0.0 turns -0.0, which a small negative number is rounded to, into 0.0.
        return f"{value:.6g}" if digits is None else f"{round(value, digits) + 0.0:.{digits}f}"
    if isinstance(value, (str, int)):
        return " ".join(str(value).split())
    raise ValueError(
        "what is revealed is a string, True or False, a number, or a list of these, "
        f"got {type(value).__name__}"
    )
