"""Evaluating a trained run on a text, and comparing two runs on the same text.

`companion evaluate` and `companion compare` print these figures. Everything that is fitted here
(temperature, cache settings, learning rate) is fitted on the corpus's validation text.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from companion.core.seeds import make_generator
from companion.evaluation.calibration import fit_temperature, reliability
from companion.evaluation.classification import precision_recall_f1
from companion.evaluation.continuous_cache import choose_cache, score_with_cache
from companion.evaluation.dynamic import choose_dynamic, score_dynamically
from companion.evaluation.scoring import Evaluation, Scores, score, summarize
from companion.evaluation.significance import Units, bootstrap, paired_bootstrap, text_units
from companion.runs.pipeline import TrainedModel
from companion.text.corpora import Corpus
from companion.text.tokenizers import encode_documents

if TYPE_CHECKING:
    from jaxtyping import Float64, Int

#: Validation tokens used to choose the settings of the cache and of dynamic evaluation; not all,
#: because reading in one stream, once for each candidate, is slow.
CHOICE_TOKENS = 20_000
#: Seed of the bootstrap; another seed changes the third digit of an interval's width.
SEED = 0


class ComparisonError(ValueError):
    """The runs cannot be compared; the message gives the reason and what to do."""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """A run's scores on one split, and the units over which intervals are computed."""

    trained: TrainedModel
    """The run's model and tokenizer."""
    corpus: Corpus
    """The corpus; its validation split is used to choose further settings."""
    split: str
    """The split that was scored: train, valid, test or all."""
    ids: Int[torch.Tensor, " total"]
    """Token ids of the split."""
    scores: Scores
    """Loss, prediction and confidence of the model at every token."""
    evaluation: Evaluation
    """Loss, perplexity and accuracy over the whole split."""
    units: Units
    """Documents, or pieces of them, that the bootstrap resamples."""

    @property
    def nats(self) -> Float64[torch.Tensor, " units"]:
        """Summed loss of each unit, in nats."""
        return self.units.sums(self.scores.nats)


def assess(trained: TrainedModel, corpus: Corpus, split: str) -> Assessment:
    """Score a split of `corpus`, or "all" of it."""
    documents = corpus.documents(split)
    encoded = encode_documents(trained.tokenizer, documents)
    scores = score(trained.model, encoded.ids)
    return Assessment(
        trained=trained,
        corpus=corpus,
        split=split,
        ids=encoded.ids,
        scores=scores,
        evaluation=summarize(
            scores, num_bytes=encoded.num_bytes, unknown_id=trained.tokenizer.unknown_id
        ),
        units=text_units(trained.tokenizer, documents),
    )


def standard_measures(assessment: Assessment) -> dict[str, Any]:
    """The standard figures: means with 95 % intervals, macro averages, calibration.

    Intervals are over `interval_units` documents or pieces, and None if there is only one.
    """
    scores, units = assessment.scores, assessment.units
    classes = precision_recall_f1(scores.predictions, scores.targets)
    assert scores.confidences is not None
    bins = reliability(scores.confidences, scores.predictions == scores.targets)
    figures: dict[str, Any] = dict(assessment.evaluation.to_dict())
    for name, numerators, denominators in (
        ("nats_per_token", assessment.nats, units.tokens),
        ("bits_per_byte", assessment.nats / math.log(2), units.bytes),
        ("accuracy", units.sums(scores.predictions == scores.targets), units.tokens),
    ):
        figures |= {f"{name}_low": None, f"{name}_high": None}
        if len(units.tokens) > 1:
            found = bootstrap(numerators, denominators, generator=make_generator(SEED))
            figures |= {f"{name}_low": found.low, f"{name}_high": found.high}
    return figures | {
        "interval_over": units.kind,
        "interval_units": len(units.tokens),
        "macro_precision": classes.macro_precision,
        "macro_recall": classes.macro_recall,
        "macro_f1": classes.macro_f1,
        "ece": bins.ece,
        "ece_by_chance": bins.ece_by_chance,
    }


def with_temperature(assessment: Assessment) -> dict[str, Any]:
    """Loss and calibration at the temperature with the lowest loss on the validation text."""
    model = assessment.trained.model
    temperature = fit_temperature(model, _valid(assessment))
    scores = score(model, assessment.ids, temperature=temperature)
    assert scores.confidences is not None
    bins = reliability(scores.confidences, scores.predictions == scores.targets)
    return {
        "temperature": temperature,
        "temperature_nats_per_token": float(scores.nats.double().mean()),
        "temperature_ece": bins.ece,
    }


def with_cache(assessment: Assessment) -> dict[str, Any]:
    """Loss of the model with a cache, its settings chosen on validation text; in one stream."""
    model = assessment.trained.model
    config = choose_cache(model, _valid(assessment)[: CHOICE_TOKENS + 1])
    scores = score_with_cache(model, assessment.ids, config)
    return _adapted(assessment, scores, "cache", dataclasses.asdict(config))


def dynamically(assessment: Assessment) -> dict[str, Any]:
    """Loss with dynamic evaluation, its learning rate chosen on validation text; in one stream."""
    model = assessment.trained.model
    config = choose_dynamic(model, _valid(assessment)[: CHOICE_TOKENS + 1])
    scores = score_dynamically(model, assessment.ids, config)
    settings = {"learning_rate": config.learning_rate, "segment": config.segment}
    return _adapted(assessment, scores, "dynamic", settings)


def in_one_stream(assessment: Assessment) -> dict[str, Any]:
    """The plain loss in one stream, the baseline for the cache and dynamic evaluation."""
    scores = score(assessment.trained.model, assessment.ids, as_one=True)
    return {"one_stream_nats_per_token": float(scores.nats.double().mean())}


def compare(first: Assessment, second: Assessment) -> dict[str, Any]:
    """Paired bootstrap of two runs on the same split: per token, or per byte if tokens differ."""
    texts = first.corpus.fingerprint, second.corpus.fingerprint
    if texts[0] != texts[1] or first.split != second.split:
        raise ComparisonError(
            f"two runs are compared on one text, got {first.corpus.name} ({first.split}) and "
            f"{second.corpus.name} ({second.split}); name one corpus and split for both"
        )
    if len(first.units.bytes) < 2:
        raise ComparisonError(
            f"the {first.split} text of {first.corpus.name} is too short for an interval: it is "
            "one piece of less than 8 kB; compare on a longer text, or on all of this one (on the "
            "command line: --split all)"
        )
    same = first.trained.tokenizer.to_dict() == second.trained.tokenizer.to_dict()
    one, other, divisors = first.nats, second.nats, first.units.tokens
    if not same:
        one, other = one / math.log(2), other / math.log(2)
        divisors = first.units.bytes
    found = paired_bootstrap(one, other, divisors, generator=make_generator(SEED))
    total = float(divisors.sum())
    return {
        "corpus": first.corpus.name,
        "split": first.split,
        "measure": "nats_per_token" if same else "bits_per_byte",
        "first": float(one.sum()) / total,
        "second": float(other.sum()) / total,
        "difference": found.estimate,
        "difference_low": found.low,
        "difference_high": found.high,
        "p_value": found.p_value,
        "first_better": found.first_lower,
        "interval_over": first.units.kind,
        "interval_units": len(first.units.bytes),
    }


def _valid(assessment: Assessment) -> torch.Tensor:
    documents = assessment.corpus.documents("valid")
    return encode_documents(assessment.trained.tokenizer, documents).ids


def _adapted(
    assessment: Assessment, scores: Scores, name: str, settings: dict[str, Any]
) -> dict[str, Any]:
    result = summarize(scores, num_bytes=assessment.evaluation.bytes).to_dict()
    kept = ("nats_per_token", "perplexity", "bits_per_byte", "accuracy")
    return {f"{name}_{key}": result[key] for key in kept} | {
        f"{name}_{key}": value for key, value in settings.items()
    }
