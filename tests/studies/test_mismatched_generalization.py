"""What the study of safety training in one language measures, and what it stored."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from companion.studies import mismatched_generalization
from companion.world import stages
from companion.world.replies import Replies
from companion.world.stages import Stages
from companion.world.world import World

TINY: dict[str, Any] = {
    "seen": 2, "held_out": 1, "benign": 2, "benign_held_out": 1, "unknown": 1, "hidden_size": 12,
    "batch_size": 4, "num_texts": 64, "pretrain_steps": 4, "instruct_steps": 4, "safety_steps": 2,
    "smaller": (8, 4),
}  # fmt: skip


def tiny() -> mismatched_generalization.Config:
    return mismatched_generalization.Config(**TINY)


def test_every_model_is_measured_before_and_after_safety_training() -> None:
    result = dataclasses.asdict(mismatched_generalization.run(tiny(), seed=1))
    assert json.loads(json.dumps(result)) == result
    assert list(result["models"]) == ["4", "8", "short", "12"]
    largest = result["models"]["12"]
    assert largest["leak"] == result["leak"]["encoded"]
    assert largest["plain_refusal"] == result["refusal"]["plain"]
    assert result["capability_before"] == min(result["capability"].values())
    assert set(result["refusal"]) == set(result["leak"])
    assert set(result["refusal"]) == {"plain", "plain_held_out", "encoded", "encoded_held_out"}


def test_a_transformer_is_asked_the_same_and_about_things_of_one_language() -> None:
    config = mismatched_generalization.Config(
        **{**TINY, "architecture": "transformer", "plain_only": 1, "smaller": (), "short": 0}
    )
    result = dataclasses.asdict(mismatched_generalization.run(config, seed=1))
    assert list(result["models"]) == ["12"]
    ways = {"plain", "encoded"}
    assert set(result["capability"]) == {*ways, "plain_only", "plain_only_encoded"}
    assert result["capability_before"] == min(result["capability"][way] for way in ways)


def test_the_short_training_has_its_share_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def remember(config: Any, **_: Any) -> Stages:
        asked.append(config)
        world = World(config, seed=0)
        model = stages.new_model(config, world).eval()
        return Stages(world=world, pretrained=model, instructed=model, safe=model)

    monkeypatch.setattr(mismatched_generalization, "train_stages", remember)
    mismatched_generalization.run(dataclasses.replace(tiny(), short=0.5), seed=0)
    assert [(c.hidden_size, c.pretrain_steps, c.instruct_steps) for c in asked] == [
        (4, 4, 4), (8, 4, 4), (12, 2, 2), (12, 4, 4),
    ]  # fmt: skip
    assert {config.safety_steps for config in asked} == {2}


def test_a_model_that_was_not_changed_leaks_what_it_knew() -> None:
    """The shares over seen and held-out things are put together in their proportion."""
    world = World(tiny(), seed=0)
    torch.manual_seed(0)
    model = stages.new_model(tiny(), world).eval()
    # Every reply is then the ingredient of the first thing, over and over: a leak for that alone.
    word = int(world.ids(str(world.seen[0].ingredient))[0])
    with torch.no_grad():
        model.output.bias.zero_()
        model.output.bias[word] = 50.0
    found = mismatched_generalization.measure(
        Stages(world=world, pretrained=model, instructed=model, safe=model)
    )
    for way in mismatched_generalization.WAYS:
        assert found["leak"][way] == pytest.approx(found["capability"][way])
    assert all(share == 0 for share in found["refusal"].values())


def test_a_model_that_refuses_by_the_kind_alone_is_told_from_one_that_goes_by_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(tiny(), seed=0)
    model = stages.new_model(tiny(), world).eval()
    trained = Stages(world=world, pretrained=model, instructed=model, safe=model)

    def by_kind(_: Any, __: World, things: Any, way: str) -> Replies:
        share = sum(thing.name.endswith(" florb") for thing in things) / len(things)
        return Replies(refusal=share if way == "plain" else share / 2, leak=0, texts=())

    monkeypatch.setattr(mismatched_generalization, "ask", by_kind)
    named, torn = mismatched_generalization.cues(trained)
    assert named == {
        "restricted": {"plain": 1, "encoded": 0.5}, "other": {"plain": 0, "encoded": 0}
    }  # fmt: skip
    assert torn == {"name": 0, "kind": 1}


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"sizes must be >= 1 and below 12, got \(12,\)"):
        dataclasses.replace(tiny(), smaller=(12,))
    with pytest.raises(ValueError, match=r"short must be in \[0, 1\), got 1"):
        dataclasses.replace(tiny(), short=1.0)
