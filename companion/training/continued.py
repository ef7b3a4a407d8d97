"""Continued pretraining on a little text of a new domain, with or without old text mixed in.

Trained on the new text alone, a model forgets the old domain. Mixing old text into every step
(rehearsal, or replay) prevents that. Gururangan et al. 2020, Don't stop pretraining, continue
without mixing and measure the gain.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from companion.models.base import LanguageModel
from companion.training.config import TrainConfig
from companion.training.trainer import Trainer

if TYPE_CHECKING:
    from jaxtyping import Int

Model = TypeVar("Model", bound=LanguageModel)


def mixed_text(
    new: Int[Tensor, " new"], old: Int[Tensor, " old"], *, num_streams: int, old_streams: int
) -> Int[Tensor, " total"]:
    """One text for `Trainer`: the last `old_streams` of its `num_streams` streams are old text.

    So every optimizer step sees both domains in that proportion, and each stream stays in one
    domain. Nearly all new text is used: fewer than `num_streams` tokens at its end are dropped. The
    old text is used as far as its streams need. Raises ValueError if either text is too short.
    """
    if not 0 <= old_streams < num_streams:
        raise ValueError(
            f"old_streams must be in [0, num_streams = {num_streams}), got {old_streams}"
        )
    new_streams = num_streams - old_streams
    length = (new.numel() - 1) // new_streams
    if length < 1:
        raise ValueError(
            f"the new text has {new.numel()} tokens, too few for {new_streams} streams"
        )
    if not old_streams:
        return new[: new_streams * length + 1]
    needed = old_streams * length + 1
    if old.numel() < needed:
        raise ValueError(
            f"{old_streams} streams beside this new text need {needed} tokens of old text, got "
            f"{old.numel()}"
        )
    return torch.cat([new[: new_streams * length], old[:needed]])


def train_and_measure(
    model: Model,
    ids: Int[Tensor, " total"],
    settings: TrainConfig,
    *,
    at: Collection[int],
    measure: Callable[[Model], None],
    progress: bool = False,
) -> None:
    """Continue to train `model`, in place, and call `measure(model)` after each step in `at`.

    Step 0 means before training. The model is in evaluation mode during `measure` and at the end.
    """
    trainer = Trainer(model, ids, settings, device="cpu")
    wrong = [step for step in at if not 0 <= step <= trainer.total_steps]
    if wrong:
        raise ValueError(f"at must lie in [0, {trainer.total_steps}], got {wrong[0]}")
    steps = tqdm(trainer.steps(), total=trainer.total_steps, disable=not progress, unit="step")
    for step in itertools.chain([0], steps):
        if step in at:
            measure(model.eval())
    model.eval()
