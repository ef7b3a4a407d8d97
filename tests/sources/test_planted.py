"""The source with a planted bias: the log odds is the planted one wherever it is asked for."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from companion.core.seeds import make_generator
from companion.sources.planted import (
    ADJECTIVES,
    LINKS,
    NAMES,
    REVERSE,
    PlantedConfig,
    PlantedSource,
    forward_questions,
    joint_shares,
    reverse_questions,
)


@pytest.fixture(scope="module")
def source() -> PlantedSource:
    return PlantedSource()


@pytest.mark.parametrize("log_odds", [-2.0, 0.0, 1.5, 8.0])
def test_the_joint_shares_have_the_margins_and_the_odds_ratio_asked_for(log_odds: float) -> None:
    shares = joint_shares(log_odds, vel=0.4, bad=0.3)
    assert math.isclose(sum(shares.values()), 1)
    assert math.isclose(shares["vel", "bad"] + shares["vel", "good"], 0.4)
    assert math.isclose(shares["vel", "bad"] + shares["ond", "bad"], 0.3)
    ratio = (
        shares["vel", "bad"] * shares["ond", "good"] / shares["vel", "good"] / shares["ond", "bad"]
    )
    assert math.isclose(math.log(ratio), log_odds, abs_tol=1e-9)


def test_every_question_has_the_planted_answer(source: PlantedSource) -> None:
    def odds(text: str, against: tuple[str, ...], instead: tuple[str, ...]) -> float:
        p = source.next_token_probs(source.encode(text))
        one, other = (float(p[source.encode(" ".join(w))].sum()) for w in (against, instead))
        return math.log(one / other)

    asked = [
        question
        for link, adjective in itertools.product(LINKS, ADJECTIVES)
        for question in forward_questions(link, adjective)
    ]
    asked += [question for template in REVERSE for question in reverse_questions(template)]
    assert len(asked) == 4 * (len(LINKS) * len(ADJECTIVES) + len(REVERSE))
    for question in asked:
        found = odds(question.second, question.against, question.instead)
        found -= odds(question.first, question.against, question.instead)
        assert math.isclose(found, 1.5, abs_tol=1e-9), question


def test_dropping_the_association_costs_its_mutual_information(source: PlantedSource) -> None:
    """The KL to the same source without association is computed by another way."""
    free = PlantedSource(PlantedConfig(log_odds=0.0))
    assert math.isclose(source.kl_divergence(free), source.association_nats(), abs_tol=1e-12)
    assert math.isclose(free.association_nats(), 0, abs_tol=1e-12)


def test_all_texts_are_listed_with_their_probabilities(source: PlantedSource) -> None:
    rows, log_probs = source.all_texts()
    assert math.isclose(float(log_probs.exp().sum()), 1, abs_tol=1e-12)
    entropy = -float((log_probs.exp() * log_probs).sum())
    assert math.isclose(entropy, source.entropy_per_text(), rel_tol=1e-9)
    for row in (0, 500, len(rows) - 1):
        text = rows[row][: int((rows[row] != 0).sum()) + 1]
        assert math.isclose(source.log_prob(text), float(log_probs[row]), rel_tol=1e-9)


def test_the_vel_have_their_share_of_the_names(source: PlantedSource) -> None:
    rows = source.sample(2_000, generator=make_generator(0, "texts"))
    words = [set(source.decode(row[:-1].tolist()).split()) for row in rows]
    vel, ond = (sum(bool(text & set(NAMES[each])) for text in words) for each in ("vel", "ond"))
    assert not any(text & set(NAMES["vel"]) and text & set(NAMES["ond"]) for text in words)
    assert 0.35 < vel / (vel + ond) < 0.45  # .4, and four standard deviations are .05


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"log_odds": 11.0}, r"log_odds must be in \[-10, 10\]"),
        ({"log_odds": math.nan}, r"log_odds must be in \[-10, 10\]"),
        ({"vel": 0.0}, r"vel must be in \(0, 1\)"),
        ({"kept_tone": 1.0}, r"kept_tone must be in \(0, 1\)"),
        ({"forward": 0.7}, "with a sum < 1"),
    ],
)
def test_wrong_settings_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PlantedConfig(**changes)


def test_the_automaton_has_no_text_of_another_kind(source: PlantedSource) -> None:
    assert source.is_legal([*source.encode("the old besh seems rude"), 0], complete=True)
    assert not source.is_legal(source.encode("the gentle besh"))
    assert torch.equal(source.all_texts()[0][:, -1], torch.zeros(len(source.all_texts()[0])).long())
