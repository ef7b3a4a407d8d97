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
        num_streams=20, window_length=35,
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
        logits = output(outputs)
        loss = loss_function(logits.reshape(-1, config.vocabulary_size), rows[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
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
        steps=10**9, num_streams=case.num_streams, window_length=case.window_length, warmup=0.0
    )
    trainer = Trainer(LSTMLanguageModel(case.model), ids, config, device=device)
    steps = trainer.steps()

    def ours() -> None:
        if next(steps) % config.log_every == 0:
            trainer.training_record()  # part of the loop: here it waits for the device

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
        matmul_share=speed * training_flops_per_token(case.model) / flops,
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
