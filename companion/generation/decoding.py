"""Decoding: greedy, temperature, top-k and nucleus sampling, with or without constraints.

Top-k is Fan et al. 2018, nucleus (top-p) is Holtzman et al. 2020, the repetition penalty is
Keskar et al. 2019. Beam search is in `companion.generation.beam`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.core.settings import check_sizes, check_type, settings_class
from companion.generation.constraints import TokenAutomaton
from companion.models.base import LanguageModel

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@settings_class
class SamplingConfig:
    """How the next token is chosen from the logits; by default, sampled from their softmax."""

    temperature: float = 1.0
    """Logits are divided by it; 0, or what float32 cannot tell from it (below 1.2e-38), takes the
    most probable token (greedy)."""
    top_k: int | None = None
    """Sample from the k most probable tokens only; None means from all."""
    top_p: float | None = None
    """Sample from the nucleus, the fewest most probable tokens whose total probability reaches p;
    None means from all tokens."""
    repetition_penalty: float = 1.0
    """Above 1, makes tokens that were already generated (the prompt does not count) less probable:
    their positive logits are divided by it, negative ones multiplied, before temperature."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be >= 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be >= 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if not self.repetition_penalty >= 1:
            raise ValueError(f"repetition_penalty must be >= 1, got {self.repetition_penalty}")

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is taken."""
        return self.temperature < torch.finfo(torch.float32).tiny

    def penalised(
        self, logits: Float[Tensor, "batch vocab"], seen: Bool[Tensor, "batch vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        """Logits after the repetition penalty; `seen` marks the tokens that each row already has.

        CTRL divides every such logit by the penalty. As is now common, negative logits are
        multiplied instead, or the penalty would make them more probable. The sign of a logit is
        arbitrary (adding a constant to all logits leaves the softmax unchanged), so this is only a
        heuristic.
        """
        lower = torch.where(
            logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty
        )
        return torch.where(seen, lower, logits)

    def probs(self, logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch vocab"]:
        """The distribution that the next token is drawn from; zero for tokens that are cut off.

        Temperature is applied first, then top-k, then the nucleus of the remaining tokens, as is
        common. Ties at the edge of the cut go to the lower token id.
        """
        logits = logits.float()
        if self.greedy:
            best = logits.argmax(dim=-1, keepdim=True)
            return torch.zeros_like(logits).scatter(-1, best, 1.0)
        # Shift the largest logit to 0 first, so that a tiny temperature cannot make it infinite.
        logits = logits - logits.amax(dim=-1, keepdim=True)
        probs = torch.softmax(logits / self.temperature, dim=-1)
        if self.top_k is None and self.top_p is None:
            return probs
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            ordered[..., self.top_k :] = 0
            ordered = ordered / ordered.sum(dim=-1, keepdim=True)
        if self.top_p is not None and self.top_p < 1:  # at 1, rounding would cut off the tail
            reached = ordered.cumsum(dim=-1) >= self.top_p
            ordered[..., 1:] = ordered[..., 1:].masked_fill(reached[..., :-1], 0)
            ordered = ordered / ordered.sum(dim=-1, keepdim=True)
        return torch.zeros_like(probs).scatter(-1, order, ordered)

    def choose(
        self, logits: Float[Tensor, "batch vocab"], generator: torch.Generator | None
    ) -> Int[Tensor, " batch"]:
        """One token for each row of logits; `generator` is on their device, None is torch's own."""
        probs = self.probs(logits)
        if self.greedy:
            return probs.argmax(dim=-1)
        return torch.multinomial(probs, 1, generator=generator).squeeze(-1)


def stream_tokens(
    model: LanguageModel,
    prompt: Int[Tensor, "batch time"],
    sampling: SamplingConfig,
    *,
    generator: torch.Generator | None = None,
    constraint: TokenAutomaton | None = None,
) -> Iterator[Int[Tensor, " batch"]]:
    """Read `prompt`, then yield one token for each row, without end; each is fed back as input.

    A `constraint` masks forbidden tokens before top-k and nucleus; it applies to the generated
    text, not to the prompt. Gradients are off, and the model must be in evaluation mode
    (`model.eval()`), because dropout would disturb its predictions.

    prompt: token ids, one text a row, on the model's device, as is `generator`.

    Raises ValueError for an empty prompt, token ids outside the model's vocabulary, a model in
    training mode, or a constraint for another vocabulary.
    """
    model.require_tokens(prompt, "prompt", ndim=2, on_device=True)
    model.require_evaluation_mode()
    check_type("sampling", sampling, SamplingConfig, "SamplingConfig(temperature=0.8) is one")
    return _tokens(model, prompt, sampling, generator, constraint)


def _tokens(
    model: LanguageModel,
    prompt: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator | None,
    constraint: TokenAutomaton | None,
) -> Iterator[Tensor]:
    inputs, state = prompt, None
    seen: Tensor | None = None
    allowed = constraint.start(len(prompt)) if constraint is not None else None
    while True:
        with torch.no_grad():
            logits, state = model(inputs, state)
            logits = logits[:, -1]
            if seen is None:
                seen = torch.zeros_like(logits, dtype=torch.bool)
            if sampling.repetition_penalty > 1:
                logits = sampling.penalised(logits, seen)
            if constraint is not None and allowed is not None:
                logits = constraint.mask(logits, allowed)
            tokens = sampling.choose(logits, generator)
            if constraint is not None and allowed is not None:
                allowed = constraint.advance(allowed, tokens)
            seen.scatter_(1, tokens.unsqueeze(1), True)
        yield tokens
        inputs = tokens.unsqueeze(1)


def generate(
    model: LanguageModel,
    prompt: Int[Tensor, "batch time"],
    num_tokens: int,
    sampling: SamplingConfig | None = None,
    *,
    generator: torch.Generator | None = None,
    end_id: int | None = None,
    constraint: TokenAutomaton | None = None,
) -> Int[Tensor, "batch generated"]:
    """`num_tokens` tokens after the prompt for each row; the prompt is not in the result.

    prompt: token ids, one text a row, on the model's device. Prompts of one call have one length;
        a text without a prompt begins with the tokenizer's end_id.
    sampling: how a token is chosen; by default, sampled from the model's distribution.
    generator: where random numbers come from, on the model's device; None takes torch's own.
    end_id: a row is filled with `end_id` once it has produced it, and generation stops when all
        rows have; the result may then be shorter than `num_tokens`.
    constraint: which tokens may come next (`companion.generation.constraints`).

    Raises ValueError for num_tokens below 1, an empty prompt, token ids outside the model's
    vocabulary, a model in training mode (call `model.eval()` first), or a constraint for another
    vocabulary; TypeError for num_tokens or an end_id that is not a whole number.

    Top-k is of Fan et al. 2018, Hierarchical neural story generation; the nucleus of Holtzman et
    al. 2020, The curious case of neural text degeneration.
    """
    check_sizes(num_tokens=num_tokens)
    if end_id is not None:
        model.require_token(end_id, "end_id")
    sampling = sampling or SamplingConfig()
    chosen = stream_tokens(model, prompt, sampling, generator=generator, constraint=constraint)
    ended = torch.zeros(prompt.shape[0], dtype=torch.bool, device=prompt.device)
    columns = []
    for tokens in chosen:
        if end_id is not None:
            tokens = tokens.masked_fill(ended, end_id)
            ended = ended | (tokens == end_id)
        columns.append(tokens)
        if len(columns) == num_tokens or bool(ended.all()):
            break
    return torch.stack(columns, dim=1)
