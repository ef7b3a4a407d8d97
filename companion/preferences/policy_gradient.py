"""Reinforcement learning on a reward: REINFORCE with a KL penalty, run to a KL budget.

The policy is a language model; an action is a token and an episode a text. Wanted is the policy
that maximises E[reward] - beta KL(policy || reference); its closed form is the reference times
exp(reward / beta), normalised. The gradient is Williams's (1992); the penalty, on each text's
log-ratio, is that of Stiennon et al. 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from companion.core.settings import settings_class
from companion.evaluation.texts import log_probs_and_kl
from companion.generation.texts import write_texts
from companion.models.base import LanguageModel
from companion.preferences.reward_models import Reward
from companion.text.rows import word_counts
from companion.training.optimization import take_step

if TYPE_CHECKING:
    from jaxtyping import Float


@settings_class
class PolicyGradientConfig:
    """How a policy is trained, and when training stops."""

    beta: float = 0.0
    """Weight of the KL penalty, in units of reward per nat."""
    kl_budget: float = 30.0
    """Stop when the KL to the reference reaches this many nats per text."""
    max_steps: int = 100
    """Maximum number of updates, whatever the KL."""
    batch_size: int = 128
    """Texts sampled from the policy at each step."""
    num_tokens: int = 80
    """Maximum number of tokens in a text."""
    learning_rate: float = 3e-3
    """Learning rate of Adam."""
    clip_norm: float = 1.0
    """Maximum norm of the gradient; a longer one is scaled down to it."""

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise ValueError(f"beta must be >= 0, got {self.beta}")
        for name in ("kl_budget", "learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        for name in ("max_steps", "num_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.batch_size < 2:
            raise ValueError(
                f"batch_size must be >= 2, got {self.batch_size}: an advantage compares texts"
            )


def train_policy(
    policy: LanguageModel,
    reference: LanguageModel,
    reward: Reward,
    config: PolicyGradientConfig,
    *,
    generator: torch.Generator,
    measures: Mapping[str, Reward] | None = None,
    progress: bool = False,
) -> list[dict[str, float]]:
    """Train `policy` in place against `reward`; a record of each step, from before its update.

    A record has `step`, `kl` (nats a text), `reward` and `words` (means over the step's texts),
    `cut_off` (the share of them that have no end after `num_tokens` tokens), and the mean of each
    of `measures`, which training does not use. The first record is of the policy
    as it came; the last one is of the policy that is left, within a step's noise of `kl_budget` or
    after `max_steps` updates.
    """
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate)
    policy.eval()  # with dropout a text's probability would not be the one it was drawn with
    records: list[dict[str, float]] = []
    for step in tqdm(range(config.max_steps + 1), disable=not progress, unit="step"):
        texts = write_texts(policy, config.batch_size, config.num_tokens, generator=generator)
        scores = log_probs_and_kl(policy, reference, texts)
        with torch.no_grad():
            rewards = reward(texts).float()
        words = word_counts(texts)
        record = {
            "step": float(step),
            "kl": float(scores.kl.mean()),
            "reward": float(rewards.mean()),
            "words": float(words.float().mean()),
            "cut_off": float((words == config.num_tokens).float().mean()),
        }
        for name, measure in (measures or {}).items():
            record[name] = float(measure(texts).double().mean())
        records.append(record)
        if record["kl"] >= config.kl_budget or step == config.max_steps:
            break
        log_ratio = scores.log_p.detach() - scores.log_q
        loss = policy_loss(scores.log_p, rewards - config.beta * log_ratio)
        take_step(policy, optimizer, loss, clip_norm=config.clip_norm)
    return records


def policy_loss(
    log_p: Float[Tensor, " texts"], returns: Float[Tensor, " texts"]
) -> Float[Tensor, ""]:
    """-mean(advantage * log p): its gradient is the policy gradient of the mean return, whitened.

    The advantage is the return less the batch's mean, over the batch's standard deviation: the
    direction stays (but for a factor 1 - 1/texts), and the scale of rewards no longer matters.
    """
    centred = returns.detach() - returns.detach().mean()
    return -(centred / centred.std(correction=0).clamp(min=1e-6) * log_p).mean()
