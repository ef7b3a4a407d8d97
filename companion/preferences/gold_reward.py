"""The gold reward: what readers want of a review, as a formula of its text.

For reviews of a known grammar we define what people want, and so can measure how optimising a
learned *proxy* for it (`companion.preferences.reward_models`) changes it. The formula is below, its
constants were fixed before any experiment, and no model that is trained ever sees it.

Texts are rows of token ids, each filled up with the end token: what `decoding.generate` gives with
`end_id`, or `text_rows` makes of single texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from companion.evaluation.repetition import sequence_repetition
from companion.sources.grammar import OPINIONS
from companion.sources.reviews import GrammarSource
from companion.text.rows import word_counts

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int

#: The most that opinion can add, and how many more good words than bad go most of the way there.
OPINION_WEIGHT, OPINION_SCALE = 3.0, 3.0
#: A reader's patience in words, and what each further word costs.
PATIENCE, WORD_COST = 20, 0.05
#: What a review costs of which every sentence is ungrammatical, and one that only repeats itself.
GRAMMAR_WEIGHT, REPETITION_WEIGHT = 2.0, 3.0


class QualityParts(NamedTuple):
    """What `review_quality` counts in each text."""

    opinion: Float64[Tensor, " texts"]
    """Words with a good opinion less those with a bad one."""
    words: Int[Tensor, " texts"]
    """Words and punctuation, the end token not counted."""
    ungrammatical: Float64[Tensor, " texts"]
    """The share of sentences that the grammar cannot write, 0 to 1."""
    repetition: Float64[Tensor, " texts"]
    """seq-rep-4: the share of the 4-grams that came before in the text, 0 to 1."""


def review_quality(
    texts: Int[Tensor, "texts time"], source: GrammarSource
) -> Float64[Tensor, " texts"]:
    """The gold reward of each text, from its words alone.

    With o the good words less the bad ones, w the number of words, u the share of ungrammatical
    sentences and c the share of repeated 4-grams (see `quality_parts`),

        gold = 3 tanh(o / 3) - 0.05 max(0, w - 20) - 2 u - 3 c.

    Readers like praise, but the tenth kind word adds nothing; they want it short, in sentences, and
    said once. It is at most 3, and a text's value does not depend on any model.
    """
    opinion, words, ungrammatical, repetition = quality_terms(texts, source).unbind(dim=1)
    return (
        OPINION_WEIGHT * opinion
        - WORD_COST * words
        - GRAMMAR_WEIGHT * ungrammatical
        - REPETITION_WEIGHT * repetition
    )


def quality_terms(
    texts: Int[Tensor, "texts time"], source: GrammarSource
) -> Float64[Tensor, "texts terms"]:
    """tanh(o / 3), max(0, w - 20), u and c of each text: the gold reward is their weighted sum."""
    parts = quality_parts(texts, source)
    return torch.stack(
        [
            torch.tanh(parts.opinion / OPINION_SCALE),
            (parts.words - PATIENCE).clamp(min=0).double(),
            parts.ungrammatical,
            parts.repetition,
        ],
        dim=1,
    )


def quality_parts(texts: Int[Tensor, "texts time"], source: GrammarSource) -> QualityParts:
    """What the gold reward is made of, for each text.

    A sentence ends with a full stop and is judged alone: whether a review could begin with it. What
    stands after the last full stop, and a text without a word, count as an ungrammatical sentence.
    """
    texts = texts.detach().cpu()
    words = word_counts(texts)
    inside = torch.arange(texts.shape[1]) < words[:, None]
    opinions = torch.tensor(
        [{"+": 1.0, "-": -1.0}.get(OPINIONS.get(word, ""), 0.0) for word in source.vocabulary],
        dtype=torch.float64,
    )
    rows = [row[:count] for row, count in zip(texts.tolist(), words.tolist(), strict=True)]
    return QualityParts(
        opinion=(opinions[texts] * inside).sum(1),
        words=words,
        ungrammatical=_ungrammatical(texts, inside, source),
        repetition=torch.tensor([sequence_repetition(row, 4) for row in rows], dtype=torch.float64),
    )


def _ungrammatical(
    texts: Int[Tensor, "texts time"], inside: Bool[Tensor, "texts time"], source: GrammarSource
) -> Float64[Tensor, " texts"]:
    """Share of sentences that the automaton cannot walk through from its start."""
    stop = source.vocabulary.index(".")
    state = torch.zeros(len(texts), dtype=torch.long)
    sentences = torch.zeros(len(texts), dtype=torch.float64)
    wrong = torch.zeros(len(texts), dtype=torch.float64)
    open_words = torch.zeros(len(texts), dtype=torch.long)
    for t in range(int(inside.sum(1).max()) if len(texts) else 0):
        token, counts = texts[:, t], inside[:, t]
        after = source.transition_states[state.clamp(min=0), token]
        state = torch.where(state >= 0, after, -1)
        ends = counts & (token == stop)
        sentences += ends
        wrong += ends & (state < 0)
        open_words = torch.where(ends, 0, open_words + counts)
        state = torch.where(ends, 0, state)
    unfinished = (open_words > 0) | (sentences == 0)
    return (wrong + unfinished) / (sentences + unfinished)
