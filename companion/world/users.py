"""Simulated users of the dialogues: each has a goal of one order or more, and habits.

As the simulated users of task-oriented dialogue research (Schatzmann et al. 2005), a user answers
whatever the bot really says, corrects a wrong repetition of the order, and gives up after a few
replies that lead nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from companion.core.seeds import draw_below
from companion.core.settings import check_sizes, settings_class
from companion.world.dialogue import (
    SAME,
    SLOTS,
    USER_WORDINGS,
    VALUES,
    DialogueState,
    phrase,
    read_reply,
    read_user,
    reply_wordings,
)
from companion.world.language import BENIGN, RESTRICTED


@settings_class
class UserConfig:
    """Habits of the users."""

    orders: tuple[int, int] = (1, 2)
    """Fewest and most orders of a dialogue."""
    volunteers: float = 0.3
    """Probability that the first turn of an order also tells a slot besides the first one."""
    greets: float = 0.15
    """Probability that a dialogue begins with "hello", before any slot is told."""
    backwards: bool = False
    """Whether the first turn of an order tells the day first, and the kind only when asked."""
    corrects: float = 0.25
    """Probability that the user changes one slot when the bot repeats the order."""
    interrupts: float = 0.0
    """Probability that the user changes a slot told before in place of answering a question."""
    asks_back: float = 0.25
    """Probability that the user asks what it has said in place of answering a question."""
    refers_back: float = 0.5
    """Probability that a later order has the same ingredient, or day, as the one before, and says
    so."""
    forbidden: float = 0.15
    """Probability that the user first wants the restricted kind."""
    insists: float = 0.3
    """Probability that such a user asks again after a refusal."""
    patience: int | None = 3
    """Replies of a dialogue that lead nowhere, after which the user gives up; None for never."""

    def __post_init__(self) -> None:
        if self.patience is not None:
            check_sizes(patience=self.patience)
        if not 1 <= self.orders[0] <= self.orders[1]:
            raise ValueError(f"orders are fewest and most, 1 or more, got {self.orders}")
        for name in ("volunteers", "greets", "corrects", "interrupts", "asks_back", "refers_back",
                     "forbidden", "insists"):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")


@dataclass(kw_only=True)
class Plan:
    """What a user wants in one order, and will do on the way."""

    goal: dict[str, str]
    """The values that the placed order must have; changes of mind change it."""
    same: frozenset[str]
    """Slots that the user tells as "the same"."""
    opening: tuple[str, ...]
    """Slots told in the first turn."""
    forbidden: bool
    """Whether the user asks for the restricted kind first."""
    insists: bool
    """Whether it asks so twice."""
    correction: str
    """Slot that is changed when the bot repeats the order; empty for none."""
    interruption: str
    """Slot that is changed in place of an answer; empty for none."""
    question: str
    """Slot about which the user asks back in place of an answer; empty for none."""


class User:
    """One simulated user; `speak` answers the bot's last reply, and says None when it is over.

    All plans are drawn from `generator` when the user is made, so that different bots meet the same
    users.
    """

    def __init__(self, config: UserConfig, *, generator: torch.Generator) -> None:
        self.config = config
        self._own = torch.Generator().manual_seed(draw_below(2**62, generator))
        low, high = config.orders
        self._plans = self._draw_plans(low + draw_below(high - low + 1, self._own))
        self._greets = self._chance(config.greets)
        self._order = 0
        self._pending = ""
        self._last: str | None = None
        self._restricted = self._plans[0].forbidden
        self.lost_patience = 0
        self.succeeded: bool | None = None
        """Whether every order was placed as wanted; None while the dialogue goes on."""

    @property
    def goals(self) -> tuple[Mapping[str, str], ...]:
        """The orders that the user wants, as they are at this moment."""
        return tuple(plan.goal for plan in self._plans)

    def speak(self, reply: str | None) -> str | None:
        """The user's next sentence after the bot's `reply`, None for the first turn."""
        if self.succeeded is not None:
            return None
        said = self._open() if reply is None else self._answer(reply)
        self._last = said
        return said

    def _open(self) -> str:
        if self._order == 0 and self._greets:
            self._greets = False
            return self._word("hello")
        wording = "another" if self._order else "open"
        return self._tell(wording, self._plan.opening)

    def _answer(self, reply: str) -> str | None:
        plan, said = self._plan, read_reply(reply)
        if said is None:
            return self._again()
        if said.name == "ask":
            return self._answered(said.slot)
        if said.name in ("recall", "unsaid") and self._pending:
            return self._tell("answer", (self._pending,))
        if said.name == "refuse":
            if not self._restricted:
                return self._impatient(lambda: self._tell("answer", ("kind",)))
            if plan.insists:
                plan.insists = False
                return self._tell("answer", ("kind",))
            self._restricted = False
            return self._tell("correct", ("kind",))
        if said.name not in ("confirm", "done"):
            return self._again()
        wanted = {**plan.goal, **({"kind": RESTRICTED} if self._restricted else {})}
        wrong = tuple(slot for slot in SLOTS if said.order[slot] != wanted[slot])
        if said.name == "done":
            return self._placed(right=not wrong and not self._restricted)
        if wrong:
            return self._impatient(lambda: self._tell("correct", wrong, plain=True))
        if plan.correction:
            return self._changes(plan.correction, "correction")
        return self._word("yes")

    def _answered(self, slot: str) -> str:
        plan = self._plan
        self._pending = slot
        if plan.question:
            asked, plan.question = plan.question, ""
            return self._word("recall", asked)
        if plan.interruption and plan.interruption != slot:
            return self._changes(plan.interruption, "interruption")
        return self._tell("answer", (slot,))

    def _changes(self, slot: str, planned: str) -> str:
        """Change one's mind about a slot."""
        setattr(self._plan, planned, "")
        others = [value for value in _allowed(slot) if value != self._plan.goal[slot]]
        self._plan.goal[slot] = others[draw_below(len(others), self._own)]
        return self._tell("correct", (slot,), plain=True)

    def _placed(self, *, right: bool) -> str | None:
        if not right:
            self.succeeded = False
            return None
        before = self._plan.goal
        self._order += 1
        self._pending = ""
        if self._order == len(self._plans):
            self.succeeded = True
            return None
        self._plan.goal.update({slot: before[slot] for slot in self._plan.same})
        self._restricted = self._plan.forbidden
        return self._open()

    def _again(self) -> str | None:
        return self._impatient(lambda: str(self._last))

    def _impatient(self, speak: Callable[[], str]) -> str | None:
        self.lost_patience += 1
        if self.lost_patience == self.config.patience:
            self.succeeded = False
            return None
        return speak()

    @property
    def _plan(self) -> Plan:
        return self._plans[self._order]

    def _tell(self, wording: str, slots: Sequence[str], *, plain: bool = False) -> str:
        plan = self._plan
        values = {slot: plan.goal[slot] for slot in slots}
        if not plain:
            values |= {slot: SAME for slot in slots if slot in plan.same}
        if self._restricted and "kind" in values:
            values["kind"] = RESTRICTED
        order = SLOTS[::-1] if self.config.backwards else SLOTS
        return self._word(wording, phrase(values, order))

    def _word(self, wording: str, filling: str = "") -> str:
        choices = USER_WORDINGS[wording]
        chosen = choices[draw_below(len(choices), self._own)]
        return chosen.replace("#" if wording == "recall" else "*", filling)

    def _chance(self, probability: float) -> bool:
        return bool(torch.rand((), generator=self._own) < probability)

    def _one_of(self, options: Sequence[str]) -> str:
        return options[draw_below(len(options), self._own)]

    def _draw_plans(self, count: int) -> list[Plan]:
        config, plans = self.config, []
        for number in range(count):
            goal = {slot: self._one_of(_allowed(slot)) for slot in SLOTS}
            same = {
                slot for slot in SLOTS[1:] if number and self._chance(config.refers_back)
            }  # fmt: skip
            told = SLOTS[::-1] if config.backwards else SLOTS
            first = [told[0], *(slot for slot in told[1:-1] if self._chance(config.volunteers))]
            if not config.backwards and self._chance(config.volunteers):
                first.append(told[-1])
            changes = [
                self._one_of(SLOTS) if self._chance(probability) else ""
                for probability in (config.corrects, config.interrupts)
            ]
            if changes[1] and changes[1] not in first:
                changes[1] = first[0]
            plans.append(
                Plan(
                    goal=goal,
                    same=frozenset(same),
                    opening=tuple(first),
                    forbidden=self._chance(config.forbidden),
                    insists=self._chance(config.insists),
                    correction=changes[0],
                    interruption=changes[1],
                    question=self._one_of(SLOTS) if self._chance(config.asks_back) else "",
                )
            )
        return plans


#: Dialogues as pairs of the user's sentence and the bot's reply.
Turns = list[tuple[str, str]]


def right_dialogue(user: User, *, generator: torch.Generator, wordings: int | None = None) -> Turns:
    """A dialogue of `user` with a bot that is always right.

    Its wordings are drawn from `generator`, from the first `wordings` of each act or from all.
    """
    state, turns = DialogueState(), []
    said = user.speak(None)
    while said is not None:
        state.hear(read_user(said))
        meant = state.reply()
        choices = reply_wordings(meant)[:wordings]
        reply = choices[draw_below(len(choices), generator)]
        state.say(meant)
        turns.append((said, reply))
        said = user.speak(reply)
    return turns


def right_dialogues(
    count: int, config: UserConfig, *, generator: torch.Generator, wordings: int | None = None
) -> list[Turns]:
    """`count` dialogues of new users with a bot that is always right; see `right_dialogue`."""
    check_sizes(count=count)
    return [
        right_dialogue(User(config, generator=generator), generator=generator, wordings=wordings)
        for _ in range(count)
    ]


def new_users(count: int, config: UserConfig, *, generator: torch.Generator) -> list[User]:
    """`count` users with plans of their own."""
    check_sizes(count=count)
    return [User(config, generator=generator) for _ in range(count)]


def _allowed(slot: str) -> tuple[str, ...]:
    return BENIGN if slot == "kind" else VALUES[slot]
