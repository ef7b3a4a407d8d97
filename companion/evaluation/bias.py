"""How biased a model is: what it says next, where its word vectors lie, what a decision does.

Three measures, in the order in which they need less of the model and more of the world: the log
odds of two answers after texts that differ in one word (from next-token probabilities, so nothing
is sampled), the association of word vectors (WEAT, Caliskan et al. 2017), and the rates of right
and wrong decisions by group.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from companion.evaluation.claims import student_factor
from companion.models.base import LanguageModel
from companion.sources.planted import Question
from companion.text.rows import END_ID

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

#: Confidence level of an interval.
LEVEL = 0.95
#: Most ways to deal names to two sets that are all tried by `association_test`.
MOST_DEALS = 20_000


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def holds(self, truth: float) -> bool:
        """Whether the interval holds `truth`."""
        return self.low <= truth <= self.high


# --- What a model says next ---------------------------------------------------------------------


class Questionnaire:
    """Questions by template, made into tensors once; called with a model, it gives log odds ratios.

    templates: the questions of each; `encode` gives the ids of a text's words. Raises ValueError
    for no question, and for an answer of several tokens.
    """

    def __init__(
        self,
        templates: Sequence[Sequence[Question]],
        encode: Callable[[str], Sequence[int]],
        *,
        vocabulary_size: int,
    ) -> None:
        questions = [question for template in templates for question in template]
        if not questions or not all(templates):
            raise ValueError("a questionnaire needs a template or more, each with a question")
        texts = [text for question in questions for text in (question.first, question.second)]
        rows = [torch.tensor([END_ID, *encode(text)]) for text in texts]
        self.inputs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=END_ID)
        self.last = torch.tensor([len(row) - 1 for row in rows])
        self.answers = torch.zeros(2, len(questions), vocabulary_size, dtype=torch.bool)
        self.shares = torch.zeros(len(templates), len(questions), dtype=torch.float64)
        for place, question in enumerate(questions):
            for kind, words in enumerate((question.against, question.instead)):
                for word in words:
                    self.answers[kind, place, _one_token(word, encode)] = True
        place = 0
        for number, template in enumerate(templates):
            weights = torch.tensor([question.weight for question in template]).double()
            self.shares[number, place : place + len(template)] = weights / weights.sum()
            place += len(template)

    def __call__(self, model: LanguageModel) -> Float[Tensor, " templates"]:
        """The log odds ratio of each template, the mean over its questions by their weights.

        Of a question it is log q(against)/q(instead) after `second`, minus the same after `first`:
        exact from next-token probabilities, and with gradients.
        """
        features, _ = model.features(self.inputs.to(model.device))
        last = features[torch.arange(len(self.last)), self.last]
        logits = model.logits(last).unsqueeze(0)
        pairs = self.answers.repeat_interleave(2, dim=1).to(logits.device)
        against, instead = logits.masked_fill(~pairs, -torch.inf).logsumexp(dim=-1)
        odds = (against - instead).view(-1, 2)
        ratios: Tensor = self.shares.to(odds) @ (odds[:, 1] - odds[:, 0])
        return ratios


def _one_token(word: str, encode: Callable[[str], Sequence[int]]) -> int:
    tokens = list(encode(word))
    if len(tokens) != 1:
        raise ValueError(
            f"an answer must be one token, and {word!r} has {len(tokens)}; use a tokenizer of "
            "whole words, or other answers"
        )
    return tokens[0]


def odds_ratio(counts: Int[Tensor, "2 2"], *, level: float = LEVEL) -> Estimate:
    """Log odds ratio of a table of counts, with its interval by Woolf (1955).

    counts: rows are groups, first and second; columns are outcomes, the other and the one asked
    about. 1/2 is added to each count (Haldane 1956, Anscombe 1956), so no count of zero gives
    infinity. The squared standard error is the sum of the reciprocal counts.
    """
    if counts.shape != (2, 2) or bool((counts < 0).any()):
        raise ValueError(f"counts must be a 2 by 2 table of numbers >= 0, got {counts.tolist()}")
    cells = counts.double() + 0.5
    value = float((cells[1, 1] * cells[0, 0] / (cells[1, 0] * cells[0, 1])).log())
    half = _normal(level) * math.sqrt(float((1 / cells).sum()))
    return Estimate(value, value - half, value + half)


def mean_interval(values: Sequence[float], *, level: float = LEVEL) -> Estimate:
    """Mean of independent runs with Student's interval; ValueError for fewer than two."""
    if len(values) < 2:
        raise ValueError(f"an interval of a mean needs two values or more, got {len(values)}")
    mean = statistics.fmean(values)
    half = student_factor(len(values), level) * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def _normal(level: float) -> float:
    from scipy import stats

    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    return float(stats.norm.ppf((1 + level) / 2))


# --- Where word vectors lie ---------------------------------------------------------------------


class Association(NamedTuple):
    """Result of a word-embedding association test."""

    effect: float
    """Effect size: difference of the two sets' mean associations, in standard deviations of all
    names' associations; between -2 and 2."""
    p_value: float
    """Share of the ways to deal the names to two sets whose difference is at least as large."""


def association_test(
    first: Float[Tensor, "first size"],
    second: Float[Tensor, "second size"],
    against: Float[Tensor, "against size"],
    instead: Float[Tensor, "instead size"],
) -> Association:
    """The word-embedding association test, WEAT (Caliskan et al. 2017).

    A vector's association is its mean cosine with `against` minus that with `instead`. Positive
    effects mean that `second` lies nearer to `against` than `first` does. The p-value is exact and
    one-sided, over all ways to deal the vectors to two sets of these sizes.

    Raises ValueError for sets with fewer than two vectors, vectors of length zero or with other
    than finite numbers, names that all have the same association, and so many vectors that the ways
    to deal them are more than `MOST_DEALS`.
    """
    sets = first, second, against, instead
    if any(each.ndim != 2 or len(each) < 2 for each in sets):
        raise ValueError(
            "each set needs two vectors or more, as rows, got "
            f"{', '.join(str(tuple(each.shape)) for each in sets)}"
        )
    if not all(bool(each.isfinite().all()) for each in sets):
        raise ValueError("vectors must be of finite numbers, got infinity or no number")
    if any(bool((each.norm(dim=1) == 0).any()) for each in sets):
        raise ValueError("a vector of length zero has no direction; leave it out")
    deals = math.comb(len(first) + len(second), len(first))
    if deals > MOST_DEALS:
        raise ValueError(f"at most {MOST_DEALS:,} ways to deal are tried, got {deals:,}")
    unit = [
        each.detach().double() / each.detach().double().norm(dim=1, keepdim=True) for each in sets
    ]
    names = torch.cat(unit[:2])
    scores = (names @ unit[2].T).mean(dim=1) - (names @ unit[3].T).mean(dim=1)
    spread = float(scores.std(correction=0))
    if spread < 1e-12:
        raise ValueError(
            "all names have the same association, so there is no spread to measure it by"
        )
    n = len(first)

    def difference(chosen: Sequence[int]) -> float:
        inside = torch.zeros(len(scores), dtype=torch.bool)
        inside[list(chosen)] = True
        return float(scores[~inside].mean() - scores[inside].mean())

    found = difference(range(n))
    as_large = sum(
        difference(chosen) >= found - 1e-12
        for chosen in itertools.combinations(range(len(scores)), n)
    )
    return Association(found / spread, as_large / deals)


# --- What a decision does -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GroupRates:
    """Rates of one group's decisions."""

    base_rate: float
    """Share of the group that is positive."""
    flagged: float
    """Share of the group that is flagged."""
    true_positive_rate: float
    """Share of its positives that are flagged: one minus the miss rate."""
    false_positive_rate: float
    """Share of its negatives that are flagged: the false-alarm rate."""
    precision: float
    """Share of the flagged that are positive."""
    mean_score: float
    """Mean probability; equal to the base rate where the scores are calibrated in the large."""


def rates_by_group(
    probabilities: Float[Tensor, " examples"],
    positive: Float[Tensor, " examples"] | Bool[Tensor, " examples"],
    groups: Sequence[str],
    *,
    threshold: float | Mapping[str, float] = 0.5,
    weights: Float[Tensor, " examples"] | None = None,
) -> dict[str, GroupRates]:
    """Rates of the decision "flagged where the probability reaches the threshold", by group.

    positive: whether each example is positive, or the probability that it is, where the examples
        are all possible kinds and `weights` their shares: then the rates are exact.
    threshold: one for all, or one for each group.

    A rate without an example to count is NaN. Raises ValueError for no example, shapes that differ,
    probabilities outside [0, 1], negative weights, and a group without a threshold.
    """
    n = len(groups)
    if not n or probabilities.shape != (n,) or positive.shape != (n,):
        raise ValueError(
            "probabilities, positive and groups must be non-empty and of one length, got "
            f"{tuple(probabilities.shape)}, {tuple(positive.shape)} and {n}"
        )
    mass = torch.ones(n).double() if weights is None else weights.double()
    truth, scores = positive.double(), probabilities.double()
    for name, values in (("probabilities", scores), ("positive", truth)):
        if not bool(((values >= 0) & (values <= 1 + 1e-6)).all()):
            raise ValueError(
                f"{name} must be in [0, 1], got {float(values.min()):g} to {float(values.max()):g}"
            )
    if mass.shape != (n,) or not bool(((mass >= 0) & mass.isfinite()).all()):
        raise ValueError(f"weights must be {n} finite numbers >= 0, one an example")
    if isinstance(threshold, Mapping) and (without := sorted(set(groups) - threshold.keys())):
        raise ValueError(f"threshold has none for the group {without[0]!r}; give each group one")
    found = {}
    for group in sorted(set(groups)):
        here = torch.tensor([each == group for each in groups])
        limit = threshold if isinstance(threshold, int | float) else threshold[group]
        w, t, s = mass[here], truth[here], scores[here]
        flagged = (s >= limit).double()
        positives, negatives = (w * t).sum(), (w * (1 - t)).sum()
        hits = (w * t * flagged).sum()
        found[group] = GroupRates(
            base_rate=_ratio(positives, w.sum()),
            flagged=_ratio((w * flagged).sum(), w.sum()),
            true_positive_rate=_ratio(hits, positives),
            false_positive_rate=_ratio((w * (1 - t) * flagged).sum(), negatives),
            precision=_ratio(hits, (w * flagged).sum()),
            mean_score=_ratio((w * s).sum(), w.sum()),
        )
    return found


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part / whole) if float(whole) > 0 else math.nan
