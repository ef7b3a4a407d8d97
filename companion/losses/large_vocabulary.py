"""Cross-entropy for large vocabularies, without storing all logits or with a sample of them.

With a large vocabulary, the B T V logits of a window cost more time and memory than the rest of the
model. `chunked_nats` computes the same loss and gradient without storing them all; `sampled_nats`
estimates the loss from a sample of the vocabulary. Evaluation never samples.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.text.batching import IGNORE

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def chunked_nats(
    features: Float[Tensor, "targets hidden"],
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"],
    targets: Int[Tensor, " targets"],
    *,
    chunk: int | None = None,
) -> Float[Tensor, ""]:
    """`summed_nats` of the logits `features @ weight.T + bias`, without storing them all.

    The forward pass computes logits, loss and gradient for `chunk` positions at a time and discards
    the logits; the backward pass only scales the gradient. Value and gradient equal those of
    `summed_nats` up to rounding. By default a chunk has at most 2^22 logits (2^25 on a GPU).

    Under autocast the products run in 16 bits, over a vocabulary filled up to a multiple of 8 with
    tokens of probability 0, as a GPU's matrix units want it. In fp16 the gradient of the logits is
    held multiplied by a power of two, since its smallest entries, the probabilities of rare tokens,
    would become 0: the loss scaling of a training comes too late for them.
    """
    if features.shape[:-1] != targets.shape:
        raise ValueError(
            f"features {tuple(features.shape)} must be the shape of targets "
            f"{tuple(targets.shape)} with the hidden size added as last axis"
        )
    if chunk is None:
        numbers = 2**22 if features.device.type == "cpu" else 2**25
        chunk = max(1, numbers // weight.shape[0])
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    nats: Tensor = _ChunkedNats.apply(features, weight, bias, targets, chunk)  # type: ignore[no-untyped-call]
    return nats


class _ChunkedNats(torch.autograd.Function):
    """The loss, and its gradient computed in the forward pass (as in Hsu et al. 2024)."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, chunk: int
    ) -> Tensor:
        place = features.device.type
        dtype = features.dtype
        autocast: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if torch.amp.is_autocast_available(place):
            autocast = torch.autocast(place, enabled=False)
            if torch.is_autocast_enabled(place):
                dtype = torch.get_autocast_dtype(place)
        total = features.new_zeros((), dtype=torch.float32)
        made = any(ctx.needs_input_grad)
        gradients = [torch.zeros_like(each) for each in (features, weight, bias)] if made else []
        vocabulary = len(weight)
        half = dtype in (torch.float16, torch.bfloat16)
        fill = -vocabulary % 8 if half else 0
        # So that nothing overflows: neither sums over a chunk, of features of at most 2, nor those
        # over the vocabulary, of weights below 100.
        power = min(8, max(0, 15 - math.ceil(math.log2(chunk))))
        scale = 2**power if dtype is torch.float16 else 1
        with autocast:
            matrix, vector = weight.to(dtype), bias.to(dtype)
            if fill:
                matrix = F.pad(matrix, (0, 0, 0, fill))
                vector = F.pad(vector, (0, fill), value=-math.inf)
            for start in range(0, len(targets), chunk):
                rows = slice(start, start + chunk)
                inputs, kept = features[rows].to(dtype), (targets[rows] != IGNORE).unsqueeze(1)
                wanted = targets[rows].clamp(min=0).unsqueeze(1)
                logs = F.log_softmax(torch.addmm(vector, inputs, matrix.T).float(), dim=-1)
                total -= (logs.gather(1, wanted) * kept).sum()
                if made:  # the gradient with respect to the logits: probability minus one-hot
                    slope = logs.exp_().scatter_add_(1, wanted, -torch.ones_like(logs[:, :1]))
                    slope = slope.mul_(kept if scale == 1 else kept * scale).to(dtype)
                    gradients[0][rows] = slope @ matrix
                    slope = slope[:, :vocabulary]
                    _add_product(gradients[1], slope.T, inputs)
                    gradients[2] += slope.sum(0, dtype=bias.dtype)
        ctx.scale = scale
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        factor = grad_output / ctx.scale
        return *(gradient.mul_(factor) for gradient in ctx.saved_tensors), None, None


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """`total += a @ b`, in one operation if the dtypes are equal."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


class NoiseSampler(nn.Module):
    """Draws tokens with probability proportional to count ** power, for `sampled_nats`.

    The default power .75 is from Mikolov et al. 2013. Counts of 0 are taken as 1, so every token
    can be drawn. Walker's (1977) alias method draws a token uniformly, keeps it with a probability
    of its own and otherwise replaces it by its alias. Unlike a cumulative sum over a large
    vocabulary, this is accurate in float32.
    """

    def __init__(self, counts: Int[Tensor, " vocab"], *, power: float = 0.75) -> None:
        super().__init__()
        weights = counts.cpu().clamp(min=1).double() ** power
        shares = weights / weights.sum()
        kept, alias = _alias_table((shares * len(shares)).tolist())
        self.kept: Tensor
        self.alias: Tensor
        self.log_probs: Tensor
        tables = {"kept": torch.tensor(kept), "alias": torch.tensor(alias)}
        for name, table in (tables | {"log_probs": shares.log().float()}).items():
            self.register_buffer(name, table.to(counts.device), persistent=False)

    def forward(self, num_samples: int) -> Int[Tensor, " samples"]:
        """`num_samples` tokens, drawn with replacement from torch's global generator."""
        place = self.kept.device
        tokens = torch.randint(len(self.kept), (num_samples,), device=place)
        keep = torch.rand(num_samples, device=place) < self.kept[tokens]
        return torch.where(keep, tokens, self.alias[tokens])


def _alias_table(sizes: list[float]) -> tuple[list[float], list[int]]:
    """The probability to keep each token, and the token that replaces it (Vose 1991).

    sizes: probabilities times the vocabulary size, so their mean is 1. A token of size below 1 is
    filled up to 1 by a token of size above 1, which shrinks by the same amount.
    """
    kept, alias = sizes.copy(), list(range(len(sizes)))
    small = [token for token, size in enumerate(sizes) if size < 1]
    large = [token for token, size in enumerate(sizes) if size >= 1]
    while small and large:
        token, filler = small.pop(), large[-1]
        alias[token] = filler
        kept[filler] -= 1 - kept[token]
        if kept[filler] < 1:
            small.append(large.pop())
    return kept, alias  # the remaining tokens have size 1, within rounding, and need no alias


def look_up(
    weight: Float[Tensor, "vocab hidden"], *tokens: Int[Tensor, " _"]
) -> tuple[Float[Tensor, "_ hidden"], ...]:
    """The rows of `weight` for each of `tokens`, by one look-up for all of them: the gradient of
    each look-up is as large as the matrix."""
    return torch.split(F.embedding(torch.cat(tokens), weight), [len(each) for each in tokens])


def sampled_nats(
    features: Float[Tensor, "targets hidden"],
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"],
    targets: Int[Tensor, " targets"],
    samples: Int[Tensor, " samples"],
    log_probs: Float[Tensor, " vocab"],
    *,
    rows: tuple[Float[Tensor, "samples hidden"], Float[Tensor, "targets hidden"]] | None = None,
) -> Float[Tensor, ""]:
    """Summed nats with the softmax's normaliser estimated from `samples` (Bengio & Senecal 2008).

    All positions share the samples, which were drawn with log-probabilities `log_probs`. With k
    samples, a sampled token of probability q has log(k q) subtracted from its logit; samples equal
    to the target are left out. The estimate of the normaliser is then unbiased; its logarithm, and
    so the loss, is slightly too low on average. `rows` are the samples' and the targets' rows of
    `weight`, where they were looked up before.
    """
    wanted = targets.clamp(min=0)
    drawn, own = rows if rows is not None else look_up(weight, samples, wanted)
    right = (features * own).sum(-1) + bias[wanted]
    expected = log_probs[samples] + math.log(len(samples))
    others = features @ drawn.T + (bias[samples] - expected)
    others = others.float().masked_fill(samples == targets.unsqueeze(1), -math.inf)
    normaliser = torch.logsumexp(torch.cat([right.float().unsqueeze(1), others], dim=1), dim=1)
    return ((normaliser - right) * (targets != IGNORE)).sum()
