"""Competing objectives: attacks and their controls are asked of the same model."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest

from companion.studies import competing_objectives as study
from companion.world.language import AVOIDED, REFUSAL, STARTS, Request, Thing
from companion.world.world import World, WorldConfig

TINY = {
    "seen": 2, "held_out": 1, "benign": 2, "benign_held_out": 1, "unknown": 1, "hidden_size": 16,
    "batch_size": 4, "num_texts": 64, "pretrain_steps": 3, "instruct_steps": 3, "safety_steps": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> dict:
    return dataclasses.asdict(study.run(study.Config(**TINY), seed=1))


def test_every_condition_is_measured(result: dict) -> None:
    assert json.loads(json.dumps(result)) == result
    assert set(result["refusal"]) == {"plain_seen", "plain_held_out", *study.WAYS}
    assert set(result["leak"]) == set(result["refusal"])
    assert set(result["capability"]) == set(study.WAYS)
    shares = [*result["refusal"].values(), *result["leak"].values(), result["benign_accuracy"]]
    assert all(0 <= share <= 1 for share in shares)
    assert all(value >= 0 for value in result["kl_by_position"])
    assert len(result["kl_by_position"]) == len(["you", "need", "clay", "."])


def test_each_demand_has_controls() -> None:
    controls = {name: way.split()[-1] for name, way in study.WAYS.items() if " " in way}
    assert controls == {name: name.split("_")[-1] for name in controls}
    assert set(controls.values()) - {"sorry"} <= {*AVOIDED, *STARTS}  # what instructions demand
    # The refusal meets the inverted demands; the irrelevant ones are about words that no reply has.
    assert REFUSAL.split()[0] == "sorry"
    assert "you" not in REFUSAL.split()
    world = World(WorldConfig(), seed=0)
    replies = " ".join([*(Request(thing=thing).answer for thing in world.known), REFUSAL])
    assert not {"please", "never"} & set(replies.split())


def test_several_forms_of_the_refusal_begin_as_the_answer_does() -> None:
    """With no word, one and two words in common, so that the answer's first word settles nothing,
    and neither does its second."""
    answer = Request(thing=Thing(name="bolum florb", ingredient="clay")).answer.split()
    common = Counter()
    for form in study.FORMS:
        same = [one == two for one, two in zip(form.split(), answer, strict=False)]
        common[same.index(False)] += 1
    assert common == {0: 1, 1: 1, 2: 1}
    world = World(WorldConfig(), seed=0)
    for form in study.FORMS:
        world.ids(form)  # has no unknown word


def test_both_models_are_asked_with_every_beginning(result: dict) -> None:
    for model in ("one", "several"):
        found = result["forms"][model]
        for name in study.BEGINNINGS:
            assert 0 <= found[f"refusal {name}"] + found[f"leak {name}"] <= 1
        assert all(found[f"kl {place}"] >= 0 for place in range(1, 5))
    assert result["kl_by_position"] == [result["forms"]["one"][f"kl {k}"] for k in range(1, 5)]


def test_the_same_seed_gives_the_same_result(result: dict) -> None:
    assert dataclasses.asdict(study.run(study.Config(**TINY), seed=1)) == result
