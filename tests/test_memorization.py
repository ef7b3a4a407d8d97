"""The study `memorization`: what it derives, a small run, and the stored one."""

from __future__ import annotations

import dataclasses
import json

import pytest

from companion.studies import memorization, one_thread


def quick(**changes: object) -> memorization.Config:
    settings = {
        "num_texts": 40, "few_texts": 10, "valid_texts": 10, "each": 1, "num_digits": 2,
        "hidden_size": 12, "embedding_size": 8, "epochs": 3, "dropout_epochs": 2, "few_epochs": 2,
        "repetitions": (0, 4), "num_streams": 4, **changes,
    }  # fmt: skip
    return memorization.Config(**settings)  # type: ignore[arg-type]


def test_remedies_are_compared_at_the_lowest_loss_without_one() -> None:
    result = memorization.Result(
        floor_nats_per_token=2.0,
        valid_nats_per_token={
            "plain": [2.6, 2.4, 2.5], "dropout": [2.7, 2.45, 2.39], "weight decay": [2.7, 2.6, 2.5],
            "few texts": [3.0, 3.5],
        },
        exposure_by_epoch={
            "plain": {"0": [1.0, 1.1, 1.2], "4": [3.0, 9.0, 16.0]},
            "dropout": {"4": [2.0, 4.0, 7.0]},
            "weight decay": {"4": [2.0, 3.0, 4.0]},
            "few texts": {},
        },
    )  # fmt: skip
    memorization._compare(result, quick())
    assert result.best_epoch == {"plain": 2, "dropout": 3, "weight decay": 3, "few texts": 1}
    assert result.exposure == {"0": 1.2, "4": 16.0}
    assert result.early_exposure == {"0": 1.1, "4": 9.0}
    assert result.matched_exposure == {"plain": 9.0, "dropout": 7.0}  # weight decay never is there


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"matched must be one of the repetitions \(0, 4\), got 3"):
        quick(matched=3)
    with pytest.raises(ValueError, match="few_texts must be between 1 and num_texts = 40, got 61"):
        quick(few_texts=61)
    with pytest.raises(ValueError, match="few_epochs must be >= 1, got 3, 2 and 0"):
        quick(few_epochs=0)


def test_a_small_run_repeats_with_its_seed_and_is_json() -> None:
    with one_thread():
        one = memorization.run(quick(), seed=0)
        again = memorization.run(quick(), seed=0)
        other = memorization.run(quick(), seed=1)
    assert one == again
    assert one != other
    json.dumps(dataclasses.asdict(one), allow_nan=False)
    epochs = {"plain": 3, "weight decay": 3, "dropout": 2, "few texts": 2}
    for losses in (one.train_nats_per_token, one.valid_nats_per_token):
        assert {name: len(found) for name, found in losses.items()} == epochs
    assert {name: set(found) for name, found in one.exposure_by_epoch.items()} == {
        "plain": {"0", "4"}, "weight decay": {"4"}, "dropout": {"4"}, "few texts": set(),
    }  # fmt: skip
    every, matched = {"0", "4"}, {"4"}
    assert {name: set(found) for name, found in one.extracted.items()} == {
        "plain": every, "weight decay": matched, "dropout": matched, "few texts": every,
    }  # fmt: skip
    assert one.exposure["4"] == one.exposure_by_epoch["plain"]["4"][-1]
    assert set(one.source_nats_per_token) == {"train", "few texts", "valid"}


def test_runs_differ_in_their_remedy_alone() -> None:
    """The first weights and the text are the same, so no remedy at all gives the same figures."""
    with one_thread():
        found = memorization.run(quick(weight_decay=0.0, dropout=0.0, dropout_epochs=3), seed=0)
    for name in ("weight decay", "dropout"):
        assert found.valid_nats_per_token[name] == found.valid_nats_per_token["plain"]
        assert found.train_nats_per_token[name] == found.train_nats_per_token["plain"]
        assert found.exposure_by_epoch[name]["4"] == found.exposure_by_epoch["plain"]["4"]


@pytest.mark.slow
def test_codes_are_known_before_the_model_overfits_and_few_texts_go_below_the_floor() -> None:
    """About 20 CPU seconds: 600 reviews, which overfit earlier than the study's 2,000."""
    config = memorization.Config(
        num_texts=600, few_texts=80, valid_texts=200, each=3, repetitions=(0, 4, 16), epochs=12,
        dropout_epochs=1, few_epochs=25,
    )  # fmt: skip
    with one_thread():
        found = memorization.run(config, seed=103)
    bits = found.exposure_by_epoch["plain"]
    assert bits["4"][-1] > 13  # 15.2 and 15.3 with seeds 103 and 104
    assert sum(bits["0"]) / 12 < 5
    early = found.best_epoch["plain"]
    assert early < 12  # 8 and 9
    assert bits["16"][early - 1] > 14  # 16.3: known at the lowest validation loss
    assert bits["4"][early - 1] > 11  # 14.6 and 14.7
    floors = found.source_nats_per_token
    few = found.valid_nats_per_token["few texts"]
    assert found.train_nats_per_token["few texts"][-1] < floors["few texts"] - 0.5  # by .93, 1.02
    assert few[-1] > min(few) + 0.2  # by .50 and .44
    assert min(found.valid_nats_per_token["plain"]) > floors["valid"]
