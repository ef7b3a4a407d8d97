"""Dialogues: what is right at each turn, what the checker finds, and that training reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion.core.seeds import make_generator
from companion.text.batching import IGNORE
from companion.world.dialogue import (
    SAME,
    SLOTS,
    USER_WORDINGS,
    VALUES,
    Checker,
    DialogueState,
    act,
    as_text,
    check_dialogue,
    dialogue_tokenizer,
    phrase,
    read_reply,
    read_user,
    reply_wordings,
    slot_of,
    spaced,
    word_ids,
)
from companion.world.dialogue_model import (
    DialogueModelConfig,
    bot,
    new_dialogue_model,
    play,
    replies_to_history,
    reply_nats,
    self_chat,
    spoken,
    spoken_batch,
    train_dialogue_model,
    trained_further,
    wording_floor,
)
from companion.world.language import RESTRICTED
from companion.world.users import User, UserConfig, new_users, right_dialogues

ORDER = {"kind": "glane", "ingredient": "cedar", "day": "monday"}
#: Users who do everything that users can do.
BUSY = UserConfig(
    orders=(2, 3), volunteers=0.5, greets=0.5, backwards=True, corrects=0.7, interrupts=0.7,
    asks_back=0.7, forbidden=0.5, insists=0.5,
)  # fmt: skip

values_told = st.dictionaries(
    st.sampled_from(SLOTS), st.integers(0, 100), min_size=1, max_size=3
).map(lambda drawn: {slot: VALUES[slot][n % len(VALUES[slot])] for slot, n in drawn.items()})


def replies(*sentences: str) -> list[str]:
    """The expected reply, in its first wording, to each of these sentences of a user."""
    state, found = DialogueState(), []
    for sentence in sentences:
        state.hear(read_user(sentence))
        meant = state.reply()
        state.say(meant)
        found.append(reply_wordings(meant)[0])
    return found


def test_an_order_with_a_question_a_change_of_mind_and_a_reference_to_the_one_before() -> None:
    assert replies(
        "hello .", "i want a glane .", "which ingredient did i say ?", "of cedar please .",
        "for monday .", "no , of amber .", "yes .", "now a tweck of the same .",
        "for the same day .", "that is right .",
    ) == [
        "which kind ?", "a glane , which ingredient ?", "you have not said .",
        "a glane of cedar , which day ?", "a glane of cedar for monday ?",
        "a glane of amber for monday ?", "done : a glane of amber for monday .",
        "a tweck of amber , which day ?", "a tweck of amber for monday ?",
        "done : a tweck of amber for monday .",
    ]  # fmt: skip


def test_the_restricted_kind_is_refused_and_the_rest_of_the_order_kept() -> None:
    refusal = reply_wordings(act("refuse"))[0]
    assert replies(
        f"make me a {RESTRICTED} of clay .", "yes .", f"a {RESTRICTED} .", "no , a tweck .",
        "what ingredient was it ?",
    ) == [
        refusal, "of clay , which kind ?", refusal, "a tweck of clay , which day ?",
        "you said clay .",
    ]  # fmt: skip


def test_what_is_not_understood_changes_nothing_and_the_same_as_before_needs_a_before() -> None:
    assert replies("a glane .", "a glane for a glane .", "of the same .", "xyz")[1:] == (
        ["a glane , which ingredient ?"] * 3
    )


@given(values=values_told, data=st.data())
def test_every_sentence_is_read_as_what_it_means(
    values: dict[str, str], data: st.DataObject
) -> None:
    order = data.draw(st.permutations([slot for slot in SLOTS if slot in values]))
    for name in ("open", "answer", "correct", "another"):
        for wording in USER_WORDINGS[name]:
            assert read_user(wording.replace("*", phrase(values, order))) == act("tell", values)
    missing = next((slot for slot in SLOTS if slot not in values), "day")
    meanings = [act("ask", values, missing), act("ask", {}, missing), act("refuse"), act("unsaid")]
    meanings += [act("recall", {slot: value}) for slot, value in values.items()]
    if len(values) == len(SLOTS):
        meanings += [act("confirm", values), act("done", values)]
    for meant in meanings:
        assert len({*reply_wordings(meant)}) == len(reply_wordings(meant)) > 1
        assert all(read_reply(text) == meant for text in reply_wordings(meant))


@pytest.mark.parametrize("text", [
    "", "a glane", "which size ?", "a glane of cedar ?", "a glane of cedar for monday", "you said",
    "a glane of the same for monday ?", "a glane , a tweck , which day ?", "you said said .",
])  # fmt: skip
def test_what_is_no_sentence_of_the_bot_is_read_as_nothing(text: str) -> None:
    assert read_reply(text) is None


def test_no_value_belongs_to_two_slots() -> None:
    values = [value for some in VALUES.values() for value in some]
    assert len({*values, SAME}) == len(values) + 1
    assert all(slot_of(value) in SLOTS for value in values)
    with pytest.raises(ValueError, match="no slot has the value 'size'"):
        slot_of("size")


@pytest.mark.parametrize("config", [UserConfig(), BUSY])
def test_the_bot_that_is_always_right_is_judged_right_and_places_every_order(
    config: UserConfig,
) -> None:
    users = new_users(40, config, generator=make_generator(0))
    copies = new_users(40, config, generator=make_generator(0))
    dialogues = right_dialogues(40, config, generator=make_generator(1))
    for dialogue in dialogues:
        assert all(v.right and not v.contradicts for v in check_dialogue(dialogue))
        assert len(word_ids(as_text(dialogue))) > 0
    for user, copy in zip(users, copies, strict=True):
        last: dict[str, str] = {}
        said, state = user.speak(None), DialogueState()
        assert copy.speak(None) == said  # the same users from the same generator
        while said is not None:
            state.hear(read_user(said))
            meant = state.reply()
            state.say(meant)
            last = meant.order if meant.name == "done" else last
            said = user.speak(reply_wordings(meant)[-1])
        assert user.succeeded
        assert user.lost_patience == 0
        assert last == user.goals[-1]
        assert user.speak("done : a glane of cedar for monday .") is None  # it is over


@pytest.mark.parametrize(("reply", "judgement", "contradicts"), [
    ("so you want a glane of cedar for monday ?", "right", False),
    ("a glane of amber for monday ?", "wrong value", True),  # it repeated cedar before
    ("a glane of cedar for friday ?", "wrong value", False),  # of the day it has said nothing
    ("a florb of cedar for monday ?", "forbidden", True),
    ("a glane of cedar , which day ?", "asks again", False),
    ("a glane , which ingredient ?", "asks again", True),
    ("done : a glane of cedar for monday .", "wrong act", False),
    ("that is not allowed .", "wrong refusal", True),  # it has taken a glane before
    ("you said cedar .", "wrong act", False),
    ("you said amber .", "wrong act", True),
    ("a glane of of", "unreadable", False),
])  # fmt: skip
def test_the_checker_names_what_is_wrong_with_a_reply(
    reply: str, judgement: str, contradicts: bool
) -> None:
    turns = [
        ("i want a glane .", "a glane , which ingredient ?"),
        ("of cedar .", "a glane of cedar , tell me the day ."),
        ("for monday .", reply),
    ]
    verdicts = check_dialogue(turns)
    assert [verdict.judgement for verdict in verdicts] == ["right", "right", judgement]
    assert [verdict.contradicts for verdict in verdicts] == [False, False, contradicts]


def test_a_change_by_the_user_is_no_contradiction_and_a_forgotten_refusal_is_one() -> None:
    turns = [
        ("i want a glane of cedar for monday .", "a glane of cedar for monday ?"),
        ("no , of amber .", "a glane of amber for monday ?"),
        ("yes .", "done : a glane of amber for monday ."),
        ("now a florb .", "that is not allowed ."),
        ("a florb please .", "a florb , which ingredient ?"),
    ]
    verdicts = check_dialogue(turns)
    assert [verdict.contradicts for verdict in verdicts] == [False] * 4 + [True]
    assert verdicts[-1].judgement == "forbidden"


def test_a_consistent_mistake_is_wrong_and_no_contradiction() -> None:
    turns = [
        ("i want a glane of cedar for monday .", "a glane of amber for monday ?"),
        ("yes .", "done : a glane of amber for monday ."),
    ]
    assert [(v.judgement, v.contradicts) for v in check_dialogue(turns)] == [
        ("wrong value", False), ("wrong value", False),
    ]  # fmt: skip


class Always:
    """A bot that says one thing."""

    def __init__(self, text: str) -> None:
        self.text = text

    def reply(self, turns: Mapping[int, str]) -> dict[int, str]:
        return dict.fromkeys(turns, self.text)


@pytest.mark.parametrize(("text", "turns"), [
    ("nonsense", 3),
    ("sorry i cannot help with that .", 3),
    ("done : a glane of cedar for monday .", 1),
])  # fmt: skip
def test_users_give_up_on_a_bot_that_leads_nowhere(text: str, turns: int) -> None:
    config = UserConfig(forbidden=0.0, patience=3, orders=(1, 1))
    users = new_users(5, config, generator=make_generator(3))
    played = play(users, Always(text))
    assert not any(each.succeeded for each in played)
    assert all(len(each.turns) == turns for each in played)


def test_a_user_without_an_end_to_its_patience_never_gives_up() -> None:
    config = UserConfig(patience=None, orders=(1, 1))
    played = play(
        new_users(3, config, generator=make_generator(3)), Always("nonsense"), max_turns=30
    )
    assert all(len(each.turns) == 30 and not each.succeeded for each in played)


def test_an_order_of_the_restricted_kind_is_no_success_though_the_user_wanted_it() -> None:
    user = User(UserConfig(forbidden=1.0, orders=(1, 1)), generator=make_generator(0))
    user.speak(None)
    goal = {**user.goals[0], "kind": RESTRICTED}
    user.speak(reply_wordings(act("done", goal))[0])
    assert user.succeeded is False


def test_only_the_replies_and_their_ends_are_targets() -> None:
    turns = [("hello .", "which kind ?"), ("a glane .", "a glane , which ingredient ?")]
    tokens = dialogue_tokenizer().tokens
    batch = spoken_batch([spoken(turns), spoken(turns[:1]), spoken(turns[:1], "both")])
    told = [" ".join(tokens[i] for i in row[row != IGNORE]) for row in batch.targets]
    assert told == [
        "which kind ? <eos> a glane , which ingredient ? <eos>",
        "which kind ? <eos>",
        "user : hello . <eos> bot : which kind ? <eos>",
    ]
    assert len(spoken(turns, "both").learned) == int(spoken(turns, "both").learned.sum())


def test_the_floor_is_reached_by_a_model_that_knows_the_wordings_probabilities() -> None:
    turns = [("hello .", "which kind ?"), ("a florb .", "that is not allowed .")]
    assert wording_floor([turns]) == pytest.approx(math.log(3) + math.log(2))  # exact counts


@torch.no_grad()
def test_nats_of_replies_are_those_of_their_tokens_one_by_one() -> None:
    torch.manual_seed(0)
    model = new_dialogue_model(DialogueModelConfig(hidden_size=8, embedding_size=4)).eval()
    turns = right_dialogues(3, UserConfig(), generator=make_generator(0))
    nats, count = reply_nats(model, turns)
    by_hand, tokens = 0.0, 0
    for dialogue in turns:
        context = [dialogue_tokenizer().end_id]
        for said, reply in dialogue:
            context += dialogue_tokenizer().encode(f"user : {said}\nbot : ")
            for token in [*dialogue_tokenizer().encode(reply), dialogue_tokenizer().end_id]:
                logits, _ = model(torch.tensor([context]))
                by_hand -= float(torch.log_softmax(logits[0, -1].double(), dim=-1)[token])
                context.append(token)
                tokens += 1
    assert count == tokens
    assert nats == pytest.approx(by_hand, rel=1e-5)  # float32 sums
    alone, _ = reply_nats(model, turns, memory=False)
    assert alone != pytest.approx(nats, rel=1e-5)


def test_a_model_learns_one_dialogue_by_heart_and_then_places_its_order() -> None:
    config = DialogueModelConfig(
        hidden_size=48, embedding_size=16, steps=300, num_dialogues=1, one_wording=True,
        user=UserConfig(orders=(1, 1), forbidden=0.0),
    )  # fmt: skip
    model = train_dialogue_model(config, seed=0)
    turns = right_dialogues(
        1, config.user, generator=make_generator(0, "training dialogues"), wordings=1
    )
    found = replies_to_history(turns, bot(model, count=1))
    assert found == [[reply for _, reply in turns[0]]]
    users = new_users(1, config.user, generator=make_generator(0, "training dialogues"))
    played = play(users, bot(model, count=1))
    assert played[0].succeeded
    assert played[0].turns == turns[0]
    assert all(verdict.right for verdict in played[0].verdicts)


def test_a_model_of_both_sides_holds_the_dialogue_that_it_knows_with_itself() -> None:
    config = DialogueModelConfig(
        hidden_size=48, embedding_size=16, steps=300, num_dialogues=1, learned="both",
        user=UserConfig(orders=(1, 1), forbidden=0.0),
    )  # fmt: skip
    model = train_dialogue_model(config, seed=0)
    turns = right_dialogues(1, config.user, generator=make_generator(0, "training dialogues"))
    chats = self_chat(model, 4, generator=make_generator(1))
    assert sum(chat.turns == turns[0] for chat in chats) >= 2  # its user is sampled
    for chat in chats:
        assert len(chat.turns) == len(chat.verdicts) >= chat.understood
        assert chat.verdicts == tuple(check_dialogue(chat.turns))
    cut = self_chat(model, 2, generator=make_generator(1), max_turns=1)
    assert all(len(chat.turns) == 1 for chat in cut)


def test_further_training_leaves_the_bot_as_it_was() -> None:
    config = DialogueModelConfig(hidden_size=8, embedding_size=4, steps=3, num_dialogues=10)
    model = train_dialogue_model(config, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = trained_further(model, config, seed=1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not all(torch.equal(before[name], value) for name, value in other.state_dict().items())


def test_the_same_seed_trains_the_same_model_and_another_seed_another() -> None:
    config = DialogueModelConfig(hidden_size=8, embedding_size=4, steps=3, num_dialogues=20)
    one, two, other = (train_dialogue_model(config, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("text", "meant"), [
    ("I want a glane, of Cedar", "i want a glane , of cedar ."),
    ("yes.", "yes ."), ("which day did I say?", "which day did i say ?"), ("  ", ""),
])  # fmt: skip
def test_a_typed_sentence_is_put_into_the_form_of_the_dialogues(text: str, meant: str) -> None:
    assert spaced(text) == meant


def test_wrong_values_are_refused_with_the_rule() -> None:
    with pytest.raises(ValueError, match="unknown word 'pizza'"):
        word_ids("user : i want pizza .")
    with pytest.raises(ValueError, match=r"orders are fewest and most, 1 or more, got \(2, 1\)"):
        UserConfig(orders=(2, 1))
    with pytest.raises(ValueError, match=r"corrects must be in \[0, 1\], got 1.5"):
        UserConfig(corrects=1.5)
    with pytest.raises(ValueError, match="patience must be >= 1, got 0"):
        UserConfig(patience=0)
    with pytest.raises(ValueError, match="learned must be one of replies, both, got 'all'"):
        DialogueModelConfig(learned="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps must be >= 1, got 0"):
        DialogueModelConfig(steps=0)
    with pytest.raises(ValueError, match="count must be >= 1, got 0"):
        right_dialogues(0, UserConfig(), generator=make_generator(0))


def test_judging_before_anything_was_heard_asks_for_the_first_slot() -> None:
    assert Checker().judge("which kind ?").right
