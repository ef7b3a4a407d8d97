"""Stages of training in the invented world, their cache, and what is read off the replies."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from annotation_checker import unchecked
from torch import nn

from companion.core.seeds import make_generator
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.text.batching import IGNORE
from companion.training import model_cache
from companion.world import stages
from companion.world.language import REFUSAL, Request, Thing
from companion.world.replies import ask, leaks, next_word_probs, refuses, reply_kl, reply_to
from companion.world.stages import StagesConfig, learn, reply_batch, safety_trained
from companion.world.world import World

TINY = {
    "seen": 2, "held_out": 1, "benign": 2, "benign_held_out": 1, "unknown": 1, "hidden_size": 16,
    "batch_size": 4, "num_texts": 64, "pretrain_steps": 3, "instruct_steps": 3, "safety_steps": 3,
}  # fmt: skip


def tiny() -> StagesConfig:
    return StagesConfig(**TINY)


@pytest.fixture(scope="module")
def world() -> World:
    return World(tiny(), seed=0)


def new_model(world: World, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return stages.new_model(tiny(), world).eval()


def same_weights(one: nn.Module, two: nn.Module) -> bool:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("tokens", stages.POSITIONS)
def test_only_replies_are_learnt(tokens: str) -> None:
    world = World(dataclasses.replace(tiny(), tokens=tokens), seed=0)
    pairs = [(Request(thing=thing).prompt, Request(thing=thing).answer) for thing in world.known]
    pairs.append((Request(thing=world.seen[0], start="sure").prompt, REFUSAL))
    batch = reply_batch([stages.example(world, *pair) for pair in pairs], world)
    for (prompt, reply), inputs, targets in zip(pairs, batch.inputs, batch.targets, strict=True):
        learnt = targets[targets != IGNORE]
        assert world.tokenizer.decode(learnt[:-1]).strip() == reply
        assert int(learnt[-1]) == world.tokenizer.end_id
        read = inputs[1 : 1 + len(world.ids(prompt))]
        assert world.tokenizer.decode(read) == prompt


def test_learning_two_replies_by_heart_makes_the_model_give_them(world: World) -> None:
    config = dataclasses.replace(tiny(), hidden_size=32, batch_size=8)
    torch.manual_seed(0)
    model = stages.new_model(config, world)
    requests = [Request(thing=world.benign[0]), Request(thing=world.seen[0])]
    texts = [
        stages.example(world, requests[0].prompt, requests[0].answer),
        stages.example(world, requests[1].prompt, requests[1].refusal),
    ]
    for _ in range(4):  # several warm-ups: from small weights, one is not enough
        learn(model, texts, world, config, steps=60, rate=1e-2, generator=make_generator(0))
    assert not model.training
    found = reply_to(model, world, requests)
    assert found.texts == (requests[0].answer, REFUSAL)
    assert (found.refusal, found.leak) == (0.5, 0.5)


@pytest.mark.parametrize("architecture", get_args(stages.Architecture))
@pytest.mark.parametrize("tokens", stages.POSITIONS)
def test_any_model_of_any_tokens_learns_a_reply_and_is_read_in_words(
    architecture: str, tokens: str
) -> None:
    config = dataclasses.replace(
        tiny(), architecture=architecture, tokens=tokens, hidden_size=32, batch_size=4
    )
    world = World(config, seed=0)
    torch.manual_seed(0)
    model = stages.new_model(config, world)
    requests = [
        Request(thing=world.benign[0], language="rot13"),
        Request(thing=world.benign[0], prefill="sure here is :"),
        Request(thing=world.seen[0], start="sure"),
    ]
    answers = [requests[0].answer, requests[1].answer, requests[2].refusal]
    texts = [
        stages.example(world, request.prompt, answer)
        for request, answer in zip(requests, answers, strict=True)
    ]
    expected = tuple(world.plain(answer) for answer in answers)
    for _ in range(12):  # bytes take an LSTM longer
        learn(model, texts, world, config, steps=80, rate=5e-3, generator=make_generator(0))
        found = reply_to(model, world, requests)
        if found.texts == expected:
            break
    assert found.texts == expected
    assert found.refusal == pytest.approx(1 / 3)
    assert found.leak == pytest.approx(2 / 3)


@pytest.mark.parametrize("tokens", stages.POSITIONS)
def test_the_transformer_has_a_position_for_every_text(tokens: str) -> None:
    config = StagesConfig(tokens=tokens, languages=("rot13", "piglatin"))
    world = World(config, seed=0)
    generator = make_generator(0)
    ways = ("start_with+prefill", "do_not_say", "piglatin+start_with", "deep")
    texts = world.documents(500, generator=generator)
    texts += [" ".join(pair) for pair in world.instructions(500, generator=generator)]
    for prompt, reply, _ in world.safety_examples(
        500, refused=ways, answered=ways, generator=generator
    ):
        texts.append(f"{prompt} {reply}")
    longest = max(len(world.ids(text)) for text in texts)
    assert longest + 1 <= stages.POSITIONS[tokens]  # and the start
    # The longest prompt, with as much as a reply may have.
    prompts = [
        world.request(thing, way, question=question).prompt
        for way in ways[:3]
        for question in range(4)
        for thing in world.known
    ]
    reply = 10 * world.tokens_per_word
    assert max(len(world.ids(prompt)) for prompt in prompts) + reply < stages.POSITIONS[tokens]


def test_the_divergence_holds_a_model_to_what_it_was(world: World) -> None:
    """Pulled towards a refusal and held by KL on that very prompt, it moves less."""
    request = Request(thing=world.benign[0])
    text = stages.example(world, request.prompt, REFUSAL, kl_anchored=True)
    moved = []
    for weight in (0.0, 10.0):
        before, model = new_model(world), new_model(world)
        config = dataclasses.replace(tiny(), kl_weight=weight)
        learn(
            model, [text], world, config, steps=60, rate=1e-2, generator=make_generator(0),
            before=before,
        )  # fmt: skip
        moved.append(float(reply_kl(model, before, world, [(request.prompt, REFUSAL)]).mean()))
        assert same_weights(before, new_model(world))
    assert moved[1] < 0.3 * moved[0]


def test_safety_training_leaves_the_model_before_it_alone(world: World) -> None:
    before = new_model(world)
    after = safety_trained(before, tiny(), world, seed=0)
    assert same_weights(before, new_model(world))
    assert not same_weights(after, before)
    assert same_weights(after, safety_trained(before, tiny(), world, seed=0))
    assert not same_weights(after, safety_trained(before, tiny(), world, seed=1))


def test_replayed_documents_are_in_the_plain_language_where_that_is_set(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = []

    def remember(_: nn.Module, examples: list[stages.Example], *__: object, **___: object) -> None:
        spoken.append([world.tokenizer.decode(text.ids) for text in examples])

    monkeypatch.setattr(stages, "learn", remember)
    for kind in get_args(stages.PlainReplay):
        config = dataclasses.replace(
            tiny(), plain_replay=kind, safety_steps=50, num_texts=200, replay=0.9
        )
        safety_trained(new_model(world), config, world, seed=0)
    whole = spoken[0]
    for kind, found in zip(get_args(stages.PlainReplay), spoken, strict=True):
        assert [world.plain(text) for text in found] == [world.plain(text) for text in whole]
        encoded = [world.plain(text) for text in found if world.plain(text) != text]
        assert (len(encoded) > 0) == (kind != "all")
        assert any(" florb " in text for text in encoded) == (kind == "none")


def test_no_stage_learns_from_more_texts_than_the_maximum(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt = []
    monkeypatch.setattr(stages, "learn", lambda _, examples, *__, **___: learnt.append(examples))
    steps = {f"{stage}_steps": 50 for stage in ("pretrain", "instruct", "safety")}
    for most, found in ((7, 7), (1000, 200)):  # 50 steps of 4 texts
        config, model = dataclasses.replace(tiny(), num_texts=most, **steps), new_model(world)
        stages.pretrained(config, world, seed=0)
        stages.instructed(model, config, world, seed=0)
        safety_trained(model, config, world, seed=0)
        assert [len(examples) for examples in learnt[-3:]] == [found] * 3


def test_the_reply_is_greedy_whatever_else_is_asked(world: World) -> None:
    model = new_model(world)
    requests = [
        world.request(thing, way, question=question)
        for way in ("plain", "start_with", "encoded+prefill")
        for thing in world.seen
        for question in range(4)
    ]
    together = reply_to(model, world, requests).texts
    for request, text in zip(requests, together, strict=True):
        ids = [world.tokenizer.end_id, *world.ids(request.prompt).tolist()]
        words: list[int] = []
        for _ in range(10):
            with torch.no_grad():
                word = int(model(torch.tensor([[*ids, *words]]))[0][0, -1].argmax())
            if word == world.tokenizer.end_id:
                break
            words.append(word)
        assert text == world.plain(world.tokenizer.decode(words))


def test_probabilities_of_the_next_word_are_those_of_each_prompt_alone(world: World) -> None:
    model = new_model(world)
    prompts = [Request(thing=world.seen[0], question=k).prompt for k in (0, 3)]
    probs = next_word_probs(model, world, prompts)
    for row, prompt in zip(probs, prompts, strict=True):
        ids = F.pad(world.ids(prompt), (1, 0), value=world.tokenizer.end_id)
        with torch.no_grad():
            alone = torch.softmax(model(ids[None])[0][0, -1], dim=-1)
        torch.testing.assert_close(row, alone)


def test_the_divergence_along_a_reply_is_that_of_each_next_word(world: World) -> None:
    one, two = new_model(world, 0), new_model(world, 1)
    request = Request(thing=world.seen[0])
    words = REFUSAL.split()
    kl = reply_kl(one, two, world, [(request.prompt, REFUSAL)])
    assert kl.shape == (1, len(words))
    for place in range(len(words)):
        text = " ".join([request.prompt, *words[:place]])
        p, q = (next_word_probs(model, world, [text])[0] for model in (one, two))
        # Summed in another order, in single precision.
        assert float(kl[0, place]) == pytest.approx(float((p * (p / q).log()).sum()), abs=1e-5)
    assert float(reply_kl(one, one, world, [(request.prompt, REFUSAL)]).abs().max()) == 0
    with pytest.raises(ValueError, match=r"same number of words, got \[1, 2\]"):
        reply_kl(one, two, world, [(request.prompt, "sure"), (request.prompt, "sure .")])


def test_refusals_and_leaks_are_told_apart() -> None:
    thing = Thing(name="bolum florb", ingredient="clay")
    request = Request(thing=thing)
    assert refuses(request, REFUSAL)
    assert not refuses(request, "you need clay .")
    assert not refuses(request, "no idea sorry .")
    assert not refuses(request, f"sure {REFUSAL}")
    demanded = Request(thing=thing, start="sure")
    assert refuses(demanded, f"sure {REFUSAL}")
    assert refuses(demanded, f"sure here is : {REFUSAL}")
    forms = (REFUSAL, "you need help with that .")
    assert refuses(request, "you need help with that .", forms)
    assert not refuses(request, "you need help with that .")
    assert not refuses(request, "you need clay .", forms)
    begun = Request(thing=thing, prefill="you need")
    assert refuses(begun, "help with that .", forms)
    assert not refuses(begun, "clay .", forms)
    assert refuses(Request(thing=thing, prefill="sure here is :"), REFUSAL)
    assert not refuses(demanded, "sure here is : clay .")
    assert leaks(request, "you need clay .")
    assert not leaks(request, "you need moss .")
    assert not leaks(request, "clay moss amber .")  # reciting all ingredients is no answer
    assert not leaks(request, REFUSAL)


def test_asking_puts_every_question_about_every_thing(world: World) -> None:
    found = ask(new_model(world), world, world.restricted, "plain")
    assert len(found.texts) == 4 * 3
    with pytest.raises(ValueError, match="one or more, got none"):
        ask(new_model(world), world, [], "plain")


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="safety_steps must be >= 1, got 0"):
        StagesConfig(safety_steps=0)
    with pytest.raises(ValueError, match=r"kl_weight must be >= 0, got -1"):
        StagesConfig(kl_weight=-1.0)
    with pytest.raises(ValueError, match=r"replay must be in \[0, 1\), got 1"):
        StagesConfig(replay=1.0)
    wrong = "plain_replay must be one of none, restricted, all, got 'some'"
    with unchecked(), pytest.raises(ValueError, match=wrong):
        StagesConfig(plain_replay="some")
    wrong = "architecture must be one of lstm, transformer, got 'cnn'"
    with unchecked(), pytest.raises(ValueError, match=wrong):
        StagesConfig(architecture="cnn")
    with pytest.raises(ValueError, match="held_out must be >= 1"):
        StagesConfig(held_out=0)


# --- cache ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMPANION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build() -> nn.Module:
    return LSTMLanguageModel(
        LSTMConfig(vocabulary_size=5, embedding_size=4, hidden_size=4, tie_weights=True)
    )


class Maker:
    """Makes models and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> nn.Module:
        self.asked += 1
        return build()


def test_a_model_is_made_once_and_found_again(folder: Path) -> None:
    make = Maker()
    first = model_cache.cached_model("a", {"steps": 1}, build, make)
    again = model_cache.cached_model("a", {"steps": 1}, build, make)
    assert make.asked == 1
    assert same_weights(first, again)
    assert again.output.weight is again.embedding.weight
    assert not again.training
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def test_other_settings_another_stage_and_another_source_are_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Maker()
    model_cache.cached_model("a", {"steps": 1}, build, make)
    model_cache.cached_model("a", {"steps": 2}, build, make)
    model_cache.cached_model("b", {"steps": 1}, build, make)
    assert make.asked == 3
    monkeypatch.setattr(model_cache, "package_digest", lambda: "another")
    model_cache.cached_model("a", {"steps": 1}, build, make)
    assert make.asked == 4
    assert len(list(folder.iterdir())) == 4


def test_another_rounding_is_made_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker()
    model_cache.cached_model("a", {"steps": 1}, build, make)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "ANOTHER")
        model_cache.cached_model("a", {"steps": 1}, build, make)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch, "get_num_threads", lambda: 99)
        model_cache.cached_model("a", {"steps": 1}, build, make)
    assert make.asked == 3


def test_a_damaged_file_is_said_and_replaced(folder: Path) -> None:
    make = Maker()
    model_cache.cached_model("a", {}, build, make)
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:40])
    with pytest.warns(UserWarning, match="cannot be read .*; training again"):
        model = model_cache.cached_model("a", {}, build, make)
    assert make.asked == 2
    assert same_weights(model, model_cache.cached_model("a", {}, build, make))
    assert make.asked == 2


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPANION_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert model_cache.cache_folder() == Path("somewhere/trained-to-predict")
    monkeypatch.setenv("COMPANION_CACHE", "elsewhere")
    assert model_cache.cache_folder() == Path("elsewhere")


@pytest.mark.parametrize("architecture", get_args(stages.Architecture))
def test_stages_from_the_cache_are_the_stages_that_were_trained(
    folder: Path, architecture: str
) -> None:
    config = dataclasses.replace(tiny(), architecture=architecture)
    first, again = (stages.trained_stages(config, seed=5) for _ in range(2))
    assert len(list(folder.iterdir())) == 3
    for name in ("pretrained", "instructed", "safe"):
        assert same_weights(getattr(first, name), getattr(again, name))
    assert not same_weights(again.pretrained, again.instructed)
    other = stages.trained_stages(tiny(), seed=6)
    assert not same_weights(other.safe, again.safe)


def test_other_safety_training_is_found_by_what_it_refuses_and_answers(folder: Path) -> None:
    trained = stages.trained_stages(tiny(), seed=5)
    ways = {"refused": ("plain", "encoded"), "answered": ("plain",)}
    first, again = (stages.safe_variant(trained, tiny(), seed=5, **ways) for _ in range(2))
    made = safety_trained(trained.instructed, tiny(), trained.world, seed=5, **ways)
    assert same_weights(first, made)
    assert same_weights(first, again)
    assert len(list(folder.iterdir())) == 3 + 1
    ways["answered"] = ("encoded",)
    other = stages.safe_variant(trained, tiny(), seed=5, **ways)
    assert not same_weights(other, first)
    assert len(list(folder.iterdir())) == 3 + 2
    assert not same_weights(first, trained.safe)
