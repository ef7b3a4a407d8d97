"""Plausible wrong submissions: an edit of the reference, what it loses, and the hint it gets."""

from assignments.tried import Tried

PARTS = "three parts of a loss"

TRIED = [
    Tried(
        name="rank from 0",
        edits=[("exposure", "rank = 1 + int(", "rank = int(")],
        lost={"exposure": "off by one"},
    ),
    Tried(
        name="rank among the more surprising",
        edits=[("exposure", "(others < planted)", "(others > planted)")],
        lost={"exposure": "smaller surprisal"},
    ),
    Tried(
        name="rank with ties",
        edits=[("exposure", "(others < planted)", "(others <= planted)")],
        lost={"exposure": "does not count"},
    ),
    Tried(
        name="natural logarithms",
        edits=[
            (
                "exposure",
                "math.log2(len(others) + 1) - math.log2(rank)",
                "math.log((len(others) + 1) / rank)",
            )
        ],
        lost={"exposure": "these are nats"},
    ),
    Tried(
        name="control missing",
        edits=[("exposure", "return means[0] - means[1]", "return means[0]")],
        lost={"beyond luck": "the control is missing"},
    ),
    Tried(
        name="test split leaked: whole documents compared",
        replaced={
            "unseen": "def unseen_documents(train, test, n):\n"
            "    return [words for words in test if words not in train]"
        },
        lost={"text that was seen before": "a copied passage leaks"},
    ),
    Tried(
        name="the last passage left out (off by one)",
        edits=[("unseen", "range(len(words) - n + 1)", "range(len(words) - n)")],
        lost={"text that was seen before": "off by one"},
    ),
    Tried(
        name="training documents joined",
        edits=[("unseen", "for words in train)", "for words in [sum(train, [])])")],
        lost={"text that was seen before": "in neither"},
    ),
    Tried(
        name="passages searched in strings",
        replaced={
            "unseen": "def unseen_documents(train, test, n):\n"
            "    texts = [' '.join(words) for words in train]\n"
            "    return [words for words in test if not any(\n"
            "        ' '.join(words[i : i + n]) in text\n"
            "        for i in range(len(words) - n + 1) for text in texts\n"
            "    )]"
        },
        lost={"text that was seen before": "part of a word"},
    ),
    Tried(
        name="weighted by the old source",
        edits=[("parts", "MarkovSource(new)", "MarkovSource(old)")],
        lost={PARTS: "old source's shares"},
    ),
    Tried(
        name="rows averaged with equal weights",
        edits=[("parts", "MarkovSource(new).stationary", "np.full(len(new), 1 / len(new))")],
        lost={PARTS: "equal weights"},
    ),
    Tried(
        name="own error against the new source",
        edits=[("parts", "np.log(old / model)", "np.log(new / model)")],
        lost={PARTS: "the whole gap"},
    ),
    Tried(
        name="bits in place of nats",
        edits=[
            ("parts", "mean(-np.log(new))", "mean(-np.log2(new))"),
            ("parts", "mean(np.log(new / old))", "mean(np.log2(new / old))"),
            ("parts", "mean(np.log(old / model))", "mean(np.log2(old / model))"),
        ],
        lost={PARTS: "these are bits"},
    ),
    Tried(
        name="ties forgotten",
        edits=[("auroc", "(second > first) + 0.5 * (second == first)", "second > first")],
        lost={"telling strange text apart": "a tie counts one half"},
    ),
    Tried(
        name="nan in place of a number",
        edits=[
            (
                "auroc",
                "return float(((second > first) + 0.5 * (second == first)).mean())",
                "return math.nan",
            )
        ],
        lost={"telling strange text apart": "got nan"},
    ),
    Tried(
        name="familiar above strange",
        edits=[("auroc", "(second > first)", "(second < first)")],
        lost={"telling strange text apart": "wrong way round"},
    ),
    Tried(
        name="the visible test's answer, hard-coded",
        edits=[
            (
                "auroc",
                "return float(((second > first) + 0.5 * (second == first)).mean())",
                "return 0.75",
            )
        ],
        lost={"telling strange text apart": "share of pairs"},
    ),
    Tried(
        name="more seeds taken for a refutation",
        edits=[("claim", 'refutes = {"A", "B"}', 'refutes = {"A", "B", "D"}')],
        lost={"what refutes the claim": "not the conclusion"},
    ),
]
