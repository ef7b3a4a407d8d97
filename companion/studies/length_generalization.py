"""Does a model that knows every part, and every length, know what they make together?

Two tasks whose right answers are known. Number words are read into numerals: after training on
numbers below 10,000, longer ones are tested; and after training on "three hundred seven" and on
"forty two thousand", their composition, "forty two thousand three hundred seven", in texts no
longer than those of training. The counting language a^n b^n is learned for n up to 20 by three
recurrent cells, and tested beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from companion.batching import IGNORE, Batch, padded
from companion.numerals import (
    END_ID,
    TOKENS,
    number_words,
    numeral_batch,
    prompt_of,
)
from companion.recipe import TrainConfig, learning_rate_at
from companion.runtime import make_generator, seed_everything
from companion.sequence_models import CELLS, RecurrentModel, TransformerModel

if TYPE_CHECKING:
    from jaxtyping import Bool

#: The models that read numbers.
READERS = ("LSTM", "Transformer")

#: Of the LSTM that reads numbers.
EMBEDDING_SIZE = 32

#: Tokens of a^n b^n; 0 ends a text.
A_ID, B_ID = 1, 2


@dataclass(frozen=True, kw_only=True)
class Config:
    """The numbers, the models and their training."""

    readers: tuple[str, ...] = READERS
    """Models that learn the parts, and that learn the parts with compositions."""
    num_numbers: int = 1800
    """Training numbers below 10,000, as many with three digits as with four."""
    num_parts: int = 900
    """Training numbers below 1,000, and as many whole thousands; the rest is tested."""
    num_composed: int = 3000
    """Compositions that are added to the parts, to see that they can be learned."""
    num_test: int = 500
    """Test numbers of each kind, where there are so many."""
    hidden_size: int = 128
    """Of the LSTM that reads numbers."""
    width: int = 64
    """Of the two-layer Transformer, which then has about as many parameters."""
    steps: int = 400
    """Optimizer steps on numbers; twice as many with compositions."""
    batch_size: int = 60
    """Numbers in a step."""
    cells: tuple[str, ...] = tuple(CELLS)
    """Recurrent cells that learn to count."""
    counting_size: int = 16
    """Their hidden size."""
    counting_steps: int = 600
    """Their optimizer steps, 20 texts each."""
    longest_trained: int = 20
    """The largest n of a^n b^n in training; tests go to four times that."""

    def __post_init__(self) -> None:
        for name, known in (("readers", READERS), ("cells", tuple(CELLS))):
            unknown = [value for value in getattr(self, name) if value not in known]
            if unknown:
                raise ValueError(f"{name} must be of {', '.join(known)}, got {unknown[0]!r}")
        if not 1 <= self.num_parts < 999:
            raise ValueError(f"num_parts must be between 1 and 998, got {self.num_parts}")


@dataclass(kw_only=True)
class Result:
    """Shares of texts whose every output token is right, by greedy decoding."""

    by_digits: dict[str, float] = field(default_factory=dict)
    """LSTM trained on 1 to 4 digits: numbers it never saw, by their digits, "3" to "6"."""
    below_thousand: dict[str, float] = field(default_factory=dict)
    """By reader, trained on the parts: held-out numbers below 1,000."""
    thousands: dict[str, float] = field(default_factory=dict)
    """The same: held-out whole thousands."""
    composed: dict[str, float] = field(default_factory=dict)
    """The same: compositions of both, no longer than training texts in words and in digits."""
    answers: dict[str, dict[str, float]] = field(default_factory=dict)
    """What became of those: "right", "thousands alone", "rest alone", "other"."""
    composed_after_examples: dict[str, float] = field(default_factory=dict)
    """Compositions when others were in training."""
    counted: dict[str, dict[str, float]] = field(default_factory=dict)
    """a^n b^n by cell: the share of n in "trained", "up to twice" and "up to four times"."""
    reach: dict[str, int] = field(default_factory=dict)
    """By cell: the largest n up to which every n is right."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train every model and test it on what it never saw."""
    result = Result()
    generator = make_generator(seed)
    bar = tqdm(
        total=1 + 2 * len(config.readers) + len(config.cells), disable=not progress, unit="model"
    )

    short = [n for n in range(10_000) if n < 100] + [
        n for digits in (3, 4) for n in draw_numbers(digits, config.num_numbers // 2, generator)
    ]
    model = train_reader("LSTM", short, config, seed=seed)
    bar.update()
    for digits in (3, 4, 5, 6):
        new = set(draw_numbers(digits, 2 * config.num_test, generator)) - set(short)
        result.by_digits[str(digits)] = share_right(model, sorted(new)[: config.num_test])

    seen, held_out, composed, examples = parts(config, generator)
    for reader in config.readers:
        model = train_reader(reader, seen, config, seed=seed)
        bar.update()
        result.below_thousand[reader] = share_right(model, [n for n in held_out if n < 1000])
        result.thousands[reader] = share_right(model, [n for n in held_out if n >= 1000])
        result.answers[reader] = kinds_of_answers(composed, read_numbers(model, composed))
        result.composed[reader] = result.answers[reader]["right"]
        model = train_reader(reader, seen + examples, config, seed=seed, steps=2 * config.steps)
        bar.update()
        result.composed_after_examples[reader] = share_right(model, composed)

    most = config.longest_trained
    for cell in config.cells:
        counter = train_counter(cell, config, seed=seed)
        bar.update()
        right = counts_right(counter, range(1, 4 * most + 1))
        pieces = {"trained": right[:most], "up to twice": right[most : 2 * most]}
        pieces["up to four times"] = right[2 * most :]
        result.counted[cell] = {name: float(x.double().mean()) for name, x in pieces.items()}
        result.reach[cell] = int(right.long().cumprod(0).sum())
    bar.close()
    return result


# --- numbers -------------------------------------------------------------------------------------


def draw_numbers(digits: int, n: int, generator: torch.Generator) -> list[int]:
    """`n` random numbers of so many digits, with repetition."""
    low = 10 ** (digits - 1) if digits > 1 else 0
    found: list[int] = torch.randint(low, 10**digits, (n,), generator=generator).tolist()
    return found


def parts(
    config: Config, generator: torch.Generator
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Training numbers, held-out ones of their two kinds, compositions to test, and others.

    The kinds are numbers below 1,000 and whole thousands up to 999,000. The tested compositions
    have no more words than training texts have; digits they have at most as many anyway.
    """
    below = torch.randperm(1000, generator=generator).tolist()
    whole = [1000 * (1 + n) for n in torch.randperm(999, generator=generator).tolist()]
    seen = below[: config.num_parts] + whole[: config.num_parts]
    held_out = below[config.num_parts :] + whole[config.num_parts :]
    longest = max(len(number_words(n)) for n in seen)
    mixed = draw_compositions(20 * config.num_test, generator)
    composed = [n for n in mixed if len(number_words(n)) <= longest][: config.num_test]
    tested = set(composed)
    others = draw_compositions(2 * config.num_composed, generator)
    examples = [n for n in others if n not in tested]
    return seen, held_out, composed, examples[: config.num_composed]


def draw_compositions(n: int, generator: torch.Generator) -> list[int]:
    """`n` random numbers, thousands and rest each of 1, 2 or 3 digits alike; neither is zero."""
    limits = 10 ** torch.randint(1, 4, (n, 2), generator=generator)
    low = limits // 10
    pairs = low + (torch.rand(n, 2, generator=generator) * (limits - low)).long()
    return [1000 * thousands + rest for thousands, rest in pairs.tolist()]


def train_reader(
    reader: str, numbers: Sequence[int], config: Config, *, seed: int, steps: int | None = None
) -> nn.Module:
    """A model that has read these numbers, in evaluation mode. An entry point: it seeds."""
    seed_everything(seed)
    model: nn.Module
    if reader == "LSTM":
        model = RecurrentModel(
            "LSTM",
            vocabulary_size=len(TOKENS),
            embedding_size=EMBEDDING_SIZE,
            hidden_size=config.hidden_size,
        )
    else:
        model = TransformerModel(vocabulary_size=len(TOKENS), width=config.width)
    steps = config.steps if steps is None else steps
    generator = make_generator(seed + 2**31)
    data = numeral_batch(numbers)
    # Rows of nearly one length, so that padding costs little and batches stay mixed.
    rows = torch.randint(len(numbers), (steps, config.batch_size), generator=generator)
    batches = (Batch(inputs=data.inputs[some], targets=data.targets[some]) for some in rows)
    return learn(model, batches, steps=steps, learning_rate=1e-2 if reader == "LSTM" else 3e-3)


def learn(
    model: nn.Module, batches: Iterable[Batch], *, steps: int, learning_rate: float
) -> nn.Module:
    """Adam with warm-up and cosine; the loss is the mean over the targets of a batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = TrainConfig(steps=steps, learning_rate=learning_rate)
    model.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, steps, schedule)
        logits, _ = model(batch.inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


@torch.no_grad()
def read_numbers(model: nn.Module, numbers: Sequence[int], *, max_digits: int = 8) -> list[str]:
    """What the model writes after the words of each number, the most probable token each time.

    Anything may be in it; it ends before the end token, or after `max_digits` tokens.
    """
    prompts = [prompt_of(number) for number in numbers]
    inputs = padded(prompts, start_id=END_ID, end_id=END_ID).inputs
    inputs = F.pad(inputs, (0, max_digits), value=END_ID)
    rows = torch.arange(len(prompts))
    last = torch.tensor([len(prompt) for prompt in prompts])  # where "=" is: row 0 is the start
    written: list[list[int]] = [[] for _ in prompts]
    going = set(range(len(prompts)))
    for _ in range(max_digits):
        logits, _ = model(inputs)
        chosen = logits[rows, last].argmax(dim=-1)
        last = last + 1
        inputs[rows, last] = chosen
        going = {row for row in going if int(chosen[row]) != END_ID}
        for row in going:
            written[row].append(int(chosen[row]))
    return ["".join(TOKENS[token] for token in tokens) for tokens in written]


def share_right(model: nn.Module, numbers: Sequence[int]) -> float:
    """Share of numbers of which every digit is right."""
    answers = read_numbers(model, numbers)
    return sum(a == str(n) for a, n in zip(answers, numbers, strict=True)) / len(numbers)


def kinds_of_answers(numbers: Sequence[int], answers: Sequence[str]) -> dict[str, float]:
    """Shares of answers to compositions: right, one of the two parts alone, or anything else."""
    names: dict[str, Callable[[int], int]] = {
        "right": lambda n: n,
        "thousands alone": lambda n: n - n % 1000,
        "rest alone": lambda n: n % 1000,
    }
    pairs = list(zip(numbers, answers, strict=True))
    shares = {name: sum(a == str(f(n)) for n, a in pairs) / len(pairs) for name, f in names.items()}
    return {**shares, "other": 1 - sum(shares.values())}


# --- counting ------------------------------------------------------------------------------------


def counting_batch(lengths: Sequence[int]) -> Batch:
    """a^n b^n and the end, a row for each n; every token is a target."""
    texts = [torch.tensor([A_ID] * n + [B_ID] * n) for n in lengths]
    return padded(texts, start_id=END_ID, end_id=END_ID)


def train_counter(cell: str, config: Config, *, seed: int) -> nn.Module:
    """A recurrent model of a^n b^n, all n up to `longest_trained` alike. It seeds."""
    seed_everything(seed)
    model = RecurrentModel(
        cell, vocabulary_size=3, embedding_size=8, hidden_size=config.counting_size
    )
    generator = make_generator(seed + 2**31)
    steps = config.counting_steps
    lengths = torch.randint(1, config.longest_trained + 1, (steps, 20), generator=generator)
    batches = (counting_batch(some.tolist()) for some in lengths)
    return learn(model, batches, steps=steps, learning_rate=1e-2)


@torch.no_grad()
def counts_right(model: nn.Module, lengths: Iterable[int]) -> Bool[Tensor, " lengths"]:
    """Whether after n times a and one b the model's most probable tokens are the other b and the
    end. Until that b, nobody can know n."""
    right = []
    for n in lengths:
        batch = counting_batch([n])
        logits, _ = model(batch.inputs)
        chosen = logits.argmax(dim=-1)
        right.append(bool((chosen == batch.targets)[0, n + 1 :].all()))
    return torch.tensor(right)
