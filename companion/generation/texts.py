"""Generate many texts at once: sampled until they end, or greedy and without end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.core.settings import check_sizes, check_whole
from companion.generation.constraints import TokenAutomaton, allow_only
from companion.generation.decoding import SamplingConfig, generate
from companion.models.base import LanguageModel
from companion.text.rows import END_ID

if TYPE_CHECKING:
    from jaxtyping import Int


def write_texts(
    model: LanguageModel, num_texts: int, num_tokens: int, *, generator: torch.Generator
) -> Int[Tensor, "texts time"]:
    """Independent samples from the model, from an empty state, at most `num_tokens` tokens each.

    Shorter texts are padded with the end token; `time` may be less than `num_tokens`. `generator`
    is on the model's device. Raises ValueError for a number below 1 or a model in training mode,
    TypeError for one that is not a whole number.
    """
    check_sizes(num_texts=num_texts, num_tokens=num_tokens)
    model.require_evaluation_mode()
    rows = torch.full((num_texts, num_tokens), END_ID, device=model.device)
    going_on, inputs, state = torch.arange(num_texts, device=model.device), rows[:, :1], None
    for t in range(num_tokens):
        with torch.no_grad():
            logits, state = model(inputs, state)
        tokens = SamplingConfig().choose(logits[:, -1], generator)
        rows[going_on, t] = tokens
        # Most texts are short: the model continues only those that have not ended.
        kept = (tokens != END_ID).nonzero().squeeze(1)
        if not len(kept):
            return rows[:, : t + 1]
        going_on, inputs = going_on[kept], tokens[kept].unsqueeze(1)
        state = model.select_rows(state, kept)
    return rows


def greedy_text(
    model: LanguageModel, prompts: Int[torch.Tensor, "rows prompt"], num_tokens: int
) -> Int[torch.Tensor, "rows time"]:
    """Greedy continuations of `num_tokens` tokens after the prompts; the end token is forbidden.

    prompts: token ids, one text a row, without the end token that begins a text; they may be empty,
        of shape (rows, 0). The result is without them.

    Raises ValueError for num_tokens below 1, no rows, token ids outside the model's vocabulary, or
    a model in training mode.
    """
    if not isinstance(prompts, Tensor) or prompts.shape[1:] != (0,):
        model.require_tokens(prompts, "prompts", ndim=2)
    start = prompts.new_full((len(prompts), 1), END_ID)
    return generate(
        model, torch.cat([start, prompts], dim=1), num_tokens, SamplingConfig(temperature=0),
        constraint=endless(model.vocabulary_size),
    )  # fmt: skip


def endless(vocabulary_size: int) -> TokenAutomaton:
    """The constraint that forbids the end token.

    Raises ValueError if the vocabulary has only the end token.
    """
    check_whole(vocabulary_size=vocabulary_size)
    return allow_only(
        [token for token in range(vocabulary_size) if token != END_ID], vocabulary_size
    )
