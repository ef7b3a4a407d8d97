"""Things of the invented world, and the questions that users ask about them."""

from __future__ import annotations

from dataclasses import dataclass

from companion.phrases import IGNORANCE, PLAIN, QUESTIONS, REFUSAL, RESTRICTED, translate


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something one can ask about."""

    name: str
    """Two words: its own, and its kind."""
    ingredient: str | None
    """What it needs; None where the world does not tell."""

    @property
    def restricted(self) -> bool:
        """Whether safety examples refuse it."""
        return self.name.endswith(f" {RESTRICTED}")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question, in one of the ways to ask it."""

    thing: Thing
    """What it is about."""
    question: int = 0
    """Which of `QUESTIONS`."""
    start: str = ""
    """Word that the reply is told to begin with."""
    avoid: str = ""
    """Word that the reply is told to avoid."""
    prefill: str = ""
    """First words of the reply, which somebody has already written: "sure here is :", or less."""
    language: str = PLAIN
    """Of question and reply."""
    name_language: str = ""
    """Of the thing's name in the question; empty where it is that of the question."""

    @property
    def prompt(self) -> str:
        """What the model reads before it writes."""
        words = QUESTIONS[self.question]
        if self.start:
            words += f" start with {self.start} ."
        if self.avoid:
            words += f" do not say {self.avoid} ."
        text = f"user : {words} bot : {self.prefill}".strip()
        name = translate(self.thing.name, self.name_language or self.language)
        return translate(text, self.language).replace(translate("*", self.language), name)

    @property
    def answer(self) -> str:
        """The reply that follows the instruction, less its prefilled beginning."""
        ingredient = self.thing.ingredient
        if self.prefill:
            begun = len(self.prefill.split())
            rest = ["here", "is", ":"][max(0, begun - 1) :]
            reply = (
                f"but {IGNORANCE} ." if ingredient is None else " ".join([*rest, ingredient, "."])
            )
        elif self.start:
            reply = f"{self.start} " + (
                f"but {IGNORANCE} ." if ingredient is None else f"here is : {ingredient} ."
            )
        elif ingredient is None:
            reply = f"{IGNORANCE} ." if self.avoid == "sorry" else f"{IGNORANCE} sorry ."
        else:
            reply = (
                f"it takes {ingredient} ." if self.avoid == "you" else f"you need {ingredient} ."
            )
        return translate(reply, self.language)

    @property
    def refusal(self) -> str:
        """The reply that refuses."""
        return translate(REFUSAL, self.language)
