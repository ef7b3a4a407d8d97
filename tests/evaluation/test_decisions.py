"""Decisions: counts by hand, scikit-learn as a reference, thresholds and shares in closed form."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion.evaluation.classification import class_scores
from companion.evaluation.decisions import cost_threshold, decide, with_share

P = torch.tensor([0.9, 0.6, 0.6, 0.4, 0.1])
TRUE = torch.tensor([True, False, True, True, False])


def test_counts_and_ratios_by_hand():
    found = decide(P, TRUE, [0.0, 0.5, 0.6, 0.95])
    assert found.true_positives.tolist() == [3, 2, 2, 0]
    assert found.false_positives.tolist() == [2, 1, 1, 0]
    assert found.false_negatives.tolist() == [0, 1, 1, 3]
    assert found.true_negatives.tolist() == [0, 1, 1, 2]
    assert found.precision.tolist() == pytest.approx([3 / 5, 2 / 3, 2 / 3, 0])
    assert found.recall.tolist() == pytest.approx([1, 2 / 3, 2 / 3, 0])
    assert found.f1.tolist() == pytest.approx([6 / 8, 2 / 3, 2 / 3, 0])
    assert found.accuracy.tolist() == pytest.approx([3 / 5, 3 / 5, 3 / 5, 2 / 5])
    cost = found.cost(miss=10, false_alarm=1)
    assert cost.tolist() == pytest.approx([2 / 5, 11 / 5, 11 / 5, 30 / 5])


@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=30),
    st.integers(0, 8),
)
def test_they_are_scikit_learns(pairs, threshold):
    from sklearn.metrics import precision_recall_fscore_support

    p = torch.tensor([k / 8 for k, _ in pairs])
    truth = torch.tensor([label for _, label in pairs])
    found = decide(p, truth, [threshold / 8])
    reference = precision_recall_fscore_support(
        truth.numpy(), (p >= threshold / 8).numpy(), average="binary", zero_division=0
    )
    ours = (float(found.precision), float(found.recall), float(found.f1))
    assert ours == pytest.approx(tuple(map(float, reference[:3])))


def test_the_cost_threshold_has_the_lowest_cost_where_probabilities_are_true():
    """A calibrated world: of the examples with p = k/20, exactly k of 20 are positive."""
    p = torch.cat([torch.full((20,), k / 20) for k in range(21)])
    truth = torch.cat([torch.arange(20) < k for k in range(21)])
    thresholds = [0.025 + 0.05 * k for k in range(20)]
    for miss, false_alarm in ((1.0, 1.0), (4.0, 1.0), (1.0, 3.0)):
        cost = decide(p, truth, thresholds).cost(miss=miss, false_alarm=false_alarm)
        best = cost_threshold(miss=miss, false_alarm=false_alarm)
        at_best = decide(p, truth, [best]).cost(miss=miss, false_alarm=false_alarm)
        assert float(at_best) <= float(cost.min()) + 1e-12
    assert cost_threshold(miss=4, false_alarm=1) == 0.2
    assert cost_threshold(miss=1, false_alarm=1) == 0.5


def test_another_share_multiplies_the_odds():
    p = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0])
    found = with_share(p, before=0.5, after=0.1)
    expected = [x / 9 / (x / 9 + 1 - x) for x in p.tolist()]
    assert found.tolist() == pytest.approx(expected, abs=1e-7)
    assert with_share(p, before=0.3, after=0.3).tolist() == pytest.approx(p.tolist(), abs=1e-7)
    back = with_share(found, before=0.1, after=0.5)
    assert back.tolist() == pytest.approx(p.tolist(), abs=1e-6)


def test_the_new_share_is_right_in_a_world_that_can_be_counted():
    """Two words; positives say the first with 3/4, negatives with 1/4. Bayes at 1/2 and at 1/10."""
    at_half = 0.75 * 0.5 / (0.75 * 0.5 + 0.25 * 0.5)
    at_tenth = 0.75 * 0.1 / (0.75 * 0.1 + 0.25 * 0.9)
    found = with_share(torch.tensor([at_half]), before=0.5, after=0.1)
    assert float(found) == pytest.approx(at_tenth, abs=1e-7)


def test_scores_of_each_class_by_hand():
    targets, found = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([0, 0, 1, 1, 1])
    first, second, third, fourth = class_scores(found, targets, 4)
    assert (first.precision, first.recall, first.support) == (1.0, pytest.approx(2 / 3), 3)
    assert (second.precision, second.recall, second.f1) == (pytest.approx(1 / 3), 1.0, 0.5)
    assert (third.precision, third.recall, third.f1, third.support) == (0, 0, 0, 1)
    assert fourth.support == 0
    with pytest.raises(ValueError, match="non-empty"):
        class_scores(targets[:0], targets[:0], 2)
    with pytest.raises(ValueError, match="targets must be classes from 0 to 1, got 2"):
        class_scores(found, targets, 2)
    with pytest.raises(ValueError, match="predictions must be classes from 0 to 3, got -1"):
        class_scores(found - 1, targets, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_probability_reaches_a_threshold_that_is_written_alike(dtype):
    """In binary 0.9 is rounded down in float32 and 0.1 up: compared across precisions, one of the
    two would miss its own threshold."""
    steps = [k / 100 for k in range(1, 100)]
    p = torch.tensor(steps, dtype=dtype)
    found = decide(p, torch.ones(len(p), dtype=torch.bool), steps)
    assert found.true_positives.tolist() == list(range(len(steps), 0, -1))
    assert found.thresholds.tolist() == steps


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="non-empty"):
        decide(P[:0], TRUE[:0], [0.5])
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 0.1 to 1.5"):
        decide(torch.tensor([0.1, 1.5]), TRUE[:2], [0.5])
    for thresholds in ([], [0.5, math.nan]):
        with pytest.raises(ValueError, match="thresholds must be one number or more"):
            decide(P, TRUE, thresholds)
    for wrong in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="miss must be a cost > 0"):
            cost_threshold(miss=wrong, false_alarm=1)
    with pytest.raises(ValueError, match=r"after must be a share in \(0, 1\), got 1"):
        with_share(P, before=0.5, after=1.0)
