"""Continued pretraining on a little text of a new domain, with or without old text mixed in.

Trained on the new text alone, a model forgets the old domain. Mixing old text into every step
(rehearsal, or replay) holds it. Gururangan et al. 2020, Don't stop pretraining, continue without
mixing and measure what is gained.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.lstm import LSTMLanguageModel
from companion.training import TrainConfig, Trainer

if TYPE_CHECKING:
    from jaxtyping import Int


def mixed_text(
    new: Int[Tensor, " new"], old: Int[Tensor, " old"], *, num_streams: int, old_streams: int
) -> Int[Tensor, " total"]:
    """One text for `Trainer`, of whose `num_streams` streams the last `old_streams` are old text.

    So every optimizer step sees both in that proportion, and a stream stays in its domain. The new
    text is used up to the fewer than `num_streams` tokens that do not fill the streams; of the old
    one, as much as its streams need. ValueError where one of the two is too short.
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
    model: LSTMLanguageModel,
    ids: Int[Tensor, " total"],
    settings: TrainConfig,
    *,
    at: Collection[int],
    measure: Callable[[LSTMLanguageModel], None],
) -> None:
    """Train `model` on, in place, and call `measure(model)` after the steps `at` (0: before all).

    The model is in evaluation mode while it is measured, and at the end.
    """
    trainer = Trainer(model, ids, settings, device="cpu")
    wrong = [step for step in at if not 0 <= step <= trainer.total_steps]
    if wrong:
        raise ValueError(f"at must lie in [0, {trainer.total_steps}], got {wrong[0]}")
    for step in range(trainer.total_steps + 1):
        if step:
            model.train()
            trainer.train_step()
        if step in at:
            measure(model.eval())
    model.eval()
