"""How good a language model is on a text: sums first, one division last.

A mean of per-batch means, or of per-batch perplexities, weighs tokens unequally and is wrong;
so everything here adds up nats and counts, and divides once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from companion.core.information import nats_to_bits, perplexity
from companion.losses.cross_entropy import token_nats
from companion.models.base import LanguageModel, State, evaluation_mode, largest_difference
from companion.text.batching import IGNORE, Batch, scoring_streams

if TYPE_CHECKING:
    from jaxtyping import Float, Int

#: Most logits held at once while scoring on a CPU: 16 MB in float32, which stays in its caches.
MOST_LOGITS = 2**22
#: The same on other devices, which are slow at small pieces: 256 MB.
MOST_LOGITS_ON_DEVICES = 2**26
#: Starting states have converged when none of their entries changes by more than this.
STATE_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A model's surprisal and prediction at every token of a text, in order, on the CPU."""

    nats: Float[Tensor, " targets"]
    """Surprisal of each target."""
    predictions: Int[Tensor, " targets"]
    """The most probable token at each position."""
    targets: Int[Tensor, " targets"]
    """The token that the text has."""
    confidences: Float[Tensor, " targets"] | None = None
    """The probability that the model gave to its prediction, where known."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Sums and counts over a text, and the ratios of them."""

    nats: float
    """Summed surprisal of all targets."""
    tokens: int
    """Number of targets."""
    correct: int
    """Targets that were the most probable token."""
    bytes: int | None = None
    """UTF-8 bytes of the text the targets spell, where known."""
    unknown: int = 0
    """Number of `<unk>` targets."""

    @property
    def nats_per_token(self) -> float:
        """Cross-entropy: mean surprisal of a target."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(nats per token); compare it only between models with the same tokens."""
        return perplexity(self.nats_per_token)

    @property
    def bits_per_byte(self) -> float | None:
        """Bits for a byte of text: comparable between tokenizers while `unknown` is 0."""
        return None if not self.bytes else nats_to_bits(self.nats) / self.bytes

    @property
    def accuracy(self) -> float:
        """Share of targets that were the most probable token."""
        return self.correct / self.tokens

    def to_dict(self) -> dict[str, Any]:
        """Ratios and counts under the names that `companion evaluate --json` prints."""
        return {
            "nats_per_token": self.nats_per_token,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "accuracy": self.accuracy,
            "nats": self.nats,
            "tokens": self.tokens,
            "correct": self.correct,
            "bytes": self.bytes,
            "unknown": self.unknown,
        }


@torch.no_grad()
def score(
    model: LanguageModel,
    ids: Int[Tensor, " total"],
    *,
    num_streams: int = 32,
    window_length: int = 128,
    temperature: float = 1.0,
    as_one: bool = False,
) -> Scores:
    """Score every token of `ids` but the first, each given those before it.

    The text is read as `num_streams` contiguous pieces side by side, the state carried through
    each, so the answer does not depend on `window_length`. A piece begins with no memory of the
    one before it: `num_streams=1` reads the text as one, and slowly. With `as_one`, a piece begins
    in the state that reading all before it leaves (`starting_states`), so the answer does not
    depend on `num_streams` either. Logits are divided by `temperature`, which
    `calibration.fit_temperature` finds.

    A model with a `max_length`, as a Transformer, keeps all of a piece in its state, whatever the
    `window_length`, so a piece must fit: give as many streams as the ValueError names, or more. A
    token then sees those before it in its piece alone, so more streams mean a higher loss.

    The model is put in evaluation mode and back. Raises ValueError for fewer than two tokens, and
    for token ids outside the model's vocabulary.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be > 0 and finite, got {temperature}")
    model.require_tokens(ids, "ids", ndim=1)
    batch = scoring_streams(ids.cpu(), num_streams)
    require_fit(model, batch)
    start = starting_states(model, batch, window_length) if as_one else None

    def scored() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for logits, targets in scored_pieces(model, batch, window_length, start=start):
            logits = logits.float() / temperature
            top, prediction = logits.max(dim=-1)
            confidence = (top - logits.logsumexp(dim=-1)).exp()
            yield token_nats(logits, targets), prediction, confidence

    return joined_scores(batch, scored())


def require_fit(model: LanguageModel, batch: Batch, *, in_one: bool = False) -> None:
    """Raise ValueError, with the number of streams that is enough, where the pieces of a text are
    longer than the model's `max_length`; `in_one` where it is read in one stream."""
    rows, length = batch.inputs.shape
    if model.max_length is not None and length > model.max_length:
        targets = int((batch.targets != IGNORE).sum())
        if in_one:
            raise ValueError(
                f"the text is read in one stream, and {type(model).__name__} reads at most "
                f"{model.max_length} tokens of a text, got {length}; give a shorter text, or a "
                "model that carries its state through any text, such as an LSTM"
            )
        raise ValueError(
            f"the model reads at most {model.max_length} tokens of a text, and each of {rows} "
            f"pieces has {length}; give num_streams={math.ceil(targets / model.max_length)} or "
            "more, and each token sees those before it in its piece alone"
        )


def joined_scores(batch: Batch, pieces: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Scores:
    """Scores of a batch that was read in pieces: their nats, predictions and confidences, each of
    shape (batch, part), on any device."""
    nats, predictions, confidences = (whole.cpu() for whole in _side_by_side(pieces, batch))
    kept = batch.targets != IGNORE
    return Scores(
        nats=nats[kept],
        predictions=predictions[kept],
        confidences=confidences[kept],
        targets=batch.targets[kept],
    )


@torch.no_grad()
def summed_nats_of_rows(
    model: LanguageModel, batch: Batch, *, window_length: int = 128
) -> Float[Tensor, ""]:
    """Summed surprisal, in float64, of rows that are read side by side from an empty state."""
    pieces = ((token_nats(*piece),) for piece in scored_pieces(model, batch, window_length))
    (nats,) = _side_by_side(pieces, batch)
    # One transfer, as each waits for the device; then float64, which MPS does not have.
    return nats.cpu().double().sum()


def _side_by_side(pieces: Iterable[tuple[Tensor, ...]], batch: Batch) -> tuple[Tensor, ...]:
    """Tensors of shape (batch, length) from pieces of them, each of shape (batch, part).

    Each piece is copied to its place at once. Kept in a list, the small pieces would lie between
    the large blocks of logits that are freed, and none of these could be used again: a vocabulary
    of 33,000 took 130 MB for every thousand tokens.
    """
    wholes: tuple[Tensor, ...] = ()
    at = 0
    for piece in pieces:
        wholes = wholes or tuple(part.new_empty(batch.targets.shape) for part in piece)
        stop = at + piece[0].shape[1]
        for whole, part in zip(wholes, piece, strict=True):
            whole[:, at:stop] = part
        at = stop
    return wholes


@torch.no_grad()
def starting_states(model: LanguageModel, batch: Batch, window_length: int) -> State:
    """The states in which rows begin where each goes on with the text of the row before it.

    All rows are read side by side, first from empty states, then each from the state in which the
    one before it ended, until no start changes by more than `STATE_TOLERANCE`. Where a model
    forgets what lies a row behind, that takes two or three readings, without the cost of a softmax;
    and never more than there are rows, when the last one has all of the text behind it.

    The model is put in evaluation mode and back. ValueError when its state grows with the text, as
    a Transformer's: rows then cannot be read side by side.
    """
    rows, length = batch.inputs.shape
    starts = model.initial_state(rows)
    with evaluation_mode(model):
        for _ in range(rows - 1):
            state = starts
            for first in range(0, length, window_length):
                inputs = batch.inputs[:, first : first + window_length].to(model.device)
                _, state = model.features(inputs, state)
            before = starts
            ends = model.select_rows(state, torch.arange(rows - 1))
            starts = model.join_rows([model.initial_state(1), ends])
            if largest_difference(starts, before) <= STATE_TOLERANCE:
                break
    return starts


def scored_pieces(
    model: LanguageModel, batch: Batch, window_length: int, *, start: State | None = None
) -> Iterator[tuple[Float[Tensor, "batch part vocab"], Int[Tensor, "batch part"]]]:
    """Logits and targets, in pieces small enough for a large vocabulary; on the model's device.

    Rows are read from the states `start`, or from empty ones.
    The model is put in evaluation mode and back.
    """
    if window_length < 1:
        raise ValueError(f"window_length must be >= 1, got {window_length}")
    targets = batch.targets.masked_fill(batch.targets == IGNORE, 0)
    for name, each in {"batch.inputs": batch.inputs, "batch.targets": targets}.items():
        model.require_tokens(each, name, ndim=2)
    device = model.device
    rows, length = batch.inputs.shape
    most = MOST_LOGITS if device.type == "cpu" else MOST_LOGITS_ON_DEVICES
    at_once = max(1, most // max(1, rows * model.vocabulary_size))
    state = start
    all_inputs, all_targets = batch.inputs.to(device), batch.targets.to(device)
    with evaluation_mode(model):
        for first in range(0, length, window_length):
            span = slice(first, first + window_length)
            features, state = model.features(all_inputs[:, span], state)
            targets = all_targets[:, span]
            parts = torch.split(features, at_once, dim=1), torch.split(targets, at_once, dim=1)
            for part, wanted in zip(*parts, strict=True):
                yield model.logits(part), wanted


def evaluate(
    model: LanguageModel,
    ids: Int[Tensor, " total"],
    *,
    num_bytes: int | None = None,
    unknown_id: int | None = None,
    num_streams: int = 32,
    window_length: int = 128,
) -> Evaluation:
    """Cross-entropy and accuracy of `model` on `ids`; arguments as in `score`, which also says how
    a model with a `max_length` reads a text."""
    scores = score(model, ids, num_streams=num_streams, window_length=window_length)
    return summarize(scores, num_bytes=num_bytes, unknown_id=unknown_id)


def summarize(
    scores: Scores, *, num_bytes: int | None = None, unknown_id: int | None = None
) -> Evaluation:
    """The sums of `scores`, taken in float64: a million float32 terms lose digits."""
    return Evaluation(
        nats=float(scores.nats.double().sum()),
        tokens=scores.targets.numel(),
        correct=int((scores.predictions == scores.targets).sum()),
        bytes=num_bytes,
        unknown=0 if unknown_id is None else int((scores.targets == unknown_id).sum()),
    )


def standard_error(nats: Float[Tensor, " targets"], block: int = 1000) -> float:
    """Standard error of the mean surprisal, from means of blocks of neighbouring tokens.

    Neighbours are not independent, so the plain formula is too small; blocks long against the
    correlation are nearly independent. Needs at least two blocks.
    """
    if block < 1:
        raise ValueError(f"block must be >= 1, got {block}")
    count = nats.numel() // block
    if count < 2:
        raise ValueError(
            f"needs at least {2 * block} tokens for blocks of {block}, got {nats.numel()}"
        )
    means = nats[: count * block].double().view(count, block).mean(dim=1)
    return float(means.std() / math.sqrt(count))
