"""Texts of a source as one endless stream, as rows, and as texts again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from companion.sources.automaton import AutomatonSource
from companion.text.rows import END_ID

if TYPE_CHECKING:
    from jaxtyping import Float64, Int


@runtime_checkable
class TextSource(Protocol):
    """A source of independent texts that end with token 0."""

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, the end token included."""

    def mean_length(self) -> float:
        """Expected tokens in a text, its end token included."""

    def sample(self, n: int, *, generator: torch.Generator) -> list[torch.Tensor]:
        """`n` texts, each a 1-D tensor of ids that ends with the end token."""


def endless_text(
    source: TextSource, num_tokens: int, *, generator: torch.Generator
) -> Int[torch.Tensor, " tokens"]:
    """An end token, then text after text of the source; cut off after `num_tokens` tokens."""
    if num_tokens < 1:
        raise ValueError(f"num_tokens must be >= 1, got {num_tokens}")
    texts = [torch.tensor([END_ID])]
    have = 1
    while have < num_tokens:
        more = source.sample(
            int((num_tokens - have) / source.mean_length()) + 1, generator=generator
        )
        texts += more
        have += sum(map(len, more))
    return torch.cat(texts)[:num_tokens]


def true_rows(
    source: TextSource, rows: int, length: int, generator: torch.Generator
) -> Int[torch.Tensor, "rows tokens"]:
    """Rows of true text: an end token, then `length` tokens of texts."""
    return torch.stack([endless_text(source, length + 1, generator=generator) for _ in range(rows)])


def surprisals(
    source: AutomatonSource, rows: Int[torch.Tensor, "rows tokens"]
) -> Float64[torch.Tensor, "rows time"]:
    """Surprisal of rows[:, 1:] under the source, in nats, a new text beginning after each end.

    Infinite at the first forbidden token of a text, and NaN from there to the text's end, where
    the source says nothing.
    """
    out = torch.empty(rows.shape[0], rows.shape[1] - 1, dtype=torch.float64)
    state = torch.zeros(rows.shape[0], dtype=torch.long)
    for t in range(1, rows.shape[1]):
        token = rows[:, t]
        p = source.transition_probs[state.clamp(min=0), token]
        out[:, t - 1] = torch.where(state >= 0, -p.log(), torch.nan)
        after = source.transition_states[state.clamp(min=0), token]
        state = torch.where(token == END_ID, 0, torch.where(state >= 0, after, -1))
    return out


def split_texts(
    row: Int[torch.Tensor, " tokens"], nats: Float64[torch.Tensor, " time"], skip: int, most: int
) -> list[tuple[Int[torch.Tensor, " text"], Float64[torch.Tensor, " text"]]]:
    """The first `most` texts of a row that begin after its token `skip`, with their surprisals.

    The last may be unfinished. Where no text begins after `skip`, the whole row.
    """
    ends = [int(place) for place in (row[:-1] == END_ID).nonzero().flatten() if place >= skip]
    begins = [place + 1 for place in ends] or [1]
    pieces = []
    for begin, stop in zip(begins, [*begins[1:], len(row)], strict=True):
        pieces.append((row[begin:stop], nats[begin - 1 : stop - 1]))
    return pieces[:most]


def beginnings(
    source: TextSource, rows: int, length: int, *, generator: torch.Generator
) -> Int[torch.Tensor, "rows prompt"]:
    """The first tokens of `rows` texts of the source that go on after them."""
    found: list[torch.Tensor] = []
    while len(found) < rows:
        texts = source.sample(2 * rows, generator=generator)
        found += [text[:length] for text in texts if len(text) > length]
    return torch.stack(found[:rows])
