"""The study `dialogue`: its arithmetic by hand, its controls, and a tiny run."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from companion.core.seeds import make_generator
from companion.studies import dialogue as study
from companion.world.dialogue import WORDINGS
from companion.world.dialogue_model import DialogueModelConfig, training_dialogues
from companion.world.users import UserConfig, right_dialogues

pytest.importorskip("sacrebleu")

TINY = study.Config(
    bot=DialogueModelConfig(
        steps=4, hidden_size=8, embedding_size=4, batch_size=4, num_dialogues=30
    ),
    earlier=(1, 2), small=4, small_steps=2, wording_steps=3, single_steps=2,
    further=DialogueModelConfig(steps=2, batch_size=4, num_dialogues=10),
    both_early=1, orders=(1, 2), many=3, num_test=3, num_self=2,
)  # fmt: skip
BOTS = {"1", "2", "full", "small", "single turns", "one wording", "both sides", "sampled"}


@pytest.mark.slow
def test_a_tiny_run_fills_every_figure_and_json_holds_it() -> None:
    result = dataclasses.asdict(study.run(TINY, seed=0))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    for figure in ("nats_per_token", "perplexity", "bleu", "turn_accuracy", "success", "right",
                   "consistent", "judgements", "replies"):  # fmt: skip
        assert set(result[figure]) == BOTS
    for shares in result["judgements"].values():
        assert sum(shares.values()) == pytest.approx(1)
    both = {f"{kind} {orders}" for kind in ("usual", "everything") for orders in (1, 2)}
    every = {f"{kind} {orders}" for kind in TINY.users for orders in (1, 2)}
    patient = {f"{kind} 2 patient" for kind in TINY.users}
    for figure in ("by_user", "right_by_user", "turns_by_user"):
        assert {name: set(of) for name, of in result[figure].items()} == {
            "full": every | patient | {"usual 3"}, "more usual": both, "both users": both,
        }  # fmt: skip
    turns = result["turns_by_user"]["full"]
    assert turns["usual 2"] == TINY.bot.user.patience  # nothing that this bot says leads anywhere,
    assert turns["usual 2 patient"] == 40  # and who never gives up is sent away after these turns
    assert set(result["rank_correlation"]) == {"alike", "all", "without one wording"}
    assert set(result["self_chat"]) == {"early", "late"}
    assert 0 < result["floor_nats_per_token"] < min(result["nats_per_token"].values())


def test_rank_correlations_are_spearmans_and_perplexity_counts_downwards() -> None:
    result = study.Result(
        perplexity={"a": 1.1, "b": 1.2, "c": 3.0}, bleu={"a": 50.0, "b": 40.0, "c": 60.0},
        turn_accuracy={"a": 0.9, "b": 0.8, "c": 0.1}, consistent=dict.fromkeys("abc", 1.0),
        success={"a": 1.0, "b": 0.5, "c": 0.0},
    )  # fmt: skip
    found = study.rank_correlations(result, ["a", "b", "c"])
    assert found["perplexity"] == pytest.approx(1)
    assert found["turn_accuracy"] == pytest.approx(1)
    assert found["bleu"] == pytest.approx(-0.5)  # 1 - 6 * (1 + 1 + 4) / 24
    assert found["consistent"] == 0
    assert study.rank_correlations(result, ["a"]) == dict.fromkeys(study.METRICS, 0.0)


def test_a_right_reply_in_another_wording_has_less_bleu_than_a_wrong_value_in_the_same() -> None:
    dialogues = right_dialogues(60, UserConfig(), generator=make_generator(0))
    for seed in range(3):
        bleu = study.planted_bleu(dialogues, seed=seed)
        assert bleu["right"] < bleu["drawn again"] < 100
        assert bleu["right"] < bleu["wrong value"] < 100


def test_history_accuracy_counts_wordings_as_right_and_values_as_wrong() -> None:
    turns = [("i want a glane of cedar .", "a glane of cedar , which day ?"),
             ("for monday .", "a glane of cedar for monday ?")]  # fmt: skip
    replies = ["a glane of cedar , tell me the day .", "so you want a glane of amber for monday ?"]
    assert study.history_accuracy([turns], [replies]) == 0.5


def test_agreement_counts_yes_to_right_and_to_wrong_repetitions_of_a_whole_order() -> None:
    order = "a glane of cedar for monday"
    turns = [
        ("i want a glane .", "a glane , which ingredient ?"),
        ("of cedar for monday .", "a glane of amber for monday ?"),
        ("no , of cedar .", f"{order} ?"),
        ("wait , of clay instead .", f"{order} ?"),
        ("yes .", "a glane of clay for monday ?"),
        ("that is right .", "done : a glane of clay for monday ."),
    ]
    once = [("i want a glane of cedar for monday .", f"so you want {order} ?")]  # without an answer
    # The last repetition is of the right order, but after a yes it must be placed.
    assert study.agreement([turns, once]) == {True: [False], False: [False, True, True]}


def test_simulated_users_agree_with_no_wrong_repetition_and_with_most_right_ones() -> None:
    found = study.agreement(right_dialogues(200, UserConfig(), generator=make_generator(0)))
    assert found[False] == []
    assert 0.75 < sum(found[True]) / len(found[True]) < 0.85  # 1 / 1.25: a quarter correct once


def test_the_control_is_trained_on_both_kinds_of_users_by_turns() -> None:
    config = dataclasses.replace(TINY.bot, other_user=UserConfig(backwards=True, greets=0.0))
    first = [turns[0][0] for turns in training_dialogues(config, seed=1)]
    starts = [sentence.removeprefix("i want ").removeprefix("make me ") for sentence in first]
    assert all(text.startswith("for ") for text in starts[1::2])
    assert not any(text.startswith("for ") for text in starts[::2])


def test_one_wording_is_the_first_of_each_act() -> None:
    config = dataclasses.replace(TINY.bot, one_wording=True)
    replies = [reply for turns in training_dialogues(config, seed=1) for _, reply in turns]
    assert not any(reply.startswith(("so you want", "that is", "your order is", "it was"))
                   for reply in replies)  # fmt: skip
    assert WORDINGS["refuse"][1] not in replies


@pytest.mark.parametrize(("field", "value", "message"), [
    ("earlier", (0,), "earlier must be below bot.steps"),
    ("earlier", (2400,), "earlier must be below bot.steps = 2400"),
    ("both_early", 700, "both_early must be one of earlier"),
    ("orders", (0,), "orders must be one number or more, each >= 1"),
    ("orders", (), "orders must be one number or more, each >= 1"),
    ("num_test", 0, "num_test must be >= 1, got 0"),
])  # fmt: skip
def test_wrong_settings_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(study.Config(), **{field: value})
