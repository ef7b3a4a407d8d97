"""Judge of *n-grams and back-off*."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from assignments.judges.shared import letters, times
from companion.teaching.checks import Mistake, wrong_draws
from companion.teaching.marking import Task

Counts = dict[tuple[int, ...], int]

# --- 1. counting ---------------------------------------------------------------------------------


def some_ids(generator: np.random.Generator) -> tuple[Any, ...]:
    """A short text over three tokens, and an order."""
    ids = [int(each) for each in generator.integers(3, size=25)]
    return ids, int(generator.integers(2, 5))


def count_ngrams(ids: list[int], order: int, missing: int = 0) -> Counts:
    """Counts of all n-grams."""
    return dict(
        Counter(
            tuple(ids[start : start + n])
            for n in range(1, order + 1)
            for start in range(len(ids) - n + 1 - missing)
        )
    )


COUNT_MISTAKES = (
    Mistake(
        lambda ids, order: count_ngrams(ids, order, missing=1),
        "the last n-gram of each length is missing: there are len(ids) - n + 1, off by one",
    ),
    Mistake(
        lambda ids, order: {k: n for k, n in count_ngrams(ids, order).items() if len(k) == order},
        "only the longest n-grams are there; back-off needs all lengths from 1 on",
    ),
    Mistake(
        lambda ids, order: {k: n for k, n in count_ngrams(ids, order).items() if len(k) < order},
        "the longest n-grams are missing: range() leaves out its end",
    ),
)


# --- 2. a vocabulary -----------------------------------------------------------------------------


def some_words(generator: np.random.Generator) -> tuple[Any, ...]:
    """Two texts whose most frequent words differ, and a size that some words do not fit in."""
    words = [f"w{i}" for i in range(12)]
    train = [str(each) for each in generator.choice(words[:9], size=60)]
    test = [str(each) for each in generator.choice(words[5:], size=60)]
    return train, test, 6


def prepare(train: list[str], test: list[str], size: int, seen: Any = None) -> tuple[Any, ...]:
    """Vocabulary and ids; `seen` is what the vocabulary is counted on."""
    counts = Counter(train if seen is None else seen)
    vocabulary = ["<unk>", *sorted(counts, key=lambda w: (-counts[w], w))[: size - 1]]
    ids = {word: i for i, word in enumerate(vocabulary)}
    return vocabulary, *([ids.get(word, 0) for word in text] for text in (train, test))


VOCABULARY_MISTAKES = (
    Mistake(
        lambda train, test, size: prepare(train, test, size, seen=train + test),
        "the test text leaked into the vocabulary; count words of the training text alone",
    ),
    Mistake(
        lambda train, test, size: prepare(train, test, size + 1),
        "the vocabulary has one word too many: <unk> takes one of its places",
    ),
)


# --- 3. back-off ---------------------------------------------------------------------------------


def followed(context: tuple[int, ...], counts: Counts, size: int) -> list[int]:
    """How often each token followed."""
    return [counts.get((*context, w), 0) for w in range(size)]


def prob(token: int, context: tuple[int, ...], counts: Counts, size: int, bug: str = "") -> float:
    """Interpolated Witten-Bell, and mistakes in it."""
    shorter = context[:-1] if bug == "newest" else context[1:]
    lower = prob(token, shorter, counts, size, bug) if context else 1 / size
    if bug == "no uniform" and not context:
        lower = 0.0
    seen = followed(context, counts, size)
    total, types = sum(seen), sum(n > 0 for n in seen)
    if bug == "tokens" and total:
        types = total
    if bug == "own count" and context:
        total = counts.get(context, 0)
    if total == 0:
        return lower
    if bug == "no mixing":
        return seen[token] / total if seen[token] else lower
    return (seen[token] + types * lower) / (total + types)


def some_context(generator: np.random.Generator) -> tuple[Any, ...]:
    """Any token, and a context of two tokens that does not end the text."""
    ids = [*(int(each) for each in generator.integers(3, size=18)), 3]
    counts = count_ngrams(ids, 3)
    place = int(generator.integers(1, 15))
    return int(generator.integers(5)), tuple(ids[place : place + 2]), counts, 5


def open_context(generator: np.random.Generator) -> tuple[Any, ...]:
    """A context that nothing followed: its last token is not in the text."""
    ids = [int(each) for each in generator.integers(3, size=14)]
    counts = count_ngrams([*ids, 3, 0, 3], 3)
    return int(generator.integers(4)), (int(generator.integers(2)), 4), counts, 6


def last_context(generator: np.random.Generator) -> tuple[Any, ...]:
    """A context that ends the text and was followed elsewhere: its count is one more than N(c)."""
    ids = [int(each) for each in generator.integers(3, size=14)]
    counts = count_ngrams([*ids, 1, 2, 0, 1, 2], 3)
    return int(generator.integers(3)), (1, 2), counts, 4


def whole(student, context, counts, size):  # type: ignore[no-untyped-def]  # noqa: D103
    return [float(student.prob(w, context, counts, size)) for w in range(size)]


def with_bug(bug: str) -> Any:
    """`prob` with a mistake."""
    return lambda *case: prob(*case, bug=bug)


PROB_MISTAKES = (
    Mistake(with_bug("newest"), "the newest token was dropped from the context; drop the oldest"),
    Mistake(
        with_bug("tokens"),
        "T(c) is the number of different tokens that followed, not of all that followed",
    ),
    Mistake(
        with_bug("no uniform"),
        "below the empty context lies 1 / V; without it a token never seen has probability 0",
    ),
    Mistake(
        with_bug("own count"),
        "N(c) is how often something followed the context; its own count is one more where the "
        "text ends with it",
    ),
    Mistake(
        with_bug("no mixing"),
        "a seen n-gram keeps count / N(c), and the unseen get the shorter context's on top: "
        "that sums to more than one; mix the two",
    ),
)


def judge_sum(answer: Any, context: Any, counts: Any, size: int) -> str:
    """What is wrong with a whole distribution."""
    right = (
        isinstance(answer, list)
        and all(isinstance(each, float) and each > 0 for each in answer)
        and abs(sum(answer) - 1) <= 1e-6
    )
    if right:  # what must be true: a nan is neither above nor below anything
        return ""
    return "prob: over all tokens the probabilities must be positive and sum to one."


def some_table(generator: np.random.Generator) -> tuple[Any, ...]:
    """A text, an order, and probabilities by length of the context, its last token and the next."""
    ids = [int(each) for each in generator.integers(4, size=12)]
    return ids, int(generator.integers(2, 5)), generator.dirichlet(np.ones(4), size=(5, 4))


def run_mean(student, ids, order, table):  # type: ignore[no-untyped-def]  # noqa: D103
    def prob_of(token, context):  # type: ignore[no-untyped-def]
        return float(table[len(context), context[-1] if context else 0, token])

    return float(student.mean_nats(ids, order, prob_of))


def mean_nats(ids: list[int], order: int, table: Any, *, skip: int = 0, base: float = 1) -> float:
    """Mean surprisal from `skip` on, in units of `base` nats."""
    found = []
    for t in range(len(ids)):
        context = ids[max(0, t - order + 1) : t]
        found.append(-math.log(table[len(context), context[-1] if context else 0, ids[t]]))
    return sum(found[skip:]) / len(found[skip:]) / base


MEAN_MISTAKES = (
    Mistake(
        lambda ids, order, table: mean_nats(ids, order, table, skip=order - 1),
        "the first order - 1 tokens were left out; they are part of the text, with a shorter "
        "context",
    ),
    Mistake(
        lambda ids, order, table: mean_nats(ids, order, table) * len(ids),
        "this is the sum; divide by the number of tokens",
    ),
    Mistake(
        lambda ids, order, table: mean_nats(ids, order, table, base=math.log(2)),
        "these are bits; take the natural logarithm",
    ),
    Mistake(
        lambda ids, order, table: mean_nats(ids, order + 1, table),
        "the contexts are one token too long: an order-n model sees n - 1 tokens",
    ),
)


# --- 4. drawing ----------------------------------------------------------------------------------


def some_probs(generator: np.random.Generator) -> tuple[Any, ...]:
    """Probabilities, one of them zero, and a seed."""
    probs = [*generator.dirichlet(np.full(4, 2.0)).tolist(), 0.0]
    return probs, int(generator.integers(2**31))


def draw_twice(student, probs, seed):  # type: ignore[no-untyped-def]  # noqa: D103
    import torch

    generator = torch.Generator().manual_seed(seed)
    return [[int(each) for each in student.sample(list(probs), 2000, generator)] for _ in range(2)]


def judge_draws(answer: Any, probs: list[float], seed: int) -> str:
    """What is wrong with two calls' draws; a right sampler is told so at one of 100,000 seeds."""
    if not isinstance(answer, list) or len(answer) != 2:
        return "sample: a list or tensor of token ids is asked for."
    wrong = wrong_draws(answer, probs, 2000, 1e-5)
    return f"sample: {wrong}." if wrong else ""


# --- 5. the order --------------------------------------------------------------------------------


def some_losses(generator: np.random.Generator) -> tuple[Any, ...]:
    """Losses by order, whose least is at another order in each split."""
    best = [int(each) for each in generator.permutation([3, 4, 5])[:2]]
    orders = range(1, 7)

    def curve(least: int) -> dict[int, float]:
        return {n: 2 + 0.1 * abs(n - least) + float(generator.uniform(0, 0.05)) for n in orders}

    return {n: 3 - 0.4 * n for n in orders}, curve(best[0]), curve(best[1])


def least(losses: dict[int, float]) -> int:
    """The order of the least loss."""
    return min(losses, key=losses.__getitem__)


ORDER_MISTAKES = (
    Mistake(
        lambda train, valid, test: least(train),
        "chosen by the training loss, which always prefers the longest; use the validation loss",
    ),
    Mistake(
        lambda train, valid, test: least(test),
        "chosen by the test loss: the test text leaked into the choice; use the validation loss",
    ),
    Mistake(lambda train, valid, test: min(valid.values()), "this is the loss; return its order"),
    Mistake(
        lambda train, valid, test: 2, "this is the visible test's answer, whatever the losses are"
    ),
)

REASONS = {
    "A": "without the copied passages only grammar can help the longer model",
    "B": "on its own training text the longer model is better whatever the cause",
    "C": "if copies lie on one side, nothing that was counted can be copied into the other",
    "D": "the comparison draws no samples, so a seed changes nothing",
}

TASKS = [
    Task(
        name="counting", cell="counting-test", points=2, answer="count_ngrams",
        cases=times(3, some_ids), reference=count_ngrams, mistakes=COUNT_MISTAKES,
        hint="all tuples of 1 to order tokens in a row",
    ),
    Task(
        name="a vocabulary without a leak", cell="vocabulary-test", points=3, answer="prepare",
        cases=times(3, some_words), reference=prepare, mistakes=VOCABULARY_MISTAKES,
        hint="frequent first, then by the alphabet; 0 for every word without a place",
    ),
    Task(
        name="back-off: contexts that were followed", cell="back-off-test", points=2,
        answer="prob", cases=lambda g: [some_context(g) for _ in range(8)],
        reference=prob, tolerance=1e-9, mistakes=PROB_MISTAKES,
        hint="mix the counts with the context without its oldest token",
    ),
    Task(
        name="back-off: contexts that nothing followed, or that end the text",
        cell="back-off-test", points=2, answer="prob",
        cases=lambda g: [
            draw(g) for _ in range(4) for draw in (open_context, last_context)
        ],
        reference=prob, tolerance=1e-9, mistakes=PROB_MISTAKES,
        hint="where nothing followed, the shorter context decides alone",
    ),
    Task(
        name="back-off: a distribution", cell="back-off-test", points=1, answer="prob",
        cases=lambda g: [some_context(g)[1:] for _ in range(5)], judged=judge_sum,
        driver=whole,
    ),
    Task(
        name="mean surprisal", cell="back-off-test", points=3, answer="mean_nats",
        cases=times(3, some_table), reference=mean_nats, driver=run_mean, tolerance=1e-6,
        mistakes=MEAN_MISTAKES, hint="each token has the up to order - 1 tokens before it",
    ),
    Task(
        name="drawing text", cell="sampling-test", points=3, answer="sample",
        cases=times(2, some_probs), judged=judge_draws, driver=draw_twice,
    ),
    Task(
        name="which order", cell="order-test", points=2, answer="best_order",
        cases=times(3, some_losses), reference=lambda train, valid, test: least(valid),
        mistakes=ORDER_MISTAKES, hint="the order with the least validation loss",
    ),
    Task(
        name="a control", cell="control-test", points=2, answer="controls",
        judged=letters("controls", {"A", "C"}, REASONS),
    ),
]  # fmt: skip
