"""Claims: a run's figures compared with the stored runs of the same study.

Training rounds, and another processor rounds otherwise: the same seed is another run there. So a
chapter does not compare its figures with numbers that somebody wrote beside them. Each figure that
training makes is one of a stored measurement (`book/results/NAME.json`: five fresh seeds or more,
and another processor's rounding for one of them), and `Claims` asserts that this run is a run like
those:

    claims = Claims("known_floor")
    claims.value("kl_nats_per_token", result.kl_nats_per_token)
    claims.holds("trigram counts are further from the floor than the LSTM",
                 lambda run: run["ngram_kl_nats_per_token 3"] > run["kl_nats_per_token"])

`value` compares with a prediction interval for one more run. `holds` says in how many of the stored
runs an order of two figures holds, and fails unless it is all of them.
"""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from companion.core.files import read_json

#: Confidence level of a prediction interval. The book makes some hundreds of comparisons, so one in
#: ten thousand leaves a reader with a sound machine about one chance in thirty of a false alarm.
LEVEL = 0.9999

#: While a chapter is being measured, this variable names the file that its figures are written to.
RECORD = "COMPANION_CLAIMS"


class ClaimError(AssertionError):
    """A figure outside its prediction interval, or a claim that some stored runs contradict."""


class Interval(NamedTuple):
    """The interval in which one more run is expected to lie."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        """Whether a figure lies in it; False for NaN."""
        return isinstance(value, numbers.Real) and self.low <= float(value) <= self.high


def prediction_interval(
    values: Sequence[float], *, of: int | None = None, level: float = LEVEL
) -> Interval:
    """The prediction interval for one more value, from independent, normally distributed `values`.

    mean ± t s √(1 + 1/n), with Student's t at n - 1 degrees of freedom (e.g. Hahn & Meeker 1991).
    `of`: each value is a share of that many trials. Their binomial variance is added, estimated
    with one more success and one more failure, so that runs that agree by chance (0 of 64 in each)
    do not give an interval of width zero; the interval then stays within 0 and 1.
    Raises ValueError for fewer than three values, for equal values without `of`, and with `of` for
    values outside [0, 1].
    """
    if len(values) < 3:
        raise ValueError(f"an interval needs three values or more, got {len(values)}")
    factor = student_factor(len(values), level)
    if of is not None and of < 1:
        raise ValueError(f"of must be >= 1, got {of}")
    if of is not None and not all(0 <= value <= 1 for value in values):
        raise ValueError(
            f"with of=, values are shares between 0 and 1, got {min(values):g} to {max(values):g}"
        )
    n = len(values)
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    if of is not None:
        share = (mean * of + 1) / (of + 2)
        variance += share * (1 - share) / of
    elif variance == 0:
        raise ValueError(
            f"all {n} values are {values[0]:g}, which says nothing about their spread; pass of=, "
            "the number of trials, for a share, and use assert for what has no spread"
        )
    half = factor * math.sqrt(variance * (1 + 1 / n))
    low, high = mean - half, mean + half
    return Interval(max(low, 0.0), min(high, 1.0)) if of is not None else Interval(low, high)


def student_factor(n: int, level: float) -> float:
    """Student's t of a two-sided interval at n - 1 degrees of freedom; ValueError for a level
    outside (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    from scipy import stats

    return float(stats.t.ppf((1 + level) / 2, n - 1))


def stored_report(name: str) -> dict[str, Any]:
    """A measurement that took longer than a chapter may: book/results/NAME.json, with its command,
    configuration and, for each run, commit, processor and figures.

    ValueError when there is none of that name.
    """
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "_results", here.parent / "book" / "results"):  # installed, or a clone
        path = folder / f"{name}.json"
        if path.exists():
            return read_json(path, "a stored measurement")
    raise ValueError(f"no stored measurement is called {name!r}; make one with: make results")


def numbers_by_name(result: Mapping[str, Any]) -> dict[str, float]:
    """Each number of a result by its name; of numbers within it, "outer inner".

    Numbers of a list are "outer 0", "outer 1" and so on.
    """
    found = _numbers(result, lists=True)
    return {name: value for name, value in found if name not in ("seed", "cpu_seconds")}


def spread(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean, minimum and maximum over seeds of every number in the results, nested ones too."""
    rows = [dict(_numbers(result)) for result in results]
    table = {}
    for name in rows[0]:
        if name != "seed" and all(name in row for row in rows):
            values = [row[name] for row in rows]
            mean = sum(values) / len(values)
            table[name] = {"mean": mean, "min": min(values), "max": max(values)}
    return table


def _numbers(
    result: Mapping[str, Any], prefix: str = "", *, lists: bool = False
) -> Iterator[tuple[str, float]]:
    for name, value in result.items():
        if prefix == "" and name in ("environment", "variant"):
            continue
        if lists and isinstance(value, list):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name} ", lists=lists)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


class Claims:
    """Compares figures of one run with the stored runs of the measurement `name`.

    There is a stored run for each seed, and for some seeds another one with a different processor's
    rounding, which counts as a run of its own.

    `text` is the fingerprint of a corpus that comes with the interpreter. Another release of Python
    has other documentation, so where the stored runs read another text, figures are not compared,
    and one printed line says so.
    """

    def __init__(
        self, name: str, report: Mapping[str, Any] | None = None, *, text: str | None = None
    ) -> None:
        self.name = name
        self._record = os.environ.get(RECORD)
        if report is None:
            report = {"results": []} if self._record else stored_report(name)
        self.results: list[Mapping[str, Any]] = list(report["results"])
        self.elsewhere: list[Mapping[str, Any]] = list(report.get("elsewhere", []))
        self.runs = [numbers_by_name(result) for result in [*self.results, *self.elsewhere]]
        if not self.runs and not self._record:
            raise ValueError(f"the stored measurement {name!r} has no runs, of which all is true")
        self._compared = True
        if text is not None and self._record:
            self._write("text", text)
        elif text is not None:
            read = {str(run.get("text")) for run in [*self.results, *self.elsewhere]}
            self._compared = read == {text}
            if not self._compared:
                print(f"{name}: the stored runs read the text of another Python; not compared.")

    def value(self, figure: str, value: float, *, of: int | None = None) -> None:
        """Assert that `value` lies in the prediction interval of `figure`.

        `of`: the figure is a share of that many trials; see `prediction_interval`.
        Raises ClaimError, which names measurement, figure, value and interval; TypeError for a
        truth value, and, while a chapter is being measured, ValueError for no finite number.
        """
        if isinstance(value, bool | np.bool_):
            raise TypeError(f"{self.name}: {figure} must be a number, got {value!r}")
        value = float(value)
        if self._record:
            if not math.isfinite(value):
                raise ValueError(f"{self.name}: {figure} is {value}, which is not to be stored")
            self._write(figure, value)
            return
        if not self._compared:
            self._known(figure)
            return
        found = self.interval(figure, of=of)
        if value not in found:
            values = [run[figure] for run in self.runs]
            raise ClaimError(
                f"{self.name}: {figure} is {value:.4g} in this run. {len(values)} stored runs "
                f"gave {min(values):.4g} to {max(values):.4g}, and one more is expected between "
                f"{found.low:.4g} and {found.high:.4g}"
            )

    def _write(self, figure: str, value: float | str) -> None:
        assert self._record is not None
        line = json.dumps({"measurement": self.name, "figure": figure, "value": value})
        with open(self._record, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def interval(self, figure: str, *, of: int | None = None) -> Interval:
        """The prediction interval of `figure`; ClaimError when the runs do not have it."""
        self._known(figure)
        return prediction_interval([run[figure] for run in self.runs], of=of)

    def holds(self, words: str, condition: Callable[[Mapping[str, float]], bool]) -> None:
        """Say in how many stored runs `condition` holds of their figures; ClaimError unless in all.

        `words` states the claim; it is printed, with the number of runs.
        """
        if self._record:
            return
        broken = []
        for index, run in enumerate(self.runs):
            try:
                if not condition(run):
                    broken.append(index)
            except KeyError as error:
                self._known(error.args[0])
                raise
        if broken:
            where = ", ".join(self._run_name(index) for index in broken)
            raise ClaimError(
                f"{self.name}: not so in {len(broken)} of {len(self.runs)} stored runs ({where}): "
                f"{words}"
            )
        print(f"In {len(self.runs)} of {len(self.runs)} stored runs: {words}.")

    def text(self, figure: str, places: int = 2) -> str:
        """Mean and range over the seeds, for a table: "0.96 [0.87, 1.00]"."""
        if self._record:
            return "not measured yet"
        self._known(figure)
        values = [run[figure] for run in self.runs[: len(self.results)]]
        mean = sum(values) / len(values)
        return f"{mean:.{places}f} [{min(values):.{places}f}, {max(values):.{places}f}]"

    def _known(self, figure: str) -> None:
        if not all(figure in run for run in self.runs):
            names = ", ".join(sorted(set.intersection(*map(set, self.runs)))) if self.runs else ""
            raise ClaimError(
                f"{self.name} has no figure {figure!r} in all of its stored runs; it has {names}"
            )

    def _run_name(self, index: int) -> str:
        runs = [*self.results, *self.elsewhere]
        variant = runs[index].get("variant")
        return f"seed {runs[index].get('seed')}" + (f", {variant}" if variant else "")
