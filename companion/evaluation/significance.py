"""How sure a measured loss is, and whether one model is better than another.

Tokens of one document resemble each other, so documents are what is drawn again: the bootstrap
(Efron 1979) over documents. Each resample adds up nats and tokens and divides once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from companion.text.documents import Document
from companion.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64, Int64

RESAMPLES = 10_000
#: Confidence level of an interval.
LEVEL = 0.95
#: With fewer documents, pieces of them are drawn.
FEWEST_DOCUMENTS = 5
#: Least size of such a piece, in UTF-8 bytes: long against the reach of one word on another.
PIECE_BYTES = 4096
#: Most counts held in memory at once.
_AT_ONCE = 2**22


@dataclass(frozen=True, kw_only=True)
class Units:
    """What the bootstrap resamples: documents, or pieces of them where documents are too few.

    Intervals over pieces show how the loss varies within those documents, not between documents.
    """

    kind: str
    """The kind of unit: "documents" or "pieces"."""
    tokens: Int64[Tensor, " units"]
    """Targets of each, in the order of the text."""
    bytes: Int64[Tensor, " units"]
    """UTF-8 bytes of each."""

    def sums(
        self, values: Float[Tensor, " targets"] | Bool[Tensor, " targets"]
    ) -> Float64[Tensor, " units"]:
        """`values`, one for each target, added up in each unit."""
        if values.numel() != int(self.tokens.sum()):
            raise ValueError(
                f"values must be one for each of {int(self.tokens.sum())} targets, got "
                f"{values.numel()}; score the documents that the units were made of"
            )
        owner = torch.repeat_interleave(torch.arange(len(self.tokens)), self.tokens)
        out = torch.zeros(len(self.tokens), dtype=torch.float64)
        return out.index_add_(0, owner, values.cpu().double())


def text_units(
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    *,
    fewest_documents: int = FEWEST_DOCUMENTS,
    piece_bytes: int = PIECE_BYTES,
) -> Units:
    """The units of `documents`, in the order in which `encode_documents` joins them.

    The end token after a document counts as the document's. Pieces are cut at ends of lines, the
    same for every tokenizer, so that models with different tokens can be compared.
    """
    whole = len(documents) >= fewest_documents
    tokens, sizes = [], []
    for document in documents:
        for piece in [document.text] if whole else _pieces(document.text, piece_bytes):
            tokens.append(len(tokenizer.encode(piece)))
            sizes.append(len(piece.encode("utf-8")))
        tokens[-1] += 1
    tokens[-1] -= 1  # no end token stands after the last document
    return Units(
        kind="documents" if whole else "pieces",
        tokens=torch.tensor(tokens),
        bytes=torch.tensor(sizes),
    )


def _pieces(text: str, piece_bytes: int) -> list[str]:
    """`text` cut before line feeds that no white space precedes: there no token is cut in two."""
    pieces, start, size = [], 0, 0
    for place, character in enumerate(text):
        if size >= piece_bytes and character == "\n" and not text[place - 1].isspace():
            pieces.append(text[start:place])
            start, size = place, 0
        size += len(character.encode("utf-8"))
    if pieces and size < piece_bytes // 2:
        pieces[-1] += text[start:]  # a short rest is not a piece of its own
    else:
        pieces.append(text[start:])
    return pieces


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A ratio of two sums over units, with its bootstrap interval."""

    estimate: float
    """The ratio on the text itself."""
    low: float
    """Lower end of the confidence interval."""
    high: float
    """Upper end."""
    standard_error: float
    """Standard deviation over resamples."""


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """The difference of two models' ratios, first minus second, on the same text."""

    p_value: float
    """Two-sided p-value, of the hypothesis that the models do not differ."""
    first_lower: float
    """Share of the resamples in which the first model's ratio is the lower one (Koehn 2004)."""


def bootstrap(
    numerators: Float64[Tensor, " units"],
    denominators: Float64[Tensor, " units"] | Int64[Tensor, " units"],
    *,
    generator: torch.Generator,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Interval of `sum(numerators) / sum(denominators)`, over resampled units.

    The ends are percentiles of the resamples, moved outwards so that with few units the interval is
    as wide as Student's (the expanded percentile interval, Hesterberg 2015).
    """
    _check(numerators, denominators, resamples, level)
    top, bottom = _resampled([numerators, denominators], resamples, generator)
    return Interval(
        estimate=_quotient(numerators, denominators),
        **_spread(top / bottom, len(numerators), level),
    )


def paired_bootstrap(
    first: Float64[Tensor, " units"],
    second: Float64[Tensor, " units"],
    denominators: Float64[Tensor, " units"] | Int64[Tensor, " units"],
    *,
    generator: torch.Generator,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Difference:
    """Difference of two models: each resample draws the same units for both (Koehn 2004).

    How hard a document is affects both models and cancels, so differences far smaller than either
    model's own interval can be detected. For the p-value the resampled differences are centred at
    zero, and those at least as large as the observed one are counted (Efron & Tibshirani 1993).
    """
    _check(first, denominators, resamples, level)
    _check(second, denominators, resamples, level)
    one, other, bottom = _resampled([first, second, denominators], resamples, generator)
    differences = (one - other) / bottom
    estimate = _quotient(first, denominators) - _quotient(second, denominators)
    as_large = (differences - estimate).abs() >= abs(estimate)
    return Difference(
        estimate=estimate,
        p_value=(1 + int(as_large.sum())) / (1 + resamples),
        first_lower=float((differences < 0).double().mean()),
        **_spread(differences, len(first), level),
    )


def _check(numerators: Tensor, denominators: Tensor, resamples: int, level: float) -> None:
    if numerators.shape != denominators.shape or len(numerators) < 2:
        raise ValueError(
            "a bootstrap needs two units or more, and sums of one shape, got "
            f"{tuple(numerators.shape)} and {tuple(denominators.shape)}"
        )
    if bool((denominators < 0).any()) or not bool((denominators > 0).any()):
        raise ValueError("denominators must be >= 0, and some > 0")
    if resamples < 100:
        raise ValueError(f"resamples must be >= 100, got {resamples}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")


def _resampled(
    sums: Sequence[Tensor], resamples: int, generator: torch.Generator
) -> Float64[Tensor, "sums resamples"]:
    """Each of `sums` over as many units as there are, drawn with replacement."""
    stacked = torch.stack([each.double() for each in sums])
    units = stacked.shape[1]
    totals = []
    at_once = max(1, _AT_ONCE // units)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = torch.randint(units, (rows, units), generator=generator)
        counts = torch.zeros(rows, units, dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones_like(counts))
        totals.append(stacked @ counts.T)
    return torch.cat(totals, dim=1)


def _spread(values: Tensor, units: int, level: float) -> dict[str, float]:
    from scipy.special import ndtr, stdtrit

    values = values[values.isfinite()]  # only units without tokens were drawn: no ratio
    student = float(stdtrit(units - 1, (1 - level) / 2))
    tail = float(ndtr(student * math.sqrt(units / (units - 1))))
    ends = torch.quantile(values, torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return {
        "low": float(ends[0]),
        "high": float(ends[1]),
        "standard_error": float(values.std()),
    }


def _quotient(numerators: Tensor, denominators: Tensor) -> float:
    return float(numerators.double().sum() / denominators.double().sum())
