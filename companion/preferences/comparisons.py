"""Noisy comparisons of texts, and the model of Bradley and Terry for them.

A judge sees two texts and names the better one. Bradley and Terry (1952) say with which
probability: the sigmoid of the difference of two scores. Texts are rows of token ids filled up with
the end token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Comparisons: in row i, a judge took `chosen[i]` to be better than `rejected[i]`."""

    chosen: Int[Tensor, "pairs time"]
    """The texts preferred, filled up with the end token."""
    rejected: Int[Tensor, "pairs time"]
    """The texts they were compared with."""

    def __post_init__(self) -> None:
        if self.chosen.shape != self.rejected.shape or self.chosen.ndim != 2:
            raise ValueError(
                "chosen and rejected must both be [pairs, time], got "
                f"{tuple(self.chosen.shape)} and {tuple(self.rejected.shape)}"
            )

    def __len__(self) -> int:
        return len(self.chosen)


def noisy_pairs(
    texts: Int[Tensor, "texts time"],
    gold: Float[Tensor, " texts"],
    num_pairs: int,
    *,
    temperature: float,
    generator: torch.Generator,
) -> Pairs:
    """Random pairs of different texts, labelled by a judge who knows the gold reward and errs.

    The first is preferred with probability sigmoid((gold_1 - gold_2) / temperature), which is
    Bradley and Terry's model; at temperature 0 the better text always wins and a coin decides ties.
    """
    if len(texts) != len(gold) or len(texts) < 2:
        raise ValueError(
            f"two texts or more are needed, one gold reward each, got {len(texts)} texts and "
            f"{len(gold)} rewards"
        )
    if num_pairs < 1:
        raise ValueError(f"num_pairs must be >= 1, got {num_pairs}")
    if not temperature >= 0:
        raise ValueError(f"temperature must be >= 0, got {temperature}")
    first = torch.randint(len(texts), (num_pairs,), generator=generator)
    shift = torch.randint(1, len(texts), (num_pairs,), generator=generator)
    second = (first + shift) % len(texts)  # never the same text
    difference = (gold[first] - gold[second]).double()
    if temperature > 0:
        probability = torch.sigmoid(difference / temperature)
    else:
        probability = (difference.sign() + 1) / 2
    coin = torch.rand(num_pairs, generator=generator, dtype=torch.float64)
    wins = (coin < probability)[:, None]
    return Pairs(
        chosen=torch.where(wins, texts[first], texts[second]),
        rejected=torch.where(wins, texts[second], texts[first]),
    )


def bradley_terry_nats(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """Surprisal of each label given the rewards of the two texts, -log sigmoid(chosen - rejected).

    In nats and unreduced; log 2 where the rewards are equal, exact for any difference.
    """
    return F.softplus(rejected - chosen)


def pairwise_accuracy(chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]) -> float:
    """The share of pairs in which the chosen text has the higher reward; ties count one half."""
    if not len(chosen):
        raise ValueError("pairwise accuracy needs one pair or more, got none")
    return float(((chosen > rejected).double() + (chosen == rejected).double() / 2).mean())
