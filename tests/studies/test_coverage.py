"""What the study of safety data and their gaps measures, and what it stored."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from torch import nn

from companion.core.seeds import make_generator
from companion.studies import coverage
from companion.world import stages
from companion.world.language import MARKS, translate
from companion.world.replies import ask
from companion.world.world import World

TINY: dict[str, Any] = {
    "seen": 2, "held_out": 1, "benign": 2, "benign_held_out": 1, "unknown": 1, "hidden_size": 12,
    "batch_size": 4, "num_texts": 64, "pretrain_steps": 3, "instruct_steps": 3, "safety_steps": 2,
}  # fmt: skip


def tiny() -> coverage.Config:
    return coverage.Config(**TINY)


@pytest.fixture(scope="module")
def world() -> World:
    return World(tiny(), seed=0)


@pytest.fixture(scope="module")
def model(world: World) -> nn.Module:
    torch.manual_seed(0)
    return stages.new_model(tiny(), world).eval()


def test_every_safety_data_is_measured_in_every_way() -> None:
    result = dataclasses.asdict(coverage.run(tiny(), seed=1))
    assert json.loads(json.dumps(result)) == result
    rows = {*coverage.DATA, "all_longer", "adapted"}
    assert set(result["refusal"]) == set(result["leak"]) == set(result["benign"]) == rows
    for name in rows:
        assert set(result["leak"][name]) == set(tiny().ways)
        assert set(result["benign"][name]) == {"plain", "encoded", "third"}
    assert result["capability_before"] == min(result["capability"].values())


def test_no_safety_data_has_a_word_of_the_third_language(world: World) -> None:
    spoken = {translate(word, "piglatin") for word in world.tokenizer.tokens} - set(MARKS)
    spoken &= set(world.tokenizer.tokens)
    for refused, answered in coverage.DATA.values():
        examples = world.safety_examples(
            300, refused=refused, answered=answered, generator=make_generator(0)
        )
        assert not spoken & {word for prompt, reply, _ in examples for word in
                             f"{prompt} {reply}".split()}  # fmt: skip
    third = world.request(world.seen[0], tiny().ways["third"], question=0).prompt
    assert set(third.split()) - set(MARKS) <= spoken


def test_shares_over_seen_and_held_out_things_are_those_over_all(
    world: World, model: nn.Module
) -> None:
    refusal, leak, benign = coverage.measure(model, world, tiny())
    for name, way in tiny().ways.items():
        whole = ask(model, world, world.restricted, way)
        assert refusal[name] == pytest.approx(whole.refusal)
        assert leak[name] == pytest.approx(whole.leak)
    others = world.benign + world.benign_held_out
    assert benign["third"] == ask(model, world, others, "piglatin").leak


@pytest.fixture(scope="module")
def detected() -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """By an untrained model, in a world of full size."""
    config = dataclasses.replace(coverage.Config(), hidden_size=8)
    world = World(config, seed=0)
    torch.manual_seed(0)
    model = stages.new_model(config, world).eval()
    return coverage.detect(model, world, config, seed=0)


@pytest.mark.parametrize("detector", ["likelihood", "unknown"])
def test_words_that_safety_data_lack_give_a_prompt_away(detected: Any, detector: str) -> None:
    """No word of another language is in the data, so every prompt in one is stranger than all."""
    abstained, area = (figures[detector] for figures in detected)
    for kind in ("restricted encoded", "restricted third", "benign encoded", "benign third"):
        assert abstained[kind] == 1
        assert area[kind] == 1


def test_the_detector_knows_the_demands_of_the_safety_data_and_is_not_upset_by_a_name(
    detected: Any,
) -> None:
    abstained, area = (figures["likelihood"] for figures in detected)
    # 5 % of familiar questions are over the threshold; 8 new things make 32 prompts.
    assert abstained["benign plain"] <= 0.25
    assert area["benign plain"] < 0.8
    assert abstained["restricted start_with"] <= 0.5


def test_a_list_of_words_passes_every_new_name_and_nothing_that_is_begun(detected: Any) -> None:
    """A new name is one unknown word, as in the familiar questions; two are in "sure here is"."""
    abstained, area = (figures["unknown"] for figures in detected)
    assert abstained["benign plain"] == abstained["restricted plain"] == 0
    assert area["benign plain"] == 0.5
    assert abstained["restricted prefill"] == 1
    assert coverage.unknown_words({"a", "b"}, ["a c b d d", "b"]).tolist() == [3, 0]


def test_longer_training_has_as_many_examples_of_each_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of each way that is refused, with the default steps; nothing is trained or asked here."""
    made = []

    def remember(chat: Any, config: Any, _: World, **ways: Any) -> Any:
        examples = config.safety_steps * config.batch_size * (1 - config.replay)
        made.append((ways["refused"], ways["answered"], round(examples / len(ways["refused"]))))
        return chat

    monkeypatch.setattr(coverage, "safety_trained", remember)
    monkeypatch.setattr(coverage, "measure", lambda *_: ({}, {}, {}))
    monkeypatch.setattr(coverage, "detect", lambda *_, **__: ({}, {}))
    config = dataclasses.replace(tiny(), safety_steps=160, batch_size=40)
    for name in ("pretrained", "instructed"):
        monkeypatch.setattr(
            coverage, name, lambda *_, **__: stages.new_model(config, World(config, seed=0)).eval()
        )
    coverage.run(config, seed=0)
    names = [*coverage.DATA, "all_longer"]
    count = {name: size for name, (_, _, size) in zip(names, made, strict=False)}
    assert made[names.index("all_longer")][:2] == coverage.DATA["all"]
    assert count["all_longer"] == count["deep"] == count["parity"]


def test_surprisal_is_the_mean_of_the_words_after_the_start(world: World) -> None:
    text = world.request(world.benign[0], "plain", question=0).prompt
    heard = coverage.prompt_model([text] * 500, world)
    # Each word has one follower, but ":", after which the prompt goes on or ends, each as often.
    expected = math.log(2) / len(text.split())
    assert coverage.surprisal(heard, world, [text])[0] == pytest.approx(expected, abs=0.01)
    strange = coverage.surprisal(heard, world, [translate(text, "rot13")])[0]
    assert strange > 5


def test_a_uniform_model_is_as_unsure_as_can_be(world: World) -> None:
    flat = stages.new_model(tiny(), world).eval()
    with torch.no_grad():
        for weights in flat.parameters():
            weights.zero_()
    text = world.request(world.benign[0], "plain", question=0).prompt
    expected = 1 - 1 / world.tokenizer.vocabulary_size
    assert coverage.unsureness(flat, world, [text])[0] == pytest.approx(expected, abs=1e-6)


def test_adaptation_leaves_the_model_it_goes_on_from_alone(world: World, model: nn.Module) -> None:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    after = coverage.adapted(model, world, tiny(), seed=0)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert not torch.equal(after.output.weight, model.output.weight)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"a second and a third one, got \('rot13',\)"):
        dataclasses.replace(tiny(), languages=("rot13",))
    with pytest.raises(ValueError, match=r"abstain must be in \(0, 1\), got 0"):
        dataclasses.replace(tiny(), abstain=0.0)
    with pytest.raises(ValueError, match=r"longer must be >= 1, got 0.5"):
        dataclasses.replace(tiny(), longer=0.5)
