"""Gains and costs of tuning, measured where the source is known.

Tuning gains something, say a higher reward or less repetition, and costs something: distance from
the model before tuning and from the source, calibration, grammar. `TuningCosts` measures them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from companion.evaluation.calibration import exact_calibration_error
from companion.evaluation.repetition import sequence_repetition
from companion.evaluation.texts import log_probs_and_kl
from companion.generation.texts import greedy_text, write_texts
from companion.models.base import LanguageModel
from companion.preferences.gold_reward import quality_parts, review_quality
from companion.sources.automaton import AutomatonSource
from companion.sources.reviews import GrammarSource
from companion.sources.streams import beginnings
from companion.text.batching import IGNORE
from companion.text.rows import END_ID, rows_by_length, text_batch, text_rows

if TYPE_CHECKING:
    from jaxtyping import Int


@dataclass(frozen=True, kw_only=True)
class TuningCosts:
    """Compares tuned models with the model before tuning and with the source.

    Figures are called "kl" (nats a review, to the model before tuning, along its own
    reviews), "source_kl" (nats a token, from the source, along true reviews) and "ece" (exact
    calibration error of the next token, along true reviews); of its own reviews "gold" (mean
    reward), "words", "ungrammatical" (share of sentences) and "opinion"; of greedy text that may
    not end "repetition" (seq-rep-4) and "greedy_ungrammatical" (share of sentences).
    """

    model: LanguageModel
    """The model before tuning."""
    source: GrammarSource
    """The source that it was trained on."""
    generator: torch.Generator
    """Random numbers for all sampled texts."""
    own_texts: int = 400
    """Reviews sampled from a tuned model."""
    num_tokens: int = 80
    """Most tokens of such a review."""
    true_texts: int = 600
    """Reviews sampled from the source."""
    greedy_texts: int = 48
    """Texts by greedy decoding."""
    greedy_tokens: int = 80
    """Tokens of each greedy text."""
    prompt_tokens: int = 8
    """Tokens of the true prompt before a greedy text."""

    def figures(self, policy: LanguageModel) -> dict[str, float]:
        """All metrics but those of greedy text."""
        own = self.own_figures(policy, self.own_texts)
        source_kl, ece = self.true_text_figures(policy)
        return {**own, "source_kl": source_kl, "ece": ece}

    def own_figures(self, policy: LanguageModel, texts: int) -> dict[str, float]:
        """Metrics on `texts` sampled reviews."""
        own = write_texts(policy, texts, self.num_tokens, generator=self.generator)
        parts = quality_parts(own, self.source)
        total = 0.0
        for rows in rows_by_length(own):
            longest = int(parts.words[rows].max()) + 1
            with torch.no_grad():
                total += float(log_probs_and_kl(policy, self.model, own[rows, :longest]).kl.sum())
        return {
            "kl": total / texts,
            "gold": float(review_quality(own, self.source).mean()),
            "words": float(parts.words.double().mean()),
            "ungrammatical": float(parts.ungrammatical.mean()),
            "opinion": float(parts.opinion.mean()),
        }

    def true_text_figures(self, policy: LanguageModel) -> tuple[float, float]:
        """KL from the source in nats a token, and the exact calibration error."""
        texts = text_rows(self.source.sample(self.true_texts, generator=self.generator))
        logs, truths, kl = [], [], 0.0
        for rows in rows_by_length(texts):
            batch = text_batch(texts[rows])
            kept = batch.targets != IGNORE
            states = self.source.walk(batch.targets.clamp(min=0))[kept]
            with torch.no_grad():
                logs.append(torch.log_softmax(policy(batch.inputs)[0][kept].double(), dim=-1))
            truths.append(self.source.transition_probs[states])
            kl += float(self.source.kl_from(logs[-1], states).sum())
        q, p = torch.cat(logs).exp(), torch.cat(truths)
        return kl / len(q), exact_calibration_error(q, p)

    def greedy_figures(self, policy: LanguageModel) -> dict[str, float]:
        """Metrics on greedy text, whose end token is forbidden."""
        prompts = beginnings(
            self.source, self.greedy_texts, self.prompt_tokens, generator=self.generator
        )
        written = greedy_text(policy, prompts, self.greedy_tokens)
        repetition = [sequence_repetition(row, 4) for row in written.tolist()]
        whole = whole_sentences(torch.cat([prompts, written], dim=1), self.source)
        return {
            "repetition": sum(repetition) / len(repetition),
            "greedy_ungrammatical": float(quality_parts(whole, self.source).ungrammatical.mean()),
        }

    def source_repetition(self, texts: int = 10_000) -> float:
        """seq-rep-4 of as many tokens of the source's own reviews as greedy text has."""
        begin, end = self.prompt_tokens, self.prompt_tokens + self.greedy_tokens
        sampled = self.source.sample(texts, generator=self.generator)
        long = [text[begin:end].tolist() for text in sampled if len(text) > end]
        return sum(sequence_repetition(text, 4) for text in long) / max(1, len(long))


def whole_sentences(
    texts: Int[torch.Tensor, "texts time"], source: AutomatonSource
) -> Int[torch.Tensor, "texts time"]:
    """Texts cut off after their last full stop and filled up with the end token."""
    stop = source.vocabulary.index(".")
    goes_on = (texts == stop).flip(1).cumsum(dim=1).flip(1) > 0  # a full stop here or later
    return texts.masked_fill(~goes_on, END_ID)
