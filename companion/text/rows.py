"""Whole texts as rows of token ids, each filled up with the end token.

Sources write texts of different lengths; a batch is a rectangle. Token `END_ID` both ends a text
and fills its row up, so only the first one counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.text.batching import IGNORE, Batch

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

END_ID = 0


def word_counts(texts: Int[Tensor, "texts time"]) -> Int[Tensor, " texts"]:
    """Tokens before the first end token of each text; all of them where there is none."""
    ended = (texts == END_ID).cumsum(dim=1) > 0
    return (~ended).sum(dim=1)


def text_rows(
    texts: Sequence[Int[Tensor, " _"]], num_tokens: int | None = None
) -> Int[Tensor, "texts time"]:
    """Single texts as rows filled up with the end token; cut off after `num_tokens` tokens."""
    if not texts:
        raise ValueError("text_rows needs one text or more, got none")
    rows = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True, padding_value=END_ID)
    return rows if num_tokens is None else rows[:, :num_tokens]


def tokens_through_end(texts: Int[Tensor, "texts time"]) -> Bool[Tensor, "texts time"]:
    """Mask of the tokens up to the first end token, that one included."""
    ends = (texts == END_ID).cumsum(dim=1)
    return (ends == 0) | ((ends == 1) & (texts == END_ID))


def text_batch(texts: Int[torch.Tensor, "batch time"]) -> Batch:
    """Texts filled up with the end token as a batch to predict.

    A text counts to its first end token, that one included; one without it counts as it is, so its
    probability is that of all texts that begin so. A model reads each from an empty state.
    """
    if texts.ndim != 2 or not texts.numel():
        raise ValueError(
            f"texts must be rows of tokens, one or more of each, got shape {tuple(texts.shape)}"
        )
    inside = tokens_through_end(texts)
    longest = int(inside.sum(dim=1).max())
    texts, inside = texts[:, :longest], inside[:, :longest]
    return Batch(
        inputs=torch.cat([torch.full_like(texts[:, :1], END_ID), texts[:, :-1]], dim=1),
        targets=texts.masked_fill(~inside, IGNORE),
    )


def rows_by_length(
    texts: Int[torch.Tensor, "texts time"], size: int = 32
) -> tuple[Int[torch.Tensor, " _"], ...]:
    """Which rows to read together, `size` at a time, the shortest texts first: little padding."""
    return torch.split(tokens_through_end(texts).sum(dim=1).argsort(stable=True), size)
