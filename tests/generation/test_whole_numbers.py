"""Where a number of things is asked for, what is no whole number is one clear error."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from annotation_checker import unchecked

from companion.core.seeds import make_generator
from companion.generation.beam import beam_search
from companion.generation.decoding import SamplingConfig, generate
from companion.generation.texts import endless, greedy_text, write_texts
from companion.models.recurrent import RecurrentModel

ROW = torch.tensor([[1]])
CALLS: dict[str, Callable[[RecurrentModel, Any], object]] = {
    "num_tokens of generate": lambda model, n: generate(model, ROW, n),
    "end_id of generate": lambda model, n: generate(model, ROW, 2, end_id=n),
    "num_tokens of greedy_text": lambda model, n: greedy_text(model, ROW, n),
    "num_tokens of beam_search": lambda model, n: beam_search(model, ROW[0], n, width=2),
    "width of beam_search": lambda model, n: beam_search(model, ROW[0], 2, width=n),
    "end_id of beam_search": lambda model, n: beam_search(model, ROW[0], 2, width=2, end_id=n),
    "num_texts of write_texts": lambda model, n: write_texts(
        model, n, 2, generator=make_generator(0)
    ),
    "num_tokens of write_texts": lambda model, n: write_texts(
        model, 2, n, generator=make_generator(0)
    ),
    "vocabulary_size of endless": lambda model, n: endless(n),
}


@pytest.mark.timeout(20)  # a count that is never reached would not end
@pytest.mark.parametrize("value", [2.5, 2.0, "3", True])
@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_whole_number_is_refused(call: str, value: object) -> None:
    model = RecurrentModel("GRU", vocabulary_size=5, embedding_size=2, hidden_size=3).eval()
    words = f"{call.partition(' of ')[0]} must be a whole number, got {value!r}"
    with unchecked(), pytest.raises(TypeError, match=re.escape(words)):
        CALLS[call](model, value)


@pytest.mark.parametrize("temperature", [1e-300, 1e-46, 1e-39])
def test_a_temperature_that_float32_takes_for_zero_is_greedy(temperature: float) -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 2.9]])
    probs = SamplingConfig(temperature=temperature).probs(logits)
    assert probs.tolist() == [[0, 1, 0], [1, 0, 0]]
    chosen = SamplingConfig(temperature=temperature).choose(logits, make_generator(0))
    assert chosen.tolist() == [1, 0]


def test_the_smallest_temperature_that_float32_holds_gives_a_distribution() -> None:
    smallest = torch.finfo(torch.float32).tiny
    probs = SamplingConfig(temperature=smallest).probs(torch.tensor([[0.0, 2.0, 1.0]]))
    assert probs.tolist() == [[0, 1, 0]]
