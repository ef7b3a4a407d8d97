"""Something happens to a training when it has done so many steps."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from unittest import mock

from companion.training.trainer import Trainer


@contextlib.contextmanager
def after_step(number: int | None, event: Callable[[Trainer], object]) -> Iterator[None]:
    """Inside the `with` block, `event` happens in each training right after its step `number`, or
    after its last for None, before anything is recorded or saved."""
    step = Trainer.train_step

    def step_and_event(self: Trainer) -> None:
        step(self)
        if self.progress.step == (self.total_steps if number is None else number):
            event(self)

    with mock.patch.object(Trainer, "train_step", step_and_event):
        yield


def ctrl_c(trainer: Trainer) -> None:
    signal.raise_signal(signal.SIGINT)


def killed(trainer: Trainer) -> None:
    """As abrupt as a signal: nothing is saved on the way out."""
    raise SystemExit
