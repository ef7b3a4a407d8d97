"""The study `shortcut`: its reviews by hand, a model that only reads the place, and a short run."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from companion.core.seeds import make_generator
from companion.models.lstm import LSTMConfig
from companion.studies import shortcut
from companion.studies.runner import one_thread


def reviews(n: int, agreement: float, seed: int = 0) -> shortcut.Reviews:
    return shortcut.write_reviews(n, agreement=agreement, generator=make_generator(seed))


def test_the_label_is_the_sign_of_good_minus_bad_words() -> None:
    found = reviews(300, 0.95)
    for row in range(300):
        place, words = found.text(row).split(": ")
        score = sum((word in shortcut.GOOD) - (word in shortcut.BAD) for word in words.split())
        assert score != 0
        assert int(found.labels[row]) == (score > 0)
        assert place == shortcut.PLACES[int(found.places[row])]
        assert shortcut.GROUPS[int(found.groups[row])] == (
            f"{'positive' if score > 0 else 'negative'}, {place}"
        )
    assert len(set(shortcut.WORDS)) == len(shortcut.WORDS)


def test_the_place_agrees_as_often_as_asked_and_independently_of_the_label() -> None:
    for agreement in (0.0, 0.5, 0.95, 1.0):
        found = reviews(4000, agreement)
        agrees = (found.places == found.labels).double()
        # Four standard errors of 2,000 draws.
        bound = 4 * (agreement * (1 - agreement) / 2000) ** 0.5
        for label in (0, 1):
            mean = float(agrees[found.labels == label].mean())
            assert mean == pytest.approx(agreement, abs=bound + 1e-12)
        assert 0.46 < float(found.labels.double().mean()) < 0.54  # both alike


def test_wrong_requests_are_named() -> None:
    with pytest.raises(ValueError, match=r"each of methods must be one of plain, .*, got 'luck'"):
        shortcut.Config(methods=("plain", "luck"))
    with pytest.raises(ValueError, match=r"agreement must be in \(0, 1\), got 1"):
        shortcut.Config(agreement=1.0)
    with pytest.raises(ValueError, match="batch_size must be between 4 and num_train = 20, got 50"):
        shortcut.Config(num_train=20)
    with pytest.raises(ValueError, match=r"agreement in \[0, 1\], got 5, 12, 2"):
        reviews(5, 2.0)
    with pytest.raises(ValueError, match=r"method must be one of plain, .*, got 'luck'"):
        next(shortcut.training(reviews(60, 0.95), shortcut.Config(), "luck", seed=0))


def quick() -> shortcut.Config:
    model = LSTMConfig(vocabulary_size=len(shortcut.WORDS), embedding_size=8, hidden_size=8)
    return shortcut.Config(num_train=100, num_test=300, model=model, epochs=2)


def test_a_run_repeats_with_its_seed_and_measures_every_way() -> None:
    with one_thread():
        one = shortcut.run(quick(), seed=0)
        again = shortcut.run(quick(), seed=0)
    assert one == again
    json.dumps(dataclasses.asdict(one), allow_nan=False)
    assert set(one.flipped) == set(shortcut.METHODS)
    assert sum(one.training_groups.values()) == 100
    for method, curve in one.flipped_by_epoch.items():
        assert len(curve) == 2
        assert curve[-1] == one.flipped[method]
        assert one.worst_group[method] == min(one.group_accuracy[method].values())
        assert 0 <= one.ece_flipped[method] <= 1


def test_one_that_only_reads_the_place_is_right_where_it_agrees_and_wrong_where_not() -> None:
    """An early classifier is such a one: see the study's result. Here it is made by hand."""
    model = next(shortcut.training(reviews(100, 0.95), quick(), "plain", seed=0))

    def place_logits(model: object, tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(tokens[:, 0], 2) * 2.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shortcut, "label_logits", place_logits)
        assert shortcut.accuracy(model, reviews(500, 1.0)) == 1
        assert shortcut.accuracy(model, reviews(500, 0.0)) == 0
        flipped = shortcut.calibration(model, reviews(500, 0.0))
        # Sure by e**2 / (e**2 + 1) and never right: the error is the confidence.
        assert flipped.ece == pytest.approx(0.880797, abs=1e-5)
        halved = shortcut.calibration(model, reviews(500, 0.0), temperature=2.0)
        assert halved.ece == pytest.approx(0.731059, abs=1e-5)


@pytest.mark.slow
def test_a_plain_classifier_takes_the_shortcut_and_a_random_place_cures_it() -> None:
    """About 12 CPU seconds. Margins are half of what five seeds showed, or less."""
    config = shortcut.Config(methods=("plain", "place randomised"))
    begun = dataclasses.replace(config, methods=("plain",), epochs=1)
    with one_thread():
        found = shortcut.run(config, seed=5)
        early = [shortcut.run(begun, seed=seed).flipped["plain"] for seed in range(5, 10)]
    plain, cured = config.methods
    assert sum(early) / 5 < 0.5  # the shortcut comes first, though not with every seed
    assert found.in_distribution[plain] > 0.95
    assert found.in_distribution[plain] - found.flipped[plain] > 0.15
    assert found.worst_group[cured] - found.worst_group[plain] > 0.15
    assert found.ece[plain] < 0.03
    assert found.ece_flipped[plain] > 0.10
    assert found.ece_flipped[cured] < 0.03
