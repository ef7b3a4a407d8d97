"""A small training that can be killed: tests/cli/test_robustness.py runs it in other processes.

A fork server imports this module, and torch with it, once; each training is a fork of that.
torchrun runs it as a program, for a training by several processes: see the end.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

# Training imports these late; here, once for all processes.
import accelerate  # noqa: F401
import torch
import torch._dynamo

from companion.core.seeds import seed_everything
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.training.checkpoints import RunFolder
from companion.training.config import TrainConfig
from companion.training.trainer import Trainer, TrainResult, train

VOCABULARY = 8
#: More time goes into checkpoints, and so more deaths fall into them, than in a real run.
CONFIG = TrainConfig(
    steps=60, num_streams=4, window_length=10, learning_rate=1e-2, log_every=2, evaluate_every=10,
    checkpoint_every=3,
)  # fmt: skip
#: What Python reports before it touches the disk.
FILE_EVENTS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"}


def text(length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    noise = torch.randint(VOCABULARY, (length,), generator=generator)
    return torch.where(
        torch.rand(length, generator=generator) < 0.2, noise, torch.arange(length) % 5
    )


def go_on(folder: Path, config: TrainConfig = CONFIG) -> TrainResult:
    """Train in `folder`, from its newest checkpoint if it has one, to the end."""
    torch.set_num_threads(1)
    seed_everything(0)
    sizes = {"embedding_size": 8, "hidden_size": 16, "dropout": 0.1}
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=VOCABULARY, **sizes))
    return train(
        model, text(801), config, valid_ids=text(201), run=RunFolder(folder), resume=True,
        device="cpu",
    )  # fmt: skip


def live(folder: Path, report: Connection, deadly_event: int | None = None) -> None:
    """`go_on`, told to `report` when it begins; SIGKILL just before the given file operation."""
    operations = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal operations
        if event in FILE_EVENTS and str(folder) in str(arguments[0]):
            operations += 1
            if operations == deadly_event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    report.send("begun")
    go_on(folder)
    report.send(operations)


if __name__ == "__main__":
    folder, deadly_step = Path(sys.argv[1]), int(sys.argv[2])
    step = Trainer.train_step

    def step_until_killed(self: Trainer) -> None:
        if self.progress.step == deadly_step:
            os.kill(os.getpid(), signal.SIGKILL)
        step(self)

    Trainer.train_step = step_until_killed  # type: ignore[method-assign]
    go_on(folder, dataclasses.replace(CONFIG, window_jitter=3.0, log_every=1))
    torch.distributed.destroy_process_group()
