"""The continuous cache: a model that recalls which tokens followed similar states of its own.

A token enters the cache only after it was predicted, so the loss is that of a proper language
model. It is another model than the one without a cache: report both (Grave et al. 2017).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.core.settings import settings_class
from companion.evaluation.scoring import MOST_LOGITS, Scores, joined_scores, require_fit
from companion.losses.cross_entropy import token_nats
from companion.models.base import LanguageModel, evaluation_mode
from companion.text.batching import IGNORE, Batch, scoring_streams

if TYPE_CHECKING:
    from jaxtyping import Int


@settings_class
class ContinuousCacheConfig:
    """The settings of a continuous cache: its size, and how it is mixed with the model."""

    size: int = 2000
    """Tokens that it remembers."""
    weight: float = 0.1
    """Its share in the mixture with the model's own distribution."""
    sharpness: float = 0.3
    """How strongly similar states are preferred: an entry's weight is exp(sharpness * h . h')."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be >= 1, got {self.size}")
        if not 0 <= self.weight < 1:
            raise ValueError(f"weight must be in [0, 1), got {self.weight}")
        if not 0 <= self.sharpness < math.inf:
            raise ValueError(f"sharpness must be >= 0 and finite, got {self.sharpness}")


@torch.no_grad()
def score_with_cache(
    model: LanguageModel,
    ids: Int[Tensor, " total"],
    config: ContinuousCacheConfig,
    *,
    num_streams: int = 1,
    window_length: int = 128,
) -> Scores:
    """Score every token of `ids` but the first by the model mixed with its cache.

    Each stream has its own cache, empty at first; one stream remembers most. With weight 0 it is
    `scoring.score`. ValueError for a model without hidden states: an n-gram's features are tokens.
    """
    model.require_tokens(ids, "ids", ndim=1)
    batch = scoring_streams(ids.cpu(), num_streams)
    require_fit(model, batch)

    def scored() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for piece in _pieces_with_memory(model, batch, config.size, window_length):
            probs = piece.logits.float().softmax(dim=-1)
            recalled, weight = piece.recalled(config.sharpness), config.weight
            probs *= 1 - weight * recalled.sum(dim=-1, keepdim=True)  # an empty cache has no share
            tokens = piece.tokens.unsqueeze(1).expand_as(recalled)
            probs.scatter_add_(2, tokens, weight * recalled)
            wanted = probs.gather(2, piece.targets.clamp(min=0).unsqueeze(2)).squeeze(2)
            confidence, prediction = probs.max(dim=-1)
            yield -wanted.log(), prediction, confidence

    return joined_scores(batch, scored())


@torch.no_grad()
def choose_cache(
    model: LanguageModel,
    ids: Int[Tensor, " total"],
    *,
    size: int = 2000,
    weights: Sequence[float] = (0.0, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5),
    sharpnesses: Sequence[float] = (0.03, 0.1, 0.3, 1.0, 3.0),
    window_length: int = 128,
) -> ContinuousCacheConfig:
    """The weight and sharpness with the lowest loss on `ids`, a validation text, read once."""
    grid = [
        ContinuousCacheConfig(size=size, weight=weight, sharpness=sharpness)
        for weight, sharpness in itertools.product(weights, sharpnesses)
    ]
    losses = [0.0] * len(grid)
    model.require_tokens(ids, "ids", ndim=1)
    batch = scoring_streams(ids.cpu(), 1)
    require_fit(model, batch, in_one=True)
    for piece in _pieces_with_memory(model, batch, size, window_length):
        own = (-token_nats(piece.logits, piece.targets)).exp()
        same = piece.tokens.unsqueeze(1) == piece.targets.unsqueeze(2)  # (B, T, memory)
        for sharpness in sharpnesses:
            recalled = piece.recalled(sharpness)
            theirs, share = (recalled * same).sum(-1), recalled.sum(-1)
            for place, config in enumerate(grid):
                if config.sharpness == sharpness:
                    mixed = (1 - config.weight * share) * own + config.weight * theirs
                    losses[place] -= float(mixed.log().sum())
    return grid[min(range(len(grid)), key=losses.__getitem__)]


@dataclass(frozen=True)
class _Piece:
    """Positions of parallel streams, and what each of them may recall."""

    logits: Tensor  # (B, T, V)
    targets: Tensor  # (B, T)
    similarities: Tensor  # (B, T, memory): h . h', -inf outside the last `size` positions
    tokens: Tensor  # (B, memory): the token that followed h'

    def recalled(self, sharpness: float) -> Tensor:
        """The cache's weights, (B, T, memory): each row sums to one, or to zero when empty."""
        weights = torch.where(
            self.similarities > -math.inf, self.similarities * sharpness, self.similarities
        ).softmax(dim=-1)
        return weights.nan_to_num(0.0)  # NaN: the softmax of an empty cache


def _pieces_with_memory(
    model: LanguageModel, batch: Batch, size: int, window_length: int
) -> Iterator[_Piece]:
    """As `scoring.scored_pieces`, with the last `size` states and the tokens after them.

    An entry is a state and a token, not a distribution. A position recalls tokens up to the one it
    reads, never its own target or later ones.
    """
    if window_length < 1:
        raise ValueError(f"window_length must be >= 1, got {window_length}")
    device = model.device
    rows, length = batch.inputs.shape
    at_once = max(1, MOST_LOGITS // max(1, rows * model.vocabulary_size))
    state = keys = tokens = None
    with evaluation_mode(model):
        for start in range(0, length, window_length):
            span = slice(start, start + window_length)
            inputs, targets = batch.inputs[:, span].to(device), batch.targets[:, span].to(device)
            features, state = model.features(inputs, state)
            if not features.is_floating_point():
                raise ValueError(
                    "a continuous cache compares hidden states, and the features of this "
                    f"{type(model).__name__} are whole numbers; give a network"
                )
            keys = features if keys is None else torch.cat([keys[:, -size:], features], dim=1)
            tokens = targets if tokens is None else torch.cat([tokens[:, -size:], targets], dim=1)
            here = torch.arange(features.shape[1], device=device) + keys.shape[1]
            here = (here - features.shape[1]).unsqueeze(1)  # where each position stands in `keys`
            past = torch.arange(keys.shape[1], device=device)
            allowed = (past < here) & (past >= here - size)  # (T, memory)
            usable = allowed & (tokens != IGNORE).unsqueeze(1)
            similarities = (features @ keys.transpose(1, 2)).float()
            similarities = similarities.masked_fill(~usable, -math.inf)
            known = tokens.clamp(min=0)
            for low in range(0, features.shape[1], at_once):
                part = slice(low, low + at_once)
                yield _Piece(
                    model.logits(features[:, part]), targets[:, part], similarities[:, part], known
                )
