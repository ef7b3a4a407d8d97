"""What does a vocabulary of words cost in training, and what do the usual ways around it save?

The output layer of a word-level model is larger than all the rest. The same LSTM is trained on
Zipf-distributed tokens with the full softmax, the chunked loss (the same loss without storing all
logits), the sampled softmax and the adaptive softmax; speeds are measured in turns in one process,
memory in a fresh process for each loss.
"""

from __future__ import annotations

import multiprocessing
import statistics
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from tqdm import tqdm

from companion.core.runtime import cpu_seconds, peak_memory_bytes
from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_sizes, settings_class
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.training.config import TrainConfig
from companion.training.trainer import Trainer


@settings_class
class Config:
    """Settings of the model and of its training steps."""

    model: LSTMConfig = LSTMConfig(
        vocabulary_size=33_278, embedding_size=200, hidden_size=200, num_layers=2, tie_weights=True
    )
    """Size of the LSTM, with WikiText-2's vocabulary; the adaptive softmax has its own weights."""
    training: TrainConfig = TrainConfig(
        steps=1000, num_streams=64, window_length=70, num_samples=1024
    )
    """Training settings: batch size, BPTT length, and tokens drawn by the sampled softmax."""
    cutoffs: tuple[int, ...] = (2_000, 10_000)
    """Token ids at which the adaptive softmax cuts the vocabulary."""
    turns: int = 3
    """Number of timed optimizer steps for each kind of loss."""

    def __post_init__(self) -> None:
        check_sizes(turns=self.turns)


@dataclass(kw_only=True)
class Result:
    """Speed and memory by kind of loss: full, chunked, sampled, adaptive."""

    tokens_per_cpu_second: dict[str, float] = field(default_factory=dict)
    """Training targets per second of CPU time on one thread; median over turns."""
    speed_ratio: dict[str, float] = field(default_factory=dict)
    """Median over turns of the speed divided by the full softmax's in the same turn."""
    peak_bytes: dict[str, int] = field(default_factory=dict)
    """Peak memory during two steps, in bytes above the memory of the process before them."""
    memory_ratio: dict[str, float] = field(default_factory=dict)
    """`peak_bytes` divided by the full softmax's."""


Kind = Literal["full", "chunked", "sampled", "adaptive"]
#: The losses that are compared, by name.
KINDS: tuple[Kind, ...] = get_args(Kind)


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Time steps with each kind of loss in turns, then measure the memory of each."""
    steps = {kind: make_trainer(config, kind, seed).steps() for kind in KINDS}
    for each in steps.values():
        next(each)  # warm-up: the libraries choose kernels and allocate memory
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in tqdm(range(config.turns), disable=not progress, unit="turn"):
        for kind, each in steps.items():
            before = cpu_seconds()
            next(each)
            seconds[kind].append(cpu_seconds() - before)
    tokens = config.training.num_streams * config.training.window_length
    result = Result()
    for kind in KINDS:
        ratios = [full / own for full, own in zip(seconds["full"], seconds[kind], strict=True)]
        result.tokens_per_cpu_second[kind] = tokens / statistics.median(seconds[kind])
        result.speed_ratio[kind] = statistics.median(ratios)
    del steps, each
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for kind in KINDS:
            result.peak_bytes[kind] = pool.apply(peak_bytes, (config, kind, seed))
    if result.peak_bytes["full"] == 0:
        raise ValueError("the batch is too small for its memory to be seen; make it larger")
    for kind in KINDS:
        result.memory_ratio[kind] = result.peak_bytes[kind] / result.peak_bytes["full"]
    return result


def make_trainer(config: Config, kind: Kind, seed: int) -> Trainer:
    """A trainer of the model with this kind of loss, on Zipfian text for a few steps."""
    shape, training = config.model, config.training
    if kind == "adaptive":
        shape = replace(shape, tie_weights=False, adaptive_cutoffs=config.cutoffs)
    else:
        training = replace(training, loss=kind)
    seed_everything(seed)
    model = LSTMLanguageModel(shape)
    frequencies = 1 / torch.arange(1, shape.vocabulary_size + 1, dtype=torch.float64)
    length = training.num_streams * (4 * training.window_length + 1)
    generator = make_generator(seed, "training text")
    ids = torch.multinomial(frequencies, length, replacement=True, generator=generator)
    return Trainer(model, ids, training, device="cpu")


def peak_bytes(config: Config, kind: Kind, seed: int) -> int:
    """Growth of this process's peak memory in two training steps, in bytes; for a fresh process."""
    torch.set_num_threads(1)
    trainer = make_trainer(config, kind, seed)
    before = peak_memory_bytes()
    for _ in trainer.steps(2):
        pass
    return peak_memory_bytes() - before
