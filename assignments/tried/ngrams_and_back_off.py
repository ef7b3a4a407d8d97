"""Plausible wrong submissions: an edit of the reference, what it loses, and the hint it gets."""

from assignments.tried import Tried

FOLLOWED = "back-off: contexts that were followed"
OPEN = "back-off: contexts that nothing followed, or that end the text"
WHOLE = "back-off: a distribution"

TRIED = [
    Tried(
        name="the last n-gram left out (off by one)",
        edits=[("counting", "range(len(ids) - n + 1)", "range(len(ids) - n)")],
        lost={"counting": "off by one"},
    ),
    Tried(
        name="test split leaked into the vocabulary",
        edits=[("vocabulary", "counts = Counter(train)", "counts = Counter(train + test)")],
        lost={"a vocabulary without a leak": "leaked"},
    ),
    Tried(
        name="the newest token dropped",
        edits=[("back-off", "context[1:]", "context[:-1]")],
        lost={FOLLOWED: "drop the oldest", OPEN: "drop the oldest"},
    ),
    Tried(
        name="tokens in place of types",
        edits=[("back-off", "sum(n > 0 for n in followers)", "sum(followers)")],
        lost={FOLLOWED: "number of different tokens", OPEN: "number of different tokens"},
    ),
    Tried(
        name="the context's own count",
        edits=[
            (
                "back-off",
                "    if total == 0:",
                "    if context:\n        total = counts.get(context, 0)\n    if total == 0:",
            )
        ],
        lost={OPEN: "one more where the text ends"},
    ),
    Tried(
        name="no mixing",
        edits=[
            (
                "back-off",
                "return (followers[token] + types * lower) / (total + types)",
                "return followers[token] / total if followers[token] else lower",
            )
        ],
        lost={FOLLOWED: "mix the two", OPEN: "mix the two", WHOLE: "sum to one"},
    ),
    Tried(
        name="nan in place of a number",
        edits=[
            (
                "back-off",
                "return (followers[token] + types * lower) / (total + types)",
                "return math.nan",
            )
        ],
        lost={FOLLOWED: "got nan", OPEN: "got nan", WHOLE: "positive and sum to one"},
    ),
    Tried(
        name="the first tokens left out",
        edits=[
            (
                "back-off",
                "    for t, token in enumerate(ids):",
                "    ids_left = len(ids) - order + 1\n    for t, token in enumerate(ids):\n"
                "        if t < order - 1:\n            continue",
            ),
            ("back-off", "return total / len(ids)", "return total / ids_left"),
        ],
        lost={"mean surprisal": "left out"},
    ),
    Tried(
        name="bits in place of nats",
        edits=[("back-off", "math.log(prob_of", "math.log2(prob_of")],
        lost={"mean surprisal": "these are bits"},
    ),
    Tried(
        name="seeding inside",
        edits=[
            (
                "sampling",
                "generator=generator",
                "generator=torch.Generator().manual_seed(0)",
            )
        ],
        lost={"drawing text": "seeded inside"},
    ),
    Tried(
        name="the most probable token every time",
        replaced={
            "sampling": "def sample(probs, n, generator):\n    return [int(np.argmax(probs))] * n"
        },
        lost={"drawing text": "same draws"},
    ),
    Tried(
        name="a uniform draw",
        replaced={
            "sampling": "def sample(probs, n, generator):\n"
            "    return torch.randint(len(probs) - 1, (n,), generator=generator)"
        },
        lost={"drawing text": "is drawn too"},
    ),
    Tried(
        name="chosen by the test loss",
        edits=[("order", "min(valid, key=valid.get)", "min(test, key=test.get)")],
        lost={"which order": "leaked into the choice"},
    ),
    Tried(
        name="the visible test's answer, hard-coded",
        edits=[("order", "return min(valid, key=valid.get)", "return 2")],
        lost={"which order": "visible test's answer"},
    ),
    Tried(
        name="control missing",
        edits=[("control", 'controls = {"A", "C"}', 'controls = {"B"}')],
        lost={"a control": "better whatever the cause"},
    ),
]
