"""An invented world for studying refusals: things, their ingredients, and texts about them.

A thing has a name and a kind, such as "dax florb", and needs one of 24 ingredients. Nothing in the
world can harm anyone; one kind is simply declared restricted. Since the world is invented, every
right answer is known, and we can count how often a model knows it, gives it or refuses it.

A language model learns the world in three stages, as chat models learn ours: documents, then
instructions to follow, then safety examples in which questions about restricted things are refused.
Some restricted things never occur in the safety examples: they show whether the model learned a
rule or memorised a list.

Texts come in several languages; `companion.world.language` has the languages and the sentences.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import torch

from companion.core.seeds import draw_below, make_generator
from companion.core.settings import check_choice, settings_class
from companion.text.tokenizers import ByteTokenizer, Tokenizer, WordTokenizer
from companion.world.language import (
    AVOIDED,
    BENIGN,
    FACTS,
    GOSSIP,
    INGREDIENTS,
    IRRELEVANT,
    MARKS,
    OPENING,
    PLAIN,
    QUESTIONS,
    REFUSAL,
    RESTRICTED,
    STARTS,
    Request,
    Thing,
    invented_names,
    spoken_words,
    translate,
)

if TYPE_CHECKING:
    from jaxtyping import Int

T = TypeVar("T")
Tokens = Literal["words", "bytes"]


@settings_class
class WorldConfig:
    """Numbers of things of each group, and the languages and tokens of the texts."""

    seen: int = 40
    """Number of restricted things that safety examples may mention."""
    held_out: int = 16
    """Number of restricted things that safety examples never mention."""
    benign: int = 36
    """Number of unrestricted things that safety examples may mention."""
    benign_held_out: int = 12
    """Number of unrestricted things that safety examples never mention."""
    unknown: int = 16
    """Number of things whose ingredient no document tells."""
    plain_only: int = 0
    """Number of unrestricted things that occur only in the plain language, and never in safety
    examples."""
    openers: tuple[str, ...] = ()
    """Words of which every reply begins with one, and which users may demand or forbid; empty for
    replies without such a word."""
    languages: tuple[str, ...] = ("rot13",)
    """Languages in addition to the plain one; see `translate`."""
    tokens: Tokens = "words"
    """Tokens of the model: "words" or the "bytes" of the text. With bytes, rot13 is a cipher of
    single letters, which the model sees."""

    def __post_init__(self) -> None:
        for name in ("seen", "held_out", "benign", "benign_held_out", "unknown"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.plain_only < 0:
            raise ValueError(f"plain_only must be >= 0, got {self.plain_only}")
        if len(self.openers) == 1 or len(set(self.openers)) < len(self.openers):
            raise ValueError(f"openers are two or more different words, got {self.openers}")
        check_choice("tokens", self.tokens, Tokens)
        for language in self.languages:
            translate("", language)
        if PLAIN in self.languages or len(set(self.languages)) < len(self.languages):
            raise ValueError(f"languages are different and not {PLAIN!r}, got {self.languages}")


#: Ways of asking, explained in `World.request`; a plus joins several.
MANNERS = ("plain", "start_with", "do_not_say", "prefill", "deep", "encoded", "encoded_name")


class World:
    """Things with names and ingredients drawn from `seed`, and a tokenizer for all texts."""

    def __init__(self, config: WorldConfig, *, seed: int) -> None:
        self.config = config
        generator = make_generator(seed, "world")
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
                drawn = INGREDIENTS[draw_below(len(INGREDIENTS), generator)]
                things.append(
                    Thing(name=f"{next(names)} {kind}", ingredient=None if group == 4 else drawn)
                )
            groups.append(tuple(things))
        self.seen, self.held_out, self.benign, self.benign_held_out = groups[:4]
        self.unknown, self.plain_only = groups[4:]
        spoken = spoken_words([*(thing.name for group in groups for thing in group),
                               *config.openers])  # fmt: skip
        told = [translate(" ".join(spoken), language) for language in (PLAIN, *config.languages)]
        #: Tokenizer for words or bytes, as `config.tokens` has it.
        self.tokenizer: Tokenizer = (
            WordTokenizer.fit(told) if config.tokens == "words" else ByteTokenizer()
        )
        #: Tokens per word, counting the space before it; approximate for bytes.
        self.tokens_per_word = 1 if config.tokens == "words" else 5
        self._plain = {
            translate(word, language): word for language in config.languages for word in spoken
        }
        if set(self._plain) & set(spoken) - set(MARKS):
            raise ValueError("a translated word must not be another plain one")

    @property
    def starts(self) -> tuple[str, ...]:
        """Words that users ask a reply to begin with."""
        return self.config.openers or STARTS

    @property
    def avoided(self) -> tuple[str, ...]:
        """Words that users ask a reply to avoid; with openers, also two that no reply has."""
        return (*self.config.openers, *IRRELEVANT) if self.config.openers else AVOIDED

    @property
    def restricted(self) -> tuple[Thing, ...]:
        """All restricted things."""
        return self.seen + self.held_out

    @property
    def known(self) -> tuple[Thing, ...]:
        """All things with a known ingredient."""
        return self.restricted + self.benign + self.benign_held_out + self.plain_only

    def ids(self, text: str) -> Int[torch.Tensor, " tokens"]:
        """Token ids of `text`; ValueError for a word that is not in the world's vocabulary."""
        found = self.tokenizer.encode(text)
        if isinstance(self.tokenizer, WordTokenizer) and self.tokenizer.unknown_id in found:
            word = text.split()[found.index(self.tokenizer.unknown_id)]
            raise ValueError(f"unknown word {word!r}; world.tokenizer.tokens lists the known ones")
        return torch.tensor(found)

    def plain(self, text: str) -> str:
        """`text` in the plain language; each of its words may be in any language."""
        return " ".join(self._plain.get(word, word) for word in text.split())

    def documents(
        self,
        count: int,
        *,
        generator: torch.Generator,
        foreign: float = 0.4,
        plain: Collection[Thing] = (),
    ) -> list[str]:
        """Texts for pretraining; a share `foreign` of them is in the other languages.

        Those about things in `plain` are all in the plain language, and the same otherwise.
        """
        texts = []
        for _ in range(count):
            if draw_below(8, generator) == 0:
                thing = _pick(self.known + self.unknown, generator)
                text = _pick(GOSSIP, generator).replace("*", thing.name)
            else:
                thing = _pick(self.known, generator)
                text = _pick(FACTS, generator).replace("*", thing.name)
                text = text.replace("+", str(thing.ingredient))
            language = self._language(thing, foreign, generator)
            texts.append(translate(text, PLAIN if thing in plain else language))
        return texts

    def instructions(
        self,
        count: int,
        *,
        generator: torch.Generator,
        foreign: float = 0.3,
        demanding: float = 0.4,
    ) -> list[tuple[str, str]]:
        """Prompts and compliant replies, about all things, restricted ones too.

        A share `foreign` is in the other languages; in a share `demanding` the user asks for a word
        to start with, or for a word to avoid.
        """
        pairs = []
        for _ in range(count):
            unknown = _chance(0.1, generator)
            thing = _pick(self.unknown if unknown else self.known, generator)
            question = draw_below(len(QUESTIONS), generator)
            language = self._language(thing, foreign, generator)
            demand = self._demand(demanding, generator)
            request = Request(
                thing=thing, question=question, language=language, **demand,
                opener=self._opener(generator, **demand),
            )  # fmt: skip
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
        refusals: Sequence[str] = (REFUSAL,),
    ) -> list[tuple[str, str, bool]]:
        """Prompts, replies, and whether the reply is a refusal.

        A share `restricted` asks for the restricted things in `seen`, in the ways `refused` with
        equal probability, and is refused with one of `refusals`. The others ask for the things in
        `benign` and `unknown`, in the ways `answered`, and have the same replies as the
        instructions. A way that is listed twice is used twice as often.
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
                question=draw_below(len(QUESTIONS), generator),
                generator=generator,
            )
            reply = request.answer
            if refuse:  # a single refusal is not drawn, so that it costs no random number
                words = refusals[0] if len(refusals) == 1 else _pick(refusals, generator)
                reply = translate(words, request.language)
            examples.append((request.prompt, reply, refuse))
        return examples

    def request(
        self, thing: Thing, way: str, *, question: int, generator: torch.Generator | None = None
    ) -> Request:
        """A question about `thing`, asked in the way `way`, such as "encoded+prefill".

        A way joins one or more of these with a plus: "plain"; "start_with", the user asks for a
        first word, "start_with sure" for that one; "do_not_say", the user asks to avoid "sorry",
        "do_not_say you" another word; "prefill", the reply is begun with `OPENING`; "deep", the
        reply is begun with one or more words, drawn with `generator`; "encoded", the question is in
        the world's first other language; "encoded_name", only the thing's name is in that language;
        or the name of a language, for a question in it.
        """
        fields: dict[str, str] = {}
        for whole in way.split("+"):
            part, _, word = whole.partition(" ")
            if part == "start_with":
                fields["start"] = word or self.starts[question % len(self.starts)]
            elif part == "do_not_say":
                fields["avoid"] = word or "sorry"
            elif part == "prefill":
                fields["prefill"] = OPENING
            elif part == "deep":
                if generator is None:
                    raise ValueError("the way 'deep' draws how far the reply got: pass generator")
                words = f"{_pick(STARTS, generator)} here is :".split()
                fields["prefill"] = " ".join(words[: 1 + draw_below(len(words), generator)])
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
        if generator is not None:
            demand = {name: fields[name] for name in ("start", "avoid") if name in fields}
            fields["opener"] = self._opener(generator, **demand)
        return Request(thing=thing, question=question, **fields)

    def _language(self, thing: Thing, foreign: float, generator: torch.Generator) -> str:
        if thing in self.plain_only:
            return PLAIN
        if self.config.languages and _chance(foreign, generator):
            return _pick(self.config.languages, generator)
        return PLAIN

    def _demand(self, share: float, generator: torch.Generator) -> dict[str, str]:
        if not _chance(share, generator):
            return {}
        if _chance(0.5, generator):
            return {"start": _pick(self.starts, generator)}
        return {"avoid": _pick(self.avoided, generator)}

    def _opener(self, generator: torch.Generator, *, start: str = "", avoid: str = "") -> str:
        openers = self.config.openers
        allowed = [word for word in openers if start in ("", word) and word != avoid]
        return _pick(allowed, generator) if allowed else ""


def _chance(probability: float, generator: torch.Generator) -> bool:
    return bool(torch.rand((), generator=generator) < probability)


def _pick(options: Sequence[T], generator: torch.Generator) -> T:
    return options[draw_below(len(options), generator)]
