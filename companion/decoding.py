"""Text from a model: greedy, temperature, top-k and nucleus sampling, with or without constraints.

Top-k is Fan et al. 2018, nucleus (top-p) is Holtzman et al. 2020, the repetition penalty is
Keskar et al. 2019. Beam search is in `companion.beam`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from companion.constraints import TokenAutomaton

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """How the next token is chosen from the logits. The default samples the model as it is."""

    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most probable token (greedy)."""
    top_k: int | None = None
    """Keep the k most probable tokens."""
    top_p: float | None = None
    """Keep the fewest most probable tokens whose mass reaches p (the nucleus)."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that were already generated (the prompt does not count) lose: a positive
    logit is divided by it and a negative one multiplied, before all else."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be >= 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be >= 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if not self.repetition_penalty >= 1:
            raise ValueError(f"repetition_penalty must be >= 1, got {self.repetition_penalty}")

    def penalised(
        self, logits: Float[Tensor, "batch vocab"], seen: Bool[Tensor, "batch vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        """Logits after the repetition penalty, `seen` saying which tokens each row has had.

        CTRL divides every such logit by the penalty; as is common since, a negative one is
        multiplied, or the penalty would reward it. The sign of a logit is an accident (adding a
        constant to all leaves the softmax alone), so this is a heuristic, not a distribution.
        """
        lower = torch.where(
            logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty
        )
        return torch.where(seen, lower, logits)

    def probs(self, logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch vocab"]:
        """The distribution that the next token is drawn from; zero for what is cut off.

        Temperature comes first, then top-k, then the nucleus of what is left, as in common use.
        Of equally probable tokens at the edge of the cut, the lower id is kept.
        """
        logits = logits.float()
        if self.temperature == 0:
            best = logits.argmax(dim=-1, keepdim=True)
            return torch.zeros_like(logits).scatter(-1, best, 1.0)
        # The largest logit becomes 0 first, so that a tiny temperature cannot make it infinite.
        logits = logits - logits.amax(dim=-1, keepdim=True)
        probs = torch.softmax(logits / self.temperature, dim=-1)
        if self.top_k is None and self.top_p is None:
            return probs
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            ordered[..., self.top_k :] = 0
            ordered = ordered / ordered.sum(dim=-1, keepdim=True)
        if self.top_p is not None and self.top_p < 1:  # at 1, rounding would cut the tail off
            reached = ordered.cumsum(dim=-1) >= self.top_p
            ordered[..., 1:] = ordered[..., 1:].masked_fill(reached[..., :-1], 0)
            ordered = ordered / ordered.sum(dim=-1, keepdim=True)
        return torch.zeros_like(probs).scatter(-1, order, ordered)

    def choose(
        self, logits: Float[Tensor, "batch vocab"], generator: torch.Generator | None
    ) -> Int[Tensor, " batch"]:
        """One token for each row of logits."""
        probs = self.probs(logits)
        if self.temperature == 0:
            return probs.argmax(dim=-1)
        return torch.multinomial(probs, 1, generator=generator).squeeze(-1)


def stream_tokens(
    model: nn.Module,
    prompt: Int[Tensor, "batch time"],
    decoder: Decoder,
    *,
    generator: torch.Generator | None = None,
    constraint: TokenAutomaton | None = None,
) -> Iterator[Int[Tensor, " batch"]]:
    """Read `prompt`, then give one token for each row, for ever; each is fed back in.

    The model is called as the LSTM is, with tokens and a state; see `sequence_models`.

    A `constraint` masks what it forbids, before the decoder's own rules; the generated text alone
    is under it, not the prompt.

    Gradients are off and the model must be in evaluation mode (`model.eval()`), or dropout would
    blur what it has learnt.
    """
    if prompt.shape[1] < 1:
        raise ValueError("the prompt needs at least one token; begin with the tokenizer's end_id")
    if model.training:
        raise ValueError("the model is in training mode, so dropout is on; call model.eval() first")
    inputs, state = prompt, None
    seen: Tensor | None = None
    allowed = constraint.start(len(prompt)) if constraint is not None else None
    while True:
        with torch.no_grad():
            logits, state = model(inputs, state)
            logits = logits[:, -1]
            if seen is None:
                seen = torch.zeros_like(logits, dtype=torch.bool)
            if decoder.repetition_penalty > 1:
                logits = decoder.penalised(logits, seen)
            if constraint is not None and allowed is not None:
                logits = constraint.mask(logits, allowed)
            tokens = decoder.choose(logits, generator)
            if constraint is not None and allowed is not None:
                allowed = constraint.advance(allowed, tokens)
            seen.scatter_(1, tokens.unsqueeze(1), True)
        yield tokens
        inputs = tokens.unsqueeze(1)


def generate(
    model: nn.Module,
    prompt: Int[Tensor, "batch time"],
    num_tokens: int,
    decoder: Decoder | None = None,
    *,
    generator: torch.Generator | None = None,
    end_id: int | None = None,
    constraint: TokenAutomaton | None = None,
) -> Int[Tensor, "batch generated"]:
    """`num_tokens` tokens after the prompt (not repeated in the result), for each row.

    With `end_id`, a row that has produced it is filled with it, and generation ends when all rows
    have; the result is then shorter than `num_tokens`.
    """
    if num_tokens < 1:
        raise ValueError(f"num_tokens must be >= 1, got {num_tokens}")
    ended = torch.zeros(prompt.shape[0], dtype=torch.bool, device=prompt.device)
    columns = []
    for tokens in stream_tokens(
        model, prompt, decoder or Decoder(), generator=generator, constraint=constraint
    ):
        if end_id is not None:
            tokens = tokens.masked_fill(ended, end_id)
            ended = ended | (tokens == end_id)
        columns.append(tokens)
        if len(columns) == num_tokens or bool(ended.all()):
            break
    return torch.stack(columns, dim=1)
