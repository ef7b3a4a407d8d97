"""Judge of *decoding, Goodhart, and a control*."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from assignments.judges.shared import letters, times
from companion.teaching.checks import Mistake
from companion.teaching.marking import Task

# --- 1. filters ----------------------------------------------------------------------------------


def some_logits(generator: np.random.Generator) -> tuple[Any, ...]:
    """Logits and a temperature that is not one."""
    tau = float(generator.choice([0.4, 0.7, 1.8]))
    return torch.tensor(generator.normal(size=8) * 2, dtype=torch.float32), tau


def at_temperature(logits: Any, tau: float) -> Any:
    """Probabilities."""
    return (logits.double() / tau).softmax(-1)


TEMPERATURE_MISTAKES = (
    Mistake(
        lambda z, tau: at_temperature(z, 1 / tau),
        "the logits are multiplied by the temperature; divide them",
    ),
    Mistake(
        lambda z, tau: at_temperature(z, 1) / tau,
        "the probabilities are divided, and no longer sum to one; divide the logits",
    ),
    Mistake(lambda z, tau: z.double() / tau, "these are logits; the softmax is missing"),
)


def some_probs(generator: np.random.Generator) -> tuple[Any, ...]:
    """Probabilities in no order, and a p that no sum of them is near."""
    while True:
        probs = generator.dirichlet(np.full(7, 1.5))
        p = float(generator.uniform(0.4, 0.9))
        sums = np.sort(probs)[::-1].cumsum()
        below = int((sums < p).sum())
        if np.abs(sums - p).min() > 0.01 and 1 <= below <= 4:
            return torch.tensor(probs, dtype=torch.float32), p


#: Exact in binary: the two most probable tokens sum to p, and no third is kept.
AT_THE_EDGE = (torch.tensor([0.0625, 0.5, 0.1875, 0.25]), 0.75)


def top_p(probs: Any, p: float, bug: str = "") -> Any:
    """Top-p, and mistakes in it."""
    ordered, places = probs.double().sort(descending=bug != "ascending")
    sums = ordered.cumsum(0)
    before = sums if bug == "crossing" else sums - ordered
    kept = ordered * (before <= p if bug == "edge" else before < p)
    if bug == "threshold":
        kept = ordered * (ordered >= 1 - p)
    if bug != "no division":
        kept = kept / kept.sum()
    if bug == "sorted":
        return kept
    result = torch.zeros_like(kept)
    result[places] = kept
    return result


def top_p_with(bug: str) -> Any:
    """`top_p` with a mistake."""
    return lambda *case: top_p(*case, bug=bug)


TOP_P_MISTAKES = (
    Mistake(top_p_with("crossing"), "the token that takes the sum to p is kept; one is missing"),
    Mistake(top_p_with("edge"), "a sum of exactly p is enough; one token too many is kept"),
    Mistake(top_p_with("no division"), "what is left must be divided by its sum"),
    Mistake(top_p_with("sorted"), "the result is in sorted order; put each token back in place"),
    Mistake(top_p_with("ascending"), "the least probable tokens were kept; sort descending"),
    Mistake(top_p_with("threshold"), "this is a threshold on each token (min-p is like that)"),
)


# --- 2. best of n --------------------------------------------------------------------------------


def some_pool(generator: np.random.Generator) -> tuple[Any, ...]:
    """A proxy without ties, a gold reward, and n."""
    gold = generator.normal(size=30)
    return gold + generator.normal(size=30), gold, int(generator.integers(3, 9))


def gold_of_best(proxy: Any, gold: Any, n: int) -> float:
    """Expected gold reward of the winner."""
    weights = np.diff((np.arange(len(proxy) + 1) / len(proxy)) ** n)
    return float(weights @ gold[np.argsort(proxy)])


def without_replacement(proxy: Any, gold: Any, n: int) -> float:
    """The same for n different texts."""
    size = len(proxy)
    weights = [math.comb(i, n - 1) / math.comb(size, n) for i in range(size)]
    return float(np.array(weights) @ gold[np.argsort(proxy)])


BEST_MISTAKES = (
    Mistake(
        lambda proxy, gold, n: gold_of_best(gold, gold, n),
        "the winner was chosen by the gold reward, which nobody has; sort by the proxy",
    ),
    Mistake(
        lambda proxy, gold, n: gold_of_best(proxy, proxy, n),
        "this is the winner's proxy reward; average its gold reward",
    ),
    Mistake(
        lambda proxy, gold, n: gold_of_best(-proxy, gold, n),
        "the proxy's least liked text wins; sort with the lowest proxy first",
    ),
    Mistake(without_replacement, "this is drawn without replacement; a text may come twice"),
    Mistake(
        lambda proxy, gold, n: float(gold[np.argmax(proxy)]),
        "this is the best of the whole pool; only n texts are drawn",
    ),
    Mistake(
        lambda proxy, gold, n: gold_of_best(proxy, gold, n + 1),
        "the exponent is off by one: n texts are drawn",
    ),
)
KL_MISTAKES = (
    Mistake(math.log, "(n - 1) / n is missing; log n alone is what a single best text costs"),
    Mistake(lambda n: (math.log(n) - (n - 1) / n) / math.log(2), "these are bits; take math.log"),
)


# --- 3. a control --------------------------------------------------------------------------------


def some_proxy(generator: np.random.Generator) -> tuple[Any, ...]:
    """A proxy and a seed."""
    return generator.normal(size=200), int(generator.integers(2**31))


def run_control(student, proxy, seed):  # type: ignore[no-untyped-def]  # noqa: D103
    import numpy as np

    generator = np.random.default_rng(seed)
    given = proxy.copy()
    controls = [np.asarray(student.control_proxy(given, generator), dtype=float) for _ in range(3)]
    return {"controls": controls, "proxy": given}


def judge_control(answer: Any, proxy: Any, seed: int) -> str:
    """What is wrong with three controls.

    A right one correlates with the proxy by more than 0.4 at one of 10**8 seeds (200 values).
    """
    controls = answer["controls"]
    if not all(each.shape == proxy.shape for each in controls):
        return f"control_proxy: shape {proxy.shape} is asked for, got {controls[0].shape}."
    if not np.array_equal(answer["proxy"], proxy):
        return "control_proxy: the argument was changed; shuffle a copy."
    if not all(np.allclose(np.sort(each), np.sort(proxy)) for each in controls):
        return (
            "control_proxy: the control has other values than the proxy. Hint: new noise differs "
            "from the proxy in its spread too; permute the proxy's own values."
        )
    if any(np.array_equal(each, proxy) for each in controls):
        return "control_proxy: the control is missing: this is the proxy itself."
    if np.array_equal(controls[0], controls[1]):
        return "control_proxy: two calls gave the same order. Hint: is a generator seeded inside?"
    if not all(abs(np.corrcoef(each, proxy)[0, 1]) <= 0.4 for each in controls):
        return "control_proxy: the control still knows the proxy. Hint: shuffle all of its values."
    return ""


def some_experiment(generator: np.random.Generator) -> tuple[Any, ...]:
    """A pool whose proxy is good, and its mean far from zero."""
    proxy, gold, n = some_pool(generator)
    return proxy, gold + 5, n, int(generator.integers(2**31))


def run_beyond(student, proxy, gold, n, seed):  # type: ignore[no-untyped-def]  # noqa: D103
    import numpy as np

    def gold_of_best(proxy, gold, n):  # type: ignore[no-untyped-def]
        weights = np.diff((np.arange(len(proxy) + 1) / len(proxy)) ** n)
        return float(weights @ gold[np.argsort(proxy)])

    # A mistake in an earlier task is not charged twice: this one uses right functions.
    student.use("gold_of_best", gold_of_best)
    student.use("control_proxy", lambda proxy, generator: generator.permutation(proxy))
    return float(student.beyond_chance(proxy, gold, n, np.random.default_rng(seed), 400))


def judge_beyond(answer: Any, proxy: Any, gold: Any, n: int, seed: int) -> str:
    """What is wrong with a gain over chance.

    Over permutations a control's mean is the pool's, and its standard deviation is known; with 400
    of them a right mean is outside of six standard errors at fewer than one of 10**8 seeds. It is
    the pool's mean to nine digits at fewer than one of 10**6: who gives that drew no controls.
    """
    best, mean = gold_of_best(proxy, gold, n), float(gold.mean())
    weights = np.diff((np.arange(len(gold) + 1) / len(gold)) ** n)
    spread = math.sqrt(((weights - weights.mean()) ** 2).sum() * gold.var(ddof=1))
    room = 6 * spread / math.sqrt(400)
    if not isinstance(answer, float):
        return "beyond_chance: a number is asked for."
    if abs(answer - (best - mean)) <= 1e-9:
        return (
            "beyond_chance: no controls were drawn: this subtracts the pool's mean itself. Hint: "
            "the mean of `repeats` controls is a measurement, near that mean."
        )
    if abs(answer - (best - mean)) <= room:
        return ""
    if abs(answer - best) <= room:
        return "beyond_chance: the control is missing: this is the proxy's own best of n."
    if abs(answer - (mean - best)) <= room:
        return "beyond_chance: the difference is the wrong way round: proxy minus control."
    if abs(answer) <= 1e-9:
        return "beyond_chance: the control is the proxy itself, so nothing is left."
    return (
        "beyond_chance: this is not the gain over the mean of the controls. Hint: one control is "
        "one draw of chance; average all of them, and use the same n."
    )


REASONS = {
    "A": "the control is chosen from in the same way, and does not fall",
    "B": "one proxy on one pool was measured",
    "C": "compare the two numbers that the text gives, for n = 1 and for n = 8",
    "D": "the average over the pool says little of the few texts that the proxy likes best",
}

TASKS = [
    Task(
        name="temperature", cell="filters-test", points=2, answer="at_temperature",
        cases=times(3, some_logits), reference=at_temperature, tolerance=1e-4,
        mistakes=TEMPERATURE_MISTAKES, hint="softmax of logits / tau",
    ),
    Task(
        name="top-p", cell="filters-test", points=4, answer="top_p",
        cases=lambda g: [*times(4, some_probs)(g), AT_THE_EDGE], reference=top_p,
        tolerance=1e-4, mistakes=TOP_P_MISTAKES,
        hint="keep a token if the more probable ones sum to less than p",
    ),
    Task(
        name="best of n", cell="best-of-n-test", points=4, answer="gold_of_best",
        cases=times(3, some_pool), reference=gold_of_best, tolerance=1e-6,
        mistakes=BEST_MISTAKES, hint="the weights are differences of (i / N) ** n",
    ),
    Task(
        name="how far best of n moves", cell="best-of-n-test", points=2, answer="kl_of_best",
        cases=lambda g: [(int(n),) for n in g.integers(2, 100, size=3)],
        reference=lambda n: math.log(n) - (n - 1) / n, tolerance=1e-6, mistakes=KL_MISTAKES,
        hint="log n - (n - 1) / n",
    ),
    Task(
        name="a control", cell="control-test", points=3, answer="control_proxy",
        cases=times(2, some_proxy), judged=judge_control, driver=run_control,
    ),
    Task(
        name="gain beyond chance", cell="control-test", points=2, answer="beyond_chance",
        cases=times(6, some_experiment), judged=judge_beyond, driver=run_beyond,
    ),
    Task(
        name="reading the result", cell="reading-test", points=3, answer="supported",
        judged=letters("supported", {"A", "C"}, REASONS),
    ),
]  # fmt: skip
