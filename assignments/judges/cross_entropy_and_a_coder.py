"""Judge of *cross-entropy and a coder*."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from assignments.judges.shared import BITS, NATS, letters, shares_of, times
from companion.teaching.checks import Mistake
from companion.teaching.marking import Task

SCALE = 32


# --- 1. bits per token ---------------------------------------------------------------------------


def some_logits(generator: np.random.Generator, size: float = 2.0) -> tuple[Any, ...]:
    """Batch and vocabulary are of one size, so that a swapped axis is not an error but a number."""
    logits = generator.normal(size=(5, 7, 5)) * size
    targets = generator.integers(5, size=(5, 7))
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(targets)


def token_bits(logits: Any, targets: Any, dim: int = -1) -> Any:
    """Surprisals in bits."""
    log_probs = logits.double().log_softmax(dim)
    return -log_probs.gather(-1, targets[..., None])[..., 0] / BITS


TOKEN_MISTAKES = (
    Mistake(lambda z, y: token_bits(z, y) * BITS, NATS),
    Mistake(
        lambda z, y: token_bits(z, y, dim=0),
        "softmax ran over the batch; the vocabulary is the last axis (dim=-1)",
    ),
    Mistake(
        lambda z, y: token_bits(z, y, dim=1),
        "softmax ran over time; the vocabulary is the last axis (dim=-1)",
    ),
    Mistake(
        lambda z, y: token_bits(z.transpose(0, 1).reshape(z.shape), y),
        "batch and time were swapped: is a tensor of shape (time, batch) reshaped, "
        "where it should be transposed?",
    ),
    Mistake(lambda z, y: token_bits(z, y).mean(), "a mean was taken; each token keeps its own"),
)


# --- 2. perplexity -------------------------------------------------------------------------------


def some_batches(generator: np.random.Generator) -> tuple[Any, ...]:
    """Batches of different length and difficulty."""
    sizes = generator.integers(3, 60, size=6)
    means = generator.uniform(0.5, 4, size=6)
    return (
        [
            torch.tensor(generator.gamma(2, mean / 2, size=n), dtype=torch.float32)
            for n, mean in zip(sizes, means, strict=True)
        ],
    )


def corpus_perplexity(batches: Any) -> float:
    """Perplexity over all tokens."""
    return math.exp(float(torch.cat(batches).double().mean()))


PERPLEXITY_MISTAKES = (
    Mistake(
        lambda batches: float(np.mean([math.exp(float(b.mean())) for b in batches])),
        "this is the mean of the batches' perplexities; add up nats first, exponentiate last",
    ),
    Mistake(
        lambda batches: math.exp(float(np.mean([float(b.mean()) for b in batches]))),
        "this is the exponential of the mean of the batches' means; short batches then weigh "
        "more than they should: divide all nats by all tokens",
    ),
    Mistake(
        lambda batches: 2 ** float(torch.cat(batches).double().mean()),
        "the base is 2 and the surprisals are nats; use math.exp",
    ),
    Mistake(
        lambda batches: float(torch.cat(batches).double().exp().mean()),
        "this is the mean of each token's exponential; take the mean of the nats first",
    ),
    Mistake(
        lambda batches: float(torch.cat(batches).double().mean()),
        "this is the mean surprisal; its exponential is the perplexity",
    ),
    Mistake(
        lambda batches: math.e,
        "this is the answer to the visible test, whatever the batches are",
    ),
)


# --- 3. targets and bytes ------------------------------------------------------------------------


def some_ids(generator: np.random.Generator) -> tuple[Any, ...]:
    """A text of ids."""
    return (torch.tensor(generator.integers(50, size=int(generator.integers(8, 20)))),)


TARGET_MISTAKES = (
    Mistake(
        lambda ids: (ids[:-1], ids[:-1]),
        "the targets are the inputs themselves, and predicting them is copying; shift by one",
    ),
    Mistake(
        lambda ids: (ids[1:], ids[:-1]),
        "the pair is the wrong way round: the model would predict the token before",
    ),
    Mistake(lambda ids: (ids[:-2], ids[2:]), "the targets are two tokens ahead, off by one"),
)


def some_text(generator: np.random.Generator) -> tuple[Any, ...]:
    """Nats and a text of one-, two-, three- and four-byte characters."""
    text = "".join(generator.choice(list("abcdé ü中文𝔸"), size=40)) + "中"
    return float(generator.uniform(50, 200)), text


BYTE_MISTAKES = (
    Mistake(
        lambda nats, text: nats / BITS / len(text),
        "this is bits per character; a character may have up to four bytes: "
        'len(text.encode("utf-8"))',
    ),
    Mistake(lambda nats, text: nats / len(text.encode()), NATS),
    Mistake(
        lambda nats, text: nats * BITS / len(text.encode()),
        "multiplied by ln 2 where one divides by it: a nat is more than a bit",
    ),
    Mistake(lambda nats, text: nats / BITS / len(text.split()), "this is bits per word"),
)


# --- 4. the coder --------------------------------------------------------------------------------


def pieces(probs: Any) -> list[int]:
    """As in the notebook."""
    probs = np.asarray(probs, dtype=np.float64)
    whole = (probs * (2**SCALE - len(probs))).astype(np.int64) + 1
    whole[np.argmax(whole)] += 2**SCALE - whole.sum()
    return [int(each) for each in whole]


def some_interval(generator: np.random.Generator) -> tuple[Any, ...]:
    """An interval after one token, and the next token, never the first."""
    share = pieces(generator.dirichlet(np.ones(4)))
    low, width = (int(each) for each in generator.integers(1, 2**SCALE, size=2))
    return low, width, share, int(generator.integers(1, 4))


def narrow(low: int, width: int, share: list[int], token: int) -> tuple[int, int]:
    """The piece of the token."""
    return (low << SCALE) + width * sum(share[:token]), width * share[token]


NARROW_MISTAKES = (
    Mistake(
        lambda low, width, share, token: (
            low + width * sum(share[:token]),
            width * share[token],
        ),
        "low stayed in the old units, which are 2**32 times larger; shift it: low << SCALE",
    ),
    Mistake(
        lambda low, width, share, token: (
            (low << SCALE) + width * sum(share[: token + 1]),
            width * share[token],
        ),
        "low is where the token's own piece ends; add the pieces before it only",
    ),
    Mistake(
        lambda low, width, share, token: (
            (low << SCALE) + sum(share[:token]),
            width * share[token],
        ),
        "the pieces before the token are parts of the present interval: multiply by width",
    ),
)


def some_reports(generator: np.random.Generator) -> tuple[Any, ...]:
    """A text that a bigram table predicts, and the table."""
    first = generator.dirichlet(np.ones(3))
    table = generator.dirichlet(np.full(3, 0.4), size=3) * 0.99 + 0.01 / 3
    return [int(each) for each in generator.integers(3, size=30)], first, table


def run_encode(student, tokens, first, table):  # type: ignore[no-untyped-def]  # noqa: D103
    def predict(before):  # type: ignore[no-untyped-def]
        return table[before[-1]] if len(before) else first

    def narrow(low, width, share, token):  # type: ignore[no-untyped-def]
        return (low << 32) + width * sum(share[:token]), width * share[token]

    # A mistake in `narrow` is not charged twice.
    student.use("narrow", narrow)
    return student.encode(tokens, predict)


def decoded(string: str, count: int, first: Any, table: Any) -> list[int]:
    """The tokens that the string encodes."""
    rest, width = int(string, 2), 1
    tokens: list[int] = []
    for _ in range(count):
        share = pieces(table[tokens[-1]] if tokens else first)
        rest <<= SCALE
        token = 0
        while token + 1 < len(share) and rest >= (width * share[token]) << len(string):
            rest -= (width * share[token]) << len(string)
            token += 1
        width *= share[token]
        tokens.append(token)
    return tokens


def peeked(tokens: list[int], table: Any) -> str:
    """The string of an encoder whose model has seen the token that it predicts."""
    low, width, unit = 0, 1, SCALE * len(tokens)
    for token in tokens:
        low, width = narrow(low, width, pieces(table[token]), token)
    length = unit - width.bit_length() + 2
    return f"{-(-low >> (unit - length)):0{length}b}"


def judge_string(answer: Any, tokens: list[int], first: Any, table: Any) -> str:
    """What is wrong with a string of bits; the judge decodes it."""
    if not isinstance(answer, str) or not answer or set(answer) - {"0", "1"}:
        return f"encode: a string of 0 and 1 is asked for, got {str(answer)[:40]!r}."
    if len(answer) > 64 * len(tokens):
        return "encode: the string is longer than the tokens need without any model."
    rows = [first, *(table[token] for token in tokens[:-1])]
    bits = -sum(math.log2(row[token]) for row, token in zip(rows, tokens, strict=True))
    back = decoded(answer, len(tokens), first, table)
    if back == tokens and len(answer) <= bits + 2.1:
        return ""
    if back == tokens:
        return (
            f"encode: the string can be decoded and has {len(answer)} bits for a surprisal of "
            f"{bits:.1f}. Hint: two bits more than the surprisal are enough; see the formula for "
            "the length."
        )
    if answer == peeked(tokens, table):
        return (
            "encode: the model has seen the token that it predicts, and the reader has not. "
            "Hint: predict may see only the tokens before, tokens[:t]."
        )
    if len(answer) < bits:
        return (
            "encode: the string is shorter than the surprisal and cannot be decoded. Hint: the "
            "length is unit - width.bit_length() + 2; with less, no number of that length need "
            "lie in the interval."
        )
    if back[:-1] == tokens[:-1] or decoded(up(answer), len(tokens), first, table) == tokens:
        return (
            "encode: the string lies just below the interval. Hint: the number is `low` rounded "
            "up, not down."
        )
    return (
        "encode: decoding gives other tokens. Hint: predict may see only the tokens before, "
        "tokens[:t], and each token narrows the interval once."
    )


def up(string: str) -> str:
    """The next number of that length."""
    return f"{int(string, 2) + 1:0{len(string)}b}"


# --- 5. what a wrong model costs -----------------------------------------------------------------


def some_tables(generator: np.random.Generator) -> tuple[Any, ...]:
    """The truth, with unequal long-run shares, and a model."""
    truth = generator.dirichlet([6, 2, 1], size=3) * 0.97 + 0.01
    model = generator.dirichlet(np.full(3, 2.0), size=3) * 0.97 + 0.01
    return truth, model


def wasted_bits(truth: Any, model: Any) -> float:
    """Bits per report above the truth."""
    return float(shares_of(truth) @ (truth * np.log2(truth / model)).sum(1))


WASTE_MISTAKES = (
    Mistake(
        lambda p, q: float((p * np.log2(p / q)).sum(1).mean()),
        "the rows were averaged with equal weights; weigh them by their long-run shares",
    ),
    Mistake(
        lambda p, q: float(shares_of(p) @ (q * np.log2(q / p)).sum(1)),
        "this is the KL divergence the other way round; reports come with the truth's "
        "probabilities, so p gives the weights",
    ),
    Mistake(
        lambda p, q: float(shares_of(q) @ (p * np.log2(p / q)).sum(1)),
        "the rows are weighted by the model's long-run shares; the machine's are those of the "
        "truth",
    ),
    Mistake(lambda p, q: wasted_bits(p, q) * BITS, NATS),
    Mistake(
        lambda p, q: float(-(shares_of(p) @ (p * np.log2(q)).sum(1))),
        "this is the whole length of her file; the waste is what it has above the truth's",
    ),
)


# --- 6. a claim ----------------------------------------------------------------------------------

REASONS = {
    "A": "repeating the held-out text makes it easy for lzma and tells it nothing of English",
    "B": "both start from nothing and learn from the same text",
    "C": "both have all of the training text at hand, and neither pays for what it learnt from it",
    "D": "a token and a byte are different units",
}


TASKS = [
    Task(
        name="surprisal of each target, in bits", cell="token-bits-test", points=2,
        answer="token_bits", cases=times(3, some_logits), reference=token_bits, tolerance=1e-4,
        mistakes=TOKEN_MISTAKES, hint="-log2 of the softmax, at the target",
    ),
    Task(
        name="logits of size 1000", cell="token-bits-test", points=1, answer="token_bits",
        cases=lambda g: [some_logits(g, 1000.0)], reference=token_bits, tolerance=0.1,
        mistakes=TOKEN_MISTAKES,
        hint="exp(1000) is infinite in floating point; use log_softmax, which never computes it",
    ),
    Task(
        name="perplexity of a whole text", cell="perplexity-test", points=3,
        answer="corpus_perplexity", cases=times(3, some_batches), reference=corpus_perplexity,
        tolerance=1e-3, mistakes=PERPLEXITY_MISTAKES, hint="exp(all nats / all tokens)",
    ),
    Task(
        name="inputs and targets", cell="units-test", points=1, answer="inputs_and_targets",
        cases=times(3, some_ids), reference=lambda ids: (ids[:-1], ids[1:]),
        mistakes=TARGET_MISTAKES, hint="targets[t] is the token after inputs[t]",
    ),
    Task(
        name="bits per byte", cell="units-test", points=2, answer="bits_per_byte",
        cases=times(3, some_text), reference=lambda nats, text: nats / BITS / len(text.encode()),
        mistakes=BYTE_MISTAKES, hint="bits of the whole text over its bytes",
    ),
    Task(
        name="narrowing the interval", cell="coder-test", points=3, answer="narrow",
        cases=times(4, some_interval), reference=narrow, tolerance=0, mistakes=NARROW_MISTAKES,
        hint="the token's piece of the present interval, in the smaller units",
    ),
    Task(
        name="encoding", cell="coder-test", points=3, answer="encode",
        cases=times(6, some_reports), judged=judge_string, driver=run_encode,
        hint="encode(tokens, predict) returns a string",
    ),
    Task(
        name="what a wrong model costs", cell="waste-test", points=3, answer="wasted_bits",
        cases=times(3, some_tables), reference=wasted_bits, tolerance=1e-6,
        mistakes=WASTE_MISTAKES, hint="the KL divergence of each row, weighted by its share",
    ),
    Task(
        name="which comparisons are fair", cell="claim-test", points=2, answer="fair",
        judged=letters("fair", {"B", "C"}, REASONS),
        hint="the same to learn from, and the same bill for both",
    ),
]  # fmt: skip
