"""How fast training is here, beside a plain textbook loop and the machine's matrix multiplication.

Speeds are compared within one process, in many short turns, so that a slow moment of the machine
falls on both loops; the median over turns is little moved by those on which it does not.
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

from companion.lstm import LSTMConfig, LSTMLanguageModel
from companion.runtime import choose_device, peak_memory_bytes, synchronize
from companion.training import TrainConfig, Trainer

#: How long a turn of both loops takes, where a step is shorter than that.
TURN_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class BenchmarkModel:
    """A model and batch whose training speed is measured."""

    name: str
    """Name in the report."""
    model: LSTMConfig
    """The model."""
    num_streams: int
    """Batch size."""
    window_length: int
    """Tokens per stream and step."""


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
    """What was measured for one model."""

    name: str
    """The model's name."""
    tokens_per_second: float
    """Training targets a second by this package's loop; median of the turns."""
    reference_tokens_per_second: float
    """The same by the plain textbook loop."""
    ratio: float
    """Median over turns of this package's speed divided by the textbook loop's in the same turn."""
    ratio_low: float
    """Lower end of a 95 % interval for that median (all turns, where they are fewer than six)."""
    ratio_high: float
    """Upper end of it."""
    turns: int
    """Turns measured."""
    matmul_share: float
    """Floating-point operations the model needs, over what matrix multiplication does here."""
    peak_bytes: int
    """Most memory so far: the device's on CUDA, the whole process's elsewhere."""

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as `companion bench --json` prints them."""
        return asdict(self)


def training_flops_per_token(config: LSTMConfig) -> int:
    """Floating-point operations to train on one token: 6 for each weight of a matrix product.

    Two for the forward product and four for the two backward ones (Kaplan et al. 2020, section
    2.1). The embedding is a look-up and counts nothing.
    """
    sizes = config.layer_sizes
    inputs = [config.embedding_size, *sizes[:-1]]
    lstm = sum(4 * size * (below + size) for below, size in zip(inputs, sizes, strict=True))
    return 6 * (lstm + sizes[-1] * config.vocabulary_size)


def matmul_flops_per_second(device: torch.device, size: int = 1024, seconds: float = 0.5) -> float:
    """fp32 operations a second in square matrix products, the best of several tries."""
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
    """One training step as tutorials write it: batch first, Adam, a mean loss read at each step."""
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
    trainer.model.train()

    def ours() -> None:
        trainer.train_step()
        if trainer.progress.step % config.log_every == 0:
            trainer.training_record()  # part of the loop: here it waits and reads its numbers

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
    """Seconds a step of `one` and of `other`, turn by turn, over about `seconds` in all.

    A turn is a few steps of each, about `TURN_SECONDS` of both; who begins alternates.
    """
    for step in (one, other):  # warm-up: kernels chosen, memory taken
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
    """An interval that holds the median of what `values` are a sample of, whatever its shape.

    Its ends are two of the values: so many lie below the true median as coins show heads. Where
    there are too few values for that confidence, it goes from the smallest to the largest.
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
