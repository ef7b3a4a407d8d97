"""Losses: what training minimises. All are in nats.

For a large vocabulary the logits of a window, B T V numbers, cost more time and memory than the
rest of the model. `chunked_nats` is the same loss and gradient without ever holding them;
`sampled_nats` estimates it from a few hundred words. Evaluation never samples.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.batching import IGNORE
from companion.lstm import LSTMLanguageModel, State

if TYPE_CHECKING:
    from jaxtyping import Float, Int


#: How training may compute its loss.
LOSSES = ("full", "chunked", "sampled")
#: A loss so many times as high as the uniform model's, or as before any step, has diverged. A model
#: that is sure and wrong may cost ten times as much, and a spike that passes twenty.
DIVERGED = 100


def token_nats(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Surprisal of each target, -log softmax(logits)[target], in nats; zero where `IGNORE`.

    Raises ValueError when the shapes do not belong together: the mistake that
    `nn.CrossEntropyLoss` passes silently when the batch is as large as the vocabulary.
    """
    return _cross_entropy(logits, targets, reduction="none").view(targets.shape)


def summed_nats(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Sum of `token_nats`.

    Training divides it by a constant, not by this batch's own count: then every token weighs
    the same in the gradient, whatever the length of the text around it.
    """
    return _cross_entropy(logits, targets, reduction="sum")


def chunked_nats(
    features: Float[Tensor, "targets hidden"],
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"],
    targets: Int[Tensor, " targets"],
    *,
    chunk: int | None = None,
) -> Float[Tensor, ""]:
    """`summed_nats` of the logits `features @ weight.T + bias`, without holding them all.

    `chunk` positions at a time, the forward pass computes logits, loss and gradient, and forgets
    the logits; the backward pass only scales. Equal to the plain loss in value and gradient, but
    for the order of sums. None takes as many positions as make 2^22 logits (2^27 on a GPU).
    """
    if features.shape[:-1] != targets.shape:
        raise ValueError(
            f"features {tuple(features.shape)} must be the shape of targets "
            f"{tuple(targets.shape)} with the hidden size added as last axis"
        )
    if chunk is None:
        numbers = 2**22 if features.device.type == "cpu" else 2**27
        chunk = max(1, numbers // weight.shape[0])
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    nats: Tensor = _ChunkedNats.apply(features, weight, bias, targets, chunk)  # type: ignore[no-untyped-call]
    return nats


class _ChunkedNats(torch.autograd.Function):
    """The loss and, made in the forward pass, its gradient (as in Hsu et al. 2024)."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, chunk: int
    ) -> Tensor:
        place = features.device.type
        dtype = features.dtype
        if torch.is_autocast_enabled(place):
            dtype = torch.get_autocast_dtype(place)
        total = features.new_zeros((), dtype=torch.float32)
        made = any(ctx.needs_input_grad)
        gradients = [torch.zeros_like(each) for each in (features, weight, bias)] if made else []
        with torch.autocast(place, enabled=False):
            matrix, vector = weight.to(dtype), bias.to(dtype)
            for start in range(0, len(targets), chunk):
                rows = slice(start, start + chunk)
                inputs, kept = features[rows].to(dtype), (targets[rows] != IGNORE).unsqueeze(1)
                wanted = targets[rows].clamp(min=0).unsqueeze(1)
                logs = F.log_softmax(torch.addmm(vector, inputs, matrix.T).float(), dim=-1)
                total -= (logs.gather(1, wanted) * kept).sum()
                if made:  # the slope of the loss in the logits: probability minus one-hot
                    slope = logs.exp_().scatter_add_(1, wanted, -torch.ones_like(logs[:, :1]))
                    slope = slope.mul_(kept).to(dtype)
                    gradients[0][rows] = slope @ matrix
                    _add_product(gradients[1], slope.T, inputs)
                    gradients[2] += slope.sum(0)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradient.mul_(grad_output) for gradient in ctx.saved_tensors), None, None


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """`total += a @ b`, in one pass where the types agree."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


class NoiseSampler(nn.Module):
    """Draws tokens in proportion to their counts raised to a power, for `sampled_nats`.

    The power .75 is Mikolov et al. 2013's; every token can be drawn, its count taken as at least 1.
    """

    def __init__(self, counts: Int[Tensor, " vocab"], *, power: float = 0.75) -> None:
        super().__init__()
        weights = counts.clamp(min=1).double() ** power
        self.cumulated: Tensor
        self.log_probs: Tensor
        shares = weights / weights.sum()
        self.register_buffer("cumulated", shares.cumsum(0).float(), persistent=False)
        self.register_buffer("log_probs", shares.log().float(), persistent=False)

    def forward(self, num_samples: int) -> Int[Tensor, " samples"]:
        """`num_samples` tokens, drawn with replacement from torch's global generator."""
        points = torch.rand(num_samples, device=self.cumulated.device)
        return torch.searchsorted(self.cumulated, points).clamp(max=len(self.cumulated) - 1)


def sampled_nats(
    features: Float[Tensor, "targets hidden"],
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"],
    targets: Int[Tensor, " targets"],
    samples: Int[Tensor, " samples"],
    log_probs: Float[Tensor, " vocab"],
) -> Float[Tensor, ""]:
    """Summed nats with the softmax's normaliser estimated from `samples` (Bengio & Senecal 2008).

    All positions share the samples, drawn with log-probability `log_probs`. A sampled logit is
    raised by -log(k q), k the number of samples and q its probability; a sample that is the target
    is left out. Then the normaliser is unbiased, and its logarithm, the loss, is a little low.
    """
    wanted = targets.clamp(min=0)
    # One look-up for both: its gradient is as large as the vocabulary, and costs as much.
    rows = F.embedding(torch.cat([samples, wanted]), weight)
    drawn, own = torch.split(rows, [len(samples), len(wanted)])
    right = (features * own).sum(-1) + bias[wanted]
    expected = log_probs[samples] + math.log(len(samples))
    others = features @ drawn.T + (bias[samples] - expected)
    others = others.float().masked_fill(samples == targets.unsqueeze(1), -math.inf)
    normaliser = torch.logsumexp(torch.cat([right.float().unsqueeze(1), others], dim=1), dim=1)
    return ((normaliser - right) * (targets != IGNORE)).sum()


def divergence_limit(vocabulary_size: int, first: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Mean nats a token above which a loss has diverged: `DIVERGED` times the uniform model's ln V,
    or times `first`, the loss before any step, where that is higher.

    Steps that were far too long give 1e29 on one processor and no number on another, which rounds
    otherwise: so size decides, and what is no number is above every limit.
    """
    return DIVERGED * first.clamp(min=math.log(max(2, vocabulary_size)))


class TrainingLoss(nn.Module):
    """A model together with the loss it is trained by, so that one call does the forward pass.

    `kind` is "full", "chunked" or "sampled"; a model with an adaptive softmax has its own loss.
    The penalties are Merity et al. 2018's: on the size of the last layer's outputs
    (`activation_penalty`, AR) and on how they change from one position to the next
    (`temporal_penalty`, TAR), each a mean over the hidden size, summed over positions.
    """

    def __init__(
        self,
        model: LSTMLanguageModel,
        kind: str = "full",
        *,
        noise: NoiseSampler | None = None,
        num_samples: int = 1024,
        activation_penalty: float = 0.0,
        temporal_penalty: float = 0.0,
    ) -> None:
        super().__init__()
        if kind not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {kind!r}")
        if kind != "full" and not isinstance(model.output, nn.Linear):
            raise ValueError(
                f"loss {kind!r} and adaptive_cutoffs exclude each other; use loss 'full'"
            )
        if kind == "sampled" and noise is None:
            raise ValueError("loss 'sampled' needs noise, a NoiseSampler, got None")
        self.model, self.kind, self.noise, self.num_samples = model, kind, noise, num_samples
        self.activation_penalty, self.temporal_penalty = activation_penalty, temporal_penalty

    def forward(
        self,
        inputs: Int[Tensor, "batch time"],
        targets: Int[Tensor, "batch time"],
        state: State | None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], State]:
        """What is minimised, the nats in it, both summed over the window; and the state after it.

        The nats are an estimate where the loss is sampled.
        """
        outputs, state = self.model.outputs(inputs, state)  # (T, B, H)
        dropped = self.model.dropout(outputs)
        features = dropped.transpose(0, 1).contiguous()
        nats = self._nats(features, targets)
        loss = nats
        if self.activation_penalty:
            loss = loss + self.activation_penalty * dropped.square().mean(-1).sum()
        if self.temporal_penalty:
            loss = loss + self.temporal_penalty * outputs.diff(dim=0).square().mean(-1).sum()
        return loss, nats.detach(), state

    def _nats(self, features: Tensor, targets: Tensor) -> Tensor:
        output = self.model.output
        if isinstance(output, nn.AdaptiveLogSoftmaxWithLoss):
            flat, wanted = features.flatten(0, 1), targets.flatten()
            kept = wanted != IGNORE
            logs: Tensor = output(flat, wanted.clamp(min=0)).output
            return -(logs * kept).sum()
        if self.kind == "full":
            return summed_nats(output(features), targets)
        parts = features.flatten(0, 1), output.weight, output.bias, targets.flatten()
        if self.kind == "chunked":
            return chunked_nats(*parts)
        assert self.noise is not None
        return sampled_nats(*parts, self.noise(self.num_samples), self.noise.log_probs)


def _cross_entropy(logits: Tensor, targets: Tensor, *, reduction: str) -> Tensor:
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} must be the shape of targets {tuple(targets.shape)} "
            "with the vocabulary added as last axis"
        )
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()  # a sum over the vocabulary in half precision loses digits
    return F.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORE, reduction=reduction
    )
