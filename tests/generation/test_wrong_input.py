"""What is no prompt or text of the model is refused, by one error that says what to do instead."""

from __future__ import annotations

import copy
import inspect
import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from annotation_checker import unchecked

from companion import generation
from companion.core.seeds import make_generator
from companion.evaluation.continuous_cache import (
    ContinuousCacheConfig,
    choose_cache,
    score_with_cache,
)
from companion.evaluation.dynamic import DynamicConfig, score_dynamically
from companion.evaluation.scoring import evaluate, score, summed_nats_of_rows
from companion.evaluation.texts import log_probs_and_kl, next_log_probs, text_log_probs
from companion.generation.beam import beam_search
from companion.generation.constraints import TokenAutomaton, allow_only
from companion.generation.decoding import SamplingConfig, generate, stream_tokens
from companion.generation.texts import endless, greedy_text, write_texts
from companion.models.base import LanguageModel
from companion.models.recurrent import RecurrentModel
from companion.text.batching import Batch

V = 5


@pytest.fixture
def model() -> LanguageModel:
    return RecurrentModel("GRU", vocabulary_size=V, embedding_size=2, hidden_size=3).eval()


#: Functions that read one text, and those that read rows, by the name of the argument.
ONE_TEXT: dict[str, Callable[[LanguageModel, Any], object]] = {
    "prompt of beam_search": lambda model, ids: beam_search(model, ids, 3, width=2),
    "ids of score": score,
    "ids of evaluate": evaluate,
    "ids of score_with_cache": lambda model, ids: score_with_cache(
        model, ids, ContinuousCacheConfig()
    ),
    "ids of choose_cache": choose_cache,
    "ids of score_dynamically": lambda model, ids: score_dynamically(model, ids, DynamicConfig()),
}
ROWS: dict[str, Callable[[LanguageModel, Any], object]] = {
    "prompt of generate": lambda model, ids: generate(model, ids, 3),
    "prompt of stream_tokens": lambda model, ids: stream_tokens(model, ids, SamplingConfig()),
    "prompts of greedy_text": lambda model, ids: greedy_text(model, ids, 3),
    "texts of log_probs_and_kl": lambda model, ids: log_probs_and_kl(model, model, ids),
    "texts of text_log_probs": text_log_probs,
    "rows of next_log_probs": next_log_probs,
    "batch.inputs of summed_nats_of_rows": lambda model, ids: summed_nats_of_rows(
        model, Batch(inputs=ids, targets=ids)
    ),
}
TEXT = torch.tensor([1, 2, 3])
WRONG = {
    "a list": (lambda ids: ids.tolist(), "{name} must be a tensor of token ids, got list"),
    "float": (lambda ids: ids.float(), "{name} must hold token ids as torch.int64, got "),
    "too large": (lambda ids: ids + 2, "{name} must hold tokens of the model, in [0, 5), got 5"),
    "negative": (lambda ids: ids - 2, "{name} must hold tokens of the model, in [0, 5), got -1"),
    "nothing": (lambda ids: ids[..., :0], "{name} needs at least one token"),
}  # fmt: skip


#: Not wrong: a greedy text begins by itself, and a Batch holds tensors.
RIGHT = {("prompts of greedy_text", "nothing"), ("batch.inputs of summed_nats_of_rows", "a list")}


@pytest.mark.parametrize(
    ("function", "wrong"),
    [pair for pair in itertools.product([*ONE_TEXT, *ROWS], WRONG) if pair not in RIGHT],
)
def test_what_are_no_tokens_of_the_model_is_refused(
    model: LanguageModel, function: str, wrong: str
) -> None:
    call = (ONE_TEXT | ROWS)[function]
    ids, (change, words) = TEXT if function in ONE_TEXT else TEXT[None], WRONG[wrong]
    with unchecked(), pytest.raises((TypeError, ValueError)) as raised:
        call(model, change(ids))
    assert str(raised.value).startswith(words.format(name=function.partition(" of ")[0]))


@pytest.mark.parametrize("function", ONE_TEXT)
def test_rows_are_refused_where_one_text_is_read(model: LanguageModel, function: str) -> None:
    name = function.partition(" of ")[0]
    words = f"{name} must have shape (time,), one text, got (1, 3); give one row, {name}[0]"
    with unchecked(), pytest.raises(ValueError, match=re.escape(words)):
        ONE_TEXT[function](model, TEXT[None])


@pytest.mark.parametrize("function", ROWS)
def test_one_text_is_refused_where_rows_are_read(model: LanguageModel, function: str) -> None:
    name = function.partition(" of ")[0]
    words = f"{name} must have shape (batch, time), one text a row, got (3,); a single text is"
    with unchecked(), pytest.raises(ValueError, match=re.escape(words)):
        ROWS[function](model, TEXT)


@pytest.mark.parametrize("function", [*ONE_TEXT, *ROWS])
def test_what_is_right_is_read(model: LanguageModel, function: str) -> None:
    (ONE_TEXT | ROWS)[function](model, TEXT if function in ONE_TEXT else TEXT[None])


def test_a_greedy_text_may_follow_no_prompt(model: LanguageModel) -> None:
    none = torch.zeros(2, 0, dtype=torch.long)
    assert greedy_text(model, none, 4).shape == (2, 4)


def test_a_prompt_on_another_device_is_refused(model: LanguageModel) -> None:
    elsewhere = torch.zeros(1, 2, dtype=torch.long, device="meta")
    with pytest.raises(ValueError, match=r"prompt must be on the model's device, cpu, got meta"):
        generate(model, elsewhere, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: generate(m, TEXT[None], 3, 0.8), "sampling must be a SamplingConfig, got 0.8"),
        (lambda m: generate(m, TEXT[None], 3, end_id=V), r"end_id must be a token in \[0, 5\)"),
        (lambda m: generate(m, TEXT[None], 0), "num_tokens must be >= 1"),
        (lambda m: write_texts(m, 0, 3, generator=make_generator(0)), "num_texts must be >= 1"),
        (lambda m: next_log_probs(m, TEXT[None, :1]), "rows must have two tokens or more each"),
        (lambda m: allow_only([1], 0), "vocabulary_size must be >= 1"),
        (lambda m: endless(0), "vocabulary_size must be >= 1"),
        (lambda m: TokenAutomaton([[0, 1]]), "next_states must be a tensor of whole numbers"),
        (lambda m: TokenAutomaton(torch.zeros(1, 2)), "next_states must be a tensor of whole num"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(model: LanguageModel, call: Any, words: str) -> None:
    with unchecked(), pytest.raises((TypeError, ValueError), match=words):
        call(model)


def test_what_is_refused_stands_in_the_docstring() -> None:
    functions = [each for each in vars(generation).values() if inspect.isfunction(each)]
    assert len(functions) >= 7
    for function in functions:
        assert "Raises ValueError" in (function.__doc__ or ""), function


def test_tokens_may_be_a_tensor() -> None:
    with unchecked():
        made = allow_only(torch.tensor([1, 3]), V)
    assert torch.equal(made.next_states, allow_only([1, 3], V).next_states)


def test_a_stream_is_refused_when_it_is_asked_for_not_when_it_is_read(model: LanguageModel) -> None:
    assert not inspect.isgeneratorfunction(stream_tokens)
    with pytest.raises(ValueError, match="training mode"):
        stream_tokens(model.train(), TEXT[None], SamplingConfig())


def test_log_probs_of_two_models_need_one_vocabulary_and_no_dropout(model: LanguageModel) -> None:
    larger = RecurrentModel("GRU", vocabulary_size=V + 1, embedding_size=2, hidden_size=3).eval()
    with pytest.raises(ValueError, match="must have one vocabulary, got 5 and 6 tokens"):
        log_probs_and_kl(model, larger, TEXT[None])
    training = copy.deepcopy(model).train()
    for pair in ((model, training), (training, model)):
        with pytest.raises(ValueError, match="training mode"):
            log_probs_and_kl(*pair, TEXT[None])
