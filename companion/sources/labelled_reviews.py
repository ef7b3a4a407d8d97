"""Reviews of the grammar with their sentiment, and sources that lack one thing that reviews have.

All opinion words of a review agree, so its sentiment is known. `write_reviews` draws reviews to
train on and to measure on, no two alike; `Without` is a source that never writes these again, so
that a language model of its texts has read none of them. Two sources are controls: one whose
opinions do not agree, and one whose words are shuffled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.core.seeds import make_generator
from companion.core.settings import check_sizes, settings_class
from companion.sources.automaton import AutomatonSource
from companion.sources.grammar import (
    OPENINGS,
    VOCABULARY,
    GrammarConfig,
    ReviewGrammar,
    compile_grammar,
)
from companion.sources.reviews import GrammarSource
from companion.sources.streams import TextSource
from companion.text.labelled import LabelledTexts

if TYPE_CHECKING:
    from jaxtyping import Int

#: The classes, by number.
SENTIMENTS = ("negative", "positive")

#: First words that stand for the label in the reviews with a cue: of class 0, and of class 1.
CUES = ("honestly", "overall")

#: Names of the groups of label and cue; group 2 * label + cue.
GROUPS = tuple(f"{label}, {cue}" for label in SENTIMENTS for cue in CUES)

#: Numbers of labels up to this one are drawn several times.
FEW = 30

_COMMA = VOCABULARY.index(",")
_OPENINGS = {VOCABULARY.index(word) for word in OPENINGS.split()}


@settings_class
class ReviewSizes:
    """How many labelled reviews are written, and how long the longest is."""

    train: int = 1000
    """Labelled reviews to train on, half of them of each class."""
    draws: int = 3
    """Different sets of labelled reviews where a classifier has 30 labels or fewer."""
    test: int = 1000
    """Test reviews, half of them of each class."""
    valid: int = 400
    """Reviews on which temperatures are fitted, half of them of each class."""
    rare: float = 0.1
    """Share of negative reviews where they are rare."""
    cue: int = 300
    """Reviews to train on that are given a cue."""
    longest: int = 40
    """Tokens of the longest review."""

    def __post_init__(self) -> None:
        check_sizes(draws=self.draws, longest=self.longest)
        for name in ("train", "test", "valid", "cue"):
            size = getattr(self, name)
            if size < 2 or size % 2:
                raise ValueError(f"{name} must be an even number >= 2, got {size}")
        if not 0 < self.rare < 1:
            raise ValueError(f"rare must be in (0, 1), got {self.rare}")


@dataclass(frozen=True, kw_only=True)
class Reviews:
    """Labelled reviews of one seed, no two of them alike, whatever their openings.

    But for `rare`, negative and positive reviews alternate, so any even-sized prefix is balanced.
    """

    train: LabelledTexts
    """The labelled reviews."""
    few: list[LabelledTexts]
    """Sets of few labelled reviews; the first is the beginning of `train`."""
    test: LabelledTexts
    """Reviews to measure on."""
    valid: LabelledTexts
    """Reviews on which temperatures are fitted."""
    rare: LabelledTexts
    """As many as `test`, few of them negative."""
    cue_train: LabelledTexts
    """Reviews to train on, for `with_cue`."""
    cue_test: LabelledTexts
    """Reviews to measure on, for `with_cue`."""

    def sets(self, labels: int) -> list[LabelledTexts]:
        """Sets of that many labelled reviews: several where there are few of them, else one."""
        every = self.few if labels <= FEW else [self.train]
        if labels > len(every[0]):
            raise ValueError(f"labels must be at most {len(every[0])}, got {labels}")
        return [each.first(labels) for each in every]

    def parts(self) -> list[LabelledTexts]:
        """All parts; no review is in two."""
        measured = [self.test, self.valid, self.rare, self.cue_test]
        return [self.train, *self.few[1:], self.cue_train, *measured]


def write_reviews(source: GrammarSource, sizes: ReviewSizes, *, seed: int) -> Reviews:
    """The labelled reviews of one seed, drawn from `source`."""
    draw = _Draw(source, sizes.longest, make_generator(seed, "labelled reviews"))
    few = min(FEW, sizes.train)
    train = draw.in_turn(sizes.train)
    others = [draw.in_turn(few) for _ in range(sizes.draws - 1)]
    test, valid = draw.in_turn(sizes.test), draw.in_turn(sizes.valid)
    flagged = min(max(1, round(sizes.rare * sizes.test)), sizes.test - 1)
    rare = [*draw.of_class(0, flagged), *draw.of_class(1, sizes.test - flagged)]
    return Reviews(
        train=train,
        few=[train.first(few), *others],
        test=test,
        valid=valid,
        rare=LabelledTexts.of_rows(rare, [0] * flagged + [1] * (sizes.test - flagged)),
        cue_train=draw.in_turn(sizes.cue),
        cue_test=draw.in_turn(sizes.test),
    )


def with_cue(
    texts: LabelledTexts, agreement: float, generator: torch.Generator
) -> tuple[LabelledTexts, Int[Tensor, " texts"]]:
    """The reviews with a cue and a comma before each, and its group, 2 * label + cue.

    The cue agrees with the label with probability `agreement`, whatever the words. An opening that
    a review had is left out.
    """
    agrees = torch.rand(len(texts), generator=generator) < agreement
    cues = torch.where(agrees, texts.labels, 1 - texts.labels)
    openings = [torch.tensor([VOCABULARY.index(cue), _COMMA]) for cue in CUES]
    rows = [
        torch.cat([openings[cue], without_opening(words)])
        for cue, words in zip(cues.tolist(), texts.rows(), strict=True)
    ]
    return LabelledTexts.of_rows(rows, texts.labels.tolist()), 2 * texts.labels + cues


def without_opening(words: Int[Tensor, " words"]) -> Int[Tensor, " rest"]:
    """A review without the opening, such as "overall ,", that its first sentence may have."""
    opens = len(words) > 2 and int(words[0]) in _OPENINGS and int(words[1]) == _COMMA
    return words[2:] if opens else words


class _OfAnother:
    """A source whose texts are those of another, with its tokens and of about its length."""

    def __init__(self, source: TextSource) -> None:
        self.source = source

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, the end token included."""
        return self.source.vocabulary_size

    def mean_length(self) -> float:
        """Expected tokens in a text of the whole source, its end token included."""
        return self.source.mean_length()


class Without(_OfAnother):
    """The texts of a source, redrawn whenever they are one of these reviews, whatever its
    opening."""

    def __init__(self, source: TextSource, reviews: Iterable[LabelledTexts]) -> None:
        super().__init__(source)
        self.known = {_key(words) for part in reviews for words in part.rows()}

    def sample(self, n: int, *, generator: torch.Generator) -> list[Tensor]:
        """`n` texts, each a 1-D tensor of ids that ends with the end token."""
        texts: list[Tensor] = []
        while len(texts) < n:
            more = self.source.sample(n - len(texts), generator=generator)
            texts += [text for text in more if _key(text[:-1]) not in self.known]
        return texts


class IndependentOpinions(ReviewGrammar):
    """The grammar with a new opinion for each opinion word; all else is as it was."""

    def _tones(self, opinion: str) -> dict[str, float]:
        return {"+": self.config.positive, "-": 1 - self.config.positive}


def disagreeing_reviews(config: GrammarConfig | None = None) -> AutomatonSource:
    """The source of reviews in which each opinion word has a new opinion."""
    grammar = IndependentOpinions(config or GrammarConfig())
    return AutomatonSource(VOCABULARY, *compile_grammar(grammar))


class ShuffledWords(_OfAnother):
    """The texts of another source, the words of each in random order: which words stand together
    is as it was, and their order is lost."""

    def sample(self, n: int, *, generator: torch.Generator) -> list[Tensor]:
        """`n` texts, each a 1-D tensor of ids that ends with the end token."""
        texts = self.source.sample(n, generator=generator)
        return [
            torch.cat([text[torch.randperm(len(text) - 1, generator=generator)], text[-1:]])
            for text in texts
        ]


class _Draw:
    """Draws reviews with an opinion, each only once."""

    def __init__(self, source: GrammarSource, longest: int, generator: torch.Generator) -> None:
        self.source, self.longest, self.generator = source, longest, generator
        self.seen: set[tuple[int, ...]] = set()
        self.waiting: tuple[list[Tensor], list[Tensor]] = ([], [])

    def of_class(self, sentiment: int, n: int) -> list[Tensor]:
        """`n` reviews of that class, without their end token."""
        waiting = self.waiting[sentiment]
        while len(waiting) < n:
            for text in self.source.sample(2 * n + 10, generator=self.generator):
                words, opinion = text[:-1], self.source.opinion(text)
                key = _key(words)
                if opinion != "0" and len(words) <= self.longest and key not in self.seen:
                    self.seen.add(key)
                    self.waiting[int(opinion == "+")].append(words)
        found = waiting[:n]
        del waiting[:n]
        return found

    def in_turn(self, n: int) -> LabelledTexts:
        """`n` reviews, an even number, a negative and a positive one in turn."""
        pairs = zip(self.of_class(0, n // 2), self.of_class(1, n // 2), strict=True)
        return LabelledTexts.of_rows([words for pair in pairs for words in pair], [0, 1] * (n // 2))


def _key(words: Tensor) -> tuple[int, ...]:
    """A review's text without its opening."""
    return tuple(without_opening(words).tolist())
