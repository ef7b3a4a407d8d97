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
    recorded_pairs: int = 256
    """The first so many pairs are looked at for the records."""

    def __post_init__(self) -> None:
        for name in (
            "beta", "epochs", "batch_size", "learning_rate", "clip_norm", "recorded_pairs",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class DPORecord:
    """Where the policy stands on its pairs after an epoch; epoch 0 is before the first."""

    epoch: int
    """Passes over the pairs so far."""
    loss: float
    """Mean `dpo_loss`; ln 2 where the policy is the reference."""
    accuracy: float
    """Share of the pairs in which the chosen text has the higher implied reward."""
    margin: float
    """Mean implied reward of the chosen text less that of the rejected one."""
    chosen_change: float
    """Mean log-ratio of policy and reference of a chosen text, nats: what it has gained."""
    rejected_change: float
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


def rows_by_length(
    texts: Int[torch.Tensor, "texts time"], size: int = 32
) -> tuple[Int[torch.Tensor, " _"], ...]:
    """Which rows to read together, `size` at a time, the shortest texts first: little padding."""
    return torch.split(written(texts).sum(dim=1).argsort(stable=True), size)


def text_log_probs(
    model: LSTMLanguageModel, texts: Int[torch.Tensor, "texts time"]
) -> Float[torch.Tensor, " texts"]:
    """log q of each text, in nats, with gradients: summed over the tokens of a `text_batch`."""
    pieces = rows_by_length(texts)
    found = []
    for rows in pieces:
        batch = text_batch(texts[rows])
        logits, _ = model(batch.inputs)
        found.append(-token_nats(logits, batch.targets).sum(dim=1))
    return torch.cat(found)[torch.cat(pieces).argsort()]


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
    with torch.no_grad():
        before = text_log_probs(reference, chosen), text_log_probs(reference, rejected)
    optimizer = make_optimizer(policy, TrainConfig(steps=1, learning_rate=config.learning_rate))
    warmup = max(1, len(chosen) // config.batch_size // 10)
    records = [_record(policy, pairs, before, config, epoch=0)]
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
            now = text_log_probs(policy, torch.cat([chosen[rows], rejected[rows]]))
            loss = dpo_loss(
                now[: len(rows)], now[len(rows) :], before[0][rows], before[1][rows], config.beta
            )
            optimizer.zero_grad()
            # A constant divisor: a pair in a last, short batch weighs what any other does.
            (loss.sum() / config.batch_size).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(policy.parameters(), config.clip_norm)
            optimizer.step()
        policy.eval()
        records.append(_record(policy, pairs, before, config, epoch=epoch))
        if watch is not None:
            watch(records[-1])
    return records


@torch.no_grad()
def _record(
    policy: LSTMLanguageModel,
    pairs: Pairs,
    before: tuple[torch.Tensor, torch.Tensor],
    config: DPOConfig,
    *,
    epoch: int,
) -> DPORecord:
    """Of the first `recorded_pairs`; `before` is the reference's log-probabilities of all."""
    few = slice(config.recorded_pairs)
    now = text_log_probs(policy, pairs.chosen[few]), text_log_probs(policy, pairs.rejected[few])
    old = before[0][few], before[1][few]
    margins = config.beta * ((now[0] - old[0]) - (now[1] - old[1]))
    return DPORecord(
        epoch=epoch,
        loss=float(dpo_loss(*now, *old, config.beta).mean()),
        accuracy=float((margins > 0).float().mean()),
        margin=float(margins.mean()),
        chosen_change=float((now[0] - old[0]).mean()),
        rejected_change=float((now[1] - old[1]).mean()),
    )
