"""Direct preference optimisation: a language model learns from pairs without a reward model.

Rafailov et al. 2023: the policy that maximises E[r] - beta KL(policy || reference) is the reference
times exp(r / beta), normalised. So r is beta times a log-ratio of the two, up to a constant that a
difference cancels, and the Bradley-Terry surprisal of pairs becomes a loss of the policy itself.
All log-probabilities are of whole texts and in nats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from companion.core.settings import settings_class
from companion.evaluation.texts import text_log_probs
from companion.models.base import LanguageModel
from companion.preferences.comparisons import Pairs, bradley_terry_nats, pairwise_accuracy
from companion.training.config import TrainConfig
from companion.training.optimization import make_optimizer, take_step

if TYPE_CHECKING:
    from jaxtyping import Float


@settings_class
class DPOConfig:
    """How a policy learns from pairs."""

    beta: float = 0.1
    """Strength of the implied KL penalty; with a low one the policy may move far."""
    epochs: int = 1
    """Passes over the pairs."""
    batch_size: int = 32
    """Pairs per step."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW, constant after a linear warm-up over the first tenth of the first
    epoch."""
    clip_norm: float = 1.0
    """Maximum norm of the gradient; a longer one is scaled down to it."""
    recorded_pairs: int = 256
    """Number of pairs, the first ones, on which the metrics are computed."""

    def __post_init__(self) -> None:
        for name in (
            "beta", "epochs", "batch_size", "learning_rate", "clip_norm", "recorded_pairs",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class DPORecord:
    """Metrics of the policy on its pairs after an epoch; epoch 0 is before the first."""

    epoch: int
    """Passes over the pairs so far."""
    loss: float
    """Mean `dpo_loss`; ln 2 where the policy is the reference."""
    accuracy: float
    """Share of the pairs in which the chosen text has the higher implied reward; ties count one
    half, so it is 1/2 where the policy is the reference."""
    margin: float
    """Mean implied reward of the chosen text minus that of the rejected one."""
    chosen_change: float
    """Mean log(policy / reference) of the chosen texts, in nats."""
    rejected_change: float
    """Mean log(policy / reference) of the rejected texts, in nats."""


def dpo_loss(
    chosen: Float[torch.Tensor, " pairs"],
    rejected: Float[torch.Tensor, " pairs"],
    reference_chosen: Float[torch.Tensor, " pairs"],
    reference_rejected: Float[torch.Tensor, " pairs"],
    beta: float,
) -> Float[torch.Tensor, " pairs"]:
    """-log sigmoid of the implied reward margin, nats, unreduced (Rafailov et al. 2023, eq. 7).

    The arguments are log-probabilities of whole texts under the policy and under the reference. The
    margin is beta times ((chosen - its reference) - (rejected - its reference)): the loss sees only
    this difference, so both log-probabilities may fall as long as the rejected one falls further.
    """
    if not beta > 0:
        raise ValueError(f"beta must be > 0, got {beta}")
    return bradley_terry_nats(
        beta * (chosen - reference_chosen), beta * (rejected - reference_rejected)
    )


def train_dpo(
    policy: LanguageModel,
    reference: LanguageModel,
    pairs: Pairs,
    config: DPOConfig,
    *,
    generator: torch.Generator,
    watch: Callable[[DPORecord], object] | None = None,
) -> list[DPORecord]:
    """Change `policy` to prefer the chosen text of each pair; a record for each epoch.

    The reference is frozen, and its log-probabilities are computed once. `watch` is called with
    every record as it is made, epoch 0 first, the policy being in evaluation mode. The policy is
    left in that mode.
    """
    if not len(pairs):
        raise ValueError("DPO learns from one pair or more, got none")
    chosen, rejected = pairs.chosen, pairs.rejected
    with torch.no_grad():
        before = text_log_probs(reference, chosen), text_log_probs(reference, rejected)
    optimizer = make_optimizer(policy, TrainConfig(steps=1, learning_rate=config.learning_rate))
    warmup = max(1, len(chosen) // config.batch_size // 10)
    few = slice(config.recorded_pairs)
    seen = Pairs(chosen=chosen[few], rejected=rejected[few])
    with torch.no_grad():  # again, in the batches of the records: equal models, equal rounding
        old = text_log_probs(reference, seen.chosen), text_log_probs(reference, seen.rejected)
    policy.eval()
    records = [_record(policy, seen, old, config.beta, epoch=0)]
    if watch is not None:
        watch(records[-1])
    step = 0
    for epoch in range(1, config.epochs + 1):
        policy.train()
        order = torch.randperm(len(chosen), generator=generator)
        for rows in torch.split(order, config.batch_size):
            step += 1
            now = text_log_probs(policy, torch.cat([chosen[rows], rejected[rows]]))
            loss = dpo_loss(
                now[: len(rows)], now[len(rows) :], before[0][rows], before[1][rows], config.beta
            )
            # A constant divisor: a pair in a last, short batch weighs what any other does.
            loss = loss.sum() / config.batch_size
            rate = config.learning_rate * min(1, step / warmup)
            take_step(policy, optimizer, loss, clip_norm=config.clip_norm, learning_rate=rate)
        policy.eval()
        records.append(_record(policy, seen, old, config.beta, epoch=epoch))
        if watch is not None:
            watch(records[-1])
    return records


@torch.no_grad()
def _record(
    policy: LanguageModel,
    pairs: Pairs,
    old: tuple[torch.Tensor, torch.Tensor],
    beta: float,
    *,
    epoch: int,
) -> DPORecord:
    """`old` is the reference's log-probabilities of the chosen and of the rejected texts."""
    now = text_log_probs(policy, pairs.chosen), text_log_probs(policy, pairs.rejected)
    changes = now[0] - old[0], now[1] - old[1]
    return DPORecord(
        epoch=epoch,
        loss=float(dpo_loss(*now, *old, beta).mean()),
        accuracy=pairwise_accuracy(*changes),
        margin=beta * float((changes[0] - changes[1]).mean()),
        chosen_change=float(changes[0].mean()),
        rejected_change=float(changes[1].mean()),
    )
