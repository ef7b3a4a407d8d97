"""How many steps fit into the seconds that are given, so that a schedule ends where they end.

The learning rate depends on the number of steps planned. A training that is stopped early stops at
a high learning rate and is worse than a shorter one that was planned so (Hoffmann et al. 2022). So
the speed is measured first, and the number of steps follows from it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from companion.core.runtime import synchronize
from companion.models.base import LanguageModel
from companion.training.config import TrainConfig
from companion.training.trainer import Trainer

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
#: Share of a budget that is kept for checkpoints, and for a machine that slows down.
MARGIN = 0.05


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Measured seconds of the parts of a training."""

    seconds_per_step: float
    """Wall-clock seconds of an optimizer step."""
    seconds_per_validation: float
    """Wall-clock seconds of a validation; 0 without a validation text."""
    steps_per_epoch: int
    """Optimizer steps of a pass over the training text."""
    targets_per_second: float
    """Training targets per second, over all processes."""
    finite: bool
    """Whether the loss was a finite number at each step."""

    def steps_within(self, seconds: float, config: TrainConfig) -> int:
        """Most steps that `seconds` allow, with the validations between them and one at the end.

        ValueError when they do not allow a single one.
        """
        every = config.evaluate_every or config.evaluate_epochs * self.steps_per_epoch
        usable = seconds * (1 - MARGIN) - self.seconds_per_validation
        steps = int(usable / (self.seconds_per_step + self.seconds_per_validation / every))
        if steps < 1:
            least = self.seconds_per_step + self.seconds_per_validation
            raise ValueError(
                f"a budget of which {seconds:.3g} seconds are left is too short: a step and the "
                f"validation at the end take {least:.3g}; give more, or a smaller model"
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
) -> Pace:
    """Train `model` for some steps and time them, in at most about `PROBE_SHARE` of `seconds`.

    The model is changed. Several processes agree on the slowest one's figures.
    """
    # Without records, at which a loss that is not a number would end the training.
    settings = dataclasses.replace(
        config, steps=10**9, epochs=None, patience=None, log_every=10**9, evaluate_every=10**9
    )
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
    finite = trainer.watch.first_failure(gradients=trainer.accelerator.scaler is None) is None
    validation = 0.0
    if finite and valid_ids is not None and part is not None:
        trainer.validate()  # the first one chooses kernels
        validation = _timed(trainer.validate, trainer) * (len(valid_ids) - 1) / (len(part) - 1)
    return Pace(
        seconds_per_step=taken / steps,
        seconds_per_validation=validation,
        steps_per_epoch=trainer.steps_per_epoch,
        targets_per_second=(trainer.targets_done - before) / taken,
        finite=finite,
    )


def _timed(work: Callable[[], object], trainer: Trainer) -> float:
    """Seconds that `work()` takes; of several processes, those of the slowest."""
    place = trainer.accelerator.device
    synchronize(place)
    started = time.perf_counter()
    work()
    synchronize(place)
    own = torch.tensor([time.perf_counter() - started], device=place)
    return float(trainer.accelerator.gather(own).max())
