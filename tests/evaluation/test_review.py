"""The review queue: simulated reviewers agree with the formulas, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from companion.core.seeds import make_generator
from companion.evaluation.decisions import decide
from companion.evaluation.review import (
    Reviewer,
    agreement,
    corrected_share,
    expected_agreement,
    false_alarm_rate,
    found_in_queue,
    measured_miss_rate,
    miss_rate,
    observed_share,
    reviewed,
)

ONE, OTHER = Reviewer(0.9, 0.95), Reviewer(0.8, 0.9)


def test_miss_and_false_alarm_rates_by_hand() -> None:
    at = decide(
        torch.tensor([0.9, 0.6, 0.3, 0.2]), torch.tensor([True, False, True, False]),
        [0.0, 0.5, 1.0],
    )  # fmt: skip
    assert miss_rate(at).tolist() == [0, 0.5, 1]
    assert false_alarm_rate(at).tolist() == [1, 0.5, 0]
    for truth, rate in ((False, miss_rate), (True, false_alarm_rate)):
        none = decide(torch.tensor([0.9]), torch.tensor([truth]), [0.5])
        assert math.isnan(rate(none)[0])


def test_the_corrected_share_undoes_the_observed_one() -> None:
    for share in (0.0, 0.2, 1.0):
        assert math.isclose(corrected_share(observed_share(share, ONE), ONE), share, abs_tol=1e-12)
    assert corrected_share(0.01, ONE) == 0.0  # below the false-positive rate
    with pytest.raises(ValueError, match="no better than chance"):
        corrected_share(0.3, Reviewer(0.5, 0.5))
    with pytest.raises(ValueError, match="sensitivity must be a share"):
        corrected_share(0.3, Reviewer(1.5, 0.5))


def test_simulated_reviewers_have_the_kappa_and_the_miss_rate_of_the_formulas() -> None:
    n, generator = 200_000, make_generator(0, "reviews")
    truth = torch.rand(n, generator=generator) < 0.2
    first = reviewed(truth, ONE, generator=generator)
    second = reviewed(truth, OTHER, generator=generator)
    # Standard errors are below .003 with 40,000 positives.
    assert abs(agreement(first, second) - expected_agreement(0.2, ONE, OTHER)) < 0.012
    flagged = torch.rand(n, generator=generator) < torch.where(truth, 0.8, 0.1)
    measured = float((~flagged & first).sum() / first.sum())
    expected = measured_miss_rate(0.2, miss=0.2, false_alarm=0.1, reviewer=ONE)
    assert math.isclose(expected, (0.2 * 0.9 * 0.2 + 0.8 * 0.05 * 0.9) / (0.18 + 0.04))
    assert abs(measured - expected) < 0.01
    perfect = Reviewer(1, 1)
    assert math.isclose(measured_miss_rate(0.2, miss=0.3, false_alarm=0.1, reviewer=perfect), 0.3)


def test_agreement_of_one_with_themselves_is_one_and_of_nothing_is_refused() -> None:
    some = torch.tensor([True, False, True])
    assert agreement(some, some) == 1
    with pytest.raises(ValueError, match="0/0"):
        agreement(some.new_ones(3), some.new_ones(3))
    with pytest.raises(ValueError, match="non-empty"):
        agreement(some[:0], some[:0])
    with pytest.raises(ValueError, match="0/0"):
        expected_agreement(0.0, Reviewer(1, 1), Reviewer(1, 1))


def test_a_queue_takes_the_highest_scores_first() -> None:
    truth = torch.tensor([True, False, True, True])
    scores = torch.tensor([0.1, 0.9, 0.8, 0.8])
    assert math.isclose(found_in_queue(scores, truth, 2), 1 / 3, rel_tol=1e-6)
    assert found_in_queue(scores, truth, 99) == 1
    with pytest.raises(ValueError, match="a positive among them"):
        found_in_queue(scores, ~truth.new_ones(4), 2)
    with pytest.raises(ValueError, match="capacity must be >= 1"):
        found_in_queue(scores, truth, 0)
