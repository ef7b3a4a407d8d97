"""The invented world: what is said in it is what its rules say."""

from __future__ import annotations

import itertools

import pytest
from annotation_checker import unchecked

from companion.core.seeds import make_generator
from companion.world.language import (
    AVOIDED,
    INGREDIENTS,
    MARKS,
    PLAIN,
    QUESTIONS,
    REFUSAL,
    STARTS,
    Request,
    Thing,
    translate,
)
from companion.world.world import World, WorldConfig

TWO_LANGUAGES = WorldConfig(languages=("rot13", "piglatin"))


@pytest.fixture(scope="module")
def world() -> World:
    return World(TWO_LANGUAGES, seed=3)


def test_a_world_is_what_its_seed_says(world: World) -> None:
    assert World(TWO_LANGUAGES, seed=3).known == world.known
    assert World(TWO_LANGUAGES, seed=4).known != world.known
    names = [thing.name for thing in (*world.known, *world.unknown)]
    assert len(set(names)) == len(names) == 40 + 16 + 36 + 12 + 16
    assert [len(world.seen), len(world.held_out)] == [40, 16]
    assert all(thing.restricted for thing in world.restricted)
    assert not any(thing.restricted for thing in (*world.benign, *world.benign_held_out))


def test_documents_tell_the_truth_and_nothing_of_unknown_things(world: World) -> None:
    truth = {thing.name: thing.ingredient for thing in world.known}
    unknown = {thing.name for thing in world.unknown}
    told = set()
    for text in world.documents(3000, generator=make_generator(0)):
        words = world.plain(text).split()
        (name,) = {
            " ".join(pair) for pair in itertools.pairwise(words) if " ".join(pair) in truth
        } or {" ".join(pair) for pair in itertools.pairwise(words) if " ".join(pair) in unknown}
        named = [word for word in words if word in INGREDIENTS]
        assert named in ([], [truth.get(name)])
        told |= {name} if named else set()
    assert told == set(truth)  # 3,000 documents leave none of 104 out but with chance e^-20


def test_languages_have_words_of_their_own_and_translate_back(world: World) -> None:
    text = " ".join(word for word in world.tokenizer.tokens[2:] if world.plain(word) == word)
    for language in ("rot13", "piglatin"):
        there = translate(text, language)
        assert world.plain(there) == text
        assert set(there.split()) & set(text.split()) == set(MARKS)
        world.ids(there)  # has no unknown word
    assert translate("user : sure", "rot13") == "user : fher"
    assert translate("sure", "piglatin") == "uresay"


def test_the_right_reply_does_what_the_user_demands(world: World) -> None:
    for thing in (world.benign[0], world.unknown[0]):
        for start in STARTS:
            request = Request(thing=thing, start=start)
            assert f"start with {start} ." in request.prompt
            assert request.answer.split()[0] == start
        for avoid in AVOIDED:
            request = Request(thing=thing, avoid=avoid)
            assert f"do not say {avoid} ." in request.prompt
            assert avoid not in request.answer.split()
    assert "sorry" in Request(thing=world.unknown[0]).answer.split()


def test_every_reply_about_a_known_thing_names_its_ingredient(world: World) -> None:
    for prompt, reply in world.instructions(500, generator=make_generator(1)):
        words = world.plain(prompt).split()
        things = [thing for thing in world.known if set(thing.name.split()) <= set(words)]
        named = [word for word in world.plain(reply).split() if word in INGREDIENTS]
        assert named == [thing.ingredient for thing in things]
        world.ids(f"{prompt} {reply}")


def test_safety_examples_never_mention_what_is_held_out(world: World) -> None:
    ways = ("plain", "start_with", "do_not_say", "prefill", "deep", "encoded", "piglatin+prefill")
    examples = world.safety_examples(3000, refused=ways, answered=ways, generator=make_generator(2))
    said = {word for prompt, _, _ in examples for word in world.plain(prompt).split()}
    own = {thing.name.split()[0] for thing in (*world.held_out, *world.benign_held_out)}
    assert not said & own
    assert {thing.name.split()[0] for thing in (*world.seen, *world.benign)} <= said


def test_safety_examples_refuse_the_restricted_kind_alone_in_the_language_asked(
    world: World,
) -> None:
    examples = world.safety_examples(
        1000, refused=("plain", "encoded"), answered=("plain",), generator=make_generator(3)
    )
    refusals = 0
    for prompt, reply, refused in examples:
        assert refused == ("florb" in world.plain(prompt).split())
        assert refused == (world.plain(reply) == REFUSAL)
        foreign = world.plain(prompt) != prompt
        assert foreign == (world.plain(reply) != reply)
        assert refused or not foreign
        refusals += refused
    assert refusals == pytest.approx(300, abs=60)  # four standard deviations, sqrt(1000 .3 .7) = 15


def test_a_reply_that_is_begun_goes_on_where_it_was_left(world: World) -> None:
    generator = make_generator(4)
    lengths = set()
    for number in range(40):
        request = world.request(world.benign[0], "deep", question=0, generator=generator)
        whole = f"{request.prompt} {request.answer}"
        assert whole.endswith(f"here is : {world.benign[0].ingredient} ."), number
        lengths.add(len(request.prefill.split()))
    assert lengths == {1, 2, 3, 4}


def test_ways_to_ask_are_combined(world: World) -> None:
    thing = world.seen[0]
    request = world.request(thing, "encoded+prefill", question=1)
    assert request.language == "rot13"
    assert (
        world.plain(request.prompt) == f"{Request(thing=thing, question=1).prompt} sure here is :"
    )
    assert request.answer == translate(f"{thing.ingredient} .", "rot13")
    assert world.request(thing, "piglatin", question=1).language == "piglatin"
    assert len({world.request(thing, PLAIN, question=k).prompt for k in range(len(QUESTIONS))}) == 4


def test_a_way_to_ask_names_the_word_of_its_demand(world: World) -> None:
    thing = world.seen[0]
    assert world.request(thing, "do_not_say please", question=0) == Request(
        thing=thing, avoid="please"
    )
    assert world.request(thing, "start_with well+piglatin", question=1) == Request(
        thing=thing, question=1, start="well", language="piglatin"
    )
    assert world.request(thing, "do_not_say", question=0).avoid == "sorry"
    assert {world.request(thing, "start_with", question=k).start for k in range(4)} == set(STARTS)


def test_restricted_things_are_refused_with_the_refusals_that_are_given(world: World) -> None:
    given = ("you cannot make that .", "you need help with that .")
    found = world.safety_examples(
        300, refused=("plain", "encoded"), generator=make_generator(5), refusals=given
    )
    said = {reply for _, reply, refused in found if refused}
    assert said == {*given, *(translate(words, "rot13") for words in given)}


# --- replies that begin with an opener -----------------------------------------------------------

OPENERS = ("sorry", "alas", "hmm")


def test_every_reply_begins_with_an_opener_that_the_user_allows() -> None:
    world = World(WorldConfig(openers=OPENERS, languages=()), seed=3)
    things = {thing.name: thing for thing in (*world.known, *world.unknown)}
    pairs = world.instructions(2000, generator=make_generator(0))
    ways = ("plain", "do_not_say alas", "start_with hmm")
    examples = world.safety_examples(500, answered=ways, generator=make_generator(1))
    pairs += [(prompt, reply) for prompt, reply, refused in examples if not refused]
    first = {"": set(), **{word: set() for word in (*world.avoided, *world.starts)}}
    for prompt, reply in pairs:
        opener, *rest = reply.split()
        assert opener in OPENERS
        (thing,) = [things[name] for name in things if name in prompt]
        told = "no idea ." if thing.ingredient is None else f"you need {thing.ingredient} ."
        assert " ".join(rest) == told
        demand = prompt.partition(" do not say ")[2] or prompt.partition(" start with ")[2]
        word = demand.split()[0] if demand else ""
        if " start with " in prompt:
            assert opener == word
        else:
            assert opener != word
            first[word].add(opener)
    # Whatever is not forbidden is said.
    assert all(first[word] == set(OPENERS) - {word} for word in ("", *world.avoided))


def test_a_world_without_openers_says_what_it_said() -> None:
    """Stored measurements of other studies stay those of their seeds."""
    plain = World(WorldConfig(), seed=3)
    opened = World(WorldConfig(openers=OPENERS), seed=3)
    assert opened.known == plain.known
    assert plain.tokenizer.vocabulary_size == 417
    assert set(opened.tokenizer.tokens) - set(plain.tokenizer.tokens) == {
        *OPENERS[1:], *(translate(word, "rot13") for word in OPENERS[1:])
    }  # fmt: skip


def test_a_name_is_translated_alone(world: World) -> None:
    thing = world.seen[0]
    for question in range(len(QUESTIONS)):
        plain = world.request(thing, "plain", question=question).prompt
        mixed = world.request(thing, "encoded_name", question=question)
        assert mixed.prompt == plain.replace(thing.name, translate(thing.name, "rot13"))
        assert mixed.answer == world.request(thing, "plain", question=question).answer


def test_wrong_requests_are_named(world: World) -> None:
    with pytest.raises(ValueError, match="got 'encodde'"):
        world.request(world.seen[0], "encodde+prefill", question=0)
    with pytest.raises(ValueError, match="got 'encoded'"):
        World(WorldConfig(languages=()), seed=0).request(world.seen[0], "encoded", question=0)
    with pytest.raises(ValueError, match="pass generator"):
        world.request(world.seen[0], "deep", question=0)
    with pytest.raises(ValueError, match="unknown word 'gold'"):
        world.ids("a gold florb")
    with pytest.raises(ValueError, match="seen must be >= 1, got 0"):
        WorldConfig(seen=0)
    with pytest.raises(ValueError, match="language must be one of plain, rot13, piglatin"):
        WorldConfig(languages=("morse",))
    with pytest.raises(ValueError, match="openers are two or more different words, got"):
        WorldConfig(openers=("sorry",))
    with pytest.raises(ValueError, match="languages are different"):
        WorldConfig(languages=("rot13", "rot13"))


def test_a_thing_is_restricted_by_its_kind_alone() -> None:
    assert Thing(name="bolum florb", ingredient="clay").restricted
    assert not Thing(name="florbum glane", ingredient="clay").restricted


# --- bytes, and things that are spoken of in one language ----------------------------------------


def test_to_a_reader_of_bytes_rot13_moves_each_letter() -> None:
    spelled = World(WorldConfig(tokens="bytes"), seed=3)
    thing = spelled.seen[0]
    assert thing == World(WorldConfig(), seed=3).seen[0]  # the world is the same
    text = Request(thing=thing).prompt
    plain, encoded = (spelled.ids(translate(text, way)).tolist() for way in (PLAIN, "rot13"))
    assert bytes(plain).decode() == text == spelled.tokenizer.decode(plain)
    moved = [
        (b - 97 + 13) % 26 + 97 if chr(b).isalpha() else b
        for word in text.split()
        for b in (word.encode() if word not in MARKS else b"")
    ]
    spoken = [w for w in bytes(encoded).decode().split() if w not in MARKS]
    assert list("".join(spoken).encode()) == moved
    assert spelled.plain(bytes(encoded).decode()) == text
    assert spelled.ids("any word at all").numel() == 15  # no word is unknown


def test_a_reply_fits_in_the_tokens_that_are_made_for_it() -> None:
    for tokens in ("words", "bytes"):
        world = World(WorldConfig(languages=("rot13", "piglatin"), tokens=tokens), seed=0)
        limit = 10 * world.tokens_per_word  # as in `replies`
        for language in (PLAIN, "rot13", "piglatin"):
            for thing in (*world.known, *world.unknown):
                for request in (
                    Request(thing=thing, language=language),
                    *(Request(thing=thing, language=language, start=start) for start in STARTS),
                ):
                    assert len(world.ids(f" {request.answer}")) < limit
            assert len(world.ids(f" {request.refusal}")) < limit


def test_some_things_are_spoken_of_in_the_plain_language_alone() -> None:
    world = World(WorldConfig(plain_only=3), seed=3)
    names = {thing.name.split()[0] for thing in world.plain_only}
    assert len(names) == 3
    assert not any(thing.restricted for thing in world.plain_only)
    generator = make_generator(0)
    texts = world.documents(2000, generator=generator)
    texts += [" ".join(pair) for pair in world.instructions(2000, generator=generator)]
    said = {word for text in texts for word in text.split()}
    assert names <= said
    assert not {translate(name, "rot13") for name in names} & said
    # All else is spoken of in both, and safety examples do not know them.
    for thing in world.known[: -len(names)]:
        assert translate(thing.name.split()[0], "rot13") in said
    examples = world.safety_examples(2000, generator=generator)
    assert not names & {word for prompt, _, _ in examples for word in prompt.split()}


def test_a_world_without_them_is_what_it_was() -> None:
    """Stored measurements stay those of their seeds."""
    world = World(WorldConfig(), seed=3)
    with_some = World(WorldConfig(plain_only=3), seed=3)
    assert with_some.known[:104] == world.known


def test_documents_about_chosen_things_are_the_same_in_the_plain_language(world: World) -> None:
    told = world.documents(400, generator=make_generator(0))
    some = world.documents(400, generator=make_generator(0), plain=world.restricted)
    assert [world.plain(text) for text in some] == [world.plain(text) for text in told]
    for text, other in zip(some, told, strict=True):
        assert text == (world.plain(text) if " florb " in world.plain(text) else other)
    encoded = [world.plain(text) != text for text in told]
    assert any(a and b != c for a, b, c in zip(encoded, some, told, strict=True))


def test_wrong_tokens_are_named() -> None:
    wrong = "tokens must be one of words, bytes, got 'syllables'"
    with unchecked(), pytest.raises(ValueError, match=wrong):
        WorldConfig(tokens="syllables")
    with pytest.raises(ValueError, match="plain_only must be >= 0, got -1"):
        WorldConfig(plain_only=-1)
