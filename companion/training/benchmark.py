"""Training speed on this machine, against a textbook loop and plain matrix multiplication.

Speeds are compared within one process, in many short turns, so that a slow moment of the machine
affects both loops; the median over turns ignores the few turns in which it affects only one.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from companion.core.runtime import choose_device, peak_memory_bytes, synchronize
from companion.losses.large_vocabulary import NoiseSampler, sampled_nats
from companion.losses.training_loss import Loss
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.training.config import TrainConfig
from companion.training.trainer import Trainer

#: Seconds of one turn of both loops, unless single steps take longer.
TURN_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class BenchmarkModel:
    """A model and batch whose training speed is measured."""

    name: str
    """Name in the report."""
    model: LSTMConfig
    """Size of the LSTM."""
    num_streams: int
    """Parallel streams: the batch size."""
    window_length: int
    """Tokens per stream in each step: the BPTT length."""
    loss: Loss = "full"
    """Loss of this package's loop. The textbook loop has the sampled loss where this one has it,
    and otherwise the full one, of which the chunked loss is the same number."""
    num_samples: int = 1024
    """Tokens that the sampled loss draws."""


MODELS = (
    BenchmarkModel(
        name="small",
        model=LSTMConfig(vocabulary_size=256, embedding_size=64, hidden_size=128),
        num_streams=32, window_length=64,
    ),
    BenchmarkModel(
        name="medium",
        model=LSTMConfig(vocabulary_size=2000, embedding_size=256, hidden_size=256, num_layers=2),
        num_streams=32, window_length=64,
    ),
    BenchmarkModel(
        name="large-vocabulary",
        model=LSTMConfig(
            vocabulary_size=33278, embedding_size=200, hidden_size=200, num_layers=2,
            tie_weights=True,
        ),
        num_streams=20, window_length=35, loss="chunked",
    ),
    BenchmarkModel(
        name="sampled",
        model=LSTMConfig(
            vocabulary_size=33278, embedding_size=200, hidden_size=200, tie_weights=True
        ),
        num_streams=32, window_length=35, loss="sampled",
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Measured training speed of one model."""

    name: str
    """Name of the model, as in `BenchmarkModel`."""
    tokens_per_second: float
    """Training targets per second of this package's loop; median over turns."""
    reference_tokens_per_second: float
    """Training targets per second of the textbook loop; median over turns."""
    ratio: float
    """Median over turns of this package's speed divided by the textbook loop's in the same turn."""
    ratio_low: float
    """Lower end of the 95 % interval of `ratio` (with fewer than six turns, the lowest ratio)."""
    ratio_high: float
    """Upper end of the 95 % interval of `ratio` (with fewer than six turns, the highest ratio)."""
    turns: int
    """Number of turns measured."""
    matmul_share: float
    """Floating-point operations per second that the training uses, as a share of those that matrix
    multiplication reaches on this machine."""
    products_share: float
    """Share of a step's time that its own matrix products need when nothing else is done. They are
    smaller than those of `matmul_share`, so slower; what is left is everything but products."""
    peak_bytes: int
    """Peak memory so far in bytes: of the device on CUDA, otherwise of the whole process."""

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as `companion bench --json` prints them."""
        return asdict(self)


def training_flops_per_token(config: LSTMConfig) -> int:
    """Floating-point operations to train on one token: 6 for each weight of a matrix product.

    Two for the forward product and four for the two backward products (Kaplan et al. 2020, section
    2.1). The embedding is a look-up and needs none.
    """
    sizes = config.layer_sizes
    inputs = [config.embedding_size, *sizes[:-1]]
    lstm = sum(4 * size * (below + size) for below, size in zip(inputs, sizes, strict=True))
    return 6 * (lstm + sizes[-1] * config.vocabulary_size)


def products_of(case: BenchmarkModel) -> list[tuple[int, int, int, int]]:
    """The matrix products of a training step, as rows, inner size, columns, and how many of them.

    Of each layer and time step one product forward and one backward, by the hidden state; of each
    window three by the inputs, one by the gradient of the recurrent weights, and three by the
    output layer, whose columns are the samples where the loss is sampled.
    """
    config, rows, steps = case.model, case.num_streams, case.window_length
    sizes, positions = config.layer_sizes, case.num_streams * case.window_length
    found = []
    for below, size in zip([config.embedding_size, *sizes[:-1]], sizes, strict=True):
        found += [
            (rows, size, 4 * size, steps), (rows, 4 * size, size, steps),
            (positions, below, 4 * size, 1), (positions, 4 * size, below, 1),
            (4 * size, positions, below, 1), (4 * size, positions, size, 1),
        ]  # fmt: skip
    columns = case.num_samples if case.loss == "sampled" else config.vocabulary_size
    return [
        *found,
        (positions, sizes[-1], columns, 1), (positions, columns, sizes[-1], 1),
        (columns, positions, sizes[-1], 1),
    ]  # fmt: skip


def seconds_of_products(
    products: Sequence[tuple[int, int, int, int]], device: torch.device, seconds: float = 0.5
) -> float:
    """Seconds that matrix products (`products_of`) take one after another, the least of several
    tries of each."""
    total = 0.0
    for rows, inner, columns, count in products:
        a, b = torch.randn(rows, inner, device=device), torch.randn(inner, columns, device=device)
        out = torch.empty(rows, columns, device=device)
        best, end = math.inf, time.perf_counter() + seconds / len(products)
        while best == math.inf or time.perf_counter() < end:
            times = min(count, 8)
            synchronize(device)
            started = time.perf_counter()
            for _ in range(times):
                torch.mm(a, b, out=out)
            synchronize(device)
            best = min(best, (time.perf_counter() - started) / times)
        total += best * count
    return total


def matmul_flops_per_second(device: torch.device, size: int = 1024, seconds: float = 0.5) -> float:
    """fp32 operations per second of square matrix products, the best of several tries."""
    a, b = torch.randn(2, size, size, device=device).unbind()
    best = 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or best == 0.0:
        synchronize(device)
        started = time.perf_counter()
        a @ b
        synchronize(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def textbook_step(
    case: BenchmarkModel, ids: torch.Tensor, device: torch.device
) -> Callable[[], None]:
    """A training step as in tutorials: batch first, Adam, the mean loss read at each step."""
    config = case.model
    noise = NoiseSampler(ids.bincount(minlength=config.vocabulary_size)).to(device)
    embedding = nn.Embedding(config.vocabulary_size, config.embedding_size)
    lstm = nn.LSTM(config.embedding_size, config.hidden_size, config.num_layers, batch_first=True)
    output = nn.Linear(config.hidden_size, config.vocabulary_size)
    if config.tie_weights:
        output.weight = embedding.weight
    model = nn.ModuleList([embedding, lstm, output]).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_function = nn.CrossEntropyLoss()
    rows = ids[: case.num_streams * (case.window_length + 1)].view(case.num_streams, -1).to(device)
    state = None
    total = 0.0

    def step() -> None:
        nonlocal state, total
        outputs, state = lstm(embedding(rows[:, :-1]), state)
        state = (state[0].detach(), state[1].detach())
        targets = rows[:, 1:].reshape(-1)
        if case.loss == "sampled":  # a look-up of its own for inputs and for the output layer
            features, samples = outputs.reshape(len(targets), -1), noise(case.num_samples)
            parts = features, output.weight, output.bias, targets, samples, noise.log_probs
            loss = sampled_nats(*parts) / len(targets)
        else:
            logits = output(outputs)
            loss = loss_function(logits.reshape(-1, config.vocabulary_size), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item()

    return step


def measure(case: BenchmarkModel, *, device: str = "auto", seconds: float = 5.0) -> Speed:
    """Train `case` and its textbook twin on random tokens, for about `seconds` each."""
    place = choose_device(device)
    generator = torch.Generator().manual_seed(0)
    per_epoch = case.num_streams * case.window_length * 8
    ids = torch.randint(case.model.vocabulary_size, (per_epoch + 1,), generator=generator)
    config = TrainConfig(
        steps=10**9, num_streams=case.num_streams, window_length=case.window_length, warmup=0.0,
        loss=case.loss, num_samples=case.num_samples,
    )  # fmt: skip
    trainer = Trainer(LSTMLanguageModel(case.model), ids, config, device=device)
    steps = trainer.steps()

    def ours() -> None:
        if next(steps) % config.log_every == 0:
            trainer.training_record()  # part of the loop: here it waits for the device

    products = products_of(case)
    flops_per_token = (
        sum(2 * rows * inner * columns * count for rows, inner, columns, count in products)
        / case.num_streams
        / case.window_length
    )
    flops = matmul_flops_per_second(place)
    turns = take_turns(ours, textbook_step(case, ids, place), place, seconds=2 * seconds)
    per_step = case.num_streams * case.window_length
    ratios = [theirs / own for own, theirs in turns]
    low, high = median_interval(ratios)
    speed = per_step / statistics.median(own for own, _ in turns)
    return Speed(
        name=case.name,
        tokens_per_second=speed,
        reference_tokens_per_second=per_step / statistics.median(theirs for _, theirs in turns),
        ratio=statistics.median(ratios),
        ratio_low=low,
        ratio_high=high,
        turns=len(turns),
        matmul_share=speed * flops_per_token / flops,
        products_share=seconds_of_products(products, place) * speed / per_step,
        peak_bytes=_peak_bytes(place),
    )


def take_turns(
    one: Callable[[], None], other: Callable[[], None], device: torch.device, *, seconds: float
) -> list[tuple[float, float]]:
    """Seconds per step of `one` and of `other` in each turn, for about `seconds` in total.

    A turn is a few steps of each, about `TURN_SECONDS` together; they take turns in going first.
    """
    for step in (one, other):  # warm-up: the libraries choose kernels and allocate memory
        _seconds_per_step(step, 3, device)
    slower = max(_seconds_per_step(step, 2, device) for step in (one, other))
    steps = max(1, round(TURN_SECONDS / 2 / max(slower, 1e-9)))
    turns: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while not turns or time.perf_counter() < end:
        if len(turns) % 2 == 0:
            own = _seconds_per_step(one, steps, device)
            theirs = _seconds_per_step(other, steps, device)
        else:
            theirs = _seconds_per_step(other, steps, device)
            own = _seconds_per_step(one, steps, device)
        turns.append((own, theirs))
    return turns


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """A confidence interval for the median of the distribution that `values` were sampled from.

    It makes no assumption about the distribution. Its ends are two of the values: the number of
    values below the true median is binomial(n, 1/2). With too few values for that confidence, it
    reaches from the smallest to the largest.
    """
    ordered, n = sorted(values), len(values)
    left_out, tail = 0, 0.5**n  # chance that no value lies below the median
    while 2 * (following := tail + math.comb(n, left_out + 1) * 0.5**n) <= 1 - confidence:
        left_out, tail = left_out + 1, following
    return ordered[left_out], ordered[n - 1 - left_out]


def _seconds_per_step(step: Callable[[], None], steps: int, device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize(device)
    return (time.perf_counter() - started) / steps


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory_bytes()
