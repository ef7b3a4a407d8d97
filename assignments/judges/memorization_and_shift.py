"""Judge of *memorization and shift*."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from assignments.judges.shared import BITS, letters, shares_of, times
from companion.teaching.checks import Mistake
from companion.teaching.marking import Task

# --- 1. exposure ---------------------------------------------------------------------------------


def some_code(generator: np.random.Generator) -> tuple[Any, ...]:
    """A code that is neither the first nor the last of 50."""
    others = generator.normal(10, 2, size=50)
    return float(np.sort(others)[int(generator.integers(4, 20))] + 1e-3), others


def tied_code(generator: np.random.Generator) -> tuple[Any, ...]:
    """Two less surprising codes are alike, and one is as surprising as the planted one."""
    planted, others = some_code(generator)
    order = others.argsort()
    others[order[1]], others[order[-1]] = others[order[0]], planted
    return planted, others


def exposure(planted: float, others: Any, *, rank: int = 1, codes: int = 1) -> float:
    """Exposure in bits."""
    return math.log2(len(others) + codes) - math.log2(rank + int((others < planted).sum()))


EXPOSURE_MISTAKES = (
    Mistake(lambda planted, others: exposure(planted, others) * BITS, "these are nats; take log2"),
    Mistake(
        lambda planted, others: exposure(-planted, -others),
        "the rank counts the codes that are more surprising; count those with a smaller surprisal",
    ),
    Mistake(
        lambda planted, others: exposure(planted, others, rank=0),
        "the rank begins at 1, off by one",
    ),
    Mistake(
        lambda planted, others: exposure(planted, others, rank=1 + int((others == planted).sum())),
        "a code as surprising as the planted one is not less surprising, and does not count",
    ),
    Mistake(
        lambda planted, others: exposure(planted, others, codes=0),
        "R is the number of all codes, the planted one included",
    ),
    Mistake(
        lambda planted, others: math.log2(1 + int((others < planted).sum())),
        "this is log2 of the rank; subtract it from log2 R",
    ),
)


def some_groups(generator: np.random.Generator) -> tuple[Any, ...]:
    """Planted codes and controls, not as many."""
    return [some_code(generator) for _ in range(4)], [some_code(generator) for _ in range(7)]


def mean_exposure(pairs: Any) -> float:
    """Mean exposure of codes."""
    return float(np.mean([exposure(*pair) for pair in pairs]))


def run_beyond(student, planted, controls):  # type: ignore[no-untyped-def]  # noqa: D103
    import math

    def exposure(planted, others):  # type: ignore[no-untyped-def]
        return math.log2(len(others) + 1) - math.log2(1 + int((others < planted).sum()))

    # A mistake in `exposure` is not charged twice.
    student.use("exposure", exposure)
    return student.beyond_luck(planted, controls)


LUCK_MISTAKES = (
    Mistake(
        lambda planted, controls: mean_exposure(planted),
        "the control is missing: subtract the mean exposure of codes that were never planted",
    ),
    Mistake(
        lambda planted, controls: mean_exposure(controls) - mean_exposure(planted),
        "the difference is the wrong way round",
    ),
    Mistake(
        lambda planted, controls: (
            sum(exposure(*p) for p in planted) - sum(exposure(*p) for p in controls)
        ),
        "these are sums, and the groups differ in size; take means",
    ),
)


# --- 2. seen before ------------------------------------------------------------------------------


def some_documents(generator: np.random.Generator) -> tuple[Any, ...]:
    """Documents of which some share a passage, some only its end, and one is too short."""
    words = [f"w{i}" for i in range(400)]

    def document() -> list[str]:
        return [str(each) for each in generator.choice(words, size=12)]

    train = [document() for _ in range(4)]
    copied, at_end, near, whole, joined, prefix = (document() for _ in range(6))
    copied[3:7] = train[0][2:6]
    at_end[-4:] = train[1][-4:]
    near[2:5] = train[2][5:8]  # three words in a row only
    whole[:] = train[3]
    joined[2:6] = train[0][-2:] + train[1][:2]  # across the border of two documents
    prefix[1:5] = [*train[2][:3], train[2][3][:-1]]  # "w1 w2" in front of "w12" is no passage
    test = [document(), copied, at_end, near, whole, joined, prefix, document()[:2]]
    return train, [test[int(i)] for i in generator.permutation(len(test))], 4


def unseen(train: Any, test: Any, n: int, *, missing: int = 0) -> Any:
    """Test documents without a passage from the training text."""

    def passages(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1 - missing)}

    seen = set().union(*map(passages, train))
    return [words for words in test if not passages(words) & seen]


def unseen_as_text(train: Any, test: Any, n: int) -> Any:
    """The same with documents as strings: a mistake."""
    texts = [" ".join(words) for words in train]

    def found(words: list[str]) -> bool:
        passages = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
        return any(passage in text for passage in passages for text in texts)

    return [words for words in test if not found(words)]


UNSEEN_MISTAKES = (
    Mistake(
        lambda train, test, n: [words for words in test if words not in train],
        "only whole documents are compared; a copied passage leaks as well",
    ),
    Mistake(
        lambda train, test, n: unseen(train, test, n, missing=1),
        "the last passage of each document is missing, off by one",
    ),
    Mistake(
        lambda train, test, n: unseen([[word for words in train for word in words]], test, n),
        "a passage that begins in one training document and ends in the next is in neither",
    ),
    Mistake(
        unseen_as_text,
        "part of a word is not the word: compare passages as tuples, not as strings",
    ),
    Mistake(
        lambda train, test, n: unseen(test, train, n),
        "these are training documents; the test documents are asked for",
    ),
    Mistake(
        lambda train, test, n: unseen(train, test, n - 1), "passages of n - 1 words are too short"
    ),
    Mistake(
        lambda train, test, n: [words for words in unseen(train, test, n) if len(words) >= n],
        "a document shorter than a passage has none, and stays",
    ),
    Mistake(lambda train, test, n: test, "nothing was left out: the test split has leaked"),
)


# --- 3. three parts ------------------------------------------------------------------------------


def some_sources(generator: np.random.Generator) -> tuple[Any, ...]:
    """New source, old source and model, with unequal long-run shares."""
    return tuple(
        generator.dirichlet(alpha, size=3) * 0.97 + 0.01
        for alpha in ([6, 2, 1], [1, 3, 4], [2, 2, 2])
    )


def parts(new: Any, old: Any, model: Any, *, shares: Any = None, truth: Any = None) -> Any:
    """Entropy, unavoidable part and own error."""
    shares = shares_of(new) if shares is None else shares
    truth = new if truth is None else truth

    def mean(values: Any) -> float:
        return float(shares @ (truth * values).sum(1))

    return mean(-np.log(new)), mean(np.log(new / old)), mean(np.log(old / model))


PART_MISTAKES = (
    Mistake(
        lambda *case: parts(*case, shares=shares_of(case[1])),
        "contexts are weighted by the old source's shares; the new one's reach them",
    ),
    Mistake(
        lambda *case: parts(*case, shares=np.full(3, 1 / 3)),
        "the rows were averaged with equal weights; weigh them by their long-run shares",
    ),
    Mistake(
        lambda new, old, model: (
            *parts(new, old, model)[:2],
            sum(parts(new, old, model)[1:]),
        ),
        "the own error is against the old source; this is the whole gap to the new one",
    ),
    Mistake(
        lambda new, old, model: (
            parts(new, old, model)[0],
            float(shares_of(new) @ (old * np.log(old / new)).sum(1)),
            parts(new, old, model)[2],
        ),
        "the KL divergence is the wrong way round; the new source gives the weights",
    ),
    Mistake(
        lambda new, old, model: (
            *parts(new, old, model)[:2],
            float(shares_of(new) @ (old * np.log(old / model)).sum(1)),
        ),
        "the own error is a mean over the new source's tokens, not a KL divergence of the old one",
    ),
    Mistake(
        lambda *case: tuple(each / BITS for each in parts(*case)), "these are bits; take np.log"
    ),
)


# --- 4. AUROC ------------------------------------------------------------------------------------


def some_scores(generator: np.random.Generator) -> tuple[Any, ...]:
    """Whole numbers, so that many tie."""
    familiar = generator.integers(0, 6, size=15).astype(float)
    return familiar, generator.integers(1, 8, size=11).astype(float)


def auroc(familiar: Any, strange: Any, tie: float = 0.5) -> float:
    """How often a strange text scores higher."""
    above, equal = strange[:, None] > familiar, strange[:, None] == familiar
    return float((above + tie * equal).mean())


AUROC_MISTAKES = (
    Mistake(lambda f, s: auroc(f, s, 0.0), "a tie counts one half, not nothing"),
    Mistake(lambda f, s: auroc(f, s, 1.0), "a tie counts one half, not a whole"),
    Mistake(lambda f, s: auroc(s, f), "the pairs are the wrong way round: strange above familiar"),
    Mistake(lambda f, s: auroc(f, s) * len(f) * len(s), "this is a count; divide by all pairs"),
    Mistake(
        lambda f, s: float((s > f.mean()).mean()),
        "this compares with the mean score; compare every strange with every familiar text",
    ),
)

REASONS = {
    "A": "then the notes are harder for every model, by just that much",
    "B": "then the gap is unavoidable for whoever learns from the old source alone",
    "C": "that tells of fitting the old text, not of what the notes cost",
    "D": "the same losses with other seeds make the two numbers surer, and not the conclusion",
}

TASKS = [
    Task(
        name="exposure", cell="exposure-test", points=3, answer="exposure",
        cases=lambda g: [*times(2, some_code)(g), tied_code(g)], reference=exposure, tolerance=1e-6,
        mistakes=EXPOSURE_MISTAKES, hint="log2 of all codes minus log2 of the rank",
    ),
    Task(
        name="beyond luck", cell="exposure-test", points=2, answer="beyond_luck",
        cases=times(2, some_groups), driver=run_beyond, tolerance=1e-6, mistakes=LUCK_MISTAKES,
        reference=lambda planted, controls: mean_exposure(planted) - mean_exposure(controls),
        hint="mean exposure of the planted minus that of the controls",
    ),
    Task(
        name="text that was seen before", cell="unseen-test", points=3, answer="unseen_documents",
        cases=times(3, some_documents), reference=unseen, mistakes=UNSEEN_MISTAKES,
        hint="no n words in a row may occur in a training document",
    ),
    Task(
        name="three parts of a loss", cell="parts-test", points=6, answer="loss_parts",
        cases=times(3, some_sources), reference=parts, tolerance=1e-6, mistakes=PART_MISTAKES,
        hint="each part is a mean over the new source's contexts and tokens",
    ),
    Task(
        name="telling strange text apart", cell="auroc-test", points=3, answer="auroc",
        cases=times(3, some_scores), reference=auroc, tolerance=1e-6, mistakes=AUROC_MISTAKES,
        hint="the share of pairs in which the strange text has the higher score",
    ),
    Task(
        name="what refutes the claim", cell="claim-test", points=3, answer="refutes",
        judged=letters("refutes", {"A", "B"}, REASONS),
    ),
]  # fmt: skip
