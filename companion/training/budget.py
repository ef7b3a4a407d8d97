"""How many steps fit into the seconds that are given, so that a schedule ends where they end.

The learning rate depends on the number of steps planned. A training that is stopped early stops at
a high learning rate and is worse than a shorter one that was planned so (Hoffmann et al. 2022). So
the speed is measured first, and the number of steps follows from it.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from companion.core.files import disk_errors
from companion.core.runtime import synchronize
from companion.models.base import LanguageModel
from companion.training.checkpoints import RunFolder
from companion.training.config import TrainConfig
from companion.training.trainer import Trainer, TrainingError

if TYPE_CHECKING:
    from jaxtyping import Int

#: Steps before the clock starts: libraries choose kernels and allocate memory.
WARM_UP = {"cpu": 2}
WARM_UP_ON_DEVICES = 20
#: Most steps that are timed, and the share of a budget after which no further one is.
MOST_STEPS = 100
PROBE_SHARE = 0.04
#: Part of the validation text that is scored to time it.
VALIDATION_PART = 1 / 16
#: At least one of this many last probe steps must have a finite gradient.
LAST_STEPS = 20
#: Share of a budget that is kept for a machine that slows down.
MARGIN = 0.05


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Measured seconds of the parts of a training."""

    seconds_per_step: float
    """Wall-clock seconds of an optimizer step."""
    seconds_per_validation: float
    """Wall-clock seconds of a validation; 0 without a validation text."""
    seconds_per_save: float
    """Wall-clock seconds of a checkpoint; 0 where none was written to time it."""
    steps_per_epoch: int
    """Optimizer steps of a pass over the training text."""
    targets_per_second: float
    """Training targets per second, over all processes."""
    finite: bool
    """Whether the loss was a finite number at each step, and the gradient; in fp16, where some may
    overflow, at one of the last steps."""

    def steps_within(self, seconds: float, config: TrainConfig) -> int:
        """Most steps that `seconds` allow, with the validations and checkpoints between them and at
        the end.

        ValueError when they do not allow a single one.
        """
        every = config.evaluate_every or max(
            1, round(config.evaluate_epochs * self.steps_per_epoch)
        )
        saves = 1 / every  # a step
        if (extra := config.checkpoint_every) is not None:
            saves += 1 / extra - 1 / math.lcm(every, extra)
        at_the_end = self.seconds_per_validation + self.seconds_per_save
        per_step = self.seconds_per_step + self.seconds_per_validation / every
        steps = int(
            (seconds * (1 - MARGIN) - at_the_end) / (per_step + self.seconds_per_save * saves)
        )
        if steps < 1:
            raise ValueError(
                f"a budget of which {seconds:.3g} seconds are left is too short: a step, and the "
                "validation and checkpoint at the end, take "
                f"{self.seconds_per_step + at_the_end:.3g}; give more, or a smaller model"
            )
        return steps


def measure_pace(
    model: LanguageModel,
    ids: Int[torch.Tensor, " total"],
    config: TrainConfig,
    *,
    valid_ids: Int[torch.Tensor, " valid"] | None = None,
    device: str = "auto",
    seconds: float = 60.0,
    folder: Path | None = None,
) -> Pace:
    """Train `model` for some steps and time them, in at most about `PROBE_SHARE` of `seconds`.

    The learning rate is its peak from the first step on, so that what diverges does so here. The
    model is changed. One checkpoint is written below `folder`, or its nearest parent that exists,
    and removed; without `folder`, none. Several processes agree on the slowest one's figures.
    """
    # Without records, at which a loss that is not a number would end the training.
    settings = dataclasses.replace(
        config, steps=10**9, epochs=None, patience=None, log_every=10**9, evaluate_every=10**9,
        warmup=0.0,
    )  # fmt: skip
    part = None
    if valid_ids is not None:
        part = valid_ids[: max(2, round(len(valid_ids) * VALIDATION_PART))]
    trainer = Trainer(model, ids, settings, valid_ids=part, device=device)
    place = trainer.accelerator.device
    take = trainer.steps()
    for _ in range(WARM_UP.get(place.type, WARM_UP_ON_DEVICES)):
        next(take)
    once = _timed(lambda: next(take), trainer)
    steps = max(2, min(MOST_STEPS, round(PROBE_SHARE * seconds / max(once, 1e-9))))
    before = trainer.targets_done

    def timed_steps() -> None:
        for _ in range(steps):
            next(take)

    taken = _timed(timed_steps, trainer)
    watch = trainer.watch
    finite = watch.first_failure(overflows=trainer.overflows_allowed) is None
    finite = finite and watch.lately_finite(LAST_STEPS)
    validation = save = 0.0
    if finite and valid_ids is not None and part is not None:
        try:
            trainer.validate()  # the first one chooses kernels
            validation = _timed(trainer.validate, trainer) * (len(valid_ids) - 1) / (len(part) - 1)
        except TrainingError:  # the last step broke the weights
            finite = False
    if finite and folder is not None:
        save = _seconds_of_a_save(trainer, folder)
    return Pace(
        seconds_per_step=taken / steps,
        seconds_per_validation=validation,
        seconds_per_save=save,
        steps_per_epoch=trainer.steps_per_epoch,
        targets_per_second=(trainer.targets_done - before) / taken,
        finite=finite,
    )


def _seconds_of_a_save(trainer: Trainer, folder: Path) -> float:
    """Seconds that a checkpoint takes on the disk of `folder`."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    with disk_errors(there), tempfile.TemporaryDirectory(prefix=".probe-", dir=there) as place:
        trainer.run = RunFolder(place)
        return _timed(lambda: trainer.save(best=False), trainer)


def _timed(work: Callable[[], object], trainer: Trainer) -> float:
    """Seconds that `work()` takes; of several processes, those of the slowest."""
    place = trainer.accelerator.device
    synchronize(place)
    started = time.perf_counter()
    work()
    synchronize(place)
    own = torch.tensor([time.perf_counter() - started], device=place)
    return float(trainer.accelerator.gather(own).max())
