"""Beam search against exhaustive enumeration and greedy decoding."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from companion.generation.beam import Hypothesis, beam_search
from companion.generation.constraints import allow_only
from companion.generation.decoding import SamplingConfig, generate
from companion.models.lstm import LSTMConfig, LSTMLanguageModel

V, LENGTH, END = 4, 5, 0
PROMPT = torch.tensor([0, 2])


def make_model(seed: int = 0) -> LSTMLanguageModel:
    torch.manual_seed(seed)
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=V, embedding_size=6, hidden_size=8))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.9)
    return model.eval()


@torch.no_grad()
def log_prob(model: LSTMLanguageModel, text: tuple[int, ...]) -> float:
    """Of `text` after the prompt, in one pass over the whole text, not token by token."""
    whole = torch.cat([PROMPT, torch.tensor(text)])
    logs = torch.log_softmax(model(whole[None, :-1])[0].double(), dim=-1)[0]
    return float(logs[len(PROMPT) - 1 :].gather(1, whole[len(PROMPT) :, None]).sum())


def every_text(model: LSTMLanguageModel) -> dict[tuple[int, ...], float]:
    """All texts of at most `LENGTH` tokens that end, with their log-probabilities."""
    return {
        (*body, END): log_prob(model, (*body, END))
        for size in range(LENGTH)
        for body in itertools.product(range(1, V), repeat=size)
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 3.0])
def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all_texts(seed: int, alpha: float) -> None:
    model = make_model(seed)
    truth = every_text(model)
    ranked = sorted(truth, key=lambda text: -truth[text] / len(text) ** alpha)
    width = V**LENGTH
    found = beam_search(model, PROMPT, LENGTH, width=width, end_id=END, length_penalty=alpha)
    assert len(found) == len(truth)  # nothing had to be dropped
    assert [tuple(h.tokens) for h in found] == ranked
    for h in found:
        # Float32 models, summed in float64: the two ways to run the LSTM differ in rounding.
        assert h.log_prob == pytest.approx(truth[tuple(h.tokens)], abs=1e-4)
        assert h.score == h.log_prob / len(h.tokens) ** alpha
        assert h.finished


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_narrow_beam_reports_true_scores_of_texts_that_are_not_better(
    seed: int, width: int
) -> None:
    model = make_model(seed)
    best = max(every_text(model).values())
    found = beam_search(model, PROMPT, LENGTH, width=width, end_id=END)
    assert 1 <= len(found) <= width
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    for h in found:
        assert h.log_prob == pytest.approx(log_prob(model, tuple(h.tokens)), abs=1e-4)
        assert not h.finished or h.log_prob <= best + 1e-4


def test_a_narrow_beam_can_miss_the_best_text_and_a_wider_one_find_it() -> None:
    """What the width is for: seen on at least one of the small models."""
    missed = 0
    for seed in range(12):
        model = make_model(seed)
        best = max(every_text(model).values())
        one, eight = (
            beam_search(model, PROMPT, LENGTH, width=width, end_id=END)[0] for width in (1, 8)
        )
        missed += not one.finished or one.log_prob < best - 1e-3
        assert eight.log_prob == pytest.approx(best, abs=1e-4)
    assert missed > 0


def test_width_one_is_greedy_decoding() -> None:
    model = make_model(3)
    greedy = generate(model, PROMPT[None], 12, SamplingConfig(temperature=0))[0].tolist()
    (only,) = beam_search(model, PROMPT, 12, width=1)
    assert only.tokens == greedy
    assert not only.finished


def test_without_an_end_all_hypotheses_have_the_full_length_and_differ() -> None:
    found = beam_search(make_model(1), PROMPT, 6, width=10)
    assert len(found) == len({tuple(h.tokens) for h in found}) == 10
    assert {len(h.tokens) for h in found} == {6}


def test_more_length_penalty_never_prefers_a_shorter_text() -> None:
    for seed in range(6):
        sizes = [
            len(beam_search(make_model(seed), PROMPT, LENGTH, width=V**LENGTH, end_id=END,
                            length_penalty=alpha)[0].tokens)
            for alpha in (0.0, 0.5, 1.0, 2.0)
        ]  # fmt: skip
        assert sizes == sorted(sizes)


def test_a_constrained_beam_finds_the_best_of_the_allowed_texts() -> None:
    """Its scores are of the renormalised model, which the allowed texts alone can use."""
    model = make_model(2)
    best = beam_search(model, PROMPT, LENGTH, width=V**LENGTH, end_id=END)[0].tokens
    others = allow_only([token for token in range(V) if token != best[0]], V)
    held = beam_search(model, PROMPT, LENGTH, width=V**LENGTH, end_id=END, constraint=others)
    assert all(best[0] not in h.tokens for h in held)
    assert held[0].log_prob > log_prob(model, tuple(held[0].tokens))  # mass was shared out


def test_searching_does_not_change_the_model_or_gradients() -> None:
    model = make_model()
    first = beam_search(model, PROMPT, LENGTH, width=3, end_id=END)
    assert torch.is_grad_enabled()
    assert beam_search(model, PROMPT, LENGTH, width=3, end_id=END) == first
    assert isinstance(first[0], Hypothesis)


def test_wrong_searches_are_refused() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="width must be >= 1, got 0"):
        beam_search(model, PROMPT, 3, width=0)
    with pytest.raises(ValueError, match="num_tokens must be >= 1, got 0"):
        beam_search(model, PROMPT, 0, width=1)
    with pytest.raises(ValueError, match=r"length_penalty must be >= 0, got -1"):
        beam_search(model, PROMPT, 3, width=1, length_penalty=-1.0)
    with pytest.raises(ValueError, match=r"end_id must be a token in \[0, 4\), got 4"):
        beam_search(model, PROMPT, 3, width=1, end_id=4)
    with pytest.raises(ValueError, match="at least one token"):
        beam_search(model, PROMPT[:0], 3, width=1)
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        beam_search(make_model().train(), PROMPT, 3, width=1)
