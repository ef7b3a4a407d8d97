"""The study `memorization`: what it derives, a small run, and the stored one."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from companion.core.seeds import make_generator
from companion.generalization.canaries import Canaries
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.grammar import VOCABULARY
from companion.studies import memorization
from companion.studies.runner import one_thread
from companion.training.config import TrainConfig


def quick(**changes: object) -> memorization.Config:
    settings = {
        "num_texts": 40, "few_texts": 10, "valid_texts": 10, "each": 1, "num_digits": 2,
        "model": LSTMConfig(vocabulary_size=len(VOCABULARY), embedding_size=8, hidden_size=12),
        "training": TrainConfig(epochs=3, num_streams=4, reset_state=0.1, warmup=0.1),
        "decay_epochs": 3, "dropout_epochs": 2, "few_epochs": 2, "repetitions": (0, 4), **changes,
    }  # fmt: skip
    return memorization.Config(**settings)  # type: ignore[arg-type]


def test_remedies_are_compared_at_the_lowest_loss_without_one() -> None:
    result = memorization.Result(
        floor_nats_per_token=2.0,
        valid_nats_per_token={
            "plain": [2.6, 2.43, 2.4, 2.5], "dropout 0.4": [2.7, 2.44, 2.39, 2.41],
            "weight decay 0.2": [2.7, 2.42, 2.5], "weight decay 1": [2.7, 2.6, 2.5],
            "few texts": [3.0, 3.5],
        },
        exposure_by_epoch={
            "plain": {"0": [1.0, 1.1, 1.2, 1.3], "4": [3.0, 8.0, 9.0, 16.0]},
            "dropout 0.4": {"4": [2.0, 4.0, 7.0, 8.0]},
            "weight decay 0.2": {"4": [2.0, 5.0, 6.0]},
            "weight decay 1": {"4": [2.0, 3.0, 4.0]},
            "few texts": {},
        },
    )  # fmt: skip
    memorization._compare(result, quick(margin=0.05))
    assert result.best_epoch == {
        "plain": 3, "dropout 0.4": 3, "weight decay 0.2": 2, "weight decay 1": 3, "few texts": 1,
    }  # fmt: skip
    assert result.lowest_nats_per_token == {
        "plain": 2.4, "dropout 0.4": 2.39, "weight decay 0.2": 2.42, "weight decay 1": 2.5,
        "few texts": 3.0,
    }  # fmt: skip
    assert result.best_exposure == {
        "plain": 9.0, "dropout 0.4": 7.0, "weight decay 0.2": 5.0, "weight decay 1": 4.0,
    }  # fmt: skip
    assert result.exposure == {"0": 1.3, "4": 16.0}
    assert result.early_exposure == {"0": 1.2, "4": 9.0}
    # Weight decay never is there; the weaker one comes within .05 of it.
    assert result.matched_exposure == pytest.approx({"plain": 9.0, "dropout 0.4": 6.4})
    assert result.near_exposure == pytest.approx(
        {
            "plain": 3 + 15 / 17 * 5,
            "dropout 0.4": 2 + 25 / 26 * 2,
            "weight decay 0.2": 2 + 25 / 28 * 3,
        }
    )


@pytest.mark.parametrize("name", ["_exposures", "_owners_found"])
def test_the_model_is_training_again_after_a_measurement_that_fails(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    canaries = Canaries(
        VOCABULARY, repetitions=(0, 4), each=2, num_digits=2, generator=make_generator(0)
    )
    size = len(canaries.vocabulary)
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=size, embedding_size=4, hidden_size=4))

    def stopped(*_: object) -> float:
        assert not model.training
        raise KeyboardInterrupt

    for measured in ("exposure", "owner_rank"):
        monkeypatch.setattr(Canaries, measured, stopped)
    more = {"_exposures": ((0, 4),), "_owners_found": ()}[name]
    with pytest.raises(KeyboardInterrupt):
        getattr(memorization, name)(model, canaries, *more)
    assert model.training


def test_a_loss_between_two_epochs_is_first_reached_on_a_straight_line() -> None:
    losses, bits = [3.0, 2.0, 2.5, 1.0], [4.0, 8.0, 9.0, 12.0]
    assert memorization._at_loss(losses, bits, 2.25) == 7.0
    assert memorization._at_loss(losses, bits, 2.0) == 8.0
    assert memorization._at_loss(losses, bits, 1.75) == 10.5
    assert memorization._at_loss(losses, bits, 3.5) == 4.0
    assert memorization._at_loss(losses, bits, 0.5) is None


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"matched must be one of the repetitions \(0, 4\), got 3"):
        quick(matched=3)
    with pytest.raises(ValueError, match="few_texts must be between 0 and num_texts = 40, got 61"):
        quick(few_texts=61)
    for name in ("few_epochs", "decay_epochs", "dropout_epochs"):
        with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
            quick(**{name: 0})
    with pytest.raises(ValueError, match=r"dropout must be different strengths, got \(0.4, 0.4\)"):
        quick(dropout=(0.4, 0.4))
    with pytest.raises(ValueError, match=r"weight_decay must be .* got -1"):
        quick(weight_decay=(0.2, -1.0))
    with pytest.raises(ValueError, match=r"dropout must be .* got 1.5"):
        quick(dropout=(1.5,))
    with pytest.raises(ValueError, match=r"margin must be >= 0 and finite, got -0.1"):
        quick(margin=-0.1)
    with pytest.raises(ValueError, match="training must have 1 epoch or more, got None"):
        quick(training=TrainConfig(steps=3))


def test_a_small_run_repeats_with_its_seed_and_is_json() -> None:
    with one_thread():
        one = memorization.run(quick(), seed=0)
        again = memorization.run(quick(), seed=0)
        other = memorization.run(quick(), seed=1)
    assert one == again
    assert one != other
    json.dumps(dataclasses.asdict(one), allow_nan=False)
    epochs = {"plain": 3, "weight decay 0.2": 3, "dropout 0.4": 2, "few texts": 2}
    for losses in (one.train_nats_per_token, one.valid_nats_per_token):
        assert {name: len(found) for name, found in losses.items()} == epochs
    assert {name: set(found) for name, found in one.exposure_by_epoch.items()} == {
        "plain": {"0", "4"}, "weight decay 0.2": {"4"}, "dropout 0.4": {"4"}, "few texts": set(),
    }  # fmt: skip
    every, matched = {"0", "4"}, {"4"}
    assert {name: set(found) for name, found in one.extracted.items()} == {
        "plain": every, "weight decay 0.2": matched, "dropout 0.4": matched, "few texts": every,
    }  # fmt: skip
    assert one.exposure["4"] == one.exposure_by_epoch["plain"]["4"][-1]
    assert len(one.owner_by_epoch["4"]) == 3
    assert set(one.owner_by_epoch) == set(one.wrong_name_exposure) == matched  # no controls
    assert 0 <= one.wrong_name_exposure["4"] <= 6.65  # 100 codes
    assert set(one.source_nats_per_token) == {"train", "few texts", "valid"}


def test_runs_differ_in_their_remedy_alone() -> None:
    """The first weights and the text are the same, so no remedy at all gives the same figures."""
    config = quick(weight_decay=(0.0, 30.0), dropout=(0.0, 0.9), dropout_epochs=3, few_texts=0)
    with one_thread():
        found = memorization.run(config, seed=0)
    assert set(found.source_nats_per_token) == {"train", "valid"}
    losses = found.valid_nats_per_token
    assert list(losses) == [
        "plain",
        "weight decay 0",
        "weight decay 30",
        "dropout 0",
        "dropout 0.9",
    ]
    for name in ("weight decay 0", "dropout 0"):
        assert losses[name] == losses["plain"]
        assert found.train_nats_per_token[name] == found.train_nats_per_token["plain"]
        assert found.exposure_by_epoch[name]["4"] == found.exposure_by_epoch["plain"]["4"]
    for name in ("weight decay 30", "dropout 0.9"):
        assert losses[name] != losses["plain"]


def test_few_texts_are_fewer_and_all_other_runs_read_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []

    def untrained(
        model: torch.nn.Module, ids: torch.Tensor, config: TrainConfig, **options: object
    ) -> None:
        read.append(len(ids))
        model.eval()

    monkeypatch.setattr(memorization, "train", untrained)
    monkeypatch.setattr(memorization, "_compare", lambda result, config: None)
    memorization.run(quick(), seed=0)
    assert len(read) == 4
    assert read[0] == read[1] == read[2]
    assert read[3] < read[0] / 2  # 10 texts of 40, and the same canaries


def test_remedies_have_a_run_for_each_strength_that_warms_up_like_the_plain_one() -> None:
    runs = quick(dropout=(0.1, 0.6), weight_decay=(0.05, 1.0), decay_epochs=6).runs()
    assert list(runs) == [
        "plain", "weight decay 0.05", "weight decay 1", "dropout 0.1", "dropout 0.6", "few texts",
    ]  # fmt: skip
    assert {name: run.model.dropout for name, run in runs.items() if run.model.dropout} == {
        "dropout 0.1": 0.1, "dropout 0.6": 0.6,
    }  # fmt: skip
    decays = {name: run.training.weight_decay for name, run in runs.items()}
    assert {name: decay for name, decay in decays.items() if decay} == {
        "weight decay 0.05": 0.05, "weight decay 1": 1.0,
    }  # fmt: skip
    epochs = {name: run.training.epochs for name, run in runs.items()}
    assert (epochs["plain"], epochs["weight decay 1"], epochs["dropout 0.6"]) == (3, 6, 2)
    for run in runs.values():
        assert run.training.warmup * run.training.epochs == pytest.approx(0.3)
    assert {name for name, run in runs.items() if run.num_texts != 40} == {"few texts"}
    assert "few texts" not in quick(few_texts=0).runs()


@pytest.mark.slow
def test_codes_are_known_before_the_model_overfits_and_few_texts_go_below_the_floor() -> None:
    """About 20 CPU seconds: 600 reviews, which overfit earlier than the study's 2,000."""
    config = memorization.Config(
        num_texts=600, few_texts=80, valid_texts=200, each=3, repetitions=(0, 4, 16),
        decay_epochs=1, dropout_epochs=1, few_epochs=25,
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
