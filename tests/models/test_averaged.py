"""The average over two versions of a text: it equals the two models' mean, in one piece or two."""

from __future__ import annotations

import pytest
import torch

from companion.models.averaged import SwapAveraged
from companion.models.lstm import LSTMConfig, LSTMLanguageModel


@pytest.fixture
def model() -> LSTMLanguageModel:
    torch.manual_seed(0)
    sizes = LSTMConfig(vocabulary_size=9, embedding_size=4, hidden_size=6)
    return LSTMLanguageModel(sizes).double().eval()


def test_it_is_the_mean_of_both_versions(model: LSTMLanguageModel) -> None:
    averaged = SwapAveraged(model, {2: 5, 3: 6}, share=0.3)
    text = torch.tensor([[0, 1, 2, 4, 6]])
    first, second = torch.tensor([[0, 1, 2, 4, 3]]), torch.tensor([[0, 1, 5, 4, 6]])
    with torch.no_grad():
        found = averaged(text)[0].exp()
        parts = [torch.softmax(model(each)[0], dim=-1) for each in (first, second)]
    torch.testing.assert_close(found, 0.7 * parts[0] + 0.3 * parts[1])
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(1, 5).double())


def test_a_text_and_its_counterpart_are_continued_alike(model: LSTMLanguageModel) -> None:
    averaged = SwapAveraged(model, {2: 5}, share=0.4)
    with torch.no_grad():
        one, other = averaged(torch.tensor([[0, 2, 1], [0, 5, 1]]))[0]
        plain = model(torch.tensor([[0, 2, 1], [0, 5, 1]]))[0]
    torch.testing.assert_close(one, other)
    assert float((plain[0] - plain[1]).abs().max()) > 1e-3


def test_reading_in_parts_equals_reading_at_once(model: LSTMLanguageModel) -> None:
    averaged = SwapAveraged(model, {2: 5}, share=0.4)
    text = torch.tensor([[0, 2, 1, 7], [3, 5, 5, 8]])
    with torch.no_grad():
        whole, _ = averaged(text)
        begun, state = averaged(text[:, :2])
        rest, _ = averaged(text[:, 2:], averaged.select_rows(state, torch.tensor([0, 1])))
    torch.testing.assert_close(whole, torch.cat([begun, rest], dim=1))


@pytest.mark.parametrize("swaps", [{2: 2}, {2: 5, 5: 3}, {2: 5, 3: 5}])
def test_wrong_pairs_are_refused(model: LSTMLanguageModel, swaps: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="pair different words"):
        SwapAveraged(model, swaps, share=0.4)
    with pytest.raises(ValueError, match="share must be in"):
        SwapAveraged(model, {2: 5}, share=1.0)
