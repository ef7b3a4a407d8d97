"""Models of sources: what training on whole texts gives."""

from __future__ import annotations

import pytest
import torch

from companion.automata import AutomatonSource
from companion.source_models import train_on_texts
from companion.studies import one_thread


def test_a_model_of_whole_texts_knows_how_to_begin_and_how_long_to_write() -> None:
    """A geometric source: token 1 or 2 first, then 1 with probability 3/4, or the end."""
    source = AutomatonSource(
        ["<end>", "a", "b"],
        torch.tensor([[0, 0.9, 0.1], [0.25, 0.75, 0]]),
        torch.tensor([[-1, 1, 1], [0, 1, -1]]),
    )
    with one_thread():
        model = train_on_texts(source, seed=0, steps=300, hidden_size=16, embedding_size=8)
    assert not model.training
    with torch.no_grad():
        after = torch.softmax(model(torch.tensor([[0, 1, 1]]))[0][0], dim=-1)
    assert after[0].tolist() == pytest.approx([0, 0.9, 0.1], abs=0.05)
    # The loss averaged batch by batch would end too early: batches hold texts alike in length.
    assert after[2].tolist() == pytest.approx([0.25, 0.75, 0], abs=0.05)
