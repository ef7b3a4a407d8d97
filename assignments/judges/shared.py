"""What several judges need."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from companion.sources import MarkovSource

BITS = math.log(2)
NATS = "the result is in nats; one nat is 1 / ln 2 = 1.443 bits, so divide by math.log(2)"

Draw = Callable[[np.random.Generator], tuple[Any, ...]]


def times(count: int, draw: Draw) -> Callable[[np.random.Generator], list[tuple[Any, ...]]]:
    """Draws so many cases."""
    return lambda generator: [draw(generator) for _ in range(count)]


def shares_of(table: Any) -> Any:
    """The long-run shares of a transition table."""
    return MarkovSource(table).stationary


def letters(name: str, right: set[str], reasons: Mapping[str, str]) -> Callable[[Any], str]:
    """Judges a set of letters; the feedback gives the reasons of those that are wrong."""

    def judge(answer: Any) -> str:
        if not isinstance(answer, set) or not answer <= set(reasons):
            return f"{name}: a set of the letters {', '.join(sorted(reasons))} is asked for."
        wrong = [f"{each}: {reasons[each]}" for each in sorted(answer ^ right)]
        return f"{name}: think again of {'; '.join(wrong)}." if wrong else ""

    return judge
