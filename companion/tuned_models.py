"""What a tuned model is worth and what it costs, measured where the source is known.

Tuning buys something, say a higher reward or less repetition, and pays with distance from the model
before and from the source, with calibration and with grammar. One object measures all of it alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from companion.automata import END_ID, AutomatonSource
from companion.batching import IGNORE
from companion.calibration import exact_calibration_error
from companion.dpo import rows_by_length, text_batch
from companion.lstm import LSTMLanguageModel
from companion.policy_gradient import score_texts
from companion.preference import write_texts
from companion.quality import quality_parts, review_quality, text_rows
from companion.sources import GrammarSource
from companion.text_metrics import sequence_repetition
from companion.unlikelihood import beginnings, greedy_text

if TYPE_CHECKING:
    from jaxtyping import Int


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Weighs tuned models against the one before and against the source.

    Figures are called "kl" (nats a review, to the model before, along the tuned model's own
    reviews), "source_kl" (nats a token, from the source, along true reviews) and "ece" (exact
    calibration error of the next token, along true reviews); of its own reviews "gold" (mean
    reward), "words", "ungrammatical" (share of sentences) and "opinion"; of greedy text that may
    not end "repetition" (seq-rep-4) and "greedy_ungrammatical" (share of sentences).
    """

    model: LSTMLanguageModel
    """Before tuning."""
    source: GrammarSource
    """What it has learnt."""
    generator: torch.Generator
    """For all texts."""
    own_texts: int = 400
    """Reviews that a tuned model writes."""
    num_tokens: int = 80
    """Tokens of each at most."""
    true_texts: int = 600
    """Fresh true reviews."""
    greedy_texts: int = 48
    """Greedy texts."""
    greedy_tokens: int = 80
    """Tokens of each."""
    prompt_tokens: int = 8
    """True tokens that a greedy text goes on from."""

    def figures(self, policy: LSTMLanguageModel) -> dict[str, float]:
        """All of them but those of greedy text."""
        own = self.own_figures(policy, self.own_texts)
        source_kl, ece = self.true_text_figures(policy)
        return {**own, "source_kl": source_kl, "ece": ece}

    def own_figures(self, policy: LSTMLanguageModel, texts: int) -> dict[str, float]:
        """Those of so many of its own reviews."""
        own = write_texts(policy, texts, self.num_tokens, generator=self.generator)
        parts = quality_parts(own, self.source)
        total = 0.0
        for rows in rows_by_length(own):
            longest = int(parts.words[rows].max()) + 1
            with torch.no_grad():
                total += float(score_texts(policy, self.model, own[rows, :longest]).kl.sum())
        return {
            "kl": total / texts,
            "gold": float(review_quality(own, self.source).mean()),
            "words": float(parts.words.double().mean()),
            "ungrammatical": float(parts.ungrammatical.mean()),
            "opinion": float(parts.opinion.mean()),
        }

    def true_text_figures(self, policy: LSTMLanguageModel) -> tuple[float, float]:
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

    def greedy_figures(self, policy: LSTMLanguageModel) -> dict[str, float]:
        """Those of greedy text that may not end."""
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
