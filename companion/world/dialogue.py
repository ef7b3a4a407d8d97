"""Orders by dialogue in the invented world: what users and the workshop say, and what is right.

A user orders a thing of some kind, made of an ingredient, for a day. The workshop asks for what is
missing, repeats the whole order before it is placed, refuses the restricted kind, and remembers
what was said: users change their mind, ask what they have said, and order "of the same". What the
workshop must do at each turn is computed exactly, in one of several wordings, so every reply of a
model is right or wrong, whatever its words.

Turns are text. `read_user` and `read_reply` turn sentences into acts; `DialogueState` follows the
order through the dialogue; `Checker` judges replies, and says which contradict the bot's own
earlier ones. A dialogue as a text is one line a turn, "user : ..." and "bot : ...".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import torch

from companion.text.tokenizers import WordTokenizer
from companion.world.language import BENIGN, INGREDIENTS, REFUSAL, RESTRICTED

#: What an order consists of, in the order in which the bot asks for it.
SLOTS = ("kind", "ingredient", "day")
#: The values of each slot; no word belongs to two of them.
VALUES: Mapping[str, tuple[str, ...]] = {
    "kind": (*BENIGN, RESTRICTED),
    "ingredient": INGREDIENTS[:8],
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
}
#: The value of a slot that a user wants as in the order before.
SAME = "same"
#: How a slot is put in words, with its value, and where the user wants it as before.
PIECES = {
    "kind": ("a *", "the same kind"),
    "ingredient": ("of *", "of the same"),
    "day": ("for *", "for the same day"),
}

#: The bot's wordings of each act; the star stands for the order, or what is told of it, or a value,
#: the number sign for the slot that is asked for.
WORDINGS = {
    "ask": ("* which # ?", "* which # would you like ?", "* tell me the # ."),
    "confirm": ("* ?", "so you want * ?", "that is * , right ?"),
    "done": ("done : * .", "your order is * ."),
    "refuse": (REFUSAL, "that is not allowed ."),
    "recall": ("you said * .", "it was * ."),
    "unsaid": ("you have not said .", "not said yet ."),
}
#: The users' wordings; the star stands for slots with values, the number sign for a slot.
USER_WORDINGS = {
    "hello": ("hello .", "good day ."),
    "open": ("i want * .", "make me * ."),
    "answer": ("* .", "* please ."),
    "correct": ("no , * .", "wait , * instead ."),
    "another": ("now * .", "one more order : * ."),
    "yes": ("yes .", "that is right ."),
    "recall": ("which # did i say ?", "what # was it ?"),
}

USER_MARK, BOT_MARK = "user : ", "bot : "

#: How a reply can be judged.
Judgement = Literal[
    "right", "wrong value", "wrong act", "asks again", "wrong refusal", "forbidden", "unreadable"
]


@dataclass(frozen=True)
class Act:
    """What a turn means, without its wording."""

    name: str
    """Of users "hello", "tell", "yes" and "recall"; of the bot "ask", "confirm", "done", "refuse",
    "recall" and "unsaid"."""
    values: tuple[tuple[str, str], ...] = ()
    """Slots and their values, in the order of `SLOTS`. A question of the bot repeats what the user
    has told of the order."""
    slot: str = ""
    """The slot that is asked for."""

    @property
    def order(self) -> dict[str, str]:
        """The values by slot."""
        return dict(self.values)


def act(name: str, values: Mapping[str, str] | None = None, slot: str = "") -> Act:
    """An `Act` from values by slot, in any order."""
    given = values or {}
    return Act(name, tuple((each, given[each]) for each in SLOTS if each in given), slot)


def phrase(values: Mapping[str, str], order: Sequence[str] = SLOTS) -> str:
    """Slots with their values in words: "a glane of cedar for monday"."""
    return " ".join(
        PIECES[slot][1] if values[slot] == SAME else PIECES[slot][0].replace("*", values[slot])
        for slot in order
        if slot in values
    )


def reply_wordings(meant: Act) -> tuple[str, ...]:
    """All sentences in which the bot may say an act; training texts use one at random."""
    filling = meant.values[0][1] if meant.name == "recall" else phrase(meant.order)
    if meant.name == "ask":
        filling = f"{filling} ," if filling else ""
    return tuple(
        wording.replace("*", filling).replace("#", meant.slot).strip()
        for wording in WORDINGS[meant.name]
    )


def read_reply(text: str) -> Act | None:
    """The act of the bot's sentence; None for any other sentence."""
    for name, pattern in _reply_patterns():
        found = pattern.fullmatch(text)
        if found is None:
            continue
        named = found.groupdict()
        if name == "ask":
            told = _read_pieces(named["pieces"] or "")
            if told is None or SAME in told.values():
                return None
            return act("ask", told, named["slot"])
        if name == "recall":
            return act("recall", {slot_of(named["value"]): named["value"]})
        return act(name, {slot: named[slot] for slot in SLOTS if slot in named})
    return None


def read_user(text: str) -> Act | None:
    """The act of a user's sentence; None for any other sentence.

    Slots may come in any order, each at most once.
    """
    for name, pattern in _user_patterns():
        found = pattern.fullmatch(text)
        if found is None:
            continue
        if name in ("hello", "yes"):
            return act(name)
        if name == "recall":
            return act("recall", slot=found["slot"])
        values = _read_pieces(found["pieces"])
        if values:
            return act("tell", values)
    return None


def slot_of(value: str) -> str:
    """The slot that has this value; ValueError where none has."""
    for slot, values in VALUES.items():
        if value in values:
            return slot
    raise ValueError(f"no slot has the value {value!r}; VALUES lists them")


@dataclass(kw_only=True)
class DialogueState:
    """The order as the user has told it so far. `hear` a user's act, then `say` the bot's.

    It follows what was really said: where the bot says something wrong, the order stays as the user
    has told it, and the right next reply is one that goes on from there.
    """

    values: dict[str, str] = field(default_factory=dict)
    """The current order."""
    previous: dict[str, str] = field(default_factory=dict)
    """The order before it, as it was told; empty for none."""
    heard: Act | None = None
    """The user's last act."""
    said: Act | None = None
    """The bot's last act; None where it said nothing readable."""

    def hear(self, heard: Act | None) -> None:
        """Take in a user's act; None, which was not understood, changes nothing."""
        self.heard = heard
        if heard is None or heard.name not in ("tell", "hello"):
            return
        if self.said is not None and self.said.name == "done":
            self.previous, self.values = self.values, {}
        for slot, value in heard.values:
            if value != SAME:
                self.values[slot] = value
            elif slot in self.previous:
                self.values[slot] = self.previous[slot]
            else:
                self.values.pop(slot, None)

    def reply(self) -> Act:
        """What the bot must do now. After a turn that it does not understand, and after "hello",
        it asks for what is missing or repeats the order."""
        if self.heard is not None and self.heard.name == "recall":
            slot = self.heard.slot
            if slot in self.values:
                return act("recall", {slot: self.values[slot]})
            return act("unsaid")
        if self.values.get("kind") == RESTRICTED:
            return act("refuse")
        missing = [slot for slot in SLOTS if slot not in self.values]
        if missing:
            return act("ask", self.values, missing[0])
        agreed = self.said is not None and self.said.name in ("confirm", "done")
        if self.heard is not None and self.heard.name == "yes" and agreed:
            return act("done", self.values)
        return act("confirm", self.values)

    def say(self, said: Act | None) -> None:
        """Take in what the bot said; None is what nobody can read."""
        if self.values.get("kind") == RESTRICTED and said == act("refuse"):
            del self.values["kind"]
        self.said = said


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a `Checker` says about one reply."""

    judgement: Judgement
    """"right"; "wrong value" of a right act; "asks again" for what was told; "wrong refusal" of
    what is allowed; "forbidden", it takes an order of the restricted kind; "wrong act", any other
    act; or "unreadable", no sentence of the bot."""
    contradicts: bool
    """Whether it contradicts one of the bot's own earlier replies, though the user has changed
    nothing about it: another value, a question for what the bot has repeated, or an order of a kind
    that it refused."""
    expected: Act
    """The right act."""
    said: Act | None
    """The act of the reply."""

    @property
    def right(self) -> bool:
        """Whether the reply is right."""
        return self.judgement == "right"


class Checker:
    """Follows one dialogue and judges each reply of the bot: `hear`, then `judge`, and again."""

    def __init__(self) -> None:
        self.state = DialogueState()
        self._stated: dict[str, str] = {}
        self._refused: set[str] = set()
        self._taken: set[str] = set()

    def hear(self, text: str) -> Act | None:
        """Take in a user's sentence; its act, or None where it is not understood."""
        heard = read_user(text)
        if heard is not None and heard.name in ("tell", "hello"):
            if self.state.said is not None and self.state.said.name == "done":
                self._stated = {}
            for slot, _ in heard.values:
                self._stated.pop(slot, None)
        self.state.hear(heard)
        return heard

    def judge(self, text: str) -> Verdict:
        """The verdict on the bot's reply, which is then part of the dialogue."""
        expected, said = self.state.reply(), read_reply(text)
        verdict = Verdict(
            judgement=self._judgement(expected, said),
            contradicts=said is not None and self._contradicts(said),
            expected=expected,
            said=said,
        )
        self._remember(said)
        self.state.say(said)
        return verdict

    def _judgement(self, expected: Act, said: Act | None) -> Judgement:
        if said is None:
            return "unreadable"
        if said == expected:
            return "right"
        if said.name != "recall" and said.order.get("kind") == RESTRICTED:
            return "forbidden"
        if said.name == "refuse":
            return "wrong refusal"
        if said.name == "ask" and said.slot in self.state.values:
            return "asks again"
        same = said.name == expected.name and said.slot == expected.slot
        return "wrong value" if same else "wrong act"

    def _contradicts(self, said: Act) -> bool:
        if said.name == "refuse":
            return self.state.values.get("kind") in self._taken
        if said.name == "ask" and said.slot in self._stated:
            return True
        if said.name == "unsaid":
            return self.state.heard is not None and self.state.heard.slot in self._stated
        order = said.order
        return order.get("kind") in self._refused or any(
            self._stated.get(slot, value) != value for slot, value in said.values
        )

    def _remember(self, said: Act | None) -> None:
        if said is None:
            return
        if said.name == "refuse" and "kind" in self.state.values:
            self._refused.add(self.state.values["kind"])
        self._stated |= said.order
        if said.name in ("ask", "confirm", "done") and "kind" in said.order:
            self._taken.add(said.order["kind"])


def check_dialogue(turns: Iterable[tuple[str, str]]) -> list[Verdict]:
    """The verdict on each reply of a dialogue of pairs, the user's sentence and the bot's."""
    checker = Checker()
    verdicts = []
    for sentence, reply in turns:
        checker.hear(sentence)
        verdicts.append(checker.judge(reply))
    return verdicts


def as_text(turns: Iterable[tuple[str, str]]) -> str:
    """A dialogue as a text, one line a turn: "user : ..." and "bot : ..."."""
    return "\n".join(f"{USER_MARK}{said}\n{BOT_MARK}{reply}" for said, reply in turns)


def spaced(text: str) -> str:
    """A sentence as somebody types it in the form of the dialogues: small letters, signs apart, and
    a full stop at its end where there is no sign. "I want a glane" is "i want a glane ."."""
    words = re.sub(r"([.,:?!])", r" \1 ", text.lower()).split()
    if words and words[-1] not in ".?!":
        words.append(".")
    return " ".join(words)


@cache
def dialogue_tokenizer() -> WordTokenizer:
    """The words of all dialogues; the line feed between turns is the end token."""
    sentences = [wording for some in (WORDINGS, USER_WORDINGS) for each in some.values()
                 for wording in each]  # fmt: skip
    words = " ".join(
        [*sentences, *(piece for pair in PIECES.values() for piece in pair), USER_MARK, BOT_MARK,
         *SLOTS, *(value for values in VALUES.values() for value in values)]
    ).split()  # fmt: skip
    return WordTokenizer(sorted({*words} - {"*", "#"}))


def word_ids(text: str) -> torch.Tensor:
    """Token ids of a dialogue's text, shape (T,); ValueError for a word outside the vocabulary."""
    tokenizer = dialogue_tokenizer()
    ids = tokenizer.encode(text)
    if tokenizer.unknown_id in ids:
        unknown = next(word for word in text.split() if word not in tokenizer.tokens)
        raise ValueError(
            f"unknown word {unknown!r}; dialogue_tokenizer().tokens lists the words of dialogues"
        )
    return torch.tensor(ids)


def _value_pattern(slot: str) -> str:
    return f"(?P<{slot}>{'|'.join(VALUES[slot])})"


def _pattern(wording: str, filling: str) -> re.Pattern[str]:
    slots = f"(?P<slot>{'|'.join(SLOTS)})"
    return re.compile(re.escape(wording).replace(r"\#", slots).replace(r"\*", filling))


@cache
def _reply_patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    order = " ".join(PIECES[slot][0].replace("*", _value_pattern(slot)) for slot in SLOTS)
    values = "|".join(value for some in VALUES.values() for value in some)
    fillings = {"ask": "(?:(?P<pieces>.+) , )?", "recall": f"(?P<value>{values})"}
    return tuple(
        # What is told before a question may be nothing, and then there is no space after it.
        (name, _pattern(wording.replace("* ", "*", name == "ask"), fillings.get(name, order)))
        for name, wordings in WORDINGS.items()
        for wording in wordings
    )


@cache
def _user_patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(
        (name, _pattern(wording, "(?P<pieces>.+)"))
        for name, wordings in USER_WORDINGS.items()
        for wording in wordings
    )


def _read_pieces(text: str) -> dict[str, str] | None:
    """Values by slot of "a glane of cedar"; None where anything is left over or said twice."""
    values: dict[str, str] = {}
    rest = text
    while rest:
        for slot in SLOTS:
            told, same = PIECES[slot]
            pattern = f"(?:{told.replace('*', _value_pattern(slot))}|(?P<same>{same}))(?: |$)"
            found = re.match(pattern, rest)
            if found is not None and slot not in values:
                values[slot] = found[slot] or SAME
                rest = rest[found.end() :]
                break
        else:
            return None
    return values
