"""Dynamic evaluation: a model that goes on learning from the text it is tested on.

Each segment is predicted before the model learns from it, so none is scored after training on it.
It is another model than the static one: report both losses (Mikolov et al. 2010; Krause et al.
2018).
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from companion.core.settings import settings_class
from companion.evaluation.scoring import Scores, require_fit
from companion.losses.cross_entropy import divergence_limit, token_nats
from companion.models.base import LanguageModel, detach
from companion.text.batching import scoring_streams

if TYPE_CHECKING:
    from jaxtyping import Int


class DivergedError(ValueError):
    """The loss rose far above that of a uniform guess, or is NaN: the learning rate is too high."""


@settings_class
class DynamicConfig:
    """Dynamic evaluation: a gradient step on each segment after it was predicted."""

    learning_rate: float = 0.1
    """Learning rate of SGD on the segment's mean loss."""
    decay: float = 0.0
    """Fraction of the distance to the trained weights that is undone at each step."""
    segment: int = 20
    """Tokens per step."""

    def __post_init__(self) -> None:
        if self.segment < 1:
            raise ValueError(f"segment must be >= 1, got {self.segment}")
        if not 0 <= self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be >= 0 and finite, got {self.learning_rate}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be in [0, 1], got {self.decay}")


def score_dynamically(
    model: LanguageModel,
    ids: Int[Tensor, " total"],
    config: DynamicConfig,
) -> Scores:
    """Score every token of `ids` but the first by a model that learns from each segment it read.

    The text is read in one stream: a second one would learn from what lies ahead of the first.
    After a segment is scored, SGD takes one step on its mean loss. At the end the weights are
    restored. With learning rate 0 it is `scoring.score` in one stream.

    Raises DivergedError when a segment's mean loss is above `cross_entropy.divergence_limit`.
    """
    named = _trained(model)
    start = {name: weight.detach().clone() for name, weight in named.items()}
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    limit: Tensor | None = None
    try:
        for nats, logits, slopes in _segments(model, ids, config.segment, named):
            top, prediction = logits.max(dim=-1)
            confidence = (top - logits.logsumexp(dim=-1)).exp()
            parts.append((nats.cpu(), prediction.cpu(), confidence.cpu()))
            mean = nats.mean()
            if limit is None:
                limit = divergence_limit(model.vocabulary_size, mean)
            if not (mean.isfinite() and mean <= limit):
                raise DivergedError(
                    f"dynamic evaluation diverged: a segment's loss is above {float(limit):.4g} "
                    f"nats a token, or no number; lower learning_rate, now {config.learning_rate:g}"
                )
            for name, slope in slopes.items():
                weight = named[name].data
                weight += config.decay * (start[name] - weight) - config.learning_rate * slope
    finally:
        for name, weight in named.items():
            weight.data.copy_(start[name])
    nats, predictions, confidences = (torch.cat(each) for each in zip(*parts, strict=True))
    return Scores(
        nats=nats, predictions=predictions, confidences=confidences, targets=ids[1:].cpu()
    )


def choose_dynamic(
    model: LanguageModel,
    ids: Int[Tensor, " total"],
    *,
    learning_rates: Sequence[float] = (0.0, 0.1, 0.3, 1.0, 3.0),
    decays: Sequence[float] = (0.0,),
    segment: int = 20,
) -> DynamicConfig:
    """The learning rate and decay with the lowest loss on `ids`, a validation text.

    Reads the text once for each pair. A rate that diverges is skipped.
    """
    best, lowest = None, math.inf
    for rate, decay in itertools.product(learning_rates, decays):
        config = DynamicConfig(learning_rate=rate, decay=decay, segment=segment)
        try:
            loss = float(score_dynamically(model, ids, config).nats.double().sum())
        except DivergedError:
            continue
        if loss < lowest:
            best, lowest = config, loss
    if best is None:
        raise ValueError(
            f"every learning rate of {tuple(learning_rates)} diverged; give lower ones"
        )
    return best


def _trained(model: LanguageModel) -> dict[str, nn.Parameter]:
    named = {name: each for name, each in model.named_parameters() if each.requires_grad}
    if not named:
        raise ValueError("dynamic evaluation needs weights that require gradients, got none")
    return named


def _segments(
    model: LanguageModel,
    ids: Int[Tensor, " total"],
    segment: int,
    named: Mapping[str, nn.Parameter],
) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """Nats, logits and gradients of each segment of a text, under the current weights.

    The state is carried from one segment to the next; gradients are of the segment's mean loss and
    end at its edge. They are not put into `.grad`.
    """
    if segment < 1:
        raise ValueError(f"segment must be >= 1, got {segment}")
    model.require_tokens(ids, "ids", ndim=1)
    batch = scoring_streams(ids.cpu(), 1)
    require_fit(model, batch, in_one=True)
    device = model.device
    state = None
    for start in range(0, batch.inputs.shape[1], segment):
        span = slice(start, start + segment)
        inputs, targets = batch.inputs[:, span].to(device), batch.targets[:, span].to(device)
        with _without_dropout(model), torch.enable_grad():
            logits, state = model(inputs, state)
            nats = token_nats(logits, targets)
            slopes = torch.autograd.grad(nats.mean(), list(named.values()))
        state = detach(state)
        yield nats.detach()[0], logits.detach()[0].float(), dict(zip(named, slopes, strict=True))


@contextlib.contextmanager
def _without_dropout(model: LanguageModel) -> Iterator[None]:
    """The model without dropout, but ready for back-propagation.

    cuDNN differentiates an LSTM only in training mode, so `nn.LSTM` stays in it with dropout zero,
    and everything else is in evaluation mode. All modes are restored afterwards.
    """
    modes = {module: module.training for module in model.modules()}
    layers = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    dropouts = [layer.dropout for layer in layers]
    model.eval()
    try:
        for layer in layers:
            layer.training, layer.dropout = True, 0.0
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for layer, dropout in zip(layers, dropouts, strict=True):
            layer.dropout = dropout
