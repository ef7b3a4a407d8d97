"""A model together with its training loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from companion.core.settings import check_choice
from companion.losses.cross_entropy import summed_nats
from companion.losses.large_vocabulary import NoiseSampler, chunked_nats, look_up, sampled_nats
from companion.models.base import LanguageModel, State
from companion.models.lstm import LSTMLanguageModel
from companion.text.batching import IGNORE

if TYPE_CHECKING:
    from jaxtyping import Float, Int


#: Ways to compute the cross-entropy in training.
Loss = Literal["full", "chunked", "sampled"]


class TrainingLoss(nn.Module):
    """A model together with its training loss, so that one call does the whole forward pass.

    kind: "full", "chunked" or "sampled"; a model with an adaptive softmax uses "full" and computes
        its own loss.
    noise: what "sampled" draws from.
    num_samples: how many tokens "sampled" draws per call.
    activation_penalty: weight of the mean squared outputs of the last layer, summed over positions
        (AR, Merity et al. 2018).
    temporal_penalty: weight of the mean squared change of the outputs from one position to the
        next, summed likewise (TAR).

    Any `LanguageModel` can have the full loss. The others and the penalties are for an
    `LSTMLanguageModel`: the penalties need its outputs before dropout, and the chunked and sampled
    losses its output layer. Raises ValueError where another model is asked for them.
    """

    def __init__(
        self,
        model: LanguageModel,
        kind: Loss = "full",
        *,
        noise: NoiseSampler | None = None,
        num_samples: int = 1024,
        activation_penalty: float = 0.0,
        temporal_penalty: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("loss", kind, Loss)
        if not isinstance(model, LSTMLanguageModel) and (
            kind != "full" or activation_penalty or temporal_penalty
        ):
            raise ValueError(
                f"{type(model).__name__} trains with loss 'full' and without penalties; loss "
                f"{kind!r}, activation_penalty {activation_penalty:g} and temporal_penalty "
                f"{temporal_penalty:g} are for an LSTMLanguageModel only"
            )
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
        """The loss to minimise, its cross-entropy part in nats (detached), and the new state.

        Both losses are sums over the window. With kind "sampled" the nats are an estimate.
        """
        if not isinstance(self.model, LSTMLanguageModel):
            logits, state = self.model(inputs, state)
            nats = summed_nats(logits, targets)
            return nats, nats.detach(), state
        embedded = None
        sampled: tuple[Tensor, tuple[Tensor, Tensor]] | None = None
        if self.noise is not None and self.kind == "sampled" and self.model.config.tie_weights:
            # Inputs, samples and targets are rows of one matrix.
            samples = self.noise(self.num_samples)
            wanted = targets.flatten().clamp(min=0)
            read, drawn, own = look_up(
                self.model.embedding.weight, inputs.T.flatten(), samples, wanted
            )
            embedded = read.view(*inputs.T.shape, -1)
            sampled = samples, (drawn, own)
        outputs, state = self.model.outputs(inputs, state, embedded=embedded)  # (T, B, H)
        dropped = self.model.dropout(outputs)
        features = dropped.transpose(0, 1).contiguous()
        nats = self._nats(self.model.output, features, targets, sampled)
        loss = nats
        if self.activation_penalty:
            loss = loss + self.activation_penalty * dropped.square().mean(-1).sum()
        if self.temporal_penalty:
            loss = loss + self.temporal_penalty * outputs.diff(dim=0).square().mean(-1).sum()
        return loss, nats.detach(), state

    def _nats(
        self,
        output: nn.Linear | nn.AdaptiveLogSoftmaxWithLoss,
        features: Tensor,
        targets: Tensor,
        sampled: tuple[Tensor, tuple[Tensor, Tensor]] | None,
    ) -> Tensor:
        if isinstance(output, nn.AdaptiveLogSoftmaxWithLoss):
            # In fp32: torch gathers log-probabilities, fp32 even in autocast, in the inputs' dtype.
            flat, wanted = features.flatten(0, 1).float(), targets.flatten()
            kept = wanted != IGNORE
            logs: Tensor = output(flat, wanted.clamp(min=0)).output
            return -(logs * kept).sum()
        if self.kind == "full":
            return summed_nats(output(features), targets)
        parts = features.flatten(0, 1), output.weight, output.bias, targets.flatten()
        if self.kind == "chunked":
            return chunked_nats(*parts)
        assert self.noise is not None
        samples, rows = sampled or (self.noise(self.num_samples), None)
        return sampled_nats(*parts, samples, self.noise.log_probs, rows=rows)
