"""Plausible wrong submissions: an edit of the reference, what it loses, and the hint it gets."""

from assignments.tried import Tried

BEYOND = "gain beyond chance"

TRIED = [
    Tried(
        name="logits multiplied by the temperature",
        edits=[("filters", "logits / tau", "logits * tau")],
        lost={"temperature": "divide them"},
    ),
    Tried(
        name="the token that crosses p left out",
        edits=[("filters", "ordered.cumsum(0) - ordered", "ordered.cumsum(0)")],
        lost={"top-p": "one is missing"},
    ),
    Tried(
        name="one more token after a sum of exactly p",
        edits=[("filters", "before < p", "before <= p")],
        lost={"top-p": "exactly p is enough"},
    ),
    Tried(
        name="not divided by the sum",
        edits=[("filters", "kept / kept.sum()", "kept")],
        lost={"top-p": "divided by its sum"},
    ),
    Tried(
        name="left in sorted order",
        edits=[("filters", "result[places] =", "result[:] =")],
        lost={"top-p": "sorted order"},
    ),
    Tried(
        name="chosen by the gold reward",
        edits=[("best-of-n", "np.argsort(proxy)", "np.argsort(gold)")],
        lost={"best of n": "which nobody has"},
    ),
    Tried(
        name="the winner's proxy reported as gold",
        edits=[("best-of-n", "np.asarray(gold)[", "np.asarray(proxy)[")],
        lost={"best of n": "winner's proxy reward"},
    ),
    Tried(
        name="the lowest proxy wins",
        edits=[("best-of-n", "np.argsort(proxy)", "np.argsort(-proxy)")],
        lost={"best of n": "lowest proxy first"},
    ),
    Tried(
        name="exponent off by one",
        edits=[("best-of-n", "places**n", "places ** (n + 1)")],
        lost={"best of n": "off by one"},
    ),
    Tried(
        name="KL of a single best text",
        edits=[("best-of-n", "math.log(n) - (n - 1) / n", "math.log(n)")],
        lost={"how far best of n moves": "is missing"},
    ),
    Tried(
        name="control missing: the proxy itself",
        edits=[("control", "generator.permutation(proxy)", "proxy.copy()")],
        lost={"a control": "this is the proxy itself"},
    ),
    Tried(
        name="control of new noise",
        edits=[("control", "generator.permutation(proxy)", "generator.normal(size=len(proxy))")],
        lost={"a control": "permute the proxy's own values"},
    ),
    Tried(
        name="seeding inside",
        edits=[
            (
                "control",
                "generator.permutation(proxy)",
                "np.random.default_rng(0).permutation(proxy)",
            )
        ],
        lost={"a control": "seeded inside"},
    ),
    Tried(
        name="the argument shuffled in place",
        edits=[
            (
                "control",
                "    return generator.permutation(proxy)",
                "    generator.shuffle(proxy)\n    return proxy",
            )
        ],
        lost={"a control": "shuffle a copy"},
    ),
    Tried(
        name="one control only",
        edits=[("control", "for _ in range(repeats)", "for _ in range(1)")],
        lost={BEYOND: "average all of them"},
    ),
    Tried(
        name="nan in place of a number",
        edits=[
            ("best-of-n", "return float(weights @", "return math.nan * float(weights @"),
            ("control", "generator.permutation(proxy)", "np.full(len(proxy), np.nan)"),
            (
                "control",
                "return gold_of_best(proxy, gold, n) - float(np.mean(controls))",
                "return math.nan",
            ),
        ],
        lost={
            "best of n": "got nan",
            "a control": "permute the proxy's own values",
            BEYOND: "not the gain over the mean",
        },
    ),
    Tried(
        name="the pool's mean in place of controls",
        edits=[("control", "float(np.mean(controls))", "float(np.mean(gold))")],
        lost={BEYOND: "no controls were drawn"},
    ),
    Tried(
        name="nothing subtracted",
        edits=[
            (
                "control",
                "return gold_of_best(proxy, gold, n) - float(np.mean(controls))",
                "return gold_of_best(proxy, gold, n)",
            )
        ],
        lost={BEYOND: "the control is missing"},
    ),
    Tried(
        name="the visible test's answer, hard-coded",
        replaced={
            "best-of-n": "def gold_of_best(proxy, gold, n):\n"
            "    return 8.0 if n == 2 else float(np.mean(gold))\n\n\n"
            "def kl_of_best(n):\n    return 0.0"
        },
        lost={
            "best of n": "differences of (i / N) ** n",
            "how far best of n moves": "log n",
        },
    ),
    Tried(
        name="a conclusion wider than its control",
        edits=[("reading", 'supported = {"A", "C"}', 'supported = {"A", "B", "C"}')],
        lost={"reading the result": "one proxy on one pool"},
    ),
]
