"""What does a vocabulary of words cost in training, and what do the usual ways around it save?

The output layer of a word-level model is larger than all the rest. The same LSTM is trained on
Zipf-distributed tokens with the full softmax, the chunked loss (the same numbers without holding
the logits), the sampled softmax and the adaptive one; speeds are taken in turns in one process,
memory in a fresh process each.
"""

from __future__ import annotations

import multiprocessing
import statistics
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from companion.lstm import LSTMConfig, LSTMLanguageModel
from companion.runtime import cpu_seconds, peak_memory_bytes, seed_everything
from companion.training import TrainConfig, Trainer


@dataclass(frozen=True, kw_only=True)
class Config:
    """The model, and the batch of one step."""

    vocabulary_size: int = 33_278
    """As WikiText-2's."""
    hidden_size: int = 200
    """Of both layers, and of the embedding."""
    num_streams: int = 64
    """Streams read side by side."""
    window_length: int = 70
    """Tokens a stream advances per step."""
    num_samples: int = 1024
    """Tokens drawn by the sampled softmax."""
    cutoffs: tuple[int, ...] = (2_000, 10_000)
    """Where the adaptive softmax cuts the vocabulary."""
    turns: int = 3
    """Steps of each kind that are timed."""

    def __post_init__(self) -> None:
        if self.turns < 1:
            raise ValueError(f"turns must be >= 1, got {self.turns}")


@dataclass(kw_only=True)
class Result:
    """Speed and memory by kind of loss: full, chunked, sampled, adaptive."""

    tokens_per_cpu_second: dict[str, float] = field(default_factory=dict)
    """Median over turns, on one thread."""
    speed_ratio: dict[str, float] = field(default_factory=dict)
    """Median over turns of the speed divided by the full softmax's in the same turn."""
    peak_bytes: dict[str, int] = field(default_factory=dict)
    """Most memory during two steps, above what the process held before them."""
    memory_ratio: dict[str, float] = field(default_factory=dict)
    """That, divided by the full softmax's."""


KINDS = ("full", "chunked", "sampled", "adaptive")


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Time a step of each kind in turns, then measure the memory of each."""
    trainers = {kind: make_trainer(config, kind, seed) for kind in KINDS}
    for trainer in trainers.values():
        trainer.train_step()  # kernels chosen, memory taken
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in tqdm(range(config.turns), disable=not progress, unit="turn"):
        for kind, trainer in trainers.items():
            before = cpu_seconds()
            trainer.train_step()
            seconds[kind].append(cpu_seconds() - before)
    tokens = config.num_streams * config.window_length
    result = Result()
    for kind in KINDS:
        ratios = [full / own for full, own in zip(seconds["full"], seconds[kind], strict=True)]
        result.tokens_per_cpu_second[kind] = tokens / statistics.median(seconds[kind])
        result.speed_ratio[kind] = statistics.median(ratios)
    del trainers
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for kind in KINDS:
            result.peak_bytes[kind] = pool.apply(peak_bytes, (config, kind, seed))
    if result.peak_bytes["full"] == 0:
        raise ValueError("the batch is too small for its memory to be seen; make it larger")
    for kind in KINDS:
        result.memory_ratio[kind] = result.peak_bytes[kind] / result.peak_bytes["full"]
    return result


def make_trainer(config: Config, kind: str, seed: int) -> Trainer:
    """A trainer of the model with this kind of loss, on a few steps' worth of Zipfian text."""
    seed_everything(seed)
    adaptive = kind == "adaptive"
    model = LSTMLanguageModel(
        LSTMConfig(
            vocabulary_size=config.vocabulary_size,
            embedding_size=config.hidden_size,
            hidden_size=config.hidden_size,
            num_layers=2,
            tie_weights=not adaptive,
            adaptive_cutoffs=config.cutoffs if adaptive else (),
        )
    )
    settings = TrainConfig(
        steps=1000,
        num_streams=config.num_streams,
        window_length=config.window_length,
        loss="full" if adaptive else kind,
        num_samples=config.num_samples,
    )
    frequencies = 1 / torch.arange(1, config.vocabulary_size + 1, dtype=torch.float64)
    length = config.num_streams * config.window_length * 4 + config.num_streams
    ids = torch.multinomial(frequencies, length, replacement=True)
    trainer = Trainer(model, ids, settings, device="cpu")
    model.train()
    return trainer


def peak_bytes(config: Config, kind: str, seed: int) -> int:
    """How much this process's largest size grows in two training steps; for a fresh process."""
    torch.set_num_threads(1)
    trainer = make_trainer(config, kind, seed)
    before = peak_memory_bytes()
    trainer.train_step()
    trainer.train_step()
    return peak_memory_bytes() - before
