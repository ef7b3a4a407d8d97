"""Reinforcement learning on a reward: REINFORCE with a KL penalty, run to a KL budget.

The policy is a language model; an action is a token and an episode a text. Wanted is the policy
that maximises E[reward] - beta KL(policy || reference); its closed form is the reference times
exp(reward / beta), normalised. The gradient is Williams's (1992); the penalty, on each text's
log-ratio, is that of Stiennon et al. 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from companion.automata import END_ID
from companion.lstm import LSTMLanguageModel
from companion.preference import Reward, write_texts
from companion.quality import word_counts

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig:
    """How a policy is trained, and when it has gone far enough."""

    beta: float = 0.0
    """Weight of the KL penalty, in units of reward per nat."""
    kl_budget: float = 30.0
    """Stop when the policy is so many nats a text from its reference."""
    max_steps: int = 100
    """Stop then in any case."""
    batch_size: int = 128
    """Texts that the policy writes at each step."""
    num_tokens: int = 80
    """Tokens of a text at most."""
    learning_rate: float = 3e-3
    """Of Adam."""
    clip_norm: float = 1.0
    """Gradients longer than this are scaled down to it."""

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
    policy: LSTMLanguageModel,
    reference: LSTMLanguageModel,
    reward: Reward,
    config: PolicyGradientConfig,
    *,
    generator: torch.Generator,
    measures: Mapping[str, Reward] | None = None,
    progress: bool = False,
) -> list[dict[str, float]]:
    """Train `policy` in place against `reward`; a record of each step, from before its update.

    A record has `step`, `kl` (nats a text), `reward` and `words` (means over the step's texts), and
    the mean of each of `measures`, which training does not use. The first record is of the policy
    as it came; the last one is of the policy that is left, within a step's noise of `kl_budget` or
    after `max_steps` updates.
    """
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate)
    policy.eval()  # dropout would make the text's probability another one than it was drawn with
    records: list[dict[str, float]] = []
    for step in tqdm(range(config.max_steps + 1), disable=not progress, unit="step"):
        texts = write_texts(policy, config.batch_size, config.num_tokens, generator=generator)
        scores = score_texts(policy, reference, texts)
        with torch.no_grad():
            rewards = reward(texts).float()
        record = {
            "step": float(step),
            "kl": float(scores.kl.mean()),
            "reward": float(rewards.mean()),
            "words": float(word_counts(texts).float().mean()),
        }
        for name, measure in (measures or {}).items():
            record[name] = float(measure(texts).double().mean())
        records.append(record)
        if record["kl"] >= config.kl_budget or step == config.max_steps:
            break
        log_ratio = scores.log_p.detach() - scores.log_q
        loss = policy_loss(scores.log_p, rewards - config.beta * log_ratio)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(policy.parameters(), config.clip_norm)
        optimizer.step()
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


class TextScores(NamedTuple):
    """What two models say of texts, in nats, over the tokens up to and with the end token."""

    log_p: Float[Tensor, " texts"]
    """Log-probability under the policy, with gradients."""
    log_q: Float[Tensor, " texts"]
    """The same under the reference, without."""
    kl: Float[Tensor, " texts"]
    """The exact KL(policy || reference) of the next token, summed over the text's prefixes."""


def score_texts(
    policy: LSTMLanguageModel, reference: LSTMLanguageModel, texts: Int[Tensor, "texts time"]
) -> TextScores:
    """Log-probabilities and divergences of texts that were written from an empty state.

    Over the policy's own texts, the mean of `kl` estimates the KL between the two models of whole
    texts, without bias (the chain rule) and with less noise than the mean log-ratio has: only the
    prefixes are sampled.
    """
    kept = written(texts)
    start = torch.full_like(texts[:, :1], END_ID)
    inputs = torch.cat([start, texts[:, :-1]], dim=1)
    log_p = torch.log_softmax(policy(inputs)[0], dim=-1)
    with torch.no_grad():
        log_q = torch.log_softmax(reference(inputs)[0], dim=-1)
        kl = ((log_p.exp() * (log_p - log_q)).sum(dim=-1) * kept).sum(dim=1)
    own, others = (
        (log.gather(-1, texts.unsqueeze(-1)).squeeze(-1) * kept).sum(dim=1)
        for log in (log_p, log_q)
    )
    return TextScores(log_p=own, log_q=others, kl=kl)


def written(texts: Int[Tensor, "texts time"]) -> Bool[Tensor, "texts time"]:
    """Which tokens the model chose: those up to the first end token, and that one."""
    ends = (texts == END_ID).cumsum(dim=1)
    return (ends == 0) | ((ends == 1) & (texts == END_ID))
