"""How good translations are: exact match, BLEU and chrF, and what the model's loss says.

BLEU (Papineni et al. 2002) and chrF (Popović 2015) are those of sacrebleu (Post 2018), with its
signature: two BLEU scores with different signatures must not be compared.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from companion.core.settings import check_sizes
from companion.generation.translation import Translator
from companion.losses.cross_entropy import token_nats
from companion.text.batching import IGNORE
from companion.text.parallel import Pair

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64


@dataclass(frozen=True, kw_only=True)
class MetricScore:
    """A corpus score of sacrebleu, 0 to 100."""

    score: float
    """The score of the whole test set."""
    low: float
    """Lower end of the 95 % bootstrap interval over sentences."""
    high: float
    """Upper end of it."""
    signature: str
    """How it was computed: references, case, tokenization, smoothing, version, resamples."""


@dataclass(frozen=True, kw_only=True)
class TranslationScores:
    """Scores of a set of translations."""

    exact_match: float
    """Share of translations that are the reference, character by character."""
    bleu: MetricScore
    """BLEU: n-gram precision with a brevity penalty."""
    chrf: MetricScore
    """chrF: F-score of character n-grams."""
    length_ratio: float
    """Characters of the translations divided by those of the references."""


def score_translations(
    translations: Sequence[str],
    references: Sequence[str],
    *,
    tokenize: str = "13a",
    resamples: int = 1000,
) -> TranslationScores:
    """All scores, one reference a translation.

    tokenize: sacrebleu's tokenizer for BLEU: "13a" for languages with spaces, "zh" for Chinese,
        "none" for text whose tokens stand apart already.
    resamples: how often the bootstrap draws the sentences again (Koehn 2004).

    Raises ValueError for no translations, another number of references, an empty reference, or
    where sacrebleu is missing, with what to install.
    """
    if len(translations) != len(references) or not references:
        raise ValueError(
            "scores need one reference or more and as many translations, got "
            f"{len(translations)} translations and {len(references)} references"
        )
    if not all(references):
        raise ValueError("a reference must not be empty; leave the pair out")
    check_sizes(resamples=resamples)
    return TranslationScores(
        exact_match=exact_match(translations, references),
        bleu=_metric(
            "BLEU", translations, references, resamples, tokenize=tokenize, force=tokenize == "none"
        ),  # with "none" they are meant to be cut, which it would warn of
        chrf=_metric("CHRF", translations, references, resamples),
        length_ratio=sum(map(len, translations)) / sum(map(len, references)),
    )


def exact_match(translations: Sequence[str], references: Sequence[str]) -> float:
    """Share of translations that equal their reference; ValueError for none or unequal numbers."""
    if len(translations) != len(references) or not references:
        raise ValueError(
            f"got {len(translations)} translations and {len(references)} references; give one or "
            "more of each, equally many"
        )
    return sum(a == b for a, b in zip(translations, references, strict=True)) / len(references)


def pair_nats(
    translator: Translator, pairs: Sequence[Pair], *, batch_size: int = 100
) -> tuple[Float64[Tensor, " pairs"], Int64[Tensor, " pairs"]]:
    """-log p(target | source) of each pair in nats, the end token included, and its tokens.

    exp(-nats) is the probability that a sample from the model is exactly the reference.
    """
    check_sizes(batch_size=batch_size)
    translator.model.require_evaluation_mode()
    nats, tokens = [], []
    for start in range(0, len(pairs), batch_size):
        batch = translator.batch(pairs[start : start + batch_size])
        with torch.no_grad():
            logits = translator.model.translate_logits(batch.source, batch.lengths, batch.inputs)
            nats.append(token_nats(logits, batch.targets).cpu().double().sum(dim=1))
        tokens.append((batch.targets != IGNORE).sum(dim=1).cpu())
    if not nats:
        raise ValueError("there is no pair to score; give one or more")
    return torch.cat(nats), torch.cat(tokens)


def look_up(pairs: Sequence[Pair], sentences: Sequence[str]) -> list[str]:
    """A baseline that translates nothing: the translation of the most similar known sentence.

    Similar is what shares most words, by the Dice coefficient of the words without case; of equals
    the first. Raises ValueError where nothing is known.
    """
    if not pairs:
        raise ValueError("there is no pair to look a sentence up in; give one or more")
    known = [Counter(pair.source.casefold().split()) for pair in pairs]
    found = []
    for sentence in sentences:
        words = Counter(sentence.casefold().split())
        likeness = [
            2 * (words & each).total() / max(1, words.total() + each.total()) for each in known
        ]
        found.append(pairs[likeness.index(max(likeness))].target)
    return found


def _metric(
    name: str,
    translations: Sequence[str],
    references: Sequence[str],
    resamples: int,
    **options: Any,
) -> MetricScore:
    metric = _sacrebleu(name)(**options)
    compute = metric._compute_score_from_stats

    def as_float(statistics: Any) -> Any:
        # chrF is a float where nothing matches and NumPy's float32 elsewhere, and the mean that
        # sacrebleu takes of its resamples refuses a mixture.
        score = compute(statistics)
        score.score = float(score.score)
        return score

    metric._compute_score_from_stats = as_float
    found = metric.corpus_score(list(translations), [list(references)], n_bootstrap=resamples)
    # sacrebleu centres its interval at the mean of the resamples.
    return MetricScore(
        score=float(found.score),
        low=float(found._mean - found._ci),
        high=float(found._mean + found._ci),
        signature=str(metric.get_signature()),
    )


def _sacrebleu(name: str) -> Any:
    """A metric's class; ValueError, saying what to install, when sacrebleu is missing."""
    try:
        return getattr(importlib.import_module("sacrebleu.metrics"), name)
    except ImportError as error:
        raise ValueError(
            "BLEU and chrF need sacrebleu, which is not installed; install it with: "
            "python -m pip install sacrebleu"
        ) from error
