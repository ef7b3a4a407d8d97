"""Token ids in, batches of inputs and targets out.

Shapes: `batch` is the number of parallel streams or sentences, `time` the positions in a
window. Targets are the inputs shifted by one: `targets[:, t]` is the token after
`inputs[:, t]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Int

#: The target that losses skip: padding. It is the default `ignore_index` of torch's losses.
IGNORE = -100


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs and the targets one step ahead of them."""

    inputs: Int[Tensor, "batch time"]
    """Token ids the model reads."""
    targets: Int[Tensor, "batch time"]
    """The token after each input, or `IGNORE` where there is none to predict."""

    @property
    def num_targets(self) -> int:
        """Number of targets that count."""
        return int((self.targets != IGNORE).sum())


def streams(ids: Int[Tensor, " total"], num_streams: int) -> Int[Tensor, "batch length"]:
    """Cut one long text into `num_streams` contiguous pieces that are read side by side.

    Row i is a piece of consecutive tokens; row i + 1 goes on where row i's targets end. Pieces
    overlap by the one token that is the last target of one and the first input of the next, so
    no target is lost but the fewer than `num_streams` left over at the end.

    Raises ValueError when the text is too short to give each stream one target.
    """
    if num_streams < 1:
        raise ValueError(f"num_streams must be >= 1, got {num_streams}")
    targets = ids.numel() - 1
    length = targets // num_streams
    if length < 1:
        raise ValueError(
            f"the text has {ids.numel()} tokens, too few for {num_streams} streams; "
            "use a longer text or a smaller num_streams"
        )
    starts = torch.arange(num_streams) * length
    return torch.stack([ids[start : start + length + 1] for start in starts.tolist()])


def windows(data: Int[Tensor, "batch length"], window_length: int) -> Iterator[Batch]:
    """Consecutive windows of parallel streams, for truncated back-propagation through time.

    Window k + 1 begins where window k ended, so an LSTM state carried from one to the next has
    read everything before. The last window may be shorter.
    """
    for index in range(num_windows(data, window_length)):
        yield window(data, index, window_length)


def num_windows(data: Int[Tensor, "batch length"], window_length: int) -> int:
    """How many windows `windows` yields."""
    if window_length < 1:
        raise ValueError(f"window_length must be >= 1, got {window_length}")
    return -(-(data.shape[1] - 1) // window_length)


def window(data: Int[Tensor, "batch length"], index: int, window_length: int) -> Batch:
    """The `index`-th window of parallel streams; ValueError when there is none."""
    count = num_windows(data, window_length)
    if not 0 <= index < count:
        raise ValueError(f"index must be in [0, {count}), the windows there are, got {index}")
    start = index * window_length
    return span(data, start, min(start + window_length, data.shape[1] - 1))


def span(data: Int[Tensor, "batch length"], start: int, stop: int) -> Batch:
    """Positions `start` to `stop` of parallel streams as inputs, and the tokens after them."""
    return Batch(inputs=data[:, start:stop], targets=data[:, start + 1 : stop + 1])


def jittered_cuts(
    total: int, window_length: int, jitter: float, generator: torch.Generator
) -> list[int]:
    """Where `total` positions are cut into windows whose lengths vary: the edges, with both ends.

    As many windows as without jitter. All edges are moved to the left by one random distance of
    up to half a window, and each by a normal one with standard deviation `jitter` besides, so that
    no token always stands at the end of a window, where the gradient is cut. Merity et al. 2018
    draw lengths instead.
    """
    edges = torch.arange(1, -(-total // window_length), dtype=torch.float64) * window_length
    most = max(0.0, window_length / 2 - 1)  # so that no edge passes another
    moves = torch.randn(len(edges), dtype=torch.float64, generator=generator) * jitter
    edges += moves.clamp(-most, most) - most * torch.rand((), generator=generator)
    return [0, *edges.round().long().clamp(1, total - 1).tolist(), total]


def scoring_streams(ids: Int[Tensor, " total"], num_streams: int) -> Batch:
    """All of a text as one batch of parallel streams that misses no target.

    As `streams`, but the last rows are padded with `IGNORE`: flattening the targets row by row
    and dropping `IGNORE` gives `ids[1:]` in order.
    """
    if num_streams < 1:
        raise ValueError(f"num_streams must be >= 1, got {num_streams}")
    targets = ids.numel() - 1
    if targets < 1:
        raise ValueError(f"scoring needs at least 2 tokens, got {ids.numel()}")
    num_streams = min(num_streams, targets)
    length = -(-targets // num_streams)
    padding = num_streams * length - targets
    inputs = torch.cat([ids[:-1], ids[-1:].expand(padding)])
    shifted = torch.cat([ids[1:], ids.new_full((padding,), IGNORE)])
    return Batch(inputs=inputs.view(num_streams, length), targets=shifted.view(num_streams, length))


def padded(sentences: Sequence[Int[Tensor, " _"]], *, start_id: int, end_id: int) -> Batch:
    """Sentences of different lengths as one batch.

    Each row reads `start_id`, then the sentence, and predicts the sentence, then `end_id`.
    Positions after that are `end_id` in the inputs and `IGNORE` in the targets.
    """
    if not sentences:
        raise ValueError("a batch needs at least one sentence, got none")
    longest = max(sentence.numel() for sentence in sentences) + 1
    inputs = torch.full((len(sentences), longest), end_id)
    targets = torch.full((len(sentences), longest), IGNORE)
    for row, sentence in enumerate(sentences):
        size = sentence.numel()
        inputs[row, 0] = start_id
        inputs[row, 1 : size + 1] = sentence
        targets[row, :size] = sentence
        targets[row, size] = end_id
    return Batch(inputs=inputs, targets=targets)
