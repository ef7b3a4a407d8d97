"""Expected answers of the book's exercises, by label, so that no task shows its own.

Used by `companion.teaching.checks.check_exercise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """What an exercise expects: `expected`, or one of the two functions below it."""

    expected: Any = None
    """The answer."""
    computed: Callable[..., Any] | None = None
    """Gives the answer, from what the chapter's run has and the task hands over."""
    reference: Callable[..., Any] | None = None
    """The answer is a function, which must give what this one gives, in the cases handed over."""
    tolerance: float = 0.0
    """Largest absolute difference from each number of the answer."""
    hint: str = ""
    """Words for a reader whose answer is wrong."""


# --- answers that the chapter's run decides, and functions ---------------------------------------


# This package imports no other one of the companion: what is needed is handed over as well.


def _leak_added(ask: Callable[..., Any], safe: Any, world: Any) -> float:
    """Leak when the question is encoded and the reply begun, minus that when encoded, in points."""
    both, alone = (
        ask(safe, world, world.restricted, way).leak for way in ("encoded+prefill", "encoded")
    )
    return float(100 * (both - alone))


def _others_right(ask: Callable[..., Any], model: Any, world: Any) -> float:
    """Share of right answers about things that are not restricted, asked plainly."""
    return float(ask(model, world, world.benign + world.benign_held_out, "plain").leak)


def _fitted_floor(study: Any, stored: Any, sizes: Any, tokens: Any) -> float:
    """Floor fitted to the models from the third size on, with the third amount of text or more."""
    return float(study.fitted(study.runs_of(stored, sizes=sizes[2:], tokens=tokens[2:])).floor)


def _name_or_kind(
    ask: Callable[..., Any], thing_of: Callable[..., Any], safe: Any, world: Any, others: Any
) -> str:
    """Whether florbs' names with another kind are refused more than others' names with florb."""

    def refused(things: Any, kind: str) -> float:
        renamed = [
            thing_of(name=f"{thing.name.split()[0]} {kind}", ingredient=thing.ingredient)
            for thing in things
        ]
        return float(ask(safe, world, renamed, "plain").refusal)

    return "name" if refused(world.seen, "tweck") > refused(others, "florb") else "kind"


def _split_by_halves(pairs: Sequence[Any], held_out: set[Any]) -> tuple[list[Any], list[Any]]:
    train = [pair for pair in pairs if pair not in held_out]
    firsts, seconds = {first for first, _ in train}, {second for _, second in train}
    test = [(a, b) for a, b in pairs if (a, b) in held_out and a in firsts and b in seconds]
    return train, test


def _min_p(z: Tensor, share: float) -> Tensor:
    q = torch.softmax(z, dim=-1)
    kept = torch.where(q >= share * q.max(), q, 0.0)
    return kept / kept.sum()


def _mean_length_of_right(lengths: Tensor, wrong: Tensor) -> float:
    return float(lengths[~wrong].double().mean())


def _closing_at_depth(model: Any, histories: Tensor, depth: int) -> float:
    """Mean probability of `)`, token 2, after `depth` times `(`, token 1, read after histories."""
    with torch.no_grad():
        _, state = model(histories)
        opened = torch.ones(len(histories), depth, dtype=torch.long)
        return float(model(opened, state)[0][:, -1].softmax(dim=-1)[:, 2].mean())


def _saved_by_merges(
    bits: Callable[[Any, int], float], clean: Any, train: Sequence[str], test: Sequence[str]
) -> float:
    """Bits per byte of a trigram model that 4,000 merges save if they are learnt from test text."""
    leaky = type(clean).fit([*train, *test], vocabulary_size=4000)
    return bits(clean, 3) - bits(leaky, 3)


def _whole_characters(tokenizer: Any, ids: Sequence[int]) -> Sequence[int]:
    while "\ufffd" in tokenizer.decode(ids):
        ids = ids[:-1]
    return ids


#: The exercises by name: what `check_exercise` expects.
EXERCISES = {
    # language_models
    "ex-lm-by-hand": Exercise(
        expected=0.308,
        tolerance=0.001,
        hint="First p(ran) without context, N = 10 and T = 6; then N = T = 2.",
    ),
    "ex-lm-add-one": Exercise(
        expected=3 / 7,
        tolerance=1e-09,
        hint="'b' was seen 2 of 3 times; add 1 to it, V to the total.",
    ),
    "ex-lm-training-loss": Exercise(
        expected=0.0,
        tolerance=1e-09,
        hint="What is the probability of the only follower of a context?",
    ),
    "ex-lm-classifier": Exercise(
        expected=1.0,
        tolerance=0.15,
        hint="Sum the surprisals under each model: the lower sum wins.",
    ),
    "ex-lm-control": Exercise(
        expected=4.7,
        tolerance=1.0,
        hint="text of the same kind that the model was not counted on",
    ),
    # two_problems
    "ex-two-problems-slip": Exercise(
        expected=0.0004, tolerance=5e-05, hint="Solve 1 - (1 - e)^24 = 0.01 for e."
    ),
    "ex-two-problems-sort": Exercise(
        expected=(
            "objective",
            "generalization",
            "objective",
            "generalization",
            "generalization",
            "objective",
        ),
        hint="Is the trained loss at its floor where the trouble is?",
    ),
    "ex-two-problems-wish": Exercise(
        expected=0.0241, tolerance=0.002, hint="One surprisal of -ln .55, spread over a review."
    ),
    "ex-two-problems-cure": Exercise(
        expected="b", hint="What tells the two problems apart, in the section Two names?"
    ),
    # cross_entropy_and_perplexity
    "ex-ce-two-papers": Exercise(
        expected=(1.7312, 1.6323),
        tolerance=0.001,
        hint="bits per byte = tokens / bytes x log2(perplexity)",
    ),
    "ex-ce-moments": Exercise(
        expected=(18.8, 8.6954),
        tolerance=0.001,
        hint="mean = sum of p(x) x; the variance is the mean of (x - mean) squared",
    ),
    "ex-ce-batches": Exercise(
        expected=54.73475, tolerance=1e-3, hint="sum in float64, count, divide once"
    ),
    "ex-ce-paired": Exercise(
        expected=0.00074,
        tolerance=2e-5,
        hint="subtract token by token, then scoring.standard_error",
    ),
    "ex-ce-claims": Exercise(
        expected=(False, True, False, False),
        hint="the same tokens? every byte paid for? summed, then divided once?",
    ),
    # known_source
    "ex-ks-bigram": Exercise(
        expected=0.4484,
        tolerance=0.0005,
        hint="joint[last, next], normalised; H(next | last) = H(joint) - H(last)",
    ),
    "ex-ks-lengths": Exercise(
        expected=(14.449, 0.0101),
        tolerance=0.001,
        hint="per review, log p/q = log l + log E[1/l]; divide by the mean length once",
    ),
    "ex-ks-below": Exercise(
        expected=2.1308,
        tolerance=0.001,
        hint="nats per token of each review, then the mean over the reviews",
    ),
    "ex-ks-hidden": Exercise(
        expected=(0.08992, 7),
        tolerance=0.0005,
        hint="H of all texts of n tokens, minus H of those of n - 1, minus the entropy rate",
    ),
    # surprise_and_code_length
    "ex-sc-dice": Exercise(
        expected=3.2744,
        tolerance=0.001,
        hint="there are 36 equal pairs; the sum 7 has probability 6/36",
    ),
    "ex-sc-wrong": Exercise(
        expected=0.302,
        tolerance=0.001,
        hint="her mean surprisal is the entropy of the shares; the truth's is floor",
    ),
    "ex-sc-gambler": Exercise(
        expected=10.22512,
        tolerance=1e-4,
        hint="each letter multiplies the capital by 27 q; then take log2",
    ),
    "ex-sc-archive": Exercise(
        expected=927.0,
        tolerance=3.0,
        hint="with S GB of images: 0.434 S and the model against 0.585 S",
    ),
    "ex-sc-scale": Exercise(expected=8, hint="its piece is one unit of 2**-8 wide"),
    # closing_the_gap
    "ex-cg-price": Exercise(
        expected=(0.145, 0.0316),
        tolerance=0.0006,
        hint="mix 0.05 and 1 in the proportion of the traffic; for (b) solve for it",
    ),
    "ex-cg-both": Exercise(expected=True, hint="deep refusals, in the second language"),
    "ex-cg-list": Exercise(
        expected=(18, 5, 120), hint="the choices are independent; 'all' has five ways"
    ),
    # detecting_and_adapting
    "ex-ds-auroc": Exercise(
        expected=6.5 / 12, tolerance=1e-06, hint="12 pairs; a tie counts one half"
    ),
    "ex-ds-mixture": Exercise(
        expected=0.00415888,
        tolerance=1e-06,
        hint="it gives each text at least 1/8 of its probability",
    ),
    # distribution_shift
    "ex-ds-parts": Exercise(
        expected=(0.325083, 0.368064, -0.141775),
        tolerance=2e-05,
        hint="the own error is 0.9 log(0.5 / 0.6) + 0.1 log(0.5 / 0.4)",
    ),
    "ex-ds-claim": Exercise(
        expected=0.161, tolerance=1e-06, hint="a perfect model of the old source has own error 0"
    ),
    # fitting_and_memorizing
    "ex-fm-luck": Exercise(
        expected=0.485,
        tolerance=0.005,
        hint="10 bits are a rank of 100000 / 2**10; all ranks are alike",
    ),
    "ex-fm-bits": Exercise(
        expected=4709, tolerance=5, hint="code the text with the weights, and without them"
    ),
    "ex-fm-ask": Exercise(
        expected=149, hint="the code stays away from n answers with probability 0.98**n"
    ),
    # length_and_composition
    "ex-lc-share": Exercise(
        expected=0.001999, tolerance=1e-07, hint="zero is below 1,000; count it once"
    ),
    "ex-lc-split": Exercise(
        reference=_split_by_halves, hint="a half that occurs on the other side only does not count"
    ),
    "ex-lc-drift": Exercise(
        expected=42, hint="after n - 1 of the b it must still be at 1/2 or above"
    ),
    # safety_generalization
    "ex-sg-conditional": Exercise(
        expected=(1.0, 0.6), tolerance=0.005, hint="divide the leak by the capability before"
    ),
    "ex-sg-both": Exercise(
        computed=_leak_added,
        tolerance=0.3,
        hint="ask(...).leak is a share; take 100 times the difference",
    ),
    "ex-sg-torn": Exercise(
        computed=_name_or_kind, hint="the florb's name and another kind, against the reverse"
    ),
    # competing_objectives
    "ex-co-odds": Exercise(
        expected=(0.982, 0.0474, 11.595),
        tolerance=0.002,
        hint="p = 1 / (1 + exp(-log_odds)); for (c) solve it for the log-odds, then add 7",
    ),
    "ex-co-report": Exercise(
        computed=_others_right,
        tolerance=0.006,
        hint="ask about world.benign + world.benign_held_out, plainly; .leak is the share right",
    ),
    # likelihood_is_not_quality
    "ex-lq-theis": Exercise(
        expected=0.19191,
        tolerance=0.0005,
        hint="of a review, log p - log(0.01 p + 0.99 r), with r = 0",
    ),
    "ex-lq-coin": Exercise(
        expected=(0.510826, 0.673012, 0.001189),
        tolerance=2e-05,
        hint="the most probable is all heads; then binomial terms",
    ),
    "ex-lq-penalty": Exercise(
        expected=(True, True), hint="'the' and the full stop are penalised as well"
    ),
    # proxies_and_goodhart
    "ex-pg-noise": Exercise(
        expected=(4.4721, 3.5777),
        tolerance=0.001,
        hint="the proxy's variance is 4 + 1; the share that is kept is 4 / (4 + 1)",
    ),
    "ex-pg-draws": Exercise(expected=59874, hint="log n - 1 + 1/n = 10: start from n = exp(11)"),
    "ex-pg-tilt": Exercise(
        expected=(0.5013, -0.0146),
        tolerance=0.0005,
        hint="multiply pi_0 by exp(proxy / beta), divide by the sum, average the gold",
    ),
    "ex-pg-ensemble": Exercise(expected=(True, False), hint="what do the five have in common?"),
    # tuning_toward_a_reward
    "ex-tr-penalty": Exercise(
        expected=(0.714858, 1.623206, 1.213325),
        tolerance=0.001,
        hint="weights pi_0 * exp(r / beta), then divide by their sum",
    ),
    "ex-tr-flat": Exercise(
        expected=(4.54e-05, -13.029),
        tolerance=0.001,
        hint="the margin is 0.1 * (-30 + 130); the factor is exp(-30)",
    ),
    # what_fixes_what
    "ex-wf-mask": Exercise(
        expected=(0.9, 0.0825688),
        tolerance=0.0001,
        hint="the mask allows both first tokens; for (b) use Bayes",
    ),
    "ex-wf-equal-kl": Exercise(
        expected=(6, 11), hint="compute ln n - (n - 1) / n for n from 2 to 16"
    ),
    # evaluation_and_tuning
    "ex-et-control": Exercise(
        expected="AC",
        hint="which of them involve a seed that the report did not train? name all letters",
    ),
    "ex-et-coin": Exercise(
        expected=(0.8448, 0.1448, 2.0),
        tolerance=0.0005,
        hint="q = p^2 / (p^2 + (1 - p)^2); all fall into one bin",
    ),
    "ex-et-cost": Exercise(
        expected=0.2231,
        tolerance=0.0005,
        hint="(1 - weight) q + weight r is at least (1 - weight) q",
    ),
    # generating_text
    "ex-gen-control": Exercise(
        expected="AC",
        hint="in which of them is one of the two causes left as it was? name all letters",
    ),
    "ex-gen-order": Exercise(expected=(3, 5), hint="count the words with a probability above 0"),
    "ex-gen-min-p": Exercise(reference=_min_p, tolerance=1e-6, hint="softmax first"),
    "ex-gen-filter": Exercise(
        computed=_mean_length_of_right, tolerance=1e-6, hint="judge gave wrong and lengths"
    ),
    # text_to_tokens
    "ex-tok-control": Exercise(
        expected=2, hint="deal in groups as before, and leave the copies apart from their originals"
    ),
    "ex-tok-overlap": Exercise(
        expected=(0.75, 1 - 0.25**7),
        tolerance=0.001,
        hint="how many other windows hold it, and where must they all lie?",
    ),
    "ex-tok-gpt3": Exercise(
        expected=570000000000.0 / 400000000000.0, tolerance=0.01, hint="a GB is 1e9 bytes"
    ),
    "ex-tok-merges": Exercise(
        computed=_saved_by_merges, tolerance=1e-6, hint="only fit() sees the test text"
    ),
    "ex-tok-half": Exercise(reference=_whole_characters, hint="drop tokens from the end"),
    # lstm
    "ex-lstm-forget": Exercise(
        expected={0: 1.0, 2: 5.4610}, tolerance=0.01, hint="solve f ** steps = 1/2"
    ),
    "ex-lstm-beyond": Exercise(
        computed=_closing_at_depth,
        tolerance=1e-4,
        hint="closing(lstms[0], 10), no bracket closed yet, token 2",
    ),
    "ex-lstm-zeros": Exercise(
        expected=2, hint="change what the report changed besides the brackets: where it starts"
    ),
    # recurrent_network
    "ex-rn-step": Exercise(
        expected=(-0.8404, 0.4621, 0.7884),
        tolerance=0.001,
        hint="the first unit is tanh(1.5 times itself) at each 'and'; the second is tanh(0.5)",
    ),
    "ex-rn-latch": Exercise(
        expected=(0.957504, 0.166372),
        tolerance=0.0005,
        hint="iterate h = tanh(2 h); the derivative of tanh is 1 - tanh**2",
    ),
    "ex-rn-bound": Exercise(
        expected=(21, 10), hint="the smallest whole k with (sigma gamma)**k below 1/100"
    ),
    "ex-rn-control": Exercise(
        expected=2, hint="what carries the past from one step to the next, and nothing else?"
    ),
    "ex-rn-claim": Exercise(
        expected=(True, True, False), hint="the gradient is cut at the edge; is the state?"
    ),
    # training_loop
    "ex-loop-spike": Exercise(
        expected=(486.8, 28.6), tolerance=1.0, hint="the steps are half as long where the root is 2"
    ),
    "ex-loop-control": Exercise(
        expected="BC",
        hint="what does each explanation predict for each measurement? name all that differ",
    ),
    # fast_and_large
    "ex-fast-sum": Exercise(
        expected=(512, 4096), hint="the gap between neighbours doubles at each power of two"
    ),
    "ex-fast-processes": Exercise(
        expected=(128, 128), hint="the mean over two processes halves each gradient"
    ),
    "ex-fast-claim": Exercise(
        expected="BC",
        hint="two numbers can be compared when they measure the same thing; name all letters",
    ),
    "ex-fast-cost": Exercise(
        expected=6 * 175000000000.0 * 300000000000.0 / 24600000000000.0 / (365.25 * 86400),
        tolerance=2,
        hint="operations, over operations a second, over seconds a year",
    ),
    # translation
    "ex-tr-weights": Exercise(
        expected=(0.6, 0.3, 0.1, 0.0), tolerance=1e-3, hint="exponentials first, then their sum"
    ),
    "ex-tr-beam": Exercise(
        expected=((0.4 / 0.6) ** 0.1, 0.4 / 0.6),
        tolerance=0.005,
        hint="one compares two whole translations, the other two next tokens",
    ),
    "ex-tr-bleu": Exercise(
        expected=100 * math.exp(-1 / 6) * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25,
        tolerance=0.05,
        hint="the geometric mean of four numbers is the fourth root of their product",
    ),
    # tools_and_a_real_model
    "ex-tr-step": Exercise(
        expected=(0.5 + 0.75 * math.tanh(0.5), math.tanh(0.5 + 0.75 * math.tanh(0.5)) / 2),
        tolerance=0.002,
        hint="the sigmoid of ln 3 is 3/4, and that of 0 is 1/2",
    ),
    "ex-tr-bytes": Exercise(
        expected=(3.2 / math.log(2) / 4.1, 1.5 / math.log(2)),
        tolerance=0.005,
        hint="nats to bits first, then divide by the bytes of a token",
    ),
    # bias_and_review
    "ex-br-odds": Exercise(
        expected=(math.log(4), 1.96 * math.sqrt(1 / 400 + 1 / 100 + 2 / 150)),
        tolerance=0.002,
        hint="the odds of a bad trait are 1/4 and 1; the squared error is the sum of 1/n",
    ),
    "ex-br-rates": Exercise(
        expected=(0.8 * 0.4 / 0.6, 0.25 * 0.8 * 0.4 / 0.6),
        tolerance=0.002,
        hint="false positives from true positives and the precision, then divide by 1 - p",
    ),
    "ex-br-share": Exercise(
        expected=(0.09 / 0.85, 0.009 / 0.0585),
        tolerance=0.002,
        hint="in the second case count, of all messages, those rightly and wrongly called",
    ),
    "ex-br-strength": Exercise(
        expected=0.8 * (0.4 * math.log(0.8) + 0.6 * math.log(1.2)) / 6.67,
        tolerance=2e-5,
        hint="PlantedConfig has log_odds and vel; kl_divergence gives nats per token",
    ),
    # sentiment
    "ex-se-rates": Exercise(
        expected=(0.02, 0.02 / 3, 0.02 / 9, 0.02 / 27, 90),
        tolerance=2e-5,
        hint="the head, two LSTM layers, the embedding, which is the third layer that waits",
    ),
    "ex-se-precision": Exercise(
        expected=(0.95, 0.095 / 0.14, 0.0095 / 0.059),
        tolerance=0.002,
        hint="of 1,000 reviews, count the negative ones that are flagged, and the others",
    ),
    "ex-se-threshold": Exercise(
        expected=(1 / 21, 0.95 / 1.95),
        tolerance=0.002,
        hint="set the odds at the new share, odds * (0.05 / 0.95), equal to 1 / 20",
    ),
    # dialogue
    "ex-dl-chain": Exercise(
        expected=(0.97**6, 0.97**12, 0.95 ** (1 / 12)),
        tolerance=5e-4,
        hint="independent turns multiply",
    ),
    "ex-dl-wording": Exercise(
        expected=(math.log(3), -(math.log(0.98) + 2 * math.log(0.01)) / 3, 36.0),
        tolerance=0.005,
        hint="the mean of -log q over the three wordings; in (c) one of the three terms is 0",
    ),
    "ex-dl-state": Exercise(
        expected=("a tweck of cedar for monday", "a glane of amber for friday"),
        hint="what is refused is the kind alone; the same is what the order before had at its end",
    ),
    # scale_and_cost
    "ex-sc-hours": Exercise(
        expected=(750.0, 1080.0, 1875.0),
        tolerance=1.0,
        hint="operations, over operations a second that are reached, over 3,600",
    ),
    "ex-sc-split": Exercise(
        expected=(0.3658 / 0.7136, 0.3478 / 0.7136),
        tolerance=0.002,
        hint="the exponent of N has b on top; both exponents sum to one",
    ),
    "ex-sc-use": Exercise(
        expected=(9e11, 9e11), tolerance=1e9, hint="6 N D against 2 N T, then both totals"
    ),
    "ex-sc-code": Exercise(
        computed=_fitted_floor, tolerance=0.006, hint="runs_of(stored, sizes=..., tokens=...)"
    ),
    # smaller_models
    "ex-sm-codes": Exercise(
        expected=(-3, 2, 0, -1, 0.35),
        tolerance=1e-6,
        hint="3 bits have the codes -3 to 3; the weight of largest size has the code 3 or -3",
    ),
    "ex-sm-sparse": Exercise(
        expected=(1 / 32, 25 / 32),
        tolerance=1e-6,
        hint="with codes, a matrix takes 8 bits a weight; sparse, 1 bit, and 32 for each kept one",
    ),
    "ex-sm-survive": Exercise(
        expected=(0.25, 0.25, 0.0),
        tolerance=1e-6,
        hint="a weight's place between two codes is uniform; what share of places cross an edge?",
    ),
}
