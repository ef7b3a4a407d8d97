"""Constraints: what a text may not contain never comes, and the rest keeps its odds."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from companion.generation.beam import beam_search
from companion.generation.constraints import TokenAutomaton, allow_only
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


def without(token: int) -> TokenAutomaton:
    """All texts without this token."""
    return allow_only([each for each in range(V) if each != token], V)


#: All texts without the tokens 1 and 2 beside each other: state 1 follows a 1.
NEVER_1_2 = TokenAutomaton(torch.tensor([[0, 1, 0, 0, 0], [0, 1, -1, 0, 0]]))


def test_generated_text_never_contains_what_is_forbidden() -> None:
    prompt = torch.zeros(50, 1, dtype=torch.long)
    free = generate(make_model(), prompt, 40, generator=torch.Generator().manual_seed(0))
    held = generate(
        make_model(), prompt, 40, generator=torch.Generator().manual_seed(0), constraint=NEVER_1_2
    )
    assert any((1, 2) in itertools.pairwise(row) for row in free.tolist())  # the model wants to
    assert not any((1, 2) in itertools.pairwise(row) for row in held.tolist())


def test_what_is_left_keeps_its_odds_and_sums_to_one() -> None:
    logits = torch.randn(3, V, generator=torch.Generator().manual_seed(1))
    automaton = without(2)
    masked = torch.softmax(automaton.mask(logits, automaton.start(3)), dim=-1)
    expected = torch.softmax(logits, dim=-1)
    expected[:, 2] = 0
    torch.testing.assert_close(masked, expected / expected.sum(-1, keepdim=True))


def test_the_mask_comes_before_top_k() -> None:
    """A forbidden best token does not use up the one place there is."""
    logits = torch.tensor([[9.0, 1.0, 2.0, 0.0, 0.0]])
    automaton = without(0)
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
        allow_only([], V)
    with pytest.raises(ValueError, match=r"must lie in \[0, 5\), got 5"):
        allow_only([5], V)
    with pytest.raises(ValueError, match="next_states must be"):
        TokenAutomaton(torch.tensor([[3]]))
    automaton = without(2)
    with pytest.raises(ValueError, match="token 2 is forbidden there"):
        automaton.advance(automaton.start(2), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="knows 5 tokens and the model 6"):
        automaton.mask(torch.zeros(1, 6), automaton.start(1))
