"""The gold reward on texts judged by hand; pairs, Bradley-Terry and reward models."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from companion.core.seeds import make_generator
from companion.generation.texts import write_texts
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.preferences.comparisons import (
    Pairs,
    bradley_terry_nats,
    noisy_pairs,
    pairwise_accuracy,
)
from companion.preferences.gold_reward import quality_parts, quality_terms, review_quality
from companion.preferences.reward_models import (
    fit_bag_of_words,
    fit_gold_form,
    fit_lstm_reward,
    token_counts,
)
from companion.sources.reviews import GrammarSource
from companion.studies.runner import one_thread
from companion.text.rows import text_rows, word_counts


@pytest.fixture(scope="module")
def source() -> GrammarSource:
    return GrammarSource()


def rows(source: GrammarSource, *texts: str) -> torch.Tensor:
    return text_rows([torch.tensor(source.encode(text)) for text in texts])


# --- gold -----------------------------------------------------------------------------------------


def test_quality_is_its_formula_on_a_review_counted_by_hand(source: GrammarSource) -> None:
    short = "it is great . <end>"  # one good word, four words, nothing wrong
    mixed = "it is great . it is dull . i loves it . <end>"  # "i loves": a third is wrong
    found = review_quality(rows(source, short, mixed), source)
    expected = [3 * math.tanh(1 / 3), 3 * math.tanh(1 / 3) - 2 / 3]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_words_beyond_a_readers_patience_cost_and_praise_saturates(source: GrammarSource) -> None:
    sentence = "the film is great ."
    texts = [" ".join([sentence] * k) + " <end>" for k in (1, 4, 8)]
    parts = quality_parts(rows(source, *texts), source)
    assert parts.opinion.tolist() == [1, 4, 8]
    assert parts.words.tolist() == [5, 20, 40]
    # 4-grams of a text with period 5: all but the first five come a second time.
    assert parts.repetition.tolist() == pytest.approx([0, 1 - 5 / 17, 1 - 5 / 37])
    gold = review_quality(rows(source, *texts), source)
    assert gold[2] == pytest.approx(3 * math.tanh(8 / 3) - 0.05 * 20 - 3 * (1 - 5 / 37))


def test_an_unfinished_sentence_and_an_empty_text_are_ungrammatical(source: GrammarSource) -> None:
    whole = "it is great . the film"  # no end token: cut off
    texts = rows(source, whole, "<end>", "great great <end>", "it is great . <end>")
    assert quality_parts(texts, source).ungrammatical.tolist() == [0.5, 1, 1, 0]
    # Each sentence is judged alone: contradicting oneself is no fault of grammar.
    turn = rows(source, "it is great . it is dull . <end>")
    assert float(quality_parts(turn, source).ungrammatical) == 0


def test_the_sources_own_reviews_are_grammatical_and_padding_changes_nothing(
    source: GrammarSource,
) -> None:
    texts = source.sample(200, generator=make_generator(0))
    together = quality_parts(text_rows(texts), source)
    assert float(together.ungrammatical.max()) == 0
    assert together.words.tolist() == [len(text) - 1 for text in texts]
    alone = [float(review_quality(text[None], source)) for text in texts]
    assert review_quality(text_rows(texts), source).tolist() == pytest.approx(alone, abs=1e-12)


def test_texts_become_rows_and_are_cut_off(source: GrammarSource) -> None:
    texts = source.sample(20, generator=make_generator(1))
    for text, row in zip(texts, text_rows(texts), strict=True):
        assert torch.equal(text, row[: len(text)])
    cut = text_rows(texts, 3)
    assert cut.shape == (20, 3)
    assert word_counts(cut).tolist() == [3] * 20
    with pytest.raises(ValueError, match="one text or more"):
        text_rows([])


# --- pairs ----------------------------------------------------------------------------------------


def test_labels_follow_bradley_and_terry() -> None:
    texts, gold = torch.tensor([[1], [2]]), torch.tensor([0.0, 1.5])
    pairs = noisy_pairs(texts, gold, 20_000, temperature=0.5, generator=make_generator(0))
    share = float((pairs.chosen == 2).double().mean())
    expected = 1 / (1 + math.exp(-1.5 / 0.5))
    assert share == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 20_000))
    assert bool((pairs.chosen != pairs.rejected).all())


def test_a_judge_at_temperature_zero_never_errs_and_tosses_for_ties() -> None:
    texts, gold = torch.tensor([[1], [2], [3]]), torch.tensor([0.0, 1.0, 1.0])
    pairs = noisy_pairs(texts, gold, 4000, temperature=0, generator=make_generator(0))
    worse = torch.tensor([0.0, 0.0, 1.0, 1.0])[pairs.rejected[:, 0]]
    better = torch.tensor([0.0, 0.0, 1.0, 1.0])[pairs.chosen[:, 0]]
    assert bool((better >= worse).all())
    ties = pairs.chosen[(better == worse), 0]
    assert float((ties == 2).double().mean()) == pytest.approx(0.5, abs=0.06)


def test_wrong_pairs_are_refused() -> None:
    texts, gold = torch.tensor([[1], [2]]), torch.zeros(2)
    with pytest.raises(ValueError, match="two texts or more are needed"):
        noisy_pairs(texts[:1], gold[:1], 1, temperature=1, generator=make_generator(0))
    with pytest.raises(ValueError, match="num_pairs must be >= 1, got 0"):
        noisy_pairs(texts, gold, 0, temperature=1, generator=make_generator(0))
    with pytest.raises(ValueError, match="temperature must be >= 0, got -1"):
        noisy_pairs(texts, gold, 1, temperature=-1, generator=make_generator(0))
    with pytest.raises(ValueError, match="must both be"):
        # The check itself, since the annotations may refuse it first.
        Pairs.__post_init__(SimpleNamespace(chosen=texts, rejected=torch.ones(2, 2)))  # type: ignore[arg-type]


def test_bradley_terry_is_log_two_for_equals_and_exact_far_out() -> None:
    rewards = torch.tensor([0.0, 1000.0, -1000.0, 2.0])
    found = bradley_terry_nats(rewards, torch.zeros(4))
    expected = [math.log(2), 0, 1000, math.log1p(math.exp(-2))]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_pairwise_accuracy_counts_ties_as_half() -> None:
    assert pairwise_accuracy(torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 2.0])) == 0.5
    with pytest.raises(ValueError, match="one pair or more"):
        pairwise_accuracy(torch.zeros(0), torch.zeros(0))


# --- reward models --------------------------------------------------------------------------------


def some_pairs(num_pairs: int, temperature: float, seed: int = 0) -> tuple[Pairs, torch.Tensor]:
    """Texts of ten random tokens out of five and their pairs, the truth being additive."""
    generator = make_generator(seed)
    texts = torch.randint(1, 5, (500, 10), generator=generator)
    weights = torch.tensor([0.0, 1.0, -1.0, 0.5, -0.5])
    gold = weights[texts].sum(1)
    made = noisy_pairs(texts, gold, num_pairs, temperature=temperature, generator=generator)
    return made, weights


def test_counts_are_of_the_words_and_of_whether_the_text_ends() -> None:
    counts = token_counts(torch.tensor([[1, 1, 2, 0, 0], [3, 1, 3, 1, 2]]), 4)
    assert counts.tolist() == [[1, 2, 1, 0], [0, 2, 1, 2]]


@pytest.mark.parametrize("num_pairs", [1, 400])
def test_the_bag_of_words_is_where_the_gradient_of_its_loss_is_zero(num_pairs: int) -> None:
    """The loss is strictly convex, so that is its minimum: in float64, within rounding."""
    pairs, _ = some_pairs(num_pairs, temperature=1)
    weights = fit_bag_of_words(pairs, 5, penalty=0.7).weights.requires_grad_()
    rewards = (token_counts(side, 5) @ weights for side in (pairs.chosen, pairs.rejected))
    (bradley_terry_nats(*rewards).sum() + 0.7 / 2 * weights.square().sum()).backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    assert float(weights.grad.abs().max()) < 1e-7 * num_pairs


def test_the_bag_of_words_finds_an_additive_truth_and_more_pairs_bring_it_nearer() -> None:
    errors = []
    for num_pairs in (200, 20_000):
        pairs, truth = some_pairs(num_pairs, temperature=1, seed=3)
        weights = fit_bag_of_words(pairs, 5, penalty=1e-3).weights
        # Texts of one length: only differences of weights matter, so compare those.
        errors.append(float((weights[1:] - weights[1:].mean() - truth[1:]).abs().max()))
    assert errors[1] < 0.08 < errors[0]
    with pytest.raises(ValueError, match="penalty must be > 0, got 0"):
        fit_bag_of_words(pairs, 5, penalty=0)


def test_the_gold_form_finds_the_gold_rewards_weights(source: GrammarSource) -> None:
    """From 4,000 labels with errors; the errors of the weights are two or three times smaller."""
    generator = make_generator(0)
    texts = torch.randint(1, source.vocabulary_size, (2000, 40), generator=generator)
    lengths = torch.randint(1, 40, (2000, 1), generator=generator)
    texts = texts.masked_fill(torch.arange(40) >= lengths, 0)
    gold = review_quality(texts, source)
    pairs = noisy_pairs(texts, gold, 4000, temperature=1.0, generator=generator)
    found = fit_gold_form(pairs, source)
    assert found.weights[:2].tolist() == pytest.approx([3, -0.05], rel=0.15)
    torch.testing.assert_close(found(texts), quality_terms(texts, source) @ found.weights)
    with pytest.raises(ValueError, match="penalty must be > 0, got 0"):
        fit_gold_form(pairs, source, penalty=0)


def test_separable_labels_still_converge() -> None:
    pairs, _ = some_pairs(50, temperature=0)
    weights = fit_bag_of_words(pairs, 5, penalty=1e-6)
    assert pairwise_accuracy(weights(pairs.chosen), weights(pairs.rejected)) >= 0.95


def test_an_lstm_learns_an_order_that_a_bag_of_words_cannot_see() -> None:
    """Good texts have 1 before 2; counts are the same in both."""
    generator = make_generator(0)
    filler = torch.randint(3, 6, (600, 5), generator=generator)
    good, bad = filler.clone(), filler.clone()
    good[:, 1], good[:, 3], bad[:, 1], bad[:, 3] = 1, 2, 2, 1
    pairs = Pairs(chosen=good, rejected=bad)
    with one_thread():
        lstm = fit_lstm_reward(pairs, 6, seed=0, epochs=6, hidden_size=16)
    with torch.no_grad():
        assert pairwise_accuracy(lstm(good), lstm(bad)) > 0.95
    words = fit_bag_of_words(pairs, 6)
    assert pairwise_accuracy(words(good), words(bad)) == 0.5


def test_a_pair_in_a_last_short_batch_of_the_reward_weighs_what_any_other_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five equal pairs, four a step, at rate zero: gradients of 4/4 and 1/4, in either order."""
    norms: list[float] = []
    clip = torch.nn.utils.clip_grad_norm_

    def measured(*arguments: Any) -> torch.Tensor:
        norms.append(float(clip(*arguments)))
        return torch.tensor(norms[-1])

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", measured)
    pairs = Pairs(chosen=torch.tensor([[1, 2, 0]] * 5), rejected=torch.tensor([[3, 0, 0]] * 5))
    fit_lstm_reward(pairs, 4, seed=0, epochs=1, batch_size=4, learning_rate=0, hidden_size=8)
    assert max(norms) == pytest.approx(4 * min(norms), rel=1e-4)  # float32 sums


def test_an_lstm_reward_does_not_see_what_fills_up_a_row() -> None:
    torch.manual_seed(0)
    pairs, _ = some_pairs(10, temperature=1)
    lstm = fit_lstm_reward(pairs, 5, seed=0, epochs=1, hidden_size=8)
    texts = torch.tensor([[1, 2, 3, 0], [1, 2, 3, 4]])
    longer = torch.cat([texts, torch.zeros(2, 6, dtype=torch.long)], dim=1)
    with torch.no_grad():
        alone, beside = lstm(texts), lstm(longer)
        torch.testing.assert_close(alone[0], beside[0])
        # A text that was cut off is read to its last word; with room for its end, to its end.
        assert float(alone[1]) != pytest.approx(float(beside[1]), abs=1e-6)


def test_texts_of_a_model_have_its_probabilities() -> None:
    """Frequencies of whole texts of at most two tokens, within four standard errors."""
    torch.manual_seed(0)
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=3, hidden_size=8)).eval()
    texts = write_texts(model, 20_000, 2, generator=make_generator(0))
    with torch.no_grad():
        first = torch.softmax(model(torch.tensor([[0]]))[0][0, 0], dim=-1)
        for a in range(3):
            second = torch.softmax(model(torch.tensor([[0, a]]))[0][0, 1], dim=-1)
            for b in range(3):
                p = float(first[a]) * (float(second[b]) if a else float(b == 0))
                share = float(((texts[:, 0] == a) & (texts[:, 1] == b)).double().mean())
                assert share == pytest.approx(p, abs=4 * math.sqrt(0.25 / 20_000)), (a, b)
    with pytest.raises(ValueError, match=r"call model\.eval"):
        write_texts(model.train(), 1, 1, generator=make_generator(0))
    with pytest.raises(ValueError, match="num_texts must be >= 1, got 0"):
        write_texts(model.eval(), 0, 5, generator=make_generator(0))


def test_texts_of_a_model_are_filled_up_after_their_end() -> None:
    torch.manual_seed(0)
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=4, hidden_size=8)).eval()
    texts = write_texts(model, 50, 12, generator=make_generator(0))
    assert texts.shape[1] <= 12
    for row, count in zip(texts.tolist(), word_counts(texts).tolist(), strict=True):
        assert 0 not in row[:count]
        assert set(row[count:]) <= {0}
