"""How many labels does a small real sentence encoder need, which has read none of our reviews?

Logistic regression learns the sentiment of the grammar's reviews from the vectors of an encoder
that was trained on text of all kinds, from as many labels, and measured on the same reviews, as the
study `sentiment`. The encoder's weights are an installed package's: see
`companion.models.sentence_encoder`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from companion.core.settings import settings_class
from companion.models.sentence_encoder import load_sentence_encoder
from companion.sources.labelled_reviews import Reviews, ReviewSizes, write_reviews
from companion.sources.reviews import GrammarSource
from companion.text.labelled import LabelledTexts


@settings_class
class Config:
    """Settings of the reviews and of the logistic regression."""

    doses: tuple[int, ...] = (10, 100, 1000)
    """Numbers of labels, half of them of each class; smaller sets are parts of larger ones."""
    reviews: ReviewSizes = ReviewSizes()
    """How many labelled reviews there are."""
    inverse_penalty: float = 10.0
    """Scikit-learn's C: the larger it is, the less the weights are drawn to zero."""

    def __post_init__(self) -> None:
        if not self.doses or any(dose < 2 or dose % 2 for dose in self.doses):
            raise ValueError(f"doses must be even numbers >= 2, got {self.doses}")
        if max(self.doses) > self.reviews.train:
            raise ValueError(
                f"doses must be at most reviews.train, {self.reviews.train}, got {max(self.doses)}"
            )
        if not self.inverse_penalty > 0:
            raise ValueError(f"inverse_penalty must be > 0, got {self.inverse_penalty}")


@dataclass(kw_only=True)
class Result:
    """Shares between 0 and 1."""

    accuracy: dict[str, float] = field(default_factory=dict)
    """Accuracy on unseen reviews, half of them of each class, by labels; of few labels, the mean
    over the sets of reviews."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Read the reviews with the encoder, train on some, and measure on others.

    Raises ValueError, in one sentence, where the package with the encoder's weights is missing.
    """
    source = GrammarSource()
    return Result(
        accuracy=encoder_accuracy(source, write_reviews(source, config.reviews, seed=seed), config)
    )


def encoder_accuracy(
    source: GrammarSource, reviews: Reviews, config: Config | None = None
) -> dict[str, float]:
    """Accuracy of logistic regression on the encoder's vectors, by labels; errors as those of
    `run`."""
    from sklearn.linear_model import LogisticRegression

    config = config or Config()
    encoder = load_sentence_encoder()

    def vectors(texts: LabelledTexts) -> Tensor:
        return encoder.encode([source.decode(row) for row in texts.rows()])

    unseen, truth = vectors(reviews.test).numpy(), reviews.test.labels.numpy()
    found = {}
    for dose in config.doses:
        shares = []
        for some in reviews.sets(dose):
            model = LogisticRegression(C=config.inverse_penalty, max_iter=1000)
            model.fit(vectors(some).numpy(), some.labels.numpy())
            shares.append(float(model.score(unseen, truth)))
        found[str(dose)] = sum(shares) / len(shares)
    return found
