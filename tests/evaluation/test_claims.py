"""A run's figures beside those of stored runs."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from companion import studies
from companion.evaluation import claims
from companion.evaluation.claims import ClaimError, Claims, prediction_interval


def report(values: list[float], **more: Any) -> dict[str, Any]:
    """A stored measurement of one figure, "loss", and of twice it, "by kind twice"."""
    results = [
        {"seed": 10 + i, "cpu_seconds": 1.0, "loss": value, "by kind": {"twice": 2 * value}}
        for i, value in enumerate(values)
    ]
    return {"results": results, **more}


VALUES = [0.50, 0.52, 0.49, 0.51, 0.53]


def test_the_interval_is_that_of_the_textbook() -> None:
    # Mean .51, s = .0158114, t(4) at .975 = 2.776445, times the root of 1 + 1/5.
    found = prediction_interval(VALUES, level=0.95)
    half = 2.776445 * 0.0158114 * math.sqrt(1.2)
    assert found.low == pytest.approx(0.51 - half, abs=1e-6)
    assert found.high == pytest.approx(0.51 + half, abs=1e-6)


def test_one_more_value_lies_in_the_interval_as_often_as_the_level_says() -> None:
    draw = random.Random(0)
    inside = 0
    for _ in range(4000):
        *seen, one_more = (draw.gauss(3.0, 2.0) for _ in range(6))
        inside += one_more in prediction_interval(seen, level=0.9)
    # .9 of 4,000, with a standard error of .005: four of them.
    assert inside / 4000 == pytest.approx(0.9, abs=0.02)


def test_equal_shares_leave_room_for_one_more_and_stay_shares() -> None:
    low, high = prediction_interval([0.0] * 5, of=64)
    assert low == 0
    assert 1 / 64 < high < 0.3
    assert prediction_interval([1.0] * 5, of=64).high == 1
    assert prediction_interval([0.0] * 5, of=1000).high < high
    with pytest.raises(ValueError, match=r"all 5 values are 0, .* pass of="):
        prediction_interval([0.0] * 5)


def test_too_few_values_and_wrong_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="three values or more, got 2"):
        prediction_interval([1.0, 2.0])
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 1"):
        prediction_interval(VALUES, level=1)
    with pytest.raises(ValueError, match="of must be >= 1, got 0"):
        prediction_interval(VALUES, of=0)


def test_a_value_like_the_stored_ones_passes_and_another_is_named_with_its_interval() -> None:
    found = Claims("toy", report(VALUES))
    found.value("loss", 0.515)
    found.value("by kind twice", 1.03)
    with pytest.raises(ClaimError) as caught:
        found.value("loss", 0.9)
    low, high = found.interval("loss")
    message = str(caught.value)
    assert message.startswith("toy: loss is 0.9 in this run. 5 stored runs gave 0.49 to 0.53")
    assert f"{low:.4g} and {high:.4g}" in message
    with pytest.raises(ClaimError, match="loss is nan"):
        found.value("loss", math.nan)


def test_numbers_of_a_list_are_figures_by_their_place() -> None:
    curves = {"share": [0.2, 0.4], "by kind": {"old": [1, {"deep": 2}]}, "seed": 3, "word": ["a"]}
    assert claims.numbers_by_name(curves) == {
        "share 0": 0.2, "share 1": 0.4, "by kind old 0": 1.0, "by kind old 1 deep": 2.0
    }  # fmt: skip
    assert set(claims.spread([curves])) == set()  # tables of a study stay short


def test_an_unknown_figure_is_named_with_those_there_are() -> None:
    found = Claims("toy", report(VALUES))
    with pytest.raises(ClaimError, match=r"no figure 'los' .* it has by kind twice, loss"):
        found.value("los", 0.5)
    with pytest.raises(ClaimError, match="no figure 'los'"):
        found.holds("it is small", lambda run: run["los"] < 1)
    with pytest.raises(ValueError, match="no stored measurement is called 'luck'"):
        Claims("luck")


def test_an_order_holds_in_all_runs_or_the_runs_that_break_it_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    elsewhere = [{"seed": 10, "variant": "avx2", "loss": 0.7, "by kind": {"twice": 1.4}}]
    found = Claims("toy", report(VALUES, elsewhere=elsewhere))
    found.holds("the loss is below one", lambda run: run["loss"] < 1)
    assert capsys.readouterr().out == "In 6 of 6 stored runs: the loss is below one.\n"
    with pytest.raises(
        ClaimError, match=r"not so in 2 of 6 stored runs \(seed 14, seed 10, avx2\)"
    ):
        found.holds("the loss is at most .52", lambda run: run["loss"] <= 0.52)


def test_the_table_is_of_the_seeds_alone() -> None:
    elsewhere = [{"seed": 10, "variant": "avx2", "loss": 0.7, "by kind": {"twice": 1.4}}]
    assert Claims("toy", report(VALUES, elsewhere=elsewhere)).text("loss") == "0.51 [0.49, 0.53]"


def test_measuring_writes_figures_down_and_compares_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "claims.jsonl"
    monkeypatch.setenv(claims.RECORD, str(record))
    found = Claims("not measured yet")
    found.value("loss", 7)
    found.holds("anything", lambda run: False)
    assert capsys.readouterr().out == ""
    assert [json.loads(line) for line in record.read_text().splitlines()] == [
        {"measurement": "not measured yet", "figure": "loss", "value": 7.0}
    ]


def test_runs_on_another_release_s_text_are_not_compared_and_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stored = report(VALUES)
    for result in stored["results"]:
        result["text"] = "abc"
    same = Claims("toy", stored, text="abc")
    assert capsys.readouterr().out == ""
    with pytest.raises(ClaimError, match=r"loss is 0\.9"):
        same.value("loss", 0.9)
    other = Claims("toy", stored, text="abd")
    assert "the stored runs read the text of another Python" in capsys.readouterr().out
    other.value("loss", 0.9)
    with pytest.raises(ClaimError, match="no figure 'los'"):
        other.value("los", 0.9)
    other.holds("the loss is below one", lambda run: run["loss"] < 1)


def test_measuring_writes_down_which_text_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "claims.jsonl"
    monkeypatch.setenv(claims.RECORD, str(record))
    Claims("toy", text="abc")
    assert json.loads(record.read_text()) == {
        "measurement": "toy", "figure": "text", "value": "abc"
    }  # fmt: skip


@pytest.mark.parametrize("change", [0.1, -0.1])
def test_a_planted_change_of_a_tenth_in_one_stored_figure_is_found(change: float) -> None:
    """What a chapter's run gives today must not pass when a study's result has moved."""
    stored = studies.stored_report("known_floor")
    found = Claims("known_floor", stored)
    figure = "kl_nats_per_token"
    found.value(figure, stored["results"][0][figure])
    with pytest.raises(ClaimError, match="known_floor: kl_nats_per_token is"):
        found.value(figure, stored["results"][0][figure] + change)


@pytest.mark.parametrize("value", [True, np.True_])
def test_a_truth_value_is_no_figure(value: Any) -> None:
    with pytest.raises(TypeError):
        Claims("toy", report(VALUES)).value("loss", value)


def test_numbers_of_every_library_are_looked_for_in_an_interval() -> None:
    for number in (np.float32(0.5), np.float64(0.5), np.int64(1), 1):
        assert number in claims.Interval(0, 1)
    assert np.float32("nan") not in claims.Interval(0, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_measuring_refuses_what_is_no_finite_number(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(claims.RECORD, str(tmp_path / "claims.jsonl"))
    with pytest.raises(ValueError, match=r"toy: loss is (nan|inf), which is not to be stored"):
        Claims("toy").value("loss", value)
    assert not (tmp_path / "claims.jsonl").exists()


def test_a_measurement_without_runs_proves_nothing() -> None:
    with pytest.raises(ValueError, match="'toy' has no runs"):
        Claims("toy", {"results": []})


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match="shares between 0 and 1, got 49 to 53"):
        prediction_interval([100 * value for value in VALUES], of=64)


def test_a_number_of_a_list_has_its_place_in_a_table() -> None:
    stored = {"results": [{"seed": i, "losses": [0.5 + i, 1.0]} for i in range(3)]}
    assert Claims("toy", stored).text("losses 0", places=1) == "1.5 [0.5, 2.5]"
