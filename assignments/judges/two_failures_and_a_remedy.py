"""Judge of *two failure modes and one remedy*."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from assignments.judges.shared import letters, times
from companion.teaching.checks import Mistake
from companion.teaching.marking import Task

# --- 1. a diagnosis ------------------------------------------------------------------------------

#: The visible test's thresholds. Those of the hidden inputs are larger, and gaps lie between.
NEAR, ENOUGH = 0.05, 0.9


def every_report(generator: np.random.Generator) -> list[tuple[Any, ...]]:
    """Each of the eight cases, in random order, with thresholds that are not the visible ones.

    The last is a report that is at all thresholds.
    """
    near, enough = float(generator.uniform(0.1, 0.3)), float(generator.uniform(0.6, 0.85))

    def gap(large: bool) -> float:
        return near * float(generator.uniform(*((2, 9) if large else (0.7, 0.9))))

    def wish(large: bool) -> float:
        return float(generator.uniform(*((enough + 0.01, 1) if large else (0, enough - 0.01))))

    cases = [
        (gap(old), gap(new), wish(good), near, enough)
        for old in (False, True)
        for new in (False, True)
        for good in (False, True)
    ]
    # At all three thresholds, exact in binary, nothing is wrong.
    return [*(cases[int(i)] for i in generator.permutation(8)), (0.25, 0.25, 0.75, 0.25, 0.75)]


def diagnose(old: float, new: float, wish: float, near: float, enough: float) -> str:
    """The first failure that applies."""
    if old > near:
        return "undertrained"
    if wish < enough:
        return "objective"
    return "generalization" if new > near else "none"


def at_threshold(old_apart: int, new_apart: int, wish_apart: int) -> Any:
    """`diagnose` with a mistake where a number is at its threshold."""
    little = 1e-9
    return lambda old, new, wish, near, enough: diagnose(
        old + little * old_apart, new + little * new_apart, wish - little * wish_apart, near, enough
    )


# --- 2. a constraint -----------------------------------------------------------------------------


def some_texts(generator: np.random.Generator) -> tuple[Any, ...]:
    """A model of texts, and what is allowed: nothing after the first beginning."""
    allowed = np.array(
        [[False] * 4, [True, False, False, True], [True, True, False, True], [True] * 4]
    )
    order = generator.permutation(4)
    second = generator.dirichlet(np.ones(4), size=4) * 0.96 + 0.01
    return generator.dirichlet(np.full(4, 3.0)) * 0.96 + 0.01, second, allowed[order]


def conditioned(first: Any, second: Any, allowed: Any) -> Any:
    """Texts, given that they are allowed."""
    joint = first[:, None] * second * allowed
    return joint / joint.sum()


def masked(first: Any, second: Any, allowed: Any, start: Any = None) -> Any:
    """Texts written under a mask."""
    start = allowed.any(axis=1) if start is None else start
    begin = first * start / (first * start).sum()
    sums = (second * allowed).sum(axis=1, keepdims=True)
    after = np.divide(second * allowed, sums, out=np.zeros_like(second), where=sums > 0)
    return begin[:, None] * after


CONDITIONED_MISTAKES = (
    Mistake(masked, "this is masking; conditioning divides all allowed texts by one sum"),
    Mistake(
        lambda first, second, allowed: first[:, None] * second * allowed,
        "the probabilities of allowed texts must be divided by their sum",
    ),
)
MASKED_MISTAKES = (
    Mistake(conditioned, "this is conditioning; a mask decides each token without looking ahead"),
    Mistake(
        lambda first, second, allowed: masked(first, second, allowed, allowed.all(axis=1)),
        "a first token was masked because some texts that begin with it are not allowed; mask it "
        "only if none is",
    ),
    Mistake(
        lambda first, second, allowed: masked(first, second, allowed, np.ones(4)),
        "a first token that no allowed text begins with is not masked, and its share is lost",
    ),
    Mistake(
        lambda first, second, allowed: first[:, None] * second * allowed,
        "after masking, what is left must be divided by its sum, at each token",
    ),
)


def some_constrained(generator: np.random.Generator) -> tuple[Any, ...]:
    """Constrained texts, and the model."""
    first, second, allowed = some_texts(generator)
    return masked(first, second, allowed), first, second


def cost(constrained: Any, first: Any, second: Any) -> float:
    """KL divergence in nats."""
    there = constrained > 0
    r, q = constrained[there], (first[:, None] * second)[there]
    return float((r * np.log(r / q)).sum())


def reversed_cost(constrained: Any, first: Any, second: Any) -> float:
    """The divergence the other way round, where it is finite."""
    there = constrained > 0
    r, q = constrained[there], (first[:, None] * second)[there]
    return float((q * np.log(q / r)).sum())


COST_MISTAKES = (
    Mistake(
        reversed_cost,
        "the KL divergence is the wrong way round; the constrained texts give the weights",
    ),
    Mistake(
        lambda r, first, second: cost(r, first, second) / np.log(2), "these are bits; take np.log"
    ),
    Mistake(
        lambda r, first, second: cost(r, first, second) / 2,
        "this is per token; a text has two tokens, and the cost is per text",
    ),
)


# --- 3. an interval ------------------------------------------------------------------------------


def some_pairs(generator: np.random.Generator) -> tuple[Any, ...]:
    """Figures of five seeds, which differ more among each other than the remedy changes them."""
    seeds = generator.normal(0.5, 0.2, size=5)
    remedy = seeds + generator.normal(0.1, 0.02, size=5)
    return remedy.tolist(), seeds.tolist()


def some_differences(generator: np.random.Generator) -> tuple[Any, ...]:
    """Differences of a few seeds."""
    return (generator.normal(0.1, 0.05, size=int(generator.integers(4, 8))).tolist(),)


def interval(differences: Any, *, quantile: Any = None, ddof: int = 1, root: bool = True) -> Any:
    """The interval, and mistakes in it."""
    d = np.asarray(differences)
    t = stats.t.ppf(0.975, len(d) - 1) if quantile is None else quantile(len(d))
    half = t * d.std(ddof=ddof) / (np.sqrt(len(d)) if root else 1)
    return float(d.mean() - half), float(d.mean() + half)


INTERVAL_MISTAKES = (
    Mistake(
        lambda d: interval(d, quantile=lambda n: 1.959964),
        "1.96 is the normal distribution's; with few seeds take Student's t",
    ),
    Mistake(
        lambda d: interval(d, quantile=lambda n: 1.96),
        "1.96 is the normal distribution's; with few seeds take Student's t",
    ),
    Mistake(lambda d: interval(d, ddof=0), "s divides by n - 1: std(ddof=1)"),
    Mistake(
        lambda d: interval(d, root=False),
        "this is for one more seed's difference; the mean's error is s / sqrt(n)",
    ),
    Mistake(
        lambda d: interval(d, quantile=lambda n: stats.t.ppf(0.95, n - 1)),
        "this is a 90 % interval: 5 % are left out on each side; take the quantile 0.975",
    ),
    Mistake(
        lambda d: interval(d, quantile=lambda n: stats.t.ppf(0.975, n)),
        "there are n - 1 degrees of freedom",
    ),
)
EFFECT_MISTAKES = (
    Mistake(
        lambda remedy, control: [c - r for r, c in zip(remedy, control, strict=True)],
        "the difference is the wrong way round: remedy minus control",
    ),
    Mistake(
        lambda remedy, control: [
            r - c for r, c in zip(sorted(remedy), sorted(control), strict=True)
        ],
        "the figures were sorted, so seeds are no longer paired",
    ),
    Mistake(
        lambda remedy, control: [r - float(np.mean(control)) for r in remedy],
        "the control's mean was subtracted; figures of one seed are a pair",
    ),
    Mistake(lambda remedy, control: remedy, "the control is missing: subtract it, seed by seed"),
)

REASONS = {
    "A": "a model that refuses everything in that language would be found out",
    "B": "if any training in the language made it refuse, this would too",
    "C": "English is not what the conclusion is about",
    "D": "if it has learnt the wording of the refusals alone, it will answer here",
}

TASKS = [
    Task(
        name="a diagnosis", cell="diagnosis-test", points=3, answer="diagnose",
        cases=every_report, reference=diagnose,
        mistakes=(
            *(
                Mistake(
                    at_threshold(*apart),
                    "a gap of exactly `near` is at the floor, and a share of exactly `enough` is "
                    "enough",
                )
                for apart in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
            ),
            Mistake(
                lambda old, new, wish, near, enough: diagnose(old, new, wish, NEAR, ENOUGH),
                "the thresholds are those of the visible test; use `near` and `enough`",
            ),
            Mistake(
                lambda old, new, wish, near, enough: (
                    "objective" if wish < enough else diagnose(old, new, wish, near, enough)
                ),
                "a loss above its floor comes first: nothing is known of the objective then",
            ),
            Mistake(
                lambda old, new, wish, near, enough: (
                    "generalization"
                    if old <= near < new
                    else diagnose(old, new, wish, near, enough)
                ),
                "the wish on the old source comes before the new source",
            ),
        ),
        hint="the first of the four that applies",
    ),
    Task(
        name="conditioning", cell="constraint-test", points=3, answer="conditioned",
        cases=times(3, some_texts), reference=conditioned, tolerance=1e-6,
        mistakes=CONDITIONED_MISTAKES, hint="allowed texts keep their proportions",
    ),
    Task(
        name="masking", cell="constraint-test", points=3, answer="masked",
        cases=times(3, some_texts), reference=masked, tolerance=1e-6, mistakes=MASKED_MISTAKES,
        hint="first tokens with an allowed text keep their proportions, then second tokens",
    ),
    Task(
        name="the cost of a constraint", cell="constraint-test", points=2, answer="cost",
        cases=times(3, some_constrained), reference=cost, tolerance=1e-6, mistakes=COST_MISTAKES,
        hint="the sum of r ln(r / q) over texts with r > 0; 0 ln 0 is nan in floating point",
    ),
    Task(
        name="differences by seed", cell="interval-test", points=2, answer="effect",
        cases=times(2, some_pairs), tolerance=1e-6, mistakes=EFFECT_MISTAKES,
        reference=lambda remedy, control: [r - c for r, c in zip(remedy, control, strict=True)],
        hint="seed by seed",
    ),
    Task(
        name="an interval", cell="interval-test", points=4, answer="interval",
        cases=times(3, some_differences), reference=interval, tolerance=1e-6,
        mistakes=INTERVAL_MISTAKES, hint="mean plus and minus t s / sqrt(n)",
    ),
    Task(
        name="a control", cell="control-test", points=3, answer="controls",
        judged=letters("controls", {"A", "B", "D"}, REASONS),
    ),
]  # fmt: skip
