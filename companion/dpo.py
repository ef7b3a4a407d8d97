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
from torch import nn

from companion.automata import END_ID
from companion.batching import IGNORE, Batch
from companion.lstm import LSTMLanguageModel
from companion.objectives import token_nats
from companion.policy_gradient import written
from companion.preference import Pairs, bradley_terry_nats
from companion.recipe import TrainConfig
from companion.training import make_optimizer

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class DPOConfig:
    """How a policy learns from pairs."""

    beta: float = 0.1
    """Weight of the KL to the reference that the loss stands for; low lets the policy go far."""
    epochs: int = 1
    """Passes over the pairs."""
    batch_size: int = 32
    """Pairs a step."""
    learning_rate: float = 1e-3
    """Of AdamW; it is constant but for the first tenth of the first epoch."""
    clip_norm: float = 1.0
    """Gradients longer than this are scaled down to it."""

    def __post_init__(self) -> None:
        for name in ("beta", "epochs", "batch_size", "learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class DPORecord:
    """Where the policy stands after an epoch; epoch 0 is before the first."""

    epoch: int
    """Passes over the pairs so far."""
    loss: float
    """Mean `dpo_loss` over all pairs; ln 2 at the start."""
    accuracy: float
    """Share of the pairs in which the chosen text has the higher implied reward."""
    margin: float
    """Mean implied reward of the chosen text less that of the rejected one."""
    chosen_log_prob: float
    """Mean log-probability of a chosen text under the policy, nats."""
    rejected_log_prob: float
    """The same of a rejected one."""


def text_batch(texts: Int[torch.Tensor, "batch time"]) -> Batch:
    """Texts filled up with the end token, as in `companion.preference`, as a batch to predict.

    A text counts to its first end token, that one included; one without it counts as it is, so its
    probability is that of all texts that begin so. A model reads each from an empty state.
    """
    if texts.ndim != 2 or not texts.numel():
        raise ValueError(
            f"texts must be rows of tokens, one or more of each, got shape {tuple(texts.shape)}"
        )
    inside = written(texts)
    longest = int(inside.sum(dim=1).max())
    texts, inside = texts[:, :longest], inside[:, :longest]
    return Batch(
        inputs=torch.cat([torch.full_like(texts[:, :1], END_ID), texts[:, :-1]], dim=1),
        targets=texts.masked_fill(~inside, IGNORE),
    )


def text_log_probs(model: LSTMLanguageModel, batch: Batch) -> Float[torch.Tensor, " batch"]:
    """log q of each row of a `text_batch`, in nats, with gradients: summed over its targets."""
    logits, _ = model(batch.inputs)
    return -token_nats(logits, batch.targets).sum(dim=1)


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
    policy: LSTMLanguageModel,
    reference: LSTMLanguageModel,
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
    before = all_log_probs(reference, chosen), all_log_probs(reference, rejected)
    optimizer = make_optimizer(policy, TrainConfig(steps=1, learning_rate=config.learning_rate))
    warmup = max(1, len(chosen) // config.batch_size // 10)
    records = [_record(policy, pairs, before, config.beta, epoch=0)]
    if watch is not None:
        watch(records[-1])
    step = 0
    for epoch in range(1, config.epochs + 1):
        policy.train()
        order = torch.randperm(len(chosen), generator=generator)
        for rows in torch.split(order, config.batch_size):
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1, step / warmup)
            loss = dpo_loss(
                text_log_probs(policy, text_batch(chosen[rows])),
                text_log_probs(policy, text_batch(rejected[rows])),
                before[0][rows], before[1][rows], config.beta,
            )  # fmt: skip
            optimizer.zero_grad()
            # A constant divisor: a pair in a last, short batch weighs what any other does.
            (loss.sum() / config.batch_size).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(policy.parameters(), config.clip_norm)
            optimizer.step()
        policy.eval()
        records.append(_record(policy, pairs, before, config.beta, epoch=epoch))
        if watch is not None:
            watch(records[-1])
    return records


def _record(
    policy: LSTMLanguageModel,
    pairs: Pairs,
    before: tuple[torch.Tensor, torch.Tensor],
    beta: float,
    *,
    epoch: int,
) -> DPORecord:
    now = all_log_probs(policy, pairs.chosen), all_log_probs(policy, pairs.rejected)
    margins = beta * ((now[0] - before[0]) - (now[1] - before[1]))
    return DPORecord(
        epoch=epoch,
        loss=float(dpo_loss(*now, *before, beta).mean()),
        accuracy=float((margins > 0).float().mean()),
        margin=float(margins.mean()),
        chosen_log_prob=float(now[0].mean()),
        rejected_log_prob=float(now[1].mean()),
    )


@torch.no_grad()
def all_log_probs(
    model: LSTMLanguageModel, texts: Int[torch.Tensor, "texts time"]
) -> Float[torch.Tensor, " texts"]:
    """`text_log_probs` of many texts, without gradients, some at a time."""
    return torch.cat([text_log_probs(model, text_batch(part)) for part in torch.split(texts, 256)])
