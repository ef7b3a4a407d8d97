"""How good a language model is on a text: sums first, one division last.

A mean of per-batch means, or of per-batch perplexities, weighs tokens unequally and is wrong;
so everything here adds up nats and counts, and divides once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from companion.batching import IGNORE, Batch, scoring_streams
from companion.information import nats_to_bits, perplexity
from companion.lstm import LSTMLanguageModel, State
from companion.objectives import token_nats

#: Most logits held at once while scoring: 16 MB in float32.
MOST_LOGITS = 2**22
#: A start that moves no more than this, in any of its numbers, is where reading on would begin.
STATE_TOLERANCE = 1e-6

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a model says of every token of a text, in the order of the text, on the CPU."""

    nats: Float[Tensor, " targets"]
    """Surprisal of each target."""
    predictions: Int[Tensor, " targets"]
    """The most probable token at each position."""
    targets: Int[Tensor, " targets"]
    """The token that came."""
    confidences: Float[Tensor, " targets"] | None = None
    """The probability that the model gave to its prediction, where known."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Sums and counts over a text, and the quotients they give."""

    nats: float
    """Summed surprisal of all targets."""
    tokens: int
    """Number of targets."""
    correct: int
    """Targets that were the most probable token."""
    bytes: int | None = None
    """UTF-8 bytes of the text the targets spell, where known."""
    unknown: int = 0
    """Targets that are the unknown token: the text the model was excused from spelling."""

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
        """Quotients and counts under the names that `companion evaluate --json` prints."""
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
    model: LSTMLanguageModel,
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

    The model is put in evaluation mode and back.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be > 0 and finite, got {temperature}")
    batch = scoring_streams(ids.cpu(), num_streams)
    start = starting_states(model, batch, window_length) if as_one else None
    pieces = []
    for logits, targets in scored_pieces(model, batch, window_length, start=start):
        logits = logits.float() / temperature
        top, prediction = logits.max(dim=-1)
        confidence = (top - logits.logsumexp(dim=-1)).exp()
        pieces.append((token_nats(logits, targets).cpu(), prediction.cpu(), confidence.cpu()))
    return joined_scores(batch, pieces)


def joined_scores(batch: Batch, pieces: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Scores:
    """Scores of a batch that was read in pieces: their nats, predictions and confidences, each of
    shape (batch, part)."""
    nats, predictions, confidences = (
        torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True)
    )
    kept = batch.targets != IGNORE
    return Scores(
        nats=nats[kept],
        predictions=predictions[kept],
        confidences=confidences[kept],
        targets=batch.targets[kept],
    )


@torch.no_grad()
def summed_nats_of_rows(
    model: LSTMLanguageModel, batch: Batch, *, window_length: int = 128
) -> Float[Tensor, ""]:
    """Summed surprisal, in float64, of rows that are read side by side from an empty state."""
    total = torch.zeros((), dtype=torch.float64)
    for logits, targets in scored_pieces(model, batch, window_length):
        total += token_nats(logits, targets).double().sum().cpu()
    return total


@torch.no_grad()
def starting_states(model: LSTMLanguageModel, batch: Batch, window_length: int) -> State:
    """The states in which rows begin where each goes on with the text of the row before it.

    All rows are read side by side, first from empty states, then each from the state in which the
    one before it ended, until no start changes by more than `STATE_TOLERANCE`. Where a model
    forgets what lies a row behind, that takes two or three readings, without the cost of a softmax;
    and never more than there are rows, when the last one has all of the text behind it.

    The model is put in evaluation mode and back.
    """
    device, was_training = next(model.parameters()).device, model.training
    rows, length = batch.inputs.shape
    starts = model.initial_state(rows)
    model.eval()
    for _ in range(rows - 1):
        state = starts
        for first in range(0, length, window_length):
            inputs = batch.inputs[:, first : first + window_length].to(device)
            _, state = model.outputs(inputs, state)
        hidden, cell = (
            torch.cat([torch.zeros_like(part[:, :1]), part[:, :-1]], dim=1) for part in state
        )
        change = max(float((hidden - starts[0]).abs().max()), float((cell - starts[1]).abs().max()))
        starts = hidden, cell
        if change <= STATE_TOLERANCE:
            break
    model.train(was_training)
    return starts


def scored_pieces(
    model: LSTMLanguageModel, batch: Batch, window_length: int, *, start: State | None = None
) -> Iterator[tuple[Float[Tensor, "batch part vocab"], Int[Tensor, "batch part"]]]:
    """Logits and targets, in pieces small enough for a large vocabulary; on the model's device.

    Rows are read from the states `start`, or from empty ones.
    The model is put in evaluation mode and back.
    """
    if window_length < 1:
        raise ValueError(f"window_length must be >= 1, got {window_length}")
    device = next(model.parameters()).device
    rows, length = batch.inputs.shape
    at_once = max(1, MOST_LOGITS // max(1, rows * model.config.vocabulary_size))
    was_training = model.training
    model.eval()
    state = start
    for first in range(0, length, window_length):
        span = slice(first, first + window_length)
        inputs, targets = batch.inputs[:, span].to(device), batch.targets[:, span].to(device)
        features, state = model.features(inputs, state)
        parts = torch.split(features, at_once, dim=1), torch.split(targets, at_once, dim=1)
        for part, wanted in zip(*parts, strict=True):
            yield model.logits(part), wanted
    model.train(was_training)


def evaluate(
    model: LSTMLanguageModel,
    ids: Int[Tensor, " total"],
    *,
    num_bytes: int | None = None,
    unknown_id: int | None = None,
    num_streams: int = 32,
    window_length: int = 128,
) -> Evaluation:
    """Cross-entropy and accuracy of `model` on `ids`; arguments as in `score`."""
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


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Precision, recall and F1 over classes, averaged in the two usual ways."""

    accuracy: float
    micro_precision: float
    micro_recall: float
    micro_f1: float
    macro_precision: float
    macro_recall: float
    macro_f1: float


def classification(
    predictions: Int[Tensor, " targets"], targets: Int[Tensor, " targets"]
) -> Classification:
    """Precision, recall and F1 of single-label predictions.

    With one label a position, every false positive of one class is a false negative of another:
    micro precision, recall and F1 all equal accuracy. The macro average weighs each class that
    occurs alike, so rare tokens rule it; a class never predicted counts as precision 0.
    """
    from sklearn.metrics import precision_recall_fscore_support

    if predictions.shape != targets.shape or targets.numel() == 0:
        raise ValueError(
            "predictions and targets must be non-empty and of one shape, got "
            f"{tuple(predictions.shape)} and {tuple(targets.shape)}"
        )
    labels, predicted = targets.numpy(), predictions.numpy()
    averages = {
        average: precision_recall_fscore_support(
            labels, predicted, average=average, zero_division=0
        )
        for average in ("micro", "macro")
    }
    micro, macro = averages["micro"], averages["macro"]
    return Classification(
        accuracy=float((predictions == targets).double().mean()),
        micro_precision=float(micro[0]),
        micro_recall=float(micro[1]),
        micro_f1=float(micro[2]),
        macro_precision=float(macro[0]),
        macro_recall=float(macro[1]),
        macro_f1=float(macro[2]),
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
