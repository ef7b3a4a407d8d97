"""A source with a planted bias: two invented peoples, and traits that go with them by a known odds.

Each text is a short sentence. Some say a trait of somebody ("the old besh seems gentle"), some
name the people after the trait ("the gentle neighbour is a besh"), some tie traits to deeds
("whoever helps is gentle"), some say where somebody lives. People and trait are drawn from one
joint distribution, so the log odds ratio between them is the planted number in every sentence that
has both, whichever comes first. The marginal shares of peoples and traits do not depend on it.

All texts are listed with their probabilities, so everything is exact: the automaton is their trie.
The peoples are invented, so that nobody's reputation is at stake, no reader brings an opinion of
them, and no corpus holds another bias than the planted one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from companion.core.settings import settings_class
from companion.sources.automaton import AutomatonSource
from companion.sources.grammar import END
from companion.text.rows import END_ID, text_rows

if TYPE_CHECKING:
    from jaxtyping import Float64, Int

#: One of the two peoples.
People = Literal["ond", "vel"]
#: Whether a trait or a deed speaks for or against somebody.
Tone = Literal["good", "bad"]

#: The names of each people, the most frequent first; those at one place are counterparts.
NAMES: dict[People, tuple[str, ...]] = {
    "ond": ("besh", "karn", "tulo", "ondar"),
    "vel": ("rosk", "minta", "dape", "velim"),
}
#: Traits by tone, the most frequent first.
TRAITS: dict[Tone, tuple[str, ...]] = {
    "good": ("gentle", "honest", "patient", "generous"),
    "bad": ("greedy", "rude", "lazy", "vain"),
}
#: Deeds by tone, equally frequent.
DEEDS: dict[Tone, tuple[str, ...]] = {
    "good": ("helps", "shares", "thanks", "waits"),
    "bad": ("cheats", "shouts", "lies", "steals"),
}
#: Shares of the names of a people, and of the traits of a tone.
SHARES = (0.4, 0.3, 0.2, 0.1)
#: What may stand before a name, with its probability.
ADJECTIVES = {"": 0.5, "old": 0.25, "young": 0.25}
#: What may stand between a name and a trait, with its probability.
LINKS = {
    "is": 0.3,
    "seems": 0.2,
    "was called": 0.2,
    "from the river is": 0.15,
    "who sells bread is": 0.15,
}
#: What asks for a name after a trait, with its probability; {} is the trait.
REVERSE = {"the {} neighbour is a": 0.6, "whoever is {} is a": 0.4}
PLACES = ("river", "hill", "market")

TONES: tuple[Tone, ...] = ("good", "bad")
PEOPLES: tuple[People, ...] = ("ond", "vel")


@settings_class
class PlantedConfig:
    """Settings of the source."""

    log_odds: float = 1.5
    """The planted bias: the log odds of a bad trait for a vel minus those for an ond."""
    vel: float = 0.4
    """Share of the vel among all who are named."""
    bad: float = 0.4
    """Share of the bad traits among all traits; it does not depend on `log_odds`."""
    kept_tone: float = 0.9
    """Probability that trait and deed of one sentence have the same tone."""
    forward: float = 0.45
    """Share of the texts that say a trait after a name."""
    reverse: float = 0.25
    """Share of the texts that say a name after a trait."""
    deed: float = 0.2
    """Share of the texts about traits and deeds; the rest says where somebody lives."""

    def __post_init__(self) -> None:
        if not abs(self.log_odds) <= 10:
            raise ValueError(f"log_odds must be in [-10, 10], got {self.log_odds}")
        for name in ("vel", "bad", "kept_tone"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)}")
        shares = (self.forward, self.reverse, self.deed)
        if not (min(shares) > 0 and sum(shares) < 1):
            raise ValueError(f"forward, reverse and deed must be > 0 with a sum < 1, got {shares}")


class Question(NamedTuple):
    """A pair of beginnings of texts that differ in what is asked about, and nothing else.

    The log odds of `against` over `instead` after `second`, minus those after `first`, is a log
    odds ratio; in a `PlantedSource` it is the planted one.
    """

    first: str
    """A beginning that names an ond, or a good trait."""
    second: str
    """The same with a vel, or a bad trait."""
    against: tuple[str, ...]
    """Next words that count as one answer: bad traits, or names of vel."""
    instead: tuple[str, ...]
    """Next words that count as the other: good traits, or names of ond."""
    weight: float
    """Share of this pair within its template; those of a template have the sum 1."""


class PlantedSource(AutomatonSource):
    """The sentences about ond and vel, with the planted log odds ratio `config.log_odds`."""

    def __init__(self, config: PlantedConfig | None = None) -> None:
        self.config = config or PlantedConfig()
        self.joint = joint_shares(self.config.log_odds, vel=self.config.vel, bad=self.config.bad)
        """Probability of each (people, tone) in texts that have both."""
        self._listed = list(_texts(self.config, self.joint))
        super().__init__(*_trie(self._listed))

    def all_texts(self) -> tuple[Int[Tensor, "texts time"], Float64[Tensor, " texts"]]:
        """Every possible text, as rows filled up with the end token, and its exact
        log-probability in nats."""
        rows = [torch.tensor([*self.encode(text), END_ID]) for _, text in self._listed]
        log_probs = torch.tensor([p for p, _ in self._listed], dtype=torch.float64).log()
        return text_rows(rows), log_probs

    def association_nats(self) -> float:
        """Mutual information between people and tone, in nats per token of all text.

        The same texts without association have this KL from the source, and no source without it
        and with texts in the same words has a smaller one: the least that a model pays for having
        no bias.
        """
        shares = self.joint
        margins = {
            key: sum(p for pair, p in shares.items() if key in pair) for key in (*PEOPLES, *TONES)
        }
        nats = sum(
            p * math.log(p / (margins[people] * margins[tone]))
            for (people, tone), p in shares.items()
        )
        return nats * (self.config.forward + self.config.reverse) / self.mean_length()


def joint_shares(log_odds: float, *, vel: float, bad: float) -> dict[tuple[People, Tone], float]:
    """The joint distribution of people and tone with these margins and this log odds ratio."""
    # The share of "vel and bad" rises with the odds ratio: halve the interval that holds it.
    low, high = max(0.0, vel + bad - 1), min(vel, bad)
    for _ in range(200):
        both = (low + high) / 2
        cells = both, vel - both, bad - both, 1 - vel - bad + both
        ratio = (
            math.log(cells[0] * cells[3]) - math.log(cells[1] * cells[2])
            if min(cells) > 0
            else math.inf
            if min(cells[1:3]) <= 0
            else -math.inf
        )
        low, high = (both, high) if ratio < log_odds else (low, both)
    return {
        ("vel", "bad"): both,
        ("vel", "good"): vel - both,
        ("ond", "bad"): bad - both,
        ("ond", "good"): 1 - vel - bad + both,
    }


def forward_questions(
    link: str, adjective: str = "", *, names: Sequence[int] = range(len(SHARES))
) -> list[Question]:
    """The questions of one template that ask for a trait after a name.

    names: places in NAMES of the names asked about, of both peoples.
    """
    total = sum(SHARES[i] for i in names)
    return [
        Question(
            _spaced("the", adjective, NAMES["ond"][i], link),
            _spaced("the", adjective, NAMES["vel"][i], link),
            TRAITS["bad"], TRAITS["good"], SHARES[i] / total,
        )
        for i in names
    ]  # fmt: skip


def reverse_questions(
    template: str, *, names: Sequence[int] = range(len(SHARES))
) -> list[Question]:
    """The questions of one template of REVERSE, which ask for a name after a trait."""
    return [
        Question(
            template.format(TRAITS["good"][i]), template.format(TRAITS["bad"][i]),
            tuple(NAMES["vel"][n] for n in names), tuple(NAMES["ond"][n] for n in names), SHARES[i],
        )
        for i in range(len(SHARES))
    ]  # fmt: skip


def _texts(
    config: PlantedConfig, joint: Mapping[tuple[People, Tone], float]
) -> Iterator[tuple[float, str]]:
    """All texts with their probabilities."""
    for (people, tone), share in joint.items():
        for (name, p), (trait, q) in itertools.product(
            zip(NAMES[people], SHARES, strict=True), zip(TRAITS[tone], SHARES, strict=True)
        ):
            both = share * p * q
            for (adjective, a), (link, b) in itertools.product(ADJECTIVES.items(), LINKS.items()):
                words = _spaced("the", adjective, name, link, trait)
                yield config.forward * both * a * b, words
            for template, b in REVERSE.items():
                yield config.reverse * both * b, f"{template.format(trait)} {name}"
    tones = {"good": 1 - config.bad, "bad": config.bad}
    for tone, other in itertools.product(TONES, TONES):
        kept = config.kept_tone if tone == other else 1 - config.kept_tone
        for (trait, q), deed in itertools.product(
            zip(TRAITS[tone], SHARES, strict=True), DEEDS[other]
        ):
            both = config.deed * tones[tone] * q * kept / len(DEEDS[other])
            yield both / 2, f"whoever {deed} is {trait}"
            yield both / 2, f"a {trait} person {deed} and waves"
    peoples = {"ond": 1 - config.vel, "vel": config.vel}
    rest = 1 - config.forward - config.reverse - config.deed
    for people in PEOPLES:
        for (name, p), (adjective, a), place in itertools.product(
            zip(NAMES[people], SHARES, strict=True), ADJECTIVES.items(), PLACES
        ):
            share = rest * peoples[people] * p * a / len(PLACES)
            yield share, _spaced("the", adjective, name, "lives by the", place)


def _spaced(*words: str) -> str:
    return " ".join(word for word in words if word)


def _trie(
    texts: Sequence[tuple[float, str]],
) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Vocabulary, probabilities and next states of the automaton that writes these texts."""
    vocabulary = [END, *sorted({word for _, text in texts for word in text.split()})]
    ids = {word: i for i, word in enumerate(vocabulary)}
    children: list[dict[int, int]] = [{}]
    mass = [1.0]
    ends = [0.0]
    for probability, text in texts:
        state = 0
        for word in text.split():
            if ids[word] not in children[state]:
                children[state][ids[word]] = len(children)
                children.append({})
                mass.append(0.0)
                ends.append(0.0)
            state = children[state][ids[word]]
            mass[state] += probability
        ends[state] += probability
    probabilities = torch.zeros(len(children), len(vocabulary), dtype=torch.float64)
    next_states = torch.full(probabilities.shape, -1)
    for state, row in enumerate(children):
        for token, child in row.items():
            probabilities[state, token] = mass[child] / mass[state]
            next_states[state, token] = child
        if ends[state]:
            probabilities[state, 0] = ends[state] / mass[state]
            next_states[state, 0] = 0
    return vocabulary, probabilities, next_states
