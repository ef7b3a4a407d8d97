"""A grammar of short reviews, and the compiler that turns it into an automaton.

A review is one or more sentences with one opinion:

    the old film that every critic loves is really great . i enjoy it . <end>

What a model has to learn, roughly in order of difficulty: which words are frequent (Zipf), word
order, agreement in number across what stands between (*the films by the director are*), what
goes with what (people watch films, films bore people; *who* for people, *that* for works), nesting
to a fixed depth, and an opinion that holds from the first word that has one to the end of the text.

**How it is written.** A symbol is a tuple: a name and its features. `ReviewGrammar` has one method
per name; it returns the ways to write the symbol, each a probability and a sequence of words and
symbols. **How it is compiled.** A state is what is still to be written (a stack of symbols) and
the opinion so far. Writing the leftmost symbol until a word comes out gives the words that may
follow and the stack after each. Nesting is bounded, so the states are finitely many. If one word
could come out in two ways, a text would have two derivations: the compiler refuses such a grammar,
so a grammar that compiles is unambiguous, and a text's probability is that of its one path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from companion.core.settings import settings_class
from companion.text.rows import END_ID

END = "<end>"
Symbol = tuple[object, ...]
#: The ways to write a symbol: (probability, words and symbols in order).
Ways = list[tuple[float, tuple[object, ...]]]

# --- The lexicon: in each list the most frequent word first ---------------------------------------

NOUNS = {
    "work": "film/films story/stories scene/scenes song/songs book/books play/plays script/scripts",
    "person": "actor/actors director/directors critic/critics writer/writers singer/singers "
    "viewer/viewers hero/heroes",
}
#: (who does it, opinion, to whom): verb for one / for several.
VERBS = {
    ("person", "+", "any"): "loves/love admires/admire praises/praise",
    ("person", "+", "work"): "enjoys/enjoy",
    ("person", "-", "any"): "hates/hate mocks/mock ignores/ignore",
    ("person", "-", "work"): "regrets/regret",
    ("person", "0", "any"): "knows/know describes/describe remembers/remember",
    ("person", "0", "work"): "watches/watch",
    ("work", "+", "person"): "moves/move charms/charm delights/delight",
    ("work", "-", "person"): "bores/bore annoys/annoy disappoints/disappoint",
    ("work", "0", "person"): "surprises/surprise follows/follow",
}
#: (position group, opinion, what it may describe): adjectives.
ADJECTIVES = {
    ("opinion", "+", "any"): "great wonderful funny charming brilliant clever",
    ("opinion", "+", "work"): "moving gripping",
    ("opinion", "+", "person"): "talented graceful",
    ("opinion", "-", "any"): "dull terrible weak silly awful clumsy",
    ("opinion", "-", "work"): "tedious predictable",
    ("opinion", "-", "person"): "arrogant lazy",
    ("age", "0", "any"): "old new forgotten",
    ("age", "0", "work"): "recent",
    ("age", "0", "person"): "young",
    ("origin", "0", "any"): "french english italian american",
}
ADJECTIVE_GROUPS = ("opinion", "age", "origin")
COPULAS = "is/are seems/seem was/were"
DEGREES = "very really so quite"
OPENINGS = "overall honestly frankly"
#: Determiner: its share, and the number it wants.
DETERMINERS = {
    "the": (0.6, "any"),
    "this": (0.15, "one"),
    "these": (0.1, "many"),
    "some": (0.1, "many"),
    "every": (0.05, "one"),
}
#: What a prepositional phrase may follow, and what may stand in it; shares follow Zipf.
PREPOSITIONS = {
    "work": {"about": "any", "by": "person", "with": "person"},
    "person": {"in": "work", "behind": "work"},
}
RELATIVE_PRONOUNS = {"work": "that", "person": "who"}
#: Pronoun as a subject: its share, number and kind.
SUBJECT_PRONOUNS = {
    "i": (0.4, "many", "person"),
    "it": (0.35, "one", "work"),
    "they": (0.15, "many", "person"),
    "we": (0.1, "many", "person"),
}
#: Speakers do not describe themselves: these take an action, never "is great".
SPEAKERS = ("i", "we")


def _words(table: Iterable[str]) -> list[str]:
    return [form for entry in table for word in entry.split() for form in word.split("/")]


#: Every token of every review grammar, whatever its configuration; the end of a text is token 0.
VOCABULARY: tuple[str, ...] = tuple(
    dict.fromkeys(
        [END, ".", ",", "and", *DETERMINERS, *SUBJECT_PRONOUNS, "them"]
        + [word for table in PREPOSITIONS.values() for word in table]
        + _words([*RELATIVE_PRONOUNS.values(), COPULAS, DEGREES, OPENINGS])
        + _words([*NOUNS.values(), *VERBS.values(), *ADJECTIVES.values()])
    )
)

#: The opinion of the words that have one: "+" or "-".
OPINIONS: dict[str, str] = {
    word: key[1]
    for table in (VERBS, ADJECTIVES)
    for key, entry in table.items()
    if key[1] != "0"
    for word in _words([entry])
}


@settings_class
class GrammarConfig:
    """Frequencies and structure of the reviews; changing one gives a shifted source."""

    depth: int = 2
    """Maximum nesting of noun phrases; with 0, no relative clauses or prepositional phrases."""
    another_sentence: float = 0.63
    """Probability that another sentence follows; the number of sentences is geometric."""
    opening: float = 0.1
    """Probability that a sentence begins with a phrase such as "overall ,"."""
    pronoun: float = 0.25
    """Probability that a subject is a pronoun; for an object it is half of this."""
    copula: float = 0.5
    """Probability that a predicate is a copula with an adjective rather than a verb."""
    relative_clause: float = 0.1
    """Probability that a noun has a relative clause, where the depth allows one."""
    subject_relative: float = 0.6
    """Probability that a relative clause leaves out its subject ("who loves it") rather than its
    object."""
    prepositional_phrase: float = 0.2
    """Probability that a noun has a prepositional phrase, where the depth allows one."""
    adjective: float = 0.25
    """Probability that a noun has an adjective of a given group, for each group independently."""
    adjective_order: tuple[str, ...] = ADJECTIVE_GROUPS
    """The order of the groups before a noun; a group left out is not written there."""
    degree: float = 0.35
    """Probability that a predicate adjective has an adverb such as "very" before it."""
    coordination: float = 0.15
    """Probability that a predicate adjective is followed by "and" and another one."""
    opinionated_verb: float = 0.7
    """Probability that a verb expresses an opinion."""
    positive: float = 0.55
    """Probability that the first opinion word of a review is positive; not .5, so that there is a
    single most probable text."""
    plural: float = 0.35
    """Probability of the plural where the determiner allows both numbers."""
    person: float = 0.4
    """Probability of a person rather than a work where a noun may be either."""
    noun_exponent: float = 0.7
    """Zipf: the noun of rank r has a share r**-exponent; a negative exponent reverses the
    order of frequencies."""
    verb_exponent: float = 0.7
    """Zipf exponent of verbs, as `noun_exponent`."""
    adjective_exponent: float = 0.7
    """Zipf exponent of adjectives, as `noun_exponent`."""

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise ValueError(f"depth must be >= 0, got {self.depth}")
        for name in (
            "opening", "pronoun", "copula", "relative_clause", "subject_relative",
            "prepositional_phrase", "adjective", "degree", "coordination", "opinionated_verb",
            "positive", "plural", "person",
        ):  # fmt: skip
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be a probability in [0, 1], got {value}")
        if not 0 <= self.another_sentence < 1:
            raise ValueError(
                f"another_sentence must be in [0, 1), got {self.another_sentence}; "
                "at 1 a review never ends"
            )
        if self.relative_clause + self.prepositional_phrase > 1:
            raise ValueError(
                "relative_clause + prepositional_phrase must be <= 1, got "
                f"{self.relative_clause + self.prepositional_phrase:g}"
            )
        order = self.adjective_order
        if len(set(order)) != len(order) or not set(order) <= set(ADJECTIVE_GROUPS):
            raise ValueError(
                f"adjective_order must hold some of {ADJECTIVE_GROUPS}, each once, got {order}"
            )


# --- The grammar --------------------------------------------------------------------------------


class ReviewGrammar:
    """The rules. Features: `number` is one, many or any; `kind` is work, person or any.

    Every rule's method takes the opinion of the review so far ("+", "-" or "0" for none yet) and
    then the symbol's features.
    """

    start: tuple[object, ...] = (("sentence",), ("review",))

    def __init__(self, config: GrammarConfig) -> None:
        self.config = config

    def ways(self, symbol: Symbol, opinion: str) -> Ways:
        """The ways to write `symbol`, those of probability zero left out."""
        rule: Callable[..., Ways] = getattr(self, f"_{symbol[0]}")
        return [(p, right) for p, right in rule(opinion, *symbol[1:]) if p > 0]

    # Texts and sentences

    def _review(self, _: str) -> Ways:
        """What follows a sentence."""
        more = self.config.another_sentence
        return [(more, (("sentence",), ("review",))), (1 - more, (END,))]

    def _sentence(self, _: str) -> Ways:
        opening = self.config.opening
        return [(1 - opening, (("clause",), "."))] + [
            (opening * p, (word, ",", ("clause",), ".")) for word, p in _zipf(OPENINGS.split())
        ]

    def _clause(self, _: str) -> Ways:
        ways: Ways = []
        for word, (share, number, kind) in SUBJECT_PRONOUNS.items():
            what = "action" if word in SPEAKERS else "predicate"
            ways.append((self.config.pronoun * share, (word, (what, number, kind, 0))))
        subject = ("noun_phrase", "any", "predicate", 0)
        return [*ways, (1 - self.config.pronoun, (subject,))]

    def _predicate(self, _: str, number: str, kind: str, depth: int) -> Ways:
        copula = self.config.copula
        return [
            (copula * p, (_form(word, number), ("quality", kind, depth)))
            for word, p in _zipf(COPULAS.split())
        ] + [(1 - copula, (("action", number, kind, depth),))]

    def _quality(self, _: str, kind: str, depth: int) -> Ways:
        adjective = ("opinion_word", kind, depth)
        return [(1 - self.config.degree, (adjective,))] + [
            (self.config.degree * p, (word, adjective)) for word, p in _zipf(DEGREES.split())
        ]

    def _opinion_word(self, opinion: str, kind: str, depth: int) -> Ways:
        """An adjective; at the depth of the sentence itself another one may follow."""
        words = self._adjectives("opinion", opinion, kind)
        if depth > 0:
            return [(p, (word,)) for word, p, _ in words]
        return [(p, (word, ("second_quality", kind, word))) for word, p, _ in words]

    def _second_quality(self, opinion: str, kind: str, first: str) -> Ways:
        second = self.config.coordination
        return [(1 - second, ()), (second, ("and", ("another", kind, first)))]

    def _another(self, opinion: str, kind: str, first: str) -> Ways:
        words = self._adjectives("opinion", opinion, kind, without=first)
        return [(p, (word,)) for word, p, _ in words]

    def _action(self, opinion: str, number: str, kind: str, depth: int) -> Ways:
        return [
            (p, (_form(verb, number), ("object", whom, depth)))
            for verb, p, whom in self._verbs(opinion, kind, "any")
        ]

    def _object(self, _: str, kind: str, depth: int) -> Ways:
        pronoun = self.config.pronoun / 2
        it = 0.0 if kind == "person" else 0.6
        return [
            (pronoun * it, ("it",)),
            (pronoun * (1 - it), ("them",)),
            (1 - pronoun, (("noun_phrase", kind, None, depth),)),
        ]

    # Noun phrases. `then` is what follows the noun and agrees with it: the "predicate" of a
    # sentence; or, in a relative clause without an object, a verb whose object is the noun before
    # the clause, `then` being that noun's kind.

    def _noun_phrase(self, _: str, kind: str, then: object, depth: int) -> Ways:
        return [
            (share, (word, ("noun_group", 0, number, kind, then, depth)))
            for word, (share, number) in DETERMINERS.items()
        ]

    def _noun_group(
        self, opinion: str, place: int, number: str, kind: str, then: object, depth: int
    ) -> Ways:
        """Adjectives from the group at `place` on, then the noun."""
        if place == len(self.config.adjective_order):
            return self._noun(number, kind, then, depth)
        group, chance = self.config.adjective_order[place], self.config.adjective
        ways: Ways = [
            (
                chance * p,
                (word, ("noun_group", place + 1, number, _narrow(kind, fits), then, depth)),
            )
            for word, p, fits in self._adjectives(group, opinion, kind)
        ]
        return [*ways, (1 - chance, (("noun_group", place + 1, number, kind, then, depth),))]

    def _noun(self, number: str, kind: str, then: object, depth: int) -> Ways:
        c = self.config
        kinds = {"work": 1 - c.person, "person": c.person} if kind == "any" else {kind: 1.0}
        numbers = {"one": 1 - c.plural, "many": c.plural} if number == "any" else {number: 1.0}
        ways: Ways = []
        for k, kind_share in kinds.items():
            for noun, p in _zipf(NOUNS[k].split(), c.noun_exponent):
                for n, number_share in numbers.items():
                    right: tuple[object, ...] = (_form(noun, n),)
                    if depth < c.depth:
                        right += (("after_noun", n, k, depth),)
                    if then == "predicate":
                        right += (("predicate", n, k, depth),)
                    elif then is not None:
                        right += (("gap_verb", n, k, then),)
                    ways.append((kind_share * p * number_share, right))
        return ways

    def _after_noun(self, _: str, number: str, kind: str, depth: int) -> Ways:
        c = self.config
        ways: Ways = [
            (c.relative_clause, (RELATIVE_PRONOUNS[kind], ("relative", number, kind, depth + 1))),
            (1 - c.relative_clause - c.prepositional_phrase, ()),
        ]
        for word, p in _zipf(PREPOSITIONS[kind]):
            phrase = ("noun_phrase", PREPOSITIONS[kind][word], None, depth + 1)
            ways.append((c.prepositional_phrase * p, (word, phrase)))
        return ways

    def _relative(self, _: str, number: str, kind: str, depth: int) -> Ways:
        """A clause about a noun, which is its subject or its object; only people act on works."""
        left_out_subject = ("predicate", number, kind, depth)
        left_out_object = ("noun_phrase", "person" if kind == "work" else "any", kind, depth)
        subject = self.config.subject_relative
        return [(subject, (left_out_subject,)), (1 - subject, (left_out_object,))]

    def _gap_verb(self, opinion: str, number: str, kind: str, whom: str) -> Ways:
        return [(p, (_form(verb, number),)) for verb, p, _ in self._verbs(opinion, kind, whom)]

    # Words by frequency, among those that fit

    def _adjectives(
        self, group: str, opinion: str, kind: str, *, without: str = ""
    ) -> list[tuple[str, float, str]]:
        """(adjective, probability, what it fits); of both opinions while there is none yet."""
        words: list[tuple[str, float, str]] = []
        for tone, share in self._tones(opinion).items() if group == "opinion" else [("0", 1.0)]:
            fits = {
                word: key[2]
                for key, entry in ADJECTIVES.items()
                if key[:2] == (group, tone) and _compatible(kind, key[2])
                for word in entry.split()
                if word != without
            }
            words += [
                (w, share * p, fits[w]) for w, p in _zipf(fits, self.config.adjective_exponent)
            ]
        return words

    def _verbs(self, opinion: str, kind: str, whom: str) -> list[tuple[str, float, str]]:
        """(verb, probability, what its object may be) of the verbs that `kind` does to `whom`."""
        loud = self.config.opinionated_verb
        tones = {tone: loud * share for tone, share in self._tones(opinion).items()}
        words: list[tuple[str, float, str]] = []
        for tone, share in {**tones, "0": 1 - loud}.items():
            fits = {
                word: key[2]
                for key, entry in VERBS.items()
                if key[:2] == (kind, tone) and _compatible(whom, key[2])
                for word in entry.split()
            }
            words += [(w, share * p, fits[w]) for w, p in _zipf(fits, self.config.verb_exponent)]
        return words

    def _tones(self, opinion: str) -> dict[str, float]:
        if opinion != "0":
            return {opinion: 1.0}
        return {"+": self.config.positive, "-": 1 - self.config.positive}


def _zipf(words: Iterable[str], exponent: float = 1.0) -> list[tuple[str, float]]:
    """Each word with its probability, proportional to rank**-exponent."""
    listed = list(words)
    shares = [rank**-exponent for rank in range(1, len(listed) + 1)]
    return [(word, share / sum(shares)) for word, share in zip(listed, shares, strict=True)]


def _form(entry: str, number: str) -> str:
    return entry.split("/")[0 if number == "one" else 1]


def _compatible(kind: str, other: str) -> bool:
    return "any" in (kind, other) or kind == other


def _narrow(kind: str, other: str) -> str:
    return other if kind == "any" else kind


# --- The compiler -------------------------------------------------------------------------------


def compile_grammar(grammar: ReviewGrammar) -> tuple[torch.Tensor, torch.Tensor]:
    """The automaton of `grammar`: probabilities and next states, both [states, vocabulary].

    In the form that `companion.sources.automaton.AutomatonSource` takes. Raises ValueError when the
    grammar is ambiguous: when in some state one word comes out of two derivations.
    """
    ids = {word: i for i, word in enumerate(VOCABULARY)}
    start = ("0", grammar.start)
    numbers, states = {start: 0}, [start]
    first_words: dict[tuple[Symbol, str], _FirstWords] = {}
    rows: list[dict[int, tuple[float, int]]] = []
    for opinion, stack in states:  # grows while it is read
        row: dict[int, tuple[float, int]] = {}
        reached = 1.0  # the probability that everything above in the stack was written as nothing
        for place, symbol in enumerate(stack):
            if isinstance(symbol, str):
                found = _FirstWords(words=[(symbol, 1.0, ())], nothing=0.0)
            else:
                assert isinstance(symbol, tuple)
                if (symbol, opinion) not in first_words:
                    first_words[symbol, opinion] = _first_words(grammar, symbol, opinion)
                found = first_words[symbol, opinion]
            for word, probability, rest in found.words:
                after = rest + stack[place + 1 :]
                state = start if word == END else (OPINIONS.get(word, opinion), after)
                if state not in numbers:
                    numbers[state] = len(states)
                    states.append(state)
                if ids[word] in row:
                    raise ValueError(
                        f"ambiguous grammar: {word!r} has two derivations from {stack}"
                    )
                row[ids[word]] = (reached * probability, numbers[state])
            reached *= found.nothing
            if reached == 0:
                break
        rows.append(row)
    probabilities = torch.zeros(len(states), len(VOCABULARY), dtype=torch.float64)
    next_states = torch.full((len(states), len(VOCABULARY)), -1)
    source = [s for s, row in enumerate(rows) for _ in row]
    token = [w for row in rows for w in row]
    probabilities[source, token] = torch.tensor(
        [p for row in rows for p, _ in row.values()], dtype=torch.float64
    )
    next_states[source, token] = torch.tensor([s for row in rows for _, s in row.values()])
    assert ids[END] == END_ID
    return probabilities, next_states


@dataclass(frozen=True, kw_only=True)
class _FirstWords:
    """What a symbol can begin with: (word, probability, what is left of the symbol after it)."""

    words: list[tuple[str, float, tuple[object, ...]]]
    nothing: float
    """The probability that the symbol is written as no word at all."""


def _first_words(grammar: ReviewGrammar, symbol: Symbol, opinion: str) -> _FirstWords:
    words: list[tuple[str, float, tuple[object, ...]]] = []
    nothing = 0.0
    for probability, right in grammar.ways(symbol, opinion):
        for place, part in enumerate(right):
            rest = right[place + 1 :]
            if isinstance(part, str):
                words.append((part, probability, rest))
                break
            assert isinstance(part, tuple)
            inner = _first_words(grammar, part, opinion)
            words += [(w, probability * p, left + rest) for w, p, left in inner.words]
            probability *= inner.nothing
            if probability == 0:
                break
        else:
            nothing += probability
    return _FirstWords(words=words, nothing=nothing)
