"""Does a model that knows every part, and every length, know what they make together?

There are two tasks with known right answers. In the first, number words are translated into
numerals: after training on numbers below 10,000, longer numbers are tested; and after training on
parts such as "three hundred seven" and "forty two thousand", compositions such as "forty two
thousand three hundred seven" are tested, in texts no longer than those of training. In the second,
three recurrent cells learn the counting language a^n b^n for n up to 20, and are tested beyond; and
what the LSTM's counting units hold is exchanged between short and long texts, to see whether it is
this that ends its counting.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_choice, check_counts, settings_class
from companion.models.recurrent import CELLS, RecurrentModel
from companion.models.transformer import TransformerModel
from companion.sources.numerals import TOKENS, number_words, numeral_batch, prompt_of
from companion.text.batching import IGNORE, Batch, padded
from companion.text.rows import END_ID
from companion.training.config import TrainConfig
from companion.training.optimization import learning_rate_at, take_step

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

#: Models that learn to translate number words.
READERS = ("LSTM", "Transformer")

#: Kinds of training compositions: any; with a rest of one, two or three digits; with ten different
#: thousands and any rest; with any thousands and ten different rests.
KINDS = ("any", "rest_1", "rest_2", "rest_3", "ten_thousands", "ten_rests")

#: Embedding size of the LSTM that translates number words.
EMBEDDING_SIZE = 32

#: Number of b's that are still to come where cells are exchanged.
LEFT = 10

#: Correlation with the true count above which a unit is called a counting unit.
COUNTS = 0.95

#: Token ids of a and b in a^n b^n; 0 ends a text.
A_ID, B_ID = 1, 2


@settings_class
class Config:
    """Settings of the numbers, the models and their training."""

    readers: tuple[str, ...] = READERS
    """Models that learn the parts, first without compositions and then with some."""
    num_numbers: int = 1800
    """Number of training numbers with three or four digits, half each; all numbers below 100 are
    added."""
    num_parts: int = 900
    """Number of training numbers below 1,000, and of whole thousands; all others are tested."""
    doses: tuple[int, ...] = (0, 3000)
    """Numbers of different compositions of kind "any" in training; 0 is the control that trains as
    long, on parts alone."""
    kinds: tuple[str, ...] = ()
    """Kinds of compositions to learn from, of `KINDS`; none by default."""
    num_kind: int = 300
    """Number of different training compositions of each of `kinds`."""
    num_test: int = 500
    """Maximum number of test numbers of each kind."""
    hidden_size: int = 128
    """Hidden units of the LSTM that translates number words."""
    width: int = 64
    """Width of the two-layer Transformer; 64 gives about as many parameters as the LSTM has."""
    steps: int = 400
    """Optimizer steps on numbers; twice as many in the runs of `doses` and `kinds`."""
    batch_size: int = 60
    """Numbers per optimizer step."""
    cells: tuple[str, ...] = tuple(CELLS)
    """Recurrent cells that learn to count."""
    counting_size: int = 16
    """Hidden units of the recurrent cells that learn to count."""
    counting_steps: int = 600
    """Optimizer steps of the recurrent cells, on 20 texts each."""
    longest_trained: int = 20
    """Largest n of a^n b^n in training; tests go up to four times that."""

    def __post_init__(self) -> None:
        check_counts(self)
        for reader in self.readers:
            check_choice("each of readers", reader, READERS)
        for kind in self.kinds:
            check_choice("each of kinds", kind, KINDS)
        if min(self.doses, default=0) < 0:
            raise ValueError(f"doses must be >= 0, got {self.doses}")
        for cell in self.cells:
            check_choice("each of cells", cell, CELLS)
        if not 1 <= self.num_parts < 999:
            raise ValueError(f"num_parts must be between 1 and 998, got {self.num_parts}")


@dataclass(kw_only=True)
class Result:
    """Shares of texts in which all output tokens are right, with greedy decoding."""

    by_digits: dict[str, float] = field(default_factory=dict)
    """Share right of unseen numbers, by number of digits, "3" to "6", for the LSTM trained on
    numbers below 10,000."""
    below_thousand: dict[str, float] = field(default_factory=dict)
    """Share right of held-out numbers below 1,000, by reader trained on the parts."""
    thousands: dict[str, float] = field(default_factory=dict)
    """Share right of held-out whole thousands, by reader trained on the parts."""
    composed: dict[str, float] = field(default_factory=dict)
    """Share right of compositions, by reader trained on the parts; they are no longer than training
    texts in words or digits."""
    answers: dict[str, dict[str, float]] = field(default_factory=dict)
    """Shares of the answers to these compositions, by reader: "right", "thousands alone", "rest
    alone", "other"."""
    composed_by_dose: dict[str, dict[str, float]] = field(default_factory=dict)
    """Share right of compositions, by reader and by the number of other compositions in training.
    All are trained for the same number of steps, with half of each batch drawn from these."""
    composed_by_kind: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Share right of compositions, by reader, by the kind in training, and by the number of digits
    of the tested rest, "1" to "3"; half of `num_test` of each."""
    counted: dict[str, dict[str, float]] = field(default_factory=dict)
    """Share right of a^n b^n, by cell, for n in "trained", "up to twice" and "up to four times"."""
    reach: dict[str, int] = field(default_factory=dict)
    """The largest n for which a^n b^n is right for every length up to n, by cell."""
    num_counters: int = 0
    """Number of the LSTM's units that count; see `counting_units`."""
    corrected: dict[str, float] = field(default_factory=dict)
    """Share right of a^n b^n beyond the training lengths, up to four times, when cells are set to
    the values of short texts at `LEFT` b's before the end: of no unit ("as it is"), of the
    "counting units", of the "other units"; "random units" are others, moved as far as the counting
    units are in their correction. What was wrong before the exchange stays wrong."""
    damaged: dict[str, float] = field(default_factory=dict)
    """Share of those long texts whose cells leave a short text right, when it is given their values
    of the "counting units" or of the "other units"."""
    offsets: dict[str, dict[str, float]] = field(default_factory=dict)
    """How far counting units are at the end of a^n b^n from where they are at the end of a short
    text, in steps of one a, by n: of the unit that goes along best with the count, "best", and of
    the one that is furthest off, "furthest"."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train every model and test it on unseen texts."""
    result = Result()
    generator = make_generator(seed, "numbers")
    per_reader = 1 + len(config.doses) + len(config.kinds)
    bar = tqdm(
        total=1 + per_reader * len(config.readers) + len(config.cells),
        disable=not progress,
        unit="model",
    )

    short = [n for n in range(10_000) if n < 100] + [
        n for digits in (3, 4) for n in draw_numbers(digits, config.num_numbers // 2, generator)
    ]
    model = train_reader("LSTM", short, config, seed=seed)
    bar.update()
    for digits in (3, 4, 5, 6):
        new = draw_unseen(digits, config.num_test, short, generator)
        result.by_digits[str(digits)] = share_right(model, new)

    seen, held_out, all_composed = parts(config, generator)
    composed = all_composed[: config.num_test]
    by_rest = {
        digits: [n for n in all_composed if rest_digits(n) == digits][: config.num_test // 2]
        for digits in (1, 2, 3)
    }
    tested = {*composed, *(n for some in by_rest.values() for n in some)}
    any_kind = compositions("any", max(config.doses, default=0), tested, generator)
    of_kind = {
        kind: compositions(kind, config.num_kind, tested, generator) for kind in config.kinds
    }
    for reader in config.readers:
        model = train_reader(reader, seen, config, seed=seed)
        bar.update()
        result.below_thousand[reader] = share_right(model, [n for n in held_out if n < 1000])
        result.thousands[reader] = share_right(model, [n for n in held_out if n >= 1000])
        result.answers[reader] = kinds_of_answers(composed, read_numbers(model, composed))
        result.composed[reader] = result.answers[reader]["right"]
        result.composed_by_dose[reader] = {}
        for dose in config.doses:
            model = train_reader(reader, seen, config, seed=seed, half=any_kind[:dose])
            bar.update()
            result.composed_by_dose[reader][str(dose)] = share_right(model, composed)
        result.composed_by_kind[reader] = {}
        for kind, examples in of_kind.items():
            model = train_reader(reader, seen, config, seed=seed, half=examples)
            bar.update()
            result.composed_by_kind[reader][kind] = {
                str(digits): share_right(model, numbers) for digits, numbers in by_rest.items()
            }

    most = config.longest_trained
    for cell in config.cells:
        counter = train_counter(cell, config, seed=seed)
        bar.update()
        right = counts_right(counter, range(1, 4 * most + 1))
        pieces = {"trained": right[:most], "up to twice": right[most : 2 * most]}
        pieces["up to four times"] = right[2 * most :]
        result.counted[cell] = {name: float(x.double().mean()) for name, x in pieces.items()}
        result.reach[cell] = int(right.long().cumprod(0).sum())
        if cell == "LSTM":
            exchange = Exchange(counter, most)
            result.num_counters = int(exchange.counting.sum())
            result.corrected = exchange.corrected(make_generator(seed, "random units"))
            result.damaged = exchange.damaged()
            result.offsets = exchange.offsets()
    bar.close()
    return result


# --- numbers -------------------------------------------------------------------------------------


def draw_numbers(digits: int, n: int, generator: torch.Generator) -> list[int]:
    """`n` random numbers with `digits` digits, drawn with replacement."""
    low = 10 ** (digits - 1) if digits > 1 else 0
    found: list[int] = torch.randint(low, 10**digits, (n,), generator=generator).tolist()
    return found


def draw_unseen(digits: int, n: int, seen: Sequence[int], generator: torch.Generator) -> list[int]:
    """`n` different numbers with `digits` digits that are not in `seen`, or all if fewer exist."""
    low = 10 ** (digits - 1) if digits > 1 else 0
    order = low + torch.randperm(10**digits - low, generator=generator)
    return order[~torch.isin(order, torch.tensor(seen))][:n].tolist()


def parts(config: Config, generator: torch.Generator) -> tuple[list[int], list[int], list[int]]:
    """Training parts, held-out parts of each kind, and different compositions to test, of which the
    first `num_test` are tested as a whole.

    The two kinds of parts are numbers below 1,000 and whole thousands up to 999,000. The tested
    compositions have no more words than the training texts, and no more digits either.
    """
    below = torch.randperm(1000, generator=generator).tolist()
    whole = [1000 * (1 + n) for n in torch.randperm(999, generator=generator).tolist()]
    seen = below[: config.num_parts] + whole[: config.num_parts]
    held_out = below[config.num_parts :] + whole[config.num_parts :]
    longest = max(len(number_words(n)) for n in seen)
    mixed = draw_compositions(20 * config.num_test, generator)
    composed = dict.fromkeys(n for n in mixed if len(number_words(n)) <= longest)
    return seen, held_out, list(composed)


def compositions(
    kind: str, n: int, tested: Collection[int], generator: torch.Generator
) -> list[int]:
    """`n` different compositions of a kind of `KINDS`, none of which is in `tested`; ValueError
    when there are fewer."""
    drawn = draw_compositions(40 * n, generator)
    if kind == "ten_thousands":
        few = list(dict.fromkeys(m // 1000 for m in drawn))[:10]
        drawn = [1000 * few[place % 10] + m % 1000 for place, m in enumerate(drawn)]
    elif kind == "ten_rests":
        few = list(dict.fromkeys(m % 1000 for m in drawn))[:10]
        drawn = [m - m % 1000 + few[place % 10] for place, m in enumerate(drawn)]
    elif kind != "any":
        drawn = [m for m in drawn if kind == f"rest_{rest_digits(m)}"]
    found = list(dict.fromkeys(m for m in drawn if m not in tested))[:n]
    if len(found) < n:
        raise ValueError(
            f"only {len(found)} different compositions of kind {kind!r} were drawn, not {n}"
        )
    return found


def rest_digits(composed: int) -> int:
    """Number of digits of the part below 1,000."""
    return len(str(composed % 1000))


def draw_compositions(n: int, generator: torch.Generator) -> list[int]:
    """`n` random compositions, whose thousands and rest have 1, 2 or 3 digits with equal
    probability; neither is zero."""
    limits = 10 ** torch.randint(1, 4, (n, 2), generator=generator)
    low = limits // 10
    pairs = low + (torch.rand(n, 2, generator=generator) * (limits - low)).long()
    return [1000 * thousands + rest for thousands, rest in pairs.tolist()]


def train_reader(
    reader: str,
    numbers: Sequence[int],
    config: Config,
    *,
    seed: int,
    half: Sequence[int] | None = None,
) -> nn.Module:
    """A model trained on these numbers, in evaluation mode. Sets the seed of all generators.

    half: other numbers, from which half of each batch is drawn: however many they are, they are met
        as often. Training then takes twice the steps, also with none of them, as a control.
    """
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
    steps = config.steps if half is None else 2 * config.steps
    generator = make_generator(seed, "batches of numbers")
    data = numeral_batch([*numbers, *(half or ())])
    # Rows have nearly the same length, so padding costs little, and batches need no sorting.
    rows = torch.randint(len(numbers), (steps, config.batch_size), generator=generator)
    if half:
        size = (steps, config.batch_size // 2)
        rows[:, : size[1]] = len(numbers) + torch.randint(len(half), size, generator=generator)
    batches = (Batch(inputs=data.inputs[some], targets=data.targets[some]) for some in rows)
    return learn(model, batches, steps=steps, learning_rate=1e-2 if reader == "LSTM" else 3e-3)


def learn(
    model: nn.Module, batches: Iterable[Batch], *, steps: int, learning_rate: float
) -> nn.Module:
    """Train by Adam with warm-up and cosine; the loss is the mean over the targets of a batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = TrainConfig(steps=steps, learning_rate=learning_rate)
    model.train()
    for step, batch in enumerate(batches):
        logits, _ = model(batch.inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
        rate = learning_rate_at(step, steps, schedule)
        take_step(model, optimizer, loss, clip_norm=1.0, learning_rate=rate)
    return model.eval()


@torch.no_grad()
def read_numbers(model: nn.Module, numbers: Sequence[int], *, max_digits: int = 8) -> list[str]:
    """The model's greedy output after the words of each number.

    It may contain any tokens, and stops before the end token or after `max_digits` tokens.
    """
    prompts = [prompt_of(number) for number in numbers]
    inputs = padded(prompts, start_id=END_ID, end_id=END_ID).inputs
    inputs = F.pad(inputs, (0, max_digits), value=END_ID)
    rows = torch.arange(len(prompts))
    last = torch.tensor([len(prompt) for prompt in prompts])  # position of "="; 0 is the start
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
    """Share of numbers whose digits are all right."""
    answers = read_numbers(model, numbers)
    return sum(a == str(n) for a, n in zip(answers, numbers, strict=True)) / len(numbers)


def kinds_of_answers(numbers: Sequence[int], answers: Sequence[str]) -> dict[str, float]:
    """Shares of the answers to compositions: right, only one of the two parts, or anything else."""
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
    """A batch with one row, a^n b^n and the end token, for each n; every token is a target."""
    texts = [torch.tensor([A_ID] * n + [B_ID] * n) for n in lengths]
    return padded(texts, start_id=END_ID, end_id=END_ID)


def train_counter(cell: str, config: Config, *, seed: int) -> RecurrentModel:
    """A recurrent model of a^n b^n, trained on n up to `longest_trained` with equal probability.
    Sets the seed of all generators."""
    seed_everything(seed)
    model = RecurrentModel(
        cell, vocabulary_size=3, embedding_size=8, hidden_size=config.counting_size
    )
    generator = make_generator(seed, "counting texts")
    steps = config.counting_steps
    lengths = torch.randint(1, config.longest_trained + 1, (steps, 20), generator=generator)
    batches = (counting_batch(some.tolist()) for some in lengths)
    learn(model, batches, steps=steps, learning_rate=1e-2)
    return model


@torch.no_grad()
def counts_right(model: nn.Module, lengths: Iterable[int]) -> Bool[Tensor, " lengths"]:
    """Whether, after n times a and one b, the model's most probable tokens are the other b's and
    the end. Before the first b, n cannot be known."""
    right = []
    for n in lengths:
        batch = counting_batch([n])
        logits, _ = model(batch.inputs)
        chosen = logits.argmax(dim=-1)
        right.append(bool((chosen == batch.targets)[0, n + 1 :].all()))
    return torch.tensor(right)


class Exchange:
    """Exchanges cell values between texts a^n b^n of an LSTM, `LEFT` b's before they end.

    A long text has n from `longest` + 1 to four times `longest`, a short one is as in training. At
    the place of the exchange the same number of b's must follow in all.

    Shape legend: N texts, H units, K tokens b read.
    """

    @torch.no_grad()
    def __init__(self, model: RecurrentModel, longest: int) -> None:
        if longest <= LEFT:
            raise ValueError(f"longest must be above {LEFT}, the b's left, got {longest}")
        self.model, self.longest = model, longest
        most = 4 * longest
        zeros = torch.zeros(1, 1, model.cell.hidden_size)
        climbed = self._read(A_ID, self._read(END_ID, (zeros, zeros), 1)[0][-1], most)[0]
        turned = [torch.cat(part, dim=1) for part in zip(*climbed[1:], strict=True)]
        states, chosen = self._read(B_ID, (turned[0], turned[1]), most)
        self.up = torch.stack([c[0, 0] for _, c in climbed])  # (most + 1, H)
        self.down = torch.stack([c[0] for _, c in states])  # (K, N, H), row 0 is n = 1
        self.counting, self.best = counting_units(self.up, self.down, longest)

        n = torch.arange(LEFT + 1, most + 1)
        self.hidden = torch.stack([h[0] for h, _ in states])[n - LEFT, n - 1]
        self.cells = self.down[n - LEFT, n - 1]  # (most - LEFT, H), at the place of the exchange
        self.so_far = torch.stack([(chosen[: k - LEFT, k - 1] == B_ID).all() for k in n.tolist()])
        self.short, self.long = slice(0, longest - LEFT), slice(longest - LEFT, None)

    def corrected(self, generator: torch.Generator, *, draws: int = 10) -> dict[str, float]:
        """See `Result.corrected`; for random units, the mean of `draws` draws."""
        cells, counting = self.cells[self.long], self.counting
        usual = self.cells[self.short].mean(dim=0)
        shares = {
            "as it is": self._share_right(cells),
            "counting units": self._share_right(torch.where(counting, usual, cells)),
            "other units": self._share_right(torch.where(counting, cells, usual)),
        }
        moves = (usual - cells)[:, counting]
        others = (~counting).nonzero()[:, 0]
        random = 0.0
        for _ in range(draws):
            units = others[torch.randperm(len(others), generator=generator)][: moves.shape[1]]
            signs = 2.0 * torch.randint(2, (len(units),), generator=generator) - 1
            moved = cells.clone()
            moved[:, units] += signs * moves[:, : len(units)]
            random += self._share_right(moved) / draws
        return {**shares, "random units": random}

    def damaged(self) -> dict[str, float]:
        """See `Result.damaged`; the short text is half way between `LEFT` and `longest`."""
        middle = (self.longest - LEFT) // 2
        short, long = self.cells[middle], self.cells[self.long]
        hidden = self.hidden[middle].expand_as(long)
        changed = {
            "counting units": torch.where(self.counting, long, short),
            "other units": torch.where(self.counting, short, long),
        }
        return {
            name: float(self._right(hidden, cells).double().mean())
            for name, cells in changed.items()
        }

    def offsets(self) -> dict[str, dict[str, float]]:
        """See `Result.offsets`; for n as long as `longest`, and two and four times."""
        per_a = (self.up[self.longest] - self.up[LEFT]) / (self.longest - LEFT)
        ends = {n: self.down[n, n - 1] for n in (LEFT, *(self.longest * k for k in (1, 2, 4)))}
        found = {}
        for n, cells in ends.items():
            if n != LEFT and bool(self.counting.any()):
                off = (cells - ends[LEFT]) / per_a
                furthest = off[self.counting].abs().max()
                found[str(n)] = {"best": float(off[self.best].abs()), "furthest": float(furthest)}
        return found

    def _share_right(self, cells: Float[Tensor, "long hidden"]) -> float:
        right = self._right(self.hidden[self.long], cells) & self.so_far[self.long]
        return float(right.double().mean())

    def _right(
        self, hidden: Float[Tensor, "texts hidden"], cells: Float[Tensor, "texts hidden"]
    ) -> Bool[Tensor, " texts"]:
        """Whether all that is written from the exchange on is right: `LEFT` b's, then the end."""
        _, chosen = self._read(B_ID, (hidden[None], cells.contiguous()[None]), LEFT)
        return (chosen[:-1] == B_ID).all(dim=0) & (chosen[-1] == END_ID)

    @torch.no_grad()
    def _read(
        self, token: int, state: tuple[Tensor, Tensor], times: int
    ) -> tuple[list[tuple[Tensor, Tensor]], Int[Tensor, "times texts"]]:
        """States before and after each of this many equal tokens, and the most probable next
        ones."""
        states, chosen = [state], []
        tokens = torch.full((state[0].shape[1], 1), token)
        for _ in range(times):
            logits, state = self.model(tokens, state)
            states.append(state)
            chosen.append(logits[:, 0].argmax(dim=-1))
        return states, torch.stack(chosen)


def counting_units(
    up: Float[Tensor, "climb hidden"], down: Float[Tensor, "descent texts hidden"], longest: int
) -> tuple[Bool[Tensor, " hidden"], int]:
    """Which units' correlation with the true count exceeds `COUNTS`, and the unit with the highest.

    up: cells after 0, 1, ... a. down: cells of a^n b^k by k from 0 and by n from 1. The texts
    a^n b^n with n up to `longest` are taken together.
    """
    cells, counts = [], []
    for n in range(1, longest + 1):
        cells += [up[: n + 1], down[1 : n + 1, n - 1]]
        counts += [*range(n + 1), *range(n - 1, -1, -1)]
    rows = torch.cat([torch.tensor(counts, dtype=up.dtype)[None], torch.cat(cells).T])
    together = torch.corrcoef(rows)[0, 1:].abs().nan_to_num()
    return together > COUNTS, int(together.argmax())
