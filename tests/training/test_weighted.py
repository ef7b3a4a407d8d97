"""Training on given texts: what weights and terms do, and what is refused."""

from __future__ import annotations

import pytest
import torch

from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig
from companion.training.weighted import train_on_rows

SIZES = LSTMConfig(vocabulary_size=4, embedding_size=4, hidden_size=8)
#: Half of the texts say 1, the others 2.
ROWS = torch.tensor([[1, 0], [2, 0]]).repeat(200, 1)


def first_word(model: LanguageModel) -> list[float]:
    with torch.no_grad():
        return torch.softmax(model(torch.tensor([[0]]))[0][0, 0], dim=-1).tolist()


def test_a_weight_of_three_makes_a_text_three_times_as_probable() -> None:
    weights = torch.where(ROWS[:, 0] == 1, 1.5, 0.5)
    model = train_on_rows(ROWS, SIZES, batch_size=8, learning_rate=0.05, seed=0, weights=weights)
    _, one, two, _ = first_word(model)
    assert abs(one - 0.75) < 0.05
    assert abs(two - 0.25) < 0.05


def test_a_term_is_part_of_the_loss() -> None:
    def dislike_of_two(model: LanguageModel) -> torch.Tensor:
        return 5 * torch.softmax(model(torch.tensor([[0]]))[0][0, 0], dim=-1)[2]

    plain = train_on_rows(ROWS, SIZES, batch_size=8, learning_rate=0.05, seed=0)
    model = train_on_rows(
        ROWS, SIZES, batch_size=8, learning_rate=0.05, seed=0, term=dislike_of_two
    )
    assert first_word(plain)[2] > 0.4
    assert first_word(model)[2] < 0.25


def test_the_same_seed_gives_the_same_model_and_ones_are_no_weights() -> None:
    models = [
        train_on_rows(ROWS, SIZES, batch_size=8, learning_rate=0.05, seed=3, weights=weights)
        for weights in (None, torch.ones(len(ROWS)))
    ]
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 500 texts needs as many, got 400"):
        train_on_rows(ROWS, SIZES, batch_size=500, learning_rate=0.05, seed=0)
    with pytest.raises(ValueError, match="400 numbers >= 0"):
        train_on_rows(
            ROWS, SIZES, batch_size=8, learning_rate=0.05, seed=0, weights=-torch.ones(len(ROWS))
        )
