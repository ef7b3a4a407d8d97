"""Numbers in sentences are those of the stored measurements."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tools import prose

RUNS = [{"kl": 0.010, "share plain": 0.96}, {"kl": 0.014, "share plain": 1.0}]


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "page" not in request.fixturenames:
        monkeypatch.setattr(prose, "_runs", lambda name: copy.deepcopy(RUNS))
        monkeypatch.setattr(prose, "_counts", lambda: {"exercises": 87.0})


@pytest.mark.parametrize("page", prose.pages(), ids=lambda path: path.stem)
def test_every_marked_number_of_a_page_is_the_measured_one(page: Path) -> None:
    assert prose.check(page) == []


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("0.0<!--=mean toy: kl-->", "0.0"),
        ("0.011<!--=mean toy: kl-->", "0.012"),
        (".011<!--=min toy: kl-->", ".010"),
        ("95 %<!--=mean toy: share plain-->", "98 %"),
        ("95.1%<!--=max toy: share plain-->", "100.0%"),
        ("3<!--=max toy: 1000 * [kl]-->", "14"),
        ("0.9<!--=min toy: [share plain] - [kl] / 2-->", "1.0"),
        ("-1<!--=mean toy: 100 * ([kl] - [share plain])-->", "-97"),
        ("1,000<!--=mean toy: 100000 * [kl]-->", "1,200"),
        ("5-97 %<!--=mean toy: share plain-->", "5-98 %"),
        ("a-3.00<!--=max toy: share plain-->", "a-1.00"),
        ("| 3<!--=max toy: [share plain] * 2 -->", "| 2"),
        ("86<!--=count chapters: exercises-->", "87"),
    ],
)
def test_a_number_is_rounded_as_it_is_written(written: str, right: str) -> None:
    new, faults = prose.corrected(f"It is {written} here.", "page")
    assert new == f"It is {right}{written[written.index('<') :]} here."
    assert bool(faults) == (not written.startswith(right))
    assert prose.corrected(new, "page") == (new, [])


def test_words_hold_between_their_bounds() -> None:
    assert prose.corrected("few<!--~0 .02 mean toy: kl-->", "page")[1] == []
    (fault,) = prose.corrected("few<!--~0 .011 mean toy: kl-->", "page")[1]
    assert fault.wanted == "0.012, which is not between 0 and .011"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("few<!--=mean toy: kl-->", "no number stands before"),
        ("1<!--=median toy: kl-->", "a mark says mean, min, max"),
        ("1<!--=mean toy: k-->", "toy has no figure 'k'; it has kl, share plain"),
        ("1<!--=count chapters: jokes-->", "one of chapters: exercises; got chapters: jokes"),
        ("1<!--=mean toy: [kl] ** 2-->", r"numbers, figures in brackets and \+ - \* /"),
        ("few<!--~1-->", "needs two bounds"),
        ("1<!-- =mean toy: kl-->", "page: <!-- =mean toy: kl--> is no mark"),
        ("1<!--mean toy: kl-->", "is no mark"),
        ("1<!--=mean toy: [kl] > 1-->", "page: a formula has numbers"),
        ("1<!--=mean toy: k-->", "^page: "),
        *((f"{n}<!--=mean toy: kl-->", "no number stands") for n in ("1.", "1,", "3e-3", "1,23")),
    ],
)
def test_a_mark_that_says_nothing_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prose.corrected(text, "page")


def test_captions_and_alternative_texts_are_checked_and_put_right(tmp_path: Path) -> None:
    look = {
        "figure": {"caption": "It is 0.5<!--=mean toy: kl-->."},
        "image": {"alt": "A bar at 1.00<!--=max toy: share plain-->."},
    }
    code: dict[str, Any] = {"cell_type": "code", "source": [], "metadata": {"mystnb": look}}
    text = {"cell_type": "markdown", "source": ["No\n", "mark: 7."], "metadata": {}}
    path = tmp_path / "page.ipynb"
    path.write_text(json.dumps({"cells": [code, text]}))
    (fault,) = prose.check(path)
    assert fault.where == "page.ipynb, cell 0, caption"
    prose.check(path, write=True)
    assert prose.check(path) == []
    cells = json.loads(path.read_text())["cells"]
    assert cells[0]["metadata"]["mystnb"]["figure"]["caption"] == "It is 0.0<!--=mean toy: kl-->."
    assert cells[1] == text
    assert list(prose.plain_numbers(path)) == ["cell 1: ...No mark: 7...."]


def test_the_place_of_a_model_is_no_mark() -> None:
    assert prose.corrected("It runs here.\n\n<!--model: a/b cell-->", "page")[1] == []
