"""Plausible wrong submissions: an edit of the reference, what it loses, and the hint it gets."""

from assignments.tried import Tried

TRIED = [
    Tried(
        name="nats in place of bits",
        edits=[("token-bits", "return -chosen / math.log(2)", "return -chosen")],
        lost={
            "surprisal of each target, in bits": "in nats",
            "logits of size 1000": "in nats",
        },
    ),
    Tried(
        name="nan in place of a number",
        edits=[("token-bits", "return -chosen / math.log(2)", "return chosen * math.nan")],
        lost={
            "surprisal of each target, in bits": "got nan",
            "logits of size 1000": "got nan",
        },
    ),
    Tried(
        name="softmax over time (time-major mix-up)",
        edits=[("token-bits", "log_softmax(dim=-1)", "log_softmax(dim=1)")],
        lost={
            "surprisal of each target, in bits": "softmax ran over time",
            "logits of size 1000": "softmax ran over time",
        },
    ),
    Tried(
        name="exponentials of large logits",
        edits=[
            (
                "token-bits",
                "logits.log_softmax(dim=-1)",
                "(logits.exp() / logits.exp().sum(-1, keepdim=True)).log()",
            )
        ],
        lost={"logits of size 1000": "exp(1000) is infinite"},
    ),
    Tried(
        name="perplexity as mean of exponentials",
        edits=[
            (
                "perplexity",
                "return math.exp(nats / sum(batch.numel() for batch in batches))",
                "return sum(math.exp(b.mean()) for b in batches) / len(batches)",
            )
        ],
        lost={"perplexity of a whole text": "mean of the batches' perplexities"},
    ),
    Tried(
        name="averaged loss (mean of batch means)",
        edits=[
            (
                "perplexity",
                "return math.exp(nats / sum(batch.numel() for batch in batches))",
                "return math.exp(sum(b.mean() for b in batches) / len(batches))",
            )
        ],
        lost={"perplexity of a whole text": "short batches then weigh more"},
    ),
    Tried(
        name="the visible test's answer, hard-coded",
        edits=[
            (
                "perplexity",
                "return math.exp(nats / sum(batch.numel() for batch in batches))",
                "return math.e",
            )
        ],
        lost={"perplexity of a whole text": "answer to the visible test"},
    ),
    Tried(
        name="targets not shifted",
        edits=[("units", "return ids[:-1], ids[1:]", "return ids[:-1], ids[:-1]")],
        lost={"inputs and targets": "copying"},
    ),
    Tried(
        name="targets off by one",
        edits=[("units", "return ids[:-1], ids[1:]", "return ids[:-2], ids[2:]")],
        lost={"inputs and targets": "two tokens ahead"},
    ),
    Tried(
        name="bits per character",
        edits=[("units", 'len(text.encode("utf-8"))', "len(text)")],
        lost={"bits per byte": "bits per character"},
    ),
    Tried(
        name="low in the old units",
        edits=[("coder", "(low << SCALE) + width", "low + width")],
        lost={"narrowing the interval": "shift it"},
    ),
    Tried(
        name="the number rounded down",
        edits=[("coder", "-(-low >> (unit - length))", "low >> (unit - length)")],
        lost={"encoding": "rounded up, not down"},
    ),
    Tried(
        name="two bits saved",
        edits=[("coder", "width.bit_length() + 2", "width.bit_length()")],
        lost={"encoding": "with less, no number"},
    ),
    Tried(
        name="predict sees the token itself",
        edits=[("coder", "predict(tokens[:t])", "predict(tokens[: t + 1])")],
        lost={"encoding": "only the tokens before"},
    ),
    Tried(
        name="KL divergence the wrong way round",
        edits=[
            (
                "waste",
                "transition * np.log2(transition / model)",
                "model * np.log2(model / transition)",
            )
        ],
        lost={"what a wrong model costs": "other way round"},
    ),
    Tried(
        name="rows averaged with equal weights",
        edits=[("waste", "float(shares @ by_row)", "float(by_row.mean())")],
        lost={"what a wrong model costs": "long-run shares"},
    ),
    Tried(
        name="an unfair comparison taken for fair",
        edits=[("claim", 'fair = {"B", "C"}', 'fair = {"B", "C", "D"}')],
        lost={"which comparisons are fair": "different units"},
    ),
]
