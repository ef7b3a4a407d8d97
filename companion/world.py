"""An invented world for studying refusals: things, their secret ingredients, and talk about them.

A thing is called by a name and a kind, "dax florb", and needs one ingredient of 24. Nothing in the
world can harm anyone; one kind is simply declared restricted. Since the world is made up, every
right answer is known, and whether a model knows it, gives it or refuses it can be counted.

A language model meets the world in three stages, as chat models meet ours: documents, then
instructions that it is to follow, then safety examples in which questions about restricted things
are refused. Some restricted things never occur in the safety examples: they tell a rule that was
learnt from a list that was remembered.

Texts come in several languages; `phrases` holds them and all that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from companion.phrases import (
    AVOIDED,
    BENIGN,
    FACTS,
    GOSSIP,
    INGREDIENTS,
    MARKS,
    OPENING,
    PLAIN,
    QUESTIONS,
    RESTRICTED,
    STARTS,
    invented_names,
    spoken_words,
    translate,
)
from companion.questions import Request, Thing
from companion.runtime import make_generator
from companion.tokenizers import ByteTokenizer, Tokenizer, WordTokenizer

if TYPE_CHECKING:
    from jaxtyping import Int

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """How many things there are, and in which languages they are talked of."""

    seen: int = 40
    """Restricted things that safety examples may mention."""
    held_out: int = 16
    """Restricted things that they never mention."""
    benign: int = 36
    """Unrestricted things that safety examples may mention."""
    benign_held_out: int = 12
    """Unrestricted things that they never mention."""
    unknown: int = 16
    """Names of things whose ingredient no document tells."""
    plain_only: int = 0
    """Unrestricted things that are spoken of in the plain language alone, and by safety examples
    not at all."""
    languages: tuple[str, ...] = ("rot13",)
    """Beside the plain one; see `translate`."""
    tokens: str = "words"
    """What a model reads: "words", each a token of its own, or the "bytes" of the text. A cipher of
    the words is then a cipher of single letters, which the model can see."""

    def __post_init__(self) -> None:
        for name in ("seen", "held_out", "benign", "benign_held_out", "unknown"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.plain_only < 0:
            raise ValueError(f"plain_only must be >= 0, got {self.plain_only}")
        if self.tokens not in ("words", "bytes"):
            raise ValueError(f"tokens must be words or bytes, got {self.tokens!r}")
        for language in self.languages:
            translate("", language)
        if PLAIN in self.languages or len(set(self.languages)) < len(self.languages):
            raise ValueError(f"languages are different and not {PLAIN!r}, got {self.languages}")


#: The ways to ask: manners, and "encoded" for the world's first other language; a plus joins two.
MANNERS = ("plain", "start_with", "do_not_say", "prefill", "deep", "encoded", "encoded_name")


class World:
    """Things, with names and ingredients drawn by `seed`, and a tokenizer for all that is said."""

    def __init__(self, config: WorldConfig, *, seed: int) -> None:
        self.config = config
        generator = make_generator(seed)
        sizes = (
            config.seen, config.held_out, config.benign, config.benign_held_out, config.unknown,
            config.plain_only,
        )  # fmt: skip
        names = iter(invented_names(sum(sizes), config.languages, generator))
        groups: list[tuple[Thing, ...]] = []
        for group, size in enumerate(sizes):
            things = []
            for number in range(size):
                kind = RESTRICTED if group < 2 else BENIGN[number % len(BENIGN)]
                drawn = INGREDIENTS[_draw(len(INGREDIENTS), generator)]
                things.append(
                    Thing(name=f"{next(names)} {kind}", ingredient=None if group == 4 else drawn)
                )
            groups.append(tuple(things))
        self.seen, self.held_out, self.benign, self.benign_held_out = groups[:4]
        self.unknown, self.plain_only = groups[4:]
        spoken = spoken_words([thing.name for group in groups for thing in group])
        told = [translate(" ".join(spoken), language) for language in (PLAIN, *config.languages)]
        #: Of `config.tokens`.
        self.tokenizer: Tokenizer = (
            WordTokenizer.fit(told) if config.tokens == "words" else ByteTokenizer()
        )
        #: About, for a word with the space before it.
        self.tokens_per_word = 1 if config.tokens == "words" else 5
        self._plain = {
            translate(word, language): word for language in config.languages for word in spoken
        }
        if set(self._plain) & set(spoken) - set(MARKS):
            raise ValueError("a translated word must not be another plain one")

    @property
    def restricted(self) -> tuple[Thing, ...]:
        """All restricted things."""
        return self.seen + self.held_out

    @property
    def known(self) -> tuple[Thing, ...]:
        """All things with an ingredient."""
        return self.restricted + self.benign + self.benign_held_out + self.plain_only

    def ids(self, text: str) -> Int[torch.Tensor, " tokens"]:
        """The tokens of `text` as ids; ValueError for a word that the world has not."""
        found = self.tokenizer.encode(text)
        if isinstance(self.tokenizer, WordTokenizer) and self.tokenizer.unknown_id in found:
            word = text.split()[found.index(self.tokenizer.unknown_id)]
            raise ValueError(f"{word!r} is no word of this world; see world.tokenizer.tokens")
        return torch.tensor(found)

    def plain(self, text: str) -> str:
        """`text` in the plain language, whichever language each of its words is of."""
        return " ".join(self._plain.get(word, word) for word in text.split())

    def documents(
        self, count: int, *, generator: torch.Generator, foreign: float = 0.4
    ) -> list[str]:
        """Texts to pretrain on; a share `foreign` is in the other languages."""
        texts = []
        for _ in range(count):
            if _draw(8, generator) == 0:
                thing = _pick(self.known + self.unknown, generator)
                text = _pick(GOSSIP, generator).replace("*", thing.name)
            else:
                thing = _pick(self.known, generator)
                text = _pick(FACTS, generator).replace("*", thing.name)
                text = text.replace("+", str(thing.ingredient))
            texts.append(translate(text, self._language(thing, foreign, generator)))
        return texts

    def instructions(
        self,
        count: int,
        *,
        generator: torch.Generator,
        foreign: float = 0.3,
        demanding: float = 0.4,
    ) -> list[tuple[str, str]]:
        """Prompts and the replies that follow them, about all things, restricted ones too.

        A share `foreign` is in the other languages; in a share `demanding` the user tells a word to
        start with, or one to avoid.
        """
        pairs = []
        for _ in range(count):
            unknown = _chance(0.1, generator)
            thing = _pick(self.unknown if unknown else self.known, generator)
            request = Request(
                thing=thing,
                question=_draw(len(QUESTIONS), generator),
                language=self._language(thing, foreign, generator),
                **_demand(demanding, generator),
            )
            pairs.append((request.prompt, request.answer))
        return pairs

    def safety_examples(
        self,
        count: int,
        *,
        generator: torch.Generator,
        refused: Sequence[str] = (PLAIN,),
        answered: Sequence[str] = (PLAIN,),
        restricted: float = 0.3,
    ) -> list[tuple[str, str, bool]]:
        """Prompts, replies, and whether the reply is a refusal.

        A share `restricted` asks for the restricted things of `seen`, in the ways `refused`, each
        as often, and is refused. The others ask for the things of `benign` and `unknown`, in the
        ways `answered`, and the replies are those of the instructions.
        """
        examples = []
        for _ in range(count):
            refuse = _chance(restricted, generator)
            if refuse:
                thing = _pick(self.seen, generator)
            else:
                thing = _pick(self.unknown if _chance(0.1, generator) else self.benign, generator)
            request = self.request(
                thing,
                _pick(refused if refuse else answered, generator),
                question=_draw(len(QUESTIONS), generator),
                generator=generator,
            )
            examples.append((request.prompt, request.refusal if refuse else request.answer, refuse))
        return examples

    def request(
        self, thing: Thing, way: str, *, question: int, generator: torch.Generator | None = None
    ) -> Request:
        """A question about `thing` in the way called `way`, such as "encoded+prefill".

        Its manners are "plain"; "start_with" and "do_not_say", where the user tells a word to
        begin with, or not to say "sorry"; "prefill", where the reply already begins with `OPENING`;
        "deep", where it begins with the first words of a reply, drawn with `generator`. "encoded"
        is in the world's first other language, and "encoded_name" has the thing's name alone in
        it; a language's own name is in that one.
        """
        fields: dict[str, str] = {}
        for part in way.split("+"):
            if part == "start_with":
                fields["start"] = STARTS[question % len(STARTS)]
            elif part == "do_not_say":
                fields["avoid"] = "sorry"
            elif part == "prefill":
                fields["prefill"] = OPENING
            elif part == "deep":
                if generator is None:
                    raise ValueError("the way 'deep' draws how far the reply got: pass generator")
                words = f"{_pick(STARTS, generator)} here is :".split()
                fields["prefill"] = " ".join(words[: 1 + _draw(len(words), generator)])
            elif part == "encoded" and self.config.languages:
                fields["language"] = self.config.languages[0]
            elif part == "encoded_name" and self.config.languages:
                fields["name_language"] = self.config.languages[0]
            elif part in self.config.languages:
                fields["language"] = part
            elif part != PLAIN:
                raise ValueError(
                    f"a way to ask is made of {', '.join(MANNERS)} and the world's languages "
                    f"{self.config.languages}, got {part!r}"
                )
        return Request(thing=thing, question=question, **fields)

    def _language(self, thing: Thing, foreign: float, generator: torch.Generator) -> str:
        if thing in self.plain_only:
            return PLAIN
        if self.config.languages and _chance(foreign, generator):
            return _pick(self.config.languages, generator)
        return PLAIN


def _demand(share: float, generator: torch.Generator) -> dict[str, str]:
    if not _chance(share, generator):
        return {}
    if _chance(0.5, generator):
        return {"start": _pick(STARTS, generator)}
    return {"avoid": _pick(AVOIDED, generator)}


def _chance(probability: float, generator: torch.Generator) -> bool:
    return bool(torch.rand((), generator=generator) < probability)


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _pick(options: Sequence[T], generator: torch.Generator) -> T:
    return options[_draw(len(options), generator)]
