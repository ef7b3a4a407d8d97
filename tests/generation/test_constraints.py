"""Constraints: what a text may not contain never comes, and the rest keeps its odds."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from companion.generation.beam import beam_search
from companion.generation.constraints import TokenAutomaton, allow_only, forbid
from companion.generation.decoding import SamplingConfig, generate
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.reviews import GrammarSource

V = 5


def make_model(size: int = V, seed: int = 0) -> LSTMLanguageModel:
    torch.manual_seed(seed)
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=size, embedding_size=6, hidden_size=8))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=1.0)
    return model.eval()


def accepts(automaton: TokenAutomaton, text: tuple[int, ...]) -> bool:
    state = 0
    for token in text:
        state = int(automaton.next_states[state, token])
        if state < 0:
            return False
    return True


def contains(text: tuple[int, ...], part: tuple[int, ...]) -> bool:
    return any(text[i : i + len(part)] == part for i in range(len(text) - len(part) + 1))


@pytest.mark.parametrize(
    "words",
    [
        [(1,)],
        [(1, 2), (2, 1)],
        [(1, 1, 2), (1, 2)],  # one ends inside another
        [(1, 2, 1, 3), (2, 1, 1)],  # one goes on from the middle of another
        [(0, 0)],
    ],
)
def test_exactly_the_texts_without_a_forbidden_sequence_are_allowed(
    words: list[tuple[int, ...]],
) -> None:
    automaton = forbid(words, V)
    for length in range(1, 6):
        for text in itertools.product(range(V), repeat=length):
            assert accepts(automaton, text) == (not any(contains(text, word) for word in words))


def test_generated_text_never_contains_what_is_forbidden() -> None:
    words = [(1, 2), (3, 3, 0)]
    prompt = torch.zeros(50, 1, dtype=torch.long)
    free = generate(make_model(), prompt, 40, generator=torch.Generator().manual_seed(0))
    held = generate(
        make_model(), prompt, 40, generator=torch.Generator().manual_seed(0),
        constraint=forbid(words, V),
    )  # fmt: skip
    for word in words:
        assert any(contains(tuple(row), word) for row in free.tolist())  # the model wants to
        assert not any(contains(tuple(row), word) for row in held.tolist())


def test_what_is_left_keeps_its_odds_and_sums_to_one() -> None:
    logits = torch.randn(3, V, generator=torch.Generator().manual_seed(1))
    automaton = forbid([(2,)], V)
    masked = torch.softmax(automaton.mask(logits, automaton.start(3)), dim=-1)
    expected = torch.softmax(logits, dim=-1)
    expected[:, 2] = 0
    torch.testing.assert_close(masked, expected / expected.sum(-1, keepdim=True))


def test_the_mask_comes_before_top_k() -> None:
    """A forbidden best token does not use up the one place there is."""
    logits = torch.tensor([[9.0, 1.0, 2.0, 0.0, 0.0]])
    automaton = forbid([(0,)], V)
    probs = SamplingConfig(top_k=1).probs(automaton.mask(logits, automaton.start(1)))
    assert probs.tolist() == [[0, 0, 1, 0, 0]]


def test_a_grammar_as_constraint_makes_every_text_grammatical() -> None:
    source = GrammarSource()
    model = make_model(source.vocabulary_size)
    grammar = TokenAutomaton(source.transition_states)
    prompt = torch.zeros(8, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(2)
    rows = generate(model, prompt, 60, generator=generator, constraint=grammar)
    assert all(source.is_legal(row) for row in rows)
    rows = generate(model, prompt, 60, generator=generator)
    assert not any(source.is_legal(row) for row in rows)  # an untrained model alone: never
    best = beam_search(model, prompt[0], 60, width=4, end_id=0, constraint=grammar)
    assert best
    assert all(source.is_legal(h.tokens, complete=h.finished) for h in best)


def test_only_the_named_tokens_come() -> None:
    prompt = torch.zeros(20, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(3)
    rows = generate(make_model(), prompt, 30, generator=generator, constraint=allow_only([1, 4], V))
    assert set(rows.flatten().tolist()) == {1, 4}


def test_a_token_that_leads_into_a_dead_end_is_forbidden_too() -> None:
    table = torch.tensor([[0, 1], [-1, 2], [-1, -1]])  # 1 leads to a state that leads nowhere
    automaton = TokenAutomaton(table)
    assert automaton.allowed(automaton.start(1)).tolist() == [[True, False]]


def test_wrong_constraints_are_refused() -> None:
    with pytest.raises(ValueError, match="allows no text at all"):
        forbid([[token] for token in range(V)], V)
    with pytest.raises(ValueError, match="allows no text at all"):
        allow_only([], V)
    with pytest.raises(ValueError, match="got an empty one"):
        forbid([[]], V)
    with pytest.raises(ValueError, match=r"must lie in \[0, 5\), got 5"):
        allow_only([5], V)
    with pytest.raises(ValueError, match="next_states must be"):
        TokenAutomaton(torch.tensor([[3]]))
    automaton = forbid([(2,)], V)
    with pytest.raises(ValueError, match="token 2 is forbidden there"):
        automaton.advance(automaton.start(2), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="knows 5 tokens and the model 6"):
        automaton.mask(torch.zeros(1, 6), automaton.start(1))
