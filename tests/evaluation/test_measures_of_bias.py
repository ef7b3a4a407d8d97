"""Measures of bias against closed forms, exact enumeration and known answers."""

from __future__ import annotations

import math

import pytest
import torch

from companion.core.seeds import make_generator
from companion.evaluation.bias import (
    Questionnaire,
    association_test,
    mean_interval,
    odds_ratio,
    rates_by_group,
)
from companion.models.base import LanguageModel
from companion.sources.planted import (
    LINKS,
    REVERSE,
    PlantedSource,
    Question,
    forward_questions,
    reverse_questions,
)


class TheSourceItself(LanguageModel):
    """A model that knows the source: its features are the states of the automaton."""

    def __init__(self, source: PlantedSource) -> None:
        super().__init__(source.vocabulary_size)
        self.source = source

    def features(self, inputs: torch.Tensor, state: object = None) -> tuple[torch.Tensor, object]:
        # The state before each token is the state after the input that stands there.
        following = torch.cat([inputs[:, 1:], inputs[:, :1]], dim=1)
        return self.source.walk(following), state

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return self.source.transition_probs[features].log()

    def initial_state(self, batch_size: int) -> torch.Tensor:
        return torch.zeros(batch_size)


def test_a_model_that_is_the_source_has_the_planted_log_odds() -> None:
    source = PlantedSource()
    templates = [forward_questions(link) for link in LINKS]
    templates += [reverse_questions(template) for template in REVERSE]
    asked = Questionnaire(templates, source.encode, vocabulary_size=source.vocabulary_size)
    found = asked(TheSourceItself(source))
    torch.testing.assert_close(found, torch.full((len(templates),), 1.5).double())


def test_a_question_needs_answers_of_one_token() -> None:
    question = Question("a", "b", ("two words",), ("c",), 1.0)
    with pytest.raises(ValueError, match="'two words' has 2"):
        Questionnaire([[question]], lambda text: [1] * len(text.split()), vocabulary_size=3)
    with pytest.raises(ValueError, match="a template or more"):
        Questionnaire([], lambda text: [1], vocabulary_size=3)


def test_the_odds_ratio_is_that_of_the_table_and_its_interval_covers() -> None:
    found = odds_ratio(torch.tensor([[400, 100], [150, 150]]))
    by_hand = math.log(150.5 * 400.5 / 150.5 / 100.5)
    assert math.isclose(found.value, by_hand)
    half = 1.959964 * math.sqrt(1 / 400.5 + 1 / 100.5 + 2 / 150.5)
    assert math.isclose(found.high - found.value, half, rel_tol=1e-6)
    assert math.isfinite(odds_ratio(torch.zeros(2, 2).long()).value)
    # Coverage of the 95 % interval over 400 tables: a wrong half width would show.
    generator = make_generator(0, "tables")
    p = torch.tensor([0.44, 0.16, 0.16, 0.24]).double()
    truth = math.log(0.44 * 0.24 / 0.16**2)
    drawn = torch.multinomial(p, 400 * 500, replacement=True, generator=generator).view(400, 500)
    inside = [odds_ratio(torch.bincount(row, minlength=4).view(2, 2)).holds(truth) for row in drawn]
    assert 0.91 < sum(inside) / 400 < 0.99  # .95, and 4 standard deviations are .044
    with pytest.raises(ValueError, match="2 by 2"):
        odds_ratio(torch.tensor([[1, -1], [1, 1]]))


def test_the_interval_of_a_mean_is_students() -> None:
    found = mean_interval([1.0, 2.0, 4.0])
    half = 4.302653 * math.sqrt((16 / 9 + 1 / 9 + 25 / 9) / 2 / 3)
    assert math.isclose(found.value, 7 / 3)
    assert math.isclose(found.high - found.value, half, rel_tol=1e-5)
    with pytest.raises(ValueError, match="two values"):
        mean_interval([1.0])
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        mean_interval([1.0, 2.0], level=95)


def test_association_is_two_where_the_sets_are_apart_and_small_where_they_are_not() -> None:
    against = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    instead = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    apart = association_test(instead, against, against, instead)
    assert math.isclose(apart.effect, 2)
    assert math.isclose(apart.p_value, 1 / 6)  # one of the C(4, 2) ways to deal
    turned = association_test(against, instead, against, instead)
    assert math.isclose(turned.effect, -2)
    assert math.isclose(turned.p_value, 1)
    generator = make_generator(0, "vectors")
    drawn = [torch.randn(4, 16, generator=generator) for _ in range(4 * 100)]
    p_values = [association_test(*drawn[4 * i : 4 * i + 4]).p_value for i in range(100)]
    small = sum(p <= 0.5 for p in p_values) / 100
    assert 0.3 < small < 0.72  # .51 without association, and four standard deviations are .2


def test_association_refuses_what_has_no_direction() -> None:
    some, none = torch.ones(2, 3), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="no direction"):
        association_test(some, none, some, some)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            association_test(some, torch.full((2, 3), bad), some, some)
    with pytest.raises(ValueError, match="no spread"):
        association_test(some, some, some, some)
    with pytest.raises(ValueError, match="two vectors or more"):
        association_test(some[:1], some, some, some)
    with pytest.raises(ValueError, match="ways to deal"):
        association_test(torch.ones(12, 2), torch.ones(12, 2), some[:, :2], some[:, :2])


def test_rates_by_group_by_hand_and_from_probabilities() -> None:
    scores = torch.tensor([0.9, 0.4, 0.6, 0.2, 0.7, 0.5])
    truth = torch.tensor([True, True, False, False, True, False])
    rates = rates_by_group(scores, truth, list("aaaabb"))
    assert (rates["a"].true_positive_rate, rates["a"].false_positive_rate) == (0.5, 0.5)
    assert (rates["a"].precision, rates["a"].base_rate, rates["a"].flagged) == (0.5, 0.5, 0.5)
    assert (rates["b"].true_positive_rate, rates["b"].false_positive_rate) == (1, 1)
    own = rates_by_group(scores, truth, list("aaaabb"), threshold={"a": 0.95, "b": 0.6})
    assert own["a"].flagged == 0
    assert math.isnan(own["a"].precision)  # of none flagged
    assert math.isnan(rates_by_group(scores[4:5], truth[4:5], ["b"])["b"].false_positive_rate)
    assert own["b"].precision == 1
    # Two kinds of example with exact probabilities are as many examples that are or are not.
    exact = rates_by_group(
        torch.tensor([0.75, 0.25]), torch.tensor([0.75, 0.25]), ["g", "g"],
        weights=torch.tensor([0.5, 0.5]),
    )["g"]  # fmt: skip
    assert math.isclose(exact.true_positive_rate, 0.75)
    assert math.isclose(exact.false_positive_rate, 0.25)
    assert math.isclose(exact.mean_score, exact.base_rate)
    with pytest.raises(ValueError, match="one length"):
        rates_by_group(scores, truth, list("aaaab"))
    with pytest.raises(ValueError, match=r"probabilities must be in \[0, 1\]"):
        rates_by_group(scores * math.nan, truth, list("aaaabb"))
    with pytest.raises(ValueError, match="none for the group 'b'"):
        rates_by_group(scores, truth, list("aaaabb"), threshold={"a": 0.5})
    with pytest.raises(ValueError, match="weights must be 6"):
        rates_by_group(scores, truth, list("aaaabb"), weights=-torch.ones(6))


def test_equal_precision_and_recall_forbid_equal_false_alarms() -> None:
    """Chouldechova 2017: FPR = p/(1-p) (1-PPV)/PPV TPR, in each group."""
    generator = make_generator(1, "scores")
    scores = torch.rand(400, generator=generator)
    truth = torch.rand(400, generator=generator) < scores
    for each in rates_by_group(scores, truth, ["a", "b"] * 200).values():
        odds = each.base_rate / (1 - each.base_rate)
        expected = odds * (1 - each.precision) / each.precision * each.true_positive_rate
        assert math.isclose(each.false_positive_rate, expected, rel_tol=1e-9)
